//! The event log read a second time, by code that shares nothing with the runtime: own checksum, own JSON.
//!
//! Knows the format of docs/formats.md and nothing about how it is written.

use super::json::{self, Json};

/// A line of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As it stands in the file, without the line feed.
    pub line: String,
    /// Position.
    pub seq: u64,
    /// `type`.
    pub kind: String,
    /// Everything in it.
    pub fields: Json,
}

/// A log as far as it is intact.
#[derive(Debug, Default)]
pub struct Log {
    /// Its lines.
    pub entries: Vec<Entry>,
    /// Bytes after the last line feed.
    pub tail: Vec<u8>,
}

/// Where a log is damaged.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads a log. What comes after the last line feed is no damage, it is the tail.
///
/// # Errors
/// [`Damage`] at the first line that is not what should stand there.
pub fn read(bytes: &[u8]) -> Result<Log, Damage> {
    let mut log = Log::default();
    let mut previous = "00000000".to_owned();
    let mut lines = bytes.split_inclusive(|&b| b == b'\n');
    for number in 1.. {
        let Some(line) = lines.next() else { break };
        let Some(line) = line.strip_suffix(b"\n") else {
            log.tail = line.to_vec();
            break;
        };
        let entry = read_line(line, number as u64, &previous);
        let (entry, crc) = entry.map_err(|what| Damage { line: number, what })?;
        previous = crc;
        log.entries.push(entry);
    }
    Ok(log)
}

fn read_line(line: &[u8], seq: u64, previous: &str) -> Result<(Entry, String), String> {
    if line.contains(&0) {
        return Err("a NUL byte".to_owned());
    }
    let text = std::str::from_utf8(line).map_err(|e| format!("no UTF-8: {e}"))?;
    let fields = json::parse(text).map_err(|(byte, what)| format!("byte {byte}: expected {what}"))?;
    let Json::Object(keys) = &fields else { return Err("no object".to_owned()) };
    let at_end = keys.last().is_some_and(|(key, _)| key == "crc");
    let (Some((body, _)), true) = (text.rsplit_once(",\"crc\""), at_end) else {
        return Err("expected crc as the last key".to_owned());
    };
    let found = fields.text("crc").to_owned();
    let expected = format!("{:08x}", crc32c(&[previous.as_bytes(), body.as_bytes()].concat()));
    if found != expected || text.len() != body.len() + ",\"crc\":\"00000000\"}".len() {
        return Err(format!("expected crc {expected}, found {found}"));
    }
    if keys.first().is_none_or(|(key, _)| key != "seq") || fields.number("seq") != Some(seq) {
        return Err(format!("expected seq {seq} as the first key, found {:?}", fields.number("seq")));
    }
    if !is_time(fields.text("at")) {
        return Err(format!("expected a time in at, found {:?}", fields.text("at")));
    }
    let kind = fields.text("type").to_owned();
    if kind.is_empty() {
        return Err("expected a type".to_owned());
    }
    Ok((Entry { line: text.to_owned(), seq, kind, fields }, found))
}

/// RFC 3339, UTC, with milliseconds.
fn is_time(text: &str) -> bool {
    const SHAPE: &str = "dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(c, p): (char, char)| if p == 'd' { c.is_ascii_digit() } else { c == p };
    text.len() == SHAPE.len() && text.chars().zip(SHAPE.chars()).all(fits)
}

/// CRC-32C (Castagnoli), bit by bit: polynomial 0x1EDC6F41 reflected, initial value and final exclusive-or all ones
/// (RFC 3720, appendix B.4 has test values).
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Puts checksums and numbers on lines that have none: `{"seq":1,…` is what the result starts with. For tests.
#[cfg(test)]
pub fn seal(bodies: &[&str]) -> Vec<u8> {
    let (mut out, mut previous) = (String::new(), "00000000".to_owned());
    for (seq, body) in (1..).zip(bodies) {
        let line = format!("{{\"seq\":{seq},\"at\":\"2026-11-22T10:00:00.123Z\",{body}");
        previous = format!("{:08x}", crc32c(format!("{previous}{line}").as_bytes()));
        out.push_str(&format!("{line},\"crc\":\"{previous}\"}}\n"));
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    fn sealed() -> Vec<u8> {
        seal(&[
            r#""type":"session_created","v":1"#,
            r#""type":"message_received","content":"a,\"crc\"""#,
            r#""type":"x""#,
        ])
    }

    #[test]
    fn an_intact_log_is_read() {
        let log = read(&sealed()).expect("is intact");
        assert_eq!(
            log.entries.iter().map(|e| (e.seq, e.kind.as_str())).collect::<Vec<_>>(),
            [(1, "session_created"), (2, "message_received"), (3, "x")]
        );
        assert!(log.tail.is_empty());
        let torn = [sealed(), b"{\"seq\":4".to_vec()].concat();
        assert_eq!(read(&torn).map(|log| log.tail), Ok(b"{\"seq\":4".to_vec()));
    }

    #[test]
    fn no_flipped_bit_no_lost_and_no_swapped_line_goes_unseen() {
        let good = sealed();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let unseen = read(&bad).is_ok_and(|log| log.tail.is_empty());
            assert!(!unseen, "bit {bit}");
        }
        let lines: Vec<&[u8]> = good.split_inclusive(|&b| b == b'\n').collect();
        for order in [vec![1, 2], vec![0, 2], vec![0, 2, 1], vec![0, 0, 1, 2], vec![1, 0, 2]] {
            let bad: Vec<u8> = order.iter().flat_map(|&i: &usize| lines[i].to_vec()).collect();
            assert!(read(&bad).is_err(), "{order:?}");
        }
    }

    #[test]
    fn lines_with_a_right_checksum_and_a_wrong_form_are_damage() {
        for (body, what) in [
            (r#""type":"""#, "expected a type"),
            (r#""type":"x","type":"y""#, "each key once"),
            ("\"type\":\"x\0\"", "a NUL byte"),
        ] {
            let damage = read(&seal(&[body])).expect_err(body);
            assert!(damage.what.contains(what), "{damage}");
        }
    }
}
