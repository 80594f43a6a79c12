//! What this process has written and synced, by what it was for: flash wears out by it.
//!
//! Invariants: counting is one relaxed atomic addition; a sync counts when it is asked for, bytes when they are written.
//!
//! Absent: what tools write in processes of their own, and what the file system adds.

use std::sync::atomic::{AtomicU64, Ordering};

/// What something was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Event logs.
    Log,
    /// Summaries of sessions.
    Snapshot,
    /// Large outputs.
    Artifacts,
    /// Files that the file tools change.
    Tools,
    /// All else.
    Other,
}

/// Names of what there is, in the order of [`What`].
pub const NAMES: [&str; 5] = ["log", "snapshot", "artifacts", "tools", "other"];

static WRITTEN: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
static SYNCED: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// So many bytes were written to a file.
pub fn wrote(what: What, bytes: usize) {
    WRITTEN[what as usize].fetch_add(bytes as u64, Ordering::Relaxed);
}

/// A file or a directory is being synced.
pub fn synced(what: What) {
    SYNCED[what as usize].fetch_add(1, Ordering::Relaxed);
}

/// Bytes written so far, in the order of [`What`].
#[must_use]
pub fn written_bytes() -> [u64; 5] {
    WRITTEN.each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// Syncs so far, in the order of [`What`].
#[must_use]
pub fn syncs() -> [u64; 5] {
    SYNCED.each_ref().map(|count| count.load(Ordering::Relaxed))
}
