//! Every applet and option, once: the grammar, the help and later completions are made of this.

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing.
    Nothing,
    /// yes or no; `--no-NAME` is no.
    Bool,
    /// yes, no or auto.
    Auto,
    /// A value, shown under this name in the help. Repeated, the last one wins.
    Value(&'static str),
    /// A value that accumulates.
    List(&'static str),
    /// A whole number.
    Number(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// How the program asks for it.
    pub(crate) id: &'static str,
    /// Long name, may be empty.
    pub(crate) long: &'static str,
    /// Short letter.
    pub(crate) short: Option<char>,
    /// What it takes.
    pub(crate) takes: Takes,
    /// One line of help; an empty one hides the option.
    pub(crate) help: &'static str,
}

pub(super) const fn opt(
    id: &'static str,
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    help: &'static str,
) -> Opt {
    Opt {
        id,
        long,
        short,
        takes,
        help,
    }
}

/// An option whose id is its long name.
pub(super) const fn o(long: &'static str, takes: Takes, help: &'static str) -> Opt {
    opt(long, long, None, takes, help)
}

/// The same with a short letter.
pub(super) const fn s(long: &'static str, short: char, takes: Takes, help: &'static str) -> Opt {
    opt(long, long, Some(short), takes, help)
}

use Takes::{Auto, Bool, List, Nothing, Number, Value};

/// The options that apk does not have.
pub(crate) const OWN: &[&str] = &[
    "branch",
    "color",
    "component",
    "explain",
    "files",
    "force-index-rollback",
    "json",
    "limits",
    "mirror",
    "query-json",
    "solver",
    "to",
    "to-sign-key",
];

/// Options of every applet.
pub(crate) const GLOBAL: &[Opt] = &[
    o(
        "allow-untrusted",
        Nothing,
        "Accept indexes and packages without a valid signature",
    ),
    o("arch", List("ARCH"), "Use this architecture"),
    o(
        "branch",
        Value("BRANCH"),
        "Use the repositories of this branch: v3.20, edge, latest-stable",
    ),
    o("cache", Bool, "Use a local cache (default yes)"),
    o(
        "cache-dir",
        Value("DIR"),
        "Use this cache directory, relative to ROOT",
    ),
    o(
        "cache-limit",
        Value("SIZE"),
        "What the packages kept for all roots may take together (10G)",
    ),
    o(
        "cache-max-age",
        Number("MINUTES"),
        "Age after which a cached index is refreshed (240)",
    ),
    o(
        "cache-packages",
        Bool,
        "Keep a copy of each downloaded package",
    ),
    o(
        "cache-predownload",
        Bool,
        "Download everything to the cache before the first change",
    ),
    o(
        "check-certificate",
        Bool,
        "Verify HTTPS certificates (default yes)",
    ),
    o(
        "color",
        Auto,
        "Colour the output (auto: on a terminal, unless NO_COLOR is set)",
    ),
    s(
        "force",
        'f',
        Nothing,
        "Same as the overwrite, old-apk, non-repository and binary-stdout options",
    ),
    o(
        "force-binary-stdout",
        Nothing,
        "Write binary data to a terminal",
    ),
    o(
        "force-broken-world",
        Nothing,
        "Leave aside world entries that cannot be satisfied",
    ),
    o(
        "force-missing-repositories",
        Nothing,
        "Upgrade although indexes are stale or unavailable",
    ),
    o("force-no-chroot", Nothing, "Run scripts without chroot"),
    o(
        "force-non-repository",
        Nothing,
        "Allow package files on a root that is lost at reboot",
    ),
    o(
        "force-index-rollback",
        Nothing,
        "Accept an index that is older than one seen before",
    ),
    o(
        "limits",
        List("NAME=SIZE"),
        "Move bounds on what packages and indexes may make us read",
    ),
    o(
        "force-old-apk",
        Nothing,
        "Go on although packages use newer features",
    ),
    o(
        "force-overwrite",
        Nothing,
        "Let a package overwrite another package's files",
    ),
    o("force-refresh", Nothing, "Do not use cached copies"),
    o(
        "component",
        List("NAME[,...]"),
        "Use these components of the branch (main,community)",
    ),
    s("help", 'h', Nothing, "Show this help"),
    s("interactive", 'i', Auto, "Ask before anything is changed"),
    o(
        "keys-dir",
        Value("DIR"),
        "Read trusted keys only from this directory, relative to ROOT",
    ),
    o(
        "legacy-info",
        Bool,
        "Print `info` in its classic layout (default yes)",
    ),
    o("logfile", Bool, "Write var/log/apk.log (default yes)"),
    o(
        "mirror",
        List("URL"),
        "Fetch from this mirror; several stand in for each other",
    ),
    o("network", Bool, "Use the network (default yes)"),
    o("preserve-env", Bool, "Pass the environment on to scripts"),
    o("pretty-print", Auto, "Print sizes and times for people"),
    o(
        "preupgrade-depends",
        List("DEPS"),
        "What `upgrade` upgrades first",
    ),
    o("print-arch", Nothing, "Print the default architecture"),
    o("progress", Auto, "Show progress"),
    o(
        "progress-fd",
        Number("FD"),
        "Write progress to this file descriptor",
    ),
    o("purge", Bool, "Delete modified configuration files, too"),
    s("quiet", 'q', Nothing, "Say less"),
    o(
        "repositories-file",
        Value("FILE"),
        "Read repositories from this file instead",
    ),
    s("repository", 'X', List("REPO"), "Use this repository, too"),
    o(
        "repository-config",
        List("TEXT"),
        "Use these repository lines, too",
    ),
    s("root", 'p', Value("ROOT"), "Work on this root directory"),
    o("root-tmpfs", Auto, "Treat ROOT as a file system in memory"),
    o(
        "solver",
        Value("auto|apk|complete"),
        "Which search decides: apk's alone, or a complete one after it (auto: not with --latest)",
    ),
    o("sync", Auto, "Flush to disk after a change"),
    o(
        "timeout",
        Number("SECONDS"),
        "Longest wait for the network without progress (60)",
    ),
    s("update-cache", 'U', Nothing, "Same as --cache-max-age 0"),
    o("uvol-manager", Value("PATH"), "Volume manager"),
    s("verbose", 'v', Nothing, "Say more"),
    s("version", 'V', Nothing, "Print the version"),
    o("wait", Number("SECONDS"), "Wait for the database lock"),
];

/// Options of applets that change a root.
pub(crate) const COMMIT: &[Opt] = &[
    o("clean-protected", Bool, "Never create .apk-new files"),
    o("commit-hooks", Bool, "Run commit hooks (default yes)"),
    o(
        "explain",
        Bool,
        "Explain in plain words why a request has no solution",
    ),
    o(
        "initramfs-diskless-boot",
        Nothing,
        "Preset for booting from memory",
    ),
    o(
        "history",
        Bool,
        "Record the transaction and keep what undoing it needs (default yes)",
    ),
    o(
        "history-keep",
        Number("COUNT"),
        "Keep the packages that left in this many transactions (10)",
    ),
    o(
        "json",
        Nothing,
        "Print what was done, or why there is no solution, as JSON",
    ),
    o(
        "link-files",
        Bool,
        "Share files with the cache by hard links: for roots that nobody writes to",
    ),
    o(
        "overlay-from-stdin",
        Nothing,
        "Read the list of overlay files from standard input",
    ),
    o(
        "scripts",
        Bool,
        "Run package scripts, triggers and hooks (default yes)",
    ),
    s(
        "simulate",
        's',
        Bool,
        "Show what would happen, change nothing",
    ),
];

/// Options of applets that select packages.
pub(crate) const QUERY: &[Opt] = &[
    o(
        "all-matches",
        Nothing,
        "Every matching version, not only the best",
    ),
    opt(
        "query-available",
        "available",
        None,
        Nothing,
        "Only what a repository offers",
    ),
    s("fields", 'F', Value("FIELD[,...][:REV]"), "What to print"),
    o("format", Value("default|json|yaml"), "How to print it"),
    opt("query-json", "json", None, Nothing, "Same as --format json"),
    o(
        "from",
        Value("system|repositories|installed|none"),
        "Which sources to look in",
    ),
    opt(
        "query-installed",
        "installed",
        None,
        Nothing,
        "Only installed packages",
    ),
    o(
        "match",
        Value("FIELD[,...]"),
        "Which fields patterns are compared with",
    ),
    s(
        "recursive",
        'R',
        Nothing,
        "Solve the arguments and select the result",
    ),
    opt("query-search", "search", None, Nothing, ""),
    o(
        "summarize",
        Value("FIELD[:REV]"),
        "One list of this field over all matches",
    ),
    opt(
        "query-upgradable",
        "upgradable",
        None,
        Nothing,
        "Only newer versions of installed packages",
    ),
    opt(
        "query-world",
        "world",
        None,
        Nothing,
        "With the constraints of the world",
    ),
    opt(
        "query-orphaned",
        "orphaned",
        None,
        Nothing,
        "Only what no repository offers",
    ),
];

/// Options of applets that write v3 files.
pub(crate) const GENERATION: &[Opt] = &[
    s("compression", 'c', Value("ALG[:LEVEL]"), "Compression"),
    o("sign-key", List("KEY"), "Sign with this private key"),
];

/// An option group besides the global one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// [`COMMIT`].
    Commit,
    /// [`QUERY`].
    Query,
    /// [`GENERATION`].
    Generation,
}

impl Group {
    pub(crate) fn options(self) -> &'static [Opt] {
        match self {
            Self::Commit => COMMIT,
            Self::Query => QUERY,
            Self::Generation => GENERATION,
        }
    }
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applet {
    pub(crate) name: &'static str,
    /// What follows the options.
    pub(crate) arguments: &'static str,
    pub(crate) about: &'static str,
    pub(crate) options: &'static [Opt],
    pub(crate) groups: &'static [Group],
    /// It answers "not implemented yet".
    pub(crate) planned: bool,
}

pub(super) const fn applet(
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    options: &'static [Opt],
    groups: &'static [Group],
) -> Applet {
    Applet {
        name,
        arguments,
        about,
        options,
        groups,
        planned: false,
    }
}

const fn planned(
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    options: &'static [Opt],
    groups: &'static [Group],
) -> Applet {
    Applet {
        name,
        arguments,
        about,
        options,
        groups,
        planned: true,
    }
}

const AUDIT: &[Opt] = &[
    o(
        "backup",
        Nothing,
        "Changed and added files in protected paths (default)",
    ),
    o(
        "check-permissions",
        Nothing,
        "Compare modes and owners, too",
    ),
    o(
        "details",
        Nothing,
        "Print what is recorded and what is there",
    ),
    o("full", Nothing, "Everything, unknown files included"),
    o("ignore-busybox-symlinks", Nothing, "Skip links to busybox"),
    o(
        "packages",
        Nothing,
        "Only the names of packages with changes",
    ),
    o(
        "protected-paths",
        Value("FILE"),
        "Use these rules for protected paths",
    ),
    s("recursive", 'r', Nothing, "Enter unknown directories"),
    o("system", Nothing, "Changed and missing files of packages"),
];

const INFO: &[Opt] = &[
    s("all", 'a', Nothing, "Everything"),
    s("contents", 'L', Nothing, "Files"),
    s("depends", 'R', Nothing, "What it needs"),
    s("description", 'd', Nothing, "Description"),
    s("exists", 'e', Nothing, "Test whether installed"),
    opt("exists", "installed", None, Nothing, ""),
    o("install-if", Nothing, "When it installs itself"),
    o("license", Nothing, "Licence"),
    s("provides", 'P', Nothing, "What it provides"),
    s("rdepends", 'r', Nothing, "What needs it"),
    o("replaces", Nothing, "What it replaces"),
    o("rinstall-if", Nothing, "What it installs by itself"),
    s("size", 's', Nothing, "Installed size"),
    s("triggers", 't', Nothing, "Directories it watches"),
    s("webpage", 'w', Nothing, "Web page"),
    s("who-owns", 'W', Nothing, "Which package owns a file"),
];

const LIST: &[Opt] = &[
    opt(
        "list-available",
        "",
        Some('a'),
        Nothing,
        "Only what a repository offers",
    ),
    s("depends", 'd', Nothing, "Packages that need a match"),
    opt(
        "list-installed",
        "",
        Some('I'),
        Nothing,
        "Only installed packages",
    ),
    o("manifest", Nothing, "Installed packages as NAME VERSION"),
    s("origin", 'o', Nothing, "By source package"),
    opt(
        "list-orphaned",
        "",
        Some('O'),
        Nothing,
        "Only what no repository offers",
    ),
    s("providers", 'P', Nothing, "By provided name"),
    opt(
        "list-upgradable",
        "upgradable",
        Some('u'),
        Nothing,
        "Only newer versions of installed packages",
    ),
    opt("list-upgradable", "upgradeable", None, Nothing, ""),
];

const SEARCH: &[Opt] = &[
    s("all", 'a', Nothing, "All versions"),
    s("description", 'd', Nothing, "Look in descriptions, too"),
    s("exact", 'e', Nothing, "Whole names"),
    opt("exact", "", Some('x'), Nothing, ""),
    o(
        "files",
        Nothing,
        "Look for files of installed and cached packages instead",
    ),
    o("has-origin", Nothing, "By source package"),
    s("origin", 'o', Nothing, "Print the source package"),
    s("rdepends", 'r', Nothing, "Print what needs each match"),
];

const VERSION: &[Opt] = &[
    s("all", 'a', Nothing, "Look at tagged repositories, too"),
    s("check", 'c', Nothing, "Print what is no version"),
    s("indexes", 'I', Nothing, "Print the repositories"),
    s(
        "limit",
        'l',
        Value("CHARS"),
        "Only rows with these operators",
    ),
    s("test", 't', Nothing, "Compare two versions"),
];

const FETCH: &[Opt] = &[
    o("built-after", Value("TIME"), "Only packages built later"),
    s("link", 'l', Nothing, "Make hard links where possible"),
    s("output", 'o', Value("DIR"), "Put the files here"),
    o("pkgname-spec", Value("SPEC"), "Name the files like this"),
    opt(
        "to-sign-key",
        "sign-key",
        None,
        Value("KEY"),
        "With --to: sign with this private key",
    ),
    o("simulate", Bool, "Fetch nothing"),
    s(
        "stdout",
        's',
        Nothing,
        "Write the packages to standard output",
    ),
    o(
        "to",
        Value("DIR"),
        "Keep the packages here as a repository with a signed index of its own",
    ),
    o("url", Nothing, "Print where the packages are"),
];

const INDEX: &[Opt] = &[
    s("description", 'd', Value("TEXT"), "Description"),
    s("index", 'x', Value("FILE"), "Reuse entries of this index"),
    o("merge", Nothing, "Keep all entries of the old index"),
    o("no-warnings", Nothing, "Do not look for missing providers"),
    s("output", 'o', Value("FILE"), "Write to this file"),
    o(
        "prune-origin",
        Nothing,
        "Drop old entries of the same source packages",
    ),
    o(
        "rewrite-arch",
        Value("ARCH"),
        "Write this architecture in every entry",
    ),
    o("sign-key", Value("KEY"), "Sign with this private key"),
];

const MIRRORS: &[Opt] = &[
    o(
        "fastest",
        Nothing,
        "Measure, and prefer the fastest (also -f)",
    ),
    o("json", Nothing, "Print JSON"),
    s(
        "measure",
        'm',
        Nothing,
        "Measure latency, throughput and age",
    ),
    s("simulate", 's', Bool, "Change nothing"),
];

const CACHE: &[Opt] = &[
    o("add-dependencies", Nothing, "The world and the arguments"),
    s("available", 'a', Nothing, "What the repositories have"),
    o(
        "ci",
        Nothing,
        "prune: keep only what a later run would have to download",
    ),
    o(
        "json",
        Nothing,
        "dir, size, list, verify, prune: print JSON",
    ),
    o("ignore-conflict", Nothing, "Conflicts do not count"),
    s("latest", 'l', Nothing, "Newest versions"),
    s("simulate", 's', Bool, "Change nothing"),
    s("upgrade", 'u', Nothing, "Prefer upgrades"),
];

/// Every applet, sorted by name.
pub(crate) const APPLETS: &[Applet] = &[
    applet(
        "add",
        "[CONSTRAINT|FILE]...",
        "Add packages to the world and change the root accordingly",
        &[
            o("initdb", Nothing, "Create the database in ROOT"),
            s("latest", 'l', Nothing, "Prefer the newest versions"),
            opt("usermode", "no-chown", None, Nothing, ""),
            s(
                "upgrade",
                'u',
                Nothing,
                "Upgrade the named packages and what they need",
            ),
            o(
                "usermode",
                Auto,
                "Create a database owned by an ordinary user; auto: unless root",
            ),
            s(
                "virtual",
                't',
                Value("NAME[=VERSION]"),
                "Make a virtual package of the arguments",
            ),
        ],
        &[Group::Commit],
    ),
    planned(
        "adbdump",
        "FILE...",
        "Print a v3 file as text",
        &[o("format", Value("yaml|json"), "How to print it")],
        &[],
    ),
    planned("adbgen", "FILE...", "Make a v3 file from text", &[], &[]),
    planned(
        "adbsign",
        "FILE...",
        "Sign or recompress v3 files",
        &[o("reset-signatures", Nothing, "Drop old signatures")],
        &[Group::Generation],
    ),
    applet(
        "audit",
        "[/DIRECTORY]...",
        "Compare files with the database",
        AUDIT,
        &[],
    ),
    applet(
        "branch",
        "[switch BRANCH]",
        "Show the branch that the root follows, or move it to another one",
        &[],
        &[Group::Commit],
    ),
    applet(
        "cache",
        "clean|dir|download|list|prune|purge|size|sync|verify [CONSTRAINT]...",
        "Manage the package cache",
        CACHE,
        &[],
    ),
    applet(
        "completions",
        "bash|zsh|fish",
        "Print a script that completes command lines",
        &[o("candidates", Nothing, "")],
        &[],
    ),
    planned(
        "convdb",
        "",
        "Convert the database to v3",
        &[],
        &[Group::Generation],
    ),
    planned(
        "convndx",
        "FILE|URL...",
        "Convert indexes to v3",
        &[],
        &[Group::Generation],
    ),
    applet(
        "del",
        "NAME...",
        "Remove packages from the world and change the root accordingly",
        &[s(
            "rdepends",
            'r',
            Nothing,
            "And everything that depends on them",
        )],
        &[Group::Commit],
    ),
    applet(
        "dot",
        "[NAME]...",
        "Print the dependency graph for Graphviz",
        &[o("errors", Nothing, "Only problems")],
        &[Group::Query],
    ),
    applet(
        "extract",
        "FILE|URL...",
        "Unpack packages without a database",
        &[
            o("destination", Value("DIR"), "Unpack here"),
            o("no-chown", Nothing, "Keep your own user as the owner"),
        ],
        &[],
    ),
    applet(
        "fetch",
        "NAME...",
        "Download packages",
        FETCH,
        &[Group::Query],
    ),
    applet(
        "image",
        "SUBCOMMAND [ARGUMENT]...",
        "Build container images from packages",
        &[],
        &[],
    ),
    applet(
        "fix",
        "[NAME]...",
        "Repair packages",
        &[
            s("depends", 'd', Nothing, "And what they need"),
            o(
                "directory-permissions",
                Nothing,
                "Reset owner and mode of all directories",
            ),
            s("reinstall", 'r', Nothing, "Install again (default)"),
            s("upgrade", 'u', Nothing, "Upgrade instead"),
            s(
                "xattr",
                'x',
                Nothing,
                "And packages whose extended attributes could not be set",
            ),
        ],
        &[Group::Commit],
    ),
    applet(
        "history",
        "[list | show NUMBER]",
        "Show the transactions that changed the root",
        &[o("json", Nothing, "Print it as JSON")],
        &[],
    ),
    applet(
        "index",
        "FILE...",
        "Make a repository index of package files",
        INDEX,
        &[],
    ),
    applet(
        "info",
        "[NAME]...",
        "Show details of packages",
        INFO,
        &[Group::Query],
    ),
    applet(
        "list",
        "[PATTERN]...",
        "List packages",
        LIST,
        &[Group::Query],
    ),
    applet("man", "DIR", "Write the manual pages", &[], &[]),
    applet(
        "manifest",
        "NAME|FILE...",
        "Print the checksums of packages' files",
        &[],
        &[],
    ),
    applet(
        "mirrors",
        "[list|rank|fastest|use URL...]",
        "List, measure and rank mirrors, and keep the choice",
        MIRRORS,
        &[],
    ),
    planned(
        "mkndx",
        "PACKAGE...",
        "Make a v3 index",
        &[
            s("description", 'd', Value("TEXT"), "Description"),
            o(
                "filter-spec",
                Value("SPEC"),
                "Only pick entries of the old index",
            ),
            o("hash", Value("ALG"), "How packages are identified"),
            s("index", 'x', Value("FILE"), "Reuse entries of this index"),
            s("output", 'o', Value("FILE"), "Write to this file"),
            o("pkgname-spec", Value("SPEC"), "How package files are named"),
            o("rewrite-arch", Value("ARCH"), ""),
        ],
        &[Group::Generation],
    ),
    planned(
        "mkpkg",
        "",
        "Make a v3 package",
        &[
            o("compat", Value("VERSION"), "What an older program can read"),
            s("files", 'F', Value("DIR"), "Contents"),
            s("info", 'I', List("KEY:VALUE"), "Metadata"),
            s("output", 'o', Value("FILE"), "Write to this file"),
            o("rootnode", Bool, ""),
            s("script", 's', List("TYPE:FILE"), "Scripts"),
            o("stdout", Nothing, "Write to standard output"),
            s("trigger", 't', List("PATH"), "Directories to watch"),
            o("xattrs", Bool, "Extended attributes (default yes)"),
        ],
        &[Group::Generation],
    ),
    applet(
        "policy",
        "[NAME]...",
        "Show versions and where they come from",
        &[],
        &[Group::Query],
    ),
    applet(
        "query",
        "[PATTERN]...",
        "Print chosen fields of packages",
        &[],
        &[Group::Query],
    ),
    applet(
        "recover",
        "",
        "Finish or undo what an interrupted transaction left",
        &[
            o("json", Nothing, "Print what was done as JSON"),
            s("simulate", 's', Bool, "Only say what is to be done"),
        ],
        &[],
    ),
    applet(
        "rollback",
        "NUMBER",
        "Return to the packages and the world as they were after a transaction",
        &[],
        &[Group::Commit],
    ),
    applet(
        "search",
        "[PATTERN]...",
        "Search packages",
        SEARCH,
        &[Group::Query],
    ),
    applet(
        "serve",
        "DIR",
        "Serve a directory over HTTP, to a repository's users",
        &[o(
            "listen",
            Value("ADDRESS:PORT"),
            "Where to listen (127.0.0.1:8000); port 0 lets the system choose",
        )],
        &[],
    ),
    applet(
        "snapshot",
        "DIR",
        "Keep a dated copy of what the root has installed, as a repository",
        &[
            o(
                "lock",
                Value("FILE"),
                "Keep what this lock file names instead",
            ),
            o(
                "sign-key",
                Value("KEY"),
                "Sign the index with this private key (else with one made for you)",
            ),
        ],
        &[],
    ),
    applet("stats", "", "Show statistics", &[], &[]),
    applet(
        "undo",
        "[NUMBER]",
        "Take back one transaction, the newest if none is named",
        &[],
        &[Group::Commit],
    ),
    applet("update", "", "Refresh the indexes", &[], &[]),
    applet(
        "upgrade",
        "[NAME]...",
        "Upgrade packages",
        &[
            s(
                "available",
                'a',
                Nothing,
                "Move everything to what the repositories have",
            ),
            o("ignore", Nothing, "The names are the ones not to upgrade"),
            s("latest", 'l', Nothing, "Prefer the newest versions"),
            o(
                "preupgrade",
                Bool,
                "Upgrade the package manager first (default yes)",
            ),
            o(
                "preupgrade-only",
                Nothing,
                "Upgrade only the package manager",
            ),
            o(
                "prune",
                Nothing,
                "Remove world entries that no repository offers",
            ),
            opt("preupgrade", "self-upgrade", None, Bool, ""),
            opt("preupgrade-only", "self-upgrade-only", None, Nothing, ""),
        ],
        &[Group::Commit],
    ),
    applet("verify", "FILE...", "Verify packages and indexes", &[], &[]),
    applet("version", "[NAME]...", "Compare versions", VERSION, &[]),
    applet(
        "why",
        "PACKAGE...",
        "Show the shortest chain from the world to an installed package",
        &[o("json", Nothing, "Print it as JSON")],
        &[],
    ),
];
