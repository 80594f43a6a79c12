//! `search_files`: lines that contain a text, in the files below a directory.
//!
//! Literal text rather than patterns: a pattern language costs a dependency, and who needs one has grep in `bash`.
//! Symbolic links are not followed, so the walk ends and stays below its start.

use super::list_dir::readable;
use super::read_file::CHUNK_BYTES;
use super::{Stop, Watch, declare, said, trouble};
use crate::tool::arguments::{Arguments, Field, Kind};
use crate::tool::{Context, Tool};
use duragent_core::event::ToolOutcome;
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use duragent_platform::sandbox::{Access, entries};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Directories below each other that are entered.
const DEPTH_MAX: usize = 32;

/// Files and directories that are looked at in one call; a source tree of an ordinary project has fewer.
const ENTRIES_MAX: usize = 50_000;

/// Lines that are shown: more than that wants a narrower search.
const MATCHES_MAX: usize = 200;

/// Bytes of a line that are searched. Lines beyond that are not made by people.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 200;

/// Directories that hold bookkeeping, ours and git's.
const SKIPPED: [&str; 2] = [".git", ".duragent"];

const FIELDS: [Field; 3] =
    [Field::required("text", Kind::Text), Field::optional("path", Kind::Text), Field::optional("name", Kind::Text)];

/// The tool. Effect `pure`.
pub(super) struct SearchFiles {
    decl: ToolDecl,
}

impl SearchFiles {
    pub(super) fn new() -> Self {
        let description =
            "Find lines with text (literal) in files below path (default .). name: pattern of file names, as *.rs.";
        Self { decl: declare("search_files", description, &FIELDS, EffectClass::Pure, PolicyArgument::Path("path")) }
    }
}

impl Tool for SearchFiles {
    fn decl(&self) -> &ToolDecl {
        &self.decl
    }

    fn run(&self, arguments: &str, context: &Context<'_>) -> ToolOutcome {
        let arguments = match Arguments::read(arguments, &FIELDS) {
            Ok(arguments) => arguments,
            Err(wrong) => return said(wrong),
        };
        let text = arguments.text("text");
        if text.is_empty() || text.contains('\n') {
            return said("wrong arguments: text is to be one line that is not empty");
        }
        let path = arguments.text_or("path", ".");
        let mut search = Search {
            context,
            watch: Watch::new(context),
            text: text.as_bytes(),
            name: arguments.text_or("name", "*"),
            found: String::new(),
            matches: 0,
            entries: 0,
            unread: 0,
        };
        match search.run(path) {
            Ok(end) => search.outcome(end),
            Err(error) => trouble("search", path, &error),
        }
    }
}

/// Why a search came to its end.
#[derive(Clone, Copy)]
enum End {
    Everything,
    Matches,
    Entries,
    Output,
    Stopped(Stop),
}

struct Search<'a> {
    context: &'a Context<'a>,
    watch: Watch<'a>,
    text: &'a [u8],
    name: &'a str,
    found: String,
    matches: usize,
    entries: usize,
    /// Files and directories that could not be read.
    unread: usize,
}

impl Search<'_> {
    fn run(&mut self, path: &str) -> io::Result<End> {
        let root = Path::new(path);
        // Directories to be entered, the next one last. A file as the start is searched whatever its name is.
        let mut waiting = match self.list(root, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Ok(self.search_file(root)?.unwrap_or(End::Everything));
            }
            first => first?,
        };
        while let Some(next) = waiting.pop() {
            if let Some(why) = self.watch.stop() {
                return Ok(End::Stopped(why));
            }
            if self.entries >= ENTRIES_MAX {
                return Ok(End::Entries);
            }
            self.entries += 1;
            if next.directory {
                match self.list(&next.path, next.depth) {
                    Ok(below) => waiting.extend(below),
                    Err(_) => self.unread += 1,
                }
            } else {
                match self.search_file(&next.path) {
                    Ok(None) => {}
                    Ok(Some(end)) => return Ok(end),
                    Err(_) => self.unread += 1,
                }
            }
        }
        Ok(End::Everything)
    }

    /// What is to be looked at in a directory, in reverse order of the names.
    fn list(&self, path: &Path, depth: usize) -> io::Result<Vec<Waiting>> {
        let directory = self.context.view.open(path, Access::List)?;
        let mut below = Vec::new();
        for entry in entries(&directory)?.take(ENTRIES_MAX) {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let shown = name.to_string_lossy();
            let wanted = if kind.is_dir() {
                depth < DEPTH_MAX && !SKIPPED.contains(&&*shown)
            } else {
                kind.is_file() && matches_name(self.name, &shown)
            };
            if wanted {
                below.push(Waiting {
                    path: joined(path, Path::new(&name)),
                    directory: kind.is_dir(),
                    depth: depth + 1,
                });
            }
        }
        below.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        Ok(below)
    }

    /// Notes the lines of a file that match; `Some` if the whole search is to end.
    fn search_file(&mut self, path: &Path) -> io::Result<Option<End>> {
        let file = self.context.view.open(path, Access::Read)?;
        let mut reader = BufReader::with_capacity(CHUNK_BYTES, file);
        if reader.fill_buf()?.contains(&0) {
            return Ok(None);
        }
        let shown = readable(&path.to_string_lossy());
        let (mut line, mut number) = (Vec::new(), 0u64);
        while read_line(&mut reader, &mut line)? {
            number += 1;
            if contains(&line, self.text) {
                let found = format!("{shown}:{number}: {}\n", excerpt(&line));
                if self.found.len() + found.len() > self.context.output_bytes_max {
                    return Ok(Some(End::Output));
                }
                self.found.push_str(&found);
                self.matches += 1;
                if self.matches == MATCHES_MAX {
                    return Ok(Some(End::Matches));
                }
            }
            if number.is_multiple_of(1024)
                && let Some(why) = self.watch.stop()
            {
                return Ok(Some(End::Stopped(why)));
            }
        }
        Ok(None)
    }

    fn outcome(self, end: End) -> ToolOutcome {
        const HINT: &str = "narrow it with path or name";
        let mut text = self.found;
        let note = match end {
            End::Stopped(why) => return self.watch.stopped(why, text, HINT),
            End::Everything if self.matches == 0 => Some("[nothing found]".into()),
            End::Everything => None,
            End::Matches => Some(format!("[stopped after {MATCHES_MAX} lines; {HINT}]")),
            End::Output => Some(format!("[stopped after {} bytes of output; {HINT}]", self.context.output_bytes_max)),
            End::Entries => Some(format!("[stopped after {ENTRIES_MAX} files; {HINT}]")),
        };
        text.push_str(&note.unwrap_or_default());
        if self.unread > 0 {
            text.push_str(&format!("\n[{} files or directories could not be read]", self.unread));
        }
        ToolOutcome { truncated: !matches!(end, End::Everything), ..said(text) }
    }
}

struct Waiting {
    path: PathBuf,
    directory: bool,
    depth: usize,
}

/// `a.rs` rather than `./a.rs`.
fn joined(directory: &Path, name: &Path) -> PathBuf {
    if directory == Path::new(".") { name.to_owned() } else { directory.join(name) }
}

/// Reads a line without its end into `line`, cut to [`LINE_BYTES_MAX`]. False at the end of the file.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = chunk.iter().position(|&b| b == b'\n');
        let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
        line.extend_from_slice(piece.get(..LINE_BYTES_MAX - line.len()).unwrap_or(piece));
        let count = piece.len() + usize::from(end.is_some());
        reader.consume(count);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    // The first byte is looked at before the rest: that is most of the work, and needs no call.
    line.windows(text.len()).any(|window| window.first() == text.first() && window == text)
}

/// A line as it is shown: text without its indentation and control characters, not too long.
fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut chars = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = chars.by_ref().take(LINE_CHARS_MAX).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A file name against a pattern with `*` (any characters, also none) and `?` (one). Goes back to the last star only, which
/// is enough and keeps the time bounded.
fn matches_name(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    let mut star = None;
    loop {
        let (mut after, mut rest) = (pattern.clone(), name.clone());
        match (after.next(), rest.next()) {
            (Some('*'), _) => {
                star = Some((after.clone(), name.clone()));
                pattern = after;
            }
            (None, None) => return true,
            (Some(p), Some(c)) if p == '?' || p == c => (pattern, name) = (after, rest),
            // The star takes one character more.
            _ => match star.take() {
                Some((after, mut from)) if !from.as_str().is_empty() => {
                    from.next();
                    (pattern, name) = (after.clone(), from.clone());
                    star = Some((after, from));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_against_patterns() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(matches_name(pattern, name), expected, "{pattern} against {name}");
        };
        check("*", "", true);
        check("*", "anything", true);
        check("*.rs", "main.rs", true);
        check("*.rs", "main.rs.bak", false);
        check("*.rs", ".rs", true);
        check("m?in.*", "main.rs", true);
        check("m?in.*", "min.rs", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("é?", "éü", true);
        check("Main", "main", false);
        check("", "a", false);
        check(&"*a".repeat(30), &"a".repeat(5000), true);
        check(&("*a".repeat(30) + "b"), &"a".repeat(5000), false);
    }
}
