//! Reading a range of a log by seq: bisection over byte offsets, since the lines are in order, then line by line.

use super::scan::{first_seq, segments};
use super::{StoreError, io_at};
use duragent_core::line;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes looked at to find a line's beginning while bisecting, and below which it is not worth it.
const PROBE_BYTES: usize = 4096;

/// Hands the lines with `after < seq ≤ through` to `each` until it returns false.
pub(super) fn read(
    dir: &Path,
    after: u64,
    through: u64,
    each: &mut dyn FnMut(u64, &str) -> bool,
) -> Result<(), StoreError> {
    let segments = segments(dir)?;
    let holds = |path: &PathBuf| path.file_name().and_then(|n| first_seq(n.to_str()?)).is_some_and(|f| f > after + 1);
    // The newest segment has no number in its name: it begins where the closed ones end.
    let closed = segments.len().saturating_sub(1);
    let first = segments[..closed].iter().position(holds).unwrap_or(segments.len()).saturating_sub(1);
    let first =
        if first == closed && closed > 0 && starts_after(&segments[closed], after)? { first - 1 } else { first };
    for path in segments.iter().skip(first) {
        if !read_segment(path, after, through, each)? {
            break;
        }
    }
    Ok(())
}

fn starts_after(path: &Path, after: u64) -> Result<bool, StoreError> {
    let file = File::open(path).map_err(io_at("cannot open", path))?;
    Ok(line_at(&file, 0, path)?.is_none_or(|(_, seq)| seq > after + 1))
}

/// False if `each` has had enough or `through` was reached.
fn read_segment(
    path: &Path,
    after: u64,
    through: u64,
    each: &mut dyn FnMut(u64, &str) -> bool,
) -> Result<bool, StoreError> {
    let mut file = File::open(path).map_err(io_at("cannot open", path))?;
    let start = seek_to(&file, after, path)?;
    file.seek(SeekFrom::Start(start)).map_err(io_at("cannot seek in", path))?;
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let n = reader.read_until(b'\n', &mut text).map_err(io_at("cannot read", path))?;
        // An unterminated line is being written, or never was.
        if n == 0 || text.pop() != Some(b'\n') {
            return Ok(true);
        }
        let Some(seq) = line::peek_seq(&text) else { return Ok(false) };
        if seq > through {
            return Ok(false);
        }
        let Ok(line) = std::str::from_utf8(&text) else { return Ok(false) };
        if seq > after && !each(seq, line) {
            return Ok(false);
        }
    }
}

/// Offset of a line whose seq is at most `after + 1`, close to it.
fn seek_to(file: &File, after: u64, path: &Path) -> Result<u64, StoreError> {
    if after == 0 {
        return Ok(0);
    }
    let (mut low, mut high) = (0, file.metadata().map_err(io_at("cannot stat", path))?.len());
    while high - low > PROBE_BYTES as u64 {
        let middle = low + (high - low) / 2;
        match line_at(file, middle, path)? {
            Some((offset, seq)) if seq <= after + 1 && offset < high => low = offset,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Offset and seq of the first line that begins at or after `from`; at 0 a line begins.
fn line_at(file: &File, from: u64, path: &Path) -> Result<Option<(u64, u64)>, StoreError> {
    let mut offset = from;
    let mut buffer = [0; PROBE_BYTES];
    let mut begins = from == 0;
    loop {
        let n = file.read_at(&mut buffer, offset).map_err(io_at("cannot read", path))?;
        let bytes = &buffer[..n];
        if begins {
            return Ok(line::peek_seq(bytes).map(|seq| (offset, seq)));
        }
        match line::find_feed(bytes) {
            Some(at) => (offset, begins) = (offset + at as u64 + 1, true),
            None if n == 0 => return Ok(None),
            None => offset += n as u64,
        }
    }
}

/// The seq of the last terminated line; 0 if there is none.
pub(super) fn last_seq(dir: &Path) -> Result<u64, StoreError> {
    for path in segments(dir)?.iter().rev() {
        let file = File::open(path).map_err(io_at("cannot open", path))?;
        let mut high = file.metadata().map_err(io_at("cannot stat", path))?.len();
        let mut last = 0;
        // Back in steps, so that one long line does not matter.
        while high > 0 && last == 0 {
            let low = high.saturating_sub(PROBE_BYTES as u64);
            let start = if low == 0 { Some((0, 0)) } else { line_at(&file, low, path)? };
            if let Some((start, _)) = start {
                let text = tail_from(&file, start, path)?;
                let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                let line = text[..end].split(|b| *b == b'\n').rev().find(|l| !l.is_empty());
                last = line.and_then(line::peek_seq).unwrap_or(0);
            }
            high = low;
        }
        if last > 0 {
            return Ok(last);
        }
    }
    Ok(0)
}

fn tail_from(file: &File, start: u64, path: &Path) -> Result<Vec<u8>, StoreError> {
    let length = file.metadata().map_err(io_at("cannot stat", path))?.len();
    let mut text = vec![0; usize::try_from(length.saturating_sub(start)).unwrap_or(0)];
    file.read_exact_at(&mut text, start).map_err(io_at("cannot read", path))?;
    Ok(text)
}
