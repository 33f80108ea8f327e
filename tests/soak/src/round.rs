//! A round of calls in virtual time, on two executors.

use crate::{
    caller::Caller,
    checks::{COST, check_budget, check_calls, check_none, until},
    executors::{self, Run, Task},
    faulty::Faulty,
    log::Log,
    script::{self, Script, mix},
    tally::{Fault, Tally},
    timer::SoakTimer,
};
use crabllm_retry::{RetryBudget, Timer, test_util::VirtualTimer};
use fastrand::Rng;
use futures::{
    FutureExt,
    channel::{mpsc, oneshot},
    poll,
};
use std::{
    convert::Infallible,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc as threads,
    },
    thread,
    time::Duration,
};

/// The calls in flight at a time.
const WORKERS: usize = 64;

/// The real time after which a round counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any timeout and any `stream_idle`.
const LONG: Duration = Duration::from_secs(60);

pub const EXECUTORS: [Run; 11] = [
    executors::smol_global,
    executors::smol_local,
    executors::async_std,
    executors::tokio_current_thread_without_drivers,
    executors::tokio_multi_thread,
    executors::futures_block_on,
    executors::futures_local_pool,
    executors::futures_thread_pool,
    executors::pollster,
    executors::async_executor_on_own_threads,
    executors::another_executor_at_every_wake,
];

/// The state of a round.
struct Round {
    timer: SoakTimer,
    log: Arc<Log>,

    /// Wrappers with sleeps of their own and with shared ones, which share a budget, and one
    /// without a budget.
    callers: [Caller<Faulty, SoakTimer>; 3],

    budget: RetryBudget,
    capacity: u32,
    tally: Arc<Tally>,
}

/// Two executors, which run until all clones are dropped.
#[derive(Clone)]
struct Executors {
    queues: [mpsc::UnboundedSender<Task>; 2],
    _running: smol::channel::Sender<Infallible>,
}

/// Runs a round, and checks that it went well.
pub fn run(seed: u64, number: usize, calls: usize, tally: &Arc<Tally>) -> bool {
    let round = Arc::new(Round::new(mix(seed, number as u64), calls, tally));
    // Every executor meets every other.
    let pair = [number, number + number / EXECUTORS.len()].map(|it| it % EXECUTORS.len());
    let place = format!("round {number} on executors {pair:?}");
    let ended = run_on(pair.map(|executor| EXECUTORS[executor]), |executors| {
        round.start(executors, calls);
    });
    check_calls(
        &round.log,
        calls,
        |call| &round.callers[call % 3].policy,
        tally,
        &place,
    );
    if ended {
        round.check_leftovers(calls);
    }
    if !tally.is_clean() {
        tally.add(Fault::Broken, 1, &format!("stopped after {place}"));
    }
    tally.is_clean()
}

/// Runs what `start` spawns to its end, or until it is stuck.
fn run_on(runs: [Run; 2], start: impl FnOnce(&Executors)) -> bool {
    let (queues, tasks): (Vec<_>, Vec<_>) = runs.iter().map(|_| mpsc::unbounded()).unzip();
    let (running, stopped) = smol::channel::bounded(1);
    let executors = Executors {
        queues: queues.try_into().expect("two"),
        _running: running,
    };
    start(&executors);
    drop(executors);
    let (ended, ends) = threads::channel();
    let threads = runs.into_iter().zip(tasks).map(|(run, tasks)| {
        let (stopped, ended) = (stopped.clone(), ended.clone());
        thread::spawn(move || {
            run(async move { _ = stopped.recv().await }.boxed(), tasks);
            _ = ended.send(());
        })
    });
    let threads: Vec<_> = threads.collect();
    if threads.iter().any(|_| ends.recv_timeout(PATIENCE).is_err()) {
        return false;
    }
    // Memory that a thread frees when it ends is freed before the heap is looked at.
    threads.into_iter().all(|thread| thread.join().is_ok())
}

impl Round {
    fn new(seed: u64, calls: usize, tally: &Arc<Tally>) -> Self {
        let rng = &mut Rng::with_seed(mix(seed, u64::MAX));
        let clock = VirtualTimer::new();
        let timer = SoakTimer {
            clock: clock.clone(),
            ahead: Arc::new(AtomicU64::new(0)),
            shareable: true,
        };
        let (epoch, now) = (timer.now(), timer.clone());
        let scripts = (0..calls).map(|call| Script::new(mix(seed, call as u64)));
        let log = Arc::new(Log::new(scripts, move || now.now() - epoch));
        // One of the capacities is never used up.
        let capacity = if rng.bool() { 100 } else { 1 << 30 };
        let budget = RetryBudget::new(capacity).cost(COST).throttle_cost(COST);
        let callers = [(false, true), (true, true), (true, false)].map(|(shareable, budgeted)| {
            let (clock, log) = (clock.clone(), log.clone());
            let timer = SoakTimer {
                shareable,
                ..timer.clone()
            };
            let inner = Faulty {
                clock,
                log: log.clone(),
            };
            let mut caller = Caller::new(inner, script::policy(rng), timer, log);
            if budgeted {
                caller.wrapper = caller.wrapper.budget(budget.clone());
            }
            caller
        });
        Self {
            timer,
            log,
            callers,
            budget,
            capacity,
            tally: tally.clone(),
        }
    }

    fn start(self: &Arc<Self>, executors: &Executors, calls: usize) {
        let share = calls.div_ceil(WORKERS);
        let shares = (0..calls).step_by(share.max(1));
        let tasks = shares.enumerate().map(|(worker, first)| {
            let calls = first..(first + share).min(calls);
            let work = self.clone().work(executors.clone(), worker % 2, calls);
            self.timer.clock.task(work).boxed()
        });
        // All are watched before the first one runs, so that the clock waits for all.
        for (worker, task) in tasks.collect::<Vec<_>>().into_iter().enumerate() {
            executors.spawn(worker % 2, task);
        }
    }

    /// Makes calls, one after the other.
    async fn work(self: Arc<Self>, executors: Executors, home: usize, calls: Range<usize>) {
        for number in calls {
            let script = self.log.call(number).script;
            if !script.jump.is_zero() {
                self.tally.cover("jumps of the clock");
                self.timer.clock.advance(script.jump);
            }
            if !script.suspend.is_zero() {
                self.tally.cover("suspends");
                let seconds = script.suspend.as_secs();
                self.timer.ahead.fetch_add(seconds, Relaxed);
            }
            let mut call = self.callers[number % 3].clone().call(number).boxed();
            if !script.moves {
                call.await;
            } else if poll!(&mut call).is_pending() {
                self.tally.cover("moved to another executor");
                let (done, moved) = oneshot::channel();
                let rest = async move {
                    call.await;
                    _ = done.send(());
                };
                executors.spawn(1 - home, self.timer.clock.task(rest).boxed());
                _ = moved.await;
            }
        }
    }

    /// Checks that nothing is left of the calls, nor then of the wrappers.
    fn check_leftovers(self: Arc<Self>, calls: usize) {
        until(|| Arc::strong_count(&self) == 1);
        let Some(round) = Arc::into_inner(self) else {
            return;
        };
        let Self {
            timer,
            log,
            callers,
            budget,
            capacity,
            tally,
        } = round;
        let budgeted = (0..calls).filter(|call| call % 3 < 2);
        let retries = budgeted.map(|call| log.call(call).attempts.len().saturating_sub(1));
        check_budget(&budget, capacity, retries.sum::<usize>() as u32, &tally);
        let none = |left: &dyn Fn() -> usize, what| check_none(left, what, &tally);
        none(&|| Arc::strong_count(&log.wakers) - 1, "wakers");
        // An idle wrapper may keep a shared sleep until it is over, but not longer than it lives.
        if calls % 2 == 0 {
            timer.clock.advance(LONG);
            none(&|| timer.clock.sleeping(), "sleeps of idle wrappers");
        }
        drop(callers);
        none(&|| timer.clock.sleeping(), "sleeps");
        none(
            &|| Arc::strong_count(&log) - 1,
            "wrappers, attempts or streams",
        );
        drop(log);
        none(&|| Arc::strong_count(&timer.ahead) - 1, "timers");
    }
}

impl Executors {
    fn spawn(&self, executor: usize, task: Task) {
        let sent = self.queues[executor].unbounded_send(task);
        sent.unwrap_or_else(|_| unreachable!("executors run until all is done"));
    }
}
