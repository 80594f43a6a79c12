//! `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date in its preferred form (5.6.7). The two obsolete forms of
//! dates are not read; no server we talk to sends them.

use duragent_platform::clock;

/// Longest wait that is passed on: a day in milliseconds. Whoever asks for more is down, not busy.
pub(super) const RETRY_AFTER_MAX: u64 = 24 * 3600 * 1000;

/// Milliseconds to wait. A date is compared with the server's own `Date`, because a device may have no clock; only
/// without one does the local clock count.
pub(super) fn milliseconds(value: &str, date: Option<&str>) -> Option<u64> {
    let value = value.trim();
    let seconds = if let Ok(seconds) = value.parse::<u64>() {
        seconds
    } else {
        let now = date.and_then(epoch_seconds).unwrap_or_else(|| clock::wall().as_secs());
        epoch_seconds(value)?.saturating_sub(now)
    };
    Some(seconds.saturating_mul(1000).min(RETRY_AFTER_MAX))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since the epoch.
fn epoch_seconds(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.trim().split(' ');
    words.next()?.strip_suffix(',')?;
    let day: u64 = words.next()?.parse().ok().filter(|d| (1..=31).contains(d))?;
    let month = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|m| *m == month)?).ok()? + 1;
    let year: u64 = words.next()?.parse().ok().filter(|y| (1970..=9999).contains(y))?;
    let mut clock = words.next()?.splitn(3, ':').map(|n| n.parse::<u64>().ok().filter(|n| *n <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    // Years that begin in March put the leap day last.
    let shifted = year - u64::from(month <= 2);
    let days_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + days_of_year;
    (days.checked_sub(719_468)?).checked_mul(86_400)?.checked_add(hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::{RETRY_AFTER_MAX, epoch_seconds, milliseconds};

    #[test]
    fn seconds_and_dates_are_read() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            (" 7 ", Some(7000)),
            ("99999999999999999999", None),
            ("18446744073709551615", Some(RETRY_AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3000)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("Sun, 06 Nov 1995 08:49:30 GMT", Some(RETRY_AFTER_MAX)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (value, want) in cases {
            assert_eq!(milliseconds(value, date), *want, "{value:?}");
        }
    }

    #[test]
    fn without_the_servers_date_the_local_clock_counts() {
        assert_eq!(milliseconds("Sun, 06 Nov 1994 08:49:37 GMT", None), Some(0));
        assert_eq!(milliseconds("Sun, 06 Nov 1994 08:49:37 GMT", Some("garbage")), Some(0));
        assert_eq!(milliseconds("Fri, 31 Dec 9999 23:59:59 GMT", None), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn dates_count_from_the_epoch() {
        let cases: &[(&str, Option<u64>)] = &[
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 12:00:00 GMT", Some(951_825_600)),
            ("Sun, 22 Nov 2026 08:00:00 GMT", Some(1_795_334_400)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT x", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ];
        for (text, want) in cases {
            assert_eq!(epoch_seconds(text), *want, "{text}");
        }
    }
}
