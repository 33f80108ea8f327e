//! Durations as servers write them.

use std::{iter::repeat, time::Duration};

const SECOND: u64 = 1_000_000_000;

/// How many digits of a fraction count; what is beyond rounds them up.
const FRACTION_DIGITS: usize = 18;
const FRACTION: u128 = 10u128.pow(FRACTION_DIGITS as u32);

/// The duration that is the whole text, such as `34.07s`.
pub fn whole(text: &str) -> Option<Duration> {
    at_start(text).and_then(|(duration, rest)| rest.is_empty().then_some(duration))
}

/// The duration at the start of a text, such as `1m2.5s` or `26 seconds`, and
/// what follows it.
pub fn at_start(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest) = part(text)?;
    loop {
        let more = match rest.strip_prefix(' ').and_then(part) {
            Some(more) => more,
            None if rest.starts_with(|c: char| c.is_ascii_digit()) => part(rest)?,
            None => return Some((total, rest)),
        };
        total = total.checked_add(more.0)?;
        rest = more.1;
    }
}

/// The seconds that are the whole text, such as `26` or `0.5`.
pub fn seconds(text: &str) -> Option<Duration> {
    match Number::at_start(text)? {
        (number, "") => number.times(SECOND),
        _ => None,
    }
}

/// A number and its unit.
fn part(text: &str) -> Option<(Duration, &str)> {
    let (number, rest) = Number::at_start(text)?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let (name, rest) = split_after(rest, char::is_alphabetic);
    let duration = number.times(nanoseconds_of(name)?)?;
    Some((duration, rest))
}

fn nanoseconds_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => SECOND / 1_000_000,
        "ms" => SECOND / 1000,
        "s" | "second" | "seconds" => SECOND,
        "m" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hour" | "hours" => 3600 * SECOND,
        _ => return None,
    })
}

struct Number {
    whole: u64,

    /// In units of `1 / FRACTION`.
    fraction: u64,
}

impl Number {
    fn at_start(text: &str) -> Option<(Self, &str)> {
        let (whole, rest) = digits(text);
        let whole = whole.parse().ok()?;
        Some(match rest.strip_prefix('.').map(digits) {
            None | Some(("", _)) => (Self { whole, fraction: 0 }, rest),
            Some((fraction, rest)) => {
                let fraction = fraction_of(fraction);
                (Self { whole, fraction }, rest)
            }
        })
    }

    fn times(self, nanoseconds: u64) -> Option<Duration> {
        let unit = u128::from(nanoseconds);
        let fraction = (u128::from(self.fraction) * unit).div_ceil(FRACTION);
        let total = u128::from(self.whole) * unit + fraction;
        let second = u128::from(SECOND);
        let seconds = u64::try_from(total / second).ok()?;
        Some(Duration::new(seconds, (total % second) as u32))
    }
}

fn fraction_of(digits: &str) -> u64 {
    let (counted, beyond) = digits.split_at(digits.len().min(FRACTION_DIGITS));
    let padded = counted.bytes().chain(repeat(b'0')).take(FRACTION_DIGITS);
    let fraction = padded.fold(0, |sum, digit| 10 * sum + u64::from(digit - b'0'));
    fraction + u64::from(beyond.bytes().any(|digit| digit != b'0'))
}

fn digits(text: &str) -> (&str, &str) {
    split_after(text, |c| c.is_ascii_digit())
}

/// Splits after the longest start whose characters all belong.
fn split_after(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const NANOSECOND: Duration = Duration::from_nanos(1);

    #[test]
    fn every_unit_is_known() {
        for (text, expected) in [
            ("7ns", 7 * NANOSECOND),
            ("7us", Duration::from_micros(7)),
            ("7\u{b5}s", Duration::from_micros(7)),
            ("7\u{3bc}s", Duration::from_micros(7)),
            ("7ms", Duration::from_millis(7)),
            ("7s", Duration::from_secs(7)),
            ("7m", 7 * MINUTE),
            ("7h", 7 * HOUR),
            ("1 second", Duration::from_secs(1)),
            ("26 seconds", Duration::from_secs(26)),
            ("26seconds", Duration::from_secs(26)),
            ("1 minute", MINUTE),
            ("2 minutes", 2 * MINUTE),
            ("1 hour", HOUR),
            ("2 hours", 2 * HOUR),
        ] {
            assert_eq!(whole(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn parts_in_a_row_add_up() {
        for (text, expected) in [
            ("1m2.5s", MINUTE + Duration::from_millis(2500)),
            ("7m31.2s", 7 * MINUTE + Duration::from_millis(31_200)),
            ("1h0m0.000000001s", HOUR + NANOSECOND),
            ("1s1s1s", Duration::from_secs(3)),
            ("1 minute 30 seconds", MINUTE + Duration::from_secs(30)),
            ("1h 2m 3s", HOUR + 2 * MINUTE + Duration::from_secs(3)),
        ] {
            assert_eq!(whole(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_duration_ends_where_no_other_part_begins() {
        for (text, expected) in [
            ("20s. Visit", (20, ". Visit")),
            ("20s 3 times", (20, " 3 times")),
            ("20s\u{2026}", (20, "\u{2026}")),
            ("1 second, or", (1, ", or")),
            ("1s-2s", (1, "-2s")),
        ] {
            let (seconds, rest) = expected;
            let expected = Some((Duration::from_secs(seconds), rest));
            assert_eq!(at_start(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_none() {
        for text in [
            "", "s", " 5s", "5", "5.", "5.s", ".5s", "-5s", "+5s", "1e3s", "5  s", "5x", "5sx",
            "5S", "1m2", "1m2x", "NaN", "inf", "\u{665}s", "5\u{e9}", "5.5.5s",
        ] {
            assert_eq!(at_start(text), None, "{text}");
        }
    }

    #[test]
    fn a_fraction_below_a_nanosecond_rounds_up() {
        for (text, nanoseconds) in [
            ("0.0000000001s", 1),
            ("0.0000000010s", 1),
            ("0.00000000100000000000000001s", 2),
            ("1.5ns", 2),
            ("0.0000000000000000000000000001ns", 1),
            ("0.000000000000000000000000000ns", 0),
            ("0.000000000000001h", 1),
        ] {
            assert_eq!(whole(text), Some(nanoseconds * NANOSECOND), "{text}");
        }
    }

    #[test]
    fn what_overflows_is_none() {
        let most = u64::MAX;
        assert_eq!(whole(&format!("{most}s")), Some(Duration::from_secs(most)));
        assert_eq!(seconds(&format!("{most}")), Some(Duration::from_secs(most)));
        for text in [
            format!("{most}0s"),
            format!("{most}m"),
            format!("{most}h"),
            format!("{most}s1s"),
            format!("{most}.9999999999s"),
        ] {
            assert_eq!(whole(&text), None, "{text}");
        }
    }

    #[test]
    fn bare_numbers_are_seconds_only_where_asked_for() {
        assert_eq!(seconds("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(seconds("26"), Some(Duration::from_secs(26)));
        for text in ["", "-1", "1e3", "26s", "26 ", "1.", "NaN", "inf"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    /// A duration as Go's `time.Duration` prints it.
    fn in_go(duration: Duration) -> String {
        let decimal = |whole: u64, fraction: u32, width| {
            let text = format!("{whole}.{fraction:0width$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
        if seconds == 0 {
            return match nanos {
                0 => "0s".into(),
                1..1000 => format!("{nanos}ns"),
                1000..1_000_000 => decimal((nanos / 1000).into(), nanos % 1000, 3) + "\u{b5}s",
                _ => decimal((nanos / 1_000_000).into(), nanos % 1_000_000, 6) + "ms",
            };
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let seconds = decimal(seconds % 60, nanos, 9) + "s";
        match (hours, minutes) {
            (0, 0) => seconds,
            (0, _) => format!("{minutes}m{seconds}"),
            _ => format!("{hours}h{minutes}m{seconds}"),
        }
    }

    #[test]
    fn the_printer_of_the_test_prints_like_go() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
        ] {
            assert_eq!(in_go(Duration::from_nanos(nanoseconds)), expected);
        }
    }

    /// Of all magnitudes alike.
    fn durations() -> impl Strategy<Value = Duration> {
        let any = (any::<u64>(), 0..1_000_000_000u32, 0..64u32);
        any.prop_map(|(seconds, nanos, shift)| Duration::new(seconds >> shift, nanos))
    }

    proptest! {
        #[test]
        fn what_go_prints_is_read_back_exactly(duration in durations(), short in 0..1_000_000_000u64) {
            for duration in [duration, Duration::from_nanos(short), Duration::from_nanos(short / 997)] {
                prop_assert_eq!(whole(&in_go(duration)), Some(duration));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), like in "[0-9.]{0,40}[a-z\u{b5} ]{0,9}[0-9.hms ]{0,40}") {
            for text in [text, like] {
                if let Some((_, rest)) = at_start(&text) {
                    prop_assert!(text.ends_with(rest));
                }
                seconds(&text);
            }
        }
    }
}
