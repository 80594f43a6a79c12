//! Raw requests and what they must be answered with, sent whole, byte by byte and in odd pieces.

use crate::house::{House, Wire, house};

struct Vector {
    name: &'static str,
    raw: String,
    /// Status of each answer, interim ones included.
    statuses: &'static [u16],
    /// The connection takes another request afterwards.
    keeps: bool,
}

fn vector(name: &'static str, raw: impl Into<String>, statuses: &'static [u16], keeps: bool) -> Vector {
    Vector { name, raw: raw.into(), statuses, keeps }
}

/// A GET of /livez with more fields.
fn get(fields: &str) -> String {
    format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// A POST that makes no session whatever the body, with more fields.
fn post(fields: &str, body: &str) -> String {
    format!("POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
}

fn well_formed() -> Vec<Vector> {
    let ok = get("");
    vec![
        vector("plain", ok.clone(), &[200], true),
        vector("head", ok.replace("GET", "HEAD"), &[200], true),
        vector("pipelined", ok.repeat(5), &[200; 5], true),
        vector("pipelined after an error", format!("{}{ok}", ok.replace("livez", "nope")), &[404, 200], true),
        vector("close", get("Connection: close\r\n"), &[200], false),
        vector("http/1.0", "GET /livez HTTP/1.0\r\n\r\n", &[200], false),
        vector("http/1.0 keep-alive", "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &[200], true),
        vector("leading empty line", format!("\r\n{ok}"), &[200], true),
        vector("absolute form", ok.replace("/livez", "http://localhost/livez"), &[200], true),
        vector("percent-encoded path", ok.replace("/livez", "/live%7A"), &[200], true),
        vector("unknown query", ok.replace("/livez", "/livez?x=%zz"), &[200], true),
        vector("body of a GET", format!("{}abc{ok}", get("Content-Length: 3\r\n")), &[200, 200], true),
        vector("length", format!("{}{ok}", post("Content-Length: 2\r\n", "{}")), &[400, 200], true),
        vector(
            "chunked",
            format!("{}{ok}", post("Transfer-Encoding: chunked\r\n", "1;x\r\n{\r\n1\r\n}\r\n0\r\nT: x\r\n\r\n")),
            &[400, 200],
            true,
        ),
        vector("other host", ok.replace("localhost", "127.0.0.1:99"), &[200], true),
        vector("origin", get("Origin: http://localhost:3000\r\n"), &[200], true),
    ]
}

fn refused() -> Vec<Vector> {
    let ok = get("");
    let smuggled = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    vec![
        vector("not found", ok.replace("livez", "nope"), &[404], true),
        vector("trailing slash", ok.replace("livez", "livez/"), &[404], true),
        vector("deep path", ok.replace("livez", "a/b/c/d/e/f/g/h/i"), &[404], true),
        vector("dots", ok.replace("livez", "api/../livez"), &[404], true),
        vector("encoded slash", ok.replace("livez", "api%2fv1%2fagents"), &[404], true),
        vector("bad percent", ok.replace("livez", "live%7"), &[400], true),
        vector("method", ok.replace("GET", "DELETE"), &[405], true),
        vector("options", ok.replace("GET /livez", "OPTIONS *"), &[405], true),
        vector("unknown method", ok.replace("GET", "BREW"), &[501], true),
        vector("lower-case method", ok.replace("GET", "get"), &[501], true),
        vector("connect", ok.replace("GET /livez", "CONNECT a:80"), &[400], false),
        vector("foreign host", ok.replace("localhost", "example.org"), &[403], true),
        vector("foreign host in the target", ok.replace("/livez", "http://example.org/livez"), &[403], true),
        vector("foreign origin", get("Origin: http://example.org\r\n"), &[403], true),
        vector("null origin", get("Origin: null\r\n"), &[403], true),
        vector("no host", "GET /livez HTTP/1.1\r\n\r\n", &[400], false),
        vector("two hosts", get("Host: localhost\r\n"), &[400], false),
        vector("bare lf", format!("GET /livez HTTP/1.1\nHost: localhost\n\n{smuggled}"), &[400], false),
        vector("bare cr", format!("{}{smuggled}", get("X: a\rb\r\n")), &[400], false),
        vector("nul", get("X: a\0b\r\n"), &[400], false),
        vector("folded", get("X: a\r\n b\r\n"), &[400], false),
        vector("space before colon", get("X : a\r\n"), &[400], false),
        vector("http/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505], false),
        vector("tls", "\x16\x03\x01\x00\x01", &[400], false),
        vector("http/0.9", "GET /livez\r\n\r\n", &[400], false),
        vector("long target", ok.replace("livez", &"x".repeat(9000)), &[414], false),
        vector("long head", get(&format!("X: {}\r\n", "x".repeat(17_000))), &[431], false),
        vector("many fields", get(&"X: 1\r\n".repeat(101)), &[431], false),
        vector("unacceptable", get("Accept: text/html\r\n"), &[406], true),
        vector("expectation", get("Expect: more\r\n"), &[417], false),
        vector("too long", post("Content-Length: 100000000000\r\n", "abc"), &[413], false),
        vector("too long for 64 bits", post("Content-Length: 99999999999999999999999\r\n", "abc"), &[413], false),
        vector("negative length", post("Content-Length: -1\r\n", smuggled), &[400], false),
        vector("signed length", post("Content-Length: +44\r\n", smuggled), &[400], false),
        vector("worded length", post("Content-Length: abc\r\n", smuggled), &[400], false),
        vector("two lengths", post("Content-Length: 44\r\nContent-Length: 44\r\n", smuggled), &[400], false),
        vector("listed lengths", post("Content-Length: 44, 44\r\n", smuggled), &[400], false),
        vector(
            "length and coding",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            &[400],
            false,
        ),
        vector(
            "coding and length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
            &[400],
            false,
        ),
        vector("other coding", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), &[501], false),
        vector("obscured coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), &[501], false),
        vector(
            "two codings",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            &[400],
            false,
        ),
        vector("bad chunk", post("Transfer-Encoding: chunked\r\n", &format!("zz\r\n{smuggled}")), &[400], false),
        vector("chunk beyond its size", post("Transfer-Encoding: chunked\r\n", "1\r\nabc\r\n0\r\n\r\n"), &[400], false),
        vector(
            "media type",
            post("Content-Length: 2\r\n", "{}").replace("application/json", "text/plain"),
            &[415],
            false,
        ),
        vector("unread body", post("Content-Length: 2\r\n", "{}").replace("/sessions", "/nope"), &[404], false),
    ]
}

fn check(house: &House, vector: &Vector, step: usize) {
    let mut wire = house.wire();
    let method = if vector.raw.starts_with("HEAD") { "HEAD" } else { "GET" };
    send(&mut wire, vector.raw.as_bytes(), step);
    for status in vector.statuses {
        let reply = wire.reply_to(method).unwrap_or_else(|| panic!("{} in steps of {step}: no answer", vector.name));
        assert_eq!(reply.status, *status, "{} in steps of {step}: {reply:?}", vector.name);
        if *status >= 400 {
            let problem = reply.header("content-type");
            assert_eq!(problem, Some("application/problem+json"), "{}: {reply:?}", vector.name);
            assert_eq!(reply.field("status"), status.to_string(), "{}", vector.name);
            assert!(reply.field("type").starts_with("urn:duragent:problem:") && !reply.field("detail").is_empty());
        }
        let last = reply.header("connection") == Some("close");
        assert!(!last || !vector.keeps, "{}: {reply:?}", vector.name);
    }
    send(&mut wire, get("").as_bytes(), usize::MAX);
    let kept = wire.reply().is_some();
    assert_eq!(kept, vector.keeps, "{} in steps of {step}: is the connection kept?", vector.name);
}

/// The server may close early, so failures to send are expected.
fn send(wire: &mut Wire, bytes: &[u8], step: usize) {
    use std::io::Write;
    for piece in bytes.chunks(step) {
        if wire.stream.write_all(piece).is_err() {
            return;
        }
    }
}

#[test]
fn requests_are_answered_however_they_arrive() {
    let house = house();
    for vector in well_formed().iter().chain(&refused()) {
        for step in [usize::MAX, 1, 13] {
            check(&house, vector, step);
        }
    }
}

#[test]
fn a_refused_method_names_the_allowed_ones() {
    let house = house();
    for (method, path, allow) in [
        ("POST", "/livez", "GET, HEAD"),
        ("PUT", "/api/v1/sessions", "GET, HEAD, POST"),
        ("PATCH", "/api/v1/sessions/a", "GET, HEAD, DELETE"),
        ("GET", "/api/v1/sessions/a/cancel", "POST"),
        ("GET", "/api/admin/v1/shutdown", "POST"),
    ] {
        let reply = house.ask(method, path, "", "");
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{method} {path}: {reply:?}");
    }
}

#[test]
fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let house = house();
    let mut wire = house.wire();
    wire.send(post("Content-Length: 2\r\nExpect: 100-continue\r\n", "").as_bytes());
    assert_eq!(wire.reply().map(|r| r.status), Some(100));
    wire.send(b"{}");
    assert_eq!(wire.reply().map(|r| r.status), Some(400));
    wire.send(post("Content-Length: 9999999999\r\nExpect: 100-continue\r\n", "").as_bytes());
    assert_eq!(wire.reply().map(|r| r.status), Some(413), "refused instead of told to go on");
    assert!(wire.is_closed());
}

#[test]
fn a_head_response_says_what_get_would_send() {
    let house = house();
    let mut wire = house.wire();
    let get = wire.ask("GET", "/version", "", "");
    let head = wire.ask("HEAD", "/version", "", "");
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert!(get.body.len() > 10 && head.body.is_empty());
    assert_eq!(get.field("name"), "duragent");
}
