//! Runs a command line against the solver alone: small parsers for the text forms, and the part
//! of the command line that the solver cases use. Nothing is read from a root.

use ibex::package::table::PackageTable;
use ibex::package::version::Version;
use ibex::package::{
    Acl, DependencyError, DependencyList, Identity, InstalledDb, InstalledDirectory, InstalledFile,
    InstalledPackage, Package, World,
};
use ibex::plan::{Plan, Source};
use ibex::solver::{self, Registered, RepositoryInput, Request, Sources, Universe};
use std::sync::Arc;

/// A situation: what is there, and what was typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Situation {
    /// Text of the world file.
    pub world: String,
    /// Text of the installed database.
    pub installed: String,
    /// Tag and text of each repository.
    pub repositories: Vec<(Option<String>, String)>,
    /// Text of the cache's `installed` index; without it there is no cache.
    pub cache: Option<String>,
    /// Name and size of the package files in the cache.
    pub cache_files: Vec<(String, u64)>,
    /// The words after the program's name.
    pub arguments: Vec<String>,
}

/// What was decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decision {
    /// The world that was asked for.
    pub world: World,
    /// What is installed in the end, by apk's rules.
    pub greedy: Option<Vec<Identity>>,
    /// The same by the complete search, where apk's rules give up.
    pub complete: Option<Vec<Identity>>,
    /// Why there is neither.
    pub explanation: Option<String>,
}

/// What a command printed, both streams together, and its exit status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    pub text: String,
    pub status: u32,
}

/// Reads records of an index or an installed database; `false` if reading stopped early.
pub(crate) fn read_records(text: &str) -> (Vec<InstalledPackage>, bool) {
    let mut records = Vec::new();
    let mut current: Option<InstalledPackage> = None;
    let mut has = [false; 3];
    let mut finish = |current: &mut Option<InstalledPackage>, has: &mut [bool; 3]| {
        let Some(record) = current.take() else {
            return true;
        };
        let [name, version, checksum] = std::mem::take(has);
        if !name {
            return true;
        }
        if !version || !checksum {
            return false;
        }
        records.push(record);
        true
    };
    let mut complete = true;
    for line in text.split('\n') {
        if line.len() < 2 {
            if !finish(&mut current, &mut has) {
                complete = false;
                break;
            }
            continue;
        }
        if line.as_bytes()[1] != b':' {
            complete = false;
            current = None;
            break;
        }
        let record = current.get_or_insert_default();
        let (letter, value) = (line.as_bytes()[0], &line[2..]);
        let package = &mut record.package;
        let number = || value.parse::<u64>().unwrap_or(0);
        match letter {
            b'P' => (package.name, has[0]) = (value.to_owned(), true),
            b'V' => (package.version, has[1]) = (value.to_owned(), true),
            b'C' => {
                package.identity = Identity::parse(value).unwrap_or_default();
                has[2] = true;
            }
            b'A' => package.arch = Some(value.to_owned()),
            b'S' => package.size = number(),
            b'I' => package.installed_size = number(),
            b'k' => package.provider_priority = number() as u16,
            b'D' | b'p' | b'i' => {
                let list = DependencyList::parse(value);
                let broken = list.malformed || list.has_broken();
                package.flaws.broken_list |= broken;
                match letter {
                    b'D' => {
                        package.flaws.uninstallable |= broken;
                        package.depends.extend(list.entries);
                    }
                    b'p' => package.provides.extend(list.entries),
                    _ if broken => package.install_if.clear(),
                    _ => package.install_if.extend(list.entries),
                }
            }
            b'r' => package.replaces = DependencyList::parse(value).entries,
            b's' => record.pinned_tag = Some(value.to_owned()),
            b'f' => {
                record.broken.files = value.contains('f');
                record.broken.script = value.contains('s');
                record.broken.xattrs = value.contains('x');
            }
            b'F' => record.directories.push(InstalledDirectory {
                path: value.to_owned(),
                acl: Acl::directory_default(),
                files: Vec::new(),
            }),
            b'R' => {
                let files = record.directories.last_mut().map(|d| &mut d.files);
                files
                    .expect("a directory before its files")
                    .push(InstalledFile {
                        name: value.to_owned(),
                        acl: Acl::file_default(),
                        digest: None,
                    });
            }
            b'T' | b'U' | b'L' | b'o' | b'm' | b't' | b'c' | b'g' | b'M' | b'a' | b'Z' | b'q' => {}
            other => {
                package.flaws.unknown_field = true;
                package.flaws.uninstallable |= other.is_ascii_uppercase();
            }
        }
    }
    if complete {
        complete = finish(&mut current, &mut has);
    }
    (records, complete)
}

/// Splits a command line at white space.
pub(crate) fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split_whitespace().map(str::to_owned)
}

#[derive(Default)]
struct Arguments {
    verbosity: i32,
    no_network: bool,
    root_tmpfs: bool,
    force_broken_world: bool,
    interactive: bool,
    applet: String,
    names: Vec<String>,
    flags: Vec<char>,
    virtual_package: Option<String>,
    preupgrade_only: bool,
    no_preupgrade: bool,
    preupgrade_depends: Vec<String>,
    prune: bool,
    ignore: bool,
}

fn arguments(all: &[String]) -> Arguments {
    let mut parsed = Arguments {
        verbosity: 1,
        ..Arguments::default()
    };
    let mut rest = all.iter();
    while let Some(word) = rest.next() {
        if let Some(long) = word.strip_prefix("--") {
            match long {
                "no-network" => parsed.no_network = true,
                "root-tmpfs=yes" => parsed.root_tmpfs = true,
                "force-broken-world" => parsed.force_broken_world = true,
                "interactive" => parsed.interactive = true,
                "verbose" => parsed.verbosity += 1,
                "quiet" => parsed.verbosity -= 1,
                "upgrade" => parsed.flags.push('u'),
                "latest" => parsed.flags.push('l'),
                "available" => parsed.flags.push('a'),
                "rdepends" => parsed.flags.push('r'),
                "reinstall" => parsed.flags.push('r'),
                "depends" => parsed.flags.push('d'),
                "xattr" => parsed.flags.push('x'),
                "prune" => parsed.prune = true,
                "ignore" => parsed.ignore = true,
                "virtual" => parsed.virtual_package = rest.next().cloned(),
                "self-upgrade-only" | "preupgrade-only" => parsed.preupgrade_only = true,
                "no-self-upgrade" | "no-preupgrade" => parsed.no_preupgrade = true,
                "preupgrade-depends" => parsed.preupgrade_depends.extend(rest.next().cloned()),
                other => panic!("option --{other} is not known here"),
            }
        } else if let Some(short) = word.strip_prefix('-').filter(|s| !s.is_empty()) {
            for letter in short.chars() {
                match letter {
                    'v' => parsed.verbosity += 1,
                    'q' => parsed.verbosity -= 1,
                    'i' => parsed.interactive = true,
                    't' => parsed.virtual_package = rest.next().cloned(),
                    other => parsed.flags.push(other),
                }
            }
        } else if parsed.applet.is_empty() {
            parsed.applet = word.clone();
        } else {
            parsed.names.push(word.clone());
        }
    }
    parsed.verbosity = parsed.verbosity.max(0);
    parsed
}

/// Runs a simulated command.
pub(crate) fn run(situation: &Situation) -> Printed {
    let arguments = arguments(&situation.arguments);
    let mut run = Run::new(&arguments);
    let status = run.main(situation).unwrap_or_else(|status| status);
    Printed {
        text: run.text,
        status: status.min(99),
    }
}

/// Returns what a command decides, with the complete search where apk's rules give up; `None` if it
/// comes to no decision.
pub(crate) fn decide(situation: &Situation) -> Option<Decision> {
    let arguments = arguments(&situation.arguments);
    let mut run = Run::new(&arguments);
    run.decision = Some(None);
    let _ = run.main(situation);
    run.decision.flatten()
}

struct Run<'s> {
    arguments: &'s Arguments,
    text: String,
    installed: InstalledDb,
    /// Where the decision goes, if it is asked for.
    decision: Option<Option<Decision>>,
}

impl<'s> Run<'s> {
    fn new(arguments: &'s Arguments) -> Self {
        Self {
            arguments,
            text: String::new(),
            installed: InstalledDb::default(),
            decision: None,
        }
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn fail(&mut self, text: impl std::fmt::Display) -> u32 {
        self.line(&format!("ERROR: {text}"));
        99
    }

    fn main(&mut self, situation: &Situation) -> Result<u32, u32> {
        let world = self.world(&situation.world)?;
        let (packages, _) = read_records(&situation.installed);
        self.installed.packages = packages;
        let mut sources = Sources {
            installed: solver::InstalledInput::from_db(&self.installed),
            architectures: vec!["x86_64".to_owned()],
            cache_files: situation.cache_files.iter().cloned().collect(),
            ..Sources::default()
        };
        if let Some(text) = situation
            .cache
            .as_ref()
            .filter(|_| self.arguments.root_tmpfs)
        {
            sources.remembered = Some(Arc::new(table(&read_records(text).0)));
        }
        for (tag, text) in &situation.repositories {
            let (records, loaded) = read_records(text);
            if !loaded {
                self.line("WARNING: opening a repository: v2 database format error");
            }
            sources.repositories.push(RepositoryInput {
                table: Arc::new(table(&records)),
                tags: vec![tag.clone()],
                loaded,
                reachable: !self.arguments.no_network,
                local: false,
                url: String::new(),
            });
        }
        for warning in sources.warnings() {
            self.line(&format!("WARNING: {warning}"));
        }
        match self.arguments.applet.as_str() {
            "add" => self.add(sources, &world, situation.cache.is_some()),
            "del" => self.del(&sources, &world),
            "upgrade" => self.upgrade(&sources, &world),
            "fix" => self.fix(&sources, &world),
            other => panic!("applet {other} is not known here"),
        }
    }

    fn world(&mut self, text: &str) -> Result<World, u32> {
        World::parse(text).map_err(|(_, error): (String, DependencyError)| {
            self.fail(format!("Unable to read database: {error}"));
            self.fail(format!("Failed to open apk database: {error}"))
        })
    }

    fn has(&self, flag: char) -> bool {
        self.arguments.flags.contains(&flag)
    }

    fn add(&mut self, mut sources: Sources, world: &World, has_cache: bool) -> Result<u32, u32> {
        let arguments = self.arguments;
        let given = arguments.names.iter().filter(|name| !name.is_empty());
        let safe = !arguments.root_tmpfs || has_cache;
        let made = match &arguments.virtual_package {
            Some(text) => {
                let made = solver::VirtualPackage::parse(text, "20260101.000000", safe);
                Some(made.map_err(|error| self.fail(error))?)
            }
            None => None,
        };
        let parse = match made {
            Some(_) => solver::parse_package_argument,
            None => solver::parse_world_argument,
        };
        let mut entries = Vec::new();
        for text in given {
            entries.push(parse(text).map_err(|error| self.fail(error))?);
        }
        if let Some(made) = made {
            if entries.is_empty() {
                self.line("WARNING: creating empty virtual package");
            }
            let package = made.package(&entries, Identity([255; 20]));
            sources.registered = solver::RegisteredInput::new(&[(package, Registered::Virtual)]);
            entries = vec![made.entry];
        }
        let mut universe = Universe::new(&sources, world);
        let options = solver::AddOptions {
            upgrade: self.has('u'),
            latest: self.has('l'),
        };
        let request = solver::add(&mut universe, world, &entries, options);
        self.commit(&mut universe, request, None)
    }

    fn del(&mut self, sources: &Sources, world: &World) -> Result<u32, u32> {
        let mut universe = Universe::new(sources, world);
        let names = &self.arguments.names;
        let deletion = solver::del(&mut universe, world, names, self.has('r'))
            .map_err(|unknown| self.unknown(unknown.del_lines().collect()))?;
        let request = deletion.request.clone();
        self.commit(&mut universe, request, Some((world, &deletion)))
    }

    fn unknown(&mut self, lines: Vec<String>) -> u32 {
        for line in &lines {
            self.fail(line);
        }
        lines.len() as u32
    }

    fn upgrade(&mut self, sources: &Sources, world: &World) -> Result<u32, u32> {
        let arguments = self.arguments;
        let mut universe = Universe::new(sources, world);
        if !arguments.force_broken_world
            && self.missing_tags(
                &universe,
                world,
                "Not continuing with upgrade due to missing repository tags.",
            )
        {
            return Err(99);
        }
        let options = solver::UpgradeOptions {
            available: self.has('a'),
            latest: self.has('l'),
            prune: arguments.prune,
            ignore: arguments.ignore,
        };
        let mut marks = Vec::new();
        if arguments.preupgrade_only && !arguments.names.is_empty() {
            return Ok(0);
        }
        if arguments.preupgrade_only && !arguments.no_preupgrade {
            let program = self.installed.packages.iter().find(|package| {
                let mut directories = package.directories.iter();
                directories
                    .any(|d| d.path == "proc/self" && d.files.iter().any(|f| f.name == "exe"))
            });
            let program = program.map(|package| package.package.name.clone());
            let depends = &arguments.preupgrade_depends;
            let first =
                solver::preupgrade(&mut universe, world, program.as_deref(), depends, options);
            for warning in first.warnings {
                self.line(&format!("WARNING: {warning}"));
            }
            if let Some(mut request) = first.request {
                request.options.force_broken_world = arguments.force_broken_world;
                marks.clone_from(&request.marks);
                let solution = solver::solve(&mut universe, &request);
                if solution.errors > 0 {
                    self.line(
                        "WARNING: Failed to perform initial preupgrade, continuing with a full \
                         upgrade.",
                    );
                } else {
                    let plan = Plan::from_solution(&universe, &solution, |_| Source::None);
                    if plan.changes.iter().any(|change| change.verb().is_some()) {
                        if arguments.verbosity > 0 {
                            self.line("Preupgrading:");
                        }
                        return self.print(&universe, &solution);
                    }
                }
            }
            return Ok(0);
        }
        let request = solver::upgrade(&mut universe, world, &arguments.names, options, &marks)
            .map_err(|unknown| self.unknown(unknown.lines().collect()))?;
        self.commit(&mut universe, request, None)
    }

    fn fix(&mut self, sources: &Sources, world: &World) -> Result<u32, u32> {
        let mut universe = Universe::new(sources, world);
        let options = solver::FixOptions {
            reinstall: self.has('r'),
            upgrade: self.has('u'),
            depends: self.has('d'),
            xattr: self.has('x'),
        };
        let request = solver::fix(&mut universe, world, &self.arguments.names, options)
            .map_err(|unknown| self.unknown(unknown.lines().collect()))?;
        self.commit(&mut universe, request, None)
    }

    fn missing_tags(&mut self, universe: &Universe<'_>, world: &World, error: &str) -> bool {
        let missing = solver::missing_tags(universe, world);
        for warning in &missing {
            self.line(&format!("WARNING: {warning}"));
        }
        if !missing.is_empty() {
            self.fail(error);
        }
        !missing.is_empty()
    }

    fn refuse_missing_tags(&mut self, universe: &Universe<'_>, world: &World) -> Result<(), u32> {
        let error = "Not committing changes due to missing repository tags.";
        if !self.arguments.force_broken_world && self.missing_tags(universe, world, error) {
            return Err(99);
        }
        Ok(())
    }

    fn commit(
        &mut self,
        universe: &mut Universe<'_>,
        mut request: Request,
        deletion: Option<(&World, &solver::Deletion)>,
    ) -> Result<u32, u32> {
        request.options.force_broken_world = self.arguments.force_broken_world;
        if deletion.is_none() {
            self.refuse_missing_tags(universe, &request.world)?;
        }
        let solution = solver::solve(universe, &request);
        if let Some(decision) = &mut self.decision {
            *decision = Some(decide_all(universe, &request, &solution));
        }
        if solution.errors > 0 {
            self.fail(solver::TITLE);
            let report = solver::report(universe, &solution, 50);
            self.text.push_str(&report);
            return Err(solution.errors);
        }
        if let Some((world, deletion)) = deletion {
            let verbosity = self.arguments.verbosity as u32;
            if verbosity > 0 && !deletion.names.is_empty() {
                let text = solver::kept(universe, world, deletion, &solution, verbosity, 50);
                self.text.push_str(&text);
            }
            self.refuse_missing_tags(universe, &request.world)?;
        }
        self.print(universe, &solution)
    }

    fn print(&mut self, universe: &Universe<'_>, solution: &solver::Solution) -> Result<u32, u32> {
        let verbosity = self.arguments.verbosity as u32;
        if verbosity > 1 || self.arguments.interactive {
            let style = solver::SummaryStyle {
                verbosity,
                interactive: self.arguments.interactive,
                width: 50,
            };
            let summary = solver::summary(universe, solution, style);
            self.text.push_str(&summary.text);
        }
        let totals = solver::Totals::of_simulation(universe, solution);
        if verbosity > 0 {
            let plan = Plan::from_solution(universe, solution, |_| Source::None);
            for line in plan.step_lines() {
                self.line(&line);
            }
            let last = if verbosity > 1 {
                totals.detailed_line(
                    self.installed.directory_count(),
                    self.installed.file_count(),
                )
            } else {
                totals.line()
            };
            self.line(&last);
        }
        Ok(totals.errors)
    }
}

fn decide_all(
    universe: &mut Universe<'_>,
    request: &Request,
    solution: &solver::Solution,
) -> Decision {
    let identities = |universe: &Universe<'_>, solution: &solver::Solution| -> Vec<Identity> {
        solution
            .selected()
            .map(|package| universe.identity(package))
            .collect()
    };
    let mut decision = Decision {
        world: request.world.clone(),
        ..Decision::default()
    };
    if solution.errors == 0 {
        decision.greedy = Some(identities(universe, solution));
    } else if let Some(solution) = solver::solve_completely(universe, request) {
        decision.complete = Some(identities(universe, &solution));
    } else {
        decision.explanation = solver::explain(universe, request).map(|e| e.to_string());
    }
    decision
}

fn table(records: &[InstalledPackage]) -> PackageTable {
    let packages: Vec<Package> = records.iter().map(|r| r.package.clone()).collect();
    PackageTable::build(&packages)
}

/// Returns whether a line of `version.data` states a truth.
pub(crate) fn version_line_holds(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (Some(first), second, third) = (words.next(), words.next(), words.next()) else {
        return true;
    };
    let (Some(operator), Some(other)) = (second, third) else {
        return match first.strip_prefix('!') {
            Some(text) => !Version(text).is_valid(),
            None => Version(first).is_valid(),
        };
    };
    let (wanted, operator) = match operator.strip_prefix('!') {
        Some(operator) => (false, operator),
        None => (true, operator),
    };
    let expression = format!("x{operator}{other}");
    let dependency = ibex::package::Dependency::parse(&expression).expect("an expression");
    dependency.accepts(first, Identity::default()) == wanted
}
