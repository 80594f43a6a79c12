//! A proxy between us and the server (RFC 9110, 9.3.6; RFC 9112, 3.2.2): a tunnel by `CONNECT` for `https`, and for
//! `http` requests whose target is the whole URL.
//!
//! Invariants: a proxy is used only where somebody configured one; its password goes to the proxy and nowhere else.
//!
//! Absent: proxies that are spoken to by TLS, SOCKS, schemes of authentication other than Basic (RFC 7617).

use super::base_url::{SetupError, host_of};
use duragent_core::secret::Secret;
use std::io::{self, Read};
use ureq::http::Uri;

/// Most bytes of what a proxy answers to `CONNECT`.
const HEAD_MAX: usize = 8 * 1024;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    uri: Uri,
    /// Value of `Proxy-Authorization`.
    credentials: Option<Secret>,
}

/// The proxy does not let us through.
#[derive(Debug)]
pub(super) struct ProxyRefused {
    pub(super) status: u16,
}

impl std::fmt::Display for ProxyRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the proxy answered {}", self.status)
    }
}

impl std::error::Error for ProxyRefused {}

impl Proxy {
    /// Reads `http://HOST:PORT`, with `USER:PASSWORD@` in it if the proxy wants that (in percent-encoding as in all URLs).
    ///
    /// # Errors
    /// [`SetupError`], which does not show the password.
    pub fn parse(url: &Secret) -> Result<Self, SetupError> {
        let url = url.expose();
        let bad = |what| SetupError::Proxy { what };
        let rest = url.strip_prefix("http://").ok_or_else(|| bad("is not http://HOST:PORT"))?;
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let clean = ["http://", place.trim_end_matches('/')].concat();
        let host = host_of(&clean).map_err(|_| bad("is not http://HOST:PORT"))?;
        let uri: Uri = clean.parse().map_err(|_| bad("is not http://HOST:PORT"))?;
        if uri.path() != "/" {
            return Err(bad("has a path"));
        }
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let pair = [decoded(name), vec![b':'], decoded(password)].concat();
            Secret::new(["Basic ", &base64(&pair)].concat())
        });
        Ok(Self { host, uri, credentials })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What stands for the secret on the wire.
    pub(super) fn credentials(&self) -> Option<&Secret> {
        self.credentials.as_ref()
    }

    /// What has to be resolved and connected to.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The request for a tunnel to `target`, host and port.
    pub(super) fn connect_request(&self, target: &str) -> String {
        let mut out = ["CONNECT ", target, " HTTP/1.1\r\nHost: ", target, "\r\n"].concat();
        self.write_credentials(&mut out);
        out.push_str("\r\n");
        out
    }

    /// The head of a plain request to `origin` as the proxy wants it, from the first bytes of one as servers want it;
    /// `None` if these are no such thing.
    pub(super) fn rewritten(&self, origin: &str, head: &[u8]) -> Option<Vec<u8>> {
        let target = head.iter().position(|&b| b == b' ')? + 1;
        let end = head.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let mut credentials = String::new();
        self.write_credentials(&mut credentials);
        let (method, line, rest) = (head.get(..target)?, head.get(target..end)?, head.get(end..)?);
        Some([method, origin.as_bytes(), line, credentials.as_bytes(), rest].concat())
    }

    fn write_credentials(&self, out: &mut String) {
        if let Some(credentials) = &self.credentials {
            out.push_str("Proxy-Authorization: ");
            out.push_str(credentials.expose());
            out.push_str("\r\n");
        }
    }
}

/// Reads the answer to `CONNECT`, and no byte of what comes through the tunnel.
///
/// # Errors
/// [`ProxyRefused`]; `InvalidData` if it is no HTTP.
pub(super) fn read_answer(wire: &mut dyn Read) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX || wire.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&byte);
    }
    let status = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    match status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(io::Error::other(ProxyRefused { status })),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP")),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let code = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(code) if first == b'%' => {
                out.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at > part.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Proxy, base64, decoded, read_answer};
    use duragent_core::secret::Secret;

    fn proxy(url: &str) -> Result<Proxy, String> {
        Proxy::parse(&Secret::new(url.into())).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_of_proxies_are_read_and_passwords_not_shown() {
        let found = proxy("http://me:p%40ss@proxy.lan:3128/").unwrap();
        assert_eq!((found.host(), found.credentials().unwrap().expose()), ("proxy.lan:3128", "Basic bWU6cEBzcw=="));
        assert!(!format!("{found:?}").contains("bWU6"), "{found:?}");
        assert!(proxy("http://10.0.0.1:8080").unwrap().credentials().is_none());
        for url in ["", "proxy:3128", "https://proxy:3128", "socks5://proxy", "http://", "http://geheim@", "http://a/b"]
        {
            let error = proxy(url).unwrap_err();
            assert!(error.contains("proxy") && !error.contains("geheim"), "{url}: {error}");
        }
    }

    #[test]
    fn a_request_names_its_whole_target_to_a_proxy() {
        let proxy = proxy("http://a:b@p:1").unwrap();
        let head = b"POST /v1/x?y HTTP/1.1\r\nHost: h\r\n\r\n{}";
        let found = proxy.rewritten("http://h:80", head).unwrap();
        let want = "POST http://h:80/v1/x?y HTTP/1.1\r\nProxy-Authorization: Basic YTpi\r\nHost: h\r\n\r\n{}";
        assert_eq!(String::from_utf8(found).unwrap(), want);
        assert_eq!(proxy.rewritten("http://h", b"POST /v1"), None);
        let want = "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nProxy-Authorization: Basic YTpi\r\n\r\n";
        assert_eq!(proxy.connect_request("h:443"), want);
    }

    #[test]
    fn an_answer_to_connect_is_read_to_its_end_and_no_further() {
        let ends = |bytes: &str| {
            let mut rest = bytes.as_bytes();
            let result = read_answer(&mut rest).map_err(|error| error.to_string());
            (result, rest.len())
        };
        assert_eq!(ends("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n\x16\x03"), (Ok(()), 2));
        assert_eq!(ends("HTTP/1.0 403 No\r\n\r\n").0.unwrap_err(), "the proxy answered 403");
        assert_eq!(ends("220 smtp\r\n\r\n").0.unwrap_err(), "it does not speak HTTP");
        assert_eq!(ends("HTTP/1.1 200").0.unwrap_err(), "unexpected end of file");
        assert!(ends(&format!("HTTP/1.1 200 {}", "x".repeat(9000))).0.is_err());
    }

    #[test]
    fn texts_are_encoded_as_the_rfcs_say() {
        for (text, want) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(text.as_bytes()), want);
        }
        for (text, want) in
            [("a%20b", "a b"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%41%42", "AB"), ("%+1", "%+1")]
        {
            assert_eq!(String::from_utf8(decoded(text)).unwrap(), want, "{text}");
        }
    }
}
