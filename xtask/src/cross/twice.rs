//! `cargo xtask cross --twice`: the same commit makes the same bytes, wherever it is checked out and built.
//!
//! What is committed is checked out into two folders with names of different lengths, and each is built in a folder of its
//! own. Two more builds of the binary alone, without other names for the paths, are the control: where they differ, the
//! comparison can see what it is there to see.
//!
//! Absent: another day or another machine. A build reads neither a clock nor the name of the machine; it does depend on the
//! versions of the compilers, which the list of parts names in part.

use super::apt;
use super::build::{self, Order};
use super::targets::Target;
use crate::repo::{self, Repo, at};
use crate::{Failure, Result};
use std::path::Path;
use std::process::{Command, Stdio};

/// Two places that have nothing in common but their beginning.
const PLACES: [&str; 2] = ["a", "another/place/with-a-longer-name"];

/// Builds twice and compares; then twice without other names for paths, for comparison. Returns what to tell.
///
/// # Errors
/// If the bytes differ, or it does not build.
pub fn compare(repo: &Repo, target: &Target, no_tls: bool) -> Result<String> {
    let folder = apt::folder(repo)?.join("twice");
    let mut git = Command::new("git");
    let commit = repo::capture(git.args(["rev-parse", "HEAD"]).current_dir(&repo.root).stdin(Stdio::null()))?;
    let compared = [false, true].map(|keep_paths| -> Result<bool> {
        let [first, second] = PLACES.map(|place| {
            let order = Order { no_tls, target_dir: folder.join(place).join("target"), keep_paths, strip: true };
            built(repo, target, &order, commit.trim_end(), &folder.join(place).join("source"))
        });
        Ok(first? == second?)
    });
    let removed = std::fs::remove_dir_all(&folder).map_err(|e| at(&folder, &e));
    let [same, control] = compared;
    if !same? {
        return Err(Failure::new("expected the same bytes from two folders, found different ones"));
    }
    removed?;
    let control = if control? { "are the same as well" } else { "differ" };
    Ok(format!("the same bytes from two folders; with the paths of this machine in them, they {control}"))
}

/// Builds what is committed, checked out at `place`.
fn built(repo: &Repo, target: &Target, order: &Order, commit: &str, place: &Path) -> Result<Vec<u8>> {
    if !place.is_dir() {
        std::fs::create_dir_all(place).map_err(|e| at(place, &e))?;
        let archive = place.with_extension("tar");
        let mut git = Command::new("git");
        git.args(["archive", "--output"]).arg(&archive).arg(commit).current_dir(&repo.root).stdin(Stdio::null());
        repo::run(&mut git)?;
        let mut tar = Command::new("tar");
        repo::run(tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(place))?;
    }
    let binary = build::build_in(repo, &Repo { root: place.to_owned() }, target, order)?;
    std::fs::read(&binary).map_err(|e| at(&binary, &e))
}
