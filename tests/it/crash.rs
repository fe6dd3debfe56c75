//! A change that is stopped anywhere leaves the old root or the new one.
//!
//! Every scenario is run once undisturbed and counted. Then, for every operation that changes the
//! root, it is run again on a copy and stopped there: by SIGKILL, by an error of the disk, or by a
//! power cut that throws away what was not flushed. After `ibex recover` the whole root is compared:
//! names, types, modes, owners, times, extended attributes, hard links, contents, the database.
//!
//! Each point gets one kind of error and two kinds of power cut, in turns; of the real branch change
//! a sample is tried. `IBEX_CRASH_ALL=1` tries everything everywhere.
//!
//! A script that was stopped in the middle may have done a part of its work. Such a root is accepted
//! only if recovery names the script, nothing but what scripts wrote is different, and the command
//! that recovery names makes it the new state.

use crate::support::repository::{self, Made, Repository, directory, file, hard_link, symlink};
use crate::support::{self, Run, Sandbox, run};
use ibex::format::package_writer::{EntryContent, EntrySpec};
use ibex::package::ScriptKind;
use ibex::root::fault::{self, Operation};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A root and a command that changes it.
struct Scenario {
    name: &'static str,
    /// Holds the root as it was before, and the repositories.
    sandbox: Sandbox,
    /// Options that every command has.
    base: Vec<String>,
    arguments: Vec<String>,
    standard_input: Option<&'static str>,
    before: Snapshot,
    after: Snapshot,
    after_code: i32,
    /// How many transactions the history has before; none if there is no history.
    recorded: Option<usize>,
    how: How,
}

/// On what the command runs.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    /// The root belongs to an ordinary user, who runs it.
    user: bool,
    /// `usr` is a file system of its own.
    mounted: bool,
}

/// A root, which may be spread over two file systems.
#[derive(Clone, Debug)]
struct Place {
    root: PathBuf,
    usr: Option<PathBuf>,
}

type Snapshot = BTreeMap<String, String>;

/// What a run on a copy of the root left.
struct Trial {
    directory: tempfile::TempDir,
    usr: Option<tempfile::TempDir>,
    run: Run,
}

impl Trial {
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn place(&self) -> Place {
        Place {
            root: self.root(),
            usr: self.usr.as_ref().map(|usr| usr.path().join("usr")),
        }
    }
}

impl Scenario {
    /// Runs the command once without disturbing it.
    fn new(name: &'static str, sandbox: Sandbox, base: Vec<String>, command: &[&str]) -> Self {
        Self::with_input(name, sandbox, base, command, None)
    }

    fn with_input(
        name: &'static str,
        sandbox: Sandbox,
        base: Vec<String>,
        command: &[&str],
        standard_input: Option<&'static str>,
    ) -> Self {
        let mut scenario = Self::prepare(name, sandbox, base, command, How::default());
        scenario.standard_input = standard_input;
        scenario.finished()
    }

    fn prepare(
        name: &'static str,
        sandbox: Sandbox,
        base: Vec<String>,
        command: &[&str],
        how: How,
    ) -> Self {
        if how.user {
            support::copy_program(&sandbox.beside("ibex"));
            give_to_user(&sandbox.beside(""));
        }
        let has_history = !base.iter().any(|word| word == "--history=no");
        Self {
            name,
            before: snapshot(&whole(sandbox.root())),
            recorded: has_history.then(|| recorded(&sandbox.root()).len()),
            sandbox,
            arguments: words(&base, command)
                .iter()
                .map(|word| (*word).to_owned())
                .collect(),
            base,
            standard_input: None,
            after: Snapshot::new(),
            after_code: 0,
            how,
        }
    }

    /// Runs the command once without disturbing it.
    fn finished(self) -> Self {
        let mut scenario = self;
        let name = scenario.name;
        let trial = scenario.run("", &[]);
        scenario.after = snapshot(&trial.place());
        scenario.after_code = trial.run.code;
        assert_eq!(trial.run.code, 0, "{name}: {}", trial.run.output);
        assert_ne!(scenario.before, scenario.after, "{name} changes nothing");
        let leftover = scenario.after.keys().find(|path| {
            [".apk.", ".journal", ".switch", ".staged", ".new"]
                .iter()
                .any(|word| path.starts_with("lib/apk/db") && path.contains(word))
        });
        assert_eq!(leftover, None, "{name}");
        scenario
            .judge_history(&trial.place(), State::After, "")
            .expect(name);
        scenario
    }

    /// Copies the root and runs the command on the copy.
    fn run(&self, fault: &str, more: &[&str]) -> Trial {
        let directory = scratch();
        let root = directory.path().join("root");
        copy(&self.sandbox.root(), &root);
        let usr = self.how.mounted.then(|| {
            let usr = tempfile::tempdir().expect("a temporary directory");
            copy(&root.join("usr"), &usr.path().join("usr"));
            fs::remove_dir_all(root.join("usr")).expect("a copy");
            fs::create_dir(root.join("usr")).expect("a copy");
            usr
        });
        if self.how.user {
            give_to_user(directory.path());
        }
        let words: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut trial = Trial {
            directory,
            usr,
            run: Run {
                output: String::new(),
                code: 0,
            },
        };
        trial.run = self.ibex(&trial.place(), fault, &[more, &words].concat());
        trial
    }

    /// Runs a command on a root, as this scenario does.
    fn ibex(&self, place: &Place, fault: &str, words: &[&str]) -> Run {
        let program = support::ibex();
        let mut command: Vec<OsString> = Vec::new();
        if let Some(usr) = &place.usr {
            let script = "mount --bind \"$0\" \"$1/usr\" && shift && exec \"$@\"";
            let words = ["unshare", "--mount", "sh", "-c", script];
            command.extend(words.map(OsString::from));
            command.extend([usr.into(), place.root.as_os_str().to_owned()]);
        }
        let input = self.standard_input.map(|text| {
            let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
            file.write_all(text.as_bytes()).expect("a temporary file");
            file
        });
        if let Some(input) = &input {
            // The kit's `run` closes standard input, so a shell opens it.
            let script = "input=$1; shift; exec \"$@\" < \"$input\"";
            command.extend(["sh", "-c", script, "sh"].map(OsString::from));
            command.push(input.path().into());
        }
        match self.how.user {
            true => {
                let user = [
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                ];
                command.extend(user.map(OsString::from));
                command.push(self.sandbox.beside("ibex").into());
            }
            false => command.push(program.get_program().to_owned()),
        }
        let mut started = Command::new(&command[0]);
        started.args(&command[1..]).env_clear();
        for (name, value) in program.get_envs() {
            started.env(name, value.expect("it sets all that it names"));
        }
        started.env("IBEX_CACHE_DIR", self.sandbox.beside("catalogue"));
        if !fault.is_empty() {
            started.env("IBEX_FAULT", fault);
        }
        run(started.arg("--root").arg(&place.root).args(words))
    }

    /// Returns how many operations change the root.
    fn count(&self, more: &[&str]) -> usize {
        let note = note();
        self.run(&format!("count:{}", note.path().display()), more);
        let text = fs::read_to_string(note.path()).expect("a count");
        text.parse().expect("a count")
    }

    /// Says which of the two states a root is in, or what is wrong with it.
    fn judge(&self, place: &Place, told: &str) -> Result<State, String> {
        let found = snapshot(place);
        let mut old = found.clone();
        // What a program needs to take the lock may be there, and means nothing.
        for path in SKELETON {
            if !self.before.contains_key(path) {
                old.remove(path);
            }
        }
        let state = if old == self.before {
            State::Before
        } else if found == self.after {
            State::After
        } else {
            State::AfterWithCutScript
        };
        self.judge_history(place, state, told)
            .map_err(|text| format!("{text}\n{}", self.nearer(&found, told)))?;
        if state == State::AfterWithCutScript {
            let cut = CutScripts::told(told);
            self.judge_cut(place, &found, &cut)
                .map_err(|text| format!("{text}\n{}", self.nearer(&found, told)))?;
        }
        Ok(state)
    }

    /// Describes a root that is in none of the two states.
    fn nearer(&self, found: &Snapshot, told: &str) -> String {
        let differences = |wanted| {
            let lines = support::differences(wanted, found);
            (lines.len(), lines.join("\n"))
        };
        // The nearer state is the one to look at.
        let (old, new) = (differences(&self.before), differences(&self.after));
        let (name, text) = match old.0 < new.0 {
            true => ("before", old.1),
            false => ("after", new.1),
        };
        format!("from the state {name}:\n{text}\ntold:\n{told}")
    }

    /// Returns whether the history has the transaction if, and only if, it happened.
    fn judge_history(&self, place: &Place, state: State, told: &str) -> Result<(), String> {
        let Some(before) = self.recorded else {
            return Ok(());
        };
        let recorded = recorded(&place.root);
        // What cannot be recorded is told.
        let is_told = told.contains("WARNING: this transaction is not recorded");
        let wanted = before + usize::from(state != State::Before && !is_told);
        let outcomes: Vec<&str> = recorded
            .iter()
            .map(|(outcome, _)| outcome.as_str())
            .collect();
        let is_open = outcomes.contains(&"started");
        let ending = ["done", "recovered", "errors"];
        let ends = outcomes
            .first()
            .is_none_or(|outcome| ending.contains(outcome));
        match recorded.len() == wanted && !is_open && ends {
            true => Ok(()),
            false => Err(format!(
                "{state:?}, but of {wanted} transactions the history has {recorded:?}"
            )),
        }
    }

    /// Examines the new state in which some scripts were cut off: they are named, and nothing else
    /// is missing when they have run.
    fn judge_cut(&self, place: &Place, found: &Snapshot, cut: &CutScripts) -> Result<(), String> {
        if cut.scripts.is_empty() {
            return Err("no script was told as cut off".into());
        }
        let marked = row(found, INSTALLED).matches("f:s\\n").count();
        if marked != cut.packages.len() {
            return Err(format!("{marked} packages are marked, told were {cut:?}"));
        }
        // The scripts of made packages write to their log and nowhere else.
        let lines = |snapshot: &Snapshot| -> Vec<String> {
            let content = row(snapshot, SCRIPT_LOG)
                .rsplit('\t')
                .next()
                .unwrap_or_default();
            let lines = content.split("\\n").filter(|line| !line.is_empty());
            lines.map(str::to_owned).collect()
        };
        let wanted = lines(&self.after);
        if !wanted.is_empty() {
            let ran = lines(found);
            let missing = wanted.iter().filter(|line| !ran.contains(line));
            if let Some(line) = missing.clone().find(|line| !cut.names(line)) {
                return Err(format!("{line:?} did not run, told were {cut:?}"));
            }
            self.equal_but_for(found, &[INSTALLED, SCRIPT_LOG, CUT_SCRIPTS])?;
        }
        if cut.packages.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = cut.packages.iter().map(String::as_str).collect();
        let fix = [words(&self.base, &["fix"]), names.clone()].concat();
        let fixed = self.ibex(place, "", &fix);
        let found = snapshot(place);
        if fixed.code != 0 {
            return Err(format!("fix: {} {}", fixed.code, fixed.output));
        }
        let ran = lines(&found);
        let runs_never = |line: &String| !ran.contains(line) && !cut.is_of_removed(line);
        if let Some(line) = wanted.iter().find(|line| runs_never(line)) {
            return Err(format!("{line:?} was not run by fix: {}", fixed.output));
        }
        let log: &[&str] = match wanted.is_empty() {
            true => &[],
            false => &[SCRIPT_LOG],
        };
        let equal = self.equal_but_for(&found, log);
        if equal.is_err() && !wanted.is_empty() {
            // The made packages bring the accounts that own their own files, so installing one a
            // second time gives them to others: the new state, with the same packages reinstalled.
            let trial = self.run("", &[]);
            let again = [words(&self.base, &["fix", "--reinstall"]), names].concat();
            self.ibex(&trial.place(), "", &again);
            let mut reference = snapshot(&trial.place());
            let mut found = found;
            for snapshot in [&mut reference, &mut found] {
                log.iter().for_each(|path| drop(snapshot.remove(*path)));
            }
            if reference == found {
                return Ok(());
            }
        }
        equal.map_err(|text| format!("after fix: {text}\n{}", fixed.output))
    }

    fn equal_but_for(&self, found: &Snapshot, paths: &[&str]) -> Result<(), String> {
        let without = |snapshot: &Snapshot| {
            let mut rest = snapshot.clone();
            paths.iter().for_each(|path| drop(rest.remove(*path)));
            rest
        };
        match support::differences(&without(&self.after), &without(found)) {
            lines if lines.is_empty() => Ok(()),
            lines => Err(lines.join("\n")),
        }
    }
}

fn row<'a>(snapshot: &'a Snapshot, path: &str) -> &'a str {
    snapshot.get(path).map(String::as_str).unwrap_or_default()
}

/// What a run told of scripts that were cut off.
#[derive(Debug)]
struct CutScripts {
    /// `NAME-VERSION.KIND`.
    scripts: Vec<String>,
    /// Packages that `ibex fix` is said to help.
    packages: Vec<String>,
    /// Scripts of packages that are gone.
    removed: Vec<String>,
}

impl CutScripts {
    fn told(told: &str) -> Self {
        let (mut scripts, mut packages) = (Vec::new(), Vec::new());
        let mut removed = Vec::new();
        for line in told.lines().filter_map(|line| line.strip_prefix("ERROR: ")) {
            let Some((script, rest)) = line.split_once(": cut off by the interruption") else {
                continue;
            };
            scripts.push(script.to_owned());
            match rest.split_once("`ibex fix ") {
                Some((_, rest)) => packages.extend(rest.split('`').next().map(str::to_owned)),
                None => removed.push(script.to_owned()),
            }
        }
        packages.sort();
        packages.dedup();
        Self {
            scripts,
            packages,
            removed,
        }
    }

    /// Returns whether a line of the log (`NAME KIND …`) is of a script that was told.
    fn names(&self, line: &str) -> bool {
        self.scripts.iter().any(|script| is_line_of(line, script))
    }

    fn is_of_removed(&self, line: &str) -> bool {
        self.removed.iter().any(|script| is_line_of(line, script))
    }
}

fn is_line_of(line: &str, script: &str) -> bool {
    let mut words = line.split(' ');
    let (name, kind) = (words.next(), words.next());
    let (full_name, of_kind) = script.rsplit_once('.').unwrap_or_default();
    let of_name = full_name.rsplit_once('-').map(|(name, _)| name);
    name == of_name && kind == Some(of_kind)
}

/// Returns outcome and command of the transactions that the history of a root has.
fn recorded(root: &Path) -> Vec<(String, String)> {
    let mut command = support::ibex();
    let listed = run(command.arg("--root").arg(root).args(["history", "--json"]));
    let json = listed
        .output
        .lines()
        .filter(|line| !line.starts_with("WARNING:"));
    let json: String = json.collect();
    let Ok(entries) = serde_json::from_str::<Vec<serde_json::Value>>(&json) else {
        return vec![("unreadable".into(), listed.output)];
    };
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or("?").to_owned();
    let entries = entries.iter();
    entries
        .map(|entry| (text(entry, "outcome"), text(entry, "command")))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Before,
    After,
    AfterWithCutScript,
}

const INSTALLED: &str = "lib/apk/db/installed";
/// What the scripts of these packages write to.
const SCRIPT_LOG: &str = "var/lib/scripts";
/// Where ibex remembers which scripts `fix` has to run.
const CUT_SCRIPTS: &str = "lib/apk/db/cut-scripts";
/// What a command needs before it can do anything.
const SKELETON: [&str; 10] = [
    "etc",
    "etc/apk",
    "lib",
    "lib/apk",
    "lib/apk/db",
    "lib/apk/db/lock",
    "var",
    "var/lib",
    "var/log",
    "var/log/apk.log",
];

fn whole(root: PathBuf) -> Place {
    Place { root, usr: None }
}

/// Makes a file that whoever runs the program can write to.
fn note() -> tempfile::NamedTempFile {
    let note = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::set_permissions(note.path(), fs::Permissions::from_mode(0o666)).expect("it is ours");
    note
}

fn give_to_user(path: &Path) {
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(path)).success();
}

/// Gives a tree to the ordinary user, with the modes that it has: `chown` takes set-id bits away.
fn hand_over(path: &Path) {
    let meta = fs::symlink_metadata(path).expect("it is ours");
    std::os::unix::fs::lchown(path, Some(65534), Some(65534)).expect("it is ours");
    if !meta.is_symlink() {
        fs::set_permissions(path, meta.permissions()).expect("it is ours");
    }
    if meta.is_dir() {
        let entries = fs::read_dir(path).expect("it is ours");
        entries.for_each(|entry| hand_over(&entry.expect("it is ours").path()));
    }
}

/// Takes the set-id bits of a file away, as the kernel does when an ordinary user writes to it.
fn lose_set_id(file: Option<&fs::File>) {
    let Some(file) = file else { return };
    let mode = file.metadata().expect("it is open").mode() & 0o1777;
    let mode = fs::Permissions::from_mode(mode);
    file.set_permissions(mode).expect("it is ours");
}

/// Makes a directory on a file system in memory, if there is one.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a temporary directory")
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).success();
}

/// Writes everything down that a root is; times only of what packages bring.
fn snapshot(place: &Place) -> Snapshot {
    let mut rows = Snapshot::new();
    walk(&place.root, &place.root, &mut rows);
    if let Some(usr) = &place.usr {
        // It hides what is below it.
        rows.retain(|path, _| !path.starts_with("usr"));
        let parent = usr.parent().expect("a directory of its own");
        walk(parent, parent, &mut rows);
    }
    rows.remove("var/log/apk.log");
    // The history is compared by what it says.
    rows.retain(|path, _| !Path::new(path).starts_with("var/lib/ibex"));
    rows
}

fn walk(root: &Path, folder: &Path, rows: &mut Snapshot) {
    for entry in fs::read_dir(folder).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        let relative = path.strip_prefix(root).expect("below the root");
        let relative = relative.to_string_lossy().into_owned();
        let meta = fs::symlink_metadata(&path).expect("it was just listed");
        let kind = meta.file_type();
        let detail = if kind.is_dir() {
            String::new()
        } else if kind.is_symlink() {
            fs::read_link(&path)
                .expect("a link")
                .to_string_lossy()
                .into_owned()
        } else if kind.is_file() {
            let content = fs::read(&path).expect("a readable file");
            // Small texts stay readable; a day since 1970 is no part of the state.
            match relative.as_str() {
                INSTALLED | SCRIPT_LOG | "etc/apk/world" => content.escape_ascii().to_string(),
                "etc/shadow" | "etc/shadow-" => String::new(),
                _ => data_encoding::HEXLOWER.encode(&Sha1::digest(&content)),
            }
        } else {
            assert!(kind.is_char_device() || kind.is_block_device() || kind.is_fifo());
            format!("{:x}", meta.rdev())
        };
        let links = if kind.is_file() { meta.nlink() } else { 1 };
        // Packages of these tests are from 2020 or before; what a run makes has its own time.
        let time = match kind.is_file() && meta.mtime() < 1_750_000_000 {
            true => meta.mtime().to_string(),
            false => "-".to_owned(),
        };
        let attributes = attributes(&path, kind.is_symlink());
        rows.insert(
            relative,
            format!(
                "{:o}\t{}:{}\t{links}\t{time}\t{attributes}\t{detail}",
                meta.mode(),
                meta.uid(),
                meta.gid()
            ),
        );
        if kind.is_dir() {
            walk(root, &path, rows);
        }
    }
}

fn attributes(path: &Path, is_link: bool) -> String {
    let mut buffer = [0; 4096];
    if is_link {
        return String::new();
    }
    let Ok(length) = rustix::fs::listxattr(path, &mut buffer) else {
        return String::new();
    };
    let names = buffer[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| name.starts_with(b"user."));
    names
        .map(|name| String::from_utf8_lossy(name).into_owned() + " ")
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with it")
}

/// Calls a function for each number, on both cores; collects what it complains of.
fn for_each(
    numbers: &[usize],
    check: impl Fn(usize) -> Result<State, String> + Sync,
) -> Vec<State> {
    let next = AtomicUsize::new(0);
    let states = Mutex::new(Vec::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match check(*number) {
                        Ok(state) => lock(&states).push(state),
                        Err(text) => lock(&wrong).push(format!("at {number}: {text}")),
                    }
                }
            });
        }
    });
    let wrong = std::mem::take(&mut *lock(&wrong));
    let shown: Vec<&String> = wrong.iter().take(3).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} points are between: {}",
        wrong.len(),
        numbers.len(),
        shown
            .iter()
            .map(|text| format!("\n{text}"))
            .collect::<String>()
    );
    std::mem::take(&mut *lock(&states))
}

fn tally(name: &str, what: &str, states: &[State]) {
    let count = |wanted| states.iter().filter(|state| **state == wanted).count();
    eprintln!(
        "{name}, {what}: {} points; {} before, {} after, {} after with a script told as cut off",
        states.len(),
        count(State::Before),
        count(State::After),
        count(State::AfterWithCutScript)
    );
}

/// Kills the process before operation `number`; recovers; judges.
fn kill_at(scenario: &Scenario, number: usize, more: &[&str]) -> Result<State, String> {
    recovers_from(
        scenario,
        scenario.run(&format!("stop:{number}"), more),
        number,
    )
}

/// Recovers what a killed process left; judges.
fn recovers_from(scenario: &Scenario, trial: Trial, number: usize) -> Result<State, String> {
    if trial.run.code != 137 {
        return Err(format!(
            "not killed: {} {}",
            trial.run.code, trial.run.output
        ));
    }
    let due = is_due(&trial.root());
    // Questions are answered meanwhile, and say what is due.
    if number.is_multiple_of(5) {
        let words = ["info", "--exists", "nothing-of-this-name"];
        let question = scenario.ibex(&trial.place(), "", &words);
        if question.output.contains("`ibex recover` finishes it") != due {
            return Err(format!("recovery due: {due}, told: {}", question.output));
        }
    }
    let recovered = scenario.ibex(&trial.place(), "", &["recover"]);
    let state = scenario.judge(&trial.place(), &recovered.output)?;
    let wanted = match state {
        State::Before => 0,
        State::After if due => scenario.after_code,
        State::After => 0,
        State::AfterWithCutScript => recovered.code,
    };
    if recovered.code != wanted {
        return Err(format!(
            "recover exits with {}: {}",
            recovered.code, recovered.output
        ));
    }
    if number % 5 == 1 {
        let again = scenario.ibex(&trial.place(), "", &["recover"]);
        if again.output != "OK: nothing to recover\n" {
            return Err(format!("recovered twice: {}", again.output));
        }
    }
    Ok(state)
}

/// Returns whether a transaction is promised and not finished.
fn is_due(root: &Path) -> bool {
    let database = root.join("lib/apk/db");
    database.join(".journal").exists() || database.join(".switch").exists()
}

/// Returns whether everything is to be tried.
fn everything() -> bool {
    std::env::var_os("IBEX_CRASH_ALL").is_some_and(|value| value == "1")
}

/// Makes operation `number` fail; an exit code of 0 must mean that all is done.
fn fail_at(scenario: &Scenario, kind: &str, number: usize) -> Result<State, String> {
    let trial = scenario.run(&format!("{kind}:{number}"), &[]);
    let due = is_due(&trial.root());
    let undone = !due && trial.run.code != 0 && !kind.ends_with('+');
    if undone && !trial.root().join("lib/apk/db/.staged").exists() {
        // Undone by the command itself, or finished with what went wrong marked and told.
        return scenario.judge(&trial.place(), &trial.run.output);
    }
    let recovered = match trial.run.code {
        0 => Run {
            output: String::new(),
            code: 0,
        },
        _ => scenario.ibex(&trial.place(), "", &["recover"]),
    };
    let told = format!("{}{}", trial.run.output, recovered.output);
    let state = scenario.judge(&trial.place(), &told)?;
    match (trial.run.code, state) {
        (0, State::After) => Ok(state),
        (0, _) => Err(format!("exit 0, but {state:?}: {told}")),
        (3, _) if !due => Err(format!("exit 3 without a journal: {told}")),
        (code, _) if due && code != 3 => Err(format!("exit {code} with a journal: {told}")),
        _ => Ok(state),
    }
}

/// Flushed operations are on the disk; of the others a power cut keeps what it likes.
struct PowerCut {
    operations: Vec<Operation>,
    /// `usr` is flushed by itself.
    mounted: bool,
}

/// What is left of operations that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Luck {
    /// Nothing.
    Nothing,
    /// Names, but no contents.
    Names,
    /// A part, by this number.
    Some(u64),
}

impl PowerCut {
    fn record(scenario: &Scenario) -> Self {
        let note = note();
        let fault = format!("record:{}", note.path().display());
        let trial = scenario.run(&fault, &["--sync=yes"]);
        assert_eq!(trial.run.code, scenario.after_code, "{}", trial.run.output);
        let operations = fault::read(note.path()).expect("a record");
        let mounted = scenario.how.mounted;
        Self {
            operations,
            mounted,
        }
    }

    /// Returns for each of the first `count` operations whether it is surely on the disk.
    fn flushed(&self, count: usize) -> Vec<bool> {
        let folder = |path: &str| {
            path.rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned()
        };
        // Which file system each operation is on.
        let mut paths = HashMap::new();
        let mut in_usr = Vec::new();
        for operation in &self.operations[..count] {
            if let Operation::Create { handle, path, .. } = operation {
                paths.insert(*handle, path.clone());
            }
            let path = match operation {
                Operation::Write(handle, _)
                | Operation::Truncate(handle, _)
                | Operation::FileOwner(handle, ..)
                | Operation::FileMode(handle, _)
                | Operation::FileTime(handle, _)
                | Operation::FileAttribute(handle, ..)
                | Operation::Reserve(handle, _)
                | Operation::SyncFile(handle) => paths.get(handle).map(String::as_str),
                Operation::Create { path, .. }
                | Operation::CreateDirectory(path, _)
                | Operation::Symlink(_, path)
                | Operation::HardLink(_, path)
                | Operation::Node(path)
                | Operation::Remove(path)
                | Operation::RemoveDirectory(path)
                | Operation::Rename(_, path)
                | Operation::Owner(path, ..)
                | Operation::Mode(path, _)
                | Operation::Time(path, _)
                | Operation::SyncDirectory(path)
                | Operation::SyncFileSystem(path) => Some(path.as_str()),
                // What scripts of these tests write is not there.
                Operation::Written(..) | Operation::Program(..) => None,
            };
            let is_below = |path: &str| path == "usr" || path.starts_with("usr/");
            in_usr.push(self.mounted && path.is_some_and(is_below));
        }
        let mut flushed = vec![false; count];
        for (at, operation) in self.operations[..count].iter().enumerate() {
            match operation {
                Operation::SyncFileSystem(_) => {
                    for (earlier, flushed) in in_usr[..=at].iter().zip(&mut flushed) {
                        *flushed |= *earlier == in_usr[at];
                    }
                }
                Operation::Written(..) => flushed[at] = true,
                Operation::SyncFile(handle) => {
                    for (earlier, flushed) in self.operations[..at].iter().zip(&mut flushed) {
                        *flushed |= matches!(
                            earlier,
                            Operation::Write(of, _) | Operation::Truncate(of, _)
                            | Operation::FileOwner(of, ..) | Operation::FileMode(of, _)
                            | Operation::FileTime(of, _) | Operation::FileAttribute(of, ..)
                            if of == handle
                        );
                    }
                }
                Operation::SyncDirectory(synced) => {
                    for (earlier, flushed) in self.operations[..at].iter().zip(&mut flushed) {
                        *flushed |= match earlier {
                            Operation::Create { path, .. }
                            | Operation::CreateDirectory(path, _)
                            | Operation::Symlink(_, path)
                            | Operation::HardLink(_, path)
                            | Operation::Remove(path)
                            | Operation::RemoveDirectory(path)
                            | Operation::Rename(_, path) => folder(path) == *synced,
                            _ => false,
                        };
                    }
                }
                _ => {}
            }
        }
        flushed
    }

    /// Makes what a disk holds when the power is cut after `count` operations.
    fn image(&self, scenario: &Scenario, count: usize, luck: Luck) -> tempfile::TempDir {
        let directory = scratch();
        let root = directory.path().join("root");
        copy(&scenario.sandbox.root(), &root);
        let flushed = self.flushed(count);
        let mut seed = match luck {
            Luck::Some(seed) => seed * 2 + 1,
            _ => 1,
        };
        let mut handles = HashMap::new();
        let mut last = HashMap::new();
        for (at, operation) in self.operations.iter().enumerate() {
            if let Operation::Create { handle, .. }
            | Operation::Write(handle, _)
            | Operation::FileOwner(handle, ..)
            | Operation::FileMode(handle, _)
            | Operation::FileTime(handle, _)
            | Operation::FileAttribute(handle, ..)
            | Operation::Truncate(handle, _) = operation
            {
                last.insert(*handle, at);
            }
        }
        let operations = self.operations[..count].iter().zip(flushed).enumerate();
        for (at, (operation, flushed)) in operations {
            // A program that is open for writing cannot be run by a script.
            handles.retain(|handle, _| last.get(handle).is_some_and(|last| *last >= at));
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let kept = flushed
                || match luck {
                    Luck::Nothing => false,
                    Luck::Names => !matches!(operation, Operation::Write(..)),
                    Luck::Some(_) => seed >> 40 & 1 == 1,
                };
            let is_mount = |path: &str| self.mounted && path == "usr";
            if !kept || matches!(operation, Operation::RemoveDirectory(path) if is_mount(path)) {
                continue;
            }
            let applied = apply(&root, operation, &mut handles);
            if let (true, Operation::Write(handle, _)) = (scenario.how.user, operation) {
                lose_set_id(handles.get(handle));
            }
            // What builds on something that was lost is lost, too; but nothing that was flushed with
            // all that came before it.
            if let (Operation::Program(..), true, Err(error)) = (operation, flushed, applied) {
                panic!("replayed: {error}");
            }
        }
        drop(handles);
        if scenario.how.user {
            hand_over(directory.path());
        }
        directory
    }

    fn check(&self, scenario: &Scenario, count: usize, luck: Luck) -> Result<State, String> {
        let directory = self.image(scenario, count, luck);
        let root = directory.path().join("root");
        let usr = scenario.how.mounted.then(|| {
            let usr = directory.path().join("other/usr");
            fs::create_dir(directory.path().join("other")).expect("a new directory");
            fs::rename(root.join("usr"), &usr).expect("it is there");
            fs::create_dir(root.join("usr")).expect("a new directory");
            usr
        });
        let place = Place { root, usr };
        let recovered = scenario.ibex(&place, "", &["recover"]);
        if recovered.code > 1 {
            return Err(format!("{luck:?}: {} {}", recovered.code, recovered.output));
        }
        scenario
            .judge(&place, &recovered.output)
            .map_err(|text| format!("{luck:?}: {text}"))
    }
}

/// Does an operation again.
fn apply(
    root: &Path,
    operation: &Operation,
    handles: &mut HashMap<u64, fs::File>,
) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Gid, Timespec, Timestamps, Uid};
    let at = |path: &String| root.join(path);
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let times = |seconds: &u64| {
        let at = Timespec {
            tv_sec: *seconds as i64,
            tv_nsec: 0,
        };
        Timestamps {
            last_access: at,
            last_modification: at,
        }
    };
    let open = |handle: &u64, handles: &mut HashMap<u64, fs::File>| {
        handles
            .get(handle)
            .map(fs::File::try_clone)
            .ok_or_else(missing)?
    };
    match operation {
        Operation::Create {
            handle,
            path,
            mode,
            append,
        } => {
            let mut options = fs::OpenOptions::new();
            match append {
                true => options.append(true),
                false => options.write(true).create_new(true).mode(*mode),
            };
            let file = options.open(at(path))?;
            if !append {
                file.set_permissions(fs::Permissions::from_mode(*mode))?;
            }
            handles.insert(*handle, file);
        }
        Operation::Write(handle, bytes) => open(handle, handles)?.write_all(bytes)?,
        Operation::Truncate(handle, size) => open(handle, handles)?.set_len(*size)?,
        Operation::FileOwner(handle, uid, gid) => {
            std::os::unix::fs::fchown(open(handle, handles)?, Some(*uid), Some(*gid))?;
        }
        Operation::FileMode(handle, mode) => {
            open(handle, handles)?.set_permissions(fs::Permissions::from_mode(*mode))?;
        }
        Operation::FileAttribute(handle, name, value) => {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(open(handle, handles)?, name.as_str(), value, flags)?;
        }
        Operation::FileTime(handle, seconds) => {
            rustix::fs::futimens(open(handle, handles)?, &times(seconds))?;
        }
        Operation::CreateDirectory(path, mode) => {
            fs::create_dir(at(path))?;
            fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))?;
        }
        Operation::Symlink(target, path) => std::os::unix::fs::symlink(target, at(path))?,
        Operation::HardLink(old, path) => fs::hard_link(at(old), at(path))?,
        Operation::Node(path) => {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(CWD, at(path), rustix::fs::FileType::Fifo, mode, 0)?;
        }
        Operation::Remove(path) => rustix::fs::unlinkat(CWD, at(path), AtFlags::empty())?,
        Operation::RemoveDirectory(path) => fs::remove_dir(at(path))?,
        Operation::Rename(old, path) => fs::rename(at(old), at(path))?,
        Operation::Owner(path, uid, gid) => {
            let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
            rustix::fs::chownat(CWD, at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Operation::Mode(path, mode) => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))?;
        }
        Operation::Time(path, seconds) => {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(CWD, at(path), &times(seconds), flags)?;
        }
        Operation::Written(path, content) => fs::write(at(path), content)?,
        Operation::Program(name, text, arguments) => {
            // A root with a shell of its own runs its scripts itself, as they were run first. The
            // shell is given the text: other threads start programs, too, and until those run they
            // hold open what is being written, which could not be executed.
            let inside = "mount --rbind /proc \"$0/proc\" && mount --rbind /dev \"$0/dev\" && \
                          exec chroot \"$0\" /bin/sh \"$@\"";
            let beside = root.join(".replayed");
            fs::write(&beside, text)?;
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o755))?;
            let mut command = match root.join("bin/sh").symlink_metadata().is_ok() {
                true => {
                    let mut command = Command::new("unshare");
                    command
                        .args(["--mount", "sh", "-c", inside])
                        .arg(root)
                        .arg("/.replayed");
                    command
                }
                false => {
                    let mut command = Command::new("sh");
                    command.arg(&beside);
                    command
                }
            };
            command
                .args(arguments)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("APK_SCRIPT", name.rsplit('.').next().unwrap_or_default())
                .current_dir(root);
            let mut output = command.output()?;
            // A process that another thread is about to start has copies of what was open here.
            while String::from_utf8_lossy(&output.stderr).contains("Text file busy") {
                std::thread::sleep(std::time::Duration::from_millis(10));
                output = command.output()?;
            }
            fs::remove_file(&beside)?;
            if !output.status.success() {
                return Err(std::io::Error::other(format!("{name}: {output:?}")));
            }
        }
        Operation::Reserve(..)
        | Operation::SyncFile(_)
        | Operation::SyncDirectory(_)
        | Operation::SyncFileSystem(_) => {}
    }
    Ok(())
}

fn package(name: &str, version: &str, entries: Vec<EntrySpec>) -> Made {
    repository::package(name, version, entries).with(|p| p.arch = Some("x86_64".into()))
}

/// A script that writes down that it ran.
fn noting(made: Made, kinds: &[ScriptKind]) -> Made {
    let name = made.contents.package.name.clone();
    kinds.iter().fold(made, |made, kind| {
        let kind_name = kind.name();
        let text = format!("mkdir -p var/lib; echo {name} {kind_name} \"$@\" >> {SCRIPT_LOG}");
        made.script(*kind, &text)
    })
}

fn with_mode(mut entry: EntrySpec, mode: u32, uid: u32) -> EntrySpec {
    (entry.mode, entry.uid) = (mode, uid);
    (entry.uname, entry.gname) = ("somebody".into(), "somebody".into());
    entry
}

fn with_attribute(mut entry: EntrySpec) -> EntrySpec {
    entry.xattrs.insert("user.note".into(), b"text".to_vec());
    entry
}

const FIRST: [ScriptKind; 2] = [ScriptKind::PreInstall, ScriptKind::PostInstall];
const NEXT: [ScriptKind; 2] = [ScriptKind::PreUpgrade, ScriptKind::PostUpgrade];
const LAST: [ScriptKind; 2] = [ScriptKind::PreDeinstall, ScriptKind::PostDeinstall];

/// A library, a program that needs it, and something that watches.
fn first_versions() -> Vec<Made> {
    let library = package(
        "library",
        "1",
        vec![
            directory("etc"),
            file("etc/library.conf", "1"),
            file("etc/untouched.conf", "1"),
            file("etc/deleted.conf", "1"),
            file(
                "etc/passwd",
                "root:x:0:0::/:/bin/sh\nsomebody:x:77:77::/:/bin/sh\n",
            ),
            file("etc/group", "root:x:0:\nsomebody:x:77:\n"),
            directory("usr"),
            directory("usr/lib"),
            with_attribute(file("usr/lib/library.so.1", "library 1")),
            symlink("usr/lib/library.so", "library.so.1"),
            directory("usr/share"),
            directory("usr/share/library"),
            file("usr/share/library/kept", "the same"),
            file("usr/share/library/dropped", "1"),
            directory("usr/share/library/gone"),
            file("usr/share/library/gone/file", "1"),
            directory("usr/share/turns"),
            directory("usr/share/turns/directory-to-link"),
            file("usr/share/turns/directory-to-link/x", "x"),
            directory("usr/share/turns/directory-to-file"),
            file("usr/share/turns/directory-to-file/x", "x"),
            file("usr/share/turns/file-to-directory", "a file"),
            symlink("usr/share/turns/link-to-directory", "../library"),
        ],
    );
    let program = package(
        "program",
        "1",
        vec![
            directory("usr"),
            directory("usr/bin"),
            with_mode(file("usr/bin/program", "program 1"), 0o4755, 0),
            hard_link("usr/bin/alias", "usr/bin/program"),
            with_mode(directory("usr/bin/private"), 0o700, 77),
            with_mode(file("usr/bin/private/secret", "1"), 0o600, 77),
            EntrySpec::new("usr/bin/private/pipe", EntryContent::Fifo),
            file("usr/bin/moves", "1"),
        ],
    )
    .with(|p| p.depends = ibex::package::DependencyList::parse("library").entries);
    let watcher = package(
        "watcher",
        "1",
        vec![directory("opt"), file("opt/watcher", "1")],
    )
    .with(|p| p.triggers = vec!["/usr/bin".into(), "/usr/lib".into()]);
    let all = [FIRST, NEXT, LAST].concat();
    vec![
        noting(library, &all),
        noting(program, &all),
        noting(watcher, &[ScriptKind::Trigger]),
    ]
}

fn second_versions() -> Vec<Made> {
    let library = package(
        "library",
        "2",
        vec![
            directory("etc"),
            file("etc/library.conf", "2"),
            file("etc/untouched.conf", "2"),
            file("etc/deleted.conf", "2"),
            file(
                "etc/passwd",
                "root:x:0:0::/:/bin/sh\nsomebody:x:78:78::/:/bin/sh\n",
            ),
            file("etc/group", "root:x:0:\nsomebody:x:78:\n"),
            directory("usr"),
            directory("usr/lib"),
            with_attribute(file("usr/lib/library.so.2", "library 2")),
            symlink("usr/lib/library.so", "library.so.2"),
            directory("usr/share"),
            with_mode(directory("usr/share/library"), 0o750, 0),
            file("usr/share/library/kept", "the same"),
            file("usr/share/library/moves", "moved here"),
            directory("usr/share/turns"),
            symlink("usr/share/turns/directory-to-link", "../library"),
            file("usr/share/turns/directory-to-file", "a file"),
            directory("usr/share/turns/file-to-directory"),
            file("usr/share/turns/file-to-directory/x", "x"),
            directory("usr/share/turns/link-to-directory"),
            file("usr/share/turns/link-to-directory/y", "y"),
        ],
    );
    let program = package(
        "program",
        "2",
        vec![
            directory("usr"),
            directory("usr/bin"),
            with_mode(file("usr/bin/program", "program 2"), 0o4755, 0),
            hard_link("usr/bin/alias", "usr/bin/program"),
            with_mode(directory("usr/bin/private"), 0o700, 77),
            with_mode(file("usr/bin/private/secret", "2"), 0o600, 77),
        ],
    )
    .with(|p| p.depends = ibex::package::DependencyList::parse("library").entries);
    let all = [FIRST, NEXT, LAST].concat();
    vec![noting(library, &all), noting(program, &all)]
}

/// Options that all runs have: the repository, no chroot (the scripts use the tests' own shell).
fn base(repository: &Repository) -> Vec<String> {
    let path = repository.path().display().to_string();
    [
        "--arch",
        "x86_64",
        "--force-no-chroot",
        "--no-cache",
        "--history=no",
        "-X",
        &path,
    ]
    .iter()
    .map(|word| (*word).to_owned())
    .collect()
}

fn words<'a>(base: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    base.iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect()
}

/// An empty root in which nothing was ever installed; a configuration file is there already.
fn fresh_install() -> Scenario {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    first_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_000);
    sandbox.write("etc/library.conf", "written by hand");
    let command = ["--initdb", "add", "program", "watcher"];
    Scenario::new("fresh install", sandbox, base(&repository), &command)
}

/// The first versions, with changes by hand, and the second ones in the repository.
fn installed() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    first_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_000);
    let base = base(&repository);
    let arguments = words(&base, &["--initdb", "add", "program", "watcher"]);
    sandbox.run(arguments).success();
    sandbox.write("etc/library.conf", "changed by hand");
    fs::remove_file(sandbox.root().join("etc/deleted.conf")).expect("installed");
    second_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_001);
    (sandbox, base)
}

fn upgrade() -> Scenario {
    let (sandbox, base) = installed();
    Scenario::new("upgrade", sandbox, base, &["upgrade"])
}

fn removal() -> Scenario {
    let (sandbox, base) = installed();
    sandbox.write("etc/library.conf.apk-new", "offered before");
    Scenario::new("del -r", sandbox, base, &["del", "-r", "library"])
}

/// A reinstallation with files of the administrator's overlay.
fn reinstallation() -> Scenario {
    let (sandbox, base) = installed();
    sandbox.write("usr/share/library/kept", "from the overlay");
    let mut base = base;
    base.push("--overlay-from-stdin".into());
    let command = ["fix", "-r", "library", "program"];
    let overlay = "usr/share/library/kept\n";
    Scenario::with_input("fix -r", sandbox, base, &command, Some(overlay))
}

/// One package goes, another one takes its place with the same paths.
fn exchange() -> Scenario {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    let entries = |text: &str| {
        vec![
            directory("etc"),
            file("etc/mail.conf", text),
            directory("srv"),
            directory("srv/mail"),
            file("srv/mail/agent", text),
            file(&format!("srv/mail/only-{text}"), text),
        ]
    };
    let provides = |name: &'static str| {
        move |p: &mut ibex::package::Package| {
            p.provides = ibex::package::DependencyList::parse(name).entries;
        }
    };
    let made = [
        noting(
            package("old-mail", "1", entries("old")).with(provides("mail=1")),
            &LAST,
        ),
        noting(
            package("new-mail", "1", entries("new")).with(provides("mail=2")),
            &FIRST,
        ),
    ];
    made.iter().for_each(|made| repository.add(made));
    repository.publish(1_700_000_000);
    let base = base(&repository);
    sandbox
        .run(words(&base, &["--initdb", "add", "old-mail"]))
        .success();
    Scenario::new("exchange", sandbox, base, &["add", "new-mail", "!old-mail"])
}

/// The upgrade as a user who owns the root.
fn upgrade_by_user() -> Scenario {
    let (sandbox, base) = installed();
    let how = How {
        user: true,
        ..How::default()
    };
    Scenario::prepare("upgrade by a user", sandbox, base, &["upgrade"], how).finished()
}

/// A first installation as a user, who makes the root.
fn installation_by_user() -> Scenario {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    first_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_000);
    let how = How {
        user: true,
        ..How::default()
    };
    let command = ["--initdb", "--usermode", "add", "program", "watcher"];
    let base = base(&repository);
    Scenario::prepare("installation by a user", sandbox, base, &command, how).finished()
}

/// The upgrade in a root where `usr` is a file system of its own.
fn upgrade_of_two_file_systems() -> Scenario {
    let (sandbox, base) = installed();
    let how = How {
        mounted: true,
        ..How::default()
    };
    Scenario::prepare("upgrade, usr mounted", sandbox, base, &["upgrade"], how).finished()
}

fn removal_of_two_file_systems() -> Scenario {
    let (sandbox, base) = installed();
    let how = How {
        mounted: true,
        ..How::default()
    };
    let command = ["del", "-r", "library"];
    Scenario::prepare("del -r, usr mounted", sandbox, base, &command, how).finished()
}

/// The upgrade, with a history that has the installation.
fn upgrade_with_history() -> Scenario {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    first_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_000);
    let mut base = base(&repository);
    base.retain(|word| word != "--history=no");
    let command = ["--initdb", "add", "program", "watcher"];
    sandbox.run(words(&base, &command)).success();
    second_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_001);
    Scenario::new("upgrade with history", sandbox, base, &["upgrade"])
}

/// A first installation with a history, which is made for it.
fn fresh_install_with_history() -> Scenario {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    first_versions()
        .iter()
        .for_each(|made| repository.add(made));
    repository.publish(1_700_000_000);
    let mut base = base(&repository);
    base.retain(|word| word != "--history=no");
    let command = ["--initdb", "add", "program", "watcher"];
    Scenario::new("fresh install with history", sandbox, base, &command)
}

/// A reinstallation, of which neither packages nor world say that it happened.
fn reinstallation_with_history() -> Scenario {
    let (sandbox, mut base) = installed();
    base.retain(|word| word != "--history=no");
    let command = ["fix", "-r", "library", "program"];
    Scenario::new("fix -r with history", sandbox, base, &command)
}

/// A move to another branch, which edits the files that name the repositories.
fn branch_switch() -> Scenario {
    let sandbox = Sandbox::new();
    for (branch, versions) in [("v3.19", first_versions()), ("v3.20", second_versions())] {
        let mut main = Repository::named(&sandbox, &format!("mirror/{branch}/main"));
        let mut more = Repository::named(&sandbox, &format!("mirror/{branch}/community"));
        for made in &versions {
            match made.contents.package.name.as_str() {
                "library" => main.add(made),
                _ => more.add(made),
            }
        }
        main.publish(1_700_000_000);
        more.publish(1_700_000_000);
    }
    let line = |name: &str| format!("{}\n", sandbox.beside("mirror/v3.19").join(name).display());
    sandbox.write("etc/apk/repositories", line("main"));
    sandbox.write("etc/apk/repositories.d/more.list", line("community"));
    let options = [
        "--arch",
        "x86_64",
        "--force-no-chroot",
        "--no-cache",
        "--history=no",
    ];
    let base: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
    let install = words(&base, &["--initdb", "add", "program"]);
    sandbox.run(install).success();
    Scenario::new(
        "branch switch",
        sandbox,
        base,
        &["branch", "switch", "v3.20"],
    )
}

/// A command on a root in which another one was stopped: it finishes that first.
fn addition_after_interruption(after_the_switch: bool) -> Scenario {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    first_versions()
        .iter()
        .for_each(|made| repository.add(made));
    // Without scripts, which could be cut off before the command that is looked at.
    let plain = package("first", "1", vec![directory("srv"), file("srv/first", "1")]);
    repository.add(&plain);
    repository.publish(1_700_000_000);
    let base = base(&repository);
    let first = ["--initdb", "add", "first"];
    copy(&sandbox.root(), &sandbox.beside("clean"));
    let database = sandbox.root().join("lib/apk/db");
    let (name, wanted) = match after_the_switch {
        false => ("add after a stop", ".journal"),
        true => ("add after a stop at the end", ".switch"),
    };
    for number in 0.. {
        let mut command = sandbox.ibex();
        command.env("IBEX_FAULT", format!("stop:{number}"));
        command.args(words(&base, &first));
        assert_eq!(
            run(&mut command).code,
            137,
            "{name}: {wanted} is never there"
        );
        if database.join(wanted).exists() {
            break;
        }
        fs::remove_dir_all(sandbox.root()).expect("it is ours");
        copy(&sandbox.beside("clean"), &sandbox.root());
    }
    let command = ["add", "program", "watcher"];
    let mut scenario = Scenario::prepare(name, sandbox, base, &command, How::default());
    let directory = scratch();
    let place = whole(directory.path().join("root"));
    copy(&scenario.sandbox.root(), &place.root);
    scenario.ibex(&place, "", &["recover"]).success();
    scenario.before = snapshot(&place);
    scenario.finished()
}

fn scenarios() -> Vec<Scenario> {
    vec![
        fresh_install(),
        upgrade(),
        removal(),
        reinstallation(),
        exchange(),
    ]
}

#[test]
fn killed_before_every_operation() {
    if !support::is_root() {
        return;
    }
    for scenario in scenarios() {
        let points: Vec<usize> = (0..scenario.count(&[])).collect();
        let states = for_each(&points, |number| kill_at(&scenario, number, &[]));
        tally(scenario.name, "killed", &states);
        assert!(states.contains(&State::Before) && states.contains(&State::After));
    }
}

/// Returns a run that was killed just before, or just after, a directory got its name with all its
/// files.
fn killed_at_directory(scenario: &Scenario, path: &str, after: bool) -> Trial {
    let operations = PowerCut::record(scenario).operations;
    let comes = |operation: &Operation| matches!(operation, Operation::Rename(_, to) if to == path);
    let number = operations.iter().position(comes).expect("it comes whole");
    let fault = format!("stop:{}", number + usize::from(after));
    let trial = scenario.run(&fault, &["--sync=yes"]);
    assert!(is_due(&trial.root()));
    assert_eq!(trial.root().join(path).exists(), after);
    trial
}

/// Finishes what was killed.
fn recovers(scenario: &Scenario, trial: &Trial) {
    let recovered = scenario.ibex(&trial.place(), "", &["recover"]);
    assert_eq!(recovered.code, scenario.after_code, "{}", recovered.output);
}

/// A directory comes as a whole, with all its files, unless somebody made it while the process was
/// dead: then it keeps what is in it and gets the files.
#[test]
fn a_directory_that_somebody_made_gets_the_files() {
    if !support::is_root() {
        return;
    }
    let scenario = fresh_install();
    let path = "usr/share/library/gone";
    let trial = killed_at_directory(&scenario, path, false);
    let directory = trial.root().join(path);
    fs::create_dir_all(&directory).expect("a writable root");
    fs::write(directory.join("stranger"), "").expect("a writable root");
    recovers(&scenario, &trial);
    fs::remove_file(directory.join("stranger")).expect("it stays");
    let state = scenario.judge(&trial.place(), "");
    assert_eq!(state, Ok(State::After));
}

/// A power cut may keep the name of such a directory and lose its mode and owner.
#[test]
fn a_directory_that_lost_its_mode_gets_it_again() {
    if !support::is_root() {
        return;
    }
    let scenario = fresh_install();
    let path = "usr/bin/private";
    let trial = killed_at_directory(&scenario, path, true);
    let directory = trial.root().join(path);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("ours");
    std::os::unix::fs::chown(&directory, Some(0), Some(0)).expect("ours");
    recovers(&scenario, &trial);
    let state = scenario.judge(&trial.place(), "");
    assert_eq!(state, Ok(State::After));
}

/// Stops, fails and cuts the power at a part of the operations, or at all if everything is tried.
fn try_all(scenario: &Scenario, every: usize, power: bool) {
    let every = if everything() { 1 } else { every };
    let points: Vec<usize> = (0..scenario.count(&[])).step_by(every).collect();
    let states = for_each(&points, |number| kill_at(scenario, number, &[]));
    tally(scenario.name, "killed", &states);
    assert!(states.contains(&State::Before) && states.contains(&State::After));
    let kinds = ["eio", "enospc", "eio+", "enospc+", "erofs+"];
    for kind in kinds
        .iter()
        .take(if everything() { kinds.len() } else { 1 })
    {
        let states = for_each(&points, |number| {
            let kind = if everything() {
                kind
            } else {
                kinds[number / every % kinds.len()]
            };
            fail_at(scenario, kind, number)
        });
        tally(
            scenario.name,
            if everything() { kind } else { "errors" },
            &states,
        );
    }
    if power {
        let cut = PowerCut::record(scenario);
        let points: Vec<usize> = (0..=cut.operations.len()).step_by(every).collect();
        let all = [Luck::Nothing, Luck::Names, Luck::Some(1)];
        for luck in all.into_iter().take(if everything() { 3 } else { 2 }) {
            let states = for_each(&points, |count| cut.check(scenario, count, luck));
            tally(scenario.name, &format!("power cut, {luck:?} kept"), &states);
        }
    }
}

#[test]
fn the_history_has_what_happened() {
    if !support::is_root() {
        return;
    }
    try_all(&upgrade_with_history(), 8, true);
    try_all(&fresh_install_with_history(), 12, true);
    try_all(&reinstallation_with_history(), 14, false);
}

#[test]
fn a_root_of_a_user() {
    if !support::is_root() {
        return;
    }
    try_all(&installation_by_user(), 12, true);
    try_all(&upgrade_by_user(), 12, true);
}

#[test]
fn a_root_of_two_file_systems() {
    if !support::is_root() {
        return;
    }
    try_all(&upgrade_of_two_file_systems(), 8, true);
    try_all(&removal_of_two_file_systems(), 8, true);
}

#[test]
fn repository_files_change_with_the_packages() {
    if !support::is_root() {
        return;
    }
    let scenario = branch_switch();
    for path in ["etc/apk/repositories", "etc/apk/repositories.d/more.list"] {
        assert_ne!(scenario.before[path], scenario.after[path], "{path}");
    }
    try_all(&scenario, 8, true);
}

#[test]
fn a_command_that_recovers_first_is_stopped() {
    if !support::is_root() {
        return;
    }
    for after_the_switch in [false, true] {
        try_all(&addition_after_interruption(after_the_switch), 9, false);
    }
}

#[test]
fn an_error_at_every_operation() {
    if !support::is_root() {
        return;
    }
    for scenario in scenarios() {
        let points: Vec<usize> = (0..scenario.count(&[])).collect();
        let kinds = ["eio", "enospc", "eio+", "enospc+", "erofs+"];
        if everything() {
            for kind in kinds {
                let states = for_each(&points, |number| fail_at(&scenario, kind, number));
                tally(scenario.name, kind, &states);
            }
        } else {
            let check = |number| fail_at(&scenario, kinds[number % 5], number);
            tally(scenario.name, "errors", &for_each(&points, check));
        }
    }
}

/// The system may take less than all that is written: it says so, or the disk is full in between, or
/// the process dies with half a record in the journal.
#[test]
fn a_write_of_which_half_happens() {
    if !support::is_root() {
        return;
    }
    for scenario in scenarios() {
        let note = note();
        scenario.run(&format!("record:{}", note.path().display()), &[]);
        let operations = fault::read(note.path()).expect("a record");
        let writes = |number: &usize| match &operations[*number] {
            Operation::Write(_, bytes) => bytes.len() > 1,
            _ => false,
        };
        let points: Vec<usize> = (0..operations.len()).filter(writes).collect();
        let check = |kind: &str, number: usize| match kind {
            "half" => {
                let trial = scenario.run(&format!("half:{number}"), &[]);
                // What a new process writes for itself is not written by this one.
                match trial.run.code {
                    0 => scenario.judge(&trial.place(), &trial.run.output),
                    _ => recovers_from(&scenario, trial, number),
                }
            }
            "short" => {
                let trial = scenario.run(&format!("short:{number}"), &[]);
                let state = scenario.judge(&trial.place(), &trial.run.output)?;
                match (trial.run.code, state) {
                    (0, State::After) => Ok(state),
                    (code, _) => Err(format!("exit {code}, {state:?}: {}", trial.run.output)),
                }
            }
            _ => fail_at(&scenario, kind, number),
        };
        let kinds = ["half", "short", "torn", "torn+"];
        if everything() {
            for kind in kinds {
                let states = for_each(&points, |number| check(kind, number));
                tally(scenario.name, &format!("half a write, {kind}"), &states);
            }
        } else {
            let indexes: Vec<usize> = (0..points.len()).collect();
            let states = for_each(&indexes, |at| check(kinds[at % 4], points[at]));
            tally(scenario.name, "half a write", &states);
        }
    }
}

#[test]
fn a_signal_at_every_operation() {
    if !support::is_root() {
        return;
    }
    for scenario in scenarios() {
        let all = 0..scenario.count(&[]);
        let points: Vec<usize> = all
            .filter(|number| everything() || number % 3 == 0)
            .collect();
        let states = for_each(&points, |number| {
            let (kind, wanted) = match number % 2 {
                0 => ("int", 130),
                _ => ("term", 143),
            };
            let trial = scenario.run(&format!("{kind}:{number}"), &[]);
            if trial.run.code != wanted || is_due(&trial.root()) {
                return Err(format!("exit {}: {}", trial.run.code, trial.run.output));
            }
            scenario.judge(&trial.place(), &trial.run.output)
        });
        tally(scenario.name, "signals", &states);
        assert!(states.contains(&State::Before) && states.contains(&State::After));
    }
}

#[test]
fn a_recovery_that_is_killed_is_recovered() {
    if !support::is_root() {
        return;
    }
    for scenario in scenarios() {
        let count = scenario.count(&[]);
        let first = (0..count).filter(|number| everything() || number % 6 == 5);
        let points: Vec<usize> = first.collect();
        let states = for_each(&points, |number| {
            let trial = scenario.run(&format!("stop:{number}"), &[]);
            let mut told = String::new();
            // The second stop moves on until there is nothing left to stop.
            for again in (number % 4..).step_by(4) {
                let fault = format!("stop:{again}");
                let recovered = scenario.ibex(&trial.place(), &fault, &["recover"]);
                told.push_str(&recovered.output);
                if recovered.code != 137 {
                    break;
                }
            }
            scenario.judge(&trial.place(), &told)
        });
        tally(scenario.name, "killed again and again", &states);
    }
}

#[test]
fn a_power_cut_after_every_operation() {
    if !support::is_root() {
        return;
    }
    for scenario in scenarios() {
        let cut = PowerCut::record(&scenario);
        let points: Vec<usize> = (0..=cut.operations.len()).collect();
        let states = for_each(&points, |count| cut.check(&scenario, count, Luck::Nothing));
        tally(
            scenario.name,
            "power cut, all lost that was not flushed",
            &states,
        );
        if everything() {
            let seeds = (0..10).map(Luck::Some);
            for luck in std::iter::once(Luck::Names).chain(seeds) {
                let states = for_each(&points, |count| cut.check(&scenario, count, luck));
                tally(scenario.name, &format!("power cut, {luck:?} kept"), &states);
            }
        } else {
            let luck = |count: usize| match count % 3 {
                0 => Luck::Names,
                _ => Luck::Some(count as u64),
            };
            let sample: Vec<usize> = points.into_iter().step_by(2).collect();
            let states = for_each(&sample, |count| cut.check(&scenario, count, luck(count)));
            tally(scenario.name, "power cut, a part kept", &states);
        }
    }
}

/// The real packages of a branch change, installed as the old branch has them.
fn branch_change() -> Option<Scenario> {
    let old = support::data("alpine-v3.19")?;
    let new = support::data("alpine-branches")?;
    let sandbox = Sandbox::new();
    sandbox.trust(&["alpine-v3.19/keys", "alpine-branches/keys"])?;
    let base = |repository: PathBuf| -> Vec<String> {
        let line = repository.display().to_string();
        let options = [
            "--arch",
            "x86_64",
            "--no-cache",
            "--history=no",
            "-X",
            &line,
        ];
        options.iter().map(|word| (*word).to_owned()).collect()
    };
    let install = base(old);
    sandbox
        .run(words(&install, &["--initdb", "add", "alpine-base"]))
        .success();
    let upgrade = base(new.join("v3.20"));
    let command = ["upgrade", "--available"];
    Some(Scenario::new(
        "branch change 3.19 to 3.20",
        sandbox,
        upgrade,
        &command,
    ))
}

#[test]
fn the_real_branch_change_is_stopped() {
    if !support::is_root() {
        return;
    }
    let Some(scenario) = branch_change() else {
        return;
    };
    let count = scenario.count(&[]);
    let sample = |points: usize| -> Vec<usize> {
        match everything() {
            true => (0..count).collect(),
            false => (0..points).map(|n| n * count / points + n % 3).collect(),
        }
    };
    eprintln!("{}: {count} operations", scenario.name);
    let states = for_each(&sample(24), |number| kill_at(&scenario, number, &[]));
    tally(scenario.name, "killed", &states);
    if everything() {
        for kind in ["eio", "enospc", "eio+", "enospc+"] {
            let states = for_each(&sample(0), |number| fail_at(&scenario, kind, number));
            tally(scenario.name, kind, &states);
        }
    } else {
        let kinds = ["eio", "enospc+"];
        let states = for_each(&sample(12), |number| {
            fail_at(&scenario, kinds[number % 2], number)
        });
        tally(scenario.name, "errors", &states);
    }
}

#[test]
fn the_real_branch_change_loses_its_power() {
    if !support::is_root() {
        return;
    }
    let Some(scenario) = branch_change() else {
        return;
    };
    let cut = PowerCut::record(&scenario);
    let count = cut.operations.len();
    let points: Vec<usize> = match everything() {
        true => (0..=count).collect(),
        false => (0..12).map(|n| n * count / 12 + n % 3).collect(),
    };
    let all = [Luck::Nothing, Luck::Names, Luck::Some(1)];
    for luck in all.into_iter().take(if everything() { 3 } else { 1 }) {
        let states = for_each(&points, |count| cut.check(&scenario, count, luck));
        tally(scenario.name, &format!("power cut, {luck:?} kept"), &states);
    }
}
