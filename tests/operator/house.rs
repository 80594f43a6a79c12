//! A workspace with models that do one thing each, and servers on it.

use crate::page::Page;
use duragent::http::client::{Client, Response};
use duragent_core::json::{self, Value};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for anything: the machine may be very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Agents by name: transcript, and policy.
const AGENTS: [(&str, &str, &str); 9] = [
    ("hello", r#"{"deltas":["Hello"," there."],"usage":{"input_tokens":7,"output_tokens":3}}"#, "allow"),
    (
        "tool",
        r#"{"tool_calls":[{"name":"bash","arguments":{"command":"echo hi"}}],"usage":{"input_tokens":7,"output_tokens":3}}|{"deltas":["Done."],"usage":{"input_tokens":7,"output_tokens":3}}"#,
        "allow",
    ),
    ("nap", r#"{"tool_calls":[{"name":"bash","arguments":{"command":"sleep 0.3"}}]}|{"deltas":["Done."]}"#, "allow"),
    (
        "stuck",
        r#"{"tool_calls":[{"name":"bash","arguments":{"command":"sleep 60"}}],"usage":{"input_tokens":7,"output_tokens":3}}|{"deltas":["Done."],"usage":{"input_tokens":7,"output_tokens":3}}"#,
        "allow",
    ),
    (
        "denied",
        r#"{"tool_calls":[{"name":"bash","arguments":{"command":"echo hi"}}],"usage":{"input_tokens":7,"output_tokens":3}}|{"deltas":["Pity."],"usage":{"input_tokens":7,"output_tokens":3}}"#,
        "deny",
    ),
    ("asks", r#"{"tool_calls":[{"name":"bash","arguments":{"command":"echo hi"}}]}|{"deltas":["Done."]}"#, "ask"),
    (
        "outside",
        r#"{"tool_calls":[{"name":"read_file","arguments":{"path":"/etc/shadow"}}]}|{"deltas":["Pity."]}"#,
        "allow",
    ),
    ("fails", r#"{"fail":{"kind":"refused","detail":"the-detail-of-the-failure"}}"#, "allow"),
    ("slow", r#"{"deltas":["Wait"," for"," it."],"delay_ms":60000}"#, "allow"),
];

/// A workspace, gone at the end.
pub struct House {
    pub root: PathBuf,
}

impl House {
    /// One with all agents, and `config` as what there is in `duragent.yaml` beside providers.
    pub fn new(config: &str) -> Self {
        Self::named("", config)
    }

    /// The same in a folder with `name` in its name.
    pub fn named(name: &str, config: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("duragent-operator-{}-{n}{name}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        let house = Self { root };
        let mut providers = String::from("providers:\n");
        for (agent, transcript, policy) in AGENTS {
            providers.push_str(&format!("  {agent}: {{kind: replay, file: ./agents/{agent}/tape.jsonl}}\n"));
            let tape = format!("{{\"repeat\":true}}\n{}\n", transcript.replace('|', "\n"));
            house.write(&format!("agents/{agent}/tape.jsonl"), &tape);
            let policy = format!("apiVersion: duragent/v1alpha1\nkind: Policy\nmode: {policy}\n");
            house.write(&format!("agents/{agent}/policy.yaml"), &policy);
            let spec = format!(
                "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {{name: {agent}}}\nspec:\n  \
                 model: {{provider: {agent}, name: m}}\n  tools: [bash, read_file]\n"
            );
            house.write(&format!("agents/{agent}/agent.yaml"), &spec);
        }
        house.configure(&format!("{providers}{config}"));
        house
    }

    fn configure(&self, text: &str) {
        let trust = if text.contains("sandbox:") { "" } else { "sandbox: {mode: trust}\n" };
        let server = if text.contains("server:") { "" } else { "server: {address: \"unix:other.sock\"}\n" };
        self.write("duragent.yaml", &format!("{text}\n{trust}{server}"));
    }

    /// Changes a word in `duragent.yaml`.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let path = self.dir().join("duragent.yaml");
        let text = fs::read_to_string(&path).expect("a configuration");
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).expect("it can be written");
    }

    pub fn dir(&self) -> PathBuf {
        self.root.join(".duragent")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("inside the house")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    /// `program ARGS… duragent serve ARGS…`, in an empty environment; `program` may be empty.
    pub fn command(&self, before: &[&str], after: &[&str]) -> Command {
        let mut words = before.to_vec();
        words.extend([env!("CARGO_BIN_EXE_duragent"), "serve"]);
        words.extend(after);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.root).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub fn serve(&self, args: &[&str]) -> Served {
        self.start(&mut self.command(&[], args))
    }

    /// Starts a server whose standard error is a pipe to us.
    pub fn start(&self, command: &mut Command) -> Served {
        let mut child = command.process_group(0).spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
        let log = child.stderr.take().map(Log::of).unwrap_or_default();
        let mut served = Served { child, client: self.client(), log };
        until("the server to be ready", || {
            let ended = served.child.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "the server ended: {}", served.log.text());
            let ready = served.client.request("GET", "/readyz", &[], b"");
            ready.is_ok_and(|r| r.status == 200).then_some(())
        });
        served
    }

    pub fn client(&self) -> Client {
        let path = self.socket();
        Client::new(Box::new(move || {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        }))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("duragent.sock")
    }

    pub fn log_bytes(&self, id: &str) -> u64 {
        fs::metadata(self.dir().join("sessions").join(id).join("events.jsonl")).expect("there is a log").len()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// What a server says on standard error, read as it comes.
#[derive(Default, Clone)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    pub fn of(pipe: ChildStderr) -> Self {
        let log = Self::default();
        let all = Arc::clone(&log.0);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                all.lock().expect("log").push_str(&String::from_utf8(std::mem::take(&mut line)).expect("UTF-8"));
            }
        });
        log
    }

    pub fn text(&self) -> String {
        self.0.lock().expect("log").clone()
    }

    pub fn lines_with(&self, part: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// The first line with `part`, once it is there.
    pub fn wait_for(&self, part: &str) -> String {
        until(&format!("a line with {part:?}"), || self.lines_with(part).into_iter().next())
    }
}

/// A server that ends with the test.
pub struct Served {
    pub child: Child,
    pub client: Client,
    pub log: Log,
}

impl Served {
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        let headers = [("Content-Type", "application/json")];
        self.client.request(method, path, &headers, body.as_bytes()).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    fn good(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.ask(method, path, body);
        let text = String::from_utf8(answer.body).expect("UTF-8");
        assert!((200..300).contains(&answer.status), "{path}: {} {text}", answer.status);
        json::parse(&text).expect("JSON")
    }

    /// A session of `agent` with that name.
    pub fn session(&self, id: &str, agent: &str) {
        self.good("POST", "/api/v1/sessions", &format!(r#"{{"id":"{id}","agent":"{agent}"}}"#));
    }

    pub fn send(&self, id: &str) {
        self.good("POST", &format!("/api/v1/sessions/{id}/messages"), r#"{"content":"the-message"}"#);
    }

    /// Sends a message and waits until its turn has come to rest; how is the value.
    pub fn turn(&self, id: &str) -> String {
        let path = format!("/api/v1/sessions/{id}/messages?wait=60");
        let result = self.good("POST", &path, r#"{"content":"the-message"}"#);
        result.get("reason").and_then(Value::as_str).unwrap_or_else(|| panic!("{result}")).to_owned()
    }

    pub fn status(&self, id: &str) -> String {
        let session = self.good("GET", &format!("/api/v1/sessions/{id}"), "");
        session.get("status").and_then(Value::as_str).expect("a status").to_owned()
    }

    pub fn wait_for_status(&self, id: &str, status: &str) {
        until(status, || (self.status(id) == status).then_some(()));
    }

    /// Decides on the approval that a session waits for.
    pub fn decide(&self, id: &str, decision: &str) {
        let path = format!("/api/v1/sessions/{id}/approvals");
        let open = self.good("GET", &path, "");
        let Some(Value::Array(open)) = open.get("approvals") else { panic!("{open}") };
        let approval = open.first().and_then(|a| a.get("approval_id")).and_then(Value::as_str).expect("an approval");
        self.good("POST", &format!("{path}/{approval}"), &format!(r#"{{"decision":"{decision}"}}"#));
    }

    pub fn metrics(&self) -> Page {
        let answer = self.client.request("GET", "/metrics", &[], b"").expect("the server answers");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Page::read(&String::from_utf8(answer.body).expect("UTF-8")).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill(1) of procps").success());
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it ends");
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(0), "{}", self.log.text());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Its group: strace that is killed leaves what it traced behind.
        let group = format!("-{}", self.child.id());
        Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status().ok();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads everything up to the end.
pub fn drain(mut reader: impl Read) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("UTF-8");
    text
}

/// True if `program` can be found.
pub fn require(program: &str, package: &str) {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|d| Path::new(&d).join(program).exists()));
    assert!(found, "{program}: not found; install the Debian package {package}");
}
