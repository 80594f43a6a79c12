//! A server in this process, and a client that sends exactly the bytes it is told.

use duragent::http::{Access, Limits, Listen, Server, Shared};
use duragent::session::Runtime;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub struct House {
    pub server: Server,
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
}

/// The runtime behind the door. The only place that knows how one is made.
pub fn runtime() -> Runtime {
    Runtime::default()
}

pub fn house() -> House {
    house_with(Limits::default(), Access::default())
}

pub fn house_with(limits: Limits, access: Access) -> House {
    let shared = Shared::new(runtime(), access, limits);
    let listen = Listen::parse("127.0.0.1:0").expect("an address");
    let server = Server::bind(&[listen], Arc::clone(&shared)).expect("loopback can be had");
    let address = match server.addresses() {
        [Listen::Tcp(address)] => *address,
        other => panic!("expected one TCP address, found {other:?}"),
    };
    House { server, shared, address }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The text of a key of the body, which must be a JSON object that has it.
    pub fn field(&self, key: &str) -> String {
        let value = duragent_core::json::parse(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body));
        match value.get(key) {
            Some(duragent_core::json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => panic!("no key {key:?} in {}", self.body),
        }
    }
}

/// One connection.
pub struct Wire {
    pub stream: TcpStream,
    pending: Vec<u8>,
}

impl House {
    pub fn wire(&self) -> Wire {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        Wire { stream, pending: Vec::new() }
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        self.wire().ask(method, path, headers, body)
    }

    /// A session that answers at once.
    pub fn session(&self, id: &str) {
        let reply = self.ask("POST", "/api/v1/sessions", JSON, &format!("{{\"agent\":\"assistant\",\"id\":\"{id}\"}}"));
        assert_eq!(reply.status, 201, "{reply:?}");
    }

    /// Sends a message; `{seq, turn}` of it.
    pub fn say(&self, id: &str, content: &str) -> Reply {
        let path = format!("/api/v1/sessions/{id}/messages");
        let reply = self.ask("POST", &path, JSON, &format!("{{\"content\":\"{content}\"}}"));
        assert_eq!(reply.status, 202, "{reply:?}");
        reply
    }

    /// A sample of /metrics.
    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.ask("GET", "/metrics", "", ""), name)
    }
}

pub const JSON: &str = "Content-Type: application/json\r\n";

pub fn metric(reply: &Reply, name: &str) -> u64 {
    let line = reply.body.lines().find_map(|line| line.strip_prefix(&format!("duragent_{name} ")));
    line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no sample {name} in {}", reply.body))
}

impl Wire {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n{body}").as_bytes());
        self.reply_to(method).expect("an answer")
    }

    /// Bytes up to and with `end`; `None` if the stream ends before.
    fn take_until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|w| w == end) {
                let taken: Vec<u8> = self.pending.drain(..at + end.len()).collect();
                return Some(String::from_utf8(taken).expect("UTF-8"));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn take(&mut self, n: usize) -> Option<String> {
        while self.pending.len() < n {
            if !self.fill() {
                return None;
            }
        }
        Some(String::from_utf8(self.pending.drain(..n).collect()).expect("UTF-8"))
    }

    /// False at the end, which may be a reset.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.pending.extend_from_slice(&buffer[..n]);
                true
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer within {PATIENCE:?}"),
            Err(_) => false,
        }
    }

    pub fn head(&mut self) -> Option<(u16, String)> {
        let head = self.take_until(b"\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{head:?}"));
        Some((status, head))
    }

    /// The next whole response; `None` if the server closed instead.
    pub fn reply_to(&mut self, method: &str) -> Option<Reply> {
        let (status, head) = self.head()?;
        let mut reply = Reply { status, head, body: String::new() };
        if method != "HEAD" && status >= 200 {
            let length = reply.header("content-length").and_then(|n| n.parse().ok());
            reply.body = self.take(length.unwrap_or_else(|| panic!("no length: {reply:?}"))).expect("a whole body");
        }
        Some(reply)
    }

    pub fn reply(&mut self) -> Option<Reply> {
        self.reply_to("GET")
    }

    /// The next server-sent event or comment, as it stands, out of a chunked stream. `None` at its end.
    pub fn event(&mut self) -> Option<String> {
        let size = self.take_until(b"\r\n").expect("a chunk size");
        let size = usize::from_str_radix(size.trim_end(), 16).expect("hex");
        let chunk = self.take(size + 2).expect("a whole chunk");
        let event = chunk.strip_suffix("\r\n").expect("CR LF after a chunk");
        if size == 0 { None } else { Some(event.strip_suffix("\n\n").expect("a whole event in a chunk").into()) }
    }

    /// True once the server has closed, with nothing more to say.
    pub fn is_closed(&mut self) -> bool {
        assert!(self.pending.is_empty(), "unexpected bytes: {:?}", String::from_utf8_lossy(&self.pending));
        !self.fill()
    }

    pub fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
