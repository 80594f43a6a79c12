//! The head of an HTTP/1.x request (RFC 9112), read strictly.
//!
//! Job: find where a head ends while it arrives ([`Finder`]), then say what it asks for and how its body is framed
//! ([`parse`]). `httparse` knows the grammar; what it lets pass and a server must not is refused here: bare CR and LF,
//! NUL, a missing or second `Host`, and every doubt about where the body ends, because a doubt is a smuggled request.
//!
//! Invariants: no byte is looked at twice by the finder, so a head that arrives one byte at a time costs no more than one
//! that arrives whole. Nothing is guessed: a head is understood or refused with the status to answer.
//!
//! Absent: routing, authorization, the body itself.

use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv6Addr;

/// Longest head in bytes, request line and final empty line included. Browsers send 1–2 KiB; cookies may double that.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most header fields in one head; ordinary clients send 5–20.
pub const HEADERS_MAX: usize = 100;

/// Longest request target in bytes: what RFC 9112 section 3 recommends to support.
pub const TARGET_BYTES_MAX: usize = 8000;

/// Why a head is refused. The connection cannot go on after any of these: nobody knows where the next request starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It breaks the grammar or the framing rules; the text says which.
    Malformed(&'static str),
    /// The request line or its target is too long.
    TargetTooLong,
    /// More than [`HEAD_BYTES_MAX`] bytes.
    HeadTooLarge,
    /// More than [`HEADERS_MAX`] header fields.
    TooManyHeaders,
    /// An `Expect` other than `100-continue`.
    UnknownExpectation,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    UnknownVersion,
}

impl Refusal {
    /// The status code to answer (RFC 9110 section 15).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TargetTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::UnknownVersion => 505,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::TargetTooLong => write!(f, "request target longer than {TARGET_BYTES_MAX} bytes"),
            Self::HeadTooLarge => write!(f, "request head longer than {HEAD_BYTES_MAX} bytes"),
            Self::TooManyHeaders => write!(f, "more than {HEADERS_MAX} header fields"),
            Self::UnknownExpectation => f.write_str("expected no expectation but 100-continue"),
            Self::UnknownVersion => f.write_str("expected HTTP/1.0 or HTTP/1.1"),
        }
    }
}

impl core::error::Error for Refusal {}

/// Finds the end of a head in bytes that are still arriving. One finder per head.
#[derive(Debug, Clone, Default)]
pub struct Finder {
    /// Next byte to look at.
    at: usize,
    /// Where the current line starts.
    line: usize,
    /// Lines seen that were not empty.
    lines: usize,
}

impl Finder {
    /// `bytes` is everything that has arrived since the previous request, from its first byte. Returns the length of the
    /// head once all of it is there. One empty line before the request line is tolerated (RFC 9112 section 2.2).
    ///
    /// # Errors
    /// [`Refusal`] as soon as the bytes cannot become a head that [`parse`] accepts, or are too many.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(&byte) = bytes.get(self.at) {
            let previous = self.at.checked_sub(1).and_then(|i| bytes.get(i)).copied();
            let after_cr = previous == Some(b'\r');
            match byte {
                b'\n' if !after_cr => return Err(Refusal::Malformed("line feed without carriage return")),
                b'\n' => {
                    if self.end_of_line()? {
                        return Ok(Some(self.at));
                    }
                    continue;
                }
                _ if after_cr => return Err(Refusal::Malformed("carriage return without line feed")),
                0 => return Err(Refusal::Malformed("NUL byte in the request head")),
                b'\r' => {}
                _ if self.at == self.line && self.lines == 0 && !is_token_byte(byte) => {
                    return Err(Refusal::Malformed("expected a method at the start of the request"));
                }
                _ => {}
            }
            self.at += 1;
            if self.at >= HEAD_BYTES_MAX {
                return Err(if self.lines == 0 { Refusal::TargetTooLong } else { Refusal::HeadTooLarge });
            }
        }
        Ok(None)
    }

    /// Takes the line feed at `at`. True if the head is whole.
    fn end_of_line(&mut self) -> Result<bool, Refusal> {
        let empty = self.at - self.line == 1;
        self.at += 1;
        match (empty, self.lines) {
            (true, 0) if self.line > 0 => return Err(Refusal::Malformed("empty lines before the request line")),
            (true, 0) => {}
            (true, _) => return Ok(true),
            (false, _) => self.lines += 1,
        }
        self.line = self.at;
        Ok(false)
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// `Content-Length`, more than 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// As sent; methods are case-sensitive.
    pub method: &'a str,
    /// Path of the target, not decoded: starts with `/`, or is `*`.
    pub path: &'a str,
    /// Query of the target without the question mark, not decoded; may be empty.
    pub query: &'a str,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    /// Name and port the client believes to talk to. `None` only in HTTP/1.0.
    pub host: Option<&'a str>,
    /// How long the body is.
    pub framing: Framing,
    /// The client wants to send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Head<'a> {
    /// The values of all fields called `name`, in order. Fields that may be repeated are read this way.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    /// The value of the field `name`, which must not be repeated.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it is there twice, or holds anything but visible ASCII, space and tab.
    pub fn one(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Refusal::Malformed("header field given twice that can have one value only"));
        }
        first.map(ascii).transpose()
    }
}

fn ascii(value: &[u8]) -> Result<&str, Refusal> {
    match core::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => Err(Refusal::Malformed("header value is not ASCII")),
    }
}

/// Reads a whole head, as [`Finder`] delimited it.
///
/// # Errors
/// [`Refusal`] with the status to answer.
pub fn parse(bytes: &[u8]) -> Result<Head<'_>, Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut slots);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Ok(_) => return Err(Refusal::Malformed("request head without an end")),
        Err(error) => return Err(grammar(error, bytes)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed("request line without an end"));
    };
    let (authority, path, query) = split_target(method, target)?;
    let headers = request.headers.iter().map(|h| (h.name, h.value)).collect();
    let (framing, keep_alive, expects_continue) = (Framing::Empty, false, false);
    let mut head = Head { method, path, query, minor, host: None, framing, keep_alive, expects_continue, headers };
    head.host = host(&head, authority)?;
    head.framing = self::framing(&head)?;
    head.keep_alive = keep_alive_of(&head);
    head.expects_continue = expectation(&head)?;
    Ok(head)
}

fn grammar(error: httparse::Error, bytes: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => Refusal::TooManyHeaders,
        Error::Version if names_a_version(bytes) => Refusal::UnknownVersion,
        Error::Version => Refusal::Malformed("expected HTTP/1.1 after the request target"),
        Error::HeaderName => Refusal::Malformed("malformed header name, or a folded header"),
        Error::HeaderValue => Refusal::Malformed("control character in a header value"),
        _ => Refusal::Malformed("malformed request line"),
    }
}

/// True if the request line ends in a version (RFC 9112 section 2.3), only not in one of ours.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\r').find(|l| !l.is_empty() && *l != b"\n").unwrap_or_default();
    let mut parts = line.split(|&b| b == b' ');
    let version = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(version), None) => version,
        _ => return false,
    };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Splits a target into authority, path and query (RFC 9112 section 3.2: origin, absolute and asterisk form).
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str, &'a str), Refusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    if !target.bytes().all(is_uri_byte) {
        return Err(Refusal::Malformed("character in the request target that has to be percent-encoded"));
    }
    match (method, target) {
        ("OPTIONS", "*") => return Ok((None, target, "")),
        ("CONNECT", _) => return Err(Refusal::Malformed("CONNECT, which only a proxy understands")),
        _ => {}
    }
    let (authority, rest) = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
            let rest = target.get(7..).unwrap_or_default();
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            (Some(authority), rest)
        }
        _ => (None, target),
    };
    if rest.contains(['[', ']']) {
        return Err(Refusal::Malformed("character in the request target that has to be percent-encoded"));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    match (authority, path) {
        (Some(_), "") => Ok((authority, "/", query)),
        (_, path) if path.starts_with('/') => Ok((authority, path, query)),
        _ => Err(Refusal::Malformed("expected a request target that starts with '/'")),
    }
}

/// Characters of a URI (RFC 3986 section 2), except for `#`, whose part is never sent, and for brackets, which stand around
/// IPv6 addresses only. What other servers make of the rest differs.
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=%[]".contains(&byte)
}

/// The host, from the target if that names one (RFC 9112 section 3.2.2), else from the one `Host` field. That field has to be
/// there and well-formed in either case.
fn host<'a>(head: &Head<'a>, authority: Option<&'a str>) -> Result<Option<&'a str>, Refusal> {
    let Ok(field) = head.one("host") else { return Err(Refusal::Malformed("expected one Host field")) };
    if field.is_none() && head.minor >= 1 {
        return Err(Refusal::Malformed("expected a Host field"));
    }
    if field.is_some_and(|text| !is_host_and_port(text)) {
        return Err(Refusal::Malformed("malformed Host field"));
    }
    if authority.is_some_and(|text| !is_host_and_port(text)) {
        return Err(Refusal::Malformed("malformed host in the request target"));
    }
    Ok(authority.or(field))
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2): a name, an IPv4 address, or an IPv6 address in brackets. An empty host is
/// not valid in the scheme `http`.
fn is_host_and_port(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
            (!name.is_empty() && name.bytes().all(is_name_byte), port)
        }
    };
    is_host
        && match port.strip_prefix(':') {
            Some(digits) => {
                digits.is_empty() || digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
            }
            None => port.is_empty(),
        }
}

/// RFC 9112 section 6.3, without its leniencies. It would have 501 for codings that nobody knows if `chunked` is the last of
/// them; 400 is for all that leave the end of the body in doubt, and we do not tell these apart.
fn framing(head: &Head<'_>) -> Result<Framing, Refusal> {
    let mut lengths = head.all("content-length");
    let (length, second) = (lengths.next(), lengths.next());
    let mut codings = head.all("transfer-encoding");
    match (codings.next(), length) {
        (Some(_), Some(_)) => Err(Refusal::Malformed("both Content-Length and Transfer-Encoding")),
        (Some(_), None) if head.minor == 0 => Err(Refusal::Malformed("Transfer-Encoding in HTTP/1.0")),
        (Some(_), None) if codings.next().is_some() => Err(Refusal::Malformed("more than one Transfer-Encoding")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Some(_), None) => Err(Refusal::Malformed("expected the transfer coding chunked and no other")),
        (None, Some(_)) if second.is_some() => Err(Refusal::Malformed("more than one Content-Length")),
        (None, Some(digits)) => match content_length(digits)? {
            0 => Ok(Framing::Empty),
            n => Ok(Framing::Length(n)),
        },
        (None, None) => Ok(Framing::Empty),
    }
}

/// Digits only: no sign, no space, no list. What does not fit 64 bits is as good as too large.
fn content_length(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Malformed("expected digits in Content-Length"));
    }
    let add = |n: u64, d: &u8| n.saturating_mul(10).saturating_add(u64::from(d - b'0'));
    Ok(digits.iter().fold(0, add))
}

fn keep_alive_of(head: &Head<'_>) -> bool {
    let mut keep = head.minor >= 1;
    for option in head.all("connection").flat_map(|v| v.split(|&b| b == b',')).map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keep
}

/// `Expect` (RFC 9110 section 10.1.1); HTTP/1.0 clients cannot mean it.
fn expectation(head: &Head<'_>) -> Result<bool, Refusal> {
    let mut values = head.all("expect");
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.eq_ignore_ascii_case(b"100-continue") => Ok(head.minor >= 1),
        _ => Err(Refusal::UnknownExpectation),
    }
}

#[cfg(test)]
mod tests;
