//! JSON (RFC 8259): a strict pull reader that says where it stopped, a small tree, and a writer.
//!
//! Ours rather than a library's because the log, API bodies and tool arguments need what small libraries leave out:
//! positions in errors, a depth limit, duplicate keys as errors, and text that survives unchanged. Providers' wire
//! formats go through `miniserde` instead.

mod value;
mod write;

pub use value::Value;
pub use write::{ObjectWriter, write_decimal, write_string, write_u64};

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Deepest nesting that is read; deeper input is an error, so that no recursion here can exhaust a 64 KiB stack.
pub const DEPTH_MAX: usize = 128;

/// Where and why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Offset in bytes from the start of the text.
    pub byte: usize,
    /// What was expected or found.
    pub what: &'static str,
}

impl Error {
    /// Line and column of the error in `text`, both from 1, the column in characters.
    #[must_use]
    pub fn position(&self, text: &str) -> (usize, usize) {
        let mut end = self.byte.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        (line, column)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.byte)
    }
}

impl core::error::Error for Error {}

/// Reads one JSON text from front to back. The caller asks for what it expects.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Result<T> = core::result::Result<T, Error>;

impl<'a> Reader<'a> {
    /// Starts at the beginning of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Offset of the next unread byte.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    fn fail<T>(&self, what: &'static str) -> Result<T> {
        Err(Error { byte: self.at, what })
    }

    #[inline]
    fn peek_raw(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek_raw() {
            self.at += 1;
        }
    }

    /// The next significant byte, not consumed.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        self.space();
        self.peek_raw()
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.fail(what)
        }
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { self.fail("nested deeper than 128 levels") } else { Ok(()) }
    }

    /// Opens an object; follow with [`Reader::key`].
    ///
    /// # Errors
    /// If something else comes next, or the nesting is too deep.
    pub fn begin_object(&mut self) -> Result<()> {
        self.expect(b'{', "expected an object")?;
        self.enter()
    }

    /// The next key of the open object, or `None` after its end. `first` is true on the first call.
    ///
    /// # Errors
    /// On anything but a key, a comma where one belongs, or the end.
    #[inline]
    pub fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if self.more(b'}', first, "expected ',' or '}'")? {
            let key = self.string()?;
            self.expect(b':', "expected ':'")?;
            Ok(Some(key))
        } else {
            Ok(None)
        }
    }

    /// Opens an array; follow with [`Reader::element`].
    ///
    /// # Errors
    /// If something else comes next, or the nesting is too deep.
    pub fn begin_array(&mut self) -> Result<()> {
        self.expect(b'[', "expected an array")?;
        self.enter()
    }

    /// True if another element of the open array follows. `first` is true on the first call.
    ///
    /// # Errors
    /// On anything but a comma where one belongs, or the end.
    pub fn element(&mut self, first: &mut bool) -> Result<bool> {
        self.more(b']', first, "expected ',' or ']'")
    }

    #[inline]
    fn more(&mut self, end: u8, first: &mut bool, what: &'static str) -> Result<bool> {
        let next = self.peek();
        if next == Some(end) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !core::mem::replace(first, false) {
            self.expect(b',', what)?;
            if self.peek() == Some(end) {
                return self.fail("trailing comma");
            }
        }
        Ok(true)
    }

    /// A string. Borrowed if it holds no escape.
    ///
    /// # Errors
    /// On control characters, bad escapes, lone surrogates, a missing end, or anything but a string.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        self.at += plain_run(&self.text.as_bytes()[start..]);
        match self.peek_raw() {
            Some(b'"') => {
                let whole = &self.text[start..self.at];
                self.at += 1;
                Ok(Cow::Borrowed(whole))
            }
            Some(b'\\') => self.string_with_escapes(start),
            Some(_) => self.fail("control character in a string"),
            None => self.fail("string without an end"),
        }
    }

    fn string_with_escapes(&mut self, start: usize) -> Result<Cow<'a, str>> {
        let mut out = String::from(&self.text[start..self.at]);
        loop {
            let run = self.at;
            self.at += plain_run(&self.text.as_bytes()[run..]);
            out.push_str(&self.text[run..self.at]);
            match self.peek_raw() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return self.fail("control character in a string"),
                None => return self.fail("string without an end"),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let code = self.peek_raw();
        self.at += 1;
        Ok(match code {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                self.at -= 1;
                return self.fail("unknown escape in a string");
            }
        })
    }

    fn unicode(&mut self) -> Result<char> {
        let high = self.hex4()?;
        let code = if (0xD800..0xDC00).contains(&high) {
            if !self.text[self.at.min(self.text.len())..].starts_with("\\u") {
                return self.fail("lone surrogate in a string");
            }
            self.at += 2;
            let low = self.hex4()?;
            if !(0xDC00..0xE000).contains(&low) {
                return self.fail("lone surrogate in a string");
            }
            0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)
        } else {
            high
        };
        char::from_u32(code).ok_or(Error { byte: self.at, what: "lone surrogate in a string" })
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let value = digits.and_then(|d| d.iter().try_fold(0, |n, &b| Some(n << 4 | char::from(b).to_digit(16)?)));
        match value {
            Some(n) => {
                self.at += 4;
                Ok(n)
            }
            None => self.fail("expected four hex digits"),
        }
    }

    /// The text of a number, checked against the grammar.
    ///
    /// # Errors
    /// On anything but a number.
    pub fn number(&mut self) -> Result<&'a str> {
        self.space();
        let start = self.at;
        if self.peek_raw() == Some(b'-') {
            self.at += 1;
        }
        match self.peek_raw() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.fail("expected a number"),
        }
        if self.peek_raw() == Some(b'.') {
            self.at += 1;
            self.digits_required()?;
        }
        if let Some(b'e' | b'E') = self.peek_raw() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek_raw() {
                self.at += 1;
            }
            self.digits_required()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) {
        while self.peek_raw().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn digits_required(&mut self) -> Result<()> {
        let start = self.at;
        self.digits();
        if start == self.at { self.fail("expected a digit") } else { Ok(()) }
    }

    /// A whole number from 0 to 2^64 - 1, written without sign, point or exponent.
    ///
    /// # Errors
    /// On anything else.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        let start = self.at;
        let text = self.number()?;
        text.parse().map_err(|_| Error { byte: start, what: "expected a whole number from 0 to 2^64-1" })
    }

    /// A whole number that fits 64 bits with sign.
    ///
    /// # Errors
    /// On anything else.
    pub fn i64(&mut self) -> Result<i64> {
        let start = self.at;
        let text = self.number()?;
        text.parse().map_err(|_| Error { byte: start, what: "expected a whole number of 64 bits" })
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// On anything else.
    pub fn bool(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => self.fail("expected true or false"),
        }
    }

    /// True, and consumed, if `null` comes next.
    ///
    /// # Errors
    /// On a misspelt `null`.
    pub fn null(&mut self) -> Result<bool> {
        if self.peek() == Some(b'n') { self.word("null").map(|()| true) } else { Ok(false) }
    }

    fn word(&mut self, word: &'static str) -> Result<()> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            self.fail("expected a value")
        }
    }

    /// Passes over one value of any kind and returns its text as it stands.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn raw(&mut self) -> Result<&'a str> {
        self.space();
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'{') => {
                self.begin_object()?;
                let mut first = true;
                while self.key(&mut first)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'[') => {
                self.begin_array()?;
                let mut first = true;
                while self.element(&mut first)? {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'"') => self.string().map(|_| ()),
            Some(b't' | b'f') => self.bool().map(|_| ()),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(_) => self.fail("expected a value"),
            None => self.fail("unexpected end"),
        }
    }

    /// One value of any kind as a tree.
    ///
    /// # Errors
    /// If it is malformed, nested too deep, or an object repeats a key.
    pub fn value(&mut self) -> Result<Value> {
        Ok(match self.peek() {
            Some(b'{') => {
                self.begin_object()?;
                let (mut first, mut fields) = (true, Vec::new());
                while let Some(key) = self.key(&mut first)? {
                    if fields.iter().any(|(k, _): &(String, Value)| *k == key) {
                        return self.fail("duplicate key");
                    }
                    fields.push((key.into_owned(), self.value()?));
                }
                Value::Object(fields)
            }
            Some(b'[') => {
                self.begin_array()?;
                let (mut first, mut items) = (true, Vec::new());
                while self.element(&mut first)? {
                    items.push(self.value()?);
                }
                Value::Array(items)
            }
            Some(b'"') => Value::String(self.string()?.into_owned()),
            Some(b't' | b'f') => Value::Bool(self.bool()?),
            Some(b'n') => self.word("null").map(|()| Value::Null)?,
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?.to_string()),
            Some(_) => return self.fail("expected a value"),
            None => return self.fail("unexpected end"),
        })
    }

    /// Requires that nothing but white space is left.
    ///
    /// # Errors
    /// If something is.
    pub fn end(&mut self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { self.fail("unexpected text after the value") }
    }
}

/// How many bytes stand before the first quote, backslash or control character, eight at a time: replaying a log is
/// mostly this.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte of `x` is zero, exactly in the lowest place that is marked.
    let zeros = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let w = u64::from_le_bytes(*word);
        let control = w.wrapping_sub(ONES * 0x20) & !w & HIGHS;
        let stops = zeros(w ^ (ONES * 0x22)) | zeros(w ^ (ONES * 0x5c)) | control;
        if stops != 0 {
            return i * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let stops = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
    words.len() * 8 + rest.iter().position(stops).unwrap_or(rest.len())
}

/// Reads a whole text as one value.
///
/// # Errors
/// If it is malformed, too deep, has a duplicate key, or text follows it.
pub fn parse(text: &str) -> Result<Value> {
    let mut reader = Reader::new(text);
    let value = reader.value()?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests;
