//! `cargo xtask fuzz [TARGET [SECONDS]]`: cargo-fuzz on the targets of `fuzz/`.
//!
//! The same functions run on seeded mutations in plain `cargo test` (tests/fuzz_smoke.rs); this is the long run, which
//! needs a nightly compiler and cargo-fuzz, and is therefore no part of `check`.

#[path = "../../tests/http/corpus.rs"]
mod corpus;

use crate::repo::{Repo, run as execute};
use crate::{Failure, Result, Tally};
use std::process::{Command, Stdio};

/// How long each target runs if nothing is said, in seconds.
const SECONDS_DEFAULT: u64 = 60;

const TARGETS: &str = "fuzz/fuzz_targets/";

/// Fuzzes one target, or each in turn.
///
/// # Errors
/// If a tool is missing, there is no such target, or a target fails.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let files = repo.files()?;
    let all: Vec<&str> = files.iter().filter_map(|f| f.strip_prefix(TARGETS)?.strip_suffix(".rs")).collect();
    let seconds =
        |text: &String| text.parse().map_err(|_| Failure::Usage(format!("fuzz: expected seconds, found {text:?}")));
    let (targets, seconds) = match args {
        [] => (all, SECONDS_DEFAULT),
        [target] => (vec![known(&all, target)?], SECONDS_DEFAULT),
        [target, time] => (vec![known(&all, target)?], seconds(time)?),
        [_, _, more, ..] => return Err(Failure::unknown_argument("fuzz", more)),
    };
    require_tools()?;
    for target in &targets {
        seed(repo, target)?;
        let limit = format!("-max_total_time={seconds}");
        execute(cargo_nightly().current_dir(&repo.root).args(["fuzz", "run", target, "--", &limit, "-timeout=10"]))?;
    }
    Ok(Tally { passed: targets.len() as u64, failed: 0 })
}

/// Puts the request vectors into the corpus of the targets that read HTTP, so that the fuzzer starts from all of them. What
/// it has found before stays.
fn seed(repo: &Repo, target: &str) -> Result<()> {
    let part = match target {
        "http_head" => |raw: &[u8]| raw.to_vec(),
        "chunked" => |raw: &[u8]| {
            let end = raw.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |end| end + 4);
            raw.get(end..).unwrap_or_default().to_vec()
        },
        _ => return Ok(()),
    };
    let folder = repo.root.join("fuzz/corpus").join(target);
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for vector in corpus::vectors() {
        std::fs::write(folder.join(vector.name.replace('/', "-")), part(&vector.raw)).map_err(failed)?;
    }
    Ok(())
}

fn known<'a>(all: &[&'a str], target: &str) -> Result<&'a str> {
    let found = all.iter().find(|t| **t == target);
    found.copied().ok_or_else(|| Failure::Usage(format!("fuzz: no target {target:?}; there are {}", all.join(", "))))
}

/// The `cargo` of rustup: only that one understands `+nightly`.
fn cargo_nightly() -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly");
    command
}

fn require_tools() -> Result<()> {
    let works = |args: &[&str]| {
        let status = cargo_nightly().args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|s| s.success())
    };
    if !works(&["--version"]) {
        return Err(Failure::new("expected a nightly compiler, found none: rustup toolchain install nightly"));
    }
    if !works(&["fuzz", "--version"]) {
        return Err(Failure::new("expected cargo-fuzz, found none: cargo install cargo-fuzz"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_target_is_known_by_its_whole_name() {
        assert_eq!(super::known(&["json", "sse"], "sse"), Ok("sse"));
        assert!(super::known(&["json", "sse"], "ss").is_err());
    }
}
