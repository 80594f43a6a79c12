//! Questions about this and other processes, and randomness for names.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Who is at the other end of a unix socket, as the kernel noted it when the connection was made (unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Process id; `None` where the target does not tell.
    pub pid: Option<u32>,
}

/// True if process `pid` exists and has not ended (a zombie has ended). Numbers are used again: a process may be alive
/// and not the one that was meant.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    if pid == 0 {
        return false;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(stat) = crate::procfs::stat(pid) {
        return stat.is_alive();
    }
    // SAFETY: signal 0 is not delivered; it asks whether the process could be signalled (kill(2)).
    unsafe { libc::kill(pid, 0) == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) }
}

/// The processes below `pid`, its children and theirs, in no order; those that end or begin meanwhile may be missed. Their
/// numbers are those of this process' namespace. Empty where the target does not tell.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let mut rest: Vec<(u32, u32)> = {
        let number = |pid| u32::try_from(pid).unwrap_or(0);
        let all = crate::procfs::pids().filter_map(|pid| Some((pid, crate::procfs::stat(pid)?.parent)));
        all.map(|(pid, parent)| (number(pid), number(parent))).collect()
    };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let mut rest: Vec<(u32, u32)> = Vec::new();
    let mut found = Vec::new();
    loop {
        let is_below = |(_, parent): &(u32, u32)| *parent == pid || found.contains(parent);
        let (below, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_below);
        if below.is_empty() {
            return found;
        }
        found.extend(below.into_iter().map(|(pid, _)| pid));
        rest = others;
    }
}

/// Effective user id of this process.
#[must_use]
pub fn uid() -> u32 {
    // SAFETY: takes nothing, changes nothing, cannot fail (geteuid(2)).
    unsafe { libc::geteuid() }
}

/// Keeps the memory of this process, which holds keys, out of core dumps and from other processes of the same user: they can
/// neither trace it nor read its environment (PR_SET_DUMPABLE, prctl(2)). Programs that it starts are as ever. Best effort: does
/// nothing where the target has no such call.
pub fn conceal() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let (off, unused): (libc::c_ulong, libc::c_ulong) = (0, 0);
        // SAFETY: prctl with this option takes numbers and changes one flag of this process.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, off, unused, unused, unused) };
    }
}

/// Memory of this process that is resident, in bytes; `None` where the target does not tell. Exact but for pages that come
/// and go meanwhile (`smaps_rollup`, Linux 4.14), or from the kernel's coarser counter (`statm`).
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok();
    rollup.as_deref().and_then(rollup_rss).or_else(|| {
        let pages = statm_resident(&std::fs::read_to_string("/proc/self/statm").ok()?)?;
        // SAFETY: sysconf takes and returns plain numbers.
        let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
        pages.checked_mul(page)
    })
}

/// The line `Rss:  1234 kB`.
fn rollup_rss(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The second field, in pages.
fn statm_resident(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Asks who connected to a unix socket.
///
/// # Errors
/// As getsockopt(2) or getpeereid(3): not a connected unix socket.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    peer_of(socket.as_raw_fd())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer_of(socket: libc::c_int) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: SO_PEERCRED writes at most `size` bytes, the size of `found`; both live through the call.
    let result = unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut size)
    };
    // The kernel answers pid 0 and uid -1 for a socket that was never connected.
    match result {
        0 if found.pid > 0 => Ok(Peer { uid: found.uid, pid: u32::try_from(found.pid).ok() }),
        0 => Err(io::Error::from(io::ErrorKind::NotConnected)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer_of(socket: libc::c_int) -> io::Result<Peer> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: getpeereid writes one uid and one gid, which live through the call.
    if unsafe { libc::getpeereid(socket, &raw mut uid, &raw mut gid) } == 0 {
        Ok(Peer { uid, pid: None })
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A random number that cannot be guessed: from the kernel's generator (getrandom(2)), which may wait for entropy early
/// at boot. Where the kernel refuses, it is mixed from clock, process and a counter: unique, but guessable.
#[must_use]
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    if fill_random(&mut bytes) { u64::from_ne_bytes(bytes) } else { mixed_u64() }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn fill_random(bytes: &mut [u8; 8]) -> bool {
    loop {
        // SAFETY: writes at most eight bytes to `bytes`. Requests of up to 256 bytes are never answered in part.
        let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if count == 8 {
            return true;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn fill_random(bytes: &mut [u8; 8]) -> bool {
    // SAFETY: writes eight bytes to `bytes`; up to 256 are allowed.
    unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) == 0 }
}

fn mixed_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let clock = crate::clock::wall();
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u128(clock.as_nanos());
    hasher.write_u32(std::process::id());
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// Lets this process open at least `wanted` descriptors, as far as its hard limit allows, and says how many it may have
/// open (getrlimit(2), `RLIMIT_NOFILE`). A limit that is higher already stays: what this process starts has the same.
pub fn allow_descriptors(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to and reads from a struct that lives through the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return DESCRIPTORS_DEFAULT;
        }
        let raised = libc::rlimit { rlim_cur: (wanted as libc::rlim_t).min(limit.rlim_max), ..limit };
        if raised.rlim_cur > limit.rlim_cur && libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            limit = raised;
        }
    }
    #[allow(clippy::unnecessary_cast, reason = "rlim_t is 32 bits wide, or signed, on other targets")]
    let allowed = limit.rlim_cur as u64;
    allowed
}

/// True if what failed was for want of descriptors or memory: later it may work.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// What most systems allow.
const DESCRIPTORS_DEFAULT: u64 = 256;

/// Makes the allocator keep little, where it would keep much (glibc, mallopt(3)); elsewhere allocators do so by themselves.
///
/// Buffers of 128 KiB and more go back to the system when they are freed, for good: glibc begins that way, and stops after the
/// first one of up to 32 MiB was freed, so that a flood of bodies or exports would stay in memory. And threads share two
/// arenas: of its own, each thread that ever worked at the same time as others leaves some 80 KiB behind.
pub fn keep_little_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes integers only; called before there are other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives memory that is free inside this process back to the system, where the allocator keeps it (glibc, malloc_trim(3));
/// elsewhere it does so by itself. Takes about a millisecond for some megabytes.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn alive_ended_and_impossible_processes() {
        assert!(is_alive(std::process::id()));
        assert!(is_alive(1), "another user's process counts");
        assert!(!is_alive(0));
        assert!(!is_alive(u32::MAX));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let start = std::time::Instant::now();
        while is_alive(child.id()) {
            assert!(start.elapsed().as_secs() < 30, "`true` does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn descendants_are_children_and_theirs() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let start = std::time::Instant::now();
        while descendants(child.id()).is_empty() {
            assert!(start.elapsed().as_secs() < 30, "the shell does not start sleep");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let below = descendants(child.id());
        let of_us = descendants(own);
        assert!(of_us.contains(&child.id()) && below.iter().all(|pid| of_us.contains(pid)), "{below:?} {of_us:?}");
        assert!(!of_us.contains(&own) && !below.contains(&child.id()));
        for pid in below {
            // SAFETY: sends a signal to a process that this test started.
            unsafe { libc::kill(libc::pid_t::try_from(pid).unwrap(), libc::SIGKILL) };
        }
        child.wait().unwrap();
    }

    #[test]
    fn memory_grows_by_what_is_touched() {
        const SIZE: usize = 64 << 20;
        let before = resident_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; SIZE]);
        let after = resident_bytes().unwrap();
        assert!(block.iter().all(|&b| b == 1));
        assert!(after > before + (SIZE as u64) / 2, "{before} bytes before, {after} after");
    }

    #[test]
    fn memory_files() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(rollup_rss(text), expected, "{text:?}");
        check("00-ff ---p 0 0:0 0 [rollup]\nRss:     1234 kB\nPss: 9 kB\n", Some(1234 * 1024));
        check("Rss: many kB\n", None);
        check("Rss: 12\n", None);
        check("", None);
        assert_eq!(statm_resident("100 25 3 4 0 5 0\n"), Some(25));
        assert_eq!(statm_resident("100"), None);
    }

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer(one.as_fd()).unwrap();
        assert_eq!(peer.uid, uid());
        #[cfg(any(target_os = "linux", target_os = "android"))]
        assert_eq!(peer.pid, Some(std::process::id()));
    }

    #[test]
    fn a_pipe_and_a_lonely_socket_have_no_peer() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(peer(reader.as_fd()).is_err());
        let lonely = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(peer(lonely.as_fd()).is_err());
    }

    #[test]
    fn random_numbers_differ() {
        let mut drawn: Vec<u64> = (0..64).map(|i| if i % 2 == 0 { random_u64() } else { mixed_u64() }).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 64);
    }
}
