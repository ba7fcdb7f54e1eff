//! Moments as RFC 3339 writes them in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-21T16:00:00Z`, with or without a fraction, which is dropped. Nothing else.
#[must_use]
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let time = time.split_once('.').map_or(Some(time), |(time, fraction)| {
        (!fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit())).then_some(time)
    })?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !in_range {
        return None;
    }
    // Days from the first of March of year 0: leap days come last in such a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_exactly_or_not_at_all() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2016-07-11T22:14:10Z", Some(1_468_275_250)),
            ("2026-11-21T16:00:00.123456Z", Some(1_795_276_800)),
            ("2099-12-31T23:59:59Z", Some(4_102_444_799)),
            ("2026-11-21T16:00:00", None),
            ("2026-11-21T16:00:00+01:00", None),
            ("2026-13-21T16:00:00Z", None),
            ("2026-11-21T24:00:00Z", None),
            ("2026-1-1T00:00:00Z", None),
            ("2026-11-21 16:00:00Z", None),
            ("2026-11-21T16:00:00.Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let seconds = parse(text).map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(seconds, expected, "{text}");
        }
    }
}
