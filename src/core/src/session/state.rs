//! What a session is at a point of its log, and `apply`, the only code that changes it: live and in replay.

use super::budget::Meter;
use super::decide::EXPIRY;
use super::history::History;
use super::turn::{Call, CallStatus, Phase, Turn};
use crate::crc::crc32c;
use crate::event::{Body, Decision, Denied, Event, FailureKind, Scope, ToolOutcome, TurnReason, Usage};
use crate::json::ObjectWriter;
use crate::message::{Blocks, Message};
use crate::tool::{Tags, ToolCall};
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
/// Most that an estimate of tokens is corrected by, in thousandths.
const PERMILLE_MAX: u64 = 3000;
/// Reason of a pause because no model can be reached.
pub const OFFLINE: &str = "offline";
/// Reason of a pause because the disk is full.
pub const DISK_FULL: &str = "disk_full";

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

/// What was learned of a model, from what it counted and refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Model name.
    pub model: String,
    /// Thousandths by which its tokens outnumber our estimate; never below 1000.
    pub permille: u64,
    /// Its real window in tokens, if a failure told it.
    pub context_tokens: Option<u64>,
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
    /// If that is because no model can be reached: when one is to be tried again at the earliest.
    pub offline_until_ms: Option<u64>,
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
    /// Tags of all tools that were started.
    pub seen: Tags,
    /// What was learned of the model that was asked last.
    pub learned: Learned,
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

pub(super) fn push_bounded<T>(list: &mut VecDeque<T>, item: T, max: usize) {
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
            Body::TurnStarted { turn } => self.start_turn(event.seq, *turn),
            Body::TurnFinished { turn, reason, detail, usage } => self.finish_turn(*turn, *reason, detail, *usage),
            Body::SessionRecovered { crashes, turn: Some(_), .. } => self.crashes = *crashes,
            Body::SessionCompacted { through_seq, summary, usage, .. } => {
                self.usage.add(usage);
                if let Some(turn) = &mut self.turn {
                    turn.usage.add(usage);
                }
                self.history.compact(*through_seq, summary.clone());
                // Asked for before, or in the way of the next request: that comes now.
                if let Some(turn) = self.turn.as_mut().filter(|t| !matches!(t.phase, Phase::Tools)) {
                    turn.ask_again();
                }
            }
            Body::SessionPaused { reason, retry_at_ms } => self.pause(reason, *retry_at_ms),
            Body::SessionResumed { .. } => (self.paused, self.offline_until_ms) = (None, None),
            Body::SessionClosed { .. } => self.closed = true,
            Body::SessionRecovered { .. } | Body::Unknown { .. } => {}
            body => self.apply_to_turn(event.seq, body),
        }
    }

    /// True if something is to be done and nothing is under way: neither a model nor a tool is at work, and nobody is waited for.
    pub(super) fn is_between(&self) -> bool {
        let Some(turn) = &self.turn else { return !self.queue.is_empty() };
        let running = |call: &super::turn::Call| matches!(call.status, CallStatus::Running(_));
        match turn.phase {
            Phase::Model { .. } | Phase::Backoff { .. } => false,
            Phase::Asking { .. } | Phase::Tools => !turn.is_waiting() && !turn.calls.iter().any(running),
        }
    }

    fn start_turn(&mut self, seq: u64, turn: u64) {
        let Some(at) = self.queue.iter().position(|q| q.turn == turn) else { return };
        let Some(Queued { content, steps_max, .. }) = self.queue.remove(at) else { return };
        self.history.push_turn(seq, content);
        self.crashes = 0;
        self.turn = Some(Turn {
            turn,
            step: 0,
            steps_max,
            phase: Phase::Asking { step: 1, attempt: 1 },
            calls: Vec::new(),
            usage: Usage::default(),
            answered: false,
            spent_before: self.meter.spent(),
            asked: Default::default(),
            estimate: 0,
            tries: 0,
            bad_calls: 0,
            too_long: 0,
            parks: 0,
            summary_step: 0,
            repeats: VecDeque::new(),
        });
    }

    fn pause(&mut self, reason: &str, retry_at_ms: Option<u64>) {
        self.paused = Some(reason.to_owned());
        self.offline_until_ms = None;
        if reason == OFFLINE {
            self.offline_until_ms = Some(retry_at_ms.unwrap_or(self.last_at_ms));
            if let Some(turn) = &mut self.turn {
                turn.ask_again();
                turn.tries = 0;
                turn.parks += 1;
            }
        }
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
            Body::ModelRequested { step, attempt, provider, model, reserved, summary, .. } => {
                turn.step = *step;
                turn.phase = Phase::Model { attempt: *attempt, summary: *summary };
                turn.calls.clear();
                turn.asked = (provider.clone(), model.clone());
                turn.estimate = reserved.input_tokens;
                if *summary {
                    turn.summary_step = *step;
                }
                if self.learned.model != *model {
                    self.learned = Learned { model: model.clone(), permille: 1000, context_tokens: None };
                }
            }
            Body::ModelSwitched { provider, model, .. } => {
                turn.asked = (provider.clone(), model.clone());
                turn.tries = 0;
                turn.ask_again();
            }
            Body::ModelFailed { .. } => self.model_failed(seq, body),
            Body::ModelResponded { .. } => self.model_responded(seq, body),
            Body::ApprovalRequested { approval_id, call_id, digest, expires_at_ms, reason, .. } => {
                if let Some(call) = turn.call_mut(call_id) {
                    let (approval_id, digest, reason) = (approval_id.clone(), digest.clone(), reason.clone());
                    call.status = CallStatus::Waiting { approval_id, digest, expires_at_ms: *expires_at_ms, reason };
                }
            }
            Body::ApprovalDecided { approval_id, decision: Decision::Grant, scope, .. } => {
                let granted = turn.calls.iter_mut().find(|c| c.status.approval_id() == Some(approval_id));
                if let Some(call) = granted {
                    if *scope != Scope::Once {
                        push_bounded(&mut self.grants, digest(&call.call), GRANTS_MAX);
                    }
                    call.status = CallStatus::Ready { granted: true };
                }
            }
            Body::ApprovalDecided { approval_id, by, .. } => {
                let denied = turn.calls.iter_mut().find(|c| c.status.approval_id() == Some(approval_id));
                if let Some(call) = denied {
                    call.status = CallStatus::Refused { approval_id: approval_id.clone(), expired: by == EXPIRY };
                }
            }
            Body::ToolStarted { call_id, effect, tags, .. } => {
                if let Some(call) = turn.call_mut(call_id) {
                    call.status = CallStatus::Running(*effect);
                    // From here on its results may be known, whatever becomes of it.
                    self.seen.add(*tags);
                }
            }
            Body::ToolFinished { call_id, outcome } => {
                self.crashes = 0;
                let text = result_text(outcome);
                turn.repeat(call_id, &text);
                self.close_call(seq, call_id, text);
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

    fn model_responded(&mut self, seq: u64, body: &Body) {
        let Body::ModelResponded { text, thinking, blocks, tool_calls, usage, .. } = body else { return };
        let Some(turn) = &mut self.turn else { return };
        turn.phase = Phase::Tools;
        turn.answered = true;
        let ready = |call: &ToolCall| Call { call: call.clone(), status: CallStatus::Ready { granted: false } };
        turn.calls = tool_calls.iter().map(ready).collect();
        (turn.tries, turn.bad_calls, turn.parks) = (0, 0, 0);
        turn.usage.add(usage);
        self.usage.add(usage);
        self.context_tokens = usage.input_tokens + usage.output_tokens;
        self.crashes = 0;
        // What it counted against what we took it for. Only upwards: who counts less may not have counted its cache.
        if turn.estimate > 0 && usage.input_tokens > turn.estimate {
            let permille = self.learned.permille.saturating_mul(usage.input_tokens) / turn.estimate;
            self.learned.permille = permille.min(PERMILLE_MAX);
        }
        let blocks = blocks.as_ref().map(|json| {
            let (provider, model) = turn.asked.clone();
            Blocks { provider, model, json: json.clone() }
        });
        let (content, thinking, tool_calls) = (text.clone(), thinking.clone(), tool_calls.clone());
        self.history.push(seq, Message::Assistant { content, thinking, blocks, tool_calls });
    }

    fn model_failed(&mut self, seq: u64, body: &Body) {
        let Body::ModelFailed { attempt, kind, detail, retry_at_ms, context_tokens, .. } = body else { return };
        let Some(turn) = &mut self.turn else { return };
        turn.tries += 1;
        let Some(until_ms) = *retry_at_ms else { return };
        match kind {
            FailureKind::BadToolCall => {
                turn.bad_calls += 1;
                turn.ask_again();
                let content = format!(
                    "Your last answer could not be used: {detail}. Call a tool with a JSON object of arguments that fits \
                     its schema, or answer in text."
                );
                self.history.push(seq, Message::User { content });
            }
            FailureKind::TooLong => {
                turn.too_long += 1;
                turn.ask_again();
                match *context_tokens {
                    Some(tokens) if self.learned.context_tokens.is_none_or(|known| tokens < known) => {
                        self.learned.context_tokens = Some(tokens);
                    }
                    _ => self.learned.permille = (self.learned.permille * 13 / 10).min(PERMILLE_MAX),
                }
            }
            _ => turn.phase = Phase::Backoff { attempt: *attempt, until_ms },
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
