//! What must hold of a log, whatever happened to the process that wrote it.
//!
//! Each finding is one sentence that names the seq. No finding means nothing that these rules can see is wrong; what the
//! outside world saw (acknowledgements, effects) is compared in [`acknowledged`] and [`effects`].

use super::log::{Entry, Log};
use std::collections::BTreeMap;

/// A call of a turn, as far as the log tells.
#[derive(Debug, Default)]
struct Call {
    step: u64,
    effect: String,
    started: usize,
    results: usize,
}

/// What runs at a point of the log.
#[derive(Debug, Default)]
struct Walk<'a> {
    messages: BTreeMap<u64, bool>,
    turn: Option<u64>,
    turns: Vec<u64>,
    asked: Option<(u64, u64)>,
    steps: u64,
    calls: BTreeMap<&'a str, Call>,
    /// Findings that count unless the turn is given up.
    given_up: Vec<String>,
    findings: Vec<String>,
}

/// Checks a log for what no crash may do to it. With `at_rest`, nothing may be open at its end.
#[must_use]
pub fn check(log: &Log, at_rest: bool) -> Vec<String> {
    let mut walk = Walk::default();
    match log.entries.first() {
        Some(first) if first.kind == "session_created" && first.fields.number("v") == Some(1) => {}
        Some(first) => {
            walk.findings.push(format!("seq 1: expected session_created of version 1, found {}", first.kind))
        }
        None => {}
    }
    for entry in &log.entries {
        walk.step(entry);
    }
    if at_rest {
        walk.rest(log);
    }
    walk.findings
}

impl<'a> Walk<'a> {
    fn find(&mut self, entry: &Entry, text: &str) {
        self.findings.push(format!("seq {}: {}: {text}", entry.seq, entry.kind));
    }

    fn step(&mut self, entry: &'a Entry) {
        let turn = entry.fields.number("turn");
        match entry.kind.as_str() {
            "session_created" if entry.seq != 1 => self.find(entry, "not the first line"),
            "message_received" => match turn {
                Some(turn) if self.messages.insert(turn, false).is_some() => {
                    self.find(entry, "its turn has a message already")
                }
                Some(_) => {}
                None => self.find(entry, "names no turn"),
            },
            "turn_started" => self.turn_started(entry, turn),
            "turn_finished" => self.turn_finished(entry, turn),
            "model_requested" => self.model_requested(entry, turn),
            "model_responded" | "model_failed" => self.model_answered(entry, turn),
            "tool_started" | "tool_finished" | "tool_interrupted" => self.tool(entry),
            "session_recovered" if entry.fields.text("reason").is_empty() => self.find(entry, "gives no reason"),
            _ => {}
        }
    }

    fn turn_started(&mut self, entry: &'a Entry, turn: Option<u64>) {
        if let Some(open) = self.turn {
            self.find(entry, &format!("turn {open} is still open"));
        }
        let Some(turn) = turn else { return self.find(entry, "names no turn") };
        match self.messages.insert(turn, true) {
            None => self.find(entry, "nobody sent a message for it"),
            Some(true) => self.find(entry, "the turn was started before"),
            Some(false) => {}
        }
        self.turn = Some(turn);
        self.turns.push(turn);
        self.asked = None;
        self.steps = 0;
    }

    fn turn_finished(&mut self, entry: &'a Entry, turn: Option<u64>) {
        if self.turn.is_none() || self.turn != turn {
            self.find(entry, &format!("the open turn is {:?}", self.turn));
        }
        self.calls_closed(entry);
        let given_up = std::mem::take(&mut self.given_up);
        if entry.fields.text("reason") != "quarantined" {
            self.findings.extend(given_up);
        }
        if entry.fields.text("reason") == "completed" && self.asked.is_some() {
            self.find(entry, "completed while the model is being asked");
        }
        self.turn = None;
        self.asked = None;
    }

    fn calls_closed(&mut self, entry: &'a Entry) {
        let open: Vec<_> =
            self.calls.iter().filter(|(_, call)| call.results == 0).map(|(id, _)| (*id).to_owned()).collect();
        for id in open {
            self.find(entry, &format!("call {id} has no result"));
        }
    }

    fn model_requested(&mut self, entry: &'a Entry, turn: Option<u64>) {
        if self.turn.is_none() || self.turn != turn {
            self.find(entry, &format!("the open turn is {:?}", self.turn));
        }
        self.calls_closed(entry);
        let (step, attempt) = (entry.fields.number("step").unwrap_or(0), entry.fields.number("attempt").unwrap_or(0));
        let expected = match self.asked {
            // Asked again, after a failure or a crash.
            Some((step, attempt)) => (step, attempt + 1),
            None => (self.steps + 1, 1),
        };
        if (step, attempt) != expected {
            let (s, a) = expected;
            self.find(entry, &format!("expected step {s} attempt {a}, found step {step} attempt {attempt}"));
        }
        self.steps = step;
        self.asked = Some((step, attempt));
    }

    fn model_answered(&mut self, entry: &'a Entry, turn: Option<u64>) {
        let step = entry.fields.number("step").unwrap_or(0);
        if self.turn != turn || self.asked.map(|(step, _)| step) != Some(step) {
            self.find(entry, "the model was not asked this");
        }
        if entry.kind == "model_failed" {
            return;
        }
        self.asked = None;
        for call in entry.fields.list("tool_calls") {
            let call = match call.get("call_id") {
                Some(super::json::Json::Text(id)) => self.calls.insert(id, Call { step, ..Call::default() }),
                _ => {
                    self.find(entry, "a call without call_id");
                    continue;
                }
            };
            if call.is_some() {
                self.find(entry, "a call_id that was given out before");
            }
        }
    }

    fn tool(&mut self, entry: &'a Entry) {
        let id = entry.fields.text("call_id");
        let steps = self.steps;
        let Some(call) = self.calls.get_mut(id) else {
            return self.find(entry, &format!("nobody asked for call {id:?}"));
        };
        let mut may_run_again = false;
        let wrong = match entry.kind.as_str() {
            "tool_started" => {
                call.started += 1;
                entry.fields.text("effect").clone_into(&mut call.effect);
                match call.started {
                    1 if call.results > 0 => Some("starts after its result"),
                    1 => None,
                    _ => Some("starts a second time"),
                }
            }
            kind => {
                call.results += 1;
                let unknown = entry.fields.text("result").starts_with("there is no tool");
                let refused = unknown || entry.fields.get("denied").is_some();
                match kind {
                    _ if call.results > 1 => Some("has a second result"),
                    "tool_finished" if call.started == 0 && !refused => Some("has a result and never started"),
                    "tool_interrupted" => {
                        let crashed = entry.fields.text("reason") == "crash";
                        may_run_again = crashed && call.started > 0 && call.effect != "once";
                        None
                    }
                    _ => None,
                }
            }
        };
        let late = call.step != steps;
        if let Some(wrong) = wrong {
            self.find(entry, &format!("call {id} {wrong}"));
        }
        if may_run_again {
            let text = "was given up after a crash although it may run again";
            self.given_up.push(format!("seq {}: {}: call {id} {text}", entry.seq, entry.kind));
        }
        if late {
            self.find(entry, &format!("call {id} belongs to an earlier step"));
        }
    }

    fn rest(&mut self, log: &Log) {
        if !log.tail.is_empty() {
            self.findings.push(format!("{} bytes after the last line", log.tail.len()));
        }
        if let Some(turn) = self.turn {
            self.findings.push(format!("turn {turn} is open at the end"));
        }
        for (turn, _) in self.messages.iter().filter(|(_, started)| !**started) {
            self.findings.push(format!("the message of turn {turn} was never answered"));
        }
        if !self.turns.is_sorted() {
            self.findings.push(format!("turns were started out of order: {:?}", self.turns));
        }
    }
}

/// Compares what was published (whole log lines, by seq) with the log: each must stand there, byte for byte.
#[must_use]
pub fn acknowledged(log: &Log, published: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut last = 0;
    for line in published {
        let seq = super::json::parse(line).ok().and_then(|fields| fields.number("seq")).unwrap_or(0);
        let index = usize::try_from(seq).unwrap_or(0).wrapping_sub(1);
        match log.entries.get(index) {
            Some(entry) if entry.line == *line => {}
            Some(entry) => findings.push(format!("seq {seq} was published as {line}, the log has {}", entry.line)),
            None => findings.push(format!("seq {seq} was published and is not in the log: {line}")),
        }
        if seq <= last {
            findings.push(format!("seq {seq} was published after seq {last}"));
        }
        last = seq;
    }
    findings
}

/// Checks that nothing that stood in the log before stands there no more.
#[must_use]
pub fn kept(before: &Log, after: &Log) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, entry) in before.entries.iter().enumerate() {
        if after.entries.get(index).map(|e| &e.line) != Some(&entry.line) {
            findings.push(format!("seq {} was in the log and is gone or changed: {}", entry.seq, entry.line));
        }
    }
    findings
}

/// Compares the outside file, one call id a line, with the log: no effect without a durable `tool_started`, none of class
/// `once` twice, and one for each such call that finished.
#[must_use]
pub fn effects(log: &Log, outside: &str) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for id in outside.lines() {
        *counts.entry(id).or_default() += 1;
    }
    let mut findings = Vec::new();
    let event = |kind: &str, id: &str| log.entries.iter().find(|e| e.kind == kind && e.fields.text("call_id") == id);
    for (id, count) in &counts {
        match event("tool_started", id) {
            None => findings.push(format!("call {id} had its effect and the log has no tool_started")),
            Some(start) if start.fields.text("effect") == "once" && *count > 1 => {
                findings.push(format!("call {id} is `once` and had its effect {count} times"));
            }
            Some(_) => {}
        }
    }
    for start in log.entries.iter().filter(|e| e.kind == "tool_started") {
        let id = start.fields.text("call_id");
        let succeeded = event("tool_finished", id).is_some_and(|e| e.fields.number("exit_code") == Some(0));
        let is_counted = start.line.contains(COUNTER);
        if succeeded && is_counted && !counts.contains_key(id) {
            findings.push(format!("call {id} finished and its effect never happened"));
        }
    }
    findings
}

/// Marks the commands that write to the outside file.
pub const COUNTER: &str = "DURAGENT_CALL_ID";

/// One line of a [`story`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Turn that it belongs to.
    pub turn: u64,
    /// What it is about: `message`, `answer`, `end`, or the id of a call.
    pub about: String,
    /// What came of it.
    pub text: String,
}

/// What a user would notice of a log: per turn what was said, answered and how it ended, per call what came of it. Equal
/// for a run with crashes and one without, if the crashes cost nothing.
#[must_use]
pub fn story(log: &Log) -> Vec<Line> {
    let mut story = Vec::new();
    let mut open = 0;
    for Entry { kind, fields, .. } in &log.entries {
        let turn = fields.number("turn");
        let (about, text) = match kind.as_str() {
            "turn_started" => {
                open = turn.unwrap_or(0);
                continue;
            }
            "message_received" => ("message", fields.text("content").to_owned()),
            "model_responded" => {
                let calls: Vec<_> = fields.list("tool_calls").iter().map(|c| c.text("call_id")).collect();
                ("answer", format!("{:?}, calls {calls:?}", fields.text("text")))
            }
            "tool_finished" => {
                let code = fields.number("exit_code");
                (fields.text("call_id"), format!("{code:?} {:?}", fields.text("result")))
            }
            "tool_interrupted" => (fields.text("call_id"), INTERRUPTED.to_owned()),
            "turn_finished" => ("end", fields.text("reason").to_owned()),
            _ => continue,
        };
        story.push(Line { turn: turn.unwrap_or(open), about: about.to_owned(), text });
    }
    // A message may come in while an earlier turn runs: what matters is the order within each turn.
    story.sort_by_key(|line| line.turn);
    story
}

/// The text of a call that came to nothing.
pub const INTERRUPTED: &str = "interrupted";

#[cfg(test)]
mod tests;
