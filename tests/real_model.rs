//! The binary with a real model behind OpenAI's API: where `DURAGENT_TEST_OPENAI_URL` leads, as `http://127.0.0.1:8080/v1`. Without
//! it nothing is tested, and this program says so: it counts no test as passed.
//!
//! What a model says is its own affair. That it arrives whole, is counted, is cut where it should be and refused where it
//! must be is what is looked at. `DURAGENT_TEST_OPENAI_MODEL` names the model; without it the first that is offered is asked.

#[path = "providers/house.rs"]
#[allow(dead_code, reason = "the tests of the providers need more of it")]
mod house;

use duragent_core::event::{Body, Event, Usage};
use duragent_testkit::ask;
use house::{House, OPENAI, text};
use std::panic::catch_unwind;
use std::process::ExitCode;

const VARIABLE: &str = "DURAGENT_TEST_OPENAI_URL";

/// Takes the URL and the model.
type Test = fn(&str, &str);

const TESTS: [(&str, Test); 5] = [
    ("an_answer_arrives_and_is_counted", an_answer_arrives_and_is_counted),
    ("an_answer_ends_at_its_limit", an_answer_ends_at_its_limit),
    ("a_prompt_that_is_too_long_is_refused_with_the_window", a_prompt_that_is_too_long_is_refused_with_the_window),
    ("a_turn_is_cancelled_while_the_model_reads", a_turn_is_cancelled_while_the_model_reads),
    ("doctor_finds_the_model", doctor_finds_the_model),
];

fn main() -> ExitCode {
    let Ok(url) = std::env::var(VARIABLE) else {
        for (name, _) in TESTS {
            println!("test {name} ... did not run: {VARIABLE} is not set");
        }
        return ExitCode::SUCCESS;
    };
    let model = std::env::var("DURAGENT_TEST_OPENAI_MODEL").unwrap_or_else(|_| offered(&url));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        let (url, model) = (url.clone(), model.clone());
        let word = if catch_unwind(move || test(&url, &model)).is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word}");
        if word == "ok" { passed += 1 } else { failed += 1 }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; {model} at {url}"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first model of the list.
fn offered(url: &str) -> String {
    let answered = ask("GET", &format!("{}/models", url.trim_end_matches('/')), "", "");
    let list = answered.unwrap_or_else(|error| panic!("{VARIABLE} is {url}, and nobody answers: {error}")).json();
    list.at("data.0.id").str().unwrap_or_else(|| panic!("no models in {list}")).to_owned()
}

/// A workspace with an agent without tools that asks the model.
fn house(url: &str, model: &str, tokens: u64) -> House {
    let mut house = House::new("model_attempts_max: 1, offline_seconds_max: 0");
    house.provider("bot", OPENAI, url, "");
    house.spec("bot", &format!("model: {{provider: bot, name: '{model}', max_output_tokens: {tokens}}}"));
    house
}

/// Text, tokens and reason of the only answer.
fn answer(house: &House) -> (String, Usage, String) {
    let answers: Vec<_> = house
        .events(&house.session())
        .into_iter()
        .filter_map(|event| match event.body {
            Body::ModelResponded { text, usage, finish_reason, .. } => Some((text, usage, finish_reason)),
            _ => None,
        })
        .collect();
    assert_eq!(answers.len(), 1, "{}", house.story(&house.session()));
    answers.into_iter().next().expect("one")
}

fn an_answer_arrives_and_is_counted(url: &str, model: &str) {
    let house = house(url, model, 400);
    let ended = house.run(&["run", "bot", "Say hello in one short sentence."]);
    assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), String::new()));
    let (said, usage, _) = answer(&house);
    assert_eq!(text(&ended.stdout).trim_end(), said.trim_end());
    assert!(usage.input_tokens > 5 && usage.output_tokens > 0, "{usage:?}");
}

fn an_answer_ends_at_its_limit(url: &str, model: &str) {
    let house = house(url, model, 8);
    assert_eq!(house.run(&["run", "bot", "Tell a long story about rain."]).status.code(), Some(0));
    let (_, usage, reason) = answer(&house);
    assert_eq!((reason.as_str(), usage.output_tokens), ("length", 8));
}

/// It fits what the configuration says, by the estimate. Most small models have less, and say so; a larger one answers.
fn a_prompt_that_is_too_long_is_refused_with_the_window(url: &str, model: &str) {
    let house = house(url, model, 20);
    let ended = house.run(&["run", "bot", &"rain ".repeat(9300)]);
    let (story, said) = (house.story(&house.session()), text(&ended.stderr));
    let told = story.contains("too_long") && said.contains("more than the window of");
    assert!(told || ended.status.code() == Some(0), "{story}: {said}");
}

/// Reading so much takes any model longer than it takes to say stop.
fn a_turn_is_cancelled_while_the_model_reads(url: &str, model: &str) {
    let house = house(url, model, 2000);
    let _server = house.serve();
    house.start("bot", &"rain ".repeat(5000));
    let asked = |event: &Event| matches!(event.body, Body::ModelRequested { .. });
    house::eventually("it is asked", || house.events("bot").iter().any(asked), || house.story("bot"));
    house.ask("POST", "/api/v1/sessions/bot/cancel", "");
    assert!(house.rest("bot").ends_with("cancelled"), "{}", house.story("bot"));
}

fn doctor_finds_the_model(url: &str, model: &str) {
    let house = house(url, model, 100);
    let said = text(&house.run(&["doctor"]).stdout);
    let line = said.lines().find(|line| line.contains("model bot/")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("ok"), "{line}");
}
