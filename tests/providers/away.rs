//! Servers that load, are not there, and come back.

use crate::house::{ANTHROPIC, House, OLLAMA, OPENAI, OPENROUTER, eventually, everywhere};
use duragent_testkit::{Answer, Fake, Fault};
use std::time::Duration;

/// Loading takes minutes on a small board. A client that hangs up begins it anew, for ever.
#[test]
fn a_model_that_loads_is_waited_for() {
    let fake = Fake::ollama().models(&["m"]).loads_for(Duration::from_secs(4)).text("Loaded.");
    let house = House::with(OLLAMA, &fake, "");
    let _server = house.serve();
    house.start("bot", "go");
    assert_eq!(house.rest("bot"), "\"Loaded.\"; completed");
    assert_eq!((fake.calls().len(), fake.loads_aborted()), (1, 0));
}

/// The control: who does not wait aborts it.
#[test]
fn a_limit_for_the_first_byte_aborts_a_load() {
    let fake = Fake::ollama().models(&["m"]).loads_for(Duration::from_secs(4)).text("Loaded.");
    let mut house = House::new("model_attempts_max: 2, offline_seconds_max: 0");
    house.agent("bot", OLLAMA, &fake, ", first_byte_seconds_max: 1");
    let _server = house.serve();
    house.start("bot", "go");
    assert_eq!(house.rest("bot"), "timeout; timeout for good; failed");
    assert!(fake.loads_aborted() > 0);
}

#[test]
fn a_server_that_comes_back_is_asked_again() {
    everywhere(|api| {
        let fake = (api.fake)().text("Here.");
        fake.close();
        let house = House::with(api, &fake, "");
        let _server = house.serve();
        house.start("bot", "go");
        house.wait("bot", "connect");
        fake.open();
        let story = house.rest("bot");
        assert!(story.starts_with("connect; ") && story.ends_with("\"Here.\"; completed"), "{}: {story}", api.kind);
    });
}

/// Nobody is there for longer than the attempts last: the turn waits on disk, also through a kill and while its session would
/// leave memory, and goes on by itself.
#[test]
fn a_turn_is_parked_until_its_server_is_back() {
    for kill in [false, true] {
        let fake = Fake::openai().call("bash", r#"{"command":"echo ran >> ran.log"}"#).text("Here.");
        let house = House::with(OPENAI, &fake, "model_attempts_max: 2, session_idle_seconds: 1");
        let mut server = house.serve();
        fake.close();
        house.start("bot", "go");
        house.wait("bot", "connect for good; paused offline");
        let shown = house.ask("GET", "/api/v1/sessions/bot", "");
        assert!(shown.contains("\"status\":\"paused\""), "{shown}");
        if kill {
            server.kill();
            server = house.serve();
        }
        // More than a session may be idle.
        std::thread::sleep(Duration::from_secs(3));
        fake.open();
        let story = house.rest("bot");
        let end = "1 call; bash echo ran >> ran.log; \"Here.\"; completed";
        assert!(story.contains("resumed ") && story.ends_with(end), "killed: {kill}: {story}\n{}", server.log());
        assert_eq!(house.read("ran.log"), "ran\n");
    }
}

/// Busy for longer than the attempts last is no different.
#[test]
fn a_turn_is_parked_while_its_server_is_too_busy() {
    let fake = Fake::openai().fault(Fault::status(503)).fault(Fault::status(503));
    let house = House::with(OPENAI, &fake, "model_attempts_max: 2");
    let _server = house.serve();
    house.start("bot", "go");
    house.wait("bot", "overloaded; overloaded for good; paused offline");
    assert_eq!(fake.left(), 0);
}

/// The control of both: without the state of being offline the turn is lost.
#[test]
fn a_turn_that_may_not_wait_fails() {
    let fake = Fake::openai().text("Too late.");
    fake.close();
    let house = House::with(OPENAI, &fake, "model_attempts_max: 2, offline_seconds_max: 0");
    let _server = house.serve();
    house.start("bot", "go");
    assert_eq!(house.rest("bot"), "connect; connect for good; failed");
}

/// A turn of a chain: what the first does not answer, the second does, and the log says so.
#[test]
fn the_next_model_of_the_chain_is_asked() {
    for (fault, words) in [
        (Fault::status(503), "overloaded for good; bot to spare"),
        (Fault::status(401), "refused for good; bot to spare"),
        (Fault::busy("600"), "overloaded for good; bot to spare"),
    ] {
        let (first, second) = (Fake::openai().fault(fault.clone()), Fake::ollama());
        let second = second.call("bash", r#"{"command":"echo ran >> ran.log"}"#).text("From the second.");
        let house = chain(&first, &second, "model_attempts_max: 1");
        let _server = house.serve();
        house.start("bot", "go");
        let story = house.rest("bot");
        assert!(story.contains(words) && story.ends_with("\"From the second.\"; completed"), "{fault:?}: {story}");
        assert_eq!((first.calls().len(), second.calls().len()), (1, 2), "{story}");
        assert_eq!(second.calls()[0].json().at("model").str(), Some("n"));
    }
}

/// Two models of a chain, in this order.
fn chain(first: &Fake, second: &Fake, limits: &str) -> House {
    let mut house = House::new(limits);
    house.provider("bot", OPENAI, &first.url(), "");
    house.provider("spare", OLLAMA, &second.url(), "");
    house.spec("bot", "model:\n  provider: bot\n  name: m\n  fallback:\n    - {provider: spare, name: n}");
    house
}

/// A hop is for the turn: the next one begins with the first again. Through a kill it stays where it was.
#[test]
fn a_hop_lasts_as_long_as_its_turn() {
    let first = Fake::openai().fault(Fault::status(403)).text("The first again.");
    let waits = r#"{"command":"echo ran >> ran.log; while [ ! -e go ]; do sleep 0.05; done"}"#;
    let second = Fake::ollama().call("bash", waits).text("From the second.");
    let house = chain(&first, &second, "");
    let mut server = house.serve();
    house.start("bot", "go");
    eventually("the tool runs", || house.read("ran.log") == "ran\n", || house.story("bot"));
    server.kill();
    house.write("go", "");
    let _server = house.serve();
    let story = house.rest("bot");
    assert!(story.ends_with("interrupted; \"From the second.\"; completed"), "{story}");
    house.say("bot", "more");
    assert!(house.rest("bot").ends_with("\"The first again.\"; completed"), "{}", house.story("bot"));
    assert_eq!((first.left(), second.left()), (0, 0));
}

/// Whoever of a chain is back first goes on with a turn that was parked.
#[test]
fn a_chain_of_which_nobody_is_there_waits_for_anybody() {
    let (first, second) = (Fake::openai(), Fake::ollama().text("From the second."));
    first.close();
    second.close();
    let house = chain(&first, &second, "model_attempts_max: 1");
    let _server = house.serve();
    house.start("bot", "go");
    house.wait("bot", "connect for good; bot to spare; connect for good; paused offline");
    second.open();
    assert!(house.rest("bot").ends_with("\"From the second.\"; completed"), "{}", house.story("bot"));
}

/// Nobody waits for ever, and a restart does not begin the wait anew.
#[test]
fn a_parked_turn_is_given_up_in_the_end() {
    let fake = Fake::openai();
    fake.close();
    let house = House::with(OPENAI, &fake, "model_attempts_max: 1, offline_seconds_max: 3");
    let mut server = house.serve();
    house.start("bot", "go");
    house.wait("bot", "paused offline");
    server.kill();
    let _server = house.serve();
    let story = house.rest("bot");
    assert!(story.ends_with("failed"), "{story}");
    let log = house.read(".duragent/sessions/bot/events.jsonl");
    assert!(log.contains("offline_seconds_max"), "{log}");
}

/// Who speaks to a session that is parked wants an answer now.
#[test]
fn a_message_wakes_a_parked_turn() {
    let fake = Fake::openai().fault(Fault::busy("600")).text("One.").text("Two.");
    let house = House::with(OPENAI, &fake, "model_attempts_max: 1");
    let _server = house.serve();
    house.start("bot", "go");
    house.wait("bot", "paused offline");
    house.say("bot", "still there?");
    house.wait("bot", "\"Two.\"; completed");
    let story = house.story("bot");
    assert!(story.contains("resumed message; \"One.\"; completed"), "{story}");
}

/// A cancel does not wait for a load, and hangs up on it.
#[test]
fn a_cancel_ends_a_load() {
    let fake = Fake::ollama().models(&["m"]).loads_for(Duration::from_secs(40)).text("Too late.");
    let house = House::with(OLLAMA, &fake, "");
    let _server = house.serve();
    house.start("bot", "go");
    eventually("it is asked", || fake.calls().len() == 1, || house.story("bot"));
    house.ask("POST", "/api/v1/sessions/bot/cancel", "");
    assert_eq!(house.rest("bot"), "cancelled");
    eventually("it is hung up on", || fake.loads_aborted() == 1, || house.story("bot"));
}

/// Thinking that one has signed is not shown to the other, which would refuse it.
#[test]
fn signed_blocks_stay_with_who_signed_them() {
    for (from, to) in [(ANTHROPIC, OPENROUTER), (OPENROUTER, ANTHROPIC), (ANTHROPIC, OLLAMA)] {
        let thought = Answer::new().think("Hm, hm. ").and_call("bash", r#"{"command":"true"}"#);
        let first = (from.fake)().answer(thought).fault(Fault::status(401));
        let second = (to.fake)().text("From the second.");
        let mut house = House::new("model_attempts_max: 1");
        house.provider("bot", from, &first.url(), "");
        house.provider("spare", to, &second.url(), "");
        house.spec("bot", "model:\n  provider: bot\n  name: m\n  fallback:\n    - {provider: spare, name: n}");
        let _server = house.serve();
        house.start("bot", "go");
        let story = house.rest("bot");
        assert!(story.ends_with("\"From the second.\"; completed"), "{} to {}: {story}", from.kind, to.kind);
        eventually("it was asked", || second.calls().len() == 1, || story.clone());
        assert!(!second.calls()[0].body.contains("EqQB/"), "{}", second.calls()[0].body);
    }
}
