//! Many calls in flight at the same time.

use crate::{
    TIMEOUT,
    contenders::Contenders,
    executor::Executor,
    paired::{Group, Side},
    report::Report,
    server::{self, Server, request},
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
use tokio::time::sleep;

/// Slots for calls that are in flight at the same time, allocated once: neither the start
/// nor the end of a call is charged for its slot.
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

/// Runs `f` once within the executor.
///
/// A tokio runtime is left in its usual state: it has slept, and has a timer that ends
/// before those that `f` arms, so that arming one does not wake it.
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

/// The calls of one entry into the executor, unless more than that are in flight.
const CALLS: usize = 10_000;

/// The calls that wait with a longer timeout.
const WAITING: usize = 100_000;

/// Sides that start calls and drop them.
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

/// Measures the cost of arming a timeout and cancelling it, by the number of calls in
/// flight.
pub fn cost(rounds: usize, report: &mut Report) {
    let executor = Executor::tokio();
    // One wrapper for each size: a list that was larger before would give memory back, and
    // grow again.
    let sizes = [1_000, 100_000, 1_000_000].map(|size| (size, Contenders::new(server::never)));
    let mut flights = Flights::new(
        "started, polled once and dropped, so many in flight, on a tokio current-thread runtime",
        &executor,
    );
    let [small, middle, large] = sizes.each_ref().map(|(size, ways)| {
        let bare = flights.add("bare", None, *size, || ways.bare());
        let ours = flights.add("ours", bare, *size, || ways.ours());
        let tokio = flights.add("tokio::time::timeout", bare, *size, || ways.tokio());
        (ours, tokio)
    });
    let measured = flights.group.measure(rounds);
    report.section(&measured, small.0);
    report.overhead_ratio("inflight_100k_vs_tokio", &measured, middle.0, middle.1);
    report.overhead_ratio("inflight_1m_vs_1k", &measured, large.0, small.0);
}

/// Measures the same cost while calls with a longer timeout wait. Every measured deadline
/// is earlier than theirs, though it is set later.
pub fn cost_among_longer(rounds: usize, report: &mut Report) {
    const SIZE: usize = 1_000;
    let executor = Executor::tokio();
    let (server, request) = (Server(server::never), request());
    let slow = ChatCompletionRequest {
        model: "slow".into(),
        ..request.clone()
    };
    let [alone, mixed] = [(); 2].map(|()| {
        let policy = Policy::default().timeout(10 * TIMEOUT);
        Retrying::new(server).policy_for("slow", policy)
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
    report.overhead_ratio("inflight_mixed_vs_alone", &measured, mixed, alone);
}
