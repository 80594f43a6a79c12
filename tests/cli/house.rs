//! A workspace of its own for every test, the binary in it, and a server if the test wants one.

use duragent::http::client::Client;
use duragent_core::json::{self, Value};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything: the machine may be very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A transcript with one answer, over and over.
pub const HELLO: &str =
    "{\"repeat\":true}\n{\"deltas\":[\"Hello\",\" there.\"],\"usage\":{\"input_tokens\":7,\"output_tokens\":3}}\n";

/// A workspace with the agent `bot`, which plays a transcript and has the tool `bash`.
pub struct House {
    root: PathBuf,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl House {
    pub fn new(transcript: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("duragent-cli-{}-{n}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        let house = Self { root };
        house.write(
            ".duragent/duragent.yaml",
            "sandbox: {mode: trust}\nproviders: {tape: {kind: replay, file: ./tape.jsonl}}\nserver: {address: \"unix:other.sock\"}\n",
        );
        house.write(".duragent/tape.jsonl", transcript);
        house.write(".duragent/policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: ask\n");
        house.write(".duragent/agents/bot/agent.yaml", &agent("bot", "tape"));
        house
    }

    pub fn dir(&self) -> PathBuf {
        self.root.join(".duragent")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("inside the house")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    /// The command, in the folder that holds the workspace, with an empty environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.root).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().expect("the binary starts"))
    }

    /// Runs what has to succeed without a word on standard error, and returns its output.
    pub fn good(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}: {ended:?}");
        ended.out
    }

    /// Runs what has to fail with `code`, and returns standard error.
    pub fn bad(&self, code: i32, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{args:?}: {ended:?}");
        assert!(ended.err.starts_with("error: "), "{args:?}: {ended:?}");
        for line in ended.err.lines() {
            assert!(line.starts_with("error: ") || line.starts_with("hint: "), "{args:?}: {ended:?}");
        }
        ended.err
    }

    /// A session named `id` in which each of `messages` was answered, or waits for somebody.
    pub fn session(&self, id: &str, messages: &[&str]) {
        let server = self.serve();
        server.post("/api/v1/sessions", &format!(r#"{{"agent":"bot","id":"{id}","title":"about {id}"}}"#));
        for message in messages {
            server.say(id, message);
        }
        // A server gives turns that wait half a minute to be decided on.
        if server.status(id) == "waiting" { server.kill() } else { server.stop() }
    }

    pub fn serve(&self) -> Served {
        let mut child = self.command(&["serve"]).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        while !said.contains("ready\n") {
            assert!(log.read_line(&mut said).expect("it can be read") > 0, "the server ended: {said}");
        }
        // Read to the end, so that the server never waits for us.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let path = self.dir().join("duragent.sock");
        Served { child, client: Client::new(Box::new(move || UnixStream::connect(&path))) }
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.dir().join("sessions").join(id).join("events.jsonl")
    }

    pub fn log(&self, id: &str) -> String {
        fs::read_to_string(self.log_path(id)).expect("there is a log")
    }

    /// Changes one letter in line `line` of a log.
    pub fn damage(&self, id: &str, line: usize) {
        let log = self.log(id);
        let lines: Vec<String> = log
            .lines()
            .enumerate()
            .map(|(i, text)| if i + 1 == line { text.replacen("\"at\"", "\"At\"", 1) } else { text.to_owned() })
            .collect();
        let damaged = lines.join("\n") + "\n";
        assert_ne!(damaged, log, "line {line} is there");
        fs::write(self.log_path(id), damaged).expect("it can be written");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// The spec of an agent on `provider` that may ask for `bash`.
pub fn agent(name: &str, provider: &str) -> String {
    format!(
        "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {{name: {name}, description: Says what it is told}}\n\
         spec:\n  model: {{provider: {provider}, name: m}}\n  tools: [bash]\n"
    )
}

pub fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A server that ends with the test.
pub struct Served {
    child: Child,
    client: Client,
}

impl Served {
    pub fn post(&self, path: &str, body: &str) -> Value {
        let headers = [("Content-Type", "application/json")];
        let answer = self.client.request("POST", path, &headers, body.as_bytes()).expect("the server answers");
        let text = String::from_utf8(answer.body).expect("UTF-8");
        assert!((200..300).contains(&answer.status), "{path}: {} {text}", answer.status);
        json::parse(&text).expect("JSON")
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.client.request("GET", path, &[], b"").expect("the server answers");
        json::parse(std::str::from_utf8(&answer.body).expect("UTF-8")).expect("JSON")
    }

    /// Sends a message and waits until its turn has come to rest or waits for somebody.
    pub fn say(&self, id: &str, message: &str) {
        self.post(&format!("/api/v1/sessions/{id}/messages"), &format!(r#"{{"content":"{message}"}}"#));
        until("the turn to rest", || (self.status(id) != "running").then_some(()));
    }

    pub fn status(&self, id: &str) -> String {
        let session = self.get(&format!("/api/v1/sessions/{id}"));
        session.get("status").and_then(Value::as_str).expect("a status").to_owned()
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it ends");
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        signal("TERM", &self.child);
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a signal with kill(1).
pub fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().expect("kill(1) is there");
    assert!(sent.success());
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

/// The files below `dir` with what is in them.
pub fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push((path.clone(), fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}
