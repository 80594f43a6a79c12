//! A workspace with the binary as a server in it, a client that writes its requests itself, and a model that does what the
//! test says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far above anything that works; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a workspace, removed at the end.
pub struct House {
    pub root: PathBuf,
}

impl House {
    /// A workspace with the agent `bot`, which may run `bash` and asks `model`, and this section `server`.
    pub fn new(server: &str, model: &Model) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        // Not in /tmp, which a sandbox has one of its own of.
        let root = PathBuf::from(format!("/var/tmp/duragent-door-{}-{n}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        let house = Self { root };
        house.configure(server, &model.provider());
        house.write(".duragent/policy.yaml", "apiVersion: duragent/v1alpha1\nkind: Policy\nmode: allow\n");
        house.write(
            ".duragent/agents/bot/agent.yaml",
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: bot}\n\
             spec:\n  model: {provider: fake, name: m}\n  tools: [bash]\n",
        );
        house
    }

    /// Writes `duragent.yaml`.
    pub fn configure(&self, server: &str, provider: &str) {
        let text = format!(
            "sandbox: {{mode: auto, enforcement: partial}}\nlimits: {{model_attempts_max: 1, offline_seconds_max: 0}}\n\
             server: {{{server}}}\nproviders: {{fake: {{{provider}}}}}\n"
        );
        self.write(".duragent/duragent.yaml", &text);
    }

    /// Writes a file that nobody else reads.
    pub fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("inside the house")).expect("a folder can be made");
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    /// The binary with an empty environment but for these variables.
    pub fn command(&self, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.root).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.envs(variables.iter().copied()).stdin(Stdio::null());
        command
    }

    /// A server that is ready.
    pub fn serve(&self) -> Served {
        Served::start(&mut self.command(&["serve"], &[]))
    }

    /// The workspace's own socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join(".duragent/duragent.sock")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// A server that ends with the test.
pub struct Served {
    pub child: Child,
    /// Of its first TCP listener.
    pub address: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
}

impl Served {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let log = Arc::new(Mutex::new(String::new()));
        let (mut ready, mut address) = (false, None);
        while !ready {
            let mut line = String::new();
            assert!(
                stderr.read_line(&mut line).expect("UTF-8") > 0,
                "the server ended: {}",
                log.lock().expect("a log")
            );
            let listening = line.split_once("listening on ").and_then(|(_, text)| text.trim().parse().ok());
            address = address.or(listening);
            ready = line.ends_with("ready\n");
            log.lock().expect("a log").push_str(&line);
        }
        let more = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                more.lock().expect("a log").push_str(&(line + "\n"));
            }
        });
        Self { child, address, log }
    }

    /// All it has said.
    pub fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
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

/// A request of the agent, as it came over the wire.
pub struct Asked {
    pub head: String,
    pub body: String,
}

/// A server that speaks as much of OpenAI's chat completions as one turn needs.
pub struct Model {
    address: SocketAddr,
}

impl Model {
    /// Every request is handed to `answer`, with the connection; it is closed after that.
    pub fn start(answer: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(answer);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Some(asked) = Asked::read(&mut stream) {
                        answer(&asked, &mut stream);
                    }
                });
            }
        });
        Self { address }
    }

    /// Keys of a provider that leads here.
    pub fn provider(&self) -> String {
        format!("kind: openai, base_url: 'http://{}/v1'", self.address)
    }
}

impl Asked {
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).ok().filter(|n| *n > 0)?;
        }
        let length = head.to_ascii_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        Some(Self { head, body: String::from_utf8(body).ok()? })
    }
}

/// Begins an answer in pieces.
pub fn begin(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the agent reads");
}

/// One piece of text.
pub fn piece(stream: &mut TcpStream, text: &str) {
    let frame = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    stream.write_all(frame.as_bytes()).expect("the agent reads");
}

/// The end of an answer.
pub fn finish(stream: &mut TcpStream, reason: &str) {
    let frame = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\ndata: [DONE]\n\n"
    );
    stream.write_all(frame.as_bytes()).expect("the agent reads");
}

/// A model that says hello.
pub fn polite() -> Model {
    Model::start(|_, stream| {
        begin(stream);
        piece(stream, "hello");
        finish(stream, "stop");
    })
}
