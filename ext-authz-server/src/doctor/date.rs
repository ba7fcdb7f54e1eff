//! The `Date` header (RFC 9110, 5.6.7): how far another machine's clock is from this one's.

use crate::calendar::unix_secs as unix_secs_of;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 of an IMF-fixdate, for example `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn unix_secs(date: &str) -> Option<i64> {
    let mut parts = date.split_ascii_whitespace().skip(1);
    let day: i64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let year: i64 = parts.next()?.parse().ok()?;
    let mut time = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    if parts.next() != Some("GMT") || year < 1970 {
        return None;
    }
    unix_secs_of(year, month, day, hours, minutes, seconds)
}

#[cfg(test)]
mod tests {
    use super::unix_secs;

    #[test]
    fn dates_are_read() {
        assert_eq!(unix_secs("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(unix_secs("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(unix_secs("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for bad in
            ["", "now", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT"]
        {
            assert_eq!(unix_secs(bad), None, "{bad}");
        }
    }
}
