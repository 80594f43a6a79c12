//! Linux: the guard is a child subreaper, so a descendant whose parent ends becomes the guard's own child, double-forked
//! or not, and whatever session it made for itself.

use super::kill;
use crate::procfs;
use std::collections::HashMap;
use std::time::Duration;
use std::{fs, io, thread};

/// Passes of [`sweep`] before it gives up, 5 ms apart: one second. Only processes that sleep in the kernel last longer.
const SWEEP_PASSES_MAX: u32 = 200;

/// Longest chain of parents that is followed: a guard against a loop in numbers that were read one after the other.
const ANCESTORS_MAX: u32 = 4096;

/// Makes this process the parent of every orphan below it (`PR_SET_CHILD_SUBREAPER`, Linux 3.4).
pub(in crate::sandbox) fn adopt_orphans() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the option takes one number; prctl reads the others as zero.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on, unused, unused, unused) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Children of this single-threaded process. May miss some that come or go meanwhile (proc_pid_children(5)): call it again
/// until waitpid(2) knows of none.
pub(in crate::sandbox) fn children() -> Vec<libc::pid_t> {
    let own = own_pid();
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(list) => list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => procfs::pids().filter(|&pid| procfs::stat(pid).is_some_and(|s| s.parent == own)).collect(),
    }
}

/// Kills all that is left of the tree of `guard` from outside, when the guard itself cannot do its work: what descends from
/// it, and what is in its session. `guard` is left alone and must not have been waited for. What left the session *and*
/// lost the guard as its ancestor is not found.
pub(in crate::sandbox) fn sweep(guard: libc::pid_t) {
    for _ in 0..SWEEP_PASSES_MAX {
        let all: HashMap<_, _> = procfs::pids().filter_map(|pid| Some((pid, procfs::stat(pid)?))).collect();
        let below = |&pid: &libc::pid_t| pid != guard && (all[&pid].session == guard || descends(&all, pid, guard));
        let found: Vec<_> = all.keys().copied().filter(|pid| all[pid].is_alive()).filter(below).collect();
        if found.is_empty() {
            return;
        }
        found.into_iter().for_each(kill);
        thread::sleep(Duration::from_millis(5));
    }
}

fn descends(all: &HashMap<libc::pid_t, procfs::Stat>, pid: libc::pid_t, ancestor: libc::pid_t) -> bool {
    let mut at = pid;
    for _ in 0..ANCESTORS_MAX {
        match all.get(&at) {
            Some(stat) if stat.parent == ancestor => return true,
            Some(stat) => at = stat.parent,
            None => return false,
        }
    }
    false
}

/// Runs in the tool's process between fork and exec, where only async-signal-safe calls are allowed. If the guard is
/// killed, the kernel kills the tool; if the machine runs out of memory, the kernel takes the tool before the runtime.
pub(in crate::sandbox) fn prepare_tool(guard: libc::pid_t) -> io::Result<()> {
    let (signal, unused): (libc::c_ulong, libc::c_ulong) = (libc::SIGKILL as libc::c_ulong, 0);
    // SAFETY: plain numbers; the path and the text are NUL-terminated and `'static`; the descriptor is closed again. A
    // kernel that refuses the score costs the preference, not the run.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, signal, unused, unused, unused) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The guard may have ended before that call.
        if libc::getppid() != guard {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, c"500".as_ptr().cast(), 3);
            libc::close(file);
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on: what the runtime's own parent left open is no business of a tool.
pub(in crate::sandbox) fn close_from(first: libc::c_int) {
    let (from, to, flags) = (libc::c_long::from(first), u32::MAX as libc::c_long, 0 as libc::c_long);
    // SAFETY: close_range(2) takes numbers. The caller owns no descriptor from `first` on.
    if unsafe { libc::syscall(libc::SYS_close_range, from, to, flags) } == 0 {
        return;
    }
    // Before Linux 5.9. The listing's own descriptor is among them and is gone when it is closed again.
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<libc::c_int> = open.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in numbers.into_iter().filter(|&fd| fd >= first) {
        // SAFETY: as above; a number that is closed already is refused.
        unsafe { libc::close(fd) };
    }
}

fn own_pid() -> libc::pid_t {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getpid() }
}
