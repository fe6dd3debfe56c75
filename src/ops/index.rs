//! `index`: package files → a repository index, signed if a key is given (cli.md, 2.19).
//!
//! apk leaves signing to another program; with a key, ours signs in the same step.

use super::Error;
use super::package_file;
use super::verify::{keyring, read_bounded};
use crate::config::Settings;
use crate::format::{FormatError, index::UnverifiedIndex, index_writer};
use crate::package::{Index, Package, Version, order};
use crate::progress::{Event, Level, Sink};
use crate::trust::{Keyring, SigningKey};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What to make.
#[derive(Clone, Debug, Default)]
pub struct IndexOptions {
    /// Where to write it; `None` returns the bytes.
    pub output: Option<PathBuf>,
    /// An index whose entries may be used again.
    pub old: Option<PathBuf>,
    /// The description.
    pub description: String,
    /// Keep all entries of the old index.
    pub merge: bool,
    /// With `merge`: drop old entries whose origin is indexed now.
    pub prune_origin: bool,
    /// The architecture to write in every new entry.
    pub rewrite_arch: Option<String>,
    /// Warn about dependencies that nothing provides.
    pub warnings: bool,
    /// The private key to sign with, in PEM; its public name is the file's name and `.pub`.
    pub sign_key: Option<PathBuf>,
    /// Package files.
    pub files: Vec<PathBuf>,
    /// Columns of the display.
    pub width: usize,
    /// Seconds since 1970 that the entries of the index carry.
    pub time: u64,
}

/// An index that is to be extended.
struct OldIndex {
    packages: Vec<Package>,
    changed: SystemTime,
}

/// Makes an index. Returns its bytes unless they were written to a file.
///
/// # Errors
/// [`enum@Error`]; then nothing was written.
pub fn run(
    settings: &Settings,
    options: &IndexOptions,
    sink: &mut dyn Sink,
) -> Result<Vec<u8>, Error> {
    let root = super::database::open_root(&settings.root, false)?;
    let keyring = keyring(settings, &root)?;
    let key = options.sign_key.as_deref().map(signing_key).transpose()?;
    let old = match &options.old {
        Some(path) => read_old(path, &keyring, settings)?,
        None => None,
    };
    let (new, fresh) = read_packages(settings, options, &keyring, old.as_ref(), sink)?;
    let origins: HashSet<String> = new.iter().map(origin).collect();
    let mut packages = new;
    if let Some(old) = old.filter(|_| options.merge) {
        let kept = old.packages.into_iter();
        packages.extend(
            kept.filter(|package| !options.prune_origin || !origins.contains(&origin(package))),
        );
    }
    packages.sort_by(|a, b| {
        order::by_name(&a.name, &b.name)
            .then_with(|| Version(&a.version).compare(Version(&b.version)))
    });
    let mut seen = HashSet::new();
    packages.retain(|package| seen.insert(package.identity));
    if options.warnings {
        warn_of_missing_providers(&packages, options.width, sink);
    }
    let count = packages.len();
    let index = Index {
        made: 0,
        description: options.description.clone(),
        packages,
    };
    let bytes = index_writer::write(&index, options.time, key.as_ref())
        .map_err(|error| failed(vec![format!("Index generation failed: {error}")]))?;
    let Some(output) = &options.output else {
        return Ok(bytes);
    };
    write(output, &bytes)?;
    sink.info(&format!(
        "Index has {count} packages (of which {fresh} are new)"
    ));
    Ok(Vec::new())
}

fn failed(lines: Vec<String>) -> Error {
    Error::Arguments { lines, code: 99 }
}

fn origin(package: &Package) -> String {
    package
        .origin
        .clone()
        .unwrap_or_else(|| package.name.clone())
}

/// Reads a private key. Its public half is known by the file's name and `.pub`, as `abuild-keygen`
/// names it.
fn signing_key(path: &Path) -> Result<SigningKey, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let refused = |cause: String| failed(vec![format!("{}: {cause}", path.display())]);
    let pem = std::fs::read(path).map_err(|error| refused(crate::root::cause(&error)))?;
    SigningKey::from_pem(&format!("{name}.pub"), &pem).map_err(|error| refused(error.to_string()))
}

fn read_old(
    path: &Path,
    keyring: &Keyring,
    settings: &Settings,
) -> Result<Option<OldIndex>, Error> {
    let Ok(meta) = std::fs::metadata(path) else {
        return Ok(None);
    };
    let limits = settings.limits;
    let read = || -> Result<Vec<Package>, package_file::PackageFileError> {
        let bytes = read_bounded(path, limits.index_file)?;
        if bytes.starts_with(b"ADB") {
            return Err(FormatError::NotSupported.into());
        }
        let index = UnverifiedIndex::read(&bytes, &limits)?;
        package_file::check_trust(keyring, settings, &index.signatures, &index.digests)?;
        Ok(index.parse()?.packages)
    };
    let packages =
        read().map_err(|error| failed(vec![format!("{}: {}", path.display(), error.lines())]))?;
    Ok(Some(OldIndex {
        packages,
        changed: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    }))
}

/// Reads the packages; returns them and how many were not taken from the old index.
fn read_packages(
    settings: &Settings,
    options: &IndexOptions,
    keyring: &Keyring,
    old: Option<&OldIndex>,
    sink: &mut dyn Sink,
) -> Result<(Vec<Package>, usize), Error> {
    let known: HashMap<(String, u64), &Package> = old
        .iter()
        .flat_map(|old| &old.packages)
        .map(|package| ((package.full_name(), package.size), package))
        .collect();
    let (mut packages, mut fresh, mut errors) = (Vec::new(), 0, Vec::new());
    for path in &options.files {
        let Ok(meta) = std::fs::metadata(path) else {
            sink.warning(&format!("File '{}' is unaccessible", path.display()));
            continue;
        };
        // Without a file the index itself goes where these lines would.
        let mut tell = |what: &str| {
            if options.output.is_some() {
                sink.line(
                    Level::Detail,
                    &format!("{}: indexed {what}", path.display()),
                );
            }
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_older = |old: &OldIndex| {
            meta.modified()
                .is_ok_and(|modified| modified <= old.changed)
        };
        let reused = known.get(&(name.into_owned(), meta.len()));
        if let Some(package) = reused.filter(|_| old.is_some_and(is_older)) {
            tell("from old index");
            packages.push((*package).clone());
            continue;
        }
        let read = package_file::open(path, keyring, settings).and_then(|(control, data)| {
            // Identities of this form have no place in an index of v2: they are no SHA-1.
            if control.form.is_v3() {
                return Err(FormatError::NotSupported.into());
            }
            package_file::read(data, |_, _| Ok(()))?;
            Ok(control.package)
        });
        match read {
            Ok(mut package) => {
                if let Some(arch) = &options.rewrite_arch {
                    package.arch = Some(arch.clone());
                }
                tell("new package");
                packages.push(package);
                fresh += 1;
            }
            Err(error) => errors.push(format!("{}: {}", path.display(), error.lines())),
        }
    }
    match errors.is_empty() {
        true => Ok((packages, fresh)),
        false => Err(failed(errors)),
    }
}

fn warn_of_missing_providers(packages: &[Package], width: usize, sink: &mut dyn Sink) {
    let provided: HashSet<&str> = packages
        .iter()
        .flat_map(|package| {
            let names = package.provides.iter().map(|offer| offer.name.as_str());
            std::iter::once(package.name.as_str()).chain(names)
        })
        .collect();
    let depends = packages.iter().flat_map(|package| &package.depends);
    let names = depends
        .filter(|need| !need.conflict)
        .map(|need| need.name.as_str());
    let missing: BTreeSet<&str> = names.filter(|name| !provided.contains(name)).collect();
    if missing.is_empty() {
        return;
    }
    let mut missing: Vec<&str> = missing.into_iter().collect();
    missing.sort_by(|a, b| order::by_name(a, b));
    sink.warning("No provider for the dependencies:");
    let mut text = String::new();
    let mut column = 0;
    for name in &missing {
        if column > 0 && column + 1 + name.len() >= width {
            text.push('\n');
            column = 0;
        }
        text.push_str(if column == 0 { "  " } else { " " });
        column += name.len() + if column == 0 { 2 } else { 1 };
        text.push_str(name);
    }
    text.push('\n');
    sink.event(Event::Text(&text));
    sink.warning(&format!(
        "Total of {} unsatisfiable package names. Your repository may be broken.",
        missing.len()
    ));
}

fn write(output: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |error: std::io::Error| {
        let cause = crate::root::cause(&error);
        failed(vec![format!(
            "Index generation failed: {}: {cause}",
            output.display()
        )])
    };
    crate::root::write_output(output, failed, |out| out.write_all(bytes).map_err(failed))
}
