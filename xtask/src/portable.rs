//! `cargo xtask portable`: the crates that every system shares compile for systems that this machine is not.
//!
//! Types and lints only: nothing is linked or run. The standard library of the target is the toolchain's own if it is
//! installed, else it is compiled from the toolchain's source, else from the source of a Debian toolchain. A target for
//! which there is none of them fails by name. `rustup target add` is not tried: without Rust's servers it hangs.

use crate::repo::{self, Repo};
use crate::{Failure, Result, Tally};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is promised: other systems, where only trust mode is, and the small machines this is made for.
const TARGETS: [&str; 4] =
    ["x86_64-apple-darwin", "x86_64-unknown-freebsd", "armv7-unknown-linux-gnueabihf", "aarch64-unknown-linux-gnu"];

const CRATES: [&str; 2] = ["duragent-core", "duragent-platform"];

/// A toolchain with the source of its library, in versions that are recent enough also in a Debian that is not.
pub const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src";

/// Where these packages put it.
const DEBIAN_BIN: &str = "/usr/bin";

/// Below a toolchain's root.
const SOURCE: &str = "lib/rustlib/src/rust/library";

/// Where the standard library of a target comes from, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Compiled by whoever made the toolchain.
    Installed,
    /// Compiled from the source that belongs to the toolchain in use.
    Source,
    /// Compiled from the source of [`DEBIAN_PACKAGES`], and by their compiler.
    Debian,
}

impl Library {
    const ALL: [Self; 3] = [Self::Installed, Self::Source, Self::Debian];

    /// What `--by` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Source => "source",
            Self::Debian => "debian",
        }
    }

    /// True if it can be used for this target.
    ///
    /// # Errors
    /// If rustc cannot say.
    pub fn is_there(self, repo: &Repo, target: &str) -> Result<bool> {
        Ok(match self {
            Self::Installed => {
                let found = rustc(repo, &["--print", "target-libdir", "--target", target])?;
                let names = std::fs::read_dir(found).into_iter().flatten().flatten().map(|entry| entry.file_name());
                names.into_iter().any(|name| name.to_string_lossy().starts_with("libstd-"))
            }
            Self::Source => rustc(repo, &["--print", "sysroot"])?.join(SOURCE).is_dir(),
            Self::Debian => {
                ["cargo", "rustc"].iter().all(|name| Path::new(DEBIAN_BIN).join(name).is_file())
                    && Path::new("/usr").join(SOURCE).is_dir()
            }
        })
    }

    /// `cargo` of the toolchain that this library belongs to, with these arguments.
    ///
    /// # Errors
    /// If cargo cannot say where it builds.
    pub fn cargo(self, repo: &Repo, args: &[&str]) -> Result<Command> {
        let mut command = match self {
            Self::Installed | Self::Source => repo.cargo(args),
            Self::Debian => {
                let bin = Path::new(DEBIAN_BIN);
                let mut command = Command::new(bin.join("cargo"));
                command.args(args).current_dir(&repo.root).stdin(Stdio::null()).env("RUSTC", bin.join("rustc"));
                command.env_remove("LD_LIBRARY_PATH").env("CARGO_TARGET_DIR", repo.target_dir()?.join("debian"));
                command
            }
        };
        if self != Self::Installed {
            // Flags of one's own would hit the library.
            command.env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        }
        Ok(command)
    }

    /// Its compiler, with these arguments.
    #[must_use]
    pub fn rustc(self, args: &[&str]) -> Command {
        let mut command = match self {
            Self::Debian => Command::new(Path::new(DEBIAN_BIN).join("rustc")),
            _ => Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())),
        };
        command.args(args).stdin(Stdio::null());
        command
    }

    fn command(self, repo: &Repo, target: &str) -> Result<Command> {
        let mut command = self.cargo(repo, &["check"])?;
        // Its words are read by [`is_warned`].
        command.args(["--locked", "--color", "never", "--target", target]).env_remove("CARGO_TERM_QUIET");
        if self != Self::Installed {
            // Without debug information and backtraces it takes half the time.
            command.args(["-Z", "build-std=std,panic_abort", "-Z", "build-std-features="]);
            command.env("CARGO_PROFILE_DEV_DEBUG", "false");
        }
        command.args(CRATES.iter().flat_map(|name| ["--package", name]));
        Ok(command)
    }
}

/// What the toolchain in use answers, a path.
///
/// # Errors
/// If it answers with an error.
pub fn rustc(repo: &Repo, args: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let text = repo::capture(command.args(args).current_dir(&repo.root).stdin(Stdio::null()))?;
    Ok(text.trim_end().into())
}

/// Checks the targets that are named, or all that are promised.
///
/// # Errors
/// On a wrong command line. A target that does not compile, or has no library, counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut by, mut targets) = (None, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--by" => {
                let name = args.next().map_or("", String::as_str);
                by = Library::ALL.into_iter().find(|library| library.name() == name);
                if by.is_none() {
                    let expected = Library::ALL.map(Library::name).join(", ");
                    return Err(Failure::Usage(format!("portable: --by expects one of {expected}, found {name:?}")));
                }
            }
            flag if flag.starts_with('-') => return Err(Failure::unknown_argument("portable", flag)),
            target => targets.push(target),
        }
    }
    Ok(check(repo, by, if targets.is_empty() { &TARGETS } else { &targets }, repo::is_ci()))
}

/// Checks all that are promised, and with `install` gets a library for those that have none, if it can be done.
#[must_use]
pub fn promised(repo: &Repo, install: bool) -> Tally {
    check(repo, None, &TARGETS, install)
}

/// The cheapest way for this target, or the one that was asked for.
fn library(repo: &Repo, by: Option<Library>, target: &str) -> Result<Option<Library>> {
    for library in Library::ALL {
        if by.is_none_or(|by| by == library) && library.is_there(repo, target)? {
            return Ok(Some(library));
        }
    }
    Ok(None)
}

fn check(repo: &Repo, by: Option<Library>, targets: &[&str], install: bool) -> Tally {
    let has_none = |target: &&str| matches!(library(repo, by, target), Ok(None));
    if by.is_none_or(|by| by == Library::Debian)
        && targets.iter().any(has_none)
        && let Err(failure) = repo::install_packages(DEBIAN_PACKAGES, install)
    {
        println!("error: {failure}");
    }
    let mut tally = Tally::default();
    for target in targets {
        let start = Instant::now();
        match check_target(repo, by, target) {
            Ok(library) => {
                tally.passed += 1;
                let (name, seconds) = (library.name(), start.elapsed().as_secs_f64());
                println!("{target}: ok, library: {name}, {seconds:.1} s");
            }
            Err(failure) => {
                tally.failed += 1;
                println!("{target}: FAILED: {failure}");
            }
        }
    }
    tally
}

fn check_target(repo: &Repo, by: Option<Library>, target: &str) -> Result<Library> {
    let Some(library) = library(repo, by, target)? else {
        return Err(Failure::new(format!(
            "expected a standard library, found none{}: rustup target add {target}, or rustup component add rust-src, or \
             on Debian the packages {DEBIAN_PACKAGES}",
            by.map_or_else(String::new, |by| format!(" that is {}", by.name())),
        )));
    };
    let said = repo::capture_errors(&mut library.command(repo, target)?)?;
    if said.lines().any(is_warned) { Err(Failure::new(format!("expected no warnings\n{said}"))) } else { Ok(library) }
}

/// True of the line that sums up what was wrong with a crate of ours. Warnings of others are theirs, and with a library
/// that is compiled as well, denying them all would deny those too.
fn is_warned(line: &str) -> bool {
    CRATES.iter().any(|name| line.strip_prefix("warning: `").is_some_and(|rest| rest.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_warnings_count() {
        for (line, expected) in [
            ("warning: `duragent-platform` (lib) generated 1 warning", true),
            ("warning: `duragent-core` (lib) generated 2 warnings (run `cargo fix` …)", true),
            ("warning: `std` (lib) generated 1 warning", false),
            ("warning: unused variable: `duragent-core`", false),
            ("    Checking duragent-platform v0.1.0", false),
        ] {
            assert_eq!(is_warned(line), expected, "{line}");
        }
    }

    #[test]
    fn a_library_is_found_where_there_is_one() {
        let repo = Repo::find().expect("this is the repository");
        let host = repo::capture(Command::new("rustc").args(["--print", "host-tuple"])).expect("rustc says");
        assert_eq!(library(&repo, None, host.trim_end()), Ok(Some(Library::Installed)));
        // Known to rustc, and nobody has a library for it.
        assert_eq!(Library::Installed.is_there(&repo, "avr-none"), Ok(false));
        assert!(Library::Installed.is_there(&repo, "no-such-target").is_err());
    }

    #[test]
    fn arguments_are_read_and_others_refused() {
        let repo = Repo::find().expect("this is the repository");
        for args in ["--by", "--by magic", "--fast"] {
            let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
            assert!(matches!(run(&repo, &args), Err(Failure::Usage(_))), "{args:?}");
        }
    }
}
