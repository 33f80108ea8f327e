//! Many calls in flight at the same time.

use crate::{
    TIMEOUT,
    executor::Executor,
    paired::{Group, Side},
    report::Report,
    server::{Never, Server, request},
};
use crabllm_retry::{
    Policy, Retrying,
    crabllm_core_0_0_19::{ChatCompletionRequest, Provider},
};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};
use tokio::time::{sleep, timeout};

/// Room for calls that are in flight at the same time.
///
/// It is allocated once: neither a call's start nor its end is charged for it.
pub struct Flock<S, F> {
    start: S,
    slots: Vec<Pin<Box<Option<F>>>>,
}

impl<F: Future, S: Fn() -> F> Flock<S, F> {
    pub fn new(size: usize, start: S) -> Self {
        let slots = (0..size).map(|_| Box::pin(None)).collect();
        Self { start, slots }
    }

    /// Starts the calls, and polls each once.
    pub fn arm(&mut self, cx: &mut Context<'_>) {
        for slot in &mut self.slots {
            slot.set(Some((self.start)()));
            let call = slot.as_mut().as_pin_mut();
            assert!(call.is_some_and(|call| call.poll(cx).is_pending()));
        }
    }

    /// Drops the calls, the oldest first.
    pub fn cancel(&mut self) {
        for slot in &mut self.slots {
            slot.set(None);
        }
    }
}

/// Runs `f` within the executor, once for all.
///
/// A tokio runtime is left in the state in which it usually is: it has slept,
/// and knows of a timer that ends before those that `f` arms, so that arming
/// one does not wake it.
pub fn within(executor: &Executor, mut f: impl FnMut(&mut Context<'_>)) {
    executor.block_on(async {
        let mut earlier = pin!(sleep(TIMEOUT / 2));
        poll_fn(|cx| Poll::Ready(earlier.as_mut().poll(cx).is_pending())).await;
        tokio::task::yield_now().await;
        poll_fn(|cx| {
            f(cx);
            Poll::Ready(())
        })
        .await;
    });
}

/// How many calls are made for each entry into the executor, unless more than
/// that are in flight.
const CALLS: usize = 10_000;

/// How many calls wait with a longer timeout.
const WAITING: usize = 100_000;

/// The sides that start calls and drop them.
struct Flights<'a> {
    group: Group<'a>,
    executor: &'a Executor,
}

impl<'a> Flights<'a> {
    fn new(title: &str, executor: &'a Executor) -> Self {
        Self {
            group: Group::new(title),
            executor,
        }
    }

    fn add<F: Future + 'a>(
        &mut self,
        name: &str,
        bare: impl Into<Option<Side>>,
        size: usize,
        start: impl Fn() -> F + 'a,
    ) -> Side {
        let executor = self.executor;
        let mut flock = Flock::new(size, start);
        let passes = CALLS.div_ceil(size);
        let name = format!("{name}, {size}");
        self.group.add(name, bare, size * passes, move || {
            within(executor, |cx| {
                for _ in 0..passes {
                    flock.arm(cx);
                    flock.cancel();
                }
            });
        })
    }
}

/// The cost of arming a timeout and of cancelling it, by the number of calls
/// that are in flight.
pub fn cost(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    let (server, request) = (Server(Never), request());
    // A list that was larger before would give memory back, and grow again.
    let sizes = [1_000, 100_000, 1_000_000].map(|size| (size, Retrying::new(Server(Never))));
    let mut flights = Flights::new(
        "started, polled once and dropped, so many in flight, on a tokio current-thread runtime",
        &executor,
    );
    let [small, middle, large] = sizes.each_ref().map(|&(size, ref ours)| {
        let bare = flights.add("bare", None, size, || server.chat_completion(&request));
        let ours = flights.add("ours", bare, size, || ours.chat_completion(&request));
        let bounded = || timeout(TIMEOUT, server.chat_completion(&request));
        let tokio = flights.add("tokio::time::timeout", bare, size, bounded);
        (ours, tokio)
    });
    let measured = flights.group.measure(rounds);
    report.section(&measured, small.0);
    report.ratio(
        "inflight_100k_vs_tokio",
        measured.overhead_ratio(middle.0, middle.1),
    );
    report.ratio(
        "inflight_1m_vs_1k",
        measured.overhead_ratio(large.0, small.0),
    );
}

/// The same cost while calls with a longer timeout wait: every deadline is
/// earlier than those, though it is set later.
pub fn cost_among_longer(rounds: usize, report: &mut Report) {
    const SIZE: usize = 1_000;
    let executor = Executor::tokio();
    let (server, request) = (Server(Never), request());
    let slow = ChatCompletionRequest {
        model: "slow".into(),
        ..request.clone()
    };
    let [alone, mixed] = [(); 2].map(|()| {
        let policy = Policy::default().timeout(10 * TIMEOUT);
        Retrying::new(Server(Never)).policy_for("slow", policy)
    });
    let mut waiting = Flock::new(WAITING, || mixed.chat_completion(&slow));
    within(&executor, |cx| waiting.arm(cx));

    let mut flights = Flights::new(
        "the same beside 100,000 calls that wait for 300 s, on a tokio current-thread runtime",
        &executor,
    );
    let bare = flights.add("bare", None, SIZE, || server.chat_completion(&request));
    let alone = flights.add("ours, alone", bare, SIZE, || {
        alone.chat_completion(&request)
    });
    let mixed = flights.add("ours, beside them", bare, SIZE, || {
        mixed.chat_completion(&request)
    });
    let measured = flights.group.measure(rounds);
    report.section(&measured, alone);
    report.ratio(
        "inflight_mixed_vs_alone",
        measured.overhead_ratio(mixed, alone),
    );
}
