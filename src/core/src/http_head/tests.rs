use super::{Finder, Framing, HEAD_BYTES_MAX, Head, Refusal, parse};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Feeds `bytes` in pieces of `step` and parses the head once it is whole. Also says how many bytes were the head's.
fn read(bytes: &[u8], step: usize) -> Result<Option<(Head<'_>, usize)>, Refusal> {
    let mut finder = Finder::default();
    let mut end = 0;
    loop {
        end = bytes.len().min(end + step);
        if let Some(n) = finder.find(&bytes[..end])? {
            return parse(&bytes[..n]).map(|head| Some((head, n)));
        }
        if end == bytes.len() {
            return Ok(None);
        }
    }
}

/// Whole and one byte at a time must come to the same.
fn check<'a>(text: &'a str) -> Result<Head<'a>, Refusal> {
    let whole = read(text.as_bytes(), usize::MAX >> 1);
    assert_eq!(whole, read(text.as_bytes(), 1), "split at every byte: {text:?}");
    assert_eq!(whole, read(text.as_bytes(), 7), "split at every 7th byte: {text:?}");
    let (head, n) = whole?.unwrap_or_else(|| panic!("no end found: {text:?}"));
    assert_eq!(n, text.len(), "{text:?}");
    Ok(head)
}

#[test]
fn a_plain_head_is_understood() {
    let head =
        check("POST /a/b?c=d&e HTTP/1.1\r\nHost: localhost:8080\r\ncontent-LENGTH: 12\r\nX-A: 1\r\nx-a: 2\r\n\r\n");
    let head = head.unwrap();
    assert_eq!((head.method, head.path, head.query, head.minor), ("POST", "/a/b", "c=d&e", 1));
    assert_eq!((head.host, head.framing), (Some("localhost:8080"), Framing::Length(12)));
    assert!(head.keep_alive && !head.expects_continue);
    assert_eq!(head.all("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.one("content-length"), Ok(Some("12")));
    assert_eq!(head.one("absent"), Ok(None));
    assert!(head.one("x-a").is_err());
}

/// Framing, keep-alive, expects continue, path, query, host.
type Meaning = (Framing, bool, bool, &'static str, &'static str, Option<&'static str>);

#[test]
fn accepted_heads_have_the_expected_meaning() {
    let cases: &[(&str, Meaning)] = &[
        ("GET / HTTP/1.0", (Framing::Empty, false, false, "/", "", None)),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive", (Framing::Empty, true, false, "/", "", None)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE", (Framing::Empty, false, false, "/", "", Some("a"))),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive",
            (Framing::Empty, false, false, "/", "", Some("a")),
        ),
        ("\r\nGET / HTTP/1.1\r\nHost: a", (Framing::Empty, true, false, "/", "", Some("a"))),
        ("GET http://b:1/p?q HTTP/1.1\r\nHost: a", (Framing::Empty, true, false, "/p", "q", Some("b:1"))),
        ("GET HTTP://b?q HTTP/1.1\r\nHost: a", (Framing::Empty, true, false, "/", "q", Some("b"))),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80", (Framing::Empty, true, false, "*", "", Some("[::1]:80"))),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", (Framing::Empty, true, false, "/", "", Some("a"))),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999",
            (Framing::Length(u64::MAX), true, false, "/", "", Some("a")),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue",
            (Framing::Chunked, true, true, "/", "", Some("a")),
        ),
        (
            "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue",
            (Framing::Length(1), false, false, "/", "", None),
        ),
    ];
    for (text, expected) in cases {
        let text = format!("{text}\r\n\r\n");
        let head = check(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let found = (head.framing, head.keep_alive, head.expects_continue, head.path, head.query, head.host);
        assert_eq!(found, *expected, "{text:?}");
    }
}

#[test]
fn refused_heads_get_the_expected_status() {
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    let cases: &[(u16, &str)] = &[
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, "GET /\r\nHost: a\r\n\r\n"),
        (400, "GET / FTP/1.1\r\nHost: a\r\n\r\n"),
        (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "\x16\x03\x01\x02\x00"),
        (400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
        (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
        (400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1,1\r\nHost: a\r\n\r\n"),
        (400, "GET /  HTTP/2.0\r\nHost: a\r\n\r\n"),
        (400, "GET /a b HTTP/2.0\r\nHost: a\r\n\r\n"),
        (400, "GET /\\a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /[a] HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://[::1]/?[a] HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (505, "PRI * HTTP/2.0\r\n\r\n"),
        (431, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        (431, &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX))),
        (414, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8000))),
        (414, &format!("GET /{}", "x".repeat(HEAD_BYTES_MAX))),
    ];
    for (status, text) in cases {
        let refusal = check(text).expect_err(text);
        assert_eq!(refusal.status(), *status, "{refusal}: {text:?}");
    }
}

#[test]
fn limits_are_exact() {
    let hundred: String = (0..99).map(|i| format!("x-{i}: 1\r\n")).collect();
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{hundred}\r\n")).expect("100 fields");
    check(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(7999))).expect("8000 bytes of target");
    let filler = HEAD_BYTES_MAX - "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(filler))).expect("16 KiB of head");
    let over = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(filler + 1));
    assert_eq!(check(&over), Err(Refusal::HeadTooLarge));
}

#[test]
fn a_head_that_has_not_ended_is_not_an_error() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(read(&text.as_bytes()[..end], 3), Ok(None), "{end}");
    }
}

/// xorshift64*: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap_or(0) % limit.max(1)
    }
}

#[test]
fn mutated_heads_neither_panic_nor_differ_by_arrival() {
    let seed = b"POST /api/v1/sessions/a/messages?wait=5 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\
        Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n";
    let spice: &[&[u8]] =
        &[b"\r\n", b"\r", b"\n", b"\0", b":", b" ", b"\t", b"HTTP/1.1", b"chunked", b"\xff", b"1", b","];
    let mut random = Random(0x00D0_5EED_1234_5678);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = u8::try_from(random.below(256)).unwrap_or(0)),
                1 => drop(bytes.splice(at..at, spice[random.below(spice.len())].iter().copied())),
                2 => drop(bytes.drain(at..bytes.len().min(at + 1 + random.below(30)))),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let whole = read(&bytes, usize::MAX >> 1);
        assert_eq!(whole, read(&bytes, 1), "{:?}", String::from_utf8_lossy(&bytes));
        match whole {
            Ok(Some(_)) => accepted += 1,
            Ok(None) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 100 && refused > 100, "the mutations reach both sides: {accepted} accepted, {refused} refused");
}

#[test]
fn a_host_is_a_name_or_an_address_and_a_port() {
    let read = |host: &str| check(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok();
    for host in [
        "a",
        "a.b-c_d~e",
        "%41",
        "a:",
        "a:0",
        "a:65535",
        "1.2.3.4",
        "[::1]",
        "[::ffff:1.2.3.4]:80",
        "[1:2:3:4:5:6:7:8]:",
    ] {
        assert!(read(host), "{host}");
        assert_eq!(
            check(&format!("GET http://{host}/a HTTP/1.1\r\nHost: x\r\n\r\n")).map(|h| h.path.len()),
            Ok(2),
            "{host}"
        );
    }
    for host in [
        "",
        ":80",
        "a:b",
        "a:65536",
        "a:99999999999999999999",
        "a:+1",
        "a:80:80",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[a]",
        "[::1]a",
        "[::1%25eth0]",
        "[1.2.3.4]",
        "a@b",
        "a/b",
        "a?b",
        "a#b",
        "a,b",
        "a b",
        "a\\b",
        "[[::1]]",
        "a[::1]",
    ] {
        assert!(!read(host), "{host}");
    }
}
