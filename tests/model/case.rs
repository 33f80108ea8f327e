//! Random cases, and how they are drawn.

use crate::model::{CENTURY, Model, opens_stream};
use crabllm_retry::{Backoff, Jitter, Operation, Operations, Policy, RetryBudget, test_util::Step};
use proptest::{collection::vec, prelude::*, sample::select};
use std::time::Duration;

/// A wrapper, and the calls that are made of it one after the other.
#[derive(Clone, Debug)]
pub struct Case {
    pub rules: Rules,
    pub budget: Option<Budget>,
    pub retry_if: Option<RetryIf>,
    pub retry_after: Option<RetryAfter>,
    /// The behavior of the attempts of all calls; later ones succeed.
    pub script: Vec<Behavior>,
    pub calls: Vec<Call>,
    pub world: World,
    /// For the jitter.
    pub seed: u64,
}

/// How busy the executor is, and how the provider's futures behave.
#[derive(Clone, Copy, Debug, Default)]
pub struct World {
    /// The time from the wake of a task to its poll.
    pub lag: Duration,
    /// The time that an attempt or an item which is not ready at once blocks its
    /// first poll.
    pub blocking: Duration,
    /// Whether such an attempt or item takes a second poll to be handed out.
    pub second_poll: bool,
}

/// A policy, in words that the model can read.
#[derive(Clone, Debug)]
pub struct Rules {
    pub max_retries: u32,
    pub timeout: Duration,
    pub deadline: Duration,
    pub backoff: Delays,
    pub throttle_backoff: Option<Delays>,
    pub max_retry_after: Duration,
    pub stream_idle: Duration,
    pub retry: Retried,
}

#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub initial: Duration,
    pub max: Duration,
    pub jitter: Jitter,
}

/// The operations that are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Retried {
    Nothing,
    Chats,
    Streams,
    ChatsAndStreams,
    Everything,
    Only(Operation),
}

/// A budget; what is not set has its default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    pub capacity: Option<u32>,
    pub cost: Option<u32>,
    pub throttle_cost: Option<u32>,
}

/// The users' word on what is transient.
#[derive(Clone, Copy, Debug)]
pub enum RetryIf {
    Always,
    Never,
    /// An error that does not say so of itself.
    Otherwise,
}

/// The users' word on how long to wait: something, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct RetryAfter {
    pub word: Option<Duration>,
    /// Whether it is about throttling only.
    pub throttled: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub operation: Operation,
    /// How long the consumer of a stream takes for each item.
    pub pause: Duration,
    /// When the caller drops it all, counted from its first poll.
    pub dropped: Option<Duration>,
}

/// The outcome of an attempt or of an item of a stream, and after how long.
#[derive(Clone, Debug)]
pub struct Behavior {
    pub latency: Duration,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// With the items of the stream, if it is one.
    Answer(Vec<Behavior>),
    CaseError(CaseError),
    Hang,
}

/// The error of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum CaseError {
    Status {
        status: u16,
        body: String,
        retry_after: Option<Duration>,
    },
    Disconnect,
    Invalid,
    Timeout,
}

const TICK: Duration = Duration::from_nanos(1);

/// A case in the words of the library.
impl Rules {
    pub fn policy(&self) -> Policy {
        let policy = Policy::default()
            .max_retries(self.max_retries)
            .timeout(self.timeout)
            .deadline(self.deadline)
            .backoff(self.backoff.backoff())
            .max_retry_after(self.max_retry_after)
            .stream_idle(self.stream_idle)
            .retry(self.retry.operations());
        match self.throttle_backoff {
            Some(delays) => policy.throttle_backoff(delays.backoff()),
            None => policy,
        }
    }
}

impl Delays {
    fn backoff(self) -> Backoff {
        Backoff::exponential(self.initial, self.max).jitter(self.jitter)
    }
}

impl Retried {
    fn operations(self) -> Operations {
        match self {
            Self::Nothing => Operations::NONE,
            Self::Chats => Operations::CHAT,
            Self::Streams => Operations::STREAMS,
            Self::ChatsAndStreams => Operations::CHAT | Operations::STREAMS,
            Self::Everything => Operations::ALL,
            Self::Only(operation) => Operations::try_from(operation).unwrap_or(Operations::NONE),
        }
    }
}

impl Budget {
    pub fn tokens(self) -> RetryBudget {
        let mut budget = self
            .capacity
            .map_or_else(RetryBudget::default, RetryBudget::new);
        if let Some(cost) = self.cost {
            budget = budget.cost(cost);
        }
        if let Some(cost) = self.throttle_cost {
            budget = budget.throttle_cost(cost);
        }
        budget
    }
}

impl Behavior {
    pub fn step(&self) -> Step {
        let step = match &self.kind {
            Kind::Answer(items) => Step::stream(items.iter().map(Self::step)),
            Kind::CaseError(fault) => fault.step(),
            Kind::Hang => Step::hang(),
        };
        step.after(self.latency)
    }
}

impl CaseError {
    fn step(&self) -> Step {
        match self {
            Self::Status {
                status,
                body,
                retry_after,
            } => {
                let step = Step::status_with_body(*status, body);
                retry_after.map_or(step.clone(), |asked| step.retry_after(asked))
            }
            Self::Disconnect => Step::disconnect(),
            Self::Invalid => Step::invalid(),
            Self::Timeout => unreachable!("no script says so"),
        }
    }
}

/// The cases for a release with these operations, whose errors carry a
/// retry-after or do not.
pub fn cases(operations: &'static [Operation], hints: bool) -> impl Strategy<Value = Case> {
    let hooks = (
        prop::option::weighted(0.2, retry_if()),
        prop::option::weighted(0.2, retry_after()),
    );
    let drawn = (
        rules(operations),
        prop::option::of(budget()),
        hooks,
        vec(attempt(hints), 0..8),
        vec(call(operations), 1..4),
        world(),
        any::<u64>(),
    );
    (drawn, coincidence()).prop_map(|(drawn, coincidence)| {
        let (rules, budget, (retry_if, retry_after), script, calls, world, seed) = drawn;
        let case = Case {
            rules,
            budget,
            retry_if,
            retry_after,
            script,
            calls,
            world,
            seed,
        };
        match coincidence {
            Some(coincidence) => coincidence.with_deadline(case),
            None => case,
        }
    })
}

/// A deadline at a moment at which an attempt starts or ends without one, or
/// a nanosecond before or after.
#[derive(Clone, Copy, Debug)]
struct Coincidence {
    moment: usize,
    off_by: u64,
}

fn coincidence() -> impl Strategy<Value = Option<Coincidence>> {
    let drawn = (0..8usize, 0..3u64);
    prop::option::of(drawn.prop_map(|(moment, off_by)| Coincidence { moment, off_by }))
}

impl Coincidence {
    fn with_deadline(self, mut case: Case) -> Case {
        case.rules.deadline = Duration::ZERO;
        let attempts = Model::new(&case)
            .call(&case.calls[0], &mut |_, delays| *delays.end())
            .attempts;
        let moments: Vec<_> = attempts
            .iter()
            .flat_map(|attempt| [Some(attempt.started), attempt.ended])
            .flatten()
            .collect();
        let next = moments[self.moment % moments.len()] + Duration::from_nanos(1);
        case.rules.deadline = next.saturating_sub(Duration::from_nanos(self.off_by));
        case
    }
}

fn rules(operations: &'static [Operation]) -> impl Strategy<Value = Rules> {
    let bounds = (bound(), rare(duration()), limit(), bound());
    let backoffs = (delays(), prop::option::of(delays()));
    let max_retries = select(vec![0, 1, 2, 3, 5, u32::MAX]);
    let drawn = (max_retries, bounds, backoffs, retried(operations));
    drawn.prop_map(|(max_retries, bounds, backoffs, retry)| {
        let (timeout, deadline, max_retry_after, stream_idle) = bounds;
        let (backoff, throttle_backoff) = backoffs;
        Rules {
            max_retries,
            timeout,
            deadline,
            backoff,
            throttle_backoff,
            max_retry_after,
            stream_idle,
            retry,
        }
    })
}

/// Sometimes none.
fn bound() -> impl Strategy<Value = Duration> {
    one_in(5, Duration::ZERO)
}

/// Often none.
fn limit() -> impl Strategy<Value = Duration> {
    one_in(3, Duration::MAX)
}

fn one_in(n: u32, special: Duration) -> impl Strategy<Value = Duration> {
    (0..n, duration()).prop_map(move |(choice, usual)| match choice {
        0 => special,
        _ => usual,
    })
}

/// Mostly zero: none.
fn rare(duration: impl Strategy<Value = Duration>) -> impl Strategy<Value = Duration> {
    (0..3, duration).prop_map(|(choice, duration)| match choice {
        0 => duration,
        _ => Duration::ZERO,
    })
}

fn delays() -> impl Strategy<Value = Delays> {
    let jitter = select(vec![Jitter::None, Jitter::Equal, Jitter::Full]);
    (duration(), limit(), jitter).prop_map(|(initial, max, jitter)| Delays {
        initial,
        max,
        jitter,
    })
}

fn retried(operations: &'static [Operation]) -> impl Strategy<Value = Retried> {
    (0..12, select(operations)).prop_map(|(choice, operation)| match choice {
        0 => Retried::Nothing,
        1 => Retried::Chats,
        2 => Retried::Streams,
        3 => Retried::ChatsAndStreams,
        4 => Retried::Only(operation),
        _ => Retried::Everything,
    })
}

fn budget() -> impl Strategy<Value = Budget> {
    let number = || prop::option::of(select(vec![0, 1, 2, 5, 14, 20, u32::MAX]));
    (number(), number(), number()).prop_map(|(capacity, cost, throttle_cost)| Budget {
        capacity,
        cost,
        throttle_cost,
    })
}

fn retry_if() -> impl Strategy<Value = RetryIf> {
    select(vec![RetryIf::Always, RetryIf::Never, RetryIf::Otherwise])
}

fn retry_after() -> impl Strategy<Value = RetryAfter> {
    let word = prop::option::of(duration());
    (word, any::<bool>()).prop_map(|(word, throttled)| RetryAfter { word, throttled })
}

fn call(operations: &'static [Operation]) -> impl Strategy<Value = Call> {
    let pause = rare((0..5u64).prop_map(Duration::from_secs));
    let streams = operations
        .iter()
        .copied()
        .filter(|operation| opens_stream(*operation));
    let operation = prop_oneof![2 => select(operations), 1 => select(streams.collect::<Vec<_>>())];
    let dropped = prop::option::weighted(0.2, duration().prop_map(|d| d.clamp(TICK, CENTURY)));
    (operation, pause, dropped).prop_map(|(operation, pause, dropped)| Call {
        operation,
        pause,
        dropped,
    })
}

/// Mostly idle, with a provider that does not block.
fn world() -> impl Strategy<Value = World> {
    let short = || rare((0..5_000u64).prop_map(Duration::from_millis));
    let quirks = (short(), short(), any::<bool>());
    (0..3, quirks).prop_map(|(choice, (lag, blocking, second_poll))| match choice {
        0 => World {
            lag,
            blocking,
            second_poll,
        },
        _ => World::default(),
    })
}

fn attempt(hints: bool) -> impl Strategy<Value = Behavior> {
    let item = outcome(hints, Just(Kind::Answer(Vec::new())), 4);
    let answer = vec(item, 0..5).prop_map(Kind::Answer);
    outcome(hints, answer, 1)
}

fn outcome(
    hints: bool,
    answer: impl Strategy<Value = Kind>,
    answers: u32,
) -> impl Strategy<Value = Behavior> {
    let kind = prop_oneof![
        answers => answer,
        4 => fault(hints).prop_map(Kind::CaseError),
        1 => Just(Kind::Hang),
    ];
    (one_in(3, Duration::ZERO), kind).prop_map(|(latency, kind)| Behavior { latency, kind })
}

fn fault(hints: bool) -> impl Strategy<Value = CaseError> {
    const TRANSIENT: [u16; 5] = [429, 500, 502, 503, 504];
    const PERMANENT: [u16; 8] = [400, 408, 428, 430, 499, 501, 505, 529];
    let parts = (select(&TRANSIENT), select(&PERMANENT), 0..100u32);
    let asked = prop::option::of(duration());
    (0..12, parts, asked).prop_map(move |(choice, (transient, permanent, number), asked)| {
        let status = match choice {
            0 => return CaseError::Disconnect,
            1 => return CaseError::Invalid,
            2 => permanent,
            3..6 => 429,
            _ => transient,
        };
        CaseError::Status {
            status,
            body: if number < 10 {
                String::new()
            } else {
                number.to_string()
            },
            retry_after: asked.filter(|_| hints),
        }
    })
}

/// All durations are drawn from few, so that many are equal to others, or to
/// sums of others.
fn duration() -> impl Strategy<Value = Duration> {
    let rare = [
        Duration::ZERO,
        TICK,
        2 * TICK,
        Duration::from_micros(999),
        Duration::from_secs(30),
        Duration::from_secs(60),
        CENTURY - TICK,
        CENTURY,
        CENTURY + TICK,
        Duration::MAX,
    ];
    (0..36usize, 0..10_000_000_000u64).prop_map(move |(choice, nanos)| match choice {
        0..10 => rare[choice],
        10..30 => Duration::from_secs(choice as u64 % 5),
        _ => Duration::from_nanos(nanos),
    })
}
