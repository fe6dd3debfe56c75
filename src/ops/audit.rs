//! `audit`: the root against the installed database (cli.md, 2.13; commit.md, 16.2).
//!
//! Nothing is changed, and nothing is read from outside the root. Names come sorted, so that two
//! runs say the same.

use super::Error;
use super::database::{Database, OpenOptions};
use crate::config::Settings;
use crate::package::{Acl, Digest, DigestAlgorithm, InstalledDb};
use crate::plan::files::join;
use crate::progress::Sink;
use crate::root::{Root, RootError, Stat};
use crate::transaction::protect::Protection;
use crate::transaction::{ProtectedPaths, disk_digest, xattr_digest};
use rustix::fs::FileType;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Changed and added files in protected paths.
    #[default]
    Backup,
    /// Changed and missing files of packages, outside protected paths.
    System,
    /// Everything but a list of places that change all the time.
    Full,
}

/// How an audit is made.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// What is looked at.
    pub mode: Mode,
    /// Compare modes and owners, too.
    pub check_permissions: bool,
    /// Print what is recorded and what is there.
    pub details: bool,
    /// Skip links to busybox.
    pub ignore_busybox_symlinks: bool,
    /// Only the names of packages with changes.
    pub packages: bool,
    /// Rules to use instead of the built-in and configured ones.
    pub protected_paths: Option<PathBuf>,
    /// Enter unknown directories.
    pub recursive: bool,
    /// Paths without letters, packages without versions.
    pub quiet: bool,
    /// Absolute paths of the directories to look at; none means everything.
    pub directories: Vec<String>,
}

/// Places that a full audit leaves out, besides what the built-in rules protect.
const LEFT_OUT: &str =
    "-dev\n-home\n-lib/apk\n-lib/rc/cache\n-proc\n-root\n-run\n-sys\n-tmp\n-var\n";

const BUSYBOX: [&[u8]; 3] = [b"/bin/busybox", b"/bin/bbsuid", b"/bin/busybox-extras"];

/// Compares the root with its database; returns the text for standard output.
///
/// # Errors
/// [`enum@Error`].
pub fn run(
    settings: &Settings,
    options: &AuditOptions,
    sink: &mut dyn Sink,
) -> Result<String, Error> {
    let database = Database::open(&settings.root, &OpenOptions::default(), sink)?;
    let failed = |lines: Vec<String>| Error::Arguments { lines, code: 99 };
    if database.usermode {
        return Err(failed(vec!["audit does not support usermode!".into()]));
    }
    let rules = match &options.protected_paths {
        // The lists of the root are about backups; a full audit looks at those places, too.
        None if options.mode == Mode::Full => {
            let mut rules = ProtectedPaths::default();
            rules.extend(LEFT_OUT);
            rules
        }
        None => {
            ProtectedPaths::load(&database.root).map_err(|error| failed(vec![error.to_string()]))?
        }
        Some(file) => {
            let text = std::fs::read(file).map_err(|error| {
                failed(vec![format!(
                    "unable to read protected path file: {}: {}",
                    file.display(),
                    crate::root::cause(&error)
                )])
            })?;
            ProtectedPaths::from_text(&String::from_utf8_lossy(&text))
        }
    };
    let mut audit = Audit::new(&database.root, &database.installed, options, rules);
    let everything = vec!["/".to_owned()];
    let directories = if options.directories.is_empty() {
        &everything
    } else {
        &options.directories
    };
    for directory in directories {
        let Some(path) = directory.strip_prefix('/') else {
            sink.warning(&format!("{directory}: relative path skipped."));
            continue;
        };
        let path = path.trim_end_matches('/');
        if audit.rules.rule(path) != Some(Protection::Ignore) {
            audit.visited.insert(path.to_owned());
        }
        audit
            .directory(path)
            .map_err(|error| failed(vec![format!("{directory}: {}", error.cause())]))?;
    }
    audit.missing();
    Ok(audit.text)
}

struct Recorded<'a> {
    acl: &'a Acl,
    digest: Option<&'a Digest>,
    package: usize,
}

struct Audit<'a> {
    root: &'a Root,
    db: &'a InstalledDb,
    options: &'a AuditOptions,
    rules: ProtectedPaths,
    files: HashMap<String, Recorded<'a>>,
    directories: HashMap<&'a str, (&'a Acl, usize)>,
    /// What contains recorded directories: v3 packages need not list it.
    parents: HashSet<&'a str>,
    /// Recorded files below each recorded directory, to find missing ones.
    names: BTreeMap<&'a str, Vec<&'a str>>,
    visited: HashSet<String>,
    seen: HashSet<String>,
    told: HashSet<usize>,
    text: String,
}

impl<'a> Audit<'a> {
    fn new(
        root: &'a Root,
        db: &'a InstalledDb,
        options: &'a AuditOptions,
        rules: ProtectedPaths,
    ) -> Self {
        let mut files = HashMap::new();
        let mut directories = HashMap::new();
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut parents = HashSet::new();
        for (package, installed) in db.packages.iter().enumerate() {
            for directory in &installed.directories {
                directories
                    .entry(directory.path.as_str())
                    .or_insert((&directory.acl, package));
                let mut below = directory.path.as_str();
                while let Some((parent, _)) = below.rsplit_once('/') {
                    if !parents.insert(parent) {
                        break;
                    }
                    below = parent;
                }
                let list = names.entry(directory.path.as_str()).or_default();
                for file in &directory.files {
                    list.push(file.name.as_str());
                    let digest = file.digest.as_ref();
                    let recorded = Recorded {
                        acl: &file.acl,
                        digest,
                        package,
                    };
                    files.insert(join(&directory.path, &file.name), recorded);
                }
            }
        }
        Self {
            root,
            db,
            options,
            rules,
            files,
            directories,
            parents,
            names,
            visited: HashSet::new(),
            seen: HashSet::new(),
            told: HashSet::new(),
            text: String::new(),
        }
    }

    fn directory(&mut self, path: &str) -> Result<(), RootError> {
        let open = self.root.directory(path)?;
        for name in open.list()? {
            let name = name.to_string_lossy().into_owned();
            let child = join(path, &name);
            let Some(stat) = open.stat(&name)? else {
                continue;
            };
            if stat.is_dir() {
                // Where a file should be, a directory is no file.
                self.subdirectory(&child, stat);
            } else {
                self.seen.insert(child.clone());
                self.file(&child, &name, stat);
            }
        }
        Ok(())
    }

    fn subdirectory(&mut self, path: &str, stat: Stat) {
        let rule = self.rules.rule(path);
        let known = self.directories.get(path).copied();
        let mode = self.options.mode;
        let ignored = rule == Some(Protection::Ignore);
        if ignored && mode != Mode::System && !self.rules.has_rules_below(path) {
            return;
        }
        let protected = rule.is_some() && !ignored;
        if known.is_none() && self.parents.contains(path) {
            self.enter(path);
            return;
        }
        let Some((acl, package)) = known else {
            let concerns = match mode {
                Mode::Backup => protected,
                Mode::System => false,
                Mode::Full => rule.is_none(),
            };
            if concerns {
                let letter = if self.options.recursive { 'd' } else { 'D' };
                self.tell(letter, &format!("{path}/"), None, None, Some((stat, None)));
            }
            // What is protected is looked through for what is not: with `@`, all but links.
            let below = mode == Mode::Full && protected || self.rules.has_rules_below(path);
            if concerns && self.options.recursive || !concerns && below {
                self.enter(path);
            }
            return;
        };
        let concerns = match mode {
            Mode::Backup => protected,
            Mode::System => !ignored,
            Mode::Full => rule.is_none(),
        };
        if concerns && self.options.check_permissions && differs(acl, stat) {
            let found = Some((stat, None));
            self.tell(
                'm',
                &format!("{path}/"),
                Some(package),
                Some((acl, None)),
                found,
            );
        }
        let complete = match mode {
            Mode::Backup => false,
            Mode::System => !ignored,
            Mode::Full => rule.is_none(),
        };
        if complete {
            self.visited.insert(path.to_owned());
        }
        self.enter(path);
    }

    fn enter(&mut self, path: &str) {
        if self.directory(path).is_err() {
            self.tell('e', &format!("{path}/"), None, None, None);
        }
    }

    fn file(&mut self, path: &str, name: &str, stat: Stat) {
        let is_link = stat.kind == FileType::Symlink;
        let rule = self.rules.rule(path);
        let recorded = self
            .files
            .get(path)
            .map(|r| (r.acl, r.digest.cloned(), r.package));
        let ignored = rule == Some(Protection::Ignore);
        match self.options.mode {
            Mode::Backup => match rule {
                None | Some(Protection::Ignore) => return,
                Some(Protection::Symlinks) if !is_link => return,
                _ if name.ends_with(".apk-new") => return,
                Some(Protection::All) => {
                    let owner = recorded.as_ref().map(|(_, _, package)| *package);
                    let old = recorded
                        .as_ref()
                        .map(|(acl, digest, _)| (*acl, digest.clone()));
                    self.tell('A', path, owner, old, Some((stat, None)));
                    return;
                }
                _ => {}
            },
            Mode::System if rule.is_some() && !ignored || recorded.is_none() => return,
            Mode::Full if rule == Some(Protection::Symlinks) && !is_link => {}
            Mode::Full if rule.is_some() => return,
            Mode::System | Mode::Full => {}
        }
        if is_link && self.options.ignore_busybox_symlinks && self.is_busybox(path) {
            return;
        }
        let Some((acl, digest, package)) = recorded else {
            let like = Digest::new(DigestAlgorithm::Sha256, Vec::new());
            let found = match self.options.details {
                true => disk_digest(self.root, path, Some(&like)).ok().flatten(),
                false => None,
            };
            self.tell('A', path, None, None, Some((stat, found)));
            return;
        };
        let found = match &digest {
            Some(wanted) => match disk_digest(self.root, path, Some(wanted)) {
                Ok(found) => found,
                Err(_) => {
                    self.tell('e', path, Some(package), None, None);
                    return;
                }
            },
            None => None,
        };
        // Where the database has no digest, only the kind of file could be compared.
        let changed = digest.is_some() && digest != found;
        let letter = if changed {
            'U'
        } else if !is_link && self.xattrs_differ(path, acl, stat) {
            'x'
        } else if self.options.check_permissions && !is_link && differs(acl, stat) {
            'M'
        } else {
            return;
        };
        self.tell(
            letter,
            path,
            Some(package),
            Some((acl, digest)),
            Some((stat, found)),
        );
    }

    fn is_busybox(&self, path: &str) -> bool {
        let target = self
            .root
            .parent(path)
            .and_then(|(open, name)| open.read_link(name));
        target.is_ok_and(|target| BUSYBOX.contains(&target.as_slice()))
    }

    fn xattrs_differ(&self, path: &str, acl: &Acl, stat: Stat) -> bool {
        if stat.kind != FileType::RegularFile {
            return false;
        }
        let Ok((open, name)) = self.root.parent(path) else {
            return false;
        };
        let Ok(file) = open.open_file(name) else {
            return false;
        };
        xattr_digest(&read_xattrs(&file)) != acl.xattrs
    }

    /// Lists recorded files that are not there, in the directories that were visited.
    fn missing(&mut self) {
        if self.options.mode == Mode::Backup {
            return;
        }
        let names = std::mem::take(&mut self.names);
        for (directory, mut files) in names {
            if !self.visited.contains(directory) {
                continue;
            }
            files.sort_unstable();
            for name in files {
                let path = join(directory, name);
                if self.seen.contains(&path) {
                    continue;
                }
                let Some(recorded) = self.files.get(&path) else {
                    continue;
                };
                let old = (recorded.acl, recorded.digest.cloned());
                self.tell('X', &path, Some(recorded.package), Some(old), None);
            }
        }
    }

    fn tell(
        &mut self,
        letter: char,
        path: &str,
        package: Option<usize>,
        recorded: Option<(&Acl, Option<Digest>)>,
        found: Option<(Stat, Option<Digest>)>,
    ) {
        if self.options.packages {
            let Some(package) = package.filter(|package| self.told.insert(*package)) else {
                return;
            };
            let package = &self.db.packages[package].package;
            let name = match self.options.quiet {
                true => package.name.clone(),
                false => package.full_name(),
            };
            self.text.push_str(&name);
            self.text.push('\n');
            return;
        }
        if self.options.details {
            if let Some((acl, digest)) = recorded {
                self.detail('-', (acl.mode, acl.uid, acl.gid), digest);
            }
            if let Some((stat, digest)) = found {
                self.detail('+', (stat.mode, stat.uid, stat.gid), digest);
            }
        }
        if !self.options.quiet {
            self.text.push(letter);
            self.text.push(' ');
        }
        self.text.push_str(path);
        self.text.push('\n');
    }

    fn detail(&mut self, sign: char, (mode, uid, gid): (u32, u32, u32), digest: Option<Digest>) {
        let hash = digest
            .map(|d| format!(" hash={}", d.hex()))
            .unwrap_or_default();
        let line = format_args!("{sign} mode={mode:o} uid={uid} gid={gid}{hash}\n");
        self.text
            .write_fmt(line)
            .expect("a String takes everything");
    }
}

fn differs(acl: &Acl, stat: Stat) -> bool {
    (acl.mode, acl.uid, acl.gid) != (stat.mode, stat.uid, stat.gid)
}

/// Reads the attributes that packages can set; those of the system's own bookkeeping are left out.
fn read_xattrs(file: &crate::root::OpenFile) -> Vec<(String, Vec<u8>)> {
    let Some(file) = file.fd() else {
        return Vec::new();
    };
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::flistxattr(file, &mut names) else {
        return Vec::new();
    };
    let names = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let names = names.filter_map(|name| std::str::from_utf8(name).ok());
    let packaged = names.filter(|name| name.starts_with("user.") || *name == "security.capability");
    let values = packaged.filter_map(|name| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value).ok()?;
        value.truncate(length);
        Some((name.to_owned(), value))
    });
    values.collect()
}
