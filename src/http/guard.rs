//! Who may ask at all: `Host` and `Origin` on loopback, bearer tokens on TCP.
//!
//! A web page can make a browser send requests to 127.0.0.1, and by DNS rebinding even read the answers. It cannot make
//! the browser lie in `Host` or `Origin`, so on loopback both have to be local names. Off loopback a token is required,
//! which no page has. A unix socket is guarded by its file mode.

use super::problem::{self, Problem};
use duragent_core::http_head::Head;
use hmac_sha256::Hash;
use std::hint::black_box;

/// The door a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A unix socket, or a socket pair in this process.
    Unix,
    /// A TCP listener on a loopback address.
    Loopback,
    /// Any other TCP listener, whoever connects to it.
    Network,
}

/// A bearer token. Only its SHA-256 is kept, which cannot be printed by accident and makes all tokens equally long.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Takes the secret, trimmed of white space around it. `None` if nothing is left: an empty token guards nothing.
    #[must_use]
    pub fn new(secret: &str) -> Option<Self> {
        let secret = secret.trim();
        if secret.is_empty() { None } else { Some(Self(Hash::hash(secret.as_bytes()))) }
    }

    /// Compares in time that does not depend on the contents.
    fn admits(&self, candidate: &str) -> bool {
        let other = Hash::hash(candidate.as_bytes());
        let difference = self.0.iter().zip(&other).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        difference == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Who may ask, on TCP.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Required on every TCP listener if set; has to be set off loopback.
    pub token: Option<Token>,
    /// Required instead of `token` for `/api/admin/`, if set.
    pub admin_token: Option<Token>,
}

/// Checks where a request believes to go and where it comes from.
pub(super) fn check_origin(head: &Head<'_>, peer: Peer) -> Result<(), Problem> {
    if peer != Peer::Loopback {
        return Ok(());
    }
    match head.host {
        Some(host) if !is_local(host) => {
            return Err(Problem::new(problem::FORBIDDEN, format!("expected a local name in Host, found {host:?}")));
        }
        _ => {}
    }
    match head.one("origin")? {
        Some(origin) if !origin.split_once("://").is_some_and(|(_, host)| is_local(host)) => {
            Err(Problem::new(problem::FORBIDDEN, format!("expected a local Origin or none, found {origin:?}")))
        }
        _ => Ok(()),
    }
}

/// Checks the bearer token, if this door needs one.
pub(super) fn check_token(head: &Head<'_>, peer: Peer, token: Option<&Token>) -> Result<(), Problem> {
    let Some(token) = token.filter(|_| peer != Peer::Unix) else {
        return Ok(());
    };
    let Some(given) = head.one("authorization")? else {
        return Err(Problem::new(problem::UNAUTHORIZED, "expected Authorization: Bearer TOKEN, found none"));
    };
    match given.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") && token.admits(secret.trim()) => Ok(()),
        _ => Err(Problem::new(problem::UNAUTHORIZED, "the bearer token is not the configured one")),
    }
}

/// True for `localhost`, `127.0.0.1` and `[::1]` with any port or none.
fn is_local(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        let port = match host.split_at_checked(name.len()) {
            Some((start, rest)) if start.eq_ignore_ascii_case(name) => rest,
            _ => return false,
        };
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::{Token, is_local};

    #[test]
    fn local_names_are_exactly_these() {
        for host in ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "localhost.example",
            "example",
            "127.0.0.1.example:80",
            "127.0.0.2",
            "::1",
            "localhost:80a",
            "localhost@a",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn tokens_compare_and_keep_silent() {
        let token = Token::new(" secret\n").expect("not empty");
        assert!(token.admits("secret") && !token.admits("secre") && !token.admits("secret ") && !token.admits(""));
        assert!(!format!("{token:?}").contains("secret"));
        assert_eq!(Token::new(" \n"), None);
    }
}
