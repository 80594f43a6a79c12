//! An approval from the request to the call: who decides first, on what exactly, until when, and what a kill leaves.

use super::house::{House, Served, until};
use super::stage::{bash, command_json, decide, digest, events, limit, ran, says, stage, text, until_is, waiting};
use duragent_core::json::Value;
use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;

const GRANT: &str = r#"{"decision":"grant"}"#;
const DENY: &str = r#"{"decision":"deny"}"#;
const COMMAND: &str = "echo ran >> ran.txt";

fn house() -> House {
    stage("mode: ask\n", &[bash(COMMAND), says("Done.")].concat())
}

/// A server whose session `s` waits.
fn asked(house: &House) -> Served {
    let server = house.serve();
    server.post("/api/v1/sessions", r#"{"agent":"bot","id":"s"}"#);
    server.say("s", "please");
    server
}

/// How often the command ran.
fn times(house: &House) -> usize {
    fs::read_to_string(house.path("ran.txt")).map_or(0, |text| text.lines().count())
}

#[test]
fn every_client_can_answer() {
    let house = house();
    let server = asked(&house);
    assert_eq!(decide(&house, "s", "a1-1-1", GRANT), 200);
    until_is(&house, "s", "idle");
    server.stop();
    assert_eq!(times(&house), 1, "over HTTP");

    let house = self::house();
    let server = asked(&house);
    house.good(&["approve", "s"]);
    until_is(&house, "s", "idle");
    server.stop();
    assert_eq!(times(&house), 1, "from a terminal");

    let house = self::house();
    let server = asked(&house);
    let mut chat = house.command(&["attach", "s"]);
    let script = fs::File::open({
        house.write("script", "y\n");
        house.path("script")
    });
    let chat = chat.stdin(script.expect("a script")).output().expect("the binary starts");
    assert!(chat.status.success(), "{chat:?}");
    until_is(&house, "s", "idle");
    server.stop();
    assert_eq!(times(&house), 1, "in a chat");
    let by: Vec<String> = events(&house, "s", "approval_decided").iter().map(|event| text(event, "by")).collect();
    assert_eq!(by, ["cli"]);
}

#[test]
fn of_two_clients_the_first_decides() {
    const ROUNDS: usize = 50;
    let tape: String = (0..ROUNDS).map(|n| bash(&format!("echo {n} >> ran.txt")) + &says("Done.")).collect();
    let house = Arc::new(stage("mode: ask\n", &tape));
    let server = house.serve();
    server.post("/api/v1/sessions", r#"{"agent":"bot","id":"s"}"#);
    let mut granted = Vec::new();
    for round in 0..ROUNDS {
        server.say("s", "please");
        let approval = text(&waiting(&house, "s")[0], "approval_id");
        let start = Arc::new(Barrier::new(2));
        let clients = [GRANT, DENY].map(|body| {
            let (house, approval, start) = (Arc::clone(&house), approval.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                decide(&house, "s", &approval, body)
            })
        });
        let [grant, deny] = clients.map(|client| client.join().expect("a client"));
        let mut both = [grant, deny];
        both.sort_unstable();
        assert_eq!(both, [200, 409], "round {round}");
        if grant == 200 {
            granted.push(format!("echo {round} >> ran.txt"));
        }
        until_is(&house, "s", "idle");
    }
    server.stop();
    assert_eq!(events(&house, "s", "approval_decided").len(), ROUNDS, "one decision each");
    assert_eq!(ran(&house, "s"), granted, "what was granted ran, and nothing else");
}

#[test]
fn a_decision_is_on_the_exact_call() {
    let house = house();
    let server = asked(&house);
    let request = waiting(&house, "s").remove(0);
    let expected = digest("bash", &command_json(COMMAND));
    assert_eq!(text(&request, "digest"), expected);
    assert_eq!(text(&events(&house, "s", "approval_requested")[0], "digest"), expected);
    // Whoever means another call than the one that waits has not decided on it.
    let with = |digest: &str| format!(r#"{{"decision":"grant","digest":"{digest}"}}"#);
    for other in
        [digest("bash", &command_json("echo ran >> ran.txt ")), digest("sh", &command_json(COMMAND)), String::new()]
    {
        assert_eq!(decide(&house, "s", "a1-1-1", &with(&other)), 409, "{other}");
    }
    assert_eq!(server.status("s"), "waiting");
    assert_eq!(decide(&house, "s", "a1-1-2", GRANT), 404, "nobody asked for that");
    assert_eq!(decide(&house, "s", "a1-1-1", r#"{"decision":"grant","by":"expiry"}"#), 400);
    assert_eq!(times(&house), 0);
    assert_eq!(decide(&house, "s", "a1-1-1", &with(&expected)), 200);
    until_is(&house, "s", "idle");
    let started = events(&house, "s", "tool_started").remove(0);
    let arguments = started.get("arguments").map(Value::to_string).unwrap_or_default();
    assert_eq!(digest(&text(&started, "name"), &arguments), expected, "what ran is what was approved");
    assert_eq!(decide(&house, "s", "a1-1-1", &with(&expected)), 409, "decided already");
    server.stop();
    assert_eq!(times(&house), 1);
}

#[test]
fn nobody_in_time_is_a_denial() {
    let house = house();
    limit(&house, "approval_seconds_max: 1");
    let server = asked(&house);
    until_is(&house, "s", "idle");
    assert_eq!(decide(&house, "s", "a1-1-1", GRANT), 409, "too late");
    server.stop();
    expired(&house);
}

#[test]
fn time_passes_while_the_server_is_down() {
    for (seconds, open) in [(1, false), (3600, true)] {
        let house = house();
        limit(&house, &format!("approval_seconds_max: {seconds}"));
        asked(&house).kill();
        // Over when it is opened again, whoever opens it.
        let expires = text(&events(&house, "s", "approval_requested")[0], "expires_at");
        if !open {
            until("the time to pass", || (duragent_core::time::rfc3339(now_ms()) > expires).then_some(()));
        }
        let server = house.serve();
        if open {
            assert_eq!(server.status("s"), "waiting", "the control: a longer time");
            assert_eq!(text(&waiting(&house, "s")[0], "expires_at"), expires, "and it is the same as before");
            server.kill();
            continue;
        }
        until_is(&house, "s", "idle");
        assert_eq!(decide(&house, "s", "a1-1-1", GRANT), 409, "too late");
        server.stop();
        expired(&house);
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 500000000")
}

/// The call was denied because nobody was there, and never ran.
fn expired(house: &House) {
    let decided = events(house, "s", "approval_decided");
    let decided: Vec<_> = decided.iter().map(|e| [text(e, "decision"), text(e, "by"), text(e, "scope")]).collect();
    assert_eq!(decided, [["deny", "expiry", "once"]]);
    assert!(ran(house, "s").is_empty() && times(house) == 0);
    let result = events(house, "s", "tool_finished").remove(0);
    assert_eq!(text(result.get("denied").expect("denied"), "kind"), "approval");
}

#[test]
fn a_kill_between_request_and_decision_loses_nothing() {
    let house = house();
    let server = asked(&house);
    let before = waiting(&house, "s");
    server.kill();
    let server = house.serve();
    let after = waiting(&house, "s");
    assert_eq!(after, before, "the same request, until the same time");
    assert_eq!(decide(&house, "s", "a1-1-1", GRANT), 200);
    until_is(&house, "s", "idle");
    server.stop();
    assert_eq!((times(&house), events(&house, "s", "approval_requested").len()), (1, 1));
}

/// A kill can fall between any two lines of the log: it is cut behind each of them, and opened.
#[test]
fn a_kill_around_the_decision_neither_loses_it_nor_makes_one() {
    for (body, word) in [(GRANT, "grant"), (DENY, "deny")] {
        let house = house();
        let server = asked(&house);
        assert_eq!(decide(&house, "s", "a1-1-1", body), 200);
        until_is(&house, "s", "idle");
        server.stop();
        let whole = house.log("s");
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        let at = |kind: &str| lines.iter().position(|line| line.contains(&format!("\"type\":\"{kind}\""))).expect(kind);
        let cuts = [(at("model_responded"), false), (at("approval_requested"), false), (at("approval_decided"), true)];
        for (last, decided) in cuts {
            fs::remove_file(house.path("ran.txt")).ok();
            fs::remove_file(house.dir().join("sessions/s/state.yaml")).ok();
            fs::write(house.log_path("s"), lines[..=last].concat()).expect("the log");
            let server = house.serve();
            until_is(&house, "s", if decided { "idle" } else { "waiting" });
            server.kill();
            let ran_now = usize::from(decided && word == "grant");
            assert_eq!((ran(&house, "s").len(), times(&house)), (ran_now, ran_now), "{word} {decided}");
            assert_eq!(events(&house, "s", "approval_requested").len(), 1, "asked for once");
            assert_eq!(events(&house, "s", "approval_decided").len(), usize::from(decided), "decided once");
        }
    }
}

/// As above, for a call that a rule denies: that the log was cut before it says so is no leave either.
#[test]
fn a_kill_before_the_refusal_does_not_lift_it() {
    for (policy, runs) in [("mode: deny\n", 0), ("mode: allow\n", 1)] {
        let house = stage(policy, &[bash(COMMAND), says("Done.")].concat());
        asked(&house).stop();
        let whole = house.log("s");
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        let last = lines.iter().position(|line| line.contains("\"type\":\"model_responded\"")).expect("an answer");
        fs::remove_file(house.path("ran.txt")).ok();
        fs::write(house.log_path("s"), lines[..=last].concat()).expect("the log");
        let server = house.serve();
        until_is(&house, "s", "idle");
        server.stop();
        assert_eq!((times(&house), ran(&house, "s").len()), (runs, runs), "{policy}");
    }
}
