//! A workspace with the binary as a server in it, and subscribers that read raw bytes off its unix socket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a workspace, removed at the end.
pub struct House {
    root: PathBuf,
}

impl House {
    /// A workspace with the agent `bot`, which has no tools and says what is in `transcript`, and these keys of `server`.
    pub fn new(transcript: &str, server: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("duragent-streams-{}-{n}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        let house = Self { root };
        // Sessions stay in memory, so that what is measured is the subscribers.
        let config = format!(
            "sandbox: {{mode: auto}}\nlimits: {{message_bytes_max: 1048576, session_idle_seconds: 3600}}\n\
             server: {{{server}}}\nproviders: {{tape: {{kind: replay, file: tape.jsonl}}}}\n"
        );
        house.write("duragent.yaml", &config);
        house.write("tape.jsonl", transcript);
        house.write(
            "agents/bot/agent.yaml",
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: bot}\nspec: {model: {provider: tape, name: m}}\n",
        );
        // Clients and their server are more than the usual thousand.
        duragent_platform::process::allow_descriptors(4096);
        house
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.join(".duragent").join(name);
        fs::create_dir_all(path.parent().expect("inside the house")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    /// Where the server listens.
    pub fn socket(&self) -> PathBuf {
        self.root.join(".duragent/duragent.sock")
    }

    /// A server that is ready.
    pub fn serve(&self) -> Served {
        let mut child = Command::new(env!("CARGO_BIN_EXE_duragent"))
            .args(["serve", "--listen", &format!("unix:{}", self.root.join("s").display())])
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (mut line, mut said) = (String::new(), String::new());
        while !line.ends_with("ready\n") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("UTF-8") > 0, "the server ended: {said}");
            said.push_str(&line);
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Served { child, socket: self.socket() }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// A server that ends with the test.
pub struct Served {
    child: Child,
    socket: PathBuf,
}

impl Served {
    /// Kills it as a power cut would end it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ran");
    }

    /// A whole answer: status and body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.socket).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).expect("the server reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an answer in UTF-8");
        let status = reply.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        (status, reply.split_once("\r\n\r\n").expect("a whole head").1.to_owned())
    }

    /// A session of the agent.
    pub fn session(&self, id: &str) {
        let (status, body) =
            self.ask("POST", "/api/v1/sessions", "", &format!("{{\"agent\":\"bot\",\"id\":\"{id}\"}}"));
        assert_eq!(status, 201, "{body}");
    }

    /// A message that is durable when this returns.
    pub fn say(&self, session: &str, content: &str) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.say_once(session, content, &format!("said-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    }

    /// The same under a key. A queue that is full is waited for.
    pub fn say_once(&self, session: &str, content: &str, key: &str) {
        let (path, key) = (format!("/api/v1/sessions/{session}/messages"), format!("Idempotency-Key: {key}\r\n"));
        let body = format!("{{\"content\":\"{content}\"}}");
        eventually("a message is taken", || match self.ask("POST", &path, &key, &body) {
            (202, _) => true,
            (503, _) => false,
            (status, body) => panic!("{status}: {body}"),
        });
    }

    /// All durable events there are, a page at a time.
    pub fn all(&self, session: &str) -> Vec<Event> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/sessions/{session}/events?follow=false&limit=10&after={after}");
            let (status, body) = self.ask("GET", &path, "", "");
            assert_eq!(status, 200, "{body}");
            let list =
                body.strip_prefix("{\"events\":[").and_then(|rest| rest.rsplit_once("],\"next\":")).expect(&body);
            // A log line ends in its checksum, and nothing else in it looks like that.
            for line in list.0.split_inclusive("\"},{\"seq\":") {
                let line = line.strip_suffix(",{\"seq\":").unwrap_or(line);
                let line = if line.starts_with('{') { line.to_owned() } else { format!("{{\"seq\":{line}") };
                if line != "{\"seq\":" {
                    events.push(Event::of_line(&line));
                }
            }
            match list.1.trim_end_matches('}').parse() {
                Ok(next) => after = next,
                Err(_) => return events,
            }
        }
    }

    /// A subscriber to everything after seq `after`.
    pub fn listen(&self, session: &str, after: u64) -> Listener {
        Listener::open(&self.socket, session, after).expect("the server streams")
    }

    /// A sample of /metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.ask("GET", "/metrics", "", "");
        let sum = |line: &str| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (family, _) = sample.split_once('{').unwrap_or((sample, ""));
            if family == format!("duragent_{name}") { value.parse::<u64>().ok() } else { None }
        };
        let samples: Vec<u64> = text.lines().filter_map(sum).collect();
        assert!(!samples.is_empty(), "no sample {name} in {text}");
        samples.iter().sum()
    }

    fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("/proc");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line of /proc/PID/status");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Resident bytes that are its own: what is read from the binary's file is there with and without subscribers.
    pub fn resident(&self) -> u64 {
        self.status("RssAnon:") * 1024
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An event as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub id: Option<u64>,
    pub kind: String,
    pub data: String,
}

impl Event {
    /// What the stream has to say about a line of the log.
    fn of_line(line: &str) -> Self {
        let after = |key: &str| line.split_once(key).map(|(_, rest)| rest).expect(line);
        let id = after("{\"seq\":").split(',').next().and_then(|n| n.parse().ok());
        let kind = after("\"type\":\"").split('"').next().expect("text").to_owned();
        Self { id, kind, data: line.to_owned() }
    }
}

/// A stream of events, in HTTP/1.0: no chunks, and the end is the end of the connection.
pub struct Listener {
    reader: std::io::Take<BufReader<UnixStream>>,
}

impl Listener {
    /// `None` if nobody answers, or not with a stream.
    pub fn open(socket: &Path, session: &str, after: u64) -> Option<Self> {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let path = format!("/api/v1/sessions/{session}/events");
        stream.write_all(format!("GET {path} HTTP/1.0\r\nLast-Event-ID: {after}\r\n\r\n").as_bytes()).ok()?;
        // Small, so that what is read ahead is not what a subscriber costs.
        let mut reader = BufReader::with_capacity(512, stream).take(u64::MAX);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.starts_with("HTTP/1.0 200 ").then_some(())?;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        }
        Some(Self { reader })
    }

    /// Events up to and with the first of this type.
    pub fn until(&mut self, kind: &str) {
        while self.next().unwrap_or_else(|| panic!("the stream ended before {kind}")).kind != kind {}
    }

    /// Whole events within the next so many bytes; then hangs up.
    pub fn cut_after(mut self, bytes: u64) -> impl Iterator<Item = Event> {
        self.reader.set_limit(bytes);
        self
    }
}

impl Iterator for Listener {
    type Item = Event;

    /// The next event that came whole. `None` at the end, however it came.
    fn next(&mut self) -> Option<Event> {
        let (mut id, mut kind, mut data) = (None, String::new(), String::new());
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            if let Err(error) = &read {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing came within {PATIENCE:?}");
            }
            let line = line.strip_suffix('\n').filter(|_| read.is_ok())?;
            match line.split_once(": ") {
                Some(("id", text)) => id = Some(text.parse().expect("a seq")),
                Some(("event", text)) => text.clone_into(&mut kind),
                Some(("data", text)) => text.clone_into(&mut data),
                _ if line.is_empty() && !kind.is_empty() => return Some(Event { id, kind, data }),
                _ => {}
            }
        }
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
