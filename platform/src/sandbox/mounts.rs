//! Root under Landlock: a mount namespace in which everything is read-only but what may be changed.
//!
//! Landlock says nothing about modes, owners and times of files (landlock(7), "Current limitations"). An ordinary user can
//! change those of its own files; root's are the machine. Root without capabilities cannot mount, so this comes first.

use super::files;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// `struct mount_attr` (mount_setattr(2), Linux 5.12).
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// Makes a mount namespace of its own for this process, in which `writable` is as it was and all else is read-only.
/// `protected` is read-only as well, wherever it is. Both hold before what they hold.
///
/// # Errors
/// As unshare(2), mount(2) and mount_setattr(2): without `CAP_SYS_ADMIN` nothing can be done.
pub(super) fn read_only_but(writable: &[PathBuf], protected: &[PathBuf]) -> io::Result<()> {
    // SAFETY: takes a number, changes this process alone.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // What is mounted here is not to be seen outside.
    mount(None, "/", libc::MS_REC | libc::MS_PRIVATE)?;
    let mut all: Vec<&PathBuf> = writable.iter().chain(protected).collect();
    all.sort_unstable();
    for path in all {
        // By descriptor: nobody can make a link of it in between.
        let Some(file) = there(path)? else { continue };
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(Some(&name), &name, libc::MS_BIND)?;
    }
    set(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE, READ_ONLY, 0)?;
    for path in writable {
        // Opened again: this is the new mount.
        if let Some(file) = there(path)? {
            set(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH, 0, READ_ONLY)?;
        }
    }
    // This process is still where it was, in the mount below.
    std::env::set_current_dir(std::env::current_dir()?)
}

/// What is at `path`; `None` if that has gone meanwhile.
fn there(path: &Path) -> io::Result<Option<std::fs::File>> {
    match files::name(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        named => named.map(Some),
    }
}

fn mount(source: Option<&str>, target: &str, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map(std::ffi::CString::new).transpose()?;
    let target = std::ffi::CString::new(target)?;
    let source = source.as_ref().map_or(std::ptr::null(), |source| source.as_ptr());
    // SAFETY: texts that end in NUL and live through the call, or no text.
    done(unsafe { libc::mount(source, target.as_ptr(), std::ptr::null(), flags, std::ptr::null()) })
}

fn set(directory: libc::c_int, path: &std::ffi::CStr, flags: libc::c_int, set: u64, clear: u64) -> io::Result<()> {
    let attributes = Attributes { set, clear, propagation: 0, user_namespace: 0 };
    // SAFETY: the text ends in NUL, the struct is the first version of the kernel's; both live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::c_long::from(directory),
            path.as_ptr(),
            libc::c_long::from(flags),
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
