//! Walks a YAML tree by hand: typed values out, problems with positions in. One pass finds all problems of a file.
//!
//! A tree and these few accessors instead of derived structs: derived code is larger, stops at the first error, and cannot
//! say `did you mean`.

use super::env::{self, Env};
use super::problem::{ERRORS_MAX, Problem};
use super::profile::Profile;
use super::yaml::{self, Document, Entry, Kind, Node};
use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

/// Largest distance at which another word is suggested.
const SUGGESTION_EDITS_MAX: usize = 2;

/// Reads a regular file of at most `bytes_max` bytes; of a longer one, the first `bytes_max + 1`.
///
/// # Errors
/// A message without the file's name.
pub fn file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => format!("cannot read: {error}"),
    };
    // Asked before it is opened: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(cannot)?;
    Ok(bytes)
}

/// Opens and reads a YAML file.
///
/// # Errors
/// The one problem that keeps it from being read at all.
pub fn document(path: &Path, name: &str) -> Result<(Node, Document), Problem> {
    let bytes = file(path, yaml::FILE_BYTES_MAX).map_err(|message| Problem::file(name, message))?;
    yaml::parse(&bytes).map_err(|fault| Problem {
        file: name.to_owned(),
        line: fault.line,
        column: fault.column,
        message: fault.message,
        warning: false,
    })
}

#[derive(Debug)]
struct Pending {
    node: u32,
    message: String,
    warning: bool,
}

/// Collects what is wrong in one file. Positions are looked up at the end, and only for what is reported.
#[derive(Debug)]
pub struct Problems<'d> {
    file: &'d str,
    document: &'d Document,
    list: RefCell<Vec<Pending>>,
    /// What whole numbers are that the file does not write.
    pub(super) profile: OnceCell<Profile>,
    /// Dotted paths of the whole numbers that it writes.
    pub(super) written: RefCell<Vec<String>>,
}

impl<'d> Problems<'d> {
    /// Starts with the duplicate keys of the document.
    #[must_use]
    pub fn new(file: &'d str, document: &'d Document) -> Self {
        let (list, written) = (RefCell::default(), RefCell::default());
        let problems = Self { file, document, list, profile: OnceCell::new(), written };
        for duplicate in document.duplicates.iter().take(ERRORS_MAX) {
            let (line, _) = document.position(duplicate.first);
            let key = &duplicate.key;
            problems.error(duplicate.again, format!("duplicate key {key:?} (first at line {line})"));
        }
        problems
    }

    /// Notes an error at a node.
    pub fn error(&self, node: u32, message: String) {
        self.note(Pending { node, message, warning: false });
    }

    /// Notes a warning at a node.
    pub fn warn(&self, node: u32, message: String) {
        self.note(Pending { node, message, warning: true });
    }

    /// In the order of the file, and of coming at the same place.
    fn note(&self, pending: Pending) {
        let mut list = self.list.borrow_mut();
        let at = list.partition_point(|p| p.node <= pending.node);
        list.insert(at, pending);
    }

    /// All of them in the order of the file, at most [`ERRORS_MAX`] errors and as many warnings.
    #[must_use]
    pub fn finish(self) -> Vec<Problem> {
        let list = self.list.into_inner();
        let mut out = Vec::new();
        for warning in [false, true] {
            let of_kind = || list.iter().filter(|p| p.warning == warning);
            for p in of_kind().take(ERRORS_MAX) {
                let (line, column) = self.document.position(p.node);
                out.push(Problem { file: self.file.to_owned(), line, column, message: p.message.clone(), warning });
            }
            let more = of_kind().count().saturating_sub(ERRORS_MAX);
            if more > 0 {
                let message = format!("and {more} more");
                out.push(Problem { warning, ..Problem::file(self.file, message) });
            }
        }
        out
    }
}

/// Expands variables in all values below `node` (never in keys), after parsing: a value cannot inject structure.
pub fn expand(node: &mut Node, env: Env<'_>, problems: &Problems<'_>) {
    match &mut node.kind {
        Kind::Text(text) => match env::expand(text, env) {
            Ok(Some(expanded)) => node.kind = Kind::Expanded(expanded),
            Ok(None) => {}
            Err(message) => {
                problems.error(node.id, message);
                node.kind = Kind::Broken;
            }
        },
        Kind::List(items) => items.iter_mut().for_each(|item| expand(item, env, problems)),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| expand(&mut entry.value, env, problems)),
        _ => {}
    }
}

/// A mapping that is being read.
#[derive(Debug, Clone)]
pub struct Section<'d> {
    /// Dotted path; empty at the top level.
    pub path: String,
    /// Number of the mapping, or of its key.
    pub id: u32,
    /// Keys and values.
    pub entries: &'d [Entry],
    /// False if something else stood in its place: then nothing is missing in it.
    whole: bool,
    problems: &'d Problems<'d>,
}

impl<'d> Section<'d> {
    /// The whole file. An empty file is an empty mapping.
    #[must_use]
    pub fn top(root: &'d Node, problems: &'d Problems<'d>) -> Self {
        Self::of(root, String::new(), root.id, problems)
    }

    /// The mapping in `node`; `null` is an empty one, anything else an error.
    #[must_use]
    pub fn of(node: &'d Node, path: String, id: u32, problems: &'d Problems<'d>) -> Self {
        let (entries, whole): (&[Entry], bool) = match &node.kind {
            Kind::Map(entries) => (entries, true),
            Kind::Null => (&[], true),
            Kind::Broken => (&[], false),
            _ => {
                let at = if path.is_empty() { "the file".to_owned() } else { path.clone() };
                problems
                    .error(node.id, format!("{at}: expected a mapping (key: value), found {}", found(node, problems)));
                (&[], false)
            }
        };
        Self { path, id, entries, whole, problems }
    }

    /// Reports keys that are neither `known` nor `later`; the latter are named in a warning.
    pub fn keys(&self, known: &[&str], later: &[&str]) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if later.contains(&key) {
                self.problems.warn(entry.id, format!("{} is not supported yet, ignored", self.child(key)));
            } else if !known.contains(&key) {
                let hint = match suggest(key, &mut known.iter().chain(later).copied()) {
                    Some(word) => format!("did you mean {word:?}?"),
                    None => format!("expected one of {}", known.join(", ")),
                };
                let place = if self.path.is_empty() { "at the top level" } else { "in " };
                self.problems.error(entry.id, format!("unknown key {key:?} {place}{} ({hint})", self.path));
            }
        }
    }

    /// The value of `key`, if it is there and not null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'d Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (entry.value.kind != Kind::Null).then_some(&entry.value)
    }

    /// Path of a key of this section.
    #[must_use]
    pub fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error at the value of `key`, which it names; at the section if the key is not there.
    pub fn error(&self, key: &str, message: &str) {
        let node = self.get(key).map_or(self.id, |node| node.id);
        self.problems.error(node, format!("{}: {message}", self.child(key)));
    }

    /// A warning, placed as in [`Section::error`].
    pub fn warn(&self, key: &str, message: &str) {
        let node = self.get(key).map_or(self.id, |node| node.id);
        self.problems.warn(node, format!("{}: {message}", self.child(key)));
    }

    /// Says that `key` has to be there, and what to write.
    pub fn missing(&self, key: &str, remedy: &str) {
        if !self.whole {
            return;
        }
        let place = if self.path.is_empty() { "at the top level" } else { "in " };
        self.problems.error(self.id, format!("missing key {key:?} {place}{}; {remedy}", self.path));
    }

    /// The mapping at `key`, if there is one.
    #[must_use]
    pub fn section(&self, key: &str) -> Option<Section<'d>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Section::of(&entry.value, self.child(key), entry.id, self.problems))
    }

    /// As [`Section::section`]; an empty mapping if it is not there.
    #[must_use]
    pub fn section_or_empty(&self, key: &str) -> Section<'d> {
        let empty = || Section { path: self.child(key), entries: &[], ..self.clone() };
        self.section(key).unwrap_or_else(empty)
    }

    /// Text. A number or truth value in its place is an error that says to quote it.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&'d str> {
        let node = self.get(key)?;
        let text = text_of(node);
        if text.is_none() {
            self.wrong(key, node, "text");
        }
        text
    }

    /// Text that no message shows, not even where it is no text.
    #[must_use]
    pub fn secret(&self, key: &str) -> Option<&'d str> {
        let node = self.get(key)?;
        let text = text_of(node);
        if text.is_none() && node.kind != Kind::Broken {
            self.error(key, "expected text (put it in quotes)");
        }
        text
    }

    /// Text that people tend to leave unquoted when it looks like a number (`version: 1.10`): taken as written.
    #[must_use]
    pub fn loose_text(&self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        match node.kind {
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => Some(token(node, self.problems)),
            _ => self.text(key).map(str::to_owned),
        }
    }

    /// A whole number within `range`, else what the profile says, else `default`.
    #[must_use]
    pub fn int(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let profile = || self.problems.profile.get()?.get(&self.child(key));
        self.int_opt(key, range).or_else(profile).unwrap_or(default)
    }

    /// A whole number within `range`, if there is one.
    #[must_use]
    pub fn int_opt(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.get(key)?;
        let value = match &node.kind {
            Kind::Int(n) => Some(*n),
            Kind::Expanded(text) => text.trim().parse().ok(),
            _ => None,
        };
        let good = value.filter(|n| range.contains(n));
        if good.is_none() {
            self.wrong(key, node, &format!("a whole number from {} to {}", range.start(), range.end()));
        } else {
            self.problems.written.borrow_mut().push(self.child(key));
        }
        good
    }

    /// A number within `range`, if there is one.
    #[must_use]
    pub fn float_opt(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.get(key)?;
        let value = match &node.kind {
            Kind::Int(n) => Some(*n as f64),
            Kind::Float(n) => Some(*n),
            Kind::Expanded(text) => text.trim().parse().ok(),
            _ => None,
        };
        let good = value.filter(|n| range.contains(n));
        if good.is_none() {
            self.wrong(key, node, &format!("a number from {} to {}", range.start(), range.end()));
        }
        good
    }

    /// A number as it is written, if there is one.
    #[must_use]
    pub fn number_text(&self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Int(_) | Kind::Float(_) => Some(token(node, self.problems)),
            Kind::Expanded(text) => Some(text.trim().to_owned()),
            Kind::Broken => None,
            // What no number is like.
            _ => Some(String::new()),
        }
    }

    /// `true` or `false`, if it is there.
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        let value = match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Expanded(text) => text.trim().parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong(key, node, "true or false");
        }
        value
    }

    /// `true` or `false`, if it is there.
    #[must_use]
    pub fn bool_opt(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Bool(value) => Some(*value),
            Kind::Expanded(text) if text == "true" || text == "false" => Some(text == "true"),
            _ => {
                self.wrong(key, node, "true or false");
                None
            }
        }
    }

    /// One of `words`, as an index into them.
    #[must_use]
    pub fn word(&self, key: &str, words: &[&str]) -> Option<usize> {
        let node = self.get(key)?;
        let index = text_of(node).and_then(|text| words.iter().position(|w| *w == text));
        if index.is_none() && node.kind != Kind::Broken {
            let hint = text_of(node).and_then(|text| suggest(text, &mut words.iter().copied()));
            let hint = hint.map_or_else(String::new, |word| format!(" (did you mean {word:?}?)"));
            let found = found(node, self.problems);
            self.error(key, &format!("expected {}, found {found}{hint}", words.join(" or ")));
        }
        index
    }

    /// The items of a list; none if the key is not there.
    #[must_use]
    pub fn list(&self, key: &str) -> &'d [Node] {
        match self.get(key) {
            Some(Node { kind: Kind::List(items), .. }) => items,
            Some(node) => {
                self.wrong(key, node, "a list");
                &[]
            }
            None => &[],
        }
    }

    /// The problems this section reports to.
    #[must_use]
    pub fn problems(&self) -> &'d Problems<'d> {
        self.problems
    }

    /// Says that the value of `key` is not what was expected.
    pub fn unexpected(&self, key: &str, expected: &str) {
        if let Some(node) = self.get(key) {
            self.wrong(key, node, expected);
        }
    }

    fn wrong(&self, key: &str, node: &Node, expected: &str) {
        if node.kind == Kind::Broken {
            return;
        }
        let quote = match node.kind {
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) if expected == "text" => " (put it in quotes)",
            _ => "",
        };
        self.error(key, &format!("expected {expected}, found {}{quote}", found(node, self.problems)));
    }
}

/// The text in a node, if it is text.
#[must_use]
pub fn text_of(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) | Kind::Expanded(text) => Some(text),
        _ => None,
    }
}

/// What a node is, for people. What came out of a variable is not shown: it may be a secret.
#[must_use]
pub fn found(node: &Node, problems: &Problems<'_>) -> String {
    match &node.kind {
        Kind::Null | Kind::Broken => "nothing".to_owned(),
        Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => token(node, problems),
        Kind::Text(text) => format!("{:?}", shortened(text)),
        Kind::Expanded(_) => "another value in the environment".to_owned(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a mapping".to_owned(),
    }
}

/// A number or truth value as written; its value if it stands behind an anchor.
fn token(node: &Node, problems: &Problems<'_>) -> String {
    let token = problems.document.token(problems.document.position(node.id));
    match &node.kind {
        _ if !token.is_empty() => token.to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Int(value) => value.to_string(),
        Kind::Float(value) => value.to_string(),
        _ => String::new(),
    }
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut out: String = text.chars().take(CHARS_MAX).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

/// The word nearest to `word`, if it is near: not more than two edits, and not more than a third of the word.
#[must_use]
pub fn suggest<'w>(word: &str, words: &mut dyn Iterator<Item = &'w str>) -> Option<&'w str> {
    let near = SUGGESTION_EDITS_MAX.min(word.chars().count().div_ceil(3));
    words.map(|w| (edits(word, w), w)).filter(|(n, _)| *n <= near).min_by_key(|(n, _)| *n).map(|(_, w)| w)
}

/// Levenshtein distance in characters; anything much longer than our keys is just far away.
fn edits(a: &str, b: &str) -> usize {
    const CHARS_MAX: usize = 64;
    let b: Vec<char> = b.chars().collect();
    if a.len() > CHARS_MAX || b.len() > CHARS_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let best = (diagonal + usize::from(ca != *cb)).min(above.saturating_add(1)).min(left + 1);
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            diagonal = above;
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
