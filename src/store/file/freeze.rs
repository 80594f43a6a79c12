//! A log as it is at one moment, for a copy that is made while others write: its segments, opened, and where the last line ends that is
//! on disk.
//!
//! The segments are opened first, and stay what they are whatever their names become meanwhile. A segment that was begun in
//! between shows as a gap in the chain, and then it is looked again.

use super::scan::{self, Tail, segments};
use super::{LOG_NAME, StoreError, io_at};
use duragent_core::event::{Body, Event};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

/// How often it is looked again: each time a segment was begun at just that moment, and they are a megabyte long.
const LOOKS_MAX: usize = 8;

/// A log at one moment.
#[derive(Debug)]
pub struct Frozen {
    /// Segments, oldest first: name, file at its start, bytes that count.
    pub segments: Vec<(String, File, u64)>,
    /// Last event; in a damaged log the last one that is intact.
    pub seq: u64,
    /// What is wrong with it, if it is damaged: then all bytes count.
    pub damage: Option<String>,
    /// Files in `artifacts/` that its events name.
    pub artifacts: BTreeSet<String>,
}

/// Looks at the log in `dir`. `None` if nothing in it was ever acknowledged.
pub(super) fn freeze(dir: &Path) -> Result<Option<Frozen>, StoreError> {
    for _ in 1..LOOKS_MAX {
        let paths = segments(dir)?;
        match look(dir, &paths) {
            Ok(Some(frozen)) if frozen.damage.is_some() && segments(dir)? != paths => {}
            Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
    }
    look(dir, &segments(dir)?)
}

fn look(dir: &Path, paths: &[PathBuf]) -> Result<Option<Frozen>, StoreError> {
    let mut open = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(LOG_NAME).to_owned();
        open.push((name, File::open(path).map_err(io_at("cannot open", path))?, 0));
    }
    let mut artifacts = BTreeSet::new();
    let mut each = |event: Event| {
        if let Body::ToolFinished { outcome, .. } = event.body {
            artifacts.extend(outcome.artifact);
        }
    };
    let (mut files, mut lengths) = (open.iter_mut().map(|(_, file, _)| file), Vec::new());
    let found = scan::scan_with(
        dir,
        paths,
        &mut |_| files.next().map_or(Err(io::ErrorKind::NotFound.into()), |f| f.try_clone()),
        &mut each,
        &mut lengths,
    )?;
    drop(files);
    let damage = match found.tail {
        Tail::TooNew(found) => {
            let session = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(StoreError::TooNew { session, found });
        }
        Tail::Damaged(damage) => Some(damage.to_string()),
        Tail::Clean | Tail::Torn { .. } if found.seq == 0 => return Ok(None),
        Tail::Clean | Tail::Torn { .. } => None,
    };
    for (i, ((_, file, bytes), path)) in open.iter_mut().zip(paths).enumerate() {
        // Whole lines, made sure of: what is behind them while we look is not promised.
        file.sync_data().map_err(io_at("cannot sync", path))?;
        *bytes = match (lengths.get(i), &damage) {
            (Some(intact), None) => *intact,
            _ => file.metadata().map_err(io_at("cannot stat", path))?.len(),
        };
        file.rewind().map_err(io_at("cannot seek in", path))?;
    }
    Ok(Some(Frozen { segments: open, seq: found.seq, damage, artifacts }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Batch;
    use crate::store::file::FileStore;
    use duragent_core::event::LOG_VERSION;

    fn event(seq: u64) -> Batch {
        let body = match seq {
            1 => Body::SessionCreated {
                v: LOG_VERSION,
                session: "s".into(),
                agent: "a".into(),
                title: None,
                parent: None,
            },
            _ => Body::TurnStarted { turn: seq },
        };
        Batch { events: vec![Event { seq, at_ms: 0, body }], effects: Vec::new() }
    }

    #[test]
    fn what_is_frozen_stays_and_a_segment_that_was_missed_is_noticed() {
        let root = std::env::temp_dir().join(format!("duragent-freeze-{}", std::process::id()));
        std::fs::remove_dir_all(&root).ok();
        // Every commit closes a segment.
        let store = FileStore::new(root.clone(), 1);
        let mut log = store.create("s").expect("new");
        let dir = store.dir("s");
        assert!(freeze(&dir).expect("readable").is_none(), "nothing was acknowledged");
        (1..=4).for_each(|seq| drop(log.commit(event(seq)).expect("commit")));
        let paths = segments(&dir).expect("segments");
        let frozen = look(&dir, &paths).expect("readable").expect("a session");
        assert_eq!((frozen.segments.len(), frozen.seq, frozen.damage), (4, 4, None));
        // The newest one is closed, under another name, and written to no more.
        log.commit(event(5)).expect("commit");
        let newest = &mut frozen.segments.into_iter().next_back().expect("segments");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut newest.1, &mut text).expect("readable");
        assert!(text.starts_with("{\"seq\":4,") && text.len() as u64 == newest.2, "{text}");
        // Stale names: the gap shows, and looking again finds what is there.
        assert!(look(&dir, &paths).expect("readable").expect("a session").damage.is_some());
        let again = freeze(&dir).expect("readable").expect("a session");
        assert_eq!((again.segments.len(), again.seq, again.damage), (5, 5, None));
        drop(log);
        std::fs::remove_dir_all(&root).expect("removed");
    }
}
