//! The contract as a function: slow, and plain to see.
//!
//! It knows nothing of the library's code. Where chance decides, which is the
//! delay that jitter draws, it is told what was drawn.

use crate::case::{
    Behavior, Budget, Call, Case, CaseError, Delays, Kind, Retried, RetryIf, Rules, World,
};
use crabllm_retry::{DelaySource, GiveUpReason, Jitter, Operation};
use std::{mem, ops::RangeInclusive, slice, time::Duration};

/// Longer than any program waits: a bound of this length is none, and no sleep is
/// longer.
pub const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// All that can be seen of a call. Times are counted from its first poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub attempts: Vec<Try>,

    /// How the call ends; it may hang, or be dropped.
    pub result: Option<Result<(), CaseError>>,

    /// The items of the stream, and when they came.
    pub items: Vec<(Duration, Result<(), CaseError>)>,

    /// When it all was over or dropped, the stream too.
    pub ended: Option<Duration>,

    /// The events, and their times.
    pub events: Vec<(Duration, Told)>,

    /// The sleeps that the timer is asked for, each of a wait of its own.
    pub sleeps: Vec<Duration>,

    /// The tokens that are left in the budget.
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
    Attempt {
        attempt: u32,
        elapsed: Duration,
    },
    Retry {
        attempt: u32,
        delay: Duration,
        elapsed: Duration,
        error: CaseError,
        source: DelaySource,
    },
    Success {
        attempt: u32,
        elapsed: Duration,
    },
    GaveUp {
        attempt: u32,
        elapsed: Duration,
        error: CaseError,
        reason: GiveUpReason,
    },
    StreamStalled {
        attempt: u32,
        elapsed: Duration,
        idle: Duration,
    },
}

/// Draws a delay of this source from the range that jitter allows.
pub type Draw<'a> = &'a mut dyn FnMut(DelaySource, RangeInclusive<Duration>) -> Duration;

/// A wrapper, between its calls.
pub struct Model<'a> {
    case: &'a Case,
    script: slice::Iter<'a, Behavior>,
    tokens: Option<u32>,
}

/// The time of a call, as its task sees it.
struct Time {
    now: Duration,
    world: World,
    dropped: Option<Duration>,
    /// Whether the task has woken itself.
    awake: bool,
}

/// Why a call does not go on.
#[derive(Clone, Copy, PartialEq)]
enum Gone {
    Dropped,
    Hangs,
}

impl Time {
    /// The task is woken at `at`, unless it has woken itself, and polled after its
    /// executor's lag, unless the caller drops it.
    fn wake(&mut self, at: Duration) -> Result<(), Gone> {
        let at = if mem::take(&mut self.awake) {
            self.now
        } else {
            at
        };
        let woken = self.dropped.map_or(at, |dropped| dropped.min(at));
        self.now = self.now.max(woken) + self.world.lag;
        match self.dropped {
            Some(dropped) if dropped <= self.now => Err(Gone::Dropped),
            _ => Ok(()),
        }
    }

    /// The task sleeps, or yields where that is no time.
    fn sleep(&mut self, duration: Duration) -> Result<(), Gone> {
        let end = self.now + duration;
        loop {
            self.wake(end)?;
            if self.now >= end {
                return Ok(());
            }
        }
    }

    /// The task waits for the first of these moments.
    fn wake_at_first(&mut self, moments: [Option<Duration>; 2]) -> Result<(), Gone> {
        let next = moments.into_iter().flatten().min();
        let awake = self.awake.then_some(self.now);
        match awake.or(next).or(self.dropped) {
            Some(next) => self.wake(next),
            None => Err(Gone::Hangs),
        }
    }
}

/// An attempt or an item that is awaited.
struct Awaited<'a> {
    outcome: &'a Behavior,
    /// When it can be handed out.
    due: Option<Duration>,
    second_poll: bool,
}

impl<'a> Awaited<'a> {
    /// The first poll: `None` if it is ready at once.
    fn pending(outcome: &'a Behavior, time: &mut Time) -> Option<Self> {
        let latency = outcome.latency.min(CENTURY);
        let at_once = latency.is_zero();
        if at_once && !matches!(outcome.kind, Kind::Hang) {
            return None;
        }
        if !at_once {
            time.now += time.world.blocking;
        }
        Some(Self {
            outcome,
            due: (!at_once).then(|| time.now + latency),
            second_poll: time.world.second_poll,
        })
    }

    /// A later poll: whether it is ready.
    fn is_ready(&mut self, time: &mut Time) -> bool {
        if self.due.is_none_or(|due| due > time.now) {
            return false;
        }
        if mem::take(&mut self.second_poll) {
            time.awake = true;
            return false;
        }
        self.due = None;
        !matches!(self.outcome.kind, Kind::Hang)
    }
}

/// How an attempt ends.
enum End<'a> {
    Answer(&'a Kind),
    CaseError {
        fault: &'a CaseError,
        /// Whether it was the deadline that ended it.
        struck: bool,
    },
}

/// A failed attempt.
struct Failed<'a> {
    operation: Operation,
    fault: &'a CaseError,
    retries: u32,
    elapsed: Duration,
    struck: bool,
}

impl Failed<'_> {
    fn retry(&self, delay: Duration, source: DelaySource) -> What {
        What::Retry {
            attempt: self.retries + 1,
            delay,
            elapsed: self.elapsed,
            error: self.fault.clone(),
            source,
        }
    }

    fn gave_up(&self, reason: GiveUpReason) -> What {
        What::GaveUp {
            attempt: self.retries + 1,
            elapsed: self.elapsed,
            error: self.fault.clone(),
            reason,
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
        let mut time = Time {
            now: Duration::ZERO,
            world: self.case.world,
            dropped: call.dropped,
            awake: false,
        };
        let gone = self.attempts(call, &mut time, draw, &mut account).err();
        account.ended = Some(time.now).filter(|_| gone != Some(Gone::Hangs));
        account.tokens = self.tokens;
        account
    }

    /// All attempts, and the stream that the last one opens.
    fn attempts(
        &mut self,
        call: &Call,
        time: &mut Time,
        draw: Draw<'_>,
        account: &mut Account,
    ) -> Result<(), Gone> {
        let mut refund = 1;
        for retries in 0.. {
            let attempt = retries + 1;
            let elapsed = time.now;
            account.tell(call, time.now, What::Attempt { attempt, elapsed });
            let (fault, struck) = match self.attempt(call.operation, time, account)? {
                End::CaseError { fault, struck } => (fault, struck),
                End::Answer(answer) => {
                    self.give_back(refund);
                    let elapsed = time.now;
                    account.tell(call, time.now, What::Success { attempt, elapsed });
                    account.result = Some(Ok(()));
                    return self.read(call, attempt, answer, time, account);
                }
            };
            let mut failed = Failed {
                operation: call.operation,
                fault,
                retries,
                elapsed: time.now,
                struck,
            };
            let decision = self.decide(&failed, draw);
            let reason = match decision {
                Ok((delay, source, cost)) => {
                    account.tell(call, time.now, failed.retry(delay, source));
                    account.ask(delay);
                    let slept = time.sleep(delay.min(CENTURY));
                    failed.elapsed = time.now;
                    if slept.is_ok() && !self.is_over(time.now) {
                        refund = cost;
                        continue;
                    }
                    // The retry was paid for, and never starts.
                    self.give_back(cost);
                    slept?;
                    GiveUpReason::Deadline
                }
                Err(reason) => reason,
            };
            account.tell(call, time.now, failed.gave_up(reason));
            account.result = Some(Err(fault.clone()));
            return Ok(());
        }
        unreachable!("each retry is an attempt")
    }

    /// Whether the deadline has come.
    fn is_over(&self, now: Duration) -> bool {
        none_if_endless(self.case.rules.deadline).is_some_and(|deadline| now >= deadline)
    }

    /// One attempt, from now to its end.
    fn attempt(
        &mut self,
        operation: Operation,
        time: &mut Time,
        account: &mut Account,
    ) -> Result<End<'a>, Gone> {
        const EMPTY: &Behavior = &Behavior {
            latency: Duration::ZERO,
            kind: Kind::Answer(Vec::new()),
        };
        let outcome = self.script.next().unwrap_or(EMPTY);
        let started = time.now;
        let raced = self.race(operation, outcome, time, account);
        account.attempts.push(Try {
            operation,
            started,
            ended: Some(time.now).filter(|_| raced != Err(Gone::Hangs)),
            cancelled: raced != Ok(None),
        });
        Ok(match (raced?, &outcome.kind) {
            (Some(struck), _) => End::CaseError {
                fault: &CaseError::Timeout,
                struck,
            },
            (None, Kind::CaseError(fault)) => End::CaseError {
                fault,
                struck: false,
            },
            (None, answer) => End::Answer(answer),
        })
    }

    /// Races an attempt against its bound, which counts from the poll that found it
    /// pending. If the bound wins, says whether it was the deadline's.
    fn race(
        &self,
        operation: Operation,
        outcome: &Behavior,
        time: &mut Time,
        account: &mut Account,
    ) -> Result<Option<bool>, Gone> {
        let Some(mut awaited) = Awaited::pending(outcome, time) else {
            return Ok(None);
        };
        let deadline = none_if_endless(self.case.rules.deadline);
        let left = deadline.map(|deadline| deadline.saturating_sub(time.now));
        let bound = self.timeout(operation).into_iter().chain(left).min();
        bound.into_iter().for_each(|bound| account.ask(bound));
        let end = bound.map(|bound| time.now + bound);
        while end.is_none_or(|end| end > time.now) {
            time.wake_at_first([awaited.due, end])?;
            if awaited.is_ready(time) {
                return Ok(None);
            }
        }
        Ok(Some(bound == left))
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
        let delays = rules.delays(failed.fault);
        let drawn = draw(DelaySource::Backoff, delays.range(failed.retries));
        let (delay, source) = match asked {
            Some(asked) if asked > drawn => {
                let left = none_if_endless(rules.deadline)
                    .map(|deadline| deadline.saturating_sub(failed.elapsed));
                let spread = delays.spread(asked, left);
                let delay = draw(DelaySource::RetryAfter, spread);
                (delay, DelaySource::RetryAfter)
            }
            _ => (drawn, DelaySource::Backoff),
        };
        let end = failed.elapsed.saturating_add(delay);
        let past = none_if_endless(rules.deadline).is_some_and(|deadline| end >= deadline);
        if failed.struck || past {
            return Err(GiveUpReason::Deadline);
        }
        let cost = self.pay(failed.fault).ok_or(GiveUpReason::Budget)?;
        Ok((delay, source, cost))
    }

    fn is_transient(&self, fault: &CaseError) -> bool {
        match self.case.retry_if {
            None => fault.is_transient(),
            Some(RetryIf::Always) => true,
            Some(RetryIf::Never) => false,
            Some(RetryIf::Otherwise) => !fault.is_transient(),
        }
    }

    /// How long the server asked to wait: the user's word, else the error's.
    fn asked(&self, fault: &CaseError) -> Option<Duration> {
        let own = match fault {
            CaseError::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        match self.case.retry_after {
            Some(hook) if fault.is_throttled() || !hook.throttled => hook.word.or(own),
            _ => own,
        }
    }

    /// Takes the cost of a retry from the budget and says how much it was, or
    /// takes nothing.
    fn pay(&mut self, fault: &CaseError) -> Option<u32> {
        let (Some(budget), Some(tokens)) = (self.case.budget, &mut self.tokens) else {
            return Some(0);
        };
        let cost = if fault.is_throttled() {
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
    fn read(
        &self,
        call: &Call,
        attempt: u32,
        answer: &Kind,
        time: &mut Time,
        account: &mut Account,
    ) -> Result<(), Gone> {
        let Kind::Answer(items) = answer else {
            return Ok(());
        };
        if !opens_stream(call.operation) {
            return Ok(());
        }
        let pause = |time: &mut Time| match call.pause.is_zero() {
            true => Ok(()),
            false => time.sleep(call.pause),
        };
        for item in items {
            pause(time)?;
            if self.is_in_time(item, time, account)? {
                account.items.push((time.now, item.kind.result()));
            } else {
                let idle = self.case.rules.stream_idle;
                account.items.push((time.now, Err(CaseError::Timeout)));
                let stalled = What::StreamStalled {
                    attempt,
                    elapsed: time.now,
                    idle,
                };
                account.tell(call, time.now, stalled);
                break;
            }
        }
        // The consumer asks once more, to see the end.
        pause(time)
    }

    /// Awaits an item: whether it comes before its stream counts as stalled.
    fn is_in_time(
        &self,
        item: &Behavior,
        time: &mut Time,
        account: &mut Account,
    ) -> Result<bool, Gone> {
        let Some(mut awaited) = Awaited::pending(item, time) else {
            return Ok(true);
        };
        let idle = none_if_endless(self.case.rules.stream_idle);
        idle.into_iter().for_each(|idle| account.ask(idle));
        let end = idle.map(|idle| time.now + idle);
        while end.is_none_or(|end| end > time.now) {
            time.wake_at_first([awaited.due, end])?;
            if awaited.is_ready(time) {
                return Ok(true);
            }
        }
        // One more turn of the executor.
        time.wake(time.now)?;
        Ok(awaited.is_ready(time))
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

impl Account {
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
    pub fn delays(&self, fault: &CaseError) -> Delays {
        match self.throttle_backoff {
            Some(delays) if fault.is_throttled() => delays,
            _ => self.backoff,
        }
    }
}

impl Delays {
    /// The range of delays before retry number `retry`, counted from 0.
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

    /// The range of delays if the server asked to wait, with the time left.
    fn spread(self, asked: Duration, left: Option<Duration>) -> RangeInclusive<Duration> {
        let most = match (self.jitter, left) {
            (Jitter::None, _) => Duration::ZERO,
            (_, Some(left)) => left.saturating_sub(asked) / 2,
            (_, None) => Duration::MAX,
        };
        let more = (asked / 4).min(Duration::from_secs(5)).min(most);
        asked..=asked.saturating_add(more)
    }
}

impl Budget {
    fn capacity(self) -> u32 {
        self.capacity.unwrap_or(500)
    }
}

impl Kind {
    /// As the item of a stream.
    fn result(&self) -> Result<(), CaseError> {
        match self {
            Self::CaseError(fault) => Err(fault.clone()),
            _ => Ok(()),
        }
    }
}

impl CaseError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => [429, 500, 502, 503, 504].contains(status),
            Self::Disconnect | Self::Timeout => true,
            Self::Invalid => false,
        }
    }

    pub fn is_throttled(&self) -> bool {
        matches!(self, Self::Status { status: 429, .. })
    }
}
