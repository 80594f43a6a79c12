//! Reads the section `server`: where to listen, who may come in, and what anybody may take up.

use super::list::each;
use super::read::Section;
use super::secret_file;
use super::types::{Listen, PORT_DEFAULT, Proxies, Secret, Server, ServerLimits, from_base};
use duragent_core::net::Range;
use std::path::Path;

/// Keys that are no limits.
const KEYS: [&str; 13] = [
    "address",
    "listen",
    "host",
    "port",
    "api_token",
    "api_token_file",
    "admin_token",
    "admin_token_file",
    "allowed_hosts",
    "allowed_origins",
    "trusted_proxies",
    "base_path",
    "socket_mode",
];

/// Keys that the format knows and this build does not.
const LATER: [&str; 4] =
    ["max_connections", "request_timeout_seconds", "idle_timeout_seconds", "keep_alive_interval_seconds"];

/// First parts of the paths that the server has itself: below them nobody could tell what is meant.
const OWN_PATHS: [&str; 6] = ["api", "livez", "metrics", "openapi.yaml", "readyz", "version"];

/// Mode of a unix socket unless configured otherwise: who may connect is who may read the workspace.
const SOCKET_MODE: u32 = 0o600;

/// Reads it. What is wrong is noted at the section; then the default stands in.
#[must_use]
pub fn read(top: &Section<'_>, dir: &Path) -> Server {
    let section = top.section_or_empty("server");
    let known: Vec<&str> = KEYS.into_iter().chain(ServerLimits::TABLE.iter().map(|(name, ..)| *name)).collect();
    section.keys(&known, &LATER);
    let listen = listen(&section, dir);
    let api_token = token(&section, dir, "api_token", "api_token_file");
    if !listen.is_local() && api_token.is_none() && section.get("api_token_file").is_none() {
        let remedy = "listens beyond this machine, so api_token or api_token_file is required";
        section.error("address", &format!("{listen} {remedy}"));
    }
    let trusted_proxies = trusted_proxies(&section);
    if !trusted_proxies.is_empty() && api_token.is_none() && section.get("api_token_file").is_none() {
        section.error("trusted_proxies", "a proxy lets others in, so api_token or api_token_file is required");
    }
    Server {
        listen,
        api_token,
        admin_token: token(&section, dir, "admin_token", "admin_token_file"),
        allowed_hosts: texts(&section, "allowed_hosts", "a name like agents.example.org", is_host),
        allowed_origins: texts(&section, "allowed_origins", "an origin like https://agents.example.org", is_origin),
        trusted_proxies,
        base_path: base_path(&section),
        socket_mode: socket_mode(&section),
        limits: ServerLimits::from_fn(|name, range, default| section.int(name, range, default)),
    }
}

/// A token as written, or in a file.
fn token(section: &Section<'_>, dir: &Path, key: &str, key_of_file: &str) -> Option<Secret> {
    let written = section.secret(key).map(str::trim).filter(|text| !text.is_empty());
    if written.is_some() && section.get(key_of_file).is_some() {
        section.error(key, &format!("{key} and {key_of_file} exclude each other; keep one"));
    }
    if let Some(text) = written {
        return Some(Secret::new(text.to_owned()));
    }
    match secret_file::read(&from_base(dir, section.text(key_of_file)?)) {
        Ok(secret) => Some(secret),
        Err(error) => {
            section.error(key_of_file, &error.message());
            None
        }
    }
}

fn trusted_proxies(section: &Section<'_>) -> Proxies {
    const EXPECTED: &str = "an address like 10.0.0.5, a range like 10.0.0.0/8, or unix";
    let mut proxies = Proxies::default();
    each(section, "trusted_proxies", EXPECTED, &mut |text, shown| {
        match (text, Range::parse(text)) {
            ("unix", _) => proxies.unix = true,
            (_, Some(range)) => proxies.ranges.push(range),
            (_, None) => return Err(format!("expected {EXPECTED}, found {shown}")),
        }
        Ok(None)
    });
    proxies
}

/// A list of texts that are compared without regard to case.
fn texts(section: &Section<'_>, key: &str, expected: &str, good: fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    each(section, key, expected, &mut |text, shown| {
        if !good(text) {
            return Err(format!("expected {expected}, found {shown}"));
        }
        found.push(text.to_ascii_lowercase());
        Ok(None)
    });
    found
}

/// A name or address as in `Host`, with a port or without.
fn is_host(text: &str) -> bool {
    let good = |name: &str| {
        let v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        v6.map_or(!name.is_empty() && name.bytes().all(plain), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    good(text) || text.rsplit_once(':').is_some_and(|(name, rest)| good(name) && port(rest))
}

/// A scheme and a host, as browsers send it (RFC 6454).
fn is_origin(text: &str) -> bool {
    let scheme =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    text.split_once("://").is_some_and(|(before, host)| scheme(before) && is_host(host))
}

fn base_path(section: &Section<'_>) -> String {
    let Some(text) = section.text("base_path").filter(|text| !matches!(*text, "" | "/")) else { return String::new() };
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        !matches!(part, "" | "." | "..") && part.bytes().all(plain)
    };
    match text.strip_prefix('/') {
        Some(rest) if OWN_PATHS.contains(&rest.split('/').next().unwrap_or_default()) => {
            section.error("base_path", &format!("{text:?} is a path of the server itself; choose another"));
        }
        Some(rest) if rest.split('/').all(part) => return text.to_owned(),
        _ => {
            let expected = "a path like /duragent of letters, digits and -._~, without a slash at the end";
            section.error("base_path", &format!("expected {expected}, found {text:?}"));
        }
    }
    String::new()
}

/// Octal, as text: YAML has two ideas of what a leading zero means.
fn socket_mode(section: &Section<'_>) -> u32 {
    let Some(text) = section.text("socket_mode") else { return SOCKET_MODE };
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()) => mode,
        _ => {
            section.error("socket_mode", &format!("expected an octal mode like \"0660\", found {text:?}"));
            SOCKET_MODE
        }
    }
}

/// `address`, or `listen`; or `host` and `port`, as older workspaces have it.
fn listen(section: &Section<'_>, dir: &Path) -> Listen {
    let default = Listen::Tcp(([127, 0, 0, 1], PORT_DEFAULT).into());
    let given: Vec<&str> = ["address", "listen", "host"].into_iter().filter(|k| section.get(k).is_some()).collect();
    if let [first, second, ..] = given[..] {
        section.error(second, &format!("{first} says it already; keep one"));
    }
    let key = given.first().copied().unwrap_or("host");
    if key != "host" && section.get("port").is_some() {
        section.error("port", "the port belongs into address");
    }
    let Some(text) = section.text(key).or((key == "host").then_some("127.0.0.1")) else { return default };
    let mut listen = match Listen::parse(text) {
        Ok(listen) => listen,
        Err(expected) => {
            section.error(key, &format!("expected {expected}, found {text:?}"));
            return default;
        }
    };
    match &mut listen {
        Listen::Unix(path) => *path = dir.join(&path),
        Listen::Tcp(address) => {
            if let Some(port) = section.int_opt("port", 1..=65_535) {
                address.set_port(u16::try_from(port).unwrap_or(PORT_DEFAULT));
            }
        }
    }
    listen
}
