//! What this process uses, as the kernel sees it (proc_pid_stat(5)).

/// Resources of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory that are really there.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Milliseconds of processor time, user and system.
    pub cpu_ms: u64,
    /// Seconds since the Unix epoch at which the process began, by the clock as it stands now: a board that starts without
    /// one learns better.
    pub started_s: u64,
}

/// Reads them; `None` where there is no `/proc`.
#[must_use]
pub fn of_this_process() -> Option<Usage> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let stat = text("/proc/self/stat")?;
    // Behind the name, which may hold blanks: field 3 of the manual is number 0 here.
    let fields: Vec<u64> = stat.rsplit(')').next()?.split(' ').skip(1).map(|f| f.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let boot: u64 = text("/proc/stat")?.lines().find_map(|l| l.strip_prefix("btime ")?.parse().ok())?;
    let (tick, page) = (configured(libc::_SC_CLK_TCK)?, configured(libc::_SC_PAGESIZE)?);
    Some(Usage {
        resident_bytes: field(24)? * page,
        // Less the one that was open for counting.
        descriptors: descriptors.saturating_sub(1),
        threads: field(20)?,
        cpu_ms: (field(14)? + field(15)?) * 1000 / tick,
        started_s: boot + field(22)? / tick,
    })
}

/// sysconf(3).
fn configured(name: libc::c_int) -> Option<u64> {
    // SAFETY: takes and returns plain integers, and has no preconditions.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|v| *v > 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::of_this_process;
    use crate::clock;

    #[test]
    fn numbers_are_those_of_this_process() {
        let before = of_this_process().expect("there is a /proc");
        let now_s = clock::wall_ms() / 1000;
        assert!(before.started_s <= now_s + 1 && before.started_s + 86_400 > now_s, "{before:?} at {now_s}");
        assert!(before.resident_bytes > 100_000 && before.threads > 0, "{before:?}");
        // Other tests of this process open and close many at the same time, but not every time.
        let moves = || {
            let before = of_this_process().expect("there is a /proc");
            let files: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").expect("a descriptor")).collect();
            let touched = vec![1_u8; 64 << 20];
            let held = touched.iter().map(|b| usize::from(*b)).sum::<usize>();
            let after = of_this_process().expect("there is a /proc");
            after.descriptors >= before.descriptors + files.len() as u64
                && after.resident_bytes >= before.resident_bytes + (held as u64) / 2
        };
        assert!((0..50).any(|_| moves()), "what is opened and touched is counted");
    }
}
