//! One pass over the body of a failure.

use super::{
    passes,
    value::{Cursor, value},
};
use crate::failure::Failure;
use std::time::Duration;

/// The longest part of a body that is read, in bytes.
const LONGEST: usize = 64 * 1024;

/// The meaning of a field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    /// A delay: a number in units of this many nanoseconds, a duration, or a date.
    Wait(u64),

    /// A duration with a unit, or a date.
    Duration,

    /// A point in time.
    Moment,

    /// A point in time, ignored unless the failure was throttled.
    LimitReset,

    Code,
    Type,
    Status,
    QuotaId,
    OriginalStatus,
}

const SECONDS: Field = Field::Wait(1_000_000_000);
const MILLISECONDS: Field = Field::Wait(1_000_000);

/// The names of fields, in lower case and with `_` for `-`.
#[rustfmt::skip]
const FIELDS: &[(&str, Field)] = &[
    ("retry_after", SECONDS), // the header of RFC 9110, as gateways copy it
    ("retryafter", SECONDS), // clients in JavaScript
    ("retry_after_seconds", SECONDS), // OpenRouter's `metadata`
    ("resets_in_seconds", SECONDS), // ChatGPT's plans
    ("estimated_time", SECONDS), // Hugging Face, while a model is loading
    ("retry_after_ms", MILLISECONDS), // OpenAI's and Azure's header
    ("retrydelay", Field::Duration), // `google.rpc.RetryInfo`
    ("quotaresetdelay", Field::Duration), // Google's Cloud Code
    ("quotaresettimestamp", Field::Moment),
    ("resets_at", Field::Moment), // ChatGPT's plans
    ("x_ratelimit_reset", Field::LimitReset), // OpenRouter's `metadata`
    ("code", Field::Code),
    ("type", Field::Type),
    ("status", Field::Status), // `google.rpc.Status`
    ("quotaid", Field::QuotaId), // `google.rpc.QuotaFailure`
    ("quota_id", Field::QuotaId),
    ("originalstatuscode", Field::OriginalStatus), // Bedrock's `ModelErrorException`
];

/// The words before a duration, in lower case, and whether "before" or "and" must follow
/// the duration.
#[rustfmt::skip]
const PHRASES: &[(&str, bool)] = &[
    ("try again in ", false), // OpenAI, Groq, Azure's gateway
    ("try again after ", false),
    ("retry in ", false), // Gemini
    ("retry after ", false), // Azure OpenAI
    ("please wait ", false), // gateways
    ("please wait for ", false),
    ("wait ", true),
    ("resets in ", false), // ChatGPT's plans
    ("resets after ", false),
    ("will reset in ", false),
    ("will reset after ", false), // Google's Cloud Code
];

/// The relevant statements of a body.
#[derive(Default)]
pub struct Reading {
    /// The longest delay that it asks for.
    pub wait: Option<Duration>,

    /// Whether the account has no credit, or its daily quota is used up.
    pub account_is_exhausted: bool,

    /// Whether the quota of a plan is used up, which passes if the server says when.
    pub plan_is_exhausted: bool,

    /// Whether the request is larger than the server ever accepts.
    pub is_too_large: bool,

    /// Whether a gateway reports a transient status of its model.
    pub original_status_passes: bool,

    status: Option<u16>,
    throttled: bool,

    /// The time since 1970.
    now: Duration,

    /// The last number after the word "Limit".
    limit: Option<u128>,

    /// Google's status `RESOURCE_EXHAUSTED`, and a quota for a day.
    resource_is_exhausted: bool,
    quota_is_per_day: bool,
}

impl Reading {
    /// Reads the body of a failure. `now` is the time since 1970.
    pub fn of(failure: &dyn Failure, now: Duration) -> Self {
        let mut reading = Self {
            status: failure.status(),
            throttled: failure.is_throttled(),
            now,
            ..Self::default()
        };
        reading.read(Cursor::new(failure.body().unwrap_or_default(), LONGEST));
        reading.account_is_exhausted |= reading.resource_is_exhausted && reading.quota_is_per_day;
        reading
    }

    /// Visits each word once and reads ahead from some. No read-ahead passes the next such
    /// word, so the time is linear.
    fn read(&mut self, mut cursor: Cursor<'_>) {
        let has_sentences = matches!(self.status, Some(429 | 498 | 503 | 529));
        while cursor.peek().is_some() {
            cursor.take_while(|byte| !is_of_word(byte));
            if cursor.previous() == Some('\\') {
                // The letter of an escape does not start a word.
                cursor.take(|byte| b"bfnrt".contains(&byte));
            }
            let start = cursor;
            let word = cursor.take_while(is_of_word);
            let before = start.previous();
            if before.is_some_and(|before| !before.is_ascii() && before.is_alphanumeric()) {
                // The rest of a word that starts with a non-ASCII letter.
                continue;
            }
            if let Some(field) = field(word) {
                self.read_field(field, before, cursor);
            }
            if has_sentences {
                self.read_sentence(start);
            }
            self.read_limit(word, cursor);
        }
    }

    fn read_field(&mut self, field: Field, before: Option<char>, mut cursor: Cursor<'_>) {
        let Some(mark) = cursor.enter_field(before) else {
            return;
        };
        let number = || whole(cursor, mark, Cursor::number);
        let duration = || whole(cursor, mark, Cursor::duration);
        let date = || whole(cursor, mark, |date| date.date(mark));
        let moment = || number().map_or_else(date, |number| Some(number.since_1970()));
        let wait = match field {
            Field::Wait(unit) => match number() {
                Some(number) => Some(number.times(unit)),
                None => duration().or_else(|| self.until(date()?)),
            },
            Field::Duration => duration().or_else(|| self.until(date()?)),
            Field::LimitReset if !self.throttled => None,
            Field::Moment | Field::LimitReset => moment().and_then(|moment| self.until(moment)),
            _ => None,
        };
        self.ask(wait);
        let word = cursor.take_while(is_of_word);
        if cursor.is_at_end(mark) {
            self.read_word(field, word);
        }
    }

    fn until(&self, moment: Duration) -> Option<Duration> {
        let wait = moment.checked_sub(self.now)?;
        (!wait.is_zero()).then_some(wait)
    }

    fn read_word(&mut self, field: Field, word: &[u8]) {
        let is_429 = self.status == Some(429);
        match (field, word) {
            (Field::Code | Field::Type, b"insufficient_quota") => self.account_is_exhausted = true,
            (Field::Code, b"1113") if is_429 => self.account_is_exhausted = true,
            (Field::Code | Field::Type, b"usage_limit_reached") => self.plan_is_exhausted = true,
            (Field::Code, b"1308") if is_429 => self.plan_is_exhausted = true,
            (Field::Code | Field::Type, b"context_length_exceeded") => self.is_too_large = true,
            (Field::Status, b"RESOURCE_EXHAUSTED") => self.resource_is_exhausted = true,
            (Field::QuotaId, id) => {
                self.quota_is_per_day |= id.windows(6).any(|part| part == b"PerDay");
            }
            (Field::OriginalStatus, status) => {
                let status = str::from_utf8(status).ok().and_then(|it| it.parse().ok());
                self.original_status_passes |= status.is_some_and(passes);
            }
            _ => {}
        }
    }

    fn read_sentence(&mut self, start: Cursor<'_>) {
        for &(phrase, needs_end) in PHRASES {
            let mut cursor = start;
            if cursor.take_words(phrase) {
                let wait = cursor.duration();
                cursor.skip_blanks();
                let ends = cursor.take_words("before") || cursor.take_words("and");
                if !needs_end || (ends && !cursor.peek().is_some_and(is_of_word)) {
                    self.ask(wait);
                }
            }
        }
    }

    /// OpenAI's and Groq's "Limit 30000, Requested 61337". In lower case they are ordinary
    /// words.
    fn read_limit(&mut self, word: &[u8], mut cursor: Cursor<'_>) {
        let is_limit = word == b"Limit";
        if !is_limit && word != b"Requested" {
            return;
        }
        cursor.take_while(|byte| b" :".contains(&byte));
        let number = cursor.take_while(|byte| byte.is_ascii_digit() || byte == b',');
        // Not `30k` or `1.5M`.
        cursor.take(|byte| byte == b'.');
        let goes_on = cursor
            .peek()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let number = (!number.is_empty() && !goes_on).then(|| value(number));
        if is_limit {
            self.limit = number;
        } else if let (Some(limit), Some(requested)) = (self.limit, number) {
            self.is_too_large |= requested > limit;
        }
    }

    fn ask(&mut self, wait: Option<Duration>) {
        self.wait = self.wait.max(wait);
    }
}

/// A value that fills its field.
fn whole<'a, T>(
    mut cursor: Cursor<'a>,
    mark: &[u8],
    value: impl FnOnce(&mut Cursor<'a>) -> Option<T>,
) -> Option<T> {
    value(&mut cursor).filter(|_| cursor.is_at_end(mark))
}

fn field(word: &[u8]) -> Option<Field> {
    let folded = || {
        word.iter().map(|byte| match byte {
            b'-' => b'_',
            byte => byte.to_ascii_lowercase(),
        })
    };
    let is_word = |name: &str| name.len() == word.len() && folded().eq(name.bytes());
    let mut fields = FIELDS.iter();
    fields
        .find(|(name, _)| is_word(name))
        .map(|&(_, field)| field)
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::failure::tests::Fake;
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts a look at a byte.
    pub fn count_step() {
        STEPS.set(STEPS.get() + 1);
    }

    #[test]
    #[rustfmt::skip]
    fn any_body_is_read_in_linear_time() {
        const LENGTH: usize = 4096;
        let starts = ["", "\"retry_after\":", "retry in ", "resets_at: \"", "code:", "Limit "];
        for piece in [
            "9", "\"", "\\", " ", "s", "a", "[", "\\n", "1s ", "1:", "1:1", "1:11:11:11 ",
            "try again in ", "retry in 1s ", "retry in 1 and ", "please wait ", "Limit 1,111,",
            "Requested ", "code:", "\"code\":a", "\u{1f980}", "resets_at:\"2", "retry-after:",
            "\"retry_after\":", "retryDelay:1m", "retry_after: 1e", "retry_after: 1.",
        ] {
            for start in starts {
                let body = start.to_owned() + &piece.repeat(LENGTH / piece.len());
                let failure = Fake { status: Some(429), body: Some(body), ..Fake::default() };
                STEPS.set(0);
                Reading::of(&failure, Duration::ZERO);
                let steps = STEPS.get() / LENGTH;
                assert!(steps < 16, "{start}{piece}: {steps} for each byte");
            }
        }
    }
}
