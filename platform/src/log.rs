//! Lines for whoever operates the runtime, on standard error or in a file ([`mod@file`]): text for people or JSON for programs, with a journald
//! priority in front when asked for (sd-daemon(3)).
//!
//! Invariants: one entry is one line of at most [`LINE_BYTES_MAX`] bytes, in one write(2). Nothing that comes from outside
//! can begin a line of its own, or reach a terminal as anything but text. Whoever does not read its end of the pipe makes
//! us drop lines, which are counted, and never makes us wait.
//!
//! Absent: what happened in a session, which its event log says.

pub mod file;

use crate::clock;
use crate::poll::{self, Source};
use duragent_core::{json, time};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of one line. A pipe that has room at all has room for so many (`PIPE_BUF` of Linux, pipe(7)), so a write after a
/// look never waits.
pub const LINE_BYTES_MAX: usize = 4096;
/// Bytes of a line's own text, as written: the problems of a configuration that many mistakes have.
const TEXT_BYTES_MAX: usize = 2048;
/// Bytes of the text of one field, as written: a path, most often. Six of them fit beside the longest text.
const FIELD_BYTES_MAX: usize = 256;
/// Lines a minute of one [`Throttle`]: enough to see who knocks, too few to fill a card.
pub const LINES_PER_MINUTE_MAX: u32 = 10;

/// How much it matters. The number is the priority of syslog(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Somebody has to act.
    Error = 3,
    /// Something to look at.
    Warn = 4,
    /// Something to know.
    Info = 6,
    /// For whoever looks for a mistake: every request.
    Debug = 7,
}

impl Level {
    /// Names in the configuration and in JSON.
    pub const NAMES: [&'static str; 4] = ["error", "warn", "info", "debug"];

    /// The one at that place in [`Level::NAMES`].
    #[must_use]
    pub fn at(place: usize) -> Self {
        match place {
            0 => Self::Error,
            1 => Self::Warn,
            2 => Self::Info,
            _ => Self::Debug,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `duragent: text key=value`.
    Text,
    /// `{"at":…,"level":…,"msg":…,"key":value}`.
    Json,
}

impl Format {
    /// Names in the configuration.
    pub const NAMES: [&'static str; 2] = ["text", "json"];

    /// The one at that place in [`Format::NAMES`].
    #[must_use]
    pub fn at(place: usize) -> Self {
        if place == 0 { Self::Text } else { Self::Json }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        if self == Self::Json { "json" } else { "text" }
    }
}

/// What a field says.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Any text, wherever it comes from.
    Text(&'a str),
    /// A number; its name ends in the unit.
    Number(u64),
}

/// A name and a value. Names are `snake_case`.
pub type Field<'a> = (&'static str, Value<'a>);

/// What is written until somebody says otherwise: commands speak for themselves, and only warn through here.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);
static JSON: AtomicBool = AtomicBool::new(false);
static PRIORITIES: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static OUT: Mutex<Out> = Mutex::new(Out { told: 0, torn: false });

/// Standard error as we left it.
struct Out {
    /// How many dropped lines its reader knows of.
    told: u64,
    /// The last write ended within a line.
    torn: bool,
}

/// Puts `<4>` and the like in front of lines from now on, which journald takes for their priority and hides.
pub fn with_priorities() {
    PRIORITIES.store(true, Ordering::Relaxed);
}

/// Says what is written from now on, and in which form.
pub fn configure(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// True if lines of this level are written: worth asking before much is put together for one.
#[must_use]
pub fn writes(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Counts a line that nobody will read.
fn missed() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

/// Lines that were dropped because nobody read, or the write failed.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Something to know.
pub fn info(text: &str) {
    line(Level::Info, text, &[]);
}

/// Something to look at.
pub fn warn(text: &str) {
    line(Level::Warn, text, &[]);
}

/// Writes a line with all lists of fields, if its level is wanted. Never waits for whoever reads.
pub fn line(level: Level, text: &str, fields: &[&[Field<'_>]]) {
    if !writes(level) {
        return;
    }
    let (json, priorities) = (JSON.load(Ordering::Relaxed), PRIORITIES.load(Ordering::Relaxed));
    let style = Style { json, priorities, dated: false };
    if file::takes(level, style, text, fields) {
        return;
    }
    let mut out = Out::lock();
    let dropped = dropped();
    if out.told < dropped {
        let count = [("count", Value::Number(dropped - out.told))];
        if !out.put(style.compose(Level::Warn, "lines of this log were dropped", &[&count])) {
            return;
        }
        out.told = dropped;
    }
    out.put(style.compose(level, text, fields));
}

impl Out {
    fn lock() -> MutexGuard<'static, Self> {
        OUT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write, so that lines of several threads and processes do not mix. False if the line is dropped.
    fn put(&mut self, line: String) -> bool {
        let line = if self.torn { ["\n", &line].concat() } else { line };
        let mut stderr = io::stderr().lock();
        // O_NONBLOCK would change the descriptor of everybody who shares it, so a look comes first.
        let mut room = [Source::for_writing(Some(stderr.as_fd()))];
        let has_room = poll::wait(&mut room, Some(Duration::ZERO)).is_ok() && room[0].ready;
        let written = if has_room { stderr.write(line.as_bytes()).unwrap_or(0) } else { 0 };
        if written > 0 {
            self.torn = written < line.len();
        }
        let whole = written == line.len();
        if !whole {
            missed();
        }
        whole
    }
}

#[derive(Clone, Copy)]
struct Style {
    json: bool,
    priorities: bool,
    /// Begins with the time and the level, for where nobody else says them.
    dated: bool,
}

impl Style {
    fn compose(self, level: Level, text: &str, fields: &[&[Field<'_>]]) -> String {
        let mut out = String::with_capacity(128);
        if self.priorities {
            out.push('<');
            json::write_u64(&mut out, level as u64);
            out.push('>');
        }
        if self.json {
            out.push_str("{\"at\":\"");
            time::write_rfc3339(&mut out, clock::wall_ms());
            out.push_str("\",\"level\":\"");
            out.push_str(level.as_str());
            out.push_str("\",\"msg\":");
            quote(&mut out, text, TEXT_BYTES_MAX);
        } else {
            if self.dated {
                time::write_rfc3339(&mut out, clock::wall_ms());
                out.push(' ');
                out.push_str(level.as_str());
                out.push_str(": ");
            } else {
                out.push_str("duragent: ");
            }
            escape(&mut out, text, TEXT_BYTES_MAX, false);
        }
        for (name, value) in fields.iter().copied().flatten() {
            // Ends of a text are cut, but a line is never cut within a field.
            if out.len() + name.len() + FIELD_BYTES_MAX + 16 > LINE_BYTES_MAX {
                break;
            }
            self.field(&mut out, name, *value);
        }
        out.push_str(if self.json { "}\n" } else { "\n" });
        out
    }

    fn field(self, out: &mut String, name: &str, value: Value<'_>) {
        out.push_str(if self.json { ",\"" } else { " " });
        out.push_str(name);
        out.push_str(if self.json { "\":" } else { "=" });
        match value {
            Value::Number(n) => json::write_u64(out, n),
            Value::Text(text) if !self.json && is_plain(text) => out.push_str(text),
            Value::Text(text) => quote(out, text, FIELD_BYTES_MAX),
        }
    }
}

/// True for what needs no quotation marks: no blank, no `=`, nothing to escape.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@%+,~".contains(&b);
    !text.is_empty() && text.len() <= FIELD_BYTES_MAX && text.bytes().all(plain)
}

fn quote(out: &mut String, text: &str, bytes_max: usize) {
    out.push('"');
    escape(out, text, bytes_max, true);
    out.push('"');
}

/// Appends `text`, with escapes as JSON has them for whatever is not plain text to a terminal: control characters of
/// both sets, line and paragraph separators, marks that turn the direction of writing. Ends in `…` where it is cut.
fn escape(out: &mut String, text: &str, bytes_max: usize, quoted: bool) {
    let end = out.len() + bytes_max;
    for c in text.chars() {
        if out.len() + 6 > end {
            return out.push('…');
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' if quoted => {
                out.push('\\');
                out.push(c);
            }
            _ if c.is_control() || is_invisible(c) => {
                out.push_str("\\u");
                for shift in [12, 8, 4, 0] {
                    let digit = b"0123456789abcdef".get((c as usize >> shift) & 15);
                    out.push(char::from(digit.copied().unwrap_or(b'?')));
                }
            }
            _ => out.push(c),
        }
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Lets [`LINES_PER_MINUTE_MAX`] lines through, so that nobody outside can fill the log. Counts the others, and the next
/// line says how many they were.
pub struct Throttle(Mutex<Window>);

struct Window {
    began: Option<Instant>,
    lines: u32,
    held_back: u64,
}

impl Throttle {
    /// One that has let nothing through yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Window { began: None, lines: 0, held_back: 0 }))
    }

    /// As [`line()`], if there is room in this minute.
    pub fn line(&self, level: Level, text: &str, fields: &[Field<'_>], about: &[Field<'_>]) {
        if !writes(level) {
            return;
        }
        match self.admit(Instant::now()) {
            None => {}
            Some(0) => line(level, text, &[fields, about]),
            Some(held_back) => line(level, text, &[&[("held_back", Value::Number(held_back))], fields, about]),
        }
    }

    /// How many were held back since the last that was not; `None` for one more of them.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(60)) {
            (window.began, window.lines) = (Some(now), 0);
        }
        if window.lines >= LINES_PER_MINUTE_MAX {
            window.held_back += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
