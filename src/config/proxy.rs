//! Which proxy, if any, stands between a provider and its endpoint.
//!
//! Invariants: without a word in the configuration there is none, whatever the environment says; this machine is never
//! reached through one.

use super::env::Env;
use super::list;
use super::read::Section;
use super::types::{Secret, host_of};
use duragent_core::net::Range;
use std::net::IpAddr;

/// The ways out: a proxy for each scheme, and what is reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outward {
    /// For `http://` endpoints. A URL, which may hold a password.
    pub http: Option<Secret>,
    /// For `https://` endpoints.
    pub https: Option<Secret>,
    /// Names and their subdomains, addresses and ranges; `*` is everything.
    pub direct: Vec<String>,
}

impl Outward {
    /// The proxy on the way to `url`.
    #[must_use]
    pub fn to(&self, url: &str) -> Option<&Secret> {
        let host = host_of(url).trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        let near = host == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback());
        if near || self.direct.iter().any(|rule| is_meant(rule, &host, address)) {
            return None;
        }
        if url.starts_with("https://") { self.https.as_ref() } else { self.http.as_ref() }
    }
}

fn is_meant(rule: &str, host: &str, address: Option<IpAddr>) -> bool {
    if rule == "*" {
        return true;
    }
    match (address, Range::parse(rule)) {
        (Some(address), Some(range)) => range.contains(address),
        _ => {
            let name = rule.trim_start_matches('.');
            let rest = host.strip_suffix(name);
            !name.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

/// Reads `proxy` and `no_proxy` of a section; what it does not say is as in `outer`.
pub(super) fn read(section: &Section<'_>, env: Env<'_>, outer: Option<&Outward>) -> Outward {
    let mut outward = outer.cloned().unwrap_or_default();
    match section.secret("proxy") {
        Some("none") => (outward.http, outward.https) = (None, None),
        Some("environment") => outward = of_environment(env),
        Some(url) if is_proxy(url) => {
            let url = Some(Secret::new(url.to_owned()));
            (outward.http, outward.https) = (url.clone(), url);
        }
        Some(_) => section.error("proxy", "expected http://HOST:PORT, environment or none"),
        None => {}
    }
    if section.get("no_proxy").is_some() {
        outward.direct.clear();
        list::each(section, "no_proxy", "a host, .domain, address, range or *", &mut |text, shown| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:/*".contains(&b);
            if text.is_empty() || !text.bytes().all(good) || text.contains("://") {
                return Err(format!("expected a host, .domain, address, range or *, found {shown}"));
            }
            outward.direct.push(text.to_ascii_lowercase());
            Ok(None)
        });
    }
    outward
}

fn is_proxy(url: &str) -> bool {
    let rest = url.strip_prefix("http://").map(|rest| rest.rsplit_once('@').map_or(rest, |(_, place)| place));
    rest.is_some_and(|rest| {
        let host = rest.strip_suffix('/').unwrap_or(rest);
        !host_of(url).is_empty() && !host.contains(['/', '?', '#']) && !host.bytes().any(|b| b <= b' ' || b >= 0x7f)
    })
}

/// As other programs have it: lower case first. `HTTP_PROXY` in upper case can be set by whoever sends a request to a CGI
/// program; this is none.
fn of_environment(env: Env<'_>) -> Outward {
    let value = |name: &str| {
        let found = env(&name.to_ascii_lowercase()).filter(|value| !value.is_empty());
        found.or_else(|| env(name).filter(|value| !value.is_empty()))
    };
    let proxy = |name| value(name).or_else(|| value("ALL_PROXY")).filter(|url| is_proxy(url)).map(Secret::new);
    let direct = value("NO_PROXY").unwrap_or_default();
    let direct = direct.split([',', ' ']).map(|rule| rule.trim().to_ascii_lowercase());
    // A port is passed over: it is the host that is meant.
    let direct = direct.map(|rule| match rule.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => host.to_owned(),
        _ => rule,
    });
    Outward {
        http: proxy("HTTP_PROXY"),
        https: proxy("HTTPS_PROXY"),
        direct: direct.filter(|rule| !rule.is_empty()).collect(),
    }
}
