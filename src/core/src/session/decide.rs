//! `decide`: from a state and an input to the events that follow and the effects they cause.

use super::budget::Spent;
use super::fail::Failed;
use super::input::{Accepted, Decided, Effect, Input, InputKind, Rejection, Rules, Timer};
use super::state::{State, digest};
use super::turn::{Call, CallStatus, Phase, Turn};
use crate::event::{Body, Decision, Denied, FailureKind, Scope, ToolOutcome, TurnReason};
use crate::message::Reply;
use crate::policy::{self, Verdict};
use crate::tool::{EffectClass, Tags, ToolCall};
use crate::{crc, json};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Messages that may wait in one session; above, senders are told to come back.
pub const QUEUE_MAX: usize = 64;
/// Calls in one answer; a model that asks for more has lost its way.
pub const CALLS_MAX: usize = 32;
/// Bytes of one answer, text, thinking and arguments together. Keeps every log line below the line limit even if each
/// byte is escaped to six.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a detail in an event.
pub(super) const DETAIL_BYTES_MAX: usize = 2048;

/// Says what follows from `input` in `state`, as far as it follows at once. Changes nothing.
///
/// # Errors
/// [`Rejection`] if the input cannot be taken; nothing follows from it then.
pub fn decide(state: &State, rules: &Rules, input: Input) -> Result<Decided, Rejection> {
    let paused = state.paused.is_some();
    let (at_ms, today) = (input.at_ms, input.today);
    let mut draft = Draft { state, rules, at_ms, today, paused, out: Decided::default() };
    match input.kind {
        InputKind::Create { session, agent, title, parent } => {
            draft.event(Body::SessionCreated { v: crate::event::LOG_VERSION, session, agent, title, parent });
        }
        InputKind::Message { content, source, idempotency_key, steps_max } => {
            draft.message(content, source, idempotency_key, steps_max)?;
        }
        InputKind::Cancel => draft.cancel()?,
        InputKind::Replied { turn, step, attempt, reply, duration_ms } => {
            draft.replied((turn, step, attempt), reply, duration_ms);
        }
        InputKind::Failed {
            turn,
            step,
            attempt,
            kind,
            detail,
            retry_after_ms,
            context_tokens,
            worked,
            duration_ms,
        } => {
            let failure = Failed { kind, detail: &detail, retry_after_ms, context_tokens, worked, duration_ms };
            draft.failed((turn, step, attempt), &failure);
        }
        InputKind::Reached { turn, back } => draft.reached(turn, back),
        InputKind::Proceed => draft.proceed(),
        InputKind::ToolDone { call_id, outcome } => draft.tool_done(call_id, outcome),
        InputKind::Decide { approval_id, decision, scope, by } => draft.decided(approval_id, decision, scope, by)?,
        InputKind::Timer(timer) => draft.timer(timer),
        InputKind::Opened { dropped_bytes, saved_as, failed } => draft.opened(dropped_bytes, saved_as, failed),
        InputKind::Pause { reason } => {
            if !paused {
                draft.event(Body::SessionPaused { reason, retry_at_ms: None });
                draft.effect(Effect::StopWork);
            }
        }
        InputKind::Resume { reason } => draft.unpause(&reason),
        InputKind::Close { reason } => draft.close(reason)?,
    }
    Ok(draft.out)
}

/// Decisions in the making. Methods see the state before the input and keep what changes meanwhile in arguments.
pub(super) struct Draft<'a> {
    pub(super) state: &'a State,
    pub(super) rules: &'a Rules,
    pub(super) at_ms: u64,
    pub(super) today: Spent,
    pub(super) paused: bool,
    pub(super) out: Decided,
}

impl Draft<'_> {
    pub(super) fn event(&mut self, body: Body) {
        self.out.events.push(body);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.out.effects.push(effect);
    }

    fn message(
        &mut self,
        content: String,
        source: String,
        idempotency_key: Option<String>,
        steps_max: Option<u64>,
    ) -> Result<(), Rejection> {
        if let Some(known) = self.state.keys.iter().find(|k| Some(&k.key) == idempotency_key.as_ref()) {
            if known.content_crc != crc::crc32c(content.as_bytes()) {
                return Err(Rejection::KeyReused);
            }
            self.out.accepted = Some(Accepted { seq: known.seq, turn: known.turn });
            return Ok(());
        }
        if self.state.closed {
            return Err(Rejection::Closed);
        }
        if self.state.queue.len() as u64 >= self.rules.limits.queue_max.min(QUEUE_MAX as u64) {
            return Err(Rejection::QueueFull);
        }
        let turn = self.state.turns + 1;
        let seq = self.state.last_seq + 1;
        self.out.accepted = Some(Accepted { seq, turn });
        self.event(Body::MessageReceived { turn, source, content, idempotency_key, steps_max });
        if self.paused {
            // Whoever speaks wants an answer.
            self.unpause("message");
        }
        Ok(())
    }

    pub(super) fn unpause(&mut self, reason: &str) {
        if !self.paused {
            return;
        }
        self.unpaused(reason);
        if let Some(turn) = &self.state.turn {
            self.resume(turn, "paused");
        }
    }

    pub(super) fn unpaused(&mut self, reason: &str) {
        if core::mem::replace(&mut self.paused, false) {
            self.event(Body::SessionResumed { reason: reason.to_owned() });
        }
    }

    pub(super) fn start_turn(&mut self, turn: u64) {
        self.event(Body::TurnStarted { turn });
        self.arm_turn_limit(turn);
    }

    pub(super) fn arm_turn_limit(&mut self, turn: u64) {
        let after_ms = self.rules.limits.turn_ms_max;
        if after_ms > 0 {
            self.effect(Effect::SetTimer { after_ms, timer: Timer::TurnLimit { turn } });
        }
    }

    /// Ends the running turn.
    pub(super) fn finish_turn(&mut self, turn: &Turn, reason: TurnReason, detail: Option<&str>) {
        let detail = detail.map(|d| clip(d, DETAIL_BYTES_MAX).to_owned());
        self.event(Body::TurnFinished { turn: turn.turn, reason, detail, usage: turn.usage });
    }

    /// Ends the running turn from outside: whatever is open gets its result first.
    pub(super) fn abort_turn(&mut self, turn: &Turn, reason: TurnReason, detail: Option<&str>, why: &str) {
        for call in turn.calls.iter().filter(|c| c.status != CallStatus::Done) {
            self.event(Body::ToolInterrupted { call_id: call.call.call_id.clone(), reason: why.to_owned() });
        }
        self.effect(Effect::StopWork);
        if self.state.offline_until_ms.is_some() {
            // Nothing is left that waits for a model to come back.
            self.unpaused(why);
        }
        self.finish_turn(turn, reason, detail);
    }

    fn cancel(&mut self) -> Result<(), Rejection> {
        let turn = self.state.turn.as_ref().ok_or(Rejection::NothingRunning)?;
        self.out.accepted = Some(Accepted { seq: self.state.last_seq + 1, turn: turn.turn });
        self.abort_turn(turn, TurnReason::Cancelled, None, "cancelled");
        Ok(())
    }

    fn close(&mut self, reason: String) -> Result<(), Rejection> {
        if self.state.closed {
            return Err(Rejection::Closed);
        }
        self.event(Body::SessionClosed { reason });
        if let Some(turn) = &self.state.turn {
            self.abort_turn(turn, TurnReason::Cancelled, Some("the session was closed"), "cancelled");
        }
        Ok(())
    }

    /// The running turn, if it waits for exactly this model call.
    pub(super) fn asked(&self, (number, step, attempt): (u64, u64, u64)) -> Option<&Turn> {
        let turn = self.state.turn.as_ref()?;
        let same = turn.turn == number
            && turn.step == step
            && matches!(turn.phase, Phase::Model { attempt: a, .. } if a == attempt);
        (same && !self.paused).then_some(turn)
    }

    fn replied(&mut self, asked: (u64, u64, u64), mut reply: Reply, duration_ms: u64) {
        let Some(turn) = self.asked(asked).cloned() else { return };
        let bytes: usize = reply.tool_calls.iter().map(|c| c.name.len() + c.arguments.len()).sum();
        let bytes = bytes
            + reply.text.len()
            + reply.thinking.as_ref().map_or(0, String::len)
            + reply.blocks.as_ref().map_or(0, String::len);
        if bytes > REPLY_BYTES_MAX || reply.tool_calls.len() > CALLS_MAX {
            let calls = reply.tool_calls.len();
            let detail = format!(
                "the model answered with {bytes} bytes and {calls} tool calls, at most {REPLY_BYTES_MAX} and {CALLS_MAX} are taken"
            );
            let failure = Failed {
                kind: FailureKind::BadToolCall,
                detail: &detail,
                retry_after_ms: None,
                context_tokens: None,
                worked: true,
                duration_ms,
            };
            return self.failed(asked, &failure);
        }
        if matches!(turn.phase, Phase::Model { summary: true, .. }) {
            return self.summed_up(&turn, &reply, duration_ms);
        }
        for (call, n) in reply.tool_calls.iter_mut().zip(1..) {
            call.call_id = format!("c{}-{}-{n}", turn.turn, turn.step);
            call.arguments = valid_arguments(&call.arguments);
        }
        if reply.usage.cost_micros == 0 {
            reply.usage.cost_micros = self.model(&turn).price.of(&reply.usage);
        }
        let calls = reply.tool_calls.clone();
        self.event(Body::ModelResponded {
            turn: turn.turn,
            step: turn.step,
            text: reply.text,
            thinking: reply.thinking,
            blocks: reply.blocks,
            tool_calls: reply.tool_calls,
            usage: reply.usage,
            finish_reason: reply.finish_reason,
            duration_ms,
        });
        for call in &calls {
            // Whatever may run waits for its turn.
            let _ = self.admit(call, false);
        }
    }

    /// True if policy lets a call run, which somebody may have `granted`; a refusal or a request becomes an event at once.
    fn admit(&mut self, call: &ToolCall, granted: bool) -> bool {
        let Some(decl) = self.rules.tools.iter().find(|t| t.name == call.name) else {
            let names: Vec<&str> = self.rules.tools.iter().map(|t| t.name.as_str()).collect();
            let result = format!("there is no tool {:?}; there are: {}", call.name, names.join(", "));
            self.refuse(call, result, None);
            return false;
        };
        let argument = policy::argument(&decl.policy, &call.arguments, &self.rules.workdir);
        let ruling = policy::evaluate(&self.rules.policies, &call.name, &argument);
        match ruling.verdict {
            Verdict::Allow => return true,
            Verdict::Deny => {
                let what = ruling.rule.unwrap_or_else(|| "mode: deny".to_owned());
                let hint = "this is not allowed here; find another way or tell the user".to_owned();
                let denied = Denied { kind: "policy".to_owned(), what, hint };
                self.refuse(call, "refused by policy".to_owned(), Some(denied));
            }
            Verdict::Ask => {
                let digest = digest(call);
                if granted || self.state.grants.contains(&digest) {
                    return true;
                }
                self.request(call, digest, None);
            }
        }
        false
    }

    /// Asks for somebody's word on a call.
    fn request(&mut self, call: &ToolCall, digest: String, reason: Option<String>) {
        // Our ids begin with a `c`; those of a log that was brought in may be anything.
        let approval_id = format!("a{}", call.call_id.strip_prefix('c').unwrap_or(&call.call_id));
        let after_ms = self.rules.limits.approval_ms_max;
        let expires_at_ms = self.at_ms.saturating_add(after_ms);
        self.event(Body::ApprovalRequested {
            approval_id: approval_id.clone(),
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            digest,
            expires_at_ms,
            reason,
        });
        self.effect(Effect::SetTimer { after_ms, timer: Timer::Approval { approval_id } });
    }

    fn refuse(&mut self, call: &ToolCall, result: String, denied: Option<Denied>) {
        let outcome = ToolOutcome { result, denied, ..ToolOutcome::default() };
        self.event(Body::ToolFinished { call_id: call.call_id.clone(), outcome });
    }

    /// Does what is due, if anything is: the next turn, the first open call, the next request.
    fn proceed(&mut self) {
        if self.paused || self.state.closed {
            return;
        }
        let Some(turn) = &self.state.turn else {
            if let Some(next) = self.state.queue.front() {
                self.start_turn(next.turn);
            }
            return;
        };
        match turn.phase {
            Phase::Asking { step, attempt } => self.ask(turn, step, attempt),
            Phase::Tools => match turn.next_call() {
                Some(Call { call, status: CallStatus::Refused { approval_id, expired } }) => {
                    self.disapproved(call.call_id.clone(), approval_id.clone(), *expired);
                }
                Some(Call { call, status: CallStatus::Ready { granted } }) => self.start_call(turn, call, *granted),
                Some(_) => {}
                None if turn.calls.is_empty() => self.finish_turn(turn, TurnReason::Completed, None),
                None => self.ask(turn, turn.step + 1, 1),
            },
            Phase::Model { .. } | Phase::Backoff { .. } => {}
        }
    }

    fn start_call(&mut self, turn: &Turn, call: &ToolCall, granted: bool) {
        // Once more: a log that was cut in the middle of a commit may have the call, and not what policy said of it; and a
        // deny that was written after the request is not lifted by a grant.
        if !self.admit(call, granted) {
            return;
        }
        let decl = self.rules.tools.iter().find(|t| t.name == call.name);
        let (effect, tags) = decl.map_or((EffectClass::Once, Tags::default()), |t| (t.effect, t.tags));
        // Looked at now and not with the others: what a call before it in the same answer has brought in counts.
        if tags.egress && self.state.seen.private && self.state.seen.untrusted && !granted {
            let digest = digest(call);
            if !self.state.grants.contains(&digest) {
                return self.request(call, digest, Some("egress".to_owned()));
            }
        }
        let more = Spent { tool_calls: 1, ..Spent::default() };
        if let Some(detail) = self.rules.budgets.refusal(self.state, &self.today, &more) {
            return self.abort_turn(turn, TurnReason::Limit, Some(&detail), "limit");
        }
        self.event(Body::ToolStarted {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
            effect,
            sandbox: self.rules.sandbox.clone(),
            tags,
        });
        self.effect(Effect::RunTool { call: call.clone() });
    }

    fn tool_done(&mut self, call_id: String, outcome: ToolOutcome) {
        let calls = self.state.turn.iter().flat_map(|t| &t.calls);
        let running = |c: &Call| c.call.call_id == call_id && matches!(c.status, CallStatus::Running(_));
        if !self.paused && calls.into_iter().any(running) {
            self.event(Body::ToolFinished { call_id, outcome });
        }
    }

    fn decided(&mut self, approval_id: String, decision: Decision, scope: Scope, by: String) -> Result<(), Rejection> {
        let turn = self.state.turn.as_ref().ok_or(Rejection::NoSuchApproval)?;
        let call = turn.calls.iter().find(|c| c.status.approval_id() == Some(&approval_id));
        let call = &call.ok_or(Rejection::NoSuchApproval)?.call;
        let call_id = call.call_id.clone();
        let expired = by == EXPIRY;
        if decision == Decision::Grant && scope == Scope::Always {
            self.effect(Effect::AllowAlways { call: call.clone() });
        }
        self.event(Body::ApprovalDecided { approval_id: approval_id.clone(), decision, scope, by });
        if decision == Decision::Deny {
            self.disapproved(call_id, approval_id, expired);
        }
        Ok(())
    }

    fn disapproved(&mut self, call_id: String, approval_id: String, expired: bool) {
        let result = if expired { "nobody approved this in time" } else { "the user did not approve this" };
        let hint = "do not ask for the same call again; find another way or ask the user".to_owned();
        let denied = Denied { kind: "approval".to_owned(), what: approval_id, hint };
        let outcome = ToolOutcome { result: result.to_owned(), denied: Some(denied), ..ToolOutcome::default() };
        self.event(Body::ToolFinished { call_id, outcome });
    }

    fn timer(&mut self, timer: Timer) {
        let Some(turn) = self.state.turn.clone() else { return };
        match timer {
            Timer::Retry { turn: number, step, attempt } => {
                let due = matches!(turn.phase, Phase::Backoff { attempt: a, .. } if a == attempt);
                if due && turn.turn == number && turn.step == step && !self.paused {
                    self.ask(&turn, step, attempt + 1);
                }
            }
            Timer::TurnLimit { turn: number } if turn.turn == number && !self.paused && !turn.is_held(self.at_ms) => {
                let seconds = self.rules.limits.turn_ms_max / 1000;
                let detail = format!("turn_seconds_max: the turn took longer than {seconds} s");
                self.abort_turn(&turn, TurnReason::Limit, Some(&detail), "limit");
            }
            // A person's thinking time does not count, nor a pause that a server asked for: another full span begins.
            Timer::TurnLimit { turn: number } if turn.turn == number => self.arm_turn_limit(number),
            Timer::TurnLimit { .. } => {}
            Timer::Online { turn: number } if turn.turn == number && self.state.offline_until_ms.is_some() => {
                self.effect(Effect::Reach { turn: number });
            }
            Timer::Offline { turn: number } if turn.turn == number && self.state.offline_until_ms.is_some() => {
                self.given_up(&turn);
            }
            Timer::Online { .. } | Timer::Offline { .. } => {}
            Timer::Approval { approval_id } => {
                // Open still, or there is nothing to do.
                let _ = self.decided(approval_id, Decision::Deny, Scope::Once, EXPIRY.to_owned());
            }
        }
    }
}

/// `by` of a decision that time made.
pub(super) const EXPIRY: &str = "expiry";

/// Arguments as the log can carry them: compact JSON of an object as it is, anything else as a JSON string, which every
/// tool answers with what it expected.
fn valid_arguments(text: &str) -> String {
    let text = if text.trim().is_empty() { "{}" } else { text };
    json::parse(text).unwrap_or_else(|_| json::Value::String(text.to_owned())).to_string()
}

/// The longest prefix of at most `max` bytes that ends at a character.
pub(super) fn clip(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
