//! The chunked transfer coding (RFC 9112 section 7.1), decoded as bytes arrive. Server and client use it.
//!
//! Invariants: a line ends in CR LF and in nothing else; what is not data has the characters that the grammar gives it.
//! Where others disagree about that, the end of one request is the beginning of another that nobody checked.
//!
//! Absent: meaning. Chunk extensions and trailer fields are passed over.

use duragent_core::http_head::is_token_byte;

/// Longest chunk-size line in bytes, or last such line and trailer section together. Extensions are unused on the web,
/// trailers nearly so.
const LINE_BYTES_MAX: usize = 4096;

/// Most bytes of chunk extensions in one body: they are work for nothing, and chunks of one byte can carry any number.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;

/// Hex digits of a chunk size: 8 say up to 4 GiB, which is beyond every body limit.
const SIZE_DIGITS_MAX: u32 = 8;

/// The bytes are not of this coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Digits of a chunk size; how many were there.
    Size(u32),
    /// White space between the digits and the semicolon of an extension.
    Gap,
    /// After the semicolon, before the carriage return.
    Extension,
    /// The line feed after a chunk size.
    SizeEnd,
    /// Inside a chunk.
    Data,
    /// Carriage return after the data.
    DataEnd,
    /// Line feed after the data.
    DataEndFeed,
    /// The start of a trailer line, or of the empty line at the end.
    Trailer,
    /// In the name of a trailer field.
    TrailerName,
    /// In its value.
    TrailerValue,
    /// The line feed after it.
    TrailerFeed,
    /// The line feed of the empty line.
    LastFeed,
    /// All there.
    Done,
}

/// Decoder of one body.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    state: State,
    /// Size being read, or bytes left of the chunk.
    left: u64,
    /// Bytes of the current line or trailer section.
    line: usize,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size(0), left: 0, line: 0, extensions: 0 }
    }

    /// True once the last chunk and its trailers are read.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the current chunk that have not arrived yet.
    pub(super) fn left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Takes bytes from the front of `input`, appends the body to `out`, and says how many bytes it took: all of them,
    /// unless the body ended before.
    pub(super) fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let rest = input.get(at..).unwrap_or_default();
                    let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    out.extend_from_slice(rest.get(..n).unwrap_or_default());
                    self.left -= n as u64;
                    at += n;
                    if self.left == 0 {
                        self.state = State::DataEnd;
                    }
                    continue;
                }
                _ => self.frame(byte)?,
            }
            at += 1;
        }
        Ok(at)
    }

    /// Takes one byte that is not data.
    fn frame(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(Malformed("chunk size line or trailers longer than 4096 bytes"));
        }
        self.state = self.next(byte)?;
        match self.state {
            State::Extension => self.extensions += 1,
            State::Data | State::Size(0) => self.line = 0,
            _ => {}
        }
        if self.extensions > EXTENSION_BYTES_MAX {
            return Err(Malformed("chunk extensions longer than 16384 bytes"));
        }
        Ok(())
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(Malformed("chunk size of more than 8 digits"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(1..) | State::Extension, b'\r') => State::SizeEnd,
            (State::Size(1..) | State::Gap, b';') => State::Extension,
            (State::Size(1..) | State::Gap, b' ' | b'\t') => State::Gap,
            (State::Extension, _) if is_field_byte(byte) => State::Extension,
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::DataEndFeed,
            (State::DataEndFeed, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::LastFeed,
            (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerFeed,
            (State::TrailerValue, _) if is_field_byte(byte) => State::TrailerValue,
            (State::TrailerFeed, b'\n') => State::Trailer,
            (State::LastFeed, b'\n') => State::Done,
            (State::Size(_), _) => return Err(Malformed("expected a chunk size in hex digits")),
            (State::Gap, _) => return Err(Malformed("expected ';' after the white space behind a chunk size")),
            (State::DataEnd | State::DataEndFeed, _) => return Err(Malformed("chunk longer than its size")),
            (State::Trailer | State::TrailerName, _) => return Err(Malformed("expected a trailer field")),
            _ => return Err(Malformed("expected CR LF in the chunked coding")),
        })
    }
}

/// What a field value and a chunk extension may consist of: no control character but tab.
fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Malformed};

    /// Decodes in pieces of `step`; the body, bytes taken, and whether it ended.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut decoder, mut out, mut taken) = (Decoder::new(), Vec::new(), 0);
        for piece in input.chunks(step) {
            taken += decoder.decode(piece, &mut out)?;
        }
        Ok((out, taken, decoder.is_done()))
    }

    fn check(input: &[u8]) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let whole = decode(input, input.len().max(1));
        for step in 1..input.len().min(40) {
            assert_eq!(whole, decode(input, step), "{step}: {:?}", String::from_utf8_lossy(input));
        }
        whole
    }

    #[test]
    fn bodies_are_decoded_however_they_are_cut() {
        let cases: &[(&str, &str, usize)] = &[
            ("0\r\n\r\n", "", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("00000005\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", "hello0123456789", 0),
            ("1 \t;x = y\r\na\r\n0\r\nTrailer: x\r\nOther:\r\n\r\n", "a", 0),
            ("2\r\n\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "\r\n", 16),
        ];
        for (input, body, rest) in cases {
            let (out, taken, done) = check(input.as_bytes()).unwrap_or_else(|e| panic!("{input:?}: {e:?}"));
            assert_eq!((out.as_slice(), taken, done), (body.as_bytes(), input.len() - rest, true), "{input:?}");
        }
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        let whole = b"5\r\nhello\r\n0\r\nT: x\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(check(&whole[..end]).map(|r| r.2), Ok(false), "{end}");
        }
    }

    #[test]
    fn what_is_not_of_the_coding_is_refused() {
        let long = format!("1;{}\r\n", "x".repeat(5000));
        let extensions = format!("1;{}\r\nx\r\n", "x".repeat(2000)).repeat(9);
        let trailers = format!("0\r\n{}", "x: y\r\n".repeat(1000));
        let cases = [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "0x1\r\n",
            ";a\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1\r\na\r0",
            "000000001\r\n",
            "fffffffff\r\n",
            "0\r\nT: x\n",
            "0\r\n\rx",
            "1;a\0b\r\n",
            "1;a\x0bb\r\n",
            "1;a\nb\r\n0\r\n\r\n",
            "1;a\rb\r\n",
            "1 \r\na\r\n",
            "1 a\r\n",
            "1\r\naXX0\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nX : x\r\n\r\n",
            "0\r\nX: x\r\n y\r\n\r\n",
            "0\r\nX: x\0\r\n\r\n",
            "0\r\n\n",
            &extensions,
            &long,
            &trailers,
        ];
        for input in cases {
            assert!(check(input.as_bytes()).is_err(), "{input:?}");
        }
    }
}
