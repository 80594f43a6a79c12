//! Debian packages of other architectures, unpacked below the target directory.
//!
//! apt gets state, cache and lists of its own, so that the system does not change: after `dpkg --add-architecture` it
//! would have to stay in step with a second architecture for good. No right of root is needed.
//!
//! Absent: running what packages run when they are installed.

use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder that all this is in.
///
/// # Errors
/// If cargo cannot say where it builds.
pub fn folder(repo: &Repo) -> Result<PathBuf> {
    Ok(repo.target_dir()?.join("cross"))
}

/// A root with these packages of this architecture (as Debian calls it), and all that they depend on. They are fetched
/// where they are not there yet.
///
/// # Errors
/// If apt cannot get one, with what it said.
pub fn root(repo: &Repo, architecture: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = folder(repo)?;
    let (apt, root) = (folder.join("apt").join(architecture), folder.join("root").join(architecture));
    let unpacked = root.join(".unpacked");
    let has = |name: &str| unpacked.join(name).is_file();
    if packages.iter().all(|name| has(name)) {
        return Ok(root);
    }
    for dir in [&apt.join("lists/partial"), &apt.join("cache/archives/partial"), &unpacked] {
        std::fs::create_dir_all(dir).map_err(|e| at(dir, &e))?;
    }
    let status = apt.join("status");
    std::fs::write(&status, "").map_err(|e| at(&status, &e))?;
    println!("fetching {} for {architecture}", packages.join(", "));
    // What is there already need not be new; a source that has nothing for this architecture is no reason to give up.
    let updated = repo::capture_errors(command("apt-get", &apt, architecture).arg("update"));
    let install = ["install", "--yes", "--download-only", "--no-install-recommends"];
    let fetched = repo::capture_errors(command("apt-get", &apt, architecture).args(install).args(packages));
    if let Err(failure) = fetched {
        let before = updated.err().map_or_else(String::new, |failure| format!("\nbefore: {failure}"));
        return Err(Failure::new(format!("{failure}{before}")));
    }
    for archive in archives(&apt.join("cache/archives"))? {
        repo::run(Command::new("dpkg").arg("--extract").args([&archive, &root]).stdin(Stdio::null()))?;
        // What dpkg calls it: name_version_architecture.deb, with an escaped colon.
        let name = archive.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":");
        if let Some((name, rest)) = name.split_once('_') {
            let mark = unpacked.join(name);
            let version = rest.split('_').next().unwrap_or_default();
            std::fs::write(&mark, version).map_err(|e| at(&mark, &e))?;
        }
        // The cache is emptied, or a second call would unpack all of it again.
        std::fs::remove_file(&archive).map_err(|e| at(&archive, &e))?;
    }
    Ok(root)
}

/// The version of a package in the root of its architecture.
///
/// # Errors
/// If it is not there.
pub fn version(repo: &Repo, architecture: &str, package: &str) -> Result<String> {
    let mark = folder(repo)?.join("root").join(architecture).join(".unpacked").join(package);
    std::fs::read_to_string(&mark).map_err(|e| at(&mark, &e))
}

fn command(program: &str, apt: &Path, architecture: &str) -> Command {
    let mut command = Command::new(program);
    let mut set = |key: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut option = std::ffi::OsString::from(key);
        option.push("=");
        option.push(value.as_ref());
        command.arg("-o").arg(option);
    };
    for (key, name) in [
        ("Dir::State", ""),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::State::extended_states", "extended"),
        ("Dir::Cache", "cache"),
    ] {
        set(key, &apt.join(name));
    }
    for key in ["APT::Architecture", "APT::Architectures"] {
        set(key, &architecture);
    }
    set("Acquire::Languages", &"none");
    // Images of containers empty the cache.
    set("APT::Keep-Downloaded-Packages", &"true");
    // Where root runs this, the folder need not be open to the user who downloads otherwise.
    set("APT::Sandbox::User", &"root");
    command.arg("--quiet").stdin(Stdio::null()).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

fn archives(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| at(dir, &e))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    found.sort();
    Ok(found)
}
