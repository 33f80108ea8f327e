//! Callers that make calls in virtual time.

use crate::{
    peers::Peer,
    server::{Client, Server},
};
use crabllm_retry::{Operation, RateLimiter, Retrying, Timer, test_util::VirtualTimer};
use fastrand::Rng;
use futures::{StreamExt, executor::block_on, future::join_all, stream};
use std::sync::{Arc, Mutex};
use std::{cell::Cell, mem, ops::Range, time::Duration};

/// A server and its callers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// The requests that are admitted a second.
    pub limit: f64,

    /// From when on the limit is higher, and by how much.
    pub raised: (Duration, f64),

    /// The tokens that the bucket holds, and starts with.
    pub burst: f64,

    /// The tokens that a refused request costs, because refusing it is work too.
    pub refusal_cost: f64,

    /// The time of a request to the server, and that of its answer back.
    pub way: Range<Duration>,

    /// The least time to serve a request, the mean of the exponential part that is added, and
    /// the most time.
    pub service: [Duration; 3],

    /// When requests fail on arrival, with status 503.
    pub outage: Range<Duration>,

    /// When requests are refused after the time to serve them, with status 429.
    pub closed: Range<Duration>,

    pub processes: usize,

    /// The callers of each process.
    pub callers: usize,

    /// The calls of all callers together. Each makes its next call when its last one has ended.
    /// `None`: each makes a call every second, whether or not others have ended.
    pub calls: Option<usize>,

    /// No call begins later.
    pub end: Duration,
}

impl Scenario {
    /// The most requests that the bucket admits until `end`.
    pub fn most_until(&self, end: Duration) -> f64 {
        let (from, raise) = self.raised;
        let raised = end.saturating_sub(from).as_secs_f64() * raise;
        self.burst + end.as_secs_f64() * self.limit + raised
    }
}

/// Everything that happened in a scenario.
#[derive(Debug, Default, PartialEq)]
pub struct Record {
    pub scenario: Scenario,

    /// The times of the requests.
    pub admitted: Vec<Duration>,
    pub refused: Vec<Duration>,

    pub calls: Vec<Call>,

    /// The rate that a limiter had learnt at each event, while awake.
    pub rates: Vec<(Duration, f64)>,
}

impl Record {
    /// The times of all requests, those that were admitted first.
    pub fn requests(&self) -> impl Iterator<Item = Duration> {
        self.admitted.iter().chain(&self.refused).copied()
    }
}

#[derive(Debug, PartialEq)]
pub struct Call {
    pub process: usize,
    pub began: Duration,
    pub took: Duration,
    pub ok: bool,
}

/// Plays a scenario under one policy.
pub fn play(scenario: Scenario, peer: &Peer, seed: u64) -> Record {
    let mut rng = Rng::with_seed(seed);
    let clock = VirtualTimer::new();
    let server = Arc::new(Server {
        clock: clock.clone(),
        scenario: scenario.clone(),
        record: Mutex::default(),
        rng: Mutex::new(rng.fork()),
        taken: Mutex::default(),
    });
    let processes = (0..scenario.processes).map(|_| {
        let client = Client {
            server: server.clone(),
            limiter: peer.aws_limiter.map(|new| Mutex::new(new())),
        };
        let mut wrapper = Retrying::with_timer(client, clock.clone()).policy(peer.policy.clone());
        if let Some(budget) = peer.budget {
            wrapper = wrapper.budget(budget());
        }
        let limiter = RateLimiter::adaptive();
        if peer.has_limiter {
            wrapper = wrapper.rate_limiter(limiter.clone());
        }
        let server = server.clone();
        wrapper.seed(rng.u64(..)).observe(move |_| {
            let now = server.clock.elapsed();
            let rate = limiter.rate(None).map(|rate| (now, rate));
            server.record.lock().unwrap().rates.extend(rate);
        })
    });
    let processes: Vec<_> = processes.collect();
    let call = async |caller: usize| {
        let process = caller % processes.len();
        let began = clock.elapsed();
        let call = processes[process].call(Operation::ChatCompletion, None, Client::chat);
        let ok = call.await.is_ok();
        if !ok {
            clock.sleep(peer.last_sleep).await;
        }
        let calls = &mut server.record.lock().unwrap().calls;
        calls.push(Call {
            process,
            began,
            took: clock.elapsed() - began,
            ok,
        });
    };
    let callers = 0..scenario.processes * scenario.callers;
    // All callers are one task of the clock: it moves when all of them wait.
    if let Some(calls) = scenario.calls {
        let left = Cell::new(calls);
        let work = async |caller| {
            while left.get() > 0 && clock.elapsed() < scenario.end {
                left.set(left.get() - 1);
                call(caller).await;
            }
        };
        block_on(clock.task(join_all(callers.map(work))));
    } else {
        // Every caller calls at its own time in each second.
        let phases = callers.map(|caller| (Duration::from_secs(1).mul_f64(rng.f64()), caller));
        let mut phases: Vec<_> = phases.collect();
        phases.sort_unstable();
        let seconds = (0..scenario.end.as_secs()).map(Duration::from_secs);
        let begins = seconds.flat_map(|second| phases.iter().map(move |phase| (second, phase)));
        let begins = stream::iter(begins).then(async |(second, &(phase, caller))| {
            let begin = second + phase;
            clock.sleep(begin.saturating_sub(clock.elapsed())).await;
            caller
        });
        block_on(clock.task(begins.for_each_concurrent(None, call)));
    }
    let record = mem::take(&mut *server.record.lock().unwrap());
    Record { scenario, ..record }
}
