//! What enters the machine, what leaves it, and what it decides by.

use super::budget::{Budgets, Price, Spent};
use crate::event::{Body, Decision, FailureKind, SandboxReport, Scope, ToolOutcome};
use crate::message::Reply;
use crate::policy::Policy;
use crate::tool::{ToolCall, ToolDecl};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Limits of a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Model calls in a turn.
    pub steps_max: u64,
    /// Wall time of a turn in milliseconds, by the monotonic clock since the runtime started or resumed it; 0 for none.
    pub turn_ms_max: u64,
    /// Attempts of one model call.
    pub attempts_max: u64,
    /// Milliseconds after which an approval request counts as denied.
    pub approval_ms_max: u64,
    /// Times that a call may come back with the same result in a turn before the turn is stopped.
    pub repeats_max: u64,
    /// Milliseconds that a turn may be parked because no model can be reached; 0 for not at all.
    pub offline_ms_max: u64,
    /// Messages that wait for their turn; at most 64 do, whatever this says.
    pub queue_max: u64,
}

/// A model of the agent's chain, and what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// Provider name.
    pub provider: String,
    /// Model name.
    pub name: String,
    /// Context window in tokens.
    pub context_tokens: u64,
    /// Tokens of it that are kept free for the answer.
    pub answer_tokens: u64,
    /// Tenths of a byte of prompt that are taken for a token, until the provider has said how many there were.
    pub token_tenths: u64,
    /// What its tokens cost.
    pub price: Price,
}

/// What happens to the older part of a conversation that has outgrown the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compaction {
    /// The model is asked for a summary that takes its place; if that fails, it is left out.
    #[default]
    Summary,
    /// It is left out, oldest first.
    Truncate,
}

/// What does not change while a session is live.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The agent's own model.
    pub model: Model,
    /// Those that are asked if it does not answer, in this order.
    pub fallbacks: Vec<Model>,
    /// Bytes of every request besides the conversation: system prompt and tools.
    pub prefix_bytes: u64,
    /// What happens to a conversation that has outgrown the window.
    pub compaction: Compaction,
    /// What may be used up.
    pub budgets: Budgets,
    /// Tools on offer.
    pub tools: Vec<ToolDecl>,
    /// Policies, the workspace's first.
    pub policies: Vec<Policy>,
    /// The agent's working directory, for policy on paths.
    pub workdir: String,
    /// What tools run in.
    pub sandbox: SandboxReport,
    /// Limits of a turn.
    pub limits: Limits,
}

impl Rules {
    /// The model at a place of the chain: 0 is the agent's own. Its own as well beyond the end.
    #[must_use]
    pub fn model_at(&self, place: usize) -> &Model {
        place.checked_sub(1).and_then(|at| self.fallbacks.get(at)).unwrap_or(&self.model)
    }
}

/// What enters.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Wall-clock milliseconds since the epoch.
    pub at_ms: u64,
    /// What all sessions of the workspace have spent today, this one included; only looked at if there is a budget for it.
    pub today: Spent,
    /// What it is.
    pub kind: InputKind,
}

/// Kinds of input. Those that answer an effect name what they answer; answers that come too late change nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum InputKind {
    /// First input of a new session.
    Create {
        /// Id.
        session: String,
        /// Agent.
        agent: String,
        /// For people.
        title: Option<String>,
        /// Session and seq it is forked from.
        parent: Option<(String, u64)>,
    },
    /// Somebody says something.
    Message {
        /// What.
        content: String,
        /// Where from.
        source: String,
        /// The same key means the same message.
        idempotency_key: Option<String>,
        /// Most model calls for its turn.
        steps_max: Option<u64>,
    },
    /// Somebody wants the running turn to end.
    Cancel,
    /// The model answered.
    Replied {
        /// Turn asked for.
        turn: u64,
        /// Step asked for.
        step: u64,
        /// Attempt asked for.
        attempt: u64,
        /// Its answer, whole.
        reply: Reply,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// The model did not.
    Failed {
        /// Turn asked for.
        turn: u64,
        /// Step asked for.
        step: u64,
        /// Attempt asked for.
        attempt: u64,
        /// Why.
        kind: FailureKind,
        /// Why, for people.
        detail: String,
        /// The server's own wish.
        retry_after_ms: Option<u64>,
        /// The model's real window in tokens, where the failure told it.
        context_tokens: Option<u64>,
        /// True if the model may have worked: its tokens count as used then.
        worked: bool,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// A tool came back.
    ToolDone {
        /// The call.
        call_id: String,
        /// What came of it.
        outcome: ToolOutcome,
    },
    /// Somebody decided on an approval.
    Decide {
        /// The request.
        approval_id: String,
        /// The word.
        decision: Decision,
        /// How far.
        scope: Scope,
        /// Who.
        by: String,
    },
    /// Somebody has looked whether a provider can be reached.
    Reached {
        /// Turn that is parked.
        turn: u64,
        /// True if one of the agent's can be.
        back: bool,
    },
    /// Nothing came in: whatever is due is done. [`super::step`] gives it after every other input.
    Proceed,
    /// A timer went off.
    Timer(Timer),
    /// The log was opened; `dropped_bytes` of a torn tail were saved as `saved_as`.
    Opened {
        /// Bytes cut off.
        dropped_bytes: u64,
        /// Where they are.
        saved_as: Option<String>,
        /// True if the log failed while this very process had it open: nothing crashed.
        failed: bool,
    },
    /// The runtime is about to stop in good order, or a client's going pauses the session.
    Pause {
        /// Why.
        reason: String,
    },
    /// Somebody is there again: what was paused goes on.
    Resume {
        /// Why.
        reason: String,
    },
    /// No more messages, please.
    Close {
        /// Why.
        reason: String,
    },
}

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// Ask the model again.
    Retry {
        /// Turn.
        turn: u64,
        /// Step.
        step: u64,
        /// Attempt that failed.
        attempt: u64,
    },
    /// The turn has had its wall time.
    TurnLimit {
        /// Turn.
        turn: u64,
    },
    /// Look whether a provider can be reached again.
    Online {
        /// Turn that is parked.
        turn: u64,
    },
    /// The turn was parked for as long as it may be.
    Offline {
        /// Turn.
        turn: u64,
    },
    /// The approval request has had its time.
    Approval {
        /// The request.
        approval_id: String,
    },
}

/// What leaves: work for the runtime, to be done only once the events beside it are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the model, with the history as it is after the events.
    CallModel {
        /// Turn.
        turn: u64,
        /// Step.
        step: u64,
        /// Attempt.
        attempt: u64,
    },
    /// Run a tool.
    RunTool {
        /// The call, with the session's call id.
        call: ToolCall,
    },
    /// Give the input back after a while, by the monotonic clock.
    SetTimer {
        /// Milliseconds from now.
        after_ms: u64,
        /// What comes back.
        timer: Timer,
    },
    /// Look whether one of the agent's providers can be reached, and say so by [`InputKind::Reached`].
    Reach {
        /// Turn that is parked.
        turn: u64,
    },
    /// Stop whatever runs for the turn; nobody waits for it any more.
    StopWork,
    /// Write a rule that allows this call from now on into the agent's policy file.
    AllowAlways {
        /// The call.
        call: ToolCall,
    },
}

/// Why an input was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The session is closed.
    Closed,
    /// As many messages wait already as may.
    QueueFull,
    /// The idempotency key came with another message before.
    KeyReused,
    /// No turn runs.
    NothingRunning,
    /// No such request, or it was decided already.
    NoSuchApproval,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the session is closed"),
            Self::QueueFull => f.write_str("as many messages are waiting already as may, wait for a turn to finish"),
            Self::KeyReused => f.write_str("the idempotency key was used for another message, use a new one"),
            Self::NothingRunning => f.write_str("no turn is running"),
            Self::NoSuchApproval => f.write_str("no such approval is open, it may have been decided already"),
        }
    }
}

impl core::error::Error for Rejection {}

/// What an input was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// First event about it.
    pub seq: u64,
    /// Its turn.
    pub turn: u64,
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "events that are not appended never happened, effects that are not run are forgotten"]
pub struct Decided {
    /// To be appended, in this order, in one commit.
    pub events: Vec<Body>,
    /// To be run after that commit, in this order.
    pub effects: Vec<Effect>,
    /// For a message: where it went, or where the same one went before. For a cancel: the turn that it ended.
    pub accepted: Option<Accepted>,
}
