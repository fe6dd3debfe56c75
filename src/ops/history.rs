//! The history of a root, and the way back: list, show, undo, roll back.
//!
//! What happened is recorded by `Recorder` around each transaction. Going back is a change like
//! any other: the packages of the earlier time are pinned by identity, the solver orders them, and
//! the earlier world is stored. Packages come from what the root kept, else from the repositories.

use super::Error;
use super::change::{ChangeOptions, Report};
use super::database::{Database, open_root};
use crate::config::Settings;
use crate::config::repositories::masked;
use crate::history::{
    Changed, ChangedFile, Entry, History, HistoryError, Member, NewEntry, Now, Outcome, PATH,
    Watch, WrittenFile,
};
use crate::package::{Dependency, Identity, Operator, World};
use crate::plan::{Plan, Verb};
use crate::progress::Sink;
use crate::root::Root;
use crate::transaction;
use crate::transaction::kept::{self, KeptPackage};
use crate::transaction::{DatabaseText, Outcome as Committed, Recovery, TransactionError};
use std::collections::{BTreeMap, HashSet, btree_map};

/// How many of the newest transactions can be undone from kept packages, unless said otherwise.
pub const KEEP: u32 = 10;

/// To which time to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As if one transaction had not been; `None` is the newest.
    Without(Option<i64>),
    /// As it was right after a transaction; 0 is before the first one.
    After(i64),
}

/// Returns all transactions of a root, the newest first.
///
/// # Errors
/// [`Error::Root`] or [`Error::History`].
pub fn list(settings: &Settings) -> Result<Vec<Entry>, Error> {
    let root = open_root(&settings.root, false)?;
    Ok(match read(&root)? {
        Some(history) => history.entries().map_err(wrong)?,
        None => Vec::new(),
    })
}

/// Returns one transaction of a root.
///
/// # Errors
/// [`Error::Arguments`] if there is no such transaction.
pub fn show(settings: &Settings, id: i64) -> Result<Entry, Error> {
    let root = open_root(&settings.root, false)?;
    entry(read(&root)?.as_ref(), id)
}

fn read(root: &Root) -> Result<Option<History>, Error> {
    History::read(root).map_err(wrong)
}

fn wrong(error: HistoryError) -> Error {
    Error::History {
        cause: error.to_string(),
    }
}

fn refused(lines: Vec<String>) -> Error {
    Error::Arguments { lines, code: 1 }
}

fn entry(history: Option<&History>, id: i64) -> Result<Entry, Error> {
    let found = history.map(|history| history.entry(id)).transpose();
    found.map_err(wrong)?.flatten().ok_or_else(|| {
        refused(vec![format!(
            "there is no transaction {id}; `history` lists them"
        )])
    })
}

/// Returns the changes of a plan as the history keeps them.
pub(super) fn changed(plan: &Plan) -> Vec<Changed> {
    let changes = plan.changes.iter().filter_map(|change| {
        let verb = match change.verb()? {
            Verb::Installing => "install",
            Verb::Purging => "remove",
            Verb::Upgrading => "upgrade",
            Verb::Downgrading => "downgrade",
            Verb::Replacing => "replace",
            Verb::Reinstalling => "reinstall",
            Verb::SkippedReinstalling => return None,
            Verb::UpdatingPinning => "pin",
        };
        Some(Changed {
            verb: verb.to_owned(),
            old: change.old.as_ref().map(|old| Member {
                identity: old.identity,
                name: old.name.clone(),
                version: old.version.clone(),
                tag: old.tag.clone(),
            }),
            new: change
                .new
                .as_ref()
                .map(|new| Member::of(&new.package, new.tag.as_deref())),
        })
    });
    changes.collect()
}

/// Records one transaction. What fails here is told and forgotten: a root without history works.
pub(super) struct Recorder {
    open: Option<(History, i64, Watch)>,
    keep: u32,
    /// Packages that were kept for this transaction.
    kept: Vec<Identity>,
    /// Files that the transaction writes itself.
    written: Vec<WrittenFile>,
}

impl Recorder {
    /// Enters a transaction, and keeps the packages that it will drop or replace.
    ///
    /// `files` are those that it will write, by path.
    pub(super) fn begin(
        database: &Database,
        options: &ChangeOptions,
        plan: &Plan,
        world: &World,
        files: &[(String, Vec<u8>)],
        sync: bool,
        sink: &mut dyn Sink,
    ) -> Self {
        let nothing = Self {
            open: None,
            keep: 0,
            kept: Vec::new(),
            written: Vec::new(),
        };
        let changes = changed(plan);
        let Some(keep) = options.history else {
            return nothing;
        };
        if changes.is_empty() && *world == database.world && files.is_empty() {
            return nothing;
        }
        let written = files.iter().map(|(path, after)| WrittenFile {
            path: path.clone(),
            // One that cannot be read now cannot be put back.
            before: database.root.read(path).ok().flatten(),
            after: after.clone(),
        });
        let written: Vec<WrittenFile> = written.collect();
        let is_secret = |file: &WrittenFile| {
            let stat = database.root.stat(&file.path).ok().flatten();
            stat.is_some_and(|stat| stat.mode & 0o004 == 0)
        };
        let words = command(&options.command_line);
        let new = NewEntry {
            command: words,
            world_before: &database.world,
            world_after: world,
            changes,
            time: jiff::Timestamp::now().as_second(),
            written_files: &written,
        };
        let entered = History::open(&database.root, sync).and_then(|mut history| {
            if written.iter().any(is_secret) {
                History::make_private(&database.root)?;
            }
            let now = Now {
                installed: &database.installed,
                world: &database.world,
                finished: None,
            };
            let entered = history.settle(&now).and_then(|()| history.begin(&new));
            match entered {
                Ok(id) => {
                    database.root.note_written(PATH);
                    Ok((history, id))
                }
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = history.remove_if_new(&database.root);
                    Err(error)
                }
            }
        });
        let (history, id) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                sink.warning(&format!("this transaction is not recorded: {error}"));
                return nothing;
            }
        };
        let mut kept = Vec::new();
        // Kept files would still take their space, and nothing else would come of it.
        let removes = || new.changes.iter().all(|change| change.new.is_none());
        if keep > 0 && removes() && transaction::is_tight(&database.root) {
            sink.warning("the disk is nearly full: what is removed is not kept for `undo`");
        } else if keep > 0 {
            for old in leaving(&new.changes) {
                let Some(package) = database.installed.by_identity(old.identity) else {
                    continue;
                };
                match kept::keep(&database.root, package) {
                    Ok(()) => kept.push(old.identity),
                    Err(error) => sink.warning(&format!(
                        "{} is not kept for `undo`: {error}",
                        old.full_name()
                    )),
                }
            }
        }
        let watch = Watch::look(&database.root);
        Self {
            open: Some((history, id, watch)),
            keep,
            kept,
            written,
        }
    }

    /// Returns what the journal keeps of the entry, so that recovery knows it.
    pub(super) fn note(&self) -> Vec<u8> {
        let id = self.open.as_ref().map(|(_, id, _)| id.to_string());
        id.unwrap_or_default().into_bytes()
    }

    /// Completes the entry, and lets go of what need not be kept any longer.
    pub(super) fn end(
        &mut self,
        database: &Database,
        result: &Result<Committed, TransactionError>,
        sink: &mut dyn Sink,
    ) {
        let Some((mut history, id, watch)) = self.open.take() else {
            return;
        };
        let written = match result {
            Ok(outcome) => {
                let (before, after) = (&database.installed, &outcome.installed);
                // Only programs change files besides those of packages.
                let files = match outcome.programs {
                    true => watch.changed(&database.root, before, after, &self.written),
                    false => Vec::new(),
                };
                let word = match outcome.errors {
                    0 => Outcome::Done,
                    _ => Outcome::Errors,
                };
                let done = history.finish(id, word, outcome.errors, &outcome.installed, &files);
                database.root.note_written(PATH);
                done.and_then(|()| self.let_go(database, &history, outcome))
            }
            Err(
                TransactionError::Refused { .. }
                | TransactionError::Root(_)
                | TransactionError::Hook { .. }
                | TransactionError::Signal(_),
            ) => {
                // The entry goes last: while it is open, recovery removes what was kept for it.
                let mut kept = self.kept.iter();
                let dropped = kept::remove_unfinished(&database.root)
                    .and_then(|()| kept.try_for_each(|id| kept::remove(&database.root, *id)));
                let discarded = dropped
                    .map_err(HistoryError::from)
                    .and_then(|()| history.discard(id));
                database.root.note_written(PATH);
                discarded.and_then(|()| history.remove_if_new(&database.root))
            }
            // It stays open: the next command sees what became of it.
            Err(_) => Ok(()),
        };
        if let Err(error) = written {
            sink.warning(&format!("the history is incomplete: {error}"));
        }
    }

    fn let_go(
        &self,
        database: &Database,
        history: &History,
        outcome: &Committed,
    ) -> Result<(), HistoryError> {
        let wanted: HashSet<Identity> = history.recently_left(self.keep)?.into_iter().collect();
        kept::remove_unfinished(&database.root)?;
        for identity in kept::list(&database.root)? {
            let is_back = outcome.installed.by_identity(identity).is_some();
            if is_back || !wanted.contains(&identity) {
                kept::remove(&database.root, identity)?;
            }
        }
        Ok(())
    }
}

/// Completes the entry of a transaction that recovery finished, and deletes those of transactions
/// that never happened.
pub(super) fn settle(root: &Root, recovery: &Recovery, sink: &mut dyn Sink) {
    let (note, word, errors) = match recovery {
        Recovery::Cleaned(_) => (None, Outcome::Recovered, 0),
        Recovery::Finished { outcome, note } => (Some(note), Outcome::Recovered, outcome.errors),
        Recovery::GivenUp { note, .. } => (Some(note), Outcome::Interrupted, 0),
    };
    let id = note.and_then(|note| std::str::from_utf8(note).ok()?.parse().ok());
    let finished = id.map(|id| (id, word, errors));
    let settled = || -> Result<(), HistoryError> {
        match History::read(root)? {
            Some(history) if history.has_open()? => {}
            _ => return Ok(()),
        }
        let text = DatabaseText::read(root, false)?;
        // A database that cannot be read is told by whoever needs it; then nothing is settled.
        let Ok(installed) = text.installed(true) else {
            return Ok(());
        };
        let world = String::from_utf8(text.world.unwrap_or_default()).unwrap_or_default();
        let world = World::parse(&world).unwrap_or_default();
        History::open(root, true)?.settle(&Now {
            installed: &installed,
            world: &world,
            finished,
        })?;
        root.note_written(PATH);
        // What was kept for a transaction that did not happen is installed as before.
        kept::remove_unfinished(root)?;
        for identity in kept::list(root)? {
            if installed.by_identity(identity).is_some() {
                kept::remove(root, identity)?;
            }
        }
        Ok(())
    };
    if let Err(error) = settled() {
        sink.warning(&format!("the history is incomplete: {error}"));
    }
}

/// Returns a command line as it is recorded: the program by its name alone, passwords masked.
fn command(words: &[String]) -> String {
    let program = words
        .first()
        .map(|path| path.rsplit('/').next().unwrap_or(path));
    let rest = words.iter().skip(1).map(|word| masked(word));
    let words: Vec<String> = program.map(str::to_owned).into_iter().chain(rest).collect();
    words.join(" ")
}

/// Returns the packages that will not be installed any more in this build.
fn leaving(changes: &[Changed]) -> impl Iterator<Item = &Member> {
    changes.iter().filter_map(|change| {
        let old = change.old.as_ref()?;
        let stays = change
            .new
            .as_ref()
            .is_some_and(|new| new.identity == old.identity);
        (!stays).then_some(old)
    })
}

/// The state to return to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// All packages.
    members: Vec<Member>,
    /// The world to store.
    pub(super) world: World,
    /// Files that scripts changed in the transactions that are taken back.
    pub(super) left: Vec<ChangedFile>,
}

impl Target {
    /// Returns whether a package belongs to the state.
    pub(super) fn has(&self, identity: Identity) -> bool {
        self.members
            .iter()
            .any(|member| member.identity == identity)
    }

    /// Returns a world that only these packages satisfy.
    pub(super) fn pins(&self) -> World {
        let pin = |member: &Member| Dependency {
            operator: Operator::CHECKSUM,
            version: member.identity.to_q1(),
            tag: member.tag.clone(),
            ..Dependency::any(&member.name)
        };
        World {
            entries: self.members.iter().map(pin).collect(),
        }
    }
}

/// Finds the state to return to.
pub(super) fn target(database: &Database, moment: Moment) -> Result<Target, Error> {
    let history = read(&database.root)?;
    let nothing = || refused(vec!["there is no transaction to undo".to_owned()]);
    let history = history.ok_or_else(nothing)?;
    let entries = history.entries().map_err(wrong)?;
    let finished = |entry: &&Entry| entry.outcome != Outcome::Started;
    match moment {
        Moment::Without(id) => {
            let entry = match id {
                Some(id) => entry(Some(&history), id)?,
                None => entries.iter().find(finished).cloned().ok_or_else(nothing)?,
            };
            without(database, &entry, &entries)
        }
        Moment::After(0) => {
            let first = entries.iter().rfind(finished).ok_or_else(nothing)?;
            let members = history.members(first.id).map_err(wrong)?;
            Ok(Target {
                members: first.before(members),
                world: parse_world(first.world_before.iter())?,
                left: changed_files(entries.iter()),
            })
        }
        Moment::After(id) => {
            let kept = entry(Some(&history), id)?;
            Ok(Target {
                members: history.members(id).map_err(wrong)?,
                world: parse_world(kept.world_after.iter())?,
                left: changed_files(entries.iter().filter(|entry| entry.id > id)),
            })
        }
    }
}

/// What becomes of the files that transactions wrote themselves when these are taken back.
#[derive(Clone, Debug, Default)]
pub(super) struct FilesBack {
    /// Files to write, by path.
    pub(super) texts: Vec<(String, String)>,
    /// Files that are not as the transaction left them: they stay as they are.
    pub(super) changed_since: Vec<String>,
}

/// Returns which files that transactions wrote themselves come back, and how.
///
/// # Errors
/// [`enum@Error`] if the history or a file cannot be read.
pub(super) fn files_back(root: &Root, moment: Moment) -> Result<FilesBack, Error> {
    let mut back = FilesBack::default();
    let Some(history) = read(root)? else {
        return Ok(back);
    };
    let mut entries = history.entries().map_err(wrong)?;
    entries.retain(|entry| entry.outcome != Outcome::Started);
    match moment {
        Moment::Without(Some(id)) => entries.retain(|entry| entry.id == id),
        Moment::Without(None) => entries.truncate(1),
        Moment::After(id) => entries.retain(|entry| entry.id > id),
    }
    let mut states: BTreeMap<&str, (Option<Vec<u8>>, bool)> = BTreeMap::new();
    for file in entries.iter().flat_map(|entry| &entry.written_files) {
        let (present, stays) = match states.entry(&file.path) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let present = root.read(&file.path).map_err(|error| Error::Database {
                    cause: error.cause(),
                })?;
                // A link that somebody made of it since would be lost.
                let stat = root.stat(&file.path).ok().flatten();
                let is_link = stat.is_some_and(|stat| stat.kind == rustix::fs::FileType::Symlink);
                new.insert((present, is_link))
            }
        };
        if *stays || *present == file.before {
            continue;
        }
        match (present.as_ref() == Some(&file.after), &file.before) {
            (true, Some(before)) => *present = Some(before.clone()),
            _ => *stays = true,
        }
    }
    for (path, (text, stays)) in states {
        let text = text.map(String::from_utf8);
        match text {
            Some(Ok(text)) if !stays => back.texts.push((path.to_owned(), text)),
            _ => back.changed_since.push(path.to_owned()),
        }
    }
    // What is there already needs no writing.
    let is_new = |(path, text): &(String, String)| {
        root.read(path).ok().flatten().as_deref() != Some(text.as_bytes())
    };
    back.texts.retain(is_new);
    Ok(back)
}

/// Takes one transaction back from the present state.
fn without(database: &Database, entry: &Entry, entries: &[Entry]) -> Result<Target, Error> {
    let installed = database.installed.packages.iter();
    let mut members: Vec<Member> = installed
        .map(|package| Member::of(&package.package, package.pinned_tag.as_deref()))
        .collect();
    let mut conflicts = Vec::new();
    for change in &entry.changes {
        let name = match (&change.new, &change.old) {
            (Some(member), _) | (None, Some(member)) => &member.name,
            (None, None) => continue,
        };
        let present = members.iter().position(|member| member.name == *name);
        let found = present.map(|at| members[at].identity);
        let of = |side: &Option<Member>| side.as_ref().map(|member| member.identity);
        if found == of(&change.old) && found != of(&change.new) {
            // Something else took it back already.
            continue;
        }
        if found != of(&change.new) {
            let since = entries.iter().find(|later| {
                let mut changes = later.changes.iter();
                let touches =
                    |side: &Option<Member>| side.as_ref().is_some_and(|m| m.name == *name);
                later.id > entry.id && changes.any(|c| touches(&c.old) || touches(&c.new))
            });
            let by = since.map_or_else(
                || "another program changed it since".to_owned(),
                |later| format!("transaction {} changed it since", later.id),
            );
            let state = present.map_or_else(
                || format!("{name} is not installed now"),
                |at| format!("{} is installed now", members[at].full_name()),
            );
            conflicts.push(format!("  {state}: {by}"));
            continue;
        }
        if let Some(at) = present {
            members.swap_remove(at);
        }
        members.extend(change.old.clone());
    }
    if !conflicts.is_empty() {
        let mut lines = vec![format!("transaction {} cannot be undone alone:", entry.id)];
        lines.extend(conflicts);
        lines.push(format!(
            "the root is unchanged; `rollback {}` takes back everything since",
            entry.id - 1
        ));
        return Err(refused(lines));
    }
    let present = database.world.entries.iter().map(ToString::to_string);
    let mut words: Vec<String> = present
        .filter(|word| !entry.world_after.contains(word) || entry.world_before.contains(word))
        .collect();
    let back = entry.world_before.iter();
    words.extend(
        back.filter(|word| !entry.world_after.contains(word))
            .cloned(),
    );
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Target {
        members,
        world: parse_world(words.iter())?,
        left: entry.changed_files.clone(),
    })
}

fn parse_world<'a>(words: impl Iterator<Item = &'a String>) -> Result<World, Error> {
    let text: Vec<&str> = words.map(String::as_str).collect();
    let mut world = World::parse(&text.join(" ")).map_err(|(word, _)| Error::History {
        cause: format!("the recorded world has the entry '{word}', which cannot be read"),
    })?;
    world.sort();
    world.entries.dedup();
    Ok(world)
}

/// Returns the files of several transactions, each once.
fn changed_files<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<ChangedFile> {
    let mut files: Vec<ChangedFile> = entries
        .flat_map(|entry| entry.changed_files.clone())
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    files
}

/// Returns the kept packages that must come back.
///
/// `available` says whether a repository has a package.
pub(super) fn packages_back(
    database: &Database,
    target: &Target,
    available: impl Fn(Identity) -> bool,
) -> Result<Vec<KeptPackage>, Error> {
    let (mut back, mut lost) = (Vec::new(), Vec::new());
    for member in &target.members {
        if database.installed.by_identity(member.identity).is_some() {
            continue;
        }
        let found =
            kept::find(&database.root, member.identity).map_err(|error| Error::History {
                cause: error.to_string(),
            })?;
        match found {
            Some(kept) => back.push(kept),
            None if available(member.identity) => {}
            None => lost.push(format!("  {}", member.full_name())),
        }
    }
    if lost.is_empty() {
        return Ok(back);
    }
    lost.insert(
        0,
        "packages that are neither kept nor in a repository any more:".to_owned(),
    );
    lost.push("the root is unchanged; add a repository that has them".to_owned());
    Err(refused(lost))
}

/// Returns the lines that a transaction took out of a file and put into it, with a sign before them
/// and passwords masked.
pub fn written_lines(file: &WrittenFile) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (before, after) = (
        text(file.before.as_deref().unwrap_or_default()),
        text(&file.after),
    );
    let only = |sign: char, of: &str, other: &str| -> Vec<String> {
        let known: HashSet<&str> = other.lines().collect();
        let lines = of.lines().filter(|line| !known.contains(line));
        let words = |line: &str| line.split(' ').map(masked).collect::<Vec<_>>().join(" ");
        lines
            .map(|line| format!("{sign} {}", words(line)))
            .collect()
    };
    let mut lines = only('-', &before, &after);
    lines.extend(only('+', &after, &before));
    lines
}

/// Says what going back does not bring back.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if !report.left_as_they_are.is_empty() {
        lines.push("Scripts changed these files; they stay as they are:".to_owned());
        let files = report.left_as_they_are.iter();
        lines.extend(files.map(|file| format!("  {} ({})", file.path, file.change.as_str())));
    }
    if !report.changed_since.is_empty() {
        lines.push("These files were changed since; they stay as they are:".to_owned());
        let paths = report.changed_since.iter();
        lines.extend(paths.map(|path| format!("  {path}")));
    }
    if !report.changed_in_place.is_empty() {
        lines.push("These files had been changed in place before they left:".to_owned());
        lines.extend(
            report
                .changed_in_place
                .iter()
                .map(|path| format!("  {path}")),
        );
    }
    lines
}
