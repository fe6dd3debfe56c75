//! Built images into registries, or into the container engine of this machine.

use crate::fetch::registry::{
    Blob, BlobSource, CredentialFiles, Manifest, Push, Pushed, Reference, ReferenceError, Registry,
    RegistryError,
};
use crate::image::output::{Bundle, LayoutShape};
use crate::image::{BuiltImage, Descriptor, Document, ImageError, Store, oci};
use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};

/// A document about an image, such as its SBOM.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is about.
    pub subject: Descriptor,
    /// What it is: `application/spdx+json`, …
    pub artifact_type: String,
    /// The document.
    pub content: Vec<u8>,
}

/// What is pushed, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// One for each architecture.
    pub images: &'a [BuiltImage],
    /// What holds them together.
    pub index: &'a Document,
    /// Where to, as given: `REGISTRY/REPOSITORY:TAG`.
    pub references: &'a [String],
    /// Where credentials may be.
    pub credentials: &'a CredentialFiles,
    /// Registries that are asked without TLS; those on this machine always are.
    pub insecure: &'a [String],
    /// Documents that refer to an image or the index.
    pub attachments: &'a [Attachment],
    /// Remembers which repository has which layer.
    pub store: Option<&'a Store>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// `REGISTRY/REPOSITORY@sha256:…` of the index, once for each repository, in the order given.
    pub digests: Vec<String>,
    /// The same for the images and then the index, for `--image-refs`.
    pub references: Vec<String>,
    /// What was sent and what was there.
    pub pushed: Pushed,
}

/// Why an image is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A reference names nothing.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry did not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The archive for the engine cannot be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No container engine takes it.
    #[error("no container engine takes the image: {cause}")]
    Engine {
        /// What was tried, and what came of it.
        cause: String,
    },
}

impl PublishError {
    /// Returns the code that names the kind of error (image.md, chapter 16).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reference(_) => "E-USAGE",
            Self::Registry(error) if error.is_denied() => "E-AUTH",
            Self::Registry(_) => "E-REGISTRY",
            Self::Image(error) => error.code(),
            Self::Engine { .. } => "E-OUTPUT",
        }
    }
}

/// Pushes images to every reference.
///
/// # Errors
/// [`PublishError`]; references before the one that failed are done.
pub fn publish(publication: &Publication<'_>) -> Result<Published, PublishError> {
    let mut tags: Vec<(Reference, Vec<String>)> = Vec::new();
    for text in publication.references {
        let reference = Reference::parse(text)?;
        let same = |(known, _): &&mut (Reference, Vec<String>)| known.name() == reference.name();
        match tags.iter_mut().find(same) {
            Some((_, list)) => list.push(reference.tag),
            None => tags.push((reference.clone(), vec![reference.tag])),
        }
    }
    let attached: Vec<_> = publication
        .attachments
        .iter()
        .map(|attachment| {
            let Attachment {
                subject,
                artifact_type,
                content,
            } = attachment;
            (
                oci::referrer(subject, artifact_type, content.clone()),
                subject,
            )
        })
        .collect();
    let mut done = Published::default();
    for (reference, list) in &tags {
        let known: BTreeMap<&str, String> = publication
            .images
            .iter()
            .flat_map(|image| &image.layers)
            .filter_map(|layer| {
                let store = publication.store?;
                let hex = layer.descriptor.hex();
                let other = store.pushed_to(&reference.registry, hex)?;
                (other != reference.repository).then_some((hex, other))
            })
            .collect();
        let push = push_of(publication, &attached, &known);
        let insecure = publication.insecure.contains(&reference.registry);
        let mut registry = Registry::new(reference, publication.credentials, insecure)?;
        let pushed = registry.push(&push, list)?;
        done.pushed.sent += pushed.sent;
        done.pushed.bytes += pushed.bytes;
        done.pushed.present += pushed.present;
        done.pushed.mounted += pushed.mounted;
        for layer in publication.images.iter().flat_map(|image| &image.layers) {
            if let Some(store) = publication.store {
                let hex = layer.descriptor.hex();
                store.remember_push(&reference.registry, hex, &reference.repository);
            }
        }
        let name = reference.name();
        let images = publication
            .images
            .iter()
            .map(|image| &image.manifest.descriptor);
        let all = images.chain([&publication.index.descriptor]);
        done.references
            .extend(all.map(|descriptor| format!("{name}@{}", descriptor.digest)));
        done.digests
            .push(format!("{name}@{}", publication.index.descriptor.digest));
    }
    Ok(done)
}

/// A document that refers to another: its manifest, its configuration, itself.
type Referrer = (Document, Document, Document);

fn push_of<'a>(
    publication: &Publication<'a>,
    attached: &'a [(Referrer, &'a Descriptor)],
    known: &'a BTreeMap<&str, String>,
) -> Push<'a> {
    let small = |document: &'a Document| Blob {
        digest: &document.descriptor.digest,
        size: document.descriptor.size,
        source: BlobSource::Bytes(&document.bytes),
        mount_from: None,
    };
    let manifest = |document: &'a Document| Manifest {
        digest: &document.descriptor.digest,
        media_type: &document.descriptor.media_type,
        bytes: &document.bytes,
    };
    let mut blobs: BTreeMap<&str, Blob<'a>> = BTreeMap::new();
    for layer in publication.images.iter().flat_map(|image| &image.layers) {
        let descriptor = &layer.descriptor;
        let blob = Blob {
            digest: &descriptor.digest,
            size: descriptor.size,
            source: BlobSource::File(&layer.path),
            mount_from: known.get(descriptor.hex()).map(String::as_str),
        };
        blobs.insert(&descriptor.digest, blob);
    }
    let configs = publication.images.iter().map(|image| &image.config);
    let attachments = attached
        .iter()
        .flat_map(|((_, empty, content), _)| [empty, content]);
    for document in configs.chain(attachments) {
        blobs.insert(&document.descriptor.digest, small(document));
    }
    let mut push = Push {
        blobs: blobs.into_values().collect(),
        top: Some(manifest(publication.index)),
        ..Push::default()
    };
    // The largest first: what takes longest must not come last.
    push.blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    push.manifests.extend(
        publication
            .images
            .iter()
            .map(|image| manifest(&image.manifest)),
    );
    for ((document, ..), subject) in attached {
        push.referrers.push((manifest(document), &subject.digest));
    }
    push
}

/// Loads images into the container engine of this machine: Docker's, else Podman's.
///
/// `host` is apk's name of this machine's architecture.
///
/// # Errors
/// [`PublishError`].
pub fn load_locally(bundle: &Bundle<'_>, host: &str) -> Result<(), PublishError> {
    let mut tried = Vec::new();
    for engine in ["docker", "podman"] {
        let started = Command::new(engine)
            .args(["load", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tried.push(format!("{engine} is not installed"));
                continue;
            }
            Err(error) => {
                tried.push(format!("{engine}: {}", crate::root::cause(&error)));
                continue;
            }
        };
        let written = match child.stdin.take() {
            Some(mut input) => bundle.docker_archive(&mut input, LayoutShape::Named, host),
            None => Ok(()),
        };
        let ended = child.wait_with_output();
        match ended {
            Ok(output) if output.status.success() => return Ok(written?),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let last = text.lines().last().unwrap_or("it failed").to_owned();
                tried.push(format!("{engine}: {last}"));
            }
            Err(error) => tried.push(format!("{engine}: {}", crate::root::cause(&error))),
        }
    }
    Err(PublishError::Engine {
        cause: tried.join("; "),
    })
}
