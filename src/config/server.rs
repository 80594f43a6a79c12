//! Reads the section `server`: where to listen, who may come in, and what anybody may take up.

use super::read::Section;
use super::secret_file;
use super::types::{Listen, PORT_DEFAULT, Secret, Server, from_base};
use std::path::Path;

/// Reads it. What is wrong is noted at the section; then the default stands in.
#[must_use]
pub fn read(top: &Section<'_>, dir: &Path) -> Server {
    let section = top.section_or_empty("server");
    section.keys(
        &["address", "listen", "host", "port", "api_token", "api_token_file", "body_bytes_max", "connections_max"],
        &[
            "admin_token",
            "max_connections",
            "request_timeout_seconds",
            "idle_timeout_seconds",
            "keep_alive_interval_seconds",
        ],
    );
    let listen = listen(&section, dir);
    let written = section.text("api_token").filter(|token| !token.is_empty()).map(|t| Secret::new(t.to_owned()));
    let in_file = section.text("api_token_file").and_then(|path| match secret_file::read(&from_base(dir, path)) {
        Ok(secret) => Some(secret),
        Err(error) => {
            section.error("api_token_file", &error.message());
            None
        }
    });
    if written.is_some() && in_file.is_some() {
        section.error("api_token", "api_token and api_token_file exclude each other; keep one");
    }
    let api_token = written.or(in_file);
    if !listen.is_local() && api_token.is_none() && section.get("api_token_file").is_none() {
        let remedy = "listens beyond this machine, so api_token or api_token_file is required";
        section.error("address", &format!("{listen} {remedy}"));
    }
    Server {
        listen,
        api_token,
        body_bytes_max: section.int("body_bytes_max", 1024..=64 * 1024 * 1024, 1024 * 1024),
        connections_max: section.int("connections_max", 1..=65_536, 1024),
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
