//! State of later versions is refused, or read, and not one byte of it is touched.

use super::house::{House, snapshot};
use super::states::{chained, left_by, lines};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

type Rewrite = fn(&[String]) -> String;

/// Logs as a later major version may write them: with our checksums, with others, with none, and torn.
const LATER: [(&str, Rewrite); 4] = [
    ("chained", |lines| chained(&second(lines))),
    ("otherwise", |lines| {
        second(lines)
            .iter()
            .map(|line| line.split(",\"crc\"").next().unwrap().to_owned() + ",\"sum\":\"x\"}\n")
            .collect()
    }),
    ("binary", |lines| second(lines)[0].clone() + "\n\u{1}\u{2}\u{3} not even lines"),
    ("torn", |lines| chained(&second(lines)) + "{\"seq\":99,\"at"),
];

fn second(lines: &[String]) -> Vec<String> {
    let later = |line: &String| line.replacen("\"v\":1,", "\"v\":2,\"codec\":\"new\",", 1);
    lines.iter().map(later).collect()
}

/// Everything that can be done to a session, with what has to come of it: an exit code, or anything.
const COMMANDS: [(&[&str], Option<i32>); 15] = [
    (&["session", "verify", "plain"], Some(1)),
    (&["session", "verify", "--all"], Some(1)),
    (&["session", "repair", "plain"], Some(1)),
    (&["session", "show", "plain"], None),
    (&["session", "log", "plain"], None),
    (&["session", "export", "plain"], Some(1)),
    (&["session", "cancel", "plain"], Some(1)),
    (&["session", "close", "plain"], Some(1)),
    (&["session", "fork", "plain"], Some(1)),
    (&["run", "bot", "--resume", "plain", "hello"], Some(1)),
    (&["approve", "plain"], Some(1)),
    (&["ps"], Some(0)),
    (&["usage"], Some(0)),
    (&["usage", "plain"], None),
    (&["backup", "-o", "b.tar"], Some(1)),
];

fn session(house: &House) -> BTreeMap<PathBuf, String> {
    snapshot(&house.path(".duragent/sessions/plain"))
}

#[test]
fn a_log_of_a_later_version_is_not_touched_by_anything() {
    for (kind, rewrite) in LATER {
        let house = left_by("door");
        fs::write(house.log_path("plain"), rewrite(&lines(&house, "plain"))).expect("written");
        // As another version may have left them.
        house
            .write(".duragent/sessions/plain/state.yaml", "status: \"idle\"\nagent: \"bot\"\nlater: 1\nlog_bytes: 0\n");
        house.write(".duragent/sessions/plain/lease", "host-2 epoch 9\n");
        let before = session(&house);
        for (args, code) in COMMANDS {
            let ended = house.run(args);
            assert!(code.is_none() || ended.code == code, "{kind} {args:?}: {ended:?}");
            if code == Some(1) {
                assert!(ended.err.contains("version 2"), "{kind} {args:?}: {ended:?}");
            }
            assert_eq!(session(&house), before, "{kind} {args:?}");
        }
        let server = house.serve();
        let send = |method: &str, path: &str, body: &str| {
            let headers = [("Content-Type", "application/json")];
            let answer = server.client.request(method, path, &headers, body.as_bytes()).expect("an answer");
            assert_eq!(session(&house), before, "{kind} {method} {path}");
            (answer.status, String::from_utf8(answer.body).expect("UTF-8"))
        };
        let (status, said) = send("GET", "/api/v1/sessions/plain", "");
        assert!(
            status == 200 && said.contains("\"status\":\"damaged\"") && said.contains("log version 2"),
            "{kind}: {said}"
        );
        for (method, path, body) in [
            ("POST", "/api/v1/sessions/plain/messages", r#"{"content":"hello"}"#),
            ("POST", "/api/v1/sessions/plain/fork", ""),
            ("POST", "/api/v1/sessions/plain/cancel", ""),
            ("DELETE", "/api/v1/sessions/plain", ""),
            ("POST", "/api/v1/sessions", r#"{"agent":"bot","id":"plain"}"#),
        ] {
            let (status, said) = send(method, path, body);
            assert_eq!(status, 409, "{kind} {method} {path}: {said}");
        }
        send("GET", "/api/v1/sessions?limit=100", "");
        send("GET", "/api/v1/sessions/plain/messages", "");
        send("GET", "/api/v1/sessions/plain/events?follow=false", "");
        // The others are at work as ever: that is the control of all this, too.
        let other = snapshot(&house.path(".duragent/sessions/granted"));
        server.post("/api/v1/sessions/granted/messages", r#"{"content":"and now?"}"#);
        assert_ne!(snapshot(&house.path(".duragent/sessions/granted")), other);
        assert_eq!(session(&house), before, "{kind}");
        drop(server);
        assert_eq!(session(&house), before, "{kind}");
    }
}

/// The same commands do touch a log of ours: without the refusal they would touch the other, too.
#[test]
fn the_same_commands_touch_a_log_of_this_version() {
    let house = left_by("door");
    let before = session(&house);
    for (args, _) in COMMANDS {
        house.run(args);
    }
    assert_ne!(session(&house), before);
}

#[test]
fn an_import_of_a_later_log_is_refused() {
    for (kind, rewrite) in LATER {
        let house = left_by("door");
        house.write("later.jsonl", rewrite(&lines(&house, "plain")));
        let before = snapshot(&house.path(".duragent/sessions"));
        house.bad(1, &["session", "import", "later.jsonl", "--id", "new"]);
        assert_eq!(snapshot(&house.path(".duragent/sessions")), before, "{kind}");
    }
}

#[test]
fn what_a_later_minor_version_adds_is_kept_and_passed_over() {
    let house = left_by("door");
    let mut all = lines(&house, "plain");
    let at = "\"at\":\"2026-11-22T10:00:00.123Z\"";
    let seq = all.len() + 1;
    all.push(format!("{{\"seq\":{seq},{at},\"type\":\"weather_changed\",\"to\":{{\"rain\":true}}}}"));
    all.push(format!(
        "{{\"seq\":{},{at},\"type\":\"session_resumed\",\"reason\":\"moonlight\",\"later\":[1,2]}}",
        seq + 1
    ));
    let text = chained(&all);
    fs::write(house.log_path("plain"), &text).expect("written");
    house.good(&["session", "verify", "plain"]);
    assert_eq!(house.good(&["session", "export", "plain"]), text);
    house.write(".duragent/policy.yaml", "mode: allow\n");
    let server = house.serve();
    server.say("plain", "and now?");
    drop(server);
    let after = fs::read_to_string(house.log_path("plain")).expect("a log");
    assert!(after.starts_with(&text) && after.len() > text.len());
    house.good(&["session", "verify", "plain"]);
    // To make a log of it anew would lose it, and is not done.
    house.write("export.jsonl", text);
    let err = house.bad(1, &["session", "import", "export.jsonl", "--id", "new"]);
    assert!(err.contains("would lose"), "{err}");
}

#[test]
fn a_workspace_of_a_later_format_is_refused_by_every_command() {
    let house = left_by("door");
    for format in ["2\n", "1 or so", ""] {
        house.write(".duragent/format", format);
        let before = snapshot(&house.path(".duragent"));
        let serve: [(&[&str], Option<i32>); 6] = [
            (&["serve"], None),
            (&["check"], None),
            (&["run", "bot", "hello"], None),
            (&["doctor"], None),
            (&["session", "import", "b.jsonl"], None),
            (&["session", "repair", "torn"], None),
        ];
        for (args, _) in COMMANDS.iter().chain(&serve) {
            let err = house.bad(3, args);
            assert!(
                err.contains("expected format 1 of the workspace, found ") && err.contains("nothing was changed"),
                "{args:?}: {err}"
            );
            assert_eq!(snapshot(&house.path(".duragent")), before, "{args:?}");
        }
    }
    house.write(".duragent/format", "1\n");
    house.good(&["check"]);
    fs::remove_file(house.path(".duragent/format")).expect("removed");
    house.good(&["ps"]);
}

#[test]
fn what_a_later_version_writes_into_configuration_is_an_error_and_stays() {
    let house = left_by("door");
    for (name, text) in [
        (".duragent/duragent.yaml", "sandbox: {mode: trust}\nhive: {size: 3}\n"),
        (".duragent/policy.yaml", "mode: ask\nlater: [x]\n"),
    ] {
        let good = house.read(name);
        house.write(name, text);
        let before = snapshot(&house.path(".duragent/sessions"));
        for args in [&["check"][..], &["serve"], &["run", "bot", "hello"], &["ps"]] {
            assert!(house.bad(3, args).contains("unknown key"), "{name} {args:?}");
            assert_eq!(snapshot(&house.path(".duragent/sessions")), before, "{name} {args:?}");
            assert_eq!(house.read(name), text.as_bytes(), "{name} {args:?}");
        }
        house.write(name, good);
    }
    let spec = String::from_utf8(house.read(".duragent/agents/bot/agent.yaml")).expect("UTF-8");
    house.write(".duragent/agents/bot/agent.yaml", spec.replace("v1alpha1", "v2"));
    let err = house.bad(3, &["check"]);
    assert!(err.contains("duragent/v1alpha1"), "{err}");
}
