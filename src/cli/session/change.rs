//! `duragent session cancel|close|fork SESSION`

use super::{named, only_session};
use crate::cli::connect::{Connection, session_id};
use crate::cli::{Common, Failure, args, print, text};

/// `cancel SESSION`
pub fn cancel(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let session = only_session(&mut parser)?;
    let connection = Connection::open(&common.existing()?)?;
    let id = session_id(&connection, &session)?;
    super::intact(&connection, &id)?;
    let answer = connection.json("POST", &format!("/api/v1/sessions/{id}/cancel"), None)?;
    connection.close();
    print(&format!("turn {} of session {id} is cancelled\n", text::field(&answer, "turn")))
}

/// `close SESSION`
pub fn close(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let session = only_session(&mut parser)?;
    let connection = Connection::open(&common.existing()?)?;
    let id = session_id(&connection, &session)?;
    connection.json("DELETE", &format!("/api/v1/sessions/{id}"), None)?;
    connection.close();
    print(&format!("session {id} is closed\n"))
}

/// `fork SESSION [--at SEQ]`: prints the id of the new session, and nothing else.
pub fn fork(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut session, mut at) = (None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("at") => at = Some(args::number::<u64>(parser.value()?, "--at")?),
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let session = named(session)?;
    let connection = Connection::open(&common.existing()?)?;
    let id = session_id(&connection, &session)?;
    super::intact(&connection, &id)?;
    let body = at.map(|seq| format!("{{\"seq\":{seq}}}"));
    let answer = connection.json("POST", &format!("/api/v1/sessions/{id}/fork"), body.as_deref())?;
    connection.close();
    print(&format!("{}\n", text::field(&answer, "id")))
}
