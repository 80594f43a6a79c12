//! Events: immutable facts in the past tense. The log is a list of them, and the session state is what
//! [`crate::session`]'s `apply` makes of that list.
//!
//! Wire names and fields are those of docs/formats.md. Texts that are JSON themselves (tool arguments) are kept as
//! compact JSON text and written unquoted.

mod words;

pub use words::{Decision, FailureKind, Scope, TurnReason};

use crate::tool::{EffectClass, Tags, ToolCall};
use alloc::string::String;
use alloc::vec::Vec;

/// Major version of the event log that this build writes.
pub const LOG_VERSION: u64 = 1;

/// A fact with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position, from 1, without gaps.
    pub seq: u64,
    /// Wall-clock time of the decision in milliseconds since the Unix epoch. Order is `seq`, never this.
    pub at_ms: u64,
    /// What happened.
    pub body: Body,
}

/// Tokens and such, as the provider reported them; 0 where it said nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, those read from the server's cache included.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Of the prompt, those that the server had in its cache.
    pub cached_tokens: u64,
    /// What it cost, in millionths of whatever the price table or the provider counts in; 0 without either.
    pub cost_micros: u64,
}

impl Usage {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.cost_micros = self.cost_micros.saturating_add(other.cost_micros);
    }

    /// True if the provider said nothing: a prompt has tokens.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.input_tokens == 0 && self.output_tokens == 0
    }
}

/// What stood between a tool and the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxReport {
    /// `trust`, `bubblewrap`, `landlock`.
    pub backend: String,
    /// `full`, `partial`, `none`: what the kernel said it enforces.
    pub enforcement: String,
    /// Version of the kernel's Landlock interface, if the backend rests on it.
    pub landlock_abi: Option<u64>,
}

/// Why a tool call was not allowed to do what it wanted; goes to the model beside the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// `policy`, `approval`, `fs`, `net`, `limit`, `timeout`.
    pub kind: String,
    /// The path, host, limit or pattern it was about.
    pub what: String,
    /// What the model or a person can do instead.
    pub hint: String,
}

impl Denied {
    /// What [`Denied::what`] is called for this kind, in the log and to the model.
    #[must_use]
    pub fn what_key(&self) -> &'static str {
        match self.kind.as_str() {
            "fs" => "path",
            "net" => "host",
            _ => "what",
        }
    }
}

/// What a tool call came back with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolOutcome {
    /// Text for the model: the whole output, or its head and tail.
    pub result: String,
    /// Exit code of the process, if there was one and it exited by itself.
    pub exit_code: Option<i64>,
    /// Set if something was refused.
    pub denied: Option<Denied>,
    /// True if `result` is not the whole output.
    pub truncated: bool,
    /// File name under the session's `artifacts/` with the whole output, if it was cut.
    pub artifact: Option<String>,
    /// Wall time in milliseconds, by the monotonic clock.
    pub duration_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// First line of every log.
    SessionCreated {
        /// [`LOG_VERSION`] of the writer.
        v: u64,
        /// Id of the session.
        session: String,
        /// Agent it talks to.
        agent: String,
        /// For people.
        title: Option<String>,
        /// Session and seq it was forked from.
        parent: Option<(String, u64)>,
    },
    /// A person or program said something; it will be answered in `turn`.
    MessageReceived {
        /// Turn that answers it.
        turn: u64,
        /// `cli`, `http`, a gateway's name.
        source: String,
        /// What was said.
        content: String,
        /// Key under which the sender may send it again without a second turn.
        idempotency_key: Option<String>,
        /// Most model calls the turn may make, if the sender set one below the configured limit.
        steps_max: Option<u64>,
    },
    /// The turn began.
    TurnStarted {
        /// Number, from 1.
        turn: u64,
    },
    /// The turn came to rest.
    TurnFinished {
        /// Number.
        turn: u64,
        /// How.
        reason: TurnReason,
        /// Why, for people, if it did not complete.
        detail: Option<String>,
        /// Sum over the turn.
        usage: Usage,
    },
    /// The model is about to be asked.
    ModelRequested {
        /// Turn.
        turn: u64,
        /// Model call within the turn, from 1.
        step: u64,
        /// Attempt within the step, from 1.
        attempt: u64,
        /// Provider name.
        provider: String,
        /// Model name.
        model: String,
        /// Tokens that the call may cost at the worst; what counts if its usage never becomes known.
        reserved: Usage,
        /// True if it is asked for a summary of the older part of the conversation instead of the next answer.
        summary: bool,
    },
    /// The model answered, whole.
    ModelResponded {
        /// Turn.
        turn: u64,
        /// Step.
        step: u64,
        /// Its text.
        text: String,
        /// Its thinking, if the provider wants it echoed.
        thinking: Option<String>,
        /// What the provider wants back with the next request as it was (signed thinking and such): compact JSON.
        blocks: Option<String>,
        /// Calls it asks for, in order.
        tool_calls: Vec<ToolCall>,
        /// Tokens; all 0 if the provider did not say: in budgets it counts as what was reserved then.
        usage: Usage,
        /// `stop`, `length`, `tool_calls`: as the provider said.
        finish_reason: String,
        /// Wall time in milliseconds, by the monotonic clock.
        duration_ms: u64,
    },
    /// The model call came to nothing.
    ModelFailed {
        /// Turn.
        turn: u64,
        /// Step.
        step: u64,
        /// Attempt that failed.
        attempt: u64,
        /// Why, for the machine.
        kind: FailureKind,
        /// Why, for people.
        detail: String,
        /// When it will be asked again; `None` if it will not.
        retry_at_ms: Option<u64>,
        /// True if the model may have worked: in budgets it counts as what was reserved. Else as a request without tokens.
        worked: bool,
        /// The model's real window in tokens, where the failure told it.
        context_tokens: Option<u64>,
        /// Wall time in milliseconds, by the monotonic clock.
        duration_ms: u64,
    },
    /// From here on another model of the agent's chain is asked in this turn.
    ModelSwitched {
        /// Turn.
        turn: u64,
        /// Step.
        step: u64,
        /// Provider that failed.
        from_provider: String,
        /// Its model.
        from_model: String,
        /// Provider that is asked instead.
        provider: String,
        /// Its model.
        model: String,
        /// What was wrong: a [`FailureKind`].
        reason: FailureKind,
    },
    /// A call waits for somebody's word.
    ApprovalRequested {
        /// Names the request; unique within the session.
        approval_id: String,
        /// The call.
        call_id: String,
        /// Tool name.
        name: String,
        /// SHA-256 over tool name, NUL and the compact arguments, lower-case hex: what is being approved, exactly.
        digest: String,
        /// After this it counts as denied.
        expires_at_ms: u64,
        /// Why a person has to decide, if it was no rule of theirs: `egress`.
        reason: Option<String>,
    },
    /// Somebody gave it, or time did.
    ApprovalDecided {
        /// The request.
        approval_id: String,
        /// The word.
        decision: Decision,
        /// How far it reaches.
        scope: Scope,
        /// `cli`, `http`, `expiry`.
        by: String,
    },
    /// A tool is about to run.
    ToolStarted {
        /// The call.
        call_id: String,
        /// Tool name.
        name: String,
        /// Compact JSON object.
        arguments: String,
        /// What a crash may do.
        effect: EffectClass,
        /// What it runs in.
        sandbox: SandboxReport,
        /// What its result makes of the session.
        tags: Tags,
    },
    /// The call has its result (also when policy or an approval refused it: then nothing ran).
    ToolFinished {
        /// The call.
        call_id: String,
        /// What came of it.
        outcome: ToolOutcome,
    },
    /// The call has no result and never will. Counts as its result.
    ToolInterrupted {
        /// The call.
        call_id: String,
        /// What came in between: `crash`, `cancelled`, `limit` (the turn's time was up), `paused` (a stop in good order, or the
        /// last client left), `log_failed` (nothing could be written for a while).
        reason: String,
    },
    /// The log was opened and something had to be settled.
    SessionRecovered {
        /// `torn_tail`, `unfinished_turn`, `repaired`.
        reason: String,
        /// Bytes cut off the end that were never acknowledged.
        dropped_bytes: u64,
        /// File beside the log that keeps them.
        saved_as: Option<String>,
        /// Turn that was unfinished.
        turn: Option<u64>,
        /// How often this step has crashed by now.
        crashes: u64,
    },
    /// Part of the history was replaced by a summary for the model; the log keeps all of it.
    SessionCompacted {
        /// Everything up to here is replaced.
        through_seq: u64,
        /// By this; empty if it was left out.
        summary: String,
        /// Tokens of the prompt before, estimated.
        tokens_before: u64,
        /// And after.
        tokens_after: u64,
        /// What asking for the summary used up; nothing if nobody was asked.
        usage: Usage,
        /// Wall time of that in milliseconds.
        duration_ms: u64,
    },
    /// New turns wait until it is resumed.
    SessionPaused {
        /// Why: `shutdown`, `offline` (no model can be reached), or a client's going.
        reason: String,
        /// For `offline`: before this nobody is asked again, unless somebody speaks.
        retry_at_ms: Option<u64>,
    },
    /// Goes on.
    SessionResumed {
        /// Why.
        reason: String,
    },
    /// Takes no more messages.
    SessionClosed {
        /// Why.
        reason: String,
    },
    /// A type this build does not know, of a major version it does: kept in the log, skipped in replay.
    Unknown {
        /// Its `type`.
        kind: String,
    },
}

impl Body {
    /// The wire name of the type.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::SessionCreated { .. } => "session_created",
            Self::MessageReceived { .. } => "message_received",
            Self::TurnStarted { .. } => "turn_started",
            Self::TurnFinished { .. } => "turn_finished",
            Self::ModelRequested { .. } => "model_requested",
            Self::ModelResponded { .. } => "model_responded",
            Self::ModelFailed { .. } => "model_failed",
            Self::ModelSwitched { .. } => "model_switched",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::ApprovalDecided { .. } => "approval_decided",
            Self::ToolStarted { .. } => "tool_started",
            Self::ToolFinished { .. } => "tool_finished",
            Self::ToolInterrupted { .. } => "tool_interrupted",
            Self::SessionRecovered { .. } => "session_recovered",
            Self::SessionCompacted { .. } => "session_compacted",
            Self::SessionPaused { .. } => "session_paused",
            Self::SessionResumed { .. } => "session_resumed",
            Self::SessionClosed { .. } => "session_closed",
            Self::Unknown { kind } => kind,
        }
    }
}
