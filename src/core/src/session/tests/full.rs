//! A full disk: what is under way comes to its end, nothing is begun, and it goes on as if nothing had been.

use super::*;

fn resume(bench: &mut Bench) {
    bench.held = false;
    bench.input(InputKind::Resume { reason: "space".to_owned() }).expect("resume");
}

#[test]
fn an_answer_is_written_down_and_its_calls_wait() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.held = true;
    b.reply("", &["send"]);
    assert_eq!(b.last(2), ["model_responded", "session_paused"]);
    assert_eq!((b.runs().len(), b.state.paused.as_deref()), (0, Some(DISK_FULL)));
    assert_eq!(replay(&b.log), b.state);
    resume(&mut b);
    assert_eq!(b.last(2), ["session_resumed", "tool_started"]);
    assert_eq!(b.runs(), ["c1-1-1"], "it runs, once");
    // The control: with room it runs at once.
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["send"]);
    assert_eq!(b.runs(), ["c1-1-1"]);
}

#[test]
fn what_a_tool_has_done_is_written_down() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["send", "send"]);
    b.held = true;
    b.tool_done("c1-1-1");
    assert_eq!(b.last(2), ["tool_finished", "session_paused"]);
    resume(&mut b);
    assert_eq!(b.runs(), ["c1-1-1", "c1-1-2"], "none of them twice");
    b.held = true;
    b.tool_done("c1-1-2");
    assert_eq!(b.last(2), ["tool_finished", "session_paused"]);
    b.effects.clear();
    resume(&mut b);
    assert_eq!(b.asked(), Some((1, 2, 1)));
}

#[test]
fn what_is_answered_is_finished_and_the_next_waits() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("one");
    b.say("two");
    b.held = true;
    b.reply("1", &[]);
    assert_eq!(b.last(3), ["model_responded", "turn_finished", "session_paused"]);
    b.effects.clear();
    resume(&mut b);
    assert_eq!(b.last(3), ["session_resumed", "turn_started", "model_requested"]);
    b.held = true;
    b.reply("2", &[]);
    assert_eq!(b.last(2), ["model_responded", "turn_finished"], "there is nothing left to wait");
    assert_eq!(b.state.paused, None);
}

#[test]
fn what_is_under_way_is_not_stopped() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.held = true;
    let before = b.log.len();
    b.input(InputKind::Timer(Timer::Approval { approval_id: "a9-9-9".to_owned() })).expect("timer");
    b.input(InputKind::Reached { turn: 1, back: true }).expect("reached");
    assert_eq!((b.log.len(), b.state.paused.as_deref()), (before, None), "the model is at work still");
    // A retry would begin something.
    b.held = false;
    b.input(failed((1, 1, 1), FailureKind::Connect, "refused".to_owned(), None)).expect("failed");
    b.held = true;
    b.input(InputKind::Timer(Timer::Retry { turn: 1, step: 1, attempt: 1 })).expect("timer");
    assert_eq!(b.state.paused.as_deref(), Some(DISK_FULL));
}

#[test]
fn after_a_crash_nothing_is_begun_either() {
    let mut b = Bench::new(Verdict::Allow);
    b.say("hi");
    b.reply("", &["send"]);
    b.held = true;
    let written = b.crash(b.log.len());
    assert_eq!(written.last(), Some(&"session_paused"), "{written:?}");
    assert!(b.runs().is_empty());
    b.held = false;
    let written = b.crash(b.log.len());
    assert_eq!(written.first(), Some(&"session_resumed"), "a pause is no crash: {written:?}");
    assert_eq!(b.state.crashes, 1);
}
