//! One disturbed performance of the story, and the verdict on it.

use super::inject::{Ended, Fault, Point};
use super::log::{Entry, Log};
use super::oracle::{self, INTERRUPTED, Line};
use super::scene::{EFFECTS, PROMPTS, Scene};
use crate::Result;

/// Most commands in one performance: each message once, and once more for each fault that came before it was taken.
const COMMANDS_MAX: usize = 12;

/// What came of a case.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong, one sentence each; empty is good.
    pub findings: Vec<String>,
    /// Faults that really happened.
    pub hits: usize,
}

impl Verdict {
    /// Adds a finding.
    pub fn find(&mut self, text: impl Into<String>) {
        self.findings.push(text.into());
    }
}

/// The undisturbed performance, for comparison.
pub struct Calm {
    /// The workspace before each message, and after the last.
    pub before: Vec<Scene>,
    /// What a user would notice of it.
    pub story: Vec<Line>,
}

/// Plays from message `first` on. The n-th command meets the n-th fault; those after the last fault are undisturbed and
/// have to succeed. A message that a fault kept out of the log is said again.
///
/// # Errors
/// If the binary or strace cannot be run.
pub fn play(scene: &Scene, first: usize, faults: &[Point], calm: &Calm) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let (mut next, mut hit_tool) = (first, false);
    for command in 0..COMMANDS_MAX {
        let Some(prompt) = PROMPTS.get(next) else { break };
        let fault = faults.get(command);
        let before = scene.log()?.unwrap_or_default();
        let ended = scene.say(prompt, fault)?;
        hit_tool |= ended.injected().any(|line| line.contains(EFFECTS));
        let log = match scene.log()? {
            Ok(log) => log,
            Err(damage) => {
                verdict.find(format!("after {}: the log is damaged: {damage}", describe(prompt, fault)));
                return Ok(verdict);
            }
        };
        let from = verdict.findings.len();
        judge(&mut verdict, scene, &ended, &before, &log, fault)?;
        let taken = has_message(&log, prompt);
        if ended.code() == Some(0) && !taken {
            verdict.find("it said it was done, and the message is not in the log");
        }
        for finding in &mut verdict.findings[from..] {
            *finding = format!("after {}: {finding}", describe(prompt, fault));
        }
        if taken {
            next += 1;
        } else if fault.is_none() {
            break;
        }
    }
    settle(&mut verdict, scene)?;
    if next < PROMPTS.len() && verdict.findings.is_empty() {
        verdict.find(format!("the message {:?} was never taken", PROMPTS[next]));
    }
    // A call that failed because its file system did, or because the fault hit its process, is a result like any other:
    // only kills and interruptions of the runtime itself must leave no trace.
    let is_invisible = |point: &Point| matches!(point.fault, Fault::Kill | Fault::Error("EINTR"));
    let hit_us = faults.iter().all(is_invisible) && verdict.hits == faults.len() && !hit_tool;
    if verdict.findings.is_empty() && hit_us {
        compare(&mut verdict, scene, calm)?;
    }
    Ok(verdict)
}

/// Takes up what the last fault left unfinished.
fn settle(verdict: &mut Verdict, scene: &Scene) -> Result<()> {
    let before = scene.log()?.unwrap_or_default();
    if oracle::check(&before, true) == oracle::check(&before, false) {
        return Ok(());
    }
    let ended = scene.resume(None)?;
    if ended.code() != Some(0) {
        verdict.find(format!("--resume: {}: {}", ended.describe(), ended.err.trim_end()));
    }
    let log = scene.log()?.unwrap_or_default();
    verdict.findings.extend(oracle::kept(&before, &log));
    verdict.findings.extend(oracle::check(&log, true));
    verdict.findings.extend(oracle::effects(&log, &scene.effects()?));
    Ok(())
}

fn describe(prompt: &str, fault: Option<&Point>) -> String {
    fault.map_or_else(|| format!("{prompt:?} undisturbed"), |point| format!("{prompt:?} with {point}"))
}

/// Everything that can be said after one command.
fn judge(
    verdict: &mut Verdict,
    scene: &Scene,
    ended: &Ended,
    before: &Log,
    log: &Log,
    fault: Option<&Point>,
) -> Result<()> {
    verdict.hits += usize::from(fault.is_some_and(|p| ended.was_hit(p)));
    let published = published(&ended.out);
    verdict.findings.extend(oracle::kept(before, log));
    verdict.findings.extend(oracle::acknowledged(log, &published));
    verdict.findings.extend(oracle::check(log, ended.code() == Some(0)));
    verdict.findings.extend(oracle::effects(log, &scene.effects()?));
    match (ended.code(), fault) {
        (Some(0), _) if last_reason(log) != Some("completed") => {
            verdict.find(format!("it said it was done, and the last turn is {:?}", last_reason(log)));
        }
        (Some(0), _) if ended.injected().any(|line| line.contains(" write(1<") && !line.contains("EINTR")) => {
            verdict.find("standard output could not be written, and it said it was done");
        }
        (Some(0), _) => {}
        (_, None) => verdict.find(format!("{}: {}", ended.describe(), ended.err.trim_end())),
        (Some(101 | 134), _) => verdict.find(format!("it panicked: {}", ended.err.trim_end())),
        (Some(_), Some(_)) if !has_spoken(ended) => {
            verdict.find(format!("{} and not a word about it", ended.describe()));
        }
        (Some(_), Some(_)) => {}
        (None, Some(point)) if point.fault == Fault::Kill && ended.was_killed() => {}
        // It waits for its disk, which is killed with it here, and says so.
        (None, Some(Point { fault: Fault::Errors(_), .. })) if ended.status.is_none() && has_spoken(ended) => {}
        (None, Some(_)) => verdict.find(format!("{}: {}", ended.describe(), ended.err.trim_end())),
    }
    Ok(())
}

/// True if it said on standard error what is wrong, or could not because that failed too.
fn has_spoken(ended: &Ended) -> bool {
    !ended.err.is_empty() || ended.injected().any(|line| line.contains(" write(2<"))
}

/// Log lines on standard output.
#[must_use]
pub fn published(out: &str) -> Vec<String> {
    // A line without its line feed was cut off by the fault.
    let whole = out.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole.filter(|line| line.starts_with("{\"seq\":")).map(str::to_owned).collect()
}

/// True if the message is in the log.
#[must_use]
pub fn has_message(log: &Log, prompt: &str) -> bool {
    log.entries.iter().any(|e| e.kind == "message_received" && e.fields.text("content") == prompt)
}

fn last_reason(log: &Log) -> Option<&str> {
    log.entries.iter().rfind(|e| e.kind == "turn_finished").map(|e| e.fields.text("reason"))
}

/// The disturbed story has to be the calm one, but for calls of class `once`, which may stand as interrupted.
///
/// # Errors
/// If the scene cannot be read.
pub fn compare(verdict: &mut Verdict, scene: &Scene, calm: &Calm) -> Result<()> {
    let Ok(log) = scene.log()? else { return Ok(()) };
    let is_once = |id: &str| {
        let of_call = |e: &&Entry| e.kind == "tool_started" && e.fields.text("call_id") == id;
        log.entries.iter().find(of_call).is_some_and(|e| e.fields.text("effect") == "once")
    };
    let story = oracle::story(&log);
    for (found, expected) in story.iter().zip(&calm.story) {
        let excused = found.text == INTERRUPTED && found.about == expected.about && is_once(&found.about);
        if found != expected && !excused {
            verdict.find(format!("undisturbed it was {expected:?}, now it is {found:?}"));
        }
    }
    if story.len() != calm.story.len() {
        verdict.find(format!("undisturbed the story has {} lines, now it has {}", calm.story.len(), story.len()));
    }
    verdict.findings.extend(scene.report()?);
    Ok(())
}
