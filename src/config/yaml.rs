//! YAML to a small tree whose every node can be found again in the text. The only file that names `serde_yaml`.
//!
//! serde hands out no positions, but `serde_yaml` puts one on every error that a visitor raises. Nodes are numbered in
//! reading order, so the position of node N is had by reading the text once more and failing at N. That is exact in block
//! and flow style alike, needs no YAML scanner of our own, and costs nothing while there is nothing to report.
//!
//! Invariants: input is capped before it is parsed; nesting, number of nodes and bytes of text are capped while it is
//! (aliases multiply); reading the same text twice numbers it the same.
//!
//! Absent: what the keys mean, merge keys (`<<`), tags (`!name`), several documents in a file.

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Most bytes of one file. People write these by hand; 2 MB of `[` keeps `serde_yaml` busy for seconds.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// Deepest nesting; fixed in `serde_yaml`, named here for messages and tests.
pub const DEPTH_MAX: usize = 128;

/// Most brackets open at a time, those in quotes and comments included. The parser's time grows with the square of them, and
/// it looks at its own limit only after it has read the whole file.
const BRACKETS_OPEN_MAX: u32 = 1024;

/// Most keys and values of one file after its aliases are followed. A quarter of the bytes of the largest file.
pub const NODES_MAX: u32 = 64 * 1024;

/// Most bytes of text of one file after its aliases are followed.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Most keys of one mapping, so that looking for duplicates one by one stays cheap.
pub const KEYS_MAX: usize = 4096;

const TOO_MANY: &str = "too many values once aliases are followed; write less, or without aliases";

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its number in reading order; ask [`Document::position`] where that is.
    pub id: u32,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `null`, `~`, or nothing after the colon.
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Int(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Text that came out of the expansion of variables: may stand for a number, is never shown in messages.
    Expanded(String),
    /// A value that was reported as wrong already; whoever meets it says nothing more.
    Broken,
    /// In order.
    List(Vec<Node>),
    /// In order; the first of equal keys.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Number of the key, as in [`Node::id`].
    pub id: u32,
    /// The key as written.
    pub key: String,
    /// The value.
    pub value: Node,
}

/// A key that was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The key.
    pub key: String,
    /// Number of the first one.
    pub first: u32,
    /// Number of the one that is left out of the tree.
    pub again: u32,
}

/// What is kept of a file to find the nodes of its tree again.
#[derive(Debug, Clone)]
pub struct Document {
    /// Keys that appear twice in a mapping.
    pub duplicates: Vec<Duplicate>,
    text: String,
}

/// Why a file could not be read at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a file's bytes into a tree. A byte order mark is passed over.
///
/// # Errors
/// [`Fault`] if it is too large, not UTF-8, not YAML, or goes past a limit of this module.
pub fn parse(bytes: &[u8]) -> Result<(Node, Document), Fault> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes or more, at most {FILE_BYTES_MAX} are read", bytes.len());
        return Err(Fault { line: 1, column: 1, message });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(error) => {
            let byte = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
            let message = format!("not UTF-8: found byte 0x{byte:02x}; save the file as UTF-8");
            let good = bytes.get(..error.valid_up_to()).and_then(|b| std::str::from_utf8(b).ok());
            return Err(fault_after(good.unwrap_or(""), message));
        }
    };
    // serde_yaml says the same, but not where.
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    if let Some((at, c)) = text.char_indices().find(|(_, c)| control(*c)) {
        let message = format!("found the control character U+{:04X}; remove it", u32::from(c));
        return Err(fault_after(text.get(..at).unwrap_or(""), message));
    }
    if let Some(at) = brackets_too_deep(&text) {
        return Err(fault_after(text.get(..at).unwrap_or(""), format!("nested deeper than {DEPTH_MAX} levels")));
    }
    let pass = Pass::new(u32::MAX);
    match read(&text, &pass) {
        Ok(root) => Ok((root, Document { duplicates: pass.duplicates.into_inner(), text })),
        Err(error) => Err(fault(&error, &text)),
    }
}

impl Document {
    /// Line and column, both from 1, the column in characters, of the node with this number.
    #[must_use]
    pub fn position(&self, id: u32) -> (usize, usize) {
        let location = read(&self.text, &Pass::new(id)).err().and_then(|error| error.location());
        location.map_or((1, 1), |l| (l.line(), l.column()))
    }

    /// The token at `position` as written, for numbers: `1.10` is no longer `1.10` once it is parsed.
    #[must_use]
    pub fn token(&self, position: (usize, usize)) -> &str {
        let line = self.text.lines().nth(position.0.saturating_sub(1)).unwrap_or("");
        let start = line.char_indices().nth(position.1.saturating_sub(1)).map_or(line.len(), |(i, _)| i);
        let rest = &line[start..];
        let number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        &rest[..rest.find(|c| !number(c)).unwrap_or(rest.len())]
    }
}

/// One reading: numbers nodes, counts what aliases multiply, and stops where it is told to.
struct Pass {
    next: Cell<u32>,
    stop_at: u32,
    text_bytes: Cell<usize>,
    duplicates: RefCell<Vec<Duplicate>>,
}

impl Pass {
    fn new(stop_at: u32) -> Self {
        Self { next: Cell::new(0), stop_at, text_bytes: Cell::new(0), duplicates: RefCell::new(Vec::new()) }
    }

    fn enter<E: de::Error>(&self, text_bytes: usize) -> Result<u32, E> {
        let id = self.next.get();
        self.next.set(id + 1);
        self.text_bytes.set(self.text_bytes.get() + text_bytes);
        if id == self.stop_at {
            return Err(E::custom("here"));
        }
        if id >= NODES_MAX || self.text_bytes.get() > TEXT_BYTES_MAX {
            return Err(E::custom(TOO_MANY));
        }
        Ok(id)
    }
}

fn read(text: &str, pass: &Pass) -> Result<Node, serde_yaml::Error> {
    ValueSeed(pass).deserialize(serde_yaml::Deserializer::from_str(text))
}

#[derive(Clone, Copy)]
struct ValueSeed<'p>(&'p Pass);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ValueSeed<'_> {
    fn leaf<E: de::Error>(self, kind: Kind) -> Result<Node, E> {
        Ok(Node { id: self.0.enter(0)?, kind })
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Kind::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.leaf(Kind::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Kind::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.leaf(Kind::Int(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(match u64::try_from(value) {
            Ok(value) => Kind::Int(value),
            Err(_) => Kind::Float(value as f64),
        })
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.leaf(Kind::Float(value as f64))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Kind::Float(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Kind::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node { id: self.0.enter(value.len())?, kind: Kind::Text(value.to_owned()) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let id = self.0.enter(0)?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Node { id, kind: Kind::List(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let id = self.0.enter(0)?;
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((id, key)) = access.next_key_seed(KeySeed(self.0))? {
            let value = access.next_value_seed(self)?;
            match entries.iter().find(|entry| entry.key == key) {
                Some(first) => {
                    self.0.duplicates.borrow_mut().push(Duplicate { key, first: first.id, again: id });
                }
                None if entries.len() >= KEYS_MAX => {
                    return Err(de::Error::custom(format_args!("more than {KEYS_MAX} keys in one mapping")));
                }
                None => entries.push(Entry { id, key, value }),
            }
        }
        Ok(Node { id, kind: Kind::Map(entries) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(de::Error::custom("tags (!name) are not supported; put text that starts with ! in quotes"))
    }
}

struct KeySeed<'p>(&'p Pass);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = (u32, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // Not `any`: a key that looks like a number is still a name.
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = (u32, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of plain text")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok((self.0.enter(value.len())?, value.to_owned()))
    }
}

/// Offset of the bracket that is one too many, if there is one.
fn brackets_too_deep(text: &str) -> Option<usize> {
    let mut open = 0u32;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > BRACKETS_OPEN_MAX
    })
}

/// A fault at the character that follows `good`.
fn fault_after(good: &str, message: String) -> Fault {
    let line = good.matches('\n').count() + 1;
    let column = good.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    Fault { line, column, message }
}

/// Turns a `serde_yaml` error into ours: the position goes to the front, and the commonest causes get a remedy.
fn fault(error: &serde_yaml::Error, text: &str) -> Fault {
    let (mut line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
    let mut message = without_positions(&error.to_string());
    let found = text.lines().nth(line - 1).and_then(|l| l.chars().nth(column - 1));
    if message.contains("recursion limit") {
        message = format!("nested deeper than {DEPTH_MAX} levels");
    } else if message.contains("repetition limit") || message.contains(TOO_MANY) {
        message = TOO_MANY.to_owned();
    } else if message.contains("more than one document") {
        line = second_document(text);
        message = "found a second document (---); a file holds one".to_owned();
    } else if message.contains("unknown anchor") {
        message = "an alias (*name) without its anchor (&name); put text that starts with * in quotes".to_owned();
    } else if found == Some('\t') {
        message = "found a tab; YAML indents with spaces".to_owned();
    }
    Fault { line, column, message }
}

/// Number of the line that opens the second document: the first marker after some content or another marker.
fn second_document(text: &str) -> usize {
    let mut begun = false;
    for (index, line) in text.lines().enumerate() {
        let marker = line.starts_with("---");
        if marker && begun {
            return index + 1;
        }
        begun |= marker || !(line.trim().is_empty() || line.starts_with(['#', '%']));
    }
    1
}

/// Removes every ` at line N column M`, which would contradict or repeat the position in front.
fn without_positions(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some(at) = rest.find(" at line ") {
        out.push_str(&rest[..at]);
        rest = rest[at + " at line ".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
        rest = rest.strip_prefix(" column ").unwrap_or(rest).trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out.push_str(rest);
    out
}
