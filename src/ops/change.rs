//! `add`, `del`, `upgrade` and `fix` are one path: edit the world, solve, plan, commit.

use super::Error;
use super::database::{Database, OpenOptions};
use super::download::{self, PackageFiles};
use super::history::{self, Moment, Recorder};
use super::log::LogTee;
use super::package_file;
use super::refresh::{self, LoadedRepositories, Purpose};
use crate::config::{CacheDirectory, Settings};
use crate::fetch::{Depth, LoadedIndex};
use crate::package::{Dependency, Identity, InstalledDb, Operator, PackageTable, World};
use crate::plan::{Plan, Source};
use crate::progress::{Event, Level, PlannedChange, PlannedKind, Sink};
use crate::solver::{
    self, AddOptions, Deletion, DifferenceKind, FixOptions, InstalledInput, Registered,
    RegisteredInput, RepositoryInput, Request, Solution, Sources, SummaryStyle, Totals, Universe,
    UpgradeOptions, VirtualPackage,
};
use crate::transaction::{self, Transaction, TransactionError};
use serde::Serialize;
use sha1::{Digest, Sha1};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a root keeps copies of indexes that can be fetched again.
const INDEX_COPIES: &str = "var/cache/apk";

/// With less room than this, in bytes, a removal may not get through.
const FULL: u64 = 128 << 10;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Command {
    /// `add`.
    Add {
        /// Constraints and package files.
        arguments: Vec<String>,
        /// `-u`, `-l`.
        options: AddOptions,
        /// `-t`.
        virtual_package: Option<String>,
    },
    /// `del`.
    Del {
        /// Names and patterns.
        arguments: Vec<String>,
        /// `-r`.
        rdepends: bool,
    },
    /// `upgrade`.
    Upgrade {
        /// Names and patterns.
        arguments: Vec<String>,
        /// `-a`, `-l`, `--prune`, `--ignore`.
        options: UpgradeOptions,
        /// `--preupgrade`.
        preupgrade: bool,
        /// `--preupgrade-only`.
        preupgrade_only: bool,
        /// `--preupgrade-depends`.
        preupgrade_depends: Vec<String>,
    },
    /// `fix`.
    Fix {
        /// Names and patterns.
        arguments: Vec<String>,
        /// `-r`, `-u`, `-d`, `-x`.
        options: FixOptions,
        /// `--directory-permissions`.
        directory_permissions: bool,
    },
    /// `undo`, `rollback`.
    Return(Moment),
}

/// Which search decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SolverChoice {
    /// apk's own search only.
    Apk,
    /// A complete search where apk's gives up; but what is asked for with `--latest` is the
    /// newest or nothing.
    #[default]
    Auto,
    /// A complete search wherever apk's gives up.
    Complete,
}

/// Whether and how to say why there is no solution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explain {
    /// Only apk's report.
    #[default]
    No,
    /// In words.
    Text,
    /// As one line of JSON.
    Json,
}

/// How a change is made.
#[derive(Clone, Debug)]
pub struct ChangeOptions {
    /// What is asked for.
    pub command: Command,
    /// `--initdb`.
    pub create: bool,
    /// `--usermode`.
    pub usermode: bool,
    /// Show what would happen, change nothing.
    pub simulate: bool,
    /// Verbosity; 1 is normal.
    pub verbosity: u8,
    /// Width to wrap lists at.
    pub width: usize,
    /// Ask before anything is changed.
    pub interactive: bool,
    /// Tell what is about to be changed as [`Event::Plan`] instead of as text.
    pub show_plan: bool,
    /// Which search decides.
    pub solver: SolverChoice,
    /// Explain why there is no solution.
    pub explain: Explain,
    /// `--force-broken-world`.
    pub force_broken_world: bool,
    /// `--force-missing-repositories`.
    pub force_missing_repositories: bool,
    /// `--force-non-repository`.
    pub force_non_repository: bool,
    /// `--force-old-apk`.
    pub force_old_apk: bool,
    /// `--cache-predownload`.
    pub predownload: bool,
    /// Write the log.
    pub log: bool,
    /// `--wait`.
    pub wait: Option<Duration>,
    /// `--sync`, if given.
    pub sync: Option<bool>,
    /// How files are put in place.
    pub transaction: transaction::Options,
    /// Keep a history, and the packages that leave in this many transactions; `None`: neither.
    pub history: Option<u32>,
    /// Signals that ask to stop.
    pub interrupt: transaction::Interrupt,
    /// The command line, for the log.
    pub command_line: Vec<String>,
    /// The version line, for the log.
    pub version: String,
    /// This process was started by a preupgrade: no second one, no refresh.
    pub after_preupgrade: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit with this code.
    Done(u8),
    /// The program itself was replaced: run the same command with the new one.
    RunAgain,
}

/// What a change came to, for programs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Nothing was done; it only shows what would be done.
    pub simulated: bool,
    /// The packages that change, in order.
    pub changes: Vec<crate::history::Changed>,
    /// The entries of the world afterwards.
    pub world: Vec<String>,
    /// Files that scripts had changed and that stay as they are.
    pub left_as_they_are: Vec<crate::history::ChangedFile>,
    /// Files that come back as they were when they left, not as their package brought them.
    pub changed_in_place: Vec<String>,
    /// Repository files that somebody changed since, and that stay as they are.
    pub changed_since: Vec<String>,
    /// Steps that failed, or what stands against a solution.
    pub errors: u32,
    /// Why there is no solution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contradictions: Vec<solver::Contradiction>,
}

/// Asks a yes-or-no question; `true` is yes.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> bool;

/// Makes a change.
///
/// # Errors
/// [`enum@Error`]; the root is as before, except where the error says otherwise.
pub fn run(
    settings: &Settings,
    options: &ChangeOptions,
    sink: &mut dyn Sink,
    ask: Ask<'_>,
) -> Result<Outcome, Error> {
    run_reported(settings, options, sink, ask).map(|(outcome, _)| outcome)
}

/// Makes a change and tells what it came to.
///
/// # Errors
/// As [`run`].
pub fn run_reported(
    settings: &Settings,
    options: &ChangeOptions,
    sink: &mut dyn Sink,
    ask: Ask<'_>,
) -> Result<(Outcome, Report), Error> {
    let open = OpenOptions {
        create: options.create,
        usermode: options.usermode,
        write: !options.simulate,
        wait: options.wait,
        log: options.log,
        force_old_apk: options.force_old_apk,
        scripts: !options.simulate,
    };
    let mut database = Database::open(&settings.root, &open, sink)?;
    let log = database.log.take();
    let mut tee = LogTee::begin(
        sink,
        log,
        options.verbosity,
        &options.command_line,
        &options.version,
    );
    let mut settings = settings.clone();
    let mut changed_since = Vec::new();
    if let Command::Return(moment) = options.command {
        // The earlier packages come from the earlier repositories.
        let back = history::files_back(&database.root, moment)?;
        settings.sources.replaced.extend(back.texts);
        changed_since = back.changed_since;
    }
    let mut change = Change::new(&settings, options, database)?;
    change.report.borrow_mut().changed_since = changed_since;
    let outcome = change.run(&mut tee, ask)?;
    Ok((outcome, change.report.into_inner()))
}

/// A change under way.
struct Change<'a> {
    settings: &'a Settings,
    options: &'a ChangeOptions,
    database: Database,
    architectures: crate::config::Architectures,
    cache: Option<CacheDirectory>,
    keyring: crate::trust::Keyring,
    /// Packages that come back from what the root kept.
    kept: HashSet<Identity>,
    report: RefCell<Report>,
    /// Indexes were read again because packages were not there as they list them.
    read_again: bool,
}

/// How a run of the solver ended.
enum Solved {
    Solution(Box<Solution>),
    Failed(u8),
}

impl<'a> Change<'a> {
    fn new(
        settings: &'a Settings,
        options: &'a ChangeOptions,
        database: Database,
    ) -> Result<Self, Error> {
        let unreadable = |error: crate::root::RootError| Error::Database {
            cause: error.cause(),
        };
        let root = &database.root;
        let architectures = settings.architectures(root, false).map_err(unreadable)?;
        let cache = settings
            .cache_directory(root)
            .map_err(|error| Error::Cache {
                cause: error.cause(),
            })?;
        if let (Some(cache), false) = (&cache, options.simulate)
            && cache.path.starts_with(root.path().join(INDEX_COPIES))
        {
            root.create_directories(INDEX_COPIES)
                .map_err(|error| Error::Cache {
                    cause: error.cause(),
                })?;
        }
        let keyring = settings.keyring(root).map_err(unreadable)?;
        Ok(Self {
            settings,
            options,
            database,
            architectures,
            cache,
            keyring,
            kept: HashSet::new(),
            report: RefCell::default(),
            read_again: false,
        })
    }

    /// Makes the change. If mirrors turn out not to have what their indexes list, they have
    /// changed since: the indexes are read again, and all is decided anew, once.
    fn run(&mut self, sink: &mut dyn Sink, ask: Ask<'_>) -> Result<Outcome, Error> {
        match self.attempt(sink, &mut *ask) {
            Err(Error::Outdated { lines }) => {
                for line in &lines {
                    sink.warning(line);
                }
                sink.warning("the mirrors changed since their indexes were read: once more");
                self.read_again = true;
                self.attempt(sink, ask)
            }
            other => other,
        }
    }

    fn attempt(&mut self, sink: &mut dyn Sink, ask: Ask<'_>) -> Result<Outcome, Error> {
        let repositories = self.repositories(sink)?;
        let mut sources = self.sources(&repositories);
        for warning in sources.warnings() {
            sink.warning(warning);
        }
        let world = self.database.world.clone();
        match &self.options.command.clone() {
            Command::Add {
                arguments,
                options,
                virtual_package,
            } => {
                let (entries, files) =
                    self.add_entries(&mut sources, arguments, virtual_package.as_deref(), sink)?;
                let mut universe = Universe::new(&sources, &world);
                let request = solver::add(&mut universe, &world, &entries, *options);
                self.commit(
                    &mut universe,
                    request,
                    None,
                    &repositories,
                    &files,
                    sink,
                    ask,
                )
            }
            Command::Del {
                arguments,
                rdepends,
            } => {
                let mut universe = Universe::new(&sources, &world);
                let given: Vec<String> = arguments
                    .iter()
                    .filter(|word| !word.is_empty())
                    .cloned()
                    .collect();
                let deletion = solver::del(&mut universe, &world, &given, *rdepends)
                    .map_err(|unknown| unknown_names(unknown.del_lines().collect()))?;
                let request = deletion.request.clone();
                self.commit(
                    &mut universe,
                    request,
                    Some((&world, &deletion)),
                    &repositories,
                    &HashMap::new(),
                    sink,
                    ask,
                )
            }
            Command::Upgrade {
                arguments, options, ..
            } => {
                let mut universe = Universe::new(&sources, &world);
                self.check_upgrade(&universe, &world, &repositories, sink)?;
                let marks = match self.preupgrade(&mut universe, &repositories, sink, ask)? {
                    Preupgraded::Done(outcome) => return Ok(outcome),
                    Preupgraded::GoOn(marks) => marks,
                };
                let request = solver::upgrade(&mut universe, &world, arguments, *options, &marks)
                    .map_err(|unknown| unknown_names(unknown.lines().collect()))?;
                self.commit(
                    &mut universe,
                    request,
                    None,
                    &repositories,
                    &HashMap::new(),
                    sink,
                    ask,
                )
            }
            Command::Return(moment) => self.go_back(*moment, sources, &repositories, sink, ask),
            Command::Fix {
                arguments, options, ..
            } => {
                let mut universe = Universe::new(&sources, &world);
                let given: Vec<String> = arguments
                    .iter()
                    .filter(|word| !word.is_empty())
                    .cloned()
                    .collect();
                let request = solver::fix(&mut universe, &world, &given, *options)
                    .map_err(|unknown| unknown_names(unknown.lines().collect()))?;
                self.commit(
                    &mut universe,
                    request,
                    None,
                    &repositories,
                    &HashMap::new(),
                    sink,
                    ask,
                )
            }
        }
    }

    fn repositories(&self, sink: &mut dyn Sink) -> Result<LoadedRepositories, Error> {
        let refreshes = !self.options.simulate
            && !self.options.after_preupgrade
            && !matches!(
                self.options.command,
                Command::Del { .. } | Command::Return(_)
            );
        let purpose = if refreshes {
            Purpose::Write
        } else {
            Purpose::Read
        };
        let arch = self
            .architectures
            .list
            .first()
            .map_or(crate::config::ARCH, String::as_str);
        let mut settings = self.settings.clone();
        settings.force_refresh |= self.read_again;
        // What is only shown needs no descriptions to be recorded.
        let depth = match self.options.simulate {
            true => Depth::Choice,
            false => Depth::Details,
        };
        let context = refresh::Context {
            root: &self.database.root,
            settings: &settings,
            arch,
            keyring: &self.keyring,
            cache: self.cache.as_ref(),
        };
        refresh::load(context, purpose, depth, sink).map_err(|error| Error::Database {
            cause: error.cause(),
        })
    }

    /// Returns whether indexes may be read again because of packages that are not there.
    fn may_read_again(&self) -> bool {
        let decides = matches!(
            self.options.command,
            Command::Add { .. } | Command::Upgrade { .. } | Command::Fix { .. }
        );
        decides && self.settings.network && !self.read_again && !self.options.after_preupgrade
    }

    /// Returns the package cache, if it is active.
    fn package_cache(&self) -> Option<&CacheDirectory> {
        self.cache.as_ref().filter(|cache| cache.packages)
    }

    fn sources(&self, repositories: &LoadedRepositories) -> Sources {
        let mut sources = solver_sources(repositories, &self.architectures.list);
        sources.installed = InstalledInput::from_db(&self.database.installed);
        match (self.package_cache(), repositories.store(self.settings)) {
            (Some(cache), _) => sources.cache_files = cache_files(&cache.path),
            // Listing thousands of files takes longer than many a change; who has a network needs
            // the names only to tell how much is to be downloaded.
            (None, Some(store)) if self.wants_store_names() => {
                sources.cache_files = store.apk_names();
            }
            (None, _) => {}
        }
        if let Some(cache) = self.package_cache()
            && self.settings.is_tmpfs(&self.database.root)
        {
            sources.remembered = remembered(&cache.path);
        }
        sources
    }

    /// Returns whether it matters which packages are in the user's store.
    fn wants_store_names(&self) -> bool {
        let options = self.options;
        !self.settings.network || options.interactive || options.verbosity > 1
    }

    /// Reads the arguments of `add`; registers files and the virtual package.
    fn add_entries(
        &self,
        sources: &mut Sources,
        arguments: &[String],
        virtual_package: Option<&str>,
        sink: &mut dyn Sink,
    ) -> Result<(Vec<crate::package::Dependency>, HashMap<Identity, PathBuf>), Error> {
        let refused = |error: solver::RequestError| Error::Arguments {
            lines: vec![error.to_string()],
            code: 99,
        };
        let now = jiff::Timestamp::now().strftime("%Y%m%d.%H%M%S").to_string();
        let safe = !self.settings.is_tmpfs(&self.database.root)
            || self.package_cache().is_some()
            || self.options.force_non_repository;
        let made = virtual_package
            .map(|text| VirtualPackage::parse(text, &now, safe))
            .transpose()
            .map_err(refused)?;
        let mut entries = Vec::new();
        let mut registered = Vec::new();
        let mut files = HashMap::new();
        for argument in arguments.iter().filter(|argument| !argument.is_empty()) {
            let path = Path::new(argument);
            if argument.contains('.') && path.exists() {
                solver::check_non_repository(safe).map_err(refused)?;
                let package = package_file::metadata(path, &self.keyring, self.settings).map_err(
                    |error| Error::Arguments {
                        lines: error
                            .lines()
                            .lines()
                            .enumerate()
                            .map(|(at, line)| {
                                if at == 0 {
                                    format!("{argument}: {line}")
                                } else {
                                    line.to_owned()
                                }
                            })
                            .collect(),
                        code: 99,
                    },
                )?;
                entries.push(solver::pin_file(&package));
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                files.insert(package.identity, absolute);
                registered.push((package, Registered::File));
            } else if made.is_some() {
                entries.push(solver::parse_package_argument(argument).map_err(refused)?);
            } else {
                entries.push(solver::parse_world_argument(argument).map_err(refused)?);
            }
        }
        if let Some(made) = made {
            if entries.is_empty() {
                sink.warning("creating empty virtual package");
            }
            let identity = virtual_identity(&made);
            registered.push((made.package(&entries, identity), Registered::Virtual));
            entries = vec![made.entry];
        }
        if !registered.is_empty() {
            sources.registered = RegisteredInput::new(&registered);
        }
        Ok((entries, files))
    }

    fn check_upgrade(
        &self,
        universe: &Universe<'_>,
        world: &World,
        repositories: &LoadedRepositories,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        let text = "Not continuing with upgrade due to missing repository tags.";
        self.check_tags(universe, world, text, sink)?;
        let bad = repositories.stale + repositories.unavailable > 0;
        if bad && !self.options.force_missing_repositories {
            return Err(Error::Arguments {
                lines: vec![
                    "Not continuing due to stale/unavailable repositories. Use \
                     --force-missing-repositories to continue."
                        .into(),
                ],
                code: 99,
            });
        }
        Ok(())
    }

    fn check_tags(
        &self,
        universe: &Universe<'_>,
        world: &World,
        text: &str,
        sink: &mut dyn Sink,
    ) -> Result<(), Error> {
        if self.options.force_broken_world {
            return Ok(());
        }
        let missing = solver::missing_tags(universe, world);
        for warning in &missing {
            sink.warning(warning);
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Arguments {
            lines: vec![text.to_owned()],
            code: 99,
        })
    }

    /// Upgrades the package that this program belongs to first (solver.md, 5.5).
    fn preupgrade(
        &mut self,
        universe: &mut Universe<'_>,
        repositories: &LoadedRepositories,
        sink: &mut dyn Sink,
        ask: Ask<'_>,
    ) -> Result<Preupgraded, Error> {
        let Command::Upgrade {
            arguments,
            options,
            preupgrade,
            preupgrade_only: only,
            preupgrade_depends,
        } = self.options.command.clone()
        else {
            return Ok(Preupgraded::GoOn(Vec::new()));
        };
        if only && preupgrade && !arguments.is_empty() {
            // There is nothing that comes before an upgrade of some packages.
            return Ok(Preupgraded::Done(Outcome::Done(0)));
        }
        let wanted = preupgrade
            && !self.options.after_preupgrade
            && arguments.is_empty()
            && (only || !self.settings.root_given);
        if !wanted {
            return Ok(Preupgraded::GoOn(Vec::new()));
        }
        let world = self.database.world.clone();
        let program = self.own_package();
        let first = solver::preupgrade(
            universe,
            &world,
            program.as_deref(),
            &preupgrade_depends,
            options,
        );
        for warning in &first.warnings {
            sink.warning(warning);
        }
        let nothing = |marks| {
            Ok(if only {
                Preupgraded::Done(Outcome::Done(0))
            } else {
                Preupgraded::GoOn(marks)
            })
        };
        let Some(mut request) = first.request else {
            return nothing(Vec::new());
        };
        request.options.force_broken_world = self.options.force_broken_world;
        let marks = request.marks.clone();
        let solution = solver::solve(universe, &request);
        if solution.errors > 0 {
            sink.warning("Failed to perform initial preupgrade, continuing with a full upgrade.");
            return nothing(marks);
        }
        let plan = Plan::from_solution(universe, &solution, |_| Source::None);
        if plan.step_lines().is_empty() {
            return nothing(marks);
        }
        if self.options.simulate && !only {
            sink.warning("This simulation might not reliable as a preupgrade is available.");
            return Ok(Preupgraded::GoOn(marks));
        }
        sink.info("Preupgrading:");
        let errors = self.carry_out(
            universe,
            &solution,
            repositories,
            &HashMap::new(),
            only,
            sink,
            ask,
        )?;
        if only || errors > 0 {
            return Ok(Preupgraded::Done(Outcome::Done(errors)));
        }
        sink.info("Continuing with the main upgrade transaction:");
        Ok(Preupgraded::Done(Outcome::RunAgain))
    }

    /// Returns the name of the installed package that owns the running program: the one that
    /// records `proc/self/exe`, else the file that it links to.
    fn own_package(&self) -> Option<String> {
        let program = std::env::current_exe().ok();
        let target = program
            .as_ref()
            .and_then(|path| path.to_str())
            .map(|path| path.trim_start_matches('/'));
        let owner = |path: &str| {
            let (folder, name) = crate::root::split(path);
            let mut packages = self.database.installed.packages.iter();
            packages.find(|package| {
                let mut directories = package.directories.iter().filter(|d| d.path == folder);
                directories.any(|directory| directory.files.iter().any(|file| file.name == name))
            })
        };
        let package = owner("proc/self/exe").or_else(|| target.and_then(owner))?;
        Some(package.package.name.clone())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one request with all it is judged by"
    )]
    fn commit(
        &mut self,
        universe: &mut Universe<'_>,
        mut request: Request,
        deletion: Option<(&World, &Deletion)>,
        repositories: &LoadedRepositories,
        files: &HashMap<Identity, PathBuf>,
        sink: &mut dyn Sink,
        ask: Ask<'_>,
    ) -> Result<Outcome, Error> {
        request.options.force_broken_world = self.options.force_broken_world;
        let text = "Not committing changes due to missing repository tags.";
        if deletion.is_none() {
            self.check_tags(universe, &request.world, text, sink)?;
        }
        match self.solve(universe, &request, repositories, sink) {
            Solved::Failed(code) => Ok(Outcome::Done(code)),
            Solved::Solution(solution) => {
                if let Some((world, deletion)) = deletion {
                    self.tell_kept(universe, world, deletion, &solution, sink);
                    // Solving has sorted the world, and so are the warnings.
                    self.check_tags(universe, &solution.world, text, sink)?;
                }
                let code =
                    self.carry_out(universe, &solution, repositories, files, true, sink, ask)?;
                Ok(Outcome::Done(code))
            }
        }
    }

    fn solve(
        &self,
        universe: &mut Universe<'_>,
        request: &Request,
        repositories: &LoadedRepositories,
        sink: &mut dyn Sink,
    ) -> Solved {
        let solution = solver::solve(universe, request);
        if solution.errors == 0 {
            return Solved::Solution(Box::new(solution));
        }
        if !repositories.failed.is_empty() {
            // What is missing may be in there: that is no fault of the request.
            for (url, cause) in &repositories.failed {
                sink.error(&format!("the packages of {url} are not known: {cause}"));
            }
            sink.error(
                "without them there is no solution; nothing was changed. Try again later, or name \
                 another mirror with --mirror",
            );
            return Solved::Failed(99);
        }
        // Reported from apk's own failure, before anything else is asked of the universe.
        let report = solver::report(universe, &solution, self.options.width);
        let complete = match self.options.solver {
            SolverChoice::Apk => false,
            SolverChoice::Auto => !request.wants_latest(),
            SolverChoice::Complete => true,
        };
        if complete && let Some(complete) = solver::solve_completely(universe, request) {
            sink.line(Level::Notice, &announcement(universe, &complete));
            return Solved::Solution(Box::new(complete));
        }
        sink.error(solver::TITLE);
        sink.event(Event::Text(&report));
        self.report.borrow_mut().errors = solution.errors;
        if self.options.explain != Explain::No
            && let Some(mut explanation) = solver::explain(universe, request)
        {
            explanation.compare(&self.database.world);
            match self.options.explain {
                Explain::Json => {
                    self.report.borrow_mut().contradictions = explanation.contradictions;
                }
                Explain::Text | Explain::No => {
                    sink.event(Event::Text(&explanation.to_string()));
                }
            }
        }
        Solved::Failed(solution.errors.min(99) as u8)
    }

    /// Says what `del` does not remove, and why.
    fn tell_kept(
        &self,
        universe: &Universe<'_>,
        world: &World,
        deletion: &Deletion,
        solution: &Solution,
        sink: &mut dyn Sink,
    ) {
        let verbosity = u32::from(self.options.verbosity);
        if verbosity > 0 && !deletion.names.is_empty() {
            let width = self.options.width;
            let text = solver::kept(universe, world, deletion, solution, verbosity, width);
            lines(&text, sink);
        }
    }

    /// Returns to the packages and the world of an earlier time.
    fn go_back(
        &mut self,
        moment: Moment,
        mut sources: Sources,
        repositories: &LoadedRepositories,
        sink: &mut dyn Sink,
        ask: Ask<'_>,
    ) -> Result<Outcome, Error> {
        let target = history::target(&self.database, moment)?;
        let available = |identity| sources.joined().find_identity(identity).is_some();
        let back = history::packages_back(&self.database, &target, available)?;
        let registered: Vec<_> = back
            .iter()
            .map(|kept| (kept.record.package.clone(), Registered::File))
            .collect();
        sources.registered = RegisteredInput::new(&registered);
        self.kept = registered
            .iter()
            .map(|(package, _)| package.identity)
            .collect();
        self.report
            .borrow_mut()
            .left_as_they_are
            .clone_from(&target.left);
        self.report.borrow_mut().changed_in_place =
            back.into_iter().flat_map(|kept| kept.changed).collect();
        let mut request = Request {
            world: target.pins(),
            ..Request::default()
        };
        let mut universe = Universe::new(&sources, &request.world);
        let mut solution = loop {
            let solution = match self.solve(&mut universe, &request, repositories, sink) {
                Solved::Failed(code) => return Ok(Outcome::Done(code)),
                Solved::Solution(solution) => solution,
            };
            // What installs itself now may not have been there then.
            let selected = solution.selected();
            let known = request.world.entries.len();
            let extra = selected.filter(|package| !target.has(universe.identity(*package)));
            let keep_out = extra.map(|package| Dependency {
                conflict: true,
                operator: Operator::CHECKSUM,
                version: universe.identity(package).to_q1(),
                ..Dependency::any(universe.package_name(package))
            });
            request.world.entries.extend(keep_out.collect::<Vec<_>>());
            if request.world.entries.len() == known {
                break solution;
            }
        };
        solution.world = target.world;
        let files = HashMap::new();
        let code = self.carry_out(&universe, &solution, repositories, &files, true, sink, ask)?;
        for line in history::remarks(&self.report.borrow()) {
            sink.info(&line);
        }
        Ok(Outcome::Done(code))
    }

    /// Shows a solution and carries it out; returns the exit code.
    #[expect(
        clippy::too_many_arguments,
        reason = "one solution with all that is needed for it"
    )]
    fn carry_out(
        &mut self,
        universe: &Universe<'_>,
        solution: &Solution,
        repositories: &LoadedRepositories,
        files: &HashMap<Identity, PathBuf>,
        last_line: bool,
        sink: &mut dyn Sink,
        ask: Ask<'_>,
    ) -> Result<u8, Error> {
        let options = self.options;
        let verbosity = u32::from(options.verbosity);
        self.tell_directories(sink);
        let shown = options.show_plan && show_plan(universe, solution, repositories, sink);
        if shown {
            let asked = options.interactive && !options.simulate;
            if asked && !ask("Do you want to continue [Y/n]? ") {
                return Err(Error::Cancelled);
            }
        } else if verbosity > 1 || options.interactive {
            let style = SummaryStyle {
                verbosity,
                interactive: options.interactive,
                width: options.width,
            };
            let summary = solver::summary(universe, solution, style);
            lines(&summary.text, sink);
            let asked = options.interactive && !options.simulate && summary.changes;
            if asked && !ask("Do you want to continue [Y/n]? ") {
                return Err(Error::Cancelled);
            }
        }
        let packages = PackageFiles {
            settings: self.settings,
            repositories,
            cache: self.package_cache(),
            files,
        };
        self.report.borrow_mut().world = solution
            .world
            .entries
            .iter()
            .map(ToString::to_string)
            .collect();
        if options.simulate {
            let plan = Plan::from_solution(universe, solution, |_| Source::None);
            self.report.borrow_mut().simulated = true;
            self.report.borrow_mut().changes = history::changed(&plan);
            for line in plan.step_lines().iter().filter(|_| !shown) {
                sink.info(line);
            }
            let totals = Totals::of_simulation(universe, solution);
            if last_line {
                self.last_line(totals, sink);
            }
            return Ok(totals.errors.min(99) as u8);
        }
        let mut signal = None;
        let errors = match self.transact(universe, solution, &packages, sink) {
            Ok(outcome) => {
                self.database.installed = outcome.installed;
                outcome.ending.close()?;
                // One that came when everything was promised already.
                signal = options.interrupt.wanted();
                outcome.errors
            }
            Err(Error::Outdated { lines }) if !self.may_read_again() => {
                for line in &lines {
                    sink.error(line);
                }
                if self.read_again {
                    sink.error(
                        "the mirrors do not have what their indexes list, which were read again \
                         just now: try later, or name another mirror with --mirror",
                    );
                }
                sink.error("nothing was changed: the root is as before");
                lines.len() as u32
            }
            Err(Error::Transaction(error @ TransactionError::Refused { .. })) => {
                let code = error.code();
                for line in error.to_string().lines() {
                    sink.error(line);
                }
                if let Some(plan) = error.advice() {
                    sink.error(plan);
                }
                u32::from(code)
            }
            Err(other) => return Err(other),
        };
        self.report.borrow_mut().errors = errors;
        if last_line {
            let db = &self.database.installed;
            let totals = Totals {
                errors,
                packages: db.packages.len(),
                installed_size: db.installed_size(),
            };
            self.last_line(totals, sink);
        }
        // A shell reports a program that a signal ended in the same way.
        Ok(signal.map_or(errors.min(99) as u8, |signal| 128 + signal as u8))
    }

    fn fixes_directories(&self) -> bool {
        matches!(
            self.options.command,
            Command::Fix {
                directory_permissions: true,
                ..
            }
        )
    }

    /// Names the directories that are given their mode and owner.
    fn tell_directories(&self, sink: &mut dyn Sink) {
        if !self.fixes_directories() || !sink.wants(Level::Detail) {
            return;
        }
        let database = &self.database;
        let wrong =
            transaction::wrong_directories(&database.root, &database.installed, database.usermode);
        // What cannot be looked at is an error of the change itself.
        for path in wrong.unwrap_or_default() {
            sink.line(Level::Detail, &format!("fixing directory {path}"));
        }
    }

    fn last_line(&self, totals: Totals, sink: &mut dyn Sink) {
        let db = &self.database.installed;
        sink.info(&match self.options.verbosity {
            0 | 1 => totals.line(),
            _ => totals.detailed_line(db.directory_count(), db.file_count()),
        });
    }

    /// Lets the root's copies of indexes go when packages are to be removed and there is no room left
    /// to promise that: whoever removes packages from a full disk wants room.
    fn make_room(&self, plan: &Plan, sink: &mut dyn Sink) {
        let root = &self.database.root;
        let steps = plan.changes.iter().filter(|change| change.verb().is_some());
        let removes =
            steps.clone().next().is_some() && steps.clone().all(|step| step.new.is_none());
        let free = root.free_space().map_or(u64::MAX, |(bytes, _)| bytes);
        if !removes || free >= FULL {
            return;
        }
        let Ok(directory) = root.directory(INDEX_COPIES) else {
            return;
        };
        let names = directory.list().unwrap_or_default();
        let names = names.iter().filter_map(|name| name.to_str());
        let copies = names.filter(|name| name.trim_start_matches('.').starts_with("APKINDEX."));
        // One that stays is no reason to stop; the change says itself what it misses.
        let gone = copies.filter(|name| directory.remove_file(name).is_ok());
        if gone.count() > 0 {
            sink.warning(&format!(
                "the disk is full: the indexes kept in {INDEX_COPIES} made way; `update` gets them again"
            ));
        }
    }

    fn transact(
        &self,
        universe: &Universe<'_>,
        solution: &Solution,
        packages: &PackageFiles<'_>,
        sink: &mut dyn Sink,
    ) -> Result<transaction::Outcome, Error> {
        let mut options = self.options.transaction.clone();
        options.usermode = self.database.usermode;
        options.sync = self.wants_sync();
        options.write_arch = self
            .architectures
            .write
            .then(|| self.architectures.list.clone());
        let replaced = self.settings.sources.replaced.iter();
        let replaced = replaced.map(|(path, text)| (path.clone(), text.clone().into_bytes()));
        options.files = replaced.collect();
        options.fix_directories = self.fixes_directories();
        let mut again = true;
        loop {
            let mut plan = Plan::from_solution(universe, solution, |package| {
                if self.kept.contains(&universe.identity(package)) {
                    return Source::Kept;
                }
                packages.source(universe, package)
            });
            plan.restate(&self.database.installed);
            self.report.borrow_mut().changes = history::changed(&plan);
            let predownloaded = self.options.predownload && again && tell_downloads(&plan, sink);
            let (plan, downloads) = download::fetch_missing(plan, packages, sink)?;
            if predownloaded {
                sink.info("Proceeding with upgrade...");
            }
            self.make_room(&plan, sink);
            let mut recorder = Recorder::begin(
                &self.database,
                self.options,
                &plan,
                &solution.world,
                &options.files,
                options.sync,
                sink,
            );
            let transaction = Transaction {
                root: &self.database.root,
                installed: self.database.installed.clone(),
                plan: &plan,
                world: &solution.world,
                options: &options,
                runner: None,
                note: recorder.note(),
                interrupt: Some(&self.options.interrupt),
            };
            let outcome = transaction.run(sink);
            recorder.end(&self.database, &outcome, sink);
            match outcome {
                // The cache was changed or deleted under us: what is gone is fetched again, once.
                Err(error) if again && downloads.drop_damaged(&error) => again = false,
                outcome => {
                    let outcome = outcome.map_err(Error::Transaction)?;
                    self.remember_installed(&outcome.installed, sink);
                    return Ok(outcome);
                }
            }
        }
    }

    /// Keeps the records of installed packages in the package cache of a root that is lost at
    /// reboot, for packages that no repository has any more (commit.md, 15.1).
    fn remember_installed(&self, installed: &InstalledDb, sink: &mut dyn Sink) {
        let Some(cache) = self.package_cache() else {
            return;
        };
        if !self.settings.is_tmpfs(&self.database.root) {
            return;
        }
        let mut text = String::new();
        for package in &installed.packages {
            crate::format::apkindex::write_record(&package.package, &mut text);
        }
        let stored = crate::fetch::cache::store(&cache.path.join("installed"), text.as_bytes());
        if let Err(error) = stored {
            let path = cache.path.join("installed");
            let cause = crate::root::cause(&error);
            sink.warning(&format!("cannot write {}: {cause}", path.display()));
        }
    }

    /// Returns whether to flush: asked for, or the running system on real hardware.
    fn wants_sync(&self) -> bool {
        self.options.sync.unwrap_or_else(|| {
            let kernel = std::fs::read_to_string("/proc/2/comm");
            self.database.root.is_system()
                && !self.database.usermode
                && kernel.is_ok_and(|name| name.trim() == "kthreadd")
        })
    }
}

enum Preupgraded {
    Done(Outcome),
    GoOn(Vec<solver::Mark>),
}

/// Says what the complete search found where apk's gave up.
fn announcement(universe: &Universe<'_>, solution: &Solution) -> String {
    let changes = solution.changes.iter();
    let installed = changes.clone().filter(|change| change.old.is_some());
    let kept = changes.filter(|change| change.old.is_some() && change.old == change.new);
    let (installed, kept) = (installed.count(), kept.count());
    let keeps = match (installed, kept) {
        (0, _) => {
            let wanted = |package: &solver::PackageId| {
                let name = universe.package_name(*package);
                solution
                    .world
                    .entries
                    .iter()
                    .any(|entry| entry.name == name)
            };
            let chosen = solution.selected().filter(wanted);
            let chosen: Vec<String> = chosen.map(|package| universe.full_name(package)).collect();
            match chosen.is_empty() {
                true => "does".to_owned(),
                false => format!("takes {}", chosen.join(", ")),
            }
        }
        (all, kept) if all == kept => format!("keeps all {all} installed packages"),
        (all, kept) => format!("keeps {kept} of {all} installed packages"),
    };
    format!("apk's search finds no solution; this one {keeps} (--solver=apk turns it off)")
}

/// Names the packages that are downloaded before anything changes; returns whether there are any.
fn tell_downloads(plan: &Plan, sink: &mut dyn Sink) -> bool {
    let new = plan.changes.iter().filter_map(|change| change.new.as_ref());
    let remote = new.filter(|new| matches!(new.source, Source::Remote(_)));
    let names: Vec<String> = remote.map(|new| new.package.full_name()).collect();
    if names.is_empty() {
        return false;
    }
    let count = names.len();
    let width = count.to_string().len();
    sink.info(&format!("Downloading {count} packages..."));
    for (at, name) in names.iter().enumerate() {
        sink.info(&format!("({:>width$}/{count}) Downloading {name}", at + 1));
    }
    true
}

/// Sends a text of several lines.
fn lines(text: &str, sink: &mut dyn Sink) {
    for line in text.lines() {
        sink.info(line);
    }
}

fn unknown_names(lines: Vec<String>) -> Error {
    let code = lines.len().min(99) as u8;
    Error::Arguments { lines, code }
}

/// Makes an identity that no other package has.
fn virtual_identity(made: &VirtualPackage) -> Identity {
    let mut hash = Sha1::new();
    for part in [&made.entry.name, &made.entry.version] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(std::process::id().to_le_bytes());
    Identity(hash.finalize().into())
}

/// Turns loaded repositories into what the solver reads, with their joined table where it is worth
/// keeping; nothing is installed yet.
pub fn solver_sources(repositories: &LoadedRepositories, architectures: &[String]) -> Sources {
    let sources = plain_sources(repositories, architectures);
    if let Some(table) = repositories.joined() {
        // Nobody has asked for it yet.
        let _ = sources.joined.set(table);
    }
    sources
}

/// Does the same for who only looks at the repositories one by one.
pub fn plain_sources(repositories: &LoadedRepositories, architectures: &[String]) -> Sources {
    let empty = Arc::new(PackageTable::build(&[]));
    let inputs = repositories
        .repositories
        .iter()
        .map(|loaded| RepositoryInput {
            table: loaded
                .index
                .as_ref()
                .map_or_else(|| empty.clone(), LoadedIndex::table),
            tags: loaded.repository.tags.clone(),
            loaded: loaded.index.is_some(),
            reachable: loaded.reachable,
            local: loaded.local,
            url: loaded.repository.url.clone(),
        });
    Sources {
        repositories: inputs.collect(),
        tag_order: repositories.tag_order.clone(),
        architectures: architectures.to_vec(),
        ..Sources::default()
    }
}

/// Tells what a solution changes; returns whether that is anything.
fn show_plan(
    universe: &Universe<'_>,
    solution: &Solution,
    repositories: &LoadedRepositories,
    sink: &mut dyn Sink,
) -> bool {
    let repository = |package| {
        let number = universe.repositories_of(package).next()?;
        let url = &repositories.repositories.get(number)?.repository.url;
        let url = crate::config::repositories::masked(url);
        let name = url.trim_end_matches('/').rsplit('/').next();
        name.map(str::to_owned)
    };
    let differences = solver::differences(universe, solution);
    let planned = differences.iter().map(|difference| {
        let change = difference.change;
        let version = |package| universe.version(package).to_owned();
        let package = change.new.or(change.old);
        let name = package.map_or("", |package| universe.package_name(package));
        let tag = universe.tag_text(change.new_tag);
        PlannedChange {
            kind: match difference.kind {
                DifferenceKind::Remove => PlannedKind::Remove,
                DifferenceKind::Downgrade => PlannedKind::Downgrade,
                DifferenceKind::Install => PlannedKind::Install,
                DifferenceKind::Upgrade => PlannedKind::Upgrade,
                DifferenceKind::Reinstall => PlannedKind::Reinstall,
            },
            name: name.to_owned() + &tag.map(|tag| format!("@{tag}")).unwrap_or_default(),
            old: change.old.map(version),
            new: change.new.map(version),
            repository: change.new.and_then(repository).unwrap_or_default(),
            download: difference.download,
            growth: difference.growth,
        }
    });
    let planned: Vec<PlannedChange> = planned.collect();
    if !planned.is_empty() {
        sink.event(Event::Plan(&planned));
    }
    !planned.is_empty()
}

/// Returns name and size of the package files in a cache directory.
fn cache_files(path: &Path) -> HashMap<String, u64> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return HashMap::new();
    };
    let files = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.ends_with(".apk")
            .then(|| entry.metadata().ok().map(|meta| (name, meta.len())))?
    });
    files.collect()
}

/// Reads the cache's own index of installed packages; a damaged one counts as far as it goes.
fn remembered(cache: &Path) -> Option<Arc<PackageTable>> {
    let text = std::fs::read(cache.join("installed")).ok()?;
    let (packages, _) = crate::format::apkindex::parse_prefix(&text);
    Some(Arc::new(PackageTable::build(&packages)))
}
