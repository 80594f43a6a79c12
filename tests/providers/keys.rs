//! Nobody gets to see a key but the provider it is for.

use crate::house::{House, KEY, everywhere, text};
use duragent_testkit::{Answer, Fake, Fault};
use std::fs;
use std::path::Path;

/// Texts of all files below `folder`.
fn files(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() {
            found.push((path.display().to_string(), text(&fs::read(&path).expect("a file"))));
        }
    }
}

/// A turn that works, one whose key is refused, and errors that quote the key: in an error's body, and in a stream.
fn fake(api: fn() -> Fake) -> Fake {
    let told = format!("Incorrect API key provided: {KEY}. You can find your key at home.");
    api()
        .answer(Answer::call(
            "bash",
            r#"{"command":"env > seen.txt; tr '\\0' '\\n' < /proc/$PPID/cmdline > argv.txt"}"#,
        ))
        .answer(Answer::text("Done."))
        .fault(Fault::Tells(401, told.clone()))
        .fault(Fault::Tells(400, told))
}

#[test]
fn a_key_is_in_no_file_log_answer_or_command_line() {
    everywhere(|api| {
        let fake = fake(api.fake);
        let house = House::with(api, &fake, "");
        let server = house.serve();
        house.start("bot", "go");
        let mut told = vec![("story", house.rest("bot"))];
        let pid = server.child.id();
        let of_process = |name: &str| text(&fs::read(format!("/proc/{pid}/{name}")).expect("a process of ours"));
        told.push(("argv", of_process("cmdline")));
        for _ in 0..2 {
            house.say("bot", "again");
            told.push(("story", house.rest("bot")));
        }
        for path in ["sessions/bot/events?follow=false&limit=100", "sessions/bot/messages", "agents/bot"] {
            told.push(("answer", house.ask("GET", &format!("/api/v1/{path}"), "")));
        }
        told.push(("metrics", house.ask("GET", "/metrics", "")));
        told.push(("log", server.log()));
        for args in
            [&["check", "-T"][..], &["session", "show", "bot"], &["session", "log", "bot", "--json"], &["doctor"]]
        {
            let output = house.run(args);
            told.push(("command", text(&[output.stdout, output.stderr].concat())));
        }
        let mut found = Vec::new();
        files(&house.folder, &mut found);
        let story = told[0].1.clone();
        assert!(
            found.iter().any(|(name, text)| name.ends_with("events.jsonl") && text.contains("Incorrect")),
            "{story}"
        );
        assert!(found.iter().any(|(name, text)| name.ends_with("seen.txt") && text.contains("PATH=")), "{story}");
        for (what, text) in
            told.iter().map(|(what, text)| (*what, text)).chain(found.iter().map(|(n, t)| (n.as_str(), t)))
        {
            assert!(!text.contains("4711"), "{}: the key is in {what}: {text}", api.kind);
        }
        // The controls: the server has the key, and the provider was told it.
        assert!(of_process("environ").contains(KEY));
        assert!(fake.calls().iter().all(|asked| asked.head.contains(KEY)), "{}", api.kind);
        assert_eq!(fake.left(), 0);
    });
}

/// Where a provider sends us is not where the key goes.
#[test]
fn a_redirect_is_not_followed() {
    everywhere(|api| {
        let elsewhere = (api.fake)().text("Thank you for the key.");
        let fake = (api.fake)().fault(Fault::Redirect(elsewhere.endpoint()));
        let house = House::with(api, &fake, "model_attempts_max: 1, offline_seconds_max: 0");
        let ended = house.run(&["run", "bot", "go"]);
        assert_eq!(ended.status.code(), Some(1), "{}: {}", api.kind, text(&ended.stdout));
        assert_eq!((fake.calls().len(), elsewhere.requests().len()), (1, 0), "{}", api.kind);
        assert!(text(&ended.stderr).contains("redirect"), "{}: {}", api.kind, text(&ended.stderr));
    });
}

/// A proxy of the environment sees no request, unless the configuration says that it may.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    everywhere(|api| {
        for (keys, asked) in [("", false), (", proxy: environment", true)] {
            let fake = (api.fake)().text("Straight.");
            // What is said to it does not matter: that somebody came does.
            let proxy = Fake::openai().may_refuse();
            let mut house = House::new("model_attempts_max: 1, offline_seconds_max: 0");
            // This machine by its own name is never reached through a proxy.
            house.provider("bot", api, &fake.url().replace("127.0.0.1", "0.0.0.0"), keys);
            house.spec("bot", "model: {provider: bot, name: m}");
            let way = format!("http://{}", proxy.address());
            let mut command = house.command(&["run", "bot", "go"]);
            command.env("HTTP_PROXY", &way).env("http_proxy", &way).env("ALL_PROXY", &way);
            let ended = command.output().expect("the binary starts");
            let said = text(&ended.stderr);
            assert_eq!(
                (ended.status.success(), proxy.connections() > 0),
                (!asked, asked),
                "{} {keys}: {said}",
                api.kind
            );
        }
    });
}
