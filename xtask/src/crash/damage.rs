//! Logs that were cut or changed behind the runtime's back, and a runtime that crashes every time.

use super::families::{Case, Extent, Family};
use super::inject::Point;
use super::log;
use super::oracle;
use super::play::{Calm, Verdict};
use super::random::Random;
use super::scene::{SESSION, Scene, names};
use crate::repo::at;
use crate::{Failure, Result};
use std::fs;

/// Said to a session whose log was damaged.
const AFTERWARDS: &str = "are you there";

/// Crashes after which a turn has to be given up, with some that hit before or between turns.
const STUBBORN_MAX: usize = 8;

/// The log of the undisturbed run, which has to be one file.
fn calm_log(calm: &Calm) -> Result<(&Scene, Vec<u8>)> {
    let scene = calm.before.last().ok_or_else(|| Failure::new("nothing was played"))?;
    let path = scene.session().join("events.jsonl");
    Ok((scene, fs::read(&path).map_err(|e| at(&path, &e))?))
}

/// Cuts the log at every byte.
///
/// # Errors
/// If there is no log.
pub fn truncations<'a>(calm: &'a Calm, extent: Extent, random: &mut Random) -> Result<Family<'a>> {
    let (scene, bytes) = calm_log(calm)?;
    let places = random.sample((0..bytes.len()).collect(), extent.cases_max.saturating_mul(2));
    let case = |length: usize| {
        let kept = bytes[..length].to_vec();
        Case { name: format!("cut at byte {length}"), run: Box::new(move |root| truncated(&scene.copy(root)?, &kept)) }
    };
    let cases: Vec<Case<'a>> = places.into_iter().map(case).collect();
    let hits_min = cases.len();
    Ok(Family { name: "cut", about: "the log cut off at every byte", cases, hits_min })
}

fn truncated(scene: &Scene, bytes: &[u8]) -> Result<Verdict> {
    let mut verdict = Verdict { hits: 1, ..Verdict::default() };
    scene.put(&format!(".duragent/sessions/{SESSION}/events.jsonl"), bytes)?;
    let before = match log::read(bytes) {
        Ok(before) => before,
        Err(damage) => return Err(Failure::new(format!("a cut log is damaged: {damage}"))),
    };
    // What happened outside after the cut has not happened yet.
    let started = before.entries.iter().filter(|e| e.kind == "tool_started" && e.line.contains(oracle::COUNTER));
    let effects: String = started.map(|e| format!("{}\n", e.fields.text("call_id"))).collect();
    scene.set_effects(&effects)?;
    let ended = scene.say(AFTERWARDS, None)?;
    if ended.code() != Some(0) {
        verdict.find(format!("{}: {}", ended.describe(), ended.err.trim_end()));
        return Ok(verdict);
    }
    let after = match scene.log()? {
        Ok(after) => after,
        Err(damage) => {
            verdict.find(format!("the log is damaged: {damage}"));
            return Ok(verdict);
        }
    };
    verdict.findings.extend(oracle::kept(&before, &after));
    verdict.findings.extend(oracle::check(&after, true));
    verdict.findings.extend(oracle::effects(&after, &scene.effects()?));
    if !before.tail.is_empty() {
        let cut = before.tail.len() as u64;
        let said = |e: &log::Entry| e.kind == "session_recovered" && e.fields.number("dropped_bytes") == Some(cut);
        if !before.entries.is_empty() && !after.entries.iter().any(said) {
            verdict.find(format!("expected session_recovered with dropped_bytes {cut}, found none"));
        }
        if !is_saved(scene, &before.tail)? {
            verdict.find(format!("the torn tail of {cut} bytes is nowhere beside the log"));
        }
    }
    Ok(verdict)
}

/// True if a file of the session, other than the log, holds exactly these bytes.
///
/// # Errors
/// If the session cannot be read.
pub fn is_saved(scene: &Scene, tail: &[u8]) -> Result<bool> {
    let dir = scene.session();
    for name in names(&dir)?.iter().filter(|name| name.as_str() != "events.jsonl" && name.contains("events")) {
        let path = dir.join(name);
        if fs::read(&path).map_err(|e| at(&path, &e))? == tail {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Flips one bit in every byte of the log.
///
/// # Errors
/// If there is no log.
pub fn flips<'a>(calm: &'a Calm, extent: Extent, random: &mut Random) -> Result<Family<'a>> {
    let (scene, bytes) = calm_log(calm)?;
    // The last line feed is not damage but a torn tail; truncations have that.
    let places: Vec<_> = (0..bytes.len() - 1).map(|byte| (byte, random.below(8))).collect();
    let case = |(byte, bit): (usize, usize)| {
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << bit;
        let line = 1 + bytes[..byte].iter().filter(|&&b| b == b'\n').count();
        Case {
            name: format!("bit {bit} of byte {byte} flipped"),
            run: Box::new(move |root| flipped_log(&scene.copy(root)?, &flipped, line)),
        }
    };
    let places = random.sample(places, extent.cases_max.saturating_mul(2));
    let cases: Vec<Case<'a>> = places.into_iter().map(case).collect();
    let hits_min = cases.len();
    Ok(Family { name: "flip", about: "a bit flipped in every byte of the log", cases, hits_min })
}

fn flipped_log(scene: &Scene, bytes: &[u8], line: usize) -> Result<Verdict> {
    let mut verdict = Verdict { hits: 1, ..Verdict::default() };
    scene.put(&format!(".duragent/sessions/{SESSION}/events.jsonl"), bytes)?;
    let place = format!("events.jsonl:{line}:");
    let verify = scene.program.run(&["--dir", ".duragent", "session", "verify", SESSION])?;
    for (what, ended) in [("verify", verify), ("run", scene.say(AFTERWARDS, None)?)] {
        if !matches!(ended.code(), Some(1..=5)) {
            verdict.find(format!(
                "{what}: expected it to refuse, found {}: {}",
                ended.describe(),
                ended.err.trim_end()
            ));
        }
        if !ended.err.contains(&place) {
            verdict.find(format!("{what}: expected {place} in its error, found {:?}", ended.err));
        }
    }
    if scene.log_bytes()? != bytes {
        verdict.find("the damaged log was written to");
    }
    Ok(verdict)
}

/// Kills the program at the same point until it gives the turn up, which it has to; then it has to take a message.
///
/// # Errors
/// If the binary or strace cannot be run.
pub fn stubborn(scene: &Scene, prompt: &str, point: &Point) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut ended = scene.say(prompt, Some(point))?;
    for _ in 0..STUBBORN_MAX {
        if !ended.was_hit(point) {
            break;
        }
        verdict.hits += 1;
        ended = scene.resume(Some(point))?;
    }
    if ended.was_hit(point) {
        verdict.find(format!("killed {} times at the same point, and not given up", verdict.hits));
    }
    let ended = scene.say(AFTERWARDS, None)?;
    if ended.code() != Some(0) {
        verdict.find(format!("afterwards: {}: {}", ended.describe(), ended.err.trim_end()));
    }
    match scene.log()? {
        Ok(log) => {
            verdict.findings.extend(oracle::check(&log, true));
            verdict.findings.extend(oracle::effects(&log, &scene.effects()?));
        }
        Err(damage) => verdict.find(format!("the log is damaged: {damage}")),
    }
    Ok(verdict)
}
