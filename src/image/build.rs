//! The steps of a build, in their order (image.md, 5.2).

use super::error::ImageError;
use super::record::{self, Record};
use super::request::{BuildRequest, ChosenId, ContainerConfig, DatabasePlace, ScriptMode};
use super::scripts::Scripts;
use super::store::Store;
use super::{
    BuiltImage, Platform, Warning, accounts, base, certificates, layer, ldconfig, mutate, oci,
    sandbox,
};
use crate::format::apk::{EntryKind, PackageReader};
use crate::package::InstalledDb;
use crate::plan::{Change, NewPackage, Plan, Source};
use crate::progress::{Event, Level, Sink};
use crate::root::{Root, RootError, Tree};
use crate::transaction::{self, Transaction, TransactionError};
use rustix::fs::FileType;
use std::collections::BTreeSet;
use std::io::BufReader;

const DATABASE: &str = "lib/apk/db";

/// Builds an image of one architecture.
///
/// Every package file is verified while it is read, unless an earlier build of the same request
/// left its result in the store.
///
/// # Errors
/// [`ImageError`]; the store holds nothing that a later build would take for finished.
pub fn build(
    request: &BuildRequest,
    store: &Store,
    sink: &mut dyn Sink,
) -> Result<BuiltImage, ImageError> {
    if request.base.is_some() {
        // What is below is read again every time: a record would have to hold all of it.
        return build_anew(request, store, "", sink);
    }
    let key = record::key(request)?;
    if let Some(image) = Record::load(store, &key, request) {
        return Ok(image);
    }
    let image = build_anew(request, store, &key, sink)?;
    Ok(image)
}

/// Returns the numbers that accounts of scripts get that ask for none in particular.
///
/// The packages are installed for it, but no layer is made. Nothing is executed.
///
/// # Errors
/// [`ImageError`].
pub fn choose_ids(
    request: &BuildRequest,
    store: &Store,
    sink: &mut dyn Sink,
) -> Result<Vec<ChosenId>, ImageError> {
    let mentioned = request
        .packages
        .iter()
        .any(|new| makes_accounts(new, request));
    if request.scripts < ScriptMode::Emulate || !mentioned {
        return Ok(Vec::new());
    }
    // Without what comes after the packages, so that it is another question only if they differ.
    let request = BuildRequest {
        scripts: ScriptMode::Emulate,
        fail_on_skipped_script: false,
        repositories: Vec::new(),
        runtime_keys: Vec::new(),
        configuration_json: None,
        paths: Vec::new(),
        files: Vec::new(),
        services: Vec::new(),
        remove: Vec::new(),
        config: ContainerConfig::default(),
        ..request.clone()
    };
    let key = match &request.base {
        Some(_) => None,
        None => Some(record::key(&request)?),
    };
    if let Some(ids) = key.as_ref().and_then(|key| record::known_ids(store, key)) {
        return Ok(ids);
    }
    let scripts = Scripts::new(&request);
    let installed = Installed::new(&request, store, &scripts, sink)?;
    scripts.finish(&installed.root, &mut Vec::new())?;
    let mut ids = scripts.ids();
    ids.sort();
    if let Some(key) = key {
        record::keep_ids(store, &key, &ids)?;
        // Whoever has these numbers already gets them again.
        if request.ids != ids {
            let known = BuildRequest {
                ids: ids.clone(),
                ..request
            };
            record::keep_ids(store, &record::key(&known)?, &ids)?;
        }
    }
    Ok(ids)
}

/// Returns whether a script of a package may make users or groups; a package that cannot be read
/// may, so that it is told.
fn makes_accounts(new: &NewPackage, request: &BuildRequest) -> bool {
    let Source::File(path) = &new.source else {
        return false;
    };
    let opened = std::fs::File::open(path).ok();
    let opened = opened.map(|file| PackageReader::open(BufReader::new(file), &request.limits));
    let Some(Ok((control, _))) = opened else {
        return true;
    };
    control.scripts.values().any(|text| {
        let has = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
        has(b"adduser") || has(b"addgroup")
    })
}

/// A tree with the packages, before anything that a description adds.
struct Installed {
    tree: Tree,
    root: Root,
    below: Option<base::Below>,
    installed: InstalledDb,
    /// Which nodes came from packages.
    packaged: std::ops::Range<u64>,
}

impl Installed {
    fn new(
        request: &BuildRequest,
        store: &Store,
        scripts: &Scripts<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Self, ImageError> {
        let tree = Tree::new(request.build_time);
        let root = Root::of_tree(&tree);
        let (below, installed) = match &request.base {
            None => {
                skeleton(&root, request)?;
                (None, InstalledDb::default())
            }
            Some(image) => {
                let below = base::unpack(image, &tree, &root, store)?;
                (Some(below), base::database(image, &root)?)
            }
        };
        mutate::keys(&root, &request.keys, false)?;
        let (installed, packaged) = install(&root, &tree, request, installed, scripts, sink)?;
        Ok(Self {
            tree,
            root,
            below,
            installed,
            packaged,
        })
    }
}

fn build_anew(
    request: &BuildRequest,
    store: &Store,
    key: &str,
    sink: &mut dyn Sink,
) -> Result<BuiltImage, ImageError> {
    if request.scripts == ScriptMode::Run {
        sandbox::available()?;
    }
    let mut warnings = Vec::new();
    let scripts = Scripts::new(request);
    let Installed {
        tree,
        root,
        below,
        installed,
        packaged,
    } = Installed::new(request, store, &scripts, sink)?;
    if below.is_none() {
        mutate::os_release(&root, &request.os_release)?;
        accounts::configure(&root, request, &mut warnings)?;
    }
    if let Some(json) = request
        .configuration_json
        .as_ref()
        .filter(|_| below.is_none())
    {
        let text = format!("{}\n", json.trim_end());
        root.replace("etc/apko.json", text.as_bytes(), 0o444, false)?;
    }
    mutate::paths(&root, &request.paths)?;
    mutate::files(&root, &request.files)?;
    certificates::add(&root, request, &installed, &mut warnings)?;
    mutate::keys(&root, &request.runtime_keys, true)?;
    mutate::services(&root, &request.services)?;
    let outcomes = scripts.finish(&root, &mut warnings)?;
    // Scripts may have made the bundle anew.
    certificates::seal(&root)?;
    if below.is_none() {
        devices(&root)?;
    }
    if request.scripts >= ScriptMode::Builtin {
        ldconfig::update(&root)?;
    }
    let text: String = request
        .repositories
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    root.replace("etc/apk/repositories", text.as_bytes(), 0o644, false)?;
    let place = match below {
        None => request.database,
        // It stays where it is.
        Some(_) => DatabasePlace::Auto,
    };
    let database = place_database(&root, place, &mut warnings)?;
    let removed = mutate::remove(&root, &request.remove)?;
    if !removed.is_empty() && request.database != DatabasePlace::None {
        let text: String = removed.iter().map(|path| format!("{path}\n")).collect();
        root.replace(
            &format!("{database}/removed"),
            text.as_bytes(),
            0o644,
            false,
        )?;
    }
    check(&root, &mut warnings)?;
    let user = match &request.config.run_as {
        Some(wanted) => Some(accounts::run_as(&root, wanted, &mut warnings)?),
        None => None,
    };
    let names: BTreeSet<String> = (request.packages.iter())
        .map(|new| new.package.name.clone())
        .collect();
    let source = layer::Source {
        tree: &tree,
        root: &root,
        installed: &installed,
        packaged,
        layering: request.layering,
        compression: request.compression,
        latest: request.clamp_mtime.then_some(request.build_time),
        database: format!("{database}/installed"),
        below: below.as_ref().map(|below| (below, &names)),
    };
    let mut made = layer::make(&source, store)?;
    let platform = Platform::of_apk(&request.architecture);
    let (config, manifest) = match (&request.base, below) {
        (Some(base), Some(mut below)) => {
            let added = made.layers.len();
            below.layers.append(&mut made.layers);
            made.layers = below.layers;
            oci::extended(
                &base.config,
                &base.annotations,
                request.build_time,
                &request.config,
                &made.layers,
                added,
            )
        }
        _ => oci::image(
            &platform,
            request.build_time,
            &request.config,
            user.as_deref(),
            &made.layers,
        ),
    };
    let image = BuiltImage {
        architecture: request.architecture.clone(),
        platform,
        layers: made.layers,
        config,
        manifest,
        build_time: request.build_time,
        installed,
        scripts: outcomes,
        warnings,
        root,
    };
    if request.base.is_none() {
        Record::keep(store, key, &image, &tree, &made.places)?;
    }
    Ok(image)
}

/// Makes what is there before the first package.
fn skeleton(root: &Root, request: &BuildRequest) -> Result<(), ImageError> {
    // Where a distribution has one directory for libraries, the link must be there before the
    // database is: nothing is moved later.
    if let Some(target) = library_link(request) {
        root.create_directories(&target)?;
        root.directory("")?.create_symlink(&target, "lib")?;
    }
    for path in ["dev", "etc", "opt", "var", "usr", "proc", "tmp"] {
        root.create_directories(path)?;
    }
    let top = root.directory("")?;
    top.set_mode("tmp", 0o1777)?;
    top.set_mode("proc", 0o555)?;
    for path in [
        "etc/apk/keys",
        "lib/apk/exec",
        "var/cache/apk",
        "var/cache/misc",
        DATABASE,
    ] {
        root.create_directories(path)?;
    }
    root.replace("lib/apk/db/lock", b"", 0o600, false)?;
    // A plain archive is there, so a plain archive is written: old and new apk read it.
    root.replace("lib/apk/db/scripts.tar", b"", 0o644, false)?;
    Ok(devices(root)?)
}

/// Returns the target of a link `lib` that a package brings.
fn library_link(request: &BuildRequest) -> Option<String> {
    let layouts = request.packages.iter().filter(|new| {
        new.package.name.contains("baselayout") || new.package.name.contains("filesystem")
    });
    for new in layouts {
        let Source::File(path) = &new.source else {
            continue;
        };
        let Ok(file) = std::fs::File::open(path) else {
            continue;
        };
        let Ok((_, mut data)) = PackageReader::open(BufReader::new(file), &request.limits) else {
            continue;
        };
        // A damaged package is found, and told, when it is installed.
        while let Ok(Some(entry)) = data.next_entry() {
            if let EntryKind::Symlink(target) = &entry.header.kind
                && entry.path == "lib"
                && !target.contains("..")
            {
                return Some(target.trim_matches('/').to_owned());
            }
        }
    }
    None
}

/// Makes the devices that every container expects, where they are missing.
fn devices(root: &Root) -> Result<(), RootError> {
    let directory = root.directory("dev")?;
    for (name, major, minor, mode) in [
        ("console", 5, 1, 0o620),
        ("null", 1, 3, 0o666),
        ("random", 1, 8, 0o666),
        ("urandom", 1, 9, 0o666),
        ("zero", 1, 5, 0o666),
    ] {
        if directory.stat(name)?.is_none() {
            directory.create_node(name, FileType::CharacterDevice, mode, major, minor)?;
        }
    }
    Ok(())
}

/// Passes everything on and remembers errors: an image has no half-installed packages.
struct Strict<'s> {
    inner: &'s mut dyn Sink,
    errors: Vec<String>,
}

impl Sink for Strict<'_> {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Line(Level::Error, text) = event {
            self.errors.push(text.to_owned());
        } else {
            self.inner.event(event);
        }
    }

    fn wants(&self, level: Level) -> bool {
        // What is in an image is told by other means than the names of thousands of files.
        level != Level::Trace
    }
}

/// Installs the packages; returns the database, and which nodes came from packages.
fn install(
    root: &Root,
    tree: &Tree,
    request: &BuildRequest,
    installed: InstalledDb,
    scripts: &Scripts<'_>,
    sink: &mut dyn Sink,
) -> Result<(InstalledDb, std::ops::Range<u64>), ImageError> {
    let changes = request.packages.iter().map(|new| Change {
        old: None,
        new: Some(new.clone()),
        reinstall: false,
    });
    let plan = Plan {
        changes: changes.collect(),
    };
    let options = transaction::Options {
        commit_hooks: false,
        write_arch: Some(vec![request.architecture.clone()]),
        limits: request.limits,
        ..transaction::Options::default()
    };
    let transaction = Transaction {
        root,
        installed,
        plan: &plan,
        world: &request.world,
        options: &options,
        runner: Some(scripts),
        note: Vec::new(),
        interrupt: None,
    };
    let first = tree.mark();
    let staged = transaction.stage()?;
    let packaged = first..tree.mark();
    let mut strict = Strict {
        inner: sink,
        errors: Vec::new(),
    };
    let outcome = staged.commit(&mut strict)?;
    scripts.failure()?;
    if outcome.errors > 0 || !strict.errors.is_empty() {
        return Err(ImageError::Install(TransactionError::Refused {
            packages: outcome.errors.max(1),
            lines: strict.errors,
            damaged: Vec::new(),
        }));
    }
    Ok((outcome.installed, packaged))
}

/// Puts the database where it is wanted; returns where that is, without links.
fn place_database(
    root: &Root,
    place: DatabasePlace,
    warnings: &mut Vec<Warning>,
) -> Result<String, ImageError> {
    let real = |path: &str| {
        let tree = root.tree().expect("an image is built in memory");
        tree.real_path(path).unwrap_or_else(|| path.to_owned())
    };
    match place {
        DatabasePlace::Auto | DatabasePlace::Lib => {}
        DatabasePlace::Usr => {
            if real("lib") == "lib" {
                root.create_directories("usr/lib")?;
                let (from, to) = (root.directory("lib")?, root.directory("usr/lib")?);
                if to.stat("apk")?.is_some() {
                    return Err(ImageError::Path {
                        place: "x-build.db".to_owned(),
                        reason: "/usr/lib/apk: something is already there".to_owned(),
                    });
                }
                from.rename_to("apk", &to, "apk")?;
                from.create_symlink("../usr/lib/apk", "apk")?;
                root.forget_directories();
            }
        }
        DatabasePlace::None => {
            mutate::remove(
                root,
                &["lib/apk".into(), "usr/lib/apk".into(), "etc/apk".into()],
            )?;
            warnings.push(Warning {
                code: "W-NO-DB",
                text: "the image has no package database; scanners will see nothing".to_owned(),
            });
        }
    }
    Ok(real(DATABASE))
}

/// Looks for what every image should have.
fn check(root: &Root, warnings: &mut Vec<Warning>) -> Result<(), ImageError> {
    let missing = [
        (
            "etc/passwd",
            "W-NO-PASSWD",
            "add a base layout such as `alpine-baselayout`",
        ),
        (
            "etc/group",
            "W-NO-GROUP",
            "add a base layout such as `alpine-baselayout`",
        ),
        (
            "etc/os-release",
            "W-NO-OSRELEASE",
            "add `alpine-release` or `wolfi-baselayout`, or scanners will not know the system",
        ),
    ];
    for (path, code, advice) in missing {
        if root.open_file(path)?.is_none() {
            warnings.push(Warning {
                code,
                text: format!("there is no /{path}; {advice}"),
            });
        }
    }
    Ok(())
}
