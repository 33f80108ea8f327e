//! Calls in virtual time, on two executors.

use crate::{
    caller::Ended,
    covered::Covered,
    executors::{self, Run, Task},
    judge::Judge,
    leftovers,
    log::Log,
    patience::{until, until_none},
    script::{Script, TICK, mix},
    tally::Tally,
    verify::Violation,
    wrappers::Wrappers,
};
use crabllm_retry::{Timer, test_util::VirtualTimer};
use fastrand::Rng;
use futures::{
    FutureExt,
    channel::{mpsc, oneshot},
    future::BoxFuture,
    poll,
};
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
        mpsc as threads,
    },
    task::Poll,
    thread,
    time::Duration,
};

/// How many calls of a round are under way at once.
const WORKERS: usize = 64;
/// How long a round may take, in real time, before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any timeout, and any bound on the silence of a stream.
const LONG: Duration = Duration::from_secs(60);

pub const EXECUTORS: [(&str, Run); 11] = [
    ("smol", executors::smol_global),
    ("smol's local one", executors::smol_local),
    ("async-std", executors::async_std),
    (
        "tokio on one thread",
        executors::tokio_current_thread_without_drivers,
    ),
    ("tokio", executors::tokio_multi_thread),
    ("block_on", executors::futures_block_on),
    ("a local pool", executors::futures_local_pool),
    ("a thread pool", executors::futures_thread_pool),
    ("pollster", executors::pollster),
    ("own threads", executors::async_executor_on_own_threads),
    (
        "another at every wake",
        executors::another_executor_at_every_wake,
    ),
];

/// A round never ended.
pub struct Stuck;

/// One round of the soak.
pub struct Round<'a> {
    pub seed: u64,
    pub number: usize,
    pub calls: usize,
    pub tally: &'a Arc<Tally>,
}

/// The state that the tasks of a round share.
struct Scene {
    seed: u64,
    /// Whether clocks jump.
    disturbed: bool,
    place: String,
    clock: VirtualTimer,
    log: Arc<Log>,
    wrappers: Wrappers,
    tally: Arc<Tally>,
    executors: [mpsc::UnboundedSender<Task>; 2],
    /// The tasks that are not done.
    left: AtomicUsize,
    /// Dropped when all are done.
    going_on: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Round<'_> {
    pub fn run(&self) -> Result<(), Stuck> {
        let (tasks, queues): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::unbounded()).unzip();
        let (going_on, done): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
        let scene = self.scene(tasks, going_on);
        Scene::start(&scene, self.calls);
        let (ended, ends) = threads::channel();
        let runs = self.executors().map(|(_, run)| run);
        let runs = runs.into_iter().zip(queues.into_iter().zip(done));
        let runs = runs.map(|(run, (queue, done))| {
            let ended = ended.clone();
            thread::spawn(move || {
                run(done.map(drop).boxed(), queue);
                _ = ended.send(());
            })
        });
        let runs: Vec<_> = runs.collect();
        for _ in 0..2 {
            if ends.recv_timeout(PATIENCE).is_err() {
                return Err(self.stuck(&scene));
            }
        }
        for run in runs {
            // Memory that a thread frees when it ends is freed before the heap is looked at.
            _ = run.join();
        }
        self.check(scene);
        self.tally.add(Covered::Rounds, 1);
        Ok(())
    }

    /// Every executor meets every other.
    fn executors(&self) -> [(&'static str, Run); 2] {
        let (first, second) = (self.number, self.number + self.number / EXECUTORS.len());
        [first, second].map(|number| EXECUTORS[number % EXECUTORS.len()])
    }

    fn scene(
        &self,
        tasks: Vec<mpsc::UnboundedSender<Task>>,
        going_on: Vec<oneshot::Sender<()>>,
    ) -> Arc<Scene> {
        let seed = mix(self.seed, self.number as u64);
        let disturbed = !self.number.is_multiple_of(2);
        let clock = VirtualTimer::new();
        let log = Arc::new(Log::new(self.calls, clock.now()));
        let [first, second] = self.executors().map(|(name, _)| name);
        let kind = if disturbed { "disturbed" } else { "calm" };
        Arc::new(Scene {
            seed,
            disturbed,
            place: format!("round {}, {kind}, on {first} and {second}", self.number),
            wrappers: Wrappers::new(seed, &clock, &log),
            clock,
            log,
            tally: self.tally.clone(),
            executors: tasks.try_into().expect("two"),
            left: AtomicUsize::new(0),
            going_on: Mutex::new(going_on),
        })
    }

    fn stuck(&self, scene: &Scene) -> Stuck {
        let left = scene.left.load(Acquire);
        let seen = format!("{left} tasks that never ended in {}", scene.place);
        for _ in 0..left.max(1) {
            self.tally
                .fault(Violation::Lost, "an end for each call", &seen);
        }
        Stuck
    }

    /// Demands that nothing is left of the calls.
    fn check(&self, scene: Arc<Scene>) {
        // The last task may be about to let go of it.
        until(|| Arc::strong_count(&scene) == 1);
        let Some(scene) = Arc::into_inner(scene) else {
            return self.tally.demand_none(1, "task", "a round");
        };
        let Scene {
            place,
            clock,
            log,
            wrappers,
            ..
        } = scene;
        let none = |left: usize, what: &str| self.tally.demand_none(left, what, &place);
        wrappers.check_budget(&log, self.tally, &place);
        leftovers::check_calls(&log, self.tally, &place);
        // A wrapper takes the sleep that its calls have shared with it, or outlasts it.
        let outlives = (self.number / 2).is_multiple_of(2);
        if outlives {
            clock.advance(LONG);
            none(until_none(|| clock.sleeping()), "sleep of an idle wrapper");
        }
        let timers = wrappers.into_timers();
        none(until_none(|| clock.sleeping()), "sleep");
        for timer in &timers {
            none(until_none(|| timer.clones() - 1), "user of a timer");
        }
        leftovers::check_wrappers(&log, self.tally, &place);
    }
}

impl Scene {
    /// Hands the work to the executors.
    fn start(scene: &Arc<Self>, calls: usize) {
        let share = calls.div_ceil(WORKERS);
        let shares = (0..calls).step_by(share.max(1));
        let shares = shares.map(|first| first..(first + share).min(calls));
        let mut tasks: Vec<Task> = shares
            .enumerate()
            .map(|(worker, calls)| Self::work(scene.clone(), worker % 2, calls).boxed())
            .collect();
        if scene.disturbed {
            tasks.push(Self::disturb(scene.clone()).boxed());
        }
        scene.left.store(tasks.len(), Relaxed);
        // All are watched before the first one runs, so that the clock waits for all.
        let watched = tasks.into_iter().map(|task| {
            let scene = scene.clone();
            scene.clock.clone().task(async move {
                task.await;
                scene.done();
            })
        });
        for (number, task) in watched.collect::<Vec<_>>().into_iter().enumerate() {
            scene.spawn(number % 2, task.boxed());
        }
    }

    fn spawn(&self, executor: usize, task: Task) {
        self.executors[executor]
            .unbounded_send(task)
            .unwrap_or_else(|_| unreachable!("executors run until all is done"));
    }

    /// Ends the executors when the last task is done.
    fn done(&self) {
        if self.left.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        let going_on = self.going_on.lock();
        going_on.unwrap_or_else(PoisonError::into_inner).clear();
        for executor in &self.executors {
            executor.close_channel();
        }
    }

    /// Makes calls, one after the other.
    async fn work(scene: Arc<Self>, executor: usize, calls: Range<usize>) {
        for call in calls {
            let script = Script::of(scene.seed, call);
            let wrapped = scene.wrappers.of(call);
            let sleeps = match wrapped.timer.is_shareable() {
                true => Covered::SharedSleeps,
                false => Covered::OwnSleeps,
            };
            scene.tally.add(sleeps, 1);
            let caller = wrapped.caller(call, script.clone());
            let outcome = match script.hops {
                true => Self::hop(&scene, 1 - executor, caller.run().boxed()).await,
                false => Some(caller.run().await),
            };
            let Some(outcome) = outcome else {
                let seen = format!("call {call} in {}", scene.place);
                scene
                    .tally
                    .fault(Violation::Lost, "an end after a hop", &seen);
                continue;
            };
            let judge = Judge {
                rules: &wrapped.rules,
                log: &scene.log,
                tally: &scene.tally,
                place: &scene.place,
            };
            judge.judge(call, &script, &outcome);
        }
    }

    /// Polls a call once here, and the rest of it on another executor.
    async fn hop(
        scene: &Arc<Self>,
        executor: usize,
        mut call: BoxFuture<'static, Ended>,
    ) -> Option<Ended> {
        if let Poll::Ready(outcome) = poll!(&mut call) {
            return Some(outcome);
        }
        scene.tally.add(Covered::Hop, 1);
        let (answer, answered) = oneshot::channel();
        let rest = async move { _ = answer.send(call.await) };
        scene.spawn(executor, scene.clock.task(rest).boxed());
        answered.await.ok()
    }

    /// Moves the clock by hours now and then, or ahead of the sleeps.
    async fn disturb(scene: Arc<Self>) {
        let mut rng = Rng::with_seed(scene.seed);
        while scene.left.load(Acquire) > 1 {
            scene.clock.sleep(TICK * rng.u32(10..200)).await;
            let hours = Duration::from_secs(3600 * rng.u64(1..5));
            if rng.bool() {
                scene.clock.advance(hours);
                scene.tally.add(Covered::Jump, 1);
            } else {
                scene.wrappers.suspend(hours);
                scene.tally.add(Covered::Suspend, 1);
            }
        }
    }
}
