//! Random cases, and how they are drawn.

use crate::model::{CENTURY, Model, opens_stream};
use crabllm_retry::{Backoff, Jitter, Operation, Operations, Policy, RetryBudget, test_util::Step};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::time::Duration;

/// A wrapper, and the calls that are made of it one after the other.
#[derive(Clone, Debug)]
pub struct Case {
    pub policy: Policy,
    /// The policy for the model of all calls that name one.
    pub own_policy: Option<Policy>,
    pub budget: Option<Budget>,
    /// Whether it has a rate limiter.
    pub limited: bool,
    pub retry_if: Option<RetryIf>,
    /// The answer of the user's callback.
    pub retry_after: Option<Duration>,
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

#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub capacity: u32,
    pub cost: u32,
    pub throttle_cost: u32,
}

/// The user's callback that decides what is transient.
#[derive(Clone, Copy, Debug)]
pub enum RetryIf {
    Always,
    Never,
    /// The opposite of what the error says.
    Otherwise,
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
    /// With one item of content, after which the stream is complete.
    Whole,
    /// An item that is not content.
    Announcement,
    Error(CaseError),
    Hang,
}

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

impl RetryIf {
    /// The callback's answer about an error that says of itself whether it is transient.
    pub fn ask(self, is_transient: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Otherwise => !is_transient,
        }
    }
}

impl Budget {
    pub fn tokens(self) -> RetryBudget {
        RetryBudget::new(self.capacity)
            .cost(self.cost)
            .throttle_cost(self.throttle_cost)
    }
}

impl Behavior {
    /// A throttled attempt.
    fn refusal(seconds: u64) -> Self {
        let error = CaseError::Status {
            status: 429,
            body: String::new(),
            retry_after: None,
        };
        Self {
            latency: Duration::from_secs(seconds),
            kind: Kind::Error(error),
        }
    }

    pub fn step(&self) -> Step {
        let step = match &self.kind {
            Kind::Answer(items) => Step::stream(items.iter().map(Self::step)),
            Kind::Whole => Step::ok(),
            Kind::Announcement => Step::announcement(),
            Kind::Error(CaseError::Status {
                status,
                body,
                retry_after,
            }) => {
                let step = Step::status_with_body(*status, body);
                retry_after.map_or(step.clone(), |requested| step.retry_after(requested))
            }
            Kind::Error(CaseError::Disconnect) => Step::disconnect(),
            Kind::Error(CaseError::Invalid) => Step::invalid(),
            Kind::Error(CaseError::Timeout) => unreachable!("no script says so"),
            Kind::Hang => Step::hang(),
        };
        step.after(self.latency)
    }
}

prop_compose! {
    /// The cases for a release with these operations, whose errors carry a
    /// retry-after or do not.
    pub fn cases(operations: &'static [Operation], hints: bool)(
        policy in policy(operations),
        own_policy in option::weighted(0.2, policy(operations)),
        budget in option::of(budget()),
        retry_if in option::weighted(0.2, select(&[RetryIf::Always, RetryIf::Never, RetryIf::Otherwise])),
        retry_after in option::weighted(0.2, duration()),
        script in vec(attempt(hints), 0..8),
        calls in vec(call(operations), 1..4),
        world in prop_oneof![2 => Just(World::default()), 1 => world()],
        seed in any::<u64>(),
        coincidence in option::of((any::<usize>(), 0..3u64)),
        refusals in option::weighted(0.35, prop_oneof![3 => vec(0..3u64, 0..3), 1 => vec(0..3u64, 10..14)]),
    ) -> Case {
        let limited = refusals.is_some();
        let refusals = refusals.into_iter().flatten().map(Behavior::refusal);
        let script = refusals.chain(script).collect();
        let case = Case { policy, own_policy, budget, limited, retry_if, retry_after, script, calls, world, seed };
        match coincidence {
            Some((moment, off_by)) => case.with_coincidence(moment, off_by),
            None => case,
        }
    }
}

impl Case {
    /// Sets a deadline at a moment at which an attempt starts or ends without one, or
    /// a nanosecond before or after.
    fn with_coincidence(mut self, moment: usize, off_by: u64) -> Self {
        self.set_deadline(Duration::ZERO);
        let attempts = Model::new(&self, false)
            .call(&self.calls[0], &mut |_, delays| *delays.end())
            .attempts;
        let moments: Vec<_> = attempts
            .iter()
            .flat_map(|attempt| [Some(attempt.started), attempt.ended])
            .flatten()
            .collect();
        let next = moments[moment % moments.len()] + Duration::from_nanos(1);
        self.set_deadline(next.saturating_sub(Duration::from_nanos(off_by)));
        self
    }

    fn set_deadline(&mut self, deadline: Duration) {
        self.policy.deadline = deadline;
        if let Some(policy) = &mut self.own_policy {
            policy.deadline = deadline;
        }
    }
}

prop_compose! {
    fn policy(operations: &'static [Operation])(
        max_retries in select(&[0, 1, 2, 3, 5, u32::MAX]),
        timeout in prop_oneof![1 => Just(Duration::ZERO), 4 => duration()],
        deadline in mostly_zero(duration()),
        backoff in backoff(),
        throttle_backoff in option::of(backoff()),
        max_retry_after in prop_oneof![1 => Just(Duration::MAX), 2 => duration()],
        stream_idle in prop_oneof![1 => Just(Duration::ZERO), 4 => duration()],
        first_content in prop_oneof![3 => Just(Duration::ZERO), 1 => duration()],
        retry in retried(operations),
    ) -> Policy {
        let policy = Policy::default()
            .max_retries(max_retries)
            .timeout(timeout)
            .deadline(deadline)
            .backoff(backoff)
            .max_retry_after(max_retry_after)
            .stream_idle(stream_idle)
            .first_content(first_content)
            .retry(retry);
        match throttle_backoff {
            Some(backoff) => policy.throttle_backoff(backoff),
            None => policy,
        }
    }
}

prop_compose! {
    fn backoff()(
        initial in duration(),
        max in prop_oneof![1 => Just(Duration::MAX), 2 => duration()],
        jitter in select(&[Jitter::None, Jitter::Equal, Jitter::Full]),
    ) -> Backoff {
        Backoff::exponential(initial, max).jitter(jitter)
    }
}

fn retried(operations: &'static [Operation]) -> impl Strategy<Value = Operations> {
    let only = |operation| Operations::try_from(operation).unwrap_or(Operations::NONE);
    prop_oneof![
        7 => Just(Operations::ALL),
        1 => Just(Operations::NONE),
        1 => Just(Operations::CHAT),
        1 => Just(Operations::STREAMS),
        1 => Just(Operations::CHAT | Operations::STREAMS),
        1 => select(operations).prop_map(only),
    ]
}

fn budget() -> impl Strategy<Value = Budget> {
    let tokens = || select(&[0, 1, 2, 5, 14, 20, 500, u32::MAX]);
    (tokens(), tokens(), tokens()).prop_map(|(capacity, cost, throttle_cost)| Budget {
        capacity,
        cost,
        throttle_cost,
    })
}

prop_compose! {
    fn call(operations: &'static [Operation])(
        operation in prop_oneof![
            2 => select(operations),
            1 => select(streams(operations)),
            1 => Just(Operation::ChatCompletionStream),
        ],
        pause in mostly_zero((0..5u64).prop_map(Duration::from_secs)),
        dropped in option::weighted(0.2, duration().prop_map(|d| d.clamp(TICK, CENTURY))),
    ) -> Call {
        Call { operation, pause, dropped }
    }
}

fn streams(operations: &[Operation]) -> Vec<Operation> {
    let streams = operations.iter().copied();
    streams
        .filter(|&operation| opens_stream(operation))
        .collect()
}

prop_compose! {
    fn world()(
        lag in mostly_zero((0..5_000u64).prop_map(Duration::from_millis)),
        blocking in mostly_zero((0..5_000u64).prop_map(Duration::from_millis)),
        second_poll in any::<bool>(),
    ) -> World {
        World { lag, blocking, second_poll }
    }
}

fn attempt(hints: bool) -> impl Strategy<Value = Behavior> {
    let item = prop_oneof![Just(Kind::Whole), Just(Kind::Announcement)];
    let items = vec(behavior(hints, item, 6), 0..5).prop_map(Kind::Answer);
    behavior(hints, prop_oneof![4 => items, 1 => Just(Kind::Whole)], 2)
}

fn behavior(
    hints: bool,
    answer: impl Strategy<Value = Kind>,
    answers: u32,
) -> impl Strategy<Value = Behavior> {
    let latency = prop_oneof![1 => Just(Duration::ZERO), 2 => duration()];
    let kind = prop_oneof![
        answers => answer,
        4 => error(hints).prop_map(Kind::Error),
        1 => Just(Kind::Hang),
    ];
    (latency, kind).prop_map(|(latency, kind)| Behavior { latency, kind })
}

/// The body of a failure that no wait mends.
pub const OUT_OF_QUOTA: &str = r#"{"code": "insufficient_quota"}"#;

fn error(hints: bool) -> impl Strategy<Value = CaseError> {
    let statuses = prop_oneof![
        3 => Just(429),
        6 => select(&[429, 500, 502, 503, 504]),
        1 => select(&[400, 408, 428, 430, 499, 501, 505, 529]),
    ];
    let status = (statuses, 0..100u32, option::of(duration())).prop_map(
        move |(status, number, retry_after)| CaseError::Status {
            status,
            body: match number {
                ..10 => OUT_OF_QUOTA.to_owned(),
                _ => number.to_string(),
            },
            retry_after: retry_after.filter(|_| hints),
        },
    );
    prop_oneof![
        10 => status,
        1 => Just(CaseError::Disconnect),
        1 => Just(CaseError::Invalid),
    ]
}

const TICK: Duration = Duration::from_nanos(1);

/// Mostly one of few, so that many durations equal others, or sums of others.
fn duration() -> impl Strategy<Value = Duration> {
    const RARE: &[Duration] = &[
        Duration::ZERO,
        TICK,
        Duration::from_nanos(2),
        Duration::from_micros(999),
        Duration::from_secs(30),
        Duration::from_secs(60),
        CENTURY.saturating_sub(TICK),
        CENTURY,
        CENTURY.saturating_add(TICK),
        Duration::MAX,
    ];
    prop_oneof![
        5 => (0..5u64).prop_map(Duration::from_secs),
        2 => select(RARE),
        1 => (0..10_000_000_000u64).prop_map(Duration::from_nanos),
    ]
}

fn mostly_zero(duration: impl Strategy<Value = Duration>) -> impl Strategy<Value = Duration> {
    prop_oneof![2 => Just(Duration::ZERO), 1 => duration]
}
