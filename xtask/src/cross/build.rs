//! Builds one binary on plain Debian, without a container.
//!
//! Invariant: what only this machine knows (paths, the day) does not get into the binary, so that two people who build the
//! same commit with the same packages have the same bytes. `cargo xtask cross --twice` holds it to that.

use super::targets::{Libc, Target};
use super::{apt, elf};
use crate::portable::{self, Library};
use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Flags of all targets, for both ways of building.
pub const FLAGS: &str = "cross/config.toml";

/// What is built, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// Without HTTPS.
    pub no_tls: bool,
    /// Where cargo builds; two folders do not share anything.
    pub target_dir: PathBuf,
    /// Paths of this machine are left in: the control of `--twice`.
    pub keep_paths: bool,
    /// Without names of functions, as it is delivered.
    pub strip: bool,
}

impl Order {
    /// The usual: everything the core has, in the usual folder.
    ///
    /// # Errors
    /// If cargo cannot say where it builds.
    pub fn usual(repo: &Repo) -> Result<Self> {
        Ok(Self { no_tls: false, target_dir: apt::folder(repo)?.join("build"), keep_paths: false, strip: true })
    }
}

/// Builds `target`, and returns where the binary is, after a look at what it demands of a machine.
///
/// # Errors
/// If something is missing that cannot be installed, it does not build, or it demands too much.
pub fn build(repo: &Repo, target: &Target, order: &Order) -> Result<PathBuf> {
    build_in(repo, repo, target, order)
}

/// Builds the source of another checkout with the sysroots of this one.
///
/// # Errors
/// As [`build`].
pub fn build_in(repo: &Repo, checkout: &Repo, target: &Target, order: &Order) -> Result<PathBuf> {
    let library = library(repo)?;
    tools(target)?;
    let compiler = compiler(repo, target)?;
    let mut command = library.cargo(checkout, &["build", "--release", "--locked", "--package", "duragent"])?;
    command.args(["--config", FLAGS, "--bin", "duragent", "--target", target.name]);
    command.arg("--target-dir").arg(&order.target_dir);
    if order.no_tls {
        command.args(["--no-default-features", "--features", "signatures"]);
    }
    if !order.strip {
        command.env("CARGO_PROFILE_RELEASE_STRIP", "false");
    }
    if !order.keep_paths {
        command.arg("--config").arg(remapped(checkout, library, target)?);
    }
    surroundings(&mut command, checkout, library, target, &compiler, order)?;
    repo::run(&mut command)?;
    let binary = order.target_dir.join(target.name).join("release/duragent");
    elf::check(target, &binary)?;
    Ok(binary)
}

/// A standard library that can be compiled for any target; in CI it is fetched.
///
/// # Errors
/// If there is none, with where to get one.
pub fn library(repo: &Repo) -> Result<Library> {
    let usable = |library: &Library| matches!(library.is_there(repo, ""), Ok(true));
    let found = || [Library::Source, Library::Debian].into_iter().find(usable);
    if let Some(library) = found() {
        return Ok(library);
    }
    repo::install_packages(portable::DEBIAN_PACKAGES, repo::is_ci()).map_err(|failure| {
        let source = "the source of the standard library: rustup component add rust-src, or Debian's toolchain";
        Failure::new(format!("expected {source}; {failure}"))
    })?;
    found().ok_or_else(|| Failure::new("expected the source of the standard library, found none"))
}

fn tools(target: &Target) -> Result<()> {
    let programs = ["gcc", "ar", "readelf"].map(|name| target.tool(name));
    if programs.iter().all(|name| repo::in_path(name)) {
        return Ok(());
    }
    repo::install_packages(&target.packages(), repo::is_ci())
}

/// The C compiler of the target, which links as well.
fn compiler(repo: &Repo, target: &Target) -> Result<PathBuf> {
    let Libc::Musl(triplet) = target.libc else { return Ok(target.tool("gcc").into()) };
    let root = apt::root(repo, target.debian, &["musl-dev"])?;
    let made = apt::folder(repo)?.join("sysroot").join(target.name);
    let mut command = Command::new("sh");
    command.arg(repo.root.join("cross/sysroot.sh")).args([target.tools, triplet]).args([&root, &made]);
    repo::run(&mut command)?;
    Ok(made.join("gcc"))
}

/// Paths of this machine by other names, as an argument for `--config`.
fn remapped(repo: &Repo, library: Library, target: &Target) -> Result<String> {
    let flags: Vec<String> = paths(repo, library)?
        .iter()
        .map(|(from, to)| format!("\"--remap-path-prefix={}={to}\"", from.display()))
        .collect();
    Ok(format!("target.{}.rustflags=[{}]", target.name, flags.join(",")))
}

/// Folders whose names could get into the binary, and what they are called there.
fn paths(repo: &Repo, library: Library) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let sysroot = match library {
        Library::Debian => PathBuf::from("/usr"),
        _ => portable::rustc(repo, &["--print", "sysroot"])?,
    };
    Ok(vec![(repo.root.clone(), "/duragent"), (cargo_home, "/cargo"), (sysroot.join("lib/rustlib/src/rust"), "/rust")])
}

/// What cargo and the build scripts of C code read from their environment.
fn surroundings(
    command: &mut Command,
    repo: &Repo,
    library: Library,
    target: &Target,
    compiler: &Path,
    order: &Order,
) -> Result<()> {
    let lower = target.name.replace('-', "_");
    let mut flags = String::from("-Os");
    if !order.keep_paths {
        for (from, to) in paths(repo, library)?.into_iter().chain([(order.target_dir.clone(), "/target")]) {
            flags.push_str(&format!(" -ffile-prefix-map={}={to}", from.display()));
        }
    }
    command.env(format!("CARGO_TARGET_{}_LINKER", target.upper()), compiler);
    command.env(format!("CC_{lower}"), compiler).env(format!("AR_{lower}"), target.tool("ar"));
    command.env(format!("CFLAGS_{lower}"), flags);
    // Whatever else is set for builds on this machine.
    for name in ["CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_DIR", "CFLAGS", "TARGET_CFLAGS"] {
        command.env_remove(name);
    }
    command.env_remove(format!("CARGO_TARGET_{}_RUSTFLAGS", target.upper()));
    Ok(())
}

/// Copies a binary to `dir` under the name of its target, and returns where it is.
///
/// # Errors
/// If it cannot be copied.
pub fn keep(binary: &Path, target: &Target, order: &Order, dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).map_err(|e| at(dir, &e))?;
    let kept = dir.join(name(target, order.no_tls));
    std::fs::copy(binary, &kept).map_err(|e| at(&kept, &e))?;
    Ok(kept)
}

/// What the binary of a target is called.
#[must_use]
pub fn name(target: &Target, no_tls: bool) -> String {
    format!("duragent-{}{}", target.name, if no_tls { "-no-tls" } else { "" })
}
