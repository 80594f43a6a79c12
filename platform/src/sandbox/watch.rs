//! Protected names that nothing could be mounted on: what is at them when a tool has ended is moved aside.
//!
//! Runs in the guard, outside, after the last process of the tool: nothing that a tool made of the paths may lead it astray.

use super::files::{self, at};
use super::policy::WORKSPACE_NAME;
use crate::process::uid;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A protected name that nothing could be mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    /// The name.
    pub(super) path: PathBuf,
    /// Where it led to as a symbolic link; `None`: it was not there.
    pub(super) link: Option<PathBuf>,
}

/// Moves aside what is at a protected name and was not. Returns the names. To be called when no process of the tool is left.
///
/// Goes by directories that are opened without following a link: what a tool made of the path is not to lead this astray.
pub(super) fn put_aside(watch: &[Watch]) -> Vec<&Path> {
    watch.iter().filter(|watch| watch.settle().unwrap_or(false)).map(|watch| watch.path.as_path()).collect()
}

impl Watch {
    /// True if there was something to be moved.
    ///
    /// The tool was of the same user: what it took from itself, looking or renaming, it took from us, and we take it back. And
    /// if it made a link of a directory above the name, that link is what is moved; nothing that it leads to is touched.
    fn settle(&self) -> io::Result<bool> {
        let mut settled = self.settle_plainly();
        if settled.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            open_up(&self.path)?;
            settled = self.settle_plainly();
        }
        match settled {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) && self.path.symlink_metadata().is_ok() => {
                let link = first_link(self.path.parent().unwrap_or(&self.path)).ok_or(error)?;
                let (directory, name) = files::holder(link)?;
                at::rename(&directory, name, &aside(name)).map(|()| true)
            }
            settled => settled,
        }
    }

    /// An error if the way there leads through a link.
    fn settle_plainly(&self) -> io::Result<bool> {
        let (directory, name) = files::holder(&self.path)?;
        let there = match at::stat(&directory, name) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let unchanged = match &self.link {
            None => !there,
            Some(link) => at::read_link(&directory, name).is_ok_and(|now| now == *link),
        };
        if unchanged {
            return Ok(false);
        }
        if there {
            at::rename(&directory, name, &aside(name))?;
        }
        if let Some(link) = &self.link {
            at::symlink(link, &directory, name)?;
        }
        Ok(true)
    }
}

/// The first symbolic link on the way to `path`, that included.
pub(super) fn first_link(path: &Path) -> Option<&Path> {
    let mut parts: Vec<_> = path.ancestors().collect();
    parts.reverse();
    parts.into_iter().find(|part| part.is_symlink())
}

/// Gives the owner of the directories above `path`, if that is us, the right to pass, and to change the last one.
fn open_up(path: &Path) -> io::Result<()> {
    let mut above: Vec<_> = path.ancestors().skip(1).collect();
    above.reverse();
    for (number, directory) in above.iter().enumerate() {
        let needed = if number + 1 == above.len() { 0o700 } else { 0o100 };
        let file = files::name(directory)?;
        let found = file.metadata()?;
        if found.is_dir() && found.uid() == uid() && found.mode() & needed != needed {
            // A descriptor that only names cannot be changed itself, but by its name.
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::set_permissions(name, fs::Permissions::from_mode(found.mode() & 0o7777 | needed))?;
        }
    }
    Ok(())
}

/// A name that nothing runs, beside: so that the move is one rename.
fn aside(name: &OsStr) -> OsString {
    let now = crate::clock::wall();
    let mut aside = name.to_owned();
    // A workspace that was moved aside must not be taken for one.
    aside.push(format!(".refused-by-duragent-{}", now.as_millis()));
    aside
}

/// What a person is told about a name that was moved.
pub(super) fn refused_hint(path: &Path) -> String {
    let what = if path.ends_with(WORKSPACE_NAME) { "a workspace of Duragent" } else { "run or read by other programs" };
    format!(
        "this name is {what} and cannot be made from inside; what was there was moved to {}.refused-by-duragent-*",
        path.display()
    )
}
