//! A workspace with one agent on a model of ours, and the binary as people start it.

use crate::model::Model;
use duragent_core::event::{Body, Event, Usage};
use duragent_core::json::{self, Value};
use duragent_core::line;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

const DAY: u64 = 86_400;

/// A folder with a workspace, removed at the end.
pub struct House {
    pub folder: PathBuf,
}

/// What was used up so far, counted by the test itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    pub requests: u64,
    pub tokens: u64,
    pub tool_calls: u64,
    pub micros: u64,
}

impl House {
    /// A workspace whose agent asks `model`, with `more` in `duragent.yaml`.
    pub fn new(model: &Model, more: &str) -> Self {
        away_from_midnight();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("duragent-budgets-{}-{number}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        let house = Self { folder };
        house.configure(model, more);
        let spec = "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: worker}\nspec:\n  model: {provider: fake, \
                    name: m, max_output_tokens: 50, context_tokens: 8192}\n  tools: [bash]\n";
        house.write(".duragent/agents/worker/agent.yaml", spec);
        house.write(".duragent/policy.yaml", "mode: allow\n");
        house
    }

    /// Writes `duragent.yaml` anew.
    pub fn configure(&self, model: &Model, more: &str) {
        let Model { kind, url, .. } = model;
        let provider = format!("providers:\n  fake: {{kind: {kind}, base_url: '{url}'}}\n");
        self.write(".duragent/duragent.yaml", &format!("sandbox: {{mode: trust}}\n{provider}{more}"));
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    /// The binary in this workspace.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.folder).env_remove("DURAGENT_DIR").env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (status.code().expect("an exit code"), text(stdout), text(stderr))
    }

    /// One turn of a session, which is made if it is not there; the exit code.
    pub fn turn(&self, session: &str) -> i32 {
        let (code, out, err) = self.run(&["run", "worker", "-p", "--session", session, "go"]);
        assert!(matches!(code, 0 | 5), "{code}: {out}{err}");
        code
    }

    /// The events of a session.
    pub fn events(&self, session: &str) -> Vec<Event> {
        let log = std::fs::read_to_string(self.log(session)).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(|text| line::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
    }

    fn log(&self, session: &str) -> PathBuf {
        self.folder.join(format!(".duragent/sessions/{session}/events.jsonl"))
    }

    /// Writes a log anew as if all of it had happened so many days before.
    pub fn age(&self, session: &str, days: u64) {
        let (mut text, mut crc) = (String::new(), line::CRC_START);
        for mut event in self.events(session) {
            event.at_ms -= days * DAY * 1000;
            crc = line::encode(&event, crc, &mut text);
        }
        std::fs::write(self.log(session), text).expect("a log");
    }

    /// Why the last turn of a session ended, as its log says: reason and detail.
    pub fn ended(&self, session: &str) -> (String, String) {
        self.try_ended(session).expect("a turn that has ended")
    }

    /// The same; `None` if none has ended yet.
    pub fn try_ended(&self, session: &str) -> Option<(String, String)> {
        self.events(session).into_iter().rev().find_map(|event| match event.body {
            Body::TurnFinished { reason, detail, .. } => Some((reason.as_str().to_owned(), detail.unwrap_or_default())),
            _ => None,
        })
    }

    /// Starts the server and waits until it answers.
    pub fn serve(&self) -> Server {
        let mut child = self.command(&["serve", "--listen", "unix:.duragent/other.sock"]).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("ready") {
            assert!(lines.read_line(&mut said).expect("it says something") > 0, "the server ended: {said}");
        }
        // Read to the end, so that it is never held up by what it says.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()).ok());
        Server(child)
    }

    /// One request to the server: status and body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.exchange(method, path, body);
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{answer}"));
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        (status, json::parse(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }

    /// What the server answers, whole.
    pub fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.join(".duragent/duragent.sock")).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// `duragent usage --json` with these arguments.
    pub fn usage(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.run(&[&["usage", "--json"], args].concat());
        assert_eq!(code, 0, "{err}");
        json::parse(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// What `events` used up, and what each call added: as of the events that say that something is about to be done.
pub fn used(events: &[Event]) -> Vec<Used> {
    let (mut used, mut open, mut all) = (Used::default(), Usage::default(), Vec::new());
    let tokens = |usage: &Usage| usage.input_tokens + usage.output_tokens;
    for event in events {
        match &event.body {
            Body::ModelRequested { reserved, .. } => {
                used.requests += 1;
                used.tokens += tokens(reserved);
                used.micros += reserved.cost_micros;
                open = *reserved;
                all.push(used);
            }
            // What nobody counted stays at the worst case.
            Body::ModelResponded { usage, .. } if !usage.is_unknown() => {
                used.tokens = used.tokens - tokens(&open) + tokens(usage);
                used.micros = used.micros - open.cost_micros + usage.cost_micros;
            }
            Body::ToolStarted { .. } => {
                used.tool_calls += 1;
                all.push(used);
            }
            _ => {}
        }
    }
    all
}

/// Ends with the test.
pub struct Server(Child);

impl Server {
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
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

/// A budget of the day is another one after midnight: what begins shortly before it begins later.
fn away_from_midnight() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let left = DAY - now % DAY;
    if left < 120 {
        std::thread::sleep(Duration::from_secs(left + 1));
    }
}
