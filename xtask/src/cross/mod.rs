//! `cargo xtask cross`: binaries for other machines, from plain Debian and without a container.
//!
//! One command for a target and for all of them. Each binary is looked at ([`elf`]) before it is kept: that it is static,
//! and that a machine of the oldest kind can run it. Beside it are the list of its parts ([`sbom`]) and the sums of all
//! files ([`sums`]). Flags are in `cross/config.toml`, where the other way of building (`cross/README.md`) reads them too.

pub mod apt;
pub mod build;
mod clean;
pub mod deb;
mod elf;
mod sbom;
mod sums;
pub mod targets;
mod twice;

use crate::board;
use crate::budget::grouped;
use crate::repo::{Repo, at};
use crate::{Failure, Result, Tally};
use build::Order;
use std::path::{Path, PathBuf};
use targets::{TARGETS, Target};

#[derive(Default)]
struct Options {
    targets: Vec<&'static Target>,
    no_tls: bool,
    twice: bool,
    control: bool,
    test: bool,
    slice: bool,
    seed: u64,
    out: Option<PathBuf>,
}

/// Builds the targets that are named.
///
/// # Errors
/// On a wrong command line. A target that does not build counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let options = read(args)?;
    let order = Order { no_tls: options.no_tls, ..Order::usual(repo)? };
    let out = match options.out {
        Some(dir) => std::path::absolute(&dir).map_err(|e| at(&dir, &e))?,
        None => apt::folder(repo)?.join("out"),
    };
    let (mut tally, mut binaries) = (Tally::default(), Vec::new());
    for target in options.targets {
        let done = if options.twice {
            twice::compare(repo, target, options.no_tls, options.control)
        } else {
            kept(repo, target, &order, &out).map(|(told, kept)| {
                binaries.push((target.name.to_owned(), kept));
                told
            })
        };
        match done {
            Ok(told) => {
                tally.passed += 1;
                println!("{}: {told}", target.name);
            }
            Err(failure) => {
                tally.failed += 1;
                println!("{}: FAILED: {failure}", target.name);
            }
        }
    }
    if !options.twice {
        sums::write(&out)?;
    }
    if options.test && tally.failed == 0 {
        let tried = board::test(repo, &binaries, options.slice, options.seed)?;
        tally = Tally { passed: tally.passed + tried.passed, failed: tried.failed };
    }
    Ok(tally)
}

fn kept(repo: &Repo, target: &Target, order: &Order, out: &Path) -> Result<(String, PathBuf)> {
    let kept = made(repo, target, order, out)?;
    let bytes = std::fs::metadata(&kept).map_err(|e| at(&kept, &e))?.len();
    Ok((format!("{} bytes, {}", grouped(bytes), kept.display()), kept))
}

/// Builds a target into the folder `out`, with the list of its parts, and returns where the binary is.
///
/// # Errors
/// As [`build::build`].
pub fn made(repo: &Repo, target: &Target, order: &Order, out: &Path) -> Result<PathBuf> {
    let binary = build::build(repo, target, order)?;
    let kept = build::keep(&binary, target, order, out)?;
    sbom::write(repo, build::library(repo)?, target, order.no_tls, &kept)?;
    Ok(kept)
}

fn read(args: &[String]) -> Result<Options> {
    let mut options = Options { seed: 1, ..Options::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--all" => options.targets = TARGETS.iter().collect(),
            "--no-tls" => options.no_tls = true,
            "--twice" => options.twice = true,
            "--control" => options.control = true,
            "--test" => options.test = true,
            "--slice" => options.slice = true,
            "--seed" => {
                let number = args.next().and_then(|text| text.parse().ok());
                options.seed = number.ok_or_else(|| Failure::Usage("cross: --seed expects a number".into()))?;
            }
            "--out" => {
                let dir = args.next().ok_or_else(|| Failure::Usage("cross: --out expects a folder".into()))?;
                options.out = Some(dir.into());
            }
            flag if flag.starts_with('-') => return Err(Failure::unknown_argument("cross", flag)),
            name => options.targets.push(Target::find(name).ok_or_else(|| unknown(name))?),
        }
    }
    if options.targets.is_empty() {
        return Err(Failure::Usage(format!("cross: expected --all or one of {}", names())));
    }
    if options.test && options.twice {
        return Err(Failure::Usage("cross: --test and --twice exclude each other".into()));
    }
    Ok(options)
}

fn unknown(name: &str) -> Failure {
    Failure::Usage(format!("cross: expected one of {}, found {name:?}", names()))
}

fn names() -> String {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
