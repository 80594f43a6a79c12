//! What is known of models before they are asked: whether they are there, loaded, able and large enough.

use crate::house::{ANTHROPIC, House, OLLAMA, OPENAI, PATIENCE, eventually, text};
use duragent_testkit::{Answer, Fake};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn a_model_is_loaded_when_the_server_starts_if_that_is_configured() {
    for preload in [true, false] {
        let fake = Fake::ollama().models(&["m:latest"]).abilities(&["completion", "tools"], 8192).text("Here.");
        let mut house = House::new("");
        house.agent("bot", OLLAMA, &fake, if preload { ", preload: true" } else { "" });
        let server = house.serve();
        let loads = || fake.requests().into_iter().filter(|asked| asked.path == "/api/generate").collect::<Vec<_>>();
        if preload {
            eventually("the model is loaded", || server.log().contains("loaded m in "), || server.log());
            let asked = loads().remove(0).json();
            assert_eq!(asked.at("options.num_ctx").u64(), Some(8192), "the window of the first call: {asked:?}");
        }
        house.start("bot", "go");
        assert_eq!(house.rest("bot"), "\"Here.\"; completed");
        assert_eq!(loads().len(), usize::from(preload));
        let called = fake.calls()[0].json();
        assert_eq!(called.at("options.num_ctx").u64(), Some(8192), "{called:?}");
    }
}

#[test]
fn a_model_that_cannot_be_loaded_is_told_and_the_server_goes_on() {
    let fake = Fake::ollama().models(&["other"]).may_refuse();
    let mut house = House::new("");
    house.agent("bot", OLLAMA, &fake, ", preload: true");
    let server = house.serve();
    let told = || server.log().contains("cannot load m: ") && server.log().contains("ollama pull m");
    eventually("it is told", told, || server.log());
    assert!(house.ask("GET", "/livez", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn people_see_that_a_model_is_being_loaded() {
    for loaded in [false, true] {
        let fake = Fake::ollama().models(&["m"]).loads_for(Duration::from_millis(300)).text("One.").text("Two.");
        let house = House::with(OLLAMA, &fake, "");
        let _server = house.serve();
        let made = house.ask("POST", "/api/v1/sessions", r#"{"agent":"bot","id":"bot"}"#);
        assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
        if loaded {
            house.say("bot", "go");
            house.rest("bot");
        }
        let mut stream = UnixStream::connect(house.folder.join(".duragent/duragent.sock")).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let body = r#"{"content":"go"}"#;
        let request = format!(
            "POST /api/v1/sessions/bot/messages HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
             Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.take_while(|line| line != "event: turn_finished").collect();
        let shown = lines.iter().any(|line| line.starts_with("data: ") && line.contains("loading m"));
        assert_eq!(shown, !loaded, "{lines:#?}");
    }
}

#[test]
fn a_prompt_longer_than_the_models_own_window_is_never_cut() {
    let fake = Fake::ollama().abilities(&["completion", "tools"], 2048).may_refuse();
    let house = House::with(OLLAMA, &fake, "");
    let _server = house.serve();
    let made = house.ask("POST", "/api/v1/sessions", r#"{"agent":"bot","id":"bot"}"#);
    assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
    house.say("bot", &"word ".repeat(3000));
    let story = house.rest("bot");
    assert!(story.ends_with("failed") && story.contains("too_long"), "{story}");
    assert!(fake.calls().is_empty(), "it was asked");
    let log = house.read(".duragent/sessions/bot/events.jsonl");
    assert!(log.contains("2048"), "with the figure: {log}");
}

#[test]
fn doctor_asks_every_model_of_a_chain() {
    let (local, cloud) =
        (Fake::ollama().models(&["m"]).abilities(&["completion"], 4096), Fake::anthropic().models(&["m"]));
    let mut house = House::new("");
    house.provider("near", OLLAMA, &local.url(), "");
    house.provider("far", ANTHROPIC, &cloud.url(), "");
    let fallback = "fallback: [{provider: near, name: m}, {provider: openai, name: gpt}]";
    house.spec("bot", &format!("model: {{provider: far, name: m, {fallback}}}"));
    let output = house.run(&["doctor"]);
    let told = text(&output.stdout);
    for part in [
        "model far/m:",
        "context 4096 tokens, can completion (not tools: agents with tools will fail)",
        "choose a model that can call tools, or give the agent none; used by bot (fallback 1)",
        "model openai/gpt:",
        "there is no key: environment variable OPENAI_API_KEY is not set",
        "used by bot (fallback 2)",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert_eq!(output.status.code(), Some(0), "what is fallen back to is no failure: {told}");
    // The control: as somebody's own model it is one.
    house.spec("bot", "model: {provider: openai, name: gpt}");
    assert_eq!(house.run(&["doctor"]).status.code(), Some(1));
}

#[test]
fn a_call_that_a_small_model_wrote_as_text_is_run() {
    let written = "I look.\n<tool_call>\n{\"name\": \"bash\", \"arguments\": {\"command\": \"echo ran >> ran.log\"}}\n</tool_call>";
    for (api, fake) in [(OLLAMA, Fake::ollama()), (OPENAI, Fake::openai())] {
        let fake = fake.answer(Answer::text(written)).text("Done.");
        let house = House::with(api, &fake, "");
        let _server = house.serve();
        house.start("bot", "go");
        assert_eq!(house.rest("bot"), "1 call; bash echo ran >> ran.log; \"Done.\"; completed", "{}", api.kind);
        assert_eq!(house.read("ran.log"), "ran\n");
    }
}

#[test]
fn a_prompt_that_filled_the_window_is_told_in_the_log() {
    for (tokens, told) in [(2048, true), (900, false)] {
        let fake = Fake::ollama().abilities(&["completion", "tools"], 2048);
        let fake = fake.answer(Answer::text("Here.").usage(tokens, 3, 0));
        let house = House::with(OLLAMA, &fake, "");
        let server = house.serve();
        house.start("bot", "go");
        house.rest("bot");
        let said = || server.log().contains("the prompt filled the window of 2048 tokens and may have been cut: m");
        if told {
            eventually("it is told", said, || server.log());
        } else {
            assert!(!said(), "{}", server.log());
        }
    }
}
