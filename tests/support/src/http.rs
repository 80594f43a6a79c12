//! As much of HTTP/1.1 as a model's server and its client need.

use crate::json::Json;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// Bytes of a request. A test's conversation is a hundredth of it.
const REQUEST_MAX: usize = 16 * 1024 * 1024;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `POST`
    pub method: String,
    /// `/v1/chat/completions`
    pub path: String,
    /// The head with its line ends.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Asked {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body; `null` if it is no JSON.
    #[must_use]
    pub fn json(&self) -> Json {
        Json::parse(&self.body).unwrap_or(Json::Null)
    }

    /// The texts of the list `messages`, which the next request has to begin with if a prompt cache is to be of use.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        self.json().at("messages").items().iter().map(Json::to_string).collect()
    }

    /// Reads one. `None` at the end of the connection.
    pub(crate) fn read(stream: &mut TcpStream) -> Option<Self> {
        let head = read_head(stream)?;
        let length = header(&head, "content-length").and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
        let mut body = vec![0; length.min(REQUEST_MAX)];
        // The last byte stays: without it, closing is a reset.
        if let Some((last, rest)) = body.split_last_mut() {
            stream.read_exact(rest).ok()?;
            let mut byte = [0];
            if stream.peek(&mut byte).ok()? == 0 {
                return None;
            }
            [*last] = byte;
        }
        let mut words = head.split([' ', '\r']);
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { method, path, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Takes the byte that [`Asked::read`] left.
    pub(crate) fn accept(&self, stream: &mut TcpStream) {
        if !self.body.is_empty() {
            stream.read_exact(&mut [0]).ok();
        }
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    // Byte by byte, so that nothing of the body is taken.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > REQUEST_MAX || stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.extend(byte);
    }
    String::from_utf8(head).ok()
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// An answer with a length. `headers` are whole lines.
pub(crate) fn whole(status: u16, headers: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Fake\r\nContent-Type: {content_type}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The head of an answer in chunks.
pub(crate) fn chunked_head(headers: &str, content_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{headers}Transfer-Encoding: chunked\r\n\r\n")
        .into_bytes()
}

/// One chunk.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

/// The last chunk.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Closes the connection: with RST if a byte that the client sent was never read (RFC 2525, 2.17), else with FIN.
pub(crate) fn close(stream: TcpStream) {
    // What was written before goes out first.
    thread::sleep(Duration::from_millis(20));
    drop(stream);
}

/// What a server answered to [`ask`].
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// The head with its line ends.
    pub head: String,
    /// The body, put together if it came in chunks.
    pub body: String,
    /// Bytes of each chunk.
    pub chunks: Vec<usize>,
    /// True if the connection ended before the body did.
    pub cut: bool,
}

impl Answered {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body; `null` if it is no JSON.
    #[must_use]
    pub fn json(&self) -> Json {
        Json::parse(&self.body).unwrap_or(Json::Null)
    }
}

/// Asks the server at `url` once. `headers` are whole lines.
///
/// # Errors
/// No connection, or none that lasts to the head of the answer.
pub fn ask(method: &str, url: &str, headers: &str, body: &str) -> io::Result<Answered> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let mut stream = TcpStream::connect(host)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let (mut bytes, mut chunks) = (Vec::new(), Vec::new());
    let read = match header(&head, "content-length").and_then(|value| value.parse().ok()) {
        Some(length) => {
            bytes.resize(length, 0);
            reader.read_exact(&mut bytes)
        }
        None => read_chunks(&mut reader, &mut bytes, &mut chunks),
    };
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answered { status, head, body, chunks, cut: read.is_err() })
}

fn read_chunks(reader: &mut impl BufRead, bytes: &mut Vec<u8>, chunks: &mut Vec<usize>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let start = bytes.len();
        bytes.resize(start + size, 0);
        reader.read_exact(&mut bytes[start..])?;
        reader.read_exact(&mut [0; 2])?;
        if size == 0 {
            return Ok(());
        }
        chunks.push(size);
    }
}
