//! The wall clock. Order comes from seq and spans from the monotonic clock; this is for people, and for what is kept for days.
//!
//! A board without a battery starts in 1970, or with the time at which it was last seen (`fake-hwclock`), and knows better once
//! there is a network.

use std::time::Duration;

/// First millisecond of the year of this release: a clock that stands before it was never set.
pub const RELEASE_MS: u64 = 1_767_225_600_000;

/// A clock is a day late at most when it is that of the last shutdown: longer ago, somebody has set it back and meant it.
const LATE_MS_MAX: u64 = 86_400_000;

/// Milliseconds since the Unix epoch; 0 if the clock stands before it, as on a board that has none.
#[must_use]
pub fn wall_ms() -> u64 {
    u64::try_from(wall().as_millis()).unwrap_or(u64::MAX)
}

/// Since the Unix epoch; nothing if the clock stands before it. To be taken instead of `SystemTime::now`, see `since_epoch`.
#[must_use]
pub fn wall() -> Duration {
    since_epoch()
}

/// Asks the kernel for 64 bits. The standard library has 32 here, since its musl is older than 1.2, and from 03:14:08 UTC on 19
/// January 2038 its clock panics.
#[cfg(all(target_os = "linux", target_env = "musl", target_pointer_width = "32"))]
fn since_epoch() -> Duration {
    /// clock_gettime64(2), Linux 5.1: the same number on all machines of 32 bits.
    const CLOCK_GETTIME64: libc::c_long = 403;
    // struct __kernel_timespec.
    let mut time = [0_i64; 2];
    // SAFETY: the kernel writes two numbers of 64 bits, for which there is room.
    let result = unsafe { libc::syscall(CLOCK_GETTIME64, libc::CLOCK_REALTIME, time.as_mut_ptr()) };
    match (result, time.map(u64::try_from)) {
        (0, [Ok(seconds), Ok(nanoseconds)]) => Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds),
        (0, _) => Duration::ZERO,
        // An older kernel, which has no more than 32 bits itself.
        _ => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default(),
    }
}

#[cfg(not(all(target_os = "linux", target_env = "musl", target_pointer_width = "32")))]
fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// True if the clock has been set, as far as that can be told from what it says.
#[must_use]
pub fn is_set(now_ms: u64) -> bool {
    now_ms >= RELEASE_MS
}

/// The time of an event at `now_ms` whose predecessor was at `last_ms`. It is not before that, unless the clock was set and then
/// set back by more than a day.
#[must_use]
pub fn after(last_ms: u64, now_ms: u64) -> u64 {
    let late = !is_set(now_ms) || last_ms.saturating_sub(now_ms) <= LATE_MS_MAX;
    if late { now_ms.max(last_ms) } else { now_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_not_before_its_predecessor_unless_the_clock_was_mended() {
        const DAY: u64 = 86_400_000;
        let check = |last: u64, now: u64, expected: u64| assert_eq!(after(last, now), expected, "{last} {now}");
        check(0, 5000, 5000);
        check(5000, 1000, 5000);
        check(RELEASE_MS + DAY, 5000, RELEASE_MS + DAY);
        check(RELEASE_MS + DAY, RELEASE_MS, RELEASE_MS + DAY);
        check(RELEASE_MS + DAY + 1, RELEASE_MS, RELEASE_MS);
        check(5000, RELEASE_MS, RELEASE_MS);
    }
}
