//! What a person gets to see: on standard error, in a stream, and what to do about it.

use crate::house::{ANTHROPIC, House, OLLAMA, OPENAI, eventually, everywhere, text};
use duragent_testkit::{Answer, Fake, Fault};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Who must act is told how, and nobody is asked twice.
#[test]
fn what_is_final_says_what_to_do() {
    everywhere(|api| {
        for (fault, remedy) in [
            (Fault::status(401), "hint: check the API key: environment variable CANARY_KEY"),
            (Fault::status(402), "hint: add credit with the provider"),
            (Fault::NoCredit, "hint: add credit with the provider"),
            (Fault::status(403), "environment variable CANARY_KEY"),
        ] {
            let fake = (api.fake)().fault(fault.clone());
            let house = House::with(api, &fake, "");
            let ended = house.run(&["run", "bot", "go"]);
            let said = text(&ended.stderr);
            assert_eq!((ended.status.code(), text(&ended.stdout).as_str()), (Some(1), ""), "{}: {said}", api.kind);
            assert!(said.contains(remedy), "{} {fault:?}: {said}", api.kind);
            assert_eq!(fake.calls().len(), 1, "{} {fault:?}", api.kind);
        }
    });
}

#[test]
fn a_model_that_is_missing_or_unable_is_named_with_a_remedy() {
    for (fake, remedy) in [
        (Fake::ollama().models(&["other"]), "ollama pull m"),
        (Fake::ollama().abilities(&["completion"], 40_960), "choose a model that can call tools"),
    ] {
        let fake = fake.may_refuse();
        let house = House::with(OLLAMA, &fake, "");
        let ended = house.run(&["run", "bot", "go"]);
        let said = text(&ended.stderr);
        assert!(ended.status.code() == Some(1) && said.contains(remedy), "{said}");
    }
}

/// A window that is shorter than the configured one is what counts: Ollama would cut the prompt without a word.
#[test]
fn a_prompt_for_a_shorter_window_is_refused_with_figures() {
    let fake = Fake::ollama().abilities(&["completion", "tools"], 2048).text("Short.");
    let house = House::with(OLLAMA, &fake, "");
    let ended = house.run(&["run", "bot", "Be short."]);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(fake.calls()[0].json().at("options.num_ctx").u64(), Some(2048), "{}", fake.calls()[0].body);
    let ended = house.run(&["run", "bot", &"rain ".repeat(2500)]);
    let said = text(&ended.stderr);
    assert!(ended.status.code() != Some(0) && said.contains("2048"), "{said}");
    assert_eq!(fake.calls().len(), 1, "it was not even asked");
}

/// Lines of the session's stream of events, to the end of the turn.
fn streamed(house: &House) -> Vec<String> {
    let mut stream = UnixStream::connect(house.folder.join(".duragent/duragent.sock")).expect("a server");
    stream.set_read_timeout(Some(crate::house::PATIENCE)).expect("a socket");
    let body = r#"{"content":"go"}"#;
    let request = format!(
        "POST /api/v1/sessions/bot/messages HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let last = line == "event: turn_finished";
        lines.push(line);
        if last {
            return lines;
        }
    }
    panic!("the turn never ended: {lines:?}");
}

#[test]
fn a_load_is_told_of_while_it_lasts() {
    let fake = Fake::ollama().models(&["m"]).loads_for(Duration::from_secs(2)).text("Loaded.").text("Again.");
    let house = House::with(OLLAMA, &fake, "");
    let _server = house.serve();
    let made = house.ask("POST", "/api/v1/sessions", r#"{"agent":"bot","id":"bot"}"#);
    assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
    let lines = streamed(&house);
    let status = lines.iter().position(|line| line == "event: status").unwrap_or_else(|| panic!("{lines:?}"));
    assert!(lines[status + 1].contains("loading m"), "{}", lines[status + 1]);
    let answer = lines.iter().position(|line| line == "event: model_responded").expect("an answer");
    assert!(status < answer);
    // The control: what is loaded is not told of.
    let lines = streamed(&house);
    assert!(!lines.iter().any(|line| line == "event: status"), "{lines:?}");
}

#[test]
fn a_model_is_loaded_before_it_is_needed() {
    let fake = Fake::ollama().models(&["m"]);
    let mut house = House::new("");
    house.agent("bot", OLLAMA, &fake, ", preload: true");
    let _server = house.serve();
    let loaded = || fake.requests().iter().any(|asked| asked.path == "/api/generate");
    eventually("it is loaded", loaded, || format!("{:?}", fake.requests().len()));
    assert!(fake.calls().is_empty());
}

/// Thinking is asked for as configured, in a way that the API takes: temperature and limits go with it or not at all.
#[test]
fn thinking_is_asked_for_as_configured() {
    for (keys, kind, budget) in
        [(", thinking_tokens: 2048", "enabled", Some(2048)), (", thinking_tokens: adaptive", "adaptive", None)]
    {
        let fake = Fake::anthropic().answer(Answer::call("bash", r#"{"command":"true"}"#).think("Hm. ")).text("Done.");
        let mut house = House::new("");
        house.agent("bot", ANTHROPIC, &fake, keys);
        house.spec("bot", "model: {provider: bot, name: m, temperature: 0.3, max_output_tokens: 4000}");
        let ended = house.run(&["run", "bot", "go"]);
        assert_eq!(ended.status.code(), Some(0), "{keys}: {}", text(&ended.stderr));
        let body = fake.calls()[1].json();
        assert_eq!(body.at("thinking.type").str(), Some(kind), "{body}");
        assert_eq!(body.at("thinking.budget_tokens").u64(), budget, "{body}");
    }
}

/// An answer that calls and did not think cannot be gone on from with thinking, unless the model may choose.
#[test]
fn an_answer_without_thinking_is_gone_on_from() {
    for (keys, kind) in [(", thinking_tokens: 2048", None), (", thinking_tokens: adaptive", Some("adaptive"))] {
        let fake = Fake::anthropic().call("bash", r#"{"command":"true"}"#).text("Done.");
        let mut house = House::new("");
        house.agent("bot", ANTHROPIC, &fake, keys);
        house.spec("bot", "model: {provider: bot, name: m, max_output_tokens: 4000}");
        let ended = house.run(&["run", "bot", "go"]);
        assert_eq!(ended.status.code(), Some(0), "{keys}: {}", text(&ended.stderr));
        assert_eq!(fake.calls()[1].json().at("thinking.type").str(), kind);
    }
}

/// Anthropic caches only what it is told to: the tools and the system prompt, and what was said so far.
#[test]
fn breakpoints_of_the_cache_are_set() {
    let fake = Fake::anthropic().call("bash", r#"{"command":"true"}"#).text("Done.");
    let house = House::with(ANTHROPIC, &fake, "");
    assert_eq!(house.run(&["run", "bot", "go"]).status.code(), Some(0));
    for asked in fake.calls() {
        let body = asked.json();
        assert!(body.at("system").to_string().contains("cache_control"), "{body}");
        let last = body.at("messages").items().last().expect("a message").to_string();
        assert!(last.contains("cache_control"), "{last}");
    }
}

/// A provider that fails again and again is left alone by all sessions; another one is none of its business.
#[test]
fn a_provider_that_is_down_is_left_alone() {
    let down = (0..9).fold(Fake::openai(), |fake, _| fake.fault(Fault::status(503)));
    let up = Fake::openai().text("Here.");
    let mut house = House::new("model_attempts_max: 1, offline_seconds_max: 0");
    house.provider("bot", OPENAI, &down.url(), "");
    for agent in ["a", "b", "c", "d", "e", "f", "g"] {
        house.spec(agent, "model: {provider: bot, name: m}");
    }
    house.agent("other", OPENAI, &up, "");
    let _server = house.serve();
    for agent in ["a", "b", "c", "d", "e", "f", "g"] {
        house.start(agent, "go");
        assert_eq!(house.rest(agent), "overloaded for good; failed");
    }
    assert_eq!(down.calls().len(), 5);
    house.start("other", "go");
    assert_eq!(house.rest("other"), "\"Here.\"; completed");
}
