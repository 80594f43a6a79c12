//! Device profiles hold what they promise: under a control group of the memory that a profile's runtime has, everything at its
//! limits and beyond at once, and nobody is killed; without the profile the same storm kills.
//!
//! What counts is all that the group counts: the server, the processes of its tools, page cache and kernel memory. With the
//! release binary, since the code of a debug build alone is larger than some of these groups: `cargo xtask soak --profiles`.

mod house;

use house::{House, Storm};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const MB: u64 = 1024 * 1024;

/// Profiles, and the MiB that their files promise to live in.
const PROFILES: [(&str, u64); 5] =
    [("openwrt", 16), ("gateway-armv7", 32), ("pi-zero-2", 64), ("pi-4", 128), ("server-lowmem", 128)];

/// How long a server may take to be as before.
const PATIENCE: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (profile, megabytes) in
        PROFILES.into_iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name))
    {
        for (what, proof) in [("holds", holds as fn(&str, u64) -> Result<String>), ("is needed", is_needed)] {
            let found = proof(profile, megabytes);
            failed += u64::from(found.is_err());
            let (word, text) = found.map_or_else(|error| ("FAILED", error), |text| ("ok", text));
            println!("profile {profile} {what} in {megabytes} MiB: {word}: {text}");
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn expect(so: bool, what: &str, storm: &Storm) -> Result<()> {
    if so { Ok(()) } else { Err(format!("{what}: {storm:?}")) }
}

/// The storm passes, and it is as it was for whoever comes next.
fn holds(profile: &str, megabytes: u64) -> Result<String> {
    let house = House::new()?;
    let limits = house.limits(Some(profile))?;
    let mut server = house.serve(Some(profile), megabytes * MB)?;
    let storm = server.storm(limits);
    expect(server.group.oom_kills() == 0, "killed for want of memory", &storm)?;
    expect(server.is_running(), &house.said(), &storm)?;
    expect(storm.wrong.is_empty(), "answers that are wrong", &storm)?;
    expect(storm.created > 0 && storm.taken > 0, "nothing was done", &storm)?;
    expect(storm.too_large > 0 && storm.queue_full > 0, "nothing was refused", &storm)?;
    let body = "{\"agent\":\"worker\",\"id\":\"after\"}";
    let start = Instant::now();
    while !matches!(server.ask("POST", "/api/v1/sessions", body), Some((201 | 409, _))) {
        expect(start.elapsed() < PATIENCE, "nobody comes in any more", &storm)?;
        thread::sleep(Duration::from_millis(200));
    }
    let path = "/api/v1/sessions/after/messages?wait=100";
    let answer =
        server.ask("POST", path, "{\"content\":\"hello\"}").map(|(status, body)| (status, body.at("reply").clone()));
    let right = answer.as_ref().is_some_and(|(status, reply)| {
        *status == 200 && reply.str() == Some("The pressure fell below two bar; check the valve.")
    });
    expect(right, &format!("a turn after it: {answer:?}"), &storm)?;
    expect(server.group.oom_kills() == 0, "killed for want of memory", &storm)?;
    let mb = |bytes: u64| bytes as f64 / MB as f64;
    let text = format!(
        "server {:.1} MiB, with its tools {:.1} MiB, with page cache and kernel {:.1} MiB at most; {} sessions, {} messages taken, \
         refused: {} for room, {} in a full queue, {} too large",
        mb(storm.own_most),
        mb(storm.group_most),
        mb(server.group.peak()),
        storm.created,
        storm.taken,
        storm.no_room,
        storm.queue_full,
        storm.too_large
    );
    server.stop()?;
    house.verify()?;
    Ok(text)
}

/// The same storm on a server without a profile: somebody is killed.
fn is_needed(_: &str, megabytes: u64) -> Result<String> {
    let house = House::new()?;
    let limits = house.limits(None)?;
    let mut server = house.serve(None, megabytes * MB)?;
    let storm = server.storm(limits);
    let kills = server.group.oom_kills();
    expect(kills > 0, "without it nobody is killed either, so it is not what protects", &storm)?;
    let mb = |bytes: u64| bytes as f64 / MB as f64;
    let who = if server.is_running() { "of tools" } else { "and the server among them" };
    Ok(format!(
        "without it {kills} processes killed {who}, server {:.1} MiB, with its tools {:.1} MiB",
        mb(storm.own_most),
        mb(storm.group_most)
    ))
}
