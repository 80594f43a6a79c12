//! Talking to a session, alone and with others.

use crate::house::{House, eventually};
use duragent_core::event::{Body, TurnReason};

/// Writes a file after a word of approval, then says so; then greets.
const ASKS: &str = r#"{"deltas":["I write."],"tool_calls":[{"name":"bash","arguments":{"command":"echo done >> done.log"}}]}
{"deltas":["Written."]}
{"deltas":["Hello."]}
"#;
const GREETS: &str = "{\"repeat\":true}\n{\"deltas\":[\"Hel\",\"lo.\"]}\n";
const WAITS: &str = r#"{"deltas":["I wait."],"tool_calls":[{"name":"bash","arguments":{"command":"sh wait.sh"}}]}
{"deltas":["Over."]}
{"deltas":["Again."]}
"#;
const TOOL: &str = "echo ran >> ran.log\nwhile [ ! -e go ]; do sleep 0.05; done\n";

fn waits(name: &str) -> House {
    let house = House::new(name, WAITS, "mode: allow");
    house.write("wait.sh", TOOL);
    house
}

fn reasons(house: &House, session: &str) -> Vec<TurnReason> {
    let reason = |body: &Body| match body {
        Body::TurnFinished { reason, .. } => Some(*reason),
        _ => None,
    };
    house.events(session).iter().filter_map(|e| reason(&e.body)).collect()
}

#[test]
fn lines_of_a_script_are_turns_one_after_the_other() {
    let house = House::new("script", GREETS, "mode: allow");
    let ended = house.run(&["chat", "worker", "--session", "one"], "first\nsecond\n\n//third\n");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Hello.\nHello.\nHello.\n"), "{ended:?}");
    let said: Vec<String> = house.said("one").into_iter().map(|(_, content)| content).collect();
    assert_eq!(said, ["first", "second", "/third"]);
    let kinds = house.kinds("one");
    let at = |kind: &str, n: usize| kinds.iter().enumerate().filter(|(_, k)| *k == kind).nth(n).map(|(i, _)| i);
    assert!(at("message_received", 1) > at("turn_finished", 0), "{kinds:?}");
    assert!(!ended.err.contains('\u{1b}') && !ended.out.contains('\u{1b}'), "no terminal, no codes: {ended:?}");
}

#[test]
fn attach_shows_what_was_said_before() {
    let house = House::new("history", GREETS, "mode: allow");
    let lines: String = (1..=7).map(|n| format!("message {n}\n")).collect();
    house.run(&["chat", "worker", "--session", "one"], &lines);
    let ended = house.run(&["attach", "on"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("(4 earlier messages: duragent session show one)"), "{ended:?}");
    assert!(!ended.out.contains("message 2\n") && ended.out.starts_with("> message 3\nHello.\n"), "{ended:?}");
    assert!(ended.out.ends_with("> message 7\nHello.\n"), "{ended:?}");
}

#[test]
fn approvals_are_answered_inline() {
    for (answer, ran, word) in
        [("y", true, "granted (once)"), ("session", true, "granted (session)"), ("n", false, "denied (once)")]
    {
        let house = House::new(&format!("inline-{answer}"), ASKS, "mode: ask");
        let ended = house.run(&["chat", "worker", "--session", "one"], &format!("write\n{answer}\nhi\n"));
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "I write.\nWritten.\nHello.\n"), "{ended:?}");
        assert!(ended.err.contains("allow bash: echo done >> done.log? [y]es once"), "{ended:?}");
        assert!(ended.err.contains(word), "{ended:?}");
        assert_eq!(house.read("done.log").is_some(), ran);
    }
}

#[test]
fn a_script_without_an_answer_ends_with_4() {
    let house = House::new("unanswered", ASKS, "mode: ask");
    let ended = house.run(&["chat", "worker", "--session", "one"], "write\nhow are you?\n");
    assert_eq!((ended.code, ended.out.as_str()), (Some(4), "I write.\n"), "{ended:?}");
    assert!(ended.err.contains("duragent approve one a1-1-1"), "{ended:?}");
    assert_eq!(house.said("one").len(), 1, "the second line was not sent");
    let ended = house.run(&["attach", "one"], "");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let ended = house.run(&["attach", "one"], "always\n");
    assert_eq!((ended.code, house.read("done.log").is_some()), (Some(0), true), "{ended:?}");
    let policy = house.read(".duragent/agents/worker/policy.yaml").unwrap_or_default();
    assert!(policy.contains("echo done"), "{policy}");
}

#[test]
fn two_clients_of_one_session_see_the_same() {
    let house = House::new("two", ASKS, "mode: ask");
    let _server = house.serve();
    let mut one = house.start(&["chat", "worker", "--session", "shared"]);
    one.err.wait_for("session shared of worker");
    let mut two = house.start(&["attach", "shared"]);
    two.err.wait_for("session shared of worker");

    one.type_in("write\n");
    for client in [&mut one, &mut two] {
        client.err.wait_for("allow bash: echo done >> done.log?");
    }
    two.type_in("y\n");
    one.err.wait_for("somebody else decided first");
    for client in [&mut one, &mut two] {
        client.err.wait_for("[bash] exit 0");
        client.out.wait_for("Written.\n");
    }
    let (one, two) = (one.end(), two.end());
    assert_eq!((one.code, two.code), (Some(0), Some(0)), "{one:?} {two:?}");
    assert_eq!(one.out, "I write.\nWritten.\n");
    assert_eq!(two.out, "cli> write\nI write.\nWritten.\n");
    assert!(!two.err.contains("somebody else"), "{two:?}");
}

#[test]
fn detaching_from_a_server_leaves_the_turn_running() {
    let house = waits("detach");
    let _server = house.serve();
    let mut chat = house.start(&["chat", "worker", "--session", "one"]);
    chat.type_in("hi\n");
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    chat.type_in("/detach\n");
    let ended = chat.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("detached; the turn goes on"), "{ended:?}");
    assert_eq!(reasons(&house, "one"), []);
    house.write("go", "");
    eventually("the turn completes without us", || reasons(&house, "one") == [TurnReason::Completed]);
}

#[test]
fn detaching_without_a_server_finishes_the_turn_first() {
    let house = waits("own");
    let mut chat = house.start(&["chat", "worker", "--session", "one"]);
    chat.type_in("hi\n");
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    chat.type_in("/detach\n");
    chat.err.wait_for("this process finishes the turn first; Ctrl-C to leave it on disk instead");
    house.write("go", "");
    let ended = chat.end();
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "I wait.\nOver.\n"), "{ended:?}");
}

#[test]
fn detaching_without_a_server_an_interrupt_leaves_the_turn_on_disk() {
    let house = waits("leave");
    let mut chat = house.start(&["chat", "worker", "--session", "one"]);
    chat.type_in("hi\n/detach\n");
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    chat.err.wait_for("finishes the turn first");
    chat.signal("INT");
    let ended = chat.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(reasons(&house, "one"), [], "not cancelled");
    let ended = house.run(&["run", "--resume", "one"], "");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Over.\n"), "{ended:?}");
    assert_eq!(house.read("ran.log").as_deref(), Some("ran\n"));
}

#[test]
fn an_interrupt_cancels_the_turn_and_the_rest_of_the_script() {
    let house = waits("cancel");
    let mut chat = house.start(&["chat", "worker", "--session", "one"]);
    chat.type_in("hi\nmore\n");
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    chat.signal("INT");
    let ended = chat.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(reasons(&house, "one"), [TurnReason::Cancelled]);
    assert_eq!(house.said("one").len(), 1);
}

#[test]
fn commands_answer_while_a_turn_runs() {
    let house = waits("commands");
    let mut chat = house.start(&["chat", "worker", "--session", "one"]);
    chat.type_in("/help\n/nonsense\nhi\n");
    chat.err.wait_for("/detach  leave");
    chat.err.wait_for("no command /nonsense");
    eventually("the tool runs", || house.read("ran.log").as_deref() == Some("ran\n"));
    chat.type_in("/status\n");
    chat.err.wait_for("session one of worker in this process: running, 1 turn, ");
    chat.type_in("/cancel\nmore\n");
    chat.err.wait_for("[turn] cancelled");
    chat.out.wait_for("Over.");
    let ended = chat.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(reasons(&house, "one"), [TurnReason::Cancelled, TurnReason::Completed]);
}
