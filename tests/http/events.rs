//! Event streams and pages.

use crate::house::{House, JSON, Wire, eventually, house, house_with};
use duragent::http::{Access, Limits};
use std::time::Duration;

const PATH: &str = "/api/v1/sessions/a/events";

fn open(house: &House, path: &str, headers: &str) -> Wire {
    let mut wire = house.wire();
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes());
    begin(&mut wire);
    wire
}

/// Takes the head of a stream and its first words.
fn begin(wire: &mut Wire) {
    let (status, head) = wire.head().expect("an answer");
    assert_eq!(status, 200, "{head}");
    for field in [
        "Content-Type: text/event-stream",
        "Cache-Control: no-cache, no-transform",
        "X-Accel-Buffering: no",
        "Transfer-Encoding: chunked",
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field}: {head}");
    }
    let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date");
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    assert_eq!(wire.event().as_deref(), Some("retry: 1000"));
}

fn field<'a>(event: &'a str, name: &str) -> Option<&'a str> {
    event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Takes events up to the first of type `kind`; ids of all.
fn ids_until(wire: &mut Wire, kind: &str) -> Vec<u64> {
    let mut ids = Vec::new();
    loop {
        let event = wire.event().unwrap_or_else(|| panic!("the stream ended before {kind}"));
        ids.extend(field(&event, "id").map(|id| id.parse::<u64>().expect("a seq")));
        if field(&event, "event") == Some(kind) {
            return ids;
        }
    }
}

#[test]
fn a_stream_replays_strictly_after_and_goes_on_live() {
    let house = house();
    house.session("a");
    let last: u64 = house.say("a", "one").field("seq").parse().expect("a seq");
    let mut wire = open(&house, PATH, "");
    let replayed = ids_until(&mut wire, "turn_finished");
    let end = replayed.last().copied().expect("events");
    assert_eq!(replayed, (1..=end).collect::<Vec<_>>());
    house.say("a", "two");
    let live = ids_until(&mut wire, "turn_finished");
    assert_eq!(live.first(), Some(&(end + 1)), "nothing missing, nothing twice");
    for (path, header) in [
        (format!("{PATH}?after={last}"), String::new()),
        (PATH.into(), format!("Last-Event-ID: {last}\r\n")),
        (format!("{PATH}?after=1"), format!("Last-Event-ID: {last}\r\n")),
    ] {
        let ids = ids_until(&mut open(&house, &path, &header), "turn_finished");
        assert_eq!(ids.first(), Some(&(last + 1)), "{path} {header}");
    }
}

#[test]
fn a_durable_event_is_its_log_line_and_a_token_has_no_id() {
    let house = house();
    house.session("a");
    let mut wire = open(&house, PATH, "");
    let created = wire.event().expect("an event");
    assert_eq!((field(&created, "id"), field(&created, "event")), (Some("1"), Some("session_created")));
    assert!(field(&created, "data").is_some_and(|data| data.starts_with("{\"seq\":1,") && data.ends_with("\"}")));
    house.say("a", "one");
    loop {
        let event = wire.event().expect("an event");
        if field(&event, "event") == Some("token") {
            assert_eq!(field(&event, "id"), None);
            let data = field(&event, "data").expect("data");
            assert!(data.starts_with("{\"turn\":1,\"step\":1,\"text\":\""), "{data}");
            break;
        }
    }
}

#[test]
fn a_sender_streams_its_turn_and_the_connection_goes_on() {
    let house = house();
    house.session("a");
    house.say_and_wait("a", "before");
    for content in ["one", "two"] {
        let mut wire = house.wire();
        let body = format!("{{\"content\":\"{content}\"}}");
        let length = body.len();
        let head = format!("POST /api/v1/sessions/a/messages HTTP/1.1\r\nHost: localhost\r\n{JSON}");
        wire.send(format!("{head}Accept: text/event-stream\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
        begin(&mut wire);
        // A fast model's first token may overtake the events that asked for it.
        let first = loop {
            let event = wire.event().expect("an event");
            if field(&event, "id").is_some() {
                break event;
            }
        };
        assert_eq!(field(&first, "event"), Some("message_received"), "{first}");
        assert!(first.contains(content));
        ids_until(&mut wire, "turn_finished");
        assert_eq!(wire.event(), None, "the stream ends with its turn");
        assert_eq!(wire.ask("GET", "/livez", "", "").status, 200);
    }
}

#[test]
fn a_sender_that_goes_away_cancels_nothing() {
    let house = house();
    house.session("a");
    let mut wire = house.wire();
    let head =
        format!("POST /api/v1/sessions/a/messages HTTP/1.1\r\nHost: localhost\r\n{JSON}Accept: text/event-stream\r\n");
    wire.send(format!("{head}Content-Length: 18\r\n\r\n{{\"content\":\"slow\"}}").as_bytes());
    begin(&mut wire);
    ids_until(&mut wire, "turn_started");
    wire.hang_up();
    eventually("the connection is let go", || house.metric("http_connections") == 1);
    let page = house.ask("GET", &format!("{PATH}?follow=false"), "", "");
    assert!(!page.body.contains("turn_finished"), "{page:?}");
    assert_eq!(house.ask("POST", "/api/v1/sessions/a/cancel", "", "").status, 202, "it was still under way");
}

#[test]
fn subscribers_that_go_away_leave_nothing_behind() {
    let house = house();
    house.session("a");
    let wires: Vec<Wire> = (0..20).map(|_| open(&house, PATH, "")).collect();
    assert_eq!(house.metric("http_connections"), 21);
    for (i, wire) in wires.into_iter().enumerate() {
        if i % 2 == 0 { wire.hang_up() } else { drop(wire) }
    }
    eventually("the connections are let go", || house.metric("http_connections") == 1);
}

#[test]
fn a_silent_stream_says_that_it_lives() {
    let limits = Limits { ping_time_max: Duration::from_millis(20), ..Limits::default() };
    let house = house_with(Access::default(), limits);
    house.session("a");
    let mut wire = open(&house, PATH, "");
    // On a busy machine a ping may come first.
    while wire.event().is_some_and(|event| !event.contains("session_created")) {}
    for _ in 0..3 {
        assert_eq!(wire.event().as_deref(), Some(": ping"));
    }
    house.say("a", "one");
    ids_until(&mut wire, "turn_finished");
}

#[test]
fn events_come_in_pages_too() {
    let house = house();
    house.session("a");
    house.say_and_wait("a", "one");
    let get = |query: &str, headers: &str| house.ask("GET", &format!("{PATH}?{query}"), headers, "");
    let all = get("follow=false", "");
    assert_eq!((all.status, all.field("next").as_str()), (200, "null"));
    assert!(all.field("events").starts_with("[{\"seq\":1,"), "{all:?}");
    assert_eq!(get("", "Accept: application/json\r\n").body, all.body);
    let first = get("follow=false&limit=2", "");
    assert_eq!((first.field("next").as_str(), first.body.matches("\"seq\":").count()), ("2", 2), "{first:?}");
    assert!(get("follow=false&after=2", "").field("events").starts_with("[{\"seq\":3,"));
    for (query, headers) in [
        ("after=x", ""),
        ("after=-1", ""),
        ("follow=maybe", ""),
        ("follow=false&limit=1001", ""),
        ("", "Last-Event-ID: x\r\n"),
    ] {
        assert_eq!(get(query, headers).status, 400, "{query} {headers}");
    }
    assert_eq!(get("", "Accept: text/html\r\n").status, 406);
    assert_eq!(get("follow=false", "Accept: text/event-stream\r\n").status, 406);
    assert_eq!(house.ask("GET", "/api/v1/sessions/b/events", "", "").status, 404);
}

#[test]
fn old_clients_get_a_stream_that_ends_with_the_connection() {
    let house = house();
    house.session("a");
    let mut wire = house.wire();
    wire.send(format!("GET {PATH} HTTP/1.0\r\n\r\n").as_bytes());
    let (status, head) = wire.head().expect("an answer");
    assert!(
        status == 200 && !head.contains("Transfer-Encoding") && head.contains("\r\nConnection: close\r\n"),
        "{head}"
    );
    let head = house.ask("HEAD", PATH, "", "");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
}
