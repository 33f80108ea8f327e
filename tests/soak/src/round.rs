//! A round of calls in virtual time, on two executors.

use crate::{
    caller::Caller,
    checks::{COST, check_budget, check_calls, check_none},
    console::eprint,
    executors::{EXECUTORS, Task},
    faulty::{Faulty, SoakTimer},
    log::Log,
    script::{self, Script, mix},
    tally::Tally,
};
use crabllm_retry::{
    Operation, RetryBudget, Retrying, Timer, crabllm_core_0_0_19::Error, test_util::VirtualTimer,
};
use fastrand::Rng;
use futures::{
    FutureExt,
    channel::mpsc,
    executor::block_on,
    future::{Shared, join_all},
    poll,
};
use std::{
    future::ready,
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

/// So many tokens that a round can neither use them up nor double them.
const HALF: u32 = 1 << 30;

/// The state of a round.
struct Round {
    timer: SoakTimer,
    log: Arc<Log>,

    /// Wrappers with a sleep for each wait and with a shared one. Both share the budget.
    callers: [Caller<Faulty, SoakTimer>; 2],

    budget: RetryBudget,

    tally: Arc<Tally>,
}

/// The tasks that the two executors are to spawn.
type Queues = [mpsc::UnboundedSender<Task>; 2];

/// Runs a round, and returns whether it went well.
pub fn run(seed: u64, number: usize, calls: usize, tally: &Arc<Tally>) -> bool {
    let round = Arc::new(Round::new(seed, number, calls, tally));
    let (queue, tasks) = mpsc::unbounded();
    let (other_queue, other_tasks) = mpsc::unbounded();
    let done = round.start([queue, other_queue], calls);
    // Every executor meets every other.
    let pair = [number, number + number / EXECUTORS.len()].map(|it| it % EXECUTORS.len());
    let (ended, ends) = threads::channel();
    let threads = pair.into_iter().zip([tasks, other_tasks]);
    let threads = threads.map(|(executor, tasks)| {
        let (done, ended) = (done.clone(), ended.clone());
        thread::spawn(move || {
            EXECUTORS[executor].1(done.boxed(), tasks);
            _ = ended.send(());
        })
    });
    let threads: Vec<_> = threads.collect();
    let in_time = |_: &_| ends.recv_timeout(PATIENCE).is_ok();
    let all_ended = threads.iter().all(in_time);
    let place = format!("round {number} on executors {pair:?}");
    let policy = |call: usize| &round.callers[call % 2].policy;
    check_calls(&round.log, calls, policy, tally, &place);
    if all_ended {
        // Memory that a thread frees when it ends is freed before the heap is looked at.
        threads.into_iter().for_each(|thread| _ = thread.join());
        round.check_leftovers(number, calls);
    }
    if !tally.is_clean() {
        eprint(&format!("stopped after {place}"));
    }
    tally.is_clean()
}

impl Round {
    fn new(seed: u64, number: usize, calls: usize, tally: &Arc<Tally>) -> Self {
        let seed = mix(seed, number as u64);
        let rng = &mut Rng::with_seed(mix(seed, u64::MAX));
        let clock = VirtualTimer::new();
        let timer = SoakTimer {
            clock: clock.clone(),
            ahead: Arc::new(AtomicU64::new(0)),
            shareable: true,
        };
        let (epoch, now) = (timer.now(), timer.clone());
        let scripts = (0..calls).map(|call| Script::new(mix(seed, call as u64), number));
        let log = Arc::new(Log::new(scripts, move || now.now() - epoch));
        let budget = half_full().cost(COST).throttle_cost(COST);
        let callers = [false, true].map(|shareable| {
            let timer = SoakTimer {
                shareable,
                ..timer.clone()
            };
            let inner = Faulty(clock.clone(), log.clone());
            let mut caller = Caller::new(inner, script::policy(rng), timer, &log);
            caller.wrapper = caller.wrapper.budget(budget.clone());
            caller
        });
        Self {
            timer,
            log,
            callers,
            budget,
            tally: tally.clone(),
        }
    }

    /// Starts the calls. The future is ready when they have ended.
    fn start(self: &Arc<Self>, queues: Queues, calls: usize) -> Shared<Task> {
        let share = calls.div_ceil(WORKERS);
        let firsts = (0..calls).step_by(share.max(1));
        let tasks = firsts.enumerate().map(|(worker, first)| {
            let calls = first..(first + share).min(calls);
            let work = self.clone().work(queues.clone(), worker % 2, calls);
            let (task, handle) = work.remote_handle();
            (self.timer.clock.task(task).boxed(), handle)
        });
        // All are watched before the first one runs, so that the clock waits for all.
        let (tasks, handles): (Vec<_>, Vec<_>) = tasks.unzip();
        for (worker, task) in tasks.into_iter().enumerate() {
            _ = queues[worker % 2].unbounded_send(task);
        }
        join_all(handles).map(drop).boxed().shared()
    }

    /// Makes calls, one after the other.
    async fn work(self: Arc<Self>, queues: Queues, home: usize, calls: Range<usize>) {
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
            let mut call = self.callers[number % 2].clone().call(number).boxed();
            if !script.moves {
                call.await;
            } else if poll!(&mut call).is_pending() {
                self.tally.cover("moved to another executor");
                let (rest, handle) = call.remote_handle();
                let task = self.timer.clock.task(rest).boxed();
                _ = queues[1 - home].unbounded_send(task);
                handle.await;
            }
        }
    }

    /// Checks that nothing is left of the calls, nor then of the wrappers.
    fn check_leftovers(self: Arc<Self>, number: usize, calls: usize) {
        let tally = &self.tally.clone();
        check_none(|| Arc::strong_count(&self) - 1, "tasks", tally);
        let Some(round) = Arc::into_inner(self) else {
            return;
        };
        check_budget(&round.budget, HALF, &round.log, calls, tally);
        check_none(|| Arc::strong_count(&round.log.wakers) - 1, "wakers", tally);
        let sleeps = || round.timer.clock.sleeping();
        // An idle wrapper may keep a shared sleep until it is over, but not longer than it lives.
        if number.is_multiple_of(2) {
            round.timer.clock.advance(LONG);
            check_none(sleeps, "sleeps of idle wrappers", tally);
        }
        drop(round.callers);
        check_none(sleeps, "sleeps", tally);
        let users = || Arc::strong_count(&round.log) - 1;
        check_none(users, "wrappers, attempts or streams", tally);
        drop(round.log);
        let timers = || Arc::strong_count(&round.timer.ahead) - 1;
        check_none(timers, "timers", tally);
    }
}

/// A budget that is neither full nor empty: one retry has paid half of it.
fn half_full() -> RetryBudget {
    let budget = RetryBudget::new(2 * HALF);
    let spender = Retrying::with_timer((), VirtualTimer::new())
        .max_retries(1)
        .budget(budget.clone().cost(HALF));
    let fail = |_: &()| ready(Err::<(), _>(Error::Timeout));
    _ = block_on(spender.call(Operation::Other("spend"), None, fail));
    budget
}
