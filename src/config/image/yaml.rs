//! YAML as a tree of nodes that know their place, bounded against files made to explode.
//!
//! Scalars keep their source text; what a text means is decided by the field that takes it
//! (image.md, 3.1). Aliases are copied, merge keys are resolved, and a key that is given twice is
//! an error.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::collections::HashMap;

/// The longest key, in characters as they are written; YAML takes 1024.
const LONGEST_KEY: usize = 1000;

/// The most bytes a file may have.
pub const MAX_SIZE: usize = 4 << 20;
/// The most nodes a file may have, those that aliases repeat included.
pub const MAX_NODES: usize = 100_000;
/// The deepest nesting; nodes are dropped recursively.
const MAX_DEPTH: usize = 100;

/// Where something stands; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl From<Span> for Position {
    fn from(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

/// A node of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
    /// How many nodes it is made of, itself included.
    count: usize,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: an empty plain scalar, `~` or `null`.
    Null,
    /// A scalar's text.
    Scalar(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in order.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Position,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Returns the name of its kind.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a scalar",
            Value::List(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum YamlError {
    /// It is not YAML, or not of the kind a configuration is.
    Syntax(Position, String),
    /// It is larger than a configuration ever is.
    Limit(String),
}

/// A document, and whether others follow it.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its content; `None` if there is none.
    pub root: Option<Node>,
    /// More documents follow.
    pub more: bool,
}

/// Reads the first document of a text.
///
/// # Errors
/// [`YamlError`].
pub fn read(text: &str) -> Result<Document, YamlError> {
    if text.len() > MAX_SIZE {
        return Err(YamlError::Limit(format!("more than {MAX_SIZE} bytes")));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    let mut root = None;
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    break;
                }
            }
            Event::StreamEnd => break,
            event => {
                if let Some(node) = builder.event(event, span.into())? {
                    root = Some(node);
                }
            }
        }
    }
    Ok(Document {
        root: root.filter(|node| node.value != Value::Null),
        more: documents > 1,
    })
}

fn syntax(error: &ScanError) -> YamlError {
    let at = Position {
        line: error.marker().line(),
        column: error.marker().col() + 1,
    };
    YamlError::Syntax(at, error.info().to_owned())
}

/// Puts events together; a stack instead of recursion, so that nesting cannot exhaust ours.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// A collection that is not closed yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// Entries so far, those that merge keys bring, and a key that waits for its value.
    Mapping(Vec<Entry>, Vec<Entry>, Option<(String, Position)>),
}

impl Builder {
    /// Takes an event; returns the root when it is complete.
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<Option<Node>, YamlError> {
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = match null {
                    true => Value::Null,
                    false => Value::Scalar(text.into_owned()),
                };
                (
                    Node {
                        at,
                        value,
                        count: 1,
                    },
                    anchor,
                )
            }
            Event::Alias(anchor) => {
                let unknown = || YamlError::Syntax(at, "an alias to its own content".to_owned());
                let mut node = self.anchors.get(&anchor).cloned().ok_or_else(unknown)?;
                node.at = at;
                (node, 0)
            }
            Event::SequenceStart(anchor, _) => {
                return self.open(at, anchor, Content::List(Vec::new()));
            }
            Event::MappingStart(anchor, _) => {
                let content = Content::Mapping(Vec::new(), Vec::new(), None);
                return self.open(at, anchor, content);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(None);
                };
                let anchor = open.anchor;
                (open.close(), anchor)
            }
            _ => return Ok(None),
        };
        self.nodes += node.count;
        if self.nodes > MAX_NODES {
            return Err(YamlError::Limit(format!("more than {MAX_NODES} nodes")));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    fn open(
        &mut self,
        at: Position,
        anchor: usize,
        content: Content,
    ) -> Result<Option<Node>, YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::Limit(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.open.push(Open {
            at,
            anchor,
            content,
        });
        Ok(None)
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, node: Node) -> Result<Option<Node>, YamlError> {
        let Some(open) = self.open.last_mut() else {
            return Ok(Some(node));
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Mapping(entries, merged, waiting) => match waiting.take() {
                None => {
                    let key = match node.value {
                        Value::Scalar(text) => text,
                        Value::Null => String::new(),
                        _ => {
                            let text = "a key must be a scalar".to_owned();
                            return Err(YamlError::Syntax(node.at, text));
                        }
                    };
                    // What is longer could not be written again: YAML has a bound for keys.
                    let width = |c: char| if c.is_control() { 6 } else { 1 };
                    if key.chars().map(width).sum::<usize>() > LONGEST_KEY {
                        let text = format!("a key is longer than {LONGEST_KEY} characters");
                        return Err(YamlError::Syntax(node.at, text));
                    }
                    *waiting = Some((key, node.at));
                }
                Some((key, _)) if key == "<<" => merge(node, merged)?,
                Some((key, at)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let line = first.at.line;
                        let text = format!("key \"{key}\" is given twice, first in line {line}");
                        return Err(YamlError::Syntax(at, text));
                    }
                    entries.push(Entry {
                        key,
                        at,
                        value: node,
                    });
                }
            },
        }
        Ok(None)
    }
}

/// Takes the entries of a merge key: a mapping, or a list of them, the first of which wins.
fn merge(node: Node, merged: &mut Vec<Entry>) -> Result<(), YamlError> {
    let wrong = |at| YamlError::Syntax(at, "a merge key takes a mapping or a list of them".into());
    let list = match node.value {
        Value::List(items) => items,
        value => vec![Node { value, ..node }],
    };
    for item in list {
        let Value::Mapping(entries) = item.value else {
            return Err(wrong(item.at));
        };
        for entry in entries {
            if !merged.iter().any(|known| known.key == entry.key) {
                merged.push(entry);
            }
        }
    }
    Ok(())
}

impl Open {
    fn close(self) -> Node {
        let (value, count) = match self.content {
            Content::List(items) => {
                let count = items.iter().map(|node| node.count).sum::<usize>();
                (Value::List(items), count)
            }
            Content::Mapping(mut entries, merged, _) => {
                for entry in merged {
                    if !entries.iter().any(|known| known.key == entry.key) {
                        entries.push(entry);
                    }
                }
                let count = entries.iter().map(|entry| entry.value.count + 1).sum();
                (Value::Mapping(entries), count)
            }
        };
        Node {
            at: self.at,
            value,
            count: count + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".to_owned(),
            Value::Scalar(text) => text.clone(),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Mapping(entries) => {
                let entry = |entry: &Entry| format!("{}={}", entry.key, shown(&entry.value));
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[test]
    fn documents() {
        for (text, wanted) in [
            ("a: 1\nb: [x, '2']\n", "{a=1 b=[x 2]}"),
            ("a: &x {k: v}\nb: *x\n", "{a={k=v} b={k=v}}"),
            (
                "a: &x {k: v, l: w}\nb: {<<: *x, k: u}\n",
                "{a={k=v l=w} b={k=u l=w}}",
            ),
            ("a: {<<: [{k: 1}, {k: 2, m: 3}]}", "{a={k=1 m=3}}"),
            ("a: 0755\nb: null\nc:\n", "{a=0755 b=~ c=~}"),
            ("a: 'null'\n", "{a=null}"),
        ] {
            let root = read(text).expect(text).root.expect(text);
            assert_eq!(shown(&root), wanted, "{text}");
        }
        assert!(read("").expect("empty").root.is_none());
        assert!(read("# nothing\n").expect("a comment").root.is_none());
        assert!(read("a: 1\n---\nb: 2\n").expect("two").more);
    }

    #[test]
    fn errors_have_a_place() {
        for (text, line, column) in [
            ("a: 1\na: 2\n", 2, 1),
            ("x:\n  - {b: 1, b: 2}\n", 2, 12),
            ("a: {<<: 1}\n", 1, 9),
            ("a: [1\nb: 2\n", 2, 2),
        ] {
            match read(text) {
                Err(YamlError::Syntax(at, _)) => {
                    assert_eq!((at.line, at.column), (line, column), "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            let list = vec![alias; 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(matches!(read(&text), Err(YamlError::Limit(_))));
        assert!(read(&"[".repeat(1000)).is_err());
        assert!(matches!(read("a: &x [*x]\n"), Err(YamlError::Syntax(..))));
    }
}
