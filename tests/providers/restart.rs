//! What a process that was killed owes its provider when it comes back.

use crate::house::{ANTHROPIC, Api, House, OPENROUTER, everywhere};
use duragent_core::event::Body;
use duragent_testkit::{Answer, Fake, Fault, Json, http_date};
use std::time::{Duration, SystemTime};

/// Waits for a file.
const WAITS: &str = r#"{"command":"echo ran >> ran.log; while [ ! -e go ]; do sleep 0.05; done"}"#;

/// An answer that thinks and calls, and a process that is killed while the call runs.
fn killed_within_a_call(api: Api) -> Fake {
    let answer =
        Answer::new().think("I should wait für das Ende. ").think_in_secret().say("I wait.").and_call("bash", WAITS);
    let fake = (api.fake)().answer(answer).answer(Answer::text("Over."));
    let house = House::with(api, &fake, "");
    let mut server = house.serve();
    house.start("bot", "go");
    house.wait("bot", "bash");
    crate::house::eventually("the tool runs", || house.read("ran.log") == "ran\n", || house.story("bot"));
    server.kill();
    house.write("go", "");
    let _server = house.serve();
    let story = house.rest("bot");
    assert!(story.contains("interrupted") && story.ends_with("\"Over.\"; completed"), "{}: {story}", api.kind);
    assert_eq!(house.read("ran.log"), "ran\n", "the tool ran once");
    fake
}

/// The fakes refuse a signature that is not theirs, whatever else the history has.
#[test]
fn thinking_is_replayed_as_it_was_signed() {
    everywhere(|api| {
        let fake = killed_within_a_call(api);
        assert_eq!((fake.calls().len(), fake.left()), (2, 0), "{}", api.kind);
    });
}

#[test]
fn blocks_are_the_same_byte_for_byte() {
    let fake = killed_within_a_call(ANTHROPIC);
    let body = fake.calls()[1].json();
    let blocks = body.at("messages.1.content");
    let kinds: Vec<&str> = blocks.items().iter().filter_map(|block| block.at("type").str()).collect();
    assert_eq!(kinds, ["thinking", "redacted_thinking", "text", "tool_use"], "{blocks}");
    assert_eq!(blocks.at("0.thinking").str(), Some("I should wait für das Ende. "));
    assert!(blocks.at("0.signature").str().is_some_and(|text| text.starts_with("EqQB/")), "{blocks}");

    let fake = killed_within_a_call(OPENROUTER);
    let body = fake.calls()[1].json();
    let details = body.at("messages").items().iter().find_map(|message| message.get("reasoning_details"));
    let details = details.expect("reasoning_details").to_string();
    for part in ["I should wait für das Ende. ", "reasoning.encrypted", "EqQB/", "anthropic-claude-v1"] {
        assert!(details.contains(part), "no {part:?} in {details}");
    }
}

/// Newer models think between their words too, and want all of it back in its order: the fake refuses any other.
#[test]
fn thinking_between_words_goes_back_in_its_place() {
    let mixed = Answer::text("First. ").think_again("hm").and_call("bash", r#"{"command":"true"}"#);
    let fake = Fake::anthropic().answer(mixed).text("Done.");
    let mut house = House::new("");
    house.agent("bot", ANTHROPIC, &fake, ", thinking_tokens: adaptive");
    let _server = house.serve();
    house.start("bot", "go");
    assert_eq!(house.rest("bot"), "1 call; bash true; \"Done.\"; completed");
    let body = fake.calls()[1].json();
    let kinds: Vec<&str> =
        body.at("messages.1.content").items().iter().filter_map(|block| block.at("type").str()).collect();
    assert_eq!(kinds, ["text", "thinking", "tool_use"]);
}

/// When the last failure is asked about again, and when it was.
fn retry(house: &House) -> (u64, u64) {
    let failed = house.events("bot").into_iter().find_map(|event| match event.body {
        Body::ModelFailed { retry_at_ms, .. } => Some((event.at_ms, retry_at_ms.expect("another try"))),
        _ => None,
    });
    failed.expect("a failure")
}

#[test]
fn retry_after_is_kept_in_seconds_and_as_a_date() {
    everywhere(|api| {
        for (seconds, least, most) in [(true, 3000, 3100), (false, 500, 6100)] {
            let fake = (api.fake)();
            let house = House::with(api, &fake, "");
            let mut server = house.serve();
            let date = http_date(SystemTime::now() + Duration::from_secs(6));
            let after = if seconds { "3" } else { date.as_str() };
            fake.add(Answer::text("never to be seen").with(Fault::busy(after)));
            fake.add(Answer::text("At last."));
            house.start("bot", "go");
            house.wait("bot", "overloaded");
            let (at, until) = retry(&house);
            assert!((least..=most).contains(&(until - at)), "{} {after}: {} ms", api.kind, until - at);
            // Nobody who comes back asks earlier.
            server.kill();
            let _server = house.serve();
            assert_eq!(house.rest("bot"), "overloaded; \"At last.\"; completed", "{}", api.kind);
            let asked = house.events("bot").iter().rev().find_map(|event| match event.body {
                Body::ModelRequested { .. } => Some(event.at_ms),
                _ => None,
            });
            assert!(asked.expect("a request") >= until, "{}: asked too early", api.kind);
        }
    });
}

/// What was asked and not answered is asked again, as it was.
#[test]
fn a_request_that_was_under_way_is_made_again() {
    everywhere(|api| {
        let hung = Answer::call("bash", r#"{"command":"echo early >> ran.log"}"#);
        let hung = hung.with(Fault::cut(duragent_testkit::Cut::BeforeFinish, duragent_testkit::End::Hang));
        let fake = (api.fake)().answer(hung).answer(Answer::text("Over."));
        let house = House::with(api, &fake, "");
        let mut server = house.serve();
        house.start("bot", "go");
        crate::house::eventually("it is asked", || fake.calls().len() == 1, || house.story("bot"));
        server.kill();
        let _server = house.serve();
        assert!(house.rest("bot").ends_with("\"Over.\"; completed"), "{}", house.story("bot"));
        let bodies: Vec<Json> = fake.calls().iter().map(|asked| asked.json()).collect();
        assert_eq!(bodies[0], bodies[1], "{}", api.kind);
        assert_eq!(house.read("ran.log"), "", "a call of an answer that was never whole");
    });
}
