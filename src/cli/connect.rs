//! A runtime to talk to: the server of the workspace if one is up, else one of our own in this process. Both speak the
//! same HTTP, so every command is written once.

use super::{Failure, setup};
use crate::http::client::{Client, Response};
use crate::http::{self, Access, Peer};
use crate::session::Runtime;
use duragent_core::ids::is_id;
use duragent_core::json::{self, Value};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Name of the server's socket in the workspace.
const SOCKET: &str = "duragent.sock";
/// Longest path that fits a socket address (unix(7): 108 bytes with the NUL), less the `.new` under which it is bound.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// What to do about a damaged log.
pub const DAMAGED_HINT: &str =
    "look with: duragent session verify; cut off what is broken with: duragent session repair";

/// Where the server of a workspace listens for those on this machine. A path that is too long for a socket address is
/// reached through the descriptor of its directory.
pub fn socket(dir: &Path) -> PathBuf {
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return path;
    }
    match std::fs::File::open(dir) {
        Ok(open) => {
            use std::os::fd::IntoRawFd;
            // Stays open for the life of the process: the address has to stay valid.
            PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.into_raw_fd()))
        }
        Err(_) => path,
    }
}

/// A connection to a runtime.
pub struct Connection {
    client: Client,
    /// Set if it is our own.
    own: Option<Runtime>,
}

impl Connection {
    /// Connects to the server of the workspace at `dir`, or starts a runtime in this process.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        Self::server(dir).map_or_else(|| Self::own(dir), Ok)
    }

    /// Connects to the server of the workspace at `dir`. `None` if there is none, or one that was killed: then its socket is
    /// left behind and nobody answers.
    pub fn server(dir: &Path) -> Option<Self> {
        let path = socket(dir);
        UnixStream::connect(&path).ok()?;
        Some(Self::at(path))
    }

    /// The server that listens, or will listen, at `path`.
    pub fn at(path: PathBuf) -> Self {
        Self { client: Client::new(Box::new(move || UnixStream::connect(&path))), own: None }
    }

    /// A runtime of our own.
    fn own(dir: &Path) -> Result<Self, Failure> {
        let runtime = Runtime::new(setup::setup(dir)?);
        let shared = http::Shared::new(runtime.clone(), Access::default(), http::Limits::default());
        let connect = move || {
            let (ours, theirs) = UnixStream::pair()?;
            smol::spawn(http::serve_stream(theirs, Peer::Unix { own: true }, Arc::clone(&shared))).detach();
            Ok(ours)
        };
        Ok(Self { client: Client::new(Box::new(connect)), own: Some(runtime) })
    }

    /// True if there is no server and the work is done in this process.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The client, for streams.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A request without a body.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json("GET", path, None)
    }

    /// A request, with a JSON body if there is one. The answer is the JSON of a success.
    pub fn json(&self, method: &str, path: &str, body: Option<&str>) -> Result<Value, Failure> {
        let response = self.request(method, path, body)?;
        let text = std::str::from_utf8(&response.body).unwrap_or_default();
        json::parse(text).map_err(|error| Failure::new(format!("{method} {path}: expected JSON, found {error}")))
    }

    /// As [`Connection::json`], with the answer as it is.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Response, Failure> {
        let headers: &[(&str, &str)] = if body.is_some() { &[("Content-Type", "application/json")] } else { &[] };
        let response = self.client.request(method, path, headers, body.unwrap_or_default().as_bytes());
        let response = response.map_err(|error| Failure::new(format!("the runtime does not answer: {error}")))?;
        if (200..300).contains(&response.status) { Ok(response) } else { Err(problem(&response)) }
    }

    /// Ends a runtime of our own in good order: running turns stop here and go on when the session is opened again.
    pub fn close(&self) {
        if let Some(runtime) = &self.own {
            smol::block_on(runtime.drain(Duration::ZERO));
            drop(setup::rules_written());
        }
    }
}

/// What a problem document says.
pub fn problem(response: &Response) -> Failure {
    let text = std::str::from_utf8(&response.body).unwrap_or_default();
    let document = json::parse(text).ok();
    let field = |name: &str| document.as_ref().and_then(|d| d.get(name)).and_then(Value::as_str);
    let failure = Failure::new(
        field("detail")
            .or(field("title"))
            .map_or_else(|| format!("the runtime answered {}", response.status), str::to_owned),
    );
    match field("type").and_then(|t| t.rsplit(':').next()) {
        Some("leased") => failure.hint("share a session between terminals through a server: duragent serve"),
        Some("damaged") => failure.hint(DAMAGED_HINT),
        Some("configuration") => {
            Failure { code: 3, ..failure }.hint("the old one stays; see it all with: duragent check")
        }
        Some("disk-full") => failure.hint("free some space, nothing that was acknowledged is lost"),
        _ => failure,
    }
}

/// The id that `prefix` means: a whole id, or the only one that begins so.
pub fn session_id(connection: &Connection, prefix: &str) -> Result<String, Failure> {
    // Mostly it is a whole id, and then the others need not be looked at.
    if is_id(prefix)
        && connection
            .client
            .request("GET", &format!("/api/v1/sessions/{prefix}"), &[], b"")
            .is_ok_and(|r| r.status == 200)
    {
        return Ok(prefix.to_owned());
    }
    let mut after = String::new();
    let mut ids: Vec<String> = Vec::new();
    loop {
        let page = connection.get(&format!("/api/v1/sessions?limit=1000{after}"))?;
        let Some(Value::Array(sessions)) = page.get("sessions") else { break };
        ids.extend(sessions.iter().filter_map(|s| Some(s.get("id")?.as_str()?.to_owned())));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    pick(prefix, &ids)
}

/// The one of `ids` that `prefix` means. No text at all means none: an unset variable of a script is not a session.
pub fn pick(prefix: &str, ids: &[String]) -> Result<String, Failure> {
    if ids.iter().any(|id| id == prefix) {
        return Ok(prefix.to_owned());
    }
    let found: Vec<&str> = ids.iter().map(String::as_str).filter(|id| id.starts_with(prefix)).collect();
    match found.as_slice() {
        [only] if !prefix.is_empty() => Ok((*only).to_owned()),
        [_, _, ..] if !prefix.is_empty() => {
            Err(Failure::new(format!("{prefix:?} is not unique: {}", found.join(", "))).hint("type more of it"))
        }
        _ => Err(Failure::new(format!("no session {prefix:?}")).hint("see them with: duragent ps")),
    }
}
