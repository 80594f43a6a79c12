//! `duragent run AGENT [PROMPT]`: one turn.
//!
//! Job: put the prompt together, send it, follow its turn to the end, print the reply. With `--resume` and no prompt, take
//! up the turn that is unfinished.
//!
//! Invariants: off a terminal, standard output holds the reply (or the JSON) and nothing else, and stays empty on failure in
//! text form. With a runtime of our own, the process ends when the turn rests or waits for somebody's word, not before,
//! unless it is told to.

mod turn;

use super::connect::Connection;
use super::live::{self, Heard, Live, Message};
use super::pick::{self, Picked, Which};
use super::render::{self, Render, Screen, Style};
use super::{Common, Failure, args, print, text};
use duragent_core::event::{Body, Usage};
use duragent_core::json::{self, Value};
use duragent_core::line;
use duragent_core::session::OFFLINE;
use duragent_platform::signal::Signal;
use duragent_platform::{file, terminal};
use std::cell::OnceCell;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use turn::{End, Turn};

/// What `--help` says.
pub const HELP: &str = "duragent run AGENT [PROMPT]

One turn. The prompt is the argument, what is piped in, or both.

  -c, --continue           go on with the agent's last session
      --resume ID          go on with this session; without a prompt, take up its unfinished turn
      --session NAME       go on with the session of this name, or make it
      --max-turns N        at most so many calls of the model
      --output-format F    text (the reply), json (one object), stream-json (every event, then the result)
  -o, --output FILE        write the reply to a file instead of standard output
  -p, --print              show nothing but the reply, on a terminal too

Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 waiting for an approval, 5 a limit was reached, 130 interrupted
";
/// How long a server that went away is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of standard input: the largest message a workspace can allow.
const STDIN_BYTES_MAX: u64 = 16 << 20;
/// Exit code of a turn that waits for an approval.
pub const WAITING: u8 = 4;
/// Exit code of a turn that reached a limit.
pub const LIMIT: u8 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    #[default]
    Text,
    Json,
    StreamJson,
}

#[derive(Default)]
struct Options {
    help: bool,
    agent: Option<String>,
    prompt: Option<String>,
    print: bool,
    format: Format,
    which: Which,
    steps_max: Option<u64>,
    output: Option<PathBuf>,
}

/// The command.
pub fn run(common: Common, parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut options = parse(parser)?;
    if options.help {
        return print(HELP);
    }
    let dir = common.existing()?;
    let input = piped()?;
    let live = Live::new()?;
    let connection = Arc::new(Connection::open(&dir)?);
    let result = with(&mut options, input, &live, &connection);
    connection.close();
    result
}

fn parse(mut parser: lexopt::Parser) -> Result<Options, Failure> {
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => options.help = true,
            lexopt::Arg::Short('p') | lexopt::Arg::Long("print") => options.print = true,
            lexopt::Arg::Short('c') | lexopt::Arg::Long("continue") => options.which.set(Which::Last)?,
            lexopt::Arg::Long("resume") => options.which.set(Which::Resume(args::text(parser.value()?)?))?,
            lexopt::Arg::Long("session") => options.which.set(Which::Named(args::text(parser.value()?)?))?,
            lexopt::Arg::Short('o') | lexopt::Arg::Long("output") => options.output = Some(parser.value()?.into()),
            lexopt::Arg::Long("output-format") => options.format = format(&args::text(parser.value()?)?)?,
            lexopt::Arg::Long("max-turns") => {
                let steps = args::number(parser.value()?, "--max-turns")?;
                if steps == 0 {
                    return Err(Failure::usage(
                        "--max-turns: expected 1 or more, found 0",
                        "it counts calls of the model",
                    ));
                }
                options.steps_max = Some(steps);
            }
            lexopt::Arg::Value(value) if options.agent.is_none() => options.agent = Some(args::text(value)?),
            lexopt::Arg::Value(value) if options.prompt.is_none() => options.prompt = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let parent = options.output.as_deref().map(file::parent_of);
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        // Before a model is paid for the answer.
        return Err(Failure::usage(
            format!("-o: there is no folder {}", parent.display()),
            "make it, or choose another",
        ));
    }
    Ok(options)
}

fn format(text: &str) -> Result<Format, Failure> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "stream-json" => Ok(Format::StreamJson),
        _ => {
            let error = format!("--output-format: expected text, json or stream-json, found {text:?}");
            Err(Failure { code: 2, error, hint: None })
        }
    }
}

/// What is piped in. Nothing if standard input is a terminal.
fn piped() -> Result<String, Failure> {
    if terminal::is_terminal(std::io::stdin()) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    match std::io::stdin().lock().take(STDIN_BYTES_MAX + 1).read_to_end(&mut bytes) {
        // Closed, or not open for reading: nothing is piped in.
        Err(_) => return Ok(String::new()),
        Ok(n) if n as u64 > STDIN_BYTES_MAX => {
            let error = format!("standard input: expected at most {STDIN_BYTES_MAX} bytes");
            return Err(Failure::usage(error, "put it into a file that the agent can read"));
        }
        Ok(_) => {}
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("standard input: expected UTF-8, found another byte at byte {at}"), "convert it first")
    })
}

/// Prompt and standard input as one message; `None` if both are empty.
fn message(prompt: Option<&str>, input: &str) -> Option<String> {
    let (prompt, input) = (prompt.unwrap_or_default(), input.trim_end_matches(['\n', '\r']));
    match (prompt.trim().is_empty(), input.trim().is_empty()) {
        (true, true) => None,
        (false, true) => Some(prompt.to_owned()),
        (true, false) => Some(input.to_owned()),
        (false, false) => Some(format!("{prompt}\n\n{input}")),
    }
}

fn with(options: &mut Options, input: String, live: &Live, connection: &Arc<Connection>) -> Result<u8, Failure> {
    if message(options.prompt.as_deref(), &input).is_none() && !matches!(options.which, Which::Resume(_)) {
        let hint = "give it as an argument, or pipe it in: duragent run AGENT \"what is in this folder?\"";
        let what = if options.agent.is_some() { "a prompt" } else { "an agent and a prompt" };
        return Err(Failure::usage(format!("expected {what}, found none"), hint));
    }
    let picked = pick(options, connection)?;
    let message = message(options.prompt.as_deref(), &input);
    let (mut turn, known) = begin(options, message, live, connection, &picked)?;
    let style = Style::of_process();
    let show = style.live && !options.print && options.format == Format::Text && options.output.is_none();
    let mut run = Run {
        options,
        connection,
        live,
        render: show.then(|| Render::new(style)),
        style,
        turn: &mut turn,
        unwritten: OnceCell::new(),
    };
    let ended = run.follow(known);
    let result = ended.and_then(|()| run.report());
    if terminal::is_terminal(std::io::stderr()) {
        eprintln!("session {}", picked.id);
    }
    result
}

/// The session. With `--resume` the agent may be left out: a single word is the agent if it is the session's, else the
/// prompt.
fn pick(options: &mut Options, connection: &Connection) -> Result<Picked, Failure> {
    if !matches!(options.which, Which::Resume(_)) || options.prompt.is_some() {
        return options.which.pick(connection, options.agent.as_deref());
    }
    let picked = options.which.pick(connection, None)?;
    if options.agent.as_ref().is_some_and(|agent| *agent != picked.agent) {
        options.prompt = options.agent.take();
    }
    Ok(picked)
}

/// Sends the message, or finds the unfinished turn, and listens. The seq is that of the last event that is history.
fn begin(
    options: &Options,
    message: Option<String>,
    live: &Live,
    connection: &Arc<Connection>,
    picked: &Picked,
) -> Result<(Turn, u64), Failure> {
    let (number, known) = match message {
        Some(content) => {
            // First, so that no token of the answer is missed.
            live.follow_message(connection, &picked.id, picked.last_seq, PATIENCE);
            let sent = Message::new(&content, options.steps_max).deliver(connection, &picked.id, PATIENCE)?;
            (sent.turn, sent.seq.saturating_sub(1))
        }
        None if matches!(picked.status.as_str(), "running" | "waiting" | "paused") => {
            // From the start: what the turn has said and asked so far is in there.
            live.follow(connection, &picked.id, 0, PATIENCE);
            (picked.turns, picked.last_seq)
        }
        None => {
            let error = format!("session {} has no unfinished turn, and there is no prompt", picked.id);
            return Err(Failure::usage(error, "give a prompt to go on with it"));
        }
    };
    let (session, agent) = (picked.id.clone(), picked.agent.clone());
    let turn = Turn {
        session,
        agent,
        number,
        started: false,
        open: Vec::new(),
        reply: String::new(),
        end: None,
        cancelled: false,
        trouble: String::new(),
    };
    Ok((turn, known))
}

struct Run<'a> {
    options: &'a Options,
    connection: &'a Arc<Connection>,
    live: &'a Live,
    /// Set if tokens and calls are shown as they come.
    render: Option<Render>,
    style: Style,
    turn: &'a mut Turn,
    /// Why a line could not be written: the turn goes on, but it is not done as asked.
    unwritten: OnceCell<String>,
}

impl Run<'_> {
    /// Follows the turn until it rests or waits. What happened up to `known` was history when we came.
    fn follow(&mut self, known: u64) -> Result<(), Failure> {
        // An earlier turn of the session may wait for somebody, and ours behind it.
        self.check_waiting()?;
        while self.turn.end.is_none() {
            match self.live.next() {
                Heard::Event(event) if event.kind == "token" => self.token(&event.data),
                Heard::Event(event) if event.kind == "status" => self.status(&event.data),
                Heard::Event(event) => self.event(&event.data, event.last_id.unwrap_or(0) > known)?,
                Heard::Gone => self.say("the server went away, looking for it"),
                Heard::Back => self.say("the server is back"),
                Heard::Lost(failure) => return Err(self.lost(failure)),
                Heard::Signal(signal) => self.signal(signal)?,
                Heard::Line(_) | Heard::InputEnd => {}
            }
        }
        Ok(())
    }

    /// A line for people who watch.
    fn say(&mut self, text: &str) {
        if let Some(render) = &mut self.render {
            Screen::show(render.note(text));
        }
    }

    fn lost(&self, failure: Failure) -> Failure {
        let Turn { agent, session, .. } = &*self.turn;
        if failure.hint.is_some() { failure } else { failure.hint(format!("duragent run {agent} --resume {session}")) }
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Failure> {
        let code = live::code(signal);
        let ends = |error: &str| Failure { code, error: error.to_owned(), hint: None };
        if signal != Signal::Interrupt {
            return Err(self.lost(ends("told to stop; the turn is on disk")));
        }
        if self.turn.cancelled {
            return Err(self.lost(ends("interrupted again; the turn is on disk")));
        }
        if !self.turn.started {
            // A cancel would hit the turn of somebody else.
            return Err(self.lost(ends("interrupted; the message waits for its turn in the session")));
        }
        self.turn.cancelled = true;
        let path = format!("/api/v1/sessions/{}/cancel", self.turn.session);
        match self.connection.client().request("POST", &path, &[], b"") {
            // Refused: it has come to rest by itself, and the event is on its way.
            Ok(_) => Ok(()),
            Err(_) => Err(self.lost(ends("interrupted, and the server does not answer; the turn is on disk"))),
        }
    }

    fn token(&mut self, data: &str) {
        let Ok(token) = json::parse(data) else { return };
        let turn = token.get("turn").and_then(Value::as_u64);
        // Turn 0: a notice of the runtime to whoever listens.
        if turn != Some(self.turn.number) && turn != Some(0) {
            return;
        }
        if let (Some(render), Some(text)) = (&mut self.render, token.get("text").and_then(Value::as_str)) {
            let thinking = token.get("thinking").and_then(Value::as_bool).unwrap_or(false);
            Screen::show(render.token(text, thinking));
        }
        if self.options.format == Format::StreamJson
            && let Some(fields) = data.strip_prefix('{')
        {
            self.line(&format!("{{\"type\":\"token\",{fields}"));
        }
    }

    /// What goes on before there is an answer.
    fn status(&mut self, data: &str) {
        let Ok(status) = json::parse(data) else { return };
        if status.get("turn").and_then(Value::as_u64) != Some(self.turn.number) {
            return;
        }
        let text = status.get("text").and_then(Value::as_str).unwrap_or_default();
        match text.strip_prefix("offline: ") {
            Some(trouble) => {
                self.turn.trouble = trouble.to_owned();
                self.turn.parked();
            }
            None => self.say(&text::clean(&format!("[model] {text}"))),
        }
    }

    /// One line of JSON on standard output.
    fn line(&self, json: &str) {
        let line = if self.style.live { render::clean_json(json) } else { json.to_owned() };
        // Nobody who reads is no failure; a full disk behind a redirection is, but does not end the turn.
        print(&(line + "\n")).map_err(|failure| self.unwritten.set(failure.error)).ok();
    }

    fn event(&mut self, data: &str, is_new: bool) -> Result<(), Failure> {
        let Ok(event) = line::parse(data) else { return Ok(()) };
        if is_new && self.options.format == Format::StreamJson {
            self.line(data);
        }
        let ours = self.turn.started;
        let changed = self.turn.apply(&event);
        if let Body::SessionPaused { reason, .. } = &event.body
            && reason == OFFLINE
            && is_new
            && self.turn.started
        {
            self.turn.parked();
        }
        if let Some(render) = self.render.as_mut().filter(|_| is_new && (ours || self.turn.started)) {
            Screen::show(render.event(&event));
        }
        if is_new && changed && self.turn.end.is_none() { self.check_waiting() } else { Ok(()) }
    }

    /// Ends the following if the session waits for somebody's word.
    fn check_waiting(&mut self) -> Result<(), Failure> {
        // Nobody answers: whoever follows the events will find out.
        let Ok(now) = pick::now(self.connection, &self.turn.session) else { return Ok(()) };
        if now.status == "waiting" {
            let approvals = pick::approvals(self.connection, &self.turn.session)?;
            let (reason, usage) = (None, Usage::default());
            self.turn.end = Some(End { reason, offline: false, detail: None, usage, approvals });
        }
        Ok(())
    }

    /// Prints the result and says with which code to end.
    fn report(&self) -> Result<u8, Failure> {
        let Some(end) = &self.turn.end else { return Ok(1) };
        let failure = self.turn.failure(end);
        if let (Some(path), None) = (&self.options.output, &failure) {
            file::replace(path, ended(&self.turn.reply).as_bytes(), 0o644)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        }
        match self.options.format {
            Format::Text if self.options.output.is_some() || failure.is_some() => {}
            Format::Text if self.render.is_some() => {}
            Format::Text if self.style.live => drop(print(&ended(&text::clean(&self.turn.reply)))?),
            Format::Text => drop(print(&ended(&self.turn.reply))?),
            Format::Json => self.line(&self.turn.json(end, None)),
            Format::StreamJson => self.line(&self.turn.json(end, Some("result"))),
        }
        let unwritten = self.unwritten.get().map(|error| Failure::new(error.as_str()));
        failure.or(unwritten).map_or(Ok(0), Err)
    }
}

/// With exactly one line feed at its end, unless it has more.
fn ended(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn prompt_and_input_become_one_message() {
        let check = |prompt: Option<&str>, input: &str, expected: Option<&str>| {
            assert_eq!(message(prompt, input).as_deref(), expected, "{prompt:?} {input:?}");
        };
        check(None, "", None);
        check(Some(" "), "\n\r\n", None);
        check(Some("hello"), "", Some("hello"));
        check(None, "hello\n", Some("hello"));
        check(Some("sum up"), "a\nb\n", Some("sum up\n\na\nb"));
        check(Some("sum up"), "  indented\n", Some("sum up\n\n  indented"));
    }
}
