//! Workspaces on disk and servers in them, gone when the run is.

use crate::client::Client;
use crate::failure::{Result, at, doing, fail};
use duragent_platform::signal::{Signal, Signals};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a server may take to be ready. It takes milliseconds; a busy machine has its moments.
const READY_TIME_MAX: Duration = Duration::from_secs(20);
/// How often the signals of this process are looked at.
const SIGNALS_EVERY: Duration = Duration::from_millis(200);

/// How long an interrupted measurement may go on: longer only those that sleep, and they make no files.
const RESTING_TIME_MAX: Duration = Duration::from_secs(5);

/// What somebody says: two sentences of ordinary length, 200 bytes.
pub const MESSAGE: &str = "The pump in the north shed stopped twice this morning and nobody knows why it did. Please look \
                           through the readings since midnight, tell me what changed before each stop, and what to try.";

const CONFIG: &str = "\
sandbox:
  mode: trust
server:
  connections_max: 4096
limits:
  session_idle_seconds: IDLE
  sessions_live_max: LIVE
providers:
  instant:
    kind: replay
    context_tokens: 8192
    file: instant.jsonl
  one_tool:
    kind: replay
    context_tokens: 8192
    file: one_tool.jsonl
  flood:
    kind: replay
    context_tokens: 8192
    file: flood.jsonl
  remote:
    kind: ollama
    base_url: http://MODEL
";

/// Agents, each on the provider of its name, and their tools. An answer has about 100 bytes in eight pieces, and comes at
/// once.
const AGENTS: [(&str, &str); 4] = [("instant", ""), ("one_tool", "read_file"), ("flood", "bash"), ("remote", "")];

/// The pieces of every answer.
pub const PIECES: [&str; 8] = [
    "The pressure ",
    "fell below ",
    "two bar before ",
    "each stop; ",
    "check the ",
    "intake filter ",
    "first, then ",
    "the valve behind it.",
];

const READ_TOOL: &str = r#"{"tool_calls":[{"name":"read_file","arguments":{"path":"notes.txt"}}]}"#;
const SMALL_TOOL: &str =
    r#"{"tool_calls":[{"name":"bash","arguments":{"command":"head -c 400 /dev/zero | tr '\\0' x"}}]}"#;
const LARGE_TOOL: &str =
    r#"{"tool_calls":[{"name":"bash","arguments":{"command":"head -c 400000000 /dev/zero | tr '\\0' x"}}]}"#;

/// Sessions in memory at a time, where nothing else is said: what the configuration has as its default.
const SESSIONS_LIVE_MAX: usize = 64;

/// The folder of this run, and the binaries.
pub struct Place {
    /// Everything temporary is in here.
    pub root: PathBuf,
    /// What is measured.
    pub binary: PathBuf,
    /// The axum server that it is measured beside; only whoever starts it minds if it is not there.
    pub peer: PathBuf,
    next: AtomicU64,
}

impl Place {
    /// Makes the folder below `dir`.
    pub fn new(binary: &Path, peer: &Path, dir: &Path) -> Result<Self> {
        let root = dir.join(format!("figures-{}", std::process::id()));
        fs::create_dir_all(&root).map_err(at(&root))?;
        let root = root.canonicalize().map_err(at(&root))?;
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(root.clone());
        let binary = binary.canonicalize().map_err(at(binary))?;
        Ok(Self { root, binary, peer: peer.to_owned(), next: AtomicU64::new(1) })
    }

    /// A new folder in it.
    pub fn folder(&self) -> Result<PathBuf> {
        let path = self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(path)
    }

    /// True unless the binary stands where cargo puts debug builds.
    pub fn is_release(&self) -> bool {
        !self.binary.parent().is_some_and(|folder| folder.ends_with("debug"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.root);
    }
}

/// A workspace.
pub struct Scene {
    /// Holds `.duragent`, and is where tools work.
    pub folder: PathBuf,
    binary: PathBuf,
}

impl Scene {
    /// A workspace with its agents; idle sessions leave memory after `idle` seconds, and `remote` asks the model at `model`.
    pub fn new(place: &Place, idle: u64, model: Option<SocketAddr>) -> Result<Self> {
        let scene = Self { folder: place.folder()?, binary: place.binary.clone() };
        let model = model.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 1).into());
        scene.configure(idle, model, SESSIONS_LIVE_MAX)?;
        scene.put(".duragent/policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n")?;
        for (name, tools) in AGENTS {
            scene.agent(name, name, tools)?;
        }
        let answer = format!("{{\"deltas\":{PIECES:?},\"usage\":{{\"input_tokens\":40,\"output_tokens\":25}}}}");
        let repeat = "{\"repeat\":true}";
        scene.put(".duragent/instant.jsonl", &[repeat, &answer].join("\n"))?;
        scene.put(".duragent/one_tool.jsonl", &[repeat, READ_TOOL, &answer].join("\n"))?;
        scene.put(".duragent/flood.jsonl", &[SMALL_TOOL, &answer, LARGE_TOOL, &answer].join("\n"))?;
        scene.put("notes.txt", "midnight 3.1 bar, one 3.0 bar, two 1.9 bar, stopped, three 3.1 bar\n")?;
        Ok(scene)
    }

    /// A workspace for `sessions` sessions in memory at a time, with one agent more: `asking` waits in its first turn for an
    /// approval that nobody gives, so that what is said to it from then on is written down and no more.
    pub fn asking(place: &Place, sessions: usize) -> Result<Self> {
        let scene = Self::new(place, 600, None)?;
        scene.configure(600, (Ipv4Addr::LOCALHOST, 1).into(), sessions)?;
        scene.agent("asking", "one_tool", "read_file")?;
        scene.put(".duragent/agents/asking/policy.yaml", "ask: [read_file]\n")?;
        Ok(scene)
    }

    fn configure(&self, idle: u64, model: SocketAddr, live: usize) -> Result<()> {
        let config = CONFIG.replace("IDLE", &idle.to_string()).replace("MODEL", &model.to_string());
        self.put(".duragent/duragent.yaml", &config.replace("LIVE", &live.to_string()))
    }

    fn agent(&self, name: &str, provider: &str, tools: &str) -> Result<()> {
        let text = format!(
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: {name}\nspec:\n  model:\n    provider: {provider}\n    \
             name: m\n  tools: [{tools}]\n"
        );
        self.put(&format!(".duragent/agents/{name}/agent.yaml"), &text)
    }

    /// The folder that holds the sessions.
    pub fn sessions(&self) -> PathBuf {
        self.folder.join(".duragent/sessions")
    }

    /// Starts a server and waits until it is ready.
    pub fn serve(&self) -> Result<Server> {
        let server = self.spawn()?;
        server.until("/readyz")?;
        Ok(server)
    }

    /// Starts a server, no more.
    pub fn spawn(&self) -> Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(&self.binary);
        command.arg("--dir").arg(self.folder.join(".duragent")).args(["serve", "--listen", &address.to_string()]);
        Server::spawn(&mut command, address, &self.folder.join("server.log"))
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        fs::write(&path, text).map_err(at(&path))
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Arc<Mutex<Child>>,
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// When its process was asked for.
    started: Instant,
    log: PathBuf,
}

/// A loopback address that nobody listens on.
pub fn free_address() -> Result<SocketAddr> {
    // Asked for and given back: nobody connected, so the port is free at once.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    free.map_err(doing("looking for a free port"))
}

impl Server {
    /// Starts any program that will listen on `address`; what it has to say goes to `log`.
    pub fn spawn(command: &mut Command, address: SocketAddr, log: &Path) -> Result<Self> {
        let errors = File::create(log).map_err(at(log))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        // Held over the start, so that no server escapes whoever ends them all.
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        go_on()?;
        let started = Instant::now();
        let child = command.spawn().map_err(at(Path::new(command.get_program())))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        servers.push(Arc::downgrade(&child));
        Ok(Self { child, pid, address, started, log: log.to_owned() })
    }

    /// Polls `path` until it answers 200; returns how long that took since the process was asked for.
    pub fn until(&self, path: &str) -> Result<Duration> {
        // Connecting costs some 30 µs when nobody listens: the pause keeps this loop from taking a core from the server.
        const PAUSE: Duration = Duration::from_micros(50);
        let mut client = None;
        loop {
            if client.is_none() {
                client = Client::open(self.address).ok();
            }
            if let Some(open) = &mut client {
                match open.ask("GET", path, "") {
                    Ok((200, _)) => return Ok(self.started.elapsed()),
                    Ok(_) => {}
                    Err(_) => client = None,
                }
            }
            if self.started.elapsed() > READY_TIME_MAX || self.has_ended() {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return fail(format!("the server does not answer {path}: {}", said.trim_end()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A connection to it.
    pub fn client(&self) -> Result<Client> {
        Client::open(self.address)
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&self.child);
    }
}

/// Waits until `is_so` or a deadline far beyond what it takes.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        if start.elapsed() > READY_TIME_MAX {
            return fail(format!("waited {} s until {what}", READY_TIME_MAX.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

static SERVERS: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RESTING: AtomicBool = AtomicBool::new(false);

/// Exit code of a run that was told to end.
const INTERRUPTED_CODE: i32 = 130;

/// Fails if this process was told to end: for measurements that have no server to fail with.
pub fn go_on() -> Result<()> {
    if INTERRUPTED.load(Ordering::Acquire) { fail("interrupted") } else { Ok(()) }
}

/// If this process was told to end, waits until it does: whoever was told also cleans up.
pub fn rest_if_interrupted() {
    while INTERRUPTED.load(Ordering::Acquire) {
        RESTING.store(true, Ordering::Release);
        std::thread::park();
    }
}

/// Kills what runs and removes what was made when this process is told to end.
pub fn clean_up_on_signals() -> Result<()> {
    let signals = Signals::new().map_err(doing("catching signals"))?;
    let watch = move || {
        loop {
            std::thread::sleep(SIGNALS_EVERY);
            if matches!(signals.read(), Some(Signal::Interrupt | Signal::Terminate | Signal::Hangup)) {
                // Before the servers go: whoever measures them fails, and must not decide how this process ends.
                INTERRUPTED.store(true, Ordering::Release);
                for child in std::mem::take(&mut *SERVERS.lock().unwrap_or_else(PoisonError::into_inner)) {
                    child.upgrade().iter().for_each(|child| end(child));
                }
                // A measurement without its server fails; until then it may still make files.
                let start = Instant::now();
                while !RESTING.load(Ordering::Acquire) && start.elapsed() < RESTING_TIME_MAX {
                    std::thread::sleep(SIGNALS_EVERY / 10);
                }
                for folder in FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    remove(folder);
                }
                std::process::exit(INTERRUPTED_CODE);
            }
        }
    };
    std::thread::Builder::new().spawn(watch).map(drop).map_err(doing("starting a thread"))
}

fn end(child: &Mutex<Child>) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    // It may have ended by itself.
    child.kill().ok();
    child.wait().ok();
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        eprintln!("warning: {}: {error}", folder.display());
    }
}

/// The JSON body that says [`MESSAGE`].
pub fn message_body() -> String {
    format!("{{\"content\":\"{MESSAGE}\"}}")
}

/// Length of a file.
pub fn length(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|m| m.len()).map_err(at(path))
}
