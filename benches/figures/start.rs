//! What is there before the first message: bytes of the binary, and the time until it answers.

use crate::failure::{Result, doing, fail};
use crate::made;
use crate::scene::{Place, Scene, length};
use crate::stats::Sample;
use crate::table::{Aim, Row};
use std::process::Command;
use std::time::{Duration, Instant};

/// First argument of the process that does nothing.
pub const NOTHING: &str = "--nothing";

/// Starts that are measured.
const STARTS: usize = 20;
/// Sessions on disk in the second round.
const SESSIONS: usize = 1000;

/// Figure 1: the stripped binary.
pub fn size(place: &Place) -> Result<Vec<Row>> {
    let megabytes = length(&place.binary)? as f64 / 1e6;
    Ok(vec![Row::one("release binary, stripped", megabytes, "MB", Aim::AtMost(2.95)).peer(19.05, megabytes, "MB")])
}

/// Figure 2: from the start of the process to the first 200, by a client that connects in a loop.
pub fn start(place: &Place) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (sessions, peer, aim) in [(0, 16.0, 5.0), (SESSIONS, 316.0, 8.0)] {
        let scene = Scene::new(place, 60, None)?;
        made::sessions(&scene.sessions(), sessions)?;
        is_as_made(&scene, sessions)?;
        let (mut live, mut ready, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..STARTS {
            bare.push(nothing()?.as_secs_f64() * 1e3);
            let server = scene.spawn()?;
            live.push(server.until("/livez")?.as_secs_f64() * 1e3);
            ready.push(server.until("/readyz")?.as_secs_f64() * 1e3);
        }
        let (live, ready) = (Sample::new(live), Sample::new(ready));
        let name = |what: &str| format!("start to {what}, {sessions} sessions on disk");
        rows.push(Row::median(&name("first 200 of /livez"), &live, "ms", Aim::AtMost(aim)).peer(
            peer,
            live.median(),
            "ms",
        ));
        rows.push(Row::median(&name("/readyz 200"), &ready, "ms", Aim::Shown));
        rows.push(Row::median(
            "bare start and end of a process that does nothing",
            &Sample::new(bare),
            "ms",
            Aim::Shown,
        ));
    }
    Ok(rows)
}

/// How long a process takes that does nothing, from being asked for to its end.
fn nothing() -> Result<Duration> {
    let own = std::env::current_exe().map_err(doing("finding this program"))?;
    let start = Instant::now();
    let status = Command::new(own).arg(NOTHING).status().map_err(doing("starting a process"))?;
    if status.success() { Ok(start.elapsed()) } else { fail(format!("a process that does nothing: {status}")) }
}

/// The sessions are what a server takes for its own. Also fills the page cache, so that every start finds it warm.
fn is_as_made(scene: &Scene, sessions: usize) -> Result<()> {
    let server = scene.serve()?;
    let mut client = server.client()?;
    let list = client.expect(200, "GET", "/api/v1/sessions?limit=1000&status=idle", "")?;
    match list.matches("\"last_seq\":28").count() {
        found if found == sessions => Ok(()),
        found => fail(format!("expected {sessions} idle sessions in the list, found {found}")),
    }
}
