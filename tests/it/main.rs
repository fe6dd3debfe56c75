//! The test binary. Each module is a file beside this one, with a line on what it covers.

// Tests may write files and read the environment as they like.
#![allow(clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

/// Recorded cases of apk 3.0.6 on the fixtures and on real data.
mod agreement;
/// Damaged, missing and untrusted input.
mod bad_input;
/// Branches and the choice among mirrors.
mod branches;
/// The store of packages that all roots of a user share.
mod cache;
/// The catalogue of parsed indexes: deleted, damaged, out of date.
mod catalogue;
/// A change that is stopped anywhere leaves the old root or the new one.
mod crash;
/// The recorded operations of apk 3.0.6: text, exit code, database and tree.
mod expected;
/// Explanations of real conflicts, as snapshots.
mod explanations;
/// The repositories in `fixtures/`: a rebuild, the first command of the README, what is hostile.
mod fixtures;
/// Imports point down: the floors of the architecture page.
mod floors;
/// Real packages, indexes and databases.
mod formats;
/// The fuzz targets on a small corpus.
mod fuzz_replay;
/// History, undo and rollback.
mod history;
/// Attacks by packages, indexes and servers.
mod hostile;
/// Images on images; keys that are published; descriptions begun from what there is.
mod image_base;
/// Images from real packages: the same tree as apk's, the same bytes every time.
mod image_build;
/// What happens inside a build: scripts, certificates, limits, errors.
mod image_contents;
/// Images through the command line: built, verified, compared, measured, and their bills.
mod image_output;
/// Image descriptions, chosen packages, lock files and their errors.
mod image_packages;
/// Publishing to Debian's registry behind a token service and broken lines; logins; the cache.
mod image_registry;
/// The same image whoever builds, wherever, with how many cores; what `verify` names.
mod image_reproducible;
/// Images in the hands of skopeo, umoci, podman, runc, a registry, tar and cpio.
mod image_tools;
/// What disturbs a change from outside: signals, other programs, full and vanishing disks.
mod interruptions;
/// Repositories of one's own: `fetch --to`, `snapshot`, `serve`; work without a network.
mod keep;
/// Mirrors that stall, break off, lie or lag behind: another one helps, or the error is clear.
mod mirrors;
/// nginx: TLS, HTTP/2, open connections, conditions, passwords.
mod nginx;
/// The real apk judges roots that ibex made, and the other way round.
mod real_apk;
/// An index older than one seen before.
mod rollback;
/// The page on attacks and weak points names tests that exist.
mod security_page;
/// Details of installing and auditing that apk was asked about.
mod semantics;
/// Completion scripts in real shells, manual pages in real formatters.
mod shells;
/// Random scenes decided by the real apk 2.14.
mod solver_apk2;
/// Requests that apk refuses although there is an answer, and those that it never ends.
mod solver_beyond;
/// The solver cases of apk through the real binary.
mod solver_binary;
/// apk's solver cases and version data, on the solver alone.
mod solver_cases;
/// Random scenes carried out, judged by rules and compared with another apk.
mod solver_commits;
/// Details of what is printed that random scenes found.
mod solver_details;
/// Laws of the solver on random scenes.
mod solver_laws;
/// Random scenes against another apk, byte for byte.
mod solver_peer;
/// Roots, programs and trees for the other modules.
mod support;
/// What people see on a terminal.
mod terminal;
/// Packages and indexes of the v3 form: installed as apk does, or refused.
mod v3;
/// The weak points found in apk, W1 to W37.
mod weak_points;
