//! `cargo xtask cross --twice`: the same commit makes the same bytes, wherever it is checked out and built.
//!
//! What is committed is built where it is, as always, and once more in a folder with another name, in a target folder of its
//! own. A tree with changes is not built at all: what is committed is checked out twice. With `--control` the same once more,
//! with the names of paths left as they are: if those differ, the comparison sees what it is there to see.
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

/// Builds twice and compares, and returns what to tell.
///
/// # Errors
/// If the bytes differ, or it does not build.
pub fn compare(repo: &Repo, target: &Target, no_tls: bool, control: bool) -> Result<String> {
    let folder = apt::folder(repo)?.join("twice");
    let same = is_same(repo, target, no_tls, false, &folder)?;
    if !same {
        return Err(Failure::new(format!("expected the same bytes from two folders, see {}", folder.display())));
    }
    let mut told = String::from("the same bytes from two folders");
    if control {
        let same = is_same(repo, target, no_tls, true, &folder)?;
        told.push_str("; with the names of paths left as they are, they ");
        told.push_str(if same { "are the same as well" } else { "differ" });
    }
    std::fs::remove_dir_all(&folder).map_err(|e| at(&folder, &e))?;
    Ok(told)
}

fn is_same(repo: &Repo, target: &Target, no_tls: bool, keep_paths: bool, folder: &Path) -> Result<bool> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        repo::capture(git.args(args).current_dir(&repo.root).stdin(Stdio::null()))
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_clean = git(&["status", "--porcelain"])?.is_empty();
    let other = |place: &str| {
        let target_dir = folder.join(place).join("target");
        let order = Order { no_tls, target_dir, keep_paths, strip: true };
        built(repo, target, &order, commit.trim_end(), &folder.join(place).join("source"))
    };
    let first = if is_clean && !keep_paths {
        let binary = build::build(repo, target, &Order { no_tls, ..Order::usual(repo)? })?;
        std::fs::read(&binary).map_err(|e| at(&binary, &e))?
    } else {
        other(PLACES[0])?
    };
    Ok(first == other(PLACES[1])?)
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
