//! What sessions take on the disk, and taking it back.
//!
//! Invariant: a session goes in one step, by a name that no list shows; whatever dies in the middle of removing its files
//! leaves no half of it behind. Nothing is touched without the session's lease.

use super::{FileStore, LOG_NAME, StoreError, io_at};
use duragent_core::ids;
use duragent_platform::file;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Beginning of the names of sessions that are being removed.
const REMOVED: &str = ".removed-";
/// Directories in one another that are looked into.
const DEPTH_MAX: u32 = 16;

/// A file that a session could do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is.
    pub path: PathBuf,
    /// When it was last changed, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Its size.
    pub bytes: u64,
}

/// What a session takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// All its files together.
    pub bytes: u64,
    /// When its log was last changed, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Its artifacts.
    pub artifacts: Vec<Artifact>,
}

impl FileStore {
    /// What a session takes. What cannot be looked at takes nothing.
    #[must_use]
    pub fn taken(&self, session: &str) -> Taken {
        let dir = self.dir(session);
        let at_ms = fs::metadata(dir.join(LOG_NAME)).map_or(0, |meta| changed_ms(&meta));
        let mut taken = Taken { at_ms, ..Taken::default() };
        let artifacts = dir.join("artifacts");
        each_file(&dir, DEPTH_MAX, &mut |path, meta| {
            taken.bytes += meta.len();
            if path.parent() == Some(&artifacts) {
                taken.artifacts.push(Artifact { path, at_ms: changed_ms(meta), bytes: meta.len() });
            }
        });
        taken
    }

    /// Says that a log, whose times are from before the clock was set, was there at `now_ms`: so that its age has a beginning.
    pub fn date(&self, session: &str, now_ms: u64) {
        let at = UNIX_EPOCH + std::time::Duration::from_millis(now_ms);
        // Without it, it is kept for longer.
        fs::File::open(self.dir(session).join(LOG_NAME)).and_then(|log| log.set_modified(at)).ok();
    }

    /// Removes a session whose last event is number `seq`, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Leased`] if somebody works on it, [`StoreError::Exists`] if it has got another event, or as rename(2).
    pub fn remove(&self, session: &str, seq: u64) -> Result<(), StoreError> {
        let dir = self.existing(session)?;
        let _lease = self.lease(session)?;
        if super::read::last_seq(&dir)? != seq {
            return Err(StoreError::Exists(session.to_owned()));
        }
        let gone = self.root.join(format!("{REMOVED}{session}-{}", std::process::id()));
        fs::rename(&dir, &gone).map_err(io_at("cannot rename to", &gone))?;
        file::sync_dir(&self.root).map_err(io_at("cannot sync", &self.root))?;
        remove_all(&gone)
    }

    /// Removes files of a session whose last event is number `seq`; as many as could be removed is the value.
    ///
    /// # Errors
    /// As [`FileStore::remove`].
    pub fn remove_artifacts(&self, session: &str, seq: u64, files: &[Artifact]) -> Result<u64, StoreError> {
        let dir = self.existing(session)?;
        let _lease = self.lease(session)?;
        if super::read::last_seq(&dir)? != seq {
            return Err(StoreError::Exists(session.to_owned()));
        }
        Ok(files.iter().filter(|file| fs::remove_file(&file.path).is_ok()).count() as u64)
    }

    /// Removes what is left of sessions whose removal did not come to its end.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn sweep(&self) -> Result<(), StoreError> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(REMOVED));
            if rest.and_then(|rest| rest.rsplit_once('-')).is_some_and(|(id, _)| ids::is_id(id)) {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn remove_all(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_at("cannot remove", path)(error)),
        _ => Ok(()),
    }
}

fn changed_ms(meta: &fs::Metadata) -> u64 {
    let since = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Hands every file below `dir` to `each`; links are not followed.
fn each_file(dir: &Path, depth: u32, each: &mut dyn FnMut(PathBuf, &fs::Metadata)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if !meta.is_dir() {
            each(entry.path(), &meta);
        } else if depth > 0 {
            each_file(&entry.path(), depth - 1, each);
        }
    }
}
