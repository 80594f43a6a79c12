//! A response that is known whole, and its encoding by `tiny_http`.
//!
//! What `tiny_http` does not do is done here: it lets CR and LF through in header values, it switches to chunked coding
//! above 32 KiB, and it drops `Connection`.

use super::problem::Problem;
use tiny_http::{HTTPVersion, Header, StatusCode};

/// JSON of the API.
pub(super) const JSON: &str = "application/json";
/// Health, metrics.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// RFC 9457.
pub(super) const PROBLEM: &str = "application/problem+json";

/// How a response has to look on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wire {
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(super) minor: u8,
    /// The answer to HEAD: everything but the body.
    pub(super) head_only: bool,
    /// The connection ends after this.
    pub(super) close: bool,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Response {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// The type of the problem that it tells of; empty if it tells of none.
    problem: &'static str,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, headers: Vec::new(), body, problem: "" }
    }

    /// JSON text with status 200.
    pub(super) fn json(body: String) -> Self {
        Self::new(200, JSON, body)
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn problem(mut self, name: &'static str) -> Self {
        self.problem = name;
        self
    }

    /// Its status, and the type of its problem if it has one: what is counted.
    pub(super) fn outcome(&self) -> (u16, &'static str) {
        (self.status, self.problem)
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The bytes to send: head and body in one buffer, so that they leave in one segment.
    pub(super) fn encode(&self, wire: Wire) -> Vec<u8> {
        let fields = [("Server", "duragent"), ("Content-Type", self.content_type), ("Cache-Control", "no-store")];
        let extra = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let headers = fields.into_iter().chain(extra).filter_map(|(name, value)| header(name, value)).collect();
        let body = self.body.as_bytes();
        let response = tiny_http::Response::new(StatusCode(self.status), headers, body, Some(body.len()), None);
        let mut out = Vec::with_capacity(256 + body.len());
        let version = HTTPVersion(1, wire.minor);
        // Writing to a vector cannot fail.
        let _ = response.with_chunked_threshold(usize::MAX).raw_print(&mut out, version, &[], wire.head_only, None);
        let connection: &[u8] = match (wire.close, wire.minor) {
            (true, _) => b"\r\nConnection: close",
            (false, 0) => b"\r\nConnection: keep-alive",
            (false, _) => b"",
        };
        if let Some(end) = out.iter().position(|&b| b == b'\r') {
            out.splice(end..end, connection.iter().copied());
        }
        out
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}

/// A header, unless its value could end it early: then it is left out.
fn header(name: &'static str, value: &str) -> Option<Header> {
    let plain = value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    if plain { Header::from_bytes(name, value).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{Response, Wire};

    fn encode(response: &Response, wire: Wire) -> String {
        String::from_utf8(response.encode(wire)).expect("ASCII head")
    }

    const PLAIN: Wire = Wire { minor: 1, head_only: false, close: false };

    #[test]
    fn head_and_body_are_framed() {
        let response = Response::json("{}".into()).status(201).header("Location", "/x".into());
        let text = encode(&response, PLAIN);
        assert!(text.starts_with("HTTP/1.1 201 Created\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.contains("\r\nLocation: /x\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{}") && !text.contains("Connection"), "{text}");
        let text = encode(&response, Wire { head_only: true, close: true, ..PLAIN });
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        let text = encode(&response, Wire { minor: 0, ..PLAIN });
        assert!(text.starts_with("HTTP/1.0 201 Created\r\nConnection: keep-alive\r\n"), "{text}");
    }

    #[test]
    fn a_long_body_keeps_its_length() {
        let text = encode(&Response::json("x".repeat(100_000)), PLAIN);
        assert!(text.contains("\r\nContent-Length: 100000\r\n") && !text.contains("chunked"));
    }

    #[test]
    fn a_value_with_a_line_break_is_left_out() {
        // The control: the encoder itself lets it through.
        let split = tiny_http::Header::from_bytes("Location", "/x\r\nSet-Cookie: a").expect("tiny_http does not mind");
        assert!(split.to_string().contains("\r\nSet-Cookie"));
        for value in ["/x\r\nSet-Cookie: a", "/x\nSet-Cookie: a", "/x\rSet-Cookie: a", "/\0", "/\u{e9}"] {
            let text = encode(&Response::json(String::new()).header("Location", value.into()), PLAIN);
            assert!(!text.contains("Location") && !text.contains("Set-Cookie"), "{value:?}: {text}");
        }
    }
}
