//! Putting staged packages in place, one after another, in the order of the plan
//! (commit.md, chapters 5 to 11).

use super::accounts::Accounts;
use super::database::DatabaseFiles;
use super::directories::Canonical;
use super::protect::ProtectedPaths;
use super::scripts::{self, Program, Surroundings};
use super::stage::{Attributes, StagedFile, StagedPackage};
use super::{
    Decision, Outcome, ScriptCall, ScriptRunner, Transaction, TransactionError, merge_broken,
    merged, triggers,
};
use crate::package::installed::Broken;
use crate::package::{
    Acl, Digest, DigestAlgorithm, InstalledDb, InstalledDirectory, InstalledFile, InstalledPackage,
    Package, ScriptKind,
};
use crate::plan::files::{Owner, Ownership, join};
use crate::plan::{Change, Source};
use crate::progress::{Event, Level, Sink, Stage as ProgressStage};
use crate::root::{Root, RootError, split};
use rustix::fs::FileType;
use sha1::Sha1;
use sha2::Sha256;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;

/// A transaction whose new files wait, verified, under temporary names.
pub struct Staged<'a> {
    transaction: Transaction<'a>,
    packages: Vec<Option<StagedPackage>>,
    decisions: Vec<Vec<Decision>>,
    owners: Ownership,
    accounts: Accounts,
    protected: ProtectedPaths,
}

impl<'a> Staged<'a> {
    pub(super) fn new(
        transaction: Transaction<'a>,
        packages: Vec<Option<StagedPackage>>,
        decisions: Vec<Vec<Decision>>,
        owners: Ownership,
        accounts: Accounts,
        protected: ProtectedPaths,
    ) -> Self {
        Self {
            transaction,
            packages,
            decisions,
            owners,
            accounts,
            protected,
        }
    }

    /// Puts everything in place, runs scripts and triggers, and writes the database.
    ///
    /// # Errors
    /// [`TransactionError::Database`] if the database cannot be written. A package that cannot be
    /// put in place completely is counted in the outcome, and marked in the database.
    pub fn commit(self, sink: &mut dyn Sink) -> Result<Outcome, TransactionError> {
        let Transaction {
            root,
            installed,
            plan,
            world,
            options,
            runner,
        } = self.transaction;
        let mut old: Vec<Option<InstalledPackage>> =
            installed.packages.into_iter().map(Some).collect();
        let positions = old.iter().enumerate().filter_map(|(at, package)| {
            package
                .as_ref()
                .map(|package| (package.package.identity, at))
        });
        let positions: HashMap<_, _> = positions.collect();
        let mut references = HashMap::new();
        let mut directory_owners = DirectoryOwners::default();
        for (at, package) in old.iter().enumerate() {
            let Some(package) = package else { continue };
            for directory in &package.directories {
                *references.entry(directory.path.clone()).or_insert(0) += 1;
                directory_owners.add(&package.package, Owner::Old(at), directory);
            }
        }
        // Directories of the overlay stay, whoever else leaves them.
        for path in &options.overlay {
            let mut directory = split(path).0;
            while !directory.is_empty() {
                *references.entry(directory.to_owned()).or_insert(0) += 1;
                directory = split(directory).0;
            }
        }
        // Where old files really are; links on the way may be gone when their turn comes.
        let mut places = Canonical::new(root);
        let leaving = plan.changes.iter().filter(|c| super::is_leaving(c));
        for change in leaving.filter_map(|change| change.old.as_ref()) {
            let package = positions
                .get(&change.identity)
                .and_then(|at| old[*at].as_ref());
            for directory in package.iter().flat_map(|package| &package.directories) {
                places.of(&directory.path);
            }
        }
        let mut commit = Commit {
            root,
            options,
            canonical: Canonical::new(root),
            places,
            owners: self.owners,
            accounts: self.accounts,
            protected: self.protected,
            references,
            directory_owners,
            leaving: plan
                .changes
                .iter()
                .filter(|change| super::is_leaving(change))
                .filter_map(|change| change.old.as_ref().map(|old| old.identity))
                .collect(),
            protected_digests: HashMap::new(),
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
            sink,
        };
        let mut new: Vec<Option<InstalledPackage>> = plan.changes.iter().map(|_| None).collect();
        let mut fresh = vec![false; plan.changes.len()];
        // Records that stay as they are: where each was, and where it is now.
        let mut kept = HashMap::new();
        let mut steps = Steps::new(&plan.changes);
        let staged = self.packages.into_iter().zip(self.decisions);
        for (index, (change, (package, decisions))) in plan.changes.iter().zip(staged).enumerate() {
            steps.announce(change, commit.sink);
            let position = change
                .old
                .as_ref()
                .and_then(|old| positions.get(&old.identity).copied());
            if let (Some(at), Some(left), Some(came)) = (position, &change.old, &change.new)
                && left.identity == came.package.identity
                && !change.reinstall
            {
                kept.insert(at, index);
            }
            let before = position.and_then(|at| old[at].take());
            new[index] = commit.change(index, change, before, position, package, decisions, &old);
            fresh[index] = change.verb().is_some_and(changes_files);
            steps.done(change, commit.sink);
        }
        super::stage::remove_private(root);
        commit.forget_taken(&kept, &mut old, &mut new);
        let (mut new, errors) = commit.triggers(&plan.changes, new, &old, &fresh);
        let mut packages: Vec<InstalledPackage> = old.into_iter().flatten().collect();
        packages.extend(new.iter_mut().filter_map(Option::take));
        let mut db = InstalledDb { packages };
        db.sort();
        let failed = |error: RootError| TransactionError::Database {
            cause: error.to_string(),
        };
        let files = DatabaseFiles::render(root, &db, world, options)?;
        if options.sync {
            // What the database will promise must be on disk before it.
            root.sync().map_err(failed)?;
        }
        files.write(root, options.sync).map_err(failed)?;
        if options.sync {
            root.sync().map_err(failed)?;
        }
        Ok(Outcome {
            installed: db,
            errors,
        })
    }
}

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

    fn announce(&mut self, change: &Change, sink: &mut dyn Sink) {
        if let Some(line) = change.line() {
            self.number += 1;
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

impl DirectoryOwners {
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

/// Gives every recorded directory the owner and mode that its package asks for.
///
/// # Errors
/// [`RootError`] for the first directory that cannot be changed.
pub fn fix_directories(
    root: &Root,
    installed: &InstalledDb,
    usermode: bool,
    sink: &mut dyn Sink,
) -> Result<(), RootError> {
    let mut owners = DirectoryOwners::default();
    for (at, package) in installed.packages.iter().enumerate() {
        for directory in &package.directories {
            owners.add(&package.package, Owner::Old(at), directory);
        }
    }
    let mut paths: Vec<&String> = owners.0.keys().filter(|path| !path.is_empty()).collect();
    paths.sort();
    for path in paths {
        let Some(acl) = owners.deciding(path).map(|owner| &owner.acl) else {
            continue;
        };
        let Some(stat) = root.stat(path)? else {
            continue;
        };
        let right = (stat.mode, stat.uid, stat.gid) == (acl.mode, acl.uid, acl.gid);
        if right || !stat.is_dir() {
            continue;
        }
        sink.line(Level::Detail, &format!("fixing directory {path}"));
        apply_acl(&root.parent(path)?.0, split(path).1, acl, usermode)?;
    }
    Ok(())
}

fn apply_acl(
    directory: &crate::root::Directory,
    name: &str,
    acl: &Acl,
    usermode: bool,
) -> Result<(), RootError> {
    if usermode {
        return directory.set_mode(name, acl.mode | 0o300);
    }
    directory.set_owner(name, acl.uid, acl.gid)?;
    directory.set_mode(name, acl.mode)
}

/// The state while packages are put in place.
struct Commit<'a, 's> {
    root: &'a Root,
    options: &'a super::Options,
    canonical: Canonical<'a>,
    places: Canonical<'a>,
    owners: Ownership,
    accounts: Accounts,
    protected: ProtectedPaths,
    /// How many packages record each directory.
    references: HashMap<String, usize>,
    directory_owners: DirectoryOwners,
    /// Packages that leave or change.
    leaving: HashSet<crate::package::Identity>,
    /// What this run recorded for files in protected directories, for packages that follow.
    protected_digests: HashMap<String, Digest>,
    /// Canonical paths that left a package which stays, and whose they were.
    taken: Vec<(Owner, String)>,
    modified: BTreeSet<String>,
    lost: BTreeSet<String>,
    around: Surroundings,
    runner: Option<&'a dyn ScriptRunner>,
    errors: u32,
    sink: &'s mut dyn Sink,
}

impl Commit<'_, '_> {
    #[expect(clippy::too_many_arguments, reason = "the two sides of one step")]
    fn change(
        &mut self,
        index: usize,
        change: &Change,
        before: Option<InstalledPackage>,
        position: Option<usize>,
        staged: Option<StagedPackage>,
        decisions: Vec<Decision>,
        others: &[Option<InstalledPackage>],
    ) -> Option<InstalledPackage> {
        let Some(new) = &change.new else {
            let before = before?;
            self.remove(&before, Owner::Old(position?));
            self.tell_of_replaced(&before.package, others);
            return None;
        };
        let Some(staged) = staged else {
            let keeps = change
                .old
                .as_ref()
                .is_some_and(|o| o.identity == new.package.identity);
            if keeps {
                let mut kept = before?;
                if !matches!(new.source, Source::Unavailable) {
                    kept.pinned_tag.clone_from(&new.tag);
                }
                return Some(kept);
            }
            // Without data there is nothing to unpack; only the record is made.
            if let (Some(before), Some(position)) = (&before, position) {
                self.drop_files(before, Owner::Old(position), &HashSet::new());
                self.release_directories(before, Owner::Old(position));
            }
            return Some(InstalledPackage {
                package: new.package.clone(),
                pinned_tag: new.tag.clone(),
                ..InstalledPackage::default()
            });
        };
        let record = self.install(
            index,
            &new.package,
            before.as_ref(),
            position,
            staged,
            decisions,
            others,
        );
        Some(InstalledPackage {
            pinned_tag: new.tag.clone(),
            ..record
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the two sides of one step")]
    fn install(
        &mut self,
        index: usize,
        package: &Package,
        before: Option<&InstalledPackage>,
        position: Option<usize>,
        staged: StagedPackage,
        decisions: Vec<Decision>,
        others: &[Option<InstalledPackage>],
    ) -> InstalledPackage {
        let owner = Owner::New(index);
        let mut record = InstalledPackage {
            package: merged(package, &staged),
            scripts: staged.control.scripts.clone(),
            ..InstalledPackage::default()
        };
        let mut arguments = vec![package.version.clone()];
        arguments.extend(before.map(|before| before.package.version.clone()));
        let (pre, post) = match before {
            None => (ScriptKind::PreInstall, ScriptKind::PostInstall),
            Some(_) => (ScriptKind::PreUpgrade, ScriptKind::PostUpgrade),
        };
        let pre_failed = !self.script(&record, pre, &arguments);
        self.directories(&staged, owner, before, &mut record);
        let mut inodes = HashSet::new();
        let mut broken = staged.broken;
        for (file, decision) in staged.files.iter().zip(&decisions) {
            match self.file(&staged, file, decision, owner, before, others, &mut inodes) {
                Ok(Some(entry)) => record.directories[file.directory].files.push(entry),
                Ok(None) => {}
                Err(error) => {
                    let text = format!("{}: failed to commit {error}", package.full_name());
                    self.sink.error(&text);
                    broken.files = true;
                }
            }
        }
        // Names that a package brings itself count for the packages after it, as with apk.
        let accounts = ["passwd", "group"];
        let mut files = staged
            .files
            .iter()
            .filter(|file| accounts.contains(&file.name.as_str()));
        if files.any(|file| staged.directories[file.directory].path == "etc") {
            self.reload_accounts();
        }
        if let (Some(before), Some(position)) = (before, position) {
            self.drop_files(before, Owner::Old(position), &inodes);
            self.release_directories(before, Owner::Old(position));
        }
        let post_failed = !self.script(&record, post, &arguments);
        let script = Broken {
            script: pre_failed || post_failed,
            ..Broken::default()
        };
        record.broken = merge_broken(broken, script);
        self.errors += u32::from(record.broken.counts());
        record
    }

    /// Runs a package script; returns whether it went well.
    fn script(
        &mut self,
        package: &InstalledPackage,
        kind: ScriptKind,
        arguments: &[String],
    ) -> bool {
        let (true, Some(text)) = (self.options.scripts, package.scripts.get(&kind)) else {
            return true;
        };
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
            return done;
        }
        let full_name = package.package.full_name();
        let (indent, prefix) = match kind {
            ScriptKind::Trigger => ("", "* "),
            _ => ("  ", "  * "),
        };
        self.sink
            .info(&format!("{indent}Executing {full_name}.{}", kind.name()));
        let program = Program {
            name: &format!("lib/apk/exec/{full_name}.{}", kind.name()),
            text: Some(text),
            arguments,
            kind: kind.name(),
            package: Some(&package.package.name),
            prefix,
        };
        let result = scripts::run(self.root, &self.around, &program, self.sink, |_| {});
        self.reload_accounts();
        match result {
            Ok(()) => true,
            Err(message) => {
                self.sink.error(&message);
                false
            }
        }
    }

    fn reload_accounts(&mut self) {
        if let Ok(accounts) = Accounts::load(self.root) {
            self.accounts = accounts;
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

    /// Records the directories of a package and makes them what they should be.
    fn directories(
        &mut self,
        staged: &StagedPackage,
        owner: Owner,
        before: Option<&InstalledPackage>,
        record: &mut InstalledPackage,
    ) {
        for directory in &staged.directories {
            let acl = self.acl(&directory.attributes);
            let path = directory.path.clone();
            let entry = InstalledDirectory {
                path: path.clone(),
                acl,
                files: Vec::new(),
            };
            let deciding = self
                .directory_owners
                .deciding(&path)
                .map(|known| known.acl.clone());
            self.directory_owners.add(&record.package, owner, &entry);
            *self.references.entry(path.clone()).or_insert(0) += 1;
            record.directories.push(entry);
            // For triggers a directory is modified when a package brings it, with or without files.
            self.modified.insert(path.clone());
            if path.is_empty() {
                continue;
            }
            if let Err(error) = self.update_directory(&path, deciding.as_ref(), before) {
                self.sink.warning(&format!(
                    "failed to update directory {path}: {}",
                    error.cause()
                ));
            }
        }
    }

    fn update_directory(
        &mut self,
        path: &str,
        previous: Option<&Acl>,
        before: Option<&InstalledPackage>,
    ) -> Result<(), RootError> {
        let wanted = self
            .directory_owners
            .deciding(path)
            .map(|known| known.acl.clone());
        let Some(wanted) = wanted else { return Ok(()) };
        let (parent, name) = split(path);
        self.root.create_directories(parent)?;
        let directory = self.root.directory(parent)?;
        let mut found = directory.stat(name)?;
        // What the old version had here as a file or link makes way (commit.md, W9).
        if found.is_some_and(|stat| !stat.is_dir()) && before.is_some_and(|old| has_file(old, path))
        {
            directory.remove_file(name)?;
            self.root.forget_directories();
            found = None;
        }
        let apply = match found {
            None => {
                directory.create_directory(name, 0o755)?;
                true
            }
            // A link to a directory, or a directory of nobody: left alone.
            Some(stat) if !stat.is_dir() => false,
            Some(stat) => previous.is_some_and(|acl| {
                // Only what the old owner asked for is changed; an administrator's choice stays.
                *acl != wanted && (stat.mode, stat.uid, stat.gid) == (acl.mode, acl.uid, acl.gid)
            }),
        };
        if apply {
            apply_acl(&directory, name, &wanted, self.options.usermode)?;
            self.modified.insert(path.to_owned());
        }
        Ok(())
    }

    /// Puts one file in place; returns what to record.
    #[expect(clippy::too_many_arguments, reason = "what decides about one file")]
    fn file(
        &mut self,
        staged: &StagedPackage,
        file: &StagedFile,
        decision: &Decision,
        owner: Owner,
        before: Option<&InstalledPackage>,
        others: &[Option<InstalledPackage>],
        inodes: &mut HashSet<(u64, u64)>,
    ) -> Result<Option<InstalledFile>, RootError> {
        let folder = &staged.directories[file.directory].path;
        let path = staged.path(file);
        let key = join(&self.canonical.of(folder), &file.name);
        if let Decision::TakeByForce(warning) = decision {
            self.sink.warning(warning);
        }
        if *decision == Decision::Leave {
            self.discard(file)?;
            return Ok(None);
        }
        let previous = self.owners.owner(&key);
        let acl = self.acl(&file.attributes);
        let entry = InstalledFile {
            name: file.name.clone(),
            acl,
            digest: file.digest.clone(),
        };
        if let Some(waiting) = &file.staged {
            self.own(waiting, file, &entry.acl)?;
            let recorded = match previous {
                Some(Owner::New(_)) => self.protected_digests.get(&key).cloned(),
                _ => recorded_digest(previous, folder, &file.name, before, others),
            };
            if previous == Some(Owner::Overlay) {
                self.discard(file)?;
            } else {
                self.place(waiting, &path, folder, &entry, recorded, before)?;
            }
            self.modified.insert(folder.clone());
            if before.is_some()
                && let Some(stat) = self.root.stat(&path)?
            {
                inodes.insert(stat.inode);
            }
        }
        if self.protected.is_protected(folder)
            && let Some(digest) = &entry.digest
        {
            self.protected_digests.insert(key.clone(), digest.clone());
        }
        if let Some(previous) = previous.filter(|previous| *previous != owner) {
            self.taken.push((previous, key.clone()));
        }
        self.owners.take(key, owner);
        Ok(Some(entry))
    }

    /// Removes files from the records of the packages that they were taken from.
    fn forget_taken(
        &mut self,
        kept: &HashMap<usize, usize>,
        old: &mut [Option<InstalledPackage>],
        new: &mut [Option<InstalledPackage>],
    ) {
        for (owner, key) in std::mem::take(&mut self.taken) {
            let record = match owner {
                Owner::Old(at) => match kept.get(&at) {
                    Some(index) => new.get_mut(*index),
                    None => old.get_mut(at),
                },
                Owner::New(at) => new.get_mut(at),
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

    fn discard(&self, file: &StagedFile) -> Result<(), RootError> {
        if let Some(waiting) = &file.staged {
            let (directory, name) = self.root.parent(waiting)?;
            directory.remove_file(name)?;
        }
        Ok(())
    }

    /// Gives a waiting file its owner if a script or a new `etc/passwd` changed the numbers.
    fn own(&self, waiting: &str, file: &StagedFile, acl: &Acl) -> Result<(), RootError> {
        if self.options.usermode || file.ids == (acl.uid, acl.gid) {
            return Ok(());
        }
        let (directory, name) = self.root.parent(waiting)?;
        directory.set_owner(name, acl.uid, acl.gid)?;
        if !file.is_link && acl.mode & 0o7000 != 0 {
            directory.set_mode(name, acl.mode)?;
        }
        Ok(())
    }

    /// Renames a waiting file to its final name, or beside it if the one there was changed.
    fn place(
        &mut self,
        waiting: &str,
        path: &str,
        folder: &str,
        entry: &InstalledFile,
        recorded: Option<Digest>,
        before: Option<&InstalledPackage>,
    ) -> Result<(), RootError> {
        let (from, temporary) = self.root.parent(waiting)?;
        let (to, name) = self.root.parent(path)?;
        if self.protected.is_protected(folder)
            && let Some(present) = disk_digest(self.root, path, recorded.as_ref())?
            && recorded.as_ref() != Some(&present)
        {
            let same = match &entry.digest {
                Some(new) => disk_digest(self.root, path, Some(new))?.as_ref() == Some(new),
                None => false,
            };
            if same || self.options.clean_protected {
                return from.remove_file(temporary);
            }
            self.sink
                .info(&format!("  Installing file to {path}.apk-new"));
            return from.rename_to(temporary, &to, &format!("{name}.apk-new"));
        }
        match from.rename_to(temporary, &to, name) {
            Err(error) if error.source.kind() == std::io::ErrorKind::IsADirectory => {
                // The old version had a directory here; its files go first (commit.md, W9).
                let emptied = before.is_some_and(|old| self.empty_directory(old, path));
                if !emptied {
                    let _ = from.remove_file(temporary);
                    return Err(error);
                }
                from.rename_to(temporary, &to, name)
            }
            other => other,
        }
    }

    /// Removes a directory that held only files of the old version; returns whether it is gone.
    fn empty_directory(&mut self, old: &InstalledPackage, path: &str) -> bool {
        let below = format!("{path}/");
        let inside = |directory: &&InstalledDirectory| {
            directory.path == path || directory.path.starts_with(&below)
        };
        let mut directories: Vec<_> = old.directories.iter().filter(inside).collect();
        directories.sort_by_key(|directory| std::cmp::Reverse(directory.path.len()));
        for directory in directories {
            let Ok(open) = self.root.directory(&directory.path) else {
                continue;
            };
            for file in &directory.files {
                let _ = open.remove_file(&file.name);
            }
            drop(open);
            let Ok((parent, name)) = self.root.parent(&directory.path) else {
                continue;
            };
            parent.remove_directory(name);
        }
        self.root.forget_directories();
        matches!(self.root.stat(path), Ok(None))
    }

    /// Deletes the files that still belong to an old record.
    fn drop_files(&mut self, old: &InstalledPackage, owner: Owner, inodes: &HashSet<(u64, u64)>) {
        for directory in &old.directories {
            let real = self.places.of(&directory.path);
            let protected = self.protected.is_protected(&directory.path);
            for file in &directory.files {
                if !self.owners.release(&join(&real, &file.name), owner) {
                    continue;
                }
                self.modified.insert(directory.path.clone());
                self.sink
                    .line(Level::Trace, &join(&directory.path, &file.name));
                self.drop_file(&real, file, protected, inodes);
            }
        }
    }

    fn drop_file(
        &self,
        folder: &str,
        file: &InstalledFile,
        protected: bool,
        inodes: &HashSet<(u64, u64)>,
    ) {
        let path = join(folder, &file.name);
        let Ok((directory, name)) = self.root.parent(&path) else {
            return;
        };
        let Ok(Some(stat)) = directory.stat(name) else {
            return;
        };
        if protected {
            let _ = directory.remove_file(&format!("{name}.apk-new"));
        }
        let moved = inodes.contains(&stat.inode);
        let modified = protected
            && !self.options.purge
            && file.digest.is_some()
            && disk_digest(self.root, &path, file.digest.as_ref())
                .ok()
                .flatten()
                != file.digest;
        if !moved && !modified {
            // apk ignores failures here, too: the record is gone, `audit --full` shows the rest.
            let _ = directory.remove_file(name);
        }
    }

    /// Drops the directories of an old record, and removes those that nobody has any more.
    fn release_directories(&mut self, old: &InstalledPackage, owner: Owner) {
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
            let mut path = path.as_str();
            while let Ok((parent, name)) = self.root.parent(path)
                && parent.has_directory(name)
                && parent.remove_directory(name)
            {
                self.root.forget_directories();
                let (above, _) = split(path);
                // A parent that lost its last package earlier can go now.
                if above.is_empty() || !self.lost.contains(above) {
                    break;
                }
                path = above;
            }
        }
    }

    fn remove(&mut self, old: &InstalledPackage, owner: Owner) {
        let arguments = [old.package.version.clone()];
        self.script(old, ScriptKind::PreDeinstall, &arguments);
        self.drop_files(old, owner, &HashSet::new());
        self.release_directories(old, owner);
        self.script(old, ScriptKind::PostDeinstall, &arguments);
    }

    /// Tells of packages whose files the removed one may have had: the database knows only the
    /// last owner of a path, so nobody gets them back (commit.md, W10).
    fn tell_of_replaced(&mut self, gone: &Package, others: &[Option<InstalledPackage>]) {
        for other in others.iter().flatten().map(|other| &other.package) {
            let replaces = |entry: &crate::package::Dependency| {
                entry.name == other.name && entry.accepts(&other.version, other.identity)
            };
            let stays = other.name != gone.name && !self.leaving.contains(&other.identity);
            if stays && gone.replaces.iter().any(replaces) {
                self.sink.warning(&format!(
                    "{} may have had files of {}, which stays: ibex fix --reinstall {}",
                    gone.full_name(),
                    other.full_name(),
                    other.name
                ));
            }
        }
    }

    /// Runs the triggers; returns the records and the number of failed steps.
    fn triggers(
        mut self,
        changes: &[Change],
        mut new: Vec<Option<InstalledPackage>>,
        old: &[Option<InstalledPackage>],
        fresh: &[bool],
    ) -> (Vec<Option<InstalledPackage>>, u32) {
        let mut all = self.lost.clone();
        let overlay = self.options.overlay.iter();
        all.extend(overlay.map(|path| split(path).0.to_owned()));
        let records = new.iter().chain(old).flatten();
        all.extend(
            records
                .flat_map(|record| &record.directories)
                .map(|d| d.path.clone()),
        );
        debug_assert_eq!(changes.len(), new.len());
        for (record, fresh) in new.iter_mut().zip(fresh) {
            let Some(record) = record else { continue };
            let globs = &record.package.triggers;
            let Some(arguments) = triggers::arguments(globs, &all, &self.modified, *fresh) else {
                continue;
            };
            if !self.script(record, ScriptKind::Trigger, &arguments) {
                record.broken.script = true;
                self.errors += 1;
            }
        }
        (new, self.errors)
    }
}

fn has_file(package: &InstalledPackage, path: &str) -> bool {
    let (folder, name) = split(path);
    let mut directories = package.directories.iter().filter(|d| d.path == folder);
    directories.any(|directory| directory.files.iter().any(|file| file.name == name))
}

/// Returns the digest recorded for a path by its present owner.
fn recorded_digest(
    owner: Option<Owner>,
    folder: &str,
    name: &str,
    before: Option<&InstalledPackage>,
    others: &[Option<InstalledPackage>],
) -> Option<Digest> {
    let record = match owner? {
        // The old version's own record was taken out of the list.
        Owner::Old(at) => others.get(at).and_then(Option::as_ref).or(before)?,
        Owner::New(_) | Owner::Overlay => return None,
    };
    let mut directories = record.directories.iter().filter(|d| d.path == folder);
    directories
        .find_map(|d| d.files.iter().find(|file| file.name == name))
        .and_then(|file| file.digest.clone())
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
