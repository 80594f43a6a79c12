//! A client for the server's unix socket, or its TCP port: plain HTTP/1.1, one connection a request.

use super::json::{self, Json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest silence of the server before it counts as hanging.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Longest wait for a connection by TCP: whoever forwards ports for a machine takes them before the machine does.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Where the server is.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    silence_max: Duration,
}

#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    /// With headers that go with every request.
    Tcp(SocketAddr, String),
}

/// A connection of either kind.
trait Stream: Read + Write {}

impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    #[must_use]
    pub fn json(&self) -> Json {
        json::parse(&self.body).unwrap_or_else(|_| Json::Plain("null".to_owned()))
    }
}

impl Client {
    /// A client of the server on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { place: Place::Unix(socket.to_path_buf()), silence_max: SILENCE_MAX }
    }

    /// A client of the server at `address` that shows `token` if there is one, and waits so long for a silent server.
    #[must_use]
    pub fn tcp(address: SocketAddr, token: Option<&str>, silence_max: Duration) -> Self {
        let headers = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        Self { place: Place::Tcp(address, headers), silence_max }
    }

    /// Sends a request and reads the answer. `None` if there is nobody, or it went away in the middle.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let mut reader = self.send(method, path, headers, body)?;
        let (status, length, chunked) = read_head(&mut reader)?;
        let mut bytes = Vec::new();
        if chunked {
            while let Some(chunk) = read_chunk(&mut reader)? {
                bytes.extend(chunk);
            }
        } else if let Some(length) = length {
            bytes.resize(length, 0);
            reader.read_exact(&mut bytes).ok()?;
        } else {
            reader.read_to_end(&mut bytes).ok()?;
        }
        Some(Answer { status, body: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Reads a stream of events until it ends, and hands each `data:` line of an event with an id to `each`.
    pub fn follow(&self, path: &str, after: u64, each: &mut dyn FnMut(&str)) {
        let last = after.to_string();
        let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", last.as_str())];
        let Some(mut reader) = self.send("GET", path, &headers, "") else { return };
        let Some((200, _, chunked)) = read_head(&mut reader) else { return };
        let mut text = String::new();
        loop {
            if chunked {
                let Some(Some(chunk)) = read_chunk(&mut reader) else { return };
                text.push_str(&String::from_utf8_lossy(&chunk));
            } else {
                match reader.read_line(&mut text) {
                    Ok(1..) => {}
                    _ => return,
                }
            }
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let has_id = event.lines().any(|line| line.starts_with("id:"));
                for line in event.lines().filter(|_| has_id) {
                    if let Some(data) = line.strip_prefix("data:") {
                        each(data.trim_start());
                    }
                }
            }
        }
    }

    fn connect(&self) -> Option<Box<dyn Stream>> {
        match &self.place {
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).ok()?;
                stream.set_read_timeout(Some(self.silence_max)).ok()?;
                Some(Box::new(stream))
            }
            Place::Tcp(address, _) => {
                let stream = TcpStream::connect_timeout(address, CONNECT_MAX).ok()?;
                stream.set_read_timeout(Some(self.silence_max)).ok()?;
                stream.set_nodelay(true).ok()?;
                Some(Box::new(stream))
            }
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<BufReader<Box<dyn Stream>>> {
        let mut stream = self.connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if let Place::Tcp(_, more) = &self.place {
            head.push_str(more);
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
        Some(BufReader::new(stream))
    }
}

/// Status, length if it is told, and whether the body is chunked.
fn read_head(reader: &mut impl BufRead) -> Option<(u16, Option<usize>, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some((status, length, chunked));
        }
        let (name, value) = line.trim_end().split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok(),
            "transfer-encoding" => chunked = value.trim() == "chunked",
            _ => {}
        }
    }
}

/// The next chunk; the inner `None` is the end of the body, the outer one the end of the connection.
fn read_chunk(reader: &mut impl BufRead) -> Option<Option<Vec<u8>>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    Some((size > 0).then_some(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers one connection with `answer`, whatever it asks.
    fn serve(name: &str, answer: &'static str) -> (Client, std::thread::JoinHandle<String>) {
        let path = std::env::temp_dir().join(format!("duragent-client-{}-{name}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("the socket is ours");
        let thread = std::thread::spawn({
            let path = path.clone();
            move || {
                let (mut stream, _) = listener.accept().expect("somebody connects");
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).expect("it says something");
                stream.write_all(answer.as_bytes()).expect("it listens");
                std::fs::remove_file(path).expect("it is there");
                String::from_utf8_lossy(&request[..count]).into_owned()
            }
        });
        (Client::new(&path), thread)
    }

    #[test]
    fn answers_are_read_by_length_and_in_chunks() {
        for (name, answer) in [
            ("length", "HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n{\"seq\":7}more"),
            (
                "chunks",
                "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"se\r\n5\r\nq\":7}\r\n0\r\n\r\n",
            ),
        ] {
            let (client, thread) = serve(name, answer);
            let answer = client.ask("POST", "/x", &[("Idempotency-Key", "k")], "{}").expect("it answers");
            assert_eq!((answer.status, answer.json().number("seq")), (202, Some(7)));
            let request = thread.join().expect("no panic");
            assert!(request.starts_with("POST /x HTTP/1.1\r\n") && request.ends_with("\r\n\r\n{}"), "{request}");
        }
    }

    #[test]
    fn a_connection_that_breaks_off_is_no_answer() {
        for (name, answer) in [
            ("short", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"seq\""),
            ("head", "HTTP/1.1 200 OK\r\nContent-"),
            ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"se\r\n"),
            ("nothing", ""),
        ] {
            let (client, thread) = serve(name, answer);
            assert!(client.ask("GET", "/", &[], "").is_none(), "{name}");
            thread.join().expect("no panic");
        }
        assert!(Client::new(Path::new("/nowhere")).ask("GET", "/", &[], "").is_none());
    }

    #[test]
    fn events_with_an_id_are_handed_on_and_tokens_are_not() {
        let (client, thread) = serve(
            "events",
            "HTTP/1.1 200 OK\r\n\r\nid: 1\nevent: x\ndata: {\"seq\":1}\n\n: ping\n\nevent: token\ndata: t\n\nid: 2\ndata: {\"seq\":2}\n\nid: 3\n",
        );
        let mut lines = Vec::new();
        client.follow("/events", 0, &mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["{\"seq\":1}", "{\"seq\":2}"]);
        assert!(thread.join().expect("no panic").contains("Last-Event-ID: 0\r\n"));
    }
}
