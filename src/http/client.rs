//! A blocking HTTP/1.1 client over a unix socket or a socket pair, for the command line.
//!
//! One connection per request: on one machine that costs microseconds, and nothing has to be kept in step.
//!
//! Absent: TLS, redirects, proxies, and TCP: a TCP stream can be handed over as `UnixStream::from(OwnedFd)`, since all
//! that is done to it is read, write and shut down.

use duragent_core::chunked::Decoder;
use duragent_core::sse;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// Longest response head in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most header fields of a response.
const HEADERS_MAX: usize = 64;

/// Longest body that [`Client::request`] collects: an exported log has no other bound.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// Longest event in bytes: a log line holds at most a message or what a model said.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Bytes read at once.
const READ_BYTES_MAX: usize = 8 * 1024;

/// Makes a connection to the server.
pub type Connector = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// A client of one server.
pub struct Client {
    connect: Connector,
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// Body, decoded.
    pub body: Vec<u8>,
}

impl Response {
    /// The first field called `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// What a request for a stream got.
#[derive(Debug)]
pub enum Stream {
    /// Events.
    Events(Events),
    /// Something else, mostly a problem document.
    Other(Response),
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Seq of the last event of the log so far, this one included: what to come back with.
    pub last_id: Option<u64>,
    /// Its type.
    pub kind: String,
    /// The log line, or what belongs to the type.
    pub data: String,
}

/// Events as they arrive. Ends with the stream; an error is the last item.
#[derive(Debug)]
pub struct Events {
    body: Body,
    parser: sse::Events,
    ended: bool,
}

impl Client {
    /// A client that makes its connections with `connect`.
    #[must_use]
    pub fn new(connect: Connector) -> Self {
        Self { connect }
    }

    /// Sends a request and reads the whole response. `headers` are added to those that framing needs.
    ///
    /// # Errors
    /// If no connection can be made, it breaks, or the answer is not HTTP or too long.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        self.open(method, path, headers, body)?.collect()
    }

    /// Sends a request that may be answered by events.
    ///
    /// # Errors
    /// As [`Client::request`]; later failures come out of the iterator.
    pub fn stream(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Stream> {
        let mut all = vec![("Accept", "text/event-stream")];
        all.extend_from_slice(headers);
        let exchange = self.open(method, path, &all, body)?;
        match find(&exchange.headers, "content-type") {
            Some(media) if exchange.status == 200 && media.starts_with("text/event-stream") => {
                let parser = sse::Events::new(EVENT_BYTES_MAX);
                Ok(Stream::Events(Events { body: exchange.body, parser, ended: false }))
            }
            _ => exchange.collect().map(Stream::Other),
        }
    }

    /// Follows the events at `path`, strictly after `last_id`.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub fn events(&self, path: &str, last_id: Option<u64>) -> io::Result<Stream> {
        match last_id {
            Some(id) => self.stream("GET", path, &[("Last-Event-ID", &id.to_string())], b""),
            None => self.stream("GET", path, &[], b""),
        }
    }

    fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Exchange> {
        let head = write_head(method, path, headers, body.len())?;
        let mut stream = (self.connect)()?;
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        // A server that refuses may answer and close before it has read everything: the answer is what counts.
        let sent = stream.write_all(&bytes);
        match read_head(stream, method) {
            Err(error) => Err(sent.err().unwrap_or(error)),
            exchange => exchange,
        }
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn write_head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> io::Result<String> {
    let mut head = [method, " ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"].concat();
    if length > 0 || method == "POST" {
        head.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
    }
    let mut parts = vec![method, path];
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
        parts.extend([name, value]);
    }
    head.push_str("\r\n");
    if parts.iter().any(|part| part.contains(['\r', '\n', '\0'])) || path.contains(' ') {
        return Err(io::Error::new(ErrorKind::InvalidInput, "line break in a request line or header"));
    }
    Ok(head)
}

/// A response whose body is still arriving.
struct Exchange {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Exchange {
    fn collect(self) -> io::Result<Response> {
        let mut body = Vec::new();
        let read = self.body.take(BODY_BYTES_MAX + 1).read_to_end(&mut body)?;
        if read as u64 > BODY_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "response body longer than 1 GiB"));
        }
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

/// Reads heads until one is final.
fn read_head(mut stream: UnixStream, method: &str) -> io::Result<Exchange> {
    let mut pending = Vec::new();
    loop {
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut slots);
        match head.parse(&pending).map_err(|e| invalid(&e.to_string()))? {
            httparse::Status::Complete(end) => {
                let status = head.code.unwrap_or(0);
                let text = |h: &httparse::Header<'_>| (h.name.into(), String::from_utf8_lossy(h.value).into_owned());
                let headers: Vec<(String, String)> = head.headers.iter().map(text).collect();
                pending.drain(..end);
                if status < 200 {
                    continue;
                }
                let left = framing(status, method, &headers)?;
                return Ok(Exchange {
                    status,
                    headers,
                    body: Body { stream, pending, left, ready: Vec::new(), at: 0 },
                });
            }
            httparse::Status::Partial if pending.len() >= HEAD_BYTES_MAX => return Err(invalid("head too long")),
            httparse::Status::Partial => {}
        }
        if read_some(&mut stream, &mut pending)? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection without an answer"));
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, ["the server's answer is not HTTP: ", what].concat())
}

fn framing(status: u16, method: &str, headers: &[(String, String)]) -> io::Result<Left> {
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(Left::Bytes(0));
    }
    if let Some(coding) = find(headers, "transfer-encoding") {
        let chunked = coding.eq_ignore_ascii_case("chunked");
        return if chunked { Ok(Left::Chunks(Decoder::new())) } else { Err(invalid("unknown transfer coding")) };
    }
    match find(headers, "content-length").map(str::parse) {
        None => Ok(Left::Close),
        Some(Ok(n)) => Ok(Left::Bytes(n)),
        Some(Err(_)) => Err(invalid("malformed Content-Length")),
    }
}

fn read_some(stream: &mut UnixStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut scratch = [0; READ_BYTES_MAX];
    loop {
        match stream.read(&mut scratch) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(n) => {
                into.extend_from_slice(scratch.get(..n).unwrap_or_default());
                return Ok(n);
            }
        }
    }
}

/// What is still to come of a body.
#[derive(Debug)]
enum Left {
    Bytes(u64),
    Chunks(Decoder),
    /// Everything until the server closes.
    Close,
}

/// A body that is decoded while it is read.
#[derive(Debug)]
struct Body {
    stream: UnixStream,
    /// Arrived, not decoded.
    pending: Vec<u8>,
    left: Left,
    /// Decoded; taken up to `at`.
    ready: Vec<u8>,
    at: usize,
}

impl Body {
    /// Forgets what was taken and waits for more. False at the end.
    fn refill(&mut self) -> io::Result<bool> {
        self.ready.clear();
        self.at = 0;
        while self.ready.is_empty() {
            if !self.advance()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decodes some more. False at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let done = match &self.left {
            Left::Bytes(n) => *n == 0,
            Left::Chunks(decoder) => decoder.is_done(),
            Left::Close => false,
        };
        if done {
            return Ok(false);
        }
        if self.pending.is_empty() && read_some(&mut self.stream, &mut self.pending)? == 0 {
            return match self.left {
                Left::Close => Ok(false),
                _ => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection in an answer")),
            };
        }
        match &mut self.left {
            Left::Bytes(n) => {
                self.pending.truncate(usize::try_from(*n).unwrap_or(usize::MAX));
                *n -= self.pending.len() as u64;
                self.ready.append(&mut self.pending);
            }
            Left::Chunks(decoder) => {
                decoder.decode(&self.pending, &mut self.ready).map_err(|e| invalid(e.0))?;
                self.pending.clear();
            }
            Left::Close => self.ready.append(&mut self.pending),
        }
        Ok(true)
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() && !self.refill()? {
            return Ok(0);
        }
        let ready = self.ready.get(self.at..).unwrap_or_default();
        let n = ready.len().min(out.len());
        for (to, from) in out.iter_mut().zip(ready) {
            *to = *from;
        }
        self.at += n;
        Ok(n)
    }
}

impl Events {
    /// A second handle on the connection. Shutting it down from another thread ends the iterator.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn handle(&self) -> io::Result<UnixStream> {
        self.body.stream.try_clone()
    }

    /// `None` at the end of the stream.
    fn read(&mut self) -> io::Result<Option<Event>> {
        loop {
            let ready = self.body.ready.get(self.body.at..).unwrap_or_default();
            let mut input = ready;
            let next = self.parser.next(&mut input).map_err(|e| invalid(&e.to_string()))?;
            let event = next.map(|e| Event { last_id: e.id.parse().ok(), kind: e.event.into(), data: e.data.into() });
            self.body.at += ready.len() - input.len();
            if event.is_some() {
                return Ok(event);
            }
            if !self.body.refill()? {
                let cut = |e: sse::Error| io::Error::new(ErrorKind::UnexpectedEof, e.to_string());
                return self.parser.finish().map(|()| None).map_err(cut);
            }
        }
    }
}

impl Iterator for Events {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.read().transpose();
        self.ended = !matches!(event, Some(Ok(_)));
        event
    }
}
