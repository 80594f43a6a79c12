//! On what all of it was measured.

use crate::failure::{Result, at};
use crate::scene::Place;
use std::fs;
use std::path::Path;

/// Processor, memory, kernel, file system and binary, a line each.
pub fn facts(place: &Place) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = line("/proc/cpuinfo", &["model name", "Model", "Hardware"]).unwrap_or_else(|| "unknown".into());
    let memory = line("/proc/meminfo", &["MemTotal"]).unwrap_or_else(|| "unknown".into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(vec![
        format!("processor {processor}, {cores} cores, {}; memory {memory}", std::env::consts::ARCH),
        format!("kernel {}; file system {}", kernel.trim(), file_system(&place.root)?),
        (if place.is_release() { "release build" } else { "a debug build: these figures say nothing" }).to_owned(),
        "peer: giosakti/duragent 0.5.4 as others measured it on a two-core x86_64 machine".to_owned(),
    ])
}

/// Load average of the last minute: how much else was going on.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
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
