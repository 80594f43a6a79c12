//! Which session a command means: a new one, one by name, the last one of an agent, or one by a prefix of its id.

use super::Failure;
use super::connect::{self, Connection};
use duragent_core::ids::{self, InvalidId};
use duragent_core::json::{ObjectWriter, Value};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Which {
    /// A new session.
    #[default]
    New,
    /// The one with this id, made if there is none.
    Named(String),
    /// The one of the agent with the newest event.
    Last,
    /// The one whose id begins so.
    Resume(String),
}

/// A session as the runtime describes it.
#[derive(Debug, Clone)]
pub struct Picked {
    /// Its id.
    pub id: String,
    /// Its agent.
    pub agent: String,
    /// What it was doing.
    pub status: String,
    /// Its last event then.
    pub last_seq: u64,
    /// Its last turn then, running and queued ones included.
    pub turns: u64,
}

impl Which {
    /// Takes an option that says which; two of them are one too many.
    pub fn set(&mut self, which: Self) -> Result<(), Failure> {
        if *self != Self::New {
            return Err(Failure::usage(
                "expected one of -c, --resume and --session, found two",
                "leave one of them out",
            ));
        }
        if let Self::Named(id) = &which
            && !ids::is_id(id)
        {
            let found = InvalidId { found: id.clone() };
            return Err(Failure::usage(format!("--session: {found}"), "choose another name"));
        }
        *self = which;
        Ok(())
    }

    /// Finds or makes the session. `agent` may be left out for [`Which::Resume`].
    pub fn pick(&self, connection: &Connection, agent: Option<&str>) -> Result<Picked, Failure> {
        let wanted = match (self, agent) {
            (Self::Resume(_), _) => agent.unwrap_or_default(),
            (_, Some(agent)) => agent,
            (_, None) => return Err(Failure { code: 2, error: "expected an agent".into(), hint: None }),
        };
        if !wanted.is_empty() {
            usable(connection, wanted)?;
        }
        let picked = match self {
            Self::New => create(connection, wanted, None)?,
            Self::Named(id) => match show(connection, id)? {
                Some(picked) => picked,
                None => create(connection, wanted, Some(id))?,
            },
            Self::Last => last(connection, wanted)?,
            Self::Resume(prefix) => {
                let id = connect::session_id(connection, prefix)?;
                show(connection, &id)?.ok_or_else(|| Failure::new(format!("no session {id:?}")))?
            }
        };
        if picked.status == "damaged" {
            // Its agent may not be known either; what is wrong, and where, comes first.
            let summary = connection.get(&format!("/api/v1/sessions/{}", picked.id))?;
            let what = summary.get("detail").and_then(Value::as_str).unwrap_or("its log is damaged");
            return Err(Failure::new(what).hint(connect::DAMAGED_HINT));
        }
        if !wanted.is_empty() && picked.agent != wanted {
            let error = format!("session {} is of agent {:?}, not {wanted:?}", picked.id, picked.agent);
            return Err(Failure::new(error).hint("name its agent, or another session"));
        }
        Ok(picked)
    }
}

/// The session as it is now.
///
/// # Errors
/// If there is none, or nobody answers.
pub fn now(connection: &Connection, id: &str) -> Result<Picked, Failure> {
    picked(&connection.get(&format!("/api/v1/sessions/{id}"))?)
}

/// What waits for somebody's word, as the runtime lists it.
///
/// # Errors
/// If nobody answers.
pub fn approvals(connection: &Connection, id: &str) -> Result<Vec<Value>, Failure> {
    let answer = connection.get(&format!("/api/v1/sessions/{id}/approvals"))?;
    match answer.get("approvals") {
        Some(Value::Array(list)) => Ok(list.clone()),
        _ => Ok(Vec::new()),
    }
}

/// Fails if there is no such agent or its files are wrong.
fn usable(connection: &Connection, agent: &str) -> Result<(), Failure> {
    let answer = connection.get("/api/v1/agents")?;
    let Some(Value::Array(agents)) = answer.get("agents") else { return Ok(()) };
    let name = |a: &Value| a.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    match agents.iter().find(|a| name(a) == agent) {
        None => {
            let names: Vec<String> = agents.iter().map(name).collect();
            Err(Failure::new(format!("no agent {agent:?}; there are: {}", names.join(", ")))
                .hint("an agent is a folder agents/NAME with an agent.yaml"))
        }
        Some(found) => match found.get("error").and_then(Value::as_str) {
            Some(error) => {
                let error = format!("agent {agent:?} cannot be used: {error}");
                Err(Failure::config(error).hint("see it all with: duragent check"))
            }
            None => Ok(()),
        },
    }
}

fn show(connection: &Connection, id: &str) -> Result<Option<Picked>, Failure> {
    let path = format!("/api/v1/sessions/{id}");
    let answer = connection.client().request("GET", &path, &[], b"");
    match answer {
        Ok(response) if response.status == 404 => Ok(None),
        _ => now(connection, id).map(Some),
    }
}

fn create(connection: &Connection, agent: &str, id: Option<&str>) -> Result<Picked, Failure> {
    let mut body = String::new();
    let mut object = ObjectWriter::new(&mut body);
    object.str("agent", agent).str_opt("id", id);
    object.finish();
    picked(&connection.json("POST", "/api/v1/sessions", Some(&body))?)
}

/// The session of `agent` with the newest event among those that take messages.
fn last(connection: &Connection, agent: &str) -> Result<Picked, Failure> {
    let mut newest: Option<(String, Picked)> = None;
    let mut after = String::new();
    loop {
        let page = connection.get(&format!("/api/v1/sessions?agent={agent}&limit=1000{after}"))?;
        let Some(Value::Array(sessions)) = page.get("sessions") else { break };
        for session in sessions {
            let at = session.get("last_at").and_then(Value::as_str).unwrap_or_default().to_owned();
            let found = picked(session)?;
            let open = found.status != "closed" && found.status != "damaged";
            if open && newest.as_ref().is_none_or(|(best, _)| at > *best) {
                newest = Some((at, found));
            }
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    match newest {
        Some((_, picked)) => Ok(picked),
        None => {
            Err(Failure::new(format!("agent {agent:?} has no session to continue")).hint("leave out -c to begin one"))
        }
    }
}

fn picked(session: &Value) -> Result<Picked, Failure> {
    let text = |name: &str| session.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| session.get(name).and_then(Value::as_u64);
    match (text("id"), text("agent"), text("status"), number("last_seq"), number("turns")) {
        (Some(id), Some(agent), Some(status), Some(last_seq), Some(turns)) => {
            Ok(Picked { id, agent, status, last_seq, turns })
        }
        _ => {
            Err(Failure::new("the runtime describes the session in an unknown way; is the server of another version?"))
        }
    }
}
