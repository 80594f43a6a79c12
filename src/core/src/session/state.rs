//! What a session is at a point of its log, and `apply`, the only code that changes it: live and in replay.

use super::budget::{Meter, Spent};
use super::history::History;
use crate::crc::crc32c;
use crate::event::{Body, Decision, Denied, Event, Scope, ToolOutcome, TurnReason, Usage};
use crate::json::ObjectWriter;
use crate::message::Message;
use crate::tool::{EffectClass, ToolCall};
use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Idempotency keys a session remembers; a message sent again after so many others is taken as new.
pub const KEYS_MAX: usize = 256;
/// Results of turns kept for those who ask late; older ones are in the log.
pub const FINISHED_MAX: usize = 16;
/// Approvals of scope `session` kept; beyond, the oldest has to be asked for again.
pub const GRANTS_MAX: usize = 128;

/// A message that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Turn that will answer it.
    pub turn: u64,
    /// Its event.
    pub seq: u64,
    /// What was said.
    pub content: String,
    /// Limit of its own.
    pub steps_max: Option<u64>,
}

/// How far a call of the running turn is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStatus {
    /// May run when those before it are done.
    Ready,
    /// Waits for somebody's word.
    Waiting {
        /// The request.
        approval_id: String,
        /// SHA-256 of the exact call.
        digest: String,
        /// When it counts as denied, in milliseconds since the epoch.
        expires_at_ms: u64,
    },
    /// `tool_started` is in the log, its result is not.
    Running(EffectClass),
    /// Has its result.
    Done,
}

/// A call of the running turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// As logged, with the session's own call id.
    pub call: ToolCall,
    /// How far it is.
    pub status: CallStatus,
}

/// What the running turn waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Between `turn_started` and its first `model_requested`: only ever seen inside one commit.
    Starting,
    /// The model.
    Model {
        /// Attempt within the step, from 1.
        attempt: u64,
    },
    /// The time to ask the model again.
    Backoff {
        /// Attempt that failed.
        attempt: u64,
        /// When, in milliseconds since the epoch.
        until_ms: u64,
    },
    /// Its calls.
    Tools,
}

/// The running turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Number, from 1.
    pub turn: u64,
    /// Model call within the turn, from 1; 0 before the first.
    pub step: u64,
    /// Limit of its own.
    pub steps_max: Option<u64>,
    /// What it waits for.
    pub phase: Phase,
    /// Calls of the current step.
    pub calls: Vec<Call>,
    /// Tokens so far.
    pub usage: Usage,
    /// Whether the model has answered in this turn.
    pub answered: bool,
    /// What the session had spent before.
    pub spent_before: Spent,
}

/// A turn that came to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Number.
    pub turn: u64,
    /// How.
    pub reason: TurnReason,
    /// Why.
    pub detail: Option<String>,
    /// Last text of the model in it.
    pub reply: String,
    /// Tokens.
    pub usage: Usage,
}

/// A remembered idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As the sender gave it.
    pub key: String,
    /// Checksum of the content, so that the same key with another message is noticed.
    pub content_crc: u32,
    /// Its event.
    pub seq: u64,
    /// Its turn.
    pub turn: u64,
}

/// A session at a point of its log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Id, empty before `session_created`.
    pub id: String,
    /// Agent.
    pub agent: String,
    /// For people.
    pub title: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Time of the newest event.
    pub last_at_ms: u64,
    /// Newest event.
    pub last_seq: u64,
    /// Takes no more messages.
    pub closed: bool,
    /// Starts no turns, and why.
    pub paused: Option<String>,
    /// Turn numbers given out.
    pub turns: u64,
    /// What a model may be shown.
    pub history: History,
    /// Messages that wait, oldest first.
    pub queue: VecDeque<Queued>,
    /// The running turn.
    pub turn: Option<Turn>,
    /// Tokens so far.
    pub usage: Usage,
    /// What was used up so far, by the rules of budgets.
    pub meter: Meter,
    /// Tokens of the last prompt.
    pub context_tokens: u64,
    /// Remembered keys, oldest first.
    pub keys: VecDeque<Key>,
    /// Ended turns, oldest first.
    pub finished: VecDeque<Finished>,
    /// Digests granted for the session.
    pub grants: VecDeque<String>,
    /// Crashes in a row without progress in the running turn.
    pub crashes: u64,
}

/// Digest of a call: SHA-256 over name, NUL and compact arguments, lower-case hex.
#[must_use]
pub fn digest(call: &ToolCall) -> String {
    let mut hash = hmac_sha256::Hash::new();
    hash.update(call.name.as_bytes());
    hash.update(b"\0");
    hash.update(call.arguments.as_bytes());
    hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

/// What the model is shown as the result of a call.
fn result_text(outcome: &ToolOutcome) -> String {
    let mut text = outcome.result.clone();
    if let Some(denied @ Denied { kind, what, hint }) = &outcome.denied {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let mut o = ObjectWriter::new(&mut text);
        o.bool("denied", true).str("kind", kind).str(denied.what_key(), what).str("hint", hint);
        o.finish();
    }
    text
}

fn push_bounded<T>(list: &mut VecDeque<T>, item: T, max: usize) {
    if list.len() == max {
        list.pop_front();
    }
    list.push_back(item);
}

impl State {
    /// Turns `event` into the next state. Total: an event that makes no sense here changes nothing but the position,
    /// because the log is the truth and the runtime that wrote it may have been another.
    pub fn apply(&mut self, event: &Event) {
        self.meter.take(event);
        self.last_seq = event.seq;
        self.last_at_ms = event.at_ms;
        match &event.body {
            Body::SessionCreated { session, agent, title, .. } => {
                session.clone_into(&mut self.id);
                agent.clone_into(&mut self.agent);
                title.clone_into(&mut self.title);
                self.created_at_ms = event.at_ms;
            }
            Body::MessageReceived { turn, content, idempotency_key, steps_max, .. } => {
                self.turns = self.turns.max(*turn);
                if let Some(key) = idempotency_key {
                    let content_crc = crc32c(content.as_bytes());
                    let key = Key { key: key.clone(), content_crc, seq: event.seq, turn: *turn };
                    push_bounded(&mut self.keys, key, KEYS_MAX);
                }
                let (content, steps_max) = (content.clone(), *steps_max);
                self.queue.push_back(Queued { turn: *turn, seq: event.seq, content, steps_max });
            }
            Body::TurnStarted { turn } => self.start_turn(*turn),
            Body::TurnFinished { turn, reason, detail, usage } => self.finish_turn(*turn, *reason, detail, *usage),
            Body::SessionRecovered { crashes, turn: Some(_), .. } => self.crashes = *crashes,
            Body::SessionCompacted { through_seq, summary, .. } => self.history.compact(*through_seq, summary.clone()),
            Body::SessionPaused { reason, .. } => self.paused = Some(reason.clone()),
            Body::SessionResumed { .. } => self.paused = None,
            Body::SessionClosed { .. } => self.closed = true,
            Body::SessionRecovered { .. } | Body::Unknown { .. } => {}
            body => self.apply_to_turn(event.seq, body),
        }
    }

    fn start_turn(&mut self, turn: u64) {
        let Some(at) = self.queue.iter().position(|q| q.turn == turn) else { return };
        let Some(Queued { seq, content, steps_max, .. }) = self.queue.remove(at) else { return };
        self.history.push(seq, Message::User { content });
        self.crashes = 0;
        let (phase, calls, usage) = (Phase::Starting, Vec::new(), Usage::default());
        let spent_before = self.meter.spent();
        self.turn = Some(Turn { turn, step: 0, steps_max, phase, calls, usage, answered: false, spent_before });
    }

    fn finish_turn(&mut self, turn: u64, reason: TurnReason, detail: &Option<String>, usage: Usage) {
        let answered = self.turn.take().is_some_and(|t| t.answered);
        let reply = if answered { self.history.last_reply().unwrap_or_default().to_owned() } else { String::new() };
        push_bounded(&mut self.finished, Finished { turn, reason, detail: detail.clone(), reply, usage }, FINISHED_MAX);
        self.crashes = 0;
    }

    fn apply_to_turn(&mut self, seq: u64, body: &Body) {
        let Some(turn) = &mut self.turn else { return };
        match body {
            Body::ModelRequested { step, attempt, .. } => {
                turn.step = *step;
                turn.phase = Phase::Model { attempt: *attempt };
                turn.calls.clear();
            }
            Body::ModelFailed { attempt, retry_at_ms: Some(until_ms), .. } => {
                turn.phase = Phase::Backoff { attempt: *attempt, until_ms: *until_ms };
            }
            Body::ModelResponded { text, thinking, tool_calls, usage, .. } => {
                turn.phase = Phase::Tools;
                turn.answered = true;
                turn.calls = tool_calls.iter().map(|c| Call { call: c.clone(), status: CallStatus::Ready }).collect();
                turn.usage.add(usage);
                self.usage.add(usage);
                self.context_tokens = usage.input_tokens + usage.output_tokens;
                self.crashes = 0;
                let (content, thinking, tool_calls) = (text.clone(), thinking.clone(), tool_calls.clone());
                self.history.push(seq, Message::Assistant { content, thinking, blocks: None, tool_calls });
            }
            Body::ApprovalRequested { approval_id, call_id, digest, expires_at_ms, .. } => {
                if let Some(call) = turn.call_mut(call_id) {
                    let (approval_id, digest) = (approval_id.clone(), digest.clone());
                    call.status = CallStatus::Waiting { approval_id, digest, expires_at_ms: *expires_at_ms };
                }
            }
            Body::ApprovalDecided { approval_id, decision: Decision::Grant, scope, .. } => {
                let granted = turn.calls.iter_mut().find(|c| c.status.approval_id() == Some(approval_id));
                if let Some(call) = granted {
                    if *scope != Scope::Once {
                        push_bounded(&mut self.grants, digest(&call.call), GRANTS_MAX);
                    }
                    call.status = CallStatus::Ready;
                }
            }
            Body::ToolStarted { call_id, effect, .. } => {
                if let Some(call) = turn.call_mut(call_id) {
                    call.status = CallStatus::Running(*effect);
                }
            }
            Body::ToolFinished { call_id, outcome } => {
                self.crashes = 0;
                self.close_call(seq, call_id, result_text(outcome));
            }
            Body::ToolInterrupted { call_id, reason } => {
                let text = match reason.as_str() {
                    "crash" => "interrupted, outcome unknown".to_owned(),
                    reason => format!("interrupted ({reason}), outcome unknown"),
                };
                self.close_call(seq, call_id, text);
            }
            _ => {}
        }
    }

    /// Gives a call its one result; a second one is ignored.
    fn close_call(&mut self, seq: u64, call_id: &str, content: String) {
        let Some(call) = self.turn.as_mut().and_then(|t| t.call_mut(call_id)) else { return };
        if call.status == CallStatus::Done {
            return;
        }
        call.status = CallStatus::Done;
        let (call_id, name) = (call_id.to_owned(), call.call.name.clone());
        self.history.push(seq, Message::Tool { call_id, name, content });
    }

    /// True while a person's word is all that the running turn waits for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.turn.as_ref().is_some_and(Turn::is_waiting)
    }
}

impl Turn {
    /// What it has used up, of what the session has.
    pub(super) fn spent(&self, session: &Spent) -> Spent {
        let before = &self.spent_before;
        Spent {
            requests: session.requests.saturating_sub(before.requests),
            tokens: session.tokens.saturating_sub(before.tokens),
            tool_calls: session.tool_calls.saturating_sub(before.tool_calls),
            ms: session.ms.saturating_sub(before.ms),
            cost_micros: session.cost_micros.saturating_sub(before.cost_micros),
        }
    }

    fn call_mut(&mut self, call_id: &str) -> Option<&mut Call> {
        self.calls.iter_mut().find(|c| c.call.call_id == call_id)
    }

    /// True while a person's word is all it waits for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let mut open = self.calls.iter().map(|c| &c.status).filter(|s| **s != CallStatus::Done);
        self.phase == Phase::Tools && matches!(open.next(), Some(CallStatus::Waiting { .. }))
    }
}

impl CallStatus {
    /// The request this call waits for.
    #[must_use]
    pub fn approval_id(&self) -> Option<&str> {
        match self {
            Self::Waiting { approval_id, .. } => Some(approval_id),
            _ => None,
        }
    }
}
