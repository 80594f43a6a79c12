//! A server in this process, and a client that sends exactly the bytes it is told.

use crate::model::{Model, NoSandbox};
use duragent::http::{Access, Limits, Listen, Server, Shared};
use duragent::session::{About, Agent, Agents, DeviceLimits, Endpoint, Runtime, Setup, Workdir};
use duragent::tool::Registry;
use duragent_core::event::SandboxReport;
use duragent_core::policy::{Policy, Verdict};
use duragent_core::session::{Limits as TurnLimits, Rules};
use duragent_core::tool::{EffectClass, PolicyArgument, ToolDecl};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime on a folder of its own, which goes when this is dropped.
pub struct Cellar {
    pub runtime: Runtime,
    folder: PathBuf,
}

/// The runtime behind the door, with one agent whose model is [`Model`].
pub fn cellar() -> Cellar {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("duragent-http-{}-{number}", std::process::id()));
    std::fs::create_dir_all(folder.join("sessions")).expect("a temporary folder");
    let agents = Agents { good: vec![Arc::new(assistant(&folder))], ..Agents::default() };
    let reload = Box::new(|| Err("duragent.yaml:1:1: no".to_owned()));
    let setup = Setup { sessions: folder.join("sessions"), agents, reload, limits: device() };
    let runtime = Runtime::new(setup);
    smol::block_on(runtime.recover());
    Cellar { runtime, folder }
}

fn device() -> DeviceLimits {
    DeviceLimits { message_bytes_max: 2 << 20, ..DeviceLimits::default() }
}

fn assistant(folder: &std::path::Path) -> Agent {
    let tool = ToolDecl {
        name: "bash".to_owned(),
        description: "x".to_owned(),
        parameters: "{}".to_owned(),
        effect: EffectClass::Once,
        policy: PolicyArgument::Command("command"),
        tags: duragent_core::tool::Tags::default(),
    };
    let rules = Rules {
        model: duragent_core::session::Model {
            provider: "test".to_owned(),
            name: "test".to_owned(),
            context_tokens: 4 << 20,
            ..Default::default()
        },
        tools: vec![tool],
        policies: vec![Policy { mode: Some(Verdict::Ask), ..Policy::default() }],
        workdir: folder.display().to_string(),
        sandbox: SandboxReport { backend: "trust".to_owned(), enforcement: "none".to_owned(), landlock_abi: None },
        limits: TurnLimits {
            steps_max: 10,
            turn_ms_max: 0,
            attempts_max: 1,
            approval_ms_max: 600_000,
            queue_max: 64,
            ..TurnLimits::default()
        },
        ..Rules::default()
    };
    Agent {
        name: "assistant".to_owned(),
        description: "Answers at once".to_owned(),
        about: About::default(),
        rules,
        system: String::new(),
        endpoint: Endpoint {
            provider: Arc::new(Model),
            temperature: None,
            max_output_tokens: None,
            circuit: Arc::default(),
        },
        fallbacks: Vec::new(),
        tools: Registry::default(),
        sandbox: Arc::new(NoSandbox),
        tool_time_max: None,
        output_bytes_max: None,
        workdir: Workdir::Shared(folder.to_owned()),
        pause_on_disconnect: false,
        allow_always: Box::new(|_| Ok(())),
    }
}

impl Cellar {
    pub fn shared(&self, access: Access, limits: Limits) -> Arc<Shared> {
        Shared::new(self.runtime.clone(), access, limits)
    }
}

impl Drop for Cellar {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A running server.
pub struct House {
    pub server: Server,
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
    _cellar: Cellar,
}

pub fn house() -> House {
    house_with(Access::default(), Limits::default())
}

pub fn house_with(access: Access, limits: Limits) -> House {
    let cellar = cellar();
    let shared = cellar.shared(access, limits);
    let listen = Listen::parse("127.0.0.1:0").expect("an address");
    let server = Server::bind(&[listen], Arc::clone(&shared)).expect("loopback can be had");
    let address = match server.addresses() {
        [Listen::Tcp(address)] => *address,
        other => panic!("expected one TCP address, found {other:?}"),
    };
    House { server, shared, address, _cellar: cellar }
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
    /// Events of a chunk that were not asked for yet.
    events: VecDeque<String>,
}

impl House {
    pub fn wire(&self) -> Wire {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        Wire { stream, pending: Vec::new(), events: VecDeque::new() }
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

    /// Sends a message and waits until its turn has come to rest.
    pub fn say_and_wait(&self, id: &str, content: &str) {
        let path = format!("/api/v1/sessions/{id}/messages?wait=600");
        let reply = self.ask("POST", &path, JSON, &format!("{{\"content\":\"{content}\"}}"));
        assert_eq!((reply.status, reply.field("reason").as_str()), (200, "completed"), "{reply:?}");
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
        if self.events.is_empty() {
            let size = self.take_until(b"\r\n").expect("a chunk size");
            let size = usize::from_str_radix(size.trim_end(), 16).expect("hex");
            let chunk = self.take(size + 2).expect("a whole chunk");
            let events = chunk.strip_suffix("\r\n").expect("CR LF after a chunk");
            let whole = events.is_empty() || events.ends_with("\n\n");
            assert!(whole, "whole events in a chunk: {events:?}");
            self.events.extend(events.split_terminator("\n\n").map(String::from));
        }
        self.events.pop_front()
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
