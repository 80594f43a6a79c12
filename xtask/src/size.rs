//! `cargo xtask size`: what the release binary costs, against `benches/budget.toml`.
//!
//! Two figures per target: bytes of the stripped binary, and how many crates are linked into it. `--bless` records the
//! present figures, so that the next change shows its own cost; the budgets themselves are raised by hand, in a commit
//! that says why.

use crate::budget::{self, Budget, grouped};
use crate::repo::{Repo, at, capture};
use crate::{Failure, Result, Tally};
use std::collections::BTreeSet;

/// Builds for the host, measures and compares.
///
/// # Errors
/// If it does not build, or the budget has no entry for the host. A figure above its budget counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let bless = match args {
        [] => false,
        [arg] if arg == "--bless" => true,
        [arg, ..] => return Err(Failure::unknown_argument("size", arg)),
    };
    let host = host(repo)?;
    let mut text = repo.read_text(budget::PATH)?;
    let binary = repo.build(true)?;
    let bytes = std::fs::metadata(&binary).map_err(|e| at(&binary, &e))?.len();
    let figures = [("binary_bytes", bytes), ("dependencies", dependencies(repo)?)];
    if bless {
        for (name, value) in figures {
            text = budget::replace(&text, &host, name, value)?;
        }
        repo.write(budget::PATH, &text)?;
    }
    let budget = Budget::parse(&text)?;
    let mut tally = Tally::default();
    for (name, value) in figures {
        let wanted = |key: &str| {
            let found = budget.get(&host, key);
            found.ok_or_else(|| Failure::new(format!("{}: expected {key} under [{host}], found none", budget::PATH)))
        };
        let (limit, recorded) = (wanted(&format!("{name}_max"))?, wanted(name)?);
        println!("{}", describe(name, value, limit, recorded));
        if value > limit {
            tally.failed += 1;
        } else {
            tally.passed += 1;
        }
    }
    Ok(tally)
}

fn describe(name: &str, value: u64, limit: u64, recorded: u64) -> String {
    let sign = if value < recorded { '-' } else { '+' };
    let delta = grouped(value.abs_diff(recorded));
    let verdict = if value > limit { "ABOVE BUDGET" } else { "ok" };
    format!("{name}: {} of at most {} ({sign}{delta} since last recorded): {verdict}", grouped(value), grouped(limit))
}

/// Crates that are linked into the binary on this host, our own excluded.
fn dependencies(repo: &Repo) -> Result<u64> {
    let tree = capture(&mut repo.cargo([
        "tree",
        "--package",
        "duragent",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
    ]))?;
    let count = count_crates(&tree);
    if count == 0 { Err(Failure::new("cargo tree: expected dependencies, found none")) } else { Ok(count) }
}

fn count_crates(tree: &str) -> u64 {
    let crates: BTreeSet<_> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.contains("(/"))
        .collect();
    crates.len() as u64
}

/// The target triple this machine builds for by itself.
fn host(repo: &Repo) -> Result<String> {
    let text = capture(&mut repo.cargo(["--version", "--verbose"]))?;
    let found = text.lines().find_map(|line| line.strip_prefix("host: "));
    found
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("cargo --version --verbose: expected a line `host:`, found none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_linked_crate_is_counted_once() {
        let tree = "duragent v0.1.0 (/somewhere)\na v1.0.0\nb v1.0.0\na v1.0.0 (*)\na v2.0.0\n\n";
        assert_eq!(count_crates(tree), 3);
    }

    #[test]
    fn the_verdict_is_by_the_budget_and_the_delta_by_the_record() {
        assert_eq!(describe("x", 900, 1000, 1100), "x: 900 of at most 1_000 (-200 since last recorded): ok");
        assert_eq!(describe("x", 1001, 1000, 1000), "x: 1_001 of at most 1_000 (+1 since last recorded): ABOVE BUDGET");
    }
}
