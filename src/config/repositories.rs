//! Repository declarations (formats.md, 11.1 to 11.4).

use super::mirrors::{self, Mirrors, Place};
use crate::package::{FileName, Identity};
use crate::progress::{Silent, Sink};
use crate::root::{Root, RootError};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Declarations that do not come from the root's own files.
#[derive(Clone, Debug, Default)]
pub struct RepositorySources {
    /// `-X`, in order.
    pub repositories: Vec<String>,
    /// `--repository-config`, in order.
    pub config: Vec<String>,
    /// `--repositories-file`, which replaces the root's files.
    pub file: Option<PathBuf>,
    /// Only `-X` and what `--mirror` and its companions stand for count; the other declarations
    /// are not read.
    pub only_arguments: bool,
    /// Texts that count instead of files of the root, by path. Who carries out a change with them
    /// writes them to the root as part of it.
    pub replaced: BTreeMap<String, String>,
    /// `--mirror`, in order.
    pub mirrors: Vec<String>,
    /// `--branch`.
    pub branch: Option<String>,
    /// `--component`; each may be a list with commas.
    pub components: Vec<String>,
}

/// What kind of address a repository has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A base URL with `ARCH/APKINDEX.tar.gz` below.
    V2,
    /// A base URL with `ARCH/Packages.adb` below.
    V3,
    /// The URL of an index.
    Index,
}

/// A declared repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The address as declared, without trailing slashes; credentials included.
    pub url: String,
    /// The address of its index.
    pub index_url: String,
    /// How addresses are made.
    pub kind: RepositoryKind,
    /// The tags it is declared with; `None` is the default.
    pub tags: Vec<Option<String>>,
}

impl Repository {
    /// Returns whether it is on this machine (11.4).
    pub fn is_local(&self) -> bool {
        is_local(&self.index_url)
    }

    /// Returns the path of a local repository's index; also of the `test:` scheme, which stands
    /// for a file that counts as remote.
    pub fn index_path(&self) -> Option<PathBuf> {
        local_path(&self.index_url)
    }

    /// Returns how messages name the index: a path for what is local, else the address.
    pub fn index_path_text(&self) -> &str {
        self.index_url
            .strip_prefix("file:")
            .unwrap_or(&self.index_url)
    }

    /// Returns the address of a package file; `named` is how the index says that it is called
    /// (formats.md, 11.3).
    pub fn package_url(
        &self,
        named: Option<&FileName>,
        (name, version, arch): (&str, &str, &str),
        identity: Identity,
    ) -> String {
        let file = self.file_name(named).of(name, version, arch, identity);
        locate(self.base(), file)
    }

    /// Returns how package files are named beneath [`base`](Self::base), if the index says `named`.
    pub fn file_name(&self, named: Option<&FileName>) -> FileName {
        let usual = || match self.kind {
            RepositoryKind::V2 | RepositoryKind::V3 => {
                FileName::parse("${arch}/${name}-${version}.apk").expect("it is well-formed")
            }
            RepositoryKind::Index => FileName::default(),
        };
        named.cloned().unwrap_or_else(usual)
    }

    /// Returns what package addresses begin with: the repository, or the folder of its index.
    pub fn base(&self) -> &str {
        match self.kind {
            RepositoryKind::V2 | RepositoryKind::V3 => &self.url,
            RepositoryKind::Index => self.url.rsplit_once('/').map_or("", |(base, _)| base),
        }
    }
}

/// Returns the address of a file beneath a base, or of one that has an address of its own.
pub fn locate(base: &str, file: String) -> String {
    match file.contains("://") {
        true => file,
        false => format!("{}/{file}", base.trim_end_matches('/')),
    }
}

/// Returns whether an address is a path on this machine.
pub fn is_local(url: &str) -> bool {
    if url.starts_with("test:") {
        return false;
    }
    let head = &url.as_bytes()[..url.len().min(10)];
    url.starts_with('/') || url.starts_with("file:") || !head.windows(3).any(|w| w == b"://")
}

/// Returns the path that an address means, if it is one.
pub fn local_path(url: &str) -> Option<PathBuf> {
    if let Some(path) = url
        .strip_prefix("file:")
        .or_else(|| url.strip_prefix("test:"))
    {
        return Some(path.into());
    }
    is_local(url).then(|| url.into())
}

/// Returns an address fit to be shown: its password is replaced by `*`.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else {
        return url.to_owned();
    };
    match rest[..at].split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:*{}", &rest[at..]),
        // A name alone may be a token.
        None => format!("{scheme}://*{}", &rest[at..]),
    }
}

/// Returns an address without name and password.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// All repositories in the order of declaration.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// The repositories; the same index twice is one with both tags.
    pub repositories: Vec<Repository>,
    /// Tags in the order in which lines name them.
    pub tag_order: Vec<String>,
    /// The mirrors that stand in for each other.
    pub mirrors: Mirrors,
}

const FOLDERS: [&str; 2] = ["etc/apk/repositories.d", "lib/apk/repositories.d"];

/// What a line cannot be used for; the texts are apk's.
enum LineError {
    Syntax,
    Keyword(String),
    Variable(String),
    Definition(String),
    Option(String),
    Url(String),
}

impl LineError {
    fn text(&self) -> String {
        match self {
            Self::Syntax => "repositories file syntax error".to_owned(),
            Self::Keyword(word) => format!("unrecogized keyword: {word}"),
            Self::Variable(name) => format!("undefined variable: {name}"),
            Self::Definition(text) => format!("invalid variable definition: {text}"),
            Self::Option(word) => format!("invalid option: {word}"),
            Self::Url(word) => format!("invalid url: {}", masked(word)),
        }
    }
}

/// Reads every declaration. A line that cannot be used is told and skipped; apk skips the rest of
/// the file instead (commit.md, W33).
///
/// # Errors
/// [`RootError`] if a file of the root cannot be read.
pub fn load(
    root: &Root,
    sources: &RepositorySources,
    arch: &str,
    sink: &mut dyn Sink,
) -> Result<Declared, RootError> {
    let mut parser = Parser::new(arch);
    parser.declared.mirrors = Mirrors::load(root, sources)?;
    for argument in &sources.repositories {
        if let Err(error) = parser.argument(argument) {
            sink.warning(&format!("<command line>: {}", error.text()));
        }
    }
    if mirrors::stand_for_repositories(sources) {
        let places = declared_places(root, sources, arch)?;
        for line in mirrors::repository_lines(sources, &parser.declared.mirrors, &places) {
            parser.declare(None, None, &line, &[]);
        }
    }
    if !sources.only_arguments {
        parser.files(root, sources, sink)?;
    }
    Ok(parser.declared)
}

/// Returns the places that the root's own files name, without those of tagged lines.
///
/// # Errors
/// [`RootError`].
pub fn declared_places(
    root: &Root,
    sources: &RepositorySources,
    arch: &str,
) -> Result<Vec<Place>, RootError> {
    let mut parser = Parser::new(arch);
    parser.files(root, sources, &mut Silent)?;
    let untagged = parser
        .declared
        .repositories
        .iter()
        .filter(|r| r.tags.contains(&None));
    Ok(untagged
        .filter_map(|repository| Place::of(&repository.url))
        .collect())
}

/// Returns the files of a root that declare repositories, in the order in which they are read.
///
/// # Errors
/// [`RootError`].
pub fn files(root: &Root) -> Result<Vec<String>, RootError> {
    let mut files = vec!["etc/apk/repositories".to_owned()];
    let mut names = BTreeMap::new();
    for folder in FOLDERS {
        for name in root.list(folder)? {
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with('.') && name.ends_with(".list") {
                names
                    .entry(name.to_owned())
                    .or_insert_with(|| format!("{folder}/{name}"));
            }
        }
    }
    files.extend(names.into_values());
    Ok(files)
}

struct Parser {
    variables: HashMap<String, String>,
    arch: String,
    declared: Declared,
}

impl Parser {
    fn new(arch: &str) -> Self {
        Self {
            variables: HashMap::from([("APK_ARCH".to_owned(), arch.to_owned())]),
            arch: arch.to_owned(),
            declared: Declared::default(),
        }
    }

    /// Everything but `-X` and the mirror options.
    fn files(
        &mut self,
        root: &Root,
        sources: &RepositorySources,
        sink: &mut dyn Sink,
    ) -> Result<(), RootError> {
        for text in &sources.config {
            self.text("<command line>", text, sink);
        }
        if let Some(file) = &sources.file {
            let shown = file.display().to_string();
            match std::fs::read(file) {
                Ok(text) => self.text(&shown, &String::from_utf8_lossy(&text), sink),
                Err(error) => sink.error(&format!(
                    "failed to read repositories: {shown}: {}",
                    crate::root::cause(&error)
                )),
            }
            return Ok(());
        }
        for file in files(root)? {
            if let Some(text) = sources.replaced.get(&file) {
                self.text(&file, text, sink);
            } else if let Some(text) = root.read(&file)? {
                self.text(&file, &String::from_utf8_lossy(&text), sink);
            }
        }
        Ok(())
    }

    fn text(&mut self, file: &str, text: &str, sink: &mut dyn Sink) {
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(error) = self.line(line) {
                sink.warning(&format!("{file}:{}: {}", number + 1, error.text()));
            }
        }
    }

    /// `-X`: an address with an optional tag, no keywords.
    fn argument(&mut self, text: &str) -> Result<(), LineError> {
        let mut words = text
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .peekable();
        let tag = words
            .next_if(|word| word.starts_with('@'))
            .map(|word| word[1..].to_owned());
        let url = words.next().ok_or(LineError::Syntax)?;
        let components: Vec<String> = words.map(str::to_owned).collect();
        let url = match is_local(url) && !url.starts_with('/') && !url.starts_with("file:") {
            true => std::path::absolute(url).map_or(url.to_owned(), |p| p.display().to_string()),
            false => url.to_owned(),
        };
        self.declare(None, tag, &url, &components);
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), LineError> {
        if line.starts_with([' ', '\t']) {
            return Err(LineError::Syntax);
        }
        let mut words = line
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .peekable();
        let first = *words.peek().ok_or(LineError::Syntax)?;
        let kind = match first {
            "set" => return self.set(line["set".len()..].trim_start_matches([' ', '\t'])),
            "ndx" => Some(RepositoryKind::Index),
            "v2" => Some(RepositoryKind::V2),
            "v3" => Some(RepositoryKind::V3),
            _ => None,
        };
        if kind.is_some() {
            words.next();
        }
        let tag = words
            .next_if(|word| word.starts_with('@'))
            .map(|word| word[1..].to_owned());
        let url = words.next().ok_or(LineError::Syntax)?;
        let looks_like_index = [".adb", ".tar.gz"].iter().any(|end| url.ends_with(end));
        let kind = kind.or(looks_like_index.then_some(RepositoryKind::Index));
        let expanded = self.expand(url)?;
        let valid = expanded.starts_with('/')
            || expanded.contains("://")
            || expanded.starts_with("test:")
            || expanded.starts_with("file:");
        if !valid {
            let word = url.to_owned();
            let is_word = url
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            return Err(if kind.is_none() && tag.is_none() && is_word {
                LineError::Keyword(word)
            } else {
                LineError::Url(word)
            });
        }
        let components = words
            .map(|word| self.expand(word))
            .collect::<Result<Vec<_>, _>>()?;
        self.declare(kind, tag, &expanded, &components);
        Ok(())
    }

    fn set(&mut self, rest: &str) -> Result<(), LineError> {
        let mut rest = rest;
        let mut default = false;
        if rest.starts_with('-') {
            let (option, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            if option != "-default" {
                return Err(LineError::Option(option.to_owned()));
            }
            default = true;
            rest = after.trim_start_matches([' ', '\t']);
        }
        let wrong = || LineError::Definition(rest.to_owned());
        let (key, value) = rest.split_once('=').ok_or_else(wrong)?;
        let valid = key.starts_with(|c: char| c.is_ascii_alphabetic())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !key.starts_with("APK_");
        if !valid {
            return Err(wrong());
        }
        let value = self.expand(value)?;
        if !(default && self.variables.contains_key(key)) {
            self.variables.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// Replaces `${KEY}`.
    fn expand(&self, text: &str) -> Result<String, LineError> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').ok_or(LineError::Syntax)?;
            let value = self.variables.get(name);
            out.push_str(value.ok_or_else(|| LineError::Variable(name.to_owned()))?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn declare(
        &mut self,
        kind: Option<RepositoryKind>,
        tag: Option<String>,
        url: &str,
        components: &[String],
    ) {
        if let Some(tag) = &tag
            && !self.declared.tag_order.contains(tag)
        {
            self.declared.tag_order.push(tag.clone());
        }
        let by_name = [".adb", ".tar.gz"].iter().any(|end| url.ends_with(end));
        let kind = kind.unwrap_or(if by_name {
            RepositoryKind::Index
        } else {
            RepositoryKind::V2
        });
        let trimmed = url.trim_end_matches('/');
        let base = if trimmed.is_empty() { "/" } else { trimmed };
        if components.is_empty() {
            self.add(kind, tag, base.to_owned());
            return;
        }
        for component in components {
            self.add(kind, tag.clone(), format!("{base}/{component}"));
        }
    }

    fn add(&mut self, kind: RepositoryKind, tag: Option<String>, url: String) {
        let index_url = match kind {
            RepositoryKind::V2 => format!("{url}/{}/APKINDEX.tar.gz", self.arch),
            RepositoryKind::V3 => format!("{url}/{}/Packages.adb", self.arch),
            RepositoryKind::Index => url.clone(),
        };
        let mirrors = &self.declared.mirrors;
        let known = self
            .declared
            .repositories
            .iter_mut()
            .find(|r| mirrors.same(&r.index_url, &index_url));
        match known {
            Some(repository) if repository.tags.contains(&tag) => {}
            Some(repository) => repository.tags.push(tag),
            None => {
                let repository = Repository {
                    url,
                    index_url,
                    kind,
                    tags: vec![tag],
                };
                self.declared.repositories.push(repository);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Collect;

    fn parse(text: &str) -> (Vec<String>, Vec<String>) {
        let mut parser = Parser::new("x86_64");
        let mut sink = Collect::default();
        parser.text("f", text, &mut sink);
        let shown = |r: &Repository| {
            let tags: Vec<&str> = r.tags.iter().map(|t| t.as_deref().unwrap_or("-")).collect();
            format!("{} {}", tags.join(","), r.index_url)
        };
        let repositories = parser.declared.repositories.iter().map(shown).collect();
        (
            repositories,
            sink.lines.into_iter().map(|(_, line)| line).collect(),
        )
    }

    #[test]
    fn lines_of_every_kind() {
        for (text, wanted, warnings) in [
            (
                "# x\n\nhttp://h/m/\n",
                &["- http://h/m/x86_64/APKINDEX.tar.gz"][..],
                &[][..],
            ),
            (
                "@e http://h/e\nhttp://h/e\n",
                &["e,- http://h/e/x86_64/APKINDEX.tar.gz"],
                &[],
            ),
            (
                "set v=v3.20\nset -default v=edge\nv2 http://h/${v} main community\n",
                &[
                    "- http://h/v3.20/main/x86_64/APKINDEX.tar.gz",
                    "- http://h/v3.20/community/x86_64/APKINDEX.tar.gz",
                ],
                &[],
            ),
            ("http://h/x.tar.gz\n", &["- http://h/x.tar.gz"], &[]),
            ("v3 http://h\n", &["- http://h/x86_64/Packages.adb"], &[]),
            (
                " http://h\n/a\n",
                &["- /a/x86_64/APKINDEX.tar.gz"],
                &["f:1: repositories file syntax error"],
            ),
            ("http://h/${no}\n", &[], &["f:1: undefined variable: no"]),
            (
                "nonsense http://h\n",
                &[],
                &["f:1: unrecogized keyword: nonsense"],
            ),
            ("set 1=2\n", &[], &["f:1: invalid variable definition: 1=2"]),
            ("set -x a=b\n", &[], &["f:1: invalid option: -x"]),
            ("@t relative\n", &[], &["f:1: invalid url: relative"]),
        ] {
            let (found, told) = parse(text);
            assert_eq!(found, wanted, "{text}");
            assert_eq!(told, warnings, "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (url, local) in [
            ("/a", true),
            ("file:///a", true),
            ("a/b", true),
            ("http://h", false),
            ("https://h", false),
            ("test:/a", false),
        ] {
            assert_eq!(is_local(url), local, "{url}");
        }
        assert_eq!(masked("http://u:p@h/x"), "http://u:*@h/x");
        assert_eq!(masked("http://token@h/x"), "http://*@h/x");
        assert_eq!(masked("http://h/x"), "http://h/x");
    }
}
