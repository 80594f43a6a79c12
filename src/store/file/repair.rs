//! `duragent session repair`: an explicit cut before the damage, with the original kept.

use super::scan::{self, Tail, segments};
use super::{Damage, LOG_NAME, StoreError, io_at};
use duragent_platform::file;
use std::fs::{self, OpenOptions};
use std::path::Path;

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong; `None` if nothing was, and nothing was changed.
    pub damage: Option<Damage>,
    /// Events that are left.
    pub kept: u64,
    /// Bytes that were cut off.
    pub dropped_bytes: u64,
    /// Files that hold the original, in the session's directory.
    pub saved_as: Vec<String>,
}

pub(super) fn repair(dir: &Path) -> Result<Repaired, StoreError> {
    let found = scan::scan(dir, &mut |_| {})?;
    let damage = match &found.tail {
        Tail::Damaged(damage) => damage.clone(),
        Tail::TooNew(version) => {
            let session = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(StoreError::TooNew { session, found: *version });
        }
        Tail::Clean | Tail::Torn { .. } => {
            return Ok(Repaired { damage: None, kept: found.seq, dropped_bytes: 0, saved_as: Vec::new() });
        }
    };
    let mut saved_as = Vec::new();
    let all = segments(dir)?;
    let broken = all.iter().position(|p| *p == found.segment).unwrap_or(0);
    // The originals first, whole and durable; only then is anything cut.
    let mut dropped_bytes = 0;
    for path in &all[broken..] {
        let bytes = fs::metadata(path).map_err(io_at("cannot stat", path))?.len();
        dropped_bytes += if *path == found.segment { bytes - found.offset } else { bytes };
        saved_as.push(keep(dir, path)?);
    }
    for path in &all[broken + 1..] {
        fs::remove_file(path).map_err(io_at("cannot remove", path))?;
    }
    let cut = OpenOptions::new().write(true).open(&found.segment).map_err(io_at("cannot open", &found.segment))?;
    cut.set_len(found.offset).and_then(|()| cut.sync_all()).map_err(io_at("cannot cut", &found.segment))?;
    let newest = dir.join(LOG_NAME);
    if found.segment != newest {
        fs::rename(&found.segment, &newest).map_err(io_at("cannot rename to", &newest))?;
    }
    file::sync_dir(dir).map_err(io_at("cannot sync", dir))?;
    Ok(Repaired { damage: Some(damage), kept: found.seq, dropped_bytes, saved_as })
}

/// Copies `path` to the first free `NAME.damaged-N` and returns that name.
fn keep(dir: &Path, path: &Path) -> Result<String, StoreError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let copy = (1u32..).map(|n| format!("{name}.damaged-{n}")).find(|copy| !dir.join(copy).exists());
    let copy = copy.unwrap_or_default();
    let target = dir.join(&copy);
    fs::copy(path, &target).map_err(io_at("cannot keep the original as", &target))?;
    let synced = fs::File::open(&target).and_then(|f| f.sync_all()).and_then(|()| file::sync_dir(dir));
    synced.map_err(io_at("cannot sync", &target))?;
    Ok(copy)
}
