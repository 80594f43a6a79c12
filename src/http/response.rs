//! A response that is known whole, and its encoding (RFC 9112): text into one buffer, since every request pays for it.
//!
//! Invariant: nothing that comes from outside ends a header early.

use super::problem::Problem;
use duragent_core::json::write_u64;
use duragent_core::time::imf_fixdate;
use duragent_platform::clock;
use tiny_http::StatusCode;

/// Bytes of an ordinary head.
const HEAD_BYTES: usize = 256;

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
        let mut out = String::with_capacity(HEAD_BYTES + self.body.len());
        out.push_str(if wire.minor == 0 { "HTTP/1.0 " } else { "HTTP/1.1 " });
        write_u64(&mut out, u64::from(self.status));
        out.push(' ');
        out.push_str(StatusCode(self.status).default_reason_phrase());
        out.push_str(match (wire.close, wire.minor) {
            (true, _) => "\r\nConnection: close",
            (false, 0) => "\r\nConnection: keep-alive",
            (false, _) => "",
        });
        out.push_str("\r\nServer: duragent\r\nDate: ");
        out.push_str(&imf_fixdate(clock::wall_ms()));
        out.push_str("\r\nCache-Control: no-store");
        let fields = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fields.chain([("Content-Type", self.content_type)]).filter(|(_, value)| is_plain(value)) {
            for part in ["\r\n", name, ": ", value] {
                out.push_str(part);
            }
        }
        out.push_str("\r\nContent-Length: ");
        write_u64(&mut out, self.body.len() as u64);
        out.push_str("\r\n\r\n");
        if !wire.head_only {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}

/// True for what cannot end a header early; a header with anything else is left out.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'))
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
