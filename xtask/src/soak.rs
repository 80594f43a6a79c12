//! `cargo xtask soak`: a long run of the release binary under a memory control group (benches/soak), the proof that its judge
//! judges, and device profiles in control groups of their sizes (benches/profiles).

use crate::repo::{self, Repo};
use crate::{Failure, Result, Tally};
use std::process::Output;
use std::thread;

/// What a slice takes: every kind of outage some times over, and four quarters to judge.
const SLICE_SECONDS: u64 = 150;
/// What a run with a leak takes until that is plain.
const LEAK_SECONDS: u64 = 50;

/// What is wrong where something leaks on purpose: this,
const SEEN: &str = "memory grew";
/// and one of these. A fast machine leaks so much that the kernel ends the server before it is looked at at rest.
const SEEN_AT_LAST: [&str; 2] = ["descriptors", "for want of memory"];

#[derive(Debug, PartialEq, Eq)]
struct Options {
    seconds: u64,
    seed: u64,
    slice: bool,
    profiles: bool,
}

/// Builds and runs what is asked for. A slice is a short run, beside it one that leaks on purpose, which has to fail, and then the
/// profiles.
///
/// # Errors
/// On a wrong command line, or if it does not build.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let options = parse(args)?;
    let bench = |name: &str, args: &[String]| {
        let mut command = repo.cargo(["bench", "--quiet", "--package", "duragent", "--bench", name, "--"]);
        command.args(args);
        command
    };
    repo::run(
        repo.cargo(["bench", "--quiet", "--package", "duragent", "--bench", "soak", "--bench", "profiles"])
            .arg("--no-run"),
    )?;
    let Options { seconds, seed, slice, profiles } = options;
    let soak = |seconds: u64, more: Option<&str>| {
        let words = ["--seconds".to_owned(), seconds.to_string(), "--seed".to_owned(), seed.to_string()];
        bench("soak", &words.into_iter().chain(more.map(str::to_owned)).collect::<Vec<_>>())
    };
    let finish = |mut command: std::process::Command| {
        command.output().map_err(|error| Failure::new(format!("cargo bench: {error}")))
    };
    if !slice && !profiles {
        let good = repo::run(&mut soak(seconds, None)).is_ok();
        return Ok(tally(&[good]));
    }
    thread::scope(|scope| {
        let long = slice.then(|| scope.spawn(|| finish(soak(seconds, None))));
        let mut good = Vec::new();
        if slice {
            let leak = finish(soak(LEAK_SECONDS, Some("--leak")))?;
            good.push(told("a run that leaks is seen", &leak, is_seen(&leak)));
        }
        let held = finish(bench("profiles", &[]))?;
        good.push(told("profiles", &held, held.status.success()));
        if let Some(long) = long {
            let long = long.join().map_err(|_| Failure::new("soak: a thread panicked"))??;
            good.push(told("it stays what it is", &long, long.status.success()));
        }
        Ok(tally(&good))
    })
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { seconds: 3600, seed: 1, slice: false, profiles: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or_else(|| Failure::Usage(format!("soak: a whole number after {arg}")))
        };
        match arg.as_str() {
            "--minutes" => options.seconds = 60 * number()?,
            "--seed" => options.seed = number()?,
            "--slice" => (options.slice, options.seconds) = (true, SLICE_SECONDS),
            "--profiles" => options.profiles = true,
            other => return Err(Failure::unknown_argument("soak", other)),
        }
    }
    Ok(options)
}

/// Judged by what it says, since a run that could not begin fails as well.
fn is_seen(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stdout);
    let says = |what: &str| text.lines().any(|line| line.starts_with("WRONG") && line.contains(what));
    !output.status.success() && says(SEEN) && SEEN_AT_LAST.into_iter().any(says)
}

fn told(what: &str, output: &Output, good: bool) -> bool {
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !good {
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("soak: {what}: {}", if good { "ok" } else { "FAILED" });
    good
}

fn tally(good: &[bool]) -> Tally {
    let passed = good.iter().filter(|good| **good).count() as u64;
    Tally { passed, failed: good.len() as u64 - passed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn args(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_hour_unless_told_otherwise() {
        let hour = Options { seconds: 3600, seed: 1, slice: false, profiles: false };
        assert_eq!(parse(&args("")), Ok(hour));
        let other = Options { seconds: 1500, seed: 7, slice: false, profiles: false };
        assert_eq!(parse(&args("--minutes 25 --seed 7")), Ok(other));
        for wrong in ["--minutes", "--minutes x", "--hours 1", "5"] {
            assert!(matches!(parse(&args(wrong)), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_leak_counts_as_seen_only_by_what_is_said_of_it() {
        let output = |code: i32, text: &str| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: text.as_bytes().to_vec(),
            stderr: Vec::new(),
        };
        let both = "WRONG: memory grew by 30 %\nWRONG: descriptors: 15 before, 90 after a rest\n";
        assert!(is_seen(&output(1, both)));
        assert!(!is_seen(&output(0, both)), "it was let pass");
        assert!(!is_seen(&output(1, "error: no control group\n")), "it never began");
        assert!(!is_seen(&output(1, "WRONG: memory grew by 30 %\n  descriptors 15 and 90\n")), "one was not seen");
    }
}
