//! `duragent demo [--dir FOLDER]`: the whole story without a model.
//!
//! A session is created, a recorded model calls a tool, the server is killed with -9 while the tool runs, the log is shown as
//! it is on disk, the server starts again, and the turn finishes without the tool having run a second time.
//!
//! Everything is the real code: a workspace as `init` writes it, this very binary as server, its HTTP interface, its log.
//! Only the model is a recording.
//!
//! Invariants: anything that does not go as told ends the demonstration with an error. Nothing is left running. The folder is
//! kept, so that people can look.
//!
//! Absent: TCP, so that no port is in the way.

use super::connect::{self, Connection};
use super::live::{self, Heard, Live, Message};
use super::{Common, Failure, pick, print, render, setup, text};
use crate::config::{env, init};
use crate::store::file::{FileStore, Tail};
use duragent_core::event::{Body, Event, TurnReason};
use duragent_core::line;
use duragent_platform::{file, process, sandbox, terminal};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for anything. On an idle machine the whole takes some seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at a file or process.
const LOOK: Duration = Duration::from_millis(20);
/// Pause before each step where people watch: time to read.
const PACE: Duration = Duration::from_millis(800);
/// Columns before the second one.
const INDENT: usize = 25;
/// Widest line where the terminal's width is not known, in characters.
const COLUMNS: usize = 100;
/// Lines of the log that are shown.
const LOG_LINES: usize = 3;
/// Size of a log segment, for reading.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

const AGENT: &str = "gardener";
const MESSAGE: &str = "Please switch the pump on.";
const CONFIG: &str = concat!(include_str!("../config/templates/duragent.yaml"), include_str!("demo/duragent.yaml"));
const AGENT_FILES: [(&str, &str); 4] = [
    ("agent.yaml", include_str!("demo/agent.yaml")),
    ("SYSTEM_PROMPT.md", "Look after the pump.\n"),
    ("policy.yaml", include_str!("demo/policy.yaml")),
    ("transcript.jsonl", include_str!("demo/transcript.jsonl")),
];
const TOOL: &str = include_str!("demo/pump.sh");

/// The command.
pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut folder = None;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("dir") => folder = Some(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    if common.dir.is_some() {
        return Err(Failure::usage(
            "the demonstration makes a workspace of its own",
            "say where: duragent demo --dir FOLDER",
        ));
    }
    let live = Live::new()?;
    let mut demo = Demo::prepare(folder, &live)?;
    // A server that is still there when this ends, however it ends, is ended with it.
    demo.tell()?;
    Ok(0)
}

struct Demo<'a> {
    live: &'a Live,
    /// Where the tool works.
    folder: PathBuf,
    /// `.duragent` in it.
    workspace: PathBuf,
    connection: Arc<Connection>,
    server: Option<Server>,
    /// Standard output is a terminal.
    watched: bool,
    /// Headings stand out.
    bold: bool,
    step: u32,
    events: Vec<Event>,
    /// What was heard while something else was waited for.
    held: VecDeque<Heard>,
}

/// A server in a process of its own, killed when dropped.
struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl<'a> Demo<'a> {
    /// Writes the workspace.
    fn prepare(folder: Option<PathBuf>, live: &'a Live) -> Result<Self, Failure> {
        let name = format!("duragent-demo-{:08x}", process::random_u64() & 0xffff_ffff);
        let folder = folder.unwrap_or_else(|| std::env::temp_dir().join(name));
        let folder = std::path::absolute(&folder).map_err(cannot("find", &folder))?;
        let workspace = folder.join(".duragent");
        if workspace.exists() {
            let error = format!("there is a workspace in {} already", folder.display());
            return Err(Failure::new(error).hint("choose another folder; the demonstration changes none that exists"));
        }
        let agent = workspace.join("agents").join(AGENT);
        file::create_dir(&agent).map_err(cannot("make", &agent))?;
        let mut files = vec![(workspace.join("duragent.yaml"), CONFIG), (folder.join("pump.sh"), TOOL)];
        // There already: under Landlock a shell makes no new files right beside a workspace.
        files.push((folder.join("pump.log"), ""));
        files.extend(AGENT_FILES.iter().map(|(name, text)| (agent.join(name), *text)));
        for (path, text) in files {
            fs::write(&path, text).map_err(cannot("write", &path))?;
        }
        init::init(&workspace).map_err(|error| Failure::new(error.to_string()))?;
        // What the server would refuse to start without is better told here: a sandbox that works on this machine.
        setup::setup(&workspace)?;
        let connection = Arc::new(Connection::at(connect::socket(&workspace)));
        let plain = env::process("NO_COLOR").is_some_and(|v| !v.is_empty());
        let watched = terminal::is_terminal(std::io::stdout());
        let bold = watched && !plain;
        let (events, held) = (Vec::new(), VecDeque::new());
        Ok(Self { live, folder, workspace, connection, server: None, watched, bold, step: 0, events, held })
    }

    /// The story.
    fn tell(&mut self) -> Result<(), Failure> {
        self.say("A turn that survives kill -9. Only the model is a recording; all else is real.")?;
        self.head("A workspace, and a server")?;
        self.row("folder", &self.folder.display().to_string())?;
        self.start()?;

        self.head("A session, and a message")?;
        let session = pick::Which::New.pick(&self.connection, Some(AGENT))?.id;
        self.row("session", &session)?;
        self.row("message", MESSAGE)?;
        Message::new(MESSAGE, None).deliver(&self.connection, &session, PATIENCE)?;
        self.live.follow(&self.connection, &session, 0, PATIENCE);
        self.follow(|event| matches!(event.body, Body::ToolStarted { .. }))?;

        self.head("The tool is at work: kill -9")?;
        let tool = self.tool_processes()?;
        self.kill()?;
        self.ended(&tool)?;

        self.head("What is on disk now")?;
        self.show_log(&session)?;

        self.head("The server starts again, and the turn goes on")?;
        self.start()?;
        self.follow(|event| matches!(event.body, Body::TurnFinished { .. }))?;

        self.head("Is it true?")?;
        self.verify(&session)?;
        self.stop()?;
        self.outlook(&session)
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        print(&format!("{text}\n")).map(drop)
    }

    fn head(&mut self, text: &str) -> Result<(), Failure> {
        if self.watched && self.step > 0 {
            let pause = Instant::now() + PACE;
            self.until(|| Instant::now() > pause, || Failure::new("the clock stands still"))?;
        }
        self.step += 1;
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.say(&format!("\n{on}{}. {text}{off}", self.step))
    }

    /// A line of two columns.
    fn row(&self, name: &str, text: &str) -> Result<(), Failure> {
        self.say(format!("   {name:<21} {text}").trim_end())
    }

    /// Starts the server and waits until it answers.
    fn start(&mut self) -> Result<(), Failure> {
        let binary = sandbox::own_binary().map_err(|e| Failure::new(format!("cannot find this binary: {e}")))?;
        let path = self.workspace.join("server.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(cannot("write", &path))?;
        let mut command = Command::new(binary);
        command.arg("--dir").arg(&self.workspace).arg("serve");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Not in our group: Ctrl-C is for us to deal with.
        command.process_group(0);
        let child = command.spawn().map_err(|e| Failure::new(format!("cannot start the server: {e}")))?;
        let server = self.server.insert(Server { child });
        let pid = server.child.id();
        let connection = Arc::clone(&self.connection);
        let ready = || connection.client().request("GET", "/readyz", &[], b"").is_ok_and(|r| r.status == 200);
        let error = || Failure::new("the server does not start").hint(format!("look into {}", path.display()));
        self.until(ready, error)?;
        self.row("server", &format!("process {pid}, on a unix socket"))
    }

    /// Waits until `condition` holds. Events that come meanwhile are kept.
    fn until(&mut self, mut condition: impl FnMut() -> bool, error: impl Fn() -> Failure) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if Instant::now() > deadline {
                return Err(error());
            }
            match self.live.next_until(Instant::now() + LOOK) {
                Some(Heard::Signal(signal)) => return Err(interrupted(signal)),
                heard => self.held.extend(heard),
            }
        }
        Ok(())
    }

    /// Shows events as they come, up to the first that `last` holds for.
    fn follow(&mut self, last: fn(&Event) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.held.pop_front().or_else(|| self.live.next_until(deadline)) {
                Some(Heard::Event(event)) if event.kind != "token" => {
                    let event = line::parse(&event.data).map_err(|e| Failure::new(format!("an event: {e}")))?;
                    self.row(
                        &format!("{:>2} {}", event.seq, event.body.kind()),
                        &self.cut(&told(&event.body), INDENT),
                    )?;
                    let is_last = last(&event);
                    self.events.push(event);
                    if is_last {
                        return Ok(());
                    }
                }
                Some(Heard::Lost(failure)) => return Err(failure),
                Some(Heard::Signal(signal)) => return Err(interrupted(signal)),
                Some(_) => {}
                None => return Err(Failure::new(format!("no further event came within {} s", PATIENCE.as_secs()))),
            }
        }
    }

    /// Waits for the tool's line in its file; the processes that it names.
    fn tool_processes(&mut self) -> Result<Vec<u32>, Failure> {
        let path = self.folder.join("pump.log");
        let line = || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        self.until(|| line().is_some(), || Failure::new("the tool does not write pump.log"))?;
        let line = line().unwrap_or_default();
        self.row("pump.log", line.trim())?;
        // The tool's own numbers may be those of a namespace: what counts is what stands below the server.
        let mut found = self.server.as_ref().map_or_else(Vec::new, |server| process::descendants(server.child.id()));
        if found.is_empty() {
            found = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        }
        found.retain(|pid| process::is_alive(*pid));
        // The shell and its sleep, at least.
        if found.len() >= 2 { Ok(found) } else { Err(Failure::new("the tool is not at work")) }
    }

    fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let pid = server.child.id();
        // SIGKILL: nothing in the server gets to know of it.
        server.child.kill().map_err(|e| Failure::new(format!("cannot kill the server: {e}")))?;
        let status = server.child.wait().map_err(|e| Failure::new(format!("cannot wait for the server: {e}")))?;
        self.row("kill -9", &format!("process {pid} ({status})"))
    }

    /// Nothing of the tool goes on behind everybody's back.
    fn ended(&mut self, tool: &[u32]) -> Result<(), Failure> {
        let gone = || tool.iter().all(|pid| !process::is_alive(*pid));
        self.until(gone, || Failure::new("processes of the tool are left"))?;
        self.row("tool", "its processes are gone too, although nobody could tell them")
    }

    /// The end of the log, as it is in the file.
    fn show_log(&self, session: &str) -> Result<(), Failure> {
        let path = self.log_path(session);
        let text = fs::read_to_string(&path).map_err(cannot("read", &path))?;
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(LOG_LINES);
        self.say(&format!("   {} ({} lines, the last {LOG_LINES}:)", short(&self.folder, &path), lines.len()))?;
        for line in lines.iter().skip(skipped) {
            self.say(&format!("   {}", self.cut(line, 3)))?;
        }
        self.say("   The tool was started, says the log; that it finished, it does not say.")
    }

    fn log_path(&self, session: &str) -> PathBuf {
        self.workspace.join("sessions").join(session).join("events.jsonl")
    }

    /// Text for one line of the terminal, behind so many columns.
    fn cut(&self, line: &str, behind: usize) -> String {
        let columns = text::width().unwrap_or(COLUMNS);
        let room = columns.saturating_sub(behind + 1).max(20);
        text::cut(&text::clean(line), room)
    }

    /// Looks at the disk, not at what was said.
    fn verify(&self, session: &str) -> Result<(), Failure> {
        let path = self.folder.join("pump.log");
        let lines = fs::read_to_string(&path).map_err(cannot("read", &path))?.lines().count();
        expect("lines in pump.log", 1, lines)?;
        self.row("pump.log", "one line: the tool ran once")?;

        let store = FileStore::new(self.workspace.join("sessions"), SEGMENT_BYTES_MAX);
        let mut logged = Vec::new();
        let found = store.verify(session, &mut |event| logged.push(event));
        let found = found.map_err(|error| Failure::new(error.to_string()))?;
        if found.tail != Tail::Clean {
            return Err(Failure::new(format!("the log does not end clean: {:?}", found.tail)));
        }
        let gapless = logged.iter().zip(1..).all(|(event, seq)| event.seq == seq);
        expect("log without gaps", true, gapless && found.seq == logged.len() as u64)?;
        self.row("log", &format!("{} events, no gap, every checksum right", logged.len()))?;
        expect("what was streamed is what is on disk", true, logged == self.events)?;
        self.row("stream", "every event was delivered once, across the restart")?;

        let count = |wanted: fn(&Body) -> bool| logged.iter().filter(|e| wanted(&e.body)).count();
        expect("starts of bash", 1, count(|b| matches!(b, Body::ToolStarted { name, .. } if name == "bash")))?;
        expect("tool_interrupted", 1, count(|b| matches!(b, Body::ToolInterrupted { .. })))?;
        let completed = count(|b| matches!(b, Body::TurnFinished { reason: TurnReason::Completed, .. }));
        expect("completed turns", 1, completed)?;
        self.row("turn", "completed")
    }

    /// Asks the server to end, and waits for it.
    fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        self.connection.request("POST", "/api/admin/v1/shutdown", None)?;
        let ended = || matches!(server.child.try_wait(), Ok(Some(_)));
        self.until(ended, || Failure::new("the server does not stop"))?;
        self.row("server", "stopped")
    }

    fn outlook(&self, session: &str) -> Result<(), Failure> {
        let mut text = String::from("\nLook at\n");
        let files = [self.log_path(session), self.folder.join("pump.log"), self.workspace.join("server.log")];
        for path in files {
            writeln!(text, "   {}", path.display()).ok();
        }
        text.push_str("\nGo on\n");
        writeln!(text, "   duragent --dir {} attach {session}", self.workspace.display()).ok();
        text.push_str(
            "   duragent init && duragent run assistant \"what is in this folder?\"    (with a local Ollama)\n",
        );
        print(&text).map(drop)
    }
}

/// What there is to know about an event of the story.
fn told(body: &Body) -> String {
    match body {
        Body::SessionCreated { agent, .. } => format!("agent {agent}"),
        Body::MessageReceived { content, .. } => content.clone(),
        Body::ModelRequested { step, .. } => format!("step {step}"),
        Body::ModelResponded { text, .. } => format!("\"{text}\""),
        Body::ToolStarted { name, arguments, effect, .. } => {
            format!("{name}: {}  (effect: {})", render::summary(arguments, 60), effect.as_str())
        }
        Body::ToolFinished { outcome, .. } => text::one_line(&outcome.result, COLUMNS),
        Body::ToolInterrupted { .. } => "not run again; the model is told: outcome unknown".into(),
        Body::SessionRecovered { reason, .. } => reason.clone(),
        Body::TurnFinished { reason, .. } => reason.as_str().into(),
        _ => String::new(),
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, found: T) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::new(format!("{what}: expected {expected:?}, found {found:?}")))
}

/// A path below `folder`, less the folder.
fn short(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

fn interrupted(signal: duragent_platform::signal::Signal) -> Failure {
    Failure { code: live::code(signal), error: "interrupted".into(), hint: None }
}

fn cannot(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("cannot {what} {}: {error}", path.display()))
}
