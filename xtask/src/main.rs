//! `cargo xtask`: the one way in for people and CI.
//!
//! One file per command; this one only dispatches. Nothing here depends on anything but the standard library, so that
//! the first run on a fresh machine compiles in seconds.

mod bench;
mod board;
mod budget;
mod check;
mod crash;
mod cross;
mod fuzz;
mod golden;
mod openapi;
mod portable;
mod release;
mod repo;
mod size;
mod soak;
mod tidy;

use std::process::ExitCode;

/// What a command came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Why a command could not go on.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// Anything else: what, where, expected, found, remedy.
    Failed(String),
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    fn unknown_argument(command: &str, argument: &str) -> Self {
        Self::Usage(format!("{command}: unknown argument {argument:?}"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(text) | Self::Failed(text)) = self;
        f.write_str(text)
    }
}

type Result<T> = std::result::Result<T, Failure>;
type Command = fn(&repo::Repo, &[String]) -> Result<Tally>;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check [--fast] [--keep-going] [--install]   all that must hold before a merge: format, lints, tidy, tests, docs,
                                              release build, size, golden, a slice of crash, other systems; --fast
                                              leaves out release build, size, crash and other systems
  tidy [--bless]                              rules of the house that compilers do not check; --bless tightens ratchet.txt
  size [--cross [--all]] [--bless]            bytes, dependencies and start of the release binary against
                                              benches/budget.toml; --cross also the bytes of the static ones for ARM, with
                                              --all of every target
  size --what [TARGET]                        where the bytes are, by crate and by symbol
  sign --key KEY.pem DIR                      makes a release for `duragent upgrade` of the binaries that cross has put into DIR
  golden [--bless] [--release] [NAME…]        command-line output against tests/golden/*.case
  cross TARGET…|--all [--no-tls] [--out DIR] [--twice [--control]] [--test [--slice] [--seed N]]
                                              binaries for other machines, static or for glibc (docs/porting.md); --twice
                                              builds in two folders and compares, --control also with paths, --test tries them on emulated boards
  crash [--slice] [--seed N] [--jobs N] [--keep] [--binary FILE] [FAMILY…]
                                              the fault campaign on the release binary, power cuts (as root) included; a
                                              slice takes about a minute
  deb [--arch armhf|arm64|amd64|armel|all]… [--out DIR]
                                              Debian packages with the static binaries
  bench [--only N]… [--write FILE]            the figures of the project, of the release binary, as a table; --write puts
                                              it between <!-- bench --> and <!-- /bench --> in FILE (needs wrk and nginx, and
                                              builds an axum server to measure beside)
  soak [--minutes N] [--seed N] [--slice] [--profiles]
                                              a long run under a memory control group of 32 MB (60 minutes; needs root): memory
                                              stays, nothing is lost, nothing is left; --profiles: each lives in the memory it
                                              promises; a slice takes four minutes, profiles included
  portable [--by WAY] [TARGET…]               core and platform compile for macOS, FreeBSD and Linux on ARM; WAY says where the
                                              standard library comes from: installed, source (rust-src), or debian
  board [--slice] [--seed N] [--plugs N] [--keep] --binary TARGET=FILE… [user|story|later|plug]… [--script FILE]
                                              binaries that are there already, on emulated machines; --script runs a
                                              shell script on a booted one
  openapi [--examples N] [--seed N]           a long campaign of schemathesis against the server (needs python3 and PyPI)
  fuzz [TARGET [SECONDS]]                     cargo-fuzz on fuzz/fuzz_targets (needs nightly and cargo-fuzz)
";

/// Exit codes: 0 all passed, 1 something failed, 2 the command line is wrong.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(command) = find(name) else {
        eprint!("error: unknown command {name:?}\n\n{USAGE}");
        return ExitCode::from(2);
    };
    match repo::Repo::find().and_then(|repo| command(&repo, rest)) {
        Ok(Tally { failed: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(Failure::Usage(text)) => {
            eprint!("error: {text}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(text)) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Option<Command> {
    Some(match name {
        "check" => check::run,
        "tidy" => tidy::run,
        "sign" => release::run,
        "size" => size::run,
        "golden" => golden::run,
        "fuzz" => fuzz::run,
        "crash" => crash::run,
        "bench" => bench::run,
        "openapi" => openapi::run,
        "deb" => cross::deb::run,
        "cross" => cross::run,
        "portable" => portable::run,
        "board" => board::run,
        "soak" => soak::run,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_command_of_the_usage_text_is_found_and_nothing_else() {
        let names = super::USAGE.lines().filter_map(|l| l.strip_prefix("  ")).filter(|l| !l.starts_with(' '));
        let names: Vec<_> = names.filter_map(|l| l.split_whitespace().next()).collect();
        assert!(names.len() >= 5, "{names:?}");
        for name in names {
            assert!(super::find(name).is_some(), "{name}");
        }
        assert!(super::find("chek").is_none());
    }
}
