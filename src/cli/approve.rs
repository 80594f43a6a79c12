//! `duragent approve|deny SESSION [ID] [--scope once|session|always]`
//!
//! What was decided is printed as soon as it is on disk. With a server that is all: the turn goes on there. Without one it
//! goes on in this process, since a decision that nobody acts on would help nobody: the command then waits until the session
//! rests or waits for the next approval, prints the replies, and its exit code says how it went. Ctrl-C leaves the rest on
//! disk; whoever opens the session next goes on with it.

use super::connect::{self, Connection, session_id};
use super::session::intact;
use super::{Common, Failure, args, interrupt, text};
use crate::http::client::Stream;
use duragent_core::event::{Body, Scope, TurnReason};
use duragent_core::json::Value;
use duragent_core::line;
use std::sync::Arc;

/// Characters of a call's arguments that are shown.
const ARGUMENTS_CHARS_MAX: usize = 400;

/// `approve SESSION [ID]`
pub fn approve(common: Common, parser: lexopt::Parser) -> Result<u8, Failure> {
    run(common, parser, "grant", "approve")
}

/// `deny SESSION [ID]`
pub fn deny(common: Common, parser: lexopt::Parser) -> Result<u8, Failure> {
    run(common, parser, "deny", "deny")
}

fn run(common: Common, mut parser: lexopt::Parser, decision: &str, command: &str) -> Result<u8, Failure> {
    let (mut session, mut approval, mut scope) = (None, None, Scope::Once);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("scope") => scope = self::scope(&args::text(parser.value()?)?)?,
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            lexopt::Arg::Value(value) if approval.is_none() => approval = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = || Failure { code: 2, error: "expected a session, found none".to_owned(), hint: None };
    let session = session.ok_or_else(missing)?;
    let dir = common.existing()?;
    let connection = Connection::open(&dir)?;
    let id = session_id(&connection, &session)?;
    let before = intact(&connection, &id)?.get("last_seq").and_then(Value::as_u64).unwrap_or(0);
    let open = connection.get(&format!("/api/v1/sessions/{id}/approvals"))?;
    let request = choose(&id, text::list(&open, "approvals"), approval.as_deref(), command)?;
    // From here on an interruption must not look like a crash to the session.
    let signals = interrupt::catch()?;
    let approval = text::field(request, "approval_id");
    let body = format!("{{\"decision\":\"{decision}\",\"scope\":\"{}\"}}", scope.as_str());
    connection.json("POST", &format!("/api/v1/sessions/{id}/approvals/{approval}"), Some(&body))?;
    let done = if decision == "grant" { "granted" } else { "denied" };
    text::put(&format!("{done} ({}) {}\n", scope.as_str(), shown(request)))?;
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
    let listed = || open.iter().map(shown).collect::<Vec<_>>().join("\n");
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

/// A request on one line: id, tool, arguments.
fn shown(request: &Value) -> String {
    let field = |name| text::one_line(&text::field(request, name), usize::MAX);
    let arguments = request.get("arguments").map(Value::to_string).unwrap_or_default();
    format!("{}: {} {}", field("approval_id"), field("name"), text::one_line(&arguments, ARGUMENTS_CHARS_MAX))
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
                    text::put(&format!("{}\n", text::clean(reply.trim_end())))?;
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
            let open = connection.get(&format!("/api/v1/sessions/{id}/approvals"))?;
            let open: Vec<String> = text::list(&open, "approvals").iter().map(shown).collect();
            let failure = Failure::new(format!("the turn waits for an approval\n{}", open.join("\n")));
            return Err(Failure { code: 4, ..failure.hint(format!("decide with: duragent approve {id}, or deny")) });
        }
        let Some((turn, reason, detail)) = &self.last else { return Ok(0) };
        let code = match reason {
            TurnReason::Completed => return Ok(0),
            TurnReason::Limit => 5,
            TurnReason::Failed | TurnReason::Cancelled | TurnReason::Quarantined => 1,
        };
        let detail = detail.as_deref().map_or_else(String::new, |detail| format!(": {detail}"));
        let failure = Failure::new(format!("turn {turn} is {}{detail}", reason.as_str()));
        Err(Failure { code, ..failure.hint(format!("see what happened with: duragent session log {id}")) })
    }
}
