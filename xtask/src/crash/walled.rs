//! `kill -9` of the runtime while a tool of class `once` runs in a real sandbox: nothing of it is left soon after.
//!
//! Without strace, which would wait for the tools too; so moments are chosen by the clock, and some by the effect.

use super::families::{Case, Extent, Family};
use super::inject::RUN_TIME_MAX;
use super::play::{Calm, Verdict, has_message, play};
use super::random::Random;
use super::scene::{PROMPTS, Scene};
use crate::repo::at;
use crate::{Failure, Result};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The message that makes the call of class `once`.
const MESSAGE: usize = 2;

/// Within which all processes of a tool are gone after the end of the runtime.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// By when the effect has happened, and a little more: kills by the clock come before.
const START_MS: usize = 80;

/// Kills that wait for the effect; each meets a tool at work.
const AT_EFFECT: usize = 2;

/// Kills at the effect, and by the clock.
pub fn kills<'a>(calm: &'a Calm, extent: Extent, random: &mut Random) -> Family<'a> {
    let by_clock = extent.cases_max.min(48) / 4;
    let mut moments = vec![None; AT_EFFECT];
    moments.extend((0..by_clock).map(|_| Some(Duration::from_millis(random.below(START_MS) as u64))));
    let case = |moment: Option<Duration>| Case {
        name: moment.map_or_else(|| "at the effect".to_owned(), |moment| format!("after {moment:?}")),
        run: Box::new(move |root| kill(root, calm, moment)),
    };
    let cases = moments.into_iter().map(case).collect();
    Family { name: "walled", about: "SIGKILL while a tool runs in bubblewrap", cases, hits_min: AT_EFFECT }
}

fn kill(root: &Path, calm: &Calm, moment: Option<Duration>) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let scene = calm.before[MESSAGE].copy(root)?;
    scene.enclose()?;
    let start = Instant::now();
    let mut running = scene.program.start(&scene.says(PROMPTS[MESSAGE]))?;
    let is_time = || moment.map_or_else(|| Ok(!scene.effects()?.is_empty()), |moment| Ok(start.elapsed() >= moment));
    while !is_time()? && running.is_alive()? && start.elapsed() < RUN_TIME_MAX {
        std::thread::sleep(Duration::from_millis(1));
    }
    // A hit is a tool that has done its work and would go on.
    verdict.hits = usize::from(!scene.effects()?.is_empty() && !processes(&scene)?.is_empty());
    let ended = running.stop()?;
    let killed = Instant::now();
    let mut left = processes(&scene)?;
    while !left.is_empty() && killed.elapsed() < GONE_WITHIN {
        std::thread::sleep(Duration::from_millis(5));
        left = processes(&scene)?;
    }
    if !left.is_empty() {
        verdict.find(format!("{GONE_WITHIN:?} after the runtime was killed these are left: {}", left.join("; ")));
    }
    let log = scene.log()?.map_err(|damage| Failure::new(format!("the log is damaged: {damage}: {}", ended.err)))?;
    let next = MESSAGE + usize::from(has_message(&log, PROMPTS[MESSAGE]));
    let after = play(&scene, next, &[], calm)?;
    verdict.findings.extend(after.findings);
    let log = scene.log()?.unwrap_or_default();
    let mut starts = log.entries.iter().filter(|e| e.kind == "tool_started" && e.fields.text("effect") == "once");
    if !starts.next_back().is_some_and(|e| e.line.contains("\"bubblewrap\"")) {
        verdict.find("the call of class once was not made in bubblewrap");
    }
    Ok(verdict)
}

/// The first words of the processes that have the folder's path in their arguments.
fn processes(scene: &Scene) -> Result<Vec<String>> {
    let (proc, mark) = (Path::new("/proc"), scene.folder.display().to_string());
    let entries = fs::read_dir(proc).map_err(|e| at(proc, &e))?;
    let pids = entries.flatten().map(|e| e.path()).filter(|path| path.join("cmdline").is_file());
    // Whoever ends meanwhile is gone.
    let lines = pids.filter_map(|path| fs::read(path.join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let ours = lines.filter(|line| line.contains(&mark));
    Ok(ours.map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect())
}
