//! What a release says of itself, in a text that is signed:
//!
//! ```text
//! duragent-release 1
//! version 0.2.0
//! state 1 1
//! file aarch64-unknown-linux-musl 2011344 <sha256, 64 hex digits> duragent-0.2.0-aarch64-unknown-linux-musl
//! ```
//!
//! `state` is the oldest log version that it reads and the one that it writes. There is a line `file` for each target. Words that
//! are not known here are passed over; what must be understood raises the number in the first line.

use std::cmp::Ordering;

/// Most bytes of the text: a line has about 150, and there are not a hundred targets.
pub const BYTES_MAX: usize = 64 * 1024;

/// Most bytes of a binary: ten times what one has. What arrives over HTTP has the same limit.
pub const BINARY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A release, as far as this machine can use it.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Oldest log version that it reads, and the one that it writes.
    pub state: (u64, u64),
    /// Bytes of its binary for this target.
    pub size: u64,
    /// SHA-256 of that.
    pub sha256: [u8; 32],
    /// Name of that, beside the text.
    pub name: String,
}

/// Reads the text, whose signature is good, for `target`.
///
/// # Errors
/// What was expected and found.
pub fn parse(text: &[u8], target: &str) -> Result<Release, String> {
    let text = std::str::from_utf8(text).map_err(|_| "expected text, found no UTF-8".to_owned())?;
    let mut lines = text.lines();
    match lines.next().and_then(|line| line.strip_prefix("duragent-release ")) {
        Some("1") => {}
        Some(found) => return Err(format!("expected the form duragent-release 1, found {found:?}")),
        None => return Err("expected \"duragent-release 1\" in the first line, found something else".to_owned()),
    }
    let (mut version, mut state, mut file, mut targets) = (None, None, None, Vec::new());
    for (number, line) in (2..).zip(lines) {
        let wrong = || format!("line {number}: cannot be understood");
        let twice = || format!("line {number}: is there twice");
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["version", word] => {
                Version::parse(word).ok_or_else(wrong)?;
                put(&mut version, (*word).to_owned()).ok_or_else(twice)?;
            }
            ["state", oldest, newest] => {
                let range = number_of(oldest).zip(number_of(newest)).filter(|(oldest, newest)| oldest <= newest);
                put(&mut state, range.ok_or_else(wrong)?).ok_or_else(twice)?;
            }
            ["file", found, size, sha256, name] => {
                let size = number_of(size).filter(|n| (1..=BINARY_BYTES_MAX).contains(n)).ok_or_else(wrong)?;
                let sha256 = digest(sha256).ok_or_else(wrong)?;
                if !is_name(name) {
                    return Err(wrong());
                }
                targets.push(*found);
                if *found == target {
                    put(&mut file, (size, sha256, (*name).to_owned())).ok_or_else(twice)?;
                }
            }
            ["version" | "state" | "file", ..] => return Err(wrong()),
            _ => {}
        }
    }
    let missing = |word: &str| format!("expected a line {word:?}, found none");
    let version = version.ok_or_else(|| missing("version"))?;
    let state = state.ok_or_else(|| missing("state"))?;
    let found = || format!("expected a binary for {target}, found {}", targets.join(", "));
    let (size, sha256, name) = file.ok_or_else(found)?;
    Ok(Release { version, state, size, sha256, name })
}

/// Puts a value where there is none yet.
fn put<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.is_none().then(|| *place = Some(value))
}

/// Digits only, without leading zeros: one spelling for each number.
fn number_of(text: &str) -> Option<u64> {
    let good = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if good { text.parse().ok() } else { None }
}

/// A file name and nothing else: no path, not hidden.
fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    !name.starts_with('.') && (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(good)
}

/// 64 hex digits in lower case.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().try_fold(0_u8, |sum, digit| {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            Some(sum << 4 | value)
        })?;
    }
    Some(out)
}

/// Which of two versions is the later one, as Semantic Versioning 2.0.0 orders them (11). `None` if one of them is no version.
#[must_use]
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (Version::parse(a)?, Version::parse(b)?);
    Some(a.numbers.cmp(&b.numbers).then_with(|| match (a.before.is_empty(), b.before.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            a.before.iter().map(|word| identifier(word)).cmp(b.before.iter().map(|word| identifier(word)))
        }
    }))
}

/// `1.2.3` or `1.2.3-rc.1`; no build metadata, which orders nothing.
struct Version<'v> {
    numbers: [u64; 3],
    /// What comes before the release: `rc`, `1`.
    before: Vec<&'v str>,
}

impl<'v> Version<'v> {
    fn parse(text: &'v str) -> Option<Self> {
        let (numbers, before) = match text.split_once('-') {
            Some((numbers, before)) => (numbers, before.split('.').collect()),
            None => (text, Vec::new()),
        };
        let mut parts = numbers.split('.').map(number_of);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let words = before.iter().all(|word: &&str| !word.is_empty() && word.bytes().all(good));
        (parts.next().is_none() && words && text.len() <= 64).then_some(Self { numbers, before })
    }
}

/// Numbers before words, and each among its own.
fn identifier(word: &str) -> (bool, u64, &str) {
    number_of(word).map_or((true, 0, word), |number| (false, number, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn text(lines: &[&str]) -> Vec<u8> {
        (lines.join("\n") + "\n").replace("SHA", SHA).into_bytes()
    }

    #[test]
    fn a_release_is_read_for_its_target() {
        let found = parse(
            &text(&[
                "duragent-release 1",
                "version 0.2.0-rc.1",
                "state 1 2",
                "made 2026-11-22",
                "",
                "file armv6 5 SHA six",
                "file armv7 7 SHA duragent-7",
            ]),
            "armv7",
        );
        let found = found.expect("a release");
        assert_eq!(
            (found.version.as_str(), found.state, found.size, found.name.as_str()),
            ("0.2.0-rc.1", (1, 2), 7, "duragent-7")
        );
        assert_eq!((found.sha256[0], found.sha256[31]), (0x01, 0xef));
    }

    #[test]
    fn what_is_no_release_is_refused() {
        let good = ["duragent-release 1", "version 0.2.0", "state 1 1", "file armv7 7 SHA a"];
        assert!(parse(&text(&good), "armv7").is_ok());
        for (line, put, expected) in [
            (0, "duragent-release 2", "expected the form"),
            (0, "version 0.2.0", "first line"),
            (1, "version 1", "line 2"),
            (1, "version 0.2.0 x", "line 2"),
            (1, "version 0.2.0+build", "line 2"),
            (1, "state 1 1", "twice"),
            (2, "state 2 1", "line 3"),
            (2, "state 1", "line 3"),
            (2, "state x 1", "line 3"),
            (2, "other", "\"state\""),
            (1, "other", "\"version\""),
            (3, "file armv7 0 SHA a", "line 4"),
            (3, "file armv7 16777217 SHA a", "line 4"),
            (3, "file armv7 007 SHA a", "line 4"),
            (3, "file armv7 7 0123 a", "line 4"),
            (3, "file armv7 7 SHA ../a", "line 4"),
            (3, "file armv7 7 SHA .a", "line 4"),
            (3, "file armv7 7 SHA a b", "line 4"),
            (3, "file other 7 SHA a", "expected a binary for armv7, found other"),
        ] {
            let mut lines = good;
            lines[line] = put;
            let error = parse(&text(&lines), "armv7").expect_err(put);
            assert!(error.contains(expected), "{put}: {error}");
        }
        assert!(
            parse(&text(&[&good[..], &["file armv7 7 SHA b"]].concat()), "armv7").expect_err("two").contains("twice")
        );
        assert!(parse(b"\xff", "armv7").is_err());
    }

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says() {
        let order = [
            "0.1.0",
            "0.1.9",
            "0.1.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "2.0.0",
        ];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                assert_eq!(compare(a, b), Some(i.cmp(&j)), "{a} {b}");
            }
        }
        for bad in
            ["", "1", "1.2", "1.2.3.4", "1.2.03", "v1.2.3", "1.2.3-", "1.2.3-a..b", "1.2.3+x", "1.2.-3", "1.2.3 "]
        {
            assert_eq!(compare(bad, "1.0.0"), None, "{bad}");
        }
    }
}
