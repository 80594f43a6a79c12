//! The log: two forms, levels, and what cannot be done to it from outside.

use crate::house::{House, Served, require, until};
use duragent_core::json::{self, Value};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

fn in_json(line: &str) -> Value {
    json::parse(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn text_of<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn a_start_is_told_in_both_forms() {
    let house = House::new("log: {level: info}");
    let server = house.serve(&[]);
    let started = server.log.wait_for("started");
    assert!(started.starts_with("duragent: started version="), "{started}");
    assert!(started.ends_with(&format!("workspace={}", house.dir().display())), "{started}");
    server.log.wait_for("listening on unix:");
    server.log.wait_for("duragent: ready");
    let log = server.log.clone();
    server.stop();
    log.wait_for("draining");

    house.reconfigure("level: info", "format: json");
    let server = house.serve(&[]);
    server.log.wait_for("ready");
    server.session("a", "fails");
    let log = server.log.clone();
    server.stop();
    log.wait_for("draining");
    let lines: Vec<Value> = log.text().lines().map(in_json).collect();
    let said: Vec<&str> = lines.iter().map(|line| text_of(line, "msg")).collect();
    assert!(said.contains(&"started") && said.contains(&"ready") && said.contains(&"draining"), "{said:?}");
    for line in &lines {
        assert_eq!(text_of(line, "level"), "info", "{line}");
        assert!(text_of(line, "at").ends_with('Z'), "{line}");
    }
    assert_eq!(text_of(&lines[0], "workspace"), house.dir().display().to_string());
}

#[test]
fn journald_gets_priorities_in_both_forms() {
    for (format, start) in [("text", "duragent: "), ("json", "{\"at\":")] {
        let house = House::new("limits: {model_attempts_max: 1}");
        let mut command = house.command(&[], &["--log-format", format]);
        let server = house.start(command.env("JOURNAL_STREAM", "8:1"));
        server.session("a", "fails");
        assert_eq!(server.turn("a"), "failed");
        let warned = server.log.wait_for("a model call failed");
        assert!(warned.starts_with(&format!("<4>{start}")), "{warned}");
        assert!(server.log.wait_for("started").starts_with(&format!("<6>{start}")));
    }
}

#[test]
fn the_level_says_how_much() {
    let house = House::new("limits: {model_attempts_max: 1}\nlog: {level: warn}");
    let server = house.serve(&[]);
    server.session("a", "fails");
    server.turn("a");
    let failed = server.log.wait_for("a turn failed");
    assert_eq!(failed, "duragent: a turn failed session=a turn=1 reason=failed");
    let kind = server.log.wait_for("a model call failed");
    assert_eq!(kind, "duragent: a model call failed session=a turn=1 kind=refused");
    assert!(server.log.lines_with("started").is_empty() && server.log.lines_with("request").is_empty());
    // What the provider said may hold anything; it stands in the session's log.
    assert!(!server.log.text().contains("the-detail"), "{}", server.log.text());

    // A reload changes the level, the command line holds it.
    house.reconfigure("level: warn", "level: debug");
    server.signal("HUP");
    server.log.wait_for("configuration reloaded");
    server.ask("GET", "/livez", "");
    server.log.wait_for("path=/livez");
    server.stop();
    let server = house.serve(&["--log-level", "error"]);
    server.turn("a");
    server.signal("HUP");
    server.ask("GET", "/livez", "");
    server.ask("GET", "/nope", "");
    let log = server.log.clone();
    server.stop();
    assert_eq!(log.text(), "");
}

#[test]
fn a_request_is_told_at_debug_and_its_secrets_never() {
    const CANARIES: [&str; 4] = ["canary-in-query", "canary-in-header", "canary-in-body", "canary-of-the-token"];
    let house = House::new(
        "log: {level: debug, format: json}\nserver: {address: \"127.0.0.1:0\", api_token: canary-of-the-token}",
    );
    let server = house.serve(&[]);
    let address = tcp(&server);
    let say = |head: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        send(&address, &request)
    };
    let good = "Authorization: Bearer canary-of-the-token";
    let answer = say(&format!("POST /api/v1/sessions?x=canary-in-query HTTP/1.1\r\n{good}"), "{\"canary-in-body\":1}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let bad = "Authorization: Bearer canary-in-header\r\nX-Any: canary-in-header";
    assert!(say(&format!("GET /api/v1/agents?x=canary-in-query HTTP/1.1\r\n{bad}"), "").starts_with("HTTP/1.1 401"));
    // A request that cannot be read is told without a word of it.
    assert!(say("GET /canary-in-query HTTP/1.1\r\ncanary-in-header", "").starts_with("HTTP/1.1 400"));
    let posted = in_json(&server.log.wait_for("\"method\":\"POST\""));
    assert_eq!((text_of(&posted, "msg"), text_of(&posted, "path")), ("request", "/api/v1/sessions"));
    assert_eq!((text_of(&posted, "peer"), text_of(&posted, "problem")), ("loopback", "bad-request"));
    assert_eq!(posted.get("status"), Some(&json::parse("400").expect("a number")));
    let refused = in_json(&server.log.wait_for("a caller is refused"));
    assert_eq!((text_of(&refused, "problem"), text_of(&refused, "path")), ("unauthorized", "/api/v1/agents"));
    let log = server.log.clone();
    server.stop();
    for canary in CANARIES {
        assert!(!log.text().contains(canary), "{canary}: {}", log.text());
    }
}

/// The TCP address that the server chose.
fn tcp(server: &Served) -> String {
    let line = server.log.wait_for("listening on 127.0.0.1:");
    let (_, rest) = line.split_once("listening on ").expect("an address");
    rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
}

fn send(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn who_knocks_for_hours_does_not_fill_the_log() {
    const KNOCKS: usize = 50;
    let house = House::new("server: {address: \"127.0.0.1:0\", api_token: secret}");
    let server = house.serve(&[]);
    let address = tcp(&server);
    for _ in 0..KNOCKS {
        let answer = send(&address, "GET /api/v1/agents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    assert_eq!(server.metrics().get("http_problems_total{type=\"unauthorized\"}"), KNOCKS as f64, "all are counted");
    let log = server.log.clone();
    server.stop();
    log.wait_for("draining");
    let told = log.lines_with("a caller is refused").len();
    // Ten a minute; the knocking may have taken more than one on a busy machine.
    assert!((10..KNOCKS).contains(&told), "{told}");
    assert!(log.text().contains("problem=unauthorized") && log.text().contains("peer=loopback"));
}

#[test]
fn a_server_without_descriptors_says_so_and_not_for_ever() {
    require("prlimit", "util-linux");
    let house = House::new("");
    let server = house.serve(&[]);
    let pid = server.child.id();
    let limit = |to: usize| {
        let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={to}:")]).status();
        assert!(status.expect("prlimit of util-linux").success());
    };
    let errors = || server.metrics().get("http_accept_errors_total");
    assert_eq!(errors(), 0.0, "the control");
    until("connections of before to be gone", || (server.metrics().get("http_connections") == 1.0).then_some(()));
    limit(3);
    let waiting = UnixStream::connect(house.socket()).expect("the kernel takes it");
    let told = || server.log.lines_with("cannot take a connection");
    until("the first ten lines", || (told().len() == 10).then_some(()));
    // Ten failures a second: what is told no longer is counted.
    std::thread::sleep(Duration::from_secs(1));
    limit(1024);
    let counted = until("an answer", || Some(errors()).filter(|n| *n > 10.0));
    assert!((10..counted as usize).contains(&told().len()), "{counted} {:?}", told());
    drop(waiting);
}

#[test]
fn what_comes_from_outside_begins_no_line() {
    const FORGED: &str = "\nduragent: forged\u{1b}[2J";
    // The control: written as it is, it does.
    let plain = format!("duragent: started workspace=/tmp/x{FORGED}\n");
    assert!(plain.lines().any(|line| line.starts_with("duragent: forged")));
    for format in ["text", "json"] {
        let house = House::named(FORGED, "");
        let server = house.serve(&["--log-level", "debug", "--log-format", format]);
        let started = server.log.wait_for("started");
        assert!(started.contains("\\nduragent: forged\\u001b[2J"), "{started}");
        // A title, a path, a key of a body.
        let title = r#"{"id":"a","agent":"fails","title":"x\nduragent: forged","x\nduragent: forged":1}"#;
        assert_eq!(server.ask("POST", "/api/v1/sessions", title).status, 400);
        assert_eq!(server.ask("GET", "/x%0aduragent:%20forged", "").status, 404);
        let log = server.log.clone();
        server.stop();
        until("the last line", || (!log.lines_with("draining").is_empty()).then_some(()));
        for line in log.text().lines() {
            assert!(!line.starts_with("duragent: forged") && !line.chars().any(char::is_control), "{line:?}");
            if format == "json" {
                in_json(line);
            }
        }
    }
}
