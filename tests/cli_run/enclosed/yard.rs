//! A workspace whose tools are enclosed, with something outside it that is none of their business.

use crate::house::{Ended, House, PATIENCE, Running};
use duragent_core::event::{Body, Denied, SandboxReport, ToolOutcome};
use duragent_core::json::ObjectWriter;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// The backends that enclose. Each has to work on the machine that runs the tests.
pub const ENCLOSING: [&str; 2] = ["bubblewrap", "landlock"];

/// The control.
pub const TRUST: &str = "trust";

/// Ordinary users, one for each yard, so that no processes of others count against its limits: nobody has these numbers.
const ORDINARY_FIRST: u32 = 47_100;
static YARDS: AtomicU32 = AtomicU32::new(0);

/// Where yards stand. Not in /tmp, which a sandbox has one of its own of.
const BASE: &str = "/var/tmp";

/// What a file outside holds.
pub const SECRET: &str = "the-secret-of-the-house";

/// Who runs the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests: root in CI.
    Own,
    /// An ordinary user; the same as `Own` where the tests are not run by root.
    Ordinary,
}

pub const USERS: [User; 2] = [User::Own, User::Ordinary];

/// One folder with a project, which holds the workspace, and `outside`, which no tool is granted.
pub struct Yard {
    pub house: House,
    base: PathBuf,
    user: User,
    /// Of the ordinary user.
    id: u32,
}

/// What the model asks for.
pub struct Call {
    tool: &'static str,
    arguments: String,
    /// What the model's next request has to hold.
    told: Option<String>,
}

/// What is on record about a call.
#[derive(Debug)]
pub struct Seen {
    pub sandbox: SandboxReport,
    pub outcome: ToolOutcome,
}

/// Runs a shell command.
pub fn bash(command: &str) -> Call {
    call("bash", &[("command", command)])
}

/// Any tool with arguments that are texts.
pub fn call(tool: &'static str, arguments: &[(&str, &str)]) -> Call {
    let mut text = String::new();
    let mut object = ObjectWriter::new(&mut text);
    for (key, value) in arguments {
        object.str(key, value);
    }
    object.finish();
    Call { tool, arguments: text, told: None }
}

impl Call {
    /// The model is to be told `text` in its next request.
    pub fn told(mut self, text: &str) -> Self {
        self.told = Some(text.to_owned());
        self
    }
}

impl Seen {
    /// What was refused: its kind, and what it was.
    pub fn denied(&self) -> Option<(&str, &str)> {
        self.outcome.denied.as_ref().map(|Denied { kind, what, .. }| (kind.as_str(), what.as_str()))
    }
}

impl Yard {
    /// A yard in mode `mode`, for `user`. The project's folder has the name `project`.
    pub fn new(name: &str, mode: &str, user: User) -> Self {
        Self::named(name, mode, user, "project")
    }

    pub fn named(name: &str, mode: &str, user: User, project: &str) -> Self {
        let base = Path::new(BASE).join(format!("duragent-enclosed-{name}-{mode}-{user:?}-{}", std::process::id()));
        std::fs::remove_dir_all(&base).ok();
        let yard = Self {
            house: House { folder: base.join(project) },
            base,
            user,
            id: ORDINARY_FIRST + YARDS.fetch_add(1, Ordering::Relaxed),
        };
        yard.write_outside("secret", &format!("{SECRET}\n"));
        yard.write_outside("kept", "as it was\n");
        yard.house.agent("worker", "", "mode: allow");
        yard.agent("");
        yard.configure(&format!("mode: {mode}"));
        yard
    }

    /// Writes `duragent.yaml` with these keys below `sandbox`.
    pub fn configure(&self, sandbox: &str) {
        let text = format!(
            "sandbox: {{{sandbox}}}\nlimits:\n  model_attempts_max: 1\nproviders:\n  worker:\n    kind: replay\n    file: agents/worker/transcript.jsonl\n"
        );
        self.house.write(".duragent/duragent.yaml", &text);
    }

    /// Writes the agent, with all tools and `more` lines of its spec.
    pub fn agent(&self, more: &str) {
        let text = format!(
            "apiVersion: duragent/v1alpha1\nkind: Agent\nmetadata:\n  name: worker\nspec:\n  model:\n    provider: worker\n    name: recorded\n  \
             tools: [bash, read_file, write_file, edit_file, list_dir, search_files]\n{more}"
        );
        self.house.write(".duragent/agents/worker/agent.yaml", &text);
    }

    /// Digits that no other yard has, of this or another run of the tests.
    pub fn mark(&self) -> String {
        format!("{}{}", std::process::id(), self.id)
    }

    /// Gives the agent the working directory `work`, right in which a shell may make files with every backend.
    pub fn work_below(&self) {
        std::fs::create_dir_all(self.project().join("work")).expect("a folder");
        self.agent("  workdir: work\n");
    }

    /// The project: the tools' working directory.
    pub fn project(&self) -> &Path {
        &self.house.folder
    }

    pub fn outside(&self, name: &str) -> String {
        self.base.join("outside").join(name).display().to_string()
    }

    pub fn write_outside(&self, name: &str, text: &str) {
        let path = self.base.join("outside").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    /// The recorded model: one call after the other, and an end.
    pub fn play(&self, calls: &[Call]) {
        let mut transcript = String::new();
        let mut told = None;
        for call in calls {
            let mut line = ObjectWriter::new(&mut transcript);
            expect(&mut line, told);
            line.raw("tool_calls", &format!("[{{\"name\":\"{}\",\"arguments\":{}}}]", call.tool, call.arguments));
            line.finish();
            transcript.push('\n');
            told = call.told.as_deref();
        }
        let mut line = ObjectWriter::new(&mut transcript);
        expect(&mut line, told);
        line.raw("deltas", "[\"Done.\"]");
        line.finish();
        self.house.write(".duragent/agents/worker/transcript.jsonl", &transcript);
    }

    /// One turn in a new session, which has to be completed. What is on record of the calls, in order.
    pub fn turn(&self, calls: &[Call]) -> Vec<Seen> {
        self.turn_with(calls, &[])
    }

    /// The same in a runtime with these variables as well.
    pub fn turn_with(&self, calls: &[Call], environment: &[(&str, &str)]) -> Vec<Seen> {
        self.play(calls);
        let before = self.house.sessions();
        let mut command = self.command(&["run", "worker", "go"]);
        let ended = self.finish(command.envs(environment.iter().copied()));
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Done.\n"), "{ended:?}");
        let session = self.house.sessions().into_iter().find(|id| !before.contains(id)).expect("a new session");
        let seen = self.seen(&session);
        assert_eq!(seen.len(), calls.len(), "{seen:?}");
        seen
    }

    pub fn one(&self, call: Call) -> Seen {
        self.turn(&[call]).remove(0)
    }

    /// What is on record of the calls of `session` that have finished.
    pub fn seen(&self, session: &str) -> Vec<Seen> {
        let mut started = BTreeMap::new();
        let mut seen = Vec::new();
        for event in self.house.events(session) {
            match event.body {
                Body::ToolStarted { call_id, sandbox, .. } => {
                    started.insert(call_id, sandbox);
                }
                Body::ToolFinished { call_id, outcome } => {
                    let sandbox =
                        started.remove(&call_id).unwrap_or_else(|| panic!("{call_id} was refused: {outcome:?}"));
                    seen.push(Seen { sandbox, outcome });
                }
                _ => {}
            }
        }
        seen
    }

    /// What the calls of a session in the workspace `workspace` came back with, and the kind of what was refused.
    pub fn results(&self, workspace: &str, session: &str) -> Vec<(String, Option<String>)> {
        let log = self.house.read(&format!("{workspace}/sessions/{session}/events.jsonl")).expect("a log");
        let finished = |text| match duragent_core::line::parse(text).expect("an event").body {
            Body::ToolFinished { outcome, .. } => Some((outcome.result, outcome.denied.map(|denied| denied.kind))),
            _ => None,
        };
        log.lines().filter_map(finished).collect()
    }

    /// The binary in the project, as the yard's user.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_around(&[], args)
    }

    /// The same, started by the program and arguments `around`.
    pub fn command_around(&self, around: &[&str], args: &[&str]) -> Command {
        let binary = self.binary();
        let (program, before) =
            around.split_first().map_or((binary.as_str(), None), |(first, rest)| (*first, Some(rest)));
        let mut command = Command::new(program);
        if let Some(before) = before {
            command.args(before).arg(&binary);
        }
        command.args(args).current_dir(self.project()).env_remove("DURAGENT_DIR").env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.is_dropped() {
            give(&self.base, self.id);
            command.uid(self.id).gid(self.id);
        }
        command
    }

    pub fn start(&self, args: &[&str]) -> Running {
        House::spawn(&mut self.command(args))
    }

    /// Runs a command to its end with nothing piped in.
    pub fn finish(&self, command: &mut Command) -> Ended {
        House::spawn(command).end()
    }

    /// Root's tests cannot be run from a folder that is root's alone, so the ordinary user has a copy.
    fn binary(&self) -> String {
        let own = env!("CARGO_BIN_EXE_duragent");
        if !self.is_dropped() {
            return own.to_owned();
        }
        let copy = self.base.join("duragent");
        if !copy.exists() {
            // By another process: a program that this one has open for writing, and its children with it, cannot be run.
            let status = Command::new("cp").arg(own).arg(&copy).status().expect("cp is there");
            assert!(status.success(), "cp {own}: {status}");
        }
        copy.display().to_string()
    }

    fn is_dropped(&self) -> bool {
        self.user == User::Ordinary && is_root()
    }

    /// Everything in the yard but what the runtime writes itself: path, mode, contents.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        record(&self.base, &mut found);
        let written = [".duragent/sessions", ".duragent/agents/worker/transcript.jsonl"];
        found.retain(|path, _| written.iter().all(|name| !path.starts_with(self.project().join(name))));
        found.remove(&self.base.join("duragent"));
        found
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.base).ok();
    }
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("proc").uid() == 0
}

fn expect(line: &mut ObjectWriter<'_>, told: Option<&str>) {
    if let Some(text) = told {
        line.object("expect", |o| {
            o.str("last_role", "tool").str("contains", text);
        });
    }
}

/// Makes everything at and below `path` belong to `user`.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            give(&entry.path(), user);
        }
    }
}

fn record(path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let metadata = path.symlink_metadata().expect("it is there");
    let contents = match metadata.is_file() {
        true => String::from_utf8_lossy(&std::fs::read(path).expect("readable")).into_owned(),
        false => format!("{:?}", metadata.file_type()),
    };
    found.insert(path.to_owned(), format!("{:o} {contents}", metadata.permissions().mode()));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            record(&entry.path(), found);
        }
    }
}

/// Processes with `mark` among their arguments.
pub fn alive(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(mark) {
            found.push(pid);
        }
    }
    found
}

/// Waits until no process has `mark` among its arguments; those that have after `patience`.
pub fn left_after(mark: &str, patience: std::time::Duration) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let left = alive(mark);
        if left.is_empty() || start.elapsed() > patience.min(PATIENCE) {
            return left;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
