//! ibex: a package manager that gives apk's answers, and builds roots, as a library.
//!
//! # Data flow
//!
//! ```text
//! repositories ─ config ─▶ fetch ─▶ verified index ─▶ catalogue ─▶ PackageTable ─┐
//! world, arguments ──────────────────────────────────────────────────────────────┤
//! installed database ────────────────────────────────────────────────────────────┤
//!                                                                                ▼
//!          root ◀─ transaction (stage, then commit) ◀─ Plan ◀─ solver (pure) ◀─ Universe
//! ```
//!
//! # Floors
//!
//! Imports point down only; a test reads the `use crate::` lines and enforces it.
//!
//! ```text
//! 5  bin/ibex                prints, prompts, exits; sees only the public items of this library
//! 4  ops                     one file an operation; joins the floors below, knows no format
//!    image                   a root as an image; stands on transaction, knows no network
//! 3  fetch     transaction   history   touch the world
//! 2  config    solver, plan  solver and plan are pure: values in, values out
//! 1  format    trust   root  bytes, keys, disk
//! 0  package   progress      values
//! ```
//!
//! # Invariants
//!
//! * Deciding needs no disk, no network and no clock; doing makes no choices.
//! * Nothing unverified reaches a root: an index or a package is used only after its signature or
//!   identity was checked, unless the caller allowed untrusted input.
//! * Paths from packages are resolved beneath an open root directory and never leave it.
//! * Sizes from files are limits to check, not amounts to allocate.
//! * The library never prints; it tells a [`progress::Sink`].

pub mod config;
pub mod fetch;
pub mod format;
pub mod history;
pub mod image;
pub mod ops;
pub mod package;
pub mod plan;
pub mod progress;
pub mod root;
#[doc = include_str!("security.md")]
pub mod security {}
pub mod solver;
pub mod transaction;
pub mod trust;
