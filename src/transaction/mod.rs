//! Carrying out a plan so that a stop leaves the old state or the new one.
//!
//! ```text
//! Transaction ──check, stage──▶ Staged ──promise──▶ commit ──▶ Outcome
//!      │                          │                    │
//!      └── nothing was touched    │                    └── finished, now or by recovery
//!                                 └── everything new waits under temporary names, verified
//! ```
//!
//! Each step takes the one before by value. Until the promise is on the disk, everything can be
//! thrown away: a failure removes what was staged and the root is as before. From then on the
//! transaction is finished, if not by this process then by [`recover`]; the page of the journal says
//! what each moment promises. Packages are committed in the order of the plan, scripts run at the
//! places where apk runs them, and the database is written last, as a set.
//!
//! Doing makes no choices: what to install, and from which file, is in the [`Plan`]. Scripts and
//! triggers cannot be undone, and nothing here pretends so.

mod accounts;
mod acts;
mod commit;
mod cut;
mod database;
mod directories;
mod hooks;
mod interrupt;
mod journal;
pub mod kept;
mod links;
mod obstacles;
pub mod protect;
mod recovery;
mod scripts;
mod stage;
mod triggers;

pub use commit::{CutScript, Staged, disk_digest, wrong_directories};
pub use database::{DatabaseError, DatabaseText};
pub use interrupt::Interrupt;
pub use journal::{Ending, JournalError};
pub use protect::ProtectedPaths;
pub use recovery::{Interrupted, Pending, Recovery, interrupted, pending, recover, sweep};
pub use stage::{StageError, create_node, xattr_digest};

use crate::format::{FormatError, Limits};
use crate::package::installed::Broken;
use crate::package::{Identity, InstalledDb, InstalledPackage, ScriptKind, World};
use crate::plan::{Change, Plan, Source, files};
use crate::progress::Sink;
use crate::root::{Root, RootError, is_full};
use accounts::Accounts;
use directories::Canonical;
use files::{Claim, Claimant, Owner, Ownership};
use foldhash::{HashMap, HashSet};
use journal::Promise;
use serde::{Deserialize, Serialize};
use stage::{StagedPackage, Staging};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// How a transaction behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Flush to disk before anything relies on what was written, so that a power cut is like any
    /// other interruption.
    pub sync: bool,
    /// Keep a journal. Without one an interruption leaves the tree between two states; only right
    /// for a tree that is thrown away then.
    pub journal: bool,
    /// Share files with the cache by hard links; for roots that nobody writes to.
    pub hard_links: bool,
    /// Paths of the administrator's overlay.
    pub overlay: Vec<String>,
    /// Architectures to write to `etc/apk/arch`.
    pub write_arch: Option<Vec<String>>,
    /// Give every recorded directory the owner and mode that its package asks for.
    pub fix_directories: bool,
    /// Other files to replace together with the database: paths below the root, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Bounds on what packages may make us read.
    #[serde(skip)]
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
            journal: true,
            hard_links: false,
            overlay: Vec::new(),
            write_arch: None,
            fix_directories: false,
            files: Vec::new(),
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
    /// The caller's own words, kept in the journal and given back by [`recover`].
    pub note: Vec<u8>,
    /// Signals that ask to stop.
    pub interrupt: Option<&'a Interrupt>,
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
    /// Scripts that an interruption cut off, and that were not run again.
    pub cut: Vec<CutScript>,
    /// Whether a script, a trigger or a hook was started, which may have changed any file.
    pub programs: bool,
    /// The journal, which is there until this goes.
    pub ending: Ending,
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
    /// The root cannot be read or written; nothing was changed.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A signal asked to stop before anything was promised; nothing was changed.
    #[error("interrupted: nothing was changed")]
    Signal(i32),
    /// What was promised cannot be done now.
    #[error(
        "{cause}\nthe transaction is not finished: the next command that changes this root \
         finishes it, or `ibex recover`"
    )]
    Interrupted {
        /// What went wrong.
        cause: String,
    },
    /// The journal of an interrupted transaction cannot be used.
    #[error(
        "{0}\nthe interrupted transaction cannot be finished: move the journal away and run \
         `ibex fix` with the packages concerned"
    )]
    Journal(JournalError),
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
            Self::Hook { .. } | Self::Root(_) | Self::Journal(_) => 99,
            Self::Signal(signal) => 128 + *signal as u8,
            Self::Interrupted { .. } => 3,
        }
    }
}

impl<'a> Transaction<'a> {
    /// Checks and stages everything, then commits it.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub fn run(self, sink: &mut dyn Sink) -> Result<Outcome, TransactionError> {
        // A tree in memory knows no mask, and other threads may make files meanwhile.
        if self.root.tree().is_some() {
            return self.run_unmasked(sink);
        }
        // Modes are those that packages ask for, whatever the caller's mask.
        let mask = rustix::process::umask(rustix::fs::Mode::empty());
        let result = self.run_unmasked(sink);
        rustix::process::umask(mask);
        result
    }

    fn run_unmasked(self, sink: &mut dyn Sink) -> Result<Outcome, TransactionError> {
        let hooks = hooks::run(self.root, self.options, hooks::Stage::PreCommit, sink)
            .map_err(|message| TransactionError::Hook { message })?;
        let interrupt = self.interrupt;
        let held = interrupt.map(Interrupt::hold);
        let staged = self.stage()?;
        // From here on a signal is answered when everything is done.
        let mut outcome = staged.commit(sink)?;
        outcome.programs |= hooks > 0;
        outcome.ending.hold(held);
        Ok(outcome)
    }

    /// Unpacks and verifies every package under temporary names, and finds conflicts.
    ///
    /// # Errors
    /// [`TransactionError::Refused`]; the root is as before then.
    pub fn stage(self) -> Result<Staged<'a>, TransactionError> {
        let text = database::world_text(self.world)?;
        let accounts = Accounts::load(self.root)?;
        let protected = ProtectedPaths::load(self.root)?;
        let mut canonical = Canonical::new(self.root);
        let owners = self.owners(&mut canonical);
        let blocked = self.blocked();
        self.check_space()?;
        let staging = Staging {
            root: self.root,
            accounts: &accounts,
            usermode: self.options.usermode,
            hard_links: self.options.hard_links,
            limits: self.options.limits,
            sync: self.options.sync,
            interrupt: self.interrupt,
            waiting: Mutex::default(),
            own_mount: OnceLock::new(),
            room_of: Mutex::default(),
            folders: Mutex::default(),
            rooms: Mutex::default(),
            blocked: &blocked,
        };
        let mut prepared = || -> Result<_, TransactionError> {
            staging.prepare()?;
            let packages = self.unpack_all(&staging, &protected)?;
            let decisions = self.decide(&packages, owners.clone(), &mut canonical)?;
            self.refuse_obstacles(&packages, &decisions, &blocked, &protected)?;
            self.check_records(&packages)?;
            let room = self.set_aside(&staging, &packages, &protected)?;
            let before = database::digests(self.root)?;
            match self.interrupt.and_then(Interrupt::wanted) {
                Some(signal) => Err(TransactionError::Signal(signal)),
                None => Ok((packages, decisions, before, room)),
            }
        };
        let (packages, decisions, before, room) = prepared().inspect_err(|_| staging.undo())?;
        let rooms = staging.rooms();
        drop(staging);
        Ok(Staged {
            root: self.root,
            promise: Promise {
                plan: self.slim_plan(&packages),
                world: text,
                packages,
                decisions,
                options: self.options.clone(),
                protected,
                links: canonical.links(),
                rooms,
                before,
                note: self.note,
            },
            installed: self.installed,
            owners,
            accounts,
            runner: self.runner,
            room,
        })
    }

    /// Returns the plan without what is known from the installed database anyway.
    fn slim_plan(&self, packages: &[Option<StagedPackage>]) -> Plan {
        let changes = self.plan.changes.iter().zip(packages);
        let slim = |(change, staged): (&Change, &Option<StagedPackage>)| {
            let old = change.old.as_ref();
            match &change.new {
                Some(new)
                    if staged.is_none()
                        && old.is_some_and(|old| old.identity == new.package.identity) =>
                {
                    let package = crate::package::Package {
                        identity: new.package.identity,
                        name: new.package.name.clone(),
                        version: new.package.version.clone(),
                        size: new.package.size,
                        ..crate::package::Package::default()
                    };
                    Change {
                        new: Some(crate::plan::NewPackage {
                            package,
                            tag: new.tag.clone(),
                            source: new.source.clone(),
                        }),
                        ..change.clone()
                    }
                }
                _ => change.clone(),
            }
        };
        let changes = changes.map(slim).collect();
        Plan { changes }
    }

    fn owners(&self, canonical: &mut Canonical<'_>) -> Ownership {
        let mut owners = Ownership::new(&self.installed, |directory| canonical.of(directory));
        add_overlay(&mut owners, self.options);
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
        let mut wanted: Vec<(usize, &Source)> = changes
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, source_to_unpack(c)?)))
            .collect();
        // The largest first, so that no thread is left with one when the others are done.
        let size = |index: usize| {
            changes[index]
                .new
                .as_ref()
                .map(|n| n.package.installed_size)
        };
        wanted.sort_by_key(|(index, _)| std::cmp::Reverse(size(*index)));
        let slots: Vec<Mutex<Option<_>>> = changes.iter().map(|_| Mutex::new(None)).collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let interrupt = self.interrupt;
        let work = |desk: &stage::Desk| {
            let stopped = || interrupt.and_then(Interrupt::wanted).is_some();
            while !failed.load(Ordering::Relaxed) && !stopped() {
                let Some((index, source)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let new = changes[*index]
                    .new
                    .as_ref()
                    .expect("only new packages have a file");
                let result = match source {
                    Source::File(file) => staging.unpack(&new.package, file, false, desk),
                    Source::Unpacked(file) => staging.unpack(&new.package, file, true, desk),
                    _ => staging.unpack_kept(new.package.identity, protected, desk),
                };
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                *slots[*index].lock().expect("no thread panics with it") = Some(result);
            }
        };
        // Inflating and hashing keep a core busy; more threads than cores would only share it.
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8);
        // A test that counts operations needs them in the same order each time.
        if wanted.len() < 2 || threads < 2 || crate::root::is_watched() {
            work(&staging.desk(0)?);
        } else {
            let desks = (0..threads).map(|number| staging.desk(number));
            let desks = desks.collect::<Result<Vec<_>, RootError>>()?;
            std::thread::scope(|scope| {
                for desk in &desks {
                    scope.spawn(|| work(desk));
                }
            });
        }
        if let Some(signal) = interrupt.and_then(Interrupt::wanted) {
            return Err(TransactionError::Signal(signal));
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
                // Files of a directory mostly follow each other.
                let (mut real, mut real_of) = (String::new(), usize::MAX);
                for file in &package.files {
                    if real_of != file.directory {
                        real_of = file.directory;
                        real = canonical.of(&package.directories[real_of].path);
                    }
                    let path = files::join(&real, &file.name);
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

    /// Refuses what the database could not hold (commit.md, W1 and W3).
    fn check_records(&self, packages: &[Option<StagedPackage>]) -> Result<(), TransactionError> {
        let mut lines = Vec::new();
        for (change, staged) in self.plan.changes.iter().zip(packages) {
            let Some(new) = &change.new else { continue };
            let mut record = InstalledPackage {
                package: new.package.clone(),
                pinned_tag: new.tag.clone(),
                ..InstalledPackage::default()
            };
            if let Some(staged) = staged {
                record.package = merged(&new.package, staged);
                record.scripts.clone_from(&staged.scripts);
                record.directories = staged.records();
            }
            let name = new.package.full_name();
            if let Err(error) = database::check(record) {
                lines.push(format!("{name}: {error}"));
            }
        }
        match lines.len() as u32 {
            0 => Ok(()),
            packages => Err(TransactionError::Refused {
                lines,
                packages,
                damaged: Vec::new(),
            }),
        }
    }

    /// Refuses early what cannot fit: all new files wait beside the old ones for a while
    /// (commit.md, W15). Whatever this overlooks is found while unpacking, and undone.
    fn check_space(&self) -> Result<(), TransactionError> {
        let changes = self.plan.changes.iter();
        let new =
            changes.filter(|change| matches!(source_to_unpack(change), Some(Source::File(_))));
        let wanted = new
            .filter_map(|change| change.new.as_ref())
            .map(|new| new.package.installed_size)
            .fold(0, u64::saturating_add);
        let free = self.root.free_space_everywhere();
        if wanted == 0 || free >= wanted {
            return Ok(());
        }
        Err(TransactionError::Refused {
            lines: vec![format!(
                "No space left on device: {} MiB are free, the new packages need {} MiB",
                free >> 20,
                wanted.div_ceil(1 << 20)
            )],
            packages: 1,
            damaged: Vec::new(),
        })
    }

    /// Sets space aside for what is written when everything waits.
    ///
    /// On a full disk a change that only removes needs none: it frees what the database takes before
    /// that is written. Then this returns how many bytes its journal may grow by.
    fn set_aside(
        &self,
        staging: &Staging<'_>,
        packages: &[Option<StagedPackage>],
        protected: &ProtectedPaths,
    ) -> Result<Option<u64>, TransactionError> {
        let wanted = self.wanted_space(packages)?;
        let removes = packages.iter().all(Option::is_none);
        // What the journal reserves where there is plenty.
        let journal = self.plan.changes.len() as u64 * 1024 + (128 << 10);
        let is_tight = removes
            && self
                .root
                .free_space()
                .is_some_and(|(free, _)| free < wanted + journal);
        if is_tight && let Some(room) = self.room_of_removals(protected)? {
            return Ok(Some(room));
        }
        match staging.spare(wanted) {
            Err(error) if is_full(&error.source) => {}
            other => return Ok(other.map(|()| None)?),
        }
        Err(TransactionError::Refused {
            lines: vec![no_space(
                self.root,
                "the change sets space aside for the database",
                wanted,
            )],
            packages: 1,
            damaged: Vec::new(),
        })
    }

    /// Returns what the files of the database take once more, in whole blocks.
    fn database_space(&self) -> Result<u64, TransactionError> {
        const BLOCK: u64 = 4096;
        let mut sum = 4 * BLOCK;
        for path in database::FILES {
            let size = self.root.stat(path)?.map_or(0, |stat| stat.size);
            sum += (size / BLOCK + 2) * BLOCK;
        }
        Ok(sum)
    }

    /// Returns the installed packages that the plan removes.
    fn removed(&self) -> impl Iterator<Item = &InstalledPackage> {
        let removals = self.plan.changes.iter().filter(|c| c.new.is_none());
        let old = removals.filter_map(|change| change.old.as_ref());
        old.filter_map(|old| self.installed.by_identity(old.identity))
    }

    /// Returns by how many bytes the journal must be able to grow so that packages can be removed one
    /// after the other, where each removal makes room for the records of the next one, and all of
    /// them for the database; `None` if they do not make enough.
    fn room_of_removals(
        &self,
        protected: &ProtectedPaths,
    ) -> Result<Option<u64>, TransactionError> {
        const MARGIN: u64 = 8 << 10;
        let device = self
            .root
            .directory(journal::DIRECTORY)?
            .stat_self()?
            .inode
            .0;
        let (mut freed, mut taken, mut room) = (0u64, 0u64, 0u64);
        for package in self.removed() {
            taken += removal_records(package);
            room = room.max(taken.saturating_sub(freed));
            // What a running program holds open is not given back at once.
            freed += self.freed_space(package, protected, device)? / 2;
        }
        let enough = freed >= taken.saturating_add(self.database_space()?);
        Ok(enough.then_some(room + MARGIN))
    }

    /// Returns what the removal of a package gives back on a file system: whole files that have no
    /// other name, configuration left out.
    fn freed_space(
        &self,
        package: &InstalledPackage,
        protected: &ProtectedPaths,
        device: u64,
    ) -> Result<u64, TransactionError> {
        let mut freed = 0u64;
        for directory in &package.directories {
            if protected.is_protected(&directory.path) {
                continue;
            }
            let Ok(open) = self.root.directory(&directory.path) else {
                continue;
            };
            if open.stat_self()?.inode.0 == device {
                let files = directory.files.iter();
                let sizes = files.map(|file| open.gives_back(&file.name));
                freed = sizes.fold(freed, u64::saturating_add);
            }
        }
        Ok(freed)
    }

    /// Returns what is written when everything waits: the database, and a block for each directory.
    fn wanted_space(&self, packages: &[Option<StagedPackage>]) -> Result<u64, TransactionError> {
        const RECORD: u64 = 128;
        let old = self
            .root
            .stat("lib/apk/db/installed")?
            .map_or(0, |stat| stat.size);
        const DIRECTORY: u64 = 4096;
        let staged = packages.iter().flatten();
        let new = staged.clone().map(|package| {
            let scripts: usize = package.scripts.values().map(Vec::len).sum();
            let entries = package.files.len() + package.directories.len();
            scripts as u64 + entries as u64 * RECORD
        });
        // What has a folder is made already.
        let directories = staged.flat_map(|package| &package.directories);
        let without = directories.filter(|directory| directory.folder.is_none());
        let made: HashSet<&str> = without.map(|directory| directory.path.as_str()).collect();
        Ok(old * 2 + new.sum::<u64>() + made.len() as u64 * DIRECTORY + (64 << 10))
    }
}

/// Returns a bound of what the journal records when a package is removed.
fn removal_records(package: &InstalledPackage) -> u64 {
    // Numbers, lengths and sums that go with a path.
    const ROW: usize = 64;
    let paths = package.directories.iter().map(|directory| {
        let own = directory.path.len() + ROW;
        let files = directory.files.iter();
        3 * own + files.map(|file| own + file.name.len()).sum::<usize>()
    });
    (paths.sum::<usize>() + package.scripts.len() * 4 * ROW) as u64
}

/// Says how much space is missing.
fn no_space(root: &Root, what: &str, wanted: u64) -> String {
    let free = root.free_space().map_or(0, |(bytes, _)| bytes);
    format!(
        "No space left on device: {what}: {} KiB, of which {} KiB are free",
        wanted.div_ceil(1 << 10),
        free >> 10
    )
}

/// Returns whether so little space is left that a change which only removes packages must not keep
/// their files: nothing would be freed.
pub fn is_tight(root: &Root) -> bool {
    let old = root.stat("lib/apk/db/installed").ok().flatten();
    let wanted = old.map_or(0, |stat| stat.size) * 2 + (512 << 10);
    root.free_space().is_some_and(|(bytes, _)| bytes < wanted)
}

/// Records the owner of the administrator's overlay.
fn add_overlay(owners: &mut Ownership, options: &Options) {
    for path in &options.overlay {
        owners.take(path.clone(), Owner::Overlay);
    }
}

/// What happens to a staged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    let own = staged;
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
        StageError::Format(FormatError::Adb(error)) => match error.explanation() {
            Some(more) => format!("{error}: {more}"),
            None => error.to_string(),
        },
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
