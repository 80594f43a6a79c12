//! Linux: openat2, and descriptors that stand for a file without opening it.

use super::{Stat, c_text, open_at, stat_of};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Opens a directory on the way: what is needed is the right to pass, not to list.
pub(in super::super::super) const STEP: libc::c_int = libc::O_PATH | libc::O_DIRECTORY;

/// Names whatever is there without opening it.
pub(in super::super) const NAME: libc::c_int = libc::O_PATH;

/// Files past 2 GiB on 32 bits.
pub(super) const LARGE: libc::c_int = libc::O_LARGEFILE;

/// `struct open_how`, openat2(2). The libraries of some targets do not have it.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;

pub(super) fn openat2(directory: libc::c_int, path: &CStr, flags: libc::c_int) -> io::Result<File> {
    let how = OpenHow {
        flags: u64::from((flags | LARGE).cast_unsigned()),
        mode: 0,
        resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: `path` ends in NUL, `how` is as large as said; both live through the call. What is returned belongs to nobody
    // else.
    unsafe {
        let file = libc::syscall(
            libc::SYS_openat2,
            libc::c_long::from(directory),
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        );
        match libc::c_int::try_from(file) {
            Ok(file @ 0..) => Ok(File::from_raw_fd(file)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// What `name` in `directory` is. A link is not followed.
pub(in super::super::super) fn stat(directory: &File, name: &OsStr) -> io::Result<Stat> {
    stat_of(&open_at(directory.as_raw_fd(), &c_text(name)?, libc::O_PATH | libc::O_NOFOLLOW, 0)?)
}
