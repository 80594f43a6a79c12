//! A server in a control group of the size of a profile's budget, and a storm: everything at its limits, and beyond, at once.

use duragent_testkit::cgroup::MemoryGroup;
use duragent_testkit::weather::Model;
use duragent_testkit::{Json, ask};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Far above anything that works.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a storm lasts at least, once everything has begun.
const STORM: Duration = Duration::from_secs(3);

/// What the storm tries, whatever the server allows: what a server without a profile lets in.
const CONNECTIONS: usize = 256;
const BODY_BYTES: usize = 1 << 20;
const SESSIONS: usize = 80;
const MESSAGES_WAITING: usize = 64;
const MESSAGE_BYTES: usize = 256 * 1024;

const AGENT: &str = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: worker\nspec:\n  model:\n    provider: near\n    \
                     name: m\n  tools: [bash]\n";

/// A workspace with one agent; removed at the end.
pub struct House {
    folder: PathBuf,
    pub model: Model,
}

/// A server in its group.
pub struct Server {
    child: Child,
    pub pid: u32,
    pub address: SocketAddr,
    pub group: MemoryGroup,
}

/// Answers by their status, and what else was seen.
#[derive(Debug, Default)]
pub struct Storm {
    pub created: u64,
    pub no_room: u64,
    pub too_large: u64,
    pub queue_full: u64,
    pub taken: u64,
    pub hung_up: u64,
    /// Answers that should not have been given.
    pub wrong: Vec<String>,
    /// The most anonymous memory of the server alone, and of its group.
    pub own_most: u64,
    pub group_most: u64,
}

/// The limits that a server says it has.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub body_bytes: usize,
    pub message_bytes: usize,
}

impl House {
    pub fn new() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("duragent-profiles-{}-{number}", std::process::id()));
        let house = Self { folder, model: Model::start()? };
        let config = format!(
            "sandbox: {{mode: auto, enforcement: partial}}\nproviders: {{near: {{kind: ollama, base_url: 'http://{}'}}}}\n",
            house.model.address
        );
        house.put(".duragent/duragent.yaml", &config)?;
        house.put(".duragent/policy.yaml", "mode: allow\n")?;
        house.put(".duragent/agents/worker/agent.yaml", AGENT)?;
        Ok(house)
    }

    fn put(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|error| format!("{}: {error}", path.display()))
    }

    fn command(&self, group: Option<&MemoryGroup>, profile: Option<&str>) -> Command {
        let program = env!("CARGO_BIN_EXE_duragent");
        let mut command = group.map_or_else(|| Command::new(program), |group| group.command(program));
        command.arg("--dir").arg(self.folder.join(".duragent")).current_dir(&self.folder);
        command.env_remove("DURAGENT_PROFILE").env_remove("JOURNAL_STREAM");
        if let Some(profile) = profile {
            command.args(["--profile", profile]);
        }
        command
    }

    /// What `check -T` says of the limits.
    pub fn limits(&self, profile: Option<&str>) -> Result<Limits, String> {
        let output = self.command(None, profile).args(["check", "-T"]).output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("  {key}: ")));
            let number = line.and_then(|line| line.split(' ').next()?.parse().ok());
            number.ok_or_else(|| format!("check -T has no {key}: {text}"))
        };
        Ok(Limits { body_bytes: of("body_bytes_max")?, message_bytes: of("message_bytes_max")? })
    }

    /// Starts the server with at most so many bytes.
    pub fn serve(&self, profile: Option<&str>, bytes: u64) -> Result<Server, String> {
        let group = MemoryGroup::new(bytes)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| format!("a free port: {error}"))?;
        let errors = File::create(self.folder.join("stderr")).map_err(|error| format!("stderr: {error}"))?;
        let mut command = self.command(Some(&group), profile);
        command.args(["serve", "--listen", &address.to_string()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let server = Server { pid: child.id(), child, address, group };
        let start = Instant::now();
        while server.get("/readyz").is_none_or(|(status, _)| status != 200) {
            if start.elapsed() > PATIENCE {
                return Err(format!("the server is not ready: {}", self.said()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// What the server said on standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// Every log verifies.
    pub fn verify(&self) -> Result<(), String> {
        let output = self.command(None, None).args(["session", "verify", "--all"]).output();
        let output = output.map_err(|error| format!("session verify: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, Json)> {
        let answered = ask(method, &format!("http://{}{path}", self.address), "Connection: close\r\n", body).ok()?;
        Some((answered.status, answered.json()))
    }

    pub fn get(&self, path: &str) -> Option<(u16, Json)> {
        self.ask("GET", path, "")
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Bytes of anonymous memory of its process.
    fn anonymous(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    pub fn stop(mut self) -> Result<(), String> {
        let _ = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status();
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > PATIENCE {
                return Err("the server does not stop".to_owned());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Everything at once, as much as the server lets in and more, until it has lasted long enough or somebody was killed.
    pub fn storm(&self, limits: Limits) -> Storm {
        let storm = Mutex::new(Storm::default());
        let (ended, [own, group]) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
        let note = |what: fn(&mut Storm)| what(&mut storm.lock().unwrap_or_else(PoisonError::into_inner));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    own.fetch_max(self.anonymous(), Ordering::Relaxed);
                    group.fetch_max(self.group.anonymous(), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                }
            });
            for number in 0..SESSIONS {
                scope.spawn(move || self.talk(number, limits, note));
            }
            // Those that hold their bodies back come while the tools flood.
            thread::sleep(Duration::from_millis(300));
            let start = Instant::now();
            while start.elapsed() < STORM && self.group.oom_kills() == 0 {
                self.crowd(limits, note);
            }
            ended.store(true, Ordering::SeqCst);
        });
        let mut storm = storm.into_inner().unwrap_or_else(PoisonError::into_inner);
        (storm.own_most, storm.group_most) = (own.into_inner(), group.into_inner());
        storm
    }

    /// One session with a tool that floods, as many messages waiting behind it as may be and more, each as large as may be; who
    /// follows it and never reads; and somebody who reads its log.
    fn talk(&self, number: usize, limits: Limits, note: impl Fn(fn(&mut Storm))) {
        let id = format!("s{number}");
        match self.ask("POST", "/api/v1/sessions", &format!("{{\"agent\":\"worker\",\"id\":\"{id}\"}}")) {
            Some((201, _)) => note(|storm| storm.created += 1),
            Some((503, _)) => return note(|storm| storm.no_room += 1),
            Some(_) => return note(|storm| storm.wrong.push("a session was refused otherwise".to_owned())),
            None => return note(|storm| storm.hung_up += 1),
        }
        let path = format!("/api/v1/sessions/{id}/messages");
        let flood = "{\"content\":\"sh: head -c 4000000 /dev/zero | tr '\\\\0' x\\nsh: seq 1 200000\\nsh: sleep 5\"}";
        let follow = format!(
            "GET /api/v1/sessions/{id}/events?after=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        );
        let follower = TcpStream::connect(self.address)
            .and_then(|mut stream| stream.write_all(follow.as_bytes()).map(|()| stream));
        for turn in 0..=MESSAGES_WAITING {
            let bytes = MESSAGE_BYTES.min(limits.message_bytes) - 100;
            let body = if turn == 0 { flood.to_owned() } else { format!("{{\"content\":\"{}\"}}", "w".repeat(bytes)) };
            match self.ask("POST", &path, &body) {
                Some((202, _)) => note(|storm| storm.taken += 1),
                Some((503, _)) => {
                    note(|storm| storm.queue_full += 1);
                    break;
                }
                Some((413, _)) => note(|storm| storm.too_large += 1),
                Some(_) => note(|storm| storm.wrong.push("a message was refused otherwise".to_owned())),
                None => note(|storm| storm.hung_up += 1),
            }
            if self.group.oom_kills() > 0 {
                break;
            }
        }
        for look in ["messages", "events?follow=false", "export"] {
            match self.get(&format!("/api/v1/sessions/{id}/{look}")) {
                Some((200 | 503, _)) => {}
                Some(_) => note(|storm| storm.wrong.push("a log was not shown".to_owned())),
                None => note(|storm| storm.hung_up += 1),
            }
        }
        drop(follower);
    }

    /// As many connections as anybody may think of: each has announced a body, sends all of it but the end, and then hangs up.
    fn crowd(&self, limits: Limits, note: impl Fn(fn(&mut Storm))) {
        let mut open = Vec::new();
        for number in 0..CONNECTIONS {
            // One in four announces more than is allowed.
            let bytes = if number % 4 == 0 { BODY_BYTES + 1 } else { BODY_BYTES.min(limits.body_bytes) };
            let Ok(mut stream) = TcpStream::connect(self.address) else { continue };
            let head = format!(
                "POST /api/v1/sessions/s0/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
            );
            let patience = stream.set_write_timeout(Some(Duration::from_millis(200)));
            let filler = vec![b' '; bytes - 1];
            // What is refused or given up is not read any more: then writing fails, and that is an answer as well.
            let sent =
                patience.and_then(|()| stream.write_all(head.as_bytes())).and_then(|()| stream.write_all(&filler));
            if sent.is_err() {
                note(|storm| storm.hung_up += 1);
            }
            open.push((number % 4 == 0, stream));
            if self.group.oom_kills() > 0 {
                break;
            }
        }
        for (over, mut stream) in open {
            let mut answer = [0; 12];
            let ready = stream.set_read_timeout(Some(Duration::from_millis(10)));
            if over && ready.and_then(|()| stream.read_exact(&mut answer)).is_ok() {
                match &answer[9..12] {
                    b"413" => note(|storm| storm.too_large += 1),
                    b"503" => note(|storm| storm.no_room += 1),
                    _ => note(|storm| storm.wrong.push("a body too large was answered otherwise".to_owned())),
                }
            }
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
