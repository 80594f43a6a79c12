//! `session show --prompt` against what the model then really gets.

use crate::house::{House, items, text, until};
use crate::model::{Answer, Model};
use duragent_core::json;
use std::fs;
use std::process::Stdio;

fn shown(house: &House) -> String {
    let out = house.good(&["session", "show", "s", "--prompt"]);
    out.strip_suffix('\n').expect("a line feed at the end").to_owned()
}

#[test]
fn a_model_that_is_busy_is_asked_again_for_exactly_what_was_shown_meanwhile() {
    let model = Model::start(vec![Answer::Busy, Answer::Say("Hello.")]);
    let house = House::init(&model);
    house.write("AGENTS.md", "Mind the \"quotes\" and the ünïcode.\n");
    house.skill("skills", "pdf", "x");
    let _server = house.serve();
    let mut turn = house
        .command(&["run", "assistant", "--session", "s", "hello \u{7}"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let first = model.asked().body;
    let during = shown(&house);
    let second = model.asked().body;
    assert_eq!(during, first);
    assert_eq!(during, second);
    assert!(turn.wait().expect("it ends").success());
    assert_eq!(model.rest(), 0);
}

#[test]
fn a_turn_that_a_crash_interrupted_asks_for_exactly_what_was_shown_without_a_server() {
    let call = Answer::Call("list_dir", r#"{"path":"."}"#.to_owned());
    let model = Model::start(vec![call, Answer::Hang, Answer::Say("Hello.")]);
    let house = House::init(&model);
    let mut turn = house
        .command(&["run", "assistant", "--session", "s", "hello"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let first = model.asked().body;
    let second = model.asked().body;
    assert_ne!(first, second, "the result of the call is in the second");
    turn.kill().and_then(|()| turn.wait()).expect("it ends as by a power cut");

    let log = house.read(".duragent/sessions/s/events.jsonl");
    assert_eq!(shown(&house), second);
    assert_eq!(house.read(".duragent/sessions/s/events.jsonl"), log, "looking changes nothing");
    assert_eq!(model.rest(), 0, "and asks nobody");
    let _server = house.serve();
    assert_eq!(model.asked().body, second);
    until("the turn's end", || house.events("turn_finished").pop());
}

#[test]
fn a_session_at_rest_shows_the_beginning_of_its_next_request() {
    let model = Model::start(vec![Answer::Say("Hello.")]);
    let house = House::init(&model);
    house.turn("hello");
    let first = model.asked().body;
    let at_rest = shown(&house);
    house.turn("and now?");
    let second = model.asked().body;
    // Byte for byte up to the new message: that is what a server's cache goes by.
    let conversation = |body: &str| body[..body.find("],\"tools\":").expect("tools behind the messages")].to_owned();
    assert!(conversation(&at_rest).starts_with(&conversation(&first)));
    assert!(conversation(&second).starts_with(&conversation(&at_rest)));
    let rest = |body: &str| body[conversation(body).len()..].to_owned();
    assert_eq!(rest(&at_rest), rest(&second));
    let body = json::parse(&at_rest).expect("JSON");
    let roles: Vec<String> = items(&body, "messages").iter().map(|message| text(message, "role")).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
}

#[test]
fn a_message_that_waited_is_shown_when_its_turn_has_come() {
    let model = Model::start(vec![Answer::Hang, Answer::Hang]);
    let house = House::init(&model);
    let _server = house.serve();
    let mut first =
        house.command(&["run", "assistant", "--session", "s", "one"]).stdout(Stdio::null()).spawn().expect("it starts");
    model.asked();
    let mut second =
        house.command(&["run", "assistant", "--session", "s", "two"]).stdout(Stdio::null()).spawn().expect("it starts");
    until("both messages", || (house.events("message_received").len() == 2).then_some(()));
    for child in [&mut first, &mut second] {
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }
    let cancelled = house.run(&["session", "cancel", "s"]);
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    let asked = model.asked().body;
    assert!(asked.contains("two"), "{asked}");
    assert_eq!(shown(&house), asked);
}

/// What the machine does by itself before the call is done before it is shown: here the conversation has outgrown the window.
#[test]
fn a_conversation_that_is_cut_first_is_shown_so() {
    let model = Model::start(vec![Answer::Say("One."), Answer::Say("Two."), Answer::Busy, Answer::Hang]);
    let house = House::init(&model);
    house.edit("agents/assistant/agent.yaml", "    temperature:", "    context_tokens: 2048\n    temperature:");
    let long = "tell me about the pump ".repeat(40);
    house.turn(&long);
    let _server = house.serve();
    house.turn(&long);
    let plain = (model.asked().body, model.asked().body);
    assert!(!plain.0.contains("Summarize") && !plain.1.contains("Summarize"), "{plain:?}");
    let mut turn = house.command(&["run", "assistant", "--session", "s", &long]);
    let mut turn = turn.stdout(Stdio::null()).spawn().expect("it starts");
    let summary = model.asked().body;
    assert!(summary.contains("Summarize this conversation"), "{summary}");
    // That failed, and the next call does without: the oldest part is left out.
    until("the failure", || house.events("model_failed").pop());
    let next = shown(&house);
    assert_ne!(next, summary);
    assert_eq!(model.asked().body, next);
    turn.kill().and_then(|()| turn.wait()).expect("it ends");
}

#[test]
fn what_cannot_be_shown_says_why() {
    let model = Model::start(vec![Answer::Say("Hello.")]);
    let house = House::init(&model);
    house.turn("hello");
    for (args, code, said) in [
        (&["session", "show", "s", "--prompt", "--json"][..], 2, "error: invalid option '--json'"),
        (&["session", "show", "nobody", "--prompt"], 1, "error: no session \"nobody\""),
    ] {
        let ended = house.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{ended:?}");
        assert!(ended.err.starts_with(said), "{ended:?}");
    }
    fs::rename(house.root.join(".duragent/agents/assistant"), house.root.join("gone")).expect("moved");
    let ended = house.run(&["session", "show", "s", "--prompt"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.err.starts_with("error: no agent \"assistant\""), "{ended:?}");
    fs::rename(house.root.join("gone"), house.root.join(".duragent/agents/assistant")).expect("moved back");
    let log = house.read(".duragent/sessions/s/events.jsonl");
    house.write(".duragent/sessions/s/events.jsonl", log.replacen("\"at\"", "\"At\"", 1));
    fs::remove_file(house.root.join(".duragent/sessions/s/state.yaml")).ok();
    let ended = house.run(&["session", "show", "s", "--prompt"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.err.contains("events.jsonl:1"), "{ended:?}");
}
