//! `cargo xtask soak`: a long run of the release binary under a memory control group (benches/soak), and the proof that its judge
//! judges.

use crate::repo::{self, Repo};
use crate::{Failure, Result, Tally};

/// What a slice takes: enough for every kind of outage some times over, and a judgement.
const SLICE_SECONDS: u64 = 180;
/// What a run with a leak takes until it is plain.
const LEAK_SECONDS: u64 = 50;

/// Builds and runs it. A slice also makes a run that leaks on purpose, which has to fail.
///
/// # Errors
/// On a wrong command line, or if it does not build.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut seconds, mut seed, mut slice) = (3600, "1".to_owned(), false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or_else(|| Failure::Usage(format!("soak: a whole number after {arg}")))
        };
        match arg.as_str() {
            "--minutes" => seconds = 60 * number()?,
            "--seed" => seed = number()?.to_string(),
            "--slice" => (slice, seconds) = (true, SLICE_SECONDS),
            other => return Err(Failure::unknown_argument("soak", other)),
        }
    }
    let soak = |seconds: u64, more: &[&str]| {
        let mut command = repo.cargo(["bench", "--quiet", "--package", "duragent", "--bench", "soak", "--"]);
        command.args(["--seconds", &seconds.to_string(), "--seed", &seed]).args(more);
        command
    };
    let mut tally = Tally::default();
    let mut count = |what: &str, good: bool| {
        println!("soak: {what}: {}", if good { "ok" } else { "FAILED" });
        if good { tally.passed += 1 } else { tally.failed += 1 }
    };
    count("it stays what it is", repo::run(&mut soak(seconds, &[])).is_ok());
    if slice {
        // Told by what it prints, since a run that could not begin fails as well.
        let output = soak(LEAK_SECONDS, &["--leak"]).output();
        let output = output.map_err(|error| Failure::new(format!("cargo bench: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = |what: &str| text.lines().any(|line| line.starts_with("WRONG") && line.contains(what));
        let seen = !output.status.success() && said("memory grew") && said("descriptors");
        count("a run that leaks is seen", seen);
        if !seen {
            println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(tally)
}
