//! A workspace made by `duragent init`, with one of the example agents in it, and the binary that runs it.

use duragent_core::json::{self, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder with a workspace; gone when dropped.
pub struct Stage {
    pub folder: PathBuf,
    agent: &'static str,
    /// Environment of the binary, beside `PATH` and `HOME`.
    environment: Vec<(&'static str, String)>,
}

/// The example agents of this repository.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("agents")
}

/// What a command ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code and the whole of standard output; a failure shows all there is.
    pub fn check(&self, code: i32, stdout: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), stdout), "standard error: {}", self.stderr);
    }
}

impl Stage {
    /// `duragent init`, then the folder of `agent` as its README says.
    pub fn new(agent: &'static str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("duragent-agents-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let stage = Self { folder, agent, environment: Vec::new() };
        assert_eq!(stage.duragent(&["init"]).code, Some(0));
        let target = stage.workspace().join("agents").join(agent);
        fs::create_dir_all(&target).expect("the agent's folder");
        for entry in fs::read_dir(examples().join(agent)).expect("an example agent") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), target.join(entry.file_name())).expect("a copy");
        }
        stage
    }

    /// The provider that the agent names plays the transcript beside it. No file of the agent is changed.
    pub fn with_transcript(self) -> Self {
        let file = format!("agents/{}/transcript.jsonl", self.agent);
        let providers = format!("providers:\n  ollama:\n    kind: replay\n    file: {file}\n");
        self.edit("duragent.yaml", |text| text + &providers);
        self
    }

    /// Sets a variable for the binary.
    pub fn with_variable(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    pub fn workspace(&self) -> PathBuf {
        self.folder.join(".duragent")
    }

    /// Rewrites a file of the workspace.
    pub fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.workspace().join(file);
        let text = fs::read_to_string(&path).expect("a file of the workspace");
        fs::write(&path, change(text)).expect("a file that can be written");
    }

    /// The binary, in the folder, without a terminal and with nothing of our environment but `PATH`.
    pub fn duragent(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duragent"));
        command
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .env("HOME", self.folder.join("home"))
            .stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").expect("PATH leads to the tools that agents run"));
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let Output { status, stdout, stderr } = command.output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// One turn of the agent in the session `s`.
    pub fn run(&self, prompt: &str) -> Ended {
        self.duragent(&["run", self.agent, "--session", "s", prompt])
    }

    /// The events of the session `s` that are of type `kind`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.workspace().join("sessions/s/events.jsonl")).expect("a log");
        let events = log.lines().map(|line| json::parse(line).expect("a log line is JSON"));
        events.filter(|event| event.get("type").and_then(Value::as_str) == Some(kind)).collect()
    }

    /// What the tools that ran were asked for: name, effect and arguments.
    pub fn started(&self) -> Vec<(String, String, String)> {
        let events = self.events("tool_started");
        events.iter().map(|e| (text(e, "name"), text(e, "effect"), field(e, "arguments").to_string())).collect()
    }

    /// What all calls came to: the result, and the kind of refusal if there was one.
    pub fn results(&self) -> Vec<(String, Option<String>)> {
        let events = self.events("tool_finished");
        events.iter().map(|e| (text(e, "result"), e.get("denied").map(|denied| text(denied, "kind")))).collect()
    }

    /// Contents of a file in the folder; `None` if it is not there.
    pub fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left behind is in the folder for temporary files.
        fs::remove_dir_all(&self.folder).ok();
    }
}

pub fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or_else(|| panic!("no field {name:?} in {object}"))
}

pub fn text(object: &Value, name: &str) -> String {
    field(object, name).as_str().unwrap_or_else(|| panic!("field {name:?} is no text in {object}")).to_owned()
}
