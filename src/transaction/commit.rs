//! Putting staged packages in place, one after another, in the order of the plan
//! (commit.md, chapters 5 to 11).
//!
//! The same code does it the first time and after an interruption: what was decided or run before
//! comes from the journal then, and is neither decided nor run again.

use super::accounts::Accounts;
use super::acts::{Act, Context, Seen, is_serious};
use super::cut::{self, Owed};
use super::database::DatabaseFiles;
use super::directories::Canonical;
use super::journal::{Decided, Journal, Program, Progress, Promise, Record};
use super::scripts::{self, Failure, Surroundings};
use super::stage::{Attributes, StagedFile, StagedPackage};
use super::{
    Decision, Ending, Outcome, ScriptCall, ScriptRunner, TransactionError, hooks, merge_broken,
    merged, triggers,
};
use crate::package::installed::Broken;
use crate::package::{
    Acl, Digest, DigestAlgorithm, Identity, InstalledDb, InstalledDirectory, InstalledFile,
    InstalledPackage, Package, ScriptKind,
};
use crate::plan::files::{Owner, Ownership, join};
use crate::plan::{Change, Source};
use crate::progress::{Event, Level, Sink, Stage as ProgressStage};
use crate::root::{Root, RootError, split};
use foldhash::{HashMap, HashSet};
use rustix::fs::FileType;
use sha1::Sha1;
use sha2::Sha256;
use std::collections::BTreeSet;
use std::io::Read;

/// A transaction whose new files wait, verified, under temporary names.
pub struct Staged<'a> {
    pub(super) root: &'a Root,
    pub(super) installed: InstalledDb,
    pub(super) promise: Promise,
    pub(super) owners: Ownership,
    pub(super) accounts: Accounts,
    pub(super) runner: Option<&'a dyn ScriptRunner>,
    /// By how many bytes the journal grows at most, where the disk is too full to be generous.
    pub(super) room: Option<u64>,
}

impl Staged<'_> {
    /// Promises everything on disk, puts it in place, runs scripts and triggers, and writes the
    /// database.
    ///
    /// # Errors
    /// [`TransactionError::Refused`] if the promise cannot be made: the root is as before.
    /// [`TransactionError::Interrupted`] if it cannot be kept now: it is kept by the next command
    /// that writes, or by [`super::recover`]. A package that cannot be put in place completely is
    /// counted in the outcome, and marked in the database.
    pub fn commit(self, sink: &mut dyn Sink) -> Result<Outcome, TransactionError> {
        // A tree in memory ends with its process, and so does what was begun in it.
        let journal = match self.promise.options.journal && self.root.tree().is_none() {
            false => None,
            true => Some(self.make_promise()?),
        };
        let start = Start {
            root: self.root,
            installed: self.installed,
            owners: self.owners,
            accounts: self.accounts,
            progress: Progress::default(),
            journal,
            runner: self.runner,
        };
        carry_out(start, &self.promise, false, sink)
    }

    fn make_promise(&self) -> Result<Journal, TransactionError> {
        let promised = || {
            if self.promise.options.sync {
                sync_file_systems(self.root, &self.promise)?;
            }
            Journal::promise(self.root, &self.promise, self.room)
        };
        promised().map_err(|error| {
            self.undo();
            TransactionError::Refused {
                lines: vec![error.to_string()],
                packages: 1,
                damaged: Vec::new(),
            }
        })
    }

    fn undo(&self) {
        let files = self.promise.packages.iter().flatten();
        for waiting in files
            .flat_map(|package| &package.files)
            .filter_map(|f| f.staged.as_ref())
        {
            if let Ok((directory, name)) = self.root.parent(waiting) {
                // What cannot be removed now is removed by the next transaction.
                let _ = directory.remove_file(name);
            }
        }
        // What cannot be removed now is removed by the next transaction.
        let _ = super::stage::remove_private(self.root);
    }
}

/// From where a promise is kept.
pub(super) struct Start<'a> {
    pub(super) root: &'a Root,
    pub(super) installed: InstalledDb,
    pub(super) owners: Ownership,
    pub(super) accounts: Accounts,
    pub(super) progress: Progress,
    pub(super) journal: Option<Journal>,
    pub(super) runner: Option<&'a dyn ScriptRunner>,
}

/// Keeps a promise; `again` if part of it may have been kept before.
pub(super) fn carry_out(
    start: Start<'_>,
    promise: &Promise,
    again: bool,
    sink: &mut dyn Sink,
) -> Result<Outcome, TransactionError> {
    let Start {
        root,
        installed,
        mut owners,
        accounts,
        progress,
        journal,
        runner,
    } = start;
    let options = &promise.options;
    let coming = promise.packages.iter().flatten();
    owners.reserve(coming.map(|package| package.files.len()).sum());
    let owed = cut::read(root).map_err(|error| TransactionError::Interrupted {
        cause: error.to_string(),
    })?;
    let old: Vec<Option<InstalledPackage>> = installed.packages.into_iter().map(Some).collect();
    let known = old.iter().enumerate();
    let positions =
        known.filter_map(|(at, package)| Some((package.as_ref()?.package.identity, at)));
    let positions: HashMap<_, _> = positions.collect();
    let mut references = HashMap::default();
    let directory_owners = DirectoryOwners::of(old.iter().flatten());
    for directory in old
        .iter()
        .flatten()
        .flat_map(|package| &package.directories)
    {
        *references.entry(directory.path.clone()).or_insert(0) += 1;
    }
    // Directories of the overlay stay, whoever else leaves them.
    for path in &options.overlay {
        let mut directory = split(path).0;
        while !directory.is_empty() {
            *references.entry(directory.to_owned()).or_insert(0) += 1;
            directory = split(directory).0;
        }
    }
    let commit = Commit {
        root,
        promise,
        positions,
        canonical: Canonical::new(root),
        places: promise.links(),
        owners,
        accounts,
        old,
        new: promise.plan.changes.iter().map(|_| None).collect(),
        references,
        directory_owners,
        protected_digests: HashMap::default(),
        taken: Vec::new(),
        modified: BTreeSet::new(),
        lost: BTreeSet::new(),
        around: Surroundings {
            no_chroot: options.force_no_chroot,
            preserve_env: options.preserve_env,
            usermode: options.usermode,
        },
        runner,
        errors: 0,
        again,
        unflushed: HashSet::default(),
        marked: progress.done,
        executed: 0,
        progress,
        journal,
        cut: Vec::new(),
        programs: false,
        owed,
        sink,
    };
    let journaled = commit.journal.is_some();
    commit.everything().map_err(|stop| match journaled {
        true => TransactionError::Interrupted { cause: stop.0 },
        false => TransactionError::Database { cause: stop.0 },
    })
}

/// Finishes a transaction whose database counts already.
pub(super) fn finish_switched(
    root: &Root,
    promise: &Promise,
    progress: Progress,
    journal: Journal,
    installed: InstalledDb,
    sink: &mut dyn Sink,
) -> Result<Outcome, TransactionError> {
    let errors = progress.errors;
    let cut = cut_scripts(promise, &progress);
    let mut hooks = JournaledHooks {
        journal: Some(journal),
        programs: !progress.programs.is_empty(),
        progress,
        cut,
    };
    let ending = finish(root, promise, &mut hooks, sink)
        .and_then(|()| Ok(Ending::new(root)?))
        .map_err(|stop| TransactionError::Interrupted { cause: stop.0 })?;
    Ok(Outcome {
        installed,
        errors,
        cut: hooks.cut,
        programs: hooks.programs,
        ending,
    })
}

/// Puts the new files of the database under their final names and runs the last hooks.
fn finish(
    root: &Root,
    promise: &Promise,
    state: &mut JournaledHooks,
    sink: &mut dyn Sink,
) -> Result<(), Stop> {
    let files = state.progress.database.clone().unwrap_or_default();
    super::database::rename_all(root, &files, promise.options.sync)?;
    cut::remove_empty(root)?;
    for hook in hooks::all(root, &promise.options) {
        state.programs = true;
        let program = Program::Hook(hook.path.clone());
        match state.progress.programs.get(&program) {
            Some(Some(_)) => continue,
            Some(None) => {
                let cut = CutScript {
                    package: None,
                    name: hook.path.clone(),
                };
                sink.error(&cut.to_string());
                state.cut.push(cut);
                continue;
            }
            None => {}
        }
        let stage = hooks::Stage::PostCommit;
        let witness = state.journal.as_mut().map(|journal| (journal, &program));
        let result = match hooks::run_one(root, &promise.options, &hook, stage, witness, sink) {
            Err(Failure::NotStarted(error)) => return Err(error.into()),
            Err(Failure::Failed(message)) => Err(message),
            Ok(()) => Ok(()),
        };
        state.append(&Record::Ended(program, result.is_ok()))?;
        if let Err(message) = result {
            // The first failure ends the hooks; it is only told.
            sink.error(&message);
            break;
        }
    }
    super::stage::remove_private(root).or_else(|_| super::stage::remove_private(root))?;
    Ok(())
}

/// What the end of a transaction needs to know of its journal.
struct JournaledHooks {
    journal: Option<Journal>,
    progress: Progress,
    cut: Vec<CutScript>,
    /// Whether a program was started, by this transaction or the part of it that was interrupted.
    programs: bool,
}

impl JournaledHooks {
    fn append(&mut self, record: &Record) -> Result<(), Stop> {
        match &mut self.journal {
            Some(journal) => Ok(journal.append_firmly(record)?),
            None => Ok(()),
        }
    }
}

/// A script that an interruption cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutScript {
    /// The package that `fix` reinstalls to run it again; none for a hook or a removed package.
    pub package: Option<String>,
    /// `NAME-VERSION.TYPE`, or the path of a hook.
    pub name: String,
}

impl std::fmt::Display for CutScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: cut off by the interruption and not run again",
            self.name
        )?;
        match &self.package {
            Some(package) => write!(f, "; `ibex fix {package}` runs it"),
            None => Ok(()),
        }
    }
}

/// Returns the scripts that had begun and have no end.
pub(super) fn cut_scripts(promise: &Promise, progress: &Progress) -> Vec<CutScript> {
    let mut cut = Vec::new();
    for (index, change) in promise.plan.changes.iter().enumerate() {
        for kind in ScriptKind::ALL {
            let program = Program::Script(index as u32, kind);
            if progress.programs.get(&program) == Some(&None) {
                cut.push(cut_script(change, kind));
            }
        }
    }
    cut
}

fn cut_script(change: &Change, kind: ScriptKind) -> CutScript {
    let new = change.new.as_ref().map(|new| &new.package);
    let old = change.old.as_ref();
    let old = old.map(|old| format!("{}-{}", old.name, old.version));
    let full_name = new.map(Package::full_name).or(old).unwrap_or_default();
    CutScript {
        package: new.map(|package| package.name.clone()),
        name: format!("{full_name}.{}", kind.name()),
    }
}

/// Flushes every file system that a transaction may have written to: those of waiting files, and all
/// others in the root, from which files may have gone and to which scripts may have written.
fn sync_file_systems(root: &Root, promise: &Promise) -> Result<(), RootError> {
    let mut seen = Vec::new();
    let places = promise.rooms.iter().cloned().chain(root.mounts());
    for place in std::iter::once(String::new()).chain(places) {
        let directory = match root.directory(&place) {
            Ok(directory) => directory,
            // Unmounted or forbidden: nothing was written to it.
            Err(error) if !is_serious(&error) => continue,
            Err(error) => return Err(error),
        };
        let device = directory.stat_self()?.inode.0;
        if !seen.contains(&device) {
            directory.sync_file_system()?;
            seen.push(device);
        }
    }
    Ok(())
}

/// The promise cannot be kept now.
#[derive(Debug)]
struct Stop(String);

impl From<RootError> for Stop {
    fn from(error: RootError) -> Self {
        Self(error.to_string())
    }
}

/// Stands in the journal where others have the number of a change: directories that get their modes
/// back before the first one.
const DIRECTORIES: u32 = u32::MAX;

/// Returns whether a step puts files in place.
fn changes_files(verb: crate::plan::Verb) -> bool {
    use crate::plan::Verb;
    !matches!(
        verb,
        Verb::Purging | Verb::UpdatingPinning | Verb::SkippedReinstalling
    )
}

/// Numbers the step lines and reports progress in apk's units: bytes and 65536 a package.
struct Steps {
    number: usize,
    total: usize,
    done: u64,
    bytes: u64,
}

impl Steps {
    fn new(changes: &[Change]) -> Self {
        Self {
            number: 0,
            total: changes
                .iter()
                .filter(|change| change.verb().is_some())
                .count(),
            done: 0,
            bytes: changes.iter().map(weight).sum(),
        }
    }

    /// Counts a step, and tells of it if somebody listens.
    fn announce(&mut self, change: &Change, sink: Option<&mut dyn Sink>) {
        let Some(line) = change.line() else { return };
        self.number += 1;
        if let Some(sink) = sink {
            let width = self.total.to_string().len();
            sink.info(&format!("({:>width$}/{}) {line}", self.number, self.total));
        }
    }

    fn done(&mut self, change: &Change, sink: &mut dyn Sink) {
        self.done += weight(change);
        let (done, total) = (self.done, self.bytes);
        sink.event(Event::Progress {
            done,
            total,
            stage: ProgressStage::Install,
        });
    }
}

fn weight(change: &Change) -> u64 {
    match (&change.new, change.verb()) {
        (_, None) => 0,
        (Some(new), _) => new.package.size + 65536,
        (None, _) => 65536,
    }
}

/// What a directory shall look like, and which package says so (commit.md, chapter 7).
#[derive(Clone, Debug)]
struct DirectoryOwner {
    name: String,
    origin: Option<String>,
    priority: u16,
    owner: Owner,
    acl: Acl,
}

#[derive(Default)]
struct DirectoryOwners(HashMap<String, Vec<DirectoryOwner>>);

/// Returns the directories that are there, but not as their packages ask for: what
/// `fix --directory-permissions` changes, and tells before anything else.
///
/// # Errors
/// [`RootError`] if a directory cannot be looked at.
pub fn wrong_directories(
    root: &Root,
    installed: &InstalledDb,
    usermode: bool,
) -> Result<Vec<String>, RootError> {
    let owners = DirectoryOwners::of(&installed.packages);
    Ok(owners.wrong(root, usermode)?.modified)
}

impl DirectoryOwners {
    /// Returns the owners that installed packages are, by their position.
    fn of<'p>(packages: impl IntoIterator<Item = &'p InstalledPackage>) -> Self {
        let mut owners = Self::default();
        for (at, package) in packages.into_iter().enumerate() {
            for directory in &package.directories {
                owners.add(&package.package, Owner::Old(at), directory);
            }
        }
        owners
    }

    fn add(&mut self, package: &Package, owner: Owner, directory: &InstalledDirectory) {
        let instance = DirectoryOwner {
            name: package.name.clone(),
            origin: package.origin.clone(),
            priority: package.replaces_priority,
            owner,
            acl: directory.acl.clone(),
        };
        let instances = self.0.entry(directory.path.clone()).or_default();
        // The newer instance of a package takes the place of its older one.
        instances.retain(|known| known.name != instance.name);
        instances.push(instance);
    }

    fn remove(&mut self, path: &str, owner: Owner) {
        if let Some(instances) = self.0.get_mut(path) {
            instances.retain(|known| known.owner != owner);
        }
    }

    /// Decides what gives directories the owner and mode that they should have.
    fn wrong(&self, root: &Root, usermode: bool) -> Result<Decided, RootError> {
        let mut decided = Decided::default();
        let mut paths: Vec<&String> = self.0.keys().filter(|path| !path.is_empty()).collect();
        paths.sort();
        for path in paths {
            let Some(acl) = self.deciding(path).map(|owner| &owner.acl) else {
                continue;
            };
            let mode = match usermode {
                true => acl.mode | 0o300,
                false => acl.mode,
            };
            match root.stat(path)? {
                Some(stat) if !stat.is_dir() => continue,
                Some(stat) if (stat.mode, stat.uid, stat.gid) == (acl.mode, acl.uid, acl.gid) => {
                    continue;
                }
                Some(_) => decided.modified.push(path.clone()),
                // What is missing comes back; that is no change for a trigger, as with apk.
                None => {}
            }
            decided.acts.push(Act::Directory {
                path: path.clone(),
                uid: acl.uid,
                gid: acl.gid,
                mode,
            });
        }
        Ok(decided)
    }

    /// Returns the instance that decides.
    fn deciding(&self, path: &str) -> Option<&DirectoryOwner> {
        let instances = self.0.get(path)?;
        instances
            .iter()
            .reduce(|best, other| if other.wins(best) { other } else { best })
    }
}

impl DirectoryOwner {
    fn wins(&self, other: &Self) -> bool {
        if self.priority != other.priority {
            return self.priority > other.priority;
        }
        if self.origin.is_some() && self.origin == other.origin {
            let is_origin = |owner: &Self| owner.origin.as_deref() == Some(owner.name.as_str());
            if is_origin(self) != is_origin(other) {
                return is_origin(self);
            }
        }
        self.name < other.name
    }
}

/// The state while packages are put in place.
struct Commit<'a, 's> {
    root: &'a Root,
    promise: &'s Promise,
    canonical: Canonical<'a>,
    /// Where old directories really were; links on the way may be gone when their turn comes.
    places: HashMap<&'s str, &'s str>,
    owners: Ownership,
    accounts: Accounts,
    /// Where each installed package is in `old`.
    positions: HashMap<Identity, usize>,
    /// Installed packages that were not reached yet.
    old: Vec<Option<InstalledPackage>>,
    /// Records of the changes that were.
    new: Vec<Option<InstalledPackage>>,
    /// How many packages record each directory.
    references: HashMap<String, usize>,
    directory_owners: DirectoryOwners,
    /// What this run recorded for files in protected directories, for packages that follow.
    protected_digests: HashMap<String, Digest>,
    /// Canonical paths that left a package which stays, and whose they were.
    taken: Vec<(Owner, String)>,
    modified: BTreeSet<String>,
    lost: BTreeSet<String>,
    around: Surroundings,
    runner: Option<&'a dyn ScriptRunner>,
    errors: u32,
    /// Part of it may have been done before.
    again: bool,
    /// Paths that were removed since the last flush.
    unflushed: HashSet<String>,
    /// Changes whose acts the journal says were done.
    marked: u32,
    /// Changes whose acts were done.
    executed: u32,
    progress: Progress,
    journal: Option<Journal>,
    cut: Vec<CutScript>,
    /// Whether a script was started.
    programs: bool,
    /// Scripts that `fix` has to run as they were cut off.
    owed: Vec<Owed>,
    sink: &'s mut dyn Sink,
}

/// What is being decided for the files of one change.
#[derive(Default)]
struct Deciding {
    decided: Decided,
    /// Waiting files that get another owner, before any of them is put in place.
    owns: Vec<Act>,
    /// Directories that will have been made.
    made: HashSet<String>,
    /// Paths where something of the old version goes first, so that nothing is below them.
    cleared: Vec<String>,
    /// Files of the disk that stay under a new owner.
    kept: HashSet<(u64, u64)>,
    /// Directories that are not there now, and are not anybody's way: position among the staged
    /// ones → that of the act.
    fresh: HashMap<usize, usize>,
}

impl Deciding {
    /// Brings directories whole where all that is in them comes with them, instead of file by file.
    fn adopt(&mut self, staged: &StagedPackage) {
        // What is removed and what takes its place must not pass each other.
        if self.decided.reshapes {
            return;
        }
        let mut missing: HashMap<usize, usize> = HashMap::default();
        for file in staged.files.iter().filter(|file| file.staged.is_some()) {
            *missing.entry(file.directory).or_default() += 1;
        }
        let placed = |act: &Act| match act {
            Act::Place {
                file,
                apk_new: false,
            } => Some(staged.files[*file as usize].directory),
            _ => None,
        };
        for directory in self.decided.acts.iter().filter_map(placed) {
            missing.entry(directory).and_modify(|count| *count -= 1);
        }
        for (at, position) in self.fresh.drain() {
            if staged.directories[at].folder.is_none() || missing.get(&at) != Some(&0) {
                continue;
            }
            let act = &mut self.decided.acts[position];
            if let Act::Directory { uid, gid, mode, .. } = *act {
                let directory = at as u32;
                *act = Act::Adopt {
                    directory,
                    uid,
                    gid,
                    mode,
                };
            }
        }
        let adopted: HashSet<usize> = (self.decided.acts.iter())
            .filter_map(|act| match act {
                Act::Adopt { directory, .. } => Some(*directory as usize),
                _ => None,
            })
            .collect();
        let comes_with = |act: &Act| placed(act).is_some_and(|at| adopted.contains(&at));
        self.decided.acts.retain(|act| !comes_with(act));
    }

    /// Returns whether nothing that is below a path now will be there.
    fn is_cleared(&self, path: &str) -> bool {
        self.cleared.iter().any(|cleared| is_inside(path, cleared))
    }
}

fn is_inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Commit<'_, '_> {
    fn everything(mut self) -> Result<Outcome, Stop> {
        let promise = self.promise;
        let changes = &promise.plan.changes;
        let mut steps = Steps::new(changes);
        self.take_for_overlay();
        self.fix_directories()?;
        for (index, change) in changes.iter().enumerate() {
            let told = self.marked > index as u32;
            steps.announce(change, (!told).then_some(&mut *self.sink));
            let old = change.old.as_ref();
            let position = old.and_then(|old| self.positions.get(&old.identity).copied());
            let before = position.and_then(|at| self.old[at].take());
            self.new[index] = self.change(index, change, before, position)?;
            self.executed = index as u32 + 1;
            steps.done(change, self.sink);
        }
        self.forget_taken();
        self.triggers()?;
        self.write_database()
    }

    fn change(
        &mut self,
        index: usize,
        change: &Change,
        before: Option<InstalledPackage>,
        position: Option<usize>,
    ) -> Result<Option<InstalledPackage>, Stop> {
        let promise = self.promise;
        let Some(new) = &change.new else {
            if let (Some(before), Some(position)) = (before, position) {
                self.remove(index, &before, Owner::Old(position))?;
                self.tell_of_replaced(&before.package);
            }
            return Ok(None);
        };
        let Some(staged) = &promise.packages[index] else {
            let keeps = change
                .old
                .as_ref()
                .is_some_and(|o| o.identity == new.package.identity);
            if keeps {
                let Some(mut kept) = before else {
                    return Ok(None);
                };
                match new.source {
                    Source::Unavailable if change.reinstall => self.catch_up(index, &mut kept)?,
                    Source::Unavailable => {}
                    _ => kept.pinned_tag.clone_from(&new.tag),
                }
                return Ok(Some(kept));
            }
            // Without data there is nothing to unpack; only the record is made, and as apk makes it,
            // without the tag.
            if let (Some(before), Some(position)) = (&before, position) {
                self.files_of(index, None, |commit, known| {
                    let mut deciding = Deciding::default();
                    commit.drop_files(before, Owner::Old(position), known, &mut deciding)?;
                    commit.release_directories(before, Owner::Old(position), &mut deciding);
                    Ok(deciding)
                })?;
            }
            return Ok(Some(InstalledPackage {
                package: new.package.clone(),
                ..InstalledPackage::default()
            }));
        };
        let record = self.install(index, &new.package, before.as_ref(), position, staged)?;
        Ok(Some(InstalledPackage {
            pinned_tag: new.tag.clone(),
            ..record
        }))
    }

    /// Runs the scripts of an installed package that were cut off; its file is not needed for that.
    fn catch_up(&mut self, index: usize, kept: &mut InstalledPackage) -> Result<(), Stop> {
        for owed in self.owed_to(kept) {
            let Some(kind) = owed.script().filter(|kind| *kind != ScriptKind::Trigger) else {
                continue;
            };
            match self.script(index, kept, kind, &owed.arguments)? {
                true => self.settle_owed(&owed, kept),
                false => self.errors += 1,
            }
        }
        Ok(())
    }

    /// Returns the scripts of a package that were cut off; none if no scripts are to be run.
    fn owed_to(&self, package: &InstalledPackage) -> Vec<Owed> {
        let of = |owed: &&Owed| self.promise.options.scripts && owed.is_of(package);
        self.owed.iter().filter(of).cloned().collect()
    }

    /// Forgets a script that was cut off and has now been run; with the last one, its package is
    /// whole.
    fn settle_owed(&mut self, done: &Owed, package: &mut InstalledPackage) {
        self.owed.retain(|owed| owed != done);
        package.broken.script = self.owed.iter().any(|owed| owed.is_of(package));
    }

    fn install(
        &mut self,
        index: usize,
        package: &Package,
        before: Option<&InstalledPackage>,
        position: Option<usize>,
        staged: &StagedPackage,
    ) -> Result<InstalledPackage, Stop> {
        let owner = Owner::New(index);
        let mut record = InstalledPackage {
            package: merged(package, staged),
            scripts: staged.scripts.clone(),
            sha256_160: staged.sha256_160,
            ..InstalledPackage::default()
        };
        let mut arguments = vec![package.version.clone()];
        arguments.extend(before.map(|before| before.package.version.clone()));
        // What was cut off is run as it would have been, and nothing that was not.
        let same = before.filter(|before| before.package.identity == package.identity);
        let mut owed = same.map_or_else(Vec::new, |before| self.owed_to(before));
        owed.retain(|owed| !owed.is(ScriptKind::Trigger));
        if let Some(first) = owed.first() {
            arguments.clone_from(&first.arguments);
        }
        let is_due = |kind| owed.is_empty() || owed.iter().any(|owed| owed.is(kind));
        let (pre, post) = match arguments.len() {
            1 => (ScriptKind::PreInstall, ScriptKind::PostInstall),
            _ => (ScriptKind::PreUpgrade, ScriptKind::PostUpgrade),
        };
        let pre_failed = is_due(pre) && !self.script(index, &record, pre, &arguments)?;
        if self.sink.wants(Level::Trace) {
            for line in staged.entry_lines() {
                self.sink.line(Level::Trace, &line);
            }
        }
        let (directories, broken_files) = self.files_of(index, Some(staged), |commit, known| {
            let mut deciding = Deciding::default();
            commit.directories(&record.package, staged, owner, before, known, &mut deciding)?;
            commit.files(index, package, staged, before, known, &mut deciding)?;
            deciding.adopt(staged);
            if let (Some(before), Some(position)) = (before, position) {
                commit.drop_files(before, Owner::Old(position), known, &mut deciding)?;
                commit.release_directories(before, Owner::Old(position), &mut deciding);
            }
            Ok(deciding)
        })?;
        record.directories = directories;
        let post_failed = is_due(post) && !self.script(index, &record, post, &arguments)?;
        let undone = Broken {
            files: broken_files,
            script: pre_failed || post_failed,
            xattrs: false,
        };
        record.broken = merge_broken(staged.broken, undone);
        self.errors += u32::from(record.broken.counts());
        Ok(record)
    }

    /// Decides what happens to the files of a change, writes it down and does it; returns what the
    /// database records, and whether some file could not be put in place.
    ///
    /// `decide` is given what was decided before, if it was: then it only keeps the books.
    fn files_of(
        &mut self,
        index: usize,
        staged: Option<&StagedPackage>,
        decide: impl FnOnce(&mut Self, Option<&Decided>) -> Result<Deciding, Stop>,
    ) -> Result<(Vec<InstalledDirectory>, bool), Stop> {
        let number = index as u32;
        let known = self.progress.decided.remove(&number);
        let again = self.again && known.is_some();
        let mut decided = match known {
            Some(known) => {
                self.canonical.learn(&known.learned);
                decide(self, Some(&known))?;
                known
            }
            None => {
                self.canonical.forget_learned();
                let mut deciding = decide(self, None)?;
                let mut decided = deciding.decided;
                deciding.owns.append(&mut decided.acts);
                decided.acts = deciding.owns;
                decided.learned = self.canonical.learned();
                self.settle(number, decided)?
            }
        };
        let failed = self.progress.failed.iter();
        let mut broken = decided.broken | failed.clone().any(|(change, _)| *change == number);
        if self.marked > number {
            decided.acts.clear();
        }
        for act in &decided.acts {
            if matches!(act, Act::Remove { .. } | Act::RemoveDirectory { .. }) {
                self.unflushed.insert(act.path(staged));
            }
        }
        for (position, act) in decided.acts.iter().enumerate() {
            if let Some(before) = position.checked_sub(1).map(|at| &decided.acts[at])
                && must_not_pass(act, before, decided.reshapes)
            {
                self.flush_between()?;
            }
            broken |= !self.act(number, position as u32, act, staged, again)?;
        }
        self.modified.extend(decided.modified.iter().cloned());
        self.reload_after(&decided, staged);
        if self.marked <= number {
            self.executed = number + 1;
            let mark = !self.promise.options.sync;
            if decided.reshapes {
                self.flush()?;
            } else if mark && let Some(journal) = &mut self.journal {
                journal.append(&Record::Done(number + 1))?;
                self.marked = number + 1;
            }
        }
        Ok((decided.directories, broken))
    }

    /// Writes down what was decided. What one act removed must not be filled by another before the
    /// removal is on the disk, or repeating it would remove the wrong thing.
    fn settle(&mut self, number: u32, decided: Decided) -> Result<Decided, Stop> {
        if self.promise.options.sync {
            let staged = self.promise.packages[number as usize].as_ref();
            let refills = decided.acts.iter().any(|act| match act {
                Act::Place { .. } | Act::Directory { .. } => {
                    self.unflushed.contains(&act.path(staged))
                }
                Act::Adopt { directory, .. } => {
                    let mut files = staged.into_iter().flat_map(|s| s.files_of(*directory));
                    self.unflushed.contains(&act.path(staged))
                        || files.any(|(_, path)| self.unflushed.contains(&path))
                }
                _ => false,
            });
            if refills || decided.reshapes {
                self.flush()?;
            }
        }
        let Some(journal) = &mut self.journal else {
            return Ok(decided);
        };
        if decided.acts.is_empty() && decided.directories.is_empty() {
            return Ok(decided);
        }
        let record = Record::Decided(number, decided);
        journal.append_firmly(&record)?;
        match record {
            Record::Decided(_, decided) => Ok(decided),
            _ => unreachable!("it was just made"),
        }
    }

    /// Flushes the file systems, and notes that everything so far needs no repetition.
    fn flush(&mut self) -> Result<(), Stop> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        if self.promise.options.sync && self.executed > self.marked {
            let (root, promise) = (self.root, self.promise);
            sync_file_systems(root, promise).or_else(|_| sync_file_systems(root, promise))?;
        }
        if self.executed > self.marked {
            journal.append_firmly(&Record::Done(self.executed))?;
            self.marked = self.executed;
        }
        self.unflushed.clear();
        Ok(())
    }

    /// Keeps what follows from reaching the disk before what was done so far.
    fn flush_between(&self) -> Result<(), Stop> {
        if self.promise.options.sync && self.journal.is_some() {
            let (root, promise) = (self.root, self.promise);
            sync_file_systems(root, promise).or_else(|_| sync_file_systems(root, promise))?;
        }
        Ok(())
    }

    /// Does one act; returns whether it went well.
    fn act(
        &mut self,
        number: u32,
        position: u32,
        act: &Act,
        staged: Option<&StagedPackage>,
        again: bool,
    ) -> Result<bool, Stop> {
        let context = Context {
            root: self.root,
            usermode: self.promise.options.usermode,
            staged,
            again,
        };
        let failed_before = self.progress.failed.contains(&(number, position));
        let result = if failed_before {
            None
        } else {
            let first = act.perform(context);
            Some(first.or_else(|error| match is_serious(&error) {
                // Once more: not every error of a disk or a network comes twice.
                true => act.perform(Context {
                    again: true,
                    ..context
                }),
                false => Err(error),
            }))
        };
        let error = match result {
            Some(Ok(())) => return Ok(true),
            Some(Err(error)) if is_serious(&error) => return Err(error.into()),
            Some(Err(error)) => Some(error),
            None => None,
        };
        if let (Act::Adopt { .. }, Some(staged)) = (act, staged) {
            return self.place_one_by_one(number, position, act, staged, error.is_some());
        }
        let (Act::Place { file, .. } | Act::Own { file, .. }) = act else {
            if let (Act::Directory { path, .. }, Some(error)) = (act, error) {
                let text = format!("failed to update directory {path}: {}", error.cause());
                self.sink.warning(&text);
            }
            // apk ignores failing removals, too: the record is gone, `audit --full` shows the rest.
            return Ok(true);
        };
        if let Some(error) = error {
            self.tell_failed(number, &error);
            if let Some(journal) = &mut self.journal {
                // Before the file goes, or it would count as in place.
                journal.append_firmly(&Record::Failed(number, position))?;
            }
        }
        Act::Discard { file: *file }.perform(context)?;
        Ok(false)
    }

    /// Says that a file of a change could not be put in place.
    fn tell_failed(&mut self, number: u32, error: &RootError) {
        let new = self.promise.plan.changes[number as usize].new.as_ref();
        let name = new.map(|new| new.package.full_name()).unwrap_or_default();
        self.sink
            .error(&format!("{name}: failed to commit {error}"));
    }

    /// Brings the files of a directory that cannot come as a whole: somebody else made it meanwhile.
    /// Unless it is `tried`, that failed the first time, and only what still waits is to go.
    fn place_one_by_one(
        &mut self,
        number: u32,
        position: u32,
        act: &Act,
        staged: &StagedPackage,
        tried: bool,
    ) -> Result<bool, Stop> {
        let &Act::Adopt {
            directory,
            uid,
            gid,
            mode,
        } = act
        else {
            return Ok(true);
        };
        let context = Context {
            root: self.root,
            usermode: self.promise.options.usermode,
            staged: Some(staged),
            again: true,
        };
        let mut failed = !tried;
        if tried {
            let path = act.path(Some(staged));
            let made = Act::Directory {
                path: path.clone(),
                uid,
                gid,
                mode,
            };
            match made.perform(context) {
                Err(error) if is_serious(&error) => return Err(error.into()),
                Err(error) => {
                    let text = format!("failed to update directory {path}: {}", error.cause());
                    self.sink.warning(&text);
                }
                Ok(()) => {}
            }
            for (file, _) in staged.files_of(directory) {
                let apk_new = false;
                match (Act::Place { file, apk_new }).perform(context) {
                    Err(error) if is_serious(&error) => return Err(error.into()),
                    Err(error) => {
                        self.tell_failed(number, &error);
                        failed = true;
                    }
                    Ok(()) => {}
                }
            }
            if failed && let Some(journal) = &mut self.journal {
                // Before the files go, or they would count as in place.
                journal.append_firmly(&Record::Failed(number, position))?;
            }
        }
        for (file, _) in staged.files_of(directory) {
            Act::Discard { file }.perform(context)?;
        }
        Ok(!failed)
    }

    /// Runs a package script; returns whether it went well.
    fn script(
        &mut self,
        index: usize,
        package: &InstalledPackage,
        kind: ScriptKind,
        arguments: &[String],
    ) -> Result<bool, Stop> {
        let (true, Some(text)) = (self.promise.options.scripts, package.scripts.get(&kind)) else {
            return Ok(true);
        };
        self.programs = true;
        if let Some(runner) = self.runner {
            let call = ScriptCall {
                package,
                kind,
                text,
                arguments,
            };
            let done = runner.script(self.root, &call);
            self.root.forget_directories();
            self.reload_accounts();
            return Ok(done);
        }
        let mark = Program::Script(index as u32, kind);
        match self.progress.programs.get(&mark) {
            Some(Some(well)) => return Ok(*well),
            Some(None) => {
                let cut = cut_script(&self.promise.plan.changes[index], kind);
                self.sink.error(&cut.to_string());
                self.cut.push(cut);
                let owed = Owed::new(&package.package, kind, arguments);
                if let Some(owed) = owed.filter(|owed| !self.owed.contains(owed)) {
                    self.owed.push(owed);
                }
                return Ok(false);
            }
            None => {}
        }
        self.flush()?;
        let full_name = package.package.full_name();
        let (indent, prefix) = match kind {
            ScriptKind::Trigger => ("", "* "),
            _ => ("  ", "  * "),
        };
        self.sink
            .info(&format!("{indent}Executing {full_name}.{}", kind.name()));
        let program = scripts::Program {
            name: &format!("lib/apk/exec/{full_name}.{}", kind.name()),
            text: Some(text),
            arguments,
            kind: kind.name(),
            package: Some(&package.package.name),
            prefix,
        };
        let witness = self.journal.as_mut().map(|journal| (journal, &mark));
        let result = scripts::run(
            self.root,
            &self.around,
            &program,
            witness,
            self.sink,
            |_| {},
        );
        let result = match result {
            Err(Failure::NotStarted(error)) => return Err(error.into()),
            Err(Failure::Failed(message)) => Err(message),
            Ok(()) => Ok(()),
        };
        self.reload_accounts();
        if let Some(journal) = &mut self.journal {
            if self.promise.options.sync {
                // What it did must not be lost when its end is known.
                let (root, promise) = (self.root, self.promise);
                sync_file_systems(root, promise).or_else(|_| sync_file_systems(root, promise))?;
            }
            journal.append_firmly(&Record::Ended(mark, result.is_ok()))?;
        }
        match result {
            Ok(()) => Ok(true),
            Err(message) => {
                self.sink.error(&message);
                Ok(false)
            }
        }
    }

    fn reload_accounts(&mut self) {
        if let Ok(accounts) = Accounts::load(self.root) {
            self.accounts = accounts;
        }
    }

    /// Reads the accounts anew if a package brought them: they count for the packages after it, as
    /// with apk.
    fn reload_after(&mut self, decided: &Decided, staged: Option<&StagedPackage>) {
        let mut etc = decided.directories.iter().filter(|d| d.path == "etc");
        let brought = etc.any(|etc| {
            let mut names = etc.files.iter().map(|file| file.name.as_str());
            names.any(|name| matches!(name, "passwd" | "group"))
        });
        if staged.is_some() && brought {
            self.reload_accounts();
        }
    }

    fn acl(&self, attributes: &Attributes) -> Acl {
        let (uid, gid) = self.accounts.ids(
            &attributes.uname,
            attributes.uid,
            &attributes.gname,
            attributes.gid,
        );
        Acl {
            uid,
            gid,
            mode: attributes.mode,
            xattrs: attributes.xattrs.clone(),
        }
    }

    /// Records the directories of a package, and decides what to make them.
    fn directories(
        &mut self,
        package: &Package,
        staged: &StagedPackage,
        owner: Owner,
        before: Option<&InstalledPackage>,
        known: Option<&Decided>,
        deciding: &mut Deciding,
    ) -> Result<(), Stop> {
        let mut counts = vec![0; staged.directories.len()];
        for file in &staged.files {
            counts[file.directory] += 1;
        }
        deciding.decided.acts.reserve(staged.files.len());
        for (at, directory) in staged.directories.iter().enumerate() {
            let path = &directory.path;
            let acl = match known {
                Some(known) => known.directories[at].acl.clone(),
                None => self.acl(&directory.attributes),
            };
            let entry = InstalledDirectory {
                path: path.clone(),
                acl,
                files: Vec::with_capacity(counts[at]),
            };
            let previous = self.directory_owners.deciding(path).map(|d| d.acl.clone());
            self.directory_owners.add(package, owner, &entry);
            *self.references.entry(path.clone()).or_insert(0) += 1;
            deciding.decided.directories.push(entry);
            // For triggers a directory is modified when a package brings it, with or without files.
            self.modified.insert(path.clone());
            if path.is_empty() || known.is_some() {
                continue;
            }
            match self.directory(at, path, previous.as_ref(), before, deciding) {
                Err(error) if is_serious(&error) => return Err(error.into()),
                Err(error) => {
                    let cause = error.cause();
                    let text = format!("failed to update directory {path}: {cause}");
                    self.sink.warning(&text);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn directory(
        &self,
        at: usize,
        path: &str,
        previous: Option<&Acl>,
        before: Option<&InstalledPackage>,
        deciding: &mut Deciding,
    ) -> Result<(), RootError> {
        let wanted = self.directory_owners.deciding(path).map(|known| &known.acl);
        let Some(wanted) = wanted else { return Ok(()) };
        if deciding.made.contains(path) {
            // Made as the parent of another one, so it was there before this one came.
            return Ok(());
        }
        let (parent, _) = split(path);
        let nothing = deciding.made.contains(parent) || deciding.is_cleared(path);
        let mut found = if nothing { None } else { self.root.stat(path)? };
        // What the old version had here as a file or link makes way (commit.md, W9).
        if let Some(stat) = &found
            && !stat.is_dir()
            && before.is_some_and(|old| has_file(old, path))
        {
            deciding.decided.acts.push(Act::Remove {
                path: path.to_owned(),
                seen: Seen::new(stat),
            });
            deciding.decided.reshapes = true;
            deciding.cleared.push(path.to_owned());
            found = None;
        }
        let apply = match found {
            None => true,
            // A link to a directory, or a directory of nobody: left alone.
            Some(stat) if !stat.is_dir() => false,
            Some(stat) => previous.is_some_and(|acl| {
                // Only what the old owner asked for is changed; an administrator's choice stays.
                *acl != *wanted && (stat.mode, stat.uid, stat.gid) == (acl.mode, acl.uid, acl.gid)
            }),
        };
        if !apply {
            return Ok(());
        }
        if found.is_none() {
            let mut path = path;
            while !path.is_empty() && deciding.made.insert(path.to_owned()) {
                path = split(path).0;
                let stays = !deciding.made.contains(path) && !deciding.is_cleared(path);
                if stays && self.root.stat(path)?.is_some() {
                    break;
                }
            }
        }
        if found.is_none() && !deciding.is_cleared(path) {
            deciding.fresh.insert(at, deciding.decided.acts.len());
        }
        let mode = match self.promise.options.usermode {
            true => wanted.mode | 0o300,
            false => wanted.mode,
        };
        deciding.decided.acts.push(Act::Directory {
            path: path.to_owned(),
            uid: wanted.uid,
            gid: wanted.gid,
            mode,
        });
        deciding.decided.modified.push(path.to_owned());
        Ok(())
    }

    /// Decides about the files of a package, and records their owners.
    fn files(
        &mut self,
        index: usize,
        package: &Package,
        staged: &StagedPackage,
        before: Option<&InstalledPackage>,
        known: Option<&Decided>,
        deciding: &mut Deciding,
    ) -> Result<(), Stop> {
        if let Some(known) = known {
            for directory in &known.directories {
                let real = self.canonical.of(&directory.path);
                for file in &directory.files {
                    let key = join(&real, &file.name);
                    self.take(key, &directory.path, file, Owner::New(index));
                }
            }
            let with_files = known.directories.iter().filter(|d| !d.files.is_empty());
            // A device in usermode is recorded, but nothing changes.
            self.modified.extend(with_files.map(|d| d.path.clone()));
            return Ok(());
        }
        let decisions = &self.promise.decisions[index];
        // Files of a directory mostly follow each other.
        let (mut real, mut real_of) = (String::new(), usize::MAX);
        for (position, (file, decision)) in staged.files.iter().zip(decisions).enumerate() {
            if real_of != file.directory {
                real_of = file.directory;
                real = self.canonical.of(&staged.directories[real_of].path);
            }
            let file = (position, file, real.as_str());
            match self.file(index, staged, file, decision, before, deciding) {
                Ok(Some(entry)) => {
                    deciding.decided.directories[real_of].files.push(entry);
                }
                Ok(None) => {}
                Err(error) if is_serious(&error) => return Err(error.into()),
                Err(error) => {
                    let name = package.full_name();
                    self.sink
                        .error(&format!("{name}: failed to commit {error}"));
                    deciding.decided.broken = true;
                    let file = position as u32;
                    deciding.decided.acts.push(Act::Discard { file });
                }
            }
        }
        Ok(())
    }

    /// Decides about one file, given with its position and the directory that its own really is;
    /// returns what to record.
    fn file(
        &mut self,
        index: usize,
        staged: &StagedPackage,
        (position, file, real): (usize, &StagedFile, &str),
        decision: &Decision,
        before: Option<&InstalledPackage>,
        deciding: &mut Deciding,
    ) -> Result<Option<InstalledFile>, RootError> {
        let folder = &staged.directories[file.directory].path;
        let path = staged.path(file);
        let key = join(real, &file.name);
        let number = position as u32;
        if let Decision::TakeByForce(warning) = decision {
            self.sink.warning(warning);
        }
        if *decision == Decision::Leave {
            deciding.decided.acts.push(Act::Discard { file: number });
            return Ok(None);
        }
        let previous = self.owners.owner(&key);
        let entry = InstalledFile {
            name: file.name.clone(),
            acl: self.acl(&file.attributes),
            digest: file.digest.clone(),
        };
        if file.staged.is_some() {
            let recorded = match previous {
                Some(Owner::New(_)) => self.protected_digests.get(&key).cloned(),
                Some(Owner::Old(at)) => self.recorded_digest(at, &key, before),
                Some(Owner::Overlay) | None => None,
            };
            let target = match previous {
                Some(Owner::Overlay) => Target::Keep,
                _ => self.target(&path, folder, &entry, recorded, before, deciding)?,
            };
            if target != Target::Place
                && before.is_some()
                && let Some(stat) = self.root.stat(&path)?
            {
                deciding.kept.insert(stat.inode);
            }
            let (uid, gid) = (entry.acl.uid, entry.acl.gid);
            let apk_new = target == Target::ApkNew;
            deciding.decided.acts.push(match target {
                Target::Keep => Act::Discard { file: number },
                Target::Place | Target::ApkNew => Act::Place {
                    file: number,
                    apk_new,
                },
            });
            // A script or a new `etc/passwd` may have changed the numbers since it was unpacked.
            if !self.promise.options.usermode && file.ids != (uid, gid) {
                let file = number;
                deciding.owns.push(Act::Own { file, uid, gid });
            }
        }
        self.take(key, folder, &entry, Owner::New(index));
        Ok(Some(entry))
    }

    /// Keeps the books of a path that a package takes.
    fn take(&mut self, key: String, folder: &str, entry: &InstalledFile, owner: Owner) {
        if self.promise.protected.is_protected(folder)
            && let Some(digest) = &entry.digest
        {
            self.protected_digests.insert(key.clone(), digest.clone());
        }
        let previous = self.owners.owner(&key);
        if let Some(previous) = previous.filter(|previous| *previous != owner) {
            self.taken.push((previous, key.clone()));
        }
        self.owners.take(key, owner);
    }

    /// Removes files from the records of the packages that they were taken from.
    fn forget_taken(&mut self) {
        for (owner, key) in std::mem::take(&mut self.taken) {
            let record = match owner {
                Owner::Old(at) => match self.kept_as(at) {
                    Some(index) => self.new.get_mut(index),
                    None => self.old.get_mut(at),
                },
                Owner::New(at) => self.new.get_mut(at),
                Owner::Overlay => None,
            };
            let Some(Some(record)) = record else { continue };
            let (folder, name) = split(&key);
            for directory in &mut record.directories {
                if self.canonical.of(&directory.path) == folder {
                    directory.files.retain(|file| file.name != name);
                }
            }
        }
    }

    /// Notes what the administrator's overlay has: no package has it any more, those aside that come
    /// in this run.
    fn take_for_overlay(&mut self) {
        let overlay: HashSet<&String> = self.promise.options.overlay.iter().collect();
        if overlay.is_empty() {
            return;
        }
        for (at, record) in self.old.iter().enumerate() {
            let directories = record.iter().flat_map(|record| &record.directories);
            for directory in directories {
                let real = self.canonical.of(&directory.path);
                let paths = directory.files.iter().map(|file| join(&real, &file.name));
                let taken = paths.filter(|path| overlay.contains(path));
                self.taken.extend(taken.map(|path| (Owner::Old(at), path)));
            }
        }
    }

    /// Gives every recorded directory the owner and mode that its package asks for.
    fn fix_directories(&mut self) -> Result<(), Stop> {
        if !self.promise.options.fix_directories {
            return Ok(());
        }
        let decided = match self.progress.decided.remove(&DIRECTORIES) {
            Some(decided) => decided,
            None => {
                let usermode = self.promise.options.usermode;
                let decided = self.directory_owners.wrong(self.root, usermode)?;
                let record = Record::Decided(DIRECTORIES, decided.clone());
                if let Some(journal) = &mut self.journal {
                    journal.append_firmly(&record)?;
                }
                decided
            }
        };
        if !self.progress.fixed {
            for (position, act) in decided.acts.iter().enumerate() {
                self.act(DIRECTORIES, position as u32, act, None, self.again)?;
            }
            if let Some(journal) = &mut self.journal {
                if self.promise.options.sync {
                    // Changes that follow may want other modes.
                    let (root, promise) = (self.root, self.promise);
                    sync_file_systems(root, promise)
                        .or_else(|_| sync_file_systems(root, promise))?;
                }
                journal.append_firmly(&Record::Fixed)?;
            }
        }
        self.modified.extend(decided.modified);
        Ok(())
    }

    /// Returns where the record of an installed package is now that the plan keeps as it is.
    fn kept_as(&self, position: usize) -> Option<usize> {
        let kept = |change: &Change| match (&change.old, &change.new) {
            (Some(old), Some(new)) => {
                old.identity == new.package.identity
                    && !change.reinstall
                    && self.positions.get(&old.identity) == Some(&position)
            }
            _ => false,
        };
        self.promise.plan.changes.iter().position(kept)
    }

    /// Returns the digest that the record of an installed package has for a path.
    ///
    /// Where that record is now depends on the order of the changes: still in the list, in the hands
    /// of the change that replaces it (`before`), or among the new ones, if the package stays.
    fn recorded_digest(
        &mut self,
        at: usize,
        key: &str,
        before: Option<&InstalledPackage>,
    ) -> Option<Digest> {
        let own = before.filter(|before| self.positions.get(&before.package.identity) == Some(&at));
        let record = match self.old[at].as_ref().or(own) {
            Some(record) => record,
            None => {
                let stays = self.kept_as(at)?;
                self.new[stays].as_ref()?
            }
        };
        let (folder, name) = split(key);
        let mut directories = record.directories.iter();
        directories
            .find_map(|directory| {
                let file = directory.files.iter().find(|file| file.name == name)?;
                (self.canonical.of(&directory.path) == folder).then_some(file)
            })
            .and_then(|file| file.digest.clone())
    }

    /// Tells of packages whose files the removed one may have had: the database knows only the
    /// last owner of a path, so nobody gets them back (commit.md, W10).
    fn tell_of_replaced(&mut self, gone: &Package) {
        if gone.replaces.is_empty() {
            return;
        }
        let stays = |package: &Package| {
            let changes = self.promise.plan.changes.iter();
            let mut leaving = changes.filter(|change| super::is_leaving(change));
            let is_it = |change: &Change| {
                let old = change.old.as_ref();
                old.is_some_and(|old| old.identity == package.identity)
            };
            package.name != gone.name && !leaving.any(is_it)
        };
        let replaced = |package: &Package| {
            gone.replaces.iter().any(|entry| {
                entry.name == package.name && entry.accepts(&package.version, package.identity)
            })
        };
        let records = self.old.iter().chain(&self.new).flatten();
        let packages = records.map(|record| &record.package);
        let lines: Vec<String> = packages
            .filter(|package| replaced(package) && stays(package))
            .map(|other| {
                format!(
                    "{} may have had files of {}, which stays: ibex fix --reinstall {}",
                    gone.full_name(),
                    other.full_name(),
                    other.name
                )
            })
            .collect();
        for line in lines {
            self.sink.warning(&line);
        }
    }

    /// Decides under which name a file comes, if the one that is there was changed.
    fn target(
        &mut self,
        path: &str,
        folder: &str,
        entry: &InstalledFile,
        recorded: Option<Digest>,
        before: Option<&InstalledPackage>,
        deciding: &mut Deciding,
    ) -> Result<Target, RootError> {
        if deciding.is_cleared(path) || deciding.made.contains(folder) {
            return Ok(Target::Place);
        }
        if self.promise.protected.is_protected(folder)
            && let Some(present) = disk_digest(self.root, path, recorded.as_ref())?
            && recorded.as_ref() != Some(&present)
        {
            let same = match &entry.digest {
                Some(new) => disk_digest(self.root, path, Some(new))?.as_ref() == Some(new),
                None => false,
            };
            if same || self.promise.options.clean_protected {
                return Ok(Target::Keep);
            }
            self.sink
                .info(&format!("  Installing file to {path}.apk-new"));
            return Ok(Target::ApkNew);
        }
        // The old version may have a directory here; its files go first (commit.md, W9).
        let had_directory = before.is_some_and(|old| {
            let mut paths = old.directories.iter().map(|d| d.path.as_str());
            paths.any(|directory| is_inside(directory, path))
        });
        if had_directory && self.root.stat(path)?.is_some_and(|stat| stat.is_dir()) {
            let old = before.expect("it had the directory");
            let mut acts = Vec::new();
            if !self.clears(old, path, &mut acts)? {
                return Err(RootError::new("rename", path, rustix::io::Errno::ISDIR));
            }
            deciding.decided.acts.append(&mut acts);
            deciding.decided.reshapes = true;
            deciding.cleared.push(path.to_owned());
        }
        Ok(Target::Place)
    }

    /// Collects what removes a directory in which there is nothing but files of the old version;
    /// returns whether that is so.
    fn clears(
        &self,
        old: &InstalledPackage,
        path: &str,
        acts: &mut Vec<Act>,
    ) -> Result<bool, RootError> {
        let record = old.directories.iter().find(|d| d.path == path);
        for name in self.root.list(path)? {
            let Some(name) = name.to_str() else {
                return Ok(false);
            };
            let inner = join(path, name);
            let Some(stat) = self.root.stat(&inner)? else {
                continue;
            };
            if stat.is_dir() {
                if !self.clears(old, &inner, acts)? {
                    return Ok(false);
                }
            } else if record.is_some_and(|d| d.files.iter().any(|file| file.name == name)) {
                acts.push(Act::Remove {
                    path: inner,
                    seen: Seen::new(&stat),
                });
            } else {
                return Ok(false);
            }
        }
        acts.push(Act::RemoveDirectory {
            path: path.to_owned(),
            above: Vec::new(),
        });
        Ok(record.is_some())
    }

    /// Decides which files that still belong to an old record go, and drops it.
    fn drop_files(
        &mut self,
        old: &InstalledPackage,
        owner: Owner,
        known: Option<&Decided>,
        deciding: &mut Deciding,
    ) -> Result<(), Stop> {
        for directory in &old.directories {
            let real = self.places.get(directory.path.as_str()).copied();
            let real = real.unwrap_or(&directory.path);
            let protected = self.promise.protected.is_protected(&directory.path);
            for file in &directory.files {
                if !self.owners.release(&join(real, &file.name), owner) {
                    continue;
                }
                self.modified.insert(directory.path.clone());
                if known.is_some() {
                    continue;
                }
                self.sink
                    .line(Level::Trace, &join(&directory.path, &file.name));
                let path = join(real, &file.name);
                match self.drop_file(&path, file, protected, deciding) {
                    Err(error) if is_serious(&error) => return Err(error.into()),
                    // apk ignores failures here, too.
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn drop_file(
        &self,
        path: &str,
        file: &InstalledFile,
        protected: bool,
        deciding: &mut Deciding,
    ) -> Result<(), RootError> {
        if deciding.is_cleared(path) {
            return Ok(());
        }
        let Some(stat) = self.root.stat(path)? else {
            return Ok(());
        };
        if protected {
            let path = format!("{path}.apk-new");
            if let Some(stat) = self.root.stat(&path)? {
                let seen = Seen::new(&stat);
                deciding.decided.acts.push(Act::Remove { path, seen });
            }
        }
        let modified = || {
            let present = disk_digest(self.root, path, file.digest.as_ref());
            present.ok().flatten() != file.digest
        };
        let stays = protected && !self.promise.options.purge && file.digest.is_some() && modified();
        if !stays && !deciding.kept.contains(&stat.inode) {
            let seen = Seen::new(&stat);
            let path = path.to_owned();
            deciding.decided.acts.push(Act::Remove { path, seen });
        }
        Ok(())
    }

    /// Drops the directories of an old record; those that nobody has any more go.
    fn release_directories(
        &mut self,
        old: &InstalledPackage,
        owner: Owner,
        deciding: &mut Deciding,
    ) {
        let mut unused = Vec::new();
        for directory in &old.directories {
            self.modified.insert(directory.path.clone());
            self.directory_owners.remove(&directory.path, owner);
            if let Some(count) = self.references.get_mut(&directory.path) {
                *count -= 1;
                if *count == 0 {
                    self.references.remove(&directory.path);
                    unused.push(directory.path.clone());
                }
            }
        }
        unused.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        for path in unused.iter().filter(|path| !path.is_empty()) {
            self.lost.insert(path.clone());
            self.modified.insert(path.clone());
            let mut above = Vec::new();
            let mut parent = split(path).0;
            // A parent that lost its last package earlier can go now, and one that v3 packages do not
            // list, as it was made for what is below.
            let implied = |parent| old.sha256_160 && !self.references.contains_key(parent);
            while !parent.is_empty() && (self.lost.contains(parent) || implied(parent)) {
                above.push(parent.to_owned());
                parent = split(parent).0;
            }
            if !deciding.cleared.contains(path) {
                let path = path.clone();
                let act = Act::RemoveDirectory { path, above };
                deciding.decided.acts.push(act);
            }
        }
    }

    fn remove(&mut self, index: usize, old: &InstalledPackage, owner: Owner) -> Result<(), Stop> {
        let arguments = [old.package.version.clone()];
        self.script(index, old, ScriptKind::PreDeinstall, &arguments)?;
        self.files_of(index, None, |commit, known| {
            let mut deciding = Deciding::default();
            commit.drop_files(old, owner, known, &mut deciding)?;
            commit.release_directories(old, owner, &mut deciding);
            Ok(deciding)
        })?;
        self.script(index, old, ScriptKind::PostDeinstall, &arguments)?;
        Ok(())
    }

    /// Runs the triggers.
    fn triggers(&mut self) -> Result<(), Stop> {
        let mut all = self.lost.clone();
        let overlay = self.promise.options.overlay.iter();
        all.extend(overlay.map(|path| split(path).0.to_owned()));
        let records = self.new.iter().chain(&self.old).flatten();
        all.extend(
            records
                .flat_map(|record| &record.directories)
                .map(|d| d.path.clone()),
        );
        for index in 0..self.new.len() {
            let Some(mut record) = self.new[index].take() else {
                continue;
            };
            let change = &self.promise.plan.changes[index];
            let mut owed = self.owed_to(&record).into_iter();
            let owed = owed.find(|owed| owed.is(ScriptKind::Trigger));
            let fresh = owed.is_some() || change.verb().is_some_and(changes_files);
            let globs = &record.package.triggers;
            let arguments = triggers::arguments(globs, &all, &self.modified, fresh);
            let well = match arguments {
                Some(words) => self.script(index, &record, ScriptKind::Trigger, &words)?,
                None => true,
            };
            match owed {
                _ if !well => {
                    record.broken.script = true;
                    self.errors += 1;
                }
                Some(owed) => self.settle_owed(&owed, &mut record),
                None => {}
            }
            self.new[index] = Some(record);
        }
        Ok(())
    }

    /// Writes the database as one set, and ends the transaction.
    fn write_database(mut self) -> Result<Outcome, Stop> {
        let mut packages: Vec<InstalledPackage> = self.old.drain(..).flatten().collect();
        packages.extend(self.new.iter_mut().filter_map(Option::take));
        let mut db = InstalledDb { packages };
        db.sort();
        let (root, promise) = (self.root, self.promise);
        self.owed
            .retain(|owed| db.packages.iter().any(|package| owed.is_of(package)));
        let owed = match self.owed.is_empty() && root.stat(cut::PATH)?.is_none() {
            true => None,
            false => Some(cut::text(&self.owed)),
        };
        let files = DatabaseFiles::render(root, &db, &promise.world, owed, &promise.options)
            .map_err(|error| Stop(error.to_string()))?;
        if let Some(mut journal) = self.journal.take() {
            let written = files.write_beside(root)?;
            if promise.options.sync {
                sync_file_systems(root, promise).or_else(|_| sync_file_systems(root, promise))?;
                super::database::sync(root)?;
            }
            journal.append(&Record::Errors(self.errors))?;
            journal.append_firmly(&Record::Database(written.clone()))?;
            journal.switch(root)?;
            self.progress.database = Some(written);
            self.journal = Some(journal);
        } else {
            files.write(root, promise.options.sync)?;
        }
        let mut state = JournaledHooks {
            journal: self.journal,
            programs: self.programs || !self.progress.programs.is_empty(),
            progress: self.progress,
            cut: self.cut,
        };
        finish(root, promise, &mut state, self.sink)?;
        Ok(Outcome {
            installed: db,
            errors: self.errors,
            cut: state.cut,
            programs: state.programs,
            ending: Ending::new(root)?,
        })
    }
}

/// Returns whether an act must not reach the disk before the one in front of it.
///
/// Whoever finds a name later takes its file for done, owner included. And where names change their
/// kind, a file must not come through the old link into another directory.
fn must_not_pass(act: &Act, before: &Act, reshapes: bool) -> bool {
    let owns = |act: &Act| matches!(act, Act::Own { .. });
    let places = |act: &Act| matches!(act, Act::Place { .. });
    (owns(before) && !owns(act)) || (reshapes && places(before) != places(act))
}

/// Under which name a file comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Its own.
    Place,
    /// Beside the one that was changed.
    ApkNew,
    /// Not at all.
    Keep,
}

fn has_file(package: &InstalledPackage, path: &str) -> bool {
    let (folder, name) = split(path);
    let mut directories = package.directories.iter().filter(|d| d.path == folder);
    directories.any(|directory| directory.files.iter().any(|file| file.name == name))
}

/// Returns the digest of what is on disk, by the algorithm of `like`; `None` if nothing is there.
///
/// Something that has no digest, such as a directory or a device, gets one that equals nothing.
///
/// # Errors
/// [`RootError`] if it cannot be read.
pub fn disk_digest(
    root: &Root,
    path: &str,
    like: Option<&Digest>,
) -> Result<Option<Digest>, RootError> {
    let Some(stat) = root.stat(path)? else {
        return Ok(None);
    };
    let algorithm = like.map_or(DigestAlgorithm::Sha1, Digest::algorithm);
    let (directory, name) = root.parent(path)?;
    let bytes = match stat.kind {
        FileType::Symlink => digest_of(algorithm, &mut directory.read_link(name)?.as_slice()),
        FileType::RegularFile => digest_of(algorithm, &mut directory.open_file(name)?),
        _ => Ok(Vec::new()),
    };
    let bytes = bytes.map_err(|error| RootError::new("read", path, error))?;
    Ok(Some(Digest::new(algorithm, bytes)))
}

fn digest_of(algorithm: DigestAlgorithm, source: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    fn all<D: sha1::Digest>(source: &mut dyn Read) -> std::io::Result<Vec<u8>> {
        let mut hash = D::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(hash.finalize().to_vec()),
                count => hash.update(&buffer[..count]),
            }
        }
    }
    match algorithm {
        DigestAlgorithm::Sha1 => all::<Sha1>(source),
        DigestAlgorithm::Sha512 => all::<sha2::Sha512>(source),
        DigestAlgorithm::Sha256 => all::<Sha256>(source),
        DigestAlgorithm::Sha256Truncated => {
            let mut bytes = all::<Sha256>(source)?;
            bytes.truncate(20);
            Ok(bytes)
        }
    }
}
