//! The contract as a function: slow, and plain to see.
//!
//! It knows nothing of the library's code. Where chance decides, which is the
//! delay that jitter draws, it is told what was drawn.

use crate::case::{Budget, Call, Case, Delays, Fault, Kind, Outcome, Retried, RetryIf, Rules};
use crabllm_retry::{DelaySource, GiveUpReason, Jitter, Operation};
use std::{ops::RangeInclusive, slice, time::Duration};

/// What no program waits for: a bound of this length is none, and no sleep is
/// longer.
pub const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What there is to see of a call. Times are counted from its first poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub attempts: Vec<Try>,

    /// How the call ends; it may hang.
    pub result: Option<Result<(), Fault>>,

    /// The items of the stream, and when they came.
    pub items: Vec<(Duration, Result<(), Fault>)>,

    /// When it all was over, the stream too.
    pub ended: Option<Duration>,

    /// What the observer is told, and when.
    pub events: Vec<(Duration, Told)>,

    /// The sleeps that the timer is asked for, each of a wait of its own.
    pub sleeps: Vec<Duration>,

    /// What is left in the budget.
    pub tokens: Option<u32>,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    pub operation: Operation,
    pub started: Duration,
    /// Nothing if it hangs.
    pub ended: Option<Duration>,
    pub cancelled: bool,
}

/// An event of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub operation: Operation,
    pub model: Option<String>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Retry {
        attempt: u32,
        delay: Duration,
        elapsed: Duration,
        error: Fault,
        why: DelaySource,
    },
    Success {
        attempt: u32,
        elapsed: Duration,
    },
    GaveUp {
        attempt: u32,
        elapsed: Duration,
        error: Fault,
        why: GiveUpReason,
    },
    StreamStalled {
        idle: Duration,
    },
}

/// Draws a delay from the range that jitter allows.
pub type Draw<'a> = &'a mut dyn FnMut(RangeInclusive<Duration>) -> Duration;

/// A wrapper, between its calls.
pub struct Model<'a> {
    case: &'a Case,
    script: slice::Iter<'a, Outcome>,
    tokens: Option<u32>,
}

/// How a wait for something ends, and after how long.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    Ready(Duration),
    Expired(Duration),
    Never,
}

/// How an attempt ends.
enum End<'a> {
    Answer(&'a Kind),
    Fault {
        fault: &'a Fault,
        /// Whether it was the deadline that ended it.
        struck: bool,
    },
    Never,
}

/// What is known when an attempt has failed.
struct Failed<'a> {
    operation: Operation,
    fault: &'a Fault,
    retries: u32,
    elapsed: Duration,
    struck: bool,
}

impl Failed<'_> {
    fn retry(&self, delay: Duration, why: DelaySource) -> What {
        What::Retry {
            attempt: self.retries + 1,
            delay,
            elapsed: self.elapsed,
            error: self.fault.clone(),
            why,
        }
    }

    fn gave_up(&self, why: GiveUpReason) -> What {
        What::GaveUp {
            attempt: self.retries + 1,
            elapsed: self.elapsed,
            error: self.fault.clone(),
            why,
        }
    }
}

impl<'a> Model<'a> {
    pub fn new(case: &'a Case) -> Self {
        Self {
            case,
            script: case.script.iter(),
            tokens: case.budget.map(Budget::capacity),
        }
    }

    /// Makes a call, whose jitter `draw` draws.
    pub fn call(&mut self, call: &Call, draw: Draw<'_>) -> Account {
        let mut account = Account::default();
        self.attempts(call, draw, &mut account);
        account.tokens = self.tokens;
        account
    }

    /// All attempts, and the stream that the last one opens.
    fn attempts(&mut self, call: &Call, draw: Draw<'_>, account: &mut Account) {
        let mut now = Duration::ZERO;
        let mut refund = 1;
        for retries in 0.. {
            let (fault, struck) = match self.attempt(call.operation, &mut now, account) {
                End::Fault { fault, struck } => (fault, struck),
                End::Never => return,
                End::Answer(answer) => {
                    self.give_back(refund);
                    let success = What::Success {
                        attempt: retries + 1,
                        elapsed: now,
                    };
                    account.tell(call, now, success);
                    account.result = Some(Ok(()));
                    return self.read(call, answer, now, account);
                }
            };
            let failed = Failed {
                operation: call.operation,
                fault,
                retries,
                elapsed: now,
                struck,
            };
            match self.decide(&failed, draw) {
                Ok((delay, why, cost)) => {
                    account.tell(call, now, failed.retry(delay, why));
                    account.ask(delay);
                    refund = cost;
                    now += delay.min(CENTURY);
                }
                Err(why) => {
                    account.tell(call, now, failed.gave_up(why));
                    account.result = Some(Err(fault.clone()));
                    account.ended = Some(now);
                    return;
                }
            }
        }
    }

    /// One attempt, which lasts from `now` to what is `now` then.
    fn attempt(
        &mut self,
        operation: Operation,
        now: &mut Duration,
        account: &mut Account,
    ) -> End<'a> {
        const EMPTY: &Outcome = &Outcome {
            latency: Duration::ZERO,
            kind: Kind::Answer(Vec::new()),
        };
        let outcome = self.script.next().unwrap_or(EMPTY);
        let left = none_if_endless(self.case.rules.deadline).map(|deadline| deadline - *now);
        let bound = self.timeout(operation).into_iter().chain(left).min();
        account.ask_for_bound(outcome, bound);
        let wait = wait(outcome, bound);
        account.attempt(operation, *now, wait);
        let (Wait::Ready(took) | Wait::Expired(took)) = wait else {
            return End::Never;
        };
        *now += took;
        match (wait, &outcome.kind) {
            (Wait::Ready(_), Kind::Fault(fault)) => End::Fault {
                fault,
                struck: false,
            },
            (Wait::Ready(_), answer) => End::Answer(answer),
            _ => End::Fault {
                fault: &Fault::Timeout,
                struck: bound == left,
            },
        }
    }

    /// The bound of each attempt.
    fn timeout(&self, operation: Operation) -> Option<Duration> {
        let timed = match class(operation) {
            Class::Chat | Class::Stream | Class::Passthrough => true,
            Class::Other => self.is_retried(operation),
        };
        none_if_endless(self.case.rules.timeout).filter(|_| timed)
    }

    fn is_retried(&self, operation: Operation) -> bool {
        let class = class(operation);
        class != Class::Passthrough
            && match self.case.rules.retry {
                Retried::Nothing => false,
                Retried::Chats => class == Class::Chat,
                Retried::Streams => class == Class::Stream,
                Retried::ChatsAndStreams => class == Class::Chat || class == Class::Stream,
                Retried::Everything => true,
                Retried::Only(one) => one == operation,
            }
    }

    /// The delay before the next attempt, who chose it and what it costs; or
    /// why there is no other attempt.
    fn decide(
        &mut self,
        failed: &Failed<'_>,
        draw: Draw<'_>,
    ) -> Result<(Duration, DelaySource, u32), GiveUpReason> {
        let rules = &self.case.rules;
        if !self.is_transient(failed.fault) {
            return Err(GiveUpReason::NotTransient);
        }
        if !self.is_retried(failed.operation) {
            return Err(GiveUpReason::NotRetried);
        }
        if failed.retries == rules.max_retries {
            return Err(GiveUpReason::Exhausted);
        }
        let asked = self.asked(failed.fault);
        if asked.is_some_and(|asked| asked > rules.max_retry_after) {
            return Err(GiveUpReason::RetryAfterTooLong);
        }
        let drawn = draw(rules.delays(failed.fault).range(failed.retries));
        let (delay, why) = match asked {
            Some(asked) if asked > drawn => (asked, DelaySource::RetryAfter),
            _ => (drawn, DelaySource::Backoff),
        };
        let end = failed.elapsed.saturating_add(delay);
        let past = none_if_endless(rules.deadline).is_some_and(|deadline| end > deadline);
        if failed.struck || past {
            return Err(GiveUpReason::Deadline);
        }
        let cost = self.pay(failed.fault).ok_or(GiveUpReason::Budget)?;
        Ok((delay, why, cost))
    }

    fn is_transient(&self, fault: &Fault) -> bool {
        match self.case.retry_if {
            None => fault.is_transient(),
            Some(RetryIf::Always) => true,
            Some(RetryIf::Never) => false,
            Some(RetryIf::Otherwise) => !fault.is_transient(),
        }
    }

    /// How long the server asked to wait: the user's word, else the error's.
    fn asked(&self, fault: &Fault) -> Option<Duration> {
        let own = match fault {
            Fault::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        match self.case.retry_after {
            Some(hook) if fault.is_throttling() || !hook.throttled => hook.word.or(own),
            _ => own,
        }
    }

    /// Takes the cost of a retry from the budget and says how much it was, or
    /// takes nothing.
    fn pay(&mut self, fault: &Fault) -> Option<u32> {
        let (Some(budget), Some(tokens)) = (self.case.budget, &mut self.tokens) else {
            return Some(0);
        };
        let cost = if fault.is_throttling() {
            budget.throttle_cost.unwrap_or(5)
        } else {
            budget.cost.unwrap_or(14)
        };
        *tokens = tokens.checked_sub(cost)?;
        Some(cost)
    }

    fn give_back(&mut self, refund: u32) {
        if let (Some(budget), Some(tokens)) = (self.case.budget, &mut self.tokens) {
            *tokens = tokens.saturating_add(refund).min(budget.capacity());
        }
    }

    /// Reads the stream to its end, if it is one.
    fn read(&self, call: &Call, answer: &Kind, mut now: Duration, account: &mut Account) {
        account.ended = Some(now);
        let Kind::Answer(items) = answer else { return };
        if !opens_stream(call.operation) {
            return;
        }
        let idle = none_if_endless(self.case.rules.stream_idle);
        for item in items {
            now += call.pause;
            account.ask_for_bound(item, idle);
            match wait(item, idle) {
                Wait::Ready(took) => {
                    now += took;
                    account.items.push((now, item.kind.result()));
                }
                Wait::Expired(idle) => {
                    now += idle;
                    account.items.push((now, Err(Fault::Timeout)));
                    account.tell(call, now, What::StreamStalled { idle });
                    break;
                }
                Wait::Never => {
                    account.ended = None;
                    return;
                }
            }
        }
        // The consumer asks once more, to see the end.
        account.ended = Some(now + call.pause);
    }
}

/// The rows of the contract's table of operations.
#[derive(PartialEq)]
enum Class {
    Chat,
    Stream,
    Passthrough,
    Other,
}

fn class(operation: Operation) -> Class {
    match operation.as_str() {
        "chat_completion_stream_passthrough" => Class::Passthrough,
        "chat_completion"
        | "chat_completion_raw"
        | "anthropic_messages"
        | "anthropic_messages_raw"
        | "gemini_generate_content"
        | "gemini_generate_content_raw"
        | "complete" => Class::Chat,
        "embedding" | "image_generation" | "audio_speech" | "audio_transcription" | "models" => {
            Class::Other
        }
        stream if stream.ends_with("_stream") || stream.ends_with("_stream_raw") => Class::Stream,
        unknown => panic!("{unknown} is not in the contract"),
    }
}

pub fn opens_stream(operation: Operation) -> bool {
    matches!(class(operation), Class::Stream | Class::Passthrough)
}

fn none_if_endless(bound: Duration) -> Option<Duration> {
    (!bound.is_zero() && bound < CENTURY).then_some(bound)
}

/// Waits for something no longer than allowed. Where both come at once, that
/// which is waited for does.
fn wait(outcome: &Outcome, bound: Option<Duration>) -> Wait {
    let latency = outcome.latency.min(CENTURY);
    let ready = match outcome.kind {
        Kind::Hang => None,
        _ => Some(latency),
    };
    match (ready, bound) {
        (Some(ready), None) => Wait::Ready(ready),
        (Some(ready), Some(bound)) if ready <= bound => Wait::Ready(ready),
        (_, Some(bound)) => Wait::Expired(bound),
        (None, None) => Wait::Never,
    }
}

impl Account {
    fn attempt(&mut self, operation: Operation, started: Duration, wait: Wait) {
        let (ended, cancelled) = match wait {
            Wait::Ready(took) => (Some(started + took), false),
            Wait::Expired(took) => (Some(started + took), true),
            Wait::Never => (None, true),
        };
        self.attempts.push(Try {
            operation,
            started,
            ended,
            cancelled,
        });
    }

    /// A timer for a bound, unless that which is waited for is there at once.
    fn ask_for_bound(&mut self, outcome: &Outcome, bound: Option<Duration>) {
        let at_once = outcome.latency.is_zero() && !matches!(outcome.kind, Kind::Hang);
        if let Some(bound) = bound.filter(|_| !at_once) {
            self.ask(bound);
        }
    }

    /// A timer, unless for no time at all.
    fn ask(&mut self, duration: Duration) {
        if !duration.is_zero() {
            self.sleeps.push(duration.min(CENTURY));
        }
    }

    fn tell(&mut self, call: &Call, now: Duration, what: What) {
        let named = call.operation != Operation::Models;
        let told = Told {
            operation: call.operation,
            model: named.then(|| "m".into()),
            what,
        };
        self.events.push((now, told));
    }
}

impl Rules {
    /// The delays after an attempt that failed so.
    pub fn delays(&self, fault: &Fault) -> Delays {
        match self.throttle_backoff {
            Some(delays) if fault.is_throttling() => delays,
            _ => self.backoff,
        }
    }
}

impl Delays {
    /// What may be drawn before retry number `retry`, counted from 0.
    pub fn range(self, retry: u32) -> RangeInclusive<Duration> {
        let doubled = (0..retry).fold(self.initial, |delay, _| delay.saturating_mul(2));
        let most = doubled.min(self.max);
        let least = match self.jitter {
            Jitter::None => most,
            // Half of it, to the next nanosecond.
            Jitter::Equal => most - most / 2,
            _ => Duration::ZERO,
        };
        least..=most
    }
}

impl Budget {
    fn capacity(self) -> u32 {
        self.capacity.unwrap_or(500)
    }
}

impl Kind {
    /// As the item of a stream.
    fn result(&self) -> Result<(), Fault> {
        match self {
            Self::Fault(fault) => Err(fault.clone()),
            _ => Ok(()),
        }
    }
}

impl Fault {
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => [429, 500, 502, 503, 504].contains(status),
            Self::Disconnect | Self::Timeout => true,
            Self::Invalid => false,
        }
    }

    pub fn is_throttling(&self) -> bool {
        matches!(self, Self::Status { status: 429, .. })
    }
}
