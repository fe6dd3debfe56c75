//! User and group names of a root (formats.md, 2.9).

use crate::root::{Root, RootError};
use foldhash::HashMap;

/// Names and numbers of `etc/passwd` and `etc/group`; stale as soon as those change.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    pub(super) fn load(root: &Root) -> Result<Self, RootError> {
        Ok(Self {
            users: table(root, "etc/passwd")?,
            groups: table(root, "etc/group")?,
        })
    }

    /// Returns the numbers for names; unknown names leave the archive's numbers.
    pub(super) fn ids(&self, uname: &str, uid: u32, gname: &str, gid: u32) -> (u32, u32) {
        let find = |table: &HashMap<String, u32>, name: &str, number| match table.get(name) {
            Some(id) => *id,
            None if name == "root" => 0,
            None => number,
        };
        (
            find(&self.users, uname, uid),
            find(&self.groups, gname, gid),
        )
    }
}

fn table(root: &Root, path: &str) -> Result<HashMap<String, u32>, RootError> {
    let text = root.read(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse().ok()?))
    };
    // The first line of a name counts.
    let mut table = HashMap::default();
    for (name, id) in text.lines().filter_map(line) {
        table.entry(name).or_insert(id);
    }
    Ok(table)
}
