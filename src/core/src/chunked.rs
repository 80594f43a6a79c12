//! The chunked transfer coding (RFC 9112 section 7.1), decoded as bytes arrive. Server and client use it.
//!
//! Invariants: a line ends in CR LF and in nothing else; what is not data has the characters that the grammar gives it.
//! Where others disagree about that, the end of one request is the beginning of another that nobody checked.
//!
//! Absent: meaning. Chunk extensions and trailer fields are passed over.

use crate::http_head::is_token_byte;
use alloc::vec::Vec;
use core::fmt;

/// Longest chunk-size line in bytes, or last such line and trailer section together. Extensions are unused on the web,
/// trailers nearly so.
const LINE_BYTES_MAX: usize = 4096;

/// Most bytes of chunk extensions in one body: they are work for nothing, and chunks of one byte can carry any number.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;

/// Hex digits of a chunk size: 8 say up to 4 GiB, which is beyond every body limit.
const SIZE_DIGITS_MAX: u32 = 8;

/// The bytes are not of this coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed chunked body: ")?;
        f.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}

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
pub struct Decoder {
    state: State,
    /// Size being read, or bytes left of the chunk.
    left: u64,
    /// Bytes of the current line or trailer section.
    line: usize,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Size(0), left: 0, line: 0, extensions: 0 }
    }

    /// True once the last chunk and its trailers are read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the current chunk that have not arrived yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Takes bytes from the front of `input`, appends the body to `out`, and says how many bytes it took: all of them,
    /// unless the body ended before.
    ///
    /// # Errors
    /// [`Malformed`] as soon as the bytes are not of this coding; then nothing that follows can be trusted.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
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
mod tests;
