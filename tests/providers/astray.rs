//! Models that go astray: calls that nobody can read, and the same call over and over.

use crate::house::{House, OLLAMA, everywhere};
use duragent_testkit::{Answer, Fake, Fault};

const CALL: &str = r#"{"command":"echo ran >> ran.log"}"#;

fn bad() -> Answer {
    Answer::call("bash", CALL).with(Fault::BadArguments)
}

/// Twice the model is told what was wrong, in words that its API takes; the third time the turn ends.
#[test]
fn a_malformed_call_is_fed_back_twice() {
    everywhere(|api| {
        let fake = (api.fake)().answer(bad()).answer(bad()).answer(Answer::call("bash", CALL)).text("At last.");
        let house = House::with(api, &fake, "");
        let _server = house.serve();
        house.start("bot", "go");
        let story = house.rest("bot");
        let end = "bad_tool_call; bad_tool_call; 1 call; bash echo ran >> ran.log; \"At last.\"; completed";
        assert_eq!(story, end, "{}", api.kind);
        assert_eq!(house.read("ran.log"), "ran\n");
        let bodies: Vec<String> = fake.calls().into_iter().map(|asked| asked.body).collect();
        assert!(!bodies[0].contains("could not be used") && bodies[1].contains("could not be used"), "{}", bodies[1]);
    });
}

#[test]
fn the_third_malformed_call_ends_the_turn() {
    everywhere(|api| {
        let fake = (api.fake)().answer(bad()).answer(bad()).answer(bad());
        let house = House::with(api, &fake, "");
        let _server = house.serve();
        house.start("bot", "go");
        assert_eq!(house.rest("bot"), "bad_tool_call; bad_tool_call; bad_tool_call for good; failed", "{}", api.kind);
        assert_eq!((fake.left(), house.read("ran.log")), (0, String::new()));
    });
}

/// What Ollama itself could not parse is no different.
#[test]
fn a_call_that_ollama_cannot_parse_is_fed_back() {
    let fake = Fake::ollama().fault(Fault::BadCall).fault(Fault::BadCall).call("bash", CALL).text("At last.");
    let house = House::with(OLLAMA, &fake, "");
    let _server = house.serve();
    house.start("bot", "go");
    assert!(house.rest("bot").ends_with("\"At last.\"; completed"), "{}", house.story("bot"));
    assert!(fake.calls()[1].body.contains("could not be used"), "{}", fake.calls()[1].body);
}

/// The same call with the same result again and again is a loop; with another result each time it is work.
#[test]
fn a_loop_is_stopped_and_work_is_not() {
    let script = |command: &str| {
        let arguments = format!("{{\"command\":\"{command}\"}}");
        (0..5).fold(Fake::ollama(), |fake, _| fake.call("bash", &arguments)).text("Done.")
    };
    for (command, reason, left) in [("echo same", "limit", 3), ("date +%N", "completed", 0)] {
        let fake = script(command);
        let house = House::with(OLLAMA, &fake, "call_repeats_max: 3");
        let _server = house.serve();
        house.start("bot", "go");
        let story = house.rest("bot");
        assert!(story.ends_with(reason), "{command}: {story}");
        assert_eq!(fake.left(), left, "{command}: {story}");
    }
}
