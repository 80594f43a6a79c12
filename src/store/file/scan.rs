//! Verifying a log from its first byte to its last, in a buffer of fixed size, and saying what stands at the end.

use super::{Damage, LOG_NAME, StoreError, io_at, short};
use duragent_core::event::{Body, Event, LOG_VERSION};
use duragent_core::line::{self, CRC_START, LINE_BYTES_MAX};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes read at a time; longer lines grow the buffer up to [`LINE_BYTES_MAX`].
const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of a log in which its version stands.
const FIRST_BYTES: u64 = 256;

/// What stands behind the last intact line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// An unterminated line or a block of NUL: a write that was never acknowledged.
    Torn {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// Something that was terminated and makes no sense.
    Damaged(Damage),
    /// The log is of a later major version, this one.
    TooNew(u64),
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its last intact event; 0 if there is none.
    pub seq: u64,
    /// Checksum to chain the next line to.
    pub crc: u32,
    /// Length in bytes of the intact part of the segment that holds the end.
    pub offset: u64,
    /// Intact lines in that segment.
    pub lines: u64,
    /// Bytes in all segments, intact or not.
    pub bytes: u64,
    /// Segments there are.
    pub segments: usize,
    /// First seq of the last segment.
    pub segment_first: u64,
    /// What follows.
    pub tail: Tail,
    /// The segment in which the intact part ends.
    pub segment: PathBuf,
}

/// The segments of a log, oldest first.
pub(super) fn segments(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_at("cannot list", dir))? {
        let name = entry.map_err(io_at("cannot list", dir))?.file_name();
        if let Some(name) = name.to_str()
            && (name == LOG_NAME || first_seq(name).is_some())
        {
            names.push(name.to_owned());
        }
    }
    // `events.000000000001.jsonl` sorts before `events.jsonl`, and the numbers are of equal width.
    names.sort_unstable();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// The first seq of a closed segment, from its name.
pub(super) fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("events.")?.strip_suffix(".jsonl")?;
    if digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The name of a closed segment.
pub(super) fn segment_name(first: u64) -> String {
    format!("events.{first:012}.jsonl")
}

/// Reads the log in `dir` from the start and hands each intact event to `each`. Stops at the first damage.
pub(super) fn scan(dir: &Path, each: &mut dyn FnMut(Event)) -> Result<Found, StoreError> {
    scan_with(dir, &segments(dir)?, &mut |path| File::open(path), each, &mut Vec::new())
}

/// The same for `segments`, which `open` opens in order; the intact bytes of each go to `lengths`.
pub(super) fn scan_with(
    dir: &Path,
    segments: &[PathBuf],
    open: &mut dyn FnMut(&Path) -> io::Result<File>,
    each: &mut dyn FnMut(Event),
    lengths: &mut Vec<u64>,
) -> Result<Found, StoreError> {
    let segment = dir.join(LOG_NAME);
    let (count, tail) = (segments.len(), Tail::Clean);
    let mut found = Found {
        seq: 0,
        crc: CRC_START,
        offset: 0,
        lines: 0,
        bytes: 0,
        segments: count,
        segment_first: 1,
        tail,
        segment,
    };
    for (i, path) in segments.iter().enumerate() {
        (found.offset, found.lines, found.segment_first, found.segment) = (0, 0, found.seq + 1, path.clone());
        let mut file = open(path).map_err(io_at("cannot open", path))?;
        found.bytes += scan_segment(path, &mut file, &mut found, each)?;
        lengths.push(found.offset);
        match &found.tail {
            Tail::Clean => {}
            Tail::Torn { offset, bytes } if i + 1 < segments.len() => {
                let what = format!("{bytes} bytes without a line feed, with more segments behind them");
                found.tail = Tail::Damaged(damage(path, found.lines + 1, *offset, found.seq + 1, what));
                break;
            }
            _ => break,
        }
    }
    if found.segment.file_name().is_some_and(|name| name != LOG_NAME) && found.tail == Tail::Clean {
        // A crash between closing a segment and beginning the next.
        (found.segment, found.offset, found.segment_first) = (dir.join(LOG_NAME), 0, found.seq + 1);
    }
    Ok(found)
}

/// The version of the log in `dir`, if it is later than this build's: from its first bytes, and without touching anything.
pub(super) fn later_version(dir: &Path) -> Result<Option<u64>, StoreError> {
    let Some(first) = segments(dir)?.into_iter().next() else { return Ok(None) };
    let mut head = Vec::new();
    let read = File::open(&first).and_then(|file| file.take(FIRST_BYTES).read_to_end(&mut head));
    read.map_err(io_at("cannot read", &first))?;
    Ok(line::peek_version(&head).filter(|version| *version > LOG_VERSION))
}

fn damage(path: &Path, line: u64, byte: u64, seq: u64, what: String) -> Damage {
    Damage { file: short(path), line, byte, seq, what }
}

/// Reads one segment; returns its length in bytes.
fn scan_segment(
    path: &Path,
    file: &mut File,
    found: &mut Found,
    each: &mut dyn FnMut(Event),
) -> Result<u64, StoreError> {
    let length = file.metadata().map_err(io_at("cannot stat", path))?.len();
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut start, mut end) = (0, 0);
    loop {
        while let Some(feed) = line::find_feed(&buffer[start..end]) {
            let text = &buffer[start..start + feed];
            if let Err(tail) = take(path, text, found, each) {
                found.tail = tail;
                return Ok(length);
            }
            found.offset += feed as u64 + 1;
            found.lines += 1;
            start += feed + 1;
        }
        buffer.copy_within(start..end, 0);
        (start, end) = (0, end - start);
        if end == buffer.len() {
            if end >= LINE_BYTES_MAX {
                let what = format!("line longer than {LINE_BYTES_MAX} bytes");
                found.tail = Tail::Damaged(damage(path, found.lines + 1, found.offset, found.seq + 1, what));
                return Ok(length);
            }
            buffer.resize(end * 2, 0);
        }
        match file.read(&mut buffer[end..]) {
            Ok(0) => break,
            Ok(n) => end += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_at("cannot read", path)(error)),
        }
    }
    if end > 0 {
        found.tail = Tail::Torn { offset: found.offset, bytes: end as u64 };
    }
    Ok(length)
}

/// Takes one terminated line, or says what the log ends in.
fn take(path: &Path, text: &[u8], found: &mut Found, each: &mut dyn FnMut(Event)) -> Result<(), Tail> {
    let seq = found.seq + 1;
    let (number, offset) = (found.lines + 1, found.offset);
    let damaged = |what: String| Tail::Damaged(damage(path, number, offset, seq, what));
    // Asked before anything is checked: how a later version checks its lines is not known here.
    if let Some(version) = line::peek_version(text).filter(|version| seq == 1 && *version > LOG_VERSION) {
        return Err(Tail::TooNew(version));
    }
    let (event, crc) = line::decode(text, found.crc).map_err(|error| damaged(error.to_string()))?;
    if event.seq != seq {
        return Err(damaged(format!("found seq {}", event.seq)));
    }
    match &event.body {
        Body::SessionCreated { v, .. } if *v != LOG_VERSION => return Err(Tail::TooNew(*v)),
        Body::SessionCreated { .. } => {}
        body if seq == 1 => return Err(damaged(format!("expected session_created first, found {}", body.kind()))),
        _ => {}
    }
    (found.seq, found.crc) = (seq, crc);
    each(event);
    Ok(())
}
