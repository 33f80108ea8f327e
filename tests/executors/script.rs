//! The script of behavior and its expected trace.

use crabllm_retry::{
    Backoff, Instant, Jitter, Retrying, Timer,
    crabllm_core_0_0_19::{ChatCompletionRequest, Error, Provider, json},
    test_util::{Scripted, Step, VirtualTimer},
};
use futures::{
    FutureExt, SinkExt, StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded},
    future::{BoxFuture, Either, select},
};
use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The trace: the outcomes and their virtual times, in units since the script began.
const EXPECTED: &[(f64, &str)] = &[
    // Delays of 1 and 2.
    (3.0, "answer after two failures: ok"),
    // A timeout of 10 and a delay.
    (14.0, "answer after a hanging attempt: ok"),
    (14.0, "item: ok"),
    (16.0, "item: ok"),
    // A stream may be silent for 5.
    (21.0, "item: request timed out"),
    (21.0, "end"),
    (23.0, "drop in an attempt: of 1 attempts 1 cancelled"),
    (25.0, "drop in a delay: of 1 attempts 0 cancelled"),
    // All calls time out once.
    (36.0, "1000 of 1000 calls: of 2000 attempts 1000 cancelled"),
];

/// The script, ready to run.
pub struct Play {
    pub script: BoxFuture<'static, ()>,

    /// The tasks that the script spawns, to run beside it.
    pub tasks: UnboundedReceiver<BoxFuture<'static, ()>>,

    pub trace: Trace,
}

impl Play {
    pub fn in_virtual_time() -> Self {
        let clock = VirtualTimer::new();
        Self::new(clock.clone(), Duration::from_secs(1), Some(clock))
    }

    pub fn in_real_time(timer: impl Timer + Clone) -> Self {
        Self::new(timer, Duration::from_millis(5), None)
    }

    fn new(timer: impl Timer + Clone, unit: Duration, clock: Option<VirtualTimer>) -> Self {
        let (spawner, tasks) = unbounded();
        let trace = Trace {
            clock,
            events: Arc::default(),
        };
        let stage = Stage {
            began: timer.now(),
            timer,
            unit,
            spawner,
            trace: trace.clone(),
        };
        Self {
            script: trace.watch(stage.play()),
            tasks,
            trace,
        }
    }
}

/// The outcomes so far, each with its time in units.
#[derive(Clone)]
pub struct Trace {
    /// The clock of virtual time.
    clock: Option<VirtualTimer>,

    events: Arc<Mutex<Vec<(f64, String)>>>,
}

impl Trace {
    fn watch(&self, task: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
        match &self.clock {
            Some(clock) => clock.task(task).boxed(),
            None => task.boxed(),
        }
    }

    pub fn assert_expected(&self) {
        let trace = self.events.lock().unwrap();
        let events: Vec<_> = trace.iter().map(|(_, event)| &**event).collect();
        let expected: Vec<_> = EXPECTED.iter().map(|(_, event)| *event).collect();
        assert_eq!(events, expected);
        for ((at, event), (expected, _)) in trace.iter().zip(EXPECTED) {
            match self.clock {
                Some(_) => assert_eq!(at, expected, "{event}"),
                None => assert!(at >= expected, "{event} at {at}, before {expected}"),
            }
        }
        let sleeping = self.clock.as_ref().map_or(0, VirtualTimer::sleeping);
        assert_eq!(sleeping, 0, "a sleep is left behind");
    }
}

struct Stage<T> {
    timer: T,
    began: Instant,

    /// The script's unit of time.
    unit: Duration,

    spawner: UnboundedSender<BoxFuture<'static, ()>>,
    trace: Trace,
}

impl<T: Timer + Clone> Stage<T> {
    async fn play(self) {
        self.call("two failures", [Step::status(503), Step::disconnect()])
            .await;
        self.call("a hanging attempt", [Step::hang()]).await;
        self.stream([Step::ok(), Step::ok().after(self.units(2)), Step::hang()])
            .await;
        self.drop_call("an attempt", Step::hang()).await;
        self.drop_call("a delay", Step::status(503)).await;
        self.thousand().await;
    }

    async fn call(&self, failures: &str, steps: impl IntoIterator<Item = Step>) {
        let retrying = self.retrying(self.scripted(steps));
        let answer = retrying.chat_completion(&request()).await;
        self.write(format!("answer after {failures}: {}", describe(answer)));
    }

    async fn stream(&self, items: impl IntoIterator<Item = Step>) {
        let retrying = self.retrying(self.scripted([Step::stream(items)]));
        let opening = retrying.chat_completion_stream(&request()).await;
        let mut items = opening.unwrap();
        while let Some(item) = items.next().await {
            self.write(format!("item: {}", describe(item)));
        }
        self.write("end");
    }

    /// Drops a call two units after its first step.
    async fn drop_call(&self, place: &str, step: Step) {
        let far = self.units(1000);
        let backoff = Backoff::exponential(far, far).jitter(Jitter::None);
        let scripted = self.scripted([step]);
        let retrying = self.retrying(scripted.clone());
        let retrying = retrying.timeout(far).backoff(backoff);
        let request = request();
        let call = retrying.chat_completion(&request);
        let enough = self.timer.sleep(self.units(2));
        let ended = matches!(select(pin!(call), pin!(enough)).await, Either::Left(_));
        assert!(!ended, "the call ended");
        self.write(format!("drop in {place}: {}", attempts(&scripted)));
    }

    /// Makes a thousand calls to one wrapper, each in a task of its own. The first
    /// thousand attempts hang, whichever calls they belong to.
    async fn thousand(&self) {
        const CALLS: usize = 1000;
        let scripted = self.scripted(std::iter::repeat_with(Step::hang).take(CALLS));
        let retrying = self.retrying(scripted.clone()).max_retries(u32::MAX);
        let (answered, answers) = channel(0);
        // All are watched before the first runs.
        let calls = [(); CALLS].map(|()| {
            let (retrying, mut answered) = (retrying.clone(), answered.clone());
            let call = async move {
                let answer = retrying.chat_completion(&request()).await;
                // Fails only if the script has panicked.
                let _ = answered.send(answer.is_ok()).await;
            };
            self.trace.watch(call)
        });
        drop(answered);
        for call in calls {
            self.spawner.unbounded_send(call).unwrap();
        }
        let ok = answers.filter(|&ok| async move { ok }).count().await;
        self.write(format!("{ok} of {CALLS} calls: {}", attempts(&scripted)));
    }

    fn scripted(&self, steps: impl IntoIterator<Item = Step>) -> Scripted<T> {
        Scripted::new(self.timer.clone(), steps)
    }

    fn retrying(&self, provider: Scripted<T>) -> Retrying<Scripted<T>, T> {
        let backoff = Backoff::exponential(self.units(1), self.units(20)).jitter(Jitter::None);
        Retrying::with_timer(provider, self.timer.clone())
            .timeout(self.units(10))
            .stream_idle(self.units(5))
            .backoff(backoff)
    }

    fn units(&self, n: u32) -> Duration {
        n * self.unit
    }

    fn write(&self, event: impl Into<String>) {
        let at = (self.timer.now() - self.began).div_duration_f64(self.unit);
        self.trace.events.lock().unwrap().push((at, event.into()));
    }
}

fn request() -> ChatCompletionRequest {
    json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

fn attempts(scripted: &Scripted<impl Timer>) -> String {
    let attempts = scripted.attempts();
    let cancelled = attempts.iter().filter(|attempt| attempt.cancelled).count();
    format!("of {} attempts {cancelled} cancelled", attempts.len())
}

fn describe<T>(result: Result<T, Error>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".into())
}
