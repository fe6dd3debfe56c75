//! A small made-up world of packages with everything that bears on a choice, and a command: the
//! values, their text forms, and a root with repositories made of them.
//!
//! Texts come from short tables, so that a scene shrinks to low numbers and names repeat often
//! enough to meet. Nothing here knows a rule of the solver.

use super::{Sandbox, solver_run::Situation};
use flate2::{Compression, write::GzEncoder};
use std::fmt::{self, Write as _};
use std::fs;
use std::io::Write as _;

/// Names; the later ones look like what packages provide, one differs in case only.
pub(crate) const NAMES: [&str; 13] = [
    "a", "b", "c", "d", "e", "lib", "so:x", "cmd:y", "v", "B", "/bin/z", "up-2", ".virt",
];
/// Versions in ascending order; [`PREFIX`] says which of them `~` accepts.
pub(crate) const VERSIONS: [&str; 6] = ["1", "2_rc1", "2", "2-r1", "2.1", "3"];
/// `PREFIX[a][b]`: version `a` satisfies `~b`.
pub(crate) const PREFIX: [[bool; 6]; 6] = {
    let (o, x) = (false, true);
    [
        [x, o, o, o, o, o],
        [o, x, x, o, o, o],
        [o, o, x, o, o, o],
        [o, o, x, x, o, o],
        [o, o, x, o, x, o],
        [o, o, o, o, o, x],
    ]
};
/// Tags of repositories; number 0 is none.
pub(crate) const TAGS: [&str; 4] = ["", "e", "f", "lost"];
/// Operators of constraints with a version.
pub(crate) const OPERATORS: [&str; 8] = ["=", "<", ">", "<=", ">=", "~", "<~", ">~"];

/// A constraint on a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) conflict: bool,
    /// Position in [`NAMES`].
    pub(crate) name: usize,
    pub(crate) bound: Bound,
    /// Position in [`TAGS`]; only in the world.
    pub(crate) tag: usize,
}

/// What a constraint says of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Any,
    /// Positions in [`OPERATORS`] and [`VERSIONS`].
    Version(usize, usize),
    /// The build that is this record.
    Build(usize),
    /// Text that is no good bound.
    Odd(&'static str),
}

/// One package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) name: usize,
    pub(crate) version: usize,
    pub(crate) depends: Vec<Need>,
    /// Names, with the version offered if there is one.
    pub(crate) provides: Vec<(usize, Option<usize>)>,
    pub(crate) install_if: Vec<Need>,
    pub(crate) priority: u16,
    pub(crate) size: u64,
    pub(crate) installed_size: u64,
    /// Numbers of the repositories that list it.
    pub(crate) repositories: Vec<usize>,
    pub(crate) installed: Option<Installed>,
    /// Its file is in the cache.
    pub(crate) cached: bool,
    /// The cache's own index lists it.
    pub(crate) remembered: bool,
    /// A line that makes it differ from what can be chosen: an architecture, an unknown field.
    pub(crate) odd_line: Option<&'static str>,
}

/// How a package is recorded as installed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    /// Position in [`TAGS`].
    pub(crate) tag: usize,
    /// Marks of broken parts: letters of `f:`.
    pub(crate) broken: &'static str,
    /// The record in the database lacks its last dependency.
    pub(crate) altered: bool,
}

/// Where a repository is and how it is declared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repository {
    /// Position in [`TAGS`].
    pub(crate) tag: usize,
    /// It is not a local folder.
    pub(crate) remote: bool,
    /// It is given by `-X`.
    pub(crate) option: bool,
}

/// Everything that a run depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) repositories: Vec<Repository>,
    pub(crate) records: Vec<Record>,
    pub(crate) world: Vec<Need>,
    /// The package cache is there.
    pub(crate) cache: bool,
    /// Options before the command.
    pub(crate) options: Vec<&'static str>,
    /// The command, its options and arguments.
    pub(crate) command: Vec<String>,
    /// The package that `add -t` makes, if its texts are in the tables.
    pub(crate) made: Option<Record>,
}

impl Need {
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(if self.conflict { "!" } else { "" });
        text.push_str(NAMES[self.name]);
        if self.tag != 0 {
            let _ = write!(text, "@{}", TAGS[self.tag]);
        }
        match self.bound {
            Bound::Any => {}
            Bound::Version(operator, version) => {
                let _ = write!(text, "{}{}", OPERATORS[operator], VERSIONS[version]);
            }
            Bound::Build(record) => {
                let _ = write!(text, "><{}", checksum(record));
            }
            Bound::Odd(odd) => text.push_str(odd),
        }
        text
    }
}

/// Returns the identity of a record as indexes write it.
pub(crate) fn checksum(record: usize) -> String {
    let bytes = identity(record);
    format!("Q1{}", data_encoding::BASE64.encode(&bytes))
}

fn identity(record: usize) -> [u8; 20] {
    [record as u8 + 1; 20]
}

impl Record {
    pub(crate) fn full_name(&self) -> String {
        format!("{}-{}", NAMES[self.name], VERSIONS[self.version])
    }

    /// Returns the lines of its record in an index.
    pub(crate) fn index_text(&self, number: usize, altered: bool) -> String {
        let mut text = format!(
            "C:{}\nP:{}\nV:{}\n",
            checksum(number),
            NAMES[self.name],
            VERSIONS[self.version]
        );
        match self.odd_line {
            Some(line) if line.starts_with("A:") => {}
            _ => text.push_str("A:x86_64\n"),
        }
        if let Some(line) = self.odd_line {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "S:{}\nI:{}", self.size, self.installed_size);
        text.push_str("T:made up\n");
        if self.priority != 0 {
            let _ = writeln!(text, "k:{}", self.priority);
        }
        let depends = match altered {
            true => &self.depends[..self.depends.len().saturating_sub(1)],
            false => &self.depends,
        };
        let texts = |list: &[Need]| -> Vec<String> { list.iter().map(Need::text).collect() };
        for (field, list) in [
            ('D', texts(depends)),
            ('p', self.provides.iter().map(provide_text).collect()),
            ('i', texts(&self.install_if)),
        ] {
            if !list.is_empty() {
                let _ = writeln!(text, "{field}:{}", list.join(" "));
            }
        }
        text
    }
}

pub(crate) fn provide_text((name, version): &(usize, Option<usize>)) -> String {
    match version {
        Some(version) => format!("{}={}", NAMES[*name], VERSIONS[*version]),
        None => NAMES[*name].to_owned(),
    }
}

impl Scene {
    pub(crate) fn world_text(&self) -> String {
        let lines = self.world.iter().map(|need| need.text() + "\n");
        lines.collect()
    }

    pub(crate) fn installed_text(&self) -> String {
        let mut text = String::new();
        let mut first = true;
        for (number, record) in self.records.iter().enumerate() {
            let Some(installed) = &record.installed else {
                continue;
            };
            text.push_str(&record.index_text(number, installed.altered));
            if installed.tag != 0 {
                let _ = writeln!(text, "s:{}", TAGS[installed.tag]);
            }
            if !installed.broken.is_empty() {
                let _ = writeln!(text, "f:{}", installed.broken);
            }
            // The first one is the program's own package.
            if first {
                text.push_str("F:proc/self\nR:exe\n");
                first = false;
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn repository_text(&self, number: usize) -> String {
        let all = self.records.iter().enumerate();
        let listed = all.filter(|(_, record)| record.repositories.contains(&number));
        listed
            .map(|(number, record)| record.index_text(number, false) + "\n")
            .collect()
    }

    pub(crate) fn remembered_text(&self) -> String {
        let all = self.records.iter().enumerate();
        let listed = all.filter(|(_, record)| record.remembered);
        listed
            .map(|(number, record)| record.index_text(number, false) + "\n")
            .collect()
    }

    /// Returns it for the solver alone: remote repositories, none given by option.
    pub(crate) fn situation(&self) -> Situation {
        let arguments = self.options.iter().map(|word| (*word).to_owned());
        let repositories = self.repositories.iter().enumerate();
        Situation {
            world: self.world_text(),
            installed: self.installed_text(),
            repositories: repositories
                .map(|(number, repository)| {
                    let tag = (repository.tag != 0).then(|| TAGS[repository.tag].to_owned());
                    (tag, self.repository_text(number))
                })
                .collect(),
            cache: self.cache.then(|| self.remembered_text()),
            cache_files: match self.cache {
                true => self.cache_files().collect(),
                false => Vec::new(),
            },
            arguments: arguments.chain(self.command.iter().cloned()).collect(),
        }
    }

    /// Makes the root and the repositories; returns the words for the command line.
    pub(crate) fn lay_out(&self, sandbox: &Sandbox) -> Vec<String> {
        sandbox.write("etc/apk/world", self.world_text());
        sandbox.write("lib/apk/db/installed", self.installed_text());
        fs::create_dir_all(sandbox.root().join("var/log")).expect("a new directory");
        fs::create_dir_all(sandbox.root().join("tmp")).expect("a new directory");
        let mut words: Vec<String> = ["--arch", "x86_64", "--allow-untrusted"]
            .map(str::to_owned)
            .to_vec();
        if self.cache {
            self.fill_cache(sandbox);
        } else if !self.repositories.iter().any(|repository| repository.remote) {
            words.push("--no-cache".to_owned());
        }
        let mut lines = Vec::new();
        for (number, repository) in self.repositories.iter().enumerate() {
            let archive = index_archive(self.repository_text(number).as_bytes());
            let location = self.place(sandbox, number, repository, &archive);
            let tag = match repository.tag {
                0 => String::new(),
                tag => format!("@{} ", TAGS[tag]),
            };
            if repository.option {
                words.extend(["-X".to_owned(), format!("{tag}{location}")]);
            } else {
                lines.push(format!("{tag}{location}"));
            }
        }
        sandbox.repositories(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        words.extend(self.options.iter().map(|word| (*word).to_owned()));
        words.extend(self.command.iter().cloned());
        words
    }

    /// Puts an index where its repository line finds it.
    fn place(
        &self,
        sandbox: &Sandbox,
        number: usize,
        repository: &Repository,
        archive: &[u8],
    ) -> String {
        if !repository.remote {
            let folder = sandbox.beside(&format!("r{number}/x86_64"));
            fs::create_dir_all(&folder).expect("a new directory");
            fs::write(folder.join("APKINDEX.tar.gz"), archive).expect("a new file");
            return sandbox.beside(&format!("r{number}")).display().to_string();
        }
        let url = format!("http://mirror.invalid/r{number}");
        let name = cached_index(&format!("{url}/x86_64/APKINDEX.tar.gz"));
        let cache = if self.cache {
            "etc/apk/cache"
        } else {
            "var/cache/apk"
        };
        sandbox.write(&format!("{cache}/{name}"), archive);
        url
    }

    fn fill_cache(&self, sandbox: &Sandbox) {
        sandbox.write("etc/apk/cache/installed", self.remembered_text());
        for (name, size) in self.cache_files() {
            let path = sandbox.root().join("etc/apk/cache").join(name);
            let file = fs::File::create(path).expect("a new file");
            file.set_len(size).expect("a file with a hole");
        }
    }

    /// Returns name and size of each package file in the cache.
    fn cache_files(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let all = self.records.iter().enumerate();
        all.filter(|(_, record)| record.cached)
            .map(|(number, record)| {
                let hash = data_encoding::HEXLOWER.encode(&identity(number)[..4]);
                (format!("{}.{hash}.apk", record.full_name()), record.size)
            })
    }
}

fn cached_index(url: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(url)[..4]);
    format!("APKINDEX.{hash}.tar.gz")
}

/// Packs the text of an index the way repositories have it, unsigned.
pub(crate) fn index_archive(text: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_cksum();
    archive
        .append_data(&mut header, "APKINDEX", text)
        .expect("memory takes it");
    let mut encoder = archive.into_inner().expect("memory takes it");
    encoder.flush().expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, repository) in self.repositories.iter().enumerate() {
            write!(f, "repository {number}: @{}", TAGS[repository.tag])?;
            f.write_str(if repository.remote { " remote" } else { "" })?;
            writeln!(f, "{}", if repository.option { " -X" } else { "" })?;
        }
        let texts = |list: &[Need]| -> Vec<String> { list.iter().map(Need::text).collect() };
        for (number, record) in self.records.iter().enumerate() {
            write!(f, "  {number}: {}", record.full_name())?;
            for (field, list) in [
                ("D:", texts(&record.depends)),
                ("p:", record.provides.iter().map(provide_text).collect()),
                ("i:", texts(&record.install_if)),
            ] {
                if !list.is_empty() {
                    write!(f, " {field} {}", list.join(" "))?;
                }
            }
            if record.priority != 0 {
                write!(f, " k: {}", record.priority)?;
            }
            write!(
                f,
                " S: {} I: {} in {:?}",
                record.size, record.installed_size, record.repositories
            )?;
            for (text, set) in [
                (" cached", record.cached),
                (" remembered", record.remembered),
            ] {
                f.write_str(if set { text } else { "" })?;
            }
            if let Some(line) = record.odd_line {
                write!(f, " ({line})")?;
            }
            match &record.installed {
                Some(how) => writeln!(
                    f,
                    " installed @{} {}{}",
                    TAGS[how.tag],
                    how.broken,
                    if how.altered { " altered" } else { "" }
                )?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "world: {}", texts(&self.world).join(" "))?;
        writeln!(
            f,
            "{}$ {} {}",
            if self.cache { "(cache) " } else { "" },
            self.options.join(" "),
            self.command.join(" ")
        )
    }
}
