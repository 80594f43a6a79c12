//! What front ends can ask of the runtime, in plain types. HTTP and the command line both speak this and nothing else.

use duragent_core::event::{Decision, Scope, TurnReason, Usage};
use duragent_core::json::ObjectWriter;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why a request was not done. Split by who is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// No such agent, session, approval.
    NotFound(String),
    /// It contradicts what is there: the id exists, the approval was decided, the session is closed.
    Conflict(String),
    /// The request itself is wrong.
    Invalid(String),
    /// The session's log is damaged; it can be read, not written.
    Damaged(String),
    /// Held by another process.
    Leased(String),
    /// A named limit is reached; later may work.
    Busy(String),
    /// No space left on the device.
    DiskFull(String),
    /// Our fault or the disk's.
    Internal(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotFound(text)
        | Self::Conflict(text)
        | Self::Invalid(text)
        | Self::Damaged(text)
        | Self::Leased(text)
        | Self::Busy(text)
        | Self::DiskFull(text)
        | Self::Internal(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for ApiError {}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing to do.
    Idle,
    /// In a turn.
    Running,
    /// In a turn that waits for an approval.
    Waiting,
    /// Takes messages but starts no turns.
    Paused,
    /// Takes no messages.
    Closed,
    /// Its log is damaged: read-only.
    Damaged,
}

impl Status {
    const ALL: [Self; 6] = [Self::Idle, Self::Running, Self::Waiting, Self::Paused, Self::Closed, Self::Damaged];

    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Closed => "closed",
            Self::Damaged => "damaged",
        }
    }

    /// Reads a wire name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// An agent in a list.
#[derive(Debug, Clone, Default)]
pub struct AgentInfo {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Provider it asks.
    pub provider: String,
    /// Model it asks for.
    pub model: String,
    /// Its tools.
    pub tools: Vec<String>,
    /// Why it cannot be used, if it cannot.
    pub error: Option<String>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this agent.
    pub agent: Option<String>,
    /// Doing this.
    pub status: Option<Status>,
    /// At most so many.
    pub limit: usize,
    /// Only ids behind this one.
    pub after: Option<String>,
}

/// A session to be made.
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    /// Agent it talks to.
    pub agent: String,
    /// Its id; made up if `None`.
    pub id: Option<String>,
    /// For people.
    pub title: Option<String>,
}

/// A session in a list.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Id.
    pub id: String,
    /// Agent.
    pub agent: String,
    /// For people.
    pub title: Option<String>,
    /// What it is doing.
    pub status: Status,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Milliseconds since the epoch.
    pub last_at_ms: u64,
    /// Last durable event.
    pub last_seq: u64,
    /// Turns so far, running one included.
    pub turns: u64,
    /// Tokens so far.
    pub usage: Usage,
    /// Tokens of the last prompt: how much of the context window is in use.
    pub context_tokens: u64,
    /// Why it is damaged, if it is.
    pub detail: Option<String>,
}

/// A message to be taken.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// What is said.
    pub content: String,
    /// `cli`, `http`, a gateway's name.
    pub source: String,
    /// The same key gives the same answer and one turn.
    pub idempotency_key: Option<String>,
    /// Most model calls for its turn, if below the configured limit.
    pub steps_max: Option<u64>,
}

/// The message is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Of its `message_received`.
    pub seq: u64,
    /// Turn that answers it.
    pub turn: u64,
}

/// A turn came to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnResult {
    /// Number.
    pub turn: u64,
    /// How.
    pub reason: TurnReason,
    /// Why, if it did not complete.
    pub detail: Option<String>,
    /// Text of the last answer, if any.
    pub reply: String,
    /// Tokens of the turn.
    pub usage: Usage,
}

/// An open approval request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Names it.
    pub approval_id: String,
    /// The call.
    pub call_id: String,
    /// Tool name.
    pub name: String,
    /// Compact JSON object.
    pub arguments: String,
    /// SHA-256 of the exact call.
    pub digest: String,
    /// Milliseconds since the epoch.
    pub expires_at_ms: u64,
    /// `egress` if the policy would let it run, and what the session has read does not.
    pub reason: Option<String>,
}

/// A decision on one.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The word.
    pub decision: Decision,
    /// How far.
    pub scope: Scope,
    /// Who: `cli`, `http`.
    pub by: String,
}

/// Something for a subscriber. Shared, not copied, between subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// A durable event.
    Event {
        /// Its place: the SSE id.
        seq: u64,
        /// Its type: the SSE event name.
        kind: String,
        /// The log line, without the line feed: the SSE data.
        line: String,
    },
    /// Live text; not in the log, carries no id.
    Token {
        /// `{"turn":…,"step":…,"text":…}`, and `"thinking":true` if it is that: the SSE data.
        data: String,
    },
    /// What is going on before there is text; not in the log, carries no id.
    Status {
        /// `{"turn":…,"step":…,"text":…}`: the SSE data.
        data: String,
    },
    /// The subscriber was too slow and is dropped; it can come back with its last seq. Always the last item.
    Lagged,
    /// The runtime is going down; come back with your last seq. Always the last item.
    Shutdown,
}

impl Published {
    /// A piece of an answer.
    #[must_use]
    pub fn token(turn: u64, step: u64, text: &str, thinking: bool) -> Self {
        let mut data = String::with_capacity(48 + text.len());
        let mut json = ObjectWriter::new(&mut data);
        json.u64("turn", turn).u64("step", step).str("text", text);
        if thinking {
            json.bool("thinking", true);
        }
        json.finish();
        Self::Token { data }
    }

    /// What an endpoint does before it answers.
    #[must_use]
    pub fn status(turn: u64, step: u64, text: &str) -> Self {
        match Self::token(turn, step, text, false) {
            Self::Token { data } => Self::Status { data },
            other => other,
        }
    }

    /// Bytes of text.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Event { line, .. } => line.len(),
            Self::Token { data } | Self::Status { data } => data.len(),
            Self::Lagged | Self::Shutdown => 0,
        }
    }
}

/// Longest time `?wait=` may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// A page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// Log lines, without line feeds, oldest first.
    pub lines: Vec<Arc<str>>,
    /// Pass as `after` for the next page; `None` at the end.
    pub next: Option<u64>,
}
