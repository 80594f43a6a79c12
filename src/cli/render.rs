//! What a session looks like on a terminal: events in, text out. Pure; [`Screen`] at the end does the writing.
//!
//! Invariants: nothing a model, a tool or another client said reaches a terminal with control characters in it: they could
//! move the cursor, change the title, or hide what is being approved. No colour unless asked for.
//!
//! Absent: cursor movement, wrapping, Markdown.

use super::print;
use super::text::{clean, is_unsafe, say};
use crate::config::env;
use duragent_core::event::{Body, Decision, Event, ToolOutcome};
use duragent_core::json::{self, Value};
use duragent_core::session::{DISK_FULL, OFFLINE};
use duragent_platform::terminal;
use std::io::{self, Write};

/// Most characters of a call or result on one line.
pub const SUMMARY_CHARS_MAX: usize = 160;
/// Most characters of a call that somebody is to approve; more is cut, and said to be.
const APPROVAL_CHARS_MAX: usize = 4000;
/// The argument that says most about a call, if it is there.
const TELLING: [&str; 4] = ["command", "path", "pattern", "url"];

/// Where the output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Standard output is a terminal: text is shown as it comes, and cleaned.
    pub live: bool,
    /// Standard error may be coloured.
    pub colour: bool,
}

impl Style {
    /// As the descriptors of this process and `NO_COLOR` (no-color.org) say.
    pub fn of_process() -> Self {
        let plain = env::process("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { live: terminal::is_terminal(io::stdout()), colour: terminal::is_terminal(io::stderr()) && !plain }
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The conversation: standard output.
    Said(String),
    /// What is said about it: standard error.
    Aside(String),
}

/// Turns what happens into pieces, in order.
#[derive(Debug, Default)]
pub struct Render {
    style: Style,
    /// The terminal's cursor stands behind a text without a line feed.
    open: bool,
    /// What the model has said in this step so far, as it was shown.
    shown: String,
    /// The last piece was thinking.
    thinking: bool,
    /// Names of calls that have no result yet.
    calls: Vec<(String, String)>,
}

impl Render {
    /// For output of this style.
    pub fn new(style: Style) -> Self {
        Self { style, ..Self::default() }
    }

    /// The person pressed return: the cursor is at the start of a line.
    pub fn entered(&mut self) {
        self.open = false;
    }

    /// A line about the conversation.
    pub fn note(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = self.fresh_line();
        pieces.push(Piece::Aside(self.dim(&clean(text.trim_end_matches('\n')), "\n")));
        pieces
    }

    /// A question; the answer is typed behind it.
    pub fn ask(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = self.fresh_line();
        pieces.push(Piece::Aside(text.to_owned()));
        self.open = true;
        pieces
    }

    /// Somebody else's message, or an older one.
    pub fn message(&mut self, source: &str, content: &str) -> Vec<Piece> {
        let mut pieces = self.fresh_line();
        pieces.push(Piece::Said(format!("{}> {}\n", clean_line(source, SUMMARY_CHARS_MAX), self.text(content))));
        pieces
    }

    /// A whole text of the model, from the history.
    pub fn reply(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = self.fresh_line();
        if !text.is_empty() {
            pieces.push(Piece::Said(format!("{}\n", self.text(text).trim_end_matches('\n'))));
        }
        pieces
    }

    /// A piece of text as the model writes it.
    pub fn token(&mut self, text: &str, thinking: bool) -> Vec<Piece> {
        if !self.style.live || text.is_empty() {
            return Vec::new();
        }
        let mut pieces = if thinking == self.thinking { Vec::new() } else { self.fresh_line() };
        self.thinking = thinking;
        let text = self.text(text);
        self.open = !text.ends_with('\n');
        if thinking {
            pieces.push(Piece::Aside(self.dim(&text, "")));
        } else {
            self.shown.push_str(&text);
            pieces.push(Piece::Said(text));
        }
        pieces
    }

    /// A durable event.
    pub fn event(&mut self, event: &Event) -> Vec<Piece> {
        match &event.body {
            Body::ModelRequested { .. } => {
                self.shown.clear();
                self.fresh_line()
            }
            Body::ModelResponded { text, tool_calls, .. } => {
                let known = tool_calls.iter().map(|c| (c.call_id.clone(), c.name.clone()));
                self.calls.extend(known);
                self.responded(text)
            }
            Body::ModelFailed { detail, retry_at_ms, .. } => {
                self.shown.clear();
                let again = retry_at_ms.map(|at| at.saturating_sub(event.at_ms).div_ceil(1000));
                let again = again.map_or_else(String::new, |s| format!("; asked again in {s} s"));
                self.note(&format!("[model] {detail}{again}"))
            }
            Body::ModelSwitched { provider, model, .. } => {
                self.note(&format!("[model] {provider}/{model} is asked instead"))
            }
            Body::ToolStarted { name, arguments, .. } => {
                let name = clean_line(name, SUMMARY_CHARS_MAX);
                self.note(&format!("[{name}] {}", summary(arguments, SUMMARY_CHARS_MAX)))
            }
            Body::ToolFinished { call_id, outcome } => {
                let name = self.name_of(call_id);
                self.note(&format!("[{name}] {}", result(outcome)))
            }
            Body::ToolInterrupted { call_id, reason } => {
                let name = self.name_of(call_id);
                self.note(&format!("[{name}] interrupted ({reason}), outcome unknown; it is not run again"))
            }
            Body::ApprovalDecided { decision, scope, by, .. } => {
                let word = if *decision == Decision::Grant { "granted" } else { "denied" };
                self.note(&format!("[approval] {word} ({}) by {by}", scope.as_str()))
            }
            Body::SessionRecovered { reason, dropped_bytes, turn, .. } => {
                let turn = turn.map_or_else(String::new, |t| format!(", turn {t} goes on"));
                let cut = if *dropped_bytes > 0 { format!(", {dropped_bytes} bytes cut off") } else { String::new() };
                self.note(&format!("[session] recovered ({reason}){turn}{cut}"))
            }
            Body::SessionCompacted { through_seq, summary, .. } if summary.is_empty() => self
                .note(&format!("[session] everything up to {through_seq} is left out from here on, to fit the window")),
            Body::SessionCompacted { through_seq, .. } => {
                self.note(&format!("[session] the model sees a summary of everything up to {through_seq} from here on"))
            }
            Body::SessionPaused { reason, .. } if reason == OFFLINE => {
                self.note("[session] no model can be reached; the turn waits and goes on by itself")
            }
            Body::SessionPaused { reason, .. } if reason == DISK_FULL => {
                self.note("[session] the disk is full; the turn waits and goes on by itself when there is space")
            }
            Body::SessionPaused { reason, .. } => self.note(&format!("[session] paused ({reason})")),
            Body::SessionResumed { reason } => self.note(&format!("[session] goes on ({reason})")),
            Body::SessionClosed { reason } => self.note(&format!("[session] {reason}")),
            Body::TurnFinished { .. } => self.fresh_line(),
            Body::SessionCreated { .. }
            | Body::MessageReceived { .. }
            | Body::TurnStarted { .. }
            | Body::ApprovalRequested { .. }
            | Body::Unknown { .. } => Vec::new(),
        }
    }

    /// The whole answer is known: what was not shown yet is shown. Someone who came in late sees it all.
    fn responded(&mut self, text: &str) -> Vec<Piece> {
        let text = self.text(text);
        let shown = std::mem::take(&mut self.shown);
        if let Some(rest) = text.strip_prefix(shown.as_str()).filter(|_| !shown.is_empty()) {
            let mut pieces = Vec::new();
            if !rest.is_empty() {
                pieces.push(Piece::Said(rest.to_owned()));
                self.open = !rest.ends_with('\n');
            }
            pieces.extend(self.fresh_line());
            return pieces;
        }
        let mut pieces = self.fresh_line();
        if !text.trim().is_empty() {
            pieces.push(Piece::Said(format!("{}\n", text.trim_end_matches('\n'))));
        }
        pieces
    }

    fn name_of(&mut self, call_id: &str) -> String {
        match self.calls.iter().position(|(id, _)| id == call_id) {
            Some(at) => clean_line(&self.calls.swap_remove(at).1, SUMMARY_CHARS_MAX),
            None => "tool".to_owned(),
        }
    }

    /// Ends the line the cursor stands on, if it is not empty.
    fn fresh_line(&mut self) -> Vec<Piece> {
        self.thinking = false;
        let line_feed = if self.style.live { Piece::Said("\n".into()) } else { Piece::Aside("\n".into()) };
        if std::mem::replace(&mut self.open, false) { vec![line_feed] } else { Vec::new() }
    }

    /// Text for standard output: as it is for programs, clean for people.
    fn text(&self, text: &str) -> String {
        if self.style.live { clean(text) } else { text.to_owned() }
    }

    fn dim(&self, text: &str, end: &str) -> String {
        if self.style.colour { format!("\x1b[2m{text}\x1b[0m{end}") } else { format!("{text}{end}") }
    }
}

/// [`clean`] text on one line of at most `max` characters, with line feeds to be seen: whatever is not shown is said to be
/// missing, since somebody may be asked to approve it.
#[must_use]
pub fn clean_line(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(max) {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push(' '),
            c if is_unsafe(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    let left = chars.count();
    if left > 0 {
        out.push_str(&format!("… ({left} more)"));
    }
    out
}

/// JSON that may go to a terminal: what [`clean`] would replace is escaped. It can only stand in strings.
#[must_use]
pub fn clean_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A call's arguments in short: the one that says most.
#[must_use]
pub fn summary(arguments: &str, max: usize) -> String {
    let value = json::parse(arguments).ok();
    let telling = TELLING.iter().find_map(|key| value.as_ref()?.get(key)?.as_str());
    clean_line(telling.unwrap_or(arguments), max)
}

/// A call as somebody is to approve it: all of it. The telling argument stands alone only if there is no other.
#[must_use]
pub fn call(name: &str, arguments: &str) -> String {
    let name = clean_line(name, SUMMARY_CHARS_MAX);
    let alone = match json::parse(arguments) {
        Ok(Value::Object(fields)) => match fields.as_slice() {
            [(key, Value::String(text))] if TELLING.contains(&key.as_str()) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    format!("{name}: {}", clean_line(alone.as_deref().unwrap_or(arguments), APPROVAL_CHARS_MAX))
}

/// A result in short.
fn result(outcome: &ToolOutcome) -> String {
    let mut parts = Vec::new();
    if let Some(denied) = &outcome.denied {
        parts.push(format!("denied ({}): {}", denied.kind, clean_line(&denied.what, SUMMARY_CHARS_MAX)));
    }
    if let Some(code) = outcome.exit_code {
        parts.push(format!("exit {code}"));
    }
    if parts.is_empty() {
        parts.push("done".to_owned());
    }
    parts.push(format!("{} ms", outcome.duration_ms));
    if outcome.truncated {
        parts.push("output cut".to_owned());
    }
    parts.join(", ")
}

/// Writes pieces to standard output and standard error.
pub struct Screen;

impl Screen {
    /// Writes `pieces`. Somebody who stopped reading is no failure of the session, nor is a full disk behind a redirection.
    pub fn show(pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Said(text) => {
                    if let Err(failure) = print(&text) {
                        say(&format!("error: {}", failure.error));
                    }
                }
                // tidy-allow(dropped-results): there is nowhere else to say it
                Piece::Aside(text) => drop(io::stderr().write_all(text.as_bytes())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
