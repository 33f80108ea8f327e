//! Calls over real sockets, on smol, against the flaky server.

use crate::{
    allocator::Heap,
    caller::Caller,
    checks::{check_calls, check_none, check_process},
    client::Client,
    flaky_server::{Fault as Flaw, FlakyServer, Setup},
    log::Log,
    script::{Act, Script, mix},
    tally::{Fault, Tally},
};
use crabllm_retry::{AsyncIoTimer, Backoff, FuturesTimer, Operations, Policy, Timer};
use futures::{StreamExt, future::join, stream};
use std::{
    io, iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const IN_FLIGHT: usize = 100;
const MAX_CALLS: usize = 20_000;

/// The time in which a round starts calls, and the time after that in which they end.
const ROUND_TIME: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes that may be left. libcurl's memory is not counted.
const TOLERANCE: i64 = 64 << 10;

const MS: Duration = Duration::from_millis(1);

/// Makes calls for this time, and returns what they asked of the heap.
pub fn soak(seed: u64, time: Duration, tally: &Tally) -> io::Result<Heap> {
    let end = Instant::now() + time;
    let mut rounds = 0;
    let mut round = |time| {
        rounds += 1;
        Round::new(mix(seed, rounds), time)?.run(tally)
    };
    // What lives as long as the process comes with the first round.
    round(ROUND_TIME.min(time / 4))?;
    let mut result = Ok(());
    let heap = check_process(tally, TOLERANCE, || {
        while result.is_ok() && tally.is_clean() && Instant::now() < end {
            result = round(ROUND_TIME.min(end - Instant::now()));
        }
    });
    result.map(|()| heap)
}

struct Round {
    server: FlakyServer,
    client: Client,
    log: Arc<Log>,
    policy: Policy,
    end: Instant,
    calls: AtomicUsize,
}

impl Round {
    fn new(seed: u64, time: Duration) -> io::Result<Self> {
        let server = FlakyServer::start_with(Setup {
            newcomers: Some(flaws),
            ..Setup::default()
        })?;
        let client = Client::new(&server.base_url(), None).map_err(io::Error::other)?;
        let scripts = (0..MAX_CALLS).map(|call| Script {
            pause: Duration::ZERO,
            ..Script::new(mix(seed, call as u64))
        });
        let start = Instant::now();
        let policy = Policy::default()
            .timeout(300 * MS)
            .deadline(4000 * MS)
            .backoff(Backoff::exponential(20 * MS, 100 * MS))
            .max_retry_after(2000 * MS)
            .stream_idle(200 * MS)
            .also_retry(Operations::STREAMS);
        Ok(Self {
            server,
            client,
            log: Arc::new(Log::new(scripts, move || start.elapsed())),
            policy,
            end: start + time,
            calls: AtomicUsize::new(0),
        })
    }

    /// Makes calls on two threads with two timers, and checks them.
    fn run(self, tally: &Tally) -> io::Result<()> {
        let executor = smol::Executor::new();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        thread::scope(|scope| {
            scope.spawn(|| smol::block_on(executor.run(stopped.recv())));
            let calls = join(
                executor.spawn(self.make_calls(FuturesTimer)),
                executor.spawn(self.make_calls(AsyncIoTimer)),
            );
            let patience = smol::Timer::at(self.end + PATIENCE);
            let limited = smol::future::or(async { _ = calls.await }, async { _ = patience.await });
            smol::block_on(executor.run(limited));
            drop(stop);
        });
        drop(executor);
        let calls = self.calls.into_inner().min(MAX_CALLS);
        let attempts = (0..calls).map(|call| self.log.call(call).attempts.len());
        let requests = self.client.sent().max(self.server.requests());
        let unsolicited = requests.saturating_sub(attempts.sum());
        tally.add(Fault::Double, unsolicited, "requests without an attempt");
        check_calls(
            &self.log,
            calls,
            |_| &self.policy,
            tally,
            "a round over sockets",
        );
        let wakers = || Arc::strong_count(&self.log.wakers) - 1;
        check_none(wakers, "wakers", tally);
        let users = || Arc::strong_count(&self.log) - 1;
        check_none(users, "wrappers, attempts or streams", tally);
        Ok(())
    }

    /// Makes half of the calls, by a wrapper of their own.
    async fn make_calls<T: Timer + Clone>(&self, timer: T) {
        let (client, policy) = (self.client.clone(), self.policy.clone());
        let caller = Caller::new(client, policy, timer, self.log.clone());
        let numbers = iter::from_fn(|| {
            let more = Instant::now() < self.end && self.calls.load(Relaxed) < MAX_CALLS;
            more.then(|| self.calls.fetch_add(1, Relaxed))
        });
        let numbers = stream::iter(numbers.take_while(|number| *number < MAX_CALLS));
        let calls = numbers.for_each_concurrent(IN_FLIGHT / 2, |call| caller.clone().call(call));
        calls.await;
    }
}

/// The flaws of a call's first requests. Its user is the seed of its script.
fn flaws(user: &str) -> Vec<Flaw> {
    let script = Script::new(user.parse().unwrap_or_default());
    let flaw = |number| {
        let (after, act) = script.attempt(number);
        match (act, script.item(number).1) {
            (Act::Succeed, Act::Hang) => Flaw::StallHalfway,
            (Act::Succeed, Act::Disconnect) => Flaw::DropHalfway,
            (Act::Succeed, _) => Flaw::Late(after / 8),
            (Act::Fail(429, seconds), _) => Flaw::RateLimit(if seconds % 2 == 0 { 1 } else { 60 }),
            (Act::Fail(status, _), _) => Flaw::Status(status),
            (Act::Disconnect | Act::Panic, _) => Flaw::Drop,
            (Act::Hang, _) => Flaw::Stall,
        }
    };
    (0..4).map(flaw).collect()
}
