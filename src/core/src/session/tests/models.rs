//! Chains of models, windows, outages, loops and tags.

use super::*;

/// A chain of `n` models, `p0/m0` first, each with this window.
pub(super) fn chain(mode: Verdict, n: usize, context_tokens: u64) -> Bench {
    let mut b = Bench::new(mode);
    let model = |i: usize| Model {
        provider: format!("p{i}"),
        name: format!("m{i}"),
        context_tokens,
        answer_tokens: 100,
        token_tenths: 10,
        price: Price::default(),
    };
    b.rules.fallbacks = (0..n).map(model).collect();
    b.rules.model = b.rules.fallbacks.remove(0);
    b
}

impl Bench {
    /// The model call under way fails.
    fn fail(&mut self, kind: FailureKind) {
        self.fail_with(kind, None, false);
    }

    pub(super) fn fail_with(&mut self, kind: FailureKind, context_tokens: Option<u64>, worked: bool) {
        let (turn, step, attempt) = self.asked().expect("a model call is under way");
        let (detail, retry_after_ms, duration_ms) = ("went wrong".to_owned(), None, 7);
        self.input(InputKind::Failed {
            turn,
            step,
            attempt,
            kind,
            detail,
            retry_after_ms,
            context_tokens,
            worked,
            duration_ms,
        })
        .expect("failed");
    }

    /// The pause before the next try is over.
    pub(super) fn retry(&mut self) {
        let due = self.effects.iter().rev().find_map(|e| match e {
            Effect::SetTimer { timer: timer @ Timer::Retry { .. }, .. } => Some(timer.clone()),
            _ => None,
        });
        self.input(InputKind::Timer(due.expect("a pause"))).expect("timer");
    }

    /// Fails until nothing is tried again on this model.
    fn exhaust(&mut self, kind: FailureKind) {
        for try_ in 1..=self.rules.limits.attempts_max {
            self.fail(kind);
            if try_ < self.rules.limits.attempts_max {
                self.retry();
            }
        }
    }

    pub(super) fn ended(&self) -> (TurnReason, String) {
        let last = self.state.finished.back().expect("a turn has ended");
        (last.reason, last.detail.clone().unwrap_or_default())
    }

    /// Model calls so far, as provider names.
    pub(super) fn requests(&self) -> Vec<&str> {
        let requested = |e: &Event| matches!(e.body, Body::ModelRequested { .. });
        let name = |e: &'_ Event| match &e.body {
            Body::ModelRequested { provider, summary: true, .. } => format!("{provider}*").leak() as &str,
            Body::ModelRequested { provider, .. } => provider.clone().leak(),
            _ => "",
        };
        self.log.iter().filter(|e| requested(e)).map(name).collect()
    }

    fn bytes(&self) -> usize {
        messages(&self.state, &self.rules).iter().map(Message::weight).sum()
    }
}

#[test]
fn a_chain_is_gone_through_and_every_hop_is_an_event() {
    let mut b = chain(Verdict::Allow, 3, 1 << 20);
    b.rules.limits.attempts_max = 2;
    b.say("hi");
    b.exhaust(FailureKind::Connect);
    assert_eq!(b.last(3), ["model_failed", "model_switched", "model_requested"]);
    // What cannot be mended by asking again is not asked again.
    b.fail(FailureKind::Refused);
    assert_eq!(b.requests(), ["p0", "p0", "p1", "p2"]);
    assert!(b.log.iter().any(|e| matches!(&e.body, Body::ModelSwitched { from_provider, provider, reason, .. }
        if (from_provider.as_str(), provider.as_str(), *reason) == ("p1", "p2", FailureKind::Refused))));
    b.reply("", &["look"]);
    b.tool_done("c1-1-1");
    b.reply("done", &[]);
    assert_eq!(b.requests(), ["p0", "p0", "p1", "p2", "p2"], "the turn stays where it found an answer");
    b.say("again");
    assert_eq!(b.requests().last(), Some(&"p0"), "and the next one begins at the top");
    assert_eq!(replay(&b.log), b.state);
    let mut b = chain(Verdict::Allow, 1, 1 << 20);
    b.rules.limits.attempts_max = 2;
    b.say("hi");
    b.exhaust(FailureKind::Connect);
    assert_eq!(b.ended().0, TurnReason::Failed, "the control: without a chain it fails");
}

#[test]
fn a_crash_in_the_middle_of_a_chain_stays_at_its_place() {
    let mut b = chain(Verdict::Allow, 2, 1 << 20);
    b.say("hi");
    b.fail(FailureKind::Refused);
    assert_eq!(b.requests(), ["p0", "p1"]);
    b.crash(b.log.len());
    assert_eq!(b.requests(), ["p0", "p1", "p1"]);
    // The hop was logged, the request behind it was not.
    let mut b = chain(Verdict::Allow, 2, 1 << 20);
    b.say("hi");
    b.fail(FailureKind::Refused);
    b.crash(b.log.len() - 1);
    assert_eq!(b.requests(), ["p0", "p1"]);
}

#[test]
fn a_turn_is_parked_and_goes_on_when_a_provider_is_back() {
    let mut b = chain(Verdict::Allow, 2, 1 << 20);
    b.rules.limits.attempts_max = 1;
    b.rules.limits.offline_ms_max = 86_400_000;
    b.say("hi");
    b.fail(FailureKind::Connect);
    b.fail(FailureKind::Timeout);
    assert_eq!(b.last(2), ["model_failed", "session_paused"]);
    assert!(b.state.paused.as_deref() == Some(OFFLINE) && b.state.turn.is_some());
    b.effects.clear();
    for _ in 0..100 {
        let log = b.log.len();
        b.now += 1000;
        b.input(InputKind::Timer(Timer::Online { turn: 1 })).expect("timer");
        assert!(b.effects.iter().any(|e| matches!(e, Effect::Reach { turn: 1 })), "{:?}", b.effects);
        b.effects.clear();
        b.input(InputKind::Reached { turn: 1, back: false }).expect("reached");
        let next = |e: &Effect| matches!(e, Effect::SetTimer { after_ms: 2000..=60_000, timer: Timer::Online { .. } });
        assert!(b.effects.iter().any(next), "{:?}", b.effects);
        b.effects.clear();
        assert_eq!(b.log.len(), log, "looking is not logged");
    }
    // A reboot changes nothing, and does not look like a crash of the turn.
    for _ in 0..5 {
        assert!(b.crash(b.log.len()).is_empty());
        assert!(b.effects.iter().any(|e| matches!(e, Effect::SetTimer { timer: Timer::Online { .. }, .. })));
    }
    b.input(InputKind::Reached { turn: 1, back: true }).expect("reached");
    assert_eq!(b.last(2), ["session_resumed", "model_requested"]);
    b.reply("there", &[]);
    assert_eq!(b.ended().0, TurnReason::Completed);
    assert_eq!(replay(&b.log), b.state);
}

#[test]
fn a_parked_turn_ends_by_its_limit_by_a_cancel_and_by_nothing_late() {
    let parked = || {
        let mut b = chain(Verdict::Allow, 1, 1 << 20);
        (b.rules.limits.attempts_max, b.rules.limits.offline_ms_max) = (1, 5000);
        b.say("hi");
        b.fail(FailureKind::Connect);
        b
    };
    let mut b = parked();
    b.input(InputKind::Timer(Timer::Offline { turn: 1 })).expect("timer");
    let (reason, detail) = b.ended();
    assert!(reason == TurnReason::Failed && detail.starts_with("offline_seconds_max: p0/m0 could not"), "{detail}");
    assert_eq!(b.state.paused, None, "the session takes messages");
    let mut b = parked();
    b.input(InputKind::Cancel).expect("cancel");
    assert_eq!((b.ended().0, b.state.paused.as_deref()), (TurnReason::Cancelled, None));
    b.input(InputKind::Reached { turn: 1, back: true }).expect("reached");
    b.input(InputKind::Timer(Timer::Online { turn: 1 })).expect("timer");
    assert_eq!(b.last(1), ["turn_finished"], "nothing late starts anything");
    // Whoever speaks wants an answer: both turns go on.
    let mut b = parked();
    b.say("are you there?");
    assert_eq!(b.last(3), ["message_received", "session_resumed", "model_requested"]);
    b.reply("one", &[]);
    b.reply("two", &[]);
    assert_eq!(b.state.finished.len(), 2);
    assert_eq!(replay(&b.log), b.state);
}

#[test]
fn a_long_retry_after_is_waited_for_on_disk() {
    let mut b = chain(Verdict::Allow, 1, 1 << 20);
    let (turn, step, attempt) = (1, 1, 1);
    b.say("hi");
    let kind = failed((turn, step, attempt), FailureKind::Overloaded, "429".to_owned(), Some(300_000));
    b.input(kind).expect("failed");
    b.now += 100_000;
    b.crash(b.log.len());
    let left = b.effects.iter().find_map(|e| match e {
        Effect::SetTimer { after_ms, timer: Timer::Retry { .. } } => Some(*after_ms),
        _ => None,
    });
    assert!(left.is_some_and(|ms| (199_000..=200_000).contains(&ms)), "{left:?}");
    // It does not count as time of the turn.
    b.input(InputKind::Timer(Timer::TurnLimit { turn: 1 })).expect("timer");
    assert!(b.state.turn.is_some());
    b.now += 190_000;
    b.input(InputKind::Timer(Timer::TurnLimit { turn: 1 })).expect("timer");
    assert_eq!(b.ended().0, TurnReason::Limit, "the control: a short pause does");
    // With another model to ask nobody waits that long.
    let mut b = chain(Verdict::Allow, 2, 1 << 20);
    b.say("hi");
    let kind = failed((turn, step, attempt), FailureKind::Overloaded, "429".to_owned(), Some(300_000));
    b.input(kind).expect("failed");
    assert_eq!(b.requests(), ["p0", "p1"]);
}

#[test]
fn a_malformed_call_is_handed_back_twice() {
    let mut b = chain(Verdict::Allow, 2, 1 << 20);
    b.say("hi");
    for n in 1..=2 {
        b.fail(FailureKind::BadToolCall);
        assert_eq!(b.last(2), ["model_failed", "model_requested"]);
        let Some(Message::User { content }) = messages(&b.state, &b.rules).pop() else { panic!("a complaint") };
        assert_eq!(content.matches("could not be used: went wrong").count(), n);
    }
    b.fail(FailureKind::BadToolCall);
    assert_eq!((b.ended().0, b.last(2)), (TurnReason::Failed, vec!["model_failed", "turn_finished"]));
    // A good answer between them starts the count anew.
    let mut b = chain(Verdict::Allow, 1, 1 << 20);
    b.say("hi");
    for _ in 0..4 {
        b.fail(FailureKind::BadToolCall);
        b.fail(FailureKind::BadToolCall);
        b.reply("", &["look"]);
        let call = b.runs().pop().expect("a call");
        b.tool_done(&call);
    }
    assert_eq!(replay(&b.log), b.state);
}

#[test]
fn a_call_that_comes_back_the_same_again_and_again_stops_the_turn() {
    for (same, repeats_max) in [(true, 4), (false, 4), (true, 100)] {
        let mut b = chain(Verdict::Allow, 1, 1 << 20);
        (b.rules.limits.repeats_max, b.rules.limits.steps_max) = (repeats_max, 12);
        b.say("hi");
        for step in 1..=12u64 {
            if b.state.turn.is_none() {
                break;
            }
            let (turn, _, attempt) = b.asked().expect("asked");
            let arguments = "{\"a\":1}".to_owned();
            let call = ToolCall { call_id: String::new(), name: "look".to_owned(), arguments };
            let reply = Reply { tool_calls: vec![call], ..Reply::default() };
            b.input(InputKind::Replied { turn, step, attempt, reply, duration_ms: 1 }).expect("reply");
            let result = if same { "nothing".to_owned() } else { format!("line {step}") };
            let outcome = ToolOutcome { result, ..ToolOutcome::default() };
            b.input(InputKind::ToolDone { call_id: format!("c1-{step}-1"), outcome }).expect("done");
        }
        let (reason, detail) = b.ended();
        let stopped =
            detail.starts_with("call_repeats_max: the same call of look came back with the same result 4 times");
        assert_eq!((reason, stopped), (TurnReason::Limit, same && repeats_max == 4), "{detail}");
    }
}

#[test]
fn what_outgrows_the_window_is_left_out_down_to_half_of_it() {
    let mut b = chain(Verdict::Allow, 1, 4096);
    b.rules.prefix_bytes = 1000;
    for turn in 1..=40 {
        let before = b.log.len();
        b.say(&"x".repeat(700));
        let (bytes, fit) = (b.bytes(), Fit::new(&b.state, &b.rules, &b.rules.model));
        assert!(fit.tokens(bytes) + fit.answer <= fit.window, "turn {turn}: {bytes}");
        if b.log[before..].iter().any(|e| matches!(e.body, Body::SessionCompacted { .. })) {
            assert!(bytes <= fit.budget() / 2, "turn {turn}: {bytes}: not every turn cuts");
        }
        b.reply("y", &[]);
        assert_eq!(replay(&b.log), b.state);
    }
    let cuts = b.log.iter().filter(|e| matches!(e.body, Body::SessionCompacted { .. })).count();
    assert!((5..=20).contains(&cuts), "{cuts}: the prefix stays for some turns");
}

#[test]
fn a_turn_that_outgrows_the_window_keeps_its_question_and_its_pairs() {
    let mut b = chain(Verdict::Allow, 1, 4096);
    b.rules.limits.steps_max = 40;
    b.say("the question");
    for step in 1..=30 {
        b.reply("", &["look", "put"]);
        for call in 1..=2 {
            let outcome = ToolOutcome { result: "z".repeat(600), ..ToolOutcome::default() };
            b.input(InputKind::ToolDone { call_id: format!("c1-{step}-{call}"), outcome }).expect("done");
        }
        let messages = messages(&b.state, &b.rules);
        assert!(matches!(messages.first(), Some(Message::User { content }) if content == "the question"));
        assert_paired(&messages);
        assert!(b.bytes() <= 4096 - 100);
    }
    // One answer with results that are each too large: they are squeezed, and nothing is lost from the log.
    let mut b = chain(Verdict::Allow, 1, 4096);
    b.say("q");
    b.reply("", &["look", "look", "look"]);
    for call in 1..=3 {
        let outcome = ToolOutcome { result: format!("head{}tail", "ä".repeat(3000)), ..ToolOutcome::default() };
        b.input(InputKind::ToolDone { call_id: format!("c1-1-{call}"), outcome }).expect("done");
    }
    assert_eq!(b.requests().len(), 2);
    let messages = messages(&b.state, &b.rules);
    let whole = |m: &Message| match m {
        Message::Tool { content, .. } => {
            content.starts_with("head") && content.ends_with("tail") && content.len() < 1200
        }
        _ => true,
    };
    assert!(messages.iter().all(whole) && b.bytes() <= 4096 - 100, "{}", b.bytes());
}

#[test]
fn a_prompt_that_cannot_fit_is_refused_with_figures() {
    let mut b = chain(Verdict::Allow, 1, 4096);
    b.rules.prefix_bytes = 500;
    b.say(&"x".repeat(5000));
    let (reason, detail) = b.ended();
    assert_eq!((reason, b.requests().len()), (TurnReason::Failed, 0), "nobody was asked");
    for figure in ["5532", "500", "100", "4096", "m0"] {
        assert!(detail.contains(figure), "{figure}: {detail}");
    }
}

#[test]
fn a_summary_takes_the_place_of_what_it_sums_up() {
    let grown = || {
        let mut b = chain(Verdict::Allow, 1, 4096);
        b.rules.compaction = Compaction::Summary;
        b.say(&"a".repeat(1500));
        b.reply("ok", &[]);
        b.say(&"b".repeat(1500));
        b.reply("ok", &[]);
        b.say(&"c".repeat(1500));
        assert_eq!(b.requests(), ["p0", "p0", "p0*"]);
        let asked = messages(&b.state, &b.rules);
        let Some(Message::User { content }) = asked.last() else { panic!("an instruction") };
        assert!(content.ends_with("the summary only.") && b.bytes() <= 3996);
        b
    };
    let mut b = grown();
    b.reply("they said a and b", &[]);
    assert_eq!(b.last(2), ["session_compacted", "model_requested"]);
    let shown = messages(&b.state, &b.rules);
    let Some(Message::User { content }) = shown.first() else { panic!("a summary") };
    assert!(content.starts_with("[Summary of the conversation so far]\nthey said a and b\n\nc"), "{content:.80}");
    b.reply("done", &[]);
    let last = b.state.finished.back().expect("ended");
    assert_eq!((last.reply.as_str(), last.usage.input_tokens), ("done", 20), "the summary counts as usage");
    assert_eq!(replay(&b.log), b.state);
    // A summary that saves nothing, or none at all: the old part is left out, once.
    for spoil in [0, 1, 2] {
        let mut b = grown();
        match spoil {
            0 => b.reply(&"long".repeat(500), &[]),
            1 => b.reply("", &["look"]),
            _ => b.fail(FailureKind::Connect),
        }
        assert_eq!(b.last(2), ["session_compacted", "model_requested"], "{spoil}");
        assert_eq!(b.requests(), ["p0", "p0", "p0*", "p0"], "{spoil}");
        assert!(b.state.history.weight() < 1700 && b.runs().is_empty(), "{spoil}: no call of a summary is run");
    }
    // A crash while it is being made: it is asked for again.
    let mut b = grown();
    b.crash(b.log.len());
    assert!(b.requests().len() == 4 && b.state.turn.is_some());
    assert_eq!(replay(&b.log), b.state);
}

#[test]
fn a_model_that_says_too_long_is_believed() {
    let mut b = chain(Verdict::Allow, 1, 8192);
    for _ in 0..5 {
        b.say(&"x".repeat(1000));
        b.reply("y", &[]);
    }
    b.say(&"x".repeat(1000));
    b.fail_with(FailureKind::TooLong, Some(4096), false);
    assert_eq!(b.last(3), ["model_failed", "session_compacted", "model_requested"]);
    assert!(b.bytes() <= 2048, "{}", b.bytes());
    b.reply("y", &[]);
    b.say("and from now on");
    assert_eq!(Fit::new(&b.state, &b.rules, &b.rules.model).window, 4096);
    // Without a figure the estimate is raised, and that ends.
    for _ in 0..3 {
        b.fail_with(FailureKind::TooLong, None, false);
        assert_eq!(b.last(1), ["model_requested"]);
    }
    b.fail_with(FailureKind::TooLong, None, false);
    assert_eq!(b.ended().0, TurnReason::Failed);
    assert_eq!(replay(&b.log), b.state);
}

#[test]
fn estimates_learn_from_what_was_counted() {
    let mut b = chain(Verdict::Allow, 1, 100_000);
    b.rules.prefix_bytes = 1000;
    b.say(&"x".repeat(1000));
    let (turn, step, attempt) = b.asked().expect("asked");
    let usage = Usage { input_tokens: 4064, output_tokens: 1, ..Usage::default() };
    let reply = Reply { text: "y".to_owned(), usage, ..Reply::default() };
    b.input(InputKind::Replied { turn, step, attempt, reply, duration_ms: 1 }).expect("reply");
    assert_eq!(b.state.learned.permille, 2000, "twice as many as was thought");
    assert_eq!(Fit::new(&b.state, &b.rules, &b.rules.model).tokens(1000), 4000);
}

#[test]
fn data_may_not_leave_unasked_once_strangers_have_spoken() {
    let tagged = |private: &str, untrusted: &str| {
        let mut b = chain(Verdict::Allow, 1, 1 << 20);
        for tool in &mut b.rules.tools {
            tool.tags.private = tool.name == private;
            tool.tags.untrusted = tool.name == untrusted;
            tool.tags.egress = tool.name == "send";
        }
        b.say("hi");
        b
    };
    // All three in one answer: what the first two brought in counts when the third is about to start.
    for (private, untrusted, asked) in [("look", "put", true), ("look", "", false), ("", "put", false), ("", "", false)]
    {
        let mut b = tagged(private, untrusted);
        b.reply("", &["look", "put", "send"]);
        b.tool_done("c1-1-1");
        b.tool_done("c1-1-2");
        assert_eq!(b.state.is_waiting(), asked, "{private} {untrusted}");
        assert_eq!(b.runs().len(), if asked { 2 } else { 3 });
    }
    let mut b = tagged("look", "put");
    b.reply("", &["look", "put", "send"]);
    b.tool_done("c1-1-1");
    b.tool_done("c1-1-2");
    let reason = b.log.iter().find_map(|e| match &e.body {
        Body::ApprovalRequested { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason, Some(Some("egress".to_owned())));
    // It is in the log: a crash does not wash it off.
    b.crash(b.log.len());
    assert!(b.state.is_waiting() && b.state.seen.private && b.state.seen.untrusted);
    let (approval_id, by) = ("a1-1-3".to_owned(), "test".to_owned());
    let decide = |scope| InputKind::Decide { approval_id, decision: Decision::Grant, scope, by };
    b.input(decide(Scope::Once)).expect("granted");
    assert_eq!(b.runs(), ["c1-1-3"], "granted, it runs without being asked for again");
    b.tool_done("c1-1-3");
    b.reply("", &["send"]);
    assert!(b.state.is_waiting(), "and the next one is asked for");
    assert_eq!(replay(&b.log), b.state);
}
