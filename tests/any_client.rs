//! The engine for clients that are not a `Provider`, with errors of their own.

#![cfg(feature = "test-util")]

use crabllm_retry::{
    Backoff, Failure, Jitter, Operation, Operations, Policy, Retrying, test_util::VirtualTimer,
};
use futures::{
    FutureExt, StreamExt,
    executor::block_on,
    future::{pending, ready},
    stream::{self, BoxStream},
};
use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);
const LOOKUP: Operation = Operation::Other("lookup");

#[derive(Debug, PartialEq)]
enum ClientError {
    Timeout,
    Busy,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Error for ClientError {}

impl Failure for ClientError {
    fn timeout() -> Self {
        Self::Timeout
    }

    fn is_transient(&self) -> bool {
        true
    }
}

/// Busy for some attempts, then it answers with their number.
struct Client {
    busy: u32,
    attempts: AtomicU32,
}

impl Client {
    async fn lookup(&self) -> Result<u32, ClientError> {
        match self.attempts.fetch_add(1, Ordering::Relaxed) {
            attempt if attempt < self.busy => Err(ClientError::Busy),
            attempt => Ok(attempt),
        }
    }

    /// One item, and then silence.
    async fn open(&self) -> Result<Items, ClientError> {
        let first = self.lookup().await?;
        Ok(stream::iter([Ok(first)]).chain(stream::pending()).boxed())
    }
}

type Items = BoxStream<'static, Result<u32, ClientError>>;

fn wrapped(busy: u32) -> (VirtualTimer, Retrying<Client, VirtualTimer>) {
    let attempts = AtomicU32::new(0);
    let clock = VirtualTimer::new();
    let exactly = Backoff::exponential(SECOND, 20 * SECOND).jitter(Jitter::None);
    let retrying = Retrying::with_timer(Client { busy, attempts }, clock.clone()).backoff(exactly);
    (clock, retrying)
}

#[test]
fn a_call_of_another_client_is_retried_whatever_the_set_of_operations() {
    let (clock, retrying) = wrapped(2);
    let retrying = retrying.retry(Operations::NONE);
    let answer = block_on(retrying.call(LOOKUP, None, Client::lookup));
    assert_eq!((answer, clock.elapsed()), (Ok(2), 3 * SECOND));
}

#[test]
fn its_attempts_are_timed() {
    let (clock, retrying) = wrapped(0);
    let retrying = retrying.max_retries(0).timeout(7 * SECOND);
    let answer = block_on(retrying.call(LOOKUP, None, |_| pending::<Result<(), _>>()));
    assert_eq!(answer, Err(ClientError::Timeout));
    assert_eq!(clock.elapsed(), 7 * SECOND);
}

#[test]
fn its_errors_need_two_methods() {
    let failure: &dyn Failure = &ClientError::Busy;
    assert_eq!((failure.status(), failure.body()), (None, None));
    assert_eq!(failure.retry_after(), None);
    assert!(!failure.is_timeout() && !failure.is_throttled());
    assert!(!failure.is_not_implemented());
}

#[test]
fn the_model_chooses_the_policy_and_is_observed() {
    let (_, retrying) = wrapped(9);
    let retrying = retrying
        .policy_for("draft", Policy::default().max_retries(0))
        .observe(|event| {
            assert_eq!((event.operation(), event.model()), (LOOKUP, Some("draft")));
        });
    let answer = block_on(retrying.call(LOOKUP, Some("draft"), Client::lookup));
    assert_eq!(answer, Err(ClientError::Busy));
    assert_eq!(retrying.get_ref().attempts.load(Ordering::Relaxed), 1);
}

#[test]
fn a_stream_of_another_client_is_opened_again_and_its_silence_is_limited() {
    let (clock, retrying) = wrapped(1);
    let opened = retrying.open(LOOKUP, None, |_| true, Client::open);
    let mut items = block_on(opened).unwrap();
    assert_eq!(clock.elapsed(), SECOND);
    assert_eq!(block_on(items.next()), Some(Ok(1)));
    assert_eq!(block_on(items.next()), Some(Err(ClientError::Timeout)));
    assert_eq!(block_on(items.next()), None);
    assert_eq!(clock.elapsed(), 91 * SECOND);
}

#[test]
fn a_stream_stays_ended_and_the_inner_one_is_not_polled_again() {
    let (_, retrying) = wrapped(0);
    // Panics if it is polled after its end.
    let once = |_: &Client| {
        let items = stream::unfold(1, async |left: u32| Some((Ok(left), left.checked_sub(1)?)));
        ready(Ok::<Items, ClientError>(items.boxed()))
    };
    let mut items = block_on(retrying.open(LOOKUP, None, |_| true, once)).unwrap();
    assert_eq!(items.next().now_or_never(), Some(Some(Ok(1))));
    assert!((0..3).all(|_| items.next().now_or_never() == Some(None)));
}
