//! The threads of the process.

#![cfg(target_os = "linux")]
#![cfg(all(
    feature = "async-io",
    feature = "crabllm-core-0_0_19",
    feature = "futures-timer",
    feature = "test-util"
))]

mod common;

use common::{block_on, exactly, request};
use crabllm_retry::{
    AsyncIoTimer, FuturesTimer, Operations, Policy, Retrying, Timer,
    crabllm_core_0_0_19::Provider,
    test_util::{Scripted, Step},
};
use futures::{StreamExt, future::join};
use std::{
    collections::BTreeMap,
    fs, io,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The names of the threads of this process, by their numbers.
type Threads = BTreeMap<String, String>;

fn threads() -> io::Result<Threads> {
    let tasks = fs::read_dir("/proc/self/task")?;
    let named = tasks.map(|task| {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        let number = task.file_name().to_string_lossy().into_owned();
        Ok((number, name.trim_end().to_owned()))
    });
    named.collect()
}

#[test]
fn the_only_threads_are_one_of_each_timer_crate() {
    const MS: Duration = Duration::from_millis(1);

    /// Makes a call with a timeout, a retry after a delay, and a stream that stalls.
    async fn wait(timer: impl Timer + Clone, seen: Arc<Mutex<Threads>>) {
        let script = [Step::hang(), Step::stream([Step::ok(), Step::hang()])];
        let policy = Policy::default()
            .timeout(20 * MS)
            .backoff(exactly(20 * MS))
            .stream_idle(20 * MS)
            .retry(Operations::ALL);
        let retrying = Retrying::with_timer(Scripted::new(timer.clone(), script), timer)
            .policy(policy)
            .observe(move |_| seen.lock().unwrap().extend(threads().unwrap()));
        let items = retrying.chat_completion_stream(&request()).await.unwrap();
        assert_eq!(items.count().await, 2);
        assert_eq!(retrying.get_ref().attempts().len(), 2);
    }

    let before = threads().unwrap();
    let seen = Arc::default();
    block_on(join(
        wait(FuturesTimer, Arc::clone(&seen)),
        wait(AsyncIoTimer, Arc::clone(&seen)),
    ));
    let mut seen = seen.lock().unwrap();
    seen.extend(threads().unwrap());
    seen.retain(|number, _| !before.contains_key(number));

    let mut left = vec!["async-io", "futures-timer"];
    for name in seen.values() {
        let own = left.iter().position(|own| own == name);
        left.remove(own.unwrap_or_else(|| panic!("{seen:?}")));
    }
}
