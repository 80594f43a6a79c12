//! RFC 3339 UTC with milliseconds, the one form of time in files: `2026-11-22T10:00:00.123Z`.
//!
//! Absent: any clock. Milliseconds since the Unix epoch come in from outside.

use alloc::string::String;

const DAY_MS: u64 = 86_400_000;
/// Last millisecond that four year digits can say: 9999-12-31T23:59:59.999Z.
pub const MS_MAX: u64 = 253_402_300_799_999;

/// Appends `ms` since the Unix epoch, clamped to [`MS_MAX`]. Always 24 bytes.
pub fn write_rfc3339(out: &mut String, ms: u64) {
    let ms = ms.min(MS_MAX);
    let (year, month, day) = civil(ms / DAY_MS);
    let rest = ms % DAY_MS;
    let parts = [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (rest / 3_600_000, 2, ':'),
        (rest / 60_000 % 60, 2, ':'),
        (rest / 1000 % 60, 2, '.'),
        (rest % 1000, 3, 'Z'),
    ];
    for (value, width, end) in parts {
        let mut scale = 10u64.pow(width - 1);
        while scale > 0 {
            out.push(char::from(b'0' + u8::try_from(value / scale % 10).unwrap_or(0)));
            scale /= 10;
        }
        out.push(end);
    }
}

/// The same as a new string.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    let mut out = String::with_capacity(24);
    write_rfc3339(&mut out, ms);
    out
}

/// The date of HTTP (RFC 9110 section 5.6.7, IMF-fixdate) for `ms` since the Unix epoch, clamped to [`MS_MAX`]:
/// `Sun, 22 Nov 2026 10:00:00 GMT`.
#[must_use]
pub fn imf_fixdate(ms: u64) -> String {
    const DAYS: &str = "ThuFriSatSunMonTueWed";
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let name = |names: &'static str, at: u64| {
        let at = usize::try_from(at).unwrap_or(0) * 3;
        names.get(at..at + 3).unwrap_or_default()
    };
    let stamp = rfc3339(ms);
    let days = ms.min(MS_MAX) / DAY_MS;
    let (_, month, _) = civil(days);
    let part = |from: usize, to: usize| stamp.get(from..to).unwrap_or_default();
    let (weekday, month) = (name(DAYS, days % 7), name(MONTHS, month - 1));
    [weekday, ", ", part(8, 10), " ", month, " ", part(0, 4), " ", part(11, 19), " GMT"].concat()
}

/// Reads exactly the form that [`write_rfc3339`] writes; anything else is `None`.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes: &[u8; 24] = text.as_bytes().try_into().ok()?;
    for (at, mark) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')] {
        if bytes[at] != mark {
            return None;
        }
    }
    let number = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, ms) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?);
    let in_range = year >= 1970 && (1..=12).contains(&month) && hour < 24 && minute < 60 && second < 60;
    if !in_range || day == 0 || day > month_days(year, month) {
        return None;
    }
    Some(days(year, month, day) * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1000 + ms)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date from 1970 on. Years are taken to begin in March, so that the leap day comes last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days`].
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_both_ways() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_341_600_123, "2026-11-22T10:00:00.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (MS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            assert_eq!(parse_rfc3339(text), Some(ms));
        }
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn dates_of_http() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_341_600_123, "Sun, 22 Nov 2026 10:00:00 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(imf_fixdate(ms), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_survives() {
        for day in (0..146_097 * 2).step_by(1) {
            let ms = day * DAY_MS + 1;
            assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2026-11-22T10:00:00Z",
            "2026-11-22 10:00:00.123Z",
            "2026-13-22T10:00:00.123Z",
            "2026-02-29T10:00:00.123Z",
            "2026-11-00T10:00:00.123Z",
            "2026-11-22T24:00:00.123Z",
            "2026-11-22T10:60:00.123Z",
            "1969-11-22T10:00:00.123Z",
            "2026-11-22T10:00:00.12+Z",
            "２026-11-22T10:00:00.1Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
