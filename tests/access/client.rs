//! Requests, written byte by byte.

use crate::house::{House, PATIENCE, Served};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A whole response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A connection of either kind.
pub trait Wire: Read + Write {}
impl Wire for TcpStream {}
impl Wire for UnixStream {}

pub fn tcp(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(served.address.expect("a TCP listener")).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

pub fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends one request, and reads to the end: the request says `Connection: close`. `headers` has whole lines.
pub fn ask(wire: &mut dyn Wire, line: &str, headers: &str, body: &str) -> Reply {
    let host = if headers.to_ascii_lowercase().contains("\nhost:") || headers.starts_with("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    send(wire, &format!("{line} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}"));
    read(wire)
}

/// The server may refuse before it has read everything.
pub fn send(wire: &mut dyn Wire, text: &str) {
    match wire.write_all(text.as_bytes()) {
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => panic!("{error}"),
        _ => {}
    }
}

pub fn read(wire: &mut dyn Wire) -> Reply {
    let mut bytes = Vec::new();
    wire.read_to_end(&mut bytes).expect("the server answers and closes");
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"));
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

pub const JSON: &str = "Content-Type: application/json\r\n";

impl House {
    /// The status of a request at the workspace's own socket.
    pub fn near(&self, line: &str, headers: &str) -> u16 {
        ask(&mut unix(&self.socket()), line, headers, "").status
    }
}

impl Served {
    /// The status of a request by TCP.
    pub fn status(&self, line: &str, headers: &str) -> u16 {
        self.reply(line, headers, "").status
    }

    pub fn reply(&self, line: &str, headers: &str, body: &str) -> Reply {
        ask(&mut tcp(self), line, headers, body)
    }
}
