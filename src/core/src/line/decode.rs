//! From text to event. A line begins with `seq`, `at` and `type`, in this order; the type then says which fields to look
//! for. Fields may come in any order, unknown ones are skipped.

mod model;

use super::LineError;
use crate::event::{Body, Decision, Denied, Event, SandboxReport, Scope, ToolOutcome, TurnReason, Usage};
use crate::json::{self, Reader};
use crate::time;
use crate::tool::{EffectClass, Tags};
use alloc::borrow::ToOwned;
use alloc::string::String;

/// Why a body could not be read: bad JSON, or a field that is missing or wrong.
enum Fault {
    Json(json::Error),
    Field(&'static str),
}

impl From<json::Error> for Fault {
    fn from(error: json::Error) -> Self {
        Self::Json(error)
    }
}

type Result<T> = core::result::Result<T, Fault>;

pub(super) fn event(line: &str) -> core::result::Result<Event, LineError> {
    let mut r = Reader::new(line);
    let mut kind = None;
    let read = (|| {
        r.begin_object()?;
        let mut first = true;
        let mut head = |r: &mut Reader<'_>, name: &'static str| match r.key(&mut first)? {
            Some(key) if key == name => Ok(()),
            _ => Err(Fault::Field(name)),
        };
        head(&mut r, "seq")?;
        let seq = r.u64()?;
        head(&mut r, "at")?;
        let at_ms = when(&mut r, "at")?;
        head(&mut r, "type")?;
        let name = kind.insert(r.string()?);
        let body = body(&mut r, name)?;
        r.end()?;
        Ok(Event { seq, at_ms, body })
    })();
    read.map_err(|fault| match fault {
        Fault::Json(error) => LineError::Json(error),
        Fault::Field(field) => LineError::Field { kind: kind.map(|k| k.into_owned()).unwrap_or_default(), field },
    })
}

/// The rest of the object, behind its type.
fn body(r: &mut Reader<'_>, kind: &str) -> Result<Body> {
    match kind {
        "session_created" => session_created(r),
        "message_received" => message_received(r),
        "turn_started" => {
            let mut turn = None;
            fields(r, |r, key| one(r, key, "turn", &mut turn, Reader::u64))?;
            Ok(Body::TurnStarted { turn: need(turn, "turn")? })
        }
        "turn_finished" => turn_finished(r),
        "model_requested" => model::model_requested(r),
        "model_responded" => model::model_responded(r),
        "model_failed" => model::model_failed(r),
        "model_switched" => model::model_switched(r),
        "approval_requested" => approval_requested(r),
        "approval_decided" => approval_decided(r),
        "tool_started" => tool_started(r),
        "tool_finished" => tool_finished(r),
        "tool_interrupted" => tool_interrupted(r),
        "session_recovered" => session_recovered(r),
        "session_compacted" => {
            let (mut through_seq, mut summary, mut tokens_before, mut tokens_after) = (None, None, 0, 0);
            let (mut used, mut duration_ms) = (Usage::default(), 0);
            fields(r, |r, key| {
                match key {
                    "through_seq" => through_seq = Some(r.u64()?),
                    "summary" => summary = Some(text(r)?),
                    "tokens_before" => tokens_before = r.u64()?,
                    "tokens_after" => tokens_after = r.u64()?,
                    "usage" => used = usage(r)?,
                    "duration_ms" => duration_ms = r.u64()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(Body::SessionCompacted {
                through_seq: need(through_seq, "through_seq")?,
                summary: need(summary, "summary")?,
                tokens_before,
                tokens_after,
                usage: used,
                duration_ms,
            })
        }
        "session_paused" => {
            let (mut reason, mut retry_at_ms) = (None, None);
            fields(r, |r, key| {
                match key {
                    "reason" => reason = Some(text(r)?),
                    "retry_at" => retry_at_ms = Some(when(r, "retry_at")?),
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            Ok(Body::SessionPaused { reason: need(reason, "reason")?, retry_at_ms })
        }
        "session_resumed" => reason(r).map(|reason| Body::SessionResumed { reason }),
        "session_closed" => reason(r).map(|reason| Body::SessionClosed { reason }),
        other => {
            let kind = other.to_owned();
            fields(r, |_, _| Ok(false))?;
            Ok(Body::Unknown { kind })
        }
    }
}

/// Goes through the fields that are left of an object. `take` reads the value of a key it knows and returns true.
fn fields<'a>(r: &mut Reader<'a>, mut take: impl FnMut(&mut Reader<'a>, &str) -> Result<bool>) -> Result<()> {
    // Behind `type` a comma has to come, in a nested object not: `nested` begins those.
    let mut first = false;
    rest(r, &mut first, &mut take)
}

/// Goes through a nested object.
fn nested<'a>(r: &mut Reader<'a>, mut take: impl FnMut(&mut Reader<'a>, &str) -> Result<bool>) -> Result<()> {
    r.begin_object()?;
    let mut first = true;
    rest(r, &mut first, &mut take)
}

#[inline]
fn rest<'a>(
    r: &mut Reader<'a>,
    first: &mut bool,
    take: &mut impl FnMut(&mut Reader<'a>, &str) -> Result<bool>,
) -> Result<()> {
    while let Some(key) = r.key(first)? {
        if !take(r, &key)? {
            r.raw()?;
        }
    }
    Ok(())
}

/// Reads a value into `place` if `key` is `name`.
#[inline]
fn one<'a, T>(
    r: &mut Reader<'a>,
    key: &str,
    name: &str,
    place: &mut Option<T>,
    read: impl FnOnce(&mut Reader<'a>) -> core::result::Result<T, json::Error>,
) -> Result<bool> {
    if key != name {
        return Ok(false);
    }
    *place = Some(read(r)?);
    Ok(true)
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T> {
    value.ok_or(Fault::Field(field))
}

#[inline]
fn text(r: &mut Reader<'_>) -> core::result::Result<String, json::Error> {
    r.string().map(|text| text.into_owned())
}

fn raw(r: &mut Reader<'_>) -> core::result::Result<String, json::Error> {
    r.raw().map(ToOwned::to_owned)
}

/// A word that `parse` knows.
fn word<T>(r: &mut Reader<'_>, parse: fn(&str) -> Option<T>, field: &'static str) -> Result<T> {
    need(parse(&r.string()?), field)
}

fn when(r: &mut Reader<'_>, field: &'static str) -> Result<u64> {
    word(r, time::parse_rfc3339, field)
}

fn reason(r: &mut Reader<'_>) -> Result<String> {
    let mut reason = None;
    fields(r, |r, key| one(r, key, "reason", &mut reason, text))?;
    need(reason, "reason")
}

fn usage(r: &mut Reader<'_>) -> Result<Usage> {
    let mut usage = Usage::default();
    nested(r, |r, key| {
        match key {
            "input_tokens" => usage.input_tokens = r.u64()?,
            "output_tokens" => usage.output_tokens = r.u64()?,
            "cached_tokens" => usage.cached_tokens = r.u64()?,
            "cost_micros" => usage.cost_micros = r.u64()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(usage)
}

fn session_created(r: &mut Reader<'_>) -> Result<Body> {
    let (mut v, mut session, mut agent, mut title, mut parent) = (None, None, None, None, None);
    fields(r, |r, key| {
        match key {
            "v" => v = Some(r.u64()?),
            "session" => session = Some(text(r)?),
            "agent" => agent = Some(text(r)?),
            "title" => title = Some(text(r)?),
            "parent" => {
                let (mut of, mut seq) = (None, None);
                nested(r, |r, key| {
                    Ok(one(r, key, "session", &mut of, text)? || one(r, key, "seq", &mut seq, Reader::u64)?)
                })?;
                parent = Some((need(of, "parent")?, need(seq, "parent")?));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::SessionCreated {
        v: need(v, "v")?,
        session: need(session, "session")?,
        agent: need(agent, "agent")?,
        title,
        parent,
    })
}

fn message_received(r: &mut Reader<'_>) -> Result<Body> {
    let (mut turn, mut source, mut content, mut idempotency_key, mut steps_max) = (None, None, None, None, None);
    fields(r, |r, key| {
        match key {
            "turn" => turn = Some(r.u64()?),
            "source" => source = Some(text(r)?),
            "content" => content = Some(text(r)?),
            "idempotency_key" => idempotency_key = Some(text(r)?),
            "steps_max" => steps_max = Some(r.u64()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (source, content) = (need(source, "source")?, need(content, "content")?);
    Ok(Body::MessageReceived { turn: need(turn, "turn")?, source, content, idempotency_key, steps_max })
}

fn turn_finished(r: &mut Reader<'_>) -> Result<Body> {
    let (mut turn, mut reason, mut detail, mut used) = (None, None, None, Usage::default());
    fields(r, |r, key| {
        match key {
            "turn" => turn = Some(r.u64()?),
            "reason" => reason = Some(word(r, TurnReason::parse, "reason")?),
            "detail" => detail = Some(text(r)?),
            "usage" => used = usage(r)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::TurnFinished { turn: need(turn, "turn")?, reason: need(reason, "reason")?, detail, usage: used })
}

fn approval_requested(r: &mut Reader<'_>) -> Result<Body> {
    let (mut approval_id, mut call_id, mut name, mut digest, mut expires) = (None, None, None, None, None);
    let mut reason = None;
    fields(r, |r, key| {
        match key {
            "approval_id" => approval_id = Some(text(r)?),
            "call_id" => call_id = Some(text(r)?),
            "name" => name = Some(text(r)?),
            "digest" => digest = Some(text(r)?),
            "expires_at" => expires = Some(when(r, "expires_at")?),
            "reason" => reason = Some(text(r)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ApprovalRequested {
        approval_id: need(approval_id, "approval_id")?,
        call_id: need(call_id, "call_id")?,
        name: need(name, "name")?,
        digest: need(digest, "digest")?,
        expires_at_ms: need(expires, "expires_at")?,
        reason,
    })
}

fn approval_decided(r: &mut Reader<'_>) -> Result<Body> {
    let (mut approval_id, mut decision, mut scope, mut by) = (None, None, None, None);
    fields(r, |r, key| {
        match key {
            "approval_id" => approval_id = Some(text(r)?),
            "decision" => decision = Some(word(r, Decision::parse, "decision")?),
            "scope" => scope = Some(word(r, Scope::parse, "scope")?),
            "by" => by = Some(text(r)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ApprovalDecided {
        approval_id: need(approval_id, "approval_id")?,
        decision: need(decision, "decision")?,
        scope: need(scope, "scope")?,
        by: need(by, "by")?,
    })
}

fn tool_started(r: &mut Reader<'_>) -> Result<Body> {
    let (mut call_id, mut name, mut arguments, mut effect, mut sandbox) = (None, None, None, None, None);
    let mut tags = Tags::default();
    fields(r, |r, key| {
        match key {
            "call_id" => call_id = Some(text(r)?),
            "name" => name = Some(text(r)?),
            "arguments" => arguments = Some(raw(r)?),
            "effect" => effect = Some(word(r, EffectClass::parse, "effect")?),
            "tags" => {
                let mut first = true;
                r.begin_array()?;
                while r.element(&mut first)? {
                    // A later version's tag says nothing to this one.
                    if let Some(tag) = tags.tag_mut(&r.string()?) {
                        *tag = true;
                    }
                }
            }
            "sandbox" => {
                let (mut backend, mut enforcement, mut landlock_abi) = (None, None, None);
                nested(r, |r, key| {
                    match key {
                        "backend" => backend = Some(text(r)?),
                        "enforcement" => enforcement = Some(text(r)?),
                        "landlock_abi" => landlock_abi = Some(r.u64()?),
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                let (backend, enforcement) = (need(backend, "sandbox")?, need(enforcement, "sandbox")?);
                sandbox = Some(SandboxReport { backend, enforcement, landlock_abi });
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ToolStarted {
        call_id: need(call_id, "call_id")?,
        name: need(name, "name")?,
        arguments: need(arguments, "arguments")?,
        effect: need(effect, "effect")?,
        sandbox: need(sandbox, "sandbox")?,
        tags,
    })
}

fn tool_finished(r: &mut Reader<'_>) -> Result<Body> {
    let (mut call_id, mut result, mut outcome) = (None, None, ToolOutcome::default());
    fields(r, |r, key| {
        match key {
            "call_id" => call_id = Some(text(r)?),
            "result" => result = Some(text(r)?),
            "exit_code" => outcome.exit_code = Some(r.i64()?),
            "denied" => outcome.denied = Some(denied(r)?),
            "truncated" => outcome.truncated = r.bool()?,
            "artifact" => outcome.artifact = Some(text(r)?),
            "duration_ms" => outcome.duration_ms = r.u64()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    outcome.result = need(result, "result")?;
    Ok(Body::ToolFinished { call_id: need(call_id, "call_id")?, outcome })
}

fn denied(r: &mut Reader<'_>) -> Result<Denied> {
    let (mut kind, mut what, mut hint) = (None, None, None);
    nested(r, |r, key| {
        match key {
            "kind" => kind = Some(text(r)?),
            "path" | "host" | "what" => what = Some(text(r)?),
            "hint" => hint = Some(text(r)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Denied { kind: need(kind, "denied")?, what: need(what, "denied")?, hint: need(hint, "denied")? })
}

fn tool_interrupted(r: &mut Reader<'_>) -> Result<Body> {
    let (mut call_id, mut reason) = (None, None);
    fields(r, |r, key| Ok(one(r, key, "call_id", &mut call_id, text)? || one(r, key, "reason", &mut reason, text)?))?;
    Ok(Body::ToolInterrupted { call_id: need(call_id, "call_id")?, reason: need(reason, "reason")? })
}

fn session_recovered(r: &mut Reader<'_>) -> Result<Body> {
    let (mut reason, mut saved_as, mut turn, mut dropped_bytes, mut crashes) = (None, None, None, 0, 0);
    fields(r, |r, key| {
        match key {
            "reason" => reason = Some(text(r)?),
            "dropped_bytes" => dropped_bytes = r.u64()?,
            "saved_as" => saved_as = Some(text(r)?),
            "turn" => turn = Some(r.u64()?),
            "crashes" => crashes = r.u64()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::SessionRecovered { reason: need(reason, "reason")?, dropped_bytes, saved_as, turn, crashes })
}
