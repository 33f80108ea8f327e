//! Parses delays as servers write them: numbers, durations and points in time.

use std::time::{Duration, SystemTime};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The names of units, in lower case, and their nanoseconds.
const UNITS: &[(&[&str], u64)] = &[
    (&["ns"], 1),
    (&["us"], SECOND / 1_000_000),
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

    /// Whether the text was longer than the limit.
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

    pub fn previous(&self) -> Option<char> {
        let before = &self.text[..self.at];
        let start = before.iter().rposition(|byte| byte & 0xC0 != 0x80)?;
        str::from_utf8(&before[start..]).ok()?.chars().next()
    }

    /// Takes the next byte if `belongs` accepts it.
    pub fn take(&mut self, belongs: impl Fn(u8) -> bool) -> bool {
        let takes = self.peek().is_some_and(belongs);
        self.at += usize::from(takes);
        takes
    }

    /// Takes all bytes that `belongs` accepts.
    pub fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.take(&belongs) {}
        &self.text[start..self.at]
    }

    /// Takes `words`, ignoring case, if they come next.
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

    /// Moves to the value of the field whose name ends here. `None` if no `:` follows, or if
    /// the name's closing quotation mark differs from the character `before` the name.
    /// Returns the value's opening mark with its escapes, empty if there is none.
    pub fn enter_field(&mut self, before: Option<char>) -> Option<&'a [u8]> {
        let mark = self.take_mark();
        if !mark.is_empty() && before != mark.last().copied().map(char::from) {
            return None;
        }
        self.skip_blanks();
        if !self.take(|byte| byte == b':') {
            return None;
        }
        self.skip_blanks();
        Some(self.take_mark())
    }

    /// Takes a quotation mark, however often it is escaped.
    fn take_mark(&mut self) -> &'a [u8] {
        let mut ahead = *self;
        ahead.take_while(|byte| byte == b'\\');
        if !ahead.take(|byte| b"\"'".contains(&byte)) {
            return &[];
        }
        let mark = &self.text[self.at..ahead.at];
        *self = ahead;
        mark
    }

    /// Whether the value that `mark` opened ends here.
    pub fn is_at_end(mut self, mark: &[u8]) -> bool {
        self.take_while(|byte| b" \t".contains(&byte));
        if !mark.is_empty() {
            return self.text[self.at..].starts_with(mark);
        }
        match self.peek() {
            Some(byte) => b",;}])<\\\"'\r\n".contains(&byte),
            None => !self.is_cut,
        }
    }

    /// A JSON number that is not negative.
    pub fn number(&mut self) -> Option<Number> {
        let whole = match self.take_words("0") {
            true => b"0",
            false => self.digits()?,
        };
        let fraction = self.after(b".", Self::digits).unwrap_or_default();
        let exponent = self.after(b"eE", |ahead| {
            let is_negative = ahead.take(|byte| byte == b'-');
            ahead.take(|byte| byte == b'+' && !is_negative);
            let exponent = i64::try_from(value(ahead.digits()?)).unwrap_or(i64::MAX);
            Some(if is_negative { -exponent } else { exponent })
        });
        let mut number = Number {
            exponent: exponent.unwrap_or_default(),
            ..Number::default()
        };
        for &digit in whole.iter().chain(fraction) {
            number.push(digit);
        }
        number.exponent = number.exponent.saturating_sub(fraction.len() as i64);
        Some(number)
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

    /// A duration in parts: `1m2.5s`, `1 hour, 5 minutes`, `1 day, 0:09:48`. A number that
    /// follows must be another part.
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
                _ if self.is_near_cut() => return None,
                _ => return Some(total),
            }
        }
    }

    /// Whether a duration that ends here may continue beyond the limit.
    fn is_near_cut(&self) -> bool {
        self.is_cut && self.text.len() - self.at < " and 30".len()
    }

    fn part(&mut self) -> Option<Duration> {
        let number = self.number()?;
        self.take(|byte| byte == b' ');
        // The micro sign and the Greek letter.
        if self.take_words("\u{b5}s") || self.take_words("\u{3bc}s") {
            return Some(number.times(SECOND / 1_000_000));
        }
        let unit = self.take_while(|byte| byte.is_ascii_alphabetic());
        let is_unit = |name: &&str| name.as_bytes().eq_ignore_ascii_case(unit);
        let mut units = UNITS.iter();
        let (_, nanoseconds) = units.find(|(names, _)| names.iter().any(is_unit))?;
        Some(number.times(*nanoseconds))
    }

    /// `h:mm:ss`, unless a zone, an offset or am/pm makes it a time of day.
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
        if ahead.take(|byte| byte.is_ascii_alphanumeric() || b"+-:".contains(&byte)) {
            return None;
        }
        ahead.take_while(|byte| byte.is_ascii_whitespace() || !byte.is_ascii());
        let word = ahead.take_while(|byte| byte.is_ascii_alphabetic() || byte == b'.');
        let is_zone = (2..=5).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
        let halves = ["am", "pm", "a.m.", "p.m."].map(str::as_bytes);
        let is_half = halves.iter().any(|half| word.eq_ignore_ascii_case(half));
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        (!is_zone && !is_half).then(|| Duration::from_secs(seconds))
    }

    /// A date that reaches to the end of the value, as the time since 1970.
    pub fn date(&mut self, mark: &[u8]) -> Option<Duration> {
        const LONGEST: usize = 48;
        let end =
            |byte: &u8| b"\"'\\\r\n<}".contains(byte) || (mark.is_empty() && b"]);".contains(byte));
        let text = &self.text[self.at..];
        let text = &text[..text.len().min(LONGEST)];
        let length = text.iter().position(end).unwrap_or(text.len());
        let date = str::from_utf8(&text[..length]).ok()?.trim_end();
        self.at += date.len();
        http_date(date).or_else(|| iso_8601(date))
    }
}

/// A decimal number: its first digits times a power of ten.
#[derive(Default)]
pub struct Number {
    digits: u128,
    exponent: i64,

    /// Whether a dropped digit was not zero.
    has_rest: bool,
}

impl Number {
    fn push(&mut self, digit: u8) {
        /// `Duration::MAX` has 29 digits in nanoseconds.
        const MOST: u128 = 10u128.pow(28);
        if self.digits < MOST {
            self.digits = 10 * self.digits + u128::from(digit - b'0');
        } else {
            self.has_rest |= digit != b'0';
            self.exponent = self.exponent.saturating_add(1);
        }
    }

    /// This many units of `unit` nanoseconds each, rounded up; [`Duration::MAX`] if too
    /// large.
    pub fn times(&self, unit: u64) -> Duration {
        let mut digits = self.digits + u128::from(self.has_rest);
        let mut exponent = self.exponent;
        let mut nanos = loop {
            match digits.checked_mul(u128::from(unit)) {
                Some(nanos) => break nanos,
                None => digits = digits.div_ceil(10),
            }
            exponent = exponent.saturating_add(1);
        };
        while exponent < 0 && nanos > 1 {
            nanos = nanos.div_ceil(10);
            exponent += 1;
        }
        while exponent > 0 && (1..u128::MAX).contains(&nanos) {
            nanos = nanos.saturating_mul(10);
            exponent -= 1;
        }
        let second = u128::from(SECOND);
        match u64::try_from(nanos / second) {
            Ok(seconds) => Duration::new(seconds, (nanos % second) as u32),
            Err(_) => Duration::MAX,
        }
    }

    /// As a point in time: seconds since 1970 if above 10^9, milliseconds if above 10^12.
    /// Smaller numbers are in the past.
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

/// An HTTP date, as the time since 1970.
pub fn http_date(date: &str) -> Option<Duration> {
    let time = httpdate::parse_http_date(date).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// An ISO 8601 date with a zone, as the time since 1970.
fn iso_8601(date: &str) -> Option<Duration> {
    let mut upper = [0; 40];
    let upper = upper.get_mut(..date.len())?;
    upper.copy_from_slice(date.as_bytes());
    upper.make_ascii_uppercase();
    let date = str::from_utf8(upper).ok()?;
    // The first sign or `Z` after the date begins the zone.
    let zone = 10 + date.get(10..)?.find(['+', '-', 'Z'])?;
    let (local, zone) = date.split_at(zone);
    let is_of_it = |byte: u8| byte.is_ascii_digit() || b"-:.T ".contains(&byte);
    if local.ends_with('.') || !local.bytes().all(is_of_it) {
        return None;
    }
    let time = humantime::parse_rfc3339_weak(local).ok()?;
    let time = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let (hours, minutes) = match zone.as_bytes() {
        b"Z" => return Some(time),
        [_, hours @ ..] if hours.len() == 2 => (hours, &b"00"[..]),
        [_, h, hh, minutes @ ..] if minutes.len() == 2 => (&[*h, *hh][..], minutes),
        [_, h, hh, b':', minutes @ ..] if minutes.len() == 2 => (&[*h, *hh][..], minutes),
        _ => return None,
    };
    let number = |digits: &[u8], most| {
        let number = str::from_utf8(digits).ok()?.parse::<u8>().ok()?;
        (number <= most).then_some(u64::from(number))
    };
    let offset = Duration::from_secs(3600 * number(hours, 23)? + 60 * number(minutes, 59)?);
    match zone.starts_with('-') {
        true => time.checked_add(offset),
        false => time.checked_sub(offset),
    }
}
