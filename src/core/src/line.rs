//! The line codec of the event log: one event, one JSON object, one chained checksum, one line feed.
//!
//! `crc` is the last key: CRC-32C, as eight lower-case hex digits, over the previous line's eight digits (`00000000` before
//! the first) followed by every byte of this line before `,"crc"`. A line that was changed, lost, moved or taken
//! from another log breaks the chain.
//!
//! Invariant: `decode(encode(e)) == e`. Unknown keys are skipped; unknown types become [`Body::Unknown`].

use crate::crc::Crc32c;
use crate::event::{Body, Denied, Event, SandboxReport, Usage};
use crate::json::{self, ObjectWriter};
use crate::time;
use crate::tool::Tags;
use alloc::string::String;
use core::fmt;

mod decode;

/// Checksum that stands before the first line.
pub const CRC_START: u32 = 0;
/// Bytes of `,"crc":"xxxxxxxx"}`.
const TRAILER: usize = 18;
/// Longest line that is read, in bytes: bounds what one damaged or hostile log can make us hold. Writers keep below it,
/// since messages, replies and tool results are each limited far lower.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why a line is not an event of this log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineError {
    /// Not UTF-8 from this byte on.
    NotUtf8(usize),
    /// Does not end in a `crc` key.
    NoCrc,
    /// The checksum does not fit the line and the one before it.
    Crc {
        /// Computed.
        expected: u32,
        /// Written.
        found: u32,
    },
    /// Not JSON.
    Json(json::Error),
    /// A field that this type needs is missing or makes no sense.
    Field {
        /// Type of the event.
        kind: String,
        /// Name of the field.
        field: &'static str,
    },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8(at) => write!(f, "expected UTF-8, found another byte at byte {at}"),
            Self::NoCrc => f.write_str("expected the line to end in \"crc\":\"xxxxxxxx\"}"),
            Self::Crc { expected, found } => write!(f, "expected crc {expected:08x}, found {found:08x}"),
            Self::Json(error) => write!(f, "{error}"),
            Self::Field { kind, field } => write!(f, "{kind}: field {field:?} is missing or has a wrong value"),
        }
    }
}

impl core::error::Error for LineError {}

/// Appends the line for `event`, line feed included, and returns its checksum.
pub fn encode(event: &Event, previous_crc: u32, out: &mut String) -> u32 {
    let start = out.len();
    let mut w = ObjectWriter::new(out);
    w.u64("seq", event.seq);
    let at = w.key("at");
    at.push('"');
    time::write_rfc3339(at, event.at_ms);
    at.push('"');
    w.str("type", event.body.kind());
    write_body(&mut w, &event.body);
    // Not finished through the writer: the checksum covers everything before its own key.
    let crc = chain(previous_crc, &out.as_bytes()[start..]);
    out.push_str(",\"crc\":\"");
    push_hex(out, crc);
    out.push_str("\"}\n");
    crc
}

/// Reads one line, without its line feed, and returns the event with the line's checksum. The caller compares `seq`.
///
/// # Errors
/// [`LineError`] if it is not an intact line that follows the one with `previous_crc`.
pub fn decode(line: &[u8], previous_crc: u32) -> Result<(Event, u32), LineError> {
    let crc = check(line, previous_crc)?;
    let text = core::str::from_utf8(line).map_err(|e| LineError::NotUtf8(e.valid_up_to()))?;
    Ok((decode::event(text)?, crc))
}

/// Reads a line of a log that is known to be intact, without its line feed: what a reader does that finds its place in the
/// middle.
///
/// # Errors
/// [`LineError`] if it is not an event.
pub fn parse(line: &str) -> Result<Event, LineError> {
    decode::event(line)
}

/// Checks only the chain, which is what tells damage; returns the line's checksum.
///
/// # Errors
/// [`LineError::NoCrc`] or [`LineError::Crc`].
pub fn check(line: &[u8], previous_crc: u32) -> Result<u32, LineError> {
    let split = line.len().checked_sub(TRAILER).ok_or(LineError::NoCrc)?;
    let (body, trailer) = line.split_at(split);
    let hex = trailer.strip_prefix(b",\"crc\":\"").and_then(|t| t.strip_suffix(b"\"}")).ok_or(LineError::NoCrc)?;
    let found = parse_hex(hex).ok_or(LineError::NoCrc)?;
    let expected = chain(previous_crc, body);
    if expected == found { Ok(found) } else { Err(LineError::Crc { expected, found }) }
}

/// The `seq` of a line, from its first bytes; for finding one's place in a log without reading all of it.
#[must_use]
pub fn peek_seq(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let end = rest.iter().position(|b| !b.is_ascii_digit())?;
    core::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// The log version that a first line says, unchecked: read from the form that it keeps in every version, whatever the rest of it, its checksum
/// included, has become.
#[must_use]
pub fn peek_version(line: &[u8]) -> Option<u64> {
    const AT: usize = "2026-11-22T10:00:00.123Z".len();
    let rest = line.strip_prefix(b"{\"seq\":1,\"at\":\"")?.get(AT..)?;
    let rest = rest.strip_prefix(b"\",\"type\":\"session_created\",\"v\":")?;
    let end = rest.iter().position(|b| !b.is_ascii_digit())?;
    core::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

/// The `type` of a line, unchecked.
#[must_use]
pub fn peek_kind(line: &str) -> Option<&str> {
    let rest = &line[line.find("\"type\":\"")? + 8..];
    Some(&rest[..rest.find('"')?])
}

/// The time of a line in milliseconds since the epoch, unchecked.
#[must_use]
pub fn peek_at(line: &str) -> Option<u64> {
    let rest = line.get(line.find("\"at\":\"")? + 6..)?;
    time::parse_rfc3339(rest.get(..24)?)
}

/// Offset of the first line feed. Here rather than in the store because this crate is built for speed, and never inlined
/// for the same reason: the store's functions are built for size.
#[must_use]
#[inline(never)]
pub fn find_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let x = u64::from_le_bytes(*word) ^ (ONES * 0x0a);
        // A byte is zero, exactly in the lowest place that is marked.
        let zeros = x.wrapping_sub(ONES) & !x & (ONES << 7);
        if zeros != 0 {
            return Some(i * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|b| *b == b'\n').map(|at| words.len() * 8 + at)
}

fn chain(previous: u32, body: &[u8]) -> u32 {
    Crc32c::default().update(&hex(previous)).update(body).value()
}

fn hex(value: u32) -> [u8; 8] {
    core::array::from_fn(|i| {
        let digit = (value >> (28 - 4 * i)) as u8 & 15;
        if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
    })
}

fn push_hex(out: &mut String, value: u32) {
    out.extend(hex(value).map(char::from));
}

/// Exactly eight lower-case digits: one spelling, so that no two texts mean the same line.
fn parse_hex(digits: &[u8]) -> Option<u32> {
    if digits.len() != 8 {
        return None;
    }
    digits.iter().try_fold(0u32, |n, &b| {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u32::from(digit))
    })
}

/// `usage` under `key`, in the words of docs/formats.md.
pub fn write_usage(w: &mut ObjectWriter<'_>, key: &str, usage: &Usage) {
    w.object(key, |o| {
        o.u64("input_tokens", usage.input_tokens).u64("output_tokens", usage.output_tokens);
        let rest = [("cached_tokens", usage.cached_tokens), ("cost_micros", usage.cost_micros)];
        for (key, value) in rest.into_iter().filter(|(_, value)| *value > 0) {
            o.u64(key, value);
        }
    });
}

fn write_time(w: &mut ObjectWriter<'_>, key: &str, ms: u64) {
    let out = w.key(key);
    out.push('"');
    time::write_rfc3339(out, ms);
    out.push('"');
}

fn write_denied(w: &mut ObjectWriter<'_>, denied: &Denied) {
    w.object("denied", |o| {
        o.str("kind", &denied.kind).str(denied.what_key(), &denied.what).str("hint", &denied.hint);
    });
}

fn write_sandbox(w: &mut ObjectWriter<'_>, sandbox: &SandboxReport) {
    w.object("sandbox", |o| {
        o.str("backend", &sandbox.backend).str("enforcement", &sandbox.enforcement);
        if let Some(abi) = sandbox.landlock_abi {
            o.u64("landlock_abi", abi);
        }
    });
}

fn write_body(w: &mut ObjectWriter<'_>, body: &Body) {
    match body {
        Body::SessionCreated { v, session, agent, title, parent } => {
            w.u64("v", *v).str("session", session).str("agent", agent).str_opt("title", title.as_deref());
            if let Some((session, seq)) = parent {
                w.object("parent", |o| {
                    o.str("session", session).u64("seq", *seq);
                });
            }
        }
        Body::MessageReceived { turn, source, content, idempotency_key, steps_max } => {
            w.u64("turn", *turn).str("source", source).str("content", content);
            w.str_opt("idempotency_key", idempotency_key.as_deref());
            if let Some(n) = steps_max {
                w.u64("steps_max", *n);
            }
        }
        Body::TurnStarted { turn } => {
            w.u64("turn", *turn);
        }
        Body::TurnFinished { turn, reason, detail, usage } => {
            w.u64("turn", *turn).str("reason", reason.as_str()).str_opt("detail", detail.as_deref());
            write_usage(w, "usage", usage);
        }
        Body::ModelRequested { .. }
        | Body::ModelResponded { .. }
        | Body::ModelFailed { .. }
        | Body::ModelSwitched { .. } => write_model(w, body),
        Body::ApprovalRequested { approval_id, call_id, name, digest, expires_at_ms, reason } => {
            w.str("approval_id", approval_id).str("call_id", call_id).str("name", name).str("digest", digest);
            write_time(w, "expires_at", *expires_at_ms);
            w.str_opt("reason", reason.as_deref());
        }
        Body::ApprovalDecided { approval_id, decision, scope, by } => {
            w.str("approval_id", approval_id).str("decision", decision.as_str());
            w.str("scope", scope.as_str()).str("by", by);
        }
        Body::ToolStarted { .. } | Body::ToolFinished { .. } | Body::ToolInterrupted { .. } => write_tool(w, body),
        Body::SessionRecovered { reason, dropped_bytes, saved_as, turn, crashes } => {
            w.str("reason", reason).u64("dropped_bytes", *dropped_bytes).str_opt("saved_as", saved_as.as_deref());
            if let Some(turn) = turn {
                w.u64("turn", *turn);
            }
            w.u64("crashes", *crashes);
        }
        Body::SessionCompacted { through_seq, summary, tokens_before, tokens_after, usage, duration_ms } => {
            w.u64("through_seq", *through_seq).str("summary", summary);
            w.u64("tokens_before", *tokens_before).u64("tokens_after", *tokens_after);
            if !usage.is_unknown() {
                write_usage(w, "usage", usage);
                w.u64("duration_ms", *duration_ms);
            }
        }
        Body::SessionPaused { reason, retry_at_ms } => {
            w.str("reason", reason);
            if let Some(ms) = retry_at_ms {
                write_time(w, "retry_at", *ms);
            }
        }
        Body::SessionResumed { reason } | Body::SessionClosed { reason } => {
            w.str("reason", reason);
        }
        Body::Unknown { .. } => {}
    }
}

fn write_model(w: &mut ObjectWriter<'_>, body: &Body) {
    match body {
        Body::ModelRequested { turn, step, attempt, provider, model, reserved, summary } => {
            w.u64("turn", *turn).u64("step", *step).str("provider", provider).str("model", model);
            w.u64("attempt", *attempt);
            write_usage(w, "reserved", reserved);
            if *summary {
                w.bool("summary", true);
            }
        }
        Body::ModelResponded { turn, step, text, thinking, blocks, tool_calls, usage, finish_reason, duration_ms } => {
            w.u64("turn", *turn).u64("step", *step).str("text", text).str_opt("thinking", thinking.as_deref());
            if let Some(blocks) = blocks {
                w.raw("blocks", blocks);
            }
            let out = w.key("tool_calls");
            out.push('[');
            for (i, call) in tool_calls.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                let mut o = ObjectWriter::new(out);
                o.str("call_id", &call.call_id).str("name", &call.name).raw("arguments", &call.arguments);
                o.finish();
            }
            out.push(']');
            write_usage(w, "usage", usage);
            w.str("finish_reason", finish_reason).u64("duration_ms", *duration_ms);
        }
        Body::ModelFailed { turn, step, attempt, kind, detail, retry_at_ms, worked, context_tokens, duration_ms } => {
            w.u64("turn", *turn).u64("step", *step).u64("attempt", *attempt);
            w.str("kind", kind.as_str()).str("detail", detail);
            if let Some(ms) = retry_at_ms {
                write_time(w, "retry_at", *ms);
            }
            if *worked {
                w.bool("worked", true);
            }
            if let Some(tokens) = context_tokens {
                w.u64("context_tokens", *tokens);
            }
            w.u64("duration_ms", *duration_ms);
        }
        Body::ModelSwitched { turn, step, from_provider, from_model, provider, model, reason } => {
            w.u64("turn", *turn).u64("step", *step).str("from_provider", from_provider).str("from_model", from_model);
            w.str("provider", provider).str("model", model).str("reason", reason.as_str());
        }
        _ => {}
    }
}

fn write_tool(w: &mut ObjectWriter<'_>, body: &Body) {
    match body {
        Body::ToolStarted { call_id, name, arguments, effect, sandbox, tags } => {
            w.str("call_id", call_id).str("name", name).raw("arguments", arguments).str("effect", effect.as_str());
            write_sandbox(w, sandbox);
            if *tags != Tags::default() {
                let out = w.key("tags");
                for (word, before) in tags.words().zip(core::iter::once('[').chain(core::iter::repeat(','))) {
                    out.push(before);
                    json::write_string(out, word);
                }
                out.push(']');
            }
        }
        Body::ToolFinished { call_id, outcome } => {
            w.str("call_id", call_id).str("result", &outcome.result);
            if let Some(code) = outcome.exit_code {
                w.i64("exit_code", code);
            }
            if let Some(denied) = &outcome.denied {
                write_denied(w, denied);
            }
            w.bool("truncated", outcome.truncated).str_opt("artifact", outcome.artifact.as_deref());
            w.u64("duration_ms", outcome.duration_ms);
        }
        Body::ToolInterrupted { call_id, reason } => {
            w.str("call_id", call_id).str("reason", reason);
        }
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests;
