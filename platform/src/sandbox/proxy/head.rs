//! The head of a request to a proxy (RFC 9112, RFC 9110 section 9.3.6), read strictly: what a head asks for is clear or it is
//! refused.
//!
//! Invariant: what is passed on was put together here from parts that were checked.
//!
//! Absent: bodies. They are passed on as they come, and the server at the other end says where they stop.

use super::address::Target;

/// Longest head in bytes, request line and empty line at the end included. Tools send far less than 1 KiB; tokens and
/// cookies add some.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Most header fields in one head; tools send 5–20.
const HEADERS_MAX: usize = 100;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It breaks the grammar, or asks for what is not done; the text says which.
    Malformed(&'static str),
    /// More than [`HEAD_BYTES_MAX`] or [`HEADERS_MAX`].
    TooLarge,
}

/// What a head asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Where to.
    pub(super) target: Target,
    /// The head for the other end; `None` for a tunnel (`CONNECT`).
    pub(super) forward: Option<Vec<u8>>,
}

/// Where the head at the start of `bytes` ends, once it is whole. The first `seen` bytes were looked at before.
pub(super) fn find_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Bad> {
    let seen = seen.min(bytes.len());
    let mut previous = bytes.get(..seen).and_then(<[u8]>::last).copied().unwrap_or_default();
    for (at, &byte) in bytes.iter().enumerate().skip(seen) {
        match byte {
            b'\n' if previous != b'\r' => return Err(Bad::Malformed("line feed without carriage return")),
            b'\n' => {}
            _ if previous == b'\r' => return Err(Bad::Malformed("carriage return without line feed")),
            0 => return Err(Bad::Malformed("NUL byte in the head")),
            _ => {}
        }
        previous = byte;
        let end = at + 1;
        if end > HEAD_BYTES_MAX {
            return Err(Bad::TooLarge);
        }
        if bytes.get(..end).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
            return Ok(Some(end));
        }
    }
    if bytes.len() >= HEAD_BYTES_MAX { Err(Bad::TooLarge) } else { Ok(None) }
}

/// Reads a whole head, as [`find_end`] delimited it.
pub(super) fn parse(head: &[u8]) -> Result<Request, Bad> {
    let lines = head.strip_suffix(b"\r\n\r\n").ok_or(Bad::Malformed("head without an end"))?;
    // The line ends were checked when the end was looked for.
    let mut lines = lines.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let [method, target, version] = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Vec::new();
    for line in lines {
        if fields.len() == HEADERS_MAX {
            return Err(Bad::TooLarge);
        }
        fields.push(field(line)?);
    }
    if method == "CONNECT" {
        let target = Target::parse(target, None).map_err(Bad::Malformed)?;
        return Ok(Request { target, forward: None });
    }
    let (target, path) = absolute(target)?;
    let host = target.host_field();
    let mut forward = Vec::with_capacity(head.len() + host.len() + 64);
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| forward.extend_from_slice(part));
    put(&[method.as_bytes(), b" "]);
    put(&[if path.starts_with('/') { b"".as_slice() } else { b"/" }, path.as_bytes()]);
    put(&[b" ", version.as_bytes(), b"\r\nHost: ", host.as_bytes(), b"\r\n"]);
    for (name, value) in fields.iter().filter(|(name, _)| !is_for_the_proxy(name, &fields)) {
        put(&[name.as_bytes(), b": ", value, b"\r\n"]);
    }
    put(&[b"Connection: close\r\n\r\n"]);
    Ok(Request { target, forward: Some(forward) })
}

/// Method, target and version.
fn request_line(line: &[u8]) -> Result<[&str; 3], Bad> {
    let line = std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|b| matches!(b, b' '..=b'~')));
    let line = line.ok_or(Bad::Malformed("expected a request line of visible ASCII characters"))?;
    let mut parts = line.split(' ');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(method), Some(target), Some(version), None] => {
            if !is_token(method.as_bytes()) {
                return Err(Bad::Malformed("expected a method at the start of the request"));
            }
            if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
                return Err(Bad::Malformed("expected HTTP/1.1 after the request target"));
            }
            Ok([method, target, version])
        }
        _ => Err(Bad::Malformed("expected method, target and version with one space between them")),
    }
}

/// Name and value of one line.
fn field(line: &[u8]) -> Result<(&str, &[u8]), Bad> {
    let colon = line.iter().position(|&b| b == b':').ok_or(Bad::Malformed("expected ':' in a header field"))?;
    let (name, value) = line.split_at_checked(colon).unwrap_or_default();
    let value = value.get(1..).unwrap_or_default();
    // A folded line (RFC 9112 section 5.2) starts with a space, which is no token either.
    let name = std::str::from_utf8(name).ok().filter(|name| is_token(name.as_bytes()));
    let name = name.ok_or(Bad::Malformed("malformed header name, or a folded header"))?;
    if value.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)) {
        Ok((name, value.trim_ascii()))
    } else {
        Err(Bad::Malformed("control character in a header value"))
    }
}

/// `token` of RFC 9110 section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let is_byte = |&b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !bytes.is_empty() && bytes.iter().all(is_byte)
}

/// Splits `http://host:port/path?query` into where to and the rest, which may lack its slash.
fn absolute(target: &str) -> Result<(Target, &str), Bad> {
    let rest = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            return Err(Bad::Malformed("expected CONNECT for https"));
        }
        _ => return Err(Bad::Malformed("expected http://host/path or CONNECT: this is a proxy")),
    };
    if rest.contains('#') {
        return Err(Bad::Malformed("fragment in the request target"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target = Target::parse(authority, Some(80)).map_err(Bad::Malformed)?;
    Ok((target, path))
}

/// True for a field that ends here (RFC 9110 section 7.6.1), or is written anew.
fn is_for_the_proxy(name: &str, fields: &[(&str, &[u8])]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // These say where the body ends, whatever else is said about them.
    if is("content-length") || is("transfer-encoding") {
        return false;
    }
    let prefix = name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"));
    prefix || is("host") || is("connection") || is("keep-alive") || is_connection_option(name, fields)
}

/// True if a `Connection` field has `name` in its list.
fn is_connection_option(name: &str, fields: &[(&str, &[u8])]) -> bool {
    let lists = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let mut options = lists.flat_map(|(_, value)| value.split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    options.any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Result<Request, Bad> {
        match find_end(head.as_bytes(), 0)? {
            Some(end) if end == head.len() => parse(head.as_bytes()),
            _ => Err(Bad::Malformed("test: no whole head")),
        }
    }

    #[test]
    fn tunnels() {
        let check = |head: &str, target: &str| {
            let request = request(head).unwrap_or_else(|bad| panic!("{head:?}: {bad:?}"));
            assert_eq!((request.target.to_string().as_str(), request.forward), (target, None), "{head:?}");
        };
        check("CONNECT example.com:443 HTTP/1.1\r\n\r\n", "example.com:443");
        check("CONNECT A.:1 HTTP/1.0\r\nHost: b:2\r\nProxy-Authorization: Basic eA==\r\n\r\n", "a:1");
        check("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", "[::1]:443");
    }

    #[test]
    fn requests_are_written_anew() {
        let check = |head: &str, target: &str, forward: &str| {
            let request = request(head).unwrap_or_else(|bad| panic!("{head:?}: {bad:?}"));
            let written = String::from_utf8(request.forward.unwrap()).unwrap();
            assert_eq!((request.target.to_string().as_str(), written.as_str()), (target, forward), "{head:?}");
        };
        check(
            "GET http://Example.com/a%20b?c=d HTTP/1.1\r\nHost: other\r\nhOst: third\r\nAccept:\t*/* \r\n\r\n",
            "example.com:80",
            "GET /a%20b?c=d HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        );
        check(
            "POST HTTP://a:81 HTTP/1.0\r\nContent-Length: 5\r\n\r\n",
            "a:81",
            "POST / HTTP/1.0\r\nHost: a:81\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        );
        check("GET http://a?b HTTP/1.1\r\n\r\n", "a:80", "GET /?b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        check(
            "GET http://[::1]/ HTTP/1.1\r\n\r\n",
            "[::1]:80",
            "GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
        );
        check(
            "GET http://a/http://b/ HTTP/1.1\r\nConnection: x-hop, Keep-Alive ,content-length\r\nX-Hop: 1\r\nX-Hops: 2\r\n\
             Keep-Alive: 3\r\nPROXY-Connection: 4\r\nProxy-Authorization: 5\r\nContent-Length: 6\r\n\
             Transfer-Encoding: chunked\r\nconnection: X-Second\r\nX-Second: 7\r\n\r\n",
            "a:80",
            "GET /http://b/ HTTP/1.1\r\nHost: a\r\nX-Hops: 2\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n",
        );
    }

    #[test]
    fn heads_that_are_refused() {
        let wrong = [
            "\r\n\r\n",
            " \r\n\r\n",
            "GET\r\n\r\n",
            "GET http://a/\r\n\r\n",
            "GET  http://a/ HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1 \r\n\r\n",
            " GET http://a/ HTTP/1.1\r\n\r\n",
            "GET\thttp://a/ HTTP/1.1\r\n\r\n",
            "GET http://a/ b HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/2.0\r\n\r\n",
            "GET http://a/ http/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n X: 1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: 1\r\n 2\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: 1\r\n\t2\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX : 1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n: 1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: \x01\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: a\x0c\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: \x7f\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\u{e4}: 1\r\n\r\n",
            "GET http://a/\u{e4} HTTP/1.1\r\n\r\n",
            "GET http://a/#b HTTP/1.1\r\n\r\n",
            "GET http://a#b HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a:80 HTTP/1.1\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\n\r\n",
            "GET //a/ HTTP/1.1\r\n\r\n",
            "GET http:// HTTP/1.1\r\n\r\n",
            "GET http:/// HTTP/1.1\r\n\r\n",
            "GET http://a:/ HTTP/1.1\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\n\r\n",
            "GET http://u:p@a/ HTTP/1.1\r\n\r\n",
            "GET http://a%2e/ HTTP/1.1\r\n\r\n",
            "GET http://a\\b/ HTTP/1.1\r\n\r\n",
            "GET http://127.1/ HTTP/1.1\r\n\r\n",
            "G(T http://a/ HTTP/1.1\r\n\r\n",
            "connect a:1 HTTP/1.1\r\n\r\n",
            "CONNECT a HTTP/1.1\r\n\r\n",
            "CONNECT http://a:1 HTTP/1.1\r\n\r\n",
            "CONNECT a:1/ HTTP/1.1\r\n\r\n",
            "CONNECT /a:1 HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\n\n",
            "GET http://a/ HTTP/1.1\r\n\n",
            "GET http://a/ HTTP/1.1\nX: 1\r\n\r\n",
            "GET http://a/ HTTP/1.1\rX: 1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\r\n\r\n",
            "GET http://a/\0 HTTP/1.1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: \0\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nX: 1\rY: 2\r\n\r\n",
        ];
        for head in wrong {
            match request(head) {
                Err(Bad::Malformed(text)) if !text.starts_with("test") => {}
                other => panic!("{head:?}: {other:?}"),
            }
            // No part of it is a head either, and none is a fault of ours.
            (0..head.len()).for_each(|end| _ = parse(head.as_bytes().get(..end).unwrap_or_default()));
        }
    }

    #[test]
    fn sizes() {
        let with_fields = |count: usize| format!("GET http://a/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(count));
        assert!(request(&with_fields(HEADERS_MAX)).is_ok());
        assert_eq!(request(&with_fields(HEADERS_MAX + 1)), Err(Bad::TooLarge));
        let with_bytes = |count: usize| {
            let start = "GET http://a/ HTTP/1.1\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(count - start.len() - 4))
        };
        assert!(request(&with_bytes(HEAD_BYTES_MAX)).is_ok());
        assert_eq!(request(&with_bytes(HEAD_BYTES_MAX + 1)), Err(Bad::TooLarge));
        assert_eq!(find_end(&[b'x'; HEAD_BYTES_MAX - 1], 0), Ok(None));
        assert_eq!(find_end(&[b'x'; HEAD_BYTES_MAX], 0), Err(Bad::TooLarge));
    }

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_split() {
        let check = |bytes: &str| {
            let whole = find_end(bytes.as_bytes(), 0);
            for split in 0..bytes.len() {
                let found = match find_end(bytes.as_bytes().get(..split).unwrap(), 0) {
                    Ok(None) => find_end(bytes.as_bytes(), split),
                    found => found,
                };
                assert_eq!(found, whole, "{bytes:?} at {split}");
            }
            whole
        };
        let head = "GET http://a/ HTTP/1.1\r\nX: 1\r\n\r\n";
        assert_eq!(check(head), Ok(Some(head.len())));
        assert_eq!(check(&format!("{head}rest\n\0\r\n\r\n")), Ok(Some(head.len())));
        assert_eq!(check("GET http://a/ HTTP/1.1\r\nX: 1\r\n"), Ok(None));
        for wrong in ["GET / HTTP/1.1\n\r\n", "GET / HTTP/1.1\r\nX\r\r\n\r\n", "GET /\0 HTTP/1.1\r\n\r\n"] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
