//! Carrying out a plan so that a stop leaves the old state or the new one.
//!
//! ```text
//! Transaction ──check, stage──▶ Staged ──commit──▶ Outcome
//!      │                          │
//!      └── nothing was touched    └── everything new waits under temporary names, verified
//! ```
//!
//! Each step takes the one before by value. Until [`Staged::commit`] begins, everything can be
//! thrown away: a failure removes what was staged and the root is as before. From then on each act
//! can be repeated. Packages are committed in the order of the plan, scripts run at the places where
//! apk runs them, and the database is written last, as a set.
//!
//! Doing makes no choices: what to install, and from which file, is in the [`Plan`]. Scripts and
//! triggers cannot be undone, and nothing here pretends so.

mod accounts;
mod commit;
mod database;
mod directories;
mod hooks;
pub mod kept;
mod links;
mod obstacles;
pub mod protect;
mod scripts;
mod stage;
mod triggers;

pub use commit::{Staged, disk_digest, fix_directories};
pub use protect::ProtectedPaths;
pub use stage::{StageError, create_node, xattr_digest};

use crate::format::{FormatError, Limits};
use crate::package::installed::Broken;
use crate::package::{Identity, InstalledDb, InstalledPackage, ScriptKind, World};
use crate::plan::{Change, Plan, Source, files};
use crate::progress::Sink;
use crate::root::{Root, RootError};
use accounts::Accounts;
use directories::Canonical;
use files::{Claim, Claimant, Owner, Ownership};
use stage::{StagedPackage, Staging};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a transaction behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run package scripts, triggers and hooks.
    pub scripts: bool,
    /// Run commit hooks.
    pub commit_hooks: bool,
    /// Never make `.apk-new` files.
    pub clean_protected: bool,
    /// Delete modified configuration on removal.
    pub purge: bool,
    /// Let a package take another package's file.
    pub force_overwrite: bool,
    /// Run scripts without changing the root directory.
    pub force_no_chroot: bool,
    /// Pass the environment on to scripts.
    pub preserve_env: bool,
    /// The root belongs to an ordinary user.
    pub usermode: bool,
    /// Flush to disk at the end and around the database.
    pub sync: bool,
    /// Share files with the cache by hard links; for roots that nobody writes to.
    pub hard_links: bool,
    /// Paths of the administrator's overlay.
    pub overlay: Vec<String>,
    /// Architectures to write to `etc/apk/arch`.
    pub write_arch: Option<Vec<String>>,
    /// Bounds on what packages may make us read.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scripts: true,
            commit_hooks: true,
            clean_protected: false,
            purge: false,
            force_overwrite: false,
            force_no_chroot: false,
            preserve_env: false,
            usermode: false,
            sync: false,
            hard_links: false,
            overlay: Vec::new(),
            write_arch: None,
            limits: Limits::default(),
        }
    }
}

/// What shall be done, where.
pub struct Transaction<'a> {
    /// The tree to change; the caller holds its lock.
    pub root: &'a Root,
    /// What is installed now.
    pub installed: InstalledDb,
    /// The changes; every file that is needed is local.
    pub plan: &'a Plan,
    /// The world to store.
    pub world: &'a World,
    /// How.
    pub options: &'a Options,
    /// Who carries scripts out; `None` runs them in the root.
    pub runner: Option<&'a dyn ScriptRunner>,
}

/// Carries scripts out in another way than running them in the root.
pub trait ScriptRunner {
    /// Takes one script at the place where it would run; returns whether it went well.
    fn script(&self, root: &Root, script: &ScriptCall<'_>) -> bool;
}

/// A script that is due.
#[derive(Clone, Copy, Debug)]
pub struct ScriptCall<'a> {
    /// Whose it is.
    pub package: &'a InstalledPackage,
    /// Which one.
    pub kind: ScriptKind,
    /// Its text.
    pub text: &'a [u8],
    /// Its arguments, as apk passes them.
    pub arguments: &'a [String],
}

/// What became of a transaction that was carried out.
#[derive(Debug)]
pub struct Outcome {
    /// What is installed now.
    pub installed: InstalledDb,
    /// Steps that failed, as apk counts them.
    pub errors: u32,
}

/// Why nothing was done, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Packages that cannot be installed; nothing was changed.
    #[error("{}", lines.join("\n"))]
    Refused {
        /// One line for each reason.
        lines: Vec<String>,
        /// How many packages are concerned.
        packages: u32,
        /// Packages whose file is damaged.
        damaged: Vec<Identity>,
    },
    /// A pre-commit hook said no; nothing was changed.
    #[error("{message}")]
    Hook {
        /// What the hook's failure was.
        message: String,
    },
    /// The root cannot be read or written.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The database cannot be written.
    #[error("System state may be inconsistent: failed to write database: {cause}")]
    Database {
        /// What went wrong.
        cause: String,
    },
}

impl TransactionError {
    /// Returns what state the root is in.
    pub fn advice(&self) -> Option<&'static str> {
        matches!(self, Self::Refused { .. }).then_some("nothing was changed: the root is as before")
    }

    /// Returns apk's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused { packages, .. } => (*packages).clamp(1, 99) as u8,
            Self::Database { .. } => 1,
            Self::Hook { .. } | Self::Root(_) => 99,
        }
    }
}

impl<'a> Transaction<'a> {
    /// Checks and stages everything, then commits it.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub fn run(self, sink: &mut dyn Sink) -> Result<Outcome, TransactionError> {
        // Modes are those that packages ask for, whatever the caller's mask.
        let mask = rustix::process::umask(rustix::fs::Mode::empty());
        let result = self.run_unmasked(sink);
        rustix::process::umask(mask);
        result
    }

    fn run_unmasked(self, sink: &mut dyn Sink) -> Result<Outcome, TransactionError> {
        hooks::run(self.root, self.options, hooks::Stage::PreCommit, sink)
            .map_err(|message| TransactionError::Hook { message })?;
        let (root, options) = (self.root, self.options);
        let outcome = self.stage()?.commit(sink)?;
        if let Err(message) = hooks::run(root, options, hooks::Stage::PostCommit, sink) {
            sink.error(&message);
        }
        Ok(outcome)
    }

    /// Unpacks and verifies every package under temporary names, and finds conflicts.
    ///
    /// # Errors
    /// [`TransactionError::Refused`]; the root is as before then.
    pub fn stage(self) -> Result<Staged<'a>, TransactionError> {
        let accounts = Accounts::load(self.root)?;
        let protected = ProtectedPaths::load(self.root)?;
        let mut canonical = Canonical::new(self.root);
        let owners = self.owners(&mut canonical);
        let blocked = self.blocked();
        let staging = Staging {
            root: self.root,
            accounts: &accounts,
            usermode: self.options.usermode,
            hard_links: self.options.hard_links,
            limits: self.options.limits,
            waiting: Mutex::default(),
            blocked: &blocked,
        };
        staging.prepare()?;
        let result = self.unpack_all(&staging, &protected).and_then(|packages| {
            let decisions = self.decide(&packages, owners.clone(), &mut canonical)?;
            self.refuse_obstacles(&packages, &decisions, &blocked, &protected)?;
            self.reserve()?;
            Ok((packages, decisions))
        });
        let (packages, decisions) = match result {
            Ok(staged) => staged,
            Err(error) => {
                staging.undo();
                return Err(error);
            }
        };
        Ok(Staged::new(
            self, packages, decisions, owners, accounts, protected,
        ))
    }

    fn owners(&self, canonical: &mut Canonical<'_>) -> Ownership {
        let mut owners = Ownership::new(&self.installed, |directory| canonical.of(directory));
        for path in &self.options.overlay {
            owners.take(path.clone(), Owner::Overlay);
        }
        owners
    }

    /// Links and files of packages that change, where a new version may want a directory.
    fn blocked(&self) -> HashMap<String, ()> {
        let changing = self.plan.changes.iter().filter(|change| is_leaving(change));
        let old = changing.filter_map(|change| change.old.as_ref());
        let packages = old.filter_map(|old| self.installed.by_identity(old.identity));
        let directories = packages.flat_map(|package| &package.directories);
        let paths = directories.flat_map(|directory| {
            directory
                .files
                .iter()
                .map(|file| (files::join(&directory.path, &file.name), ()))
        });
        paths.collect()
    }

    fn unpack_all(
        &self,
        staging: &Staging<'_>,
        protected: &ProtectedPaths,
    ) -> Result<Vec<Option<StagedPackage>>, TransactionError> {
        let changes = &self.plan.changes;
        let wanted: Vec<(usize, &Source)> = changes
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, source_to_unpack(c)?)))
            .collect();
        let slots: Vec<Mutex<Option<_>>> = changes.iter().map(|_| Mutex::new(None)).collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let Some((index, source)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let new = changes[*index]
                    .new
                    .as_ref()
                    .expect("only new packages have a file");
                let result = match source {
                    Source::File(file) => staging.unpack(&new.package, file, false),
                    Source::Unpacked(file) => staging.unpack(&new.package, file, true),
                    _ => staging.unpack_kept(new.package.identity, protected),
                };
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                *slots[*index].lock().expect("no thread panics with it") = Some(result);
            }
        };
        // Inflating and hashing keep a core busy; more threads than cores would only share it.
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8);
        if wanted.len() < 2 || threads < 2 {
            work();
        } else {
            std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        }
        let (mut staged, mut lines, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for (change, slot) in changes.iter().zip(slots) {
            let result = slot.into_inner().expect("all threads ended");
            staged.push(match result.transpose() {
                Ok(package) => package,
                Err(error) => {
                    let new = change.new.as_ref().expect("only new packages are staged");
                    lines.push(format!(
                        "{}: {}",
                        new.package.full_name(),
                        stage_cause(&error)
                    ));
                    damaged.push(new.package.identity);
                    None
                }
            });
        }
        if !damaged.is_empty() {
            let packages = damaged.len() as u32;
            return Err(TransactionError::Refused {
                lines,
                packages,
                damaged,
            });
        }
        Ok(staged)
    }

    /// Decides for every staged file, in the order of the plan, whether it is installed.
    fn decide(
        &self,
        staged: &[Option<StagedPackage>],
        mut owners: Ownership,
        canonical: &mut Canonical<'_>,
    ) -> Result<Vec<Vec<Decision>>, TransactionError> {
        let mut decisions = Vec::new();
        let (mut lines, mut packages) = (Vec::new(), 0);
        let mut gone = vec![false; self.installed.packages.len()];
        let leaving = self.leaving();
        for (index, change) in self.plan.changes.iter().enumerate() {
            let before = lines.len();
            let mut of_package = Vec::new();
            if let (Some(package), Some(new)) = (&staged[index], &change.new) {
                let newcomer = merged(&new.package, package);
                for file in &package.files {
                    let directory = &package.directories[file.directory].path;
                    let path = files::join(&canonical.of(directory), &file.name);
                    let claim = self.claim(&owners, &path, &newcomer, staged, &leaving, &gone);
                    let decision = match claim {
                        Claim::Take => Decision::Take,
                        Claim::Keep => Decision::Leave,
                        Claim::Conflict(owner) => {
                            let text = format!(
                                "{}: {} {path} owned by {}.",
                                newcomer.full_name(),
                                if self.options.force_overwrite {
                                    "overwriting"
                                } else {
                                    "trying to overwrite"
                                },
                                self.owner_name(owner)
                            );
                            if self.options.force_overwrite {
                                Decision::TakeByForce(text)
                            } else {
                                lines.push(text);
                                Decision::Leave
                            }
                        }
                    };
                    if !matches!(decision, Decision::Leave) {
                        owners.take(path, Owner::New(index));
                    }
                    of_package.push(decision);
                }
            }
            if is_leaving(change) {
                let old = change.old.as_ref().expect("leaving packages are installed");
                let mut all = self.installed.packages.iter();
                if let Some(at) = all.position(|p| p.package.identity == old.identity) {
                    gone[at] = true;
                }
            }
            packages += u32::from(lines.len() > before);
            decisions.push(of_package);
        }
        if packages > 0 {
            return Err(TransactionError::Refused {
                lines,
                packages,
                damaged: Vec::new(),
            });
        }
        Ok(decisions)
    }

    /// Looks for what stands in the way before anything is put in place.
    fn refuse_obstacles(
        &self,
        staged: &[Option<StagedPackage>],
        decisions: &[Vec<Decision>],
        leaving: &HashMap<String, ()>,
        protected: &ProtectedPaths,
    ) -> Result<(), TransactionError> {
        let changing = self.leaving();
        let packages = self.installed.packages.iter().zip(&changing);
        let leaving_directories = packages
            .filter(|(_, leaving)| **leaving)
            .flat_map(|(package, _)| &package.directories)
            .map(|directory| directory.path.as_str())
            .collect();
        let obstacles = obstacles::Obstacles::new(
            self.root,
            protected,
            leaving,
            &leaving_directories,
            staged,
            decisions,
        );
        let (mut lines, mut packages) = (Vec::new(), 0);
        for (change, (package, decisions)) in
            self.plan.changes.iter().zip(staged.iter().zip(decisions))
        {
            let (Some(package), Some(new)) = (package, &change.new) else {
                continue;
            };
            let found = obstacles.of(package, decisions)?;
            packages += u32::from(!found.is_empty());
            let name = new.package.full_name();
            lines.extend(found.iter().map(|line| format!("{name}: {line}")));
        }
        if lines.is_empty() {
            return Ok(());
        }
        Err(TransactionError::Refused {
            lines,
            packages,
            damaged: Vec::new(),
        })
    }

    /// Returns for each installed package whether it will be removed or replaced.
    fn leaving(&self) -> Vec<bool> {
        let changes = || self.plan.changes.iter().filter(|change| is_leaving(change));
        let old = |identity| {
            changes().any(|c| c.old.as_ref().is_some_and(|old| old.identity == identity))
        };
        self.installed
            .packages
            .iter()
            .map(|p| old(p.package.identity))
            .collect()
    }

    fn claim(
        &self,
        owners: &Ownership,
        path: &str,
        newcomer: &crate::package::Package,
        staged: &[Option<StagedPackage>],
        leaving: &[bool],
        gone: &[bool],
    ) -> Claim {
        let Some(owner) = owners.owner(path) else {
            return Claim::Take;
        };
        let merged_package;
        let present = match owner {
            Owner::Overlay => return Claim::Take,
            Owner::Old(at) if gone[at] => return Claim::Take,
            Owner::Old(at) => Claimant {
                package: &self.installed.packages[at].package,
                leaving: leaving[at],
            },
            Owner::New(at) => match (&self.plan.changes[at].new, &staged[at]) {
                (Some(new), Some(package)) => {
                    merged_package = merged(&new.package, package);
                    Claimant {
                        package: &merged_package,
                        leaving: false,
                    }
                }
                _ => return Claim::Take,
            },
        };
        let newcomer = Claimant {
            package: newcomer,
            leaving: false,
        };
        files::claim(present, newcomer).unwrap_or(Claim::Conflict(owner))
    }

    fn owner_name(&self, owner: Owner) -> String {
        match owner {
            Owner::Overlay => "the overlay".to_owned(),
            Owner::Old(at) => self.installed.packages[at].package.full_name(),
            Owner::New(at) => {
                let new = self.plan.changes[at].new.as_ref();
                new.map(|new| new.package.full_name()).unwrap_or_default()
            }
        }
    }

    /// Makes sure that the database can be written when everything else is in place
    /// (commit.md, W15).
    fn reserve(&self) -> Result<(), TransactionError> {
        const DATABASE: &str = "lib/apk/db/installed";
        // The new database is about as large as the old one and what is staged; twice that is safe.
        let old = self.root.stat(DATABASE)?.map_or(0, |stat| stat.size);
        let wanted = (old * 2).max(64 << 10);
        match self.root.free_space() {
            Some((free, _)) if free < wanted => Err(TransactionError::Refused {
                lines: vec![format!(
                    "No space left on device: {free} bytes are free, {wanted} are needed for the \
                     database"
                )],
                packages: 1,
                damaged: Vec::new(),
            }),
            _ => Ok(()),
        }
    }
}

/// What happens to a staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is put in place.
    Take,
    /// It is put in place against the rules, with this warning.
    TakeByForce(String),
    /// Another package keeps the path.
    Leave,
}

/// Returns the package as it will be recorded: the index's words, the package's own `replaces`.
fn merged(index: &crate::package::Package, staged: &StagedPackage) -> crate::package::Package {
    let own = &staged.control.package;
    // Without entries there is nothing that could replace anything; apk records nothing then.
    if staged.directories.is_empty() && staged.files.is_empty() {
        return crate::package::Package {
            triggers: own.triggers.clone(),
            ..index.clone()
        };
    }
    crate::package::Package {
        replaces: own.replaces.clone(),
        replaces_priority: own.replaces_priority,
        triggers: own.triggers.clone(),
        ..index.clone()
    }
}

/// Returns whether the installed package of a change will be removed or replaced.
fn is_leaving(change: &Change) -> bool {
    match (&change.old, &change.new) {
        (Some(_), None) => true,
        (Some(old), Some(new)) => old.identity != new.package.identity || change.reinstall,
        (None, _) => false,
    }
}

fn source_to_unpack(change: &Change) -> Option<&Source> {
    let new = change.new.as_ref()?;
    let unchanged = change
        .old
        .as_ref()
        .is_some_and(|old| old.identity == new.package.identity);
    let readable = matches!(
        new.source,
        Source::File(_) | Source::Unpacked(_) | Source::Kept
    );
    (readable && (!unchanged || change.reinstall)).then_some(&new.source)
}

/// Returns the text behind `NAME-VERSION: ` when staging failed.
fn stage_cause(error: &StageError) -> String {
    match error {
        StageError::Format(FormatError::Io(source)) => crate::root::cause(source),
        StageError::Format(error @ FormatError::Package { reason }) => {
            format!("{error}: {}", reason.escape_debug())
        }
        StageError::Root(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
            "package mentioned in index not found (try 'apk update')".to_owned()
        }
        other => other.to_string(),
    }
}

/// Flags are combined, never cleared, while a package is committed.
fn merge_broken(a: Broken, b: Broken) -> Broken {
    Broken {
        files: a.files | b.files,
        script: a.script | b.script,
        xattrs: a.xattrs | b.xattrs,
    }
}
