//! The client of the command line against servers that answer in every way HTTP has, and in ways it has not.

use duragent::http::client::{Client, Response, Stream};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// A client of a server that reads one head and then sends `answer` in pieces of `step`.
fn client(answer: &'static str, step: usize) -> Client {
    Client::new(Box::new(move || {
        let (ours, mut theirs) = UnixStream::pair()?;
        std::thread::spawn(move || {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && theirs.read(&mut byte).is_ok_and(|n| n > 0) {
                head.extend_from_slice(&byte);
            }
            for piece in answer.as_bytes().chunks(step) {
                if theirs.write_all(piece).is_err() {
                    return;
                }
            }
        });
        Ok(ours)
    }))
}

/// The same however the answer arrives.
fn ask(method: &str, answer: &'static str) -> Result<Response, io::ErrorKind> {
    let get = |step| client(answer, step).request(method, "/", &[], b"").map_err(|e| e.kind());
    let whole = get(usize::MAX);
    for step in [1, 2, 7] {
        assert_eq!(get(step), whole, "in steps of {step}: {answer:?}");
    }
    whole
}

#[test]
fn every_framing_is_read() {
    let cases = [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more", 200, "hello"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, "hello"),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nhello", 200, "hello"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, ""),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404, "no"),
    ];
    for (method, answer, status, body) in cases {
        let response = ask(method, answer).unwrap_or_else(|e| panic!("{answer:?}: {e}"));
        assert_eq!((response.status, response.body.as_slice()), (status, body.as_bytes()), "{answer:?}");
    }
}

#[test]
fn an_answer_that_is_cut_or_not_http_is_an_error() {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    let cases = [
        ("", UnexpectedEof),
        ("HTTP/1.1 200 OK\r\nContent-Le", UnexpectedEof),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", UnexpectedEof),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", UnexpectedEof),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", InvalidData),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", InvalidData),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nx", InvalidData),
        ("SSH-2.0-OpenSSH\r\n", InvalidData),
    ];
    for (answer, kind) in cases {
        assert_eq!(ask("GET", answer), Err(kind), "{answer:?}");
    }
    let long = ["HTTP/1.1 200 OK\r\nX: ", "x".repeat(20_000).leak()].concat();
    assert_eq!(ask("GET", long.leak()), Err(InvalidData));
}

#[test]
fn events_are_read_as_they_arrive() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
        d\r\nretry: 1000\n\n\r\n8\r\n: ping\n\n\r\n1c\r\nid: 7\nevent: a\ndata: {\"x\":1}\r\n2\r\n\n\n\r\n\
        18\r\nevent: token\ndata: \u{e9}t\n\n\r\n0\r\n\r\n";
    for step in [usize::MAX, 1, 5] {
        let Ok(Stream::Events(events)) = client(answer, step).events("/", None) else { panic!("expected events") };
        let found: Vec<_> = events
            .map(|e| e.map(|e| (e.last_id, e.kind, e.data)).unwrap_or_else(|e| panic!("in steps of {step}: {e}")))
            .collect();
        let expected = [(Some(7), "a", "{\"x\":1}"), (Some(7), "token", "\u{e9}t")];
        assert_eq!(found, expected.map(|(id, kind, data)| (id, kind.to_owned(), data.to_owned())), "{step}");
    }
    let cut = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 1\ndata: a\n\ndata: b\n";
    let Ok(Stream::Events(events)) = client(cut, 1).events("/", None) else { panic!("expected events") };
    let found: Vec<_> = events.map(|e| e.map(|e| e.data).map_err(|e| e.kind())).collect();
    assert_eq!(found, [Ok("a".to_owned()), Err(io::ErrorKind::UnexpectedEof)], "what was cut is not given out");
}
