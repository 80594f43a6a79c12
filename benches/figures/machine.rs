//! On what all of it was measured.

use crate::failure::{Result, at, doing, fail};
use crate::proc;
use crate::scene::Place;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Share of the processors, in percent, that others may have while rates and times still say something. The kernel's
/// own work for our disk counts as others'.
const QUIET_PERCENT_MAX: f64 = 15.0;

/// Processor, memory, kernel, file system and binary, a line each.
pub fn facts(place: &Place) -> Result<Vec<String>> {
    let cores = cores();
    let processor = line("/proc/cpuinfo", &["model name", "Model", "Hardware"]).unwrap_or_else(|| "unknown".into());
    let memory = line("/proc/meminfo", &["MemTotal"]).unwrap_or_else(|| "unknown".into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(vec![
        format!("processor {processor}, {cores} cores, {}; memory {memory}", std::env::consts::ARCH),
        format!("kernel {}; file system {}", kernel.trim(), file_system(&place.root)?),
        (if place.is_release() { "release build" } else { "a debug build: these figures say nothing" }).to_owned(),
        "peers: giosakti/duragent 0.5.4 as others measured it on a two-core x86_64 machine; others by name, measured in this \
         run, in turns"
            .to_owned(),
    ])
}

/// Processor time at the beginning of the run, to tell afterwards how much of it others had.
pub struct Begin {
    at: Instant,
    all: u64,
    own: u64,
}

impl Begin {
    /// Now.
    pub fn now() -> Result<Self> {
        Ok(Self { at: Instant::now(), all: busy()?, own: proc::own_ticks()? })
    }

    /// What went on besides this run, for the reader to judge it by.
    pub fn describe(&self) -> Result<String> {
        let (seconds, cores) = (self.at.elapsed().as_secs_f64(), cores());
        let others = (busy()? - self.all).saturating_sub(proc::own_ticks()? - self.own);
        // A tick is 10 ms.
        let share = others as f64 / (seconds * cores as f64);
        let text = format!("the run took {seconds:.0} s; others had {share:.0} % of the processors meanwhile");
        let judged = if share > QUIET_PERCENT_MAX { ": too much for rates and times to be worth anything" } else { "" };
        Ok([&text, judged].concat())
    }
}

/// Ticks of all processors that somebody used, or that another machine on the same host took.
fn busy() -> Result<u64> {
    let path = Path::new("/proc/stat");
    let text = fs::read_to_string(path).map_err(at(path))?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, nice, system, _idle, _waiting, interrupts, soft, stolen, ..] => {
            Ok(user + nice + system + interrupts + soft + stolen)
        }
        _ => fail(format!("{}: expected eight numbers, found {:?}", path.display(), text.lines().next())),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What stands behind the first of `keys` that the file has.
fn line(path: &str, keys: &[&str]) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let found = |key: &&str| {
        let line = text.lines().find(|line| line.split(':').next().map(str::trim) == Some(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    keys.iter().find_map(found)
}

/// Type, source and options of the mount that holds `path`.
fn file_system(path: &Path) -> Result<String> {
    let path = path.canonicalize().map_err(at(path))?;
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(_, point, ..)| path.starts_with(point));
    let longest = holding.max_by_key(|(_, point, ..)| point.len());
    Ok(longest.map_or_else(|| "unknown".into(), |(from, _, kind, options)| format!("{kind} on {from} ({options})")))
}

/// Open files that a run with a thousand subscribers takes in this process, and in a server: one each and some to spare.
const DESCRIPTORS_MIN: f64 = 2048.0;
/// Says that the limit was raised already.
const RAISED: &str = "DURAGENT_FIGURES_RAISED";

/// Starts this program anew with as many open files as it may have, if it has too few: children inherit that. A shell does
/// it, which needs no call of ours that the compiler cannot check.
pub fn raise_descriptors(args: &[String]) -> Result<()> {
    if proc::descriptors()? >= DESCRIPTORS_MIN {
        return Ok(());
    }
    if std::env::var_os(RAISED).is_some() {
        return fail(format!(
            "expected at least {DESCRIPTORS_MIN} open files, as `ulimit -Hn` has it: raise that limit"
        ));
    }
    let own = std::env::current_exe().map_err(doing("finding this program"))?;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn \"$(ulimit -Hn)\" && exec \"$@\"", "sh"]).arg(own).args(args).env(RAISED, "1");
    // Comes back only if it does not work.
    Err(doing("starting sh")(command.exec()))
}
