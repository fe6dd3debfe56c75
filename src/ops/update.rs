//! `update`: refresh every index and say what there is (cli.md, 2.5).

use super::Error;
use super::change::plain_sources;
use super::database::{Database, OpenOptions};
use super::log::LogTee;
use super::refresh::{self, Purpose};
use crate::config::Settings;
use crate::config::repositories::masked;
use crate::fetch::Depth;
use crate::progress::Sink;
use crate::solver::InstalledInput;
use std::collections::HashSet;
use std::time::Duration;

/// How the indexes are refreshed.
#[derive(Clone, Debug)]
pub struct UpdateOptions {
    /// `--wait`.
    pub wait: Option<Duration>,
    /// Write the log.
    pub log: bool,
    /// `--force-old-apk`.
    pub force_old_apk: bool,
    /// Verbosity, for the log.
    pub verbosity: u8,
    /// The version line, for the log.
    pub version: String,
    /// The command line, for the log.
    pub command_line: Vec<String>,
}

/// Refreshes the indexes; returns the number of remote ones that are not current.
///
/// # Errors
/// [`enum@Error`].
pub fn run(settings: &Settings, options: &UpdateOptions, sink: &mut dyn Sink) -> Result<u8, Error> {
    let open = OpenOptions {
        write: true,
        wait: options.wait,
        log: options.log,
        force_old_apk: options.force_old_apk,
        ..OpenOptions::default()
    };
    let mut database = Database::open(&settings.root, &open, sink)?;
    let log = database.log.take();
    let mut tee = LogTee::begin(
        sink,
        log,
        options.verbosity,
        &options.command_line,
        &options.version,
    );
    let sink: &mut dyn Sink = &mut tee;
    let root = &database.root;
    let unreadable = |error: crate::root::RootError| Error::Database {
        cause: error.cause(),
    };
    let architectures = settings.architectures(root, true).map_err(unreadable)?;
    let keyring = settings.keyring(root).map_err(unreadable)?;
    let cache = settings
        .cache_directory(root)
        .map_err(|error| Error::Cache {
            cause: error.cause(),
        })?;
    let context = refresh::Context {
        root,
        settings,
        arch: &architectures.list[0],
        keyring: &keyring,
        cache: cache.as_ref(),
    };
    let loaded =
        refresh::load(context, Purpose::Update, Depth::Records, sink).map_err(unreadable)?;
    let mut sources = plain_sources(&loaded, &architectures.list);
    sources.installed = InstalledInput::from_db(&database.installed);
    for warning in sources.warnings() {
        sink.warning(warning);
    }
    let mut packages: HashSet<_> = database
        .installed
        .packages
        .iter()
        .map(|p| p.package.identity)
        .collect();
    for loaded in &loaded.repositories {
        let Some(index) = &loaded.index else { continue };
        let table = index.table();
        packages.extend((0..table.len() as u32).map(|n| table.record(n).identity()));
        sink.info(&format!(
            "{} [{}]",
            index.description,
            masked(&loaded.repository.url)
        ));
    }
    let bad = loaded.stale + loaded.unavailable;
    let count = format!("{} distinct packages available", packages.len());
    sink.info(&if bad == 0 {
        format!("OK: {count}")
    } else {
        format!(
            "{} unavailable, {} stale; {count}",
            loaded.unavailable, loaded.stale
        )
    });
    Ok(bad.min(99) as u8)
}
