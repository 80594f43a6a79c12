//! The wall clock. Order comes from seq and spans from the monotonic clock; this is for people, and for what is kept for days.
//!
//! A board without a battery starts in 1970, or with the time at which it was last seen (`fake-hwclock`), and knows better once
//! there is a network.

use std::time::{SystemTime, UNIX_EPOCH};

/// First millisecond of the year of this release: a clock that stands before it was never set.
pub const RELEASE_MS: u64 = 1_767_225_600_000;

/// A clock is a day late at most when it is that of the last shutdown: longer ago, somebody has set it back and meant it.
const LATE_MS_MAX: u64 = 86_400_000;

/// Milliseconds since the Unix epoch; 0 if the clock stands before it, as on a board that has none.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
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
