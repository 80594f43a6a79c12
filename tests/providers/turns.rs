//! A turn as it should be, with each API.

use crate::house::{House, KEY, OLLAMA, everywhere, text};
use duragent_testkit::{Answer, Fake, Json};

const USED: &str = r#""usage":{"input_tokens":200,"output_tokens":18"#;

fn conversation(fake: Fake) -> Fake {
    fake.answer(Answer::call("bash", r#"{"command":"echo 'ü' > made"}"#).usage(90, 9, 60))
        .answer(Answer::text("Schöne Grüße 🦀").usage(110, 9, 60))
}

#[test]
fn a_call_is_run_and_its_result_comes_back() {
    everywhere(|api| {
        let fake = conversation((api.fake)().key(KEY).models(&["m"]));
        let house = House::with(api, &fake, "");
        let ended = house.run(&["run", "bot", "Mach es: \"ö\""]);
        let said = (text(&ended.stdout), text(&ended.stderr));
        assert_eq!((ended.status.code(), said), (Some(0), ("Schöne Grüße 🦀\n".into(), String::new())), "{}", api.kind);
        assert_eq!(house.read("made"), "ü\n");
        let log = house.read(&format!(".duragent/sessions/{}/events.jsonl", house.session()));
        assert!(log.contains(USED), "{}: {log}", api.kind);
        assert!(fake.calls()[1].body.contains("Mach es: \\\"ö\\\""), "{}", fake.calls()[1].body);
    });
}

/// What a prompt cache needs: nothing that was said changes from one request to the next, nor across a restart.
#[test]
fn what_was_said_stays_as_it_was() {
    everywhere(|api| {
        let fake = conversation(conversation((api.fake)()));
        let house = House::with(api, &fake, "");
        for prompt in ["one", "two"] {
            let ended = house.run(&["run", "bot", "--session", "s", prompt]);
            assert_eq!(ended.status.code(), Some(0), "{}: {}", api.kind, text(&ended.stderr));
        }
        let calls = fake.calls();
        assert_eq!(calls.len(), 4);
        for pair in calls.windows(2) {
            let (before, after) = (plain(&pair[0].json()), plain(&pair[1].json()));
            for field in ["system", "tools"] {
                assert_eq!(before.at(field), after.at(field), "{} {field}", api.kind);
            }
            let (before, after) = (before.at("messages").items(), after.at("messages").items());
            assert!(!before.is_empty() && after.starts_with(before), "{}:\n{before:?}\n{after:?}", api.kind);
        }
    });
}

/// Breakpoints of a cache move to its end, and are no part of what is cached.
fn plain(value: &Json) -> Json {
    match value {
        Json::Array(items) => Json::Array(items.iter().map(plain).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().filter(|(key, _)| key != "cache_control");
            Json::Object(fields.map(|(key, value)| (key.clone(), plain(value))).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn ollama_is_told_the_window_and_to_keep_the_model() {
    let fake = conversation(Fake::ollama());
    let house = House::with(OLLAMA, &fake, "");
    assert_eq!(house.run(&["run", "bot", "go"]).status.code(), Some(0));
    for asked in fake.calls() {
        let body = asked.json();
        assert_eq!(body.at("options.num_ctx").u64(), Some(16_384), "{}", asked.body);
        assert_eq!(body.at("keep_alive").str(), Some("10m"), "{}", asked.body);
    }
}
