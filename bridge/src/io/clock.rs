//! Clocks: the monotonic one that drives all timers, and the calendar.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The present moment of the clock all timers use.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, UTC.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A moment as JVB's `current_timestamp` has it: `yyyy-MM-dd HH:mm:ss.SSS`, UTC.
pub fn timestamp(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Civil date from a day count, in years that begin in March so that the
    // leap day comes last; 719 468 days lie between 0000-03-01 and 1970-01-01.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_767_225_599_999, "2025-12-31 23:59:59.999"),
            (1_787_227_930_007, "2026-08-20 12:12:10.007"),
        ] {
            assert_eq!(timestamp(ms), text);
        }
    }
}
