//! The contract as a function: slow and plain.
//!
//! It knows nothing of the library's code. Only the delays that jitter draws are told
//! to it.

use crate::{
    case::{Behavior, Call, Case, CaseError, Kind, OUT_OF_QUOTA, World},
    limiter::Law,
};
use crabllm_retry::{Backoff, DelaySource, GiveUpReason, Jitter, Operation, Policy};
use std::{mem, ops::RangeInclusive, slice, time::Duration};

/// A limit of this length is none, and no sleep is longer.
pub const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const MINUTE: Duration = Duration::from_secs(60);

/// All that can be seen of a call. Times are counted from its first poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub attempts: Vec<Try>,

    /// `None` if the call hangs or is dropped.
    pub result: Option<Result<(), CaseError>>,

    /// The items of the stream, and when they came.
    pub items: Vec<(Duration, Result<(), CaseError>)>,

    /// When all was over or dropped, the stream too. `None` if it hangs.
    pub ended: Option<Duration>,

    pub events: Vec<Told>,

    /// The sleeps that the timer is asked for if calls do not share them.
    pub sleeps: Vec<Duration>,

    /// The tokens that are left in the budget.
    pub tokens: Option<u32>,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    pub operation: Operation,
    pub started: Duration,
    /// `None` if it hangs.
    pub ended: Option<Duration>,
    pub cancelled: bool,
}

/// An event. It is told at `elapsed`.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub call: u64,
    pub operation: Operation,
    pub model: Option<String>,
    pub attempt: u32,
    pub elapsed: Duration,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Attempt,
    Retry(Duration, DelaySource, CaseError),
    Waiting(Duration),
    Success,
    GaveUp(GiveUpReason, CaseError),
    StreamStalled(Duration),
    StreamBroken(Option<CaseError>),
}

/// Draws a delay of this source from the range that jitter allows.
pub type Draw<'a> = &'a mut dyn FnMut(DelaySource, RangeInclusive<Duration>) -> Duration;

/// The time of a call, as its task sees it.
#[derive(Default)]
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

    /// The task sleeps, or yields if that is no time.
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
    fn wake_at_first(&mut self, moments: [Option<Duration>; 3]) -> Result<(), Gone> {
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
    behavior: &'a Behavior,
    /// When it can be handed out.
    due: Option<Duration>,
    second_poll: bool,
}

impl<'a> Awaited<'a> {
    /// The first poll: `None` if it is ready at once.
    fn pending(behavior: &'a Behavior, time: &mut Time) -> Option<Self> {
        let latency = behavior.latency.min(CENTURY);
        let at_once = latency.is_zero();
        if at_once && !matches!(behavior.kind, Kind::Hang) {
            return None;
        }
        if !at_once {
            time.now += time.world.blocking;
        }
        Some(Self {
            behavior,
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
        !matches!(self.behavior.kind, Kind::Hang)
    }
}

/// A success, and an item of content.
const OK: &Behavior = &Behavior {
    latency: Duration::ZERO,
    kind: Kind::Whole,
};

/// A wrapper and its current call.
pub struct Model<'a> {
    case: &'a Case,
    script: slice::Iter<'a, Behavior>,
    tokens: Option<u32>,
    calls: u64,

    operation: Operation,
    policy: &'a Policy,
    attempt: u32,
    /// When the attempt was first found pending, if its first content is limited.
    pending_since: Option<Duration>,
    time: Time,
    account: Account,

    /// Whether the timer grants turns by itself, not only when the task is polled.
    shareable: bool,
    /// The time of all earlier calls.
    earlier: Duration,
    /// The rate limiter for calls without a model, and with one. `None` while dormant.
    laws: [Option<Law>; 2],
    /// The laws at their last turns, if no attempt used those.
    unused: [Option<Law>; 2],
    /// The law at the turn of the attempt, if it needed one.
    ticket: Option<Law>,
    free_retries: u32,
}

impl<'a> Model<'a> {
    pub fn new(case: &'a Case, shareable: bool) -> Self {
        Self {
            case,
            script: case.script.iter(),
            tokens: case.budget.map(|budget| budget.capacity),
            calls: 0,
            operation: case.calls[0].operation,
            policy: &case.policy,
            attempt: 0,
            pending_since: None,
            time: Time::default(),
            account: Account::default(),
            shareable,
            earlier: Duration::ZERO,
            laws: [None; 2],
            unused: [None; 2],
            ticket: None,
            free_retries: 0,
        }
    }

    /// Makes a call, whose jitter `draw` draws.
    pub fn call(&mut self, call: &Call, draw: Draw<'_>) -> Account {
        self.calls += 1;
        self.operation = call.operation;
        self.policy = self.case.policy_for(call.operation);
        (self.attempt, self.ticket, self.free_retries) = (0, None, 0);
        self.time = Time {
            world: self.case.world,
            dropped: call.dropped,
            ..Time::default()
        };
        let gone = self.run(call.pause, draw).err();
        self.earlier += self.time.now;
        Account {
            ended: Some(self.time.now).filter(|_| gone != Some(Gone::Hangs)),
            tokens: self.tokens,
            ..mem::take(&mut self.account)
        }
    }

    /// All attempts, and the stream that the last one opens.
    fn run(&mut self, pause: Duration, draw: Draw<'_>) -> Result<(), Gone> {
        let mut refund = 1;
        if !self.turn()? {
            return self.give_up(CaseError::Timeout, GiveUpReason::Deadline);
        }
        for attempt in 1.. {
            self.attempt = attempt;
            self.tell(What::Attempt);
            let error = match self.attempt()? {
                Err(error) => error,
                Ok(answer) => match self.commit(answer.items())? {
                    Err(error) => error,
                    Ok(read) => {
                        self.give_back(refund);
                        self.tell(What::Success);
                        self.account.result = Some(Ok(()));
                        return self.read(answer, read, pause);
                    }
                },
            };
            let reason = match self.decide(error, draw) {
                Ok((delay, source, cost)) => {
                    self.tell(What::Retry(delay, source, error.clone()));
                    self.ask(delay);
                    let slept = self.time.sleep(delay.min(CENTURY));
                    let starts = slept.and_then(|()| self.turn());
                    if starts == Ok(true) {
                        refund = cost;
                        continue;
                    }
                    // The retry was paid for, and never starts.
                    self.give_back(cost);
                    starts?;
                    GiveUpReason::Deadline
                }
                Err(reason) => reason,
            };
            return self.give_up(error.clone(), reason);
        }
        unreachable!("each retry is an attempt")
    }

    fn give_up(&mut self, error: CaseError, reason: GiveUpReason) -> Result<(), Gone> {
        self.account.result = Some(Err(error.clone()));
        self.tell(What::GaveUp(reason, error));
        Ok(())
    }

    /// Waits for the turn of an attempt. Returns whether it comes before the deadline.
    fn turn(&mut self) -> Result<bool, Gone> {
        let (earlier, joined) = (self.earlier, self.now());
        let deadline = none_if_endless(self.policy.deadline).map(|end| earlier + end);
        let is_late = |time| deadline.is_some_and(|deadline| deadline <= time);
        if is_late(joined) {
            return Ok(false);
        }
        let index = usize::from(names_model(self.operation));
        let Some(law) = self.law() else {
            return Ok(true);
        };
        let (due, hold) = (law.due(), law.hold);
        if due <= joined {
            self.ticket = Some(law.grant(joined, None));
            self.unused[index] = None;
            return Ok(true);
        }
        if self.unused[index].is_some() {
            self.ticket = self.unused[index].take();
            return Ok(true);
        }
        if let Some(law) = &mut self.laws[index] {
            law.quiet_since = joined;
        }
        if is_late(hold) {
            return Ok(false);
        }
        let next = deadline.map_or(due, |deadline| deadline.min(due));
        self.ask(next - joined);
        let polled = self.time.wake(next - earlier);
        let now = self.now();
        // A shared timer grants it when it is due, unless the deadline has passed by then.
        let in_time = self.shareable && due == now - self.time.world.lag;
        let looked = if in_time { due } else { now };
        let is_granted = due <= looked && !is_late(looked) && (self.shareable || polled.is_ok());
        if let Some(law) = &mut self.laws[index] {
            law.quiet_since = looked;
            self.ticket = is_granted.then(|| law.grant(looked, Some(joined)));
        }
        if is_granted {
            self.unused[index] = None;
        }
        if polled.is_err() || !is_granted || is_late(now) {
            self.unused[index] = self.ticket.take().or(self.unused[index]);
            return polled.map(|_| false);
        }
        // A poll that grants the turn wakes its own task.
        self.time.awake = !self.shareable;
        self.tell(What::Waiting(now - joined));
        Ok(true)
    }

    /// The law for the model of the call, unless it has been quiet for a minute.
    fn law(&mut self) -> &mut Option<Law> {
        let (now, index) = (self.now(), usize::from(names_model(self.operation)));
        let law = &mut self.laws[index];
        if let Some(_forgotten) =
            law.take_if(|law| now - law.quiet_since >= MINUTE && law.hold <= now)
        {
            self.ticket = None;
            self.unused[index] = None;
        }
        law
    }

    /// Tells the rate limiter of a failure. Returns whether the model is awake after a
    /// throttled one.
    fn throttled(&mut self, error: &CaseError, requested: Option<Duration>) -> bool {
        let waiting_helps =
            !matches!(error, CaseError::Status { body, .. } if body == OUT_OF_QUOTA);
        if !self.case.limited || !error.is_throttled() || !waiting_helps {
            return false;
        }
        let now = self.now();
        let mut law = self.law().unwrap_or(Law::new(now));
        law.quiet_since = now;
        if let Some(ticket) = self.ticket.take() {
            law.refused(ticket);
        }
        if let Some(wait) = requested.filter(|&wait| wait <= self.policy.max_retry_after) {
            law.hold = law.hold.max(now + wait.min(CENTURY));
            if law.hold > now {
                self.unused[usize::from(names_model(self.operation))] = None;
            }
        }
        *self.law() = Some(law);
        true
    }

    /// The time since the first call began.
    fn now(&self) -> Duration {
        self.earlier + self.time.now
    }

    /// One attempt, from now to its answer; for a stream, to its opening.
    fn attempt(&mut self) -> Result<Result<&'a Kind, &'a CaseError>, Gone> {
        let behavior = self.script.next().unwrap_or(OK);
        let started = self.time.now;
        self.pending_since = None;
        let in_time = self.wait(behavior, None, &mut None, |call| {
            let timeout = call.left_for_content().or(call.timeout());
            call.limit(timeout)
        });
        self.account.attempts.push(Try {
            operation: self.operation,
            started,
            ended: Some(self.time.now).filter(|_| in_time != Err(Gone::Hangs)),
            cancelled: in_time != Ok(true),
        });
        Ok(match (in_time?, &behavior.kind) {
            (true, Kind::Error(error)) => Err(error),
            (true, answer) => Ok(answer),
            (false, _) => Err(&CaseError::Timeout),
        })
    }

    /// Waits for the first content of a stream that commits. Returns how many items were
    /// read.
    fn commit(&mut self, items: &'a [Behavior]) -> Result<Result<usize, &'a CaseError>, Gone> {
        if !self.commits() {
            return Ok(Ok(0));
        }
        let idle = none_if_endless(self.policy.stream_idle);
        let idle = idle.filter(|_| self.first_content().is_none());
        let mut late = None;
        for (index, item) in items.iter().enumerate() {
            let in_time = self.wait(item, idle, &mut late, |call| {
                let left = call.left_for_content();
                call.limit(left)
            });
            match (in_time?, &item.kind) {
                (true, Kind::Announcement) => {}
                (true, Kind::Error(error)) => return Ok(Err(error)),
                (true, _) => return Ok(Ok(index + 1)),
                (false, _) => return Ok(Err(&CaseError::Timeout)),
            }
        }
        Ok(Err(&CaseError::Disconnect))
    }

    /// Whether an attempt lasts until the first content of its stream.
    fn commits(&self) -> bool {
        opens_stream(self.operation) && (self.is_retried() || self.first_content().is_some())
    }

    fn first_content(&self) -> Option<Duration> {
        none_if_endless(self.policy.first_content)
    }

    /// The time left for the first content of an attempt that is pending now.
    fn left_for_content(&mut self) -> Option<Duration> {
        let limit = self.first_content().filter(|_| self.commits())?;
        let since = *self.pending_since.get_or_insert(self.time.now);
        Some(limit.saturating_sub(self.time.now - since))
    }

    /// The end of a limit from now on, or the deadline if that is earlier.
    fn limit(&mut self, own: Option<Duration>) -> Option<Duration> {
        let limit = own.into_iter().chain(self.left()).min()?;
        self.ask(limit);
        Some(self.time.now + limit)
    }

    /// Awaits an attempt or an item, until the stream was silent for `idle` or until `late`,
    /// which `start` sets when one is first pending. Returns whether it came in time.
    fn wait(
        &mut self,
        behavior: &Behavior,
        idle: Option<Duration>,
        late: &mut Option<Duration>,
        start: impl FnOnce(&mut Self) -> Option<Duration>,
    ) -> Result<bool, Gone> {
        let armed = late.filter(|&late| late > self.time.now);
        let Some(mut awaited) = Awaited::pending(behavior, &mut self.time) else {
            return Ok(true);
        };
        // A limit that an earlier item started, and that ends while this poll blocks,
        // wakes the task: it is polled again even if this poll already saw the end.
        self.time.awake |= armed.is_some_and(|end| end <= self.time.now);
        self.ask(idle.unwrap_or_default());
        let silent = idle.map(|idle| self.time.now + idle);
        *late = late.or_else(|| start(self));
        let mut last_turn = false;
        loop {
            if late.is_some_and(|late| late <= self.time.now) {
                return Ok(false);
            }
            self.time.wake_at_first([awaited.due, silent, *late])?;
            if awaited.is_ready(&mut self.time) {
                return Ok(true);
            }
            if silent.is_some_and(|silent| silent <= self.time.now) {
                if mem::replace(&mut last_turn, true) {
                    return Ok(false);
                }
                self.time.awake = true;
            }
        }
    }

    /// The limit of each attempt.
    fn timeout(&self) -> Option<Duration> {
        let timed = match class(self.operation) {
            Class::Chat | Class::Stream | Class::Passthrough => true,
            Class::Other => self.is_retried(),
        };
        none_if_endless(self.policy.timeout).filter(|_| timed)
    }

    /// The time before the deadline.
    fn left(&self) -> Option<Duration> {
        let deadline = none_if_endless(self.policy.deadline)?;
        Some(deadline.saturating_sub(self.time.now))
    }

    fn is_retried(&self) -> bool {
        self.policy.retry.contains(self.operation)
    }

    /// The delay before the next attempt, its source and its cost, or why there is
    /// no other attempt.
    fn decide(
        &mut self,
        error: &CaseError,
        draw: Draw<'_>,
    ) -> Result<(Duration, DelaySource, u32), GiveUpReason> {
        let policy = self.policy;
        let is_transient = error.is_transient();
        let retry_if = self.case.retry_if;
        if !retry_if.map_or(is_transient, |it| it.ask(is_transient)) {
            return Err(GiveUpReason::NotTransient);
        }
        let retries = self.attempt - 1 - self.free_retries;
        let requested = self.case.retry_after.or(error.retry_after());
        let is_awake = self.throttled(error, requested);
        let is_free = is_awake && policy.max_retries > 0 && self.free_retries < 10;
        if !self.is_retried() {
            return Err(GiveUpReason::NotRetried);
        }
        if retries == policy.max_retries && !is_free {
            return Err(GiveUpReason::Exhausted);
        }
        if requested.is_some_and(|requested| requested > policy.max_retry_after) {
            return Err(GiveUpReason::RetryAfterTooLong);
        }
        let backoff = match policy.throttle_backoff {
            Some(backoff) if error.is_throttled() => backoff,
            _ => policy.backoff,
        };
        let number = if is_free { 0 } else { retries };
        let drawn = draw(DelaySource::Backoff, range(backoff, number));
        let (delay, source) = match requested {
            Some(requested) if requested > drawn => {
                let range = match is_awake {
                    true => requested..=requested,
                    false => spread(backoff.jitter, requested, self.left()),
                };
                let source = DelaySource::RetryAfter;
                (draw(source, range), source)
            }
            _ => (drawn, DelaySource::Backoff),
        };
        if self.left().is_some_and(|left| delay >= left) {
            return Err(GiveUpReason::Deadline);
        }
        if is_free {
            self.free_retries += 1;
            return Ok((delay, source, 0));
        }
        let cost = self.pay(error).ok_or(GiveUpReason::Budget)?;
        Ok((delay, source, cost))
    }

    /// Takes the cost of a retry from the budget and returns it, or takes nothing.
    fn pay(&mut self, error: &CaseError) -> Option<u32> {
        let (Some(budget), Some(tokens)) = (self.case.budget, &mut self.tokens) else {
            return Some(0);
        };
        let cost = match error.is_throttled() {
            true => budget.throttle_cost,
            false => budget.cost,
        };
        *tokens = tokens.checked_sub(cost)?;
        Some(cost)
    }

    fn give_back(&mut self, refund: u32) {
        if let (Some(budget), Some(tokens)) = (self.case.budget, &mut self.tokens) {
            *tokens = tokens.saturating_add(refund).min(budget.capacity);
        }
    }

    /// Reads the stream to its end, if it is one. The first items were read before.
    fn read(&mut self, answer: &Kind, read: usize, pause: Duration) -> Result<(), Gone> {
        if !opens_stream(self.operation) {
            return Ok(());
        }
        let idle = none_if_endless(self.policy.stream_idle);
        let mut unbroken = true;
        for (index, item) in answer.items().iter().enumerate() {
            self.pause(pause)?;
            let in_time = index < read || self.wait(item, idle, &mut None, |_| None)?;
            let result = match &item.kind {
                _ if !in_time => Err(CaseError::Timeout),
                Kind::Error(error) => Err(error.clone()),
                _ => Ok(()),
            };
            self.account.items.push((self.time.now, result.clone()));
            if !in_time {
                self.tell(What::StreamStalled(self.policy.stream_idle));
                return self.pause(pause);
            }
            if result.is_err() && mem::take(&mut unbroken) {
                self.tell(What::StreamBroken(result.err()));
            }
        }
        // The consumer asks once more, to see the end.
        self.pause(pause)?;
        let tells_its_finish = self.operation == Operation::ChatCompletionStream;
        let finished = matches!(answer, Kind::Whole);
        if unbroken && self.commits() && tells_its_finish && !finished {
            self.tell(What::StreamBroken(None));
        }
        Ok(())
    }

    /// The consumer's pause.
    fn pause(&mut self, pause: Duration) -> Result<(), Gone> {
        match pause.is_zero() {
            true => Ok(()),
            false => self.time.sleep(pause),
        }
    }

    /// Asks for a timer, unless for no time at all.
    fn ask(&mut self, duration: Duration) {
        if !duration.is_zero() {
            self.account.sleeps.push(duration.min(CENTURY));
        }
    }

    fn tell(&mut self, what: What) {
        self.account.events.push(Told {
            call: self.calls,
            operation: self.operation,
            model: names_model(self.operation).then(|| "m".into()),
            attempt: self.attempt,
            elapsed: self.time.now,
            what,
        });
    }
}

/// The rows of the contract's table of operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    Chat,
    Stream,
    Passthrough,
    Other,
}

pub fn class(operation: Operation) -> Class {
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

fn names_model(operation: Operation) -> bool {
    operation != Operation::Models
}

pub fn none_if_endless(limit: Duration) -> Option<Duration> {
    (!limit.is_zero() && limit < CENTURY).then_some(limit)
}

impl Case {
    pub fn policy_for(&self, operation: Operation) -> &Policy {
        let own = self.own_policy.as_ref();
        own.filter(|_| names_model(operation))
            .unwrap_or(&self.policy)
    }
}

/// The range of the delays before retry number `retry`, counted from 0.
fn range(backoff: Backoff, retry: u32) -> RangeInclusive<Duration> {
    let doubled = (0..retry).fold(backoff.initial, |delay, _| delay.saturating_mul(2));
    let most = doubled.min(backoff.max);
    let least = match backoff.jitter {
        Jitter::None => most,
        // Half of it, to the next nanosecond.
        Jitter::Equal => most - most / 2,
        _ => Duration::ZERO,
    };
    least..=most
}

/// The range of the delays if the server asked to wait, with the time left.
fn spread(jitter: Jitter, requested: Duration, left: Option<Duration>) -> RangeInclusive<Duration> {
    let most = match (jitter, left) {
        (Jitter::None, _) => Duration::ZERO,
        (_, Some(left)) => left.saturating_sub(requested) / 2,
        (_, None) => Duration::MAX,
    };
    let more = (requested / 4).min(Duration::from_secs(5)).min(most);
    requested..=requested.saturating_add(more)
}

impl Kind {
    /// The items of the stream that this answer opens.
    fn items(&self) -> &[Behavior] {
        match self {
            Self::Answer(items) => items,
            _ => slice::from_ref(OK),
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

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
