//! What a session needs from storage: a log that is durable before it answers, reading it back, and a cache of
//! summaries. [`file::FileStore`] gives it on plain files.
//!
//! Invariants: a [`Durable`] is minted after a successful sync only. A log whose tail is unknown takes nothing more.
//!
//! Absent: what events mean. The store hands them to whoever replays.

pub mod file;

mod durable;

pub use durable::Durable;

use duragent_core::event::Event;
use duragent_core::session::Effect;
use duragent_platform::file::is_full;
use duragent_platform::process::is_shortage;
use std::fmt;
use std::io;
use std::time::Duration;

/// What one commit puts on disk, and what it causes.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events in order; their `seq` follows the log's without a gap.
    pub events: Vec<Event>,
    /// What the runtime will do about them.
    pub effects: Vec<Effect>,
}

/// An event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub seq: u64,
    /// Its type.
    pub kind: String,
    /// Its line, without the line feed.
    pub line: String,
}

/// What a commit gives back.
#[derive(Debug, Default)]
pub struct Committed {
    /// The events, to be published.
    pub events: Vec<Durable<Logged>>,
    /// The effects, to be run.
    pub effects: Vec<Durable<Effect>>,
    /// Bytes that were written.
    pub bytes: u64,
    /// How long the sync took.
    pub sync_time: Duration,
}

/// A log that is open for writing. Dropping it gives its lease back.
pub trait Log: Send {
    /// Appends all events of `batch` in one write and one sync.
    ///
    /// # Errors
    /// After any error the log is poisoned: nothing of the batch may be acted on, and every later commit fails. Open it
    /// again to find out from disk what is there.
    fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError>;
}

/// What opening a log found.
pub struct Opened {
    /// The log, positioned behind its last event.
    pub log: Box<dyn Log>,
    /// Bytes of a torn tail that were cut off.
    pub dropped_bytes: u64,
    /// Name of the file beside the log that keeps them.
    pub saved_as: Option<String>,
}

/// Why storage did not do it.
#[derive(Debug)]
pub enum StoreError {
    /// No such session.
    NotFound(String),
    /// A session of that name is there already.
    Exists(String),
    /// Another process holds the session.
    Leased {
        /// Session.
        session: String,
        /// Its process id, if it said so.
        pid: Option<u32>,
    },
    /// The log can be read up to a point, but not written.
    Damaged(Damage),
    /// The log was written by a later major version.
    TooNew {
        /// Session.
        session: String,
        /// Its version.
        found: u64,
    },
    /// An earlier error left the log in an unknown state.
    Poisoned(String),
    /// The operating system said no.
    Io {
        /// What was being done, and to which file.
        what: String,
        /// Its answer.
        error: io::Error,
    },
}

/// Where a log stops making sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File, with its path from the workspace.
    pub file: String,
    /// Line in that file, from 1.
    pub line: u64,
    /// Offset of that line in bytes.
    pub byte: u64,
    /// The seq that is expected there.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, byte, seq, what } = self;
        write!(f, "{file}:{line}: expected seq {seq} at byte {byte}: {what}")
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(session) => write!(f, "no session {session:?}"),
            Self::Exists(session) => write!(f, "session {session:?} exists already"),
            Self::Leased { session, pid: Some(pid) } => write!(f, "session {session:?} is in use by process {pid}"),
            Self::Leased { session, pid: None } => write!(f, "session {session:?} is in use by another process"),
            Self::Damaged(damage) => write!(f, "{damage}"),
            Self::TooNew { session, found } => {
                write!(
                    f,
                    "session {session:?} has log version {found}, this build writes version 1 and opens it read-only"
                )
            }
            Self::Poisoned(session) => {
                write!(f, "the log of session {session:?} failed before and has to be opened again")
            }
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// True if the disk takes nothing: no space, no quota, or read-only.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { error, .. } if is_full(error))
    }

    /// True if there were no descriptors or no memory left, which may pass.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Io { error, .. } if is_shortage(error))
    }
}
