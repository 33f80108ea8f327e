//! Waits as servers write them: numbers, durations and points in time.

use std::time::{Duration, SystemTime};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The names of units, in lower case, and their nanoseconds.
const UNITS: &[(&[&str], u64)] = &[
    (&["ns"], 1),
    (&["us", "\u{b5}s", "\u{3bc}s"], SECOND / 1_000_000),
    (
        &["ms", "msec", "millisecond", "milliseconds"],
        SECOND / 1000,
    ),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["m", "min", "mins", "minute", "minutes"], MINUTE),
    (&["h", "hr", "hrs", "hour", "hours"], HOUR),
    (&["d", "day", "days"], DAY),
    (&["week", "weeks"], 7 * DAY),
];

/// A place in a text.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,

    /// Whether the text goes on after its end here.
    is_cut: bool,
}

impl<'a> Cursor<'a> {
    /// The start of a text, of which at most `limit` bytes are read.
    pub fn new(text: &'a str, limit: usize) -> Self {
        Self {
            text: &text.as_bytes()[..text.len().min(limit)],
            at: 0,
            is_cut: text.len() > limit,
        }
    }

    pub fn peek(&self) -> Option<u8> {
        #[cfg(test)]
        super::reading::tests::count_step();
        self.text.get(self.at).copied()
    }

    pub fn previous(&self) -> Option<u8> {
        self.text.get(self.at.checked_sub(1)?).copied()
    }

    /// Takes the next byte if it belongs.
    pub fn take(&mut self, belongs: impl Fn(u8) -> bool) -> bool {
        let takes = self.peek().is_some_and(belongs);
        self.at += usize::from(takes);
        takes
    }

    /// Takes all bytes up to the first that does not belong.
    pub fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.take(&belongs) {}
        &self.text[start..self.at]
    }

    /// Takes `words`, in lower or upper case, if they come next.
    pub fn take_words(&mut self, words: &str) -> bool {
        let mut ahead = *self;
        let takes = words
            .bytes()
            .all(|word| ahead.take(|byte| byte.eq_ignore_ascii_case(&word)));
        if takes {
            *self = ahead;
        }
        takes
    }

    pub fn skip_blanks(&mut self) {
        self.take_while(|byte| byte.is_ascii_whitespace());
    }

    /// Enters the value of the field whose name ends here, if it is a field. Returns
    /// whether the value is quoted.
    pub fn enter_field(&mut self) -> Option<bool> {
        self.take_quote();
        self.skip_blanks();
        if !self.take(|byte| byte == b':') {
            return None;
        }
        self.skip_blanks();
        Some(self.take_quote())
    }

    /// Takes a quotation mark, however often it is escaped.
    fn take_quote(&mut self) -> bool {
        let mut ahead = *self;
        ahead.take_while(|byte| byte == b'\\');
        let quoted = ahead.take(|byte| b"\"'".contains(&byte));
        if quoted {
            *self = ahead;
        }
        quoted
    }

    /// Whether the value of a field ends here.
    pub fn is_at_end(mut self, quoted: bool) -> bool {
        self.take_while(|byte| b" \t".contains(&byte));
        match self.peek() {
            _ if quoted => self.take_quote(),
            Some(byte) => b",;}])<\\\"'\r\n".contains(&byte),
            None => !self.is_cut,
        }
    }

    /// A number as in JSON, but not a negative one.
    pub fn number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let whole = match self.take_words("0") {
            true => b"0",
            false => self.digits()?,
        };
        let fraction = self.after(b".", Self::digits).unwrap_or_default();
        let has_exponent = self.after(b"eE", |ahead| {
            ahead.take(|byte| b"+-".contains(&byte));
            ahead.digits()
        });
        Some(Number {
            text: &self.text[start..self.at],
            whole,
            fraction,
            has_exponent: has_exponent.is_some(),
        })
    }

    fn digits(&mut self) -> Option<&'a [u8]> {
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        (!digits.is_empty()).then_some(digits)
    }

    /// Takes a mark and a value, or neither.
    fn after<T>(&mut self, mark: &[u8], value: impl Fn(&mut Self) -> Option<T>) -> Option<T> {
        let mut ahead = *self;
        let marked = ahead.take(|byte| mark.contains(&byte));
        let value = marked.then(|| value(&mut ahead)).flatten()?;
        *self = ahead;
        Some(value)
    }

    /// A duration in parts: `1m2.5s`, `1 hour, 5 minutes`, `1 day, 0:09:48`. If
    /// another number follows, it is a part too.
    pub fn duration(&mut self) -> Option<Duration> {
        let mut total = Duration::ZERO;
        loop {
            total = total.saturating_add(self.clock().or_else(|| self.part())?);
            let mut ahead = *self;
            ahead.take(|byte| byte == b' ');
            ahead.take(|byte| byte == b',');
            ahead.take(|byte| byte == b' ');
            ahead.take_words("and ");
            match ahead.peek() {
                Some(b'0'..=b'9') => *self = ahead,
                None if self.is_cut => return None,
                _ => return Some(total),
            }
        }
    }

    fn part(&mut self) -> Option<Duration> {
        let number = self.number()?;
        self.take(|byte| byte == b' ');
        // The micro sign and the Greek letter, in UTF-8.
        let is_of_unit =
            |byte: u8| byte.is_ascii_alphabetic() || b"\xC2\xB5\xCE\xBC".contains(&byte);
        let unit = self.take_while(is_of_unit);
        let is_unit = |name: &&str| name.as_bytes().eq_ignore_ascii_case(unit);
        let mut units = UNITS.iter();
        let (_, nanoseconds) = units.find(|(names, _)| names.iter().any(is_unit))?;
        Some(number.times(*nanoseconds))
    }

    /// Hours, minutes and seconds with colons, which are not the time of a day.
    fn clock(&mut self) -> Option<Duration> {
        let mut ahead = *self;
        let mut seconds = value(ahead.digits()?);
        for _ in ["minutes", "seconds"] {
            let sixtieth = ahead.after(b":", Self::digits)?;
            if !matches!(sixtieth, [b'0'..=b'5', _]) {
                return None;
            }
            seconds = seconds.saturating_mul(60).saturating_add(value(sixtieth));
        }
        // Rounded up.
        let has_fraction = ahead.after(b".", Self::digits).is_some();
        seconds = seconds.saturating_add(has_fraction.into());
        *self = ahead;
        let of_a_day = [" am", " pm", " utc", " gmt", "z", "+"];
        let is_of_a_day = of_a_day.iter().any(|words| ahead.take_words(words));
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        (!is_of_a_day).then(|| Duration::from_secs(seconds))
    }

    /// A date up to the end of a value, as the time since 1970.
    pub fn date(&mut self, quoted: bool) -> Option<Duration> {
        const LONGEST: usize = 48;
        let end = |byte: &u8| b"\"'\\\r\n<}".contains(byte) || (!quoted && b"]);".contains(byte));
        let text = &self.text[self.at..];
        let text = &text[..text.len().min(LONGEST)];
        let length = text.iter().position(end).unwrap_or(text.len());
        let date = str::from_utf8(&text[..length]).ok()?.trim_end();
        self.at += date.len();
        since_1970(date)
    }
}

/// A number in decimal digits.
pub struct Number<'a> {
    text: &'a [u8],
    whole: &'a [u8],
    fraction: &'a [u8],
    has_exponent: bool,
}

impl Number<'_> {
    /// So many units of some nanoseconds, rounded up. [`Duration::MAX`] if that is too
    /// large.
    pub fn times(&self, unit: u64) -> Duration {
        /// The digits of a fraction that count.
        const DIGITS: usize = 18;
        if self.has_exponent {
            let number = str::from_utf8(self.text)
                .ok()
                .and_then(|text| text.parse().ok());
            let seconds = number.unwrap_or(f64::MAX) * (unit as f64 / SECOND as f64);
            let nearest = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let is_short = nearest.as_secs_f64() < seconds;
            return nearest.saturating_add(Duration::from_nanos(is_short.into()));
        }
        let unit = u128::from(unit);
        let (fraction, rest) = self.fraction.split_at(self.fraction.len().min(DIGITS));
        let scale = 10u128.pow((DIGITS - fraction.len()) as u32);
        let rounding = u128::from(rest.iter().any(|&digit| digit != b'0'));
        let fraction = (value(fraction) * scale + rounding) * unit;
        let nanos = value(self.whole)
            .saturating_mul(unit)
            .saturating_add(fraction.div_ceil(10u128.pow(DIGITS as u32)));
        let second = u128::from(SECOND);
        match u64::try_from(nanos / second) {
            Ok(seconds) => Duration::new(seconds, (nanos % second) as u32),
            Err(_) => Duration::MAX,
        }
    }

    /// As a point in time: seconds since 1970 if it is above 10^9, or milliseconds if it is
    /// above 10^12. Smaller ones are past by now.
    pub fn since_1970(&self) -> Duration {
        let seconds = self.times(SECOND);
        match seconds.as_secs() {
            1_000_000_001..=1_000_000_000_000 => seconds,
            _ => self.times(SECOND / 1000),
        }
    }
}

/// The value of decimal digits; other bytes are skipped.
pub fn value(digits: &[u8]) -> u128 {
    let digits = digits.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |value: u128, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u128::from(digit - b'0'))
    })
}

/// A date of HTTP, or one of ISO 8601 with a zone.
pub fn since_1970(date: &str) -> Option<Duration> {
    if let Ok(time) = httpdate::parse_http_date(date) {
        return time.duration_since(SystemTime::UNIX_EPOCH).ok();
    }
    if let Some(utc) = date.strip_suffix(['Z', 'z']) {
        return iso_8601(utc);
    }
    // The first sign after the day is the zone's.
    let zone = 10 + date.get(10..)?.find(['+', '-'])?;
    let (local, zone) = date.split_at(zone);
    let hours_and_minutes = zone[1..].replacen(':', "", 1);
    let digits = hours_and_minutes.as_bytes();
    if digits.len() != 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (hours, minutes) = digits.split_at(2);
    let offset = Duration::from_secs((3600 * value(hours) + 60 * value(minutes)) as u64);
    match zone.starts_with('-') {
        true => iso_8601(local)?.checked_add(offset),
        false => iso_8601(local)?.checked_sub(offset),
    }
}

fn iso_8601(utc: &str) -> Option<Duration> {
    let is_of_it = |byte: u8| byte.is_ascii_digit() || b"-:.T ".contains(&byte);
    let time = utc
        .bytes()
        .all(is_of_it)
        .then(|| humantime::parse_rfc3339_weak(utc));
    time?.ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}
