//! Newline-delimited JSON, cut into lines as the bytes arrive.
//!
//! Bytes in, whole lines out; whoever reads the lines parses the JSON. A line is assembled as bytes and checked for
//! UTF-8 once it is whole, so a character split between two reads is no special case. A line that lies whole in the
//! input is lent from there, not copied. Lines end with LF; a CR before it is dropped; blank lines are passed over.
//!
//! Invariants: never holds more than the limit; a last line without its LF is never given out as a line.
//!
//! Absent: I/O, and recovery. After an error the stream is of no use any more.

use alloc::vec::Vec;
use core::fmt;

/// Longest line in bytes, without its end, unless told otherwise. One frame of a model's stream is some hundred bytes;
/// a tool call with a whole file in it comes as one line.
pub const LINE_MAX: usize = 1024 * 1024;

/// Why the stream cannot be read on. Lines count from 1, blank ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The line is longer than the limit.
    TooLong {
        /// Which.
        line: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// The line is not UTF-8.
    Utf8 {
        /// Which.
        line: u64,
        /// Offset of the first wrong byte in the line.
        byte: usize,
    },
    /// The stream ended within a line.
    Cut {
        /// Which.
        line: u64,
        /// Bytes of it that had come.
        bytes: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { line, max } => write!(f, "line {line}: longer than {max} bytes"),
            Self::Utf8 { line, byte } => write!(f, "line {line}: not UTF-8 at byte {byte}"),
            Self::Cut { line, bytes } => write!(f, "line {line}: the stream ended after {bytes} bytes of it"),
        }
    }
}

impl core::error::Error for Error {}

/// Assembles lines.
#[derive(Debug)]
pub struct Lines {
    part: Vec<u8>,
    /// `part` is a line that was given out; the next call starts afresh.
    lent: bool,
    line: u64,
    max: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new(LINE_MAX)
    }
}

impl Lines {
    /// At the start of a stream whose lines have at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { part: Vec::new(), lent: false, line: 1, max }
    }

    /// Takes bytes from the front of `input` up to the end of a line and returns that line; `None` when `input` is used
    /// up. Call it again until then.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Utf8`].
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<&'a str>, Error> {
        if core::mem::take(&mut self.lent) {
            self.part.clear();
        }
        while let Some(end) = input.iter().position(|&b| b == b'\n') {
            let (head, rest) = (&input[..end], &input[end + 1..]);
            self.check_room(head.len())?;
            let line = self.line;
            self.line += 1;
            *input = rest;
            if self.part.is_empty() {
                if !is_blank(head) {
                    return text(head, line).map(Some);
                }
            } else {
                self.part.extend_from_slice(head);
                if !is_blank(&self.part) {
                    self.lent = true;
                    return text(&self.part, line).map(Some);
                }
                self.part.clear();
            }
        }
        self.check_room(input.len())?;
        self.part.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// [`Error::Cut`] if the last line has no end.
    pub fn finish(&self) -> Result<(), Error> {
        if self.lent || is_blank(&self.part) {
            Ok(())
        } else {
            Err(Error::Cut { line: self.line, bytes: self.part.len() })
        }
    }

    fn check_room(&self, more: usize) -> Result<(), Error> {
        if self.part.len() + more > self.max { Err(Error::TooLong { line: self.line, max: self.max }) } else { Ok(()) }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'))
}

fn text(line: &[u8], number: u64) -> Result<&str, Error> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    core::str::from_utf8(line).map_err(|e| Error::Utf8 { line: number, byte: e.valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::{Error, Lines};
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    type Outcome = (Vec<String>, Option<Error>);

    fn read(max: usize, pieces: &[&[u8]]) -> Outcome {
        let (mut lines, mut out) = (Lines::new(max), Vec::new());
        for mut piece in pieces.iter().copied() {
            loop {
                match lines.next(&mut piece) {
                    Ok(Some(line)) => out.push(line.to_string()),
                    Ok(None) => break,
                    Err(error) => return (out, Some(error)),
                }
            }
            assert!(piece.is_empty(), "input is used up when there is no line");
            assert!(lines.part.len() <= max, "never holds more than the limit");
        }
        let end = lines.finish().err();
        (out, end)
    }

    /// The same outcome however the bytes arrive.
    fn check(max: usize, input: &[u8], lines: &[&str], error: Option<Error>) {
        let want = (lines.iter().map(ToString::to_string).collect::<Vec<_>>(), error);
        assert_eq!(read(max, &[input]), want, "whole: {input:?}");
        for at in 0..=input.len() {
            let (a, b) = input.split_at(at);
            assert_eq!(read(max, &[a, b]), want, "split at {at}: {input:?}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(read(max, &bytes), want, "byte by byte: {input:?}");
    }

    #[test]
    fn whole_lines_come_out_however_they_arrive() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("\n", &[]),
            ("{}\n", &["{}"]),
            ("{}\r\n[]\r\n", &["{}", "[]"]),
            ("\n\r\n \t\r\n{\"a\":1}\n\n", &["{\"a\":1}"]),
            ("{\"t\":\"größe 🦀 日本\"}\n\"é\"\n", &["{\"t\":\"größe 🦀 日本\"}", "\"é\""]),
            ("a\rb\n", &["a\rb"]),
        ];
        for (input, lines) in cases {
            check(64, input.as_bytes(), lines, None);
        }
    }

    #[test]
    fn a_cut_last_line_is_reported_and_not_given_out() {
        check(64, b"{\"done\":true}", &[], Some(Error::Cut { line: 1, bytes: 13 }));
        check(64, b"{}\n{\"a\":", &["{}"], Some(Error::Cut { line: 2, bytes: 5 }));
        check(64, b"{}\n \r", &["{}"], None);
    }

    #[test]
    fn a_line_longer_than_the_limit_is_refused() {
        check(4, b"1234\n123\n", &["1234", "123"], None);
        check(4, b"1234\n12345\n", &["1234"], Some(Error::TooLong { line: 2, max: 4 }));
        check(4, b"12345", &[], Some(Error::TooLong { line: 1, max: 4 }));
        check(4, b"     \n", &[], Some(Error::TooLong { line: 1, max: 4 }));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        check(64, b"ok\nab\xffc\n", &["ok"], Some(Error::Utf8 { line: 2, byte: 2 }));
        check(64, b"\xf0\x9f\xa6\n", &[], Some(Error::Utf8 { line: 1, byte: 0 }));
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(Error::TooLong { line: 3, max: 9 }.to_string(), "line 3: longer than 9 bytes");
        assert_eq!(Error::Utf8 { line: 2, byte: 1 }.to_string(), "line 2: not UTF-8 at byte 1");
        assert_eq!(Error::Cut { line: 1, bytes: 7 }.to_string(), "line 1: the stream ended after 7 bytes of it");
    }
}
