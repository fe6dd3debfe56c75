//! Bills of materials: what is in an image, as SPDX 2.3 and CycloneDX 1.6 (image.md, chapter 15).
//!
//! Both say the same, from one [`Inventory`]. Identifiers come from content alone and lists are
//! sorted: the same image gives the same bytes.

mod cyclonedx;
mod spdx;

pub use spdx::index_spdx;

use super::error::ImageError;
use super::{BuiltImage, Document};
use crate::package::Package;
use crate::root::{Root, tree::EntryKind};
use serde_json::{Map, Value};
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
    /// Its identity is of the v3 form, and no SHA-1.
    pub v3: bool,
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
    /// The identity is of the v3 form, and no SHA-1.
    v3: bool,
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
            // Packages without files have no flag in the database.
            v3: (subject.provenance.get(&package.name)).is_some_and(|from| from.v3)
                || (image.installed.by_identity(package.identity)).is_some_and(|p| p.sha256_160),
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
    ::spdx::Expression::parse(text).is_ok()
}

fn is_url(text: &str) -> bool {
    let scheme = ["http://", "https://", "ftp://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    scheme && url::Url::parse(text).is_ok()
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
    use serde_json::json;

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
}
