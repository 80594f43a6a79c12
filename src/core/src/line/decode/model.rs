//! Events of model calls.

use super::{Result, fields, need, nested, raw, text, usage, when, word};
use crate::event::{Body, FailureKind, Usage};
use crate::json::Reader;
use crate::tool::ToolCall;
use alloc::vec::Vec;

pub(super) fn model_requested(r: &mut Reader<'_>) -> Result<Body> {
    let (mut turn, mut step, mut attempt, mut provider, mut model) = (None, None, None, None, None);
    let (mut reserved, mut summary) = (Usage::default(), false);
    fields(r, |r, key| {
        match key {
            "turn" => turn = Some(r.u64()?),
            "step" => step = Some(r.u64()?),
            "attempt" => attempt = Some(r.u64()?),
            "provider" => provider = Some(text(r)?),
            "model" => model = Some(text(r)?),
            "reserved" => reserved = usage(r)?,
            "summary" => summary = r.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ModelRequested {
        turn: need(turn, "turn")?,
        step: need(step, "step")?,
        attempt: need(attempt, "attempt")?,
        provider: need(provider, "provider")?,
        model: need(model, "model")?,
        reserved,
        summary,
    })
}

pub(super) fn model_responded(r: &mut Reader<'_>) -> Result<Body> {
    let (mut turn, mut step, mut said, mut thinking, mut finish_reason) = (None, None, None, None, None);
    let (mut tool_calls, mut used, mut blocks, mut duration_ms) = (Vec::new(), Usage::default(), None, 0);
    fields(r, |r, key| {
        match key {
            "turn" => turn = Some(r.u64()?),
            "step" => step = Some(r.u64()?),
            "text" => said = Some(text(r)?),
            "thinking" => thinking = Some(text(r)?),
            "blocks" => blocks = Some(raw(r)?),
            "duration_ms" => duration_ms = r.u64()?,
            "tool_calls" => tool_calls = calls(r)?,
            "usage" => used = usage(r)?,
            "finish_reason" => finish_reason = Some(text(r)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ModelResponded {
        turn: need(turn, "turn")?,
        step: need(step, "step")?,
        text: need(said, "text")?,
        thinking,
        blocks,
        tool_calls,
        usage: used,
        finish_reason: need(finish_reason, "finish_reason")?,
        duration_ms,
    })
}

fn calls(r: &mut Reader<'_>) -> Result<Vec<ToolCall>> {
    let (mut calls, mut first) = (Vec::new(), true);
    r.begin_array()?;
    while r.element(&mut first)? {
        let (mut call_id, mut name, mut arguments) = (None, None, None);
        nested(r, |r, key| {
            match key {
                "call_id" => call_id = Some(text(r)?),
                "name" => name = Some(text(r)?),
                "arguments" => arguments = Some(raw(r)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (call_id, name) = (need(call_id, "tool_calls")?, need(name, "tool_calls")?);
        calls.push(ToolCall { call_id, name, arguments: need(arguments, "tool_calls")? });
    }
    Ok(calls)
}

pub(super) fn model_failed(r: &mut Reader<'_>) -> Result<Body> {
    let (mut turn, mut step, mut attempt) = (None, None, None);
    let (mut kind, mut detail, mut retry_at_ms) = (None, None, None);
    let (mut worked, mut context_tokens, mut duration_ms) = (false, None, 0);
    fields(r, |r, key| {
        match key {
            "turn" => turn = Some(r.u64()?),
            "step" => step = Some(r.u64()?),
            "attempt" => attempt = Some(r.u64()?),
            "kind" => kind = Some(word(r, FailureKind::parse, "kind")?),
            "detail" => detail = Some(text(r)?),
            "retry_at" => retry_at_ms = Some(when(r, "retry_at")?),
            "worked" => worked = r.bool()?,
            "context_tokens" => context_tokens = Some(r.u64()?),
            "duration_ms" => duration_ms = r.u64()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ModelFailed {
        turn: need(turn, "turn")?,
        step: need(step, "step")?,
        attempt: need(attempt, "attempt")?,
        kind: need(kind, "kind")?,
        detail: need(detail, "detail")?,
        retry_at_ms,
        worked,
        context_tokens,
        duration_ms,
    })
}

pub(super) fn model_switched(r: &mut Reader<'_>) -> Result<Body> {
    let (mut turn, mut step, mut from_provider, mut from_model) = (None, None, None, None);
    let (mut provider, mut model, mut reason) = (None, None, None);
    fields(r, |r, key| {
        match key {
            "turn" => turn = Some(r.u64()?),
            "step" => step = Some(r.u64()?),
            "from_provider" => from_provider = Some(text(r)?),
            "from_model" => from_model = Some(text(r)?),
            "provider" => provider = Some(text(r)?),
            "model" => model = Some(text(r)?),
            "reason" => reason = Some(word(r, FailureKind::parse, "reason")?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Body::ModelSwitched {
        turn: need(turn, "turn")?,
        step: need(step, "step")?,
        from_provider: need(from_provider, "from_provider")?,
        from_model: need(from_model, "from_model")?,
        provider: need(provider, "provider")?,
        model: need(model, "model")?,
        reason: need(reason, "reason")?,
    })
}
