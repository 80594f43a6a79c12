//! Server-sent events, read as the bytes arrive (WHATWG HTML Living Standard, "Server-sent events", parsing and
//! interpreting an event stream).
//!
//! Lines end with CR LF, LF or CR; a byte order mark at the start is dropped; comments are passed over; `data` lines are
//! joined by LF; an event without data is not given out; an event that its blank line does not follow is not given out
//! either, and [`Events::finish`] tells.
//!
//! Two choices of ours: bytes that are not UTF-8 are an error instead of replacement characters, because what is read
//! here is acted on; and `retry` is ignored, because who reconnects when is decided elsewhere.
//!
//! Invariant: never holds more than the limit for the event, and as much for the last id. Absent: I/O, and recovery after an error.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Most bytes of one event, its lines together, unless told otherwise. One chunk of a model's stream is some hundred
/// bytes; a log line sent as an event may hold a tool result of many kilobytes.
pub const EVENT_MAX: usize = 1024 * 1024;

/// Why the stream cannot be read on. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The event is larger than the limit.
    TooLong {
        /// Line at which it got too large.
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
    /// The stream ended within an event.
    Cut {
        /// Last line of it that was begun.
        line: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { line, max } => write!(f, "line {line}: event larger than {max} bytes"),
            Self::Utf8 { line, byte } => write!(f, "line {line}: not UTF-8 at byte {byte}"),
            Self::Cut { line } => write!(f, "line {line}: the stream ended within an event"),
        }
    }
}

impl core::error::Error for Error {}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type; `message` if the stream does not say.
    pub event: &'a str,
    /// Its data lines, joined by LF.
    pub data: &'a str,
    /// The last id seen so far, this event's or an earlier one's; empty if none.
    pub id: &'a str,
}

/// Assembles events.
#[derive(Debug)]
pub struct Events {
    part: Vec<u8>,
    event: String,
    data: String,
    /// Bytes of `id:` become the id of the stream only when their event is whole.
    new_id: Option<String>,
    id: String,
    has_data: bool,
    /// The event was given out; the next call starts afresh.
    lent: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    line: u64,
    max: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self::new(EVENT_MAX)
    }
}

impl Events {
    /// At the start of a stream whose events have at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            part: Vec::new(),
            event: String::new(),
            data: String::new(),
            new_id: None,
            id: String::new(),
            has_data: false,
            lent: false,
            after_cr: false,
            line: 1,
            max,
        }
    }

    /// Takes bytes from the front of `input` up to the end of an event and returns that event; `None` when `input` is
    /// used up. Call it again until then.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Utf8`].
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event<'_>>, Error> {
        if core::mem::take(&mut self.lent) {
            self.reset();
        }
        loop {
            if self.after_cr && !input.is_empty() {
                self.after_cr = false;
                *input = input.strip_prefix(b"\n").unwrap_or(input);
            }
            let Some(end) = input.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                self.check_room(input.len())?;
                self.part.extend_from_slice(input);
                *input = &[];
                return Ok(None);
            };
            let head = &input[..end];
            self.after_cr = input[end] == b'\r';
            *input = &input[end + 1..];
            self.check_room(head.len())?;
            if self.whole_line(head)? {
                self.lent = true;
                let event = if self.event.is_empty() { "message" } else { &self.event };
                return Ok(Some(Event { event, data: &self.data, id: &self.id }));
            }
        }
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// [`Error::Cut`] if data came whose event has no end.
    pub fn finish(&self) -> Result<(), Error> {
        if self.lent || (self.part.is_empty() && !self.has_data) { Ok(()) } else { Err(Error::Cut { line: self.line }) }
    }

    /// Ends a line whose last part is `head`; true if an event is whole with it.
    fn whole_line(&mut self, head: &[u8]) -> Result<bool, Error> {
        if self.part.is_empty() {
            return self.field(head);
        }
        let mut part = core::mem::take(&mut self.part);
        part.extend_from_slice(head);
        let done = self.field(&part);
        part.clear();
        self.part = part;
        done
    }

    fn field(&mut self, line: &[u8]) -> Result<bool, Error> {
        let number = self.line;
        self.line += 1;
        let line = core::str::from_utf8(line).map_err(|e| Error::Utf8 { line: number, byte: e.valid_up_to() })?;
        let line = if number == 1 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if core::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "event" => {
                self.event.clear();
                self.event.push_str(value);
            }
            "id" if !value.contains('\0') => self.new_id = Some(value.into()),
            _ => {}
        }
        Ok(false)
    }

    fn dispatch(&mut self) -> bool {
        if let Some(id) = self.new_id.take() {
            self.id = id;
        }
        if !self.has_data {
            self.reset();
        }
        self.has_data
    }

    fn reset(&mut self) {
        self.event.clear();
        self.data.clear();
        self.has_data = false;
    }

    /// All that is held counts, so that an event of many small lines is bounded like one of a single line.
    fn check_room(&self, more: usize) -> Result<(), Error> {
        let id = self.new_id.as_ref().map_or(0, String::len);
        let held = self.part.len() + self.data.len() + usize::from(self.has_data) + self.event.len() + id;
        if held + more > self.max { Err(Error::TooLong { line: self.line, max: self.max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Events};
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    type Outcome = (Vec<String>, Option<Error>);

    fn read(max: usize, pieces: &[&[u8]]) -> Outcome {
        let (mut events, mut out) = (Events::new(max), Vec::new());
        for mut piece in pieces.iter().copied() {
            loop {
                match events.next(&mut piece) {
                    Ok(Some(e)) => out.push(format!("{}|{}|{}", e.event, e.data, e.id)),
                    Ok(None) => break,
                    Err(error) => return (out, Some(error)),
                }
            }
            assert!(piece.is_empty(), "input is used up when there is no event");
            assert!(events.part.len() + events.data.len() <= max, "never holds more than the limit");
        }
        let end = events.finish().err();
        (out, end)
    }

    /// The same outcome however the bytes arrive.
    fn check(max: usize, input: &[u8], events: &[&str], error: Option<Error>) {
        let want = (events.iter().map(ToString::to_string).collect::<Vec<_>>(), error);
        assert_eq!(read(max, &[input]), want, "whole: {input:?}");
        for at in 0..=input.len() {
            let (a, b) = input.split_at(at);
            assert_eq!(read(max, &[a, b]), want, "split at {at}: {input:?}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(read(max, &bytes), want, "byte by byte: {input:?}");
    }

    #[test]
    fn events_come_out_however_they_arrive() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("data: a\n\n", &["message|a|"]),
            ("data:a\r\n\r\ndata:b\r\n\r\n", &["message|a|", "message|b|"]),
            ("data:a\r\rdata:b\r\r", &["message|a|", "message|b|"]),
            ("data:a\n\rdata:b\r\n\n", &["message|a|", "message|b|"]),
            ("\u{feff}data: a\n\n", &["message|a|"]),
            ("data: a\n\ndata: \u{feff}b\n\n", &["message|a|", "message|\u{feff}b|"]),
            (": ping\n\n: ping\n\ndata: a\n: within\ndata: b\n\n", &["message|a\nb|"]),
            ("event: token\ndata: {\"t\":\"größe 🦀\"}\n\ndata\n\n", &["token|{\"t\":\"größe 🦀\"}|", "message||"]),
            ("data:  two spaces\n\n", &["message| two spaces|"]),
            ("id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", &["message|a|7", "message|b|7", "message|c|"]),
            ("id: 7\n\ndata: a\n\n", &["message|a|7"]),
            ("id: 7\ndata: a\n\nid: x\0y\ndata: b\n\n", &["message|a|7", "message|b|7"]),
            ("event: gone\n\ndata: a\n\n", &["message|a|"]),
            ("retry: 10\nunknown: x\ndata: YHOO\ndata: +2\ndata: 10\n\n", &["message|YHOO\n+2\n10|"]),
            ("data\n\ndata\ndata\n\ndata: [DONE]\n\n", &["message||", "message|\n|", "message|[DONE]|"]),
            ("\n\n\r\r\n\ndata: a\n\n", &["message|a|"]),
        ];
        for (input, events) in cases {
            check(64, input.as_bytes(), events, None);
        }
    }

    #[test]
    fn a_cut_event_is_reported_and_not_given_out() {
        check(64, b"data: a\n\ndata: b\n", &["message|a|"], Some(Error::Cut { line: 4 }));
        check(64, b"data: a\n\ndata: b", &["message|a|"], Some(Error::Cut { line: 3 }));
        check(64, b"data: a\n\n: comm", &["message|a|"], Some(Error::Cut { line: 3 }));
        check(64, b"data: a\n\nevent: x\n", &["message|a|"], None);
    }

    #[test]
    fn an_event_larger_than_the_limit_is_refused() {
        check(8, b"data:abc\n\n", &["message|abc|"], None);
        check(8, b"data:abcd\n\n", &[], Some(Error::TooLong { line: 1, max: 8 }));
        check(8, b"data\ndata\ndata\ndata\ndata\ndata\n\n", &[], Some(Error::TooLong { line: 6, max: 8 }));
        check(8, b":123456789", &[], Some(Error::TooLong { line: 1, max: 8 }));
        check(8, b"id:1234\nid:1\n\n", &[], None);
        check(8, b"event:12\nid:1234\n\n", &[], Some(Error::TooLong { line: 2, max: 8 }));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        check(64, b"data: a\n\ndata: \xff\n\n", &["message|a|"], Some(Error::Utf8 { line: 3, byte: 6 }));
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(Error::TooLong { line: 3, max: 9 }.to_string(), "line 3: event larger than 9 bytes");
        assert_eq!(Error::Utf8 { line: 2, byte: 1 }.to_string(), "line 2: not UTF-8 at byte 1");
        assert_eq!(Error::Cut { line: 1 }.to_string(), "line 1: the stream ended within an event");
    }
}
