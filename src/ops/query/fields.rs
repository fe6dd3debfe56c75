//! The fields of a package that can be printed, matched and summarised (cli.md, 3.2).

/// Declares the fields in the order in which they are printed.
macro_rules! fields {
    ($($variant:ident $key:literal $label:literal $doc:literal)*) => {
        /// A field of a package, or of an answer about one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $(#[doc = $doc] $variant,)*
        }

        impl Field {
            /// All fields, in the order of printing.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name used on the command line, in JSON and in YAML.
            pub fn key(self) -> &'static str {
                match self { $(Self::$variant => $key,)* }
            }

            /// Returns the label of the default format.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

fields! {
    Query "query" "Query" "What was asked about."
    PathTarget "path-target" "Path-Target" "Where a symbolic link leads."
    Error "error" "Error" "Why there is no answer."
    Package "package" "Package" "`NAME-VERSION`."
    Name "name" "Name" "The own name."
    Version "version" "Version" "The version."
    Hash "hash" "Hash" "Accepted and never known."
    Description "description" "Description" "One line of description."
    Arch "arch" "Arch" "The architecture."
    License "license" "License" "The licence."
    Origin "origin" "Origin" "The source package."
    Maintainer "maintainer" "Maintainer" "Who maintains it."
    Url "url" "URL" "The web page."
    Commit "commit" "Commit" "The commit of the recipe."
    BuildTime "build-time" "Build-Time" "Seconds since 1970."
    InstalledSize "installed-size" "Installed-Size" "Bytes of the installed files."
    FileSize "file-size" "File-Size" "Bytes of the package file."
    ProviderPriority "provider-priority" "Provider-Priority" "Rank among providers."
    Depends "depends" "Depends" "What it needs."
    Provides "provides" "Provides" "What it offers besides its name."
    InstallIf "install-if" "Install-If" "When it installs itself."
    Recommends "recommends" "Recommends" "What it recommends."
    Layer "layer" "Layer" "The database layer."
    Tags "tags" "Tags" "Tags of the package."
    Repositories "repositories" "Repositories" "Where it is known from."
    DownloadUrl "download-url" "Download-URL" "Where its file is."
    ReverseDepends "reverse-depends" "Reverse-Depends" "What needs it."
    ReverseInstallIf "reverse-install-if" "Reverse-Install-If" "What it may pull in."
    Contents "contents" "Contents" "Its files."
    Triggers "triggers" "Triggers" "The directories it watches."
    Scripts "scripts" "Scripts" "The kinds of its scripts."
    ReplacesPriority "replaces-priority" "Replaces-Priority" "Rank among replacers."
    Replaces "replaces" "Replaces" "Whose files it may take over."
    Status "status" "Status" "`installed`, and what is broken."
    Owner "owner" "Owner" "The owner of a path; only for matching."
}

impl Field {
    /// Returns the field of this name.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.key() == key)
    }

    /// Returns whether patterns can be compared with the field.
    pub fn can_match(self) -> bool {
        FieldSet::MATCHABLE.contains(self)
    }

    /// Returns whether the field can be summarised.
    pub fn can_summarize(self) -> bool {
        FieldSet::SUMMARIZABLE.contains(self)
    }

    /// Returns whether only installed packages have the field.
    pub fn is_installed_only(self) -> bool {
        FieldSet::INSTALLED_ONLY.contains(self)
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u64);

impl FieldSet {
    /// No field.
    pub const NONE: Self = Self(0);

    /// What `--fields all` asks for.
    pub const ALL: Self = {
        let answers = Self::of(&[Field::Query, Field::PathTarget, Field::Error]);
        let never = Self::of(&[Field::Hash, Field::Owner]);
        let every = (1 << Field::ALL.len()) - 1;
        Self(every & !answers.0 & !never.0)
    };

    const MATCHABLE: Self = Self::of(&[
        Field::Package,
        Field::Name,
        Field::Version,
        Field::Description,
        Field::Arch,
        Field::License,
        Field::Origin,
        Field::Maintainer,
        Field::Url,
        Field::Depends,
        Field::Provides,
        Field::InstallIf,
        Field::Recommends,
        Field::Tags,
        Field::Contents,
        Field::Replaces,
        Field::Owner,
    ]);

    const SUMMARIZABLE: Self = Self::of(&[
        Field::Package,
        Field::Name,
        Field::Origin,
        Field::Depends,
        Field::Provides,
        Field::InstallIf,
        Field::Recommends,
        Field::ReverseDepends,
        Field::ReverseInstallIf,
        Field::Replaces,
    ]);

    const INSTALLED_ONLY: Self = Self::of(&[
        Field::Contents,
        Field::Triggers,
        Field::Scripts,
        Field::ReplacesPriority,
        Field::Replaces,
        Field::Status,
    ]);

    /// Makes a set.
    pub const fn of(fields: &[Field]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < fields.len() {
            bits |= 1 << fields[i] as u64;
            i += 1;
        }
        Self(bits)
    }

    /// Returns whether a field is in the set.
    pub fn contains(self, field: Field) -> bool {
        self.0 >> field as u64 & 1 != 0
    }

    /// Returns both sets.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds a field.
    pub fn insert(&mut self, field: Field) {
        *self = self.union(Self::of(&[field]));
    }

    /// Returns whether there is no field.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the fields in the order of printing.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL
            .iter()
            .copied()
            .filter(move |f| self.contains(*f))
    }
}

/// What reverse fields show of a package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reverse {
    /// Its name.
    #[default]
    Name,
    /// Its name and version.
    Package,
    /// Its source package.
    Origin,
}

impl Reverse {
    fn from_key(key: &str) -> Option<Self> {
        match key {
            "name" => Some(Self::Name),
            "package" => Some(Self::Package),
            "origin" => Some(Self::Origin),
            _ => None,
        }
    }
}

/// A list of fields to print, as an option gives it: `FIELD,…[:REV]` or `all`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldList {
    /// The fields.
    pub fields: FieldSet,
    /// All fields were asked for: those that cannot be given are not missed.
    pub all: bool,
    /// How reverse fields are shown.
    pub reverse: Reverse,
}

impl FieldList {
    /// Reads the value of `--fields`; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_with(text, |_| true)
    }

    /// Reads the value of `--summarize`: one field that can be summarised.
    pub fn parse_summary(text: &str) -> Option<(Field, Reverse)> {
        let list = Self::parse_with(text, Field::can_summarize)?;
        let mut fields = list.fields.iter();
        match (list.all, fields.next(), fields.next()) {
            (false, Some(field), None) => Some((field, list.reverse)),
            _ => None,
        }
    }

    /// Reads the value of `--match`: fields that can be matched, without a kind.
    pub fn parse_match(text: &str) -> Option<FieldSet> {
        if text.contains(':') {
            return None;
        }
        let list = Self::parse_with(text, Field::can_match)?;
        Some(list.fields)
    }

    fn parse_with(text: &str, allowed: impl Fn(Field) -> bool) -> Option<Self> {
        let (names, reverse) = match text.split_once(':') {
            Some((names, kind)) => (names, Reverse::from_key(kind)?),
            None => (text, Reverse::default()),
        };
        let mut list = Self {
            reverse,
            ..Self::default()
        };
        if names == "all" {
            list.fields = FieldSet::ALL;
            list.all = true;
            return Some(list);
        }
        for name in names.split(',') {
            list.fields
                .insert(Field::from_key(name).filter(|f| allowed(*f))?);
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_fields() {
        let list = FieldList::parse("version,reverse-depends,name:origin").unwrap();
        let keys: Vec<_> = list.fields.iter().map(Field::key).collect();
        assert_eq!(keys, ["name", "version", "reverse-depends"]);
        assert_eq!(list.reverse, Reverse::Origin);
        assert!(FieldList::parse("all").unwrap().all);
        for wrong in ["", "nope", "name,", "name:", "name:version", "name version"] {
            assert_eq!(FieldList::parse(wrong), None, "{wrong}");
        }
        assert_eq!(FieldList::parse_summary("name,origin"), None);
        assert_eq!(FieldList::parse_summary("contents"), None);
        assert_eq!(FieldList::parse_summary("all"), None);
        assert_eq!(
            FieldList::parse_summary("reverse-depends:package"),
            Some((Field::ReverseDepends, Reverse::Package))
        );
        assert_eq!(FieldList::parse_match("hash"), None);
        assert_eq!(FieldList::parse_match("name:package"), None);
        assert!(FieldList::parse_match("name,owner").is_some());
    }
}
