//! Random scenes, for property tests: every feature of packages, repositories, installed state and
//! commands, each about as often as makes things interesting.

use super::scene::{
    Bound, Installed, NAMES, Need, OPERATORS, Record, Repository, Scene, TAGS, VERSIONS,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What a scene may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// Most names.
    pub(crate) names: usize,
    /// Most records.
    pub(crate) records: usize,
    /// Texts that are no proper dependencies, unknown fields, odd arguments.
    pub(crate) odd: bool,
    /// Packages of another architecture.
    pub(crate) foreign: bool,
    /// A package cache.
    pub(crate) cache: bool,
    /// Repositories given by option.
    pub(crate) options: bool,
    /// More verbose and quieter runs.
    pub(crate) verbosity: bool,
    /// Several tagged repositories.
    pub(crate) tags: bool,
    /// Remote repositories, runs without network, and roots in memory.
    pub(crate) places: bool,
    /// What apk 3 judges otherwise than 2.14: `~` with versions that have more than a number,
    /// what names one build, conflicts of a package with itself, names that several
    /// packages have or provide, bare offers and priorities, packages without data, several builds
    /// of one version, conditions of install_if that are conflicts or met by what is provided,
    /// packages that install themselves and need more, `del` of what is needed.
    pub(crate) recent: bool,
}

/// All there is.
pub(crate) const ALL: Profile = Profile {
    names: NAMES.len(),
    records: 16,
    odd: true,
    foreign: true,
    cache: true,
    options: true,
    verbosity: true,
    tags: true,
    places: true,
    recent: true,
};

/// Runs `check` on so many scenes; the same ones for the same `seed`. A scene that fails is made
/// as small as possible first, and then returned with what `check` says of it.
pub(crate) fn try_all(
    profile: Profile,
    seed: u64,
    cases: usize,
    mut check: impl FnMut(&Scene) -> Result<(), String>,
) -> Result<(), Box<(Scene, String)>> {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = scene(profile);
    for _ in 0..cases {
        let mut tree = strategy.new_tree(&mut runner).expect("no filters");
        let Err(mut message) = check(&tree.current()) else {
            continue;
        };
        let mut smallest = tree.current();
        for _ in 0..SHRINKS {
            if !tree.simplify() {
                break;
            }
            loop {
                let current = tree.current();
                match check(&current) {
                    Err(text) => {
                        (smallest, message) = (current, text);
                        break;
                    }
                    Ok(()) if tree.complicate() => {}
                    Ok(()) => return Err(Box::new((smallest, message))),
                }
            }
        }
        return Err(Box::new((smallest, message)));
    }
    Ok(())
}

/// Versions that are a number.
const PLAIN: [usize; 3] = [0, 2, 5];

/// How often a failing scene is made smaller.
const SHRINKS: usize = 2_000;

/// Runs `check` on so many scenes in parallel; panics with the smallest scene found.
pub(crate) fn check_all(
    profile: Profile,
    seed: u64,
    cases: usize,
    check: impl Fn(&Scene) -> Result<(), String> + Sync,
) {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
    let each = cases.div_ceil(SHARDS);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let shard = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if shard >= SHARDS {
                        return;
                    }
                    if let Err(failure) =
                        try_all(profile, seed * SHARDS as u64 + shard as u64, each, &check)
                    {
                        let (scene, message) = &*failure;
                        let text = format!("{scene}{message}=====");
                        eprintln!("{text}");
                        failures.lock().expect("no panics").push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panics");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The cases are dealt out in so many lots, whatever the number of processors.
const SHARDS: usize = 16;

/// Returns the strategy for scenes.
pub(crate) fn scene(profile: Profile) -> impl Strategy<Value = Scene> {
    let options = (
        select(vec!["", "", "", "", "", "", "--no-network"]),
        select(
            vec![""; 19]
                .into_iter()
                .chain(["--force-broken-world"])
                .collect::<Vec<_>>(),
        ),
        select(vec!["", "", "", "", "", "", "", "--root-tmpfs=yes"]),
        select(vec![
            "", "", "", "", "", "", "", "", "-v", "-v", "-vv", "-q", "-i", "-qq",
        ]),
    );
    (
        (3..=profile.names, prop::bool::weighted(0.3)),
        vec(repository(profile), 1..=4),
        vec(record(profile), 0..=profile.records),
        prop_oneof![
            12 => vec(need(profile, false, profile.tags), 0..4),
            1 => vec(need(profile, profile.odd, profile.tags), 0..4),
        ],
        prop::bool::weighted(if profile.cache { 0.25 } else { 0.0 }),
        options,
        command(profile),
    )
        .prop_map(
            move |(layout, repositories, records, world, cache, options, command)| {
                let (network, force, tmpfs, verbosity) = options;
                let verbosity = if profile.verbosity { verbosity } else { "" };
                let (network, tmpfs) = match profile.places {
                    true => (network, tmpfs),
                    false => ("", ""),
                };
                let mut scene = Scene {
                    repositories,
                    records,
                    world,
                    cache,
                    options: [network, force, tmpfs, verbosity]
                        .into_iter()
                        .filter(|word| !word.is_empty())
                        .collect(),
                    command: Vec::new(),
                    made: None,
                };
                let names = scene.settle(layout.0, layout.1, profile);
                let mut command = command;
                for need in &mut command.needs {
                    need.settle(&names, &scene);
                }
                if !profile.recent && command.applet == "del" {
                    let records = scene.records.iter();
                    let needs: Vec<&Need> = records.flat_map(|record| &record.depends).collect();
                    let needed = |name| needs.iter().any(|need| need.name == name);
                    command.needs.retain(|need| !needed(need.name));
                }
                scene.made = command.made();
                scene.command = command.words();
                scene
            },
        )
}

impl Need {
    /// Makes it one on a name of the list, a record and a tag that exist.
    fn settle(&mut self, names: &[usize], scene: &Scene) {
        self.name = names[self.name % names.len()];
        if let Bound::Build(record) = &mut self.bound {
            match scene.records.len() {
                0 => self.bound = Bound::Any,
                count => *record %= count,
            }
        }
        let exists = |tag| scene.repositories.iter().any(|r| r.tag == tag);
        if self.tag < TAGS.len() - 1 && !exists(self.tag) {
            self.tag = 0;
        }
    }
}

impl Scene {
    /// Makes random numbers fit each other; returns the names to ask for. With `loose`, some are
    /// asked for that nothing has.
    fn settle(&mut self, names: usize, loose: bool, profile: Profile) -> Vec<usize> {
        let repositories = self.repositories.len();
        let mut installed = Vec::new();
        for record in &mut self.records {
            record.name %= names;
            // What looks like a path is no name of a package.
            if NAMES[record.name].contains('/') {
                record.name = 0;
            }
            for (name, _) in &mut record.provides {
                *name %= names;
            }
            for number in &mut record.repositories {
                *number %= repositories;
            }
            record.repositories.sort_unstable();
            record.repositories.dedup();
            record.cached &= self.cache;
            record.remembered &= self.cache;
            // One package of a name is installed, at most.
            if record.installed.is_some() {
                if installed.contains(&record.name) {
                    record.installed = None;
                } else {
                    installed.push(record.name);
                }
            }
            let known = record.installed.is_some() || record.remembered;
            if record.repositories.is_empty() && !known {
                record.repositories.push(0);
            }
        }
        let mut asked: Vec<usize> = match loose {
            true => (0..names).collect(),
            false => Vec::new(),
        };
        for record in &self.records {
            asked.push(record.name);
            asked.extend(record.provides.iter().map(|(name, _)| *name));
        }
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() {
            asked.push(0);
        }
        let sizes = self.clone();
        self.world
            .iter_mut()
            .for_each(|need| need.settle(&asked, &sizes));
        for record in &mut self.records {
            let needs = record.depends.iter_mut().chain(&mut record.install_if);
            needs.for_each(|need| need.settle(&asked, &sizes));
        }
        if !profile.recent {
            self.age();
        }
        asked
    }

    /// Removes what 2.14 judges otherwise.
    fn age(&mut self) {
        let own: Vec<usize> = self.records.iter().map(|record| record.name).collect();
        let mut providers: Vec<(usize, usize)> = Vec::new();
        for record in &mut self.records {
            record.provides.retain(|(name, _)| !own.contains(name));
            record.provides.retain(|(name, _)| {
                let first = providers.iter().find(|(provided, _)| provided == name);
                let mine = first.is_none_or(|(_, provider)| *provider == record.name);
                providers.push((*name, record.name));
                mine
            });
            record.provides.sort_unstable();
            record.provides.dedup_by_key(|(name, _)| *name);
            record
                .install_if
                .retain(|need| !need.conflict && own.contains(&need.name));
            let itself = |need: &Need| {
                let mut provided = record.provides.iter().map(|(name, _)| *name);
                need.conflict && (need.name == record.name || provided.any(|n| n == need.name))
            };
            record.depends.retain(|need| !itself(need));
            if !record.install_if.is_empty() {
                record.depends.clear();
            }
            for (_, version) in &mut record.provides {
                *version = version.or(Some(0));
            }
            record.priority = 0;
            record.installed_size = record.installed_size.max(1);
        }
        let mut seen = Vec::new();
        self.records.retain(|record| {
            let build = (record.name, record.version);
            let new = !seen.contains(&build);
            seen.push(build);
            new
        });
    }
}

fn repository(profile: Profile) -> impl Strategy<Value = Repository> {
    let tag = match profile.tags {
        true => prop_oneof![8 => Just(0usize), 2 => Just(1usize), 1 => Just(2usize)].boxed(),
        false => Just(0).boxed(),
    };
    let option = prop::bool::weighted(if profile.options { 0.2 } else { 0.0 });
    (
        tag,
        prop::bool::weighted(if profile.places { 0.25 } else { 0.0 }),
        option,
    )
        .prop_map(|(tag, remote, option)| Repository {
            tag,
            remote,
            option,
        })
}

fn record(profile: Profile) -> impl Strategy<Value = Record> {
    let odd_line = match (profile.odd, profile.foreign) {
        (false, false) => Just(None).boxed(),
        (false, true) => prop_oneof![
            30 => Just(None),
            1 => Just(Some("A:noarch")),
            1 => Just(Some("A:mips")),
        ]
        .boxed(),
        (true, _) => prop_oneof![
            60 => Just(None),
            1 => Just(Some("A:noarch")),
            2 => Just(Some("A:mips")),
            1 => Just(Some("X:unknown")),
            1 => Just(Some("x:unknown")),
        ]
        .boxed(),
    };
    let sizes = (
        select(vec![1u64, 1, 10, 4000, 123_456_789]),
        select(vec![1u64, 1, 1, 0, 10_000, 987_654_321]),
    );
    let origin = (
        vec(0usize..4, 0..3),
        prop::option::weighted(0.3, installed(profile)),
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.2),
    );
    (
        (0usize..NAMES.len(), 0usize..VERSIONS.len()),
        prop_oneof![2 => Just(0usize), 4 => Just(1), 3 => Just(2), 1 => Just(3)]
            .prop_flat_map(move |n| vec(need(profile, profile.odd, false), n)),
        vec(
            (
                0usize..NAMES.len(),
                prop::option::of(0usize..VERSIONS.len()),
            ),
            0..3,
        ),
        prop_oneof![4 => Just(Vec::new()), 1 => vec(need(profile, profile.odd, false), 1..3)],
        prop_oneof![4 => Just(0u16), 1 => 1u16..4],
        sizes,
        origin,
        odd_line,
    )
        .prop_map(
            |(
                (name, version),
                depends,
                provides,
                install_if,
                priority,
                sizes,
                origin,
                odd_line,
            )| {
                let (repositories, installed, cached, remembered) = origin;
                Record {
                    name,
                    version,
                    depends,
                    provides,
                    install_if,
                    priority,
                    size: sizes.0,
                    installed_size: sizes.1,
                    repositories,
                    installed,
                    cached,
                    remembered,
                    odd_line,
                }
            },
        )
}

fn installed(profile: Profile) -> impl Strategy<Value = Installed> {
    let tag = match profile.tags {
        true => prop_oneof![5 => Just(0usize), 1 => 1..TAGS.len()].boxed(),
        false => Just(0).boxed(),
    };
    let broken = prop_oneof![12 => Just(""), 1 => Just("f"), 1 => Just("s"), 1 => Just("x")];
    (tag, broken, prop::bool::weighted(0.08)).prop_map(|(tag, broken, altered)| Installed {
        tag,
        broken,
        altered,
    })
}

fn need(profile: Profile, odd: bool, tags: bool) -> impl Strategy<Value = Need> {
    let bound = prop_oneof![
        12 => Just(Bound::Any),
        5 => (0usize..OPERATORS.len(), 0usize..VERSIONS.len())
            .prop_map(move |(operator, version)| {
                let plain = profile.recent || !OPERATORS[operator].contains('~');
                Bound::Version(operator, if plain { version } else { PLAIN[version % 3] })
            }),
        (u32::from(profile.recent)) => (0usize..16).prop_map(Bound::Build),
        (if odd { 1 } else { 0 }) => select(vec!["=1.x", ">=", "<>~1", "@e", "=1:2"])
            .prop_map(Bound::Odd),
    ];
    let tag = match tags {
        true => {
            prop_oneof![36 => Just(0usize), 12 => Just(1usize), 6 => Just(2usize), 1 => Just(3usize)]
                .boxed()
        }
        false => Just(0).boxed(),
    };
    (prop::bool::weighted(0.12), 0usize..NAMES.len(), bound, tag).prop_map(
        |(conflict, name, bound, tag)| Need {
            conflict,
            name,
            bound,
            tag,
        },
    )
}

/// A command.
#[derive(Clone, Debug)]
struct Command {
    applet: &'static str,
    flags: Vec<&'static str>,
    needs: Vec<Need>,
    virtual_name: Option<&'static str>,
    odd: Option<&'static str>,
}

fn command(profile: Profile) -> impl Strategy<Value = Command> {
    let odd = match profile.odd {
        true => prop_oneof![
            30 => Just(None),
            1 => select(vec!["nosuch", "*", "l*", "a=", "b>>1", "", "A*", "[ab]*", "a b"])
                .prop_map(Some),
        ]
        .boxed(),
        false => Just(None).boxed(),
    };
    let applet = prop_oneof![
        5 => (Just("add"), flags(&["-u", "-l"]), Just(None)),
        1 => (
            Just("add"),
            flags(&["-u", "-l"]),
            select(vec![".virt=1", ".virt@e=2", "a=1", "b=3", ".virt@f=1"]).prop_map(Some),
        ),
        2 => (Just("del"), flags(&["-r"]), Just(None)),
        4 => (
            Just("upgrade"),
            flags(&["-a", "-l", "--prune", "--ignore"]),
            Just(None),
        ),
        (u32::from(profile.odd)) => (
            Just("upgrade"),
            flags(&["--preupgrade-only", "-a", "-l", "--preupgrade-depends=a", "--preupgrade-depends=b>1 !c"]),
            Just(None),
        ),
        2 => (Just("fix"), flags(&["-r", "-u", "-d", "-x"]), Just(None)),
    ];
    (applet, vec(need(profile, false, profile.tags), 0..3), odd).prop_map(
        |((applet, flags, virtual_name), needs, odd)| Command {
            applet,
            flags,
            needs,
            virtual_name,
            odd,
        },
    )
}

/// Returns some of these flags.
fn flags(all: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> + use<> {
    vec(prop::bool::weighted(0.25), all.len()).prop_map(|set| {
        let given = all.iter().zip(set).filter(|(_, given)| *given);
        given.map(|(flag, _)| *flag).collect()
    })
}

impl Command {
    /// Returns the package that `add -t` makes.
    fn made(&self) -> Option<Record> {
        let made = super::oracle::need(self.virtual_name?)?;
        let Bound::Version(_, version) = made.bound else {
            return None;
        };
        let mut depends: Vec<Need> = Vec::new();
        for mut need in self.needs.iter().cloned() {
            need.tag = 0;
            // A later word on the same name takes the place of an earlier one.
            match depends.iter_mut().find(|other| other.name == need.name) {
                Some(other) => *other = need,
                None => depends.push(need),
            }
        }
        Some(Record {
            name: made.name,
            version,
            depends,
            cached: true,
            ..Record::default()
        })
    }

    fn words(mut self) -> Vec<String> {
        let mut words = vec![self.applet.to_owned()];
        words.extend(self.flags.iter().map(|flag| (*flag).to_owned()));
        if let Some(name) = self.virtual_name {
            words.extend(["-t".to_owned(), name.to_owned()]);
        }
        // Whole-system upgrades are the common ones.
        let ignore = self.flags.contains(&"--ignore");
        if self.applet == "upgrade" && !ignore && self.needs.len() < 3 {
            self.needs.clear();
        }
        for mut need in self.needs {
            if self.applet == "add" {
                if self.virtual_name.is_some() {
                    need.tag = 0;
                }
                words.push(need.text());
            } else {
                words.push(NAMES[need.name].to_owned());
            }
        }
        words.extend(self.odd.map(str::to_owned));
        words
    }
}
