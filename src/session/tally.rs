//! What the runtime counts of itself, and what it says of failures and slow operations.
//!
//! Invariant: an event is counted when it is durable, and before anybody is told of it, so whoever saw a turn end finds it
//! counted.
//!
//! Absent: what is in memory now, which [`super::Runtime`] looks up when asked.

use super::meter::{CALL, Counts, DISK, Family, Histogram, SIZE, single};
use super::stall::Activity;
use crate::store::{Committed, StoreError};
use duragent_core::event::{Body, Decision, Event};
use duragent_platform::log::{Field, Level, Throttle, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names of tools that are counted apart; the others are one together. Each costs 14 lines of `/metrics`.
const TOOLS_MAX: usize = 32;
/// Name of those beyond.
const OTHER: &str = "other";

/// Places in [`FAMILIES`].
#[derive(Debug, Clone, Copy)]
pub enum Count {
    /// Turns begun.
    TurnsStarted,
    /// Turns that came to rest.
    TurnsFinished,
    /// Tokens, as far as providers say.
    Tokens,
    /// Model calls made.
    ModelCalls,
    /// Model calls that came to nothing.
    ModelFailures,
    /// Tool calls run.
    ToolCalls,
    /// Tool calls to which the sandbox or a limit said no.
    Denials,
    /// Tool calls that policy refused.
    PolicyDenials,
    /// Approvals asked for.
    ApprovalsRequested,
    /// Approvals decided.
    ApprovalsDecided,
    /// Commits.
    Commits,
    /// Commits that failed.
    CommitFailures,
    /// Events in commits.
    Events,
    /// Slow operations.
    Slow,
    /// Followers dropped.
    Lagged,
    /// Turns that a budget ended.
    BudgetRefusals,
    /// Money, in millionths.
    Cost,
    /// What was not to be kept.
    RetentionRemoved,
    /// Bytes of it.
    RetentionBytes,
}

/// What is counted, in the order of [`Count`].
pub static FAMILIES: [Family; 19] = [
    single("turns_started", "Turns begun."),
    Family {
        name: "turns_finished",
        help: "Turns that came to rest, by reason.",
        label: "reason",
        values: &["completed", "failed", "cancelled", "limit", "quarantined"],
    },
    Family {
        name: "tokens",
        help: "Tokens of prompts (input) and answers (output), at the worst where providers do not tell.",
        label: "direction",
        values: &["input", "output"],
    },
    single("model_calls", "Model calls made."),
    Family {
        name: "model_failures",
        help: "Model calls that came to nothing, by kind.",
        label: "kind",
        values: &["connect", "timeout", "truncated", "overloaded", "bad_tool_call", "refused", "invalid", "protocol"],
    },
    single("tool_calls", "Tool calls run."),
    Family {
        name: "denials",
        help: "Tool calls to which the sandbox or a limit said no, by kind.",
        label: "kind",
        values: &["fs", "net", "limit", "timeout"],
    },
    single("policy_denials", "Tool calls that policy refused."),
    single("approvals_requested", "Approvals asked for."),
    Family {
        name: "approvals_decided",
        help: "Approvals decided, by outcome.",
        label: "outcome",
        values: &["granted", "denied", "expired"],
    },
    single("commits", "Commits to logs, one fdatasync each."),
    single("commit_failures", "Commits that failed."),
    single("events", "Events in commits."),
    Family {
        name: "slow_operations",
        help: "Operations that took longer than log.slow says, by operation.",
        label: "operation",
        values: &["fsync", "model", "tool_call", "request", "stall"],
    },
    single("subscribers_lagged", "Subscribers dropped because they read too slowly."),
    Family {
        name: "budget_refusals",
        help: "Turns that a budget ended, by the budget.",
        label: "budget",
        values: &[
            "turn.requests",
            "turn.tokens",
            "turn.tool_calls",
            "turn.seconds",
            "turn.money",
            "session.requests",
            "session.tokens",
            "session.tool_calls",
            "session.seconds",
            "session.money",
            "day.requests",
            "day.tokens",
            "day.tool_calls",
            "day.seconds",
            "day.money",
        ],
    },
    single("cost_micros", "Millionths of money spent on models, by their prices or their own word."),
    Family {
        name: "retention_removed",
        help: "What was removed because it is not to be kept.",
        label: "what",
        values: &["session", "artifact"],
    },
    single("retention_removed_bytes", "Bytes of what was removed because it is not to be kept."),
];

/// What can be slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The fdatasync of a commit.
    Fsync,
    /// From asking a model to the first piece of its answer; to its end if it comes in one piece.
    Model,
    /// A tool call.
    ToolCall,
    /// From a whole request to its answer, without waiting for turns and without streams.
    Request,
    /// A task that was due and could not run, because another one held the thread.
    Stall,
}

/// How many milliseconds operations may take before they are reported, in the order of [`Operation`]. Zero is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slow(pub [u64; 5]);

impl Slow {
    fn ms_max(self, operation: Operation) -> u64 {
        self.0.get(operation as usize).copied().unwrap_or_default()
    }
}

/// What is counted.
pub struct Tally {
    /// Of all families.
    pub counts: Counts,
    /// Time of fdatasync in commits.
    pub fsync: Histogram,
    /// Bytes of commits.
    pub commit_bytes: Histogram,
    /// Time of model calls, however they ended.
    pub model: Histogram,
    /// The same of tool calls, by name.
    tools: Mutex<Vec<(String, Histogram)>>,
    /// Those who follow a session now.
    subscribers: AtomicU64,
    /// `None` if nobody operates this runtime: nothing is reported then.
    slow: Option<Slow>,
    /// One for each [`Operation`], and one for failures.
    throttles: [Throttle; 6],
    pub(super) activity: Activity,
}

impl Tally {
    pub(super) fn new(slow: Option<Slow>) -> Self {
        Self {
            counts: Counts::new(&FAMILIES),
            fsync: Histogram::new(&DISK),
            commit_bytes: Histogram::new(&SIZE),
            model: Histogram::new(&CALL),
            tools: Mutex::default(),
            subscribers: AtomicU64::new(0),
            slow,
            throttles: [const { Throttle::new() }; 6],
            activity: Activity::default(),
        }
    }

    /// Adds to a family without a label.
    pub(super) fn one(&self, count: Count) {
        self.counts.add(count as usize, "", 1);
    }

    /// Says that somebody follows a session from now on.
    pub fn subscribed(&self) {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that somebody does no longer, and whether it was because they read too slowly.
    pub fn unsubscribed(&self, lagged: bool) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
        if lagged {
            self.one(Count::Lagged);
        }
    }

    /// Those who follow a session now.
    pub fn subscribers(&self) -> u64 {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// Tells of every tool that was called.
    pub fn each_tool(&self, tell: &mut dyn FnMut(&str, &Histogram)) {
        self.tools().iter().for_each(|(name, histogram)| tell(name, histogram));
    }

    /// Makes room for tools that an agent has, so that they are there before they are called.
    pub(super) fn know_tools<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let mut tools = self.tools();
        for name in names {
            if tools.len() < TOOLS_MAX && place_of(&tools, name).is_none() {
                tools.push((name.to_owned(), Histogram::new(&CALL)));
            }
        }
    }

    fn tools(&self) -> MutexGuard<'_, Vec<(String, Histogram)>> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a tool call that has ended.
    pub(super) fn tool_took(&self, session: &str, name: &str, time: Duration) {
        let mut tools = self.tools();
        // A name that no agent has, or one too many, is not worth lines of its own.
        let known = place_of(&tools, name).or_else(|| place_of(&tools, OTHER));
        if known.is_none() {
            tools.push((OTHER.to_owned(), Histogram::new(&CALL)));
        }
        if let Some((_, histogram)) = tools.get(known.unwrap_or(tools.len() - 1)) {
            histogram.took(time);
        }
        drop(tools);
        self.took(Operation::ToolCall, time, &[("session", Value::Text(session)), ("tool", Value::Text(name))]);
    }

    /// Counts a model call that has ended; `first` is when its answer began, if it came in pieces.
    pub(super) fn model_took(&self, session: &str, provider: &str, first: Option<Duration>, time: Duration) {
        self.model.took(time);
        let about = [("session", Value::Text(session)), ("provider", Value::Text(provider))];
        self.took(Operation::Model, first.unwrap_or(time), &about);
    }

    /// Says how long something took; reports it if that is too long.
    pub fn took(&self, operation: Operation, time: Duration, about: &[Field<'_>]) {
        let Some(ms_max) = self.slow.map(|slow| slow.ms_max(operation)) else { return };
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if ms_max == 0 || ms <= ms_max {
            return;
        }
        let Some(name) = FAMILIES[Count::Slow as usize].values.get(operation as usize) else { return };
        self.counts.add(Count::Slow as usize, name, 1);
        let fields =
            [("operation", Value::Text(name)), ("duration_ms", Value::Number(ms)), ("slow_ms", Value::Number(ms_max))];
        if let Some(throttle) = self.throttles.get(operation as usize) {
            throttle.line(Level::Warn, "slow operation", &fields, about);
        }
    }

    /// The longest time that a task may be late; `None` if nobody wants to know.
    pub(super) fn stall_max(&self) -> Option<Duration> {
        self.slow.map(|slow| Duration::from_millis(slow.ms_max(Operation::Stall))).filter(|max| !max.is_zero())
    }

    /// Counts a commit: `noted` is what [`note`] said of its events.
    pub(super) fn committed(&self, session: &str, noted: &[Noted], result: &Result<Committed, StoreError>) {
        let Ok(committed) = result else { return self.one(Count::CommitFailures) };
        self.one(Count::Commits);
        self.counts.add(Count::Events as usize, "", committed.events.len() as u64);
        self.fsync.took(committed.sync_time);
        self.commit_bytes.add(committed.bytes);
        let session = ("session", Value::Text(session));
        self.took(Operation::Fsync, committed.sync_time, &[session, ("bytes", Value::Number(committed.bytes))]);
        for noted in noted {
            self.counts.add(noted.count as usize, noted.label, noted.n);
            if self.slow.is_some() {
                self.tell(session, noted);
            }
        }
    }

    /// What operators should hear of. Why it is so stands in the session's log, and may hold what is nobody's business here.
    fn tell(&self, session: Field<'_>, noted: &Noted) {
        let (level, text, name) = match (noted.count, noted.label) {
            (Count::TurnsFinished, "failed") => (Level::Warn, "a turn failed", "reason"),
            (Count::TurnsFinished, "quarantined") => (Level::Info, "a turn is quarantined", "reason"),
            (Count::ModelFailures, _) => (Level::Warn, "a model call failed", "kind"),
            _ => return,
        };
        let fields = [session, ("turn", Value::Number(noted.turn)), (name, Value::Text(noted.label))];
        if let Some(throttle) = self.throttles.last() {
            throttle.line(level, text, &fields, &[]);
        }
    }
}

fn place_of(tools: &[(String, Histogram)], name: &str) -> Option<usize> {
    tools.iter().position(|(known, _)| known == name)
}

/// Something to count once it is durable.
pub(super) struct Noted {
    count: Count,
    label: &'static str,
    n: u64,
    /// Where there is one.
    turn: u64,
}

/// What there is to count in events.
pub(super) fn note(events: &[Event]) -> Vec<Noted> {
    let mut all = Vec::new();
    for event in events {
        let mut one = |count, label, n, turn| all.push(Noted { count, label, n, turn });
        match &event.body {
            Body::TurnStarted { turn } => one(Count::TurnsStarted, "", 1, *turn),
            Body::TurnFinished { turn, reason, detail, .. } => {
                one(Count::TurnsFinished, reason.as_str(), 1, *turn);
                let budget = detail.as_deref().and_then(|detail| detail.strip_prefix("budgets.")?.split_once(':'));
                let values = FAMILIES[Count::BudgetRefusals as usize].values;
                let known = budget.and_then(|(name, _)| values.iter().find(|known| **known == name));
                known.into_iter().for_each(|known| one(Count::BudgetRefusals, known, 1, *turn));
            }
            Body::ModelFailed { turn, kind, .. } => one(Count::ModelFailures, kind.as_str(), 1, *turn),
            Body::ApprovalRequested { .. } => one(Count::ApprovalsRequested, "", 1, 0),
            Body::ApprovalDecided { decision, by, .. } => {
                let outcome = match decision {
                    Decision::Grant => "granted",
                    // What `decide` writes when the time is up; nobody else may call themselves so.
                    Decision::Deny if by == "expiry" => "expired",
                    Decision::Deny => "denied",
                };
                one(Count::ApprovalsDecided, outcome, 1, 0);
            }
            Body::ToolFinished { outcome, .. } => match outcome.denied.as_ref().map(|denied| denied.kind.as_str()) {
                Some("policy") => one(Count::PolicyDenials, "", 1, 0),
                Some(kind) => {
                    let known = FAMILIES[Count::Denials as usize].values.iter().find(|known| **known == kind);
                    known.into_iter().for_each(|known| one(Count::Denials, known, 1, 0));
                }
                None => {}
            },
            _ => {}
        }
        if let Body::ModelResponded { usage, .. } | Body::SessionCompacted { usage, .. } = &event.body {
            one(Count::Tokens, "input", usage.input_tokens, 0);
            one(Count::Tokens, "output", usage.output_tokens, 0);
            one(Count::Cost, "", usage.cost_micros, 0);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use duragent_core::event::{FailureKind, TurnReason};
    use std::collections::BTreeMap;

    #[test]
    fn labels_are_the_words_of_the_log() {
        let values = |count: Count| FAMILIES[count as usize].values;
        let reasons = ["completed", "failed", "cancelled", "limit", "quarantined"].map(TurnReason::parse);
        assert_eq!(reasons.map(|r| r.expect("a reason").as_str()), values(Count::TurnsFinished));
        // What `parse` does not know is missing from one of both.
        for kind in values(Count::ModelFailures) {
            assert_eq!(FailureKind::parse(kind).map(FailureKind::as_str), Some(*kind));
        }
        assert_eq!(values(Count::ModelFailures).len(), 8, "as many as there are kinds");
        assert_eq!(values(Count::Slow).len(), Slow::default().0.len());
        for (family, name) in [(Count::TurnsStarted, "turns_started"), (Count::Lagged, "subscribers_lagged")] {
            assert_eq!(FAMILIES[family as usize].name, name, "in the order of the enumeration");
        }
    }

    #[test]
    fn names_of_tools_are_bounded_whoever_makes_them_up() {
        let tally = Tally::new(None);
        let names: Vec<String> = (0..TOOLS_MAX + 9).map(|n| format!("tool-{n}")).collect();
        for _ in 0..2 {
            tally.know_tools(names.iter().map(String::as_str));
        }
        for name in names.iter().map(String::as_str).chain(["made-up", "\"} 1\nforged"]) {
            tally.tool_took("s", name, Duration::from_millis(1));
        }
        let mut found = BTreeMap::new();
        tally.each_tool(&mut |name, histogram| {
            found.insert(name.to_owned(), histogram.read().0[11]);
        });
        assert_eq!((found.len(), found.remove(OTHER)), (TOOLS_MAX + 1, Some(11)));
        assert!(found.iter().all(|(name, count)| names.contains(name) && *count == 1), "{found:?}");
    }
}
