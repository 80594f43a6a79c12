//! A workspace with agents that ask fakes, and the binary as people start it.

use duragent_core::event::{Body, Event};
use duragent_core::{json, line};
use duragent_testkit::Fake;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The key of every provider. It must never be seen but by the provider.
pub const KEY: &str = "sk-canary-4711-do-not-tell";

/// A kind of provider and its fake.
#[derive(Clone, Copy)]
pub struct Api {
    pub kind: &'static str,
    pub fake: fn() -> Fake,
}

pub const OPENAI: Api = Api { kind: "openai", fake: Fake::openai };
pub const OPENROUTER: Api = Api { kind: "openrouter", fake: Fake::openrouter };
pub const ANTHROPIC: Api = Api { kind: "anthropic", fake: Fake::anthropic };
pub const OLLAMA: Api = Api { kind: "ollama", fake: Fake::ollama };

/// All of them.
pub const APIS: [Api; 4] = [OPENAI, OPENROUTER, ANTHROPIC, OLLAMA];

/// Does it with every one of them at a time: most of it is waiting.
pub fn everywhere(test: impl Fn(Api) + Sync) {
    each(&APIS, |api| test(*api));
}

/// Does it with every one of `cases` at a time.
pub fn each<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// A folder with a workspace, removed at the end.
pub struct House {
    pub folder: PathBuf,
    providers: String,
    limits: String,
}

impl House {
    /// A workspace without agents, with these keys of `limits`.
    pub fn new(limits: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("duragent-providers-{}-{n}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        let house = Self { folder, providers: String::new(), limits: limits.into() };
        house.write(".duragent/policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n");
        house
    }

    /// A workspace with the agent `bot` that asks `fake`.
    pub fn with(api: Api, fake: &Fake, limits: &str) -> Self {
        let mut house = Self::new(limits);
        house.agent("bot", api, fake, "");
        house
    }

    /// An agent with a provider of its name. `keys` are more keys of the provider, each with a comma before it.
    pub fn agent(&mut self, name: &str, api: Api, fake: &Fake, keys: &str) {
        self.provider(name, api, &fake.url(), keys);
        self.spec(name, &format!("model: {{provider: {name}, name: m, max_output_tokens: 500}}"));
    }

    /// A provider at `url`.
    pub fn provider(&mut self, name: &str, api: Api, url: &str, keys: &str) {
        let kind = api.kind;
        self.providers.push_str(&format!(
            "  {name}: {{kind: {kind}, base_url: '{url}', api_key_env: CANARY_KEY, context_tokens: 16384{keys}}}\n"
        ));
        let (limits, providers) = (&self.limits, &self.providers);
        let text = format!("sandbox: {{mode: trust}}\nlimits: {{{limits}}}\nproviders:\n{providers}");
        self.write(".duragent/duragent.yaml", &text);
    }

    /// An agent with these lines of `spec`.
    pub fn spec(&self, name: &str, lines: &str) {
        let lines = lines.replace('\n', "\n  ");
        let spec = format!(
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\n\
             spec:\n  {lines}\n  tools: [bash, list_dir]\n"
        );
        self.write(&format!(".duragent/agents/{name}/agent.yaml"), &spec);
        self.write(&format!(".duragent/agents/{name}/SYSTEM_PROMPT.md"), "Work.\n");
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// The binary in this workspace; its environment is nothing but what it needs.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.folder).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("CANARY_KEY", KEY).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// A server that is ready.
    pub fn serve(&self) -> Server {
        let args = ["serve", "--listen", "unix:.duragent/other.sock", "--log-level", "debug"];
        let mut child = self.command(&args).stdout(Stdio::null()).spawn().expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut text = String::new();
        while !text.ends_with("ready\n") {
            assert!(stderr.read_line(&mut text).expect("UTF-8") > 0, "the server ended: {text}");
        }
        let log = Arc::new(Mutex::new(text));
        let more = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                more.lock().expect("a log").push_str(&(line + "\n"));
            }
        });
        Server { child, log }
    }

    /// One request to the server; the whole answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.join(".duragent/duragent.sock")).expect("a server");
        // A server that never answers is a failure, not a test that hangs.
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

    /// Makes a session of the agent with its name, and says `content` to it.
    pub fn start(&self, agent: &str, content: &str) {
        let made = self.ask("POST", "/api/v1/sessions", &format!("{{\"agent\":\"{agent}\",\"id\":\"{agent}\"}}"));
        assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
        self.say(agent, content);
    }

    pub fn say(&self, session: &str, content: &str) {
        let path = format!("/api/v1/sessions/{session}/messages");
        let taken = self.ask("POST", &path, &format!("{{\"content\":\"{content}\"}}"));
        assert!(taken.starts_with("HTTP/1.1 202 "), "{taken}");
    }

    /// The only session there is.
    pub fn session(&self) -> String {
        let entries = std::fs::read_dir(self.folder.join(".duragent/sessions")).expect("sessions");
        let names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        names.concat()
    }

    pub fn events(&self, session: &str) -> Vec<Event> {
        let log = self.read(&format!(".duragent/sessions/{session}/events.jsonl"));
        // A line that is being written has no end yet.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(|text| line::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
    }

    /// What happened in a session, in words.
    pub fn story(&self, session: &str) -> String {
        let told: Vec<String> = self.events(session).iter().filter_map(|event| tell(&event.body)).collect();
        told.join("; ")
    }

    /// Waits until the session's story has these words in it.
    pub fn wait(&self, session: &str, words: &str) {
        eventually(&format!("{words:?} in {session}"), || self.story(session).contains(words), || self.story(session));
    }

    /// Waits until the turn is at rest.
    pub fn rest(&self, session: &str) -> String {
        let rested = |event: &Event| matches!(event.body, Body::TurnFinished { .. });
        let there = || self.events(session).last().is_some_and(rested);
        eventually(&format!("the end of {session}"), there, || self.story(session));
        self.story(session)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// An event in a few words; nothing of those that are always there.
fn tell(body: &Body) -> Option<String> {
    Some(match body {
        Body::ModelFailed { kind, retry_at_ms, .. } => {
            let again = if retry_at_ms.is_some() { "" } else { " for good" };
            format!("{}{again}", kind.as_str())
        }
        Body::ModelSwitched { from_provider, provider, .. } => format!("{from_provider} to {provider}"),
        Body::ToolStarted { name, arguments, .. } => {
            let value = json::parse(arguments).expect("JSON");
            let command = value.get("command").and_then(|command| command.as_str());
            format!("{name} {}", command.unwrap_or(arguments))
        }
        Body::ToolInterrupted { .. } => "interrupted".into(),
        Body::SessionPaused { reason, .. } => format!("paused {reason}"),
        Body::SessionResumed { reason } => format!("resumed {reason}"),
        Body::ModelResponded { text, tool_calls, .. } => match tool_calls.len() {
            0 => format!("{text:?}"),
            n => format!("{n} call{}", if n == 1 { "" } else { "s" }),
        },
        Body::TurnFinished { reason, .. } => reason.as_str().into(),
        _ => return None,
    })
}

/// A server that ends with the test.
pub struct Server {
    pub child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// All it has said.
    pub fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until `condition` holds; what it is instead is told if it never does.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool, instead: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}; instead: {}", instead());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The text that a command printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
