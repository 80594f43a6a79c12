//! `state.yaml`: what a list shows of a session, so that a thousand of them need not be replayed. Flat YAML with JSON
//! scalars, written by us alone. It counts only while the newest segment has the recorded length and inode time.

use super::LOG_NAME;
use duragent_core::json::{self, Value};
use duragent_core::time;
use duragent_platform::file;
use duragent_platform::wear::What;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Name of the file.
const NAME: &str = "state.yaml";
/// Longest file that is read, in bytes; ours are far below.
const BYTES_MAX: u64 = 64 * 1024;

/// The summary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cached {
    /// Agent.
    pub agent: String,
    /// For people.
    pub title: Option<String>,
    /// Wire name of the status.
    pub status: String,
    /// Milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Milliseconds since the epoch.
    pub last_at_ms: u64,
    /// Last event.
    pub last_seq: u64,
    /// Turns so far.
    pub turns: u64,
    /// Tokens so far.
    pub input_tokens: u64,
    /// Tokens so far.
    pub output_tokens: u64,
    /// Tokens of the last prompt and its answer.
    pub context_tokens: u64,
}

pub(super) fn write(dir: &Path, s: &Cached) {
    let Ok(meta) = fs::metadata(dir.join(LOG_NAME)) else { return };
    let mut text = String::from("# A cache of events.jsonl for lists. Delete it whenever you like.\n");
    let mut line = |key: &str, value: &str| {
        // Writing to a string does not fail.
        writeln!(text, "{key}: {value}").ok();
    };
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    line("status", &quoted(&s.status));
    line("agent", &quoted(&s.agent));
    line("title", &s.title.as_deref().map_or("null".to_owned(), quoted));
    line("created_at", &quoted(&time::rfc3339(s.created_at_ms)));
    line("last_at", &quoted(&time::rfc3339(s.last_at_ms)));
    line("last_seq", &s.last_seq.to_string());
    line("turns", &s.turns.to_string());
    line("input_tokens", &s.input_tokens.to_string());
    line("output_tokens", &s.output_tokens.to_string());
    line("context_tokens", &s.context_tokens.to_string());
    line("log_bytes", &meta.len().to_string());
    line("log_changed_ns", &changed_ns(&meta).to_string());
    file::replace_cache(What::Snapshot, &dir.join(NAME), text.as_bytes()).ok();
}

/// Time of the last change of content or inode, in nanoseconds: tells two logs of equal length apart.
pub(super) fn changed_ns(meta: &fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec())
}

pub(super) fn read(dir: &Path) -> Option<Cached> {
    let path = dir.join(NAME);
    let meta = fs::metadata(dir.join(LOG_NAME)).ok()?;
    if fs::metadata(&path).ok()?.len() > BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(&path).ok()?;
    let mut s = Cached::default();
    let (mut bytes, mut changed) = (None, None);
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (key, value) = line.split_once(": ")?;
        let value = json::parse(value).ok()?;
        let number = || value.as_u64();
        let at = || value.as_str().and_then(time::parse_rfc3339);
        match key {
            "status" => s.status = value.as_str()?.to_owned(),
            "agent" => s.agent = value.as_str()?.to_owned(),
            "title" => s.title = value.as_str().map(str::to_owned),
            "created_at" => s.created_at_ms = at()?,
            "last_at" => s.last_at_ms = at()?,
            "last_seq" => s.last_seq = number()?,
            "turns" => s.turns = number()?,
            "input_tokens" => s.input_tokens = number()?,
            "output_tokens" => s.output_tokens = number()?,
            "context_tokens" => s.context_tokens = number()?,
            "log_bytes" => bytes = number(),
            "log_changed_ns" => changed = number(),
            _ => {}
        }
    }
    let same = bytes == Some(meta.len()) && changed == u64::try_from(changed_ns(&meta)).ok();
    (same && !s.status.is_empty()).then_some(s)
}
