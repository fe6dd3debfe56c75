//! An index that is older than one seen before is no update.

use crate::support::repository::{Repository, package, serve};
use crate::support::{Run, Sandbox, run};

struct Case {
    sandbox: Sandbox,
    address: String,
}

impl Case {
    fn run(&self, cache: &str, arguments: &[&str]) -> Run {
        std::fs::create_dir_all(self.sandbox.beside(cache)).expect("a new directory");
        let mut command = self.sandbox.ibex();
        command
            .env("IBEX_CACHE_DIR", self.sandbox.beside("catalogue"))
            .args(["--arch", "x86_64", "--cache-dir"])
            .arg(self.sandbox.beside(cache))
            .args(["-X", &self.address])
            .args(arguments);
        if !rustix::process::geteuid().is_root() {
            command.arg("--usermode");
        }
        run(&mut command)
    }
}

#[test]
fn an_index_older_than_the_one_already_seen() {
    let sandbox = Sandbox::new();
    let mut repository = Repository::new(&sandbox);
    let address = serve(repository.path());
    let case = Case { sandbox, address };
    case.run("cache", &["--initdb", "--no-network", "add"])
        .success();

    repository.add(&package("a", "1", vec![]));
    repository.publish(1_700_000_000);
    let old = std::fs::read(repository.file("APKINDEX.tar.gz")).expect("published");
    repository.add(&package("a", "2", vec![]));
    repository.publish(1_700_086_400);
    case.run("cache", &["update"]).success();

    std::fs::write(repository.file("APKINDEX.tar.gz"), old).expect("a writable folder");
    let refused = case.run("cache", &["update"]);
    assert_eq!(refused.code, 1, "{}", refused.output);
    let reason = "the index of 2023-11-14 22:13:20 is older than the one of 2023-11-15 22:13:20 \
                  seen before (--force-index-rollback accepts it)\n";
    let warning = format!(
        "WARNING: updating {}/x86_64/APKINDEX.tar.gz: {reason}",
        case.address
    );
    assert!(refused.output.contains(&warning), "{}", refused.output);
    assert!(
        refused
            .output
            .contains("0 unavailable, 1 stale; 2 distinct"),
        "{}",
        refused.output
    );
    let found = case.run("cache", &["search", "a"]).success().output;
    assert!(found.contains("a-2\n"), "{found}");

    // Another cache has no copy to fall back on, but the memory is the user's.
    let nothing = case.run("other", &["update"]);
    assert!(nothing.output.contains(reason), "{}", nothing.output);
    assert!(
        nothing
            .output
            .contains("1 unavailable, 0 stale; 0 distinct"),
        "{}",
        nothing.output
    );

    case.run("cache", &["update", "--force-index-rollback"])
        .success();
    let found = case.run("cache", &["search", "a"]).success().output;
    assert_eq!(found, "a-1\n");
    case.run("cache", &["update"]).success();
}
