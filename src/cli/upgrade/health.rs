//! The server of the workspace, seen from the upgrade: asked to start again, and looked at until it is well.

use super::VERSION;
use super::place::{Marker, Place};
use crate::cli::{Failure, connect};
use crate::http::client::Client;
use duragent_core::json;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server that goes down may take for turns and requests under way: what `serve` gives them, and some.
const DRAIN: Duration = Duration::from_secs(45);

/// How long one answer is waited for: a server that hangs is not well.
const ANSWER: Duration = Duration::from_secs(5);

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(100);

/// The server of a workspace.
pub struct Server(Client);

impl Server {
    /// The one of the workspace at `dir`, if one answers there.
    pub fn of(dir: &Path) -> Option<Self> {
        let path = connect::socket(dir);
        UnixStream::connect(&path).ok()?;
        Some(Self(Client::new(Box::new(move || {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            Ok(stream)
        }))))
    }

    /// Its version, if it answers.
    pub fn version(&self) -> Option<String> {
        let response = self.0.request("GET", "/version", &[], b"").ok()?;
        let answer = json::parse(std::str::from_utf8(&response.body).ok()?).ok()?;
        answer.get("version")?.as_str().map(str::to_owned)
    }

    /// True if it takes work.
    pub fn is_ready(&self) -> bool {
        self.0.request("GET", "/readyz", &[], b"").is_ok_and(|response| response.status == 200)
    }

    /// Asks it to drain and to start again with the binary that is in its place then.
    ///
    /// # Errors
    /// If it does not do that.
    pub fn restart(&self) -> Result<(), Failure> {
        let response = self.0.request("POST", "/api/admin/v1/shutdown?restart=true", &[], b"");
        let response = response.map_err(|error| Failure::new(format!("the server does not answer: {error}")))?;
        if response.status == 202 { Ok(()) } else { Err(connect::problem(&response)) }
    }

    /// Waits until it is ready and is `version`. With `place`, gives up as soon as it is ready as another one and the marker there is
    /// gone: then it went back by itself.
    ///
    /// # Errors
    /// If that does not come about within `time`, and the time that going down takes.
    pub fn wait(&self, version: &str, time: Duration, place: Option<&Place>) -> Result<(), String> {
        let start = Instant::now();
        // From when the one that was there has gone.
        let (before, mut gone) = (self.version(), None);
        let mut found = None;
        while start.elapsed() < time + DRAIN && gone.is_none_or(|at: Instant| at.elapsed() < time) {
            let answered = self.version();
            if answered.is_none() || answered != before {
                gone.get_or_insert_with(Instant::now);
            }
            if answered.is_some() && self.is_ready() {
                if answered.as_deref() == Some(version) {
                    return Ok(());
                }
                if place.is_some_and(|place| place.marker().is_none()) {
                    return Err(format!("it went back to {} by itself", answered.unwrap_or_default()));
                }
            }
            found = answered.or(found);
            std::thread::sleep(LOOK);
        }
        let found = found.map_or_else(|| "no answer".to_owned(), |found| format!("an answer of {found}"));
        Err(format!(
            "expected a server of version {version} that is ready, found {found} after {} s",
            start.elapsed().as_secs()
        ))
    }
}

/// What `--settle` does: takes a trial to its next stage, as the owner of the binary.
///
/// # Errors
/// If it cannot be written.
pub fn settle(place: &Place, dir: Option<&Path>) -> Result<String, Failure> {
    let Some(mut marker) = place.marker() else { return Ok("nothing is on trial\n".to_owned()) };
    let to = marker.to.clone();
    if to != VERSION {
        place.unmark()?;
        return Ok(format!("the upgrade to {to} has not come about, this is {VERSION}\n"));
    }
    let server = dir.and_then(Server::of);
    if server.as_ref().is_some_and(|server| server.wait(VERSION, Duration::from_secs(marker.seconds), None).is_ok()) {
        place.unmark()?;
        return Ok(format!("{to} is ready, its trial is over\n"));
    }
    if server.is_some() || marker.tries > 0 {
        place.back()?;
        return Ok(format!("{to} was started and did not become ready: {} is back\n", marker.from));
    }
    marker.tries = Marker::ANNOUNCED;
    place.mark(&marker)?;
    Ok(format!("{to} is on trial\n"))
}
