//! The processes below a guard: how they are found and ended. One module per target, the same names in each.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use linux::{adopt_orphans, children, close_from, prepare_tool, sweep};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod other;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use other::{adopt_orphans, children, close_from, prepare_tool, sweep};

/// Kills process `pid`, or the process group `-pid`. One that is gone already is as good.
fn kill(pid: libc::pid_t) {
    // SAFETY: sends a signal; what it is sent to is the caller's care.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Kills the whole group that `leader` leads: at once, so that no member can fork its way out.
pub(super) fn kill_group(leader: libc::pid_t) {
    kill(-leader);
}

/// Kills `child`, and its group if it leads one. `child` must be a child of the caller that was not waited for: so its
/// number cannot have passed to another process.
pub(super) fn kill_child(child: libc::pid_t) {
    // SAFETY: asks for a number.
    if unsafe { libc::getpgid(child) } == child {
        kill_group(child);
    }
    kill(child);
}
