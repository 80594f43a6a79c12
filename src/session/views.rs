//! What is shown of a session's state, and of its log.

use super::api::{ApiError, Approval, Status, Summary, TurnResult};
use crate::store::StoreError;
use crate::store::file::{Cached, Found, Tail};
use duragent_core::event::{Body, Event, Usage};
use duragent_core::json::ObjectWriter;
use duragent_core::session::{CallStatus, Rejection, State};
use duragent_core::time;

/// What a list shows.
pub(super) fn summary(state: &State) -> Summary {
    Summary {
        id: state.id.clone(),
        agent: state.agent.clone(),
        title: state.title.clone(),
        status: status(state),
        created_at_ms: state.created_at_ms,
        last_at_ms: state.last_at_ms,
        last_seq: state.last_seq,
        turns: state.turns,
        usage: state.usage,
        context_tokens: state.context_tokens,
        detail: state.paused.clone(),
    }
}

pub(super) fn status(state: &State) -> Status {
    match state {
        _ if state.closed => Status::Closed,
        _ if state.paused.is_some() => Status::Paused,
        _ if state.is_waiting() => Status::Waiting,
        _ if state.turn.is_some() || !state.queue.is_empty() => Status::Running,
        _ => Status::Idle,
    }
}

pub(super) fn cached(state: &State) -> Cached {
    Cached {
        agent: state.agent.clone(),
        title: state.title.clone(),
        status: status(state).as_str().to_owned(),
        created_at_ms: state.created_at_ms,
        last_at_ms: state.last_at_ms,
        last_seq: state.last_seq,
        turns: state.turns,
        input_tokens: state.usage.input_tokens,
        output_tokens: state.usage.output_tokens,
        context_tokens: state.context_tokens,
    }
}

pub(super) fn from_cached(id: &str, c: Cached) -> Option<Summary> {
    Some(Summary {
        id: id.to_owned(),
        agent: c.agent,
        title: c.title,
        status: Status::parse(&c.status)?,
        created_at_ms: c.created_at_ms,
        last_at_ms: c.last_at_ms,
        last_seq: c.last_seq,
        turns: c.turns,
        usage: Usage { input_tokens: c.input_tokens, output_tokens: c.output_tokens, ..Usage::default() },
        context_tokens: c.context_tokens,
        detail: None,
    })
}

pub(super) fn approvals(state: &State) -> Vec<Approval> {
    let calls = state.turn.iter().flat_map(|t| &t.calls);
    calls
        .filter_map(|c| match &c.status {
            CallStatus::Waiting { approval_id, digest, expires_at_ms, reason } => Some(Approval {
                approval_id: approval_id.clone(),
                call_id: c.call.call_id.clone(),
                name: c.call.name.clone(),
                arguments: c.call.arguments.clone(),
                digest: digest.clone(),
                expires_at_ms: *expires_at_ms,
                reason: reason.clone(),
            }),
            _ => None,
        })
        .collect()
}

/// Appends what `event` says to the conversation as an element of a JSON array, after a comma if it is to be divided from the
/// one before. False if it says nothing.
pub(super) fn push_message(out: &mut String, event: &Event, divide: bool) -> bool {
    let (role, content) = match &event.body {
        Body::MessageReceived { content, .. } => ("user", content.as_str()),
        Body::ModelResponded { text, .. } => ("assistant", text.as_str()),
        Body::ToolFinished { outcome, .. } => ("tool", outcome.result.as_str()),
        Body::ToolInterrupted { .. } => ("tool", "interrupted, outcome unknown"),
        _ => return false,
    };
    if divide {
        out.push(',');
    }
    let mut o = ObjectWriter::new(out);
    o.str("role", role).str("content", content).u64("seq", event.seq).str("at", &time::rfc3339(event.at_ms));
    match &event.body {
        Body::ModelResponded { tool_calls, .. } if !tool_calls.is_empty() => {
            let list = o.key("tool_calls");
            for (i, call) in tool_calls.iter().enumerate() {
                list.push(if i == 0 { '[' } else { ',' });
                let mut o = ObjectWriter::new(list);
                o.str("call_id", &call.call_id).str("name", &call.name).raw("arguments", &call.arguments);
                o.finish();
            }
            list.push(']');
        }
        Body::ToolFinished { call_id, outcome } => {
            o.str("call_id", call_id);
            if let Some(code) = outcome.exit_code {
                o.i64("exit_code", code);
            }
            if outcome.denied.is_some() {
                o.bool("denied", true);
            }
        }
        Body::ToolInterrupted { call_id, reason } => {
            o.str("call_id", call_id).str("interrupted", reason);
        }
        _ => {}
    }
    o.finish();
    true
}

/// Why a log is read-only, if it is.
pub(super) fn damage(found: &Found) -> Option<String> {
    match &found.tail {
        Tail::Clean | Tail::Torn { .. } => None,
        Tail::Damaged(damage) => Some(damage.to_string()),
        Tail::TooNew(version) => Some(format!("written by a later version (log version {version})")),
    }
}

/// Looks for the result of turn `wanted` while a log goes by: `reply` is the last answer seen in it.
pub(super) fn find_turn(event: &Event, wanted: u64, reply: &mut String, result: &mut Option<TurnResult>) {
    match &event.body {
        Body::ModelResponded { turn, text, .. } if *turn == wanted => text.clone_into(reply),
        Body::TurnFinished { turn, reason, detail, usage } if *turn == wanted => {
            let (reply, detail) = (std::mem::take(reply), detail.clone());
            *result = Some(TurnResult { turn: *turn, reason: *reason, detail, reply, usage: *usage });
        }
        _ => {}
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let text = rejection.to_string();
        match rejection {
            Rejection::QueueFull => Self::Busy(text),
            Rejection::Closed | Rejection::KeyReused | Rejection::NothingRunning => Self::Conflict(text),
            Rejection::NoSuchApproval => Self::Conflict(text),
        }
    }
}

impl From<&StoreError> for ApiError {
    fn from(error: &StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::NotFound(_) => Self::NotFound(text),
            StoreError::Exists(_) => Self::Conflict(text),
            StoreError::Leased { .. } => Self::Leased(text),
            StoreError::Damaged(_) | StoreError::TooNew { .. } => Self::Damaged(text),
            StoreError::Io { .. } if error.is_disk_full() => Self::DiskFull(text),
            StoreError::Io { .. } if error.is_shortage() => Self::Busy(text),
            StoreError::Poisoned(_) | StoreError::Io { .. } => Self::Internal(text),
        }
    }
}
