//! Sets of packages as repositories of their own: `fetch --to` and `snapshot`.
//!
//! ```text
//! DIR/ARCH/APKINDEX.tar.gz     signed by a key of yours
//! DIR/ARCH/NAME-VERSION.apk    as its builder signed it
//! DIR/keys/NAME.rsa.pub        the public half of that key
//! ```
//!
//! A snapshot is such a repository under the time at which it was made, and `latest` leads to the
//! newest. It appears whole or not at all. Nothing is ever taken away from a snapshot.

use super::fetch::{self, FetchOptions, FileName};
use super::index::{self, IndexOptions};
use super::known::Known;
use super::query::{Arguments, PackageRef, Selection};
use super::{Error, query::Answer};
use crate::config::Settings;
use crate::package::Identity;
use crate::progress::Sink;
use crate::trust::SigningKey;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Snapshots that may have the time of the same second.
const MOST_AT_ONCE: u32 = 1000;

/// How to make a repository of packages.
#[derive(Clone, Debug)]
pub struct KeepOptions {
    /// Where the repository is.
    pub directory: PathBuf,
    /// The private key to sign with; it is made if it is not there.
    pub sign_key: PathBuf,
    /// The description of the index.
    pub description: String,
    /// The time that the index carries, in seconds since 1970.
    pub time: u64,
    /// Columns of the display.
    pub width: usize,
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::Arguments {
        lines: vec![format!("{}: {}", path.display(), crate::root::cause(error))],
        code: 99,
    }
}

/// Fetches packages into a repository and signs an index of all that is in it.
///
/// The status of the answer is the number of packages that could not be had; then there is no new
/// index.
///
/// # Errors
/// [`enum@Error`].
pub fn keep(
    settings: &Settings,
    known: &Known,
    selection: Selection,
    arguments: Arguments<'_>,
    options: &KeepOptions,
    sink: &mut dyn Sink,
) -> Result<Answer, Error> {
    let arch = known.architectures.list[0].clone();
    let folder = options.directory.join(&arch);
    make_directory(&folder)?;
    public_key(options)?;
    let fetching = FetchOptions {
        selection,
        built_after: None,
        link: false,
        output: folder.clone(),
        name: FileName::default(),
        simulate: false,
        to_stdout: false,
        urls: false,
        purge: false,
    };
    let answer = fetch::run(
        settings,
        known,
        &fetching,
        arguments,
        &mut std::io::sink(),
        sink,
    )?;
    if answer.status > 0 {
        return Ok(answer);
    }
    let indexing = IndexOptions {
        output: Some(folder.join("APKINDEX.tar.gz")),
        description: options.description.clone(),
        sign_key: Some(options.sign_key.clone()),
        files: package_files(&folder)?,
        // Programs look for a package in the folder of the architecture that its record names.
        rewrite_arch: Some(arch),
        width: options.width,
        time: options.time,
        ..IndexOptions::default()
    };
    index::run(settings, &indexing, sink)?;
    Ok(answer)
}

fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|error| failed(path, &error))
}

fn package_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "apk"))
        .collect();
    files.sort();
    Ok(files)
}

/// Makes the key if there is none, and puts its public half into the repository.
fn public_key(options: &KeepOptions) -> Result<(), Error> {
    let path = &options.sign_key;
    let refused = |cause: String| Error::Arguments {
        lines: vec![format!("{}: {cause}", path.display())],
        code: 99,
    };
    if !path.exists() {
        let pem = SigningKey::generate().map_err(|error| refused(error.to_string()))?;
        write_secret(path, &pem).map_err(|error| failed(path, &error))?;
    }
    let pem = std::fs::read(path).map_err(|error| failed(path, &error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{name}.pub");
    let key = SigningKey::from_pem(&name, &pem).map_err(|error| refused(error.to_string()))?;
    let public = key
        .public_pem()
        .map_err(|error| refused(error.to_string()))?;
    let target = options.directory.join("keys").join(name);
    crate::fetch::cache::store(&target, public.as_bytes()).map_err(|error| failed(&target, &error))
}

/// Writes a file that only its owner may read, unless it is there already.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What a snapshot is of.
#[derive(Clone, Debug)]
pub enum Contents {
    /// The packages that are installed in the root.
    Installed,
    /// The packages that a lock file names.
    Lock(PathBuf),
}

/// Makes a snapshot below the directory of the options; returns its path, which is `None` if a
/// package could not be had: then there is no snapshot, and the answer says why.
///
/// # Errors
/// [`enum@Error`].
pub fn snapshot(
    settings: &Settings,
    known: &Known,
    contents: &Contents,
    options: &KeepOptions,
    sink: &mut dyn Sink,
) -> Result<(Answer, Option<PathBuf>), Error> {
    let wanted = match contents {
        Contents::Installed => installed(known),
        Contents::Lock(path) => locked(path, &known.architectures.list[0])?,
    };
    let view = known.view();
    let mut answer = Answer::default();
    let mut identities = Vec::new();
    let mut vanished = Vec::new();
    for (name, identity) in wanted {
        let package = view
            .find(identity)
            .filter(|p| has_source(known, *p, settings));
        if package.is_some() {
            identities.push(identity);
        } else if let Some(path) = known.kept_file(settings, &name, identity) {
            vanished.push((path, name));
        } else {
            let text = "no repository that can be reached has it any more, and no cache";
            answer.errors.push(format!("{name}: {text}"));
            answer.status += 1;
        }
    }
    if answer.status > 0 {
        return Ok((answer, None));
    }
    make_directory(&options.directory)?;
    let name = stamp(options.time);
    let place = tempfile::Builder::new()
        .prefix(".making.")
        .tempdir_in(&options.directory)
        .map_err(|error| failed(&options.directory, &error))?;
    let inner = KeepOptions {
        directory: place.path().to_owned(),
        ..options.clone()
    };
    // What no index lists any more; it was verified when it was found.
    let folder = inner.directory.join(&known.architectures.list[0]);
    make_directory(&folder)?;
    for (from, name) in vanished {
        let to = folder.join(format!("{name}.apk"));
        std::fs::copy(&from, &to).map_err(|error| failed(&from, &error))?;
    }
    let selection = Selection {
        all_matches: true,
        ..Selection::default()
    };
    let arguments = Arguments::Resolved(&identities);
    let answer = keep(settings, known, selection, arguments, &inner, sink)?;
    if answer.status > 0 {
        return Ok((answer, None));
    }
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    let put = || -> std::io::Result<PathBuf> {
        rustix::fs::chmod(place.path(), mode)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let here = rustix::fs::CWD;
        // Older ones of the same second stay as they are; this one comes behind them.
        let mut number = 1;
        let mut name = name.clone();
        let target = loop {
            let target = options.directory.join(&name);
            match rustix::fs::renameat_with(here, place.path(), here, &target, flags) {
                Err(rustix::io::Errno::EXIST) if number < MOST_AT_ONCE => {
                    number += 1;
                    name = format!("{}-{number}", stamp(options.time));
                }
                other => break other.map(|()| target)?,
            }
        };
        let link = options
            .directory
            .join(format!(".latest.{}", std::process::id()));
        std::os::unix::fs::symlink(&name, &link)?;
        rustix::fs::rename(&link, options.directory.join("latest"))?;
        Ok(target)
    };
    let target = put().map_err(|error| failed(&options.directory.join(&name), &error))?;
    Ok((answer, Some(target)))
}

/// Returns whether a package can be had: from a repository, or from a cache that still has it.
fn has_source(known: &Known, package: PackageRef, settings: &Settings) -> bool {
    let view = known.view();
    known.url(&view, package, settings.network).is_some()
        || known.kept(settings, &view, package).is_some()
}

/// Returns a time as `YYYYMMDDTHHMMSSZ`.
fn stamp(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(
            || seconds.to_string(),
            |at| at.strftime("%Y%m%dT%H%M%SZ").to_string(),
        )
}

/// Returns what is installed, without the virtual packages that nobody can download.
fn installed(known: &Known) -> Vec<(String, Identity)> {
    let packages = known.installed.packages.iter().map(|p| &p.package);
    packages
        .filter(|package| !package.name.starts_with('.') || package.installed_size > 0)
        .map(|package| (package.full_name(), package.identity))
        .collect()
}

/// Reads the packages of one architecture from a lock file (image.md, 12.2).
fn locked(path: &Path, arch: &str) -> Result<Vec<(String, Identity)>, Error> {
    let refused = |cause: String| Error::Arguments {
        lines: vec![format!("{}: {cause}", path.display())],
        code: 99,
    };
    let lock = read_lock(path)?;
    let mut found = Vec::new();
    for package in lock.contents.packages {
        if package.architecture != arch {
            continue;
        }
        let name = format!("{}-{}", package.name, package.version);
        let identity = Identity::parse(&package.checksum)
            .ok_or_else(|| refused(format!("{name}: `{}` is no checksum", package.checksum)))?;
        found.push((name, identity));
    }
    match found.is_empty() {
        true => Err(refused(format!("no packages of {arch} in this lock file"))),
        false => Ok(found),
    }
}

/// Returns the repositories that a lock file names.
///
/// # Errors
/// [`enum@Error`] if it cannot be read.
pub fn locked_repositories(path: &Path) -> Result<Vec<String>, Error> {
    let contents = read_lock(path)?.contents;
    let lists = [
        contents.repositories,
        contents.build_repositories,
        contents.runtime_repositories,
    ];
    let mut found = Vec::new();
    for repository in lists.into_iter().flatten() {
        let end = format!("/{}/APKINDEX.tar.gz", repository.architecture);
        if let Some(base) = repository.url.strip_suffix(&end)
            && !found.iter().any(|known| known == base)
        {
            found.push(base.to_owned());
        }
    }
    Ok(found)
}

fn read_lock(path: &Path) -> Result<Lock, Error> {
    let bytes = std::fs::read(path).map_err(|error| failed(path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Arguments {
        lines: vec![format!("{}: {error}", path.display())],
        code: 99,
    })
}

#[derive(serde::Deserialize)]
struct Lock {
    contents: LockContents,
}

#[derive(serde::Deserialize)]
struct LockContents {
    packages: Vec<LockedPackage>,
    #[serde(default)]
    repositories: Vec<LockedRepository>,
    #[serde(default)]
    build_repositories: Vec<LockedRepository>,
    #[serde(default)]
    runtime_repositories: Vec<LockedRepository>,
}

#[derive(serde::Deserialize)]
struct LockedRepository {
    #[serde(default)]
    url: String,
    #[serde(default)]
    architecture: String,
}

#[derive(serde::Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    architecture: String,
    checksum: String,
}
