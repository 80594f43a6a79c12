//! `duragent ps [--json] [--agent A] [--status S]`

use super::connect::Connection;
use super::{Common, Failure, args, print, text};
use crate::session::api::Status;
use duragent_core::ids;
use duragent_core::json::Value;
use duragent_core::time;
use duragent_platform::clock;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Default)]
struct Options {
    json: bool,
    agent: Option<String>,
    status: Option<Status>,
}

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("json") => options.json = true,
            lexopt::Arg::Long("agent") => options.agent = Some(agent(args::text(parser.value()?)?)?),
            lexopt::Arg::Long("status") => options.status = Some(status(&args::text(parser.value()?)?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let dir = common.existing()?;
    let connection = Connection::open(&dir)?;
    let mut sessions = all(&connection, &options)?;
    connection.close();
    sessions = latest_first(sessions);
    if options.json {
        let answer = Value::Object(vec![("sessions".to_owned(), Value::Array(sessions))]);
        text::put_json(&answer.to_string())?;
        return Ok(0);
    }
    if sessions.is_empty() {
        let filtered = options.agent.is_some() || options.status.is_some();
        text::say(match filtered {
            true => "no session matches; see them all with: duragent ps",
            false => "no sessions yet; begin one with: duragent run AGENT \"hello\" (agents: duragent ls)",
        });
        return Ok(0);
    }
    let mut table = text::Table::new(&["SESSION", "AGENT", "STATUS", "TURNS", "LAST", "CONTEXT", "TITLE"]);
    let now = clock::wall_ms();
    for session in &sessions {
        let field = |name| text::field(session, name);
        let last = text::age(now, last_at(session));
        let (turns, context) = (field("turns"), field("context_tokens"));
        table.row(vec![field("id"), field("agent"), field("status"), turns, last, context, field("title")]);
    }
    print(&table.text(text::width()))
}

/// Checked here, since it goes into a URL.
fn agent(name: String) -> Result<String, Failure> {
    if ids::is_id(&name) {
        return Ok(name);
    }
    Err(Failure::usage(format!("--agent: {}", ids::InvalidId { found: name }), "see the agents with: duragent ls"))
}

fn status(word: &str) -> Result<Status, Failure> {
    Status::parse(word).ok_or_else(|| {
        let error = format!("--status: cannot read {word:?}");
        Failure::usage(error, "expected idle, running, waiting, paused, closed or damaged")
    })
}

/// Every session that matches, page by page.
fn all(connection: &Connection, options: &Options) -> Result<Vec<Value>, Failure> {
    let mut path = String::from("/api/v1/sessions?limit=1000");
    if let Some(agent) = &options.agent {
        path.push_str(&format!("&agent={agent}"));
    }
    if let Some(status) = options.status {
        path.push_str(&format!("&status={}", status.as_str()));
    }
    let (mut sessions, mut after) = (Vec::new(), String::new());
    loop {
        let page = connection.get(&format!("{path}{after}"))?;
        after = match page.get("next").and_then(Value::as_str) {
            Some(next) => format!("&after={next}"),
            None => String::new(),
        };
        if let Value::Object(fields) = page {
            let found = fields.into_iter().find(|(key, _)| key == "sessions");
            if let Some((_, Value::Array(items))) = found {
                sessions.extend(items);
            }
        }
        if after.is_empty() {
            return Ok(sessions);
        }
    }
}

/// By a heap, which is a tenth of the code of another sort.
fn latest_first(sessions: Vec<Value>) -> Vec<Value> {
    let mut order: BinaryHeap<_> = sessions.iter().enumerate().map(|(at, s)| (last_at(s), Reverse(at))).collect();
    let mut sessions: Vec<Option<Value>> = sessions.into_iter().map(Some).collect();
    let next = || order.pop().map(|(_, Reverse(at))| sessions.get_mut(at).and_then(Option::take));
    std::iter::from_fn(next).flatten().collect()
}

fn last_at(session: &Value) -> u64 {
    session.get("last_at").and_then(Value::as_str).and_then(time::parse_rfc3339).unwrap_or(0)
}
