//! Words of events: how a turn ended, why a model did not answer, what was decided and how far.

/// How a turn came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnReason {
    /// The model answered without asking for a tool.
    Completed,
    /// The provider or the runtime could not go on; `detail` says why.
    Failed,
    /// Somebody asked for it.
    Cancelled,
    /// A configured limit was reached; `detail` names it.
    Limit,
    /// The runtime crashed three times in the same step.
    Quarantined,
}

impl TurnReason {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Limit => "limit",
            Self::Quarantined => "quarantined",
        }
    }

    /// Reads a wire name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Completed, Self::Failed, Self::Cancelled, Self::Limit, Self::Quarantined]
            .into_iter()
            .find(|r| r.as_str() == text)
    }
}

/// Why a model call did not give an answer. Decides whether it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: refused, unreachable, no such host.
    Connect,
    /// Connected, but nothing or nothing more came in time.
    Timeout,
    /// The stream ended before the answer did.
    Truncated,
    /// 408, 409, 425, 429, 5xx, or an error line in the stream that says so: later may work.
    Overloaded,
    /// The model produced something the server could not parse as a tool call: its mistake, asked again.
    BadToolCall,
    /// 401, 402, 403: final, somebody must act.
    Refused,
    /// 400, 404 and other answers that asking again cannot change.
    Invalid,
    /// The answer is not of the provider's wire format.
    Protocol,
    /// The prompt does not fit the model's context window.
    TooLong,
}

impl FailureKind {
    const ALL: [Self; 9] = [
        Self::Connect,
        Self::Timeout,
        Self::Truncated,
        Self::Overloaded,
        Self::BadToolCall,
        Self::Refused,
        Self::Invalid,
        Self::Protocol,
        Self::TooLong,
    ];

    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Overloaded => "overloaded",
            Self::BadToolCall => "bad_tool_call",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Protocol => "protocol",
            Self::TooLong => "too_long",
        }
    }

    /// Reads a wire name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }

    /// True if the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::Refused | Self::Invalid | Self::TooLong)
    }
}

/// The answer to an approval request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The call may run.
    Grant,
    /// It may not; the model is told.
    Deny,
}

impl Decision {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Deny => "deny",
        }
    }

    /// Reads a wire name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Grant, Self::Deny].into_iter().find(|d| d.as_str() == text)
    }
}

/// How far a decision reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This call.
    Once,
    /// The same call (tool and argument) for the rest of the session.
    Session,
    /// The same call from now on: written to the agent's `policy.yaml` as well.
    Always,
}

impl Scope {
    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
            Self::Always => "always",
        }
    }

    /// Reads a wire name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Once, Self::Session, Self::Always].into_iter().find(|s| s.as_str() == text)
    }
}
