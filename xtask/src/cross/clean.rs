//! Packages in a clean Debian: installed, upgraded, removed and purged, with systemd as process 1 and without.
//!
//! What is tried, and what has to come of it, stands in tests/service/debian.sh. Packages of other architectures are looked
//! into only: whether they have what the one of this machine has.

use super::apt;
use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release that packages are tried on, and what it has besides the smallest system.
const RELEASE: &str = "bookworm";
const INCLUDED: &str = "--include=systemd,systemd-sysv,adduser";

/// What every package has to have, with its mode and owner.
const CONTENTS: [&str; 5] = [
    "-rwxr-xr-x 0/0 ./usr/bin/duragent",
    "-rw-r--r-- 0/0 ./usr/lib/systemd/system/duragent.service",
    "-rwxr-xr-x 0/0 ./etc/init.d/duragent",
    "-rw-r----- 0/0 ./etc/default/duragent",
    "-rw-r--r-- 0/0 ./usr/share/doc/duragent/copyright",
];

/// Tries the package of `architecture`.
///
/// # Errors
/// What is wrong with it; or without root, debootstrap and its network on the first time.
pub fn check(repo: &Repo, architecture: &str, package: &Path) -> Result<()> {
    let listed = repo::capture(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    // Mode, owner, size, date, time, path.
    let lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found: Vec<String> = lines
        .filter_map(|words| Some([words.first()?, words.get(1)?, words.get(5)?].map(|word| *word).join(" ")))
        .collect();
    if let Some(missing) = CONTENTS.iter().find(|wanted| !found.iter().any(|line| line == *wanted)) {
        return Err(Failure::new(format!("{}: expected {missing}, found\n{listed}", package.display())));
    }
    let says = repo::capture(Command::new("dpkg-deb").arg("--field").arg(package).arg("Architecture"))?;
    if says.trim_end() != architecture {
        return Err(Failure::new(format!("{}: expected {architecture}, found {says}", package.display())));
    }
    let own = repo::capture(Command::new("dpkg").arg("--print-architecture"))?;
    if own.trim_end() != architecture {
        return Ok(());
    }
    let script = repo.root.join("tests/service/debian.sh");
    repo::run(Command::new("sh").arg(script).arg(clean(repo)?).arg(package).stdin(Stdio::null()))
}

/// A clean system, made if it is not there yet.
fn clean(repo: &Repo) -> Result<PathBuf> {
    let root = apt::folder(repo)?.join("clean").join(RELEASE);
    let made = root.with_extension("made");
    if !made.exists() {
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).map_err(|e| at(&root, &e))?;
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", INCLUDED, RELEASE]).arg(&root).stdin(Stdio::null());
        repo::capture(&mut command)?;
        fs::write(&made, "").map_err(|e| at(&made, &e))?;
    }
    Ok(root)
}
