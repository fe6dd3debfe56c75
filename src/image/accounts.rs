//! Users and groups of an image: `etc/passwd`, `etc/group` and `etc/shadow` as busybox and the
//! configuration change them (image.md, 3.5 and 6.3).

use super::error::ImageError;
use super::request::{Account, AccountKind, BuildRequest, ChosenId, Group};
use super::{Warning, tree_file};
use crate::root::{Root, RootError, split};
use std::collections::BTreeSet;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
const SHADOW: &str = "etc/shadow";

/// What the comment field of a configured user says; tools look for it.
const COMMENT: &str = "Account created by apko";

/// Ids that busybox gives to system accounts.
const SYSTEM: std::ops::RangeInclusive<u32> = 100..=999;
/// Ids that busybox gives to others.
const ORDINARY: std::ops::RangeInclusive<u32> = 1000..=59999;

/// Gives numbers to accounts that ask for none, as busybox does: the first that is free.
///
/// A number that is written down for a name is that name's, if it can be; others leave it alone.
#[derive(Debug)]
pub(super) struct Chooser<'a> {
    written: &'a [ChosenId],
    /// What was given, in order.
    pub(super) chosen: Vec<ChosenId>,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(written: &'a [ChosenId]) -> Self {
        Self {
            written,
            chosen: Vec::new(),
        }
    }

    fn choose(
        &mut self,
        kind: AccountKind,
        name: &str,
        mut range: std::ops::RangeInclusive<u32>,
        free: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let of_kind = || self.written.iter().filter(|one| one.kind == kind);
        let own = of_kind().find(|one| one.name == name).map(|one| one.id);
        let own = own.filter(|id| range.contains(id) && free(*id));
        let others = |id: u32| of_kind().any(|one| one.id == id);
        let unclaimed = || range.clone().find(|id| free(*id) && !others(*id));
        let id = own
            .or_else(unclaimed)
            .or_else(|| range.find(|id| free(*id)))?;
        self.chosen.push(ChosenId {
            kind,
            name: name.to_owned(),
            id,
        });
        Some(id)
    }
}

/// A table of lines with fields between colons.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    lines: Vec<String>,
}

impl Table {
    pub(super) fn read(root: &Root, path: &str) -> Result<Self, RootError> {
        let bytes = root.read(path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(Self {
            lines: text.lines().map(str::to_owned).collect(),
        })
    }

    /// Writes the table, with the owner and mode that the file has, or `mode` if it is new.
    pub(super) fn write(&self, root: &Root, path: &str, mode: u32) -> Result<(), RootError> {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        tree_file(root, path, text.as_bytes(), mode)
    }

    fn fields<'t>(&'t self, name: &str) -> Option<Vec<&'t str>> {
        let mut lines = self
            .lines
            .iter()
            .map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|fields| fields[0] == name)
    }

    fn has(&self, name: &str) -> bool {
        self.fields(name).is_some()
    }

    /// Returns the number of a name.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.fields(name)?.get(2)?.parse().ok()
    }

    /// Returns the shell of the first user with a number, if there is one.
    fn shell_of(&self, uid: u32) -> Option<&str> {
        let lines = self.lines.iter().map(|line| line.split(':'));
        let mut lines = lines.filter(|fields| {
            let number = fields.clone().nth(2).and_then(|text| text.parse().ok());
            number == Some(uid)
        });
        lines.next()?.nth(6).filter(|shell| !shell.is_empty())
    }

    fn numbers(&self) -> BTreeSet<u32> {
        let number = |line: &String| line.split(':').nth(2)?.parse().ok();
        self.lines.iter().filter_map(number).collect()
    }

    /// Puts a line at the end, or in place of the one with its name; returns the old line.
    fn put(&mut self, line: String) -> Option<String> {
        let name = line.split(':').next().unwrap_or_default().to_owned();
        let same = |known: &&mut String| known.split(':').next() == Some(&name);
        match self.lines.iter_mut().find(same) {
            Some(known) => Some(std::mem::replace(known, line)),
            None => {
                self.lines.push(line);
                None
            }
        }
    }
}

/// What `addgroup` is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct NewGroup {
    pub(super) name: String,
    pub(super) gid: Option<u32>,
    pub(super) system: bool,
}

/// What `adduser` is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct NewUser {
    pub(super) name: String,
    pub(super) uid: Option<u32>,
    pub(super) home: Option<String>,
    pub(super) no_home: bool,
    pub(super) shell: Option<String>,
    pub(super) group: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) system: bool,
}

/// Adds a group as busybox does; `Err` is what it says, with exit code 1.
pub(super) fn add_group(
    root: &Root,
    new: &NewGroup,
    chooser: &mut Chooser<'_>,
) -> Result<Result<(), String>, RootError> {
    let mut groups = Table::read(root, GROUP)?;
    if groups.has(&new.name) {
        return Ok(Err(format!("addgroup: group '{}' in use", new.name)));
    }
    let used = groups.numbers();
    let gid = match new.gid {
        Some(gid) if used.contains(&gid) => {
            return Ok(Err(format!("addgroup: gid '{gid}' in use")));
        }
        Some(gid) => gid,
        None => {
            let range = if new.system { SYSTEM } else { ORDINARY };
            let free = |gid: u32| !used.contains(&gid);
            match chooser.choose(AccountKind::Group, &new.name, range, free) {
                Some(gid) => gid,
                None => return Ok(Err("addgroup: no gids left".to_owned())),
            }
        }
    };
    backup(root, GROUP)?;
    groups.put(format!("{}:x:{gid}:", new.name));
    groups.write(root, GROUP, 0o644)?;
    Ok(Ok(()))
}

/// Adds a user to a group as busybox does.
pub(super) fn add_member(
    root: &Root,
    user: &str,
    group: &str,
) -> Result<Result<(), String>, RootError> {
    if !Table::read(root, PASSWD)?.has(user) {
        return Ok(Err(format!("addgroup: unknown user {user}")));
    }
    let mut groups = Table::read(root, GROUP)?;
    let Some(fields) = groups.fields(group) else {
        return Ok(Err(format!("addgroup: unknown group {group}")));
    };
    let members = fields.get(3).copied().unwrap_or_default();
    if members.split(',').any(|member| member == user) {
        return Ok(Ok(()));
    }
    let line = fields[..3].join(":");
    let members = match members {
        "" => user.to_owned(),
        some => format!("{some},{user}"),
    };
    backup(root, GROUP)?;
    groups.put(format!("{line}:{members}"));
    groups.write(root, GROUP, 0o644)?;
    Ok(Ok(()))
}

/// Adds a user as busybox does; `day` is the day since 1970 that the shadow line shows.
pub(super) fn add_user(
    root: &Root,
    new: &NewUser,
    day: u64,
    chooser: &mut Chooser<'_>,
) -> Result<Result<(), String>, RootError> {
    let mut users = Table::read(root, PASSWD)?;
    let groups = Table::read(root, GROUP)?;
    if users.has(&new.name) {
        return Ok(Err(format!("adduser: user '{}' in use", new.name)));
    }
    let used = users.numbers();
    let uid = match new.uid {
        Some(uid) if used.contains(&uid) => {
            return Ok(Err(format!("adduser: uid '{uid}' in use")));
        }
        Some(uid) => uid,
        None => {
            // A user without a group of its own takes a number that is free as a group, too.
            let taken = groups.numbers();
            let pair = new.group.is_none() && !new.system;
            let free = |uid: u32| !(used.contains(&uid) || pair && taken.contains(&uid));
            let range = if new.system { SYSTEM } else { ORDINARY };
            match chooser.choose(AccountKind::User, &new.name, range, free) {
                Some(uid) => uid,
                None => return Ok(Err("adduser: no uids left".to_owned())),
            }
        }
    };
    let gid = match &new.group {
        Some(group) => match groups.number(group) {
            Some(gid) => gid,
            None => return Ok(Err(format!("adduser: unknown group {group}"))),
        },
        None if new.system => groups.number("nogroup").unwrap_or(65533),
        None => {
            let group = NewGroup {
                name: new.name.clone(),
                gid: Some(uid),
                system: false,
            };
            if let Err(message) = add_group(root, &group, chooser)? {
                return Ok(Err(message));
            }
            uid
        }
    };
    let home = new
        .home
        .clone()
        .unwrap_or_else(|| format!("/home/{}", new.name));
    let comment = new
        .comment
        .clone()
        .unwrap_or_else(|| "Linux User,,,".to_owned());
    let shell = match (&new.shell, new.system) {
        (Some(shell), _) => shell.clone(),
        (None, true) => "/sbin/nologin".to_owned(),
        // That of who adds the user, which is root.
        (None, false) => users.shell_of(0).unwrap_or("/bin/sh").to_owned(),
    };
    backup(root, PASSWD)?;
    users.put(format!(
        "{}:x:{uid}:{gid}:{comment}:{home}:{shell}",
        new.name
    ));
    users.write(root, PASSWD, 0o644)?;
    if root.stat(SHADOW)?.is_some() {
        let mut shadow = Table::read(root, SHADOW)?;
        backup(root, SHADOW)?;
        shadow.put(format!("{}:!:{day}:0:99999:7:::", new.name));
        shadow.write(root, SHADOW, 0o640)?;
    }
    // A user of the system without a group is one of those without one.
    let without = new.system.then_some("nogroup");
    if let Some(group) = new.group.as_deref().or(without) {
        add_member(root, &new.name, group)?.ok();
    }
    let path = home.trim_matches('/');
    if !new.no_home && !path.is_empty() && root.stat(path)?.is_none() {
        // busybox gives a home the set-group-id bit.
        make_home(root, path, uid, gid, 0o2755)?;
    }
    Ok(Ok(()))
}

/// Takes the `!` off a password; returns whether there was one.
pub(super) fn unlock(root: &Root, user: &str) -> Result<bool, RootError> {
    let mut shadow = Table::read(root, SHADOW)?;
    let Some(fields) = shadow.fields(user) else {
        return Ok(false);
    };
    let password = fields
        .get(1)
        .and_then(|password| password.strip_prefix('!'));
    let Some(password) = password else {
        return Ok(false);
    };
    let rest = fields[2..].join(":");
    let line = format!("{user}:{password}:{rest}");
    backup(root, SHADOW)?;
    shadow.put(line);
    shadow.write(root, SHADOW, 0o640)?;
    Ok(true)
}

/// Keeps the old table as busybox does: the file itself, with its time, under another name. The new
/// one takes its place.
fn backup(root: &Root, path: &str) -> Result<(), RootError> {
    if root.read(path)?.is_none() {
        return Ok(());
    }
    let (directory, name) = root.parent(path)?;
    let copy = format!("{name}-");
    directory.remove_file(&copy)?;
    directory.create_hard_link(&directory, name, &copy)
}

fn make_home(root: &Root, path: &str, uid: u32, gid: u32, mode: u32) -> Result<(), RootError> {
    root.create_directories(path)?;
    let (directory, name) = root.parent(path)?;
    directory.set_owner(name, uid, gid)?;
    directory.set_mode(name, mode)
}

/// Adds the configured groups and users, and makes the homes of all users.
pub(super) fn configure(
    root: &Root,
    request: &BuildRequest,
    warnings: &mut Vec<Warning>,
) -> Result<(), ImageError> {
    check(&request.groups, &request.users)?;
    if !request.groups.is_empty() {
        let mut groups = Table::read(root, GROUP)?;
        for group in &request.groups {
            let members = group.members.join(",");
            let line = format!("{}:x:{}:{members}", group.name, group.gid);
            replaced(groups.put(line.clone()), &line, "group", warnings);
        }
        groups.write(root, GROUP, 0o644)?;
    }
    if !request.users.is_empty() {
        let (mut users, mut shadow) = (Table::read(root, PASSWD)?, Table::read(root, SHADOW)?);
        for user in &request.users {
            let line = format!(
                "{}:x:{}:{}:{COMMENT}:{}:{}",
                user.name, user.uid, user.gid, user.home, user.shell
            );
            // A package's user that agrees in everything but the comment stays as it is.
            if users
                .fields(&user.name)
                .is_some_and(|fields| agrees(&fields, user))
            {
                continue;
            }
            replaced(users.put(line.clone()), &line, "user", warnings);
            if !shadow.has(&user.name) {
                shadow.put(format!("{}:!:::::::", user.name));
            }
        }
        users.write(root, PASSWD, 0o644)?;
        shadow.write(root, SHADOW, 0o640)?;
    }
    homes(root)
}

fn agrees(fields: &[&str], user: &Account) -> bool {
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    fields.len() == 7
        && fields[2] == uid
        && fields[3] == gid
        && fields[5] == user.home
        && fields[6] == user.shell
}

fn replaced(old: Option<String>, new: &str, what: &str, warnings: &mut Vec<Warning>) {
    if let Some(old) = old.filter(|old| old != new) {
        warnings.push(Warning {
            code: "W-ACCOUNT-REPLACED",
            text: format!("{what} `{old}` of a package is now `{new}`"),
        });
    }
}

fn check(groups: &[Group], users: &[Account]) -> Result<(), ImageError> {
    let error = |name: &str, reason: &str| {
        Err(ImageError::Account {
            name: name.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let bad = |text: &str| text.contains([':', '\n', '\0']);
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for user in users {
        if user.name.is_empty() || [&user.name, &user.shell, &user.home].iter().any(|t| bad(t)) {
            return error(
                &user.name,
                "a field is empty or has a colon or a line break",
            );
        }
        if !names.insert(&user.name) {
            return error(&user.name, "two users have this name");
        }
        if !numbers.insert(user.uid) {
            return error(&user.name, &format!("two users have the uid {}", user.uid));
        }
    }
    let mut names = BTreeSet::new();
    for group in groups {
        let members = group
            .members
            .iter()
            .any(|member| bad(member) || member.contains(','));
        if group.name.is_empty() || bad(&group.name) || members {
            return error(
                &group.name,
                "a field is empty or has a colon, comma or line break",
            );
        }
        if !names.insert(&group.name) {
            return error(&group.name, "two groups have this name");
        }
    }
    Ok(())
}

/// Makes the home of every user that has none (image.md, 3.5).
fn homes(root: &Root) -> Result<(), ImageError> {
    for line in Table::read(root, PASSWD)?.lines {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, _, home, ..] = fields.as_slice() else {
            continue;
        };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
            continue;
        };
        let path = home.trim_matches('/');
        if home == "/dev/null" || path.is_empty() || path.split('/').any(|part| part == "..") {
            continue;
        }
        if root.directory(path).is_ok() {
            continue;
        }
        if root.stat(path)?.is_some() {
            return Err(ImageError::Account {
                name: name.to_owned(),
                reason: format!("its home {home} is no directory"),
            });
        }
        root.create_directories(split(path).0)?;
        make_home(root, path, uid, gid, 0o700)?;
    }
    Ok(())
}

/// Turns `run-as` into what the configuration says: names that are known become numbers.
pub(super) fn run_as(
    root: &Root,
    wanted: &str,
    warnings: &mut Vec<Warning>,
) -> Result<String, ImageError> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let mut known = |path: &str, name: &str| -> Result<String, ImageError> {
        if name.parse::<u32>().is_ok() {
            return Ok(name.to_owned());
        }
        match Table::read(root, path)?.number(name) {
            Some(number) => Ok(number.to_string()),
            None => {
                warnings.push(Warning {
                    code: "W-RUNAS-UNKNOWN",
                    text: format!("run-as names `{name}`, which is not in {path}"),
                });
                Ok(name.to_owned())
            }
        }
    };
    let user = known(PASSWD, user)?;
    Ok(match group {
        Some(group) => format!("{user}:{}", known(GROUP, group)?),
        None => user,
    })
}
