//! Numbers with units as HOCON and Jitsi write them: `5 seconds`, `500ms`,
//! `20 mbps`, `10 MiB`, `75%`. All are `None` for what is not one, be it for
//! its size.

use std::time::Duration;

/// A duration; a bare number is in milliseconds (HOCON, "Duration format").
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let nanoseconds: u64 = match unit {
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        "us" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "second" | "seconds" => 1_000_000_000,
        "m" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return None,
    };
    number.times(nanoseconds).map(Duration::from_nanos)
}

/// A bandwidth in bit/s: `500 kbps`, `20 mbps`, in powers of 1000; a bare
/// number is in bit/s. Case does not matter.
pub fn parse_bandwidth(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "bps" => 1,
        "k" | "kbps" => 1_000,
        "m" | "mbps" => 1_000_000,
        "g" | "gbps" => 1_000_000_000,
        _ => return None,
    };
    number.times(factor)
}

/// A size in octets (HOCON, "Size in bytes format"): `kB` is 1000, `K`, `Ki`
/// and `KiB` are 1024; a bare number is in octets.
pub fn parse_octets(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "b" | "B" | "byte" | "bytes" => 1,
        "kB" | "kilobyte" | "kilobytes" => 1_000,
        "MB" | "megabyte" | "megabytes" => 1_000_000,
        "GB" | "gigabyte" | "gigabytes" => 1_000_000_000,
        "k" | "K" | "Ki" | "KiB" | "kibibyte" | "kibibytes" => 1 << 10,
        "m" | "M" | "Mi" | "MiB" | "mebibyte" | "mebibytes" => 1 << 20,
        "g" | "G" | "Gi" | "GiB" | "gibibyte" | "gibibytes" => 1 << 30,
        _ => return None,
    };
    number.times(factor)
}

/// A share of a whole: `75%` or `0.75`.
pub fn parse_fraction(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    match unit {
        "" => Some(number.value()),
        "%" => Some(number.value() / 100.0),
        _ => None,
    }
}

/// A decimal number: digits, then perhaps a point and more digits.
struct Decimal<'a> {
    text: &'a str,
}

impl Decimal<'_> {
    fn value(&self) -> f64 {
        self.text.parse().unwrap_or(f64::INFINITY)
    }

    /// Whole numbers exactly, others to the precision of `f64`.
    fn times(&self, factor: u64) -> Option<u64> {
        if self.text.bytes().all(|octet| octet.is_ascii_digit()) {
            return self.text.parse::<u64>().ok()?.checked_mul(factor);
        }
        let product = self.value() * factor as f64;
        // 2^64 itself is the least that no longer fits.
        (product < u64::MAX as f64).then_some(product as u64)
    }
}

/// Number and unit, white space aside.
fn split(text: &str) -> Option<(Decimal<'_>, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let well_formed = number.starts_with(|c: char| c.is_ascii_digit())
        && number.ends_with(|c: char| c.is_ascii_digit())
        && number.matches('.').count() <= 1;
    well_formed.then(|| (Decimal { text: number }, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("5 seconds", 5_000),
            ("500ms", 500),
            ("1 minute", 60_000),
            ("250", 250),
            (" 0.5s ", 500),
            ("24h", 86_400_000),
            ("2 days", 172_800_000),
            ("0 seconds", 0),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Some(duration), "{text}");
        }
        for text in [
            "",
            "s",
            "-5s",
            "5 fortnights",
            "1.2.3s",
            ".5s",
            "5.",
            "5 S",
            "300000 days",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn bandwidths() {
        for (text, bits) in [
            ("500 kbps", 500_000),
            ("20 mbps", 20_000_000),
            ("2500kbps", 2_500_000),
            ("1.5 Mbps", 1_500_000),
            ("30000", 30_000),
            ("1 gbps", 1_000_000_000),
        ] {
            assert_eq!(parse_bandwidth(text), Some(bits), "{text}");
        }
        for text in ["kbps", "5 parsecs", "-1 kbps", "99999999999999 gbps"] {
            assert_eq!(parse_bandwidth(text), None, "{text}");
        }
    }

    #[test]
    fn octets_and_fractions() {
        assert_eq!(parse_octets("10485760"), Some(10 << 20));
        assert_eq!(parse_octets("10 MiB"), Some(10 << 20));
        assert_eq!(parse_octets("10MB"), Some(10_000_000));
        assert_eq!(parse_octets("10 mb"), None);
        assert_eq!(parse_fraction("75%"), Some(0.75));
        assert_eq!(parse_fraction("0.75"), Some(0.75));
        assert_eq!(parse_fraction("75 percent"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_none(text in "[0-9. ]{0,30}[a-zA-Z%\\PC]{0,10}") {
            let _ = (parse_duration(&text), parse_bandwidth(&text), parse_octets(&text), parse_fraction(&text));
        }

        /// What is written in a unit reads as that many of it.
        #[test]
        fn units_scale_whole_numbers_exactly(count in 0u64..1 << 30, space in " {0,2}") {
            let read = |unit: &str| parse_duration(&format!("{count}{space}{unit}"));
            prop_assert_eq!(read("ns"), Some(Duration::from_nanos(count)));
            prop_assert_eq!(read("ms"), Some(Duration::from_millis(count)));
            prop_assert_eq!(read("s"), Some(Duration::from_secs(count)));
            prop_assert_eq!(parse_bandwidth(&format!("{count}{space}kbps")), Some(count * 1000));
            prop_assert_eq!(parse_octets(&format!("{count}{space}KiB")), Some(count * 1024));
        }
    }
}
