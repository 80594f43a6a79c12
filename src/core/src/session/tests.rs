mod budgets;
mod full;
mod models;
mod walks;

use super::*;
use crate::event::*;
use crate::message::{Message, Reply};
use crate::policy::{Policy, Verdict};
use crate::tool::{EffectClass, PolicyArgument, Tags, ToolCall, ToolDecl};
use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

fn decl(name: &str, effect: EffectClass) -> ToolDecl {
    let parameters = "{}".to_owned();
    let (description, policy, tags) = (String::new(), PolicyArgument::Whole, Tags::default());
    ToolDecl { name: name.to_owned(), description, parameters, effect, policy, tags }
}

fn policy(mode: Verdict) -> Policy {
    Policy { mode: Some(mode), ..Policy::default() }
}

fn rules(mode: Verdict) -> Rules {
    Rules {
        model: Model {
            provider: "replay".to_owned(),
            name: "m".to_owned(),
            context_tokens: 1 << 20,
            answer_tokens: 1000,
            token_tenths: 30,
            price: Price::default(),
        },
        fallbacks: Vec::new(),
        prefix_bytes: 0,
        compaction: Compaction::Truncate,
        budgets: Budgets::default(),
        tools: vec![
            decl("look", EffectClass::Pure),
            decl("put", EffectClass::Idempotent),
            decl("send", EffectClass::Once),
        ],
        policies: vec![policy(mode)],
        workdir: "/w".to_owned(),
        sandbox: SandboxReport { backend: "trust".to_owned(), enforcement: "none".to_owned(), landlock_abi: None },
        limits: Limits {
            steps_max: 5,
            turn_ms_max: 60_000,
            attempts_max: 3,
            approval_ms_max: 1000,
            repeats_max: 100,
            offline_ms_max: 0,
            queue_max: u64::MAX,
        },
    }
}

fn failed(
    (turn, step, attempt): (u64, u64, u64),
    kind: FailureKind,
    detail: String,
    retry_after_ms: Option<u64>,
) -> InputKind {
    let (context_tokens, worked, duration_ms) = (None, false, 3);
    InputKind::Failed { turn, step, attempt, kind, detail, retry_after_ms, context_tokens, worked, duration_ms }
}

/// What came of an input; the bench has done it already.
#[derive(Debug, PartialEq)]
struct Taken {
    events: Vec<Body>,
    accepted: Option<Accepted>,
}

/// A session with its log, as the runtime would drive it, but with a world that the test plays.
struct Bench {
    rules: Rules,
    log: Vec<Event>,
    state: State,
    now: u64,
    /// What all sessions have spent today.
    today: Spent,
    effects: Vec<Effect>,
    /// Nothing new is begun.
    held: bool,
}

impl Bench {
    fn new(mode: Verdict) -> Self {
        let mut bench = Self {
            rules: rules(mode),
            log: Vec::new(),
            state: State::default(),
            now: 1_000_000,
            today: Spent::default(),
            effects: Vec::new(),
            held: false,
        };
        let (session, agent) = ("s".to_owned(), "a".to_owned());
        bench.input(InputKind::Create { session, agent, title: None, parent: None }).expect("create");
        bench
    }

    fn input(&mut self, kind: InputKind) -> Result<Taken, Rejection> {
        self.now += 1;
        let input = Input { at_ms: self.now, today: self.today, kind };
        let stepped = match self.held {
            false => step(&mut self.state, &self.rules, input)?,
            true => hold(&mut self.state, &self.rules, input, DISK_FULL)?,
        };
        self.effects.extend(stepped.effects);
        self.log.extend_from_slice(&stepped.events);
        Ok(Taken { events: stepped.events.into_iter().map(|e| e.body).collect(), accepted: stepped.accepted })
    }

    /// Kills the runtime: only the first `keep` events survive, and whatever was under way is lost.
    fn crash(&mut self, keep: usize) -> Vec<&'static str> {
        self.log.truncate(keep);
        self.state = replay(&self.log);
        self.effects.clear();
        let before = self.log.len();
        self.input(InputKind::Opened { dropped_bytes: 0, saved_as: None, failed: false }).expect("open");
        kinds(&self.log[before..])
    }

    fn say(&mut self, content: &str) -> Accepted {
        let (content, source) = (content.to_owned(), "test".to_owned());
        let kind = InputKind::Message { content, source, idempotency_key: None, steps_max: None };
        self.input(kind).expect("message").accepted.expect("accepted")
    }

    fn reply(&mut self, text: &str, calls: &[&str]) {
        let (turn, step, attempt) = self.asked().expect("a model call is under way");
        let call = |name: &&str| ToolCall {
            call_id: String::new(),
            name: (*name).to_owned(),
            arguments: format!(r#"{{"x":"{turn}-{step}"}}"#),
        };
        let usage = Usage { input_tokens: 10, output_tokens: 2, ..Usage::default() };
        let tool_calls = calls.iter().map(call).collect();
        let reply =
            Reply { text: text.to_owned(), tool_calls, usage, finish_reason: "stop".to_owned(), ..Reply::default() };
        self.input(InputKind::Replied { turn, step, attempt, reply, duration_ms: 5 }).expect("reply");
    }

    fn asked(&self) -> Option<(u64, u64, u64)> {
        self.effects.iter().rev().find_map(|e| match e {
            Effect::CallModel { turn, step, attempt } => Some((*turn, *step, *attempt)),
            _ => None,
        })
    }

    fn runs(&self) -> Vec<String> {
        let run = |e: &Effect| match e {
            Effect::RunTool { call } => Some(call.call_id.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(run).collect()
    }

    fn tool_done(&mut self, call_id: &str) {
        let outcome = ToolOutcome { result: format!("did {call_id}"), ..ToolOutcome::default() };
        self.input(InputKind::ToolDone { call_id: call_id.to_owned(), outcome }).expect("tool done");
    }

    fn last(&self, n: usize) -> Vec<&'static str> {
        kinds(&self.log[self.log.len() - n..])
    }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    crate::line::tests::one_of_each()
        .iter()
        .flat_map(|known| events.iter().enumerate().filter(|(_, e)| e.body.kind() == known.kind()))
        .map(|(at, e)| (at, e.body.kind().to_string()))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .map(|kind| &*alloc::boxed::Box::leak(kind.into_boxed_str()))
        .collect()
}

fn replay(log: &[Event]) -> State {
    let mut state = State::default();
    log.iter().for_each(|e| state.apply(e));
    state
}

/// Every call has exactly one result, directly behind its message, before anything else is said.
fn assert_paired(messages: &[Message]) {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for message in messages {
        match message {
            Message::Tool { call_id, .. } => assert!(open.remove(call_id.as_str()), "{call_id}: no open call"),
            Message::Assistant { tool_calls, .. } => {
                assert!(open.is_empty(), "calls without a result: {open:?}");
                open = tool_calls.iter().map(|c| c.call_id.as_str()).collect();
                assert_eq!(open.len(), tool_calls.len(), "call ids repeat");
            }
            Message::User { .. } => assert!(open.is_empty(), "calls without a result: {open:?}"),
        }
    }
    assert!(open.is_empty(), "calls without a result: {open:?}");
}

fn reason(state: &State) -> Option<TurnReason> {
    state.finished.back().map(|f| f.reason)
}

#[test]
fn a_plain_turn_takes_two_commits() {
    let mut b = Bench::new(Verdict::Allow);
    let accepted = b.say("hi");
    assert_eq!((accepted.seq, accepted.turn), (2, 1));
    assert_eq!(b.last(3), ["message_received", "turn_started", "model_requested"]);
    b.reply("hello", &[]);
    assert_eq!(b.last(2), ["model_responded", "turn_finished"]);
    let done = b.state.finished.back().expect("finished");
    assert_eq!((done.reply.as_str(), done.usage.input_tokens), ("hello", 10));
    assert_eq!(replay(&b.log), b.state);
}

#[test]
fn a_turn_with_a_tool_takes_four_commits() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["look"]);
    assert_eq!(b.last(2), ["model_responded", "tool_started"]);
    assert_eq!(b.runs(), ["c1-1-1"]);
    b.tool_done("c1-1-1");
    assert_eq!(b.last(2), ["tool_finished", "model_requested"]);
    b.reply("done", &[]);
    assert_eq!(b.last(2), ["model_responded", "turn_finished"]);
}

#[test]
fn several_calls_run_one_after_the_other() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["look", "nothing_like_it", "send"]);
    assert_eq!(b.runs(), ["c1-1-1"], "the unknown one is answered without running");
    b.tool_done("c1-1-3");
    assert_eq!(b.runs(), ["c1-1-1"], "a result for a call that does not run changes nothing");
    b.tool_done("c1-1-1");
    assert_eq!(b.runs(), ["c1-1-1", "c1-1-3"]);
    b.tool_done("c1-1-3");
    assert_eq!(b.asked(), Some((1, 2, 1)));
    assert_paired(&b.state.history.messages(usize::MAX));
}

#[test]
fn messages_during_a_turn_wait_and_get_their_own() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("one");
    assert_eq!(b.say("two").turn, 2);
    assert_eq!(b.say("three").turn, 3);
    b.reply("1", &[]);
    assert_eq!(b.last(4), ["model_responded", "turn_finished", "turn_started", "model_requested"]);
    b.input(InputKind::Cancel).expect("cancel");
    b.reply("3", &[]);
    let ends: Vec<_> = b.state.finished.iter().map(|f| (f.turn, f.reason)).collect();
    assert_eq!(ends, [(1, TurnReason::Completed), (2, TurnReason::Cancelled), (3, TurnReason::Completed)]);
}

#[test]
fn the_same_key_gives_the_same_answer_and_one_turn() {
    let mut b = Bench::new(Verdict::Allow);
    let message = |content: &str| InputKind::Message {
        content: content.to_owned(),
        source: "http".to_owned(),
        idempotency_key: Some("k".to_owned()),
        steps_max: None,
    };
    let first = b.input(message("a")).expect("taken").accepted;
    let again = b.input(message("a")).expect("taken");
    assert_eq!((again.accepted, again.events.len()), (first, 0));
    assert_eq!(b.input(message("b")), Err(Rejection::KeyReused));
}

#[test]
fn too_many_waiting_messages_are_refused() {
    let mut b = Bench::new(Verdict::Allow);
    for _ in 0..=super::decide::QUEUE_MAX {
        b.say("x");
    }
    let (content, source) = ("x".to_owned(), "test".to_owned());
    let more = InputKind::Message { content, source, idempotency_key: None, steps_max: None };
    assert_eq!(b.input(more), Err(Rejection::QueueFull));
}

#[test]
fn failures_are_asked_again_until_the_attempts_are_used_up() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    for attempt in 1..=3 {
        assert_eq!(b.asked(), Some((1, 1, attempt)));
        let (kind, detail) = (FailureKind::Connect, "refused".to_owned());
        b.input(failed((1, 1, attempt), kind, detail, None)).expect("failed");
        b.input(InputKind::Timer(Timer::Retry { turn: 1, step: 1, attempt })).expect("timer");
    }
    assert_eq!(reason(&b.state), Some(TurnReason::Failed));
    let kinds: Vec<&str> = b.log.iter().map(|e| e.body.kind()).collect();
    assert_eq!(kinds.iter().filter(|k| **k == "model_failed").count(), 3);
}

#[test]
fn a_final_failure_is_not_asked_again() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    let (kind, detail) = (FailureKind::Refused, "401".to_owned());
    b.input(failed((1, 1, 1), kind, detail, Some(5))).expect("failed");
    assert_eq!(b.last(2), ["model_failed", "turn_finished"]);
}

#[test]
fn answers_that_come_too_late_change_nothing() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["send"]);
    b.input(InputKind::Cancel).expect("cancel");
    let before = b.log.len();
    b.tool_done("c1-1-1");
    for kind in [
        InputKind::Replied { turn: 1, step: 1, attempt: 1, reply: Reply::default(), duration_ms: 1 },
        InputKind::Timer(Timer::TurnLimit { turn: 1 }),
        InputKind::Timer(Timer::Approval { approval_id: "a1-1-1".to_owned() }),
    ] {
        assert_eq!(b.input(kind).map(|d| d.events), Ok(vec![]));
    }
    assert_eq!(b.log.len(), before);
    assert_eq!(b.input(InputKind::Cancel), Err(Rejection::NothingRunning));
}

#[test]
fn limits_end_a_turn_with_a_reason() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    for step in 1..=5 {
        b.reply("", &["look"]);
        b.tool_done(&format!("c1-{step}-1"));
    }
    assert_eq!(reason(&b.state), Some(TurnReason::Limit));
    b.say("again");
    b.reply("", &["send"]);
    b.input(InputKind::Timer(Timer::TurnLimit { turn: 2 })).expect("timer");
    assert_eq!(b.last(2), ["tool_interrupted", "turn_finished"]);
    assert_eq!(reason(&b.state), Some(TurnReason::Limit));
}

#[test]
fn approvals_pause_the_turn_and_the_first_word_counts() {
    let mut b = Bench::new(Verdict::Ask);
    b.say("hi");
    b.reply("", &["send", "look"]);
    assert!(b.state.is_waiting());
    assert_eq!(b.last(2), ["approval_requested", "approval_requested"], "all are asked for at once");
    let decide = |id: &str, decision, scope| InputKind::Decide {
        approval_id: id.to_owned(),
        decision,
        scope,
        by: "cli".to_owned(),
    };
    b.input(decide("a1-1-2", Decision::Deny, Scope::Once)).expect("deny the second");
    assert!(b.state.is_waiting(), "the first still waits");
    b.input(decide("a1-1-1", Decision::Grant, Scope::Session)).expect("grant");
    assert_eq!(b.runs(), ["c1-1-1"]);
    assert_eq!(b.input(decide("a1-1-1", Decision::Deny, Scope::Once)), Err(Rejection::NoSuchApproval));
    b.tool_done("c1-1-1");
    assert_eq!(b.asked(), Some((1, 2, 1)));
    assert_paired(&b.state.history.messages(usize::MAX));
}

#[test]
fn an_approval_nobody_gives_expires_as_a_denial() {
    let mut b = Bench::new(Verdict::Ask);
    b.say("hi");
    b.reply("", &["send"]);
    b.input(InputKind::Timer(Timer::TurnLimit { turn: 1 })).expect("timer");
    assert!(b.state.is_waiting(), "a person's time to think is not the turn's");
    b.input(InputKind::Timer(Timer::Approval { approval_id: "a1-1-1".to_owned() })).expect("timer");
    assert_eq!(b.last(3), ["approval_decided", "tool_finished", "model_requested"]);
    assert!(b.runs().is_empty());
}

#[test]
fn a_grant_for_the_session_covers_the_exact_call_only() {
    let mut b = Bench::new(Verdict::Ask);
    let ask = |b: &mut Bench, arguments: &str| {
        b.say("hi");
        let (turn, step, attempt) = b.asked().expect("asked");
        let (name, arguments) = ("send".to_owned(), arguments.to_owned());
        let tool_calls = vec![ToolCall { call_id: String::new(), name, arguments }];
        let reply = Reply { tool_calls, ..Reply::default() };
        b.input(InputKind::Replied { turn, step, attempt, reply, duration_ms: 5 }).expect("reply");
    };
    ask(&mut b, r#"{"to":"a"}"#);
    let grant = InputKind::Decide {
        approval_id: "a1-1-1".to_owned(),
        decision: Decision::Grant,
        scope: Scope::Session,
        by: "cli".to_owned(),
    };
    b.input(grant).expect("grant");
    b.input(InputKind::Cancel).expect("cancel");
    ask(&mut b, r#"{"to":"a"}"#);
    assert_eq!(b.runs(), ["c1-1-1", "c2-1-1"], "granted before");
    b.input(InputKind::Cancel).expect("cancel");
    ask(&mut b, r#"{"to":"b"}"#);
    assert!(b.state.is_waiting(), "another argument is another call");
}

#[test]
fn a_refused_call_is_told_to_the_model_and_never_runs() {
    let mut b = Bench::new(Verdict::Deny);
    b.say("hi");
    b.reply("", &["send"]);
    assert_eq!(b.last(3), ["model_responded", "tool_finished", "model_requested"]);
    assert!(b.runs().is_empty());
    let messages = b.state.history.messages(usize::MAX);
    assert!(matches!(messages.last(), Some(Message::Tool { content, .. }) if content.contains("\"denied\":true")));
}

#[test]
fn a_crash_settles_a_running_call_by_its_effect() {
    for (tool, expected, again) in [
        ("look", &["session_recovered"][..], true),
        ("put", &["session_recovered"], true),
        ("send", &["session_recovered", "tool_interrupted", "model_requested"], false),
    ] {
        let mut b = Bench::new(Verdict::Allow);
        b.say("hi");
        b.reply("", &[tool]);
        assert_eq!(b.crash(b.log.len()), expected, "{tool}");
        assert_eq!(b.runs(), if again { vec!["c1-1-1".to_owned()] } else { vec![] }, "{tool}");
        if again {
            b.tool_done("c1-1-1");
        }
        b.reply("done", &[]);
        assert_eq!(reason(&b.state), Some(TurnReason::Completed));
        assert_paired(&b.state.history.messages(usize::MAX));
    }
}

#[test]
fn three_crashes_in_one_step_end_the_turn_and_the_session_goes_on() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    assert_eq!(b.crash(b.log.len()), ["session_recovered", "model_requested"]);
    assert_eq!(b.asked(), Some((1, 1, 2)));
    b.crash(b.log.len());
    assert_eq!(b.crash(b.log.len()), ["session_recovered", "turn_finished"]);
    assert_eq!(reason(&b.state), Some(TurnReason::Quarantined));
    b.say("again");
    b.reply("fine", &[]);
    assert_eq!(reason(&b.state), Some(TurnReason::Completed));
}

#[test]
fn progress_between_crashes_counts_from_anew() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.crash(b.log.len());
    b.crash(b.log.len());
    b.reply("", &["look"]);
    b.crash(b.log.len());
    b.crash(b.log.len());
    b.tool_done("c1-1-1");
    b.reply("done", &[]);
    assert_eq!(reason(&b.state), Some(TurnReason::Completed));
}

#[test]
fn waiting_for_a_person_or_for_a_retry_is_no_crash() {
    let mut b = Bench::new(Verdict::Ask);
    b.say("hi");
    b.reply("", &["send"]);
    for _ in 0..5 {
        assert!(b.crash(b.log.len()).is_empty());
        assert!(b.effects.iter().any(|e| matches!(e, Effect::SetTimer { timer: Timer::Approval { .. }, .. })));
    }
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    let (kind, detail) = (FailureKind::Connect, "refused".to_owned());
    b.input(failed((1, 1, 1), kind, detail, None)).expect("failed");
    for _ in 0..5 {
        b.now += 10_000_000;
        assert!(b.crash(b.log.len()).is_empty());
        let due = |e: &Effect| matches!(e, Effect::SetTimer { after_ms: 0, timer: Timer::Retry { .. } });
        assert!(b.effects.iter().any(due), "the wait is over: {:?}", b.effects);
    }
}

#[test]
fn a_log_that_failed_is_no_crash() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    for attempt in 2..7 {
        b.input(InputKind::Opened { dropped_bytes: 0, saved_as: None, failed: true }).expect("open");
        assert_eq!((b.last(1), b.asked()), (vec!["model_requested"], Some((1, 1, attempt))));
    }
    b.reply("done", &[]);
    assert_eq!(reason(&b.state), Some(TurnReason::Completed));
}

#[test]
fn a_stop_in_good_order_is_no_crash() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    for attempt in 2..7 {
        b.input(InputKind::Pause { reason: "shutdown".to_owned() }).expect("pause");
        assert!(b.effects.contains(&Effect::StopWork));
        assert_eq!(b.crash(b.log.len()), ["session_resumed", "model_requested"]);
        assert_eq!(b.asked(), Some((1, 1, attempt)));
    }
    b.reply("done", &[]);
    assert_eq!(reason(&b.state), Some(TurnReason::Completed));
}

#[test]
fn a_paused_session_goes_on_when_somebody_speaks() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["send"]);
    b.input(InputKind::Pause { reason: "disconnected".to_owned() }).expect("pause");
    b.tool_done("c1-1-1");
    assert_eq!(b.last(1), ["session_paused"], "work of a paused turn is not taken");
    let accepted = b.say("are you there?");
    assert_eq!(
        b.last(4),
        ["message_received", "session_resumed", "tool_interrupted", "model_requested"],
        "seq {}",
        accepted.seq
    );
    assert_eq!(b.log[usize::try_from(accepted.seq).expect("small") - 1].body.kind(), "message_received");
}

#[test]
fn closing_ends_the_turn_and_refuses_messages() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.say("waiting");
    b.reply("", &["send"]);
    b.input(InputKind::Close { reason: "asked".to_owned() }).expect("close");
    assert_eq!(b.last(3), ["session_closed", "tool_interrupted", "turn_finished"]);
    let (content, source) = ("x".to_owned(), "test".to_owned());
    let more = InputKind::Message { content, source, idempotency_key: None, steps_max: None };
    assert_eq!(b.input(more), Err(Rejection::Closed));
    assert!(b.crash(b.log.len()).is_empty());
}

#[test]
fn arguments_that_are_not_json_cannot_break_the_log() {
    let mut b = Bench::new(Verdict::Allow);
    for arguments in ["", "{", "{\"a\":1}{", "\u{0}", "[1]", "{\n \"a\": 1 }"] {
        b.say("hi");
        let (turn, step, attempt) = b.asked().expect("asked");
        let tool_calls =
            vec![ToolCall { call_id: "same".to_owned(), name: "look".to_owned(), arguments: arguments.to_owned() }];
        let reply = Reply { tool_calls, ..Reply::default() };
        b.input(InputKind::Replied { turn, step, attempt, reply, duration_ms: 5 }).expect("reply");
        b.input(InputKind::Cancel).expect("cancel");
    }
    let (mut text, mut crc) = (String::new(), crate::line::CRC_START);
    for event in &b.log {
        crc = crate::line::encode(event, crc, &mut text);
    }
    let mut crc = crate::line::CRC_START;
    for (line, event) in text.lines().zip(&b.log) {
        let (back, next) = crate::line::decode(line.as_bytes(), crc).expect("decodes");
        assert_eq!(&back, event);
        crc = next;
    }
}

#[test]
fn an_answer_beyond_the_limits_is_a_failure_not_an_event() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply(&"x".repeat(super::decide::REPLY_BYTES_MAX + 1), &[]);
    assert_eq!(b.last(2), ["model_failed", "model_requested"]);
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["look"; super::decide::CALLS_MAX + 1]);
    assert_eq!(b.last(2), ["model_failed", "model_requested"]);
}

#[test]
fn history_is_bounded_and_never_parts_a_call_from_its_result() {
    let mut b = Bench::new(Verdict::Allow);
    b.rules.limits.steps_max = 100;
    let big = "x".repeat(40_000);
    for turn in 1..=12 {
        b.say(&big);
        for step in 1..=turn {
            b.reply(&big, &["look", "look"]);
            b.tool_done(&format!("c{turn}-{step}-1"));
            b.tool_done(&format!("c{turn}-{step}-2"));
            let weight = b.state.history.weight();
            assert!(weight <= HISTORY_BYTES_MAX, "{weight}");
            assert_paired(&b.state.history.messages(usize::MAX));
            let mut shorter = b.state.history.clone();
            if let Some(cut) = shorter.cut(130_000) {
                shorter.compact(cut.through_seq, String::new());
                assert_eq!((shorter.weight(), cut.goes), (cut.stays, weight - cut.stays));
            }
            assert!(shorter.weight() <= 130_000, "{}", shorter.weight());
            let messages = shorter.messages(usize::MAX);
            assert_paired(&messages);
            assert!(matches!(messages.first(), Some(Message::User { .. })));
        }
        b.reply("done", &[]);
    }
}
