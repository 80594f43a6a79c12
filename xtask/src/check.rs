//! `cargo xtask check`: all that must hold before a merge, in the order of what fails fastest.
//!
//! A stage counts as one, or as the tests it ran. The last line is `N passed, M failed`.

use crate::repo::{self, Repo};
use crate::{Failure, Result, Tally, crash, cross, golden, portable, size, soak, tidy};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Programs that the checks run, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] = &[
    ("cc", "gcc libc6-dev"),
    ("bash", "bash"),
    ("strace", "strace"),
    ("bwrap", "bubblewrap"),
    ("kill", "procps"),
    ("mount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("su", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("python3", "python3 python3-venv"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("curl", "curl"),
    ("faketime", "faketime"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("strip", "binutils"),
    ("nginx", "nginx-light"),
    ("caddy", "caddy"),
    ("shellcheck", "shellcheck"),
    ("busybox", "busybox-static"),
    ("systemd-analyze", "systemd"),
    ("openrc-run", "openrc"),
    ("runsvdir", "runit"),
    ("s6-svscan", "s6"),
    ("debootstrap", "debootstrap"),
];

/// What `cargo xtask cross` does of its own in a check: the binaries are there already, from the budgets' stage.
const BOARDS: [&str; 4] = ["armv7-unknown-linux-musleabihf", "aarch64-unknown-linux-musl", "--test", "--slice"];

/// What `cargo xtask deb` does of its own in a check: the package that this machine can install.
const PACKAGE: [&str; 3] = ["--arch", "amd64", "--test"];

/// Parts of the Rust toolchain, and how rustup names them.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

#[derive(Default)]
struct Options {
    fast: bool,
    keep_going: bool,
    install: bool,
}

struct Stage {
    name: &'static str,
    /// Left out by `--fast`.
    slow: bool,
    run: fn(&Repo, &Options) -> Result<Tally>,
}

const STAGES: [Stage; 15] = [
    Stage { name: "system tools", slow: false, run: system_tools },
    Stage { name: "format", slow: false, run: |repo, _| cargo(repo, &["fmt", "--all", "--check"]) },
    Stage {
        name: "clippy",
        slow: false,
        run: |repo, _| cargo(repo, &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Stage { name: "tidy", slow: false, run: |repo, _| tidy::run(repo, &[]) },
    Stage { name: "tests", slow: false, run: |repo, _| tests(repo) },
    Stage { name: "without TLS", slow: true, run: |repo, _| without_tls(repo) },
    Stage { name: "documentation", slow: false, run: |repo, _| documentation(repo) },
    Stage { name: "release build", slow: true, run: |repo, _| repo.build(true).map(|_| Tally::default()) },
    Stage { name: "size", slow: true, run: |repo, _| size::run(repo, &["--cross".to_owned()]) },
    Stage {
        name: "golden",
        slow: false,
        run: |repo, options| golden::compare(repo, &repo.build(!options.fast)?, false, &[]),
    },
    Stage { name: "boards slice", slow: true, run: |repo, _| cross::run(repo, &BOARDS.map(str::to_owned)) },
    Stage { name: "package", slow: true, run: |repo, _| cross::deb::run(repo, &PACKAGE.map(str::to_owned)) },
    Stage { name: "crash slice", slow: true, run: |repo, _| crash::run(repo, &["--slice".to_owned()]) },
    Stage { name: "soak slice", slow: true, run: |repo, _| soak::run(repo, &["--slice".to_owned()]) },
    // Last, for where the libraries of these systems have to be compiled first.
    Stage { name: "other systems", slow: true, run: |repo, options| Ok(portable::promised(repo, options.install)) },
];

/// Runs the stages, to the first that fails or with `--keep-going` to the end.
///
/// # Errors
/// On a wrong command line; a failing stage counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let mut options = Options { install: repo::is_ci(), ..Options::default() };
    for arg in args {
        match arg.as_str() {
            "--fast" => options.fast = true,
            "--keep-going" => options.keep_going = true,
            "--install" => options.install = true,
            other => return Err(Failure::unknown_argument("check", other)),
        }
    }
    let (mut total, mut failed) = (Tally::default(), Vec::new());
    for stage in STAGES.iter().filter(|s| !(options.fast && s.slow)) {
        println!("== {}", stage.name);
        let start = Instant::now();
        let outcome = (stage.run)(repo, &options);
        if let Err(failure) = &outcome {
            println!("error: {failure}");
        }
        let counted = count(&outcome);
        total.passed += counted.passed;
        total.failed += counted.failed;
        let word = if counted.failed == 0 { "ok" } else { "FAILED" };
        println!("== {}: {word} in {:.1} s", stage.name, start.elapsed().as_secs_f64());
        if counted.failed > 0 {
            failed.push(stage.name);
            if !options.keep_going {
                break;
            }
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total)
}

/// A stage is worth what it counted, and at least one.
fn count(outcome: &Result<Tally>) -> Tally {
    match outcome {
        Err(_) => Tally { passed: 0, failed: 1 },
        Ok(Tally { passed: 0, failed: 0 }) => Tally { passed: 1, failed: 0 },
        Ok(tally) => *tally,
    }
}

fn cargo(repo: &Repo, args: &[&str]) -> Result<Tally> {
    repo::run(&mut repo.cargo(args)).map(|()| Tally::default())
}

fn documentation(repo: &Repo) -> Result<Tally> {
    let mut command = repo.cargo(["doc", "--quiet", "--workspace", "--no-deps"]);
    repo::run(command.env("RUSTDOCFLAGS", "-D warnings")).map(|()| Tally::default())
}

/// The other build: it has no warnings, and keeps the promises that only it can keep.
fn without_tls(repo: &Repo) -> Result<Tally> {
    let package = ["--package", "duragent", "--no-default-features"];
    let lints = ["clippy", "--quiet"].into_iter().chain(package).chain(["--all-targets", "--", "-D", "warnings"]);
    cargo(repo, &lints.collect::<Vec<_>>())?;
    let tests = ["test", "--quiet"].into_iter().chain(package).chain(["--lib", "--", "no_tls"]);
    counted(&mut repo.cargo(tests))
}

/// Unit, integration and documentation tests. None may be ignored: a test that does not run proves nothing.
fn tests(repo: &Repo) -> Result<Tally> {
    counted(&mut repo.cargo(["test", "--workspace", "--no-fail-fast"]))
}

fn counted(command: &mut Command) -> Result<Tally> {
    let mut counts = Counts::default();
    let succeeded = repo::tee(command, |line| counts.add(line))?;
    if counts.ignored > 0 {
        return Err(Failure::new(format!("expected every test to run, found {} ignored", counts.ignored)));
    }
    match (succeeded, counts.tally) {
        (true, Tally { passed: 0, .. }) => Err(Failure::new("expected tests, found none")),
        // It did not compile, or a test ended its process.
        (false, tally @ Tally { failed: 0, .. }) => Ok(Tally { failed: 1, ..tally }),
        (_, tally) => Ok(tally),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    tally: Tally,
    ignored: u64,
}

impl Counts {
    /// Reads a line like `test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = rest.split([' ', ';']).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => self.tally.passed += number,
                "failed" => self.tally.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Names what is missing, with the command that installs it; runs that command if it was asked for and can be done.
fn system_tools(repo: &Repo, options: &Options) -> Result<Tally> {
    let mut packages: Vec<_> =
        TOOLS.iter().filter(|(program, _)| !repo::in_path(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    if !packages.is_empty() {
        let packages = packages.join(" ");
        println!("missing: {packages}");
        repo::install_packages(&packages, options.install)?;
    }
    let missing = |name: &str| {
        let status = repo.cargo([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        !status.is_ok_and(|s| s.success())
    };
    let components: Vec<_> =
        COMPONENTS.iter().filter(|(name, _)| missing(name)).map(|(_, component)| *component).collect();
    if components.is_empty() {
        return Ok(Tally::default());
    }
    let install = format!("rustup component add {}", components.join(" "));
    if !options.install {
        return Err(Failure::new(format!("expected {}: {install}", components.join(" and "))));
    }
    let mut words = install.split(' ');
    repo::run(Command::new(words.next().unwrap_or_default()).args(words).stdin(Stdio::null()))?;
    Ok(Tally::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_nothing_else() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test says 7 passed; ... ok",
            "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "all doctests ran in 0.35s; merged doctests compilation took 0.34s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { tally: Tally { passed: 7, failed: 2 }, ignored: 1 });
    }

    #[test]
    fn a_stage_counts_at_least_once() {
        assert_eq!(count(&Ok(Tally::default())), Tally { passed: 1, failed: 0 });
        assert_eq!(count(&Ok(Tally { passed: 5, failed: 2 })), Tally { passed: 5, failed: 2 });
        assert_eq!(count(&Err(Failure::new("x"))), Tally { passed: 0, failed: 1 });
    }
}
