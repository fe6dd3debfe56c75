//! Completion scripts in real shells, and manual pages in real formatters.

use crate::support::{self, Run, Sandbox};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Returns whether a program is there; without it a test is skipped, in CI it fails.
fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    assert!(
        found || std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{program} is missing"
    );
    if !found {
        eprintln!("skipped: needs {program}");
    }
    found
}

/// A folder with the program in the path under its name, and a root to ask about.
struct Shells {
    sandbox: Sandbox,
    repository: std::path::PathBuf,
}

impl Shells {
    fn new() -> Option<Self> {
        let repository = support::data("alpine-v3.19")?;
        let sandbox = Sandbox::with_minirootfs("3.19.4")?;
        sandbox.trust(&["alpine-v3.19/keys"])?;
        let bin = sandbox.beside("bin");
        fs::create_dir(&bin).expect("a new directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ibex"), bin.join("ibex")).expect("a link");
        for shell in ["bash", "zsh", "fish"] {
            let script = sandbox.run(["completions", shell]).success().output;
            fs::write(sandbox.beside(&format!("completion.{shell}")), script).expect("a script");
        }
        Some(Self {
            sandbox,
            repository,
        })
    }

    fn run(&self, shell: &str, arguments: &[&str], line: &str) -> Run {
        let bin = self.sandbox.beside("bin");
        let mut command = Command::new(shell);
        command
            .args(arguments)
            .env_clear()
            .env("APK_CONFIG", "/dev/null")
            .env("HOME", self.sandbox.beside(""))
            .env("IBEX_CACHE_DIR", self.sandbox.beside("catalogue"))
            .env("LINE", line)
            .env("ROOT", self.sandbox.root())
            .env("REPO", &self.repository)
            .env("SCRIPTS", self.sandbox.beside(""))
            .env("TERM", "dumb")
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        support::run(&mut command)
    }

    /// Completes a line in bash as pressing the tab key does.
    fn bash(&self, line: &str) -> Vec<String> {
        const SCRIPT: &str = r#"
            . "$SCRIPTS/completion.bash"
            compopt() { :; }
            COMP_LINE=$LINE COMP_POINT=${#LINE}
            COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
            _ibex_complete
            printf '%s\n' "${COMPREPLY[@]}""#;
        let run = self.run("bash", &["--norc", "-c", SCRIPT], line).success();
        run.output.lines().map(str::to_owned).collect()
    }

    fn fish(&self, line: &str) -> Vec<String> {
        const SCRIPT: &str = r#"source $SCRIPTS/completion.fish; complete -C $LINE"#;
        let run = self
            .run("fish", &["--no-config", "-c", SCRIPT], line)
            .success();
        let words = run
            .output
            .lines()
            .map(|line| line.split('\t').next().unwrap_or(line));
        words.map(str::to_owned).collect()
    }
}

#[test]
fn bash_completes() {
    let Some(shells) = Shells::new().filter(|_| has("bash")) else {
        return;
    };
    let base = format!(
        "ibex -p {} -X {} ",
        shells.sandbox.root().display(),
        shells.repository.display()
    );
    for (line, wanted) in [
        ("ibex upg", &["upgrade"][..]),
        ("ibex --no-net", &["--no-network"]),
        ("ibex query --format ", &["default", "json", "yaml"]),
        // What stands before the `=` is not to be repeated.
        ("ibex query --format=y", &["yaml"]),
        ("ibex cache cl", &["clean"]),
    ] {
        assert_eq!(shells.bash(line), wanted, "{line}");
    }
    assert_eq!(shells.bash(&format!("{base}add wge")), ["wget"]);
    assert_eq!(shells.bash(&format!("{base}add cmd:wge")), ["wget"]);
    assert_eq!(
        shells.bash(&format!("{base}del alpine-ke")),
        ["alpine-keys"]
    );
    assert_eq!(shells.bash(&format!("{base}del no-such-thi")), [""]);
    let folder = shells.sandbox.root();
    let line = format!("ibex --root {}/et", folder.display());
    assert_eq!(shells.bash(&line), [format!("{}/etc", folder.display())]);
}

#[test]
fn fish_completes() {
    let Some(shells) = Shells::new().filter(|_| has("fish")) else {
        return;
    };
    assert_eq!(shells.fish("ibex upg"), ["upgrade"]);
    let root = shells.sandbox.root();
    let repository = shells.repository.display();
    let line = format!("ibex -p {} -X {repository} add wge", root.display());
    assert_eq!(shells.fish(&line), ["wget"]);
}

#[test]
fn zsh_takes_the_script() {
    let Some(shells) = Shells::new().filter(|_| has("zsh")) else {
        return;
    };
    const SCRIPT: &str = r#"
        autoload -U compinit && compinit -u -d "$SCRIPTS/dump"
        source "$SCRIPTS/completion.zsh"
        echo $_comps[ibex]
        # The completion system is not there without a terminal; what it would be told is.
        _describe() { shift; print -l -- ${(P)1}; }
        words=(ibex ${(z)LINE}) CURRENT=3
        _ibex"#;
    let run = shells
        .run("zsh", &["-f", "-c", SCRIPT], "query --sum")
        .success();
    let found: Vec<&str> = run.output.lines().collect();
    assert_eq!(
        found,
        [
            "_ibex",
            "--summarize=:One list of this field over all matches"
        ]
    );
}

#[test]
fn manual_pages_have_no_faults() {
    if !has("mandoc") {
        return;
    }
    let sandbox = Sandbox::new();
    let pages = sandbox.beside("man");
    sandbox
        .run(["man", pages.to_str().expect("a plain path")])
        .success();
    let names: Vec<_> = fs::read_dir(&pages)
        .expect("pages")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let lint = support::run(
        Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .args(&names),
    );
    // The pages have no date, so that the same program always writes the same ones.
    let faults = lint
        .output
        .lines()
        .filter(|line| !line.contains("missing date"));
    let faults: Vec<&str> = faults.collect();
    assert!(faults.is_empty(), "{faults:?}");
    let text = support::run(
        Command::new("mandoc")
            .args(["-T", "ascii"])
            .arg(pages.join("ibex.1")),
    );
    let text = text.success().output.replace("_\u{8}", "");
    assert!(text.contains("ibex-upgrade(1)"), "{text}");
}
