//! `verify`: an image is what its description and lock file give (image.md, chapter 2).
//!
//! It is built again from the lock file and compared by digest. Where the digests differ, the first
//! thing that differs is named: a package, else an entry in the order of the archives, else a setting.

use super::build::{BuildOptions, OutputFormat, build};
use super::{Error, Workshop, compare, temporary};
use crate::progress::Sink;
use std::path::Path;

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// `sha256:HEX` of the index.
    pub digest: String,
    /// Platforms whose images are the same, and the digests of their manifests.
    pub platforms: Vec<(String, String)>,
}

/// Builds again and compares.
///
/// A docker archive holds no manifests; there, configurations and layers must agree.
///
/// # Errors
/// [`Error::Differs`] with the first difference, or why it could not be built or read.
pub fn verify(
    workshop: &mut Workshop<'_>,
    options: &BuildOptions,
    image: &Path,
    sink: &mut dyn Sink,
) -> Result<Verified, Error> {
    let image = workshop.options.work_dir.join(image);
    let found = compare::read_image(&image)?;
    let built = build(workshop, options, sink)?;
    // Everything is compared as it is read back: what a reader of the image sees is what counts.
    let place = temporary()?;
    let again = place.path().join("image");
    let archive = !image.is_dir()
        && found
            .iter()
            .all(|one| one.layers.iter().all(|l| l.media_type.is_empty()));
    let format = match archive {
        true => OutputFormat::DockerArchive,
        false => OutputFormat::OciDirectory,
    };
    let profile = workshop.options.profile;
    built.write(
        "verify:again",
        &again,
        format,
        profile,
        &mut std::io::sink(),
    )?;
    let differences = compare::first_differences(&again, &image)?;
    let mut differences = differences.into_iter();
    if let Some(first) = differences.next() {
        let lock = workshop
            .options
            .lockfile
            .clone()
            .unwrap_or_else(|| workshop.lock_path());
        return Err(Error::Differs {
            image: image.display().to_string(),
            lock: lock.display().to_string(),
            first,
            more: shortened(differences.collect()),
        });
    }
    Ok(Verified {
        digest: built.digest().to_owned(),
        platforms: found
            .into_iter()
            .map(|one| (one.platform, one.digest))
            .collect(),
    })
}

/// Leaves as many lines as fit on a screen, and says how many more there are.
fn shortened(mut lines: Vec<String>) -> Vec<String> {
    const MOST: usize = 20;
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("and {more} more"));
    }
    lines
}
