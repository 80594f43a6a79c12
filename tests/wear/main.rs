//! What a turn writes does not grow with its session: flash wears out by what is written, and a file that is rewritten whole each
//! turn costs as the square of the conversation.
//!
//! The kernel counts, through strace: every write to a file below a folder and every sync of one. What the server says in its
//! metrics has to be the same.
#![cfg(target_os = "linux")]

use duragent_testkit::ask;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// The windows that are compared begin after so many turns, and are so many turns long.
const EARLY: u64 = 10;
const LATE: u64 = 950;
const WINDOW: u64 = 50;

/// How much more the late window may cost: numbers have more digits.
const GROWTH_MAX: f64 = 1.10;
/// Syncs that a window may have more than another: a session that rests in the middle of it is opened once more.
const SYNCS_MORE_MAX: u64 = 10;

const CONFIG: &str = "sandbox: {mode: trust}\nlimits: {session_idle_seconds: 1}\nproviders:\n  near: {kind: replay, context_tokens: 4096, file: t.jsonl}\n  edits: {kind: replay, file: e.jsonl}\n";
const AGENT: &str = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: a\nspec:\n  model:\n    provider: near\n    \
                     name: m\n  tools: []\n";
const TRANSCRIPT: &str =
    "{\"repeat\":true}\n{\"deltas\":[\"The pressure fell below two bar before each stop; check the valve.\"]}\n";

/// Each turn edits a file, and what it is about to do is noted first.
const EDITS: &str = "{\"repeat\":true}\n\
    {\"tool_calls\":[{\"name\":\"edit_file\",\"arguments\":{\"path\":\"f\",\"old\":\"a\",\"new\":\"b\"}}]}\n{\"deltas\":[\"Done.\"]}\n\
    {\"tool_calls\":[{\"name\":\"edit_file\",\"arguments\":{\"path\":\"f\",\"old\":\"b\",\"new\":\"a\"}}]}\n{\"deltas\":[\"Done.\"]}\n";

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("duragent-wear-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What was written and synced below a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wear {
    bytes: u64,
    syncs: u64,
}

impl Wear {
    fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, syncs: self.syncs - other.syncs }
    }
}

/// A command under strace that tells of writes and syncs, with the paths of descriptors.
fn traced(trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "--seccomp-bpf", "-qq", "-e", "signal=none"]);
    command.args([
        "-e",
        "trace=write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,fsync,fdatasync,sync_file_range",
    ]);
    command.arg("-o").arg(trace).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Adds up what a trace says of files below `folder`.
fn read(trace: &Path, folder: &Path) -> Wear {
    let text = fs::read_to_string(trace).expect("a trace");
    let below = format!("<{}/", folder.display());
    let mut wear = Wear::default();
    // `PID call(FD</path>, …) = RESULT`; a call that another thread interrupts is told in two lines, with the result in the second.
    let mut begun = std::collections::HashMap::new();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap_or_default();
        let rest = rest.trim_start();
        let is_sync = |call: &str| call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if rest.ends_with("<unfinished ...>") {
            if rest.contains(&below) {
                begun.insert(pid.to_owned(), is_sync(rest));
            }
            continue;
        }
        let of_ours =
            if rest.starts_with("<...") { begun.remove(pid) } else { rest.contains(&below).then(|| is_sync(rest)) };
        let Some(sync) = of_ours else { continue };
        let result = rest.rsplit(" = ").next().and_then(|result| result.split(' ').next()?.parse::<u64>().ok());
        match (sync, result) {
            (true, Some(_)) => wear.syncs += 1,
            (false, Some(bytes)) => wear.bytes += bytes,
            _ => {}
        }
    }
    wear
}

/// A server under strace.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Folder, trace: &Path) -> Self {
        folder.put("ws/.duragent/duragent.yaml", CONFIG);
        folder.put("ws/.duragent/t.jsonl", TRANSCRIPT);
        folder.put("ws/.duragent/agents/a/agent.yaml", AGENT);
        folder.put("ws/.duragent/e.jsonl", EDITS);
        folder.put("ws/.duragent/policy.yaml", "mode: allow\n");
        let editor = AGENT.replace("name: a", "name: e").replace("provider: near", "provider: edits");
        folder.put("ws/.duragent/agents/e/agent.yaml", &editor.replace("tools: []", "tools: [edit_file]"));
        folder.put("ws/f", "a");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port").to_string();
        let mut command = traced(trace);
        command.arg(env!("CARGO_BIN_EXE_duragent")).arg("--dir").arg(folder.0.join("ws/.duragent"));
        command.args(["serve", "--listen", &address, "--log-level", "error"]);
        let child = command.stderr(Stdio::null()).spawn().expect("strace");
        let server = Self { child, url: format!("http://{address}") };
        let start = Instant::now();
        while server.ask("GET", "/readyz", "").is_none_or(|(status, _)| status != 200) {
            assert!(start.elapsed() < PATIENCE, "the server is not ready");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let answered = ask(method, &format!("{}{path}", self.url), "Connection: close\r\n", body).ok()?;
        Some((answered.status, answered.body))
    }

    fn turns(&self, session: &str, count: u64) {
        for _ in 0..count {
            let path = format!("/api/v1/sessions/{session}/messages?wait=60");
            let (status, body) =
                self.ask("POST", &path, "{\"content\":\"why did the pump stop?\"}").expect("an answer");
            assert!(status == 200 && body.contains("\"completed\""), "{status} {body}");
        }
    }

    /// Sums of the families over all that is named in their label.
    fn told(&self) -> Wear {
        let (_, text) = self.ask("GET", "/metrics", "").expect("metrics");
        let sum = |family: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Wear { bytes: sum("duragent_disk_written_bytes_total"), syncs: sum("duragent_fsyncs_total") }
    }

    /// Waits until no session is in memory: then its summary is written as well.
    fn rest(&self) {
        let start = Instant::now();
        while !self.ask("GET", "/metrics", "").is_some_and(|(_, text)| text.contains("\nduragent_sessions_live 0\n")) {
            assert!(start.elapsed() < PATIENCE, "the session does not leave memory");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server ends with TERM, and strace with it.
        let tracee = Command::new("pkill").args(["-TERM", "-P", &self.child.id().to_string()]).status();
        if tracee.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[test]
fn a_turn_writes_as_much_after_a_thousand_as_after_ten_and_the_metrics_say_how_much() {
    let folder = Folder::new("turns");
    let trace = folder.0.join("trace");
    let server = Server::start(&folder, &trace);
    let (status, body) = server.ask("POST", "/api/v1/sessions", "{\"agent\":\"a\",\"id\":\"s\"}").expect("an answer");
    assert_eq!(status, 201, "{body}");
    let mut looks = Vec::new();
    let mut look = |turns: u64| {
        server.turns("s", turns);
        server.rest();
        looks.push((read(&trace, &folder.0.join("ws")), server.told()));
    };
    look(EARLY);
    look(WINDOW);
    look(LATE - EARLY - WINDOW);
    look(WINDOW);
    let windows: Vec<Wear> = looks.windows(2).map(|pair| pair[1].0.minus(pair[0].0)).collect();
    let (early, late) = (windows[0], windows[2]);
    println!("{WINDOW} turns: {early:?} after {EARLY}, {late:?} after {LATE}");
    assert!(is_steady(early, late), "{early:?} {late:?}");
    // Two commits a turn; what else there is, is for opening the session once in a window.
    assert!((2 * WINDOW..2 * WINDOW + 20).contains(&late.syncs), "{late:?}");
    let (first, last) = (looks[0], looks[3]);
    assert_eq!(last.0.minus(first.0), last.1.minus(first.1), "what the kernel saw, and what the metrics tell");
}

fn is_steady(early: Wear, late: Wear) -> bool {
    early.bytes > 0
        && late.bytes as f64 <= early.bytes as f64 * GROWTH_MAX
        && late.syncs <= early.syncs + SYNCS_MORE_MAX
}

#[test]
fn a_turn_that_edits_writes_as_much_after_three_hundred_as_after_ten() {
    // As many as there are between two times that the notes of edits are cut to the last ones.
    const EDITS_WINDOW: u64 = 66;
    let folder = Folder::new("edits");
    let trace = folder.0.join("trace");
    let server = Server::start(&folder, &trace);
    assert_eq!(
        server.ask("POST", "/api/v1/sessions", "{\"agent\":\"e\",\"id\":\"s\"}").map(|(status, _)| status),
        Some(201)
    );
    let mut looks = Vec::new();
    for turns in [EARLY, EDITS_WINDOW, 200, EDITS_WINDOW] {
        server.turns("s", turns);
        server.rest();
        looks.push(read(&trace, &folder.0.join("ws")));
    }
    assert!(fs::read_to_string(folder.0.join("ws/f")).is_ok_and(|text| text.trim() == "a"), "an even number of edits");
    let (early, late) = (looks[1].minus(looks[0]), looks[3].minus(looks[2]));
    println!("{EDITS_WINDOW} turns that edit: {early:?} after {EARLY}, {late:?} after 276");
    assert!(is_steady(early, late), "{early:?} {late:?}");
    assert!(late.bytes < EDITS_WINDOW * 3500, "{late:?}");
}

#[test]
fn a_snapshot_that_is_rewritten_each_turn_would_be_seen() {
    let folder = Folder::new("control");
    let (inside, trace) = (folder.0.join("ws"), folder.0.join("trace"));
    fs::create_dir_all(&inside).expect("a folder");
    let mut looks = Vec::new();
    for (from, to) in [(0, EARLY), (EARLY, EARLY + WINDOW), (EARLY + WINDOW, LATE), (LATE, LATE + WINDOW)] {
        let script = format!(
            "i={from}; while [ $i -lt {to} ]; do echo 'a turn of some length, as they are' >> log; cat log > state; i=$((i+1)); done"
        );
        let status = traced(&trace).args(["sh", "-c", &script]).current_dir(&inside).status().expect("strace");
        assert!(status.success());
        looks.push(read(&trace, &inside));
    }
    assert!(!is_steady(looks[1], looks[3]), "nothing would be seen: {looks:?}");
    let appended = WINDOW * "a turn of some length, as they are\n".len() as u64;
    assert!(looks[3].bytes > 100 * appended, "the trace misses writes: {looks:?}");
}
