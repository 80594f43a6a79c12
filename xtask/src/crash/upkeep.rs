//! The log's own upkeep, disturbed: closing a full segment and beginning the next, and the repair of a damaged log.

use super::damage::is_saved;
use super::families::{Case, Extent, Family};
use super::inject::{self, Ended, Fault, Point};
use super::log;
use super::oracle;
use super::play::{Calm, Verdict};
use super::random::Random;
use super::scene::{SESSION, Scene, names};
use crate::{Failure, Result};
use std::path::Path;

/// Smallest segment that can be configured, in bytes.
const SEGMENT_BYTES: usize = 64 * 1024;

/// Said after everything.
const AFTERWARDS: &str = "are you there";

/// A message of two thirds of a segment: one fits behind the story, a second does not.
fn long_message(number: usize) -> String {
    format!("message {number} {}", "and so on ".repeat(SEGMENT_BYTES / 15))
}

/// Kills and errors while a segment is closed.
///
/// # Errors
/// If no segment is closed undisturbed.
pub fn rotations<'a>(root: &Path, calm: &'a Calm, extent: Extent, random: &mut Random) -> Result<Family<'a>> {
    let full = full_segment(calm, &root.join("full-segment"))?;
    let watched = full.copy(&root.join("watched-rotation"))?;
    let message = long_message(2);
    let ended = watched.program.survey(&watched.says(&message))?;
    if ended.code() != Some(0) || segments(&watched)? != 2 {
        return Err(Failure::new(format!("expected a second segment: {}: {}", ended.describe(), ended.err)));
    }
    let files = inject::files(&ended.trace, watched.program.root());
    let mut points = points(&inject::counts(&ended.trace, None), Fault::Kill);
    for error in ["EIO", "ENOSPC"] {
        points.extend(self::points(&inject::counts(&ended.trace, Some(&files)), Fault::Error(error)));
    }
    let case = |point: Point| -> Case<'a> {
        let mut full = full.clone();
        full.program.files.clone_from(&files);
        Case {
            name: format!("closing a segment: {point}"),
            run: Box::new(move |root| rotation(&full.copy(root)?, &point)),
        }
    };
    let cases: Vec<_> = random.sample(points, extent.cases_max).into_iter().map(case).collect();
    let hits_min = cases.len() / 2;
    Ok(Family { name: "rotate", about: "SIGKILL, EIO and ENOSPC while a segment is closed", cases, hits_min })
}

/// The finished story with small segments and one long message: the next one does not fit.
fn full_segment(calm: &Calm, root: &Path) -> Result<Scene> {
    let scene = calm.before.last().ok_or_else(|| Failure::new("nothing was played"))?.copy(root)?;
    scene.limit_segments(SEGMENT_BYTES)?;
    let ended = scene.say(&long_message(1), None)?;
    match ended.code() {
        Some(0) => Ok(scene),
        _ => Err(Failure::new(format!("a long message: {}: {}", ended.describe(), ended.err))),
    }
}

/// Calls that change files, at each of their counts.
fn points(counts: &std::collections::BTreeMap<String, u64>, fault: Fault) -> Vec<Point> {
    const CHANGING: [&str; 10] =
        ["write", "openat", "rename", "renameat", "renameat2", "fsync", "fdatasync", "ftruncate", "unlink", "unlinkat"];
    let changing = counts.iter().filter(|(call, _)| CHANGING.contains(&call.as_str()));
    changing.flat_map(|(call, count)| (1..=*count).map(move |when| Point { call: call.clone(), when, fault })).collect()
}

fn segments(scene: &Scene) -> Result<usize> {
    let names = names(&scene.session())?;
    Ok(names.iter().filter(|name| name.starts_with("events.") && name.ends_with(".jsonl")).count())
}

fn rotation(scene: &Scene, point: &Point) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let message = long_message(2);
    let before = scene.log()?.unwrap_or_default();
    let ended = scene.say(&message, Some(point))?;
    verdict.hits += usize::from(ended.was_hit(point));
    let taken = |scene: &Scene| -> Result<usize> {
        let log = scene.log()?.unwrap_or_default();
        Ok(log.entries.iter().filter(|e| e.kind == "message_received" && e.fields.text("content") == message).count())
    };
    if taken(scene)? == 0 {
        succeeds(&mut verdict, "again", &scene.say(&message, None)?);
    }
    succeeds(&mut verdict, "afterwards", &scene.say(AFTERWARDS, None)?);
    succeeds(&mut verdict, "verify", &scene.program.run(&["--dir", ".duragent", "session", "verify", SESSION])?);
    match scene.log()? {
        Ok(log) => {
            verdict.findings.extend(oracle::kept(&before, &log));
            verdict.findings.extend(oracle::check(&log, true));
        }
        Err(damage) => verdict.find(format!("the log is damaged: {damage}")),
    }
    if taken(scene)? != 1 {
        verdict.find(format!("the message is in the log {} times", taken(scene)?));
    }
    if segments(scene)? < 2 {
        verdict.find("there is one segment");
    }
    Ok(verdict)
}

fn succeeds(verdict: &mut Verdict, what: &str, ended: &Ended) {
    if ended.code() != Some(0) {
        verdict.find(format!("{what}: {}: {}", ended.describe(), ended.err.trim_end()));
    }
}

/// Kills while a damaged log is repaired.
///
/// # Errors
/// If a repair does not work undisturbed.
pub fn repairs<'a>(root: &Path, calm: &'a Calm, extent: Extent, random: &mut Random) -> Result<Family<'a>> {
    let scene = calm.before.last().ok_or_else(|| Failure::new("nothing was played"))?;
    let mut bytes = scene.log_bytes()?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damage = bytes[..middle].iter().rposition(|&b| b == b'\n').map_or(0, |feed| feed + 1);
    let watched = scene.copy(&root.join("watched-repair"))?;
    watched.put(&format!(".duragent/sessions/{SESSION}/events.jsonl"), &bytes)?;
    let ended = watched.program.survey(&REPAIR)?;
    if ended.code() != Some(0) {
        return Err(Failure::new(format!("session repair: {}: {}", ended.describe(), ended.err)));
    }
    let points = points(&inject::counts(&ended.trace, None), Fault::Kill);
    let case = |point: Point| -> Case<'a> {
        let bytes = bytes.clone();
        Case {
            name: format!("repair: {point}"),
            run: Box::new(move |root| repair(&scene.copy(root)?, &bytes, damage, &point)),
        }
    };
    let cases: Vec<_> = random.sample(points, extent.cases_max / 2).into_iter().map(case).collect();
    let hits_min = cases.len() / 2;
    Ok(Family { name: "repair", about: "SIGKILL while a damaged log is repaired", cases, hits_min })
}

const REPAIR: [&str; 5] = ["--dir", ".duragent", "session", "repair", SESSION];

/// `damage` is where the damaged line starts.
fn repair(scene: &Scene, damaged: &[u8], damage: usize, point: &Point) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    scene.put(&format!(".duragent/sessions/{SESSION}/events.jsonl"), damaged)?;
    let ended = scene.program.fault(&REPAIR, point)?;
    verdict.hits += usize::from(ended.was_hit(point));
    succeeds(&mut verdict, "repair again", &scene.program.run(&REPAIR)?);
    // What is left is what was intact, and perhaps a word about the repair; what was there is kept.
    let intact = log::read(&damaged[..damage]).unwrap_or_default();
    match scene.log()? {
        Ok(log) => {
            verdict.findings.extend(oracle::kept(&intact, &log));
            for entry in log.entries.iter().skip(intact.entries.len()).filter(|e| e.kind != "session_recovered") {
                verdict.find(format!("{} lines were intact, now there is {}", intact.entries.len(), entry.line));
            }
        }
        Err(damage) => verdict.find(format!("the log is still damaged: {damage}")),
    }
    if !is_saved(scene, damaged)? {
        verdict.find("the original is nowhere beside the log");
    }
    succeeds(&mut verdict, "afterwards", &scene.say(AFTERWARDS, None)?);
    Ok(verdict)
}
