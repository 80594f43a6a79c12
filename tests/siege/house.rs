//! The binary as a server of its own, what the kernel says about it, and the client who must not notice anything.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Within this time every request of somebody else is answered, whatever is going on.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// On a machine that is slow without any attack, so many times what it took before is allowed.
const SLOWER_MAX: u32 = 5;

/// How long the bystander is watched before an attack.
const CALM: Duration = Duration::from_millis(100);

/// Pause between two rounds of requests of the bystander.
const PROBE_PAUSE: Duration = Duration::from_millis(10);

const CONFIG: &str = "sandbox:\n  mode: trust\nserver:\n  connections_max: 256\nlimits:\n  session_idle_seconds: 1\n  message_bytes_max: 1048576\nproviders:\n  \
    worker:\n    kind: replay\n    file: agents/worker/transcript.jsonl\n";
const SPEC: &str = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: worker\nspec:\n  model:\n    \
    provider: worker\n    name: recorded\n  tools: []\n";

/// Only one server is besieged at a time: they would take the processor from each other, and answers are timed.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A workspace with an agent that answers at once; removed at the end.
pub struct Workspace {
    pub folder: PathBuf,
}

impl Workspace {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("duragent-siege-{}-{number}", std::process::id()));
        let worker = folder.join(".duragent/agents/worker");
        fs::create_dir_all(&worker).expect("a temporary folder");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("a file");
        write(worker.join("agent.yaml"), SPEC);
        write(worker.join("SYSTEM_PROMPT.md"), "Answer.\n");
        write(worker.join("transcript.jsonl"), "{\"repeat\":true}\n{\"deltas\":[\"Yes.\"]}\n");
        write(folder.join(".duragent/duragent.yaml"), CONFIG);
        Self { folder }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A server process.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// The server itself, which is not the child if that is a program around it.
    pub pid: u32,
    log: Arc<Mutex<String>>,
    workspace: Workspace,
}

/// What the kernel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// KiB of memory of its own.
    pub resident: u64,
    /// The most that was ever resident, KiB.
    pub peak: u64,
    pub descriptors: usize,
    pub threads: u64,
}

impl Server {
    pub fn start() -> Self {
        Self::start_in(Workspace::new(), &["env"])
    }

    /// Starts the server behind `before`, a program that executes its arguments.
    pub fn start_in(workspace: Workspace, before: &[&str]) -> Self {
        let exe = env!("CARGO_BIN_EXE_duragent");
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).args([exe, "serve", "--listen", "127.0.0.1:0", "--pid-file", "server.pid"]);
        command.current_dir(&workspace.folder).env_remove("DURAGENT_DIR").env_remove("JOURNAL_STREAM");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", before[0]));
        let (lines, log) = follow(child.stderr.take().expect("piped"));
        let mut address = None;
        loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no server: {}", told(&log)));
            if let Some((_, text)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = text.chars().take_while(char::is_ascii_digit).collect();
                address = format!("127.0.0.1:{port}").parse().ok();
            }
            if line.contains("ready") {
                break;
            }
        }
        let pid = fs::read_to_string(workspace.folder.join("server.pid")).expect("a pid file");
        let pid = pid.trim().parse().expect("a number");
        Self { child, address: address.expect("an address"), pid, log, workspace }
    }

    pub fn folder(&self) -> &Path {
        &self.workspace.folder
    }

    /// A number of `/proc/PID/status`.
    fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_else(|e| self.fail(&e));
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key} in {status}"))
    }

    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    pub fn usage(&self) -> Usage {
        // Root's only, since the server keeps others from looking into its memory; it counts them for us as well.
        let listed = fs::read_dir(format!("/proc/{}/fd", self.pid)).map(Iterator::count);
        let told = || usize::try_from(self.metric("process_open_fds")).expect("small");
        let descriptors = listed.unwrap_or_else(|_| told());
        Usage { resident: self.status("RssAnon:"), peak: self.status("VmHWM:"), descriptors, threads: self.threads() }
    }

    /// Makes the kernel forget the peak. Without root it remembers, and what comes after has to exceed it to count.
    pub fn forget_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    fn fail<T>(&self, error: &dyn std::fmt::Display) -> T {
        panic!("the server is gone ({error}): {}", told(&self.log))
    }

    /// Waits until nothing is open that was not before, and as few threads run.
    pub fn settle(&self, before: Usage) -> Usage {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.usage();
            if now.descriptors <= before.descriptors && now.threads <= before.threads {
                return now;
            }
            assert!(Instant::now() < deadline, "not given back: {before:?} before, {now:?} now");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One request on a connection of its own: status and body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        match ask(self.address, method, path, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}: {}", told(&self.log)),
        }
    }

    pub fn session(&self, id: &str) {
        let (status, body) = self.ask("POST", "/api/v1/sessions", &format!("{{\"agent\":\"worker\",\"id\":\"{id}\"}}"));
        assert_eq!(status, 201, "{body}");
    }

    /// A sample of /metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.ask("GET", "/metrics", "");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("duragent_{name} ")));
        line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Asks for health and the session, and sends it a message, over and over for `time`. All of it has to be answered, and
    /// soon. How long the slowest took.
    pub fn bystander(&self, session: &str, time: Duration, answer_max: Duration) -> Duration {
        let path = self.folder().join(format!(".duragent/sessions/{session}/events.jsonl"));
        let taken = || fs::read_to_string(&path).expect("a log").matches("\"type\":\"message_received\"").count();
        let (start, mut worst, mut said) = (Instant::now(), Duration::ZERO, taken());
        let session_path = format!("/api/v1/sessions/{session}");
        let messages = format!("{session_path}/messages");
        while start.elapsed() < time {
            let requests = [
                ("GET", "/livez", "", 200),
                ("GET", &session_path, "", 200),
                ("POST", &messages, "{\"content\":\"hi\"}", 202),
            ];
            for (method, path, body, expected) in requests {
                let asked = Instant::now();
                let (status, text) = self.ask(method, path, body);
                let took = asked.elapsed();
                assert_eq!(status, expected, "{method} {path} after {took:?}: {text}: {}", told(&self.log));
                assert!(took < answer_max, "{method} {path} took {took:?}");
                worst = worst.max(took);
            }
            said += 1;
            std::thread::sleep(PROBE_PAUSE);
        }
        assert_eq!(taken(), said, "each that was taken is on disk, once");
        worst
    }

    /// Makes the session, and says how long answers to the bystander may take under attack, from how long they take just now.
    pub fn calm(&self, session: &str) -> Duration {
        self.session(session);
        let calm = self.bystander(session, CALM, PATIENCE);
        ANSWER_MAX.max(calm * SLOWER_MAX)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let kill = Command::new("kill").args(["-KILL", &self.pid.to_string()]).stderr(Stdio::null()).status();
        drop(kill);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads all that is said on standard error, so that nobody waits for us to.
fn follow(from: impl Read + Send + 'static) -> (Receiver<String>, Arc<Mutex<String>>) {
    let (sender, lines) = channel();
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < 64 * 1024 {
                kept.push_str(&line);
                kept.push('\n');
            }
            // Nobody listens any more once it is up.
            let _ = sender.send(line);
        }
    });
    (lines, log)
}

fn told(log: &Mutex<String>) -> String {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let fields = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    stream
        .write_all(format!("{method} {path} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
