//! Plays a recorded transcript: a model without a model, for the demo, tests and benchmarks.
//!
//! A transcript is JSON lines. Each line is one answer, in order; blank lines are allowed. An example, one line an item:
//!
//! ```json
//! {"repeat":true}
//! {"step":1,"deltas":["Let me ","look."],"delay_ms":30,"tool_calls":[{"name":"bash","arguments":{"command":"ls"}}]}
//! {"step":2,"expect":{"last_role":"tool","contains":"Cargo"},"deltas":["A Rust project."],"usage":{"input_tokens":90}}
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `step` | number of the answer, from 1; only checked |
//! | `thinking`, `deltas` | pieces of thinking, then of text, as they are shown live; the answer is their sum |
//! | `delay_ms` | pause before each piece, at most [`DELAY_MAX`]; ends early when the call is cancelled |
//! | `tool_calls` | list of `{"name", "arguments": {…}, "call_id"?}` |
//! | `usage` | `{"input_tokens", "output_tokens"}`, both 0 by default |
//! | `finish_reason` | `stop` by default, or `tool_calls` if there are any |
//! | `expect` | `{"last_role"?: user, assistant or tool, "contains"?: text}`: checked against the last message; a request that is different fails as `invalid` |
//! | `fail` | `{"kind": …, "detail"?, "retry_after_ms"?}`: fail instead of answering; kinds as in `model_failed` |
//! | `fail_first` | with `fail`: only the first so many requests for this line fail, then it answers |
//! | `repeat` | alone in the first line: after the last answer comes the first again |
//!
//! **Which line answers is derived from the request, never from memory**: line N answers a request that has N - 1
//! messages of the assistant. So a process that was killed and restarted goes on where it was, and any number of sessions
//! can play one transcript. The one thing counted in memory is `fail_first`, since a request does not say how often it
//! was made: the count is per line and process, over all sessions, and starts again with the process.
//!
//! A compacted conversation has fewer messages, so transcripts are for sessions that do not compact.
//!
//! Absent: templates, conditions, recording.

use super::{Delta, Failure, Message, Probe, Provider, Reply, Request};
use duragent_core::event::{FailureKind, Usage};
use duragent_core::json::{Error, ObjectWriter, Reader, Value};
use duragent_core::tool::ToolCall;
use duragent_platform::cancel::Cancel;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Largest transcript in bytes.
pub const TRANSCRIPT_MAX: u64 = 4 * 1024 * 1024;

/// Longest pause before one piece, in milliseconds.
pub const DELAY_MAX: u64 = 60_000;

const KEYS: &str =
    "step, thinking, deltas, delay_ms, tool_calls, usage, finish_reason, expect, fail, fail_first or repeat";

/// Why a transcript cannot be played.
#[derive(Debug)]
pub enum TranscriptError {
    /// The file cannot be read.
    Io {
        /// File.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is larger than [`TRANSCRIPT_MAX`].
    TooLarge {
        /// File.
        file: String,
    },
    /// It has no answers.
    Empty {
        /// File.
        file: String,
    },
    /// A line is wrong.
    Line {
        /// File.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong and what was expected.
        what: String,
    },
}

impl std::fmt::Display for TranscriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { file, error } => write!(f, "{file}: cannot read the transcript: {error}"),
            Self::TooLarge { file } => write!(f, "{file}: transcript is larger than {TRANSCRIPT_MAX} bytes"),
            Self::Empty { file } => write!(f, "{file}: expected at least one answer, found none"),
            Self::Line { file, line, column, what } => write!(f, "{file}:{line}:{column}: {what}"),
        }
    }
}

impl std::error::Error for TranscriptError {}

/// A transcript that answers.
#[derive(Debug)]
pub struct Replay {
    name: String,
    steps: Vec<Step>,
    repeat: bool,
}

impl Replay {
    /// Reads a transcript from a file.
    ///
    /// # Errors
    /// [`TranscriptError`].
    pub fn open(path: &Path) -> Result<Self, TranscriptError> {
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|f| f.take(TRANSCRIPT_MAX + 1).read_to_end(&mut bytes));
        let text = read.and_then(|_| String::from_utf8(bytes).map_err(std::io::Error::other));
        match text {
            Ok(text) => Self::from_text(&file, &text),
            Err(error) => Err(TranscriptError::Io { file, error }),
        }
    }

    /// Reads a transcript from text; `name` is for messages.
    ///
    /// # Errors
    /// [`TranscriptError`].
    pub fn from_text(name: &str, text: &str) -> Result<Self, TranscriptError> {
        let file = || name.to_string();
        if u64::try_from(text.len()).is_ok_and(|size| size > TRANSCRIPT_MAX) {
            return Err(TranscriptError::TooLarge { file: file() });
        }
        let (mut steps, mut repeat) = (Vec::new(), None);
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |wrong: Wrong| {
                let column = Error { byte: wrong.byte, what: "" }.position(line).1;
                TranscriptError::Line { file: file(), line: at + 1, column, what: wrong.what }
            };
            match read_line(line, steps.len() + 1).map_err(wrong)? {
                Line::Step(step) => steps.push(*step),
                Line::Repeat(on) if steps.is_empty() && repeat.is_none() => repeat = Some(on),
                Line::Repeat(_) => {
                    let what = "repeat belongs in the first line".into();
                    return Err(wrong(Wrong { byte: 0, what }));
                }
            }
        }
        if steps.is_empty() {
            return Err(TranscriptError::Empty { file: file() });
        }
        Ok(Self { name: file(), steps, repeat: repeat.unwrap_or(false) })
    }

    fn failed(&self, kind: FailureKind, what: &str) -> Failure {
        Failure::new(kind, format!("{}: {what}", self.name))
    }
}

impl Provider for Replay {
    fn complete(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_delta: &mut dyn FnMut(Delta<'_>),
    ) -> Result<Reply, Failure> {
        let answered = request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        let at = if self.repeat { answered % self.steps.len().max(1) } else { answered };
        let step = self.steps.get(at).ok_or_else(|| {
            let what = format!("the request asks for answer {}, the transcript has {}", answered + 1, self.steps.len());
            self.failed(FailureKind::Invalid, &what)
        })?;
        if let Some(expect) = &step.expect {
            expect
                .check(request)
                .map_err(|what| self.failed(FailureKind::Invalid, &format!("answer {} expects {what}", at + 1)))?;
        }
        if let Some(fail) = step.due_failure() {
            return Err(Failure { retry_after_ms: fail.retry_after_ms, ..self.failed(fail.kind, &fail.detail) });
        }
        let pause = Pause::new(step.delay_ms, cancel);
        let thinking = step.thinking.iter().map(|piece| Delta::Thinking(piece));
        for delta in thinking.chain(step.deltas.iter().map(|piece| Delta::Text(piece))) {
            pause.wait();
            if cancel.is_raised() {
                break;
            }
            on_delta(delta);
        }
        if cancel.is_raised() { Err(self.failed(FailureKind::Truncated, "cancelled")) } else { Ok(step.reply()) }
    }

    fn body(&self, request: &Request) -> String {
        // What it compares requests with; nothing is sent.
        let mut out = String::new();
        let mut body = ObjectWriter::new(&mut out);
        body.str("model", &request.model).str("system", &request.system).u64("messages", request.messages.len() as u64);
        body.finish();
        out
    }

    fn reach(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn probe(&self, _: &str) -> Result<Probe, Failure> {
        let again = if self.repeat { ", over and over" } else { "" };
        let text = format!("replays {} ({} answers{again})", self.name, self.steps.len());
        Ok(Probe { text, context_tokens: None, lacks_tools: false })
    }
}

#[derive(Debug, Default)]
struct Step {
    thinking: Vec<String>,
    deltas: Vec<String>,
    delay_ms: u64,
    tool_calls: Vec<ToolCall>,
    usage: Usage,
    finish_reason: Option<String>,
    expect: Option<Expect>,
    fail: Option<Fail>,
    fail_first: Option<u64>,
    failed: AtomicU64,
}

impl Step {
    /// The failure this request is to be answered with, if any.
    fn due_failure(&self) -> Option<&Fail> {
        let fail = self.fail.as_ref()?;
        let Some(first) = self.fail_first else { return Some(fail) };
        let count = |failed| (failed < first).then_some(failed + 1);
        self.failed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok().then_some(fail)
    }

    fn reply(&self) -> Reply {
        let by_default = if self.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        Reply {
            text: self.deltas.concat(),
            thinking: (!self.thinking.is_empty()).then(|| self.thinking.concat()),
            blocks: None,
            tool_calls: self.tool_calls.clone(),
            usage: self.usage,
            finish_reason: self.finish_reason.as_deref().unwrap_or(by_default).into(),
        }
    }
}

#[derive(Debug)]
struct Fail {
    kind: FailureKind,
    detail: String,
    retry_after_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Expect {
    last_role: Option<String>,
    contains: Option<String>,
}

impl Expect {
    fn check(&self, request: &Request) -> Result<(), String> {
        let (role, content) = match request.messages.last() {
            Some(Message::User { content }) => ("user", content.as_str()),
            Some(Message::Assistant { content, .. }) => ("assistant", content.as_str()),
            Some(Message::Tool { content, .. }) => ("tool", content.as_str()),
            None => ("none", ""),
        };
        match (&self.last_role, &self.contains) {
            (Some(want), _) if want != role => Err(format!("a last message of role {want}, found {role}")),
            (_, Some(want)) if !content.contains(want.as_str()) => {
                let found: String = content.chars().take(80).collect();
                Err(format!("a last message that contains {want:?}, found {found:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// A pause that a cancel ends.
struct Pause {
    length: Duration,
    raised: Arc<(Mutex<bool>, Condvar)>,
}

impl Pause {
    fn new(delay_ms: u64, cancel: &Cancel) -> Self {
        let raised = Arc::new((Mutex::new(false), Condvar::new()));
        if delay_ms > 0 {
            let raised = Arc::downgrade(&raised);
            cancel.on_raise(move || {
                if let Some(raised) = raised.upgrade() {
                    *raised.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    raised.1.notify_all();
                }
            });
        }
        Self { length: Duration::from_millis(delay_ms), raised }
    }

    fn wait(&self) {
        if !self.length.is_zero() {
            let raised = self.raised.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.raised.1.wait_timeout_while(raised, self.length, |raised| !*raised));
        }
    }
}

enum Line {
    Step(Box<Step>),
    Repeat(bool),
}

/// What is wrong with a line, and at which byte of it.
struct Wrong {
    byte: usize,
    what: String,
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self { byte: error.byte, what: error.what.into() }
    }
}

/// Where the next value begins.
fn start(reader: &mut Reader<'_>) -> usize {
    reader.peek();
    reader.offset()
}

fn wrong<T>(reader: &Reader<'_>, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { byte: reader.offset(), what: what.into() })
}

/// Points at the key, as long as no space follows it.
fn unknown<T>(reader: &Reader<'_>, key: &str, expected: &str) -> Result<T, Wrong> {
    let byte = reader.offset().saturating_sub(key.len() + "\"\":".len());
    Err(Wrong { byte, what: format!("unknown key {key:?}, expected {expected}") })
}

fn read_line(line: &str, number: usize) -> Result<Line, Wrong> {
    let (mut step, mut repeat, mut keys) = (Step::default(), None, 0);
    let mut reader = Reader::new(line);
    read_object(&mut reader, |reader, key| {
        keys += 1;
        match key {
            "step" => {
                let byte = start(reader);
                let found = reader.u64()?;
                if usize::try_from(found) != Ok(number) {
                    return Err(Wrong { byte, what: format!("expected step {number}, found {found}") });
                }
            }
            "thinking" => step.thinking = read_strings(reader)?,
            "deltas" => step.deltas = read_strings(reader)?,
            "delay_ms" => {
                let byte = start(reader);
                step.delay_ms = reader.u64()?;
                if step.delay_ms > DELAY_MAX {
                    let what = format!("expected at most {DELAY_MAX} ms, found {}", step.delay_ms);
                    return Err(Wrong { byte, what });
                }
            }
            "tool_calls" => step.tool_calls = read_calls(reader)?,
            "usage" => step.usage = read_usage(reader)?,
            "finish_reason" => step.finish_reason = Some(reader.string()?.into_owned()),
            "expect" => step.expect = Some(read_expect(reader)?),
            "fail" => step.fail = Some(read_fail(reader)?),
            "fail_first" => step.fail_first = Some(reader.u64()?),
            "repeat" => repeat = Some(reader.bool()?),
            _ => return unknown(reader, key, KEYS),
        }
        Ok(())
    })?;
    reader.end()?;
    match repeat {
        None if step.fail_first.is_some() && step.fail.is_none() => wrong(&reader, "fail_first without fail"),
        None => Ok(Line::Step(Box::new(step))),
        Some(on) if keys == 1 => Ok(Line::Repeat(on)),
        Some(_) => wrong(&reader, "repeat stands alone in its line"),
    }
}

/// Reads an object; `field` reads the value of the key it is given.
fn read_object(
    reader: &mut Reader<'_>,
    mut field: impl FnMut(&mut Reader<'_>, &str) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    reader.begin_object()?;
    let (mut first, mut seen) = (true, Vec::new());
    while let Some(key) = reader.key(&mut first)? {
        if seen.contains(&key) {
            return wrong(reader, format!("duplicate key {key:?}"));
        }
        field(reader, &key)?;
        seen.push(key);
    }
    Ok(())
}

fn read_strings(reader: &mut Reader<'_>) -> Result<Vec<String>, Wrong> {
    reader.begin_array()?;
    let (mut first, mut strings) = (true, Vec::new());
    while reader.element(&mut first)? {
        strings.push(reader.string()?.into_owned());
    }
    Ok(strings)
}

fn read_calls(reader: &mut Reader<'_>) -> Result<Vec<ToolCall>, Wrong> {
    reader.begin_array()?;
    let (mut first, mut calls) = (true, Vec::new());
    while reader.element(&mut first)? {
        let mut call = ToolCall { call_id: String::new(), name: String::new(), arguments: "{}".into() };
        read_object(reader, |reader, key| {
            match key {
                "name" => call.name = reader.string()?.into_owned(),
                "call_id" => call.call_id = reader.string()?.into_owned(),
                "arguments" => {
                    let byte = start(reader);
                    let value = reader.value()?;
                    if !matches!(value, Value::Object(_)) {
                        return Err(Wrong { byte, what: "arguments: expected an object".into() });
                    }
                    call.arguments = value.to_string();
                }
                _ => return unknown(reader, key, "name, arguments or call_id"),
            }
            Ok(())
        })?;
        if call.name.is_empty() {
            return wrong(reader, "tool call without a name");
        }
        calls.push(call);
    }
    Ok(calls)
}

fn read_usage(reader: &mut Reader<'_>) -> Result<Usage, Wrong> {
    let mut usage = Usage::default();
    read_object(reader, |reader, key| {
        match key {
            "input_tokens" => usage.input_tokens = reader.u64()?,
            "output_tokens" => usage.output_tokens = reader.u64()?,
            _ => return unknown(reader, key, "input_tokens or output_tokens"),
        }
        Ok(())
    })?;
    Ok(usage)
}

fn read_expect(reader: &mut Reader<'_>) -> Result<Expect, Wrong> {
    let mut expect = Expect::default();
    read_object(reader, |reader, key| {
        match key {
            "last_role" => {
                let byte = start(reader);
                let role = reader.string()?.into_owned();
                if !["user", "assistant", "tool"].contains(&role.as_str()) {
                    return Err(Wrong { byte, what: format!("expected user, assistant or tool, found {role:?}") });
                }
                expect.last_role = Some(role);
            }
            "contains" => expect.contains = Some(reader.string()?.into_owned()),
            _ => return unknown(reader, key, "last_role or contains"),
        }
        Ok(())
    })?;
    Ok(expect)
}

fn read_fail(reader: &mut Reader<'_>) -> Result<Fail, Wrong> {
    let (mut kind, mut detail, mut retry_after_ms) = (None, "failure from the transcript".to_string(), None);
    read_object(reader, |reader, key| {
        match key {
            "kind" => {
                let byte = start(reader);
                let text = reader.string()?;
                kind = FailureKind::parse(&text);
                if kind.is_none() {
                    return Err(Wrong { byte, what: format!("unknown kind of failure {text:?}") });
                }
            }
            "detail" => detail = reader.string()?.into_owned(),
            "retry_after_ms" => retry_after_ms = Some(reader.u64()?),
            _ => return unknown(reader, key, "kind, detail or retry_after_ms"),
        }
        Ok(())
    })?;
    match kind {
        Some(kind) => Ok(Fail { kind, detail, retry_after_ms }),
        None => wrong(reader, "fail without kind"),
    }
}

#[cfg(test)]
mod tests;
