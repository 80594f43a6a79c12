//! Limits, deadlines, the end, unix sockets and the client of the command line.

use crate::house::{Cellar, House, JSON, PATIENCE, Wire, cellar, eventually, house, house_with, metric};
use duragent::http::client::{Client, Stream};
use duragent::http::{Access, BindError, Limits, Listen, Peer, Server, Shared, serve_stream};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn bounded(limits: Limits) -> House {
    house_with(Access::default(), limits)
}

fn open_to_all(cellar: &Cellar) -> Arc<Shared> {
    cellar.shared(Access::default(), Limits::default())
}

/// A connection that follows session `a`, with its head read.
fn following(house: &House) -> Wire {
    let mut wire = house.wire();
    wire.send(b"GET /api/v1/sessions/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(wire.head().map(|h| h.0), Some(200));
    wire
}

#[test]
fn one_connection_too_many_is_told_so() {
    let house = bounded(Limits { connections_max: 3, ..Limits::default() });
    house.session("a");
    let mut wires: Vec<Wire> = (0..3).map(|_| following(&house)).collect();
    let mut over = house.wire();
    over.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = over.reply().expect("an answer");
    assert_eq!(
        (reply.status, reply.header("retry-after"), reply.header("connection")),
        (503, Some("1"), Some("close"))
    );
    assert!(over.is_closed());
    wires.pop().expect("three wires").hang_up();
    // None beside the one that asks: that would be given up for it.
    let mut free = None;
    eventually("a place is free", || {
        let wire = free.insert(house.wire());
        wire.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.reply().is_some_and(|reply| reply.status == 200)
    });
    let mut free = free.expect("a free place");
    assert_eq!(metric(&free.ask("GET", "/metrics", "", ""), "http_connections_given_up_total"), 0);
}

#[test]
fn who_waits_longest_for_its_client_makes_room() {
    let house = bounded(Limits { connections_max: 4, ..Limits::default() });
    house.session("a");
    let _stream = following(&house);
    let mut dribbling = house.wire();
    dribbling.send(b"GET /livez HTTP/1.1\r\nHo");
    let mut idle = house.wire();
    assert_eq!(idle.ask("GET", "/livez", "", "").status, 200);
    let mut half = house.wire();
    half.send(b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
    eventually("all are seen", || metric(&idle.ask("GET", "/metrics", "", ""), "http_connections") == 4);
    // Bytes that make nothing whole do not count: it is as old as its first one.
    dribbling.send(b"st");
    let mut first = house.wire();
    assert_eq!(first.ask("GET", "/livez", "", "").status, 200);
    assert!(dribbling.is_closed(), "a head that never ends");
    let mut second = house.wire();
    assert_eq!(second.ask("GET", "/livez", "", "").status, 200);
    assert!(half.is_closed(), "a body that never ends");
    assert_eq!(first.ask("GET", "/livez", "", "").status, 200, "younger ones stay");
    let mut third = house.wire();
    assert_eq!(third.ask("GET", "/livez", "", "").status, 200);
    assert!(idle.is_closed(), "one that asks nothing more");
    let counted = metric(&third.ask("GET", "/metrics", "", ""), "http_connections_given_up_total");
    assert_eq!(counted, 3, "and the stream was left alone");
}

#[test]
fn who_reads_no_answer_makes_room() {
    let house = bounded(Limits { connections_max: 2, ..Limits::default() });
    house.session("a");
    house.say_and_wait("a", &"x".repeat(900_000));
    let mut deaf: Vec<Wire> = (0..2).map(|_| house.wire()).collect();
    for wire in &mut deaf {
        wire.send("GET /api/v1/sessions/a/export HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(16).as_bytes());
        assert_eq!(wire.head().map(|h| h.0), Some(200));
    }
    // As soon as the socket's buffers are full it waits for its client.
    eventually("a place is made", || {
        let mut wire = house.wire();
        wire.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.reply().is_some_and(|reply| reply.status == 200)
    });
}

#[test]
fn who_reads_no_answer_for_too_long_is_given_up() {
    let house = bounded(Limits { write_time_max: Duration::from_millis(200), ..Limits::default() });
    house.session("a");
    house.say_and_wait("a", &"x".repeat(900_000));
    let mut deaf = house.wire();
    deaf.send("GET /api/v1/sessions/a/export HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(16).as_bytes());
    assert_eq!(deaf.head().map(|h| h.0), Some(200));
    eventually("its place is free", || house.metric("http_connections") == 1);
    assert_eq!(house.metric("http_connections_given_up_total"), 0, "and not because somebody needed it");
}

#[test]
fn some_places_are_kept_for_short_answers() {
    let house = bounded(Limits { connections_max: 16, ..Limits::default() });
    house.session("a");
    let streams: Vec<Wire> = (0..14).map(|_| following(&house)).collect();
    let refused = house.ask("GET", "/api/v1/sessions/a/events", "", "");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(house.ask("GET", "/livez", "", "").status, 200);
    let path = "/api/v1/sessions/a/messages?wait=600";
    let told = house.ask("POST", path, JSON, "{\"content\":\"slow\"}");
    assert_eq!(told.status, 202, "taken, only not waited for: {told:?}");
    drop(streams);
    eventually("places are given back", || {
        let mut wire = house.wire();
        wire.send(b"GET /api/v1/sessions/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wire.head().is_some_and(|head| head.0 == 200)
    });
}

#[test]
fn what_takes_too_long_is_given_up() {
    let short = Duration::from_millis(100);
    let limits = Limits { head_time_max: short, body_time_max: short, idle_time_max: short, ..Limits::default() };
    let house = bounded(limits);
    assert!(house.wire().is_closed(), "silence from the start is closed without a word");
    let mut kept = house.wire();
    assert_eq!(kept.ask("GET", "/livez", "", "").status, 200);
    assert!(kept.is_closed(), "silence after an answer as well");
    for begun in [
        "G",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n",
        "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{}",
        "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
    ] {
        let mut wire = house.wire();
        wire.send(begun.as_bytes());
        let reply = wire.reply().unwrap_or_else(|| panic!("{begun:?}: no answer"));
        assert_eq!(reply.status, 408, "{begun:?}");
        assert!(wire.is_closed(), "{begun:?}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_is_framed() {
    let house = bounded(Limits { body_bytes_max: 100, ..Limits::default() });
    let ask = |framing: &str, body: &str| {
        let mut wire = house.wire();
        wire.send(format!("POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\n{JSON}{framing}\r\n{body}").as_bytes());
        wire.reply().expect("an answer").status
    };
    let (fits, over) = (" ".repeat(100), " ".repeat(101));
    assert_eq!(ask("Content-Length: 100\r\n", &fits), 400);
    assert_eq!(ask("Content-Length: 101\r\n", ""), 413);
    assert_eq!(ask("Transfer-Encoding: chunked\r\n", &format!("64\r\n{fits}\r\n0\r\n\r\n")), 400);
    assert_eq!(ask("Transfer-Encoding: chunked\r\n", &format!("65\r\n{over}")), 413);
}

#[test]
fn a_large_body_arrives_whole() {
    let house = house();
    house.session("a");
    let text = "x".repeat(1_000_000);
    house.say("a", &text);
    let page = house.ask("GET", "/api/v1/sessions/a/events?follow=false", "", "");
    assert!(page.body.contains(&text), "and leaves whole");
}

#[test]
fn draining_ends_idle_connections_and_streams_and_lets_requests_finish() {
    let house = house();
    house.session("a");
    let mut idle = house.wire();
    assert_eq!(idle.ask("GET", "/readyz", "", "").status, 200);
    let mut streaming = house.wire();
    streaming.send(b"GET /api/v1/sessions/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(streaming.head().map(|h| h.0), Some(200));
    let mut busy = house.wire();
    busy.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{");
    eventually("all are seen", || house.metric("http_connections") == 4);
    std::thread::scope(|scope| {
        let draining = scope.spawn(|| smol::block_on(house.server.drain(PATIENCE)));
        assert!(idle.is_closed());
        while streaming.event().expect("an event") != "event: shutdown\ndata: {}" {}
        assert_eq!(streaming.event(), None);
        assert!(streaming.is_closed());
        busy.send(b"}");
        let reply = busy.reply().expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(busy.is_closed());
        assert!(draining.join().expect("no panic"), "nothing was cut off");
    });
    assert!(std::net::TcpStream::connect(house.address).is_err());
}

#[test]
fn draining_cuts_off_what_does_not_end() {
    let house = bounded(Limits { last_time_max: Duration::from_millis(100), ..Limits::default() });
    let mut busy = house.wire();
    busy.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{");
    eventually("it is seen", || house.metric("http_connections") == 2 && house.metric("http_requests_total") > 1);
    assert!(!smol::block_on(house.server.drain(PATIENCE)));
    assert!(busy.is_closed());
}

#[test]
fn draining_does_not_wait_for_turns_beyond_the_grace() {
    let house = house();
    house.session("a");
    let mut waiting = house.wire();
    let head = format!("POST /api/v1/sessions/a/messages?wait=600 HTTP/1.1\r\nHost: localhost\r\n{JSON}");
    waiting.send(format!("{head}Content-Length: 18\r\n\r\n{{\"content\":\"slow\"}}").as_bytes());
    eventually("the turn runs", || house.metric("model_calls_total") == 1);
    assert!(smol::block_on(house.server.drain(Duration::from_millis(50))));
    let reply = waiting.reply().expect("an answer");
    assert_eq!((reply.status, reply.field("turn").as_str()), (202, "1"), "the message is durable: {reply:?}");
}

#[test]
fn shutdown_over_http_is_a_request_to_the_process() {
    let house = house();
    assert_eq!(house.ask("POST", "/api/admin/v1/shutdown", "", "").status, 202);
    smol::block_on(house.shared.shutdown_requested());
}

/// Runs itself again in a process that may open 64 descriptors.
#[test]
fn running_out_of_descriptors_ends_nothing() {
    const INSIDE: &str = "DURAGENT_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(INSIDE).is_some() {
        return without_descriptors();
    }
    let exe = std::env::current_exe().expect("this test");
    let script = "ulimit -n 64 && exec \"$0\" --exact limits::running_out_of_descriptors_ends_nothing --nocapture";
    let output = Command::new("sh").args(["-c", script]).arg(exe).env(INSIDE, "1").output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn without_descriptors() {
    let house = house();
    house.session("a");
    let mut watch = house.wire();
    assert_eq!(watch.ask("GET", "/livez", "", "").status, 200);
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(100).collect();
    assert!(hoard.len() < 100, "the limit holds");
    drop(hoard.pop());
    let mut late = house.wire();
    late.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = late.reply().expect("who only waited makes room");
    // The control: accepting did fail.
    assert!(metric(&reply, "http_accept_errors_total") > 0);
    assert_eq!(metric(&reply, "http_connections_given_up_total"), 1);
    assert!(watch.is_closed());
    let reply = late.ask("GET", "/api/v1/sessions/a/export", "", "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    drop(hoard);
    assert_eq!(late.ask("GET", "/api/v1/sessions/a/export", "", "").status, 200);
    assert_eq!(house.ask("GET", "/livez", "", "").status, 200);
    assert_eq!(late.ask("GET", "/livez", "", "").status, 200, "and nobody else");
}

#[test]
fn others_can_reach_it_only_with_a_token() {
    let shared = open_to_all(&cellar());
    let open = Listen::parse("0.0.0.0:0").expect("an address");
    match Server::bind(&[open], shared) {
        Err(error @ BindError::TokenRequired(_)) => assert!(error.to_string().contains("configure a token")),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it listens without a token"),
    }
}

/// A folder of this test, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("duragent-http-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_unix_socket_is_private_replaced_when_stale_and_removed() {
    let folder = Folder::new("unix");
    let path = folder.0.join("s.sock");
    let cellar = cellar();
    let bind = || Server::bind(&[Listen::unix(path.clone())], open_to_all(&cellar));
    drop(UnixListener::bind(&path).expect("a stale socket"));
    let server = bind().expect("a stale socket is replaced");
    let mode = fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connect = path.clone();
    let client = Client::new(Box::new(move || UnixStream::connect(&connect)));
    let reply = client.request("GET", "/version", &[("Host", "x")], b"");
    assert_eq!(reply.expect("an answer").status, 400, "two hosts are refused here too");
    assert_eq!(client.request("GET", "/version", &[], b"").expect("an answer").status, 200);
    assert!(matches!(bind(), Err(BindError::InUse(_))), "one that answers is not replaced");
    assert!(smol::block_on(server.drain(PATIENCE)));
    assert!(!path.exists());
    fs::write(&path, "precious").expect("a file");
    assert!(matches!(bind(), Err(BindError::Io(..))), "what is no socket is not replaced");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

fn in_process(cellar: &Cellar) -> Client {
    let shared = open_to_all(cellar);
    Client::new(Box::new(move || {
        let (ours, theirs) = UnixStream::pair()?;
        smol::spawn(serve_stream(theirs, Peer::Unix { own: true }, Arc::clone(&shared))).detach();
        Ok(ours)
    }))
}

#[test]
fn the_client_works_without_a_listener() {
    let cellar = cellar();
    let client = in_process(&cellar);
    let json = [("Content-Type", "application/json")];
    let made =
        client.request("POST", "/api/v1/sessions", &json, br#"{"agent":"assistant","id":"a"}"#).expect("an answer");
    assert_eq!((made.status, made.header("location")), (201, Some("/api/v1/sessions/a")));
    let path = "/api/v1/sessions/a/messages";
    let Stream::Events(events) = client.stream("POST", path, &json, br#"{"content":"one"}"#).expect("an answer") else {
        panic!("expected events");
    };
    let events: Vec<_> = events.collect::<Result<_, _>>().expect("a whole stream");
    let last = events.last().expect("events");
    let first = events.iter().find(|e| e.kind != "token").expect("events");
    assert_eq!((first.kind.as_str(), last.kind.as_str()), ("message_received", "turn_finished"));
    for event in &events {
        assert!(
            event.kind == "token" || event.data.starts_with(&format!("{{\"seq\":{},", event.last_id.unwrap_or(0))),
            "{event:?}"
        );
    }
    let Stream::Events(mut events) = client.events("/api/v1/sessions/a/events", last.last_id).expect("an answer")
    else {
        panic!("expected events");
    };
    let handle = events.handle().expect("a second handle");
    std::thread::scope(|scope| {
        let next = scope.spawn(move || events.next().map(|e| e.map(|e| e.kind).map_err(|e| e.kind())));
        handle.shutdown(std::net::Shutdown::Both).expect("open");
        let next = next.join().expect("no panic");
        assert!(!matches!(next, Some(Ok(_))), "nothing is after the last event: {next:?}");
    });
    match client.events("/api/v1/sessions/b/events", None).expect("an answer") {
        Stream::Other(response) => assert_eq!(response.status, 404),
        Stream::Events(_) => panic!("expected a problem"),
    }
    let head = client.request("HEAD", "/version", &[], b"").expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(client.request("GET", "/livez", &[("X", "a\r\nY: b")], b"").is_err());
    assert!(client.request("GET", "/livez\r\n", &[], b"").is_err());
}

#[test]
fn an_idle_connection_is_small() {
    let shared = open_to_all(&cellar());
    let (_ours, theirs) = UnixStream::pair().expect("a pair");
    let size = size_of_val(&serve_stream(theirs, Peer::Unix { own: true }, shared));
    assert!(size <= 1024, "the task of a connection takes {size} bytes");
}
