//! `duragent session log SESSION [-f] [--json]`: the events of a log, a line each.
//!
//! `-f` goes on with what comes: from the server, if one is up, else from the files, which another process may be writing.
//! It outlives the server: when that ends or starts, the next event is read from where it is now.

use super::{intact, lines, named, store};
use crate::cli::connect::{Connection, session_id};
use crate::cli::{Common, Failure, args, interrupt, text};
use crate::http::client::{Event as Sent, Stream};
use crate::store::file::LOG_NAME;
use duragent_core::event::{Body, Event};
use duragent_core::{line, time};
use std::path::PathBuf;
use std::time::Duration;

/// How often the files are looked at, or a lost server is looked for: a person does not notice, and it costs one stat(2).
const POLL: Duration = Duration::from_millis(250);
/// Characters of a text that are shown on the line of its event.
const TEXT_CHARS_MAX: usize = 120;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut session, mut follow, mut json) = (None, false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Short('f') | lexopt::Arg::Long("follow") => follow = true,
            lexopt::Arg::Long("json") => json = true,
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let session = named(session)?;
    let dir = common.existing()?;
    // Before anything is shown: whoever stops us after the first line gets the right exit code.
    let signals = if follow { Some(interrupt::catch()?) } else { None };
    let connection = Connection::open(&dir)?;
    let id = session_id(&connection, &session)?;
    intact(&connection, &id)?;
    let mut printer = Printer { json, after: 0, gone: false };
    lines(&connection, &id, 0, &mut |line| printer.line(line))?;
    connection.close();
    let Some(signals) = signals else { return Ok(0) };
    interrupt::until_interrupted(&signals, move || follow_on(dir, &id, &mut printer))
}

/// Prints events until nobody reads them.
fn follow_on(dir: PathBuf, id: &str, printer: &mut Printer) -> Result<u8, Failure> {
    let store = store(&dir);
    let log = store.dir(id).join(LOG_NAME);
    let mut seen = None;
    while !printer.gone {
        if let Some(server) = Connection::server(&dir) {
            from_server(&server, id, printer)?;
            seen = None;
        } else {
            // Looked at before it is read, so that what is written meanwhile is seen the next time.
            let length = std::fs::metadata(&log).ok().map(|meta| meta.len());
            if length != seen {
                let through = store.settle(id).map_err(super::stored)?;
                let mut failed = None;
                let read = store.read(id, printer.after, through, &mut |_, line| {
                    printer.line(line).unwrap_or_else(|failure| {
                        failed = Some(failure);
                        false
                    })
                });
                read.map_err(super::stored)?;
                failed.map_or(Ok(()), Err)?;
                seen = length;
            }
        }
        std::thread::sleep(POLL);
    }
    Ok(0)
}

/// Prints what the server sends until it stops sending. That it goes away is no failure.
fn from_server(server: &Connection, id: &str, printer: &mut Printer) -> Result<(), Failure> {
    let path = format!("/api/v1/sessions/{id}/events");
    match server.client().events(&path, Some(printer.after)) {
        Ok(Stream::Events(events)) => {
            for event in events.map_while(Result::ok).filter(is_logged) {
                if !printer.line(&event.data)? {
                    break;
                }
            }
            Ok(())
        }
        // It drains, and another one may follow.
        Ok(Stream::Other(response)) if response.status >= 500 => Ok(()),
        Ok(Stream::Other(response)) => Err(crate::cli::connect::problem(&response)),
        Err(_) => Ok(()),
    }
}

/// False for tokens and the like, which are shown live and are in no log.
fn is_logged(event: &Sent) -> bool {
    line::peek_seq(event.data.as_bytes()).is_some()
}

struct Printer {
    json: bool,
    /// Last seq that was printed.
    after: u64,
    /// The reader of our output has gone away.
    gone: bool,
}

impl Printer {
    /// False if nobody reads.
    fn line(&mut self, line: &str) -> Result<bool, Failure> {
        if let Some(seq) = line::peek_seq(line.as_bytes()) {
            self.after = seq;
        }
        self.gone = !if self.json { text::put_json(line)? } else { text::put(&readable(line))? };
        Ok(!self.gone)
    }
}

/// A log line for people.
fn readable(line: &str) -> String {
    match line::parse(line) {
        Ok(event) => {
            let Event { seq, at_ms, body } = &event;
            let text = format!("{seq:>5}  {}  {:18} {}", time::rfc3339(*at_ms), body.kind(), essentials(body));
            [text.trim_end(), "\n"].concat()
        }
        Err(error) => format!("    ?  {error}\n"),
    }
}

/// What matters of an event, on one line.
fn essentials(body: &Body) -> String {
    let short = |text: &str| text::one_line(text, TEXT_CHARS_MAX);
    let why = |detail: &Option<String>| detail.as_deref().map_or_else(String::new, |d| format!(": {}", short(d)));
    match body {
        Body::SessionCreated { agent, title, parent, .. } => {
            let title = title.as_deref().map_or_else(String::new, |title| format!(" {:?}", short(title)));
            let parent = parent.as_ref().map_or_else(String::new, |(id, seq)| format!(" from {id} at {seq}"));
            format!("{agent}{title}{parent}")
        }
        Body::MessageReceived { turn, source, content, .. } => format!("turn {turn} from {source}: {}", short(content)),
        Body::TurnStarted { turn } => format!("turn {turn}"),
        Body::TurnFinished { turn, reason, detail, usage } => {
            let (input, output) = (usage.input_tokens, usage.output_tokens);
            format!("turn {turn} {}, {input} tokens in, {output} out{}", reason.as_str(), why(detail))
        }
        Body::ModelRequested { .. }
        | Body::ModelResponded { .. }
        | Body::ModelFailed { .. }
        | Body::ModelSwitched { .. } => of_model(body),
        Body::ApprovalRequested { approval_id, call_id, name, reason, .. } => {
            format!("{approval_id} for {call_id} {}{}", short(name), why(reason))
        }
        Body::ApprovalDecided { approval_id, decision, scope, by } => {
            format!("{approval_id} {} {} by {by}", decision.as_str(), scope.as_str())
        }
        Body::ToolStarted { call_id, name, arguments, sandbox, .. } => {
            let (backend, enforcement) = (&sandbox.backend, &sandbox.enforcement);
            format!("{call_id} {} {} ({backend}, enforced: {enforcement})", short(name), short(arguments))
        }
        Body::ToolFinished { call_id, outcome } => {
            let exit = outcome.exit_code.map_or_else(String::new, |code| format!(" exit {code}"));
            let denied = outcome.denied.as_ref().map_or_else(String::new, |d| format!(" denied ({})", short(&d.kind)));
            let cut = if outcome.truncated { " cut" } else { "" };
            format!("{call_id}{exit}{denied}{cut} after {} ms: {}", outcome.duration_ms, short(&outcome.result))
        }
        Body::ToolInterrupted { call_id, reason } => format!("{call_id} {}", short(reason)),
        Body::SessionRecovered { reason, dropped_bytes, saved_as, turn, crashes } => {
            let turn = turn.map_or_else(String::new, |turn| format!(", turn {turn}, crash {crashes} of this step"));
            let saved = saved_as.as_deref().map_or_else(String::new, |name| format!(", kept as {}", short(name)));
            format!("{}, {dropped_bytes} bytes dropped{saved}{turn}", short(reason))
        }
        Body::SessionCompacted { through_seq, summary, .. } => format!("through {through_seq}: {}", short(summary)),
        Body::SessionPaused { reason, .. } | Body::SessionResumed { reason } | Body::SessionClosed { reason } => {
            short(reason)
        }
        Body::Unknown { .. } => "of a later version".to_owned(),
    }
}

fn of_model(body: &Body) -> String {
    let short = |text: &str| text::one_line(text, TEXT_CHARS_MAX);
    match body {
        Body::ModelRequested { turn, step, attempt, provider, model, summary, .. } => {
            let what = if *summary { " for a summary" } else { "" };
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            format!("turn {turn} step {step}{again}: {}/{}{what}", short(provider), short(model))
        }
        Body::ModelResponded { turn, step, text, tool_calls, .. } => {
            let mut parts = vec![format!("turn {turn} step {step}:")];
            if !text.is_empty() {
                parts.push(short(text));
            }
            parts.extend(tool_calls.iter().map(|call| format!("→ {} {}", short(&call.name), short(&call.arguments))));
            parts.join(" ")
        }
        Body::ModelSwitched { turn, step, from_provider, from_model, provider, model, reason } => {
            let reason = reason.as_str();
            format!(
                "turn {turn} step {step} {from_provider}/{from_model} ({reason}), {provider}/{model} is asked instead"
            )
        }
        Body::ModelFailed { turn, step, attempt, kind, detail, retry_at_ms, .. } => {
            let retry = retry_at_ms.map_or_else(String::new, |ms| format!("; again at {}", time::rfc3339(ms)));
            let place = format!("turn {turn} step {step}, attempt {attempt}");
            format!("{place}: {}: {}{retry}", kind.as_str(), short(detail))
        }
        _ => String::new(),
    }
}
