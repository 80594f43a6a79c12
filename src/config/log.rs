//! The `log` section of `duragent.yaml`: what the server says to its operator and where, and what it calls slow.

use super::read::Section;
use super::types::from_base;
use duragent_platform::log::{Format, Level};
use std::path::{Path, PathBuf};

/// Longest time that can be asked for: an hour. What takes longer is not slow but stuck.
const SLOW_MS_MAX: u64 = 3_600_000;

/// What is called slow: key, default in milliseconds. 0 is for ever.
pub const SLOW: [(&str, u64); 5] = [
    // A worn card syncs in a tenth of a second.
    ("fsync_ms", 1000),
    // A model that has to be loaded first, on a small board.
    ("model_ms", 60_000),
    // What takes longer is worth a look, long before `limits.tool_seconds_max` ends it.
    ("tool_call_ms", 60_000),
    // The slowest ordinary request is one commit.
    ("request_ms", 1000),
    // Nobody may hold the thread of all connections for longer than a blink.
    ("stall_ms", 500),
];

/// The `log` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `log.format`: default `text`.
    pub format: Format,
    /// `log.level`: default `info`.
    pub level: Level,
    /// `log.file`: default none, standard error.
    pub file: Option<PathBuf>,
    /// `log.file_bytes_max`: bytes of that file, after which the next is begun.
    pub file_bytes_max: u64,
    /// `log.files_max`: older files beside it.
    pub files_max: u64,
    /// `log.slow`: milliseconds, in the order of [`SLOW`].
    pub slow_ms: [u64; 5],
}

/// Bytes of a log file: default, smallest and largest. 1 MiB is some ten thousand lines: days of a board.
pub(super) const FILE_BYTES: (u64, std::ops::RangeInclusive<u64>) = (1 << 20, 16 << 10..=1 << 30);
/// Older log files: default, smallest and largest.
pub(super) const FILES: (u64, std::ops::RangeInclusive<u64>) = (3, 1..=99);

/// Reads the section; `dir` is the workspace.
pub(super) fn read(top: &Section<'_>, dir: &Path) -> Log {
    let section = top.section_or_empty("log");
    section.keys(&["format", "level", "file", "file_bytes_max", "files_max", "slow"], &[]);
    let format = section.word("format", &Format::NAMES);
    let level = section.word("level", &Level::NAMES);
    let slow = section.section_or_empty("slow");
    slow.keys(&SLOW.map(|(key, _)| key), &[]);
    Log {
        format: format.map_or(Format::Text, Format::at),
        level: level.map_or(Level::Info, Level::at),
        file: section.text("file").filter(|path| !path.is_empty()).map(|path| from_base(dir, path)),
        file_bytes_max: section.int("file_bytes_max", FILE_BYTES.1, FILE_BYTES.0),
        files_max: section.int("files_max", FILES.1, FILES.0),
        slow_ms: SLOW.map(|(key, default)| slow.int(key, 0..=SLOW_MS_MAX, default)),
    }
}
