//! Every request of `vectors/`, sent whole, byte by byte and in odd pieces; what must be answered, what must be done, and
//! above all what must not.

use crate::corpus::{SMUGGLED, Vector, unescape, vectors};
use crate::house::{self, House, JSON, Reply, Wire};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sent after every vector, to see whether the connection is kept, and answered unlike anything that a vector asks for.
const LAST: &[u8] = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sizes of the pieces that a vector is sent in.
const STEPS: [usize; 3] = [usize::MAX, 1, 13];

fn check(house: &House, vector: &Vector, step: usize) {
    let name = format!("{} in steps of {step}", vector.name);
    let mut wire = house.wire();
    send(&mut wire, &vector.raw, step);
    send(&mut wire, LAST, usize::MAX);
    let mut last = None;
    for expected in &vector.expected {
        let method = if expected.to_head { "HEAD" } else { "GET" };
        let reply = final_reply(&mut wire, method).unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(reply.status, expected.status, "{name}: {reply:?}");
        check_form(&name, &reply, expected.to_head);
        for field in &vector.absent {
            assert_eq!(reply.header(field), None, "{name}: {reply:?}");
        }
        last = Some(reply);
    }
    let last = last.expect("an answer at least");
    for line in &vector.headers {
        assert!(last.head.lines().any(|l| l == line), "{name}: no {line:?} in {last:?}");
    }
    assert_eq!(last.header("connection") == Some("close"), !vector.keeps, "{name}: {last:?}");
    if vector.keeps {
        let reply = wire.reply().unwrap_or_else(|| panic!("{name}: the connection is closed"));
        assert!(reply.body.contains("\"duragent\""), "{name}: one more: {reply:?}");
    } else {
        assert!(wire.is_closed(), "{name}: more is said after the last answer");
    }
}

/// Interim answers are passed over: whether there are any depends on what has arrived.
fn final_reply(wire: &mut Wire, method: &str) -> Option<Reply> {
    loop {
        let reply = wire.reply_to(method)?;
        if reply.status >= 200 {
            return Some(reply);
        }
    }
}

/// What holds of every answer: a date, no line that is not a field, and a document that says what is wrong.
fn check_form(name: &str, reply: &Reply, to_head: bool) {
    assert!(reply.header("date").is_some(), "{name}: {reply:?}");
    let fields = reply.head.strip_suffix("\r\n\r\n").unwrap_or_default().split("\r\n").skip(1);
    for field in fields {
        let plain = field.bytes().all(|b| matches!(b, b' '..=b'~'));
        assert!(plain && field.contains(": "), "{name}: {field:?}");
    }
    if reply.status >= 400 {
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{name}: {reply:?}");
        if !to_head {
            assert_eq!(reply.field("status"), reply.status.to_string(), "{name}");
            assert!(reply.field("type").starts_with("urn:duragent:problem:") && !reply.field("detail").is_empty());
        }
    }
}

/// The server may close early, so failures to send are expected.
fn send(wire: &mut Wire, bytes: &[u8], step: usize) {
    for piece in bytes.chunks(step) {
        if wire.stream.write_all(piece).is_err() {
            return;
        }
    }
}

fn is_smuggled(house: &House) -> bool {
    match house.ask("GET", "/api/v1/sessions/smuggled", "", "").status {
        200 => true,
        404 => false,
        other => panic!("status {other}"),
    }
}

#[test]
fn requests_are_answered_however_they_arrive_and_none_is_smuggled() {
    let vectors = vectors();
    assert!(vectors.len() > 400, "found {}", vectors.len());
    let mut house = house::house();
    let mut failed = Vec::new();
    for vector in vectors.iter().filter(|vector| !vector.smuggles) {
        // So that one run names all that fail.
        let checked = catch_unwind(AssertUnwindSafe(|| {
            STEPS.iter().for_each(|step| check(&house, vector, *step));
            assert!(!is_smuggled(&house), "{}: what it hides was executed", vector.name);
        }));
        if checked.is_err() {
            failed.push(&vector.name);
            house = house::house();
        }
    }
    assert!(failed.is_empty(), "{} fail: {failed:#?}", failed.len());
}

/// The control: the hidden request is one that works, where it is not hidden.
#[test]
fn what_stands_where_a_request_may_stand_is_executed() {
    let vectors = vectors();
    let open: Vec<_> = vectors.iter().filter(|vector| vector.smuggles).collect();
    assert!(!open.is_empty());
    for vector in open {
        for step in STEPS {
            let house = house::house();
            check(&house, vector, step);
            assert!(is_smuggled(&house), "{}", vector.name);
        }
    }
}

#[test]
fn the_vectors_are_unescaped_exactly() {
    let read = |text: &str| unescape(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(read("a\\r\\n\n b\\t\\s\\0\\\\\\x41\n"), Ok("a\r\n b\t \0\\A".to_owned()));
    assert_eq!(unescape("\\xff"), Ok(vec![255]));
    assert_eq!(read("\\{3*a\\r}{}"), Ok("a\ra\ra\r{}".to_owned()));
    assert_eq!(unescape("\\{smuggled}"), Ok(SMUGGLED.to_vec()));
    for wrong in ["\\q", "\\", "\\x4", "\\xzz", "\\{", "\\{a}", "\\{a*b}"] {
        assert!(wrong == "\\" || unescape(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let house = house::house();
    let mut wire = house.wire();
    let post = |fields: &str| {
        format!("POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\n{JSON}{fields}Expect: 100-continue\r\n\r\n")
    };
    wire.send(post("Content-Length: 2\r\n").as_bytes());
    assert_eq!(wire.reply().map(|r| r.status), Some(100));
    wire.send(b"{}");
    assert_eq!(wire.reply().map(|r| r.status), Some(400));
    wire.send(post("Content-Length: 9999999999\r\n").as_bytes());
    assert_eq!(wire.reply().map(|r| r.status), Some(413), "refused instead of told to go on");
    assert!(wire.is_closed());
}

#[test]
fn a_head_response_says_what_get_would_send() {
    let house = house::house();
    let mut wire = house.wire();
    let get = wire.ask("GET", "/version", "", "");
    let head = wire.ask("HEAD", "/version", "", "");
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert!(get.body.len() > 10 && head.body.is_empty());
    assert_eq!(get.field("name"), "duragent");
}
