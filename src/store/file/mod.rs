//! Sessions as plain files: `sessions/<id>/events.jsonl` and what belongs to it.
//!
//! | file | what |
//! |---|---|
//! | `events.jsonl` | the newest segment of the log, the only one written to |
//! | `events.<seq>.jsonl` | older segments, named by their first seq, twelve digits |
//! | `events.jsonl.torn-<offset>` | a tail that was never acknowledged, cut off when the log was opened |
//! | `state.yaml` | summary; a cache, never synced, may be deleted at any time |
//! | `lease` | flock(2) file of the process that has the session open for writing |
//! | `artifacts/` | large outputs |

mod freeze;
mod keep;
mod log;
mod read;
mod repair;
mod scan;
mod summary;

pub use freeze::Frozen;
pub use keep::{Artifact, Taken};
pub use repair::Repaired;
pub use scan::{Found, Tail};
pub use summary::Cached;

use super::{Damage, Durable, Log, Logged, Opened, StoreError};
use duragent_core::event::Event;
use duragent_core::{ids, line};
use duragent_platform::file::{self, Lease, LeaseError};
use duragent_platform::reserve::Reserve;
use duragent_platform::wear::{self, What};
use log::FileLog;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the segment that is written to.
pub const LOG_NAME: &str = "events.jsonl";

/// The sessions of a workspace.
#[derive(Debug, Clone)]
pub struct FileStore {
    /// `sessions/`.
    root: PathBuf,
    /// Size in bytes at which a segment is closed and the next begun.
    segment_bytes_max: u64,
    /// Space for what has to be written on a full disk.
    reserve: Option<Arc<Reserve>>,
}

impl FileStore {
    /// Sessions under `root`, which is made when the first one is.
    #[must_use]
    pub fn new(root: PathBuf, segment_bytes_max: u64) -> Self {
        Self { root, segment_bytes_max, reserve: None }
    }

    /// The same, with space for what has to be written on a full disk.
    #[must_use]
    pub fn with_reserve(self, reserve: Option<Arc<Reserve>>) -> Self {
        Self { reserve, ..self }
    }

    /// That space, if it is kept.
    #[must_use]
    pub fn reserve(&self) -> Option<&Reserve> {
        self.reserve.as_deref()
    }

    /// True if the disk took something no more, and nothing new may be begun.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.reserve().is_some_and(Reserve::is_full)
    }

    /// The directory of a session.
    #[must_use]
    pub fn dir(&self, session: &str) -> PathBuf {
        self.root.join(session)
    }

    /// Makes a session: its directory, its lease, and an empty log. Nothing of it counts before its first commit.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is a log of that name with anything acknowledged in it.
    pub fn create(&self, session: &str) -> Result<Box<dyn Log>, StoreError> {
        let dir = self.dir(session);
        self.noted(file::create_dir(&dir).map_err(io_at("cannot make", &dir)))?;
        let lease = self.noted(self.lease(session))?;
        // What a crash before the first commit left behind was never acknowledged, but is kept all the same.
        if scan::segments(&dir)?.is_empty() {
            let log = self.noted(FileLog::begin(dir, lease, self.segment_bytes_max))?;
            return Ok(Box::new(log.with_reserve(self.reserve.clone())));
        }
        let found = scan::scan(&dir, &mut |_| {})?;
        if found.seq > 0 || matches!(found.tail, Tail::Damaged(_) | Tail::TooNew(_)) {
            return Err(StoreError::Exists(session.to_owned()));
        }
        let (log, _) = self.noted(FileLog::resume(dir, lease, self.segment_bytes_max, &found))?;
        Ok(Box::new(log.with_reserve(self.reserve.clone())))
    }

    /// Opens a session for writing: takes its lease, verifies every line, cuts off a torn tail, makes sure that all that is
    /// left is on disk, and hands each event to `replay`.
    ///
    /// # Errors
    /// [`StoreError::Leased`], [`StoreError::NotFound`], [`StoreError::Damaged`], [`StoreError::TooNew`].
    pub fn open(&self, session: &str, replay: &mut dyn FnMut(Event)) -> Result<Opened, StoreError> {
        let dir = self.existing(session)?;
        let lease = self.lease(session)?;
        let found = scan::scan(&dir, replay)?;
        match &found.tail {
            Tail::Damaged(damage) => return Err(StoreError::Damaged(damage.clone())),
            Tail::TooNew(found) => return Err(StoreError::TooNew { session: session.to_owned(), found: *found }),
            Tail::Clean | Tail::Torn { .. } if found.seq == 0 => return Err(StoreError::NotFound(session.to_owned())),
            Tail::Clean | Tail::Torn { .. } => {}
        }
        let (log, saved_as) = self.noted(FileLog::resume(dir, lease, self.segment_bytes_max, &found))?;
        let log = log.with_reserve(self.reserve.clone());
        let dropped_bytes = if let Tail::Torn { bytes, .. } = found.tail { bytes } else { 0 };
        Ok(Opened { log: Box::new(log), dropped_bytes, saved_as })
    }

    /// Reads a session without its lease and hands each intact event to `replay`; says what stands at the end.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or if it cannot be read.
    pub fn verify(&self, session: &str, replay: &mut dyn FnMut(Event)) -> Result<Found, StoreError> {
        let dir = self.existing(session)?;
        let found = scan::scan(&dir, replay)?;
        if found.seq == 0 && !matches!(found.tail, Tail::Damaged(_) | Tail::TooNew(_)) {
            return Err(StoreError::NotFound(session.to_owned()));
        }
        Ok(found)
    }

    /// Hands the lines with `after < seq ≤ through` to `each`, without line feeds, until it returns false. Does not verify;
    /// finds its place without reading what comes before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or if it cannot be read.
    pub fn read(
        &self,
        session: &str,
        after: u64,
        through: u64,
        each: &mut dyn FnMut(u64, &str) -> bool,
    ) -> Result<(), StoreError> {
        read::read(&self.existing(session)?, after, through, each)
    }

    /// Makes sure that all of a session that nobody has open is on disk, and returns its last seq: what a reader may be
    /// told of it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or if it cannot be read or synced.
    pub fn settle(&self, session: &str) -> Result<u64, StoreError> {
        let dir = self.existing(session)?;
        // In this order: what is written behind the last line while we look is not promised.
        let last = read::last_seq(&dir)?;
        let path = dir.join(LOG_NAME);
        match File::open(&path) {
            Ok(log) => {
                wear::synced(What::Log);
                log.sync_data().map_err(io_at("cannot sync", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_at("cannot open", &path)(error)),
        }
        Ok(last)
    }

    /// The events after seq `after`, made sure of: for those who listened when a commit failed whose lines turned out to be
    /// on disk all the same.
    ///
    /// # Errors
    /// As [`FileStore::settle`].
    pub fn durable_after(&self, session: &str, after: u64) -> Result<Vec<Durable<Logged>>, StoreError> {
        let through = self.settle(session)?;
        let mut events = Vec::new();
        self.read(session, after, through, &mut |seq, text| {
            let kind = line::peek_kind(text).unwrap_or_default().to_owned();
            events.push(Durable::mint(Logged { seq, kind, line: text.to_owned() }));
            true
        })?;
        Ok(events)
    }

    /// True if the last line of a log says that nothing was going on: a look at its end instead of a replay. False if that
    /// cannot be told.
    #[must_use]
    pub fn at_rest(&self, session: &str) -> bool {
        read::last_line(&self.dir(session)).ok().flatten().is_some_and(|line| {
            let kind = line::peek_kind(&line);
            matches!(kind, Some("turn_finished" | "session_created" | "session_closed"))
        })
    }

    /// Time of the last event of a log in milliseconds since the epoch, from its last line alone; `None` if that cannot be told.
    #[must_use]
    pub fn last_at_ms(&self, session: &str) -> Option<u64> {
        line::peek_at(&read::last_line(&self.dir(session)).ok()??)
    }

    /// What tells that the newest segment of a log has changed: its length in bytes, and the time of its last change in
    /// nanoseconds since the epoch by the wall clock. Zeros if that cannot be told.
    #[must_use]
    pub fn stamp(&self, session: &str) -> (u64, i64) {
        let meta = fs::metadata(self.dir(session).join(LOG_NAME));
        meta.map_or((0, 0), |meta| (meta.len(), summary::changed_ns(&meta)))
    }

    /// Keeps other processes from spending what is left of a day, as long as it is held.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn day_lease(&self) -> Result<Lease, StoreError> {
        let path = self.root.join("day.lock");
        let held = file::create_dir(&self.root).and_then(|()| Lease::wait(&path));
        held.map_err(io_at("cannot lock", &path))
    }

    /// The log of a session as it is now, for a copy: others may go on writing. `None` if nothing in it was ever acknowledged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::TooNew`], or if it cannot be read or synced.
    pub fn freeze(&self, session: &str) -> Result<Option<Frozen>, StoreError> {
        freeze::freeze(&self.existing(session)?)
    }

    /// Ids of all sessions, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read; a missing one is an empty list.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_at("cannot list", &self.root)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_at("cannot list", &self.root))?;
            if let Some(name) = entry.file_name().to_str().filter(|n| ids::is_id(n)) {
                ids.push(name.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Cuts a damaged log off before the damage. Everything that is cut is kept under another name.
    ///
    /// # Errors
    /// [`StoreError::Leased`], [`StoreError::NotFound`], or if it cannot be written.
    pub fn repair(&self, session: &str) -> Result<Repaired, StoreError> {
        let dir = self.existing(session)?;
        let _lease = self.lease(session)?;
        repair::repair(&dir)
    }

    /// The summary of a session as it was cached, if the log has not changed since.
    #[must_use]
    pub fn cached(&self, session: &str) -> Option<Cached> {
        summary::read(&self.dir(session))
    }

    /// Caches a summary. Failures are of no consequence: it is a cache.
    pub fn cache(&self, session: &str, summary: &Cached) {
        summary::write(&self.dir(session), summary);
    }

    /// Notes whether the disk takes something no more.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let (Err(error), Some(reserve)) = (&result, &self.reserve)
            && error.is_disk_full()
        {
            reserve.note_full();
        }
        result
    }

    fn existing(&self, session: &str) -> Result<PathBuf, StoreError> {
        let dir = self.dir(session);
        if ids::is_id(session) && dir.is_dir() { Ok(dir) } else { Err(StoreError::NotFound(session.to_owned())) }
    }

    fn lease(&self, session: &str) -> Result<Lease, StoreError> {
        // Before anything is written: what a later version keeps there is not ours to touch, its lease included.
        if let Some(found) = scan::later_version(&self.dir(session))? {
            return Err(StoreError::TooNew { session: session.to_owned(), found });
        }
        let path = self.dir(session).join("lease");
        Lease::acquire(&path).map_err(|error| match error {
            LeaseError::Held(pid) => StoreError::Leased { session: session.to_owned(), pid },
            LeaseError::Io(error) => io_at("cannot lease", &path)(error),
        })
    }
}

/// Says what was being done to which file.
fn io_at<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |error| StoreError::Io { what: format!("{what} {}", path.display()), error }
}

/// `sessions/<id>/<file>` of a path, for messages.
fn short(path: &Path) -> String {
    let names: Vec<_> = path.iter().map(|n| n.to_string_lossy()).collect();
    names[names.len().saturating_sub(3)..].join("/")
}

#[cfg(test)]
mod tests;
