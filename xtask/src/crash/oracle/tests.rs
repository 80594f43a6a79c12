use super::*;
use crate::crash::log::{read, seal};

const CREATED: &str = r#""type":"session_created","v":1,"session":"s","agent":"a""#;
const MESSAGE: &str = r#""type":"message_received","turn":1,"source":"cli","content":"go""#;
const STARTED: &str = r#""type":"turn_started","turn":1"#;
const ASKED_1: &str = r#""type":"model_requested","turn":1,"step":1,"attempt":1"#;
const CALLS: &str = r#""type":"model_responded","turn":1,"step":1,"text":"","tool_calls":[{"call_id":"c1-1-1","name":"bash","arguments":{}}]"#;
const RUNS: &str = r#""type":"tool_started","call_id":"c1-1-1","name":"bash","arguments":{"command":"echo $DURAGENT_CALL_ID"},"effect":"once""#;
const RAN: &str = r#""type":"tool_finished","call_id":"c1-1-1","result":"ok","exit_code":0"#;
const BROKE: &str = r#""type":"tool_interrupted","call_id":"c1-1-1","reason":"crash""#;
const RECOVERED: &str =
    r#""type":"session_recovered","reason":"unfinished_turn","dropped_bytes":0,"turn":1,"crashes":1"#;
const ASKED_2: &str = r#""type":"model_requested","turn":1,"step":2,"attempt":1"#;
const ASKED_AGAIN: &str = r#""type":"model_requested","turn":1,"step":2,"attempt":2"#;
const ANSWER: &str = r#""type":"model_responded","turn":1,"step":2,"text":"done","tool_calls":[]"#;
const FINISHED: &str = r#""type":"turn_finished","turn":1,"reason":"completed""#;

const GOOD: [&str; 10] = [CREATED, MESSAGE, STARTED, ASKED_1, CALLS, RUNS, RAN, ASKED_2, ANSWER, FINISHED];

fn log(bodies: &[&str]) -> Log {
    read(&seal(bodies)).expect("is sealed right")
}

fn finds(bodies: &[&str], wanted: &str) {
    let findings = check(&log(bodies), true);
    assert!(findings.iter().any(|f| f.contains(wanted)), "expected {wanted:?}, found {findings:#?}");
}

#[test]
fn good_logs_raise_nothing() {
    assert_eq!(check(&log(&GOOD), true), [""; 0]);
    let interrupted = [CREATED, MESSAGE, STARTED, ASKED_1, CALLS, RUNS, RECOVERED, BROKE, ASKED_2, ANSWER, FINISHED];
    assert_eq!(check(&log(&interrupted), true), [""; 0]);
    let asked_again =
        [CREATED, MESSAGE, STARTED, ASKED_1, CALLS, RUNS, RAN, ASKED_2, RECOVERED, ASKED_AGAIN, ANSWER, FINISHED];
    assert_eq!(check(&log(&asked_again), true), [""; 0]);
    for end in 0..GOOD.len() {
        assert_eq!(check(&log(&GOOD[..end]), false), [""; 0], "{end}");
    }
}

#[test]
fn every_rule_of_order_is_seen_to_be_broken() {
    let without =
        |index: usize| GOOD.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, b)| *b).collect::<Vec<_>>();
    let twice = |index: usize| {
        let mut bodies = GOOD.to_vec();
        bodies.insert(index, GOOD[index]);
        bodies
    };
    for (index, wanted) in [
        (0, "expected session_created"),
        (1, "nobody sent a message"),
        (2, "the open turn is None"),
        (3, "the model was not asked this"),
        (4, "nobody asked for call"),
        (5, "never started"),
        (6, "has no result"),
        (7, "the model was not asked this"),
        (8, "completed while the model is being asked"),
        (9, "turn 1 is open at the end"),
    ] {
        finds(&without(index), wanted);
    }
    for (index, wanted) in [
        (0, "not the first line"),
        (1, "has a message already"),
        (2, "is still open"),
        (3, "expected step 1 attempt 2"),
        (4, "the model was not asked this"),
        (5, "starts a second time"),
        (6, "has a second result"),
        (9, "the open turn is None"),
    ] {
        finds(&twice(index), wanted);
    }
    finds(&[CREATED, MESSAGE], "never answered");
    finds(&[&GOOD[..], &[RAN]].concat(), "second result");
    finds(&[&GOOD[..7], &[RECOVERED, ASKED_AGAIN]].concat(), "expected step 2 attempt 1");
    let pure = RUNS.replace("once", "pure");
    finds(
        &[CREATED, MESSAGE, STARTED, ASKED_1, CALLS, &pure, BROKE, ASKED_2, ANSWER, FINISHED],
        "although it may run again",
    );
    let given_up =
        [CREATED, MESSAGE, STARTED, ASKED_1, CALLS, &pure, BROKE, &FINISHED.replace("completed", "quarantined")];
    assert_eq!(check(&log(&given_up), true), [""; 0]);
    let late = GOOD[7..9].iter().chain(&[RAN]).copied().collect::<Vec<_>>();
    finds(&[&GOOD[..6], &late].concat(), "belongs to an earlier step");
}

#[test]
fn a_tail_is_no_rest() {
    let torn = [seal(&GOOD), b"{".to_vec()].concat();
    let log = read(&torn).expect("the lines are intact");
    assert_eq!(check(&log, false), [""; 0]);
    assert_eq!(check(&log, true), ["1 bytes after the last line"]);
}

#[test]
fn what_was_published_has_to_be_there() {
    let log = log(&GOOD);
    let lines: Vec<String> = log.entries.iter().map(|e| e.line.clone()).collect();
    assert_eq!(acknowledged(&log, &lines), [""; 0]);
    assert_eq!(acknowledged(&log, &lines[3..5]), [""; 0]);
    let short = read(&seal(&GOOD[..4])).expect("is intact");
    assert_eq!(acknowledged(&short, &lines[3..5]).len(), 1);
    assert_eq!(acknowledged(&log, &[lines[2].replace("turn", "Turn")]).len(), 1);
    assert_eq!(acknowledged(&log, &[lines[2].clone(), lines[2].clone()]).len(), 1);
    assert_eq!(acknowledged(&log, &["no json".to_owned()]).len(), 2);
}

#[test]
fn what_was_there_stays_there() {
    let (long, short) = (log(&GOOD), log(&GOOD[..5]));
    assert_eq!(kept(&short, &long), [""; 0]);
    assert_eq!(kept(&long, &short).len(), 5);
    assert_eq!(kept(&log(&[CREATED, STARTED]), &long).len(), 1);
}

#[test]
fn effects_and_the_log_agree() {
    assert_eq!(effects(&log(&GOOD), "c1-1-1\n"), [""; 0]);
    assert_eq!(effects(&log(&GOOD[..6]), ""), [""; 0]);
    assert_eq!(effects(&log(&GOOD), ""), ["call c1-1-1 finished and its effect never happened"]);
    assert_eq!(effects(&log(&GOOD), "c1-1-1\nc1-1-1\n"), ["call c1-1-1 is `once` and had its effect 2 times"]);
    assert_eq!(effects(&log(&GOOD[..5]), "c1-1-1\n"), ["call c1-1-1 had its effect and the log has no tool_started"]);
    let idempotent = RUNS.replace("once", "idempotent");
    assert_eq!(
        effects(&log(&[CREATED, MESSAGE, STARTED, ASKED_1, CALLS, &idempotent, RAN]), "c1-1-1\nc1-1-1\n"),
        [""; 0]
    );
}

#[test]
fn a_story_is_the_same_with_a_crash_that_cost_nothing() {
    let calm = story(&log(&GOOD));
    let crashed =
        [CREATED, MESSAGE, STARTED, ASKED_1, CALLS, RUNS, RAN, ASKED_2, RECOVERED, ASKED_AGAIN, ANSWER, FINISHED];
    assert_eq!(story(&log(&crashed)), calm);
    let interrupted = [CREATED, MESSAGE, STARTED, ASKED_1, CALLS, RUNS, RECOVERED, BROKE, ASKED_2, ANSWER, FINISHED];
    assert_ne!(story(&log(&interrupted)), calm);
    assert_eq!(calm.len(), 5, "{calm:#?}");
}
