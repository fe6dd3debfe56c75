//! The documents of an image: configuration, manifest, index (image.md, chapter 9).
//!
//! Compact JSON with keys in a fixed order, no line break at the end; a digest is over exactly these
//! bytes.

use super::request::{Compression, ContainerConfig};
use super::store::sha256_hex;
use super::{BuiltImage, Descriptor, Document, Layer, Platform};
use serde::Serialize;
use std::collections::BTreeMap;

/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an empty configuration.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

const CREATED: &str = "org.opencontainers.image.created";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A descriptor as JSON has it.
#[derive(Serialize)]
pub(super) struct DescriptorJson<'a> {
    #[serde(rename = "mediaType")]
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<PlatformJson<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct PlatformJson<'a> {
    architecture: &'a str,
    os: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

impl<'a> DescriptorJson<'a> {
    pub(super) fn new(descriptor: &'a Descriptor) -> Self {
        Self {
            media_type: &descriptor.media_type,
            digest: &descriptor.digest,
            size: descriptor.size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    fn with_platform(mut self, platform: &'a Platform) -> Self {
        self.platform = Some(PlatformJson {
            architecture: &platform.architecture,
            os: "linux",
            variant: platform.variant.as_deref(),
        });
        self
    }

    pub(super) fn with_annotation(mut self, key: &'a str, value: &'a str) -> Self {
        self.annotations.insert(key, value);
        self
    }
}

#[derive(Serialize)]
struct ConfigJson<'a> {
    architecture: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    os: &'static str,
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    config: RunJson<'a>,
    rootfs: RootfsJson<'a>,
    history: Vec<HistoryJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RunJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Empty>,
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<HealthJson<'a>>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthJson<'a> {
    test: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    interval: u64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: u64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: u64,
    #[serde(skip_serializing_if = "is_zero_32")]
    retries: u32,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_32(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct RootfsJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<&'a str>,
}

#[derive(Serialize)]
struct HistoryJson<'a> {
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    created_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson<'a> {
    schema_version: u32,
    media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    config: DescriptorJson<'a>,
    layers: Vec<DescriptorJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<DescriptorJson<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<DescriptorJson<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

fn document(media_type: &str, value: &impl Serialize) -> Document {
    let bytes = serde_json::to_vec(value).expect("texts and numbers are always JSON");
    known_document(media_type, bytes)
}

/// Makes a document of bytes that are known.
pub(super) fn known_document(media_type: &str, bytes: Vec<u8>) -> Document {
    Document {
        descriptor: Descriptor {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{}", sha256_hex(&bytes)),
            size: bytes.len() as u64,
        },
        bytes,
    }
}

/// Writes seconds since 1970 as RFC 3339 in UTC.
pub fn time_text(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Returns the annotations with the time of creation.
fn annotations<'a>(
    given: &'a BTreeMap<String, String>,
    created: &'a str,
) -> BTreeMap<&'a str, &'a str> {
    let mut all: BTreeMap<&str, &str> = given
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    all.entry(CREATED).or_insert(created);
    all
}

/// Makes configuration and manifest of an image; `user` is what the container runs as.
pub(super) fn image(
    platform: &Platform,
    build_time: u64,
    config: &ContainerConfig,
    user: Option<&str>,
    layers: &[Layer],
) -> (Document, Document) {
    let created = time_text(build_time);
    let annotations = annotations(&config.annotations, &created);
    let mut env: Vec<String> = config
        .environment
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for (key, value) in [("PATH", PATH), ("SSL_CERT_FILE", CERTIFICATES)] {
        if !config.environment.contains_key(key) {
            env.push(format!("{key}={value}"));
        }
    }
    env.sort();
    let value = |key: &str| config.annotations.get(key);
    let title = value("org.opencontainers.image.title");
    let comment = match (title, value("org.opencontainers.image.vendor")) {
        (Some(title), Some(vendor)) => format!("{title} by {vendor}"),
        _ => String::new(),
    };
    let mut labels = annotations.clone();
    for (key, value) in &config.labels {
        labels.insert(key, value);
    }
    let empty = |text: &'_ String| (text.clone(), Empty {});
    let json = ConfigJson {
        architecture: &platform.architecture,
        variant: platform.variant.as_deref(),
        os: "linux",
        created: &created,
        author: &config.author,
        config: RunJson {
            user,
            exposed_ports: config.exposed_ports.iter().map(empty).collect(),
            env,
            entrypoint: &config.entrypoint,
            cmd: &config.cmd,
            volumes: config.volumes.iter().map(empty).collect(),
            working_dir: config.working_directory.as_deref(),
            labels,
            stop_signal: config.stop_signal.as_deref(),
            healthcheck: config.health_check.as_ref().map(|check| HealthJson {
                test: &check.test,
                interval: check.interval,
                timeout: check.timeout,
                start_period: check.start_period,
                retries: check.retries,
            }),
        },
        rootfs: RootfsJson {
            kind: "layers",
            diff_ids: layers.iter().map(|layer| layer.diff_id.as_str()).collect(),
        },
        history: layers
            .iter()
            .map(|_| HistoryJson {
                created: &created,
                created_by: &config.created_by,
                author: &config.author,
                comment: &comment,
            })
            .collect(),
    };
    image_documents(&json, layers, annotations)
}

/// Makes the document of a configuration, and the manifest that names it and the layers.
fn image_documents(
    config: &impl Serialize,
    layers: &[Layer],
    annotations: BTreeMap<&str, &str>,
) -> (Document, Document) {
    let config = document(CONFIG, config);
    let manifest = ManifestJson {
        schema_version: 2,
        media_type: MANIFEST,
        artifact_type: None,
        config: DescriptorJson::new(&config.descriptor),
        layers: layers
            .iter()
            .map(|layer| DescriptorJson::new(&layer.descriptor))
            .collect(),
        subject: None,
        annotations,
    };
    let manifest = document(MANIFEST, &manifest);
    (config, manifest)
}

/// Makes configuration and manifest of an image that is built on another one: what that says stays,
/// `layers` are those of both, `added` of them are new.
pub(super) fn extended(
    base: &serde_json::Value,
    base_annotations: &BTreeMap<String, String>,
    build_time: u64,
    config: &ContainerConfig,
    layers: &[Layer],
    added: usize,
) -> (Document, Document) {
    let created = time_text(build_time);
    let mut given = base_annotations.clone();
    given.remove(CREATED);
    given.extend(config.annotations.clone());
    let annotations = annotations(&given, &created);
    let mut json = base.clone();
    json["created"] = created.as_str().into();
    let labels = &mut json["config"]["Labels"];
    if labels.get(CREATED).is_some() {
        labels[CREATED] = created.as_str().into();
    }
    for (key, value) in &config.annotations {
        labels[key] = value.as_str().into();
    }
    if labels.is_null()
        && let Some(run) = json["config"].as_object_mut()
    {
        run.remove("Labels");
    }
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json["rootfs"]["diff_ids"] = diff_ids.into();
    let step = serde_json::json!({
        "created": created, "created_by": config.created_by, "author": config.author,
    });
    let mut history = json["history"].as_array().cloned().unwrap_or_default();
    history.extend(std::iter::repeat_n(step, added));
    json["history"] = history.into();
    image_documents(&json, layers, annotations)
}

/// Makes the index of images of several architectures, or of one (image.md, IMG-120).
///
/// `annotations` are those of the configuration; the time of creation is the latest image's.
pub fn index(images: &[BuiltImage], annotations: &BTreeMap<String, String>) -> Document {
    let latest = images.iter().map(|image| image.build_time).max();
    let created = time_text(latest.unwrap_or(0));
    let mut sorted: Vec<&BuiltImage> = images.iter().collect();
    sorted.sort_by_key(|image| &image.platform);
    let manifests = sorted.iter().map(|image| {
        DescriptorJson::new(&image.manifest.descriptor).with_platform(&image.platform)
    });
    let json = IndexJson {
        schema_version: 2,
        media_type: INDEX,
        manifests: manifests.collect(),
        annotations: self::annotations(annotations, &created),
    };
    document(INDEX, &json)
}

/// Makes an index that holds one descriptor under a name, as `index.json` of a layout.
pub(super) fn named_index(inner: &Descriptor, reference: &str) -> Document {
    let descriptor = DescriptorJson::new(inner)
        .with_annotation("io.containerd.image.name", reference)
        .with_annotation("org.opencontainers.image.ref.name", reference);
    let json = IndexJson {
        schema_version: 2,
        media_type: INDEX,
        manifests: vec![descriptor],
        annotations: BTreeMap::new(),
    };
    document(INDEX, &json)
}

/// Makes a document that belongs to another one, such as an SBOM to an image: the manifest, its
/// empty configuration, and the document as a blob (image.md, 11.6).
pub fn referrer(
    subject: &Descriptor,
    artifact_type: &str,
    content: Vec<u8>,
) -> (Document, Document, Document) {
    let empty = known_document(EMPTY, b"{}".to_vec());
    let content = known_document(artifact_type, content);
    let json = ManifestJson {
        schema_version: 2,
        media_type: MANIFEST,
        artifact_type: Some(artifact_type),
        config: DescriptorJson::new(&empty.descriptor),
        layers: vec![DescriptorJson::new(&content.descriptor)],
        subject: Some(DescriptorJson::new(subject)),
        annotations: BTreeMap::new(),
    };
    (document(MANIFEST, &json), empty, content)
}

/// Returns the media type of a layer.
pub(super) fn layer_type(compression: Compression) -> String {
    let suffix = match compression {
        Compression::Gzip(_) => "+gzip",
        Compression::Zstd(_) => "+zstd",
        Compression::None => "",
    };
    format!("application/vnd.oci.image.layer.v1.tar{suffix}")
}
