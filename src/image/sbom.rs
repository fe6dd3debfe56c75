//! Bills of materials: what is in an image, as SPDX 2.3 and CycloneDX 1.6 (image.md, chapter 15).
//!
//! Both say the same, from one [`Inventory`]. Identifiers come from content alone and lists are
//! sorted: the same image gives the same bytes.

use super::error::ImageError;
use super::{BuiltImage, Document};
use crate::package::Package;
use crate::root::{Root, tree::EntryKind};
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Where packages keep bills of their own.
const EMBEDDED: &str = "var/lib/db/sbom";

/// The namespace of documents; it need not lead anywhere.
const NAMESPACE: &str = "https://spdx.org/spdxdocs/ibex";

/// What is known of a package beside what the database says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Its address, without credentials.
    pub url: String,
    /// SHA-256 of its file, in hexadecimal, if it has one.
    pub sha256: Option<String>,
}

/// What an inventory is made from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The image.
    pub image: &'a BuiltImage,
    /// Its name without a tag.
    pub name: &'a str,
    /// Where each package came from, by name.
    pub provenance: &'a BTreeMap<String, Provenance>,
    /// The source of the description, as `URL@COMMIT`.
    pub source: Option<&'a str>,
    /// Files of the user's own, which may stand in place of a package's.
    pub added: &'a [String],
    /// Who makes the bill, as `ibex-1.0.0`.
    pub tool: &'a str,
}

/// What is in an image.
#[derive(Clone, Debug)]
pub struct Inventory {
    name: String,
    tool: String,
    created: String,
    manifest: String,
    manifest_type: String,
    architecture: String,
    system: System,
    source: Option<String>,
    layers: Vec<Stratum>,
    components: Vec<Component>,
    files: Vec<LooseFile>,
    embedded: Vec<Embedded>,
    /// What was damaged and left out, a line each.
    pub warnings: Vec<String>,
}

/// The operating system by `os-release`.
#[derive(Clone, Debug, Default)]
struct System {
    id: Option<String>,
    version: Option<String>,
    name: Option<String>,
}

#[derive(Clone, Debug)]
struct Stratum {
    digest: String,
    media_type: String,
    /// Numbers of components.
    components: Vec<usize>,
}

/// An installed package.
#[derive(Clone, Debug)]
struct Component {
    package: Package,
    provenance: Provenance,
    purl: String,
    /// Numbers of the components it needs.
    needs: Vec<usize>,
}

/// A file that no package has.
#[derive(Clone, Debug)]
struct LooseFile {
    path: String,
    sha1: String,
    sha256: String,
}

/// A bill that a package brings: elements without files, below one component.
#[derive(Clone, Debug)]
struct Embedded {
    component: usize,
    packages: Vec<Value>,
    licenses: Vec<Value>,
    roots: Vec<String>,
    relations: Vec<(String, String, String)>,
}

impl Inventory {
    /// Looks at an image.
    ///
    /// # Errors
    /// [`ImageError`] if its tree cannot be read.
    pub fn new(subject: &Subject<'_>) -> Result<Self, ImageError> {
        let image = subject.image;
        let system = System::of(&image.root)?;
        let packages: Vec<&Package> = image
            .installed
            .packages
            .iter()
            .map(|p| &p.package)
            .collect();
        let vendor = system.vendor(subject.provenance);
        let component = |package: &&Package| Component {
            package: (*package).clone(),
            provenance: subject
                .provenance
                .get(&package.name)
                .cloned()
                .unwrap_or_default(),
            purl: purl(package, &vendor, &system, &image.architecture),
            needs: needs(package, &packages),
        };
        let components: Vec<Component> = packages.iter().map(component).collect();
        let layers = image.layers.iter().map(|layer| Stratum {
            digest: layer.descriptor.hex().to_owned(),
            media_type: layer.descriptor.media_type.clone(),
            components: (packages.iter().enumerate())
                .filter(|(_, package)| layer.packages.contains(&package.name))
                .map(|(at, _)| at)
                .collect(),
        });
        let mut inventory = Self {
            name: subject.name.to_owned(),
            tool: subject.tool.to_owned(),
            created: super::oci::time_text(image.build_time),
            manifest: image.manifest.descriptor.hex().to_owned(),
            manifest_type: image.manifest.descriptor.media_type.clone(),
            architecture: image.platform.architecture.clone(),
            layers: layers.collect(),
            system,
            source: subject.source.map(str::to_owned),
            components,
            files: loose_files(image, subject.added)?,
            embedded: Vec::new(),
            warnings: Vec::new(),
        };
        inventory.take_embedded(&image.root)?;
        Ok(inventory)
    }

    /// Reads the bills that packages bring.
    fn take_embedded(&mut self, root: &Root) -> Result<(), ImageError> {
        let names = root.list(EMBEDDED)?;
        let names: HashSet<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        for at in 0..self.components.len() {
            let package = &self.components[at].package;
            let full = package.full_name();
            let short = full
                .rsplit_once("-r")
                .map_or(full.as_str(), |(short, _)| short);
            let candidates =
                [full.as_str(), short, &package.name].map(|stem| format!("{stem}.spdx.json"));
            let Some(found) = candidates.iter().find(|name| names.contains(name.as_str())) else {
                continue;
            };
            let path = format!("{EMBEDDED}/{found}");
            let bytes = root.read(&path)?.unwrap_or_default();
            match Embedded::read(at, &full, &bytes) {
                Some(embedded) => self.embedded.push(embedded),
                None => self
                    .warnings
                    .push(format!("/{path} is no SPDX document; it was left out")),
            }
        }
        Ok(())
    }

    /// Returns the bill as SPDX 2.3.
    pub fn spdx(&self) -> Vec<u8> {
        let mut document = Spdx::default();
        let image = "SPDXRef-Package-image".to_owned();
        document.relate("SPDXRef-DOCUMENT", "DESCRIBES", &image);
        document.packages.push(json!({
            "SPDXID": image,
            "name": format!("sha256:{}", self.manifest),
            "versionInfo": format!("sha256:{}", self.manifest),
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "CONTAINER",
            "checksums": [checksum("SHA256", &self.manifest)],
            "externalRefs": [purl_reference(&self.image_purl())],
        }));
        let mut layers = Vec::new();
        for stratum in &self.layers {
            let id = format!("SPDXRef-Package-layer-{}", stratum.digest);
            document.packages.push(json!({
                "SPDXID": id,
                "name": format!("sha256:{}", stratum.digest),
                "versionInfo": format!("sha256:{}", stratum.digest),
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "copyrightText": "NOASSERTION",
                "primaryPackagePurpose": "ARCHIVE",
                "comment": stratum.media_type,
                "checksums": [checksum("SHA256", &stratum.digest)],
            }));
            document.relate(&image, "CONTAINS", &id);
            layers.push(id);
        }
        if let Some(id) = &self.system.id {
            let element = "SPDXRef-OperatingSystem".to_owned();
            document.packages.push(json!({
                "SPDXID": element,
                "name": id,
                "versionInfo": self.system.version.as_deref().unwrap_or("unknown"),
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "copyrightText": "NOASSERTION",
                "primaryPackagePurpose": "OPERATING-SYSTEM",
            }));
            document.relate(&image, "CONTAINS", &element);
        }
        if let Some(source) = &self.source {
            let element = "SPDXRef-Source".to_owned();
            let (url, commit) = source.rsplit_once('@').unwrap_or((source, "unknown"));
            document.packages.push(json!({
                "SPDXID": element,
                "name": url,
                "versionInfo": commit,
                "downloadLocation": vcs_location(url, commit),
                "filesAnalyzed": false,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "copyrightText": "NOASSERTION",
                "primaryPackagePurpose": "SOURCE",
            }));
            document.relate(&image, "GENERATED_FROM", &element);
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

    fn image_purl(&self) -> String {
        let (repository, name) = match self.name.rsplit_once('/') {
            Some((_, name)) => (Some(self.name.as_str()), name),
            None => (None, self.name.as_str()),
        };
        let mut purl = format!(
            "pkg:oci/{}@sha256%3A{}?arch={}&mediaType={}&os=linux",
            encoded(&name.to_lowercase()),
            self.manifest,
            encoded(&self.architecture),
            encoded(&self.manifest_type)
        );
        if let Some(repository) = repository {
            purl.push_str(&format!("&repository_url={}", encoded(repository)));
        }
        purl
    }
}

/// Returns the bill of an index: the images it holds (SPDX 2.3).
pub fn index_spdx(index: &Document, images: &[BuiltImage], tool: &str) -> Vec<u8> {
    let mut document = Spdx::default();
    let digest = index.descriptor.hex();
    let top = "SPDXRef-Package-index".to_owned();
    let element = |id: &str, digest: &str, comment: &str| {
        json!({
            "SPDXID": id,
            "name": format!("sha256:{digest}"),
            "versionInfo": format!("sha256:{digest}"),
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "CONTAINER",
            "comment": comment,
            "checksums": [checksum("SHA256", digest)],
        })
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
        &super::oci::time_text(latest),
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
        let mut sums = vec![checksum("SHA1", &package.identity.hex())];
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
        let mut value = json!({
            "SPDXID": id,
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": location(&component.provenance.url),
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": license,
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "INSTALL",
            "supplier": person(package.maintainer.as_deref()),
            "originator": person(package.maintainer.as_deref()),
            "sourceInfo": from,
            "checksums": sums,
            "externalRefs": [purl_reference(&component.purl)],
        });
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
                self.packages.push(json!({
                    "SPDXID": source,
                    "name": origin,
                    "versionInfo": version,
                    "downloadLocation": "NOASSERTION",
                    "filesAnalyzed": false,
                    "licenseConcluded": "NOASSERTION",
                    "licenseDeclared": "NOASSERTION",
                    "copyrightText": "NOASSERTION",
                    "primaryPackagePurpose": "SOURCE",
                }));
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

    fn bom_ref(&self) -> String {
        format!("{}#{}", self.purl, &self.package.identity.hex()[..8])
    }

    fn cyclonedx(&self, reference: &str) -> Value {
        let package = &self.package;
        let mut hashes = vec![hash("SHA-1", &package.identity.hex())];
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

impl System {
    fn of(root: &Root) -> Result<Self, ImageError> {
        let mut system = Self::default();
        let mut text = root.read("etc/os-release")?;
        if text.is_none() {
            text = root.read("usr/lib/os-release")?;
        }
        let Some(text) = text else {
            return Ok(system);
        };
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches(['"', '\'']);
            let value = (!value.is_empty()).then(|| value.to_owned());
            match key.trim() {
                "ID" => system.id = value,
                "VERSION_ID" => system.version = value,
                "PRETTY_NAME" => system.name = value,
                _ => {}
            }
        }
        Ok(system)
    }

    /// Returns who distributes the packages: by `os-release`, else by where they came from.
    fn vendor(&self, provenance: &BTreeMap<String, Provenance>) -> String {
        if let Some(id) = &self.id {
            return id.to_lowercase();
        }
        let urls: Vec<&str> = provenance.values().map(|one| one.url.as_str()).collect();
        let has = |word: &str| urls.iter().any(|url| url.contains(word));
        let known = [
            ("alpine", "/alpine/"),
            ("wolfi", "wolfi"),
            ("chainguard", "cgr.dev"),
        ];
        let found = known.iter().find(|(_, word)| has(word));
        found.map_or("unknown", |(vendor, _)| vendor).to_owned()
    }
}

impl Embedded {
    /// Reads a bill; `None` if it is none.
    fn read(component: usize, full_name: &str, bytes: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
        let own = text(&document, "SPDXID")?;
        let prefix = format!("SPDXRef-Embedded-{}-", plain(full_name));
        let renamed = |id: &str| format!("{prefix}{}", plain(id.trim_start_matches("SPDXRef-")));
        let mut relations = Vec::new();
        let empty = Vec::new();
        for relation in document["relationships"].as_array().unwrap_or(&empty) {
            relations.push((
                text(relation, "spdxElementId")?,
                text(relation, "relationshipType")?,
                text(relation, "relatedSpdxElement")?,
            ));
        }
        let mut described: Vec<String> =
            (document["documentDescribes"].as_array().unwrap_or(&empty))
                .iter()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect();
        let describes = relations
            .iter()
            .filter(|(from, kind, _)| *from == own && kind == "DESCRIBES");
        described.extend(describes.map(|(_, _, to)| to.clone()));
        // Everything that can be reached from what is described, files aside.
        let known: BTreeMap<String, &Value> = (document["packages"].as_array().unwrap_or(&empty))
            .iter()
            .filter_map(|package| Some((text(package, "SPDXID")?, package)))
            .collect();
        let mut reached: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<String> = described
            .iter()
            .filter(|id| known.contains_key(*id))
            .cloned()
            .collect();
        while let Some(id) = open.pop() {
            if reached.insert(id.clone()) {
                let next = relations
                    .iter()
                    .filter(|(from, _, to)| *from == id && known.contains_key(to));
                open.extend(next.map(|(_, _, to)| to.clone()));
            }
        }
        let licenses = document["hasExtractedLicensingInfos"]
            .as_array()
            .unwrap_or(&empty);
        let packages = reached.iter().map(|id| {
            let mut package = (*known[id]).clone();
            package["SPDXID"] = renamed(id).into();
            if let Some(object) = package.as_object_mut() {
                // Its files are not taken over, so nothing may point to them.
                object.remove("hasFiles");
                object.remove("packageVerificationCode");
                object.insert("filesAnalyzed".to_owned(), false.into());
            }
            package
        });
        let roots: BTreeSet<&String> = described
            .iter()
            .filter(|id| reached.contains(*id))
            .collect();
        Some(Self {
            component,
            packages: packages.collect(),
            licenses: licenses.clone(),
            roots: roots.into_iter().map(|id| renamed(id)).collect(),
            relations: (relations.iter())
                .filter(|(from, _, to)| reached.contains(from) && reached.contains(to))
                .map(|(from, kind, to)| (renamed(from), kind.clone(), renamed(to)))
                .collect(),
        })
    }
}

/// Returns the packages that a package needs, by number, each once.
fn needs(package: &Package, all: &[&Package]) -> Vec<usize> {
    let mut needs = BTreeSet::new();
    for dependency in &package.depends {
        for (at, other) in all.iter().enumerate() {
            if other.name != package.name && other.answers(dependency) {
                needs.insert(at);
            }
        }
    }
    needs.into_iter().collect()
}

/// Returns the regular files that no package has.
fn loose_files(image: &BuiltImage, added: &[String]) -> Result<Vec<LooseFile>, ImageError> {
    let mut owned = HashSet::new();
    for package in &image.installed.packages {
        for directory in &package.directories {
            for file in &directory.files {
                owned.insert(match directory.path.as_str() {
                    "" => file.name.clone(),
                    folder => format!("{folder}/{}", file.name),
                });
            }
        }
    }
    let Some(tree) = image.root.tree() else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in tree.entries() {
        let packaged = owned.contains(&entry.path) && !added.contains(&entry.path);
        if packaged || !matches!(entry.kind, EntryKind::File(_)) {
            continue;
        }
        let bytes = image.root.read(&entry.path)?.unwrap_or_default();
        files.push(LooseFile {
            sha1: data_encoding::HEXLOWER.encode(&Sha1::digest(&bytes)),
            sha256: data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes)),
            path: entry.path,
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Returns the package URL of an apk (image.md, 15.4).
fn purl(package: &Package, vendor: &str, system: &System, architecture: &str) -> String {
    let arch = package.arch.as_deref().unwrap_or(architecture);
    let mut qualifiers = vec![format!("arch={}", encoded(arch))];
    if let (Some(id), Some(version)) = (&system.id, &system.version) {
        qualifiers.push(format!("distro={}", encoded(&format!("{id}-{version}"))));
    }
    if let Some(origin) = package
        .origin
        .as_ref()
        .filter(|origin| **origin != package.name)
    {
        qualifiers.push(format!("origin={}", encoded(origin)));
    }
    format!(
        "pkg:apk/{}/{}@{}?{}",
        encoded(vendor),
        encoded(&package.name.to_lowercase()),
        encoded(&package.version),
        qualifiers.join("&")
    )
}

/// Percent-encodes what a package URL must not have as it is.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Replaces what an SPDX identifier must not have.
fn plain(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect()
}

fn is_expression(text: &str) -> bool {
    spdx::Expression::parse(text).is_ok()
}

fn is_url(text: &str) -> bool {
    let scheme = ["http://", "https://", "ftp://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    scheme && url::Url::parse(text).is_ok()
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

fn hash(algorithm: &str, value: &str) -> Value {
    json!({ "alg": algorithm, "content": value })
}

fn purl_reference(purl: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    })
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

fn pretty(document: &Value) -> Vec<u8> {
    let _: &Map<String, Value> = document.as_object().expect("a document is an object");
    let mut bytes = serde_json::to_vec_pretty(document).expect("a value can be written");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls() {
        let system = System {
            id: Some("alpine".to_owned()),
            version: Some("3.19.1".to_owned()),
            name: None,
        };
        let package = Package {
            name: "Lib++".to_owned(),
            version: "1.2+git-r0".to_owned(),
            arch: Some("x86_64".to_owned()),
            origin: Some("lib".to_owned()),
            ..Package::default()
        };
        assert_eq!(
            purl(&package, "alpine", &system, "x86_64"),
            "pkg:apk/alpine/lib%2B%2B@1.2%2Bgit-r0?arch=x86_64&distro=alpine-3.19.1&origin=lib"
        );
    }

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

    #[test]
    fn embedded_bills() {
        let text = json!({
            "SPDXID": "SPDXRef-DOCUMENT",
            "packages": [
                { "SPDXID": "SPDXRef-a", "name": "a", "hasFiles": ["SPDXRef-f"] },
                { "SPDXID": "SPDXRef-b", "name": "b" },
                { "SPDXID": "SPDXRef-lost", "name": "lost" },
            ],
            "relationships": [
                { "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-a" },
                { "spdxElementId": "SPDXRef-a", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-b" },
                { "spdxElementId": "SPDXRef-a", "relationshipType": "CONTAINS", "relatedSpdxElement": "SPDXRef-f" },
            ],
        });
        let embedded = Embedded::read(0, "p-1-r0", text.to_string().as_bytes()).expect("a bill");
        assert_eq!(embedded.packages.len(), 2);
        assert_eq!(embedded.roots, ["SPDXRef-Embedded-p-1-r0-a"]);
        assert_eq!(embedded.relations.len(), 1);
        assert!(embedded.packages[0].get("hasFiles").is_none());
        for damaged in [
            &b""[..],
            b"{}",
            b"[",
            br#"{"SPDXID": "x", "relationships": [1]}"#,
        ] {
            assert!(Embedded::read(0, "p", damaged).is_none());
        }
    }

    #[test]
    fn identifiers_do_not_change() {
        assert_eq!(name_uuid("00"), name_uuid("00"));
        assert_ne!(name_uuid("00"), name_uuid("01"));
        assert_eq!(&name_uuid("00")[14..15], "5");
        assert_eq!(plain("a+b_c.1"), "a-b-c.1");
    }
}
