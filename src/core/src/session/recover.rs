//! What a crash leaves, and how it is settled when the log is opened (design.md, "What a crash leaves").

use super::decide::Draft;
use super::input::{Effect, Timer};
use super::turn::{CallStatus, Phase, Turn};
use crate::event::{Body, TurnReason};
use crate::tool::EffectClass;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// Before the year 2024 no clock was right that this program saw: milliseconds since the epoch.
const UNSET_MS_MAX: u64 = 1_704_067_200_000;

/// Crashes in the same step after which the turn is given up.
pub const CRASHES_MAX: u64 = 3;

impl Draft<'_> {
    /// The log was opened: settles what was in flight when it was last written.
    pub(super) fn opened(&mut self, dropped_bytes: u64, saved_as: Option<String>, failed: bool) {
        let turn = self.state.turn.clone();
        // A turn that waits for a person has nothing in flight: being opened again is no crash of it. Nor is a stop in
        // good order, which left `session_paused` behind, nor a full disk.
        let in_flight = |t: &Turn| !t.is_waiting() && !matches!(t.phase, Phase::Backoff { .. });
        let crashed = turn.as_ref().is_some_and(in_flight) && !self.paused && !failed;
        let crashes = self.state.crashes + u64::from(crashed);
        if dropped_bytes > 0 || crashed {
            let reason = if crashed { "unfinished_turn" } else { "torn_tail" }.to_owned();
            let turn = turn.as_ref().filter(|_| crashed).map(|t| t.turn);
            self.event(Body::SessionRecovered { reason, dropped_bytes, saved_as, turn, crashes });
        }
        let stopped = self.paused;
        if let (Some(turn), Some(until_ms)) = (&turn, self.state.offline_until_ms) {
            // Parked: it stays so until a provider is back. Never longer than was planned, whatever the wall clock says.
            let planned = until_ms.saturating_sub(self.state.last_at_ms);
            return self.watch(turn.turn, until_ms.saturating_sub(self.at_ms).min(planned));
        }
        if turn.is_some() && core::mem::replace(&mut self.paused, false) {
            self.event(Body::SessionResumed { reason: "opened".to_owned() });
        }
        match turn {
            Some(turn) if crashes >= CRASHES_MAX => {
                let detail = format!("the runtime crashed {crashes} times in step {} of this turn", turn.step);
                self.abort_turn(&turn, TurnReason::Quarantined, Some(&detail), "crash");
            }
            Some(turn) => self.resume(
                &turn,
                if stopped {
                    "paused"
                } else if failed {
                    "log_failed"
                } else {
                    "crash"
                },
            ),
            None => {}
        }
    }

    /// Takes the turn up where it was; a `once` call that was running is closed with the reason `why`.
    pub(super) fn resume(&mut self, turn: &Turn, why: &str) {
        self.arm_turn_limit(turn.turn);
        match turn.phase {
            Phase::Asking { .. } => {}
            Phase::Model { attempt, .. } => self.ask(turn, turn.step, attempt + 1),
            Phase::Backoff { attempt, until_ms } => {
                // The wall clock may have jumped either way while we were gone: never wait longer than was planned.
                let planned = until_ms.saturating_sub(self.state.last_at_ms);
                let after_ms = until_ms.saturating_sub(self.at_ms).min(planned);
                let timer = Timer::Retry { turn: turn.turn, step: turn.step, attempt };
                self.effect(Effect::SetTimer { after_ms, timer });
            }
            Phase::Tools => self.resume_calls(turn, why),
        }
    }

    fn resume_calls(&mut self, turn: &Turn, why: &str) {
        for call in &turn.calls {
            match &call.status {
                CallStatus::Running(EffectClass::Once) => {
                    let call_id = call.call.call_id.clone();
                    self.event(Body::ToolInterrupted { call_id, reason: why.to_owned() });
                }
                // Its `tool_started` is in the log, and `session_recovered` says why it runs again.
                CallStatus::Running(_) => self.effect(Effect::RunTool { call: call.call.clone() }),
                CallStatus::Waiting { approval_id, expires_at_ms, .. } => {
                    // The clock may have been set since, or set back: never longer than was planned, and not at once because
                    // it was 1970 when somebody was asked.
                    let full = self.rules.limits.approval_ms_max;
                    let left = expires_at_ms.saturating_sub(self.at_ms).min(full);
                    let after_ms =
                        if *expires_at_ms < UNSET_MS_MAX && self.at_ms >= UNSET_MS_MAX { full } else { left };
                    let timer = Timer::Approval { approval_id: approval_id.clone() };
                    self.effect(Effect::SetTimer { after_ms, timer });
                }
                CallStatus::Ready { .. } | CallStatus::Refused { .. } | CallStatus::Done => {}
            }
        }
    }
}
