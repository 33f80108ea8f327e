//! Makes the calls.

use crate::{contender::Contender, record::Record, scenario::Scenario, server::Server};
use crabllm_retry::{
    Event, Retrying, Timer,
    crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json},
    test_util::VirtualTimer,
};
use fastrand::Rng;
use futures::{FutureExt, StreamExt, executor::block_on, stream};
use std::{
    ops::Range,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Simulates one scenario under several policies, each on a thread of its own.
pub fn run_all(contenders: &[Contender], scenario: &Scenario) -> Vec<Record> {
    thread::scope(|scope| {
        let spawn = |contender| scope.spawn(move || run(contender, scenario));
        let threads: Vec<_> = contenders.iter().map(spawn).collect();
        let records = threads.into_iter().map(|thread| thread.join().unwrap());
        records.collect()
    })
}

/// Simulates one scenario under one policy, on this thread.
pub fn run(contender: &Contender, scenario: &Scenario) -> Record {
    let mut rng = Rng::with_seed(scenario.seed);
    let clock = VirtualTimer::new();
    let record = Arc::new(Mutex::new(Record::new()));
    let server = Server::new(clock.clone(), record.clone(), scenario);
    let processes: Vec<_> = (0..scenario.processes())
        .map(|_| Process {
            provider: contender
                .wrap(server.clone(), clock.clone())
                .seed(rng.u64(..))
                .observe(count_waste(clock.clone(), record.clone())),
            last_sleep: contender.last_sleep.clone(),
            request: json::from_str(r#"{"model": "m", "messages": []}"#).expect("it is one"),
            clock: clock.clone(),
            record: record.clone(),
        })
        .collect();

    let calls = stream::iter(schedule(scenario, &mut rng))
        .then(|(begins, caller)| {
            let sleep = clock.sleep(begins.saturating_sub(clock.elapsed()));
            sleep.map(move |()| caller)
        })
        .for_each_concurrent(None, |caller| {
            let process = &processes[caller % processes.len()];
            process.call(rng.fork())
        });
    // All calls are one task to the clock: it moves when all of them wait.
    block_on(clock.task(calls));
    record.lock().unwrap().clone()
}

/// When each call begins and who makes it: every caller once a period, at its own time in it.
fn schedule(scenario: &Scenario, rng: &mut Rng) -> impl Iterator<Item = (Duration, usize)> + use<> {
    let period = Scenario::PERIOD;
    let mut callers: Vec<_> = (0..scenario.callers)
        .map(|caller| (period.mul_f64(rng.f64()), caller))
        .collect();
    callers.sort_unstable();
    let periods = (Scenario::STOP.as_nanos() / period.as_nanos()) as u32;
    (0..periods).flat_map(move |number| {
        let begin = period * number;
        let callers = callers.clone().into_iter();
        callers.map(move |(offset, caller)| (begin + offset, caller))
    })
}

/// One of the processes that make calls.
struct Process {
    provider: Retrying<Server, VirtualTimer>,
    last_sleep: Option<Range<Duration>>,
    request: ChatCompletionRequest,
    clock: VirtualTimer,
    record: Arc<Mutex<Record>>,
}

impl Process {
    async fn call(&self, mut rng: Rng) {
        let began = self.clock.elapsed();
        let answer = self.provider.chat_completion(&self.request).await;
        if answer.is_ok() {
            self.record.lock().unwrap().success(began);
            return;
        }
        if let Some(sleep) = &self.last_sleep {
            let spread = (sleep.end - sleep.start).mul_f64(rng.f64());
            self.clock.sleep(sleep.start + spread).await;
        }
        let took = self.clock.elapsed() - began;
        self.record.lock().unwrap().failure(began, took);
    }
}

/// Observes the calls that fail after retries.
fn count_waste(clock: VirtualTimer, record: Arc<Mutex<Record>>) -> impl Fn(&Event<'_>) {
    move |event| {
        if let &Event::GaveUp {
            attempt, elapsed, ..
        } = event
        {
            let began = clock.elapsed() - elapsed;
            record.lock().unwrap().wasted(began, attempt - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;

    fn small(seed: u64) -> Scenario {
        Scenario {
            callers: 100,
            rejection_cost: 0.1,
            seed,
        }
    }

    #[test]
    fn equal_seeds_give_equal_records() {
        for contender in Contender::all() {
            let run = |seed| run(&contender, &small(seed));
            assert_eq!(run(1), run(1), "{}", contender.name);
            assert_ne!(run(1), run(2), "{}", contender.name);
        }
    }

    #[test]
    fn every_caller_makes_a_call_a_second() {
        let record = run(&Contender::budgeted(), &small(1));
        for second in record.slices.chunks(10) {
            assert_eq!(second.iter().map(|slice| slice.calls).sum::<u64>(), 100);
        }
    }

    #[test]
    fn with_a_budget_an_outage_takes_at_most_one_retry_in_ten_calls() {
        let record = run(&Contender::budgeted(), &small(1));
        let Figures {
            attempts_per_call, ..
        } = Figures::new(&record);
        assert!(
            (1.0..=1.1).contains(&attempts_per_call),
            "{attempts_per_call}"
        );
    }

    #[test]
    fn without_a_budget_an_outage_takes_nearly_all_retries() {
        for contender in &Contender::all()[..3] {
            let figures = Figures::new(&run(contender, &small(1)));
            let attempts = figures.attempts_per_call;
            assert!((2.8..=3.0).contains(&attempts), "{attempts}");
        }
    }
}
