//! Questions about packages: `info`, `list`, `search`, `policy`, `version`, `query`, `why` and
//! their kin (cli.md, 2.8 to 2.16 and chapter 3).
//!
//! Every question is a pure function of a [`View`], typed options and words; the answer is text
//! and an exit status. Nothing here reads a file, solves or prints: what needs the root or the
//! solver is handed in.

mod dot;
mod fields;
mod files;
mod info;
mod list;
mod manifest;
mod nearest;
mod object;
mod owner;
mod pattern;
mod policy;
mod query_fields;
mod render;
mod search;
mod select;
mod stats;
mod versions;
mod view;
mod why;

pub use dot::dot;
pub use fields::{Field, FieldList, FieldSet, Reverse};
pub use files::{CachedPackage, search_files};
pub use info::{InfoOptions, Links, NoLinks, OwnerStyle, exists, info, installed_list, who_owns};
pub use list::{ListOptions, list};
pub use manifest::{ManifestFile, manifest};
pub use nearest::nearest;
pub use object::{Wanted, object};
pub use owner::{owner, paths};
pub use pattern::{Pattern, printable};
pub use policy::policy;
pub use query_fields::{QueryOptions, query};
pub use render::{Format, Key, Object, Value, Writer, write_list, write_objects};
pub use search::{SearchOptions, search};
pub use select::{Arguments, From, Match, Selected, Selection, is_orphaned, upgradable_from};
pub use stats::stats;
pub use versions::{VersionOptions, check, compare, indexes, versions};
pub use view::{Entry, INSTALLED_SOURCE, Offer, PackageRef, RepositoryView, View};
pub use why::{Link, chains, why};

/// What a question comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What belongs on standard output.
    pub text: String,
    /// Lines for standard error, without `ERROR: `.
    pub errors: Vec<String>,
    /// Lines for standard error that tell more than apk does.
    pub notes: Vec<String>,
    /// What the text lists, if it is a plain list: a terminal shows it as a table.
    pub listing: Listing,
    /// How much could not be answered, or another exit status; not limited to 99.
    pub status: usize,
}

/// A plain list as rows of cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What the cells of each row are.
    pub columns: &'static [Cell],
    /// The rows, each with a cell for every column.
    pub rows: Vec<Vec<String>>,
}

/// What a cell of a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The name of the thing that the row is about.
    Name,
    /// Its version.
    Version,
    /// Some other word.
    Word,
    /// A size, a rank, a time.
    Amount,
    /// Something that holds for some rows only, as that a package is installed.
    State,
    /// A text that may be cut.
    Text,
}

impl Answer {
    /// Makes an answer that is only text.
    pub fn text(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    fn with_status(text: String, status: usize) -> Self {
        Self {
            text,
            status,
            ..Self::default()
        }
    }
}
