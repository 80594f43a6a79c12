//! `cargo xtask deb [--arch NAME] [--out FOLDER] [--test]`: Debian packages with the static binaries, by cargo-deb.
//!
//! What goes into a package is said by `[package.metadata.deb]` in Cargo.toml and by `packaging/debian/`; here is only
//! which binary goes with which architecture, and that the same commit makes the same package.

use super::build::{self, Order};
use super::clean;
use super::targets::{Libc, TARGETS, Target};
use super::{apt, sums};
use crate::repo::{self, Repo, at};
use crate::{Failure, Result, Tally};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version that the metadata is written for.
const CARGO_DEB: &str = "3.8.0";

/// What `all` means. The packages of armel, for a Raspberry Pi 1 or Zero, are made when they are asked for.
const ARCHITECTURES: [&str; 3] = ["armhf", "arm64", "amd64"];

/// Makes the packages of the architectures that are named, or of all; with `--test` installs and purges them ([`clean`]).
///
/// # Errors
/// On a wrong command line, or without cargo-deb. A package that cannot be made counts as failed.
pub fn run(repo: &Repo, args: &[String]) -> Result<Tally> {
    let (mut wanted, mut out, mut tried) = (Vec::new(), apt::folder(repo)?.join("deb"), false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--arch" => match args.next().map_or("", String::as_str) {
                "all" => wanted.extend(ARCHITECTURES),
                name => wanted.push(find(name)?.debian),
            },
            "--test" => tried = true,
            "--out" => out = args.next().ok_or_else(|| Failure::Usage("deb: --out expects a folder".into()))?.into(),
            other => return Err(Failure::unknown_argument("deb", other)),
        }
    }
    if wanted.is_empty() {
        wanted.extend(ARCHITECTURES);
    }
    let mut tally = Tally::default();
    for name in wanted {
        let made = package(repo, name, &out).and_then(|made| {
            println!("{name}: {}", made.display());
            if tried { clean::check(repo, name, &made) } else { Ok(()) }
        });
        match made {
            Ok(()) => tally.passed += 1,
            Err(failure) => {
                tally.failed += 1;
                println!("{name}: FAILED: {failure}");
            }
        }
    }
    sums::write(&out)?;
    Ok(tally)
}

/// Builds the package of a Debian architecture in the folder `out`, and returns where it is.
///
/// # Errors
/// If the binary or the package cannot be built.
pub fn package(repo: &Repo, architecture: &str, out: &Path) -> Result<PathBuf> {
    let target = find(architecture)?;
    let cargo_deb = cargo_deb(repo)?;
    let order = Order::usual(repo)?;
    build::build(repo, target, &order)?;
    std::fs::create_dir_all(out).map_err(|e| at(out, &e))?;
    let package = out.join(format!("duragent_{}_{architecture}.deb", version(repo)?));
    let mut command = Command::new(cargo_deb);
    command.args(["deb", "--no-build", "--no-strip", "--locked", "--quiet", "--target", target.name]);
    command.args(["--compress-type", "gz", "--output"]).arg(&package).stdin(Stdio::null()).current_dir(&repo.root);
    command.env("CARGO_TARGET_DIR", &order.target_dir).env("SOURCE_DATE_EPOCH", date(repo));
    repo::run(&mut command)?;
    Ok(package)
}

/// The target whose static binary goes into packages of this architecture.
fn find(architecture: &str) -> Result<&'static Target> {
    let fits = |target: &&Target| target.debian == architecture && target.libc != Libc::Glibc;
    TARGETS.iter().find(fits).ok_or_else(|| {
        Failure::Usage(format!("deb: --arch expects armhf, arm64, amd64, armel or all, found {architecture:?}"))
    })
}

/// The version of the workspace, which packages have as well.
fn version(repo: &Repo) -> Result<String> {
    let text = repo.read_text("Cargo.toml")?;
    let found = text.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    found.map(str::to_owned).ok_or_else(|| Failure::new("Cargo.toml: expected a version of the workspace, found none"))
}

/// When the commit was made, in seconds since 1970, for the times of files in a package; 0 where there is no history.
fn date(repo: &Repo) -> String {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(&repo.root).stdin(Stdio::null());
    repo::capture(&mut git).map_or_else(|_| "0".to_owned(), |text| text.trim_end().to_owned())
}

/// The program, built if it is not there yet. Not for speed: a minute less to build, and nothing to notice later.
fn cargo_deb(repo: &Repo) -> Result<PathBuf> {
    let folder = apt::folder(repo)?.join("cargo-deb").join(CARGO_DEB);
    let program = folder.join("bin/cargo-deb");
    if !program.is_file() {
        let what = ["install", "--quiet", "--locked", "--debug", "--no-default-features", "--features", "gzip"];
        let mut command = repo.cargo(what);
        command.args(["cargo-deb", "--version", CARGO_DEB, "--root"]).arg(&folder);
        repo::run(command.env("CARGO_TARGET_DIR", folder.join("build")))?;
        let _ = std::fs::remove_dir_all(folder.join("build"));
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_gets_its_static_binary() {
        let names = ["armhf", "arm64", "amd64", "armel"].map(|name| find(name).map(|target| target.name));
        let expected = [
            "armv7-unknown-linux-musleabihf",
            "aarch64-unknown-linux-musl",
            "x86_64-unknown-linux-musl",
            "arm-unknown-linux-musleabi",
        ];
        assert_eq!(names, expected.map(Ok));
        assert!(matches!(find("riscv64"), Err(Failure::Usage(_))));
    }

    #[test]
    fn the_version_is_the_one_of_the_workspace() {
        let repo = Repo::find().expect("this is the repository");
        assert_eq!(version(&repo).as_deref(), Ok(env!("CARGO_PKG_VERSION")));
    }
}
