//! Objects as text: the default format, YAML and JSON (cli.md, 3.3).
//!
//! The layouts are apk's, byte for byte, with one exception: control characters are escaped in
//! JSON and YAML, where apk writes what no parser accepts.

use super::fields::Field;
use std::fmt::Write as _;

/// How objects are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `Label: value`, for people.
    #[default]
    Default,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl Format {
    /// Reads the value of `--format`.
    pub fn from_key(key: &str) -> Option<Self> {
        match key {
            "default" => Some(Self::Default),
            "yaml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One text.
    Text(String),
    /// A number.
    Number(u64),
    /// A list whose length is stated.
    List(Vec<String>),
    /// A list that was put together while writing; its length is not stated.
    Stream(Vec<String>),
}

/// What a value is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// In JSON and YAML.
    pub name: &'static str,
    /// In the default format.
    pub label: &'static str,
}

impl From<Field> for Key {
    fn from(field: Field) -> Self {
        Self {
            name: field.key(),
            label: field.label(),
        }
    }
}

/// The values of one object, in the order of printing.
pub type Object = Vec<(Key, Value)>;

/// Lines of the default format are continued from this column on.
const FULL_LINE: usize = 80;

/// Writes a list of objects.
pub struct Writer<'o> {
    out: &'o mut String,
    format: Format,
    written: usize,
}

impl<'o> Writer<'o> {
    /// Begins a list of `count` objects.
    pub fn new(out: &'o mut String, format: Format, count: usize) -> Self {
        match format {
            Format::Default => {}
            Format::Yaml => {
                let _ = writeln!(out, "# {count} items");
            }
            Format::Json => out.push('['),
        }
        Self {
            out,
            format,
            written: 0,
        }
    }

    /// Writes an object.
    pub fn object(&mut self, object: &Object) {
        match self.format {
            Format::Default => {
                if self.written > 0 {
                    self.out.push('\n');
                }
                for (key, value) in object {
                    plain(self.out, *key, value);
                }
            }
            Format::Yaml => yaml_object(self.out, object),
            Format::Json => {
                self.out
                    .push_str(if self.written > 0 { ", {" } else { "\n  {" });
                json_object(self.out, object);
            }
        }
        self.written += 1;
    }

    /// Ends the list.
    pub fn finish(self) {
        if self.format == Format::Json {
            self.out.push_str("\n]\n");
        }
    }
}

/// Writes objects.
pub fn write_objects(out: &mut String, format: Format, objects: &[Object]) {
    let mut writer = Writer::new(out, format, objects.len());
    objects.iter().for_each(|object| writer.object(object));
    writer.finish();
}

/// Writes a flat list of texts, as `--summarize` gives it.
pub fn write_list(out: &mut String, format: Format, items: &[String]) {
    match format {
        Format::Default => {
            for item in items {
                let _ = writeln!(out, "{item}");
            }
        }
        Format::Yaml => {
            let _ = writeln!(out, "# {} items", items.len());
            for item in items {
                out.push_str("- ");
                yaml_text(out, item, 2);
            }
        }
        Format::Json => {
            json_list(out, items, 2);
            out.push('\n');
        }
    }
}

fn plain(out: &mut String, key: Key, value: &Value) {
    let label = key.label;
    let _ = write!(out, "{label}:");
    match value {
        Value::Text(text) => {
            let _ = writeln!(out, " {text}");
        }
        Value::Number(number) => {
            let _ = writeln!(out, " {number}");
        }
        Value::List(items) | Value::Stream(items) => {
            let one_a_line = matches!(label, "Contents" | "Repositories");
            // The colon is not counted, in apk as here.
            let mut column = label.len();
            for item in items {
                if one_a_line || column >= FULL_LINE {
                    out.push_str("\n  ");
                    column = 2;
                } else {
                    out.push(' ');
                    column += 1;
                }
                out.push_str(item);
                column += item.len();
            }
            out.push('\n');
        }
    }
}

fn json_object(out: &mut String, object: &Object) {
    for (i, (key, value)) in object.iter().enumerate() {
        out.push_str(if i > 0 { ",\n    " } else { "\n    " });
        let _ = write!(out, "\"{}\": ", key.name);
        match value {
            Value::Text(text) => json_text(out, text),
            Value::Number(number) => {
                let _ = write!(out, "{number}");
            }
            Value::List(items) | Value::Stream(items) => json_list(out, items, 6),
        }
    }
    out.push_str("\n  }");
}

fn json_list(out: &mut String, items: &[String], indent: usize) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i > 0 { ",\n" } else { "\n" });
        out.extend(std::iter::repeat_n(' ', indent));
        json_text(out, item);
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent - 2));
    out.push(']');
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn yaml_object(out: &mut String, object: &Object) {
    if object.is_empty() {
        out.push_str("- # empty object\n");
    }
    for (i, (key, value)) in object.iter().enumerate() {
        out.push_str(if i > 0 { "  " } else { "- " });
        let _ = write!(out, "{}:", key.name);
        let items = match value {
            Value::Text(text) => {
                out.push(' ');
                yaml_text(out, text, 4);
                continue;
            }
            Value::Number(number) => {
                let _ = writeln!(out, " {number}");
                continue;
            }
            Value::List(items) => {
                let _ = writeln!(out, " # {} items", items.len());
                items
            }
            Value::Stream(items) => {
                out.push('\n');
                items
            }
        };
        for item in items {
            out.push_str("    - ");
            yaml_text(out, item, 6);
        }
    }
}

/// Writes a scalar and ends the line; `indent` is that of a block.
fn yaml_text(out: &mut String, text: &str, indent: usize) {
    if text.chars().any(|c| c < ' ' && c != '\n' && c != '\t') {
        // Only double quotes can hold these, and they have JSON's escapes.
        json_text(out, text);
        out.push('\n');
    } else if text.len() >= 80 || text.contains(['\'', '\n']) || text.contains(" #") {
        out.push_str("|\n");
        for line in text.split('\n') {
            out.extend(std::iter::repeat_n(' ', indent));
            let _ = writeln!(out, "{line}");
        }
    } else if text.contains('#') || text.contains(": ") || starts_with_indicator(text) {
        let _ = writeln!(out, "'{text}'");
    } else {
        let _ = writeln!(out, "{text}");
    }
}

fn starts_with_indicator(text: &str) -> bool {
    text.starts_with([
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@',
        '`',
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, objects: &[Object]) -> String {
        let mut out = String::new();
        let mut writer = Writer::new(&mut out, format, objects.len());
        objects.iter().for_each(|object| writer.object(object));
        writer.finish();
        out
    }

    fn sample() -> Vec<Object> {
        vec![
            vec![
                (Field::Name.into(), Value::Text("musl".into())),
                (Field::FileSize.into(), Value::Number(5)),
                (
                    Field::Depends.into(),
                    Value::List(vec!["!a".into(), "b".into()]),
                ),
                (Field::Contents.into(), Value::Stream(vec!["x/y".into()])),
                (Field::ReverseDepends.into(), Value::Stream(Vec::new())),
            ],
            Vec::new(),
        ]
    }

    #[test]
    fn the_default_format() {
        assert_eq!(
            written(Format::Default, &sample()),
            "Name: musl\nFile-Size: 5\nDepends: !a b\nContents:\n  x/y\nReverse-Depends:\n\n"
        );
        assert_eq!(written(Format::Default, &[]), "");
    }

    #[test]
    fn json() {
        assert_eq!(
            written(Format::Json, &sample()),
            "[\n  {\n    \"name\": \"musl\",\n    \"file-size\": 5,\n    \"depends\": [\n      \
             \"!a\",\n      \"b\"\n    ],\n    \"contents\": [\n      \"x/y\"\n    ],\n    \
             \"reverse-depends\": [\n    ]\n  }, {\n  }\n]\n"
        );
        assert_eq!(written(Format::Json, &[]), "[\n]\n");
        let mut out = String::new();
        write_list(&mut out, Format::Json, &["a\u{1}\t\"".into()]);
        assert_eq!(out, "[\n  \"a\\u0001\\t\\\"\"\n]\n");
    }

    #[test]
    fn yaml() {
        assert_eq!(
            written(Format::Yaml, &sample()),
            "# 2 items\n- name: musl\n  file-size: 5\n  depends: # 2 items\n    - '!a'\n    - b\n  \
             contents:\n    - x/y\n  reverse-depends:\n- # empty object\n"
        );
        for (text, wanted) in [
            ("plain", "plain\n"),
            ("-x", "'-x'\n"),
            ("a: b", "'a: b'\n"),
            ("a:b", "a:b\n"),
            ("a#b", "'a#b'\n"),
            ("a #b", "|\n  a #b\n"),
            ("it's", "|\n  it's\n"),
            ("a\u{1}", "\"a\\u0001\"\n"),
        ] {
            let mut out = String::new();
            yaml_text(&mut out, text, 2);
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn long_lists_are_continued() {
        let list = |lengths: &[usize]| {
            let items = lengths.iter().map(|n| "x".repeat(*n)).collect();
            let mut out = String::new();
            plain(&mut out, Field::Depends.into(), &Value::List(items));
            out.lines().map(str::len).collect::<Vec<_>>()
        };
        assert_eq!(list(&[71, 1, 1]), [82, 3]);
        assert_eq!(list(&[72, 1, 1]), [81, 5]);
        assert_eq!(list(&[200, 78, 1]), [209, 80, 3]);
    }
}
