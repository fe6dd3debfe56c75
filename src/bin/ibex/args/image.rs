//! `image` and its subcommands: their own options, so that apko's letters mean what they mean there.

use super::options::Takes::{Bool, List, Nothing, Number, Value};
use super::options::{Applet, Opt, applet, o, opt, s};
use super::{Invocation, Parser, Scope, Stop, Values, find_applet, help};

/// Options of every subcommand.
pub(crate) const COMMON: &[Opt] = &[
    s("help", 'h', Nothing, "Show this help"),
    o("json", Nothing, "Print the result and errors as JSON"),
    o(
        "log-level",
        Value("LEVEL"),
        "error, warn, info or debug (info)",
    ),
    o("profile", Value("native|apko"), "Which defaults apply"),
    s("quiet", 'q', Nothing, "Say less"),
    o("strict", Nothing, "Warnings are errors"),
    s("verbose", 'v', Nothing, "Say more"),
    s("workdir", 'C', Value("DIR"), "Where relative paths begin"),
];

/// Options of subcommands that read a description and choose packages.
const RESOLVE: &[Opt] = &[
    o(
        "arch",
        List("A,B"),
        "Architectures, as amd64 or x86_64; host; all",
    ),
    o(
        "arch-policy",
        Value("same|per-arch"),
        "Whether all architectures get the same versions (same)",
    ),
    s(
        "build-repository-append",
        'b',
        List("REPO"),
        "Use this repository for building, too",
    ),
    o(
        "cache-dir",
        Value("DIR"),
        "Where downloads and layers are kept",
    ),
    o(
        "cache-readonly",
        Nothing,
        "Read what is kept, but keep nothing new",
    ),
    o(
        "explain",
        Nothing,
        "Print every reason why there is no solution",
    ),
    o(
        "force-index-rollback",
        Nothing,
        "Accept an index older than one seen before",
    ),
    o(
        "ignore-signatures",
        Nothing,
        "Accept indexes without a valid signature",
    ),
    o(
        "include-paths",
        List("DIR"),
        "Look for included files here, too",
    ),
    o(
        "kept",
        List("DIR"),
        "Folder of `fetch --to` to take packages from",
    ),
    s("keyring-append", 'k', List("FILE"), "Trust this key, too"),
    o("locked", Nothing, "Build what the lock file says, or fail"),
    o("lockfile", Value("FILE"), "Build what this lock file says"),
    o(
        "mirror",
        List("FROM=TO"),
        "Fetch from elsewhere; nothing else changes",
    ),
    o("no-cache", Nothing, "Keep nothing"),
    o("offline", Nothing, "Do not use the network"),
    s("package-append", 'p', List("PACKAGE"), "Add this package"),
    s(
        "repository-append",
        'r',
        List("REPO"),
        "Use this repository, too, and write it into the image",
    ),
    o(
        "require-sha256",
        Nothing,
        "Refuse indexes that are signed over SHA-1 only",
    ),
    o(
        "timeout",
        Number("SECONDS"),
        "Longest wait for the network (60)",
    ),
    o(
        "max-apkindex-decompressed-size",
        Value("BYTES"),
        "Largest index, inflated; 0 is the default (300M), -1 no limit",
    ),
    o(
        "max-apk-control-size",
        Value("BYTES"),
        "Largest control part of a package, inflated (10M)",
    ),
    o(
        "max-apk-data-size",
        Value("BYTES"),
        "Largest content of a package, inflated (16G)",
    ),
    o(
        "max-http-response-size",
        Value("BYTES"),
        "Largest answer of a server (8G, 64M for an index)",
    ),
];

/// Options of subcommands that build.
const BUILD: &[Opt] = &[
    o("annotations", List("KEY:VALUE"), "Add an annotation"),
    o(
        "build-date",
        Value("TIME"),
        "Earliest build time, as RFC 3339",
    ),
    o(
        "check-scripts",
        Nothing,
        "Run each script twice; what differs is an error",
    ),
    o(
        "clamp-mtime",
        Nothing,
        "Lower later times to the build time",
    ),
    o(
        "fail-on-skipped-script",
        Nothing,
        "A script that is not run is an error",
    ),
    opt(
        "layer-format",
        "format",
        None,
        Value("tar"),
        "Layer payload",
    ),
    o(
        "layer-compression",
        Value("gzip|zstd|none[:LEVEL]"),
        "How layers are compressed",
    ),
    o(
        "output-format",
        Value("oci-dir|oci-archive|docker-archive|rootfs"),
        "What is written; else the name of OUTPUT decides",
    ),
    o("sbom", Bool, "Write a bill of materials (default yes)"),
    o("sbom-formats", List("spdx,cyclonedx"), "Which ones (spdx)"),
    o("sbom-path", Value("DIR"), "Where they go"),
    o(
        "scripts",
        Value("skip|builtin|emulate|run"),
        "What becomes of package scripts",
    ),
    o(
        "scripts-warn",
        Nothing,
        "A script that fails is a warning, not an error",
    ),
    o("vcs", Bool, "Record the git remote and commit (default no)"),
];

macro_rules! subcommand {
    ($name:literal, $arguments:literal, $about:literal, $options:expr, $groups:expr) => {
        Subcommand {
            applet: applet($name, $arguments, $about, $options, &[]),
            groups: $groups,
        }
    };
}

/// A subcommand with the groups of options it shares with others.
#[derive(Debug)]
pub(crate) struct Subcommand {
    /// Name, arguments, options of its own.
    pub(crate) applet: Applet,
    /// Shared options.
    pub(crate) groups: &'static [&'static [Opt]],
}

/// Every subcommand.
pub(crate) const SUBCOMMANDS: &[Subcommand] = &[
    subcommand!(
        "build",
        "CONFIG REF OUTPUT",
        "Build an image",
        &[],
        &[RESOLVE, BUILD]
    ),
    subcommand!(
        "cache",
        "dir|size|prune|clean|verify",
        "Look after what is kept between builds",
        &[
            o("cache-dir", Value("DIR"), "Where it is"),
            o(
                "ci",
                Nothing,
                "prune: keep what was downloaded, remove what is quickly made again"
            ),
            o(
                "max-age",
                Value("30d"),
                "prune: remove what was not used for so long (s, m, h, d)"
            ),
            o(
                "max-size",
                Value("5G"),
                "prune: leave at most so many bytes"
            ),
        ],
        &[]
    ),
    subcommand!(
        "cpio",
        "CONFIG OUTPUT",
        "Write the root file system as a cpio archive",
        &[o("build-arch", Value("ARCH"), "The architecture")],
        &[RESOLVE, BUILD]
    ),
    subcommand!(
        "diff",
        "IMAGE IMAGE",
        "Show packages, files, sizes and settings that differ",
        &[],
        &[]
    ),
    subcommand!(
        "dot",
        "CONFIG [PACKAGE]...",
        "Print the dependency graph in Graphviz' language",
        &[opt(
            "single",
            "spanning-tree",
            Some('S'),
            Nothing,
            "Keep one arrow to each node"
        )],
        &[RESOLVE]
    ),
    subcommand!(
        "explain",
        "CONFIG PATH-or-PACKAGE",
        "Tell which package brings it in, and why",
        &[],
        &[RESOLVE]
    ),
    subcommand!(
        "fetch",
        "CONFIG-or-LOCK",
        "Bring everything that an offline build needs",
        &[o("to", Value("DIR"), "Keep copies here, too")],
        &[RESOLVE]
    ),
    subcommand!(
        "import",
        "ROOT-or-IMAGE",
        "Begin a description from a root directory, its archive, or an image",
        &[o(
            "keys",
            Value("DIR"),
            "Write the keys of it here, for the description to name"
        )],
        &[]
    ),
    subcommand!(
        "install-keys",
        "",
        "Install the keys that the repositories of a root publish",
        &[
            o("build-arch", Value("ARCH"), "The architecture"),
            o("cache-dir", Value("DIR"), "Where downloads are kept"),
            opt("into", "root", None, Value("DIR"), "The root (/)"),
            o(
                "mirror",
                List("FROM=TO"),
                "Fetch from elsewhere; nothing else changes",
            ),
            o("offline", Nothing, "Do not use the network"),
            o(
                "timeout",
                Number("SECONDS"),
                "Longest wait for the network (60)"
            ),
        ],
        &[]
    ),
    subcommand!(
        "lint",
        "CONFIG",
        "Show problems without building",
        &[
            o(
                "apko",
                Nothing,
                "And what apko would reject or do otherwise"
            ),
            o(
                "include-paths",
                List("DIR"),
                "Look for included files here, too"
            ),
        ],
        &[]
    ),
    subcommand!(
        "lock",
        "CONFIG",
        "Choose packages and write them into a lock file",
        &[
            o("check", Nothing, "Only compare with the lock file"),
            s("output", 'o', Value("FILE"), "Write here"),
            o(
                "update",
                List("PACKAGE"),
                "Move only these and what they force"
            ),
        ],
        &[RESOLVE]
    ),
    subcommand!(
        "login",
        "REGISTRY",
        "Keep a name and a password for a registry",
        &[
            o(
                "insecure-registry",
                List("HOST"),
                "Use plain HTTP for this registry"
            ),
            s(
                "password",
                'p',
                Value("PASSWORD"),
                "The password; others on this machine can see it in the list of processes"
            ),
            o(
                "password-stdin",
                Nothing,
                "Read the password from standard input"
            ),
            s("username", 'u', Value("USER"), "The name of the user"),
        ],
        &[]
    ),
    subcommand!(
        "publish",
        "CONFIG REF...",
        "Build an image and push it to a registry",
        &[
            o(
                "attach-sbom",
                Nothing,
                "Push the bills of materials as documents about the image"
            ),
            o(
                "image-refs",
                Value("FILE"),
                "Write references by digest here"
            ),
            o(
                "insecure-registry",
                List("HOST"),
                "Use plain HTTP for this registry"
            ),
            o(
                "local",
                Nothing,
                "Load into this machine's container engine instead"
            ),
        ],
        &[RESOLVE, BUILD]
    ),
    subcommand!(
        "rootfs",
        "CONFIG OUTPUT",
        "Write the root file system as a tar archive or a directory",
        &[
            o("build-arch", Value("ARCH"), "The architecture"),
            o(
                "record-ownership",
                Nothing,
                "Directory: write owners into user.rootlesscontainers"
            ),
            o(
                "userns",
                Nothing,
                "Directory: give files to the ids of /etc/subuid that stand for their owners"
            ),
        ],
        &[RESOLVE, BUILD]
    ),
    subcommand!(
        "schema",
        "",
        "Print the JSON Schema of descriptions",
        &[],
        &[]
    ),
    subcommand!(
        "show-config",
        "CONFIG",
        "Print the merged description",
        &[o(
            "include-paths",
            List("DIR"),
            "Look for included files here, too"
        )],
        &[]
    ),
    subcommand!(
        "show-packages",
        "CONFIG",
        "Print the packages that would be installed",
        &[opt(
            "list-format",
            "format",
            None,
            Value("FORMAT"),
            "How: name-version, packagelock, … or a template with {{ .Name }}"
        )],
        &[RESOLVE]
    ),
    subcommand!(
        "size",
        "IMAGE",
        "Show what takes the space",
        &[o(
            "html",
            Value("FILE"),
            "Write a page to look at in a browser"
        )],
        &[]
    ),
    subcommand!(
        "verify",
        "CONFIG LOCK IMAGE",
        "Build again and compare",
        &[],
        &[RESOLVE, BUILD]
    ),
    subcommand!("version", "", "Print the version", &[], &[]),
];

/// apko's other names.
const ALIASES: [(&str, &str); 4] = [
    ("clean", "cache"),
    ("resolve", "lock"),
    ("build-minirootfs", "rootfs"),
    ("build-cpio", "cpio"),
];

/// Finds a subcommand by its name or apko's.
pub(crate) fn find(name: &str) -> Option<&'static Subcommand> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    SUBCOMMANDS.iter().find(|one| one.applet.name == name)
}

/// Returns the options of a subcommand.
pub(super) fn scope(subcommand: &'static Subcommand) -> Scope {
    let mut groups = vec![subcommand.applet.options];
    groups.extend(subcommand.groups);
    groups.push(COMMON);
    Scope::of(groups, Some(&subcommand.applet))
}

/// Understands what follows `image`, or all words when the program is called `apko`.
pub(super) fn parse(called: &str, words: &[String]) -> Result<Invocation, Stop> {
    let image = find_applet("image").expect("it is in the list");
    let common = Scope::of(vec![COMMON, RESOLVE, BUILD], None);
    let mut rest = words.iter();
    let mut subcommand = None;
    while let Some(word) = rest.next() {
        if called != "apko" && subcommand.is_none() && word == "image" {
            continue;
        }
        if !word.starts_with('-') {
            subcommand = find(word).map(|found| (found, word));
            if subcommand.is_none() {
                let text =
                    format!("'{word}' is not a subcommand of image. See '{called} image --help'.");
                return Err(Stop::Usage(text));
            }
            break;
        }
        if matches!(word.as_str(), "-h" | "--help") {
            return Err(Stop::Output(help::image_overview(called), 0));
        }
        if common.swallows_next(word) {
            rest.next();
        }
    }
    let Some((subcommand, word)) = subcommand else {
        return Err(Stop::Output(help::image_overview(called), 2));
    };
    let mut parser = Parser {
        scope: scope(subcommand),
        called,
        values: Values::default(),
        arguments: Vec::new(),
    };
    let usage = || {
        let applet = &subcommand.applet;
        let line = format!(
            "{called} image {} [OPTION]... {}",
            applet.name, applet.arguments
        );
        format!("usage: {}", line.trim_end())
    };
    parser.run(words).map_err(|stop| match stop {
        Stop::Error(text, _) => Stop::Usage(format!("{text}\n{}", usage())),
        Stop::Output(_, _) => Stop::Output(help::subcommand(called, subcommand), 0),
        other => other,
    })?;
    let Parser {
        values,
        mut arguments,
        ..
    } = parser;
    for skip in ["image", word.as_str()] {
        if let Some(at) = arguments
            .iter()
            .position(|word| word == skip)
            .filter(|at| *at == 0)
        {
            arguments.remove(at);
        }
    }
    let mut values = values;
    if called == "apko" && values.last("profile").is_none() {
        values.add("profile", "profile", "apko");
    }
    if word == "resolve" {
        values.add("old-name", "resolve", "yes");
    }
    if word == "clean" {
        arguments.insert(0, "clean".to_owned());
    }
    if let Some(wrong) = wrong_count(&subcommand.applet, arguments.len()) {
        return Err(Stop::Usage(format!("{wrong}\n{}", usage())));
    }
    Ok(Invocation {
        applet: image,
        subcommand: Some(&subcommand.applet),
        values,
        arguments,
    })
}

/// Says so if there are too few or too many arguments.
fn wrong_count(applet: &Applet, count: usize) -> Option<String> {
    let words: Vec<&str> = applet.arguments.split_whitespace().collect();
    let required = words.iter().filter(|word| !word.starts_with('[')).count();
    let endless = words.iter().any(|word| word.ends_with("..."));
    let arguments = |count: usize| match count {
        1 => "1 argument".to_owned(),
        count => format!("{count} arguments"),
    };
    match count {
        count if count < required => Some(format!(
            "{} needs {}, not {count}",
            applet.name,
            arguments(required)
        )),
        count if count > words.len() && !endless => Some(format!(
            "{} takes {}, not {count}",
            applet.name,
            arguments(words.len())
        )),
        _ => None,
    }
}
