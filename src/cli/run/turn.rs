//! A turn as `run` follows it, and what is said of how it ended.

use super::super::{Failure, approval, live, text};
use super::{LIMIT, WAITING};
use duragent_core::event::{Body, Event, TurnReason, Usage};
use duragent_core::json::{ObjectWriter, Value};
use duragent_core::line;
use duragent_core::session::OFFLINE;

/// A turn as it is followed.
pub(super) struct Turn {
    pub(super) session: String,
    pub(super) agent: String,
    pub(super) number: u64,
    /// It has begun; before that it waits for others.
    pub(super) started: bool,
    /// Requests that nobody has decided on.
    pub(super) open: Vec<String>,
    pub(super) reply: String,
    pub(super) end: Option<End>,
    /// Ctrl-C was pressed and the cancel went out.
    pub(super) cancelled: bool,
    /// Why a model did not answer, the last time.
    pub(super) trouble: String,
}

/// How a turn came to rest, or to wait.
pub(super) struct End {
    /// `None`: it waits for an approval, or for a model that can be reached.
    pub(super) reason: Option<TurnReason>,
    pub(super) offline: bool,
    pub(super) detail: Option<String>,
    pub(super) usage: Usage,
    pub(super) approvals: Vec<Value>,
}

impl Turn {
    /// Takes note of an event. True if the session may wait for an approval after it.
    pub(super) fn apply(&mut self, event: &Event) -> bool {
        match &event.body {
            Body::TurnStarted { turn } => self.started = *turn == self.number,
            Body::ModelResponded { turn, text, .. } if *turn == self.number => self.reply.clone_from(text),
            Body::TurnFinished { turn, reason, detail, usage } => {
                self.open.clear();
                if *turn == self.number {
                    let (reason, detail) = (Some(*reason), detail.clone());
                    self.end = Some(End { reason, offline: false, detail, usage: *usage, approvals: Vec::new() });
                }
            }
            Body::ModelFailed { turn, detail, .. } if *turn == self.number => self.trouble.clone_from(detail),
            Body::ApprovalRequested { approval_id, .. } => self.open.push(approval_id.clone()),
            Body::ApprovalDecided { approval_id, .. } => self.open.retain(|id| id != approval_id),
            Body::ToolFinished { .. } | Body::ToolInterrupted { .. } => {}
            _ => return false,
        }
        !self.open.is_empty()
    }

    /// Nobody can be asked: whoever waits for the answer gets the prompt back, the turn waits on disk.
    pub(super) fn parked(&mut self) {
        let detail = Some(self.trouble.clone());
        self.end = Some(End { reason: None, offline: true, detail, usage: Usage::default(), approvals: Vec::new() });
    }

    /// What the turn ended with, if not with an answer.
    pub(super) fn failure(&self, end: &End) -> Option<Failure> {
        let detail = text::clean(end.detail.as_deref().unwrap_or_default());
        let (session, agent) = (&self.session, &self.agent);
        Some(match end.reason {
            Some(TurnReason::Completed) => return None,
            Some(TurnReason::Cancelled) if self.cancelled => {
                Failure { code: live::INTERRUPTED, error: "interrupted: the turn is cancelled".into(), hint: None }
            }
            Some(TurnReason::Cancelled) => {
                let by = if detail.is_empty() { "by another client" } else { detail.as_str() };
                Failure::new(format!("the turn was cancelled: {by}"))
            }
            Some(TurnReason::Limit) => {
                let failure = Failure { code: LIMIT, error: format!("a limit was reached: {detail}"), hint: None };
                failure.hint(format!("go on with: duragent run {agent} --resume {session} \"go on\""))
            }
            // The remedy stands behind the last semicolon, where the provider knows one.
            Some(TurnReason::Failed | TurnReason::Quarantined) => match detail.rsplit_once("; ") {
                Some((error, hint)) => Failure::new(error).hint(hint),
                None => Failure::new(detail).hint(format!("look with: duragent session log {session}")),
            },
            None if end.offline => {
                let (error, remedy) = detail.rsplit_once("; ").unwrap_or((detail.as_str(), ""));
                let goes_on = format!(
                    "the turn waits on disk: a server goes on with it by itself, else: duragent run {agent} --resume {session}"
                );
                let hint = if remedy.is_empty() { goes_on } else { format!("{remedy}\n{goes_on}") };
                Failure::new(error).hint(hint)
            }
            None => {
                let said = end.approvals.iter().map(|request| approval::waiting(session, request));
                let (errors, mut hints): (Vec<String>, Vec<String>) = said.unzip();
                hints.push(format!("then: duragent run {agent} --resume {session}"));
                let error = if errors.is_empty() { "the turn waits for an approval".into() } else { errors.join("\n") };
                Failure { code: WAITING, error, hint: Some(hints.join("\n")) }
            }
        })
    }

    /// The result as one JSON object.
    pub(super) fn json(&self, end: &End, kind: Option<&str>) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        object.str_opt("type", kind).str("session", &self.session).u64("turn", self.number);
        let waits = if end.offline { OFFLINE } else { "waiting" };
        object.str("reason", end.reason.map_or(waits, TurnReason::as_str)).str("reply", &self.reply);
        line::write_usage(&mut object, "usage", &end.usage);
        object.str_opt("detail", end.detail.as_deref());
        if end.reason.is_none() && !end.offline {
            Value::Array(end.approvals.clone()).write(object.key("approvals"));
        }
        object.finish();
        out
    }
}
