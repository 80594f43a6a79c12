//! `cargo xtask size`: what the release binary costs, against `benches/budget.toml`.
//!
//! For this machine: bytes of the stripped binary, crates that are linked into it, and milliseconds to listening
//! ([`start`]). With `--cross` also the bytes and crates of the static binaries for ARM, with `--cross --all` of every
//! target that has a table. `--bless` records the present figures, so that the next change shows its own cost; the budgets
//! themselves are raised by hand, in a commit that says why. `--what` shows where the bytes are ([`what`]).
//!
//! Absent: memory on ARM, which the emulated boards measure (`cargo xtask cross --test`).

mod start;
mod what;

use crate::budget::{self, Budget, grouped};
use crate::cross::build::{self, Order};
use crate::cross::targets::{TARGETS, Target};
use crate::repo::{Repo, at, capture};
use crate::{Failure, Result, Tally, cross};
use std::collections::BTreeSet;

/// What `--cross` means: the small machines that this is made for.
const CROSS: [&str; 2] = ["armv7-unknown-linux-musleabihf", "aarch64-unknown-linux-musl"];

/// Something that was measured, of the table `target`.
struct Figure {
    target: String,
    name: &'static str,
    value: u64,
}

/// Builds, measures and compares.
///
/// # Errors
/// If it does not build, or the budget has no entry for what is measured. A figure above its budget counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut bless, mut cross, mut all) = (false, false, false);
    for (number, arg) in args.iter().enumerate() {
        match arg.as_str() {
            "--bless" => bless = true,
            "--cross" => cross = true,
            "--all" => all = true,
            "--what" if number == 0 && args.len() <= 2 => {
                return what::show(repo, args.get(1).map(String::as_str)).map(|()| Tally::default());
            }
            other => return Err(Failure::unknown_argument("size", other)),
        }
    }
    let mut text = repo.read_text(budget::PATH)?;
    let mut figures = of_host(repo)?;
    if cross || all {
        figures.extend(of_others(repo, &Budget::parse(&text)?, all)?);
    }
    if bless {
        for Figure { target, name, value } in &figures {
            // What differs from run to run is not worth a record.
            if Budget::parse(&text)?.get(target, name).is_some() {
                text = budget::replace(&text, target, name, *value)?;
            }
        }
        repo.write(budget::PATH, &text)?;
    }
    let budget = Budget::parse(&text)?;
    let mut tally = Tally::default();
    for Figure { target, name, value } in &figures {
        let key = format!("{name}_max");
        let limit = budget.get(target, &key);
        let wrong = || Failure::new(format!("{}: expected {key} under [{target}], found none", budget::PATH));
        let limit = limit.ok_or_else(wrong)?;
        println!("{target}: {}", describe(name, *value, limit, budget.get(target, name)));
        if *value > limit {
            tally.failed += 1;
        } else {
            tally.passed += 1;
        }
    }
    Ok(tally)
}

fn of_host(repo: &Repo) -> Result<Vec<Figure>> {
    let host = host(repo)?;
    let binary = repo.build(true)?;
    let bytes = std::fs::metadata(&binary).map_err(|e| at(&binary, &e))?.len();
    let (bare, walled) = start::best(&binary, &repo.target_dir()?.join("start"))?;
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!(
        "{host}: listens after {:.1} ms, with the sandbox tried out {:.1} ms",
        milliseconds(bare),
        milliseconds(walled)
    );
    let figure = |name, value| Figure { target: host.clone(), name, value };
    Ok(vec![
        figure("binary_bytes", bytes),
        figure("dependencies", dependencies(repo, None)?),
        figure("start_ms", milliseconds(bare).ceil() as u64),
    ])
}

/// The targets that have a table in the budget; the first two if not `all`.
fn of_others(repo: &Repo, budget: &Budget, all: bool) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for target in TARGETS.iter().filter(|target| all || CROSS.contains(&target.name)) {
        for no_tls in [false, true] {
            let table = build::name(target, no_tls).replacen("duragent-", "", 1);
            if (no_tls && !all) || budget.get(&table, "binary_bytes_max").is_none() {
                continue;
            }
            let order = Order { no_tls, ..Order::usual(repo)? };
            let binary = cross::made(repo, target, &order, &cross::apt::folder(repo)?.join("out"))?;
            let bytes = std::fs::metadata(&binary).map_err(|e| at(&binary, &e))?.len();
            figures.push(Figure { target: table.clone(), name: "binary_bytes", value: bytes });
            let value = dependencies(repo, Some((target, no_tls)))?;
            figures.push(Figure { target: table, name: "dependencies", value });
        }
    }
    Ok(figures)
}

fn describe(name: &str, value: u64, limit: u64, recorded: Option<u64>) -> String {
    let delta = recorded.map_or_else(String::new, |recorded| {
        let sign = if value < recorded { '-' } else { '+' };
        format!(" ({sign}{} since last recorded)", grouped(value.abs_diff(recorded)))
    });
    let verdict = if value > limit { "ABOVE BUDGET" } else { "ok" };
    format!("{name}: {} of at most {}{delta}: {verdict}", grouped(value), grouped(limit))
}

/// Crates that are linked into the binary, our own excluded: of this host, or of another target, perhaps without TLS.
fn dependencies(repo: &Repo, other: Option<(&Target, bool)>) -> Result<u64> {
    let edges = ["--edges", "normal,no-proc-macro", "--prefix", "none"];
    let mut command = repo.cargo(["tree", "--package", "duragent"].into_iter().chain(edges));
    if let Some((target, no_tls)) = other {
        command.args(["--target", target.name]);
        if no_tls {
            command.arg("--no-default-features");
        }
    }
    let tree = capture(&mut command)?;
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
        assert_eq!(describe("x", 900, 1000, Some(1100)), "x: 900 of at most 1_000 (-200 since last recorded): ok");
        assert_eq!(
            describe("x", 1001, 1000, Some(1000)),
            "x: 1_001 of at most 1_000 (+1 since last recorded): ABOVE BUDGET"
        );
        assert_eq!(describe("x", 3, 10, None), "x: 3 of at most 10: ok");
    }
}
