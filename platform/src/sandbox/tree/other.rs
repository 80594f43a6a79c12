//! Targets without a child subreaper: only the tool's process group is ended. A tool that makes its own session outlives
//! its call here.

use std::io;

/// There is no such thing here.
pub(in crate::sandbox) fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// Not asked: the group is what is ended.
pub(in crate::sandbox) fn children() -> Vec<libc::pid_t> {
    Vec::new()
}

/// Kills the guard's group.
pub(in crate::sandbox) fn sweep(guard: libc::pid_t) {
    super::kill_group(guard);
}

/// Nothing to prepare.
pub(in crate::sandbox) fn prepare_tool(_guard: libc::pid_t) -> io::Result<()> {
    Ok(())
}

/// Closes every descriptor from `first` on, as far as the table of this process can reach.
pub(in crate::sandbox) fn close_from(first: libc::c_int) {
    // SAFETY: sysconf and close take numbers; the caller owns no descriptor from `first` on.
    unsafe {
        let end = libc::c_int::try_from(libc::sysconf(libc::_SC_OPEN_MAX)).unwrap_or(1024);
        for fd in first..end {
            libc::close(fd);
        }
    }
}
