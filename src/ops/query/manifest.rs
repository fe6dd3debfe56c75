//! `manifest`: the digests of the files of packages (cli.md, 2.16).

use super::Answer;
use super::owner;
use super::versions::InstalledNames;
use super::view::{PackageRef, View};
use crate::package::{Digest, InstalledPackage};
use std::fmt::Write as _;

/// One file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Path without leading slash.
    pub path: String,
    /// Digest of the content.
    pub digest: Option<Digest>,
}

/// Answers `manifest`; the status is the number of words that are neither the name of an installed
/// package nor a package file.
///
/// `read` gives the files of a package file, or why it cannot be read; package files come first, as
/// apk prints them. apk exits with 0 even after errors.
pub fn manifest(
    view: &View<'_>,
    words: &[String],
    verbose: bool,
    read: impl Fn(&str) -> Result<Vec<ManifestFile>, String>,
) -> Answer {
    let mut answer = Answer::default();
    let names = InstalledNames::new(words);
    for word in words {
        if word.contains('*') || view.offers(word).next().is_some() {
            continue;
        }
        match read(word) {
            Ok(files) => {
                let prefix = prefix(verbose, word);
                for file in files {
                    line(&prefix, &file.path, file.digest.as_ref(), &mut answer.text);
                }
            }
            Err(cause) => {
                answer.errors.push(format!("{word}: {cause}"));
                answer.status += 1;
            }
        }
    }
    let mut packages: Vec<PackageRef> = (view.installed_packages())
        .filter(|package| names.contains(view.get(*package).name()))
        .collect();
    view.sort(&mut packages);
    for package in packages {
        if let Some(installed) = view.installed_package(package) {
            let prefix = prefix(verbose, view.get(package).name());
            of_installed(&prefix, installed, &mut answer.text);
        }
    }
    answer
}

fn prefix(verbose: bool, name: &str) -> String {
    match verbose {
        true => format!("{name}: "),
        false => String::new(),
    }
}

fn of_installed(prefix: &str, installed: &InstalledPackage, out: &mut String) {
    for directory in &installed.directories {
        for file in &directory.files {
            let path = owner::join(directory, &file.name);
            line(prefix, &path, file.digest.as_ref(), out);
        }
    }
}

fn line(prefix: &str, path: &str, digest: Option<&Digest>, out: &mut String) {
    let (algorithm, digits) = match digest {
        Some(digest) => (digest.algorithm().name(), digest.hex()),
        None => ("none", String::new()),
    };
    let _ = writeln!(out, "{prefix}{algorithm}:{digits}  {path}");
}
