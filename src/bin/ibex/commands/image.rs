//! `image`: one function a subcommand. Standard output has the result alone; what happens on the
//! way goes to standard error.

use super::settings::catalogue_directory;
use crate::args::{Invocation, Values, help};
use crate::output::Console;
use ibex::config::image as description;
use ibex::config::{HostCredentials, Settings, Transport};
use ibex::fetch::registry::CredentialFiles;
use ibex::format::Limits;
use ibex::image::ScriptMode;
use ibex::image::output::Ownership;
use ibex::ops::image::{
    self, BillFormat, BuildOptions, Built, Error, Options, OutputFormat, Profile, Resolution,
    Workshop,
};
use ibex::progress::{Event, Level, Sink};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Runs the subcommand; returns the exit code.
pub(crate) fn run(invocation: &Invocation, console: &mut Console) -> u8 {
    super::clean_up_on_signals();
    match dispatch(invocation, console) {
        Ok(code) => code,
        Err(error) => {
            report(&error, &invocation.values, console);
            error.exit_code()
        }
    }
}

/// Prints what is wrong with a command line; all lines but the first are facts.
pub(crate) fn report_usage(text: &str, json: bool, console: &mut Console) {
    let mut lines = text.lines().map(str::to_owned);
    let message = lines.next().unwrap_or_default();
    print_report(
        "E-USAGE",
        &message,
        &lines.collect::<Vec<_>>(),
        &[],
        json,
        console,
    );
}

/// Prints why it did not happen.
fn report(error: &Error, values: &Values, console: &mut Console) {
    let (code, message) = (error.code(), error.to_string());
    let (mut facts, mut hints) = (error.facts(), error.hints());
    match (
        values.is("explain") || values.is("json"),
        error.more_facts(),
    ) {
        (_, []) => {}
        (true, more) => facts.extend_from_slice(more),
        (false, _) => hints.push("`--explain` tells what else is in the way".to_owned()),
    }
    print_report(code, &message, &facts, &hints, values.is("json"), console);
}

fn print_report(
    code: &str,
    message: &str,
    facts: &[String],
    hints: &[String],
    json: bool,
    console: &mut Console,
) {
    if json {
        let object = json!({ "code": code, "message": message, "facts": facts, "hints": hints });
        console.print(&format!("{object}\n"));
        return;
    }
    let mut text = format!(
        "error[{code}]: {}\n",
        message.lines().next().unwrap_or_default()
    );
    for line in message.lines().skip(1) {
        text.push_str(&format!("  {line}\n"));
    }
    for fact in facts {
        text.push_str(&format!("  {fact}\n"));
    }
    for hint in hints {
        text.push_str(&format!("hint: {hint}\n"));
    }
    console.print_error(&text);
}

/// Sends every line to standard error.
pub(super) struct ToStderr<'c> {
    console: &'c mut Console,
    level: Level,
}

impl<'c> ToStderr<'c> {
    pub(super) fn new(invocation: &Invocation, console: &'c mut Console) -> Self {
        let level = match (invocation.values.last("log-level"), invocation.verbosity()) {
            (Some("error"), _) => Level::Error,
            (Some("warn" | "warning"), _) | (None, 0) => Level::Warning,
            (Some("debug"), _) | (None, 3..) => Level::Trace,
            (None, 2) => Level::Detail,
            (Some("info"), _) => Level::Info,
            _ => Level::Notice,
        };
        Self { console, level }
    }
}

impl Sink for ToStderr<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Line(level, text) if level <= self.level => {
                let before = match level {
                    Level::Error => "error: ",
                    Level::Warning => "warning: ",
                    _ => "",
                };
                self.console.print_error(&format!("{before}{text}\n"));
            }
            Event::Note(text) if self.level >= Level::Detail => {
                self.console.print_error(&format!("{text}\n"));
            }
            Event::Text(text) => self.console.print_error(text),
            Event::ScriptLine(_, line) => {
                let line = String::from_utf8_lossy(line).into_owned();
                self.console.print_error(&format!("{line}\n"));
            }
            _ => {}
        }
    }
}

fn dispatch(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let name = invocation.subcommand.map_or("", |applet| applet.name);
    match name {
        "version" => {
            console.print(&help::version("ibex"));
            return Ok(0);
        }
        "schema" => {
            console.print(&format!("{:#}\n", description::schema()));
            return Ok(0);
        }
        _ => {}
    }
    match name {
        "diff" => return diff(invocation, console),
        "size" => return size(invocation, console),
        "cache" => return super::image_upkeep::cache(invocation, console),
        "import" => return super::image_upkeep::import(invocation, console),
        "install-keys" => return super::image_upkeep::install_keys(invocation, console),
        "login" => return super::image_upkeep::login(invocation, console),
        _ => {}
    }
    let options = options(invocation)?;
    let profile = format!("profile: {}", options.profile.as_str());
    ToStderr::new(invocation, console).line(Level::Trace, &profile);
    match name {
        "build" => build(invocation, &options, console),
        "publish" => publish(invocation, &options, console),
        "rootfs" | "cpio" => rootfs(invocation, options, name == "cpio", console),
        "verify" => verify(invocation, options, console),
        "show-config" => show_config(invocation, &options, console),
        "lint" => lint(invocation, &options, console),
        "show-packages" => show_packages(invocation, &options, console),
        "lock" => lock(invocation, &options, console),
        "fetch" => fetch(invocation, &options, console),
        "explain" => {
            let word = &invocation.arguments[1];
            let mut sink = ToStderr::new(invocation, console);
            let mut workshop = Workshop::open(&options)?;
            let text = image::explain(&mut workshop, word, &mut sink)?;
            match invocation.values.is("json") {
                true => {
                    let lines: Vec<&str> = text.lines().collect();
                    let object = json!({ "package": word, "lines": lines });
                    console.print(&format!("{object:#}\n"));
                }
                false => console.print(&text),
            }
            Ok(0)
        }
        "dot" => {
            let mut sink = ToStderr::new(invocation, console);
            let mut workshop = Workshop::open(&options)?;
            let only = &invocation.arguments[1..];
            let single = invocation.values.is("single");
            let text = image::dot(&mut workshop, only, single, &mut sink)?;
            console.print(&text);
            Ok(0)
        }
        other => Err(Error::Unsupported {
            what: format!("image {other}"),
        }),
    }
}

pub(super) fn usage(message: impl Into<String>) -> Error {
    Error::Usage {
        message: message.into(),
    }
}

/// Returns what the options and the environment ask for.
pub(super) fn options(invocation: &Invocation) -> Result<Options, Error> {
    let values = &invocation.values;
    let profile = match values.last("profile") {
        None | Some("native") => Profile::Native,
        Some("apko") => Profile::Apko,
        Some(other) => {
            return Err(usage(format!(
                "--profile: \"{other}\" is neither native nor apko"
            )));
        }
    };
    let per_architecture = match values.last("arch-policy") {
        None | Some("same") => false,
        Some("per-arch") => true,
        Some(other) => {
            return Err(usage(format!(
                "--arch-policy: \"{other}\" is neither same nor per-arch"
            )));
        }
    };
    let mut mirrors = Vec::new();
    for text in values.all("mirror") {
        let (from, to) = text
            .split_once('=')
            .ok_or_else(|| usage(format!("--mirror: \"{text}\" is not FROM=TO")))?;
        mirrors.push((from.to_owned(), to.to_owned()));
    }
    let architectures = words(values, "arch");
    if architectures.len() > 1 && architectures.iter().any(|name| name == "all") {
        return Err(usage("--arch: all stands alone"));
    }
    let path = |id: &str| values.last(id).map(PathBuf::from);
    let paths = |id: &str| words(values, id).into_iter().map(PathBuf::from).collect();
    let here = std::env::current_dir().unwrap_or_default();
    let mut notes = Vec::new();
    let usual = || match values.is("cache-readonly") {
        true => catalogue_directory(),
        false => usable(catalogue_directory(), &mut notes),
    };
    let cache_dir = match values.is("no-cache") {
        true => None,
        false => path("cache-dir").or_else(usual),
    };
    let mut cache_place = None;
    let cache_dir = match cache_dir.clone().filter(|_| values.is("cache-readonly")) {
        Some(kept) => {
            let place = image::shadow_cache(&kept)?;
            let path = place.path().to_owned();
            cache_place = Some(std::sync::Arc::new(place));
            Some(path)
        }
        None => cache_dir,
    };
    let settings = Settings {
        network: !values.is("offline"),
        allow_untrusted: values.is("ignore-signatures"),
        timeout: values.number("timeout").unwrap_or(60),
        catalogue_dir: cache_dir.clone(),
        cache: cache_dir.is_some(),
        limits: limits(values)?,
        transport: transport(),
        ..super::settings::settings(invocation)
    };
    Ok(Options {
        profile,
        config: invocation
            .arguments
            .first()
            .map(PathBuf::from)
            .unwrap_or_default(),
        work_dir: here.join(path("workdir").unwrap_or_default()),
        include_paths: paths("include-paths"),
        architectures,
        keyring: values.all("keyring-append"),
        build_repositories: values.all("build-repository-append"),
        repositories: values.all("repository-append"),
        packages: values.all("package-append"),
        cache_dir,
        cache_place,
        lockfile: path("lockfile"),
        locked: values.is("locked"),
        kept: paths("kept"),
        mirrors,
        require_sha256: values.is("require-sha256"),
        per_architecture,
        notes,
        strict: values.is("strict"),
        credentials: credentials(),
        settings,
    })
}

/// Returns the usual place of the cache if it can be used; else something temporary has to do, which
/// is told.
fn usable(place: Option<PathBuf>, notes: &mut Vec<description::Warning>) -> Option<PathBuf> {
    let reason = match &place {
        None => "neither IBEX_CACHE_DIR nor HOME says where it could be".to_owned(),
        Some(path) => {
            let made = std::fs::create_dir_all(path);
            let writable = || rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
            match made.and_then(|()| Ok(writable()?)) {
                Ok(()) => return place,
                Err(error) => format!("{}: {}", path.display(), ibex::root::cause(&error)),
            }
        }
    };
    let text = format!("there is no place for a cache, so nothing is kept: {reason}");
    notes.push(description::Warning::new("W-NO-CACHE", text));
    None
}

/// Returns how the network is reached; credentials of the environment are for the hosts that they
/// name, not for whoever asks (image.md, 13.6).
fn transport() -> Transport {
    let variable = |name: &str| -> Option<String> {
        std::env::var_os(name).map(|text| text.to_string_lossy().into())
    };
    Transport {
        hosts: HostCredentials::parse_lines(&variable("HTTP_AUTH").unwrap_or_default()),
        credentials: None,
        command: variable("APK_AUTH_COMMAND")
            .filter(|text| !text.is_empty())
            .map(PathBuf::from),
        ..Transport::from_environment(&variable)
    }
}

/// Returns where logins to registries may be.
pub(super) fn credentials() -> CredentialFiles {
    let variable = |name: &str| std::env::var_os(name).map(|text| text.to_string_lossy().into());
    CredentialFiles::usual(variable)
}

/// Returns the bounds on what is read (image.md, 17), with what options move.
fn limits(values: &Values) -> Result<Limits, Error> {
    let mut limits = Limits {
        index: 300 << 20,
        control: 10 << 20,
        unpacked: 16 << 30,
        response: 8 << 30,
        entries: 4_000_000,
        ..Limits::default()
    };
    let given = |id: &str| match values.last(id) {
        None | Some("0") => Ok(None),
        Some("-1") => Ok(Some(u64::MAX)),
        Some(text) => match ibex::format::parse_size(text) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(usage(format!("--{id}: \"{text}\" is no number of bytes"))),
        },
    };
    if let Some(most) = given("max-apkindex-decompressed-size")? {
        limits.index = most;
    }
    if let Some(most) = given("max-apk-control-size")? {
        limits.control = most;
        // What is inside may fill it.
        limits.pkginfo = limits.pkginfo.max(most);
        limits.script = limits.script.max(most);
    }
    if let Some(most) = given("max-apk-data-size")? {
        limits.unpacked = most;
        if most == u64::MAX {
            limits.excess = most;
        }
    }
    if let Some(most) = given("max-http-response-size")? {
        limits.response = most;
        limits.index_file = most;
    }
    Ok(limits)
}

/// Returns the values of an option that takes lists with commas.
fn words(values: &Values, id: &str) -> Vec<String> {
    let all = values.all(id);
    let words = all.iter().flat_map(|text| text.split(','));
    words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn show_config(
    invocation: &Invocation,
    options: &Options,
    console: &mut Console,
) -> Result<u8, Error> {
    let loaded = description::load(&options.config, &options.work_dir, &options.include_paths)?;
    if invocation.values.is("json") {
        console.print(&format!("{}\n", loaded.config.to_json()));
        return Ok(0);
    }
    let mut sink = ToStderr::new(invocation, console);
    for warning in &loaded.warnings {
        sink.warning(&format!("{}: {}", warning.code, warning.text));
    }
    let profile = options.profile.as_str();
    console.print(&format!(
        "# profile: {profile}\n{}",
        loaded.config.to_yaml()
    ));
    Ok(0)
}

fn lint(invocation: &Invocation, options: &Options, console: &mut Console) -> Result<u8, Error> {
    let loaded = description::load(&options.config, &options.work_dir, &options.include_paths)?;
    let mut found = loaded.warnings;
    found.extend(description::lint(
        &loaded.config,
        invocation.values.is("apko"),
    ));
    if options.strict && !found.is_empty() {
        return Err(Error::Strict(found));
    }
    if invocation.values.is("json") {
        let list: Vec<_> = found
            .iter()
            .map(|warning| json!({ "code": warning.code, "text": warning.text }))
            .collect();
        console.print(&format!("{:#}\n", json!(list)));
    } else {
        for warning in &found {
            console.print(&format!("{}: {}\n", warning.code, warning.text));
        }
    }
    Ok(0)
}

fn show_packages(
    invocation: &Invocation,
    options: &Options,
    console: &mut Console,
) -> Result<u8, Error> {
    let values = &invocation.values;
    let format = values.last("list-format").unwrap_or("name-version");
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(options)?;
    let resolutions = match workshop.lock_in_use()? {
        Some(_) => workshop.packages(&mut sink)?,
        None => workshop.resolve(&mut sink)?,
    };
    workshop.tell_warnings(&mut sink)?;
    if values.is("json") {
        let all: Vec<_> = resolutions.iter().map(resolution_json).collect();
        console.print(&format!("{:#}\n", json!(all)));
        return Ok(0);
    }
    let several = resolutions.len() > 1;
    for resolution in &resolutions {
        if several {
            console.print_error(&format!("# {}\n", resolution.architecture.oci));
        }
        for chosen in &resolution.packages {
            let package = &chosen.package;
            let line = line(format, &package.name, &package.version, &chosen.url)?;
            console.print(&format!("{line}\n"));
        }
    }
    Ok(0)
}

fn resolution_json(resolution: &Resolution) -> serde_json::Value {
    let packages: Vec<_> = resolution
        .packages
        .iter()
        .map(|chosen| {
            json!({
                "name": chosen.package.name,
                "version": chosen.package.version,
                "source": chosen.url,
                "checksum": chosen.package.identity.to_q1(),
                "size": chosen.package.size,
                "installed-size": chosen.package.installed_size,
            })
        })
        .collect();
    json!({ "architecture": resolution.architecture.oci, "packages": packages })
}

/// Writes one package of a list (image.md, 2.3).
fn line(format: &str, name: &str, version: &str, url: &str) -> Result<String, Error> {
    Ok(match format {
        "name-version" => format!("{name} {version}"),
        "name-version-source" => format!("{name} {version} {url}"),
        "name=version" => format!("{name}={version}"),
        "name=version-source" => format!("{name}={version} {url}"),
        "name-(version)" => format!("{name} ({version})"),
        "name-(version)-source" => format!("{name} ({version}) {url}"),
        "packagelock" => format!("- {name}={version}"),
        "packagelock-source" => format!("- {name}={version} # {url}"),
        template if template.contains("{{") => {
            let mut text = String::new();
            let mut rest = template;
            while let Some((before, after)) = rest.split_once("{{") {
                let unknown = || usage(format!("--format: cannot read \"{template}\""));
                let (field, after) = after.split_once("}}").ok_or_else(unknown)?;
                text.push_str(before);
                text.push_str(match field.trim() {
                    ".Name" => name,
                    ".Version" => version,
                    ".Source" => url,
                    _ => return Err(unknown()),
                });
                rest = after;
            }
            text + rest
        }
        other => return Err(usage(format!("--format: \"{other}\" is not known"))),
    })
}

fn lock(invocation: &Invocation, options: &Options, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(options)?;
    let update = words(values, "update");
    let update = (!update.is_empty()).then_some(update.as_slice());
    let check = values.is("check");
    let output = values.last("output").map(PathBuf::from);
    // Under its old name the file had another one, too.
    let old_name = || options.config.with_extension("resolved.json");
    let output = output.or_else(|| values.is("old-name").then(old_name));
    let output = output.as_deref();
    let outcome = image::lock(&mut workshop, update, check, output, &mut sink)?;
    for line in &outcome.changes {
        sink.line(Level::Notice, line);
    }
    let path = outcome
        .path
        .strip_prefix(&options.work_dir)
        .unwrap_or(&outcome.path);
    let text = match check {
        true => format!("{} is up to date", path.display()),
        false => format!("{}: {} packages", path.display(), outcome.packages),
    };
    sink.line(Level::Notice, &text);
    if values.is("json") {
        let object =
            json!({ "lock": path, "packages": outcome.packages, "changes": outcome.changes });
        console.print(&format!("{object}\n"));
    }
    Ok(0)
}

fn fetch(invocation: &Invocation, options: &Options, console: &mut Console) -> Result<u8, Error> {
    let mut options = options.clone();
    if options.config.extension().is_some_and(|end| end == "json") {
        options.lockfile = Some(options.config.clone());
    }
    let to = invocation.values.last("to").map(Path::new);
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(&options)?;
    let outcome = image::fetch(&mut workshop, to, &mut sink)?;
    sink.line(
        Level::Notice,
        &format!("{} packages, {} bytes", outcome.packages, outcome.bytes),
    );
    Ok(0)
}

/// Returns how to build, as options and environment say.
fn build_options(
    invocation: &Invocation,
    format: Option<OutputFormat>,
) -> Result<BuildOptions, Error> {
    let values = &invocation.values;
    let mut annotations: Vec<(String, String)> = Vec::new();
    for text in values.all("annotations") {
        let wrong = |why: &str| usage(format!("--annotations: \"{text}\" {why}"));
        let (key, value) = text
            .split_once(':')
            .ok_or_else(|| wrong("is not KEY:VALUE"))?;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        if key.is_empty() || !key.chars().all(good) {
            return Err(wrong("has a key that is not [a-z0-9.-]+"));
        }
        if value.is_empty() {
            return Err(wrong("has no value"));
        }
        if annotations.iter().any(|(known, _)| known == key) {
            return Err(wrong("is given twice"));
        }
        annotations.push((key.to_owned(), value.to_owned()));
    }
    let build_date = match values.last("build-date") {
        None => 0,
        Some(text) => {
            let time: Result<jiff::Timestamp, _> = text.parse();
            let seconds = time
                .ok()
                .and_then(|time| u64::try_from(time.as_second()).ok());
            seconds.ok_or_else(|| usage(format!("--build-date: \"{text}\" is no RFC 3339 time")))?
        }
    };
    let scripts = match values.last("scripts") {
        None => None,
        Some("skip") => Some(ScriptMode::Skip),
        Some("builtin") => Some(ScriptMode::Builtin),
        Some("emulate") => Some(ScriptMode::Emulate),
        Some("run") => Some(ScriptMode::Run),
        Some(other) => return Err(usage(format!("--scripts: \"{other}\" is not known"))),
    };
    if let Some(other) = values
        .last("layer-format")
        .filter(|format| *format != "tar")
    {
        let what = format!("--format {other}");
        return Err(Error::Unsupported { what });
    }
    let epoch = std::env::var_os("SOURCE_DATE_EPOCH");
    Ok(BuildOptions {
        annotations,
        build_date,
        source_date_epoch: epoch.map(|text| text.to_string_lossy().into_owned()),
        clamp_mtime: values.is("clamp-mtime"),
        check_scripts: values.is("check-scripts"),
        scripts_warn: values.is("scripts-warn"),
        fail_on_skipped_script: values.is("fail-on-skipped-script"),
        compression: values.last("layer-compression").map(str::to_owned),
        scripts,
        vcs: values.choice("vcs"),
        ownership: Ownership {
            lent: values.is("userns"),
            recorded: values.is("record-ownership"),
        },
        plain_layers: format == Some(OutputFormat::DockerArchive),
    })
}

/// Returns the bills that are wanted.
fn bill_formats(values: &Values) -> Result<Vec<BillFormat>, Error> {
    let mut formats = Vec::new();
    for word in words(values, "sbom-formats") {
        formats.push(match word.as_str() {
            "spdx" => BillFormat::Spdx,
            "cyclonedx" => BillFormat::CycloneDx,
            other => return Err(usage(format!("--sbom-formats: \"{other}\" is not known"))),
        });
    }
    if formats.is_empty() {
        formats.push(BillFormat::Spdx);
    }
    Ok(formats)
}

fn build(invocation: &Invocation, options: &Options, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let [_, reference, name] = invocation.arguments.as_slice() else {
        return Err(usage("build needs CONFIG REF OUTPUT"));
    };
    let output = match name.as_str() {
        "-" => PathBuf::from("-"),
        name => options.work_dir.join(name),
    };
    let format = match values.last("output-format") {
        Some(text) => OutputFormat::parse(text)
            .ok_or_else(|| usage(format!("--output-format: \"{text}\" is not known")))?,
        None => OutputFormat::of_output(name, output.is_dir()).ok_or_else(|| {
            usage(format!(
                "\"{name}\" does not say what to write: an existing folder, or a name that ends in \
                 /, .oci.tar, .tar or .tar.gz; or give --output-format"
            ))
        })?,
    };
    if format != OutputFormat::RootFileSystem {
        image::check_reference(reference)?;
    }
    let recipe = build_options(invocation, Some(format))?;
    let bills = bill_formats(values)?;
    let to_stdout = name == "-";
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(options)?;
    let built = image::build(&mut workshop, &recipe, &mut sink)?;
    for line in built.script_lines() {
        sink.line(Level::Detail, &line);
    }
    let mut stdout = std::io::stdout().lock();
    built.write(reference, &output, format, options.profile, &mut stdout)?;
    drop(stdout);
    if values.choice("sbom").unwrap_or(true) && !(to_stdout && values.last("sbom-path").is_none()) {
        let folder = match values.last("sbom-path") {
            Some(path) => options.work_dir.join(path),
            None if output.is_dir() => output.clone(),
            None => output.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let bills = built.bills(without_tag(reference), &bills, &mut sink)?;
        image::write_bills(&folder, &bills)?;
    }
    let line = format!("{}@{}", without_tag(reference), built.digest());
    if to_stdout {
        sink.line(Level::Notice, &line);
    } else if values.is("json") {
        console.print(&format!("{:#}\n", built_json(&built)));
    } else {
        console.print(&format!("{line}\n"));
    }
    Ok(0)
}

fn publish(invocation: &Invocation, options: &Options, console: &mut Console) -> Result<u8, Error> {
    let values = &invocation.values;
    let [_, references @ ..] = invocation.arguments.as_slice() else {
        return Err(usage("publish needs CONFIG REF..."));
    };
    let Some(first) = references.first() else {
        return Err(usage("publish needs CONFIG REF..."));
    };
    let local = values.is("local");
    for reference in references {
        image::check_reference(reference)?;
    }
    let recipe = build_options(invocation, local.then_some(OutputFormat::DockerArchive))?;
    let formats = bill_formats(values)?;
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(options)?;
    let built = image::build(&mut workshop, &recipe, &mut sink)?;
    for line in built.script_lines() {
        sink.line(Level::Detail, &line);
    }
    let name = without_tag(first);
    if local {
        for reference in references {
            built.load_locally(reference)?;
        }
        console.print(&format!("{name}@{}\n", built.digest()));
        return Ok(0);
    }
    let attachments = match values.is("attach-sbom") {
        true => built.attachments(name, &formats, &mut sink)?,
        false => Vec::new(),
    };
    let credentials = &options.credentials;
    let insecure = values.all("insecure-registry");
    let published = built.publish(references, credentials, &insecure, &attachments)?;
    let pushed = published.pushed;
    let (sent, present, mounted) = (pushed.sent, pushed.present, pushed.mounted);
    sink.line(
        Level::Notice,
        &format!(
            "{sent} blobs sent ({} bytes), {present} were there, {mounted} mounted",
            pushed.bytes
        ),
    );
    if let Some(path) = values.last("image-refs") {
        let text: String = published
            .references
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        image::write_bills(&options.work_dir, &[(path.to_owned(), text.into_bytes())])?;
    }
    if let Some(path) = values.last("sbom-path") {
        let bills = built.bills(name, &formats, &mut sink)?;
        image::write_bills(&options.work_dir.join(path), &bills)?;
    }
    // One line, so that command substitution works.
    let line = published.digests.first().cloned().unwrap_or_default();
    console.print(&format!("{line}\n"));
    Ok(0)
}

/// Returns a reference without tag and digest.
fn without_tag(reference: &str) -> &str {
    let plain = reference.split('@').next().unwrap_or_default();
    match plain.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => plain,
    }
}

fn built_json(built: &Built) -> serde_json::Value {
    let one = |image: &ibex::image::BuiltImage| {
        let layers: Vec<_> = (image.layers.iter())
            .map(|layer| {
                json!({
                    "digest": layer.descriptor.digest,
                    "size": layer.descriptor.size,
                    "diff-id": layer.diff_id,
                    "packages": layer.packages,
                })
            })
            .collect();
        let scripts: Vec<_> = (image.scripts.iter())
            .map(|one| {
                json!({
                    "package": one.package,
                    "script": one.script,
                    "result": one.result.as_str(),
                    "detail": one.detail,
                })
            })
            .collect();
        json!({
            "architecture": image.architecture,
            "digest": image.manifest.descriptor.digest,
            "layers": layers,
            "scripts": scripts,
        })
    };
    let images: Vec<_> = built.images.iter().map(one).collect();
    json!({ "digest": built.digest(), "images": images })
}

fn rootfs(
    invocation: &Invocation,
    mut options: Options,
    cpio: bool,
    console: &mut Console,
) -> Result<u8, Error> {
    if let Some(architecture) = invocation.values.last("build-arch") {
        options.architectures = vec![architecture.to_owned()];
    }
    let recipe = build_options(invocation, None)?;
    let output = match invocation.arguments[1].as_str() {
        "-" => PathBuf::from("-"),
        name => options.work_dir.join(name),
    };
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(&options)?;
    let built = image::build(&mut workshop, &recipe, &mut sink)?;
    for line in built.script_lines() {
        sink.line(Level::Detail, &line);
    }
    let mut stdout = std::io::stdout().lock();
    match cpio {
        true => built.write_cpio(&output, &mut stdout)?,
        false => {
            let format = OutputFormat::RootFileSystem;
            built.write("", &output, format, options.profile, &mut stdout)?;
        }
    }
    Ok(0)
}

fn verify(
    invocation: &Invocation,
    mut options: Options,
    console: &mut Console,
) -> Result<u8, Error> {
    let [_, lock, path] = invocation.arguments.as_slice() else {
        return Err(usage("verify needs CONFIG LOCK IMAGE"));
    };
    options.lockfile = Some(PathBuf::from(lock));
    let path = Path::new(path);
    let format = OutputFormat::of_output(
        &path.to_string_lossy(),
        options.work_dir.join(path).is_dir(),
    );
    let recipe = build_options(invocation, format)?;
    let mut sink = ToStderr::new(invocation, console);
    let mut workshop = Workshop::open(&options)?;
    let verified = image::verify(&mut workshop, &recipe, path, &mut sink)?;
    if invocation.values.is("json") {
        let platforms: Vec<_> = (verified.platforms.iter())
            .map(|(platform, digest)| json!({ "platform": platform, "digest": digest }))
            .collect();
        let object = json!({ "digest": verified.digest, "platforms": platforms });
        console.print(&format!("{object:#}\n"));
        return Ok(0);
    }
    for (platform, digest) in &verified.platforms {
        console.print(&format!("{platform} {digest}: the same\n"));
    }
    Ok(0)
}

/// Returns a path as it is seen from the working directory.
pub(super) fn seen(invocation: &Invocation, at: usize) -> PathBuf {
    let folder = invocation.values.last("workdir").unwrap_or_default();
    Path::new(folder).join(&invocation.arguments[at])
}

fn diff(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let differences = image::diff(&seen(invocation, 0), &seen(invocation, 1))?;
    match invocation.values.is("json") {
        true => console.print(&format!("{:#}\n", image::diff_json(&differences))),
        false => console.print(&image::diff_text(&differences)),
    }
    Ok(0)
}

fn size(invocation: &Invocation, console: &mut Console) -> Result<u8, Error> {
    let sizes = image::sizes(&seen(invocation, 0))?;
    if let Some(file) = invocation.values.last("html") {
        let folder = invocation.values.last("workdir").unwrap_or_default();
        let path = Path::new(folder).join(file);
        let page = image::sizes_html(&invocation.arguments[0], &sizes);
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        return image::write_bills(folder, &[(name, page.into_bytes())]).map(|()| 0);
    }
    match invocation.values.is("json") {
        true => console.print(&format!("{:#}\n", image::sizes_json(&sizes))),
        false => console.print(&image::sizes_text(&sizes)),
    }
    Ok(0)
}
