//! Text for people: tables, ages, excerpts, and foreign text made harmless.
//!
//! Invariant: what models, tools and senders wrote goes through [`clean`] on its way to the screen.

use super::{Failure, render};
use duragent_core::json::Value;
use duragent_platform::terminal;
use std::io::{ErrorKind, Write};

/// Spaces between two columns.
const GAP: usize = 2;

/// Rows of equal length under a head; columns as wide as their widest cell, the last one open.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Appends a row, control characters taken out.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| one_line(cell, usize::MAX)).collect());
    }

    /// The text, each line cut to `width` characters if there is one.
    pub fn text(&self, width: Option<usize>) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let length = |row: &Vec<String>, column| row.get(column).map_or(0, |cell: &String| cell.chars().count());
        let widths: Vec<usize> =
            (0..columns).map(|c| self.rows.iter().map(|row| length(row, c)).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let padding = width.saturating_sub(cell.chars().count()) + GAP;
                line.extend(std::iter::repeat_n(' ', padding));
            }
            out.push_str(&cut(line.trim_end(), width.unwrap_or(usize::MAX)));
            out.push('\n');
        }
        out
    }
}

/// Columns of the terminal on standard output; `None` if it is none.
pub fn width() -> Option<usize> {
    terminal::width(std::io::stdout()).map(usize::from)
}

/// How long ago `then` was at `now`, both in milliseconds since the epoch: `3 m ago`.
pub fn age(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    let (n, unit) = match seconds {
        // A clock that was set back makes the past the future.
        0 => return "now".to_owned(),
        1..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "m"),
        3600..86_400 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{n} {unit} ago")
}

/// True if `c` could change more of a terminal than the cell it is written to, or the order in which people read it (the
/// embeddings, overrides and isolates of Unicode's bidirectional algorithm, UAX #9).
pub fn is_unsafe(c: char) -> bool {
    let bidi = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    bidi || (c.is_control() && !matches!(c, '\n' | '\t'))
}

/// `text` with what [`is_unsafe`] names replaced by U+FFFD. Line feeds and tabs stay.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `text` on one line of at most `max` characters: white space folded, control characters replaced.
pub fn one_line(text: &str, max: usize) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&clean(word));
        if out.len() / 4 > max {
            break;
        }
    }
    cut(&out, max)
}

/// The first lines of `text`, each shortened, with `indent` in front; says how much is left out.
pub fn excerpt(text: &str, lines_max: usize, indent: &str) -> String {
    const LINE_CHARS_MAX: usize = 200;
    let mut out = String::new();
    for line in text.lines().take(lines_max) {
        out.push_str(indent);
        out.push_str(&cut(&clean(line), LINE_CHARS_MAX));
        out.push('\n');
    }
    let left = text.lines().count().saturating_sub(lines_max);
    if left > 0 {
        out.push_str(&format!("{indent}… {left} more lines\n"));
    }
    out
}

/// At most `max` characters; an ellipsis stands for the rest.
pub fn cut(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The elements of the array `key`.
pub fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    match object.get(key) {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}

/// The field `key` as text: a string as it is, a number as written, else empty.
pub fn field(object: &Value, key: &str) -> String {
    match object.get(key) {
        Some(Value::String(text) | Value::Number(text)) => text.clone(),
        _ => String::new(),
    }
}

/// `1 event`, `2 events`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Writes to standard output at once. False if its reader has gone away: nothing more need be made.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn put(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
    }
}

/// As [`put`], of a JSON text, with a line feed: a terminal gets it with control characters escaped.
pub fn put_json(json: &str) -> Result<bool, Failure> {
    match terminal::is_terminal(std::io::stdout()) {
        true => put(&[&render::clean_json(json), "\n"].concat()),
        false => put(&[json, "\n"].concat()),
    }
}

/// Says something on standard error, in one write.
pub fn say(text: &str) {
    // tidy-allow(dropped-results): there is no other place to say that this failed
    std::io::stderr().write_all([text, "\n"].concat().as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_are_cut_on_a_terminal_only() {
        let mut table = Table::new(&["ID", "TITLE"]);
        table.row(vec!["a".into(), "first\nline\u{1b}[31m".into()]);
        table.row(vec!["bcd".into(), String::new()]);
        let whole = "ID   TITLE\na    first line\u{fffd}[31m\nbcd\n";
        assert_eq!(table.text(None), whole);
        assert_eq!(table.text(Some(80)), whole);
        assert_eq!(table.text(Some(8)), "ID   TI…\na    fi…\nbcd\n");
    }

    #[test]
    fn ages() {
        for (ms, expected) in [
            (0, "now"),
            (999, "now"),
            (1000, "1 s ago"),
            (59_999, "59 s ago"),
            (60_000, "1 m ago"),
            (3_599_999, "59 m ago"),
            (3_600_000, "1 h ago"),
            (86_400_000, "1 d ago"),
            (86_400_000 * 400, "400 d ago"),
        ] {
            assert_eq!(age(1_795_341_600_123 + ms, 1_795_341_600_123), expected);
        }
        assert_eq!(age(0, 5000), "now", "a clock that was set back");
    }

    #[test]
    fn foreign_text_is_shortened_and_harmless() {
        assert_eq!(one_line("  a\n\tb\u{7}c  ", 80), "a b\u{fffd}c");
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(one_line(&"x ".repeat(1000), 3), "x …");
        assert_eq!(excerpt("a\nb\nc\nd", 2, "> "), "> a\n> b\n> … 2 more lines\n");
        assert_eq!(excerpt("a\nb", 2, ""), "a\nb\n");
        assert_eq!((count(1, "event"), count(0, "event")), ("1 event".into(), "0 events".into()));
    }
}
