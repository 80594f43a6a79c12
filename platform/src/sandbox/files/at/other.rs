//! Other Unixes, where the walk does it all.

use super::{Stat, c_text, done};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// Opens a directory on the way. POSIX has `O_SEARCH` for this, which asks for the right to pass only; these two make it of
/// `O_EXEC`, elsewhere the directory has to be readable.
pub(in super::super::super) const STEP: libc::c_int = SEARCH | libc::O_DIRECTORY;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
const SEARCH: libc::c_int = libc::O_EXEC;
#[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
const SEARCH: libc::c_int = libc::O_RDONLY;

/// Names what is there as well as it can be done: by opening it, without waiting.
pub(in super::super) const NAME: libc::c_int = libc::O_RDONLY | libc::O_NONBLOCK;

/// Large files are no matter here.
pub(super) const LARGE: libc::c_int = 0;

pub(super) fn openat2(_directory: libc::c_int, _path: &CStr, _flags: libc::c_int) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What `name` in `directory` is. A link is not followed.
pub(in super::super::super) fn stat(directory: &File, name: &OsStr) -> io::Result<Stat> {
    let name = c_text(name)?;
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `name` ends in NUL, `found` is as large as the call expects and is read only if it succeeded.
    let found = unsafe {
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        done(libc::fstatat(directory.as_raw_fd(), name.as_ptr(), found.as_mut_ptr(), flags))?;
        found.assume_init()
    };
    Ok(Stat { mode: u32::from(found.st_mode), uid: found.st_uid, gid: found.st_gid })
}
