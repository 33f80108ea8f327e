//! The script of behavior and its expected trace.

use crabllm_retry::{
    Backoff, Event, Failure, Instant, Jitter, Policy, Retrying, Timer,
    crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json},
    test_util::{Scripted, Step, VirtualSleep, VirtualTimer},
};
use futures::{
    FutureExt, SinkExt, StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded},
    future::BoxFuture,
    select_biased,
};
use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Each event and its virtual time, in units since the script began.
const EXPECTED: &[(f64, &str)] = &[
    (0.0, "-- success after two failures"),
    (0.0, "retry after attempt 1 in 1: HTTP 503"),
    (1.0, "retry after attempt 2 in 2: transient"),
    (3.0, "success at attempt 3"),
    (3.0, "answered"),
    (3.0, "-- exhaustion"),
    (3.0, "retry after attempt 1 in 1: HTTP 503"),
    (4.0, "retry after attempt 2 in 2: HTTP 502"),
    (6.0, "gave up after attempt 3, Exhausted: HTTP 500"),
    (6.0, "failed: HTTP 500"),
    (6.0, "-- timeout, then success"),
    (16.0, "retry after attempt 1 in 1: timeout"),
    (17.0, "success at attempt 2"),
    (17.0, "answered"),
    (17.0, "-- not transient"),
    (17.0, "gave up after attempt 1, NotTransient: permanent"),
    (17.0, "failed: permanent"),
    (17.0, "-- timeout of a stream's opening"),
    (27.0, "gave up after attempt 1, NotRetried: timeout"),
    (27.0, "failed: timeout"),
    (27.0, "-- stall of an open stream"),
    (27.0, "success at attempt 1"),
    (27.0, "item"),
    (29.0, "item"),
    (34.0, "stalled after 5"),
    (34.0, "item failed: timeout"),
    (34.0, "end"),
    (34.0, "end again"),
    (34.0, "-- cancel in an attempt"),
    (36.0, "cancelled, of 1 attempts 1 cancelled"),
    (36.0, "-- cancel in a delay"),
    (36.0, "retry after attempt 1 in 1000: HTTP 503"),
    (38.0, "cancelled, of 1 attempts 0 cancelled"),
    (38.0, "-- a thousand calls at once"),
    (49.0, "1000 answered, of 2000 attempts 1000 cancelled"),
];

/// The script, ready to run.
pub struct Play {
    pub script: BoxFuture<'static, ()>,

    /// The tasks that the script spawns, to run beside it.
    pub tasks: UnboundedReceiver<BoxFuture<'static, ()>>,

    pub trace: Trace,
}

impl Play {
    pub fn in_virtual_time<T: Timer + Clone>(timer: impl FnOnce(VirtualTimer) -> T) -> Self {
        let clock = VirtualTimer::new();
        Self::new(Clock::Virtual(clock.clone()), timer(clock))
    }

    pub fn in_real_time(timer: impl Timer + Clone) -> Self {
        Self::new(Clock::Real(Instant::now()), timer)
    }

    fn new(clock: Clock, timer: impl Timer + Clone) -> Self {
        let (spawner, tasks) = unbounded();
        let trace = Trace {
            clock,
            events: Arc::default(),
        };
        let stage = Stage {
            timer,
            spawner,
            trace: trace.clone(),
        };
        Self {
            script: trace.clock.watch(stage.play().boxed()),
            tasks,
            trace,
        }
    }
}

/// The clock of a trace.
#[derive(Clone)]
enum Clock {
    Virtual(VirtualTimer),
    Real(Instant),
}

impl Clock {
    /// The script's unit of time.
    fn unit(&self) -> Duration {
        match self {
            Self::Virtual(_) => Duration::from_secs(1),
            Self::Real(_) => Duration::from_millis(5),
        }
    }

    fn elapsed(&self) -> Duration {
        match self {
            Self::Virtual(clock) => clock.elapsed(),
            Self::Real(begin) => begin.elapsed(),
        }
    }

    fn watch(&self, task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        match self {
            Self::Virtual(clock) => clock.task(task).boxed(),
            Self::Real(_) => task,
        }
    }
}

/// The events so far, each with its time in units.
#[derive(Clone)]
pub struct Trace {
    clock: Clock,
    events: Arc<Mutex<Vec<(f64, String)>>>,
}

impl Trace {
    fn write(&self, event: impl Into<String>) {
        let at = self.clock.elapsed().div_duration_f64(self.clock.unit());
        self.events.lock().unwrap().push((at, event.into()));
    }

    pub fn assert_expected(&self) {
        let trace = self.events.lock().unwrap();
        let events: Vec<_> = trace.iter().map(|(_, event)| &**event).collect();
        let expected: Vec<_> = EXPECTED.iter().map(|(_, event)| *event).collect();
        assert_eq!(events, expected);
        for ((at, event), (expected, _)) in trace.iter().zip(EXPECTED) {
            match &self.clock {
                Clock::Virtual(_) => assert_eq!(at, expected, "{event}"),
                Clock::Real(_) => assert!(at >= expected, "{event} at {at}, before {expected}"),
            }
        }
        if let Clock::Virtual(clock) = &self.clock {
            assert_eq!(clock.sleeping(), 0, "a sleep is left behind");
        }
    }
}

/// A virtual clock whose sleeps may be shared, as those of the real timers are.
#[derive(Clone)]
pub struct Shareable(pub VirtualTimer);

impl Timer for Shareable {
    type Sleep = VirtualSleep;

    fn sleep(&self, duration: Duration) -> VirtualSleep {
        self.0.sleep(duration)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

#[derive(Clone)]
struct Stage<T> {
    timer: T,
    spawner: UnboundedSender<BoxFuture<'static, ()>>,
    trace: Trace,
}

impl<T: Timer + Clone> Stage<T> {
    async fn play(self) {
        self.write("-- success after two failures");
        self.call([Step::status(503), Step::disconnect()]).await;

        self.write("-- exhaustion");
        self.call([Step::status(503), Step::status(502), Step::status(500)])
            .await;

        self.write("-- timeout, then success");
        self.call([Step::hang()]).await;

        self.write("-- not transient");
        self.call([Step::invalid()]).await;

        self.write("-- timeout of a stream's opening");
        self.stream(Step::hang()).await;

        self.write("-- stall of an open stream");
        let items = [Step::ok(), Step::ok().after(self.units(2)), Step::hang()];
        self.stream(Step::stream(items)).await;

        self.write("-- cancel in an attempt");
        self.cancel(Step::hang()).await;

        self.write("-- cancel in a delay");
        self.cancel(Step::status(503)).await;

        self.write("-- a thousand calls at once");
        self.thousand().await;
    }

    async fn call(&self, steps: impl IntoIterator<Item = Step>) {
        let provider = self.retrying(self.scripted(steps));
        match provider.chat_completion(&request()).await {
            Ok(_) => self.write("answered"),
            Err(error) => self.write(format!("failed: {}", describe(&error))),
        }
    }

    async fn stream(&self, opening: Step) {
        let provider = self.retrying(self.scripted([opening]));
        let mut items = match provider.chat_completion_stream(&request()).await {
            Ok(items) => items,
            Err(error) => return self.write(format!("failed: {}", describe(&error))),
        };
        while let Some(item) = items.next().await {
            match item {
                Ok(_) => self.write("item"),
                Err(error) => self.write(format!("item failed: {}", describe(&error))),
            }
        }
        self.write("end");
        if items.next().await.is_none() {
            self.write("end again");
        }
    }

    /// Drops a call two units after its first step.
    async fn cancel(&self, step: Step) {
        let far = self.units(1000);
        let backoff = Backoff::exponential(far, far).jitter(Jitter::None);
        let scripted = self.scripted([step]);
        let retrying = self.retrying(scripted.clone());
        let retrying = retrying.timeout(far).backoff(backoff);
        let request = request();
        {
            let mut call = pin!(retrying.chat_completion(&request).fuse());
            let mut enough = pin!(self.timer.sleep(self.units(2)).fuse());
            select_biased! {
                _ = call => self.write("answered"),
                () = enough => {}
            }
        }
        self.write(format!("cancelled, {}", attempts(&scripted)));
    }

    /// Makes a thousand calls to one wrapper, each in a task of its own. The first
    /// thousand attempts hang, whichever calls they belong to.
    async fn thousand(&self) {
        const CALLS: usize = 1000;
        let scripted = self.scripted(std::iter::repeat_with(Step::hang).take(CALLS));
        let retrying = Retrying::with_timer(scripted.clone(), self.timer.clone())
            .policy(self.policy().max_retries(u32::MAX));
        let (answered, answers) = channel(0);
        // All are watched before the first runs.
        let calls = [(); CALLS].map(|()| {
            let (retrying, mut answered) = (retrying.clone(), answered.clone());
            let call = async move {
                let answer = retrying.chat_completion(&request()).await;
                // Fails only if the script has panicked.
                let _ = answered.send(answer.is_ok()).await;
            };
            self.trace.clock.watch(call.boxed())
        });
        drop(answered);
        for call in calls {
            self.spawner.unbounded_send(call).unwrap();
        }
        let ok = answers.filter(|&ok| async move { ok }).count().await;
        self.write(format!("{ok} answered, {}", attempts(&scripted)));
    }

    fn scripted(&self, steps: impl IntoIterator<Item = Step>) -> Scripted<T> {
        Scripted::new(self.timer.clone(), steps)
    }

    fn policy(&self) -> Policy {
        let backoff = Backoff::exponential(self.units(1), self.units(20)).jitter(Jitter::None);
        Policy::default()
            .timeout(self.units(10))
            .stream_idle(self.units(5))
            .backoff(backoff)
    }

    fn retrying(&self, provider: Scripted<T>) -> Retrying<Scripted<T>, T> {
        let trace = self.trace.clone();
        Retrying::with_timer(provider, self.timer.clone())
            .policy(self.policy())
            .observe(move |event| {
                if !matches!(event, Event::Attempt { .. }) {
                    trace.write(describe_event(event, trace.clock.unit()));
                }
            })
    }

    fn units(&self, n: u32) -> Duration {
        n * self.trace.clock.unit()
    }

    fn write(&self, event: impl Into<String>) {
        self.trace.write(event);
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

fn describe_event(event: &Event<'_>, unit: Duration) -> String {
    match event {
        Event::Retry {
            attempt,
            delay,
            error,
            ..
        } => {
            let (delay, error) = (delay.div_duration_f64(unit), describe(*error));
            format!("retry after attempt {attempt} in {delay}: {error}")
        }
        Event::Success { attempt, .. } => format!("success at attempt {attempt}"),
        Event::GaveUp {
            attempt,
            error,
            reason,
            ..
        } => {
            let error = describe(*error);
            format!("gave up after attempt {attempt}, {reason:?}: {error}")
        }
        Event::StreamStalled { idle, .. } => {
            format!("stalled after {}", idle.div_duration_f64(unit))
        }
        _ => format!("{event:?}"),
    }
}

fn describe(error: &dyn Failure) -> String {
    match error.status() {
        Some(status) => format!("HTTP {status}"),
        None if error.is_timeout() => "timeout".into(),
        None if error.is_transient() => "transient".into(),
        None => "permanent".into(),
    }
}
