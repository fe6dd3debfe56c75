//! The commands that scripts use, on a tree (image.md, 6.2).
//!
//! Each does what busybox's does with the options that are known here; another option makes the
//! script one that cannot be carried out.

use super::shell::{Shell, Stop};
use super::syntax::Unsupported;
use crate::image::accounts::{self, NewGroup, NewUser};
use crate::root::{Directory, Root, RootError, split};
use rustix::fs::FileType;
use std::sync::Arc;

/// Directories in which commands are looked for.
const FOLDERS: [&str; 6] = [
    "usr/local/sbin",
    "usr/local/bin",
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
];

/// Commands that are done here.
const KNOWN: [&str; 36] = [
    "[",
    "add-shell",
    "addgroup",
    "adduser",
    "basename",
    "busybox",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "delgroup",
    "deluser",
    "dirname",
    "echo",
    "grep",
    "install",
    "ldconfig",
    "ln",
    "mkdir",
    "mv",
    "passwd",
    "printf",
    "rc",
    "readlink",
    "remove-shell",
    "rm",
    "rmdir",
    "sed",
    "sync",
    "test",
    "touch",
    "true",
    "umask",
    "update-ca-certificates",
    "bbsuid",
];

/// Links that are followed to find what a path means.
const LINKS: u32 = 40;

fn unknown(command: &str, option: &str) -> Stop {
    Stop::Unsupported(format!("`{option}` of `{command}` is not known"))
}

/// Runs a command; returns its exit code.
pub(super) fn run(shell: &mut Shell<'_>, name: &str, arguments: &[String]) -> Result<i32, Stop> {
    let plain = match name.rsplit_once('/') {
        Some((folder, plain)) if FOLDERS.contains(&folder.trim_matches('/')) => plain,
        Some(_) => return Err(format!("it runs `{name}`").into()),
        None => name,
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match plain {
        "true" | "sync" => Ok(0),
        "echo" => echo(shell, &words),
        "printf" => printf(shell, &words),
        "test" => Ok(i32::from(!test(shell, &words)?)),
        "[" => match words.split_last() {
            Some((&"]", words)) => Ok(i32::from(!test(shell, words)?)),
            _ => Err("a `[` in it is not closed".to_owned().into()),
        },
        "cat" => cat(shell, &words),
        "mkdir" => mkdir(shell, &words),
        "install" => install(shell, &words),
        "chown" => change_owner(shell, &words, false),
        "chgrp" => change_owner(shell, &words, true),
        "chmod" => change_mode(shell, &words),
        "ln" => link(shell, &words),
        "touch" => touch(shell, &words),
        "rm" => remove(shell, &words),
        "rmdir" => remove_directories(shell, &words),
        "mv" => copy(shell, &words, true),
        "cp" => copy(shell, &words, false),
        "readlink" => read_link(shell, &words),
        "dirname" | "basename" => part_of_path(shell, plain, &words),
        "addgroup" => add_group(shell, &words),
        "adduser" => add_user(shell, &words),
        "passwd" => match words.as_slice() {
            ["-u", user] => unlock(shell, user),
            _ => Err(unknown("passwd", &words.join(" "))),
        },
        "add-shell" | "remove-shell" => shells(shell, plain == "add-shell", &words),
        "sed" => super::text::sed(shell, &words),
        "grep" => super::text::grep(shell, &words),
        "umask" => match words.as_slice() {
            ["022" | "0022"] => Ok(0),
            _ => Err(unknown("umask", &words.join(" "))),
        },
        "busybox" => match words.as_slice() {
            ["--install", "-s"] => {
                shell.busybox = true;
                Ok(0)
            }
            [applet, ..] if !applet.starts_with('-') => run(shell, applet, &arguments[1..]),
            _ => Err(unknown("busybox", &words.join(" "))),
        },
        // These make links with busybox's own, at the same time.
        "bbsuid" if words == ["--install"] => {
            shell.busybox = true;
            Ok(0)
        }
        "busybox-extras" if words == ["--install", "-s"] => {
            shell.busybox = true;
            Ok(0)
        }
        "update-ca-certificates" if matches!(words.as_slice(), [] | ["--fresh"]) => {
            match crate::image::certificates::update(shell.root)? {
                None => Ok(0),
                Some(reason) => Err(reason.into()),
            }
        }
        // The cache is made when everything is there.
        "ldconfig" if words.is_empty() => Ok(0),
        // What kind of machine this is: an image is none.
        "rc" if words == ["--sys"] => Ok(0),
        _ => Err(format!("it runs `{name}`").into()),
    }
}

/// Returns where a command is, if it is in the tree or known here.
pub(super) fn find(shell: &Shell<'_>, name: &str) -> Result<Option<String>, Stop> {
    for folder in FOLDERS.iter().skip(2) {
        let path = format!("{folder}/{name}");
        if shell.root.stat(&path)?.is_some() {
            return Ok(Some(format!("/{path}")));
        }
    }
    Ok(KNOWN.contains(&name).then(|| name.to_owned()))
}

/// Follows links to what a path means; the path itself if nothing is there.
fn real(root: &Root, path: &str) -> Result<String, RootError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (parent, name) = split(&path);
        let Ok(directory) = root.directory(parent) else {
            return Ok(path);
        };
        let is_link = directory
            .stat(name)?
            .is_some_and(|stat| stat.kind == FileType::Symlink);
        if !is_link {
            return Ok(path);
        }
        let target = directory.read_link(name)?;
        let target = String::from_utf8_lossy(&target).into_owned();
        let mut parts: Vec<&str> = match target.starts_with('/') {
            true => Vec::new(),
            false => parent.split('/').filter(|part| !part.is_empty()).collect(),
        };
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        path = parts.join("/");
    }
    Ok(path)
}

/// Replaces the content of the file that a path means, as writing through it would.
pub(super) fn write_through(root: &Root, path: &str, content: &[u8]) -> Result<(), RootError> {
    let path = real(root, path)?;
    crate::image::tree_file(root, &path, content, 0o644)
}

/// Options and operands of a command: single letters, some with a value.
struct Given<'w> {
    options: Vec<(char, &'w str)>,
    operands: Vec<&'w str>,
}

impl<'w> Given<'w> {
    fn parse(
        command: &str,
        words: &[&'w str],
        plain: &str,
        valued: &str,
    ) -> Result<Self, Unsupported> {
        let (mut options, mut operands) = (Vec::new(), Vec::new());
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if word == "--" {
                operands.extend(words);
                break;
            }
            let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                operands.push(word);
                continue;
            };
            for (at, letter) in letters.char_indices() {
                if valued.contains(letter) {
                    let rest = &letters[at + letter.len_utf8()..];
                    let value = match rest {
                        "" => words.next().copied(),
                        rest => Some(rest),
                    };
                    let missing = || format!("`-{letter}` of `{command}` has no value");
                    options.push((letter, value.ok_or_else(missing)?));
                    break;
                }
                if !plain.contains(letter) {
                    return Err(format!("`{word}` of `{command}` is not known"));
                }
                options.push((letter, ""));
            }
        }
        Ok(Self { options, operands })
    }

    fn has(&self, letter: char) -> bool {
        self.options.iter().any(|(known, _)| *known == letter)
    }

    fn value(&self, letter: char) -> Option<&'w str> {
        let mut found = self.options.iter().rev();
        found
            .find(|(known, _)| *known == letter)
            .map(|(_, value)| *value)
    }
}

fn echo(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let (words, end) = match words {
        ["-n", rest @ ..] => (rest, ""),
        ["-e" | "-ne" | "-en", ..] => return Err(unknown("echo", words[0])),
        all => (all, "\n"),
    };
    shell.print(&format!("{}{end}", words.join(" ")))?;
    Ok(0)
}

fn printf(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let Some((format, mut values)) = words.split_first() else {
        return Ok(1);
    };
    let mut out = String::new();
    loop {
        let before = values.len();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            match (c, c != '%' && c != '\\') {
                (c, true) => out.push(c),
                ('\\', _) => match chars.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('\\') => out.push('\\'),
                    _ => return Err(unknown("printf", format)),
                },
                _ => match chars.next() {
                    Some('s') => {
                        if let Some((first, rest)) = values.split_first() {
                            out.push_str(first);
                            values = rest;
                        }
                    }
                    Some('%') => out.push('%'),
                    _ => return Err(unknown("printf", format)),
                },
            }
        }
        if values.is_empty() || values.len() == before {
            break;
        }
    }
    shell.print(&out)?;
    Ok(0)
}

/// Answers a test.
fn test(shell: &Shell<'_>, words: &[&str]) -> Result<bool, Stop> {
    if let Some(at) = words.iter().position(|word| *word == "-o") {
        return Ok(test(shell, &words[..at])? || test(shell, &words[at + 1..])?);
    }
    if let Some(at) = words
        .iter()
        .position(|word| *word == "-a")
        .filter(|at| *at > 0)
    {
        return Ok(test(shell, &words[..at])? && test(shell, &words[at + 1..])?);
    }
    let number = |text: &str| -> Result<i64, Stop> {
        let parsed = text.trim().parse();
        parsed.map_err(|_| Stop::Unsupported(format!("`{text}` is no number")))
    };
    Ok(match words {
        [] => false,
        ["!", rest @ ..] => !test(shell, rest)?,
        [word] => !word.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        [left, "=" | "==", right] => left == right,
        [left, "!=", right] => left != right,
        [left, "-eq", right] => number(left)? == number(right)?,
        [left, "-ne", right] => number(left)? != number(right)?,
        [left, "-lt", right] => number(left)? < number(right)?,
        [left, "-le", right] => number(left)? <= number(right)?,
        [left, "-gt", right] => number(left)? > number(right)?,
        [left, "-ge", right] => number(left)? >= number(right)?,
        [what @ ("-L" | "-h"), path]
        | [
            what @ ("-e" | "-f" | "-d" | "-s" | "-S" | "-x" | "-r" | "-w" | "-b" | "-c" | "-p"
            | "-u" | "-g" | "-k"),
            path,
        ] => {
            let path = shell.path(path);
            let path = match *what {
                "-L" | "-h" => path,
                _ => real(shell.root, &path)?,
            };
            let Some(stat) = shell.root.stat(&path)? else {
                return Ok(false);
            };
            match *what {
                "-L" | "-h" => stat.kind == FileType::Symlink,
                "-f" => stat.kind == FileType::RegularFile,
                "-d" => stat.is_dir(),
                "-b" => stat.kind == FileType::BlockDevice,
                "-c" => stat.kind == FileType::CharacterDevice,
                "-p" => stat.kind == FileType::Fifo,
                "-S" => stat.kind == FileType::Socket,
                "-s" => stat.size > 0 || stat.is_dir(),
                "-x" => stat.is_dir() || stat.mode & 0o111 != 0,
                "-u" => stat.mode & 0o4000 != 0,
                "-g" => stat.mode & 0o2000 != 0,
                "-k" => stat.mode & 0o1000 != 0,
                // Root may read and write everything.
                _ => true,
            }
        }
        _ => return Err(format!("the test `{}` is not understood", words.join(" ")).into()),
    })
}

fn cat(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("cat", words, "", "")?;
    if given.operands.is_empty() || given.operands == ["-"] {
        let input = shell.input().to_vec();
        shell.write(1, &input)?;
        return Ok(0);
    }
    let mut code = 0;
    for operand in given.operands {
        match shell.root.read(&shell.path(operand))? {
            Some(content) => shell.write(1, &content)?,
            None => {
                shell.complain(&format!(
                    "cat: can't open '{operand}': No such file or directory"
                ))?;
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Returns the directory and the name of a path; `None`, with a complaint, if it is not there.
fn place<'p>(
    shell: &mut Shell<'_>,
    command: &str,
    path: &'p str,
) -> Result<Option<(Arc<Directory>, &'p str)>, Stop> {
    match shell.root.parent(path) {
        Ok(place) => Ok(Some(place)),
        Err(error) => {
            shell.complain(&format!("{command}: {path}: {}", error.cause()))?;
            Ok(None)
        }
    }
}

fn mkdir(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("mkdir", words, "p", "m")?;
    let mode = given.value('m').map(octal).transpose()?;
    let mut code = 0;
    for operand in &given.operands {
        let path = shell.path(operand);
        if shell.root.directory(&path).is_ok() {
            if !given.has('p') {
                shell.complain(&format!(
                    "mkdir: can't create directory '{operand}': File exists"
                ))?;
                code = 1;
            }
            continue;
        }
        if given.has('p') {
            shell.root.create_directories(split(&path).0)?;
        }
        let Some((directory, name)) = place(shell, "mkdir", &path)? else {
            code = 1;
            continue;
        };
        if directory.stat(name)?.is_some() {
            shell.complain(&format!(
                "mkdir: can't create directory '{operand}': File exists"
            ))?;
            code = 1;
            continue;
        }
        directory.create_directory(name, mode.unwrap_or(0o755))?;
    }
    Ok(code)
}

fn octal(text: &str) -> Result<u32, Stop> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| Stop::Unsupported(format!("the mode `{text}` is not understood")))
}

/// A user and a group; what is not given stays as it is.
type Ids = (Option<u32>, Option<u32>);

/// Returns the numbers of `USER`, `USER:GROUP` or `:GROUP`; `None` if a name is not known.
fn ids(shell: &mut Shell<'_>, text: &str, group_only: bool) -> Result<Option<Ids>, Stop> {
    let (user, group) = match text.split_once([':', '.']) {
        Some((user, group)) => (user, group),
        None if group_only => ("", text),
        None => (text, ""),
    };
    let mut find = |path: &str, name: &str| -> Result<Option<Option<u32>>, Stop> {
        if name.is_empty() {
            return Ok(Some(None));
        }
        if let Some(number) = accounts::Table::read(shell.root, path)?.number(name) {
            return Ok(Some(Some(number)));
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(Some(number)));
        }
        shell.complain(&format!("unknown user/group {name}"))?;
        Ok(None)
    };
    let (Some(user), Some(group)) = (find("etc/passwd", user)?, find("etc/group", group)?) else {
        return Ok(None);
    };
    Ok(Some((user, group)))
}

fn install(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("install", words, "dD", "mog")?;
    let mode = given.value('m').map(octal).transpose()?;
    let owner = format!(
        "{}:{}",
        given.value('o').unwrap_or_default(),
        given.value('g').unwrap_or_default()
    );
    let Some((user, group)) = ids(shell, &owner, false)? else {
        return Ok(1);
    };
    let set = |shell: &Shell<'_>, path: &str, mode: u32| -> Result<(), Stop> {
        let (directory, name) = shell.root.parent(path)?;
        directory.set_owner(name, user.unwrap_or(0), group.unwrap_or(0))?;
        Ok(directory.set_mode(name, mode)?)
    };
    if given.has('d') {
        for operand in &given.operands {
            let path = shell.path(operand);
            shell.root.create_directories(&path)?;
            set(shell, &path, mode.unwrap_or(0o755))?;
        }
        return Ok(0);
    }
    let [from, to] = given.operands.as_slice() else {
        return Err(unknown("install", &words.join(" ")));
    };
    let (from, mut to) = (shell.path(from), shell.path(to));
    let Some(content) = shell.root.read(&from)? else {
        shell.complain(&format!("install: can't open '{from}'"))?;
        return Ok(1);
    };
    if shell.root.directory(&to).is_ok() {
        to = format!("{to}/{}", split(&from).1);
    }
    if given.has('D') {
        shell.root.create_directories(split(&to).0)?;
    }
    if place(shell, "install", &to)?.is_none() {
        return Ok(1);
    }
    shell.root.replace(&to, &content, 0o755, false)?;
    set(shell, &to, mode.unwrap_or(0o755))?;
    Ok(0)
}

/// Does something to paths and, if wanted, to everything below; links below are not followed.
fn each(
    shell: &mut Shell<'_>,
    command: &str,
    paths: &[&str],
    recursive: bool,
    follow: bool,
    change: &mut dyn FnMut(&Directory, &str, crate::root::Stat) -> Result<(), Stop>,
) -> Result<i32, Stop> {
    fn below(
        root: &Root,
        path: &str,
        change: &mut dyn FnMut(&Directory, &str, crate::root::Stat) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let directory = root.directory(path)?;
        for name in directory.list()? {
            let Some(name) = name.to_str() else { continue };
            let Some(stat) = directory.stat(name)? else {
                continue;
            };
            change(&directory, name, stat)?;
            if stat.is_dir() {
                below(root, &format!("{path}/{name}"), change)?;
            }
        }
        Ok(())
    }
    let mut code = 0;
    for operand in paths {
        let mut path = shell.path(operand);
        if follow {
            path = real(shell.root, &path)?;
        }
        if path.is_empty() {
            return Err(format!("it changes the root directory with `{command}`").into());
        }
        let Some(stat) = shell.root.stat(&path)? else {
            shell.complain(&format!("{command}: {operand}: No such file or directory"))?;
            code = 1;
            continue;
        };
        let (directory, name) = shell.root.parent(&path)?;
        change(&directory, name, stat)?;
        if recursive && stat.is_dir() {
            below(shell.root, &path, change)?;
        }
    }
    Ok(code)
}

fn change_owner(shell: &mut Shell<'_>, words: &[&str], group_only: bool) -> Result<i32, Stop> {
    let command = if group_only { "chgrp" } else { "chown" };
    let given = Given::parse(command, words, "RhfcvP", "")?;
    let Some((owner, paths)) = given.operands.split_first() else {
        return Ok(1);
    };
    let Some((user, group)) = ids(shell, owner, group_only)? else {
        return Ok(1);
    };
    let follow = !given.has('h');
    each(
        shell,
        command,
        paths,
        given.has('R'),
        follow,
        &mut |directory, name, stat| {
            let (uid, gid) = (user.unwrap_or(stat.uid), group.unwrap_or(stat.gid));
            directory.set_owner(name, uid, gid)?;
            // The kernel takes the set-id bits of a program away.
            if stat.kind == FileType::RegularFile && stat.mode & 0o6000 != 0 {
                directory.set_mode(name, stat.mode & !0o6000)?;
            }
            Ok(())
        },
    )
}

/// Applies `u+x,g=rw` and the like to a mode.
fn symbolic(text: &str, mut mode: u32, is_dir: bool) -> Result<u32, Stop> {
    let bad = || Stop::Unsupported(format!("the mode `{text}` is not understood"));
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '=']).ok_or_else(bad)?;
        let (who, rest) = clause.split_at(at);
        let mut who_mask = 0;
        for c in who.chars() {
            who_mask |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return Err(bad()),
            };
        }
        let masked = who_mask == 0;
        if masked {
            who_mask = 0o7777;
        }
        let mut bits = 0;
        for c in rest[1..].chars() {
            bits |= match c {
                'r' => 0o444,
                'w' if masked => 0o200,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                'X' => 0,
                's' => 0o6000,
                't' => 0o1000,
                _ => return Err(bad()),
            };
        }
        bits &= who_mask;
        match &rest[..1] {
            "+" => mode |= bits,
            "-" => mode &= !bits,
            _ => mode = mode & !(who_mask & 0o777) | bits,
        }
    }
    Ok(mode)
}

fn change_mode(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    // A mode may look like an option: `chmod -x file`.
    let (options, rest): (Vec<&str>, Vec<&str>) = words
        .iter()
        .partition(|word| matches!(**word, "-R" | "-f" | "-v" | "-c"));
    let Some((mode, paths)) = rest.split_first() else {
        return Ok(1);
    };
    let number = octal(mode).ok();
    let recursive = options.contains(&"-R");
    let mode = (*mode).to_owned();
    each(
        shell,
        "chmod",
        paths,
        recursive,
        true,
        &mut |directory, name, stat| {
            if stat.kind == FileType::Symlink {
                return Ok(());
            }
            let new = match number {
                Some(number) => number,
                None => symbolic(&mode, stat.mode, stat.is_dir())?,
            };
            Ok(directory.set_mode(name, new)?)
        },
    )
}

fn link(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("ln", words, "sfnT", "")?;
    let (targets, into) = match given.operands.as_slice() {
        [target] => (vec![*target], "."),
        [targets @ .., into] if !targets.is_empty() => (targets.to_vec(), *into),
        _ => return Ok(1),
    };
    let into_path = shell.path(into);
    let is_link = shell
        .root
        .stat(&into_path)?
        .is_some_and(|stat| stat.kind == FileType::Symlink);
    let into_directory =
        !(given.has('T') || given.has('n') && is_link) && shell.root.directory(&into_path).is_ok();
    let mut code = 0;
    for target in targets {
        let path = match into_directory {
            true => crate::plan::files::join(&into_path, split(target).1),
            false => into_path.clone(),
        };
        let Some((directory, name)) = place(shell, "ln", &path)? else {
            code = 1;
            continue;
        };
        let found = directory.stat(name)?;
        if found.is_some() {
            if !given.has('f') || found.is_some_and(|stat| stat.is_dir()) {
                shell.complain(&format!("ln: /{path}: File exists"))?;
                code = 1;
                continue;
            }
            directory.remove_file(name)?;
        }
        if given.has('s') {
            directory.create_symlink(target, name)?;
            continue;
        }
        let source = shell.path(target);
        let there = shell.root.stat(&source)?.is_some_and(|stat| !stat.is_dir());
        if !there {
            shell.complain(&format!("ln: {target}: No such file or directory"))?;
            code = 1;
            continue;
        }
        let (from, old) = shell.root.parent(&source)?;
        directory.create_hard_link(&from, old, name)?;
    }
    Ok(code)
}

fn touch(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("touch", words, "cam", "")?;
    let mut code = 0;
    for operand in &given.operands {
        let path = real(shell.root, &shell.path(operand))?;
        let Some((directory, name)) = place(shell, "touch", &path)? else {
            code = 1;
            continue;
        };
        if directory.stat(name)?.is_none() {
            if !given.has('c') {
                directory.create_file(name, 0o644)?;
            }
        } else {
            directory.set_time(name, shell.day * 86400)?;
        }
    }
    Ok(code)
}

fn remove(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    fn tree(root: &Root, path: &str) -> Result<(), RootError> {
        let (parent, name) = root.parent(path)?;
        if !parent.has_directory(name) {
            return parent.remove_file(name);
        }
        for name in root.list(path)? {
            if let Some(name) = name.to_str() {
                tree(root, &format!("{path}/{name}"))?;
            }
        }
        root.forget_directories();
        let (parent, name) = root.parent(path)?;
        parent.remove_directory(name);
        Ok(())
    }
    let given = Given::parse("rm", words, "rRfv", "")?;
    let recursive = given.has('r') || given.has('R');
    let mut code = 0;
    for operand in &given.operands {
        let path = shell.path(operand);
        if path.is_empty() {
            return Err("it removes the root directory".to_owned().into());
        }
        match shell.root.stat(&path)? {
            None if given.has('f') => {}
            None => {
                shell.complain(&format!(
                    "rm: can't remove '{operand}': No such file or directory"
                ))?;
                code = 1;
            }
            Some(stat) if stat.is_dir() && !recursive => {
                shell.complain(&format!("rm: '{operand}' is a directory"))?;
                code = 1;
            }
            Some(_) => tree(shell.root, &path)?,
        }
    }
    Ok(code)
}

fn remove_directories(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("rmdir", words, "", "")?;
    let mut code = 0;
    for operand in &given.operands {
        let path = shell.path(operand);
        let gone = match shell.root.parent(&path) {
            Ok((parent, name)) => parent.has_directory(name) && parent.remove_directory(name),
            Err(_) => false,
        };
        shell.root.forget_directories();
        if !gone {
            shell.complain(&format!("rmdir: '{operand}': it cannot be removed"))?;
            code = 1;
        }
    }
    Ok(code)
}

/// Copies or moves files, one or several into a directory.
fn copy(shell: &mut Shell<'_>, words: &[&str], moves: bool) -> Result<i32, Stop> {
    let command = if moves { "mv" } else { "cp" };
    let given = Given::parse(command, words, if moves { "fn" } else { "fp" }, "")?;
    let Some((into, sources)) = given
        .operands
        .split_last()
        .filter(|(_, from)| !from.is_empty())
    else {
        return Ok(1);
    };
    let into = shell.path(into);
    let into_directory = shell.root.directory(&into).is_ok();
    let mut code = 0;
    for source in sources {
        let from = shell.path(source);
        let to = match into_directory {
            true => crate::plan::files::join(&into, split(&from).1),
            false => into.clone(),
        };
        let Some(stat) = shell.root.stat(&from)? else {
            shell.complain(&format!(
                "{command}: can't stat '{source}': No such file or directory"
            ))?;
            code = 1;
            continue;
        };
        if moves && given.has('n') && shell.root.stat(&to)?.is_some() {
            continue;
        }
        let Some((target, name)) = place(shell, command, &to)? else {
            code = 1;
            continue;
        };
        if moves {
            let (folder, old) = shell.root.parent(&from)?;
            folder.rename_to(old, &target, name)?;
            shell.root.forget_directories();
            continue;
        }
        if stat.kind != FileType::RegularFile {
            return Err(format!("`cp` of {source}, which is no file, is not known").into());
        }
        let content = shell.root.read(&from)?.unwrap_or_default();
        let new = shell.root.stat(&to)?.is_none();
        write_through(shell.root, &to, &content)?;
        if new {
            target.set_mode(name, stat.mode & 0o755)?;
        }
        if given.has('p') {
            target.set_owner(name, stat.uid, stat.gid)?;
            target.set_mode(name, stat.mode)?;
        }
    }
    Ok(code)
}

fn read_link(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("readlink", words, "f", "")?;
    let [operand] = given.operands.as_slice() else {
        return Ok(1);
    };
    let path = shell.path(operand);
    if given.has('f') {
        if operand.is_empty() {
            return Ok(1);
        }
        let found = real(shell.root, &path)?;
        shell.print(&format!("/{found}\n"))?;
        return Ok(0);
    }
    let target = match shell.root.parent(&path) {
        Ok((directory, name)) => directory.read_link(name).ok(),
        Err(_) => None,
    };
    let Some(target) = target else { return Ok(1) };
    shell.print(&format!("{}\n", String::from_utf8_lossy(&target)))?;
    Ok(0)
}

fn part_of_path(shell: &mut Shell<'_>, command: &str, words: &[&str]) -> Result<i32, Stop> {
    let (path, suffix) = match words {
        [path] => (*path, ""),
        [path, suffix] if command == "basename" => (*path, *suffix),
        _ => return Err(unknown(command, &words.join(" "))),
    };
    let trimmed = path.trim_end_matches('/');
    let part = match (command, trimmed.rsplit_once('/')) {
        (_, _) if trimmed.is_empty() && !path.is_empty() => "/",
        ("dirname", Some((folder, _))) => match folder.trim_end_matches('/') {
            "" => "/",
            folder => folder,
        },
        ("dirname", None) => ".",
        (_, Some((_, name))) => name,
        (_, None) => trimmed,
    };
    let part = part
        .strip_suffix(suffix)
        .filter(|rest| !rest.is_empty())
        .unwrap_or(part);
    shell.print(&format!("{part}\n"))?;
    Ok(0)
}

/// Tells what an account command said.
fn told(shell: &mut Shell<'_>, result: Result<(), String>) -> Result<i32, Stop> {
    match result {
        Ok(()) => Ok(0),
        Err(message) => {
            shell.complain(&message)?;
            Ok(1)
        }
    }
}

fn id(command: &str, text: Option<&str>) -> Result<Option<u32>, Stop> {
    let number = |text: &str| text.parse().map_err(|_| unknown(command, text));
    text.map(number).transpose()
}

fn add_group(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("addgroup", words, "S", "g")?;
    let result = match given.operands.as_slice() {
        [name] => {
            let group = NewGroup {
                name: (*name).to_owned(),
                gid: id("addgroup", given.value('g'))?,
                system: given.has('S'),
            };
            accounts::add_group(shell.root, &group, &mut shell.chooser)?
        }
        [user, group] => accounts::add_member(shell.root, user, group)?,
        _ => return Err(unknown("addgroup", &words.join(" "))),
    };
    told(shell, result)
}

fn add_user(shell: &mut Shell<'_>, words: &[&str]) -> Result<i32, Stop> {
    let given = Given::parse("adduser", words, "SDH", "hsGgu")?;
    let owned = |letter| given.value(letter).map(str::to_owned);
    let result = match given.operands.as_slice() {
        [name] => {
            let user = NewUser {
                name: (*name).to_owned(),
                uid: id("adduser", given.value('u'))?,
                home: owned('h'),
                no_home: given.has('H'),
                shell: owned('s'),
                group: owned('G'),
                comment: owned('g'),
                system: given.has('S'),
            };
            accounts::add_user(shell.root, &user, shell.day, &mut shell.chooser)?
        }
        [user, group] => accounts::add_member(shell.root, user, group)?,
        _ => return Err(unknown("adduser", &words.join(" "))),
    };
    told(shell, result)
}

/// Takes the lock off a password, as `passwd -u` does.
fn unlock(shell: &mut Shell<'_>, user: &str) -> Result<i32, Stop> {
    let done = accounts::unlock(shell.root, user)?;
    if !done {
        shell.complain(&format!("passwd: password for {user} is already unlocked"))?;
    }
    Ok(i32::from(!done))
}

/// Enters shells into `etc/shells`, or takes them out.
fn shells(shell: &mut Shell<'_>, add: bool, words: &[&str]) -> Result<i32, Stop> {
    const SHELLS: &str = "etc/shells";
    let text = shell.root.read(SHELLS)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    for word in words {
        match add {
            true if !lines.contains(word) => lines.push(word),
            true => {}
            false => lines.retain(|line| line != word),
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    write_through(shell.root, SHELLS, text.as_bytes())?;
    Ok(0)
}
