//! What turns, sessions and days may use up, and what they have used: requests, tokens, tool calls, working time, money.
//!
//! Nothing here needs a price list; money counts only where a price is known. The log is the ledger: [`Spent`] is a fold
//! over events, the same for live, for replay and for whoever sums up a day over many sessions. A request whose usage never
//! became known counts as what was reserved for it.

use super::state::State;
use crate::event::{Body, Event, FailureKind, Usage};
use alloc::format;
use alloc::string::String;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;

/// What was used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Model calls.
    pub requests: u64,
    /// Tokens, prompts and answers together.
    pub tokens: u64,
    /// Tool calls that ran.
    pub tool_calls: u64,
    /// Milliseconds that models and tools worked.
    pub ms: u64,
    /// Millionths of money.
    pub cost_micros: u64,
}

/// What may be used up; `None` for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Model calls.
    pub requests: Option<u64>,
    /// Tokens, prompts and answers together.
    pub tokens: Option<u64>,
    /// Tool calls.
    pub tool_calls: Option<u64>,
    /// Milliseconds that models and tools work.
    pub ms: Option<u64>,
    /// Millionths of money.
    pub cost_micros: Option<u64>,
}

/// The three budgets that hold at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Of one turn.
    pub turn: Budget,
    /// Of one session.
    pub session: Budget,
    /// Of all sessions of the workspace in one day, by UTC.
    pub day: Budget,
}

/// What tokens cost, in millionths of money for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
    /// Of the prompt, where the server had it in its cache.
    pub cached: u64,
}

impl Price {
    /// What `usage` costs, in millionths of money.
    #[must_use]
    pub fn of(&self, usage: &Usage) -> u64 {
        let fresh = usage.input_tokens.saturating_sub(usage.cached_tokens);
        let parts = [(fresh, self.input), (usage.cached_tokens, self.cached), (usage.output_tokens, self.output)];
        let sum: u128 = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

impl Spent {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.tool_calls = self.tool_calls.saturating_add(other.tool_calls);
        self.ms = self.ms.saturating_add(other.ms);
        self.cost_micros = self.cost_micros.saturating_add(other.cost_micros);
    }

    /// Less `other`; nothing where that is more.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
            tool_calls: self.tool_calls.saturating_sub(other.tool_calls),
            ms: self.ms.saturating_sub(other.ms),
            cost_micros: self.cost_micros.saturating_sub(other.cost_micros),
        }
    }

    fn usage(&mut self, usage: &Usage) {
        self.tokens = self.tokens.saturating_add(usage.input_tokens).saturating_add(usage.output_tokens);
        self.cost_micros = self.cost_micros.saturating_add(usage.cost_micros);
    }
}

/// A fold of one session's log: what it has spent, with what is reserved for a request that has no answer yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    settled: Spent,
    /// Of the request under way.
    reserved: Option<Usage>,
}

impl Meter {
    /// Takes the next event of the session.
    pub fn take(&mut self, event: &Event) {
        match &event.body {
            Body::ModelRequested { reserved, .. } => {
                // The one before came to no end: a crash. Nobody knows what it cost.
                self.settle(None, 0);
                self.settled.requests += 1;
                self.reserved = Some(*reserved);
            }
            // A summary of a compaction too; without one a request that a crash has left open stays unknown.
            Body::ModelResponded { usage, duration_ms, .. } | Body::SessionCompacted { usage, duration_ms, .. } => {
                self.settle(Some(*usage).filter(|usage| !usage.is_unknown()), *duration_ms);
            }
            Body::ModelFailed { kind, worked, duration_ms, .. } => {
                // Nobody was there to be asked: an outage does not use up a budget of requests.
                let away = *kind == FailureKind::Connect && !worked && self.reserved.is_some();
                self.settled.requests = self.settled.requests.saturating_sub(u64::from(away));
                self.settle((!worked).then(Usage::default), *duration_ms);
            }
            // Cancelled with a request under way, or given up after a crash.
            Body::TurnFinished { .. } => self.settle(None, 0),
            Body::ToolStarted { .. } => self.settled.tool_calls += 1,
            Body::ToolFinished { outcome, .. } => self.settled.ms = self.settled.ms.saturating_add(outcome.duration_ms),
            _ => {}
        }
    }

    /// The request under way has come to an end; what it used up, if anybody said.
    fn settle(&mut self, known: Option<Usage>, ms: u64) {
        if let Some(reserved) = self.reserved.take() {
            self.settled.usage(&known.unwrap_or(reserved));
            self.settled.ms = self.settled.ms.saturating_add(ms);
        }
    }

    /// What it comes to now, the reserved included.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let mut spent = self.settled;
        if let Some(reserved) = &self.reserved {
            spent.usage(reserved);
        }
        spent
    }
}

impl Budget {
    /// True if nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// The first limit that `spent` and `more` together exceed: its word, the limit, and what it would come to. A limit of
    /// time is exceeded when it is used up: how long a call takes is not known before.
    #[must_use]
    pub fn exceeded(&self, spent: &Spent, more: &Spent) -> Option<(&'static str, u64, u64)> {
        let rows = [
            ("requests", self.requests, spent.requests, more.requests),
            ("tokens", self.tokens, spent.tokens, more.tokens),
            ("tool_calls", self.tool_calls, spent.tool_calls, more.tool_calls),
            ("seconds", self.ms, spent.ms, 1),
            ("money", self.cost_micros, spent.cost_micros, more.cost_micros),
        ];
        rows.into_iter().find_map(|(word, limit, spent, more)| {
            let (limit, total) = (limit?, spent.saturating_add(more));
            (more > 0 && total > limit).then_some((word, limit, total))
        })
    }
}

impl Budgets {
    /// True if tokens are limited, by themselves or by what they cost.
    #[must_use]
    pub fn count_tokens(&self) -> bool {
        [&self.turn, &self.session, &self.day].iter().any(|b| b.tokens.is_some() || b.cost_micros.is_some())
    }

    /// Says why `more` is too much, if it is: `day` is what all sessions have spent today.
    pub(super) fn refusal(&self, state: &State, day: &Spent, more: &Spent) -> Option<String> {
        let session = state.meter.spent();
        let turn = state.turn.as_ref().map(|t| t.spent(&session)).unwrap_or_default();
        let rows = [("turn", &self.turn, turn), ("session", &self.session, session), ("day", &self.day, *day)];
        rows.into_iter().find_map(|(of, budget, spent)| {
            let (word, limit, total) = budget.exceeded(&spent, more)?;
            let show = |n: u64| match word {
                "seconds" => format!("{}.{:03}", n / 1000, n % 1000),
                "money" => format!("{}.{:06}", n / 1_000_000, n % 1_000_000),
                _ => format!("{n}"),
            };
            let (limit, total) = (show(limit), show(total));
            let until = if of == "day" { "; the next day begins at 00:00 UTC" } else { "" };
            Some(format!("budgets.{of}.{word}: the limit is {limit}, the next step may bring it to {total}{until}"))
        })
    }
}
