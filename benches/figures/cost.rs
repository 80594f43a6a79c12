//! What a turn writes, and what a tool that prints without end costs in memory.

use crate::client::{self, Client};
use crate::failure::{Result, at, fail};
use crate::proc;
use crate::scene::{MESSAGE, PIECES, Place, Scene, length, message_body};
use crate::table::{Aim, Row};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Turns before the measurement: what is written for a turn must not grow with the session.
const BEFORE: usize = 400;
/// Turns that are measured.
const MEASURED: usize = 50;
/// What the tool prints, in bytes.
const PRINTED: f64 = 400e6;

/// Figure 7: bytes on disk and commits of a turn.
pub fn written(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 60, None)?;
    let server = scene.serve()?;
    let mut client = server.client()?;
    let dir = scene.sessions().join("instant");
    client.create("instant", "instant")?;
    turns(&mut client, "instant", BEFORE)?;
    let (size, io) = (tree(&dir)?, proc::written(server.pid)?);
    let plain = commits(&mut client, "instant", 0)?;
    let (grown, io_after) = (tree(&dir)? - size, proc::written(server.pid)?);
    client.create("one_tool", "one_tool")?;
    let one_tool = commits(&mut client, "one_tool", 1)?;
    let per_turn = |bytes: f64| bytes / MEASURED as f64 / 1e3;
    let text = (MESSAGE.len() + PIECES.concat().len()) as f64 / 1e3;
    let (grown, wchar) = (per_turn(grown), per_turn(io_after.wchar - io.wchar));
    let dirtied = per_turn(io_after.write_bytes - io.write_bytes);
    let name = format!("growth of the session's files per turn, after {BEFORE} turns");
    let text_name = format!("{:.0} bytes of it are text", text * 1e3);
    Ok(vec![
        Row::one(&name, grown, "kB", Aim::AtMost(1.0 + text)).spread(text_name).peer(171.0, grown, "kB"),
        Row::one("bytes given to write(2) per turn, sockets included", wchar, "kB", Aim::Shown),
        Row::one("bytes of pages dirtied per turn (a page a commit at least)", dirtied, "kB", Aim::Shown),
        Row::one("commits per plain turn", plain, "", Aim::AtMost(2.0)),
        Row::one("commits per turn with one tool call", one_tool, "", Aim::AtMost(4.0)),
    ])
}

fn turns(client: &mut Client, session: &str, count: usize) -> Result<()> {
    let (path, body) = (client::messages(session), message_body());
    (0..count).try_for_each(|_| client.turn(&path, &body))
}

/// Commits of a turn that runs so many tools.
fn commits(client: &mut Client, session: &str, tools: u64) -> Result<f64> {
    let before = client.metric("duragent_commits_total")?;
    tool_turns(client, session, MEASURED, tools)?;
    Ok((client.metric("duragent_commits_total")? - before) as f64 / MEASURED as f64)
}

/// Turns that run `tools` tools each, or fail: a model that is told "unknown tool" completes its turn too.
fn tool_turns(client: &mut Client, session: &str, count: usize, tools: u64) -> Result<()> {
    let before = client.metric("duragent_tool_calls_total")?;
    turns(client, session, count)?;
    let (ran, expected) = (client.metric("duragent_tool_calls_total")? - before, tools * count as u64);
    if ran == expected { Ok(()) } else { fail(format!("expected {expected} tool calls, found {ran}")) }
}

/// Bytes of all files below `dir`.
fn tree(dir: &Path) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        sum += if path.is_dir() { tree(&path)? } else { length(&path)? as f64 };
    }
    Ok(sum)
}

/// Figure 8: the runtime's peak memory after a tool that printed a little, and after one that printed 400 MB.
pub fn flood(place: &Place) -> Result<Vec<Row>> {
    let scene = Scene::new(place, 60, None)?;
    let server = scene.serve()?;
    let mut client = server.client()?;
    client.create("flood", "flood")?;
    tool_turns(&mut client, "flood", 1, 1)?;
    let before = proc::peak(server.pid)?;
    let start = Instant::now();
    tool_turns(&mut client, "flood", 1, 1)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = proc::peak(server.pid)?;
    let kept = tree(&scene.sessions().join("flood/artifacts"))?;
    if kept < 1e6 {
        return fail(format!("expected an artifact of what the tool printed, found {kept} bytes"));
    }
    let grown = (after - before) / 1e6;
    Ok(vec![
        Row::one(
            "peak memory while a tool prints 400 MB, above one that prints 400 bytes",
            grown,
            "MB",
            Aim::AtMost(1.0),
        )
        .spread(format!("{:.2} → {:.2} MB", before / 1e6, after / 1e6))
        .peer(798.0, after / 1e6, "MB"),
        Row::one("output taken from that tool, its first 64 MiB to disk", PRINTED / 1e6 / seconds, "MB/s", Aim::Shown),
    ])
}
