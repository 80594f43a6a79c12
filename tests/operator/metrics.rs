//! Numbers move by exactly what happened, and by nothing else.

use crate::house::{House, PATIENCE, Served, require, until};
use crate::page::Page;
use duragent::http::client::Stream;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// What asking itself moves, what no test can foresee, and what `tests/wear` holds against the kernel.
const SKIP: [&str; 8] = ["http_", "process_", "pool_", "_sum", "_bucket", "sse_events", "disk_written_", "fsyncs_"];

/// Does something, and requires exactly these changes.
fn check(server: &Served, what: &str, act: impl FnOnce(), expected: &[(&str, f64)]) {
    let before = server.metrics();
    act();
    let found = server.metrics().since(&before, &SKIP);
    let mut expected: Vec<(String, f64)> = expected.iter().map(|(series, n)| ((*series).to_owned(), *n)).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected, "{what}");
}

/// A turn of one model call and no tool: two commits.
const TURN: [(&str, f64); 7] = [
    ("commits_total", 2.0),
    ("commit_bytes_count", 2.0),
    ("fsync_seconds_count", 2.0),
    ("events_total", 5.0),
    ("turns_started_total", 1.0),
    ("model_calls_total", 1.0),
    ("model_call_seconds_count", 1.0),
];

/// [`TURN`] with so many commits and events more, and these changes besides.
fn turn(commits: f64, events: f64, more: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    let mut all = TURN.to_vec();
    for (series, n) in &mut all {
        match *series {
            "events_total" => *n += events,
            "commits_total" | "commit_bytes_count" | "fsync_seconds_count" => *n += commits,
            _ => {}
        }
    }
    for (series, n) in more {
        match all.iter_mut().find(|(known, _)| known == series) {
            Some((_, known)) => *known += n,
            None => all.push((*series, *n)),
        }
    }
    all
}

const COMPLETED: (&str, f64) = ("turns_finished_total{reason=\"completed\"}", 1.0);
/// Of one answer of each recording that says so.
const TOKENS: [(&str, f64); 2] =
    [("tokens_total{direction=\"input\"}", 7.0), ("tokens_total{direction=\"output\"}", 3.0)];
const SECOND_CALL: [(&str, f64); 2] = [("model_calls_total", 1.0), ("model_call_seconds_count", 1.0)];
const TOOL: [(&str, f64); 2] = [("tool_calls_total", 1.0), ("tool_call_seconds_count{tool=\"bash\"}", 1.0)];

#[test]
fn turns_and_calls_are_counted_by_how_they_ended() {
    let house = House::new("limits: {model_attempts_max: 1, tool_seconds_max: 1, session_idle_seconds: 3600}");
    let server = house.serve(&[]);
    let created = [
        ("commits_total", 1.0),
        ("commit_bytes_count", 1.0),
        ("fsync_seconds_count", 1.0),
        ("events_total", 1.0),
        ("sessions_live", 1.0),
        ("sessions{status=\"idle\"}", 1.0),
    ];
    for agent in ["hello", "tool", "denied", "fails", "stuck", "slow"] {
        check(&server, "a session", || server.session(agent, agent), &created);
    }
    let answered = [&TOKENS[..], &[COMPLETED]].concat();
    check(&server, "a plain turn", || assert_eq!(server.turn("hello"), "completed"), &turn(0.0, 0.0, &answered));
    let with_tool = [&SECOND_CALL[..], &TOOL, &TOKENS, &answered].concat();
    check(&server, "a tool", || assert_eq!(server.turn("tool"), "completed"), &turn(2.0, 4.0, &with_tool));
    let refused = [&SECOND_CALL[..], &TOKENS, &[("policy_denials_total", 1.0)], &answered].concat();
    check(&server, "policy", || assert_eq!(server.turn("denied"), "completed"), &turn(1.0, 3.0, &refused));
    let failed = [("model_failures_total{kind=\"refused\"}", 1.0), ("turns_finished_total{reason=\"failed\"}", 1.0)];
    check(&server, "a failure", || assert_eq!(server.turn("fails"), "failed"), &turn(0.0, 0.0, &failed));
    let late = [&with_tool[..], &[("denials_total{kind=\"timeout\"}", 1.0)]].concat();
    check(&server, "a timeout", || assert_eq!(server.turn("stuck"), "completed"), &turn(2.0, 4.0, &late));
    let cancelled = [("turns_finished_total{reason=\"cancelled\"}", 1.0)];
    let cancel = || {
        server.send("slow");
        assert_eq!(server.ask("POST", "/api/v1/sessions/slow/cancel", "").status, 202);
        // The call ends a little later than the turn.
        until("the model call to end", || {
            let page = server.metrics();
            (page.get("model_call_seconds_count") == page.get("model_calls_total")).then_some(())
        });
    };
    check(&server, "a cancel", cancel, &turn(0.0, -1.0, &cancelled));
    server.stop();
}

#[test]
fn a_limit_ends_a_turn_as_a_limit() {
    let house = House::new("limits: {steps_max: 1, session_idle_seconds: 3600}");
    let server = house.serve(&[]);
    server.session("a", "tool");
    let limit = [&TOOL[..], &TOKENS, &[("turns_finished_total{reason=\"limit\"}", 1.0)]].concat();
    check(&server, "a limit", || assert_eq!(server.turn("a"), "limit"), &turn(1.0, 2.0, &limit));
}

#[test]
fn approvals_are_counted_as_asked_granted_denied_and_expired() {
    let house = House::new("limits: {approval_seconds_max: 3}");
    let server = house.serve(&[]);
    for id in ["granted", "denied", "expired"] {
        server.session(id, "asks");
    }
    for (id, decision) in [("granted", "grant"), ("denied", "deny")] {
        let before = server.metrics();
        server.send(id);
        server.wait_for_status(id, "waiting");
        let waiting = server.metrics();
        assert_eq!(waiting.get("sessions{status=\"waiting\"}"), 1.0);
        assert_eq!(waiting.get("approvals_requested_total") - before.get("approvals_requested_total"), 1.0);
        server.decide(id, decision);
        server.wait_for_status(id, "idle");
        let after = server.metrics();
        for outcome in ["granted", "denied", "expired"] {
            let series = format!("approvals_decided_total{{outcome=\"{outcome}\"}}");
            let moved = after.get(&series) - before.get(&series);
            assert_eq!(moved, f64::from(u8::from(outcome == id)), "{id} {series}");
        }
        assert_eq!(
            after.get("tool_calls_total") - before.get("tool_calls_total"),
            f64::from(u8::from(id == "granted"))
        );
    }
    server.send("expired");
    server.wait_for_status("expired", "idle");
    let after = server.metrics();
    assert_eq!(after.get("approvals_decided_total{outcome=\"expired\"}"), 1.0);
    assert_eq!(after.get("approvals_decided_total{outcome=\"denied\"}"), 1.0);
    assert_eq!(after.get("policy_denials_total"), 0.0, "an approval that was not given is no policy");
}

#[test]
fn what_a_sandbox_refuses_is_counted_by_kind() {
    let house = House::new("sandbox: {mode: auto, enforcement: partial}");
    let server = house.serve(&[]);
    server.session("a", "outside");
    let before = server.metrics();
    assert_eq!(server.turn("a"), "completed");
    let after = server.metrics();
    for kind in ["fs", "net", "limit", "timeout"] {
        let series = format!("denials_total{{kind=\"{kind}\"}}");
        assert_eq!(after.get(&series) - before.get(&series), f64::from(u8::from(kind == "fs")), "{series}");
    }
    assert_eq!(after.get("tool_call_seconds_count{tool=\"read_file\"}"), 1.0);
    // The control: where nothing is enclosed, nothing is refused by the sandbox.
    let house = House::new("");
    let server = house.serve(&[]);
    server.session("a", "tool");
    server.turn("a");
    assert_eq!(server.metrics().get("denials_total{kind=\"fs\"}"), 0.0);
}

#[test]
fn commits_are_counted_with_their_bytes_and_their_failures() {
    require("prlimit", "util-linux");
    let house = House::new("");
    // A file that would grow too large is an error then, not a signal.
    let server = house.start(&mut house.command(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"], &[]));
    server.session("a", "hello");
    for _ in 0..3 {
        server.turn("a");
    }
    let page = server.metrics();
    assert_eq!(page.get("commit_bytes_sum"), house.log_bytes("a") as f64, "all that is in the log");
    assert_eq!((page.get("commits_total"), page.get("commit_failures_total")), (7.0, 0.0));
    assert!(page.get("fsync_seconds_sum") > 0.0);
    let limit = |to: &str| {
        let pid = server.child.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={to}:")]).status();
        assert!(status.expect("prlimit of util-linux").success());
    };
    limit(&house.log_bytes("a").to_string());
    assert_ne!(server.ask("POST", "/api/v1/sessions/a/messages", r#"{"content":"x"}"#).status, 202);
    let failed = server.metrics();
    assert!(failed.get("commit_failures_total") >= 1.0);
    assert_eq!(failed.get("turns_started_total"), 3.0, "what is not durable has not happened");
    limit("unlimited");
}

#[test]
fn a_quarantined_turn_is_counted_and_told() {
    let house = House::new("");
    let server = house.serve(&[]);
    server.session("a", "slow");
    server.send("a");
    server.kill();
    for _ in 0..2 {
        let server = house.serve(&[]);
        until("the turn to be taken up", || (server.metrics().get("model_calls_total") >= 1.0).then_some(()));
        server.kill();
    }
    let server = house.serve(&[]);
    let page = until("the end of the turn", || {
        Some(server.metrics()).filter(|page| page.get("turns_finished_total{reason=\"quarantined\"}") == 1.0)
    });
    assert_eq!(page.get("model_calls_total"), 0.0);
    server.log.wait_for("unfinished sessions are taken up count=1");
    let line = server.log.wait_for("quarantined");
    assert!(line.contains("session=a") && line.contains("turn=1"), "{line}");
}

#[test]
fn requests_are_counted_by_outcome() {
    let house = House::new("");
    let server = house.serve(&[]);
    server.session("a", "hello");
    let before = server.metrics();
    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("GET", "/api/v1/sessions/a", 200),
        ("GET", "/nope", 404),
        ("GET", "/api/v1/sessions/nobody", 404),
        ("DELETE", "/livez", 405),
        ("POST", "/api/v1/sessions", 400),
    ] {
        assert_eq!(server.ask(method, path, "").status, status, "{method} {path}");
    }
    let changed = server.metrics().since(&before, &["process_", "pool_", "by_state"]);
    // A page counts its own request, and the page before was answered after it was written.
    let expected = [
        ("http_connections_total", 7.0),
        ("http_problems_total{type=\"bad-request\"}", 1.0),
        ("http_problems_total{type=\"method-not-allowed\"}", 1.0),
        ("http_problems_total{type=\"not-found\"}", 2.0),
        ("http_requests_total", 7.0),
        ("http_responses_total{class=\"2xx\"}", 3.0),
        ("http_responses_total{class=\"4xx\"}", 4.0),
    ];
    let changed: Vec<(&str, f64)> =
        changed.iter().map(|(s, n)| (s.as_str(), *n)).filter(|(s, _)| *s != "http_connections").collect();
    assert_eq!(changed, expected);
}

fn states(page: &Page) -> [f64; 3] {
    ["idle", "busy", "lasting"].map(|state| page.get(&format!("http_connections_by_state{{state=\"{state}\"}}")))
}

#[test]
fn connections_and_subscribers_are_there_as_long_as_they_are() {
    let house = House::new("");
    let server = house.serve(&[]);
    server.session("a", "hello");
    let idle: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(house.socket()).expect("a place")).collect();
    let mut half = UnixStream::connect(house.socket()).expect("a place");
    half.write_all(b"GET / HT").expect("it reads");
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = server.client.events("/api/v1/sessions/a/events", None).expect("it answers");
        let Stream::Events(mut events) = stream else { panic!("expected events") };
        assert_eq!(events.next().expect("an event").expect("whole").kind, "session_created");
        streams.push(events);
    }
    // Of the page's own connection, the page is being written.
    until("all of them to be counted", || (states(&server.metrics()) == [3.0, 2.0, 2.0]).then_some(()));
    let page = server.metrics();
    assert_eq!((page.get("subscribers"), page.get("sse_events_total")), (2.0, 2.0));
    assert_eq!(server.turn("a"), "completed");
    for events in &mut streams {
        // Pieces are streamed too, without an id.
        while events.next().expect("an event").expect("whole").kind != "turn_finished" {}
    }
    let page = server.metrics();
    let durable = 2.0 * 5.0;
    assert!(page.get("sse_events_total") >= 2.0 + durable, "{}", page.get("sse_events_total"));
    drop((idle, half, streams));
    until("all of them to be gone", || {
        let page = server.metrics();
        (states(&page) == [0.0, 1.0, 0.0] && page.get("subscribers") == 0.0).then_some(())
    });
    assert_eq!(server.metrics().get("subscribers_lagged_total"), 0.0);
}

#[test]
fn a_subscriber_that_does_not_read_is_counted_as_lagged() {
    let house = House::new("");
    let piece = format!("\"{}\",", "x".repeat(1000));
    house.write("agents/hello/tape.jsonl", &format!("{{\"deltas\":[{}\"end\"]}}\n", piece.repeat(950)));
    let server = house.serve(&[]);
    server.session("a", "hello");
    let mut deaf = UnixStream::connect(house.socket()).expect("a place");
    deaf.set_read_timeout(Some(PATIENCE)).expect("a socket");
    deaf.write_all(b"GET /api/v1/sessions/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    until("it to be there", || (server.metrics().get("subscribers") == 1.0).then_some(()));
    assert_eq!(server.turn("a"), "completed");
    // It hears that it was too slow when it reads again.
    let mut said = Vec::new();
    until("it to be told", || {
        let mut bytes = [0; 65_536];
        let n = deaf.read(&mut bytes).expect("it goes on");
        said.extend_from_slice(&bytes[..n]);
        said.windows(13).any(|w| w == b"event: lagged").then_some(())
    });
    until("it to be counted", || (server.metrics().get("subscribers_lagged_total") == 1.0).then_some(()));
    until("it to be gone", || (server.metrics().get("subscribers") == 0.0).then_some(()));
}

#[test]
fn the_process_is_what_the_kernel_says() {
    let house = House::new("");
    let server = house.serve(&[]);
    let page = server.metrics();
    let pid = server.child.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    let (resident, seen) = (field("VmRSS:") * 1024.0, page.get("process_resident_memory_bytes"));
    assert!((resident - seen).abs() < 4_000_000.0, "{resident} {seen}");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as f64;
    // The connection that asked.
    assert!((page.get("process_open_fds") - open).abs() <= 1.0, "{open} {}", page.get("process_open_fds"));
    assert!((page.get("process_threads") - field("Threads:")).abs() <= 2.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs_f64();
    let started = page.get("process_start_time_seconds");
    assert!(started <= now + 2.0 && started > now - 3600.0, "{started} {now}");
    assert!(page.samples.keys().any(|s| s.starts_with("duragent_build_info{version=\"")));
}
