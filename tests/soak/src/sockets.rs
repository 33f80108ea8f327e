//! Calls over real sockets, on smol, against the flaky server.

use crate::{
    allocator::Heap,
    caller::Caller,
    checks::{check_calls, check_none, check_process},
    client::Client,
    flaky_server::{Fault as Flaw, FlakyServer, REPLY, Setup},
    log::Log,
    script::{Act, Script, mix},
    tally::{Fault, Tally},
};
use crabllm_retry::{AsyncIoTimer, Backoff, FuturesTimer, Operations, Policy, Timer};
use futures::{StreamExt, stream};
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
    // The first round makes what lives as long as the process.
    round(mix(seed, 0), ROUND_TIME.min(time / 4), tally)?;
    let mut result = Ok(());
    let heap = check_process(tally, TOLERANCE, || {
        for number in 1.. {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || result.is_err() || !tally.is_clean() {
                break;
            }
            result = round(mix(seed, number), ROUND_TIME.min(left), tally);
        }
    });
    result.map(|()| heap)
}

/// Makes calls on two threads with two timers, and checks them.
fn round(seed: u64, time: Duration, tally: &Tally) -> io::Result<()> {
    let server = FlakyServer::start_with(Setup::new(flaws))?;
    let client = Client::new(&server.base_url(), None).map_err(io::Error::other)?;
    let scripts = (0..MAX_CALLS).map(|call| Script {
        pause: Duration::ZERO,
        ..Script::new(mix(seed, call as u64), seed as usize)
    });
    let start = Instant::now();
    let log = Arc::new(Log::new(scripts, move || start.elapsed()));
    let policy = Policy::default()
        .timeout(300 * MS)
        .deadline(4000 * MS)
        .backoff(Backoff::exponential(20 * MS, 100 * MS))
        .max_retry_after(2000 * MS)
        .stream_idle(200 * MS)
        .also_retry(Operations::STREAMS);

    let calls = AtomicUsize::new(0);
    let numbers = || {
        let next = || (start.elapsed() < time).then(|| calls.fetch_add(1, Relaxed));
        iter::from_fn(next).take_while(|number| *number < MAX_CALLS)
    };
    let executor = smol::Executor::new();
    let one = Caller::new(client.clone(), policy.clone(), FuturesTimer, &log);
    let other = Caller::new(client.clone(), policy.clone(), AsyncIoTimer, &log);
    let tasks = [
        executor.spawn(make_calls(one, numbers())),
        executor.spawn(make_calls(other, numbers())),
    ];
    thread::scope(|scope| {
        for task in tasks {
            let patience = async { _ = smol::Timer::after(time + PATIENCE).await };
            let ended = smol::future::or(task, patience);
            scope.spawn(|| smol::block_on(executor.run(ended)));
        }
    });
    drop(executor);

    let calls = calls.into_inner().min(MAX_CALLS);
    let attempts = (0..calls).map(|call| log.call(call).attempts.len());
    let requests = client.sent().max(server.requests());
    let unsolicited = requests.saturating_sub(attempts.sum());
    tally.add(Fault::Double, unsolicited, "requests without an attempt");
    check_calls(&log, calls, |_| &policy, tally, "a round over sockets");
    check_none(|| Arc::strong_count(&log.wakers) - 1, "wakers", tally);
    let users = || Arc::strong_count(&log) - 1;
    check_none(users, "wrappers, attempts or streams", tally);
    Ok(())
}

/// Makes half of the calls.
async fn make_calls<T: Timer + Clone>(
    caller: Caller<Client, T>,
    numbers: impl Iterator<Item = usize>,
) {
    let calls = stream::iter(numbers);
    let call = |number| caller.clone().call(number);
    calls.for_each_concurrent(IN_FLIGHT / 2, call).await;
}

/// The flaws of a call's first requests. Its user is the seed of its script.
fn flaws(user: &str) -> Vec<Flaw> {
    let script = Script::new(user.parse().unwrap_or_default(), 0);
    let flaw = |number| {
        let (after, act) = script.attempt(number);
        match (act, script.item(number, REPLY.len()).1) {
            (Act::Succeed, Act::Hang) => Flaw::StallHalfway,
            (Act::Succeed, Act::Fail(..)) => Flaw::DropHalfway,
            (Act::Succeed | Act::End, _) => Flaw::Late(after / 8),
            (Act::Fail(429, seconds), _) => Flaw::RateLimit(if seconds % 2 == 0 { 1 } else { 60 }),
            (Act::Fail(status, _), _) => Flaw::Status(status),
            (Act::Panic, _) => Flaw::Drop,
            (Act::Hang, _) => Flaw::Stall,
        }
    };
    (0..4).map(flaw).collect()
}
