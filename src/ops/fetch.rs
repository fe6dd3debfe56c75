//! `fetch`: package files into a directory, or to standard output (cli.md, 2.7).
//!
//! Nothing is kept under its name before it was verified: signature chain by the index, identity
//! and data hash by the file itself.

use super::known::Known;
use super::package_file::{self, PackageFileError};
use super::query::{Arguments, PackageRef, Selection, View};
use super::{Error, query::Answer};
use crate::config::{Settings, repositories};
use crate::fetch::cache::Key;
use crate::fetch::package::FileRequest;
use crate::format::Limits;
use crate::format::apk::PackageReader;
pub use crate::package::FileName;
use crate::package::Identity;
use crate::progress::Sink;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

/// What to fetch and where to put it.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Which packages.
    pub selection: Selection,
    /// Only packages built later, in seconds since 1970.
    pub built_after: Option<u64>,
    /// Make hard links of local files where possible.
    pub link: bool,
    /// The directory.
    pub output: PathBuf,
    /// How files are named.
    pub name: FileName,
    /// Fetch nothing.
    pub simulate: bool,
    /// Write the packages to standard output instead.
    pub to_stdout: bool,
    /// Tell where packages are instead of what they are.
    pub urls: bool,
    /// Delete what else is in the directory.
    pub purge: bool,
}

/// One package to fetch.
struct Wanted {
    full_name: String,
    identity: Identity,
    size: u64,
    /// Where it is; `None` if no repository that can be reached has it.
    url: Option<String>,
    /// The same file in a cache.
    kept: Option<PathBuf>,
    target: PathBuf,
}

/// Fetches packages; the status is the number of those that failed, or of the words that name no
/// package: then nothing is fetched.
///
/// # Errors
/// [`enum@Error`] if the standard output cannot be written.
pub fn run(
    settings: &Settings,
    known: &Known,
    options: &FetchOptions,
    arguments: Arguments<'_>,
    stdout: &mut dyn Write,
    sink: &mut dyn Sink,
) -> Result<Answer, Error> {
    let view = known.view();
    let selected = options.selection.select(&view, arguments);
    let mut answer = Answer::default();
    for word in &selected.missed {
        let text = format!("{word}: unable to select package (or its dependencies)\n");
        answer.text.push_str(&text);
        answer.status += 1;
    }
    if answer.status > 0 {
        return Ok(answer);
    }
    let wanted = wanted(settings, known, &view, options, &selected.packages);
    let open: Vec<&Wanted> = match options.to_stdout {
        true => wanted.iter().collect(),
        false => wanted.iter().filter(|one| !one.is_there()).collect(),
    };
    for one in open.iter().filter(|_| !options.to_stdout) {
        match &one.url {
            Some(url) if options.urls => sink.info(&repositories::masked(url)),
            _ => sink.info(&format!("Downloading {}", one.full_name)),
        }
    }
    if !options.simulate {
        let results = fetch_all(settings, known, options, &open, stdout, sink);
        for (one, result) in open.iter().zip(results) {
            if let Err(cause) = result {
                answer.errors.push(format!("{}: {cause}", one.full_name));
                answer.status += 1;
            }
        }
    }
    if options.purge && !options.to_stdout {
        purge(options, &wanted, sink);
    }
    Ok(answer)
}

impl Wanted {
    /// Takes the file from the cache that has it; one that is not what it should be is left to the
    /// commands that keep the cache, and the file comes from where it is published.
    fn take_kept(&self, to: &Path, limits: &Limits) -> bool {
        let local = |url: &String| repositories::local_path(url).is_some();
        let Some(kept) = self
            .kept
            .as_ref()
            .filter(|_| !self.url.as_ref().is_some_and(local))
        else {
            return false;
        };
        let taken = take_local(kept, to, false).is_ok() && check(to, self, limits).is_ok();
        if !taken {
            // What stays goes with its folder, or is in nobody's way.
            let _ = std::fs::remove_file(to);
        }
        taken
    }

    /// Returns whether a file of the right name and size is there already.
    fn is_there(&self) -> bool {
        std::fs::metadata(&self.target).is_ok_and(|meta| meta.is_file() && meta.len() == self.size)
    }
}

fn wanted(
    settings: &Settings,
    known: &Known,
    view: &View<'_>,
    options: &FetchOptions,
    packages: &[PackageRef],
) -> Vec<Wanted> {
    let built_later = |package: &&PackageRef| {
        let after = options.built_after;
        after.is_none_or(|after| view.get(**package).build_time() > after)
    };
    let wanted = packages.iter().filter(built_later).map(|package| {
        let entry = view.get(*package);
        Wanted {
            full_name: entry.full_name(),
            identity: entry.identity(),
            size: entry.size(),
            url: known.url(view, *package, settings.network),
            kept: known.kept(settings, view, *package),
            target: options.output.join(options.name.of(
                entry.name(),
                entry.version(),
                entry.arch(),
                entry.identity(),
            )),
        }
    });
    wanted.collect()
}

/// Fetches what is wanted: what a cache has from there, all other remote files at once, then one
/// after the other verified and put under its name.
fn fetch_all(
    settings: &Settings,
    known: &Known,
    options: &FetchOptions,
    wanted: &[&Wanted],
    stdout: &mut dyn Write,
    sink: &mut dyn Sink,
) -> Vec<Result<(), String>> {
    let cause = |error: std::io::Error| crate::root::cause(&error);
    // Beside the final names, so that putting a file there is a rename.
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix(".ibex-fetch.");
    let folder = match options.to_stdout {
        true => folder.tempdir(),
        false => folder.tempdir_in(&options.output),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => return vec![Err(cause(error)); wanted.len()],
    };
    let waiting = |at: usize| folder.path().join(at.to_string());
    let mut downloads = Vec::new();
    let mut results: Vec<Result<Option<usize>, String>> = Vec::new();
    for (at, one) in wanted.iter().enumerate() {
        if one.take_kept(&waiting(at), &settings.limits) {
            results.push(Ok(None));
            continue;
        }
        results.push(match &one.url {
            None => Err(
                "could not find a repo which provides this package (check repositories file and \
                 run 'apk update')"
                    .to_owned(),
            ),
            Some(url) => match repositories::local_path(url) {
                Some(path) => take_local(&path, &waiting(at), options.link)
                    .map(|()| None)
                    .map_err(cause),
                None => {
                    downloads.push(FileRequest {
                        urls: known.mirrors().addresses(url),
                        target: Some(waiting(at)),
                        size: one.size,
                        package: Some(Key::from(one.identity)),
                        unpack: false,
                        on_disk: None,
                    });
                    Ok(Some(downloads.len() - 1))
                }
            },
        });
    }
    let answers = match known.session(settings) {
        Ok(session) => super::download::fetch(session, None, &downloads, sink).results,
        Err(error) => vec![Err(error); downloads.len()],
    };
    let mut finish = |at: usize, one: &Wanted| -> Result<(), String> {
        let path = waiting(at);
        check(&path, one, &settings.limits).map_err(|error| error.to_string())?;
        if options.to_stdout {
            let mut file = File::open(&path).map_err(cause)?;
            std::io::copy(&mut file, stdout).map_err(cause)?;
            return Ok(());
        }
        rustix::fs::rename(&path, &one.target).map_err(|errno| cause(errno.into()))
    };
    let mut finished = Vec::new();
    for (at, (one, result)) in wanted.iter().zip(results).enumerate() {
        finished.push(match result {
            Err(cause) => Err(cause),
            Ok(None) => finish(at, one),
            Ok(Some(number)) => match &answers[number] {
                Ok(()) => finish(at, one),
                Err(error) => Err(super::download::describe(error)),
            },
        });
    }
    finished
}

/// Copies or links a file of a local repository.
fn take_local(from: &Path, to: &Path, link: bool) -> std::io::Result<()> {
    if link && std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    std::io::copy(&mut source, &mut target)?;
    if let Ok(modified) = source.metadata()?.modified() {
        target.set_modified(modified)?;
    }
    Ok(())
}

/// Checks that a file is the package that the verified index lists.
fn check(path: &Path, wanted: &Wanted, limits: &Limits) -> Result<(), PackageFileError> {
    let source = BufReader::with_capacity(128 << 10, File::open(path)?);
    let (control, data) = PackageReader::open(source, limits)?;
    if control.identity != wanted.identity {
        return Err(control.form.other_identity().into());
    }
    package_file::read(data, |_, _| Ok(()))
}

/// Deletes the files in the directory that were not asked for. apk deletes those, too.
fn purge(options: &FetchOptions, wanted: &[Wanted], sink: &mut dyn Sink) {
    let keep: HashSet<&Path> = wanted.iter().map(|one| one.target.as_path()).collect();
    let Ok(entries) = std::fs::read_dir(&options.output) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_file = std::fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir());
        if keep.contains(path.as_path()) || !is_file {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        sink.info(&format!("Purging {name}"));
        if !options.simulate
            && let Err(error) = std::fs::remove_file(&path)
        {
            let cause = crate::root::cause(&error);
            sink.warning(&format!("{}: {cause}", path.display()));
        }
    }
}
