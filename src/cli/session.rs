//! `duragent session COMMAND …`: one session, looked at, changed, checked, carried elsewhere.
//!
//! `verify`, `repair` and `import` work on the files and need no configuration that is right; all else goes through a
//! runtime.

mod change;
mod export;
mod import;
mod log;
mod prompt;
mod prune;
mod repair;
mod show;
mod verify;

use super::connect::{self, Connection};
use super::{Common, Failure, args, print, text};
use crate::config::{Limits, Workspace, env};
use crate::store::StoreError;
use crate::store::file::FileStore;
use duragent_core::json::{Reader, Value};
use std::path::{Path, PathBuf};

/// A command on one session.
pub struct Subcommand {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub usage: &'static str,
    /// What it is good for.
    pub summary: &'static str,
    run: fn(Common, lexopt::Parser) -> Result<u8, Failure>,
}

/// All of them.
pub const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "show",
        usage: "show SESSION [--json|--prompt]",
        summary: "the conversation, or the next request",
        run: show::run,
    },
    Subcommand { name: "log", usage: "log SESSION [-f] [--json]", summary: "the events; -f follows", run: log::run },
    Subcommand { name: "cancel", usage: "cancel SESSION", summary: "end the running turn", run: change::cancel },
    Subcommand { name: "close", usage: "close SESSION", summary: "take no more messages", run: change::close },
    Subcommand {
        name: "fork",
        usage: "fork SESSION [--at SEQ]",
        summary: "a new session that begins as this one",
        run: change::fork,
    },
    Subcommand {
        name: "verify",
        usage: "verify SESSION|--all",
        summary: "check every line of the log",
        run: verify::run,
    },
    Subcommand {
        name: "repair",
        usage: "repair SESSION",
        summary: "cut a damaged log before the damage",
        run: repair::run,
    },
    Subcommand {
        name: "export",
        usage: "export SESSION [-o FILE]",
        summary: "the log as JSON lines",
        run: export::run,
    },
    Subcommand { name: "prune", usage: "prune [--dry-run]", summary: "remove what is not to be kept", run: prune::run },
    Subcommand { name: "import", usage: "import FILE [--id NEW]", summary: "take up an export", run: import::run },
];

/// Lines of the log in one answer of the runtime: bounds memory on both sides.
const PAGE_LINES: usize = 200;

pub fn run(common: Common, mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let names = || SUBCOMMANDS.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    match parser.next()? {
        Some(lexopt::Arg::Short('h') | lexopt::Arg::Long("help")) => help(),
        Some(lexopt::Arg::Value(name)) => {
            let name = name.to_string_lossy();
            let Some(command) = SUBCOMMANDS.iter().find(|c| c.name == name) else {
                let error = format!("unknown command \"session {name}\"");
                return Err(Failure::usage(error, &format!("there are: {}", names())));
            };
            (command.run)(common, parser).map_err(|failure| failure.of(&format!("session {}", command.usage)))
        }
        Some(other) => Err(other.unexpected().into()),
        None => {
            Err(Failure::usage("expected a command for the session, found none", &format!("there are: {}", names())))
        }
    }
}

fn help() -> Result<u8, Failure> {
    let mut out = String::from("duragent [--dir WORKSPACE] session COMMAND …\n\n");
    let width = SUBCOMMANDS.iter().map(|c| c.usage.len()).max().unwrap_or(0);
    for command in SUBCOMMANDS {
        out.push_str(&format!("  {:width$}  {}\n", command.usage, command.summary));
    }
    out.push_str("\nSESSION is an id or the beginning of one\n");
    print(&out)
}

/// What is left on the command line: the name of one session and nothing else.
fn only_session(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let mut session = None;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Value(value) if session.is_none() => session = Some(args::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    named(session)
}

/// A session has to be named.
fn named(session: Option<String>) -> Result<String, Failure> {
    let missing = || Failure { code: 2, error: "expected a session, found none".to_owned(), hint: None };
    session.ok_or_else(missing)
}

/// The state of a session whose log is whole; damage is an error.
pub(super) fn intact(connection: &Connection, id: &str) -> Result<Value, Failure> {
    let session = connection.get(&format!("/api/v1/sessions/{id}"))?;
    if session.get("status").and_then(Value::as_str) == Some("damaged") {
        return Err(Failure::new(text::field(&session, "detail")).hint(connect::DAMAGED_HINT));
    }
    Ok(session)
}

/// Hands the lines of the log behind seq `after` to `each`, until it returns false; a page at a time.
pub(super) fn lines(
    connection: &Connection,
    id: &str,
    mut after: u64,
    each: &mut dyn FnMut(&str) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    loop {
        let path = format!("/api/v1/sessions/{id}/events?follow=false&limit={PAGE_LINES}&after={after}");
        let response = connection.request("GET", &path, None)?;
        let page = std::str::from_utf8(&response.body).unwrap_or_default();
        let (lines, next) = read_page(page).map_err(|error| Failure::new(format!("GET {path}: {error}")))?;
        for line in lines {
            if !each(line)? {
                return Ok(());
            }
        }
        match next {
            Some(seq) => after = seq,
            None => return Ok(()),
        }
    }
}

/// The lines of a page, as they stand in it, and where the next one begins.
fn read_page(page: &str) -> Result<(Vec<&str>, Option<u64>), duragent_core::json::Error> {
    let (mut lines, mut next) = (Vec::new(), None);
    let mut reader = Reader::new(page);
    let mut first = true;
    reader.begin_object()?;
    while let Some(key) = reader.key(&mut first)? {
        match &*key {
            "events" => {
                let mut first = true;
                reader.begin_array()?;
                while reader.element(&mut first)? {
                    lines.push(reader.raw()?);
                }
            }
            "next" if !reader.null()? => next = Some(reader.u64()?),
            "next" => {}
            _ => drop(reader.raw()?),
        }
    }
    reader.end()?;
    Ok((lines, next))
}

/// The files of the workspace at `dir`.
fn store(dir: &Path) -> FileStore {
    store_in(dir, dir.join("sessions"))
}

/// Sessions in `root`, kept as the workspace at `dir` says. A configuration that is wrong must not keep anybody from a log:
/// then segments are as long as they are by default.
fn store_in(dir: &Path, root: PathBuf) -> FileStore {
    const NAME: &str = "log_segment_bytes_max";
    let configured = Workspace::load(dir, &env::process, super::setup::TOOLS).ok();
    let default = || Limits::TABLE.iter().find(|(name, ..)| *name == NAME).map_or(u64::MAX, |(_, value, _)| *value);
    let segment = configured.map_or_else(default, |workspace| workspace.config.limits.log_segment_bytes_max);
    FileStore::new(root, segment)
}

/// The id that `prefix` means, from the files.
fn stored_id(store: &FileStore, prefix: &str) -> Result<String, Failure> {
    connect::pick(prefix, &store.list().map_err(stored)?)
}

/// What the store did not do.
pub(super) fn stored(error: StoreError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        StoreError::NotFound(_) => failure.hint("see them with: duragent ps"),
        StoreError::Exists(_) => failure.hint("give it another id with: --id NEW"),
        StoreError::Leased { .. } => failure.hint("end what works on it, or stop the server, then try again"),
        StoreError::Damaged(_) => failure.hint(connect::DAMAGED_HINT),
        StoreError::TooNew { .. } => failure.hint("use a build that is as new as the log"),
        StoreError::Io { .. } if error.is_disk_full() => {
            failure.hint("free some space, or have it mounted for writing")
        }
        StoreError::Poisoned(_) | StoreError::Io { .. } => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::read_page;

    #[test]
    fn lines_come_out_of_a_page_as_they_stand_in_it() {
        let check = |page: &str, lines: &[&str], next| {
            assert_eq!(read_page(page), Ok((lines.to_vec(), next)), "{page}");
        };
        check(r#"{"events":[],"next":null}"#, &[], None);
        check(
            r#"{"events":[{"seq":1, "a":"\u0041"},{"seq":2}],"next":2}"#,
            &[r#"{"seq":1, "a":"\u0041"}"#, "{\"seq\":2}"],
            Some(2),
        );
        check(r#"{"more":[1],"next":7}"#, &[], Some(7));
        for page in ["", "[]", r#"{"events":[{]}"#, r#"{"next":-1}"#, r#"{"events":[]} x"#] {
            assert!(read_page(page).is_err(), "{page}");
        }
    }
}
