//! A workspace of its own for every test, and the binary that runs it.

use crate::model::Model;
use duragent_core::json::{self, Value};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for anything: the machine may be very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a workspace in it; gone when dropped.
pub struct House {
    pub root: PathBuf,
    model: String,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl House {
    /// `duragent init`, with `model` in the place of Ollama.
    pub fn init(model: &Model) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("duragent-skills-{}-{n}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        fs::create_dir_all(&root).expect("a temporary folder");
        let root = fs::canonicalize(root).expect("it is there");
        let house = Self { root, model: model.address.clone() };
        let ended = house.run(&["init"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        // A port may be taken.
        house.edit("duragent.yaml", "sandbox:", "server: {address: \"unix:other.sock\"}\nsandbox:");
        house
    }

    /// The same house with another model.
    pub fn with(mut self, model: &Model) -> Self {
        self.model.clone_from(&model.address);
        self
    }

    /// Writes a file in the folder, and the folders above it.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("inside the house")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Rewrites a file of the workspace.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let name = format!(".duragent/{name}");
        let text = self.read(&name);
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(&name, text.replacen(from, to, 1));
    }

    /// Puts a skill with this body into `place` of the workspace.
    pub fn skill(&self, place: &str, name: &str, body: &str) {
        let text = format!("---\nname: {name}\ndescription: Use it for {name}.\n---\n{body}");
        self.write(&format!(".duragent/{place}/{name}/SKILL.md"), text);
    }

    /// The command, in the folder, with nothing of our environment but `PATH`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command.args(args).current_dir(&self.root).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("OLLAMA_HOST", &self.model);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        let Output { status, stdout, stderr } = self.command(args).output().expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Runs what has to succeed, and returns its output.
    pub fn good(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}: {ended:?}");
        ended.out
    }

    /// One turn of the assistant in the session `s`.
    pub fn turn(&self, prompt: &str) -> String {
        self.good(&["run", "assistant", "--session", "s", prompt])
    }

    /// What `check` says, without the verdict, with `DIR` for the folder.
    pub fn check(&self) -> Vec<String> {
        let ended = self.run(&["check"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let text = [ended.out, ended.err].concat().replace(&self.root.display().to_string(), "DIR");
        text.lines().filter(|line| !line.starts_with("configuration ok")).map(str::to_owned).collect()
    }

    /// Events of the session `s` that are of type `kind`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let log = self.read(".duragent/sessions/s/events.jsonl");
        let events = log.lines().map(|line| json::parse(line).expect("a log line is JSON"));
        events.filter(|event| event.get("type").and_then(Value::as_str) == Some(kind)).collect()
    }

    /// Results of all calls in the session `s`.
    pub fn results(&self) -> Vec<String> {
        self.events("tool_finished").iter().map(|event| text(event, "result")).collect()
    }

    /// A server, ready.
    pub fn serve(&self) -> Served {
        let mut child = self.command(&["serve"]).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        // Read to the end, so that it never waits for us.
        std::thread::spawn(move || {
            let mut line = String::new();
            while log.read_line(&mut line).is_ok_and(|count| count > 0) {
                heard.lock().expect("the log").push_str(&line);
                line.clear();
            }
        });
        let served = Served { child, said };
        until("the server", || served.said().contains("ready\n").then_some(()));
        served
    }
}

impl Drop for House {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// A server; killed when dropped.
pub struct Served {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Served {
    /// Its log so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("the log").clone()
    }
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
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn text(object: &Value, name: &str) -> String {
    let field = object.get(name).and_then(Value::as_str);
    field.unwrap_or_else(|| panic!("no text {name:?} in {object}")).to_owned()
}

pub fn items<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    match object.get(name) {
        Some(Value::Array(items)) => items,
        other => panic!("expected a list {name:?}, found {other:?}"),
    }
}

/// The system prompt in the body of a request.
pub fn system(body: &str) -> String {
    let body = json::parse(body).expect("JSON");
    let first = items(&body, "messages").first().expect("a message");
    assert_eq!(text(first, "role"), "system");
    text(first, "content")
}

/// Names of the tools in the body of a request.
pub fn tools(body: &str) -> Vec<String> {
    let body = json::parse(body).expect("JSON");
    items(&body, "tools").iter().map(|tool| text(tool.get("function").expect("a function"), "name")).collect()
}
