//! The calls under one policy.

use crate::{Args, policy::SimulatedPolicy, server::Server};
use crabllm_retry::{
    Event, Timer,
    crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json},
    test_util::VirtualTimer,
};
use fastrand::Rng;
use futures::{FutureExt, StreamExt, executor::block_on, stream};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// The seconds that are counted.
pub const COUNTED: usize = 60;

/// The callers stop later, so that the last calls that are counted meet the same load with
/// their retries.
const SIMULATED: u64 = 63;

const CALLERS_PER_PROCESS: u32 = 100;
const SEED: u64 = 1;

/// The calls and attempts that began in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    pub calls: u32,
    pub attempts: u32,
    pub succeeded: u32,

    /// The retries of calls that failed nevertheless.
    pub wasted_retries: u32,

    /// The durations of the failed calls, added up.
    pub time_to_fail: Duration,
}

impl Second {
    pub fn sum(seconds: &[Self]) -> Self {
        seconds.iter().fold(Self::default(), |sum, second| Self {
            calls: sum.calls + second.calls,
            attempts: sum.attempts + second.attempts,
            succeeded: sum.succeeded + second.succeeded,
            wasted_retries: sum.wasted_retries + second.wasted_retries,
            time_to_fail: sum.time_to_fail + second.time_to_fail,
        })
    }

    pub fn attempts_per_call(&self) -> f64 {
        f64::from(self.attempts) / f64::from(self.calls)
    }
}

/// The requests that the server can serve in a second.
pub fn capacity(args: &Args) -> f64 {
    f64::from(args.callers) * 1.2
}

/// Simulates the calls, on this thread. Equal arguments give equal results.
pub fn run(policy: &SimulatedPolicy, args: &Args) -> Vec<Second> {
    let mut rng = Rng::with_seed(SEED);
    let clock = VirtualTimer::new();
    let server = Server::new(clock.clone(), capacity(args), args.rejection_cost, SEED);
    let seconds = Arc::new(Mutex::new(vec![Second::default(); COUNTED]));
    let processes: Vec<_> = (0..args.callers.div_ceil(CALLERS_PER_PROCESS))
        .map(|_| {
            let (clock, seconds) = (clock.clone(), seconds.clone());
            let last_sleep = policy.last_sleep;
            policy
                .wrap(server.clone(), clock.clone())
                .seed(rng.u64(..))
                .observe(move |event| {
                    count(
                        &mut seconds.lock().unwrap(),
                        clock.elapsed(),
                        event,
                        last_sleep,
                    );
                })
        })
        .collect();
    let request: ChatCompletionRequest =
        json::from_str(r#"{"model": "m", "messages": []}"#).unwrap();

    // Every caller calls at its own time in each second.
    let mut callers: Vec<_> = (0..args.callers as usize)
        .map(|caller| (Duration::from_secs(1).mul_f64(rng.f64()), caller))
        .collect();
    callers.sort_unstable();
    let calls = (0..SIMULATED).flat_map(|second| {
        let callers = callers.iter();
        callers.map(move |&(offset, caller)| (Duration::from_secs(second) + offset, caller))
    });
    let calls = stream::iter(calls)
        .then(|(begin, caller)| {
            let sleep = clock.sleep(begin.saturating_sub(clock.elapsed()));
            sleep.map(move |()| caller)
        })
        .for_each_concurrent(None, |caller| {
            let call = processes[caller % processes.len()].chat_completion(&request);
            call.map(drop)
        });
    // All calls are one task of the clock: it moves when all of them wait.
    block_on(clock.task(calls));
    seconds.lock().unwrap().clone()
}

/// Counts an attempt in its second, and the end of a call in the second of its start.
fn count(seconds: &mut [Second], now: Duration, event: &Event<'_>, last_sleep: Duration) {
    let start = match event {
        Event::Attempt { .. } => now,
        _ => now - event.elapsed(),
    };
    let Some(second) = seconds.get_mut(start.as_secs() as usize) else {
        return;
    };
    match event {
        Event::Attempt { .. } => second.attempts += 1,
        Event::Success { .. } => {
            second.calls += 1;
            second.succeeded += 1;
        }
        Event::GaveUp { attempt, .. } => {
            second.calls += 1;
            second.wasted_retries += attempt - 1;
            second.time_to_fail += event.elapsed() + last_sleep;
        }
        _ => {}
    }
}

#[test]
fn a_budget_limits_an_outage_to_one_retry_in_ten_calls() {
    let args = Args {
        svg: None,
        callers: 100,
        rejection_cost: 0.1,
    };
    let least_and_most = [(2.8, 3.0), (2.8, 3.0), (2.8, 3.0), (1.0, 1.1)];
    for (policy, (least, most)) in SimulatedPolicy::all().iter().zip(least_and_most) {
        let seconds = run(policy, &args);
        assert_eq!(seconds, run(policy, &args), "equal seeds");
        assert!(seconds.iter().all(|second| second.calls == 100));
        let outage = Second::sum(&seconds[crate::server::OUTAGE]);
        let attempts = outage.attempts_per_call();
        assert!((least..=most).contains(&attempts), "{attempts}");
    }
}
