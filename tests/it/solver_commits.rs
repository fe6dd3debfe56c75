//! Random scenes carried out: signed indexes, made packages with files, protected configuration and
//! scripts, package files among the arguments, and several commands one after the other.
//!
//! After each command the root is judged by rules that are written down a second time
//! (`support/oracle.rs`): what is installed breaks none of them, every file that it brings is there
//! and no other, nothing of the work is left; and a command that fails changed nothing. With
//! `APK_PEER` (and `APK_PEER_CASES`, `APK_PEER_SEED`) another apk does the same on a copy, and output,
//! exit codes, database, world and tree are compared.

use crate::support::oracle::{self, Oracle};
use crate::support::repository::{self, Made, directory, file};
use crate::support::scene::{Bound, Installed, NAMES, Need, Record, Scene, TAGS, VERSIONS};
use crate::support::scene::{checksum, provide_text};
use crate::support::scene_strategy::{self, Profile};
use crate::support::{self, Sandbox};
use ibex::format::{apk::PackageReader, index_writer, package_writer};
use ibex::package::{DependencyList, Identity, Index, Package, ScriptKind};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Scenes whose packages can be made.
const REAL: Profile = Profile {
    names: 8,
    records: 9,
    odd: false,
    foreign: false,
    places: false,
    ..scene_strategy::ALL
};

const CASES: usize = 80;

/// When indexes and packages were made.
const MADE: u64 = 1_600_000_000;

/// A scene whose packages are there.
struct Real {
    scene: Scene,
    sandbox: Sandbox,
    /// The identity of each record.
    identities: Vec<Identity>,
    /// Where the file of each record is.
    files: Vec<PathBuf>,
}

/// How many commands ended how.
#[derive(Default)]
struct Tally {
    done: AtomicUsize,
    refused: AtomicUsize,
    changes: AtomicUsize,
    from_files: AtomicUsize,
}

/// Makes a scene one that can be carried out.
fn settled(scene: &Scene) -> Scene {
    let mut scene = scene.clone();
    let plain = |need: &mut Need| {
        // Which build it is shows only when it is made.
        if matches!(need.bound, Bound::Build(_)) {
            need.bound = Bound::Any;
        }
    };
    scene.world.iter_mut().for_each(plain);
    let mut seen = BTreeSet::new();
    scene
        .records
        .retain(|record| seen.insert((record.name, record.version)));
    for record in &mut scene.records {
        let needs = record.depends.iter_mut().chain(&mut record.install_if);
        needs.for_each(plain);
        (record.installed, record.remembered) = (None, false);
        if record.repositories.is_empty() {
            record.repositories.push(0);
        }
        // A disk need not be large.
        record.installed_size = record.installed_size.min(10_000);
        record.cached = false;
    }
    scene
        .options
        .retain(|option| option.starts_with("-v") || option.starts_with("-q"));
    scene
        .command
        .retain(|word| !word.starts_with("--preupgrade"));
    for word in &mut scene.command {
        if let Some(at) = word.find("><") {
            word.truncate(at);
        }
    }
    scene
}

fn texts(needs: &[Need]) -> String {
    needs.iter().map(Need::text).collect::<Vec<_>>().join(" ")
}

/// Makes the package of a record.
fn made(record: &Record) -> Made {
    let (name, version) = (NAMES[record.name], VERSIONS[record.version]);
    let folder = name.replace('/', "_");
    let mut entries = Vec::new();
    if record.installed_size > 0 {
        entries = vec![
            directory("etc"),
            file(&format!("etc/{folder}.conf"), version),
            directory("opt"),
            directory(&format!("opt/{folder}")),
            file(&format!("opt/{folder}/always"), "the same"),
            file(&format!("opt/{folder}/is-{version}"), version),
        ];
    }
    let mut made = repository::package(name, version, entries).with(|package| {
        package.depends = DependencyList::parse(&texts(&record.depends)).entries;
        package.install_if = DependencyList::parse(&texts(&record.install_if)).entries;
        let provides: Vec<String> = record.provides.iter().map(provide_text).collect();
        package.provides = DependencyList::parse(&provides.join(" ")).entries;
        package.provider_priority = record.priority;
        package.installed_size = record.installed_size;
    });
    if record.name.is_multiple_of(2) {
        for kind in [
            ScriptKind::PreInstall,
            ScriptKind::PostUpgrade,
            ScriptKind::PostDeinstall,
        ] {
            let text = format!("echo {} $APK_PACKAGE \"$@\" >> trace", kind.name());
            made = made.script(kind, &text);
        }
    }
    made
}

impl Real {
    fn new(scene: &Scene) -> Self {
        let scene = settled(scene);
        let sandbox = Sandbox::new();
        let mut real = Self {
            scene,
            sandbox,
            identities: Vec::new(),
            files: Vec::new(),
        };
        let public = include_bytes!("../fixtures/test-only.rsa.pub");
        real.sandbox.write("etc/apk/keys/test-only.rsa.pub", public);
        let mut packages: Vec<Package> = Vec::new();
        for record in &real.scene.records {
            let made = made(record);
            let contents = &made.contents;
            // What an index names is trusted by it; a file on the command line must be signed.
            let key = is_argument(record).then(repository::signing_key);
            let data = package_writer::data_tar(&contents.entries).expect("a tar");
            let data = package_writer::gzip(&data);
            let hash = Sha256::digest(&data).into();
            let bytes = package_writer::assemble(contents, &data, hash, key.as_ref());
            let bytes = bytes.expect("a package");
            let (control, _) =
                PackageReader::open(bytes.as_slice(), &Default::default()).expect("a package");
            let package = Package {
                identity: control.identity,
                size: bytes.len() as u64,
                ..contents.package.clone()
            };
            let path = real.sandbox.beside(&format!("{}.apk", record.full_name()));
            fs::write(&path, bytes).expect("a writable folder");
            real.identities.push(package.identity);
            real.files.push(path);
            packages.push(package);
        }
        for number in 0..real.scene.repositories.len() {
            let folder = real.sandbox.beside(&format!("r{number}/x86_64"));
            fs::create_dir_all(&folder).expect("a new directory");
            let records = real.scene.records.iter().enumerate();
            let listed = records.filter(|(_, record)| record.repositories.contains(&number));
            let mut index = Index {
                description: "made up".into(),
                made: MADE,
                packages: Vec::new(),
            };
            for (at, record) in listed {
                let name = format!("{}.apk", record.full_name());
                fs::hard_link(&real.files[at], folder.join(name)).expect("a new name");
                index.packages.push(packages[at].clone());
            }
            let key = repository::signing_key();
            let bytes = index_writer::write(&index, MADE, Some(&key)).expect("an index");
            fs::write(folder.join("APKINDEX.tar.gz"), bytes).expect("a new file");
        }
        real
    }

    /// Returns the commands and the repositories that are there: each wish of the world, files of
    /// packages, then the command of the scene.
    fn commands(&self) -> Vec<(Vec<usize>, Vec<String>)> {
        let scene = &self.scene;
        let all: Vec<usize> = (0..scene.repositories.len()).collect();
        // The other repositories may come later.
        let first = match scene.cache {
            true => vec![0],
            false => all.clone(),
        };
        let add = |word: String| (first.clone(), vec!["add".to_owned(), word]);
        let mut commands = vec![(first.clone(), vec!["--initdb".into(), "add".into()])];
        commands.extend(scene.world.iter().map(|need| add(need.text())));
        let files = self.argument_files().map(|path| path.display().to_string());
        let files: Vec<String> = files.collect();
        let mut last: Vec<String> = scene.options.iter().map(|w| (*w).to_owned()).collect();
        last.extend(scene.command.iter().cloned());
        match scene.command[0] == "add" {
            true => last.extend(files),
            false => commands.extend(files.into_iter().map(add)),
        }
        commands.push((all, last));
        commands
    }

    fn argument_files(&self) -> impl Iterator<Item = &PathBuf> {
        let records = self.scene.records.iter().zip(&self.files);
        records
            .filter(|(record, _)| is_argument(record))
            .map(|(_, path)| path)
            .take(2)
    }

    /// Writes what names the repositories; returns the words that do.
    fn declare(&self, root: &Path, repositories: &[usize]) -> Vec<String> {
        let mut words = Vec::new();
        let mut lines = String::new();
        for number in repositories {
            let repository = &self.scene.repositories[*number];
            let place = self.sandbox.beside(&format!("r{number}"));
            let tag = match repository.tag {
                0 => String::new(),
                tag => format!("@{} ", TAGS[tag]),
            };
            let line = format!("{tag}{}", place.display());
            match repository.option {
                true => words.extend(["-X".to_owned(), line]),
                false => lines += &format!("{line}\n"),
            }
        }
        fs::write(root.join("etc/apk/repositories"), lines).expect("a writable root");
        words
    }

    /// Runs a program; returns exit code and both outputs, without the path of the root.
    fn run(&self, mut program: Command, root: &Path, words: &[String]) -> (i32, String) {
        program
            .current_dir(self.sandbox.beside(""))
            .arg("--root")
            .arg(root)
            .args(["--arch", "x86_64", "--no-cache", "--force-no-chroot"])
            .args(words)
            .stdin(Stdio::null());
        let output = program.output().expect("the program starts");
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let text = text.join("--- errors\n");
        let text = text.replace(&root.display().to_string(), "$ROOT");
        (output.status.code().unwrap_or(-1), text)
    }

    fn ibex(&self) -> Command {
        let mut command = support::ibex();
        command.env("IBEX_CACHE_DIR", self.sandbox.beside("catalogue"));
        command.arg("--history=no");
        command
    }

    /// Returns a database without the identities that are made up anew each time: of `add -t`.
    fn without_made_up(&self, installed: &str) -> String {
        let known: Vec<String> = self.identities.iter().map(|i| i.to_q1()).collect();
        let line = |line: &str| match line.strip_prefix("C:") {
            Some(hash) if !known.iter().any(|known| known == hash) => "C:made up\n".to_owned(),
            _ => format!("{line}\n"),
        };
        installed.lines().map(line).collect()
    }

    /// Says what is wrong with a root after a command that succeeded.
    fn judge(&self, root: &Path) -> Result<usize, String> {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let mut scene = self.scene.clone();
        let mut hashes = Vec::new();
        for (number, identity) in self.identities.iter().enumerate() {
            hashes.push((identity.to_q1(), number));
        }
        scene.records.extend(scene.made.take());
        let mut chosen = 0;
        let mut count = 0;
        for line in read("lib/apk/db/installed").lines() {
            let Some(hash) = line.strip_prefix("C:") else {
                continue;
            };
            let known = hashes.iter().find(|(known, _)| known == hash);
            let number = match known {
                Some((_, number)) => *number,
                // Only the package of `add -t` has an identity of its own, and it comes last.
                None if scene.records.len() > self.identities.len() => scene.records.len() - 1,
                None => return Err(format!("{hash} is no package of the scene\n")),
            };
            if chosen & 1 << number != 0 {
                return Err(format!(
                    "{} is installed twice\n",
                    scene.records[number].full_name()
                ));
            }
            chosen |= 1 << number;
            count += 1;
        }
        for (number, record) in scene.records.iter_mut().enumerate() {
            record.installed = (chosen & 1 << number != 0).then(Installed::default);
        }
        let mut world = Vec::new();
        for text in read("etc/apk/world").split_whitespace() {
            let text = hashes.iter().fold(text.to_owned(), |text, (hash, number)| {
                text.replace(hash, &checksum(*number))
            });
            let Some(need) = oracle::need(&text) else {
                return Err(format!("the oracle cannot read {text}\n"));
            };
            world.push(need);
        }
        if let Some(rule) = Oracle::new(&scene, &world).broken_rule(chosen, true) {
            return Err(format!("{rule}\n"));
        }
        let mut wanted = BTreeSet::new();
        for (number, record) in self.scene.records.iter().enumerate() {
            if chosen & 1 << number != 0 {
                let made = made(record);
                wanted.extend(made.contents.entries.into_iter().map(|entry| entry.path));
            }
        }
        let found = support::tree(root, 0);
        for path in &wanted {
            if !found.contains_key(path) {
                return Err(format!("{path} is missing\n"));
            }
        }
        let own = ["etc", "opt"];
        let ours = |path: &&String| {
            let known = own.contains(&path.as_str()) || path.starts_with("etc/apk");
            (path.starts_with("etc") || path.starts_with("opt")) && !known
        };
        if let Some(path) = found
            .keys()
            .filter(ours)
            .find(|path| !wanted.contains(*path))
        {
            return Err(format!("{path} is left\n"));
        }
        for name in [".journal", ".switch", ".staged", "cut-scripts"] {
            if found.contains_key(&format!("lib/apk/db/{name}")) {
                return Err(format!("lib/apk/db/{name} is left\n"));
            }
        }
        Ok(count)
    }
}

/// Returns whether the file of a record is given on the command line of `add`.
fn is_argument(record: &Record) -> bool {
    record.size == 10
}

/// A root but for its log and what is read only.
fn state(root: &Path) -> BTreeMap<String, String> {
    let mut tree = support::tree(root, 0);
    tree.retain(|path, _| !path.starts_with("var") && path != "lib/apk/db/lock");
    tree.remove("etc/apk/repositories");
    tree
}

fn steps(text: &str) -> Vec<&str> {
    let step = |line: &&str| line.starts_with('(') && line.contains('/');
    text.lines().filter(step).collect()
}

/// Runs the commands of a scene and judges each.
fn check(scene: &Scene, tally: &Tally) -> Result<(), String> {
    let real = Real::new(scene);
    let root = real.sandbox.root();
    for (repositories, words) in real.commands() {
        let told = |text: &str| format!("$ {}\n{text}", words.join(" "));
        let given = [real.declare(&root, &repositories), words.clone()].concat();
        let before = state(&root);
        let simulated: Vec<String> = match words[0].as_str() {
            // There is no database to simulate with yet.
            "--initdb" => Vec::new(),
            _ => {
                let (_, text) = real.run(
                    real.ibex(),
                    &root,
                    &[&["-s".to_owned()], &given[..]].concat(),
                );
                steps(&text).into_iter().map(str::to_owned).collect()
            }
        };
        let (code, text) = real.run(real.ibex(), &root, &given);
        let after = state(&root);
        if code != 0 {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            let mut unchanged = before == after;
            if words[0] == "--initdb" {
                unchanged |=
                    !root.join("lib/apk/db/installed").exists() && !root.join("opt").exists();
            }
            if !unchanged {
                let lines = support::differences(&before, &after).join("\n");
                return Err(told(&format!(
                    "exit code {code}\n{text}changed:\n{lines}\n"
                )));
            }
            continue;
        }
        tally.done.fetch_add(1, Ordering::Relaxed);
        let count = real
            .judge(&root)
            .map_err(|rule| told(&format!("{text}{rule}")))?;
        tally
            .changes
            .fetch_add(usize::from(before != after), Ordering::Relaxed);
        if words.iter().any(|word| word.ends_with(".apk")) && count > 0 {
            tally.from_files.fetch_add(1, Ordering::Relaxed);
        }
        if words[0] != "--initdb" && steps(&text) != simulated {
            return Err(told(&format!(
                "{text}but --simulate said\n{}\n",
                simulated.join("\n")
            )));
        }
    }
    Ok(())
}

/// Lets another apk do the same on a copy.
fn compare(scene: &Scene, peer: &str) -> Result<(), String> {
    let real = Real::new(scene);
    let (ours, theirs) = (real.sandbox.root(), real.sandbox.beside("theirs"));
    support::run(Command::new("cp").arg("-a").args([&ours, &theirs])).success();
    for (repositories, words) in real.commands() {
        let mut outcomes = Vec::new();
        for (root, is_peer) in [(&ours, false), (&theirs, true)] {
            let given = [real.declare(root, &repositories), words.clone()].concat();
            let mut program = match is_peer {
                false => real.ibex(),
                true => Command::new(peer),
            };
            match is_peer {
                false => program.arg("--solver=apk"),
                true => program
                    .env_clear()
                    .env("APK_CONFIG", "/dev/null")
                    .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            };
            let (code, text) = real.run(program, root, &given);
            let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
            let mut tree = state(root);
            // Its own files are compared by what they say.
            tree.retain(|path, _| !path.starts_with("lib/apk") && path != "lib");
            let tree: Vec<String> = tree
                .into_iter()
                .map(|(path, row)| format!("{path}\t{row}\n"))
                .collect();
            outcomes.push(format!(
                "exit code {code}\n{text}--- world\n{}--- installed\n{}--- trace\n{}--- tree\n{}",
                read("etc/apk/world"),
                real.without_made_up(&read("lib/apk/db/installed")),
                read("trace"),
                tree.concat()
            ));
        }
        let [ours, theirs] = &outcomes[..] else {
            unreachable!("there are two")
        };
        if ours != theirs {
            let words = words.join(" ");
            let (ours, theirs): (Vec<&str>, Vec<&str>) =
                (ours.lines().collect(), theirs.lines().collect());
            let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
            let from = same.saturating_sub(12);
            let part = |lines: &[&str]| {
                let part: Vec<&str> = lines.iter().skip(from).take(24).copied().collect();
                part.join("\n")
            };
            return Err(format!(
                "$ {words}\n--- wanted, from line {from}\n{}\n--- found\n{}\n",
                part(&theirs),
                part(&ours)
            ));
        }
    }
    Ok(())
}

#[test]
fn what_is_carried_out_breaks_no_rule() {
    if !support::is_root() {
        return;
    }
    let tally = Tally::default();
    for (seed, tags) in [(1, false), (2, true)] {
        let profile = Profile { tags, ..REAL };
        scene_strategy::check_all(profile, seed, CASES / 2, |scene| check(scene, &tally));
    }
    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    let (done, refused) = (count(&tally.done), count(&tally.refused));
    let (changes, from_files) = (count(&tally.changes), count(&tally.from_files));
    eprintln!("{done} done, {changes} with changes, {from_files} from files, {refused} refused");
    assert!(changes > CASES / 2, "{changes} changes");
    assert!(refused > CASES / 10, "{refused} refused");
    assert!(from_files > CASES / 20, "{from_files} from package files");
}

#[test]
fn random_commits_leave_what_apk_leaves() {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(peer) = variable("APK_PEER") else {
        eprintln!("skipped: APK_PEER names no apk to compare with");
        return;
    };
    if !support::is_root() {
        return;
    }
    let number = |name, default| {
        let text = variable(name);
        text.and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let cases = number("APK_PEER_CASES", 300);
    let seed = number("APK_PEER_SEED", 0);
    for tags in [false, true] {
        let profile = Profile { tags, ..REAL };
        scene_strategy::check_all(profile, seed as u64, cases / 2, |scene| {
            compare(scene, &peer)
        });
    }
}
