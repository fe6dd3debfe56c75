//! The fields of an image description, once: reading, unknown keys and the JSON Schema are made of
//! this table (image.md, chapter 3).
//!
//! A document becomes a JSON value in which every scalar has the type of its field. Items of lists
//! get their place under [`PLACE`], for messages about them.

use super::ConfigError;
use super::yaml::{Node, Position, Value};
use serde_json::{Map, Value as Json, json};

/// The key under which an item keeps its place.
pub(super) const PLACE: &str = "\u{0}place";

/// How far a name may be from a known one to be suggested for it.
const SIMILAR: f64 = 0.6;

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Field {
    /// The key.
    pub(super) name: &'static str,
    kind: Kind,
    about: &'static str,
}

/// What a field takes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A scalar, as its source text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number of at most 32 bits.
    Number,
    /// A list of scalars.
    Texts,
    /// Names with scalars.
    Names,
    /// Names with lists of scalars.
    NameLists,
    /// A mapping with these keys.
    Mapping(&'static [Field]),
    /// A list of such mappings.
    Items(&'static [Field]),
    /// Accepted and left aside (`W-OLD-FIELD`).
    Old,
    /// The same, but its names with scalars may be needed.
    OldNames,
}

use Kind::{Choice, Flag, Items, Mapping, NameLists, Names, Number, Old, OldNames, Text, Texts};

const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, about }
}

const KEY: &[Field] = &[
    field("name", Text, "File name below /etc/apk/keys"),
    field("content", Text, "The public key as PEM"),
];

const CONTENTS: &[Field] = &[
    field(
        "build_repositories",
        Texts,
        "Repositories used for building only",
    ),
    field(
        "runtime_repositories",
        Texts,
        "Repositories written into the image only",
    ),
    field(
        "repositories",
        Texts,
        "Repositories used for building and written into the image",
    ),
    field("keyring", Texts, "Trusted public keys: paths or URLs"),
    field(
        "runtime_keyring",
        Items(KEY),
        "Public keys written into the image, not trusted for the build",
    ),
    field(
        "packages",
        Texts,
        "Constraints: NAME, NAME=1, NAME~1, NAME@TAG, !NAME, or a range as NAME@^1.2",
    ),
    field(
        "baseimage",
        Mapping(&[
            field("image", Text, "OCI layout to build on"),
            field(
                "apkindex",
                Text,
                "Folder with ARCH/APKINDEX of what is in it",
            ),
        ]),
        "Build one more layer on an existing image",
    ),
    field("options", Old, ""),
];

const ENTRYPOINT: &[Field] = &[
    field("type", Choice(&["service-bundle"]), "Run services under s6"),
    field("command", Text, "Command, split by shell word rules"),
    field("shell-fragment", Text, "Text for /bin/sh -c"),
    field("services", Names, "Commands of a service bundle"),
];

const ACCOUNTS: &[Field] = &[
    field(
        "run-as",
        Text,
        "User the container runs as: NAME, UID or USER:GROUP",
    ),
    field(
        "users",
        Items(&[
            field("username", Text, "Name"),
            field("uid", Number, "Number, not 0"),
            field("gid", Number, "Primary group; the uid if absent"),
            field("shell", Text, "Login shell"),
            field("homedir", Text, "Home directory"),
        ]),
        "Users to add",
    ),
    field(
        "groups",
        Items(&[
            field("groupname", Text, "Name"),
            field("gid", Number, "Number"),
            field("members", Texts, "Members"),
        ]),
        "Groups to add",
    ),
];

const PATHS: &[Field] = &[
    field("path", Text, "Path in the image"),
    field(
        "type",
        Choice(&[
            "directory",
            "empty-file",
            "hardlink",
            "symlink",
            "permissions",
        ]),
        "What to do",
    ),
    field("uid", Number, "Owner"),
    field("gid", Number, "Group"),
    field("permissions", Number, "Mode, special bits included"),
    field("source", Text, "What a link points to"),
    field("recursive", Flag, "Also everything below"),
];

const EXTENSIONS: &[Field] = &[
    field(
        "scripts",
        Choice(&["skip", "builtin", "emulate", "run"]),
        "What becomes of package scripts",
    ),
    field(
        "files",
        Items(&[
            field("path", Text, "Path in the image"),
            field("source", Text, "Local file to copy"),
            field("content", Text, "Text to write instead"),
            field("mode", Number, "Mode (0644)"),
            field("uid", Number, "Owner (0)"),
            field("gid", Number, "Group (0)"),
        ]),
        "Local files and inline texts to put into the image",
    ),
    field(
        "world",
        Choice(&["requested", "locked"]),
        "What /etc/apk/world says",
    ),
    field("compression", Text, "gzip, zstd or none, and :LEVEL"),
    field(
        "healthcheck",
        Mapping(&[
            field("test", Texts, "CMD or CMD-SHELL and the command, or NONE"),
            field("interval", Text, "Time between checks, as 30s"),
            field("timeout", Text, "Time one check may take"),
            field("start-period", Text, "Time to start up"),
            field("retries", Number, "Failures in a row that count"),
        ]),
        "How to see that a container works",
    ),
    field("expose", Texts, "Ports, as 80/tcp"),
    field("labels", Names, "Labels of the image configuration"),
    field(
        "remove",
        Texts,
        "Patterns of paths to leave out of the image",
    ),
    field("clamp-mtime", Flag, "Lower later times to the build time"),
    field("mirrors", NameLists, "Where to fetch instead: URL to URLs"),
    field(
        "db",
        Choice(&["auto", "lib", "usr", "none"]),
        "Where the package database is",
    ),
];

/// The keys of a document.
pub(super) const TOP: &[Field] = &[
    field(
        "contents",
        Mapping(CONTENTS),
        "Packages and where they come from",
    ),
    field("entrypoint", Mapping(ENTRYPOINT), "What a container runs"),
    field(
        "cmd",
        Text,
        "Arguments of the entry point, split by shell word rules",
    ),
    field("stop-signal", Text, "Signal that stops a container"),
    field("work-dir", Text, "Working directory"),
    field("accounts", Mapping(ACCOUNTS), "Users and groups"),
    field("archs", Texts, "Architectures, as amd64 or x86_64"),
    field("environment", Names, "Environment variables"),
    field("paths", Items(PATHS), "Changes to paths, in order"),
    field("vcs-url", Text, "Source of the image, as URL@COMMIT"),
    field("annotations", Names, "Annotations of manifest and index"),
    field("include", Text, "Local file that this one extends"),
    field("volumes", Texts, "Volumes of the image configuration"),
    field(
        "layering",
        Mapping(&[
            field("strategy", Choice(&["origin"]), "How packages are grouped"),
            field("budget", Number, "Most package layers"),
        ]),
        "Several layers instead of one",
    ),
    field("format", Choice(&["tar", "erofs"]), "Layer payload"),
    field(
        "certificates",
        Mapping(&[
            field(
                "additional",
                Items(&[
                    field("name", Text, "Name of the certificate file"),
                    field("content", Text, "One certificate as PEM"),
                ]),
                "Certificates to add",
            ),
            field(
                "providers",
                Texts,
                "Names that packages with certificates provide",
            ),
        ]),
        "Certificate authorities",
    ),
    field(
        "os-release",
        OldNames,
        "Lines of /etc/os-release where no package brings it",
    ),
    field("options", Old, ""),
    field(
        "x-build",
        Mapping(EXTENSIONS),
        "What only this program understands",
    ),
];

/// What reading a document found besides its values.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Fields of older releases, with their place.
    pub(super) old: Vec<(String, Position)>,
}

/// Reads a document by the table.
pub(super) fn read(file: &str, root: &Node, notes: &mut Notes) -> Result<Json, ConfigError> {
    Reader { file, notes }.mapping("", TOP, root)
}

struct Reader<'a> {
    file: &'a str,
    notes: &'a mut Notes,
}

impl Reader<'_> {
    fn wrong(&self, at: Position, message: String) -> ConfigError {
        ConfigError::Value {
            file: self.file.to_owned(),
            at,
            message,
        }
    }

    fn mapping(&mut self, path: &str, fields: &[Field], node: &Node) -> Result<Json, ConfigError> {
        let entries = match &node.value {
            Value::Mapping(entries) => entries,
            Value::Null => return Ok(Json::Object(Map::new())),
            _ => return Err(self.wrong(node.at, expected(path, "a mapping", node))),
        };
        let mut object = Map::new();
        for entry in entries {
            let Some(field) = fields.iter().find(|field| field.name == entry.key) else {
                return Err(ConfigError::Field {
                    file: self.file.to_owned(),
                    at: entry.at,
                    key: entry.key.clone(),
                    parent: path.to_owned(),
                    nearest: nearest(&entry.key, fields),
                });
            };
            let path = join(path, field.name);
            if matches!(field.kind, Old | OldNames) {
                self.notes.old.push((path.clone(), entry.at));
            }
            if matches!(field.kind, Old) {
                continue;
            }
            if entry.value.value == Value::Null {
                continue;
            }
            let value = self.value(&path, field.kind, &entry.value)?;
            object.insert(field.name.to_owned(), value);
        }
        Ok(Json::Object(object))
    }

    fn value(&mut self, path: &str, kind: Kind, node: &Node) -> Result<Json, ConfigError> {
        Ok(match kind {
            Old => Json::Null,
            Text => self.scalar(path, node)?.into(),
            Choice(known) => {
                let text = self.scalar(path, node)?;
                if !text.is_empty() && !known.contains(&text.as_str()) {
                    let known = known.join(", ");
                    let message = format!("{path}: unknown value \"{text}\"; known: {known}");
                    return Err(self.wrong(node.at, message));
                }
                text.into()
            }
            Flag => {
                let text = self.scalar(path, node)?;
                match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" => true.into(),
                    "false" | "no" | "off" => false.into(),
                    _ => {
                        let message = format!("{path}: \"{text}\" is neither true nor false");
                        return Err(self.wrong(node.at, message));
                    }
                }
            }
            Number => {
                let text = self.scalar(path, node)?;
                let number = number(&text).ok_or_else(|| {
                    let message = format!("{path}: \"{text}\" is no whole number of 32 bits");
                    self.wrong(node.at, message)
                })?;
                number.into()
            }
            Texts => {
                let texts = self.list(path, node)?.iter().enumerate();
                let texts = texts.map(|(at, item)| self.scalar(&format!("{path}[{at}]"), item));
                texts.collect::<Result<Vec<_>, _>>()?.into()
            }
            Names | OldNames => self.names(path, node, |reader, path, node| {
                reader.scalar(path, node).map(Json::from)
            })?,
            NameLists => self.names(path, node, |reader, path, node| match &node.value {
                Value::Scalar(text) => Ok(json!([text])),
                Value::Null => Ok(json!([])),
                _ => reader.value(path, Texts, node),
            })?,
            Mapping(fields) => self.mapping(path, fields, node)?,
            Items(fields) => {
                let mut items = Vec::new();
                for (at, item) in self.list(path, node)?.iter().enumerate() {
                    let mut value = self.mapping(&format!("{path}[{at}]"), fields, item)?;
                    let place = json!({ "file": self.file, "index": at, "line": item.at.line });
                    value[PLACE] = place;
                    items.push(value);
                }
                items.into()
            }
        })
    }

    fn names(
        &mut self,
        path: &str,
        node: &Node,
        read: impl Fn(&mut Self, &str, &Node) -> Result<Json, ConfigError>,
    ) -> Result<Json, ConfigError> {
        let Value::Mapping(entries) = &node.value else {
            return Err(self.wrong(node.at, expected(path, "a mapping", node)));
        };
        let mut object = Map::new();
        for entry in entries {
            let path = join(path, &entry.key);
            let value = read(self, &path, &entry.value)?;
            object.insert(entry.key.clone(), value);
        }
        Ok(Json::Object(object))
    }

    fn scalar(&self, path: &str, node: &Node) -> Result<String, ConfigError> {
        match &node.value {
            Value::Scalar(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            _ => Err(self.wrong(node.at, expected(path, "a scalar", node))),
        }
    }

    fn list<'n>(&self, path: &str, node: &'n Node) -> Result<&'n [Node], ConfigError> {
        match &node.value {
            Value::List(items) => Ok(items),
            _ => Err(self.wrong(node.at, expected(path, "a list", node))),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

fn expected(path: &str, wanted: &str, node: &Node) -> String {
    let path = if path.is_empty() {
        "the document"
    } else {
        path
    };
    format!("{path} must be {wanted}, not {}", node.kind())
}

/// Returns the known key that looks most like another word.
fn nearest(word: &str, fields: &[Field]) -> Option<&'static str> {
    let names = fields
        .iter()
        .filter(|field| !matches!(field.kind, Old | OldNames));
    let scored = names.map(|field| {
        let score = strsim::normalized_damerau_levenshtein(word, field.name);
        (score, field.name)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SIMILAR).then_some(best.1)
}

/// Reads a decimal, `0o755`, `0x1ed`, or the old octal form `0755` (IMG-025).
pub(super) fn number(text: &str) -> Option<u32> {
    let digits = text.replace('_', "");
    let (digits, radix) = if let Some(rest) = digits.strip_prefix("0o") {
        (rest, 8)
    } else if let Some(rest) = digits.strip_prefix("0x") {
        (rest, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits.as_str(), 10)
    };
    match digits.starts_with(['+', '-']) {
        true => None,
        false => u32::from_str_radix(digits, radix).ok(),
    }
}

/// Returns the JSON Schema of a description (draft 2020-12).
pub fn schema() -> Json {
    let mut schema = object_schema(TOP);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Image description".into();
    schema
}

fn object_schema(fields: &[Field]) -> Json {
    let mut properties = Map::new();
    for field in fields {
        let mut schema = field_schema(field.kind);
        match field.kind {
            Old | OldNames => schema["deprecated"] = true.into(),
            _ => schema["description"] = field.about.into(),
        }
        properties.insert(field.name.to_owned(), schema);
    }
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}

fn field_schema(kind: Kind) -> Json {
    // A string field takes any scalar and keeps its text (IMG-024).
    let scalar = json!(["string", "number", "boolean", "null"]);
    match kind {
        Old => json!({}),
        Text => json!({ "type": scalar }),
        Choice(known) => {
            let mut known: Vec<Json> = known.iter().map(|word| json!(word)).collect();
            known.push(Json::Null);
            json!({ "enum": known })
        }
        Flag => json!({ "type": ["boolean", "null"] }),
        Number => {
            json!({ "type": ["integer", "string", "null"], "minimum": 0, "maximum": u32::MAX })
        }
        Texts => json!({ "type": ["array", "null"], "items": { "type": scalar } }),
        Names | OldNames => {
            json!({ "type": ["object", "null"], "additionalProperties": { "type": scalar } })
        }
        NameLists => json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": ["string", "array"], "items": { "type": "string" } }
        }),
        Mapping(fields) => object_schema(fields),
        Items(fields) => json!({ "type": ["array", "null"], "items": object_schema(fields) }),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_of_every_form() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("493", Some(0o755)),
            ("0o755", Some(0o755)),
            ("0x1ed", Some(0o755)),
            ("0755", Some(0o755)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("-1", None),
            ("+1", None),
            ("0o8", None),
            ("", None),
            ("1.5", None),
        ] {
            assert_eq!(number(text), wanted, "{text}");
        }
    }
}
