//! A folder with a binary, keys, releases and a workspace; and the real programs that make them: openssl, strip.

use duragent::http::client::Client;
use duragent_core::json::{self, Value};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything: the machine may be very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the binary under test is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A transcript with one answer, over and over.
const HELLO: &str = "{\"repeat\":true}\n{\"deltas\":[\"Hello.\"],\"usage\":{\"input_tokens\":7,\"output_tokens\":3}}\n";

/// A later version whose name is as long.
pub fn later() -> String {
    ["9", &VERSION[1..]].concat()
}

/// A program that says that it is `version` and takes every workspace.
pub fn script(version: &str) -> Vec<u8> {
    format!("#!/bin/sh\n[ \"$1\" = version ] && echo duragent {version}\nexit 0\n").into_bytes()
}

/// The binary under test without what is for debuggers, which is more than an upgrade takes.
pub fn stripped() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("duragent-stripped");
        let new = path.with_extension(std::process::id().to_string());
        good(Command::new("strip").arg("-o").arg(&new).arg(env!("CARGO_BIN_EXE_duragent")));
        fs::rename(&new, &path).expect("renamed");
        path
    })
}

/// The same binary, which takes itself for [`later`].
pub fn real_later() -> Vec<u8> {
    let mut bytes = fs::read(stripped()).expect("readable");
    let (from, to) = (VERSION.as_bytes(), later());
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// Runs what has to succeed.
pub fn good(command: &mut Command) -> Output {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}; is it installed?"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub struct House {
    pub root: PathBuf,
}

impl House {
    /// With the binary, a pair of keys, of which the public one is trusted, and a workspace.
    pub fn new() -> Self {
        let house = Self::empty();
        let binary = house.path("bin/duragent");
        fs::create_dir_all(binary.parent().expect("a folder")).expect("made");
        install(stripped(), &binary);
        house.key("key");
        fs::copy(house.path("key.pub"), house.path("bin/duragent.pub")).expect("copied");
        house.workspace(HELLO);
        house
    }

    /// A folder and nothing in it.
    pub fn empty() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("duragent-upgrade-{}-{n}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        fs::create_dir_all(&root).expect("made");
        Self { root: root.canonicalize().expect("it is there") }
    }

    /// A workspace with the agent `bot`, which plays a transcript and may list folders.
    pub fn workspace(&self, transcript: &str) {
        self.write(
            ".duragent/duragent.yaml",
            "sandbox: {mode: trust}\nproviders: {tape: {kind: replay, file: ./tape.jsonl}}\nserver: {address: \"unix:other.sock\"}\n\
             limits: {log_segment_bytes_max: 65536}\n",
        );
        self.write(".duragent/tape.jsonl", transcript);
        self.write(".duragent/policy.yaml", "mode: ask\nallow: [list_dir, \"bash:*\"]\n");
        self.write(
            ".duragent/agents/bot/agent.yaml",
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata: {name: bot}\n\
             spec:\n  model: {provider: tape, name: m}\n  tools: [bash, list_dir]\n",
        );
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// A program of these bytes in the folder of the binary.
    pub fn program(&self, name: &str, bytes: &[u8]) {
        self.write("bytes", bytes);
        install(&self.path("bytes"), &self.path("bin").join(name));
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A pair of keys of openssl's, `NAME.pem` and `NAME.pub`.
    pub fn key(&self, name: &str) {
        let (pem, public) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.pub")));
        good(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&pem));
        good(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&pem).arg("-out").arg(&public));
    }

    /// Signs the text of the release as docs/operations.md says, with the key of this name.
    pub fn sign(&self, key: &str, text: &str) {
        let (key, text) = (self.path(&format!("{key}.pem")), self.path(text));
        let signature = PathBuf::from(format!("{}.sig", text.display()));
        let mut openssl = Command::new("openssl");
        openssl.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(key);
        good(openssl.arg("-in").arg(text).arg("-out").arg(signature));
    }

    /// A release of `binary` for this machine in `rel/`, signed; its text is `rel/release.txt`.
    pub fn release(&self, version: &str, binary: &[u8]) {
        self.write("rel/duragent-new", binary);
        let sum = sha256(&self.path("rel/duragent-new"));
        self.text(&format!("version {version}\nstate 1 1\nfile {TARGET} {} {sum} duragent-new\n", binary.len()));
    }

    /// A text of a release, signed.
    pub fn text(&self, lines: &str) {
        self.write("rel/release.txt", format!("duragent-release 1\n{lines}"));
        self.sign("key", "rel/release.txt");
    }

    /// The installed binary, in the folder that holds the workspace, with an empty environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/duragent"));
        command
            .args(args)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().expect("the binary starts"))
    }

    /// Runs what has to succeed, and returns its output.
    pub fn good(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out
    }

    /// Runs what has to fail with `code`, and returns standard error.
    pub fn bad(&self, code: i32, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{args:?}: {ended:?}");
        assert!(ended.err.contains("error: "), "{args:?}: {ended:?}");
        ended.err
    }

    /// What the installed binary says that it is.
    pub fn version(&self) -> String {
        let output = good(&mut self.command(&["version"]));
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        said.trim().strip_prefix("duragent ").expect("its name").to_owned()
    }

    /// Names in the folder of the binary.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("bin")).expect("a folder").flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    pub fn serve(&self) -> Served {
        self.serve_with(&[])
    }

    /// A server that is ready.
    pub fn serve_with(&self, args: &[&str]) -> Served {
        let mut command = self.command(&[&["serve"], args].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        while !said.contains("ready\n") {
            assert!(log.read_line(&mut said).expect("it can be read") > 0, "the server ended: {said}");
        }
        // Read to the end, so that the server never waits for us.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Served { child, client: self.client() }
    }

    /// A client of the workspace's server, whether there is one or not.
    pub fn client(&self) -> Client {
        let path = self.path(".duragent/duragent.sock");
        Client::new(Box::new(move || UnixStream::connect(&path)))
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.path(".duragent/sessions").join(id).join("events.jsonl")
    }
}

/// What the binary under test is built for.
pub const TARGET: &str = env!("DURAGENT_TARGET");

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// What sha256sum says of a file.
pub fn sha256(path: &Path) -> String {
    let output = good(Command::new("sha256sum").arg(path));
    String::from_utf8(output.stdout).expect("UTF-8").split(' ').next().expect("a sum").to_owned()
}

/// Puts a program into its place, whole. Copied by a process of its own: what this one has open for writing, a child of another
/// test may have open too, and then it cannot be run (ETXTBSY).
pub fn install(from: &Path, to: &Path) {
    let new = to.with_extension("installing");
    good(Command::new("cp").arg(from).arg(&new));
    executable(&new);
    fs::rename(&new, to).expect("renamed");
}

pub fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

pub fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A server that ends with the test.
pub struct Served {
    pub child: Child,
    pub client: Client,
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
        get(&self.client, path).expect("the server answers")
    }

    /// Makes a session.
    pub fn begin(&self, id: &str) {
        self.post("/api/v1/sessions", &format!(r#"{{"agent":"bot","id":"{id}"}}"#));
    }

    /// Sends a message, waits for the end of its turn, and returns the last seq that is acknowledged for sure.
    pub fn say(&self, id: &str, message: &str) -> u64 {
        let path = format!("/api/v1/sessions/{id}/messages?wait=60");
        let answer = self.post(&path, &format!(r#"{{"content":"{message}"}}"#));
        assert_eq!(answer.get("reason").and_then(Value::as_str), Some("completed"), "{answer}");
        answer.get("seq").and_then(Value::as_u64).expect("a seq")
    }
}

/// A document of the server, if it answers.
pub fn get(client: &Client, path: &str) -> Option<Value> {
    let answer = client.request("GET", path, &[], b"").ok()?;
    json::parse(std::str::from_utf8(&answer.body).ok()?).ok()
}

impl Drop for Served {
    fn drop(&mut self) {
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

/// Everything below `dir`: what it is, its mode and size, when it was changed, and a hash of what is in it.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let (path, meta) = (entry.path(), entry.path().symlink_metadata().expect("it is there"));
        if meta.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, "folder".to_owned());
        } else {
            let mut hash = DefaultHasher::new();
            if meta.is_file() {
                fs::read(&path).expect("readable").hash(&mut hash);
            }
            let times = format!("{}.{}", meta.mtime(), meta.mtime_nsec());
            found.insert(path, format!("{:o} {} {times} {:x}", meta.mode(), meta.size(), hash.finish()));
        }
    }
    found
}
