//! The `log` section of `duragent.yaml`: what the server writes on standard error, and what it calls slow.

use super::read::Section;
use duragent_platform::log::{Format, Level};

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
    /// `log.slow`: milliseconds, in the order of [`SLOW`].
    pub slow_ms: [u64; 5],
}

/// Reads the section.
pub(super) fn read(top: &Section<'_>) -> Log {
    let section = top.section_or_empty("log");
    section.keys(&["format", "level", "slow"], &[]);
    let format = section.word("format", &Format::NAMES);
    let level = section.word("level", &Level::NAMES);
    let slow = section.section_or_empty("slow");
    slow.keys(&SLOW.map(|(key, _)| key), &[]);
    Log {
        format: format.map_or(Format::Text, Format::at),
        level: level.map_or(Level::Info, Level::at),
        slow_ms: SLOW.map(|(key, default)| slow.int(key, 0..=SLOW_MS_MAX, default)),
    }
}
