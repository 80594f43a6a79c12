//! What a person gets to see and can set: errors with what to do about them, thinking, the cache, rest for who is down.

use crate::house::{ANTHROPIC, House, OLLAMA, OPENAI, everywhere, text};
use duragent_testkit::{Answer, Fake, Fault};

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
    for (agent, kind) in
        ["a", "b", "c", "d", "e", "f", "g"].into_iter().zip([["overloaded"; 5].as_slice(), &["connect"; 2]].concat())
    {
        house.start(agent, "go");
        // The last two were not sent at all.
        assert_eq!(house.rest(agent), format!("{kind} for good; failed"));
    }
    assert_eq!(down.calls().len(), 5);
    house.start("other", "go");
    assert_eq!(house.rest("other"), "\"Here.\"; completed");
}
