//! `decide`: from a state and an input to the events that follow and the effects they cause.

use super::input::{Accepted, Decided, Effect, Input, InputKind, Rejection, Rules, Timer};
use super::state::{CallStatus, Phase, State, Turn, digest};
use crate::event::{Body, Decision, Denied, FailureKind, Scope, ToolOutcome, TurnReason, Usage};
use crate::message::Reply;
use crate::policy::{self, Verdict};
use crate::tool::ToolCall;
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
const DETAIL_BYTES_MAX: usize = 2048;
/// First pause before a model is asked again, in milliseconds; doubles with each attempt.
const BACKOFF_MS: u64 = 500;
/// The same for a server that is there but not ready, as one that loads a model: that takes longer than a hiccup.
const BACKOFF_BUSY_MS: u64 = 2000;
/// Longest pause we choose ourselves. A server may ask for a longer one.
const BACKOFF_MS_MAX: u64 = 30_000;
/// Longest pause a server may ask for.
const RETRY_AFTER_MS_MAX: u64 = 600_000;

/// Says what follows from `input` in `state`. Changes nothing.
///
/// # Errors
/// [`Rejection`] if the input cannot be taken; nothing follows from it then.
pub fn decide(state: &State, rules: &Rules, input: Input) -> Result<Decided, Rejection> {
    let paused = state.paused.is_some();
    let mut draft = Draft { state, rules, at_ms: input.at_ms, paused, out: Decided::default() };
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
        InputKind::Failed { turn, step, attempt, kind, detail, retry_after_ms, .. } => {
            draft.failed((turn, step, attempt), kind, &detail, retry_after_ms);
        }
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
        if self.state.queue.len() >= QUEUE_MAX {
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
        if self.state.turn.is_none() {
            let first = self.state.queue.front().map_or(turn, |q| q.turn);
            self.start_turn(first);
        }
        Ok(())
    }

    fn unpause(&mut self, reason: &str) {
        if !core::mem::replace(&mut self.paused, false) {
            return;
        }
        self.event(Body::SessionResumed { reason: reason.to_owned() });
        if let Some(turn) = &self.state.turn {
            self.resume(turn, "paused");
        }
    }

    pub(super) fn start_turn(&mut self, turn: u64) {
        self.event(Body::TurnStarted { turn });
        self.arm_turn_limit(turn);
        self.ask_model(turn, 1, 1);
    }

    pub(super) fn arm_turn_limit(&mut self, turn: u64) {
        let after_ms = self.rules.limits.turn_ms_max;
        if after_ms > 0 {
            self.effect(Effect::SetTimer { after_ms, timer: Timer::TurnLimit { turn } });
        }
    }

    pub(super) fn ask_model(&mut self, turn: u64, step: u64, attempt: u64) {
        let asked = self.rules.model.clone();
        let (provider, model, reserved) = (asked.provider, asked.name, Usage::default());
        self.event(Body::ModelRequested { turn, step, attempt, provider, model, reserved, summary: false });
        self.effect(Effect::CallModel { turn, step, attempt });
    }

    /// Ends the running turn and starts the next one that waits.
    pub(super) fn finish_turn(&mut self, turn: &Turn, usage: Usage, reason: TurnReason, detail: Option<&str>) {
        let detail = detail.map(|d| clip(d, DETAIL_BYTES_MAX).to_owned());
        self.event(Body::TurnFinished { turn: turn.turn, reason, detail, usage });
        if let Some(next) = self.state.queue.front()
            && !self.state.closed
            && !self.paused
        {
            self.start_turn(next.turn);
        }
    }

    /// Ends the running turn from outside: whatever is open gets its result first.
    pub(super) fn abort_turn(&mut self, turn: &Turn, reason: TurnReason, detail: Option<&str>, why: &str) {
        for call in turn.calls.iter().filter(|c| c.status != CallStatus::Done) {
            self.event(Body::ToolInterrupted { call_id: call.call.call_id.clone(), reason: why.to_owned() });
        }
        self.effect(Effect::StopWork);
        self.finish_turn(turn, turn.usage, reason, detail);
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
            // The next turn must not start: finish by hand instead of through `abort_turn`.
            for call in turn.calls.iter().filter(|c| c.status != CallStatus::Done) {
                self.event(Body::ToolInterrupted {
                    call_id: call.call.call_id.clone(),
                    reason: "cancelled".to_owned(),
                });
            }
            self.effect(Effect::StopWork);
            let detail = Some("the session was closed".to_owned());
            let (turn, usage) = (turn.turn, turn.usage);
            self.event(Body::TurnFinished { turn, reason: TurnReason::Cancelled, detail, usage });
        }
        Ok(())
    }

    /// The running turn, if it waits for exactly this model call.
    fn asked(&self, (number, step, attempt): (u64, u64, u64)) -> Option<&Turn> {
        let turn = self.state.turn.as_ref()?;
        let same = turn.turn == number && turn.step == step && turn.phase == Phase::Model { attempt };
        (same && !self.paused).then_some(turn)
    }

    fn replied(&mut self, asked: (u64, u64, u64), mut reply: Reply, duration_ms: u64) {
        let Some(turn) = self.asked(asked).cloned() else { return };
        let bytes: usize = reply.tool_calls.iter().map(|c| c.name.len() + c.arguments.len()).sum();
        let bytes = bytes + reply.text.len() + reply.thinking.as_ref().map_or(0, String::len);
        if bytes > REPLY_BYTES_MAX || reply.tool_calls.len() > CALLS_MAX {
            let calls = reply.tool_calls.len();
            let detail = format!(
                "the model answered with {bytes} bytes and {calls} tool calls, at most {REPLY_BYTES_MAX} and {CALLS_MAX} are taken"
            );
            return self.failed(asked, FailureKind::BadToolCall, &detail, None);
        }
        for (call, n) in reply.tool_calls.iter_mut().zip(1..) {
            call.call_id = format!("c{}-{}-{n}", turn.turn, turn.step);
            call.arguments = valid_arguments(&call.arguments);
        }
        let mut usage = turn.usage;
        usage.add(&reply.usage);
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
        let open: Vec<(ToolCall, CallStatus)> = calls
            .into_iter()
            .map(|call| {
                let status = self.admit(&call);
                (call, status)
            })
            .collect();
        if open.is_empty() {
            self.finish_turn(&turn, usage, TurnReason::Completed, None);
        } else {
            self.advance(&turn, usage, open.iter().map(|(c, s)| (c, s)));
        }
    }

    /// What policy says of a new call; refusals and requests become events at once.
    fn admit(&mut self, call: &ToolCall) -> CallStatus {
        let Some(decl) = self.rules.tools.iter().find(|t| t.name == call.name) else {
            let names: Vec<&str> = self.rules.tools.iter().map(|t| t.name.as_str()).collect();
            let result = format!("there is no tool {:?}; there are: {}", call.name, names.join(", "));
            return self.refuse(call, result, None);
        };
        let argument = policy::argument(&decl.policy, &call.arguments, &self.rules.workdir);
        let ruling = policy::evaluate(&self.rules.policies, &call.name, &argument);
        match ruling.verdict {
            Verdict::Allow => CallStatus::Ready,
            Verdict::Deny => {
                let what = ruling.rule.unwrap_or_else(|| "mode: deny".to_owned());
                let hint = "this is not allowed here; find another way or tell the user".to_owned();
                let denied = Denied { kind: "policy".to_owned(), what, hint };
                self.refuse(call, "refused by policy".to_owned(), Some(denied))
            }
            Verdict::Ask => {
                let digest = digest(call);
                if self.state.grants.contains(&digest) {
                    return CallStatus::Ready;
                }
                self.request(call, digest)
            }
        }
    }

    fn request(&mut self, call: &ToolCall, digest: String) -> CallStatus {
        let approval_id = format!("a{}", &call.call_id[1..]);
        let after_ms = self.rules.limits.approval_ms_max;
        let expires_at_ms = self.at_ms.saturating_add(after_ms);
        self.event(Body::ApprovalRequested {
            approval_id: approval_id.clone(),
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            digest: digest.clone(),
            expires_at_ms,
            reason: None,
        });
        let timer = Timer::Approval { approval_id: approval_id.clone() };
        self.effect(Effect::SetTimer { after_ms, timer });
        CallStatus::Waiting { approval_id, digest, expires_at_ms }
    }

    fn refuse(&mut self, call: &ToolCall, result: String, denied: Option<Denied>) -> CallStatus {
        let outcome = ToolOutcome { result, denied, ..ToolOutcome::default() };
        self.event(Body::ToolFinished { call_id: call.call_id.clone(), outcome });
        CallStatus::Done
    }

    /// Does the next thing: the first open call if it may run, the next model call if none is open.
    pub(super) fn advance<'c>(
        &mut self,
        turn: &Turn,
        usage: Usage,
        calls: impl Iterator<Item = (&'c ToolCall, &'c CallStatus)>,
    ) {
        for (call, status) in calls {
            match status {
                CallStatus::Done => {}
                CallStatus::Waiting { .. } | CallStatus::Running(_) => return,
                CallStatus::Ready if self.paused => return,
                CallStatus::Ready => return self.start_call(call),
            }
        }
        let steps_max = turn.steps_max.unwrap_or(u64::MAX).min(self.rules.limits.steps_max);
        if turn.step >= steps_max {
            let detail = format!("steps_max: the model was asked {steps_max} times in this turn");
            return self.finish_turn(turn, usage, TurnReason::Limit, Some(&detail));
        }
        if !self.paused {
            self.ask_model(turn.turn, turn.step + 1, 1);
        }
    }

    fn start_call(&mut self, call: &ToolCall) {
        // A tool that left the registry between request and run is refused by the runner; `once` is the safe class.
        let effect = self.rules.tools.iter().find(|t| t.name == call.name).map(|t| t.effect);
        self.event(Body::ToolStarted {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
            effect: effect.unwrap_or(crate::tool::EffectClass::Once),
            sandbox: self.rules.sandbox.clone(),
            tags: crate::tool::Tags::default(),
        });
        self.effect(Effect::RunTool { call: call.clone() });
    }

    /// [`Draft::advance`] over the state's calls, with one of them in another status.
    fn advance_with(&mut self, turn: &Turn, call_id: &str, status: &CallStatus) {
        let calls = turn.calls.iter().map(|c| (&c.call, if c.call.call_id == call_id { status } else { &c.status }));
        self.advance(turn, turn.usage, calls);
    }

    fn failed(&mut self, asked: (u64, u64, u64), kind: FailureKind, detail: &str, retry_after_ms: Option<u64>) {
        let Some(turn) = self.asked(asked).cloned() else { return };
        let attempt = asked.2;
        let again = kind.is_retryable() && attempt < self.rules.limits.attempts_max;
        let pause = retry_after_ms.unwrap_or_else(|| self.backoff(kind, attempt)).min(RETRY_AFTER_MS_MAX);
        self.event(Body::ModelFailed {
            turn: turn.turn,
            step: turn.step,
            attempt,
            kind,
            detail: clip(detail, DETAIL_BYTES_MAX).to_owned(),
            retry_at_ms: again.then(|| self.at_ms.saturating_add(pause)),
            usage: Usage::default(),
            context_tokens: None,
            duration_ms: 0,
        });
        if again {
            let timer = Timer::Retry { turn: turn.turn, step: turn.step, attempt };
            self.effect(Effect::SetTimer { after_ms: pause, timer });
        } else {
            self.finish_turn(&turn, turn.usage, TurnReason::Failed, Some(detail));
        }
    }

    /// Doubles with each attempt. Spread over a quarter by the time of day, which differs between sessions enough.
    fn backoff(&self, kind: FailureKind, attempt: u64) -> u64 {
        let first = if kind == FailureKind::Overloaded { BACKOFF_BUSY_MS } else { BACKOFF_MS };
        let base = first.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(BACKOFF_MS_MAX);
        base - (self.at_ms.wrapping_mul(0x9E37_79B9) >> 8) % (base / 4 + 1)
    }

    fn tool_done(&mut self, call_id: String, outcome: ToolOutcome) {
        let Some(turn) = self.state.turn.clone() else { return };
        let running = |c: &&super::Call| c.call.call_id == call_id && matches!(c.status, CallStatus::Running(_));
        if self.paused || !turn.calls.iter().any(|c| running(&c)) {
            return;
        }
        self.event(Body::ToolFinished { call_id: call_id.clone(), outcome });
        self.advance_with(&turn, &call_id, &CallStatus::Done);
    }

    fn decided(&mut self, approval_id: String, decision: Decision, scope: Scope, by: String) -> Result<(), Rejection> {
        let turn = self.state.turn.clone().ok_or(Rejection::NoSuchApproval)?;
        let call = turn.calls.iter().find(|c| c.status.approval_id() == Some(&approval_id));
        let call = &call.ok_or(Rejection::NoSuchApproval)?.call;
        let call_id = call.call_id.clone();
        let expired = by == EXPIRY;
        if decision == Decision::Grant && scope == Scope::Always {
            self.effect(Effect::AllowAlways { call: call.clone() });
        }
        self.event(Body::ApprovalDecided { approval_id: approval_id.clone(), decision, scope, by });
        let status = match decision {
            Decision::Grant => CallStatus::Ready,
            Decision::Deny => {
                let result = if expired { "nobody approved this in time" } else { "the user did not approve this" };
                let hint = "do not ask for the same call again; find another way or ask the user".to_owned();
                let denied = Denied { kind: "approval".to_owned(), what: approval_id, hint };
                let outcome = ToolOutcome { result: result.to_owned(), denied: Some(denied), ..ToolOutcome::default() };
                self.event(Body::ToolFinished { call_id: call_id.clone(), outcome });
                CallStatus::Done
            }
        };
        self.advance_with(&turn, &call_id, &status);
        Ok(())
    }

    fn timer(&mut self, timer: Timer) {
        let Some(turn) = self.state.turn.clone() else { return };
        match timer {
            Timer::Retry { turn: number, step, attempt } => {
                let due = matches!(turn.phase, Phase::Backoff { attempt: a, .. } if a == attempt);
                if due && turn.turn == number && turn.step == step && !self.paused {
                    self.ask_model(number, step, attempt + 1);
                }
            }
            Timer::TurnLimit { turn: number } if turn.turn == number && !turn.is_waiting() && !self.paused => {
                let seconds = self.rules.limits.turn_ms_max / 1000;
                let detail = format!("turn_seconds_max: the turn took longer than {seconds} s");
                self.abort_turn(&turn, TurnReason::Limit, Some(&detail), "limit");
            }
            // A person's thinking time does not count: another full span begins.
            Timer::TurnLimit { turn: number } if turn.turn == number => self.arm_turn_limit(number),
            Timer::TurnLimit { .. } => {}
            Timer::Approval { approval_id } => {
                // Open still, or there is nothing to do.
                let _ = self.decided(approval_id, Decision::Deny, Scope::Once, EXPIRY.to_owned());
            }
        }
    }
}

/// `by` of a decision that time made.
const EXPIRY: &str = "expiry";

/// Arguments as the log can carry them: compact JSON of an object as it is, anything else as a JSON string, which every
/// tool answers with what it expected.
fn valid_arguments(text: &str) -> String {
    let text = if text.trim().is_empty() { "{}" } else { text };
    json::parse(text).unwrap_or_else(|_| json::Value::String(text.to_owned())).to_string()
}

/// The longest prefix of at most `max` bytes that ends at a character.
fn clip(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
