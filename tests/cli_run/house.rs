//! A workspace with a recorded model, and the binary as people start it.

use duragent_core::event::{Body, Event};
use duragent_core::{json, line};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a workspace, removed at the end.
pub struct House {
    pub folder: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl House {
    /// A workspace with the agent `worker`, which plays `transcript` and may do what `policy` says.
    pub fn new(name: &str, transcript: &str, policy: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("duragent-run-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        let house = Self { folder };
        house.agent("worker", transcript, policy);
        house.write(".duragent/duragent.yaml", &config(&["worker"]));
        house
    }

    /// One more agent. Every agent has a provider of its name.
    pub fn agent(&self, name: &str, transcript: &str, policy: &str) {
        let spec = format!(
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: {name}\n\
             spec:\n  model:\n    provider: {name}\n    name: recorded\n  tools: [bash, read_file, list_dir]\n"
        );
        self.write(&format!(".duragent/agents/{name}/agent.yaml"), &spec);
        self.write(&format!(".duragent/agents/{name}/SYSTEM_PROMPT.md"), "Work.\n");
        self.write(&format!(".duragent/agents/{name}/transcript.jsonl"), transcript);
        let policy = format!("apiVersion: duragent/v1alpha1\nkind: Policy\n{policy}\n");
        self.write(&format!(".duragent/agents/{name}/policy.yaml"), &policy);
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(name)).ok()
    }

    /// The binary in this workspace, in the folder that holds it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.folder);
        command.env_remove("DURAGENT_DIR").env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn start(&self, args: &[&str]) -> Running {
        Self::spawn(&mut self.command(args))
    }

    pub fn spawn(command: &mut Command) -> Running {
        let mut child = command.spawn().expect("the binary starts");
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let stdin = child.stdin.take();
        Running { child, stdin, out: Watched::new(out), err: Watched::of_errors(err) }
    }

    /// Runs a command to its end with `input` piped in.
    pub fn run(&self, args: &[&str], input: &str) -> Ended {
        let mut running = self.start(args);
        running.type_in(input);
        running.end()
    }

    /// Starts a server and waits until it answers.
    pub fn serve(&self) -> Running {
        let mut server = self.start(&["serve", "--listen", "unix:.duragent/other.sock"]);
        server.err.wait_for("ready");
        server
    }

    /// The same of a server that gets an error where a file would grow beyond `RLIMIT_FSIZE`, not the signal.
    pub fn serve_within_limits(&self) -> Running {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ && exec \"$0\" serve --listen unix:.duragent/other.sock"]);
        shell.arg(env!("CARGO_BIN_EXE_duragent")).current_dir(&self.folder).env_remove("DURAGENT_DIR");
        let mut server = Self::spawn(shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        server.err.wait_for("ready");
        server
    }

    /// One request to the server; the whole answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let socket = self.folder.join(".duragent/duragent.sock");
        let mut stream = UnixStream::connect(socket).expect("a server");
        // A server that never answers is a failure, not a test that hangs.
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// The only session there is.
    pub fn session(&self) -> String {
        let mut names = self.sessions();
        assert_eq!(names.len(), 1, "{names:?}");
        names.remove(0)
    }

    pub fn sessions(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.join(".duragent/sessions")) else { return Vec::new() };
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The log of a session as it is on disk.
    pub fn log(&self, session: &str) -> String {
        self.read(&format!(".duragent/sessions/{session}/events.jsonl")).unwrap_or_default()
    }

    pub fn events(&self, session: &str) -> Vec<Event> {
        let log = self.log(session);
        // A line that is being written has no end yet.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(|text| line::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
    }

    pub fn kinds(&self, session: &str) -> Vec<String> {
        self.events(session).iter().map(|e| e.body.kind().to_owned()).collect()
    }

    /// What was said to a session, and by whom.
    pub fn said(&self, session: &str) -> Vec<(String, String)> {
        let message = |event: Event| match event.body {
            Body::MessageReceived { source, content, .. } => Some((source, content)),
            _ => None,
        };
        self.events(session).into_iter().filter_map(message).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// `duragent.yaml` with one recorded model for each agent.
pub fn config(agents: &[&str]) -> String {
    let mut text = String::from("sandbox:\n  mode: trust\nlimits:\n  model_attempts_max: 2\nproviders:\n");
    for name in agents {
        text.push_str(&format!("  {name}:\n    kind: replay\n    file: agents/{name}/transcript.jsonl\n"));
    }
    text
}

/// A command that runs; killed if the test ends before it.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    pub out: Watched,
    pub err: Watched,
}

impl Running {
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("still open");
        // A command that ended early does not read: what it printed says why.
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).ok();
    }

    /// Lets no file of the process grow beyond `bytes`, or as far as it may if `None`.
    pub fn limit_files(&self, bytes: Option<usize>) {
        let limit = bytes.map_or("unlimited".to_owned(), |n| n.to_string());
        let pid = self.child.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")]).status();
        assert!(status.expect("prlimit of util-linux").success());
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh is there");
        assert!(status.success(), "{kill}: {status}");
    }

    /// Closes standard input and waits for the end.
    pub fn end(mut self) -> Ended {
        self.close_input();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            assert!(Instant::now() < deadline, "does not end: {:?} {:?}", self.out.so_far(), self.err.so_far());
            std::thread::sleep(Duration::from_millis(5));
        };
        Ended { code: status.code(), out: self.out.rest(), err: self.err.rest() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Output of a command while it runs.
pub struct Watched {
    chunks: Receiver<Vec<u8>>,
    text: Vec<u8>,
    /// How much of it [`Watched::wait_for`] has passed.
    passed: usize,
}

impl Watched {
    fn new(out: ChildStdout) -> Self {
        Self::of(out)
    }

    fn of_errors(err: ChildStderr) -> Self {
        Self::of(err)
    }

    fn of(from: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            while let Ok(chunk @ [_, ..]) = from.fill_buf() {
                let chunk = chunk.to_vec();
                from.consume(chunk.len());
                if sender.send(chunk).is_err() {
                    return;
                }
            }
        });
        Self { chunks, text: Vec::new(), passed: 0 }
    }

    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Waits until `text` comes, behind what was waited for before.
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = String::from_utf8_lossy(&self.text[self.passed..]).into_owned();
            if let Some(at) = rest.find(text) {
                self.passed += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.text.extend(chunk),
                Err(error) => panic!("{text:?} never came ({error}): {:?}", self.so_far()),
            }
        }
    }

    /// All of it, to the end.
    fn rest(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(chunk) = self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.text.extend(chunk);
        }
        self.so_far()
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

/// A field of a JSON text, strings without quotes.
pub fn field(text: &str, key: &str) -> String {
    let value = json::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    match value.get(key) {
        Some(json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => panic!("no {key:?} in {text}"),
    }
}
