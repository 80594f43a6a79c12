//! Reading a range of a log by seq: bisection over byte offsets, since the lines are in order, then line by line.

use super::scan::{first_seq, segments};
use super::{StoreError, io_at};
use duragent_core::line::{self, LINE_BYTES_MAX};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
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
    // Also for the sake of `after + 1`, since people may ask for any number.
    if after >= through {
        return Ok(());
    }
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
        let line = (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut text);
        let n = line.map_err(io_at("cannot read", path))?;
        // An unterminated line is being written, or never was; one that is too long is damage, and nothing behind it counts.
        if text.pop() != Some(b'\n') {
            return Ok(n < LINE_BYTES_MAX);
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
    Ok(last_line(dir)?.and_then(|line| line::peek_seq(line.as_bytes())).unwrap_or(0))
}

/// The last terminated line of the newest segment that has one; what is no text in it is replaced.
pub(super) fn last_line(dir: &Path) -> Result<Option<String>, StoreError> {
    // Nearly always there is one segment and the line is short: no listing, and three small reads.
    let newest = dir.join(super::LOG_NAME);
    if let Some(line) = last_of(&newest)? {
        return Ok(Some(line));
    }
    for path in segments(dir)?.iter().rev() {
        if let Some(line) = last_of(path)? {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

fn last_of(path: &Path) -> Result<Option<String>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_at("cannot open", path))?,
    };
    let length = file.metadata().map_err(io_at("cannot stat", path))?.len();
    let Some(end) = last_feed(&file, length, path)? else { return Ok(None) };
    let start = last_feed(&file, end, path)?.map_or(0, |feed| feed + 1);
    // A longer one is none of ours, and its beginning says all that is asked of it.
    let mut text = vec![0; usize::try_from(end - start).unwrap_or(LINE_BYTES_MAX).min(LINE_BYTES_MAX)];
    file.read_exact_at(&mut text, start).map_err(io_at("cannot read", path))?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// Offset of the last line feed before `end`. Behind it there may be anything, of any length.
fn last_feed(file: &File, mut end: u64, path: &Path) -> Result<Option<u64>, StoreError> {
    let mut buffer = [0; PROBE_BYTES];
    while end > 0 {
        let low = end.saturating_sub(PROBE_BYTES as u64);
        let bytes = &mut buffer[..(end - low) as usize];
        file.read_exact_at(bytes, low).map_err(io_at("cannot read", path))?;
        // Asked forwards first, which is far quicker where there is none.
        if line::find_feed(bytes).is_some()
            && let Some(at) = bytes.iter().rposition(|b| *b == b'\n')
        {
            return Ok(Some(low + at as u64));
        }
        end = low;
    }
    Ok(None)
}
