//! Who may ask at all: `Host` and `Origin`, users of this machine, bearer tokens, and what proxies say about all of them.
//!
//! A web page can make a browser send requests to 127.0.0.1, and by DNS rebinding even read the answers. It cannot make
//! the browser lie in `Host`, `Origin` or `Sec-Fetch-Site`, so these have to be local or listed. Off loopback a token is
//! required, which no page has. On a unix socket the kernel says who asks.
//!
//! Invariants: `X-Forwarded-…` counts only from a configured proxy. Whoever comes through one needs the token, whatever
//! address they come from: so that address decides nothing, and cannot be forged to any use.
//!
//! Absent: answers for pages of other origins (CORS): they cannot read anything.

use super::problem::{self, Problem};
use super::response::JSON;
use duragent_core::http_head::{Framing, Head};
use duragent_core::net::Proxies;
use hmac_sha256::Hash;
use std::hint::black_box;
use std::net::IpAddr;

/// The door a connection came through, and who is on the other side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A unix socket, or a socket pair in this process.
    Unix {
        /// The other side is the user of this process or root.
        own: bool,
    },
    /// A TCP listener on a loopback address.
    Loopback(IpAddr),
    /// Any other TCP listener, whoever connects to it.
    Network(IpAddr),
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

/// Who may ask, and under which names.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Required of everybody but the user of this process on a unix socket, if set; has to be set off loopback and with
    /// `proxies`.
    pub token: Option<Token>,
    /// Required instead of `token` for `/api/admin/`, if set; admits everywhere else, too.
    pub admin_token: Option<Token>,
    /// Names in `Host` besides the local ones, with a port or for any.
    pub hosts: Vec<String>,
    /// Origins of pages besides the local ones.
    pub origins: Vec<String>,
    /// Whose `X-Forwarded-…` counts.
    pub proxies: Proxies,
    /// Path in front of all others that requests may have and addresses in answers do have. Empty, or begins with a slash.
    pub base_path: String,
}

impl Access {
    /// `path` without the base path, if it begins with that.
    pub(super) fn below_base<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.base_path.as_str()) {
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    /// Checks where a request believes to go, and which page it comes from.
    pub(super) fn check_origin(&self, head: &Head<'_>, peer: Peer) -> Result<(), Problem> {
        let asked = if self.is_proxy(peer) { head.one("x-forwarded-host")? } else { None };
        let host = asked.or(head.host);
        // A name is listed where it matters. On loopback it always does: there a page may have no token to lack.
        let matters = matches!(peer, Peer::Loopback(_)) || !self.hosts.is_empty();
        match host {
            Some(host) if matters && !self.is_known(host) => {
                let detail = format!("expected a local name or one of server.allowed_hosts in Host, found {host:?}");
                return Err(Problem::new(problem::FORBIDDEN, detail));
            }
            _ => {}
        }
        match head.one("origin")? {
            Some(origin) if !self.is_known_origin(origin) => {
                let detail =
                    format!("expected a local Origin, one of server.allowed_origins or none, found {origin:?}");
                Err(Problem::new(problem::FORBIDDEN, detail))
            }
            // Without an Origin: an image, a frame or a link of a foreign page.
            None if head.one("sec-fetch-site")?.is_some_and(|site| site.eq_ignore_ascii_case("cross-site")) => {
                Err(Problem::new(problem::FORBIDDEN, "expected no request of a page of another site"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the bearer token, if this one who asks needs one for `path`, which is decoded and below the base path.
    pub(super) fn check_token(&self, head: &Head<'_>, peer: Peer, path: &str) -> Result<(), Problem> {
        // A proxy may well run as the same user; those it asks for do not.
        let asks_for_another = || self.is_proxy(peer) && FORWARDED.iter().any(|name| head.all(name).next().is_some());
        let own = peer == Peer::Unix { own: true } && !asks_for_another();
        let (required, also) = match &self.admin_token {
            Some(admin) if path.starts_with(ADMIN) => (Some(admin), None),
            admin => (self.token.as_ref(), admin.as_ref()),
        };
        let Some(required) = required.filter(|_| !own) else {
            return Ok(());
        };
        let Some(given) = head.one("authorization")? else {
            return Err(Problem::new(problem::UNAUTHORIZED, "expected Authorization: Bearer TOKEN, found none"));
        };
        let secret = match given.split_once(' ') {
            Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => secret.trim(),
            _ => {
                return Err(Problem::new(problem::UNAUTHORIZED, "expected Authorization: Bearer TOKEN, found another"));
            }
        };
        // Both are looked at, so that the time says nothing about which it was.
        if required.admits(secret) | also.is_some_and(|token| token.admits(secret)) {
            return Ok(());
        }
        Err(Problem::new(problem::UNAUTHORIZED, "the bearer token is not the configured one"))
    }

    /// Whether `X-Forwarded-…` counts.
    fn is_proxy(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix { .. } => self.proxies.unix,
            Peer::Loopback(address) | Peer::Network(address) => self.proxies.work_at(address),
        }
    }

    fn is_known(&self, host: &str) -> bool {
        LOCAL.iter().copied().chain(self.hosts.iter().map(String::as_str)).any(|name| is_named(host, name))
    }

    fn is_known_origin(&self, origin: &str) -> bool {
        let local = |host: &str| LOCAL.iter().any(|name| is_named(host, name));
        origin.split_once("://").is_some_and(|(_, host)| local(host))
            || self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }
}

/// Refuses what changes something and has a body that does not call itself JSON: a form that a foreign page makes a browser
/// send cannot say so. What says nothing about a body has none.
pub(super) fn check_media(head: &Head<'_>) -> Result<(), Problem> {
    if let Some(coding) = head.one("content-encoding")?.filter(|text| !text.eq_ignore_ascii_case("identity")) {
        let detail = format!("expected no Content-Encoding, found {coding:?}");
        return Err(Problem::new(problem::MEDIA_TYPE, detail));
    }
    let found = head.one("content-type")?;
    if found.is_none() && head.framing == Framing::Empty {
        return Ok(());
    }
    let media = found.map(|text| text.split(';').next().unwrap_or_default().trim());
    if media.is_some_and(|media| media.eq_ignore_ascii_case(JSON)) {
        return Ok(());
    }
    let detail = format!("expected Content-Type: {JSON}, found {}", found.unwrap_or("none"));
    Err(Problem::new(problem::MEDIA_TYPE, detail))
}

/// Any of these says that a proxy asks for somebody else, and not for itself.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Below it is what operators do.
const ADMIN: &str = "/api/admin/";

/// Names of this machine that no other machine has.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// True for `name` with any port or none; if `name` has one itself, for that.
fn is_named(host: &str, name: &str) -> bool {
    let port = match host.split_at_checked(name.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(name) => rest,
        _ => return false,
    };
    port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{LOCAL, Token, is_named};

    #[test]
    fn local_names_are_exactly_these() {
        let is_local = |host: &str| LOCAL.iter().any(|name| is_named(host, name));
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
