//! From text to event. Every key has one type wherever it appears, so one pass collects what is there, and the event's
//! type then picks what it needs.

use super::LineError;
use crate::event::{Body, Decision, Denied, Event, FailureKind, SandboxReport, Scope, ToolOutcome, TurnReason, Usage};
use crate::json::{self, Reader};
use crate::time;
use crate::tool::{EffectClass, ToolCall};
use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

type Text<'a> = Option<Cow<'a, str>>;

/// Everything a line can carry.
#[derive(Default)]
struct Fields<'a> {
    seq: Option<u64>,
    at: Text<'a>,
    kind: Text<'a>,
    v: Option<u64>,
    session: Text<'a>,
    agent: Text<'a>,
    title: Text<'a>,
    parent: Option<(String, u64)>,
    turn: Option<u64>,
    source: Text<'a>,
    content: Text<'a>,
    idempotency_key: Text<'a>,
    steps_max: Option<u64>,
    reason: Text<'a>,
    detail: Text<'a>,
    usage: Option<Usage>,
    step: Option<u64>,
    attempt: Option<u64>,
    provider: Text<'a>,
    model: Text<'a>,
    text: Text<'a>,
    thinking: Text<'a>,
    tool_calls: Option<Vec<ToolCall>>,
    finish_reason: Text<'a>,
    failure: Text<'a>,
    retry_at: Text<'a>,
    approval_id: Text<'a>,
    call_id: Text<'a>,
    name: Text<'a>,
    digest: Text<'a>,
    expires_at: Text<'a>,
    decision: Text<'a>,
    scope: Text<'a>,
    by: Text<'a>,
    arguments: Option<&'a str>,
    effect: Text<'a>,
    sandbox: Option<SandboxReport>,
    result: Text<'a>,
    exit_code: Option<i64>,
    denied: Option<Denied>,
    truncated: Option<bool>,
    artifact: Text<'a>,
    duration_ms: Option<u64>,
    dropped_bytes: Option<u64>,
    saved_as: Text<'a>,
    crashes: Option<u64>,
    through_seq: Option<u64>,
    summary: Text<'a>,
}

pub(super) fn event(line: &str) -> Result<Event, LineError> {
    let mut fields = read(line).map_err(LineError::Json)?;
    let kind = fields.kind.take().ok_or(LineError::Field { kind: String::new(), field: "type" })?;
    let need = |field: &'static str| LineError::Field { kind: kind.as_ref().to_owned(), field };
    let seq = fields.seq.ok_or_else(|| need("seq"))?;
    let at_ms = fields.at.as_deref().and_then(time::parse_rfc3339).ok_or_else(|| need("at"))?;
    let body = fields.body(&kind).map_err(need)?;
    Ok(Event { seq, at_ms, body })
}

fn read(line: &str) -> Result<Fields<'_>, json::Error> {
    let mut r = Reader::new(line);
    let mut f = Fields::default();
    let mut first = true;
    r.begin_object()?;
    while let Some(key) = r.key(&mut first)? {
        read_field(&mut r, &mut f, &key)?;
    }
    r.end()?;
    Ok(f)
}

fn read_field<'a>(r: &mut Reader<'a>, f: &mut Fields<'a>, key: &str) -> Result<(), json::Error> {
    let text = match key {
        "at" => &mut f.at,
        "type" => &mut f.kind,
        "session" => &mut f.session,
        "agent" => &mut f.agent,
        "title" => &mut f.title,
        "source" => &mut f.source,
        "content" => &mut f.content,
        "idempotency_key" => &mut f.idempotency_key,
        "reason" => &mut f.reason,
        "detail" => &mut f.detail,
        "provider" => &mut f.provider,
        "model" => &mut f.model,
        "text" => &mut f.text,
        "thinking" => &mut f.thinking,
        "finish_reason" => &mut f.finish_reason,
        "kind" => &mut f.failure,
        "retry_at" => &mut f.retry_at,
        "approval_id" => &mut f.approval_id,
        "call_id" => &mut f.call_id,
        "name" => &mut f.name,
        "digest" => &mut f.digest,
        "expires_at" => &mut f.expires_at,
        "decision" => &mut f.decision,
        "scope" => &mut f.scope,
        "by" => &mut f.by,
        "effect" => &mut f.effect,
        "result" => &mut f.result,
        "artifact" => &mut f.artifact,
        "saved_as" => &mut f.saved_as,
        "summary" => &mut f.summary,
        _ => return read_other(r, f, key),
    };
    *text = Some(r.string()?);
    Ok(())
}

fn read_other<'a>(r: &mut Reader<'a>, f: &mut Fields<'a>, key: &str) -> Result<(), json::Error> {
    let number = match key {
        "seq" => &mut f.seq,
        "v" => &mut f.v,
        "turn" => &mut f.turn,
        "steps_max" => &mut f.steps_max,
        "step" => &mut f.step,
        "attempt" => &mut f.attempt,
        "duration_ms" => &mut f.duration_ms,
        "dropped_bytes" => &mut f.dropped_bytes,
        "crashes" => &mut f.crashes,
        "through_seq" => &mut f.through_seq,
        "exit_code" => {
            f.exit_code = Some(r.i64()?);
            return Ok(());
        }
        "truncated" => {
            f.truncated = Some(r.bool()?);
            return Ok(());
        }
        "arguments" => {
            f.arguments = Some(r.raw()?);
            return Ok(());
        }
        "usage" => return read_usage(r).map(|u| f.usage = Some(u)),
        "tool_calls" => return read_calls(r).map(|c| f.tool_calls = Some(c)),
        "parent" => return read_texts(r, ["session"]).map(|([s], n)| f.parent = Some((s, n))),
        "sandbox" => {
            let ([backend, enforcement], _) = read_texts(r, ["backend", "enforcement"])?;
            f.sandbox = Some(SandboxReport { backend, enforcement });
            return Ok(());
        }
        "denied" => {
            let ([kind, what, hint], _) = read_texts(r, ["kind", "what", "hint"])?;
            f.denied = Some(Denied { kind, what, hint });
            return Ok(());
        }
        _ => return r.raw().map(|_| ()),
    };
    *number = Some(r.u64()?);
    Ok(())
}

/// An object of text fields named `keys`, and perhaps a `seq`.
fn read_texts<const N: usize>(r: &mut Reader<'_>, keys: [&str; N]) -> Result<([String; N], u64), json::Error> {
    let mut texts = core::array::from_fn(|_| String::new());
    let (mut seq, mut first) = (0, true);
    r.begin_object()?;
    while let Some(key) = r.key(&mut first)? {
        match keys.iter().position(|k| *k == key) {
            Some(i) => texts[i] = r.string()?.into_owned(),
            None if key == "seq" => seq = r.u64()?,
            None => drop(r.raw()?),
        }
    }
    Ok((texts, seq))
}

fn read_usage(r: &mut Reader<'_>) -> Result<Usage, json::Error> {
    let (mut usage, mut first) = (Usage::default(), true);
    r.begin_object()?;
    while let Some(key) = r.key(&mut first)? {
        match &*key {
            "input_tokens" => usage.input_tokens = r.u64()?,
            "output_tokens" => usage.output_tokens = r.u64()?,
            _ => drop(r.raw()?),
        }
    }
    Ok(usage)
}

fn read_calls(r: &mut Reader<'_>) -> Result<Vec<ToolCall>, json::Error> {
    let (mut calls, mut first) = (Vec::new(), true);
    r.begin_array()?;
    while r.element(&mut first)? {
        let (mut call, mut first) =
            (ToolCall { call_id: String::new(), name: String::new(), arguments: "{}".to_owned() }, true);
        r.begin_object()?;
        while let Some(key) = r.key(&mut first)? {
            match &*key {
                "call_id" => call.call_id = r.string()?.into_owned(),
                "name" => call.name = r.string()?.into_owned(),
                "arguments" => call.arguments = r.raw()?.to_owned(),
                _ => drop(r.raw()?),
            }
        }
        calls.push(call);
    }
    Ok(calls)
}

fn own(text: Text<'_>, field: &'static str) -> Result<String, &'static str> {
    text.map(Cow::into_owned).ok_or(field)
}

fn when(text: Text<'_>, field: &'static str) -> Result<u64, &'static str> {
    text.as_deref().and_then(time::parse_rfc3339).ok_or(field)
}

fn word<T>(text: Text<'_>, parse: fn(&str) -> Option<T>, field: &'static str) -> Result<T, &'static str> {
    text.as_deref().and_then(parse).ok_or(field)
}

impl Fields<'_> {
    /// The body of type `kind`, or the name of the field that is missing or wrong.
    fn body(self, kind: &str) -> Result<Body, &'static str> {
        Ok(match kind {
            "session_created" => Body::SessionCreated {
                v: self.v.ok_or("v")?,
                session: own(self.session, "session")?,
                agent: own(self.agent, "agent")?,
                title: self.title.map(Cow::into_owned),
                parent: self.parent,
            },
            "message_received" => Body::MessageReceived {
                turn: self.turn.ok_or("turn")?,
                source: own(self.source, "source")?,
                content: own(self.content, "content")?,
                idempotency_key: self.idempotency_key.map(Cow::into_owned),
                steps_max: self.steps_max,
            },
            "turn_started" => Body::TurnStarted { turn: self.turn.ok_or("turn")? },
            "turn_finished" => Body::TurnFinished {
                turn: self.turn.ok_or("turn")?,
                reason: word(self.reason, TurnReason::parse, "reason")?,
                detail: self.detail.map(Cow::into_owned),
                usage: self.usage.unwrap_or_default(),
            },
            "model_requested" | "model_responded" | "model_failed" => return self.model(kind),
            "approval_requested" => Body::ApprovalRequested {
                approval_id: own(self.approval_id, "approval_id")?,
                call_id: own(self.call_id, "call_id")?,
                name: own(self.name, "name")?,
                digest: own(self.digest, "digest")?,
                expires_at_ms: when(self.expires_at, "expires_at")?,
            },
            "approval_decided" => Body::ApprovalDecided {
                approval_id: own(self.approval_id, "approval_id")?,
                decision: word(self.decision, Decision::parse, "decision")?,
                scope: word(self.scope, Scope::parse, "scope")?,
                by: own(self.by, "by")?,
            },
            "tool_started" | "tool_finished" | "tool_interrupted" => return self.tool(kind),
            "session_recovered" => Body::SessionRecovered {
                reason: own(self.reason, "reason")?,
                dropped_bytes: self.dropped_bytes.unwrap_or(0),
                saved_as: self.saved_as.map(Cow::into_owned),
                turn: self.turn,
                crashes: self.crashes.unwrap_or(0),
            },
            "session_compacted" => Body::SessionCompacted {
                through_seq: self.through_seq.ok_or("through_seq")?,
                summary: own(self.summary, "summary")?,
            },
            "session_paused" => Body::SessionPaused { reason: own(self.reason, "reason")? },
            "session_resumed" => Body::SessionResumed { reason: own(self.reason, "reason")? },
            "session_closed" => Body::SessionClosed { reason: own(self.reason, "reason")? },
            other => Body::Unknown { kind: other.to_owned() },
        })
    }

    fn model(self, kind: &str) -> Result<Body, &'static str> {
        let (turn, step) = (self.turn.ok_or("turn")?, self.step.ok_or("step")?);
        Ok(match kind {
            "model_requested" => Body::ModelRequested {
                turn,
                step,
                attempt: self.attempt.ok_or("attempt")?,
                provider: own(self.provider, "provider")?,
                model: own(self.model, "model")?,
            },
            "model_responded" => Body::ModelResponded {
                turn,
                step,
                text: own(self.text, "text")?,
                thinking: self.thinking.map(Cow::into_owned),
                tool_calls: self.tool_calls.unwrap_or_default(),
                usage: self.usage.unwrap_or_default(),
                finish_reason: own(self.finish_reason, "finish_reason")?,
            },
            _ => Body::ModelFailed {
                turn,
                step,
                attempt: self.attempt.ok_or("attempt")?,
                kind: word(self.failure, FailureKind::parse, "kind")?,
                detail: own(self.detail, "detail")?,
                retry_at_ms: self.retry_at.map(|t| when(Some(t), "retry_at")).transpose()?,
            },
        })
    }

    fn tool(self, kind: &str) -> Result<Body, &'static str> {
        let call_id = own(self.call_id, "call_id")?;
        Ok(match kind {
            "tool_started" => Body::ToolStarted {
                call_id,
                name: own(self.name, "name")?,
                arguments: self.arguments.ok_or("arguments")?.to_owned(),
                effect: word(self.effect, EffectClass::parse, "effect")?,
                sandbox: self.sandbox.ok_or("sandbox")?,
            },
            "tool_finished" => Body::ToolFinished {
                call_id,
                outcome: ToolOutcome {
                    result: own(self.result, "result")?,
                    exit_code: self.exit_code,
                    denied: self.denied,
                    truncated: self.truncated.unwrap_or(false),
                    artifact: self.artifact.map(Cow::into_owned),
                    duration_ms: self.duration_ms.unwrap_or(0),
                },
            },
            _ => Body::ToolInterrupted { call_id, reason: own(self.reason, "reason")? },
        })
    }
}
