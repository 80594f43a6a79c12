//! Base URLs: which can be used, and what they say about the server.

use std::net::IpAddr;
use ureq::http::Uri;

/// A base URL that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupError {
    /// Not `http://host…` or `https://host…`.
    BaseUrl {
        /// The URL.
        found: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Certificates that cannot be trusted.
    Certificate {
        /// Why not.
        what: String,
    },
    /// A proxy that cannot be used. Its URL is not shown: it may hold a password.
    Proxy {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A header name or value that HTTP does not allow. The value is not shown: it may be a secret.
    Header {
        /// Its name.
        name: String,
    },
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BaseUrl { found, what } => {
                write!(f, "base_url {found:?}: {what}, expected for example \"http://127.0.0.1:11434\"")
            }
            Self::Certificate { what } => write!(f, "ca_file: {what}"),
            Self::Proxy { what } => {
                write!(f, "proxy: the URL {what}, expected for example \"http://192.168.0.1:3128\"")
            }
            Self::Header { name } => {
                write!(f, "header {name:?}: name or value holds characters that HTTP does not allow")
            }
        }
    }
}

impl std::error::Error for SetupError {}

/// Host and port of a base URL that can be used.
pub(super) fn host_of(base_url: &str) -> Result<String, SetupError> {
    let bad = |what| SetupError::BaseUrl { found: base_url.split('@').next_back().unwrap_or_default().into(), what };
    let uri: Uri = base_url.parse().map_err(|_| bad("not a URL"))?;
    let authority = uri.authority().ok_or_else(|| bad("no host"))?;
    match uri.scheme_str() {
        _ if authority.as_str().contains('@') => Err(bad("user name or password in it; use api_key or headers")),
        _ if uri.query().is_some() => Err(bad("a query in it")),
        // Configuration says so before, with its place.
        Some("https") if cfg!(not(feature = "tls")) => Err(bad("https is not in this build")),
        Some("http" | "https") if !authority.host().is_empty() => Ok(authority.to_string()),
        _ => Err(bad("neither http:// nor https://")),
    }
}

/// True if the URL names this machine, a private network or a `.local` host.
#[must_use]
pub fn is_local(base_url: &str) -> bool {
    let uri = base_url.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost" || host.ends_with(".local"),
    }
}
