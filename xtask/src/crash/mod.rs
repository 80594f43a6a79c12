//! `cargo xtask crash`: the fault campaign, with the release binary as a black box.
//!
//! A story of four turns is played undisturbed and then again and again with one thing gone wrong: a kill or a failing
//! call at each system call that strace can reach, a log that was cut or changed. What must hold afterwards is written
//! down in [`oracle`], and is checked on the log as [`log`] reads it, which shares no code with the runtime.
//!
//! The seed decides what a slice consists of and is printed; the same seed plays the same cases. Threads of the runtime
//! are scheduled by the kernel, so a case is repeatable as far as they are.
//!
//! Most of it keeps what was written; what was not synced is lost in [`power`].

pub mod client;
mod damage;
mod disk;
mod families;
pub mod inject;
pub mod json;
pub mod log;
mod neighbours;
pub mod oracle;
pub mod play;
mod power;
pub mod random;
mod scene;
pub mod serve;
mod upkeep;
mod walled;

use crate::repo::{Repo, at};
use crate::{Failure, Result, Tally};
use families::{Case, Extent, Family};
use play::Verdict;
use random::Random;
use std::fs;
use std::path::{Path, PathBuf};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Cases that are played side by side if nothing is said: they mostly wait for the disk and for strace.
const JOBS_DEFAULT: usize = 2;

/// Findings that are printed in full; more of the same help nobody.
const SHOWN_MAX: usize = 20;

struct Options {
    slice: bool,
    seed: u64,
    keep: bool,
    jobs: usize,
    /// Instead of the release binary of this source.
    binary: Option<PathBuf>,
    families: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options =
            Self { slice: false, seed: 1, keep: false, jobs: JOBS_DEFAULT, binary: None, families: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                let text = args.next().map_or("", String::as_str);
                text.parse::<u64>()
                    .map_err(|_| Failure::Usage(format!("crash: {arg} expects a number, found {text:?}")))
            };
            match arg.as_str() {
                "--slice" => options.slice = true,
                "--keep" => options.keep = true,
                "--binary" => {
                    let path = args.next().ok_or_else(|| Failure::Usage("crash: --binary expects a file".into()))?;
                    options.binary = Some(std::path::absolute(path).map_err(|e| at(Path::new(path), &e))?);
                }
                "--seed" => options.seed = number()?,
                "--jobs" => options.jobs = usize::try_from(number()?.clamp(1, 64)).unwrap_or(1),
                flag if flag.starts_with('-') => return Err(Failure::unknown_argument("crash", flag)),
                family => options.families.push(family.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Plays the families that are named, or all.
///
/// # Errors
/// If the binary does not build, or does not play the story undisturbed. A case with findings counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let options = Options::parse(args)?;
    let binary = options.binary.clone().map_or_else(|| repo.build(true), Ok)?;
    let root = std::env::temp_dir().join(format!("duragent-crash-{}", std::process::id()));
    let tally = campaign(&options, &binary, &root);
    if !options.keep || tally.as_ref().is_ok_and(|t| t.failed == 0) {
        fs::remove_dir_all(&root).map_err(|e| at(&root, &e))?;
    } else {
        println!("kept in {}", root.display());
    }
    tally
}

fn campaign(options: &Options, binary: &Path, root: &Path) -> Result<Tally> {
    let extent = if options.slice { Extent::SLICE } else { Extent::FULL };
    let mut random = Random::new(options.seed);
    let survey = families::survey(root, binary)?;
    let calls: u64 = survey.counts.iter().flat_map(|c| c.values()).sum();
    println!("crash: seed {}, {} messages, {calls} points at system calls", options.seed, survey.counts.len());
    let mut families = families::all(root, &survey, extent, &mut random)?;
    if let Some(unknown) = options.families.iter().find(|name| !families.iter().any(|f| f.name == name.as_str())) {
        let names: Vec<_> = families.iter().map(|f| f.name).collect();
        return Err(Failure::Usage(format!("crash: no family {unknown:?}; there are {}", names.join(", "))));
    }
    families.retain(|family| options.families.is_empty() || options.families.iter().any(|name| name == family.name));
    let mut total = Tally::default();
    for family in &families {
        let tally = play_family(family, options, root)?;
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    println!("crash: {} cases as they have to be, {} not", total.passed, total.failed);
    Ok(total)
}

fn play_family(family: &Family<'_>, options: &Options, root: &Path) -> Result<Tally> {
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = family.cases.get(number) else { break };
                    let result = play_case(number, case, family.name, options, root);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((number, case, result));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (mut tally, mut hits, mut shown) = (Tally::default(), 0, 0);
    for (number, case, result) in results {
        let verdict = result.unwrap_or_else(|failure| Verdict { findings: vec![failure.to_string()], hits: 0 });
        hits += verdict.hits;
        if verdict.findings.is_empty() {
            tally.passed += 1;
            continue;
        }
        tally.failed += 1;
        shown += 1;
        if shown <= SHOWN_MAX {
            println!("  {}-{number}: {}\n    {}", family.name, case.name, verdict.findings.join("\n    "));
        }
    }
    if hits < family.hits_min {
        println!("  expected at least {} faults to happen, {hits} did", family.hits_min);
        tally.failed += 1;
    }
    let (cases, seconds) = (family.cases.len(), start.elapsed().as_secs_f64());
    println!(
        "  {}: {}: {cases} cases, {hits} faults, {} wrong, {seconds:.1} s",
        family.name, family.about, tally.failed
    );
    Ok(tally)
}

fn play_case(number: usize, case: &Case<'_>, family: &str, options: &Options, root: &Path) -> Result<Verdict> {
    let root = root.join(format!("{family}-{number}"));
    let verdict = (case.run)(&root);
    let is_good = verdict.as_ref().is_ok_and(|v| v.findings.is_empty());
    if is_good || !options.keep {
        fs::remove_dir_all(&root).map_err(|e| at(&root, &e))?;
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        let parse = |args: &str| Options::parse(&args.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--slice --seed 7 kill cut").expect("is right");
        assert_eq!((options.slice, options.seed, options.families.len()), (true, 7, 2));
        for args in ["--seed", "--seed x", "--fast"] {
            assert!(matches!(parse(args), Err(Failure::Usage(_))), "{args}");
        }
    }
}
