//! `duragent chat AGENT` and `duragent attach SESSION`: talk to a session, line by line.
//!
//! Job: show the last messages, then everything that happens; send lines as messages; ask for approvals where they come up.
//! Any number of clients see the same.
//!
//! Standard input that is no terminal is a script: its lines go out one turn after the other, and its end ends the command
//! when the last turn rests. Answers to approvals are lines of it too.
//!
//! Invariants: leaving never ends a turn. With a runtime of our own the turn is finished first, or left on disk if the
//! person says so.
//!
//! Absent: line editing, cursor movement.

mod ask;
mod away;

use super::connect::{self, Connection};
use super::live::{self, Heard, Live, Message};
use super::pick::{self, Picked, Which};
use super::render::{self, Piece, Render, SUMMARY_CHARS_MAX, Screen, Style};
use super::run::{LIMIT, WAITING};
use super::{Common, Failure, args, text};
use ask::{Open, answer};
use away::Away;
use duragent_core::event::{Body, Event, TurnReason};
use duragent_core::json::{self, Value};
use duragent_core::line;
use duragent_core::session::OFFLINE;
use duragent_platform::signal::Signal;
use duragent_platform::terminal;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Messages of the history that are shown first.
const HISTORY_MESSAGES: usize = 10;
/// How long a server that went away is looked for: a restart of a small machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// The same where nobody sits in front.
const PATIENCE_OF_SCRIPTS: Duration = Duration::from_secs(10);

const HELP: &str = "a line is a message; while a turn runs it waits for the next one
/cancel  end the running turn (Ctrl-C)   /status  what the session is doing
/detach  leave, the turn goes on (Ctrl-D, /quit)   //text  a message that begins with a slash";

/// `duragent chat`.
pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut agent, mut which) = (None, Which::New);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('c') | lexopt::Arg::Long("continue") => which.set(Which::Last)?,
            lexopt::Arg::Long("resume") => which.set(Which::Resume(args::text(parser.value()?)?))?,
            lexopt::Arg::Long("session") => which.set(Which::Named(args::text(parser.value()?)?))?,
            lexopt::Arg::Value(value) if agent.is_none() => agent = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    talk(&common, &which, agent.as_deref())
}

/// `duragent attach`.
pub fn attach(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut session = None;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    match session {
        Some(session) => talk(&common, &Which::Resume(session), None),
        None => Err(Failure { code: 2, error: "expected a session, found none".into(), hint: None }),
    }
}

fn talk(common: &Common, which: &Which, agent: Option<&str>) -> Result<u8, Failure> {
    let dir = common.existing()?;
    let live = Live::new()?;
    let connection = Arc::new(Connection::open(&dir)?);
    let result = which.pick(&connection, agent).and_then(|picked| {
        let mut chat = Chat::new(&connection, &live, &picked);
        let result = chat.enter(&picked).and_then(|()| chat.live_on());
        Screen::show(chat.render.note(&format!("session {}", chat.session)));
        result
    });
    connection.close();
    result
}

struct Chat<'a> {
    connection: &'a Arc<Connection>,
    live: &'a Live,
    session: String,
    render: Render,
    /// A person types.
    interactive: bool,
    /// A turn is under way, as far as the events say.
    running: bool,
    /// Turns that we asked for and that have not come to rest.
    ours: Vec<u64>,
    /// Seqs of our messages whose events have not come by yet.
    sent: Vec<u64>,
    /// Lines of a script that wait.
    lines: VecDeque<String>,
    input_ended: bool,
    /// Messages that the server did not answer.
    unsent: VecDeque<Message>,
    approvals: Vec<Open>,
    /// The approval the person was asked about.
    asked: Option<String>,
    /// Decisions of ours whose events have not come by yet.
    decided: Vec<String>,
    cancelled: bool,
    /// On the way out; only our own turn keeps us.
    leaving: bool,
    /// Exit code of a script: how its last turn ended, or the signal that stopped it.
    code: u8,
    /// Last event that came by.
    seen: u64,
    /// Last turn that came to rest.
    done: u64,
    /// What is said of a model that does not answer.
    away: Away,
}

/// What to do next.
enum Next {
    Stay,
    Leave(u8),
}

impl<'a> Chat<'a> {
    fn new(connection: &'a Arc<Connection>, live: &'a Live, picked: &Picked) -> Self {
        Self {
            connection,
            live,
            session: picked.id.clone(),
            render: Render::new(Style::of_process()),
            interactive: terminal::is_terminal(std::io::stdin()),
            running: is_running(picked),
            ours: Vec::new(),
            sent: Vec::new(),
            lines: VecDeque::new(),
            input_ended: false,
            unsent: VecDeque::new(),
            approvals: Vec::new(),
            asked: None,
            decided: Vec::new(),
            cancelled: false,
            leaving: false,
            code: 0,
            seen: picked.last_seq,
            done: 0,
            away: Away::default(),
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/sessions/{}{rest}", self.session)
    }

    fn note(&mut self, text: &str) {
        Screen::show(self.render.note(text));
    }

    /// Shows what was, and begins to listen for what comes.
    fn enter(&mut self, picked: &Picked) -> Result<(), Failure> {
        let history = self.connection.get(&self.path("/messages"))?;
        if let Some(Value::Array(messages)) = history.get("messages") {
            let seq = |m: &Value| m.get("seq").and_then(Value::as_u64).unwrap_or(0);
            let known: Vec<&Value> = messages.iter().filter(|m| seq(m) <= picked.last_seq).collect();
            let skipped = known.len().saturating_sub(HISTORY_MESSAGES);
            if skipped > 0 {
                self.note(&format!("({skipped} earlier messages: duragent session show {})", self.session));
            }
            for message in known.into_iter().skip(skipped) {
                Screen::show(old(&mut self.render, message));
            }
        }
        let first = format!("session {} of {}", self.session, picked.agent);
        self.note(&if self.interactive { format!("{first}; /help") } else { first });
        let patience = if self.interactive { PATIENCE } else { PATIENCE_OF_SCRIPTS };
        self.live.follow(self.connection, &self.session, picked.last_seq, patience);
        self.live.read_lines();
        self.refresh_approvals();
        self.prompt();
        Ok(())
    }

    /// Until somebody leaves; the exit code.
    fn live_on(&mut self) -> Result<u8, Failure> {
        loop {
            let next = match self.live.next() {
                Heard::Event(event) if event.kind == "token" => self.token(&event.data),
                Heard::Event(event) if event.kind == "status" => self.doing(&event.data),
                Heard::Event(event) => self.event(&event.data),
                Heard::Gone => self.say("[server] it went away; looking for it"),
                Heard::Back => self.back()?,
                Heard::Lost(failure) if failure.hint.is_some() => return Err(failure),
                Heard::Lost(failure) => return Err(failure.hint(format!("duragent attach {}", self.session))),
                Heard::Line(line) if self.interactive => {
                    self.render.entered();
                    self.line(&line)?
                }
                Heard::Line(line) => {
                    self.lines.push_back(line);
                    Next::Stay
                }
                Heard::InputEnd => {
                    self.input_ended = true;
                    if self.interactive { self.leave() } else { Next::Stay }
                }
                Heard::Signal(signal) => self.signal(signal),
            };
            if let Next::Leave(code) = next {
                return Ok(code);
            }
            if let Next::Leave(code) = self.go_on()? {
                return Ok(code);
            }
        }
    }

    fn say(&mut self, text: &str) -> Next {
        self.note(text);
        Next::Stay
    }

    /// What has become possible: the next line of a script, or the end.
    fn go_on(&mut self) -> Result<Next, Failure> {
        if let Some(code) = self.parked() {
            return Ok(Next::Leave(code));
        }
        loop {
            let rests = !self.running && self.ours.is_empty() && self.unsent.is_empty();
            if self.leaving {
                let waits = !self.approvals.is_empty() && self.waits_for_approval();
                return Ok(if rests || waits {
                    Next::Leave(if waits { WAITING } else { self.code })
                } else {
                    Next::Stay
                });
            }
            if self.interactive {
                return Ok(Next::Stay);
            }
            let command = self.lines.front().is_some_and(|l| l.starts_with('/') && !l.starts_with("//"));
            let answer = self.lines.front().is_some_and(|l| answer(l).is_some());
            if !self.approvals.is_empty() && !command && !answer {
                let stuck = self.lines.front().is_some() || self.input_ended;
                return Ok(if stuck && self.waits_for_approval() { self.stuck() } else { Next::Stay });
            }
            if !(rests || command || !self.approvals.is_empty()) {
                return Ok(Next::Stay);
            }
            match self.lines.pop_front() {
                Some(line) => {
                    if let Next::Leave(code) = self.line(&line)? {
                        return Ok(Next::Leave(code));
                    }
                }
                None if self.input_ended => return Ok(Next::Leave(self.code)),
                None => return Ok(Next::Stay),
            }
        }
    }

    fn token(&mut self, data: &str) -> Next {
        if let Ok(token) = json::parse(data)
            && let Some(text) = token.get("text").and_then(Value::as_str)
        {
            let thinking = token.get("thinking").and_then(Value::as_bool).unwrap_or(false);
            Screen::show(self.render.token(text, thinking));
        }
        Next::Stay
    }

    fn event(&mut self, data: &str) -> Next {
        let Ok(event) = line::parse(data) else { return Next::Stay };
        Screen::show(self.render.event(&event));
        self.apply(&event);
        Next::Stay
    }

    fn apply(&mut self, event: &Event) {
        self.seen = event.seq;
        match &event.body {
            Body::MessageReceived { source, content, .. } => match self.sent.iter().position(|s| *s == event.seq) {
                Some(at) => drop(self.sent.swap_remove(at)),
                None => Screen::show(self.render.message(source, content)),
            },
            Body::SessionPaused { reason, .. } => self.away.parked = reason == OFFLINE,
            Body::TurnStarted { .. } => (self.running, self.cancelled) = (true, false),
            Body::TurnFinished { turn, reason, detail, .. } => {
                (self.running, self.asked) = (false, None);
                self.approvals.clear();
                self.finished(*turn, *reason, detail.as_deref());
                self.prompt();
            }
            // With a turn or without one.
            Body::SessionResumed { .. } => {
                self.away = Away::default();
                self.running = pick::now(self.connection, &self.session).map_or(self.running, |now| is_running(&now));
            }
            Body::ApprovalRequested { .. } => self.refresh_approvals(),
            Body::ApprovalDecided { approval_id, .. } => {
                self.approvals.retain(|open| open.id != *approval_id);
                let by_us = self.decided.iter().position(|id| id == approval_id);
                if let Some(at) = by_us {
                    self.decided.swap_remove(at);
                } else if self.asked.as_ref() == Some(approval_id) {
                    self.note("[approval] somebody else decided first");
                }
                self.asked = self.asked.take().filter(|id| id != approval_id);
                self.ask();
            }
            _ => {}
        }
    }

    fn finished(&mut self, turn: u64, reason: TurnReason, detail: Option<&str>) {
        self.done = turn;
        if let Some(at) = self.ours.iter().position(|t| *t == turn) {
            self.ours.swap_remove(at);
            self.code = match reason {
                _ if self.leaving => self.code,
                TurnReason::Completed => 0,
                TurnReason::Limit => LIMIT,
                TurnReason::Failed | TurnReason::Cancelled | TurnReason::Quarantined => 1,
            };
        }
        if reason != TurnReason::Completed {
            let detail = detail.map_or_else(String::new, |d| format!(": {d}"));
            self.note(&format!("[turn] {}{detail}", reason.as_str()));
        }
    }

    /// Shows that a line is expected.
    fn prompt(&mut self) {
        if self.interactive && !self.running && !self.leaving {
            Screen::show(self.render.ask("> "));
        }
    }

    /// The server is there again: what it did not take is sent once more, and what was asked may be settled.
    fn back(&mut self) -> Result<Next, Failure> {
        self.note("[server] it is back");
        while let Some(message) = self.unsent.pop_front() {
            if !self.send(message)? {
                break;
            }
        }
        self.asked = None;
        self.refresh_approvals();
        Ok(Next::Stay)
    }

    /// A line that somebody typed, or the next one of a script.
    fn line(&mut self, line: &str) -> Result<Next, Failure> {
        let text = line.trim();
        match text {
            "" => self.prompt(),
            "/help" => {
                self.note(HELP);
                self.prompt();
            }
            "/status" => self.status(),
            "/cancel" => self.cancel(),
            "/detach" | "/quit" => return Ok(self.leave()),
            _ if text.starts_with("//") => drop(self.send(Message::new(&text[1..], None))?),
            _ if text.starts_with('/') => {
                self.note(&format!("no command {text}; /help lists them, // begins a message with a slash"));
                self.prompt();
            }
            _ if self.asked.is_some() => self.decide(text),
            _ => drop(self.send(Message::new(line, None))?),
        }
        Ok(Next::Stay)
    }

    /// Sends a message. False if the server did not answer; it is kept then.
    fn send(&mut self, message: Message) -> Result<bool, Failure> {
        match message.send(self.connection, &self.session) {
            Ok(Some(sent)) => {
                if self.running {
                    self.note(&format!("[turn] {} waits for the running one", sent.turn));
                }
                // What was sent twice may be long past.
                if sent.seq > self.seen {
                    self.sent.push(sent.seq);
                }
                if sent.turn > self.done {
                    self.ours.push(sent.turn);
                }
                Ok(true)
            }
            Ok(None) => {
                self.note("[server] it does not answer; the message is sent when it is back");
                self.unsent.push_front(message);
                Ok(false)
            }
            Err(failure) if self.interactive => {
                self.note(&format!("error: {}", failure.error));
                self.prompt();
                Ok(true)
            }
            Err(failure) => Err(failure),
        }
    }

    fn status(&mut self) {
        let text = match pick::now(self.connection, &self.session) {
            Ok(now) => {
                let Picked { id, agent, status, last_seq, turns } = now;
                let place = if self.connection.is_own() { "in this process" } else { "on the server" };
                let (turns, events) = (text::count(turns, "turn"), text::count(last_seq, "event"));
                format!("session {id} of {agent} {place}: {status}, {turns}, {events}")
            }
            Err(failure) => failure.error,
        };
        self.note(&text);
        self.prompt();
    }

    fn cancel(&mut self) {
        match self.connection.client().request("POST", &self.path("/cancel"), &[], b"") {
            Ok(response) if response.status < 300 => self.cancelled = true,
            Ok(response) => self.note(&connect::problem(&response).error),
            Err(_) => self.note("[server] it does not answer; the turn is on disk"),
        }
    }

    fn signal(&mut self, signal: Signal) -> Next {
        let code = live::code(signal);
        if signal != Signal::Interrupt || self.leaving || (self.running && self.cancelled) {
            return Next::Leave(code);
        }
        if self.running {
            self.cancel();
            if !self.interactive {
                // Whoever stops a script does not want the rest of it.
                self.lines.clear();
                (self.input_ended, self.leaving, self.code) = (true, true, code);
            }
            return Next::Stay;
        }
        if !self.interactive {
            return Next::Leave(code);
        }
        self.note("nothing is running; leave with Ctrl-D or /detach");
        self.prompt();
        Next::Stay
    }

    /// Leaves the session. A turn in this process is finished first.
    fn leave(&mut self) -> Next {
        if !self.unsent.is_empty() {
            self.note("error: the server did not answer, and the last message may not have been taken");
            return Next::Leave(1);
        }
        if !self.running && self.ours.is_empty() {
            return Next::Leave(self.code);
        }
        if !self.connection.is_own() {
            self.note("detached; the turn goes on");
            return Next::Leave(0);
        }
        self.leaving = true;
        self.note("no server is running, so this process finishes the turn first; Ctrl-C to leave it on disk instead");
        if !self.approvals.is_empty() && self.waits_for_approval() {
            return self.stuck();
        }
        Next::Stay
    }
}

/// True if the session is in a turn, as far as its status says.
fn is_running(picked: &Picked) -> bool {
    picked.status == "running" || picked.status == "waiting"
}

/// A message of the history.
fn old(render: &mut Render, message: &Value) -> Vec<Piece> {
    let field = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
    match field("role") {
        "user" => render.message("", field("content")),
        "assistant" => {
            let mut pieces = render.reply(field("content"));
            if let Some(Value::Array(calls)) = message.get("tool_calls") {
                for call in calls {
                    let name = call.get("name").and_then(Value::as_str).unwrap_or_default();
                    let arguments = call.get("arguments").map(Value::to_string).unwrap_or_default();
                    pieces.extend(render.note(&format!("[{name}] {}", render::summary(&arguments, SUMMARY_CHARS_MAX))));
                }
            }
            pieces
        }
        _ => render.note(&format!("[tool] {}", text::one_line(field("content"), SUMMARY_CHARS_MAX))),
    }
}
