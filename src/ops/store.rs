//! `cache dir`, `size`, `list`, `verify`, `prune`: what is kept for all roots of a user.
//!
//! No root has to have a database for these. Where the root has a package cache of apk's, its
//! package files are looked at, too; `prune` leaves them alone, since apk may rely on them.

use super::Error;
use super::query::{Answer, Cell, Listing};
use crate::config::Settings;
use crate::fetch::cache::{Dropped, Item, Kind, Store, check_package};
use crate::package::Identity;
use crate::solver::human_size;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// Tell where it is.
    Directory,
    /// Tell how large it is.
    Size,
    /// Tell what is in it.
    List,
    /// Verify everything and drop what is damaged.
    Verify,
    /// Drop what was not used for longest.
    Prune {
        /// Drop all that is quickly made again from package files: unpacked packages.
        ci: bool,
    },
}

impl StoreCommand {
    /// Reads the word of the command line.
    pub fn from_name(name: &str, ci: bool) -> Option<Self> {
        Some(match name {
            "dir" => Self::Directory,
            "size" => Self::Size,
            "list" => Self::List,
            "verify" => Self::Verify,
            "prune" => Self::Prune { ci },
            _ => return None,
        })
    }
}

/// Does it; `json` asks for one JSON value instead of text.
///
/// # Errors
/// [`enum@Error`] if there is no store that can be used.
pub fn run(settings: &Settings, command: StoreCommand, json: bool) -> Result<Answer, Error> {
    let directory = settings.catalogue_dir.as_deref().filter(|_| settings.cache);
    let unusable = |cause: String| Error::Cache { cause };
    let directory = directory.ok_or_else(|| {
        unusable("there is no directory for it: set IBEX_CACHE_DIR or HOME".to_owned())
    })?;
    if command == StoreCommand::Directory {
        return Ok(told(
            json,
            &json!({ "directory": directory.display().to_string() }),
            format!("{}\n", directory.display()),
        ));
    }
    let store = Store::open(directory).map_err(|error| {
        let cause = crate::root::cause(&error);
        unusable(format!("{}: {cause}", directory.display()))
    })?;
    let work = Work {
        settings,
        store,
        apk: apk_cache(settings),
    };
    Ok(match command {
        StoreCommand::Directory | StoreCommand::Size => work.size(json),
        StoreCommand::List => work.list(json),
        StoreCommand::Verify => work.verify(json),
        StoreCommand::Prune { ci } => work.prune(ci, json),
    })
}

fn told(as_json: bool, value: &serde_json::Value, text: String) -> Answer {
    Answer::text(match as_json {
        true => format!("{value}\n"),
        false => text,
    })
}

/// Returns the package cache of the root, in apk's layout, if there is one.
fn apk_cache(settings: &Settings) -> Option<PathBuf> {
    let root = crate::root::Root::open(&settings.root).ok()?;
    let cache = settings.cache_directory(&root).ok()??;
    cache.packages.then_some(cache.path)
}

struct Work<'a> {
    settings: &'a Settings,
    store: Store,
    apk: Option<PathBuf>,
}

/// A package file in apk's cache directory.
struct ApkFile {
    path: PathBuf,
    name: String,
    /// The first digits of its identity.
    start: String,
    size: u64,
}

impl Work<'_> {
    fn apk_files(&self) -> Vec<ApkFile> {
        let Some(Ok(entries)) = self.apk.as_ref().map(std::fs::read_dir) else {
            return Vec::new();
        };
        let files = entries.flatten().filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let (name, start) = file.strip_suffix(".apk")?.rsplit_once('.')?;
            Some(ApkFile {
                path: entry.path(),
                name: name.to_owned(),
                start: start.to_owned(),
                size: entry.metadata().ok()?.len(),
            })
        });
        let mut files: Vec<ApkFile> = files.collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    }

    fn size(&self, json: bool) -> Answer {
        let items = self.store.items();
        let of = |kind: Kind| {
            let items = items.iter().filter(|item| item.kind == kind);
            let (count, size) = items.fold((0, 0), |(n, size), item| (n + 1, size + item.size));
            (word(kind), count, size)
        };
        let mut rows = vec![of(Kind::Package), of(Kind::Unpacked)];
        for (name, folder) in [("indexes", "indexes"), ("catalogue", "")] {
            let (count, size) = folder_size(&self.store.directory().join(folder));
            rows.push((name, count, size));
        }
        let total: u64 = rows.iter().map(|(_, _, size)| size).sum();
        let files = self.apk_files();
        let apk: u64 = files.iter().map(|file| file.size).sum();
        let mut text = String::new();
        for (name, count, size) in &rows {
            let files = if *count == 1 { "file" } else { "files" };
            text += &format!(
                "{name:<10} {count:>6} {files:<5} {:>10}\n",
                human_size(*size)
            );
        }
        let limit = human_size(self.settings.store_limit);
        text += &format!("{:<23} {:>10} of {limit}\n", "total", human_size(total));
        if let Some(path) = &self.apk {
            let count = files.len();
            text += &format!(
                "{}: {count} packages, {}\n",
                path.display(),
                human_size(apk)
            );
        }
        let named = |(name, count, size): &(&str, usize, u64)| {
            ((*name).to_owned(), json!({ "files": count, "bytes": size }))
        };
        let mut value: serde_json::Map<_, _> = rows.iter().map(named).collect();
        value.insert("bytes".into(), total.into());
        value.insert("limit".into(), self.settings.store_limit.into());
        if let Some(path) = &self.apk {
            let apk = json!({
                "directory": path.display().to_string(), "files": files.len(), "bytes": apk,
            });
            value.insert("apk".into(), apk);
        }
        told(json, &value.into(), text)
    }

    fn list(&self, json: bool) -> Answer {
        let items = self.store.items();
        let mut text = String::new();
        let (mut values, mut rows) = (Vec::new(), Vec::new());
        for item in &items {
            let (kind, used) = (word(item.kind), day(item.used));
            let size = human_size(item.size);
            text += &format!("{:<40} {kind:<8} {size:>10}  {used}\n", item.name);
            values.push(json!({
                "package": item.name, "kind": kind, "bytes": item.size, "used": used,
            }));
            rows.push(vec![item.name.clone(), kind.to_owned(), size, used]);
        }
        for file in self.apk_files() {
            let size = human_size(file.size);
            text += &format!("{:<40} {:<8} {size:>10}\n", file.name, "apk");
            values.push(json!({ "package": file.name, "kind": "apk", "bytes": file.size }));
            rows.push(vec![file.name, "apk".to_owned(), size, String::new()]);
        }
        let mut answer = told(json, &values.into(), text);
        if !json {
            answer.listing = Listing {
                columns: &[Cell::Name, Cell::Word, Cell::Amount, Cell::Word],
                rows,
            };
        }
        answer
    }

    fn verify(&self, json: bool) -> Answer {
        let limits = &self.settings.limits;
        let count = self.store.items().len() + self.apk_files().len();
        let damaged = self.store.verify(limits);
        let named = |item: &Item| format!("{} ({})", item.name, word(item.kind));
        let mut damaged: Vec<String> = damaged.iter().map(named).collect();
        for file in self.apk_files() {
            if is_whole(&file.path, &file.start, limits) {
                continue;
            }
            damaged.push(file.path.display().to_string());
            // If it stays it is refused when it is used.
            let _ = std::fs::remove_file(&file.path);
        }
        let mut text = String::new();
        for name in &damaged {
            text += &format!("{name}: damaged, removed\n");
        }
        text += &format!("{count} verified, {} damaged\n", damaged.len());
        let value = json!({ "verified": count, "damaged": damaged });
        Answer {
            status: damaged.len(),
            ..told(json, &value, text)
        }
    }

    fn prune(&self, ci: bool, json: bool) -> Answer {
        let first = match ci {
            true => self.store.clear(Some(Kind::Unpacked)),
            false => Dropped::default(),
        };
        let second = self.store.prune(self.settings.store_limit);
        let count = first.count + second.count;
        let size = first.size + second.size;
        let files = if count == 1 { "file" } else { "files" };
        let text = format!("{count} {files} removed, {} freed\n", human_size(size));
        told(json, &json!({ "files": count, "bytes": size }), text)
    }
}

fn is_whole(path: &Path, start: &str, limits: &crate::format::Limits) -> bool {
    let found: Option<Identity> = check_package(path, limits);
    found.is_some_and(|found| found.hex().starts_with(start))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Package => "packages",
        Kind::Unpacked => "unpacked",
    }
}

/// Returns number and size of the files directly in a folder.
fn folder_size(folder: &Path) -> (usize, u64) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return (0, 0);
    };
    let files = entries.flatten().filter_map(|entry| entry.metadata().ok());
    let files = files.filter(std::fs::Metadata::is_file);
    files.fold((0, 0), |(count, size), meta| (count + 1, size + meta.len()))
}

fn day(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}
