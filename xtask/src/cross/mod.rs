//! `cargo xtask cross`: binaries for other machines, from plain Debian and without a container.
//!
//! One command for a target and for all of them. Each binary is looked at ([`elf`]) before it is kept: that it is static,
//! and that a machine of the oldest kind can run it. Flags are in `cross/config.toml`, where the other way of building
//! (`cross/README.md`) reads them too.

pub mod apt;
pub mod build;
mod clean;
pub mod deb;
mod elf;
mod sums;
pub mod targets;

use crate::budget::grouped;
use crate::repo::{Repo, at};
use crate::{Failure, Result, Tally};
use build::Order;
use std::path::PathBuf;
use targets::{TARGETS, Target};

#[derive(Default)]
struct Options {
    targets: Vec<&'static Target>,
    no_tls: bool,
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
        Some(dir) => dir,
        None => apt::folder(repo)?.join("out"),
    };
    let mut tally = Tally::default();
    for target in options.targets {
        let built = build::build(repo, target, &order).and_then(|binary| build::keep(&binary, target, &order, &out));
        match built.and_then(|kept| Ok((std::fs::metadata(&kept).map_err(|e| at(&kept, &e))?.len(), kept))) {
            Ok((bytes, kept)) => {
                tally.passed += 1;
                println!("{}: {} bytes, {}", target.name, grouped(bytes), kept.display());
            }
            Err(failure) => {
                tally.failed += 1;
                println!("{}: FAILED: {failure}", target.name);
            }
        }
    }
    sums::write(&out)?;
    Ok(tally)
}

fn read(args: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--all" => options.targets = TARGETS.iter().collect(),
            "--no-tls" => options.no_tls = true,
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
    Ok(options)
}

fn unknown(name: &str) -> Failure {
    Failure::Usage(format!("cross: expected one of {}, found {name:?}", names()))
}

fn names() -> String {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ")
}
