//! From a description to an image: everything that is needed is brought and read, then the builder
//! is asked (image.md, chapters 5 and 8 to 10).

use super::parts::{self, PartsShelf};
use super::{Error, Profile, Resolution, Workshop};
use crate::config::image::{
    self, HealthCheck, ImageConfig, Names, PathMutation, Warning, compression_parts, nanoseconds,
    without_credentials, words,
};
use crate::fetch::registry::{CredentialFiles, Reference};
use crate::image::output::{self, Bundle, LayoutShape, Ownership};
use crate::image::sbom::{self, Inventory, Provenance, Subject};
use crate::image::{
    self as engine, Account, BuildRequest, BuiltImage, Certificate, Compression, ContainerConfig,
    DatabasePlace, Document, FileSource, FileToAdd, Group, Layering, NamedContent, PathKind,
    ScriptMode, ScriptResult, Service, Store, oci,
};
use crate::ops::publish::{self, Attachment, Publication, Published};
use crate::package::{Dependency, World};
use crate::plan::{NewPackage, Source};
use crate::progress::{Event, Level, Sink, Stream};
use crate::transaction::TransactionError;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The notice that stands in the configuration of apko's images.
const APKO: &str = "github.com/chainguard-dev/apko";

/// Bytes between the parts of a tag that must not be in one.
const TAG_SEPARATORS: [char; 2] = ['/', ':'];

/// Architectures that are built at the same time: each holds its tree in memory.
const MOST_AT_ONCE: usize = 4;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// A directory in OCI's layout.
    OciDirectory,
    /// The same in a tar archive.
    OciArchive,
    /// What `docker load` reads.
    DockerArchive,
    /// The root file system: a tar archive or a directory.
    RootFileSystem,
}

impl OutputFormat {
    /// Reads the name of an option's value.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "oci-dir" => Self::OciDirectory,
            "oci-archive" => Self::OciArchive,
            "docker-archive" => Self::DockerArchive,
            "rootfs" => Self::RootFileSystem,
            _ => return None,
        })
    }

    /// Chooses by the name of the output (image.md, 10.1).
    pub fn of_output(output: &str, is_directory: bool) -> Option<Self> {
        if is_directory || output.ends_with('/') {
            return Some(Self::OciDirectory);
        }
        if output.ends_with(".oci.tar") {
            return Some(Self::OciArchive);
        }
        let archive = output == "-" || output.ends_with(".tar") || output.ends_with(".tar.gz");
        archive.then_some(Self::DockerArchive)
    }
}

/// A form of bills of materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillFormat {
    /// SPDX 2.3.
    Spdx,
    /// CycloneDX 1.6.
    CycloneDx,
}

/// How an image is built; what is absent is decided by the description or the profile.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// `--annotations`, in order.
    pub annotations: Vec<(String, String)>,
    /// `--build-date`, in seconds since 1970.
    pub build_date: u64,
    /// `SOURCE_DATE_EPOCH` as it is set.
    pub source_date_epoch: Option<String>,
    /// `--clamp-mtime`.
    pub clamp_mtime: bool,
    /// `--check-scripts`.
    pub check_scripts: bool,
    /// `--scripts-warn`.
    pub scripts_warn: bool,
    /// `--fail-on-skipped-script`.
    pub fail_on_skipped_script: bool,
    /// `--layer-compression`.
    pub compression: Option<String>,
    /// `--scripts`.
    pub scripts: Option<ScriptMode>,
    /// `--vcs`.
    pub vcs: Option<bool>,
    /// Who owns a root file system that an ordinary user unpacks.
    pub ownership: Ownership,
    /// The output is a docker archive: its layers are plain unless somebody says otherwise.
    pub plain_layers: bool,
}

/// An image of every architecture.
#[derive(Debug)]
pub struct Built {
    /// One for each architecture, in the order of the index.
    pub images: Vec<BuiltImage>,
    /// What holds them together.
    pub index: Document,
    /// Where packages came from: for each image, by name.
    pub provenance: Vec<BTreeMap<String, Provenance>>,
    /// `URL@COMMIT` of the description.
    pub source: Option<String>,
    /// Files of the user's own.
    pub added: Vec<String>,
    /// Who owns what an ordinary user unpacks.
    ownership: Ownership,
    /// The layers.
    store: Store,
    /// The place of the layers if it is temporary.
    _place: Option<tempfile::TempDir>,
}

impl Built {
    /// Returns the digest of the index, `sha256:HEX`.
    pub fn digest(&self) -> &str {
        &self.index.descriptor.digest
    }

    /// Returns what happened to scripts, a line each.
    pub fn script_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for image in &self.images {
            for outcome in &image.scripts {
                let mut line = format!(
                    "{}: {} {}: {}",
                    image.architecture,
                    outcome.package,
                    outcome.script,
                    outcome.result.as_str()
                );
                if outcome.result == ScriptResult::NotRun && !outcome.detail.is_empty() {
                    line.push_str(&format!(" ({})", outcome.detail));
                }
                lines.push(line);
            }
        }
        lines
    }

    /// Pushes the image to every reference, with its bills of materials if they are given.
    ///
    /// # Errors
    /// [`enum@Error`]; a tag never points to something that is not all there.
    pub fn publish(
        &self,
        references: &[String],
        credentials: &CredentialFiles,
        insecure: &[String],
        attachments: &[Attachment],
    ) -> Result<Published, Error> {
        Ok(publish::publish(&Publication {
            images: &self.images,
            index: &self.index,
            references,
            credentials,
            insecure,
            attachments,
            store: Some(&self.store),
        })?)
    }

    /// Returns the bills of materials as what refers to images and index.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn attachments(
        &self,
        name: &str,
        formats: &[BillFormat],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Attachment>, Error> {
        let mut attachments = Vec::new();
        for (file, content) in self.bills(name, formats, sink)? {
            let of_image = |image: &&BuiltImage| {
                let architecture = file.strip_prefix("sbom-").and_then(|f| f.split('.').next());
                architecture == Some(&image.architecture)
            };
            let image = self.images.iter().find(of_image);
            let subject = image.map_or(&self.index.descriptor, |image| &image.manifest.descriptor);
            let artifact_type = match file.ends_with(".cdx.json") {
                true => "application/vnd.cyclonedx+json",
                false => "application/spdx+json",
            };
            attachments.push(Attachment {
                subject: subject.clone(),
                artifact_type: artifact_type.to_owned(),
                content,
            });
        }
        Ok(attachments)
    }

    /// Loads the image into the container engine of this machine.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn load_locally(&self, reference: &str) -> Result<(), Error> {
        let bundle = Bundle {
            images: &self.images,
            index: &self.index,
            reference,
        };
        let host = image::Architecture::host();
        Ok(publish::load_locally(&bundle, &host.apk)?)
    }

    /// Makes the bills of materials: file names and contents.
    ///
    /// `name` is that of the image, without a tag. What could not be taken over is told as a
    /// warning.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn bills(
        &self,
        name: &str,
        formats: &[BillFormat],
        sink: &mut dyn Sink,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let tool = concat!("ibex-", env!("CARGO_PKG_VERSION"));
        let mut bills = Vec::new();
        for (image, provenance) in self.images.iter().zip(&self.provenance) {
            let inventory = Inventory::new(&Subject {
                image,
                name,
                provenance,
                source: self.source.as_deref(),
                added: &self.added,
                tool,
            })?;
            for warning in &inventory.warnings {
                sink.warning(&format!("W-SBOM: {warning}"));
            }
            for format in formats {
                bills.push(match format {
                    BillFormat::Spdx => (
                        format!("sbom-{}.spdx.json", image.architecture),
                        inventory.spdx(),
                    ),
                    BillFormat::CycloneDx => (
                        format!("sbom-{}.cdx.json", image.architecture),
                        inventory.cyclonedx(),
                    ),
                });
            }
        }
        if formats.contains(&BillFormat::Spdx) {
            let index = sbom::index_spdx(&self.index, &self.images, tool);
            bills.push(("sbom-index.spdx.json".to_owned(), index));
        }
        Ok(bills)
    }

    /// Writes the image; nothing is left under the name if it fails.
    ///
    /// `reference` is not used for a root file system; elsewhere it has passed [`check_reference`].
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn write(
        &self,
        reference: &str,
        output: &Path,
        format: OutputFormat,
        profile: Profile,
        stdout: &mut dyn Write,
    ) -> Result<(), Error> {
        let tagged;
        let reference = match (profile, self.images.as_slice()) {
            (Profile::Apko, [image]) if format == OutputFormat::DockerArchive => {
                let arch = image.platform.architecture.replace(TAG_SEPARATORS, "_");
                tagged = format!("{reference}-{arch}");
                &tagged
            }
            _ => reference,
        };
        let bundle = Bundle {
            images: &self.images,
            index: &self.index,
            reference,
        };
        let shape = match profile {
            Profile::Native => LayoutShape::Named,
            Profile::Apko => LayoutShape::Bare,
        };
        let host = image::Architecture::host();
        let name = output.to_string_lossy();
        match format {
            OutputFormat::OciDirectory => {
                let parent = output
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                if let Some(parent) = parent
                    && !parent.exists()
                {
                    let missing = rustix::io::Errno::NOENT.into();
                    return Err(super::output_error(output, &missing));
                }
                bundle.oci_directory(output, shape)?;
            }
            OutputFormat::OciArchive if name == "-" => bundle.oci_archive(stdout, shape)?,
            OutputFormat::OciArchive => {
                output::write_file(output, |out| bundle.oci_archive(out, shape))?;
            }
            OutputFormat::DockerArchive if name == "-" => {
                bundle.docker_archive(stdout, shape, &host.apk)?;
            }
            OutputFormat::DockerArchive if name.ends_with(".gz") => {
                output::write_file(output, |out| {
                    let builder = flate2::GzBuilder::new().mtime(0).operating_system(255);
                    let mut encoder = builder.write(out, flate2::Compression::new(6));
                    bundle.docker_archive(&mut encoder, shape, &host.apk)?;
                    let done = encoder.finish().map(drop);
                    done.map_err(|error| engine::ImageError::output(output, &error))
                })?
            }
            OutputFormat::DockerArchive => {
                output::write_file(output, |out| bundle.docker_archive(out, shape, &host.apk))?;
            }
            OutputFormat::RootFileSystem => self.write_rootfs(output, stdout)?,
        }
        Ok(())
    }

    /// Writes the root file system of the only architecture.
    fn write_rootfs(&self, output: &Path, stdout: &mut dyn Write) -> Result<(), Error> {
        let [image] = self.images.as_slice() else {
            return Err(Error::Usage {
                message: "a root file system is of one architecture; give --arch".to_owned(),
            });
        };
        let name = output.to_string_lossy();
        let compression = match &*name {
            name if name.ends_with(".tar.gz") => Compression::Gzip(6),
            name if name.ends_with(".tar.zst") => Compression::Zstd(3),
            _ => Compression::None,
        };
        match &*name {
            "-" => output::rootfs_archive(image, stdout, compression)?,
            name if name.contains(".tar") && !output.is_dir()
                || crate::root::is_special(output) =>
            {
                output::write_file(output, |out| {
                    output::rootfs_archive(image, out, compression)
                })?;
            }
            _ => {
                output::rootfs_directory(image, output, self.ownership)?;
            }
        }
        Ok(())
    }

    /// Writes the root file system of the only architecture as an archive of `cpio`.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn write_cpio(&self, output: &Path, stdout: &mut dyn Write) -> Result<(), Error> {
        let [image] = self.images.as_slice() else {
            return Err(Error::Usage {
                message: "a cpio archive is of one architecture; give --arch".to_owned(),
            });
        };
        let name = output.to_string_lossy();
        let gzip = name.ends_with(".gz");
        match &*name {
            "-" => output::cpio(image, stdout, false)?,
            _ => output::write_file(output, |out| output::cpio(image, out, gzip))?,
        }
        Ok(())
    }
}

/// Checks the name that an image shall get: what tools that load it take for one.
///
/// # Errors
/// The same as publishing under it.
pub fn check_reference(text: &str) -> Result<(), Error> {
    let checked = Reference::parse(text).map(drop);
    checked.map_err(|error| publish::PublishError::Reference(error).into())
}

/// Writes files into a folder, each whole or not at all.
///
/// # Errors
/// [`enum@Error`].
pub fn write_bills(folder: &Path, bills: &[(String, Vec<u8>)]) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|error| super::output_error(folder, &error))?;
    for (name, bytes) in bills {
        let path = folder.join(name);
        super::write_text(&path, bytes)?;
    }
    Ok(())
}

/// Builds the image of every architecture.
///
/// # Errors
/// [`enum@Error`]; nothing was written but to the cache.
pub fn build(
    workshop: &mut Workshop<'_>,
    options: &BuildOptions,
    sink: &mut dyn Sink,
) -> Result<Built, Error> {
    // Wrong settings are told before anything is fetched.
    let fixed_time = options
        .source_date_epoch
        .as_deref()
        .map(epoch)
        .transpose()?
        .flatten();
    let mut plan = Recipe::new(workshop, options)?;
    let resolutions = workshop.packages(sink)?;
    plan.keys = workshop.image_keys()?;
    let (store, place) = workshop.store()?;
    let mut images = Vec::new();
    let mut provenance = Vec::new();
    let mut warnings = std::mem::take(&mut workshop.warnings);
    let requests = resolutions.iter();
    let requests = requests.map(|resolution| plan.request(resolution, fixed_time));
    let requests: Vec<BuildRequest> = requests.collect::<Result<_, _>>()?;
    let built = build_all(&requests, &store, sink);
    let shelf = workshop.parts();
    for (resolution, image) in resolutions.iter().zip(built) {
        let image = image.map_err(beyond_limits)?;
        for warning in &image.warnings {
            let known = Warning::new(warning.code, warning.text.clone());
            if !warnings.contains(&known) {
                warnings.push(known);
            }
        }
        provenance.push(provenance_of(resolution, &shelf)?);
        images.push(image);
    }
    workshop.warnings = warnings;
    workshop.tell_warnings(sink)?;
    let index = oci::index(&images, &plan.config.annotations);
    Ok(Built {
        images,
        index,
        provenance,
        source: plan.source,
        added: (plan.description.x_build.files.iter())
            .map(|file| file.path.trim_matches('/').to_owned())
            .collect(),
        ownership: options.ownership,
        store,
        _place: place,
    })
}

/// Builds the images of several architectures at the same time.
///
/// What is told comes in the order of the requests, whichever is ready first. After an error nothing
/// new is begun; the results end with the first one.
fn build_all(
    requests: &[BuildRequest],
    store: &Store,
    sink: &mut dyn Sink,
) -> Vec<Result<BuiltImage, engine::ImageError>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(requests.len()).min(MOST_AT_ONCE);
    let mut results = Vec::new();
    if threads < 2 {
        for request in requests {
            results.push(engine::build(request, store, sink));
            if results.last().is_some_and(Result::is_err) {
                break;
            }
        }
        return results;
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = std::sync::mpsc::channel();
    let work = |mut messenger: Messenger| {
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(at) else {
                break;
            };
            messenger.at = at;
            let image = engine::build(request, store, &mut messenger);
            stop.fetch_or(image.is_err(), Ordering::Relaxed);
            // Who listens does so until everybody is done.
            let _ = messenger.sender.send((at, Told::Done(Box::new(image))));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let messenger = Messenger {
                at: 0,
                sender: sender.clone(),
            };
            scope.spawn(|| work(messenger));
        }
        drop(sender);
        let mut waiting: BTreeMap<usize, Vec<Told>> = BTreeMap::new();
        for (at, told) in receiver {
            waiting.entry(at).or_default().push(told);
            while let Some(list) = waiting.remove(&results.len()) {
                let before = results.len();
                for told in list {
                    match told {
                        Told::Done(image) => results.push(*image),
                        event => event.tell(sink),
                    }
                }
                if results.len() == before {
                    break;
                }
            }
        }
    });
    if let Some(wrong) = results.iter().position(Result::is_err) {
        results.truncate(wrong + 1);
    }
    results
}

/// What happens in a build that is one of several.
enum Told {
    Line(Level, String),
    Text(String),
    ScriptLine(Stream, Vec<u8>),
    Note(String),
    Done(Box<Result<BuiltImage, engine::ImageError>>),
}

impl Told {
    fn tell(&self, sink: &mut dyn Sink) {
        match self {
            Self::Line(level, text) => sink.event(Event::Line(*level, text)),
            Self::Text(text) => sink.event(Event::Text(text)),
            Self::ScriptLine(stream, text) => sink.event(Event::ScriptLine(*stream, text)),
            Self::Note(text) => sink.event(Event::Note(text)),
            Self::Done(_) => {}
        }
    }
}

/// Sends what happens to who has the sink.
struct Messenger {
    at: usize,
    sender: std::sync::mpsc::Sender<(usize, Told)>,
}

impl Sink for Messenger {
    fn event(&mut self, event: Event<'_>) {
        let told = match event {
            Event::Line(level, text) => Told::Line(level, text.to_owned()),
            Event::Text(text) => Told::Text(text.to_owned()),
            Event::ScriptLine(stream, text) => Told::ScriptLine(stream, text.to_vec()),
            Event::Note(text) => Told::Note(text.to_owned()),
            // How far one of several is says little.
            Event::Plan(_) | Event::Progress { .. } => return,
        };
        // Who listens does so until everybody is done.
        let _ = self.sender.send((self.at, told));
    }
}

/// Says which option moves the limit that a package exceeds, if that is why it cannot be installed.
fn beyond_limits(error: engine::ImageError) -> Error {
    if let engine::ImageError::Install(TransactionError::Refused { lines, .. }) = &error {
        let limit = |line: &String| Error::of_limit(line.split(": ").next()?, line);
        if let Some(limit) = lines.iter().find_map(limit) {
            return limit;
        }
    }
    error.into()
}

/// Reads `SOURCE_DATE_EPOCH`; blank counts as not set.
fn epoch(text: &str) -> Result<Option<u64>, Error> {
    match text.trim() {
        "" => Ok(None),
        digits => digits
            .parse()
            .map(Some)
            .map_err(|_| Error::SourceDateEpoch {
                text: text.to_owned(),
            }),
    }
}

/// Looks at the files of packages, several at a time.
fn provenance_of(
    resolution: &Resolution,
    shelf: &PartsShelf,
) -> Result<BTreeMap<String, Provenance>, Error> {
    let packages = &resolution.packages;
    let one = |at: usize| -> Result<(String, Provenance), Error> {
        let one = &packages[at];
        let sha256 = match &one.source {
            Source::File(path) => Some(shelf.sha256(path, &one.package)?),
            _ => None,
        };
        let url = one.url.clone();
        let v3 = one.v3;
        Ok((one.package.name.clone(), Provenance { url, sha256, v3 }))
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = parts::in_order(packages.len(), cores.min(parts::MOST_THREADS), one);
    found.into_iter().collect()
}

/// What the requests of all architectures share.
struct Recipe {
    config: ContainerConfig,
    description: ImageConfig,
    profile: Profile,
    repositories: Vec<String>,
    keys: Vec<NamedContent>,
    work_dir: PathBuf,
    scripts: ScriptMode,
    scripts_must_run: bool,
    check_scripts: bool,
    scripts_warn: bool,
    fail_on_skipped_script: bool,
    compression: Compression,
    clamp_mtime: bool,
    build_date: u64,
    limits: crate::format::Limits,
    source: Option<String>,
}

impl Recipe {
    fn new(workshop: &mut Workshop<'_>, options: &BuildOptions) -> Result<Self, Error> {
        let description = workshop.loaded.config.clone();
        let profile = workshop.options.profile;
        let source = source(workshop, options, &description);
        let compression = match options.compression.as_deref() {
            Some(text) => text,
            None if description.x_build.compression.is_empty() && options.plain_layers => "none",
            None => &description.x_build.compression,
        };
        let wrong = || Error::Usage {
            message: format!("--layer-compression: \"{compression}\" is not known"),
        };
        let compression = match compression_parts(compression).ok_or_else(wrong)? {
            ("zstd", level) => {
                let text = "umoci 0.4 and Docker engines before 23 cannot read zstd layers";
                workshop.warnings.push(Warning::new("W-ZSTD-COMPAT", text));
                Compression::Zstd(level.map_or(3, |level| level as i32))
            }
            ("none", _) => Compression::None,
            (_, level) => Compression::Gzip(level.unwrap_or(6)),
        };
        let scripts = options
            .scripts
            .or(match description.x_build.scripts.as_str() {
                "skip" => Some(ScriptMode::Skip),
                "builtin" => Some(ScriptMode::Builtin),
                "emulate" => Some(ScriptMode::Emulate),
                "run" => Some(ScriptMode::Run),
                _ => None,
            });
        let scripts = scripts.unwrap_or(match profile {
            Profile::Native => ScriptMode::Emulate,
            Profile::Apko => ScriptMode::Builtin,
        });
        Ok(Self {
            config: container(&description, profile, options, source.as_deref())?,
            repositories: workshop.image_repositories(),
            keys: Vec::new(),
            work_dir: workshop.options.work_dir.clone(),
            scripts,
            scripts_must_run: options.scripts == Some(ScriptMode::Run),
            check_scripts: options.check_scripts,
            scripts_warn: options.scripts_warn,
            fail_on_skipped_script: options.fail_on_skipped_script,
            compression,
            clamp_mtime: options.clamp_mtime || description.x_build.clamp_mtime,
            build_date: options.build_date,
            limits: workshop.settings().limits,
            source,
            profile,
            description,
        })
    }

    fn request(&self, resolution: &Resolution, fixed: Option<u64>) -> Result<BuildRequest, Error> {
        let description = &self.description;
        let extensions = &description.x_build;
        let dates = resolution
            .packages
            .iter()
            .filter_map(|one| one.package.build_time);
        let below = (resolution.base.iter()).flat_map(|base| &base.installed.packages);
        let dates = dates.chain(below.clone().filter_map(|one| one.package.build_time));
        let build_time = fixed.unwrap_or_else(|| dates.max().unwrap_or(0).max(self.build_date));
        let locked = match extensions.world.as_str() {
            "locked" => true,
            "requested" => false,
            _ => self.profile == Profile::Apko,
        };
        let mut world = match locked {
            false => resolution.world.clone(),
            true => {
                let packages = resolution.packages.iter().map(|one| &one.package);
                let packages = packages.chain(below.map(|one| &one.package));
                World {
                    entries: packages
                        .map(|p| Dependency::exact(&p.name, &p.version))
                        .collect(),
                }
            }
        };
        world.sort();
        let certificates = description.certificates.clone().unwrap_or_default();
        let named = |key: &image::Named| NamedContent {
            name: key.name.clone(),
            content: key.content.clone().into_bytes(),
        };
        Ok(BuildRequest {
            architecture: resolution.architecture.apk.clone(),
            packages: (resolution.packages.iter())
                .map(|one| NewPackage {
                    package: one.package.clone(),
                    tag: one.tag.clone(),
                    source: one.source.clone(),
                })
                .collect(),
            world,
            repositories: repositories(&self.repositories, resolution),
            base: resolution.base.clone(),
            keys: self.keys.clone(),
            runtime_keys: description
                .contents
                .runtime_keyring
                .iter()
                .map(named)
                .collect(),
            groups: (description.accounts.groups.iter())
                .map(|group| Group {
                    name: group.groupname.clone(),
                    gid: group.gid.unwrap_or_default(),
                    members: group.members.clone(),
                })
                .collect(),
            users: description.accounts.users.iter().map(account).collect(),
            configuration_json: Some(description.to_json()),
            os_release: description.os_release.clone(),
            paths: description.paths.iter().map(mutation).collect(),
            files: (extensions.files.iter())
                .map(|file| FileToAdd {
                    path: file.path.trim_matches('/').to_owned(),
                    source: match &file.content {
                        Some(text) => FileSource::Inline(text.clone().into_bytes()),
                        None => FileSource::Local(self.work_dir.join(&file.source)),
                    },
                    mode: file.mode,
                    uid: file.uid.unwrap_or(0),
                    gid: file.gid.unwrap_or(0),
                    place: format!(
                        "x-build.files[{}] (line {})",
                        file.place.index, file.place.line
                    ),
                })
                .collect(),
            certificates: (certificates.additional.iter())
                .map(|one| Certificate {
                    name: one.name.clone(),
                    pem: one.content.clone(),
                })
                .collect(),
            certificate_providers: certificates.providers,
            services: match description.entrypoint.kind.as_str() {
                "service-bundle" => (description.entrypoint.services.iter())
                    .map(|(name, command)| Service {
                        name: name.clone(),
                        command: command.clone(),
                    })
                    .collect(),
                _ => Vec::new(),
            },
            remove: extensions.remove.clone(),
            database: match (extensions.db.as_str(), self.profile) {
                ("lib", _) => DatabasePlace::Lib,
                ("usr", _) | ("", Profile::Apko) => DatabasePlace::Usr,
                ("none", _) => DatabasePlace::None,
                _ => DatabasePlace::Auto,
            },
            ids: resolution.ids.clone(),
            scripts: self.scripts,
            scripts_must_run: self.scripts_must_run,
            check_scripts: self.check_scripts,
            scripts_warn: self.scripts_warn,
            fail_on_skipped_script: self.fail_on_skipped_script,
            layering: match &description.layering {
                Some(layering) if layering.strategy == "origin" => Layering::Origin {
                    budget: layering.budget as usize,
                },
                _ => Layering::One,
            },
            compression: self.compression,
            build_time,
            clamp_mtime: self.clamp_mtime,
            config: self.config.clone(),
            limits: self.limits,
        })
    }
}

/// Returns the lines of the image's list of repositories: with an image to build on, its lines, too.
fn repositories(own: &[String], resolution: &Resolution) -> Vec<String> {
    let base = resolution.base.as_ref();
    let text = base.and_then(|base| base.file("etc/apk/repositories"));
    let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
    let below = text.unwrap_or_default();
    let below = below.lines().map(str::trim);
    let below = below.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let all = own.iter().cloned().chain(below.map(str::to_owned));
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

fn account(user: &image::User) -> Account {
    let uid = user.uid.unwrap_or_default();
    let or = |text: &String, default: String| match text.is_empty() {
        true => default,
        false => text.clone(),
    };
    Account {
        name: user.username.clone(),
        uid,
        gid: user.gid.unwrap_or(uid),
        shell: or(&user.shell, "/bin/sh".to_owned()),
        home: or(&user.homedir, format!("/home/{}", user.username)),
    }
}

fn mutation(entry: &PathMutation) -> engine::PathMutation {
    let source = entry.source.clone();
    engine::PathMutation {
        path: entry.path.trim_matches('/').to_owned(),
        kind: match entry.kind.as_str() {
            "directory" => PathKind::Directory,
            "empty-file" => PathKind::EmptyFile,
            "hardlink" => PathKind::HardLink { source },
            "symlink" => PathKind::Symlink { source },
            _ => PathKind::Permissions,
        },
        mode: entry.permissions,
        uid: entry.uid,
        gid: entry.gid,
        recursive: entry.recursive,
        place: format!("paths[{}] (line {})", entry.place.index, entry.place.line),
    }
}

/// Returns what the image says to who runs it.
fn container(
    description: &ImageConfig,
    profile: Profile,
    options: &BuildOptions,
    source: Option<&str>,
) -> Result<ContainerConfig, Error> {
    let entrypoint = &description.entrypoint;
    let split = |field: &str, text: &str| {
        words::split(text).map_err(|source| {
            Error::Config(image::ConfigError::Quote {
                field: field.to_owned(),
                source,
            })
        })
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let mut annotations: Names = description.annotations.clone();
    for (key, value) in &options.annotations {
        annotations.insert(key.clone(), value.clone());
    }
    if let Some((url, revision)) = source.and_then(|source| source.rsplit_once('@')) {
        let prefix = "org.opencontainers.image";
        annotations.insert(format!("{prefix}.source"), url.to_owned());
        annotations.insert(format!("{prefix}.revision"), revision.to_owned());
    }
    let (author, created_by) = match profile {
        Profile::Native => ("ibex", "ibex"),
        Profile::Apko => (APKO, "apko"),
    };
    Ok(ContainerConfig {
        entrypoint: match entrypoint.shell_fragment.is_empty() {
            true => split("entrypoint.command", &entrypoint.command)?,
            false => {
                let fragment = entrypoint.shell_fragment.clone();
                vec!["/bin/sh".to_owned(), "-c".to_owned(), fragment]
            }
        },
        cmd: split("cmd", &description.cmd)?,
        working_directory: text(&description.work_dir),
        run_as: text(&description.accounts.run_as),
        stop_signal: text(&description.stop_signal),
        volumes: description.volumes.clone(),
        exposed_ports: description.x_build.expose.clone(),
        environment: description.environment.clone(),
        annotations,
        labels: description.x_build.labels.clone(),
        health_check: description.x_build.healthcheck.as_ref().map(health),
        author: author.to_owned(),
        created_by: created_by.to_owned(),
    })
}

fn health(check: &HealthCheck) -> engine::HealthCheck {
    let time = |text: &str| nanoseconds(text).unwrap_or(0);
    engine::HealthCheck {
        test: check.test.clone(),
        interval: time(&check.interval),
        timeout: time(&check.timeout),
        start_period: time(&check.start_period),
        retries: check.retries,
    }
}

/// Returns where the description comes from: as it says, or as its git repository says.
fn source(
    workshop: &mut Workshop<'_>,
    options: &BuildOptions,
    description: &ImageConfig,
) -> Option<String> {
    if !description.vcs_url.is_empty() {
        return Some(without_credentials(&description.vcs_url));
    }
    let by_default = workshop.options.profile == Profile::Apko;
    if !options.vcs.unwrap_or(by_default) {
        return None;
    }
    let work_dir = std::fs::canonicalize(&workshop.options.work_dir).ok()?;
    let config = std::fs::canonicalize(work_dir.join(&workshop.options.config)).ok()?;
    let mut folder = config.parent()?;
    let found = loop {
        if folder.join(".git").is_dir() {
            break git_source(&folder.join(".git"));
        }
        if folder == work_dir {
            break None;
        }
        folder = folder.parent()?;
    };
    if found.is_some() && options.vcs.is_none() && workshop.options.locked {
        let text = "the digest changes with every commit; --vcs=no leaves it out";
        workshop.warnings.push(Warning::new("W-VCS-REPRO", text));
    }
    found
}

/// Reads the remote `origin` and the commit that is checked out.
fn git_source(git: &Path) -> Option<String> {
    let config = std::fs::read_to_string(git.join("config")).ok()?;
    let mut in_origin = false;
    let mut url = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            in_origin = line == "[remote \"origin\"]";
        } else if in_origin
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "url"
        {
            url = Some(value.trim().to_owned());
        }
    }
    let url = url?;
    let url = match (url.contains("://"), url.split_once(':')) {
        // `user@host:path`, as scp takes it.
        (false, Some((host, path))) => {
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("git+ssh://{host}/{path}")
        }
        _ => without_credentials(&url),
    };
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(name) => match std::fs::read_to_string(git.join(name)) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => {
                let packed = std::fs::read_to_string(git.join("packed-refs")).ok()?;
                let line = packed
                    .lines()
                    .find(|line| line.ends_with(&format!(" {name}")))?;
                line.split(' ').next()?.to_owned()
            }
        },
    };
    Some(format!("{url}@{commit}"))
}

impl Workshop<'_> {
    /// Opens the store of what builds leave for each other, in a temporary place if nothing is kept.
    fn store(&self) -> Result<(Store, Option<tempfile::TempDir>), Error> {
        let place = match &self.options.cache_dir {
            Some(_) => None,
            None => Some(super::temporary()?),
        };
        let temporary = place.as_ref().map(tempfile::TempDir::path);
        let folder = temporary.or(self.options.cache_dir.as_deref());
        let folder = folder.expect("it is one or the other");
        Ok((Store::open(&folder.join("images"))?, place))
    }

    /// Returns the numbers that accounts of scripts get in the image of a resolution whose packages
    /// are all here.
    pub(super) fn chosen_ids(
        &mut self,
        resolution: &Resolution,
        sink: &mut dyn Sink,
    ) -> Result<Vec<engine::ChosenId>, Error> {
        let warnings = self.warnings.len();
        let recipe = Recipe::new(self, &BuildOptions::default());
        // What there is to say about the rest of the description is for who builds.
        self.warnings.truncate(warnings);
        let request = recipe?.request(resolution, None)?;
        let (store, _place) = self.store()?;
        engine::choose_ids(&request, &store, sink).map_err(beyond_limits)
    }

    /// Returns the keys that the image gets: those of the lock file if one is used, else those of
    /// the description.
    fn image_keys(&mut self) -> Result<Vec<NamedContent>, Error> {
        let warnings = self.warnings.len();
        let lock = self.lock_in_use()?;
        self.warnings.truncate(warnings);
        let mut keys: Vec<NamedContent> = Vec::new();
        let locked = lock
            .map(|(_, lock)| lock.contents.keyring)
            .unwrap_or_default();
        let complete = !locked.is_empty() && locked.iter().all(|key| !key.content.is_empty());
        let mut add = |name: &str, content: Vec<u8>| {
            if !keys.iter().any(|key| key.name == name) {
                let name = name.to_owned();
                keys.push(NamedContent { name, content });
            }
        };
        if complete {
            for key in &locked {
                let name = key.name.rsplit('/').next().unwrap_or_default();
                // A key that was found has the last part of an address, where `@` is `%40`.
                let name = match key.url.contains("://") {
                    true => percent_encoding::percent_decode_str(name).decode_utf8_lossy(),
                    false => name.into(),
                };
                if name.is_empty() || name.starts_with('.') || name.contains('/') {
                    return Err(Error::Keyring {
                        message: format!("\"{}\" in the lock file has no file name", key.name),
                    });
                }
                add(&name, key.content.clone().into_bytes());
            }
        } else {
            for key in self.build_keys()? {
                add(&key.name, key.pem);
            }
        }
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_decides() {
        use OutputFormat::{DockerArchive, OciArchive, OciDirectory};
        for (output, directory, wanted) in [
            ("out", true, Some(OciDirectory)),
            ("out/", false, Some(OciDirectory)),
            ("x.oci.tar", false, Some(OciArchive)),
            ("x.tar", false, Some(DockerArchive)),
            ("x.tar.gz", false, Some(DockerArchive)),
            ("-", false, Some(DockerArchive)),
            ("out", false, None),
        ] {
            assert_eq!(
                OutputFormat::of_output(output, directory),
                wanted,
                "{output}"
            );
        }
    }

    #[test]
    fn dates() {
        assert_eq!(epoch(" 12 ").expect("a number"), Some(12));
        assert_eq!(epoch("").expect("blank"), None);
        let error = epoch("yesterday").expect_err("no number");
        assert_eq!(
            error.to_string(),
            "SOURCE_DATE_EPOCH=\"yesterday\" is not an integer"
        );
    }
}
