//! A client that costs as little as it can: one connection that stays open, one write a request, no copy more than needed.
//! It runs on the same cores as the server.

use crate::failure::{Failure, Result, doing, fail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a silent server is waited for. A turn on a busy disk takes seconds at worst.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A connection to a server.
pub struct Client {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
    line: String,
    body: Vec<u8>,
}

/// When the parts of a streamed turn came, from just before the request was written.
#[derive(Debug, Clone, Copy)]
pub struct Streamed {
    /// First token.
    pub token: Duration,
    /// `turn_finished`.
    pub finished: Duration,
}

impl Client {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).map_err(doing(format!("connecting to {address}")))?;
        stream.set_nodelay(true).map_err(doing("TCP_NODELAY"))?;
        stream.set_read_timeout(Some(SILENCE_MAX)).map_err(doing("setting a timeout"))?;
        Ok(Self { reader: BufReader::new(stream), out: Vec::new(), line: String::new(), body: Vec::new() })
    }

    /// Sends a request and returns status and body.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, &str)> {
        self.send(method, path, "application/json, text/plain", body)?;
        let (status, framing) = self.head()?;
        self.body.clear();
        match framing {
            Framing::Length(length) => {
                self.body.resize(length, 0);
                self.reader.read_exact(&mut self.body).map_err(doing("reading a body"))?;
            }
            Framing::Chunked => while self.chunk()? {},
        }
        Ok((status, std::str::from_utf8(&self.body).map_err(doing("reading a body"))?))
    }

    /// Sends a request whose answer has to be `expected`; returns the body.
    pub fn expect(&mut self, expected: u16, method: &str, path: &str, body: &str) -> Result<&str> {
        match self.ask(method, path, body)? {
            (status, text) if status == expected => Ok(text),
            (status, text) => fail(format!("{method} {path}: expected {expected}, found {status} {text}")),
        }
    }

    /// Makes a session.
    pub fn create(&mut self, agent: &str, session: &str) -> Result<()> {
        let body = format!("{{\"agent\":\"{agent}\",\"id\":\"{session}\"}}");
        self.expect(201, "POST", "/api/v1/sessions", &body).map(drop)
    }

    /// Says something and waits for the end of the turn, which has to be a good one.
    pub fn turn(&mut self, path: &str, body: &str) -> Result<()> {
        let answer = self.expect(200, "POST", path, body)?;
        if answer.contains("\"reason\":\"completed\"") {
            return Ok(());
        }
        fail(format!("POST {path}: expected a completed turn, found {answer}"))
    }

    /// Says something and follows the turn as server-sent events.
    pub fn streamed(&mut self, path: &str, body: &str) -> Result<Streamed> {
        let start = Instant::now();
        self.send("POST", path, "text/event-stream", body)?;
        match self.head()? {
            (200, Framing::Chunked) => {}
            (status, _) => return fail(format!("POST {path}: expected a stream, found status {status}")),
        }
        let (mut token, mut finished) = (None, None);
        loop {
            self.body.clear();
            let more = self.chunk()?;
            let text = String::from_utf8_lossy(&self.body);
            if text.contains("event: token\n") {
                token.get_or_insert_with(|| start.elapsed());
            } else if text.contains("event: turn_finished\n") {
                finished.get_or_insert_with(|| start.elapsed());
            }
            if !more {
                break;
            }
        }
        match (token, finished) {
            (Some(token), Some(finished)) => Ok(Streamed { token, finished }),
            found => fail(format!("POST {path}: expected tokens and turn_finished, found {found:?}")),
        }
    }

    /// A counter of `/metrics`.
    pub fn metric(&mut self, name: &str) -> Result<u64> {
        let text = self.expect(200, "GET", "/metrics", "")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        value.ok_or_else(|| Failure(format!("/metrics: expected {name}, found none")))
    }

    fn send(&mut self, method: &str, path: &str, accept: &str, body: &str) -> Result<()> {
        self.out.clear();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        write!(
            self.out,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        )
        .map_err(doing("writing a request"))?;
        self.reader.get_mut().write_all(&self.out).map_err(doing(format!("{method} {path}")))
    }

    fn head(&mut self) -> Result<(u16, Framing)> {
        let status = self.line()?.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| Failure(format!("expected an HTTP answer, found {:?}", self.line)))?;
        let mut framing = Framing::Length(0);
        while let Some((name, value)) = self.line()?.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                framing = Framing::Length(value.trim().parse().map_err(doing("reading Content-Length"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            }
        }
        Ok((status, framing))
    }

    /// Adds the next chunk to the body; false if it was the last.
    fn chunk(&mut self) -> Result<bool> {
        let size = usize::from_str_radix(self.line()?.trim(), 16).map_err(doing("reading the size of a chunk"))?;
        let start = self.body.len();
        self.body.resize(start + size + 2, 0);
        let Some(chunk) = self.body.get_mut(start..) else { return fail("a chunk without an end") };
        self.reader.read_exact(chunk).map_err(doing("reading a chunk"))?;
        self.body.truncate(start + size);
        Ok(size > 0)
    }

    fn line(&mut self) -> Result<&str> {
        self.line.clear();
        match self.reader.read_line(&mut self.line).map_err(doing("reading an answer"))? {
            0 => fail("the server closed the connection"),
            _ => Ok(self.line.trim_end()),
        }
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// `POST` to here says something and waits for the turn.
pub fn messages(session: &str) -> String {
    format!("/api/v1/sessions/{session}/messages?wait=30")
}
