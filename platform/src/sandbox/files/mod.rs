//! File operations for tools, the same for every backend: what the policy grants, and nothing through a link that was
//! swapped in meanwhile.
//!
//! Links are resolved here, into a path that has none; the policy is asked about that path; and then exactly that path is
//! opened, following no link at all. An agent that turns a part of it into a link in between gets an error from the kernel
//! instead of the file, and everything starts over.
//!
//! Invariants: no path is opened that was not judged, and no link is followed by the kernel. Nothing is told about what
//! the policy hides, not even whether it exists; but for symbolic links out there, which are followed and can so be told
//! from other things if they lead back to where tools may be. Trust mode goes the same way, with a policy that grants
//! everything.
//!
//! Absent: hard links. A file is judged by the name it is opened by, and a second name that somebody made outside for a
//! hidden file cannot be told from a first one. Writing is safe even so: it puts a new file in the place of the name, and
//! the other name keeps the old one. The same goes for a directory that is mounted twice, and for file systems that take
//! capital and small letters for the same. The names of what a directory holds are listed even if some of it is hidden.

pub(super) mod at;
mod refused;
mod replace;
mod resolve;

pub use at::Lookup;
pub use refused::Refused;

use super::Access;
use super::policy::{Grant, View};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of an absolute path with the zero that ends it, as in the kernel (`PATH_MAX`, path_resolution(7)).
const PATH_BYTES_MAX: usize = 4096;

/// How often a path is tried that changes while it is opened. Somebody who swaps a link in a tight loop wins such a race
/// about every second time; so many times in a row nobody is unlucky by chance.
const TRIES_MAX: u32 = 32;

/// Entries of a directory that was opened with [`Access::List`], in no order, without `.` and `..`.
///
/// # Errors
/// As readdir(3).
pub fn entries(directory: &File) -> io::Result<fs::ReadDir> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const DESCRIPTORS: &str = "/proc/self/fd";
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const DESCRIPTORS: &str = "/dev/fd";
    fs::read_dir(format!("{DESCRIPTORS}/{}", directory.as_raw_fd()))
}

/// Opens `path`, which is absolute and is not to have a symbolic link in any part, only to name what is there.
///
/// # Errors
/// As open(2); `ELOOP` for a link.
pub(super) fn name(path: &Path) -> io::Result<File> {
    at::open(Lookup::best(), path, at::NAME)
}

/// The directory that holds `path`, opened as [`name`] does, and the name in it.
///
/// # Errors
/// As [`name`].
pub(super) fn holder(path: &Path) -> io::Result<(File, &OsStr)> {
    let (above, name) =
        path.parent().zip(path.file_name()).ok_or_else(|| invalid("the path does not end in a name"))?;
    Ok((at::open(Lookup::best(), above, at::STEP)?, name))
}

/// What is allowed, and what to do, for `path`, which the policy refuses.
pub(super) fn hint(view: &View, path: &Path, needed: Grant) -> String {
    Refused::new(view, path.to_owned(), needed).hint
}

impl View {
    /// Opens `path` (absolute, or from the working directory on) as a tool may. Never waits: a pipe or a device is refused.
    ///
    /// # Errors
    /// As the file system says. Where the policy refuses: `PermissionDenied` with a [`Refused`] inside.
    pub fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        self.open_by(Lookup::best(), path, access)
    }

    /// Puts `contents` at `path`, whole or not at all: temporary file in the same directory, fsync, rename, fsync of the
    /// directory. Missing parent directories are made. A symbolic link stays one, and the file that it leads to is replaced;
    /// one that leads nowhere is an error. Permissions of an existing file are kept, as is its owner where possible; set-id
    /// bits are not, as with write(2).
    ///
    /// A single file that the policy lists is replaced in its directory too, whatever else may be changed there.
    ///
    /// # Errors
    /// As the file system says. Where the policy refuses: `PermissionDenied` with a [`Refused`] inside.
    pub fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.replace_by(Lookup::best(), path, contents)
    }

    /// [`View::open`], with links kept out by `lookup`.
    ///
    /// # Errors
    /// As [`View::open`]; `Unsupported` if the kernel has no such lookup.
    pub fn open_by(&self, lookup: Lookup, path: &Path, access: Access) -> io::Result<File> {
        let directory = access == Access::List || names_directory(path);
        // Without NONBLOCK, opening a named pipe waits for its other end.
        let flags = if directory { libc::O_DIRECTORY } else { libc::O_NONBLOCK | libc::O_NOCTTY };
        let file = settle(self, path, Grant::Read, |target| at::open(lookup, &target.path, libc::O_RDONLY | flags))?;
        if access == Access::Read {
            let kind = file.metadata()?.file_type();
            regular(kind.is_file(), kind.is_dir())?;
        }
        Ok(file)
    }

    /// [`View::replace`], with links kept out by `lookup`.
    ///
    /// # Errors
    /// As [`View::replace`]; `Unsupported` if the kernel has no such lookup.
    pub fn replace_by(&self, lookup: Lookup, path: &Path, contents: &[u8]) -> io::Result<()> {
        if names_directory(path) {
            return Err(replace::no_file(self, lookup, path));
        }
        settle(self, path, Grant::Write, |target| replace::replace(self, lookup, target, contents))
    }
}

/// A path without symbolic links, as far as anybody can say.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    /// It does not exist, and that is where a symbolic link leads.
    dangling: bool,
}

/// Does `work` on the path that `path` leads to, once the policy grants `needed` there. `work` follows no link, and answers
/// `ELOOP` if it met one.
fn settle<T>(view: &View, path: &Path, needed: Grant, work: impl Fn(&Target) -> io::Result<T>) -> io::Result<T> {
    let path = view.workdir().join(path);
    if path.as_os_str().len() >= PATH_BYTES_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    // Most paths are what they look like. If there is a link after all, that is found out by the first try.
    let plain = resolve::plain(&path).filter(|plain| refused::grants(view, plain, needed));
    let mut target = match plain {
        Some(path) => Target { path, dangling: false },
        None => resolve::resolve(view, &path, needed)?,
    };
    for _ in 0..TRIES_MAX {
        match work(&target) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                target = resolve::resolve(view, &path, needed)?;
            }
            done => return done,
        }
    }
    Err(Refused::changing(path, needed).into())
}

/// True if `path` is written in a way that only directories have: `a/`, `a/.`, `a/..`. Components do not tell.
fn names_directory(path: &Path) -> bool {
    let last = path.as_os_str().as_bytes().rsplit(|&byte| byte == b'/').next();
    matches!(last, None | Some(b"" | b"." | b".."))
}

fn regular(file: bool, directory: bool) -> io::Result<()> {
    if file {
        Ok(())
    } else if directory {
        Err(io::ErrorKind::IsADirectory.into())
    } else {
        Err(invalid("not a regular file"))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests;
