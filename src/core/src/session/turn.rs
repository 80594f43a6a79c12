//! The running turn: what it waits for, its calls, and what is counted in it.

use super::budget::Spent;
use super::state::push_bounded;
use crate::event::Usage;
use crate::tool::{EffectClass, ToolCall};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// A pause of more than this was asked for by the server: our own end after half of it.
const PAUSE_LONG_MS: u64 = 60_000;
/// Different calls of a turn that are watched for repetition; whoever goes round in a wider circle has other limits.
pub const REPEATS_WATCHED_MAX: usize = 16;

/// How far a call of the running turn is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStatus {
    /// May run when those before it are done.
    Ready {
        /// True if somebody allowed exactly this call.
        granted: bool,
    },
    /// Waits for somebody's word.
    Waiting {
        /// The request.
        approval_id: String,
        /// SHA-256 of the exact call.
        digest: String,
        /// When it counts as denied, in milliseconds since the epoch.
        expires_at_ms: u64,
        /// Why somebody has to decide, if it was no rule of theirs.
        reason: Option<String>,
    },
    /// Was not approved, and its result is not in the log. Only ever seen inside one commit, and in a log that was cut in one.
    Refused {
        /// The request.
        approval_id: String,
        /// True if it was time that decided.
        expired: bool,
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
    /// Nothing: the model is about to be asked. Only ever seen inside one commit, and while no model can be reached.
    Asking {
        /// Step of that request.
        step: u64,
        /// Attempt of that request.
        attempt: u64,
    },
    /// The model.
    Model {
        /// Attempt within the step, from 1.
        attempt: u64,
        /// True if it was asked for a summary.
        summary: bool,
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
    /// Provider and model that is asked, or will be; empty for the agent's own.
    pub asked: (String, String),
    /// Tokens that the last prompt was taken for.
    pub estimate: u64,
    /// Failures of that model since it last answered.
    pub tries: u64,
    /// Answers with a malformed call since the last good one.
    pub bad_calls: u64,
    /// Requests that were too long for the model.
    pub too_long: u64,
    /// How often it was parked since a model last answered.
    pub parks: u64,
    /// Last step before which a summary was asked for; 0 for none.
    pub summary_step: u64,
    /// Calls that came back, with their results, oldest first.
    pub repeats: VecDeque<Repeat>,
}

/// A call that came back with a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// Checksum of call and result.
    pub crc: u32,
    /// Tool name.
    pub name: String,
    /// How often in the turn.
    pub count: u64,
}

impl Turn {
    /// What it has used up, of what the session has.
    pub(super) fn spent(&self, session: &Spent) -> Spent {
        session.minus(&self.spent_before)
    }

    /// The request under way came to nothing, or was not made: another one follows.
    pub(super) fn ask_again(&mut self) {
        self.phase = match self.phase {
            Phase::Asking { .. } => return,
            Phase::Model { attempt, .. } | Phase::Backoff { attempt, .. } => {
                Phase::Asking { step: self.step, attempt: attempt + 1 }
            }
            Phase::Tools => Phase::Asking { step: self.step + 1, attempt: 1 },
        };
    }

    /// Notes that a call came back.
    pub(super) fn repeat(&mut self, call_id: &str, result: &str) {
        let Some(call) = self.calls.iter().find(|c| c.call.call_id == call_id).map(|c| &c.call) else { return };
        let mut crc = crate::crc::Crc32c::default();
        for part in [&call.name, "\0", &call.arguments, "\0", result] {
            crc = crc.update(part.as_bytes());
        }
        let crc = crc.value();
        match self.repeats.iter_mut().find(|known| known.crc == crc) {
            Some(known) => known.count += 1,
            None => {
                let repeat = Repeat { crc, name: call.name.clone(), count: 1 };
                push_bounded(&mut self.repeats, repeat, REPEATS_WATCHED_MAX);
            }
        }
    }

    /// What is to be looked at next: a refusal that was not finished, else the first open call.
    pub(super) fn next_call(&self) -> Option<&Call> {
        let refused = self.calls.iter().find(|c| matches!(c.status, CallStatus::Refused { .. }));
        refused.or_else(|| self.calls.iter().find(|c| c.status != CallStatus::Done))
    }

    /// The first open call of this id: a log that was brought in may have an id twice, and each call has to come to its end.
    pub(super) fn call_mut(&mut self, call_id: &str) -> Option<&mut Call> {
        self.calls.iter_mut().find(|c| c.call.call_id == call_id && c.status != CallStatus::Done)
    }

    /// True while it waits for what is not its own doing: a person's word, or the end of a pause that a server asked for.
    pub(super) fn is_held(&self, at_ms: u64) -> bool {
        let long = |until_ms: u64| until_ms > at_ms.saturating_add(PAUSE_LONG_MS);
        self.is_waiting() || matches!(self.phase, Phase::Backoff { until_ms, .. } if long(until_ms))
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
