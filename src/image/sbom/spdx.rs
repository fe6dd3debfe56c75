//! The bill as SPDX 2.3.

use super::{
    BuiltImage, Component, Document, Inventory, NAMESPACE, is_expression, is_url, plain, pretty,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

impl Inventory {
    /// Returns the bill as SPDX 2.3.
    pub fn spdx(&self) -> Vec<u8> {
        let mut document = Spdx::default();
        let image = "SPDXRef-Package-image".to_owned();
        document.relate("SPDXRef-DOCUMENT", "DESCRIBES", &image);
        let mut container = blob(&image, &self.manifest, "CONTAINER");
        container["externalRefs"] = json!([purl_reference(&self.image_purl())]);
        document.packages.push(container);
        let mut layers = Vec::new();
        for stratum in &self.layers {
            let id = format!("SPDXRef-Package-layer-{}", stratum.digest);
            let mut layer = blob(&id, &stratum.digest, "ARCHIVE");
            layer["comment"] = stratum.media_type.as_str().into();
            document.packages.push(layer);
            document.relate(&image, "CONTAINS", &id);
            layers.push(id);
        }
        if let Some(id) = &self.system.id {
            const ELEMENT: &str = "SPDXRef-OperatingSystem";
            let version = self.system.version.as_deref().unwrap_or("unknown");
            let system = element(ELEMENT, id, version, "OPERATING-SYSTEM");
            document.packages.push(system);
            document.relate(&image, "CONTAINS", ELEMENT);
        }
        if let Some(source) = &self.source {
            const ELEMENT: &str = "SPDXRef-Source";
            let (url, commit) = source.rsplit_once('@').unwrap_or((source, "unknown"));
            let mut source = element(ELEMENT, url, commit, "SOURCE");
            source["downloadLocation"] = vcs_location(url, commit).into();
            document.packages.push(source);
            document.relate(&image, "GENERATED_FROM", ELEMENT);
        }
        let ids: Vec<String> = self.components.iter().map(Component::spdx_id).collect();
        for (component, id) in self.components.iter().zip(&ids) {
            document.component(component, id);
            document.relate(&image, "CONTAINS", id);
            for need in &component.needs {
                document.relate(id, "DEPENDS_ON", &ids[*need]);
            }
        }
        for (stratum, id) in self.layers.iter().zip(&layers) {
            for component in &stratum.components {
                document.relate(id, "CONTAINS", &ids[*component]);
            }
        }
        for file in &self.files {
            let id = format!("SPDXRef-File-{}-{}", plain(&file.path), &file.sha256[..8]);
            document.files.push(json!({
                "SPDXID": id,
                "fileName": format!("./{}", file.path),
                "checksums": [checksum("SHA1", &file.sha1), checksum("SHA256", &file.sha256)],
                "licenseConcluded": "NOASSERTION",
                "licenseInfoInFiles": ["NOASSERTION"],
                "copyrightText": "NOASSERTION",
            }));
            // A package whose files are not all listed must contain none, so the document has them.
            document.relate("SPDXRef-DOCUMENT", "DESCRIBES", &id);
        }
        for embedded in &self.embedded {
            document.packages.extend(embedded.packages.iter().cloned());
            for license in &embedded.licenses {
                document.license_value(license.clone());
            }
            for root in &embedded.roots {
                document.relate(&ids[embedded.component], "CONTAINS", root);
            }
            for (from, kind, to) in &embedded.relations {
                document.relate(from, kind, to);
            }
        }
        document.finish(
            &format!("sbom-sha256:{}", self.manifest),
            &format!("{NAMESPACE}/image/{}", self.manifest),
            &self.created,
            &self.tool,
        )
    }
}

/// Returns the bill of an index: the images it holds (SPDX 2.3).
pub fn index_spdx(index: &Document, images: &[BuiltImage], tool: &str) -> Vec<u8> {
    let mut document = Spdx::default();
    let digest = index.descriptor.hex();
    let top = "SPDXRef-Package-index".to_owned();
    let element = |id: &str, digest: &str, comment: &str| {
        let mut element = blob(id, digest, "CONTAINER");
        element["comment"] = comment.into();
        element
    };
    document
        .packages
        .push(element(&top, digest, &index.descriptor.media_type));
    document.relate("SPDXRef-DOCUMENT", "DESCRIBES", &top);
    for image in images {
        let digest = image.manifest.descriptor.hex();
        let id = format!("SPDXRef-Package-image-{digest}");
        document
            .packages
            .push(element(&id, digest, &image.architecture));
        document.relate(&id, "VARIANT_OF", &top);
    }
    let latest = images
        .iter()
        .map(|image| image.build_time)
        .max()
        .unwrap_or(0);
    document.finish(
        &format!("sbom-sha256:{digest}"),
        &format!("{NAMESPACE}/index/{digest}"),
        &crate::image::oci::time_text(latest),
        tool,
    )
}

/// An SPDX document that grows.
#[derive(Default)]
struct Spdx {
    packages: Vec<Value>,
    files: Vec<Value>,
    relations: BTreeSet<(String, String, String)>,
    licenses: BTreeMap<String, Value>,
}

impl Spdx {
    fn relate(&mut self, from: &str, kind: &str, to: &str) {
        self.relations
            .insert((from.to_owned(), kind.to_owned(), to.to_owned()));
    }

    fn license_value(&mut self, license: Value) {
        if let Some(id) = license["licenseId"].as_str() {
            self.licenses.entry(id.to_owned()).or_insert(license);
        }
    }

    /// Returns what a package's licence text is in SPDX' words.
    fn license(&mut self, text: &str) -> String {
        let text = text.trim();
        if text.is_empty() {
            return "NOASSERTION".to_owned();
        }
        if is_expression(text) {
            return text.to_owned();
        }
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..4]);
        let id = format!("LicenseRef-{}-{digest}", plain(text));
        self.license_value(json!({ "licenseId": id, "extractedText": text, "name": text }));
        id
    }

    fn component(&mut self, component: &Component, id: &str) {
        let package = &component.package;
        let license = self.license(&package.license);
        let mut sums = Vec::new();
        if !component.v3 {
            sums.push(checksum("SHA1", &package.identity.hex()));
        }
        sums.extend(
            component
                .provenance
                .sha256
                .as_ref()
                .map(|sha| checksum("SHA256", sha)),
        );
        let origin = package.origin.as_deref().unwrap_or(&package.name);
        let mut from = format!("built from {origin}");
        if let Some(commit) = package
            .commit
            .as_deref()
            .filter(|commit| !commit.is_empty())
        {
            from.push_str(&format!(" at commit {commit}"));
        }
        let mut value = element(id, &package.name, &package.version, "INSTALL");
        value["downloadLocation"] = location(&component.provenance.url).into();
        value["licenseDeclared"] = license.into();
        value["supplier"] = person(package.maintainer.as_deref()).into();
        value["originator"] = person(package.maintainer.as_deref()).into();
        value["sourceInfo"] = from.into();
        value["checksums"] = sums.into();
        value["externalRefs"] = json!([purl_reference(&component.purl)]);
        if !package.description.is_empty() {
            value["summary"] = package.description.as_str().into();
        }
        if is_url(&package.url) {
            value["homepage"] = package.url.as_str().into();
        }
        self.packages.push(value);
        if origin != package.name {
            // The source package is an element of its own only by name: several come from one.
            let version = &package.version;
            let source = format!("SPDXRef-Origin-{}-{}", plain(origin), plain(version));
            let known = self
                .packages
                .iter()
                .any(|one| one["SPDXID"] == source.as_str());
            if !known {
                self.packages
                    .push(element(&source, origin, version, "SOURCE"));
            }
            self.relate(id, "GENERATED_FROM", &source);
        }
    }

    fn finish(self, name: &str, namespace: &str, created: &str, tool: &str) -> Vec<u8> {
        let relations = self.relations.into_iter().map(|(from, kind, to)| {
            json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
        });
        let mut packages = self.packages;
        packages.sort_by(|a, b| a["SPDXID"].as_str().cmp(&b["SPDXID"].as_str()));
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": namespace,
            "creationInfo": { "created": created, "creators": [format!("Tool: {tool}")] },
            "packages": packages,
            "files": self.files,
            "relationships": relations.collect::<Vec<_>>(),
        });
        if !self.licenses.is_empty() {
            let licenses: Vec<Value> = self.licenses.into_values().collect();
            document["hasExtractedLicensingInfos"] = licenses.into();
        }
        pretty(&document)
    }
}

/// Makes a package of which nothing more is said.
fn element(id: &str, name: &str, version: &str, purpose: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": purpose,
    })
}

/// Makes a package that is a blob.
fn blob(id: &str, digest: &str, purpose: &str) -> Value {
    let name = format!("sha256:{digest}");
    let mut blob = element(id, &name, &name, purpose);
    blob["checksums"] = json!([checksum("SHA256", digest)]);
    blob
}

impl Component {
    fn spdx_id(&self) -> String {
        // The identity makes it unique whatever characters the name loses.
        let package = &self.package;
        let identity = package.identity.hex();
        format!(
            "SPDXRef-Package-{}-{}-{}",
            plain(&package.name),
            plain(&package.version),
            &identity[..8]
        )
    }
}

fn location(url: &str) -> String {
    match is_url(url) {
        true => url.to_owned(),
        false => "NOASSERTION".to_owned(),
    }
}

fn vcs_location(url: &str, commit: &str) -> String {
    match is_url(url) {
        true => format!("git+{url}@{commit}"),
        false => "NOASSERTION".to_owned(),
    }
}

/// Writes `Name <address>` as SPDX does.
fn person(text: Option<&str>) -> String {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return "NOASSERTION".to_owned();
    };
    match text.strip_suffix('>').and_then(|text| text.split_once('<')) {
        Some((name, address)) if !name.trim().is_empty() && !name.contains(['(', ')']) => {
            format!("Person: {} ({address})", name.trim())
        }
        Some((_, address)) => format!("Person: {}", address.trim()),
        None => format!("Organization: {}", text.replace(['(', ')'], " ").trim()),
    }
}

fn checksum(algorithm: &str, value: &str) -> Value {
    json!({ "algorithm": algorithm, "checksumValue": value })
}

fn purl_reference(purl: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_licences() {
        for (text, wanted) in [
            (Some("A B <a@b.c>"), "Person: A B (a@b.c)"),
            (Some("<a@b.c>"), "Person: a@b.c"),
            (Some("Team"), "Organization: Team"),
            (Some(" "), "NOASSERTION"),
            (None, "NOASSERTION"),
        ] {
            assert_eq!(person(text), wanted);
        }
        let mut document = Spdx::default();
        assert_eq!(
            document.license("GPL-2.0-only AND MIT"),
            "GPL-2.0-only AND MIT"
        );
        assert_eq!(document.license(""), "NOASSERTION");
        let custom = document.license("custom: see (LICENSE)");
        assert!(
            custom.starts_with("LicenseRef-custom--see--LICENSE--"),
            "{custom}"
        );
        assert_eq!(document.licenses.len(), 1);
    }
}
