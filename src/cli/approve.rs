//! `duragent approve|deny SESSION [ID] [--scope once|session|always] [--show]`
//!
//! `--show` shows what waits, whole, and decides nothing. On a terminal somebody who names no request is shown it and asked.
//!
//! What was decided is printed as soon as it is on disk. With a server that is all: the turn goes on there. Without one it
//! goes on in this process, since a decision that nobody acts on would help nobody: the command then waits until the session
//! rests or waits for the next approval, prints the replies, and its exit code says how it went. Ctrl-C leaves the rest on
//! disk; whoever opens the session next goes on with it.

use super::connect::{self, Connection, session_id};
use super::render::Style;
use super::session::intact;
use super::{Common, Failure, approval, args, interrupt, pick, run, text};
use crate::http::client::Stream;
use duragent_core::event::{Body, Scope, TurnReason};
use duragent_core::json::{ObjectWriter, Value};
use duragent_core::line;
use duragent_platform::terminal;
use std::io::BufRead;
use std::sync::Arc;

/// `approve SESSION [ID]`
pub fn approve(common: Common, parser: lexopt::Parser) -> Result<u8, Failure> {
    decide(common, parser, "grant", "approve")
}

/// `deny SESSION [ID]`
pub fn deny(common: Common, parser: lexopt::Parser) -> Result<u8, Failure> {
    decide(common, parser, "deny", "deny")
}

fn decide(common: Common, mut parser: lexopt::Parser, decision: &str, command: &str) -> Result<u8, Failure> {
    let (mut session, mut named, mut scope, mut show) = (None, None, Scope::Once, false);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("scope") => scope = self::scope(&args::text(parser.value()?)?)?,
            lexopt::Arg::Long("show") => show = true,
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            lexopt::Arg::Value(value) if named.is_none() => named = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = || Failure { code: 2, error: "expected a session, found none".to_owned(), hint: None };
    let session = session.ok_or_else(missing)?;
    let dir = common.existing()?;
    let connection = Connection::open(&dir)?;
    let id = session_id(&connection, &session)?;
    let before = intact(&connection, &id)?.get("last_seq").and_then(Value::as_u64).unwrap_or(0);
    let open = pick::approvals(&connection, &id)?;
    if show {
        let wanted = |request: &&Value| named.as_ref().is_none_or(|id| text::field(request, "approval_id") == *id);
        for request in open.iter().filter(wanted) {
            text::put(&whole(&connection, &id, request)?)?;
        }
        connection.close();
        return Ok(0);
    }
    let request = choose(&id, &open, named.as_deref(), command)?;
    let person = terminal::is_terminal(std::io::stdin()) && terminal::is_terminal(std::io::stdout());
    if person && named.is_none() && !confirmed(&whole(&connection, &id, request)?, command)? {
        connection.close();
        text::say("nothing is decided");
        return Ok(1);
    }
    // From here on an interruption must not look like a crash to the session.
    let signals = interrupt::catch()?;
    let approval_id = text::field(request, "approval_id");
    let mut body = String::new();
    let mut object = ObjectWriter::new(&mut body);
    object.str("decision", decision).str("scope", scope.as_str()).str("by", "cli");
    object.str("digest", &text::field(request, "digest"));
    object.finish();
    connection.json("POST", &format!("/api/v1/sessions/{id}/approvals/{approval_id}"), Some(&body))?;
    let done = if decision == "grant" { "granted" } else { "denied" };
    text::put(&format!("{done} ({}) {}\n", scope.as_str(), approval::short(request)))?;
    if !connection.is_own() {
        return Ok(0);
    }
    let connection = Arc::new(connection);
    let (shared, session) = (Arc::clone(&connection), id.clone());
    let code = interrupt::until_interrupted(&signals, move || wait(&shared, &session, before));
    connection.close();
    code
}

fn scope(word: &str) -> Result<Scope, Failure> {
    Scope::parse(word)
        .ok_or_else(|| Failure::usage(format!("--scope: cannot read {word:?}"), "expected once, session or always"))
}

/// The request that is meant: the one named, or the only one there is.
fn choose<'a>(id: &str, open: &'a [Value], named: Option<&str>, command: &str) -> Result<&'a Value, Failure> {
    let listed = || open.iter().map(approval::short).collect::<Vec<_>>().join("\n");
    match (named, open) {
        (_, []) => Err(Failure::new(format!("session {id} waits for no approval"))
            .hint("see who does with: duragent ps --status waiting")),
        (None, [only]) => Ok(only),
        (None, many) => {
            let error = format!("session {id} waits for {} approvals", many.len());
            Err(Failure::usage(error, &format!("say which with: duragent {command} {id} ID\n{}", listed())))
        }
        (Some(named), _) => {
            let found = open.iter().find(|request| text::field(request, "approval_id") == named);
            found.ok_or_else(|| {
                Failure::new(format!("session {id} does not wait for an approval {named:?}")).hint(listed())
            })
        }
    }
}

/// All of a request, and why it was made if the policy did not ask for it.
fn whole(connection: &Connection, id: &str, request: &Value) -> Result<String, Failure> {
    let (mut out, why) = (approval::whole(request), approval::why(connection, id, request)?);
    if !why.is_empty() {
        out.push_str(&["  why: ", &why, "\n"].concat());
    }
    Ok(out)
}

/// Shows a request and asks; only a clear yes is one.
fn confirmed(request: &str, command: &str) -> Result<bool, Failure> {
    text::put(&[request, command, " it? [y/N] "].concat())?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Waits until a session of our own runtime has nothing more to do, and prints the replies on the way.
fn wait(connection: &Connection, id: &str, mut after: u64) -> Result<u8, Failure> {
    let mut turns = Turns::default();
    loop {
        let stream = connection.client().events(&format!("/api/v1/sessions/{id}/events"), Some(after));
        let events = match stream.map_err(|error| Failure::new(format!("the runtime does not answer: {error}")))? {
            Stream::Events(events) => events,
            Stream::Other(response) => return Err(connect::problem(&response)),
        };
        for event in events.map_while(Result::ok) {
            // Tokens and the like carry no seq.
            let Some(seq) = line::peek_seq(event.data.as_bytes()) else { continue };
            after = seq;
            if let Ok(event) = line::parse(&event.data) {
                turns.take(&event.body)?;
            }
            let session = connection.get(&format!("/api/v1/sessions/{id}"))?;
            let status = text::field(&session, "status");
            if status != "running" && session.get("last_seq").and_then(Value::as_u64) <= Some(seq) {
                return turns.end(connection, id, &status);
            }
        }
    }
}

/// The turns that came to rest while we waited.
#[derive(Default)]
struct Turns {
    reply: String,
    last: Option<(u64, TurnReason, Option<String>)>,
}

impl Turns {
    fn take(&mut self, body: &Body) -> Result<(), Failure> {
        match body {
            Body::ModelResponded { text, .. } => self.reply.clone_from(text),
            Body::TurnFinished { turn, reason, detail, .. } => {
                let reply = std::mem::take(&mut self.reply);
                if *reason == TurnReason::Completed {
                    let live = Style::of_process().live;
                    let reply = if live { text::clean(&reply) } else { reply };
                    text::put(&format!("{}\n", reply.trim_end()))?;
                }
                self.last = Some((*turn, *reason, detail.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    /// The exit code, or why the last turn did not complete.
    fn end(&self, connection: &Connection, id: &str, status: &str) -> Result<u8, Failure> {
        if status == "waiting" {
            let open: Vec<String> = pick::approvals(connection, id)?.iter().map(approval::short).collect();
            let failure = Failure::new(format!("the turn waits for an approval\n{}", open.join("\n")));
            return Err(Failure {
                code: run::WAITING,
                ..failure.hint(format!("decide with: duragent approve {id}, or deny"))
            });
        }
        if status == "paused" {
            let failure = Failure::new("the turn waits until a model can be reached");
            return Err(failure.hint(format!("see why with: duragent session log {id}")));
        }
        let Some((turn, reason, detail)) = &self.last else { return Ok(0) };
        let code = match reason {
            TurnReason::Completed => return Ok(0),
            TurnReason::Limit => run::LIMIT,
            TurnReason::Failed | TurnReason::Cancelled | TurnReason::Quarantined => 1,
        };
        let detail = detail.as_deref().map_or_else(String::new, |detail| format!(": {detail}"));
        let failure = Failure::new(format!("turn {turn} is {}{detail}", reason.as_str()));
        Err(Failure { code, ..failure.hint(format!("see what happened with: duragent session log {id}")) })
    }
}
