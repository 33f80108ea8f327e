//! A provider that falls back to another one.

mod breaker;
mod names;

pub use names::Names;

use crate::{
    event::{Event, Observers},
    failure::Failure,
    hints,
    policy::Operation,
    timer::Instant,
};
use breaker::{Breaker, Outcome, Permit};
use std::{fmt, sync::Arc, time::Duration};

/// A provider around two others. Each call goes to the first one; if that fails in a way
/// that another provider may not, the same call goes to the second one, once.
///
/// It implements the `Provider` trait of each enabled `crabllm-core` release that both
/// providers implement. Each side brings its own [`Retrying`](crate::Retrying), whose
/// retries, deadline and budget are used up first. [The guide](docs/fallback/index.html)
/// has the rules in full, recommended settings, and the costs.
///
/// ```
/// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "test-util"))] {
/// use crabllm_retry::Fallback;
/// use crabllm_retry::crabllm_core_0_0_19::{ChatCompletionRequest, Provider, json};
/// use crabllm_retry::test_util::{Scripted, Step, VirtualTimer};
///
/// let request: ChatCompletionRequest = json::from_str(r#"{"model": "large", "messages": []}"#)?;
/// let timer = VirtualTimer::new();
/// let first = Scripted::new(timer.clone(), [Step::status(503)]);
/// let second = Scripted::new(timer, [Step::text("Hello!")]);
/// let provider = Fallback::new(first, second).model("large", "vendor/large");
///
/// let answer = futures::executor::block_on(provider.chat_completion(&request))?;
/// assert_eq!(answer.content(), Some("Hello!"));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A call falls back if the failure is transient by
/// [`hints::is_transient`](crate::hints::is_transient), if the account or plan is exhausted,
/// or if the first provider does not implement the operation. A stream falls back if its
/// opening fails. After five failures in a row, calls go straight to the second provider
/// for 30 seconds.
#[derive(Clone)]
#[must_use = "calls go through the wrapper"]
pub struct Fallback<A, B> {
    pub(crate) first: A,
    pub(crate) second: B,
    pub(crate) settings: Settings,
}

type FallIf = dyn Fn(&dyn Failure) -> bool + Send + Sync;

/// The needs of a call besides its providers.
#[derive(Clone)]
pub struct Settings {
    pub names: Names,
    fall_if: Arc<FallIf>,
    observers: Observers,
    clock: Arc<dyn Fn() -> Instant + Send + Sync>,
    breaker: Arc<Breaker>,
}

impl<A, B> Fallback<A, B> {
    /// Falls back from `first` to `second`.
    pub fn new(first: A, second: B) -> Self {
        Self {
            first,
            second,
            settings: Settings {
                names: Names::default(),
                fall_if: Arc::new(hints::another_provider_may_answer),
                observers: Observers::default(),
                clock: Arc::new(Instant::now),
                breaker: Arc::new(Breaker::new(5, Duration::from_secs(30))),
            },
        }
    }

    /// Asks the second provider for the model `to` if a call names the model `from`: in the
    /// request, the argument `model`, the top-level `model` of a raw JSON body, and the form
    /// field `model` of a transcription. Default: models have the same name at both.
    ///
    /// The last name set for a model counts. Nothing is added to a call that names no model.
    pub fn model(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.settings.names.insert(from.into(), to.into());
        self
    }

    /// Decides which failures of the first provider send a call to the second one, in place
    /// of the rule above, such as `hints::is_transient(error) || error.status() == Some(404)`.
    /// The last callback set counts.
    pub fn fall_if(mut self, f: impl Fn(&dyn Failure) -> bool + Send + Sync + 'static) -> Self {
        self.settings.fall_if = Arc::new(f);
        self
    }

    /// Sets how many failures in a row open the breaker, and for how long. Default, by our
    /// choice: 5 failures, 30 seconds. Zero failures: no breaker. A zero cooldown: every call
    /// probes.
    ///
    /// Clones share the breaker; this one gets a new one, which is closed.
    pub fn breaker(mut self, failures: u32, cooldown: Duration) -> Self {
        self.settings.breaker = Arc::new(Breaker::new(failures, cooldown));
        self
    }

    /// Adds an observer: `f` is called with each [`Event::FellBack`],
    /// [`Event::BreakerOpened`] and [`Event::BreakerClosed`], as it happens.
    pub fn observe(mut self, f: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.settings.observers.add(f);
        self
    }

    /// Uses another clock for the breaker and for events, for tests: `move || timer.now()`
    /// with a virtual timer. Default: [`Instant::now`].
    pub fn clock(mut self, f: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        self.settings.clock = Arc::new(f);
        self
    }

    /// The first provider.
    pub fn first(&self) -> &A {
        &self.first
    }

    /// The second provider.
    pub fn second(&self) -> &B {
        &self.second
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Fallback<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("first", &self.first)
            .field("second", &self.second)
            .field("names", &self.settings.names)
            .field("breaker", &self.settings.breaker)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Whether a call whose arguments are consumed goes to `second`. It does not count.
    #[allow(dead_code, reason = "earlier releases have no passthrough")]
    pub fn passes_to_second(&self) -> bool {
        self.observers.number_call();
        self.breaker.is_open()
    }
}

/// One call, from its first poll on.
pub struct Call<'f, E> {
    settings: &'f Settings,
    operation: &'static Operation,

    /// The number and the start of the call, if there is an observer.
    observed: Option<(u64, Instant)>,

    /// The permission to ask `first`.
    permit: Option<Permit<'f>>,

    /// The failure of `first`.
    failure: Option<E>,
}

impl<'f, E: Failure> Call<'f, E> {
    pub fn begin(settings: &'f Settings, operation: &'static Operation) -> Self {
        let observed = settings.observers.is_some();
        Self {
            settings,
            operation,
            observed: observed.then(|| (settings.observers.number_call(), (settings.clock)())),
            permit: settings.breaker.enter(&*settings.clock),
            failure: None,
        }
    }

    pub fn goes_to_first(&self) -> bool {
        self.permit.is_some()
    }

    /// Counts the result of `first`. Returns the result of the call, or `None` if the call
    /// goes to `second`.
    pub fn judge<O>(
        &mut self,
        result: Result<O, E>,
        model: impl FnOnce() -> Option<String>,
    ) -> Option<Result<O, E>> {
        let error = result.as_ref().err();
        let falls = error.is_some_and(|error| (self.settings.fall_if)(error));
        let counts = !error.is_some_and(Failure::is_not_implemented);
        let outcome = match falls {
            true => Outcome::Failure,
            false => Outcome::Success,
        };
        let permit = self.permit.take().filter(|_| counts);
        let changed = permit.is_some_and(|it| it.report(outcome, &*self.settings.clock));

        // A raw body is parsed only if there is an event.
        let reported = self.observed.filter(|_| falls || changed);
        let model = reported.and_then(|_| model());
        let (operation, model) = (*self.operation, model.as_deref());
        if changed {
            self.emit(|call, elapsed| match falls {
                true => Event::BreakerOpened {
                    call,
                    operation,
                    model,
                    elapsed,
                },
                false => Event::BreakerClosed {
                    call,
                    operation,
                    model,
                    elapsed,
                },
            });
        }
        match result {
            Err(error) if falls => {
                self.emit(|call, elapsed| Event::FellBack {
                    call,
                    operation,
                    model,
                    elapsed,
                    error: &error,
                });
                self.failure = Some(error);
                None
            }
            result => Some(result),
        }
    }

    /// The result of a call that `second` has answered with this one.
    pub fn finish<O>(self, result: Result<O, E>) -> Result<O, E> {
        match (result, self.failure) {
            (Err(missing), Some(failure)) if missing.is_not_implemented() => Err(failure),
            (result, _) => result,
        }
    }

    fn emit<'e>(&self, event: impl FnOnce(u64, Duration) -> Event<'e>) {
        if let Some((call, began)) = self.observed {
            let elapsed = (self.settings.clock)().saturating_duration_since(began);
            self.settings.observers.emit(|| event(call, elapsed));
        }
    }
}
