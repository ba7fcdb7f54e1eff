//! Times of the Gregorian calendar as seconds since 1970.

/// Seconds since 1970-01-01T00:00:00Z of a date and a time of day in UTC; months and days begin with 1. `None` where a part
/// lies outside its range.
pub(crate) fn unix_secs(year: i64, month: i64, day: i64, hours: i64, minutes: i64, seconds: i64) -> Option<i64> {
    let in_range = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A minute may have 61 seconds.
    if !in_range || !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0..=60).contains(&seconds) {
        return None;
    }
    // Days of the proleptic calendar, with years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::unix_secs;

    #[test]
    fn leap_days_and_centuries_count() {
        for (date, secs) in [
            ((1970, 1, 1, 0, 0, 0), 0),
            ((1994, 11, 6, 8, 49, 37), 784_111_777),
            ((2000, 2, 29, 23, 59, 59), 951_868_799),
            ((2024, 2, 29, 12, 0, 0), 1_709_208_000),
            ((1950, 1, 1, 0, 0, 0), -631_152_000),
            ((9999, 12, 31, 23, 59, 59), 253_402_300_799),
        ] {
            let (year, month, day, hours, minutes, seconds) = date;
            assert_eq!(unix_secs(year, month, day, hours, minutes, seconds), Some(secs), "{date:?}");
        }
        assert_eq!(unix_secs(2024, 13, 1, 0, 0, 0), None);
        assert_eq!(unix_secs(2024, 1, 1, 24, 0, 0), None);
    }
}
