//! System calls that work from an open directory on, and the two ways to open a path without following a link.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as target;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod other;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use other as target;

pub(super) use target::NAME;
pub(in super::super) use target::{STEP, stat};

use super::invalid;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// How links are kept out while a path is opened. Both do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// openat2(2) with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`: one call. Linux 5.6, if no
    /// seccomp filter is in the way.
    Openat2,
    /// Directory by directory, each with `O_NOFOLLOW`. Everywhere.
    Walk,
}

impl Lookup {
    /// The one that works here: tried out once, as a seccomp filter answers what it likes.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Lookup> = OnceLock::new();
        *BEST.get_or_init(Self::probe)
    }

    pub(super) fn probe() -> Self {
        if open(Self::Openat2, Path::new("/"), STEP).is_ok() { Self::Openat2 } else { Self::Walk }
    }
}

/// What a name stands for, links not followed.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Stat {
    /// Kind and permissions, inode(7).
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Stat {
    pub(super) fn is_file(self) -> bool {
        self.is(libc::S_IFREG)
    }

    pub(super) fn is_dir(self) -> bool {
        self.is(libc::S_IFDIR)
    }

    pub(super) fn is_symlink(self) -> bool {
        self.is(libc::S_IFLNK)
    }

    #[allow(clippy::unnecessary_cast, reason = "the constants are 16 bits wide on some targets")]
    fn is(self, kind: libc::mode_t) -> bool {
        self.mode & libc::S_IFMT as u32 == kind as u32
    }
}

/// What an open file is.
pub(super) fn stat_of(file: &File) -> io::Result<Stat> {
    let metadata = file.metadata()?;
    Ok(Stat { mode: metadata.mode(), uid: metadata.uid(), gid: metadata.gid() })
}

/// Opens `path`, which is absolute and has no `..` in it. Whatever part of it is a symbolic link, the last one too:
/// `ELOOP`.
pub(in super::super) fn open(lookup: Lookup, path: &Path, flags: libc::c_int) -> io::Result<File> {
    let below = path.strip_prefix("/").map_err(|_| invalid("the path is not absolute"))?;
    let root = open_at(libc::AT_FDCWD, c"/", STEP, 0)?;
    match lookup {
        Lookup::Openat2 => {
            let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            let below = c_text(below.as_os_str())?;
            retried(|| target::openat2(root.as_raw_fd(), &below, flags | libc::O_CLOEXEC))
        }
        Lookup::Walk => walk(root, below, flags),
    }
}

fn walk(root: File, below: &Path, flags: libc::c_int) -> io::Result<File> {
    let mut directory = root;
    let mut parts = below.components();
    let last = parts.next_back();
    for part in parts {
        directory = open_in(&directory, normal(part)?, STEP)?;
    }
    match last {
        Some(last) => open_in(&directory, normal(last)?, flags),
        None => open_at(directory.as_raw_fd(), c".", flags, 0),
    }
}

fn normal(part: Component<'_>) -> io::Result<&OsStr> {
    match part {
        Component::Normal(name) => Ok(name),
        _ => Err(invalid("the path has parts that go up")),
    }
}

/// Opens `name` in `directory`; `ELOOP` if it is a symbolic link.
pub(super) fn open_in(directory: &File, name: &OsStr, flags: libc::c_int) -> io::Result<File> {
    let opened = open_at(directory.as_raw_fd(), &c_text(name)?, flags | libc::O_NOFOLLOW, 0);
    opened.map_err(|error| match error.raw_os_error() {
        // A link is not a directory either, says Linux; FreeBSD has an answer of its own.
        Some(libc::ENOTDIR | libc::EMLINK) => match stat(directory, name) {
            Ok(found) if !found.is_symlink() && !found.is_dir() => error,
            // A directory by now, or gone: it was changed meanwhile, and to be looked at again like a link.
            _ => io::Error::from_raw_os_error(libc::ELOOP),
        },
        _ => error,
    })
}

/// Makes a file that was not there, opened for writing.
pub(super) fn create(directory: &File, name: &OsStr, mode: libc::mode_t) -> io::Result<File> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    open_at(directory.as_raw_fd(), &c_text(name)?, flags, mode)
}

fn open_at(directory: libc::c_int, name: &CStr, flags: libc::c_int, mode: libc::mode_t) -> io::Result<File> {
    let (flags, mode) = (flags | libc::O_CLOEXEC | target::LARGE, libc::c_uint::from(mode));
    retried(|| {
        // SAFETY: `name` ends in NUL and lives through the call; what is returned belongs to nobody else.
        unsafe {
            let file = libc::openat(directory, name.as_ptr(), flags, mode);
            if file < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(file)) }
        }
    })
}

/// Until no signal came in between.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Makes the directory `name`, with the permissions of the umask.
pub(super) fn make_directory(directory: &File, name: &OsStr) -> io::Result<()> {
    let name = c_text(name)?;
    // SAFETY: `name` ends in NUL and lives through the call.
    done(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), 0o777) })
}

/// Renames within `directory`. A link is renamed or replaced, not followed.
pub(in super::super) fn rename(directory: &File, from: &OsStr, to: &OsStr) -> io::Result<()> {
    let (directory, from, to) = (directory.as_raw_fd(), c_text(from)?, c_text(to)?);
    // SAFETY: both names end in NUL and live through the call.
    done(unsafe { libc::renameat(directory, from.as_ptr(), directory, to.as_ptr()) })
}

/// Makes `name` a symbolic link to `target`.
pub(in super::super) fn symlink(target: &Path, directory: &File, name: &OsStr) -> io::Result<()> {
    let (target, name) = (c_text(target.as_os_str())?, c_text(name)?);
    // SAFETY: both end in NUL and live through the call.
    done(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })
}

/// Where the symbolic link `name` leads; an error if it is none.
pub(in super::super) fn read_link(directory: &File, name: &OsStr) -> io::Result<PathBuf> {
    /// `PATH_MAX`: no link is longer.
    const BYTES_MAX: usize = 4096;
    let name = c_text(name)?;
    let mut buffer = vec![0u8; BYTES_MAX];
    // SAFETY: `name` ends in NUL, and as many bytes are written as the buffer has at most; both live through the call.
    let count =
        unsafe { libc::readlinkat(directory.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), BYTES_MAX) };
    buffer.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(PathBuf::from(OsString::from_vec(buffer)))
}

/// Removes the file `name`.
pub(super) fn remove(directory: &File, name: &OsStr) -> io::Result<()> {
    let name = c_text(name)?;
    // SAFETY: `name` ends in NUL and lives through the call.
    done(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) })
}

/// An error if we may not write to `name`.
pub(super) fn writable(directory: &File, name: &OsStr) -> io::Result<()> {
    let name = c_text(name)?;
    // SAFETY: `name` ends in NUL and lives through the call.
    done(unsafe { libc::faccessat(directory.as_raw_fd(), name.as_ptr(), libc::W_OK, libc::AT_EACCESS) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}
