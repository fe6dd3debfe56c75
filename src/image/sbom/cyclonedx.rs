//! The bill as CycloneDX 1.6.

use super::{Component, Inventory, NAMESPACE, is_expression, is_url, pretty};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use std::collections::BTreeSet;

impl Inventory {
    /// Returns the bill as CycloneDX 1.6.
    pub fn cyclonedx(&self) -> Vec<u8> {
        let image = self.image_purl();
        let mut components = Vec::new();
        if let Some(id) = &self.system.id {
            let mut system =
                json!({ "type": "operating-system", "bom-ref": "operating-system", "name": id });
            if let Some(version) = &self.system.version {
                system["version"] = version.as_str().into();
            }
            if let Some(name) = &self.system.name {
                system["description"] = name.as_str().into();
            }
            components.push(system);
        }
        let refs: Vec<String> = self.components.iter().map(Component::bom_ref).collect();
        let mut dependencies = vec![json!({ "ref": image, "dependsOn": sorted(&refs) })];
        for (component, reference) in self.components.iter().zip(&refs) {
            components.push(component.cyclonedx(reference));
            let needs: Vec<String> = component
                .needs
                .iter()
                .map(|need| refs[*need].clone())
                .collect();
            dependencies.push(json!({ "ref": reference, "dependsOn": sorted(&needs) }));
        }
        for file in &self.files {
            components.push(json!({
                "type": "file",
                "bom-ref": format!("file:/{}", file.path),
                "name": format!("/{}", file.path),
                "hashes": [hash("SHA-1", &file.sha1), hash("SHA-256", &file.sha256)],
            }));
        }
        let properties: Vec<Value> = (self.layers.iter())
            .map(|layer| json!({ "name": "ibex:layer", "value": format!("sha256:{}", layer.digest) }))
            .collect();
        let (tool, version) = self.tool.rsplit_once('-').unwrap_or((&self.tool, ""));
        let mut subject = json!({
            "type": "container",
            "bom-ref": image,
            "name": self.name,
            "version": format!("sha256:{}", self.manifest),
            "purl": image,
            "hashes": [hash("SHA-256", &self.manifest)],
            "properties": properties,
        });
        if let Some(source) = &self.source {
            let (url, _) = source.rsplit_once('@').unwrap_or((source, ""));
            subject["externalReferences"] = json!([{ "type": "vcs", "url": url }]);
        }
        let document = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": format!("urn:uuid:{}", name_uuid(&self.manifest)),
            "version": 1,
            "metadata": {
                "timestamp": self.created,
                "tools": { "components": [{ "type": "application", "name": tool, "version": version }] },
                "component": subject,
            },
            "components": components,
            "dependencies": dependencies,
        });
        pretty(&document)
    }
}

impl Component {
    fn bom_ref(&self) -> String {
        format!("{}#{}", self.purl, &self.package.identity.hex()[..8])
    }

    fn cyclonedx(&self, reference: &str) -> Value {
        let package = &self.package;
        let mut hashes = Vec::new();
        if !self.v3 {
            hashes.push(hash("SHA-1", &package.identity.hex()));
        }
        hashes.extend(
            self.provenance
                .sha256
                .as_ref()
                .map(|sha| hash("SHA-256", sha)),
        );
        let mut value = json!({
            "type": "library",
            "bom-ref": reference,
            "name": package.name,
            "version": package.version,
            "hashes": hashes,
            "purl": self.purl,
        });
        let text = |value: &mut Value, key: &str, text: &str| {
            if !text.is_empty() {
                value[key] = text.into();
            }
        };
        text(&mut value, "description", &package.description);
        if let Some(maintainer) = &package.maintainer {
            value["supplier"] = json!({ "name": maintainer });
        }
        let license = package.license.trim();
        if !license.is_empty() {
            value["licenses"] = match is_expression(license) {
                true => json!([{ "expression": license }]),
                false => json!([{ "license": { "name": license } }]),
            };
        }
        let mut references = Vec::new();
        if is_url(&package.url) {
            references.push(json!({ "type": "website", "url": package.url }));
        }
        if is_url(&self.provenance.url) {
            references.push(json!({ "type": "distribution", "url": self.provenance.url }));
        }
        if !references.is_empty() {
            value["externalReferences"] = references.into();
        }
        let mut properties = Vec::new();
        let mut property = |name: &str, value: Option<&str>| {
            let value = value.filter(|value| !value.is_empty());
            properties.extend(value.map(|value| json!({ "name": name, "value": value })));
        };
        property("ibex:origin", package.origin.as_deref());
        property("ibex:commit", package.commit.as_deref());
        if !properties.is_empty() {
            value["properties"] = properties.into();
        }
        value
    }
}

fn hash(algorithm: &str, value: &str) -> Value {
    json!({ "alg": algorithm, "content": value })
}

fn sorted(list: &[String]) -> Vec<&String> {
    list.iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the name-based UUID (version 5, URL namespace) of a digest.
fn name_uuid(digest: &str) -> String {
    const URL: [u8; 16] = [
        0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30,
        0xc8,
    ];
    let mut sha = Sha1::new();
    sha.update(URL);
    sha.update(format!("{NAMESPACE}/image/{digest}"));
    let mut bytes: [u8; 20] = sha.finalize().into();
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes[..16]);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_do_not_change() {
        assert_eq!(name_uuid("00"), name_uuid("00"));
        assert_ne!(name_uuid("00"), name_uuid("01"));
        assert_eq!(&name_uuid("00")[14..15], "5");
    }
}
