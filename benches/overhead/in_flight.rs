//! Many calls in flight at the same time.

use crate::{
    TIMEOUT,
    contenders::{Contenders, tokio},
    paired::{Side, measure},
    ratio,
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
use tokio::{runtime::Runtime, time::sleep};

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
    fn cancel(&mut self) {
        for slot in &mut self.slots {
            slot.set(None);
        }
    }
}

/// Runs `f` once within the runtime in its usual state: it has slept, and has a timer that
/// ends before those that `f` arms, so that arming one does not wake it.
pub fn within(runtime: &Runtime, mut f: impl FnMut(&mut Context<'_>)) {
    runtime.block_on(async {
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

/// A side that starts `size` calls and drops them.
fn flight<'a, F: Future + 'a>(
    name: &'static str,
    runtime: &'a Runtime,
    size: usize,
    start: impl Fn() -> F + 'a,
) -> Side<'a> {
    /// The calls of one entry into the runtime, unless more than that are in flight.
    const CALLS: usize = 10_000;
    let mut flock = Flock::new(size, start);
    let passes = CALLS.div_ceil(size);
    Side::new(name, size * passes, move || {
        within(runtime, |cx| {
            for _ in 0..passes {
                flock.arm(cx);
                flock.cancel();
            }
        });
    })
}

/// Measures the cost of arming a timeout and cancelling it, by the number of calls in
/// flight.
pub fn cost() {
    let runtime = tokio();
    // One wrapper for each size: a list that was larger before would give memory back, and
    // grow again.
    let ways = [(); 3].map(|()| Contenders::new(server::never));
    let [few, many, most] = &ways;
    let [bare_few, few, bare_many, many, timeout, bare_most, most] = measure(
        "armed and cancelled",
        [
            flight("bare, 1,000", &runtime, 1_000, || few.bare()),
            flight("ours, 1,000", &runtime, 1_000, || few.ours()),
            flight("bare, 100,000", &runtime, 100_000, || many.bare()),
            flight("ours, 100,000", &runtime, 100_000, || many.ours()),
            flight("tokio, 100,000", &runtime, 100_000, || many.tokio()),
            flight("bare, 1,000,000", &runtime, 1_000_000, || most.bare()),
            flight("ours, 1,000,000", &runtime, 1_000_000, || most.ours()),
        ],
    );
    let many = many.beyond(&bare_many);
    ratio(
        "inflight_100k_vs_tokio",
        many.over(&timeout.beyond(&bare_many)),
    );
    let (few, most) = (few.beyond(&bare_few), most.beyond(&bare_most));
    ratio("inflight_1m_vs_1k", most.over(&few));
}

/// Measures the same cost while calls with a longer timeout wait. Every measured deadline
/// is earlier than theirs, though it is set later.
pub fn cost_among_longer() {
    const SIZE: usize = 1_000;
    const WAITING: usize = 100_000;
    let runtime = tokio();
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
    within(&runtime, |cx| waiting.arm(cx));

    let [bare, alone, mixed] = measure(
        "armed and cancelled beside 100,000 longer ones",
        [
            flight("bare", &runtime, SIZE, || server.chat_completion(&request)),
            flight("ours, alone", &runtime, SIZE, || {
                alone.chat_completion(&request)
            }),
            flight("ours, beside them", &runtime, SIZE, || {
                mixed.chat_completion(&request)
            }),
        ],
    );
    let (alone, mixed) = (alone.beyond(&bare), mixed.beyond(&bare));
    ratio("inflight_mixed_vs_alone", mixed.over(&alone));
}
