//! What is done to the story, family by family.

use super::damage;
use super::inject::{self, Ended, Fault, Point, counts};
use super::log::Log;
use super::neighbours;
use super::oracle;
use super::play::{Calm, Verdict, play};
use super::power;
use super::random::Random;
use super::scene::{PROMPTS, Scene};
use super::serve;
use super::upkeep;
use super::walled;
use crate::{Failure, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Plays a case in the folder it is given.
pub type Play<'a> = Box<dyn Fn(&Path) -> Result<Verdict> + Send + Sync + 'a>;

/// One thing that is done, in a folder of its own.
pub struct Case<'a> {
    /// Says what; with the seed, enough to do it again.
    pub name: String,
    /// Does it.
    pub run: Play<'a>,
}

/// Cases of a kind.
pub struct Family<'a> {
    /// To choose it by.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its cases.
    pub cases: Vec<Case<'a>>,
    /// Faults that have to happen at least, or the family proves nothing.
    pub hits_min: usize,
}

/// How many cases of each family are played.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Of each list of points or places.
    pub cases_max: usize,
    /// Points in a recovery for each point before it.
    pub again_max: usize,
}

impl Extent {
    /// Some of everything.
    pub const SLICE: Self = Self { cases_max: 24, again_max: 1 };
    /// Everything, and of pairs as many as fit into minutes.
    pub const FULL: Self = Self { cases_max: usize::MAX, again_max: 3 };
}

/// The story before any fault, and the calls each message makes.
pub struct Survey {
    /// Undisturbed.
    pub calm: Calm,
    /// Per message, how often each call is made by the busiest thread.
    pub counts: Vec<BTreeMap<String, u64>>,
    /// The same, of calls that name a file of the scene.
    pub file_counts: Vec<BTreeMap<String, u64>>,
}

/// Plays the story once undisturbed, and each message once more under strace.
///
/// # Errors
/// If the binary does not do it.
pub fn survey(root: &Path, binary: &Path) -> Result<Survey> {
    let scene = Scene::create(&root.join("calm"), binary)?;
    let (mut before, mut traces, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (number, prompt) in PROMPTS.iter().enumerate() {
        before.push(scene.copy(&root.join(format!("before-{number}")))?);
        let watched = scene.copy(&root.join(format!("watched-{number}")))?;
        let ended = watched.program.survey(&watched.says(prompt))?;
        succeeded(&format!("{prompt:?} under strace"), &ended)?;
        files.extend(inject::files(&ended.trace, watched.program.root()));
        traces.push(ended.trace);
        succeeded(prompt, &scene.say(prompt, None)?)?;
    }
    files.sort();
    files.dedup();
    let log = scene.log()?.map_err(|damage| Failure::new(format!("the undisturbed log is damaged: {damage}")))?;
    sane(&scene, &log)?;
    before.push(scene);
    before.iter_mut().for_each(|scene| scene.program.files.clone_from(&files));
    let counts = traces.iter().map(|trace| counts(trace, None)).collect();
    let file_counts = traces.iter().map(|trace| inject::counts(trace, Some(&files))).collect();
    Ok(Survey { calm: Calm { before, story: oracle::story(&log) }, counts, file_counts })
}

fn succeeded(what: &str, ended: &Ended) -> Result<()> {
    match ended.code() {
        Some(0) => Ok(()),
        _ => Err(Failure::new(format!("{what}: {}: {}", ended.describe(), ended.err))),
    }
}

/// What the undisturbed story has to be, or nothing is proved by comparing with it.
fn sane(scene: &Scene, log: &Log) -> Result<()> {
    let mut findings = oracle::check(log, true);
    findings.extend(oracle::effects(log, &scene.effects()?));
    findings.extend(scene.report()?);
    let calls = |class: &str| log.entries.iter().filter(|e| e.fields.text("effect") == class).count();
    for class in ["pure", "idempotent", "once"] {
        if calls(class) != 1 {
            findings.push(format!("expected one call of class {class}, found {}", calls(class)));
        }
    }
    if scene.effects()?.lines().count() != 1 {
        findings.push(format!("expected one effect, found {:?}", scene.effects()?));
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("the undisturbed story: {}", findings.join("\n"))))
    }
}

/// All families in the order they are played.
///
/// # Errors
/// If the log of the undisturbed run cannot be read, or the server does not run.
pub fn all<'a>(root: &Path, survey: &'a Survey, extent: Extent, random: &mut Random) -> Result<Vec<Family<'a>>> {
    Ok(vec![
        kills(survey, extent, random),
        kills_again(survey, extent, random),
        errors(survey, extent, random),
        full(survey, extent, random),
        damage::truncations(&survey.calm, extent, random)?,
        damage::flips(&survey.calm, extent, random)?,
        quarantine(survey, extent, random),
        upkeep::rotations(root, &survey.calm, extent, random)?,
        upkeep::repairs(root, &survey.calm, extent, random)?,
        serve::kills(root, survey, extent, random)?,
        neighbours::all(&survey.calm),
        walled::kills(&survey.calm, extent, random),
        power::cuts(survey, extent, random),
    ])
}

/// Each point of each message at which `fault` can happen.
fn points(survey: &Survey, fault: Fault, wanted: &dyn Fn(&str) -> bool) -> Vec<(usize, Point)> {
    let mut points = Vec::new();
    let all = if fault == Fault::Kill { &survey.counts } else { &survey.file_counts };
    for (message, counts) in all.iter().enumerate() {
        for (call, count) in counts.iter().filter(|(call, _)| wanted(call)) {
            points.extend((1..=*count).map(|when| (message, Point { call: call.clone(), when, fault })));
        }
    }
    points
}

fn story_case<'a>(survey: &'a Survey, message: usize, faults: Vec<Point>) -> Case<'a> {
    let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Case {
        name: format!("{:?}: {}", PROMPTS[message], names.join(", then ")),
        run: Box::new(move |root| play(&survey.calm.before[message].copy(root)?, message, &faults, &survey.calm)),
    }
}

fn kills<'a>(survey: &'a Survey, extent: Extent, random: &mut Random) -> Family<'a> {
    // The first execve is strace starting the program.
    let points = points(survey, Fault::Kill, &|call| call != "execve");
    let points = random.sample(points, extent.cases_max.saturating_mul(2));
    let cases: Vec<_> = points.into_iter().map(|(message, point)| story_case(survey, message, vec![point])).collect();
    // Threads share the calls out differently from run to run, so some points are not reached.
    let hits_min = cases.len() / 2;
    Family { name: "kill", about: "SIGKILL at every system call that touches files or tools", cases, hits_min }
}

fn kills_again<'a>(survey: &'a Survey, extent: Extent, random: &mut Random) -> Family<'a> {
    let firsts = points(survey, Fault::Kill, &|call| call != "execve");
    let mut cases = Vec::new();
    for (message, first) in random.sample(firsts, extent.cases_max) {
        // What recovery does is what the next message does and more; its own points are close to these.
        let next = &survey.counts[(message + 1).min(PROMPTS.len() - 1)];
        let seconds: Vec<Point> = next
            .iter()
            .filter(|(call, _)| *call != "execve")
            .flat_map(|(call, count)| {
                (1..=*count).map(move |when| Point { call: call.clone(), when, fault: Fault::Kill })
            })
            .collect();
        for second in random.sample(seconds, extent.again_max) {
            cases.push(story_case(survey, message, vec![first.clone(), second]));
        }
    }
    let hits_min = cases.len() / 2;
    Family { name: "again", about: "SIGKILL, and SIGKILL again while it recovers", cases, hits_min }
}

const ERRORS: [&str; 3] = ["EIO", "ENOSPC", "EINTR"];

fn is_failing_call(call: &str) -> bool {
    let calls = ["write", "fdatasync", "fsync", "open", "openat", "openat2", "ftruncate", "mkdir", "mkdirat", "rename"];
    calls.contains(&call) || ["renameat", "flock"].contains(&call)
}

fn errors<'a>(survey: &'a Survey, extent: Extent, random: &mut Random) -> Family<'a> {
    let is_sync = |call: &str| call == "fdatasync" || call == "fsync";
    // A sync that fails is where a log may lie about itself: of those, every slice has all.
    let mut chosen = points(survey, Fault::Error("EIO"), &is_sync);
    for error in ERRORS {
        let others =
            points(survey, Fault::Error(error), &|call| is_failing_call(call) && !(error == "EIO" && is_sync(call)));
        chosen.extend(random.sample(others, extent.cases_max / 2));
    }
    let cases: Vec<_> = chosen.into_iter().map(|(message, point)| story_case(survey, message, vec![point])).collect();
    let hits_min = cases.len() / 2;
    Family { name: "error", about: "EIO, ENOSPC and EINTR at every write, sync and open", cases, hits_min }
}

fn full<'a>(survey: &'a Survey, extent: Extent, random: &mut Random) -> Family<'a> {
    let mut points = points(survey, Fault::Errors("ENOSPC"), &|call| call == "write");
    points.extend(self::points(survey, Fault::Errors("EIO"), &|call| call == "fdatasync"));
    points.extend(self::points(survey, Fault::Errors("EROFS"), &|call| call == "openat"));
    let points = random.sample(points, extent.cases_max);
    let cases: Vec<_> = points.into_iter().map(|(message, point)| story_case(survey, message, vec![point])).collect();
    let hits_min = cases.len() / 2;
    Family { name: "full", about: "from some write, sync or open on, each one fails", cases, hits_min }
}

/// Three kills at the same point of the same step: then the turn is given up, and the session takes the next message.
fn quarantine<'a>(survey: &'a Survey, extent: Extent, random: &mut Random) -> Family<'a> {
    let points = points(survey, Fault::Kill, &|call| call == "fdatasync" || call == "wait4" || call == "waitid");
    let points = random.sample(points, extent.cases_max / 4);
    let cases: Vec<_> = points
        .into_iter()
        .map(|(message, point)| Case {
            name: format!("{:?}: {point}, again and again", PROMPTS[message]),
            run: Box::new(move |root| {
                damage::stubborn(&survey.calm.before[message].copy(root)?, PROMPTS[message], &point)
            }),
        })
        .collect();
    let hits_min = cases.len();
    Family { name: "stubborn", about: "the same SIGKILL until the turn is given up", cases, hits_min }
}
