//! The same over real sockets, on smol, against the flaky server.

use crate::{
    allocator::{Heap, heap},
    caller::{End, Ended, Signs},
    client::Client,
    consumer::Finish,
    flaky_server::{Fault, FlakyServer, REPLY, Setup},
    judge::Judge,
    leftovers,
    log::{How, Log},
    patience::until,
    rules::{Budget, Rules},
    script::{Cancel, Script, mix},
    tally::Tally,
    verify::Violation,
    wrapped::Wrapped,
};
use crabllm_retry::{AsyncIoTimer, FuturesTimer, Instant, Jitter, Timer, hints};
use fastrand::Rng;
use futures::{
    FutureExt, StreamExt,
    future::{Either, select},
    stream,
};
use std::{
    fs, io, iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// How many calls are under way at once.
const IN_FLIGHT: usize = 100;
/// How many calls a round makes, at most.
const MAX_CALLS: usize = 20_000;
/// How long a round begins calls.
const ROUND_TIME: Duration = Duration::from_secs(10);
/// How long a call may take: several times what its policy allows.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that may be left on the heap. libcurl's memory is not counted.
const TOLERANCE: i64 = 64 << 10;
const MS: Duration = Duration::from_millis(1);
const PLACE: &str = "a round over sockets";

const SIGNS: Signs = Signs {
    numbered: false,
    user: |script| Some(script.key.to_string()),
    origin: |_| None,
    hint: hints::retry_after,
};

/// Makes calls for so long, in rounds with a server each, and says how it went.
pub fn soak(seed: u64, time: Duration, tally: &Arc<Tally>) -> io::Result<String> {
    let start = Instant::now();
    let mut rounds = 0;
    let mut requests = 0;
    let mut unreachable = 0;
    let mut round = |time| {
        rounds += 1;
        let (arrived, lost) = Round::new(mix(seed, rounds), time, tally)?.run();
        requests += arrived;
        unreachable += lost;
        io::Result::Ok(())
    };
    // With the first one comes what lives as long as the process.
    round(ROUND_TIME.min(time / 4))?;
    let before = threads();
    let mut result = Ok(());
    let Heap { live_bytes, .. } = heap(|| {
        while result.is_ok() && tally.is_clean() && start.elapsed() < time {
            result = round(ROUND_TIME.min(time.saturating_sub(start.elapsed())));
            until(|| threads() <= before);
        }
    });
    result?;
    let after = threads();
    tally.demand_none(after.saturating_sub(before), "thread", "the process");
    leftovers::check_heap(live_bytes, TOLERANCE, tally);
    Ok(format!(
        "{requests} requests in {rounds} rounds, {unreachable} more that found no server, \
         {after} threads and {live_bytes} bytes left"
    ))
}

/// How many threads there are, where the system says so.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

struct Round {
    seed: u64,
    server: FlakyServer,
    client: Client,
    log: Arc<Log>,
    end: Instant,
    next: AtomicUsize,
    tally: Arc<Tally>,
}

impl Round {
    fn new(seed: u64, time: Duration, tally: &Arc<Tally>) -> io::Result<Self> {
        let server = FlakyServer::start_with(Setup {
            newcomers: Some(flaws),
            ..Setup::default()
        })?;
        let client = Client::new(&server.base_url(), None).map_err(io::Error::other)?;
        let now = Instant::now();
        Ok(Self {
            seed,
            server,
            client,
            log: Arc::new(Log::new(MAX_CALLS, now)),
            end: now + time,
            next: AtomicUsize::new(0),
            tally: tally.clone(),
        })
    }

    /// Runs on two threads, and returns how many requests there were, and how many that found no
    /// server.
    fn run(self) -> (usize, usize) {
        let executor = smol::Executor::new();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        thread::scope(|scope| {
            scope.spawn(|| smol::block_on(executor.run(stopped.recv())));
            let crews = [
                executor.spawn(self.crew(FuturesTimer).boxed()),
                executor.spawn(self.crew(AsyncIoTimer).boxed()),
            ];
            smol::block_on(executor.run(futures::future::join_all(crews)));
            drop(stop);
        });
        drop(executor);
        self.check()
    }

    /// Makes half of the calls, with a wrapper of their own.
    async fn crew<T: Timer + Clone>(&self, timer: T) {
        let (client, log) = (self.client.clone(), self.log.clone());
        let wrapped = &Wrapped::new(client, rules(), timer, log, SIGNS, None);
        let numbers = iter::from_fn(|| {
            let call = self.next.fetch_add(1, Relaxed);
            (call < MAX_CALLS && Instant::now() < self.end).then_some(call)
        });
        let calls = stream::iter(numbers)
            .for_each_concurrent(IN_FLIGHT / 2, |call| self.call(wrapped, call));
        calls.await;
    }

    async fn call<T: Timer + Clone>(&self, wrapped: &Wrapped<Client, T>, call: usize) {
        let script = script(self.seed, call);
        let caller = wrapped.caller(call, script.clone());
        let patience = smol::Timer::after(PATIENCE);
        let Either::Left((outcome, _)) = select(caller.run().boxed(), patience).await else {
            let seen = format!("call {call} goes on over sockets");
            return self.tally.fault(Violation::Lost, "an end in time", &seen);
        };
        self.check_text(&outcome);
        let judge = Judge {
            rules: &wrapped.rules,
            log: &self.log,
            tally: &self.tally,
            place: PLACE,
        };
        judge.judge(call, &script, &outcome);
    }

    fn check_text(&self, outcome: &Ended) {
        if let End::Streamed(consumed) = &outcome.end
            && consumed.finish == Finish::Ended
            && consumed.text != REPLY
        {
            self.tally.fault(Violation::Lost, REPLY, &consumed.text);
        }
    }

    /// Demands that the server has seen what was sent, and that nothing is left.
    fn check(self) -> (usize, usize) {
        let Self {
            server,
            client,
            log,
            tally,
            ..
        } = self;
        leftovers::check_calls(&log, &tally, PLACE);
        let (attempts, abandoned) = attempts(&log);
        let sent = client.sent();
        tally.demand(sent == attempts, "a request for each attempt", || {
            format!("{sent} requests for {attempts} attempts")
        });
        // A request that is dropped at once, or finds no server, does not arrive.
        let unreachable = log.unreachable.load(Relaxed);
        let at_least = sent.saturating_sub(abandoned + unreachable);
        let arrived = || (at_least..=sent).contains(&server.requests());
        until(arrived);
        tally.demand(arrived(), "all that was sent arrives, and no more", || {
            let requests = server.requests();
            format!("{requests} of {sent}, {abandoned} dropped, {unreachable} without a server")
        });
        let requests = server.requests();
        drop((client, server));
        leftovers::check_wrappers(&log, &tally, PLACE);
        (requests, unreachable)
    }
}

/// How many attempts were made, and how many of them were dropped.
fn attempts(log: &Log) -> (usize, usize) {
    let count = |(made, dropped), call| {
        let record = log.record(call);
        let ends = record.attempts.iter().filter_map(|attempt| attempt.ended);
        let abandoned = ends.filter(|(_, how)| *how == How::Abandoned).count();
        (made + record.attempts.len(), dropped + abandoned)
    };
    (0..log.len()).fold((0, 0), count)
}

fn rules() -> Rules {
    Rules {
        max_retries: 2,
        timeout: 300 * MS,
        deadline: 4000 * MS,
        initial: 20 * MS,
        max: 100 * MS,
        jitter: Jitter::Equal,
        max_retry_after: 2000 * MS,
        stream_idle: 200 * MS,
        retries_streams: true,
        budget: Budget::None,
    }
}

/// A script in the server's measure of time, which is shorter.
fn script(seed: u64, call: usize) -> Script {
    let mut script = Script::of(seed, call);
    if let Some(Cancel::After(time)) = &mut script.cancel {
        *time /= 4;
    }
    script.slow = false;
    script
}

/// The faults of the requests of a call, which goes by the name of its script's key.
fn flaws(user: &str) -> Vec<Fault> {
    let key = user.parse().unwrap_or_default();
    let mut rng = Rng::with_seed(mix(key, u64::MAX));
    (0..rng.usize(..4)).map(|_| flaw(&mut rng)).collect()
}

fn flaw(rng: &mut Rng) -> Fault {
    match rng.u8(..16) {
        0..4 => Fault::Status(503),
        4 => Fault::Status(400),
        5 => Fault::RateLimit(1),
        6 => Fault::RateLimit(60),
        7..10 => Fault::Drop,
        10 => Fault::Stall,
        11 => Fault::Late(rng.u32(..600) * MS),
        12 | 13 => Fault::Slow(rng.u32(..300) * MS),
        14 => Fault::DropHalfway,
        _ => Fault::StallHalfway,
    }
}
