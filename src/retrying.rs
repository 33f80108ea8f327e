//! The wrapper.

#[cfg(feature = "futures-timer")]
use crate::timer::FuturesTimer;
use crate::{
    call::{CallModel, Engine, Entropy, Items},
    event::Event,
    failure::Failure,
    hints,
    limits::{RateLimiter, RetryBudget},
    policy::{Backoff, Operation, Operations, Policy},
    timer::Timer,
};
use futures::{FutureExt, stream::BoxStream};
use std::{error::Error, fmt, mem, sync::Arc, time::Duration};

/// A provider around another one: it retries transient failures and limits the time of
/// each attempt.
///
/// If the inner provider implements the `Provider` trait of an enabled `crabllm-core`
/// release, so does the wrapper. Every method reaches the inner provider's own method
/// of the same name.
///
/// One wrapper serves many calls at a time: build it once, and share or clone it. A
/// clone is cheap if the provider's is. Clones share the timer, the budget and the hooks,
/// and each has its own policy: `provider.clone().timeout(..)` gives one call another
/// timeout.
///
/// A call that was retried may have been served, and billed, more than once.
///
/// Turn off the retries of a client that has its own, such as crabllm-sdk's: three attempts
/// would become nine, and the wrapper's timeout would cut off the client's waits.
#[must_use = "calls go through the wrapper"]
pub struct Retrying<
    P,
    #[cfg(feature = "futures-timer")] T = FuturesTimer,
    #[cfg(not(feature = "futures-timer"))] T,
> {
    pub(crate) inner: P,
    pub(crate) engine: Engine<T>,
}

#[cfg(feature = "futures-timer")]
impl<P> Retrying<P> {
    /// Wraps a provider with [`Policy::default`] and [`FuturesTimer`].
    pub fn new(inner: P) -> Self {
        Self::with_timer(inner, FuturesTimer)
    }
}

impl<P, T: Timer> Retrying<P, T> {
    /// Wraps a provider with [`Policy::default`] and the given timer.
    pub fn with_timer(inner: P, timer: T) -> Self {
        Self {
            inner,
            engine: Engine::new(timer),
        }
    }

    /// Makes a call with any client: `attempt` is called with the inner value for each
    /// attempt, until one succeeds or the call gives up.
    ///
    /// The same loop serves the methods of `Provider`. Use [`Operation::Other`] for an
    /// operation of your own; it is always retried, whatever [`Policy::retry`] says.
    /// `model` chooses the policy, if [`policy_for`](Self::policy_for) has one for it,
    /// and is shown in events. A future that is polled again after its end stays
    /// pending.
    ///
    /// ```
    /// # #[cfg(feature = "futures-timer")] {
    /// use crabllm_retry::{Failure, Operation, Retrying};
    /// use std::{error::Error, fmt, sync::atomic::{AtomicU32, Ordering}};
    ///
    /// #[derive(Debug)]
    /// enum LookupError { Timeout, Busy }
    /// # impl fmt::Display for LookupError {
    /// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self:?}") }
    /// # }
    /// # impl Error for LookupError {}
    ///
    /// impl Failure for LookupError {
    ///     fn timeout() -> Self { Self::Timeout }
    ///     fn is_transient(&self) -> bool { true }
    /// }
    ///
    /// /// Busy twice, then it answers.
    /// struct Index(AtomicU32);
    ///
    /// impl Index {
    ///     async fn lookup(&self, word: &str) -> Result<usize, LookupError> {
    ///         match self.0.fetch_add(1, Ordering::Relaxed) {
    ///             0 | 1 => Err(LookupError::Busy),
    ///             _ => Ok(word.len()),
    ///         }
    ///     }
    /// }
    ///
    /// let index = Retrying::new(Index(AtomicU32::new(0)));
    /// let call = index.call(Operation::Other("lookup"), None, |index| index.lookup("retry"));
    /// assert_eq!(futures::executor::block_on(call).unwrap(), 5);
    /// # }
    /// ```
    pub fn call<'a, O, E: Failure, F>(
        &'a self,
        operation: Operation,
        model: Option<&str>,
        attempt: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<O, E>>
    where
        F: Future<Output = Result<O, E>>,
    {
        let call = async move { self.call_with(&operation, model, attempt).await };
        call.fuse()
    }

    /// Like `call`, but borrows the operation, which makes each future smaller.
    #[inline]
    pub(crate) fn call_with<'a, 'm, O, E: Failure, F>(
        &'a self,
        operation: &'m Operation,
        model: impl Into<CallModel<'m>>,
        mut attempt: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<O, E>>
    where
        F: Future<Output = Result<O, E>>,
    {
        let attempt = move || attempt(&self.inner);
        self.engine.call(operation, model.into(), attempt)
    }

    /// Opens a stream of any client, as [`call`](Self::call) makes a call. The silence
    /// of the open stream is limited by [`Policy::stream_idle`].
    ///
    /// An operation that is retried, such as [`Operation::Other`], or has a
    /// [`first_content`](Self::first_content), returns its stream at the first item for
    /// which `is_content` is true. An error, too long a silence or the end, which is
    /// [`Failure::empty_stream`], before it fails the attempt, and a retry opens the stream
    /// again. Items before it, such as a header, are held back and then yielded first, in
    /// order; the 17th item counts as content whatever it is. `|_| true` takes every item
    /// for content.
    ///
    /// ```
    /// # #[cfg(all(feature = "crabllm-core-0_0_19", feature = "futures-timer"))] {
    /// use crabllm_retry::{Operation, Retrying, crabllm_core_0_0_19::Error};
    /// use futures::{StreamExt, TryStreamExt, executor::block_on, stream};
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// // The first stream breaks after its header, the second one is complete.
    /// let feed = Retrying::new(AtomicU32::new(0));
    /// let is_content = |line: &&str| !line.starts_with('#');
    /// let opening = feed.open(Operation::Other("feed"), None, is_content, |attempts| {
    ///     let second = match attempts.fetch_add(1, Ordering::Relaxed) {
    ///         0 => Err(Error::Timeout),
    ///         _ => Ok("news"),
    ///     };
    ///     async { Ok(stream::iter([Ok("# header"), second]).boxed()) }
    /// });
    /// let lines: Vec<_> = block_on(async { opening.await?.try_collect().await }).unwrap();
    /// assert_eq!(lines, ["# header", "news"]);
    /// # }
    /// ```
    pub fn open<'a, I, E, F>(
        &'a self,
        operation: Operation,
        model: Option<&str>,
        is_content: fn(&I) -> bool,
        attempt: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<I, E>>, E>>
    where
        I: Send + 'static,
        E: Failure,
        F: Future<Output = Result<BoxStream<'static, Result<I, E>>, E>>,
    {
        self.open_with(operation, model, Items::new(is_content), attempt)
    }

    /// Opens a stream whose items may have errors of another type than the opening.
    pub(crate) fn open_with<'a, 'm, I, S, E: Failure, F>(
        &'a self,
        operation: Operation,
        model: impl Into<CallModel<'m>>,
        rules: Items<I, S, E>,
        mut attempt: impl FnMut(&'a P) -> F,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<I, S>>, E>>
    where
        I: Send + 'static,
        S: Error + Send + Sync + 'static,
        F: Future<Output = Result<BoxStream<'static, Result<I, S>>, E>>,
    {
        let attempt = move || attempt(&self.inner);
        self.engine.open(operation, model.into(), rules, attempt)
    }
}

/// The setters of single values, such as [`timeout`](Self::timeout), change the
/// general policy, not those of [`policy_for`](Self::policy_for).
impl<P, T> Retrying<P, T> {
    /// Sets our choice for production: [`Policy::recommended`] as the general policy,
    /// [`hints::is_transient`](crate::hints::is_transient) as
    /// [`retry_if`](Self::retry_if), and a [`RetryBudget::default`] and a
    /// [`RateLimiter::adaptive`] of its own. Everything else is kept, so call it first, and
    /// change single values after it.
    ///
    /// The defaults are those of crabllm-core's wrappers, which are small: a 429
    /// without a requested delay uses up its retries within 0.3 s, and a 45 s answer is
    /// cut off three times.
    pub fn recommended(self) -> Self {
        self.policy(Policy::recommended())
            .retry_if(hints::is_transient)
            .budget(RetryBudget::default())
            .rate_limiter(RateLimiter::adaptive())
    }

    /// Sets [`Policy::max_retries`], the most attempts after the first one of a call.
    pub fn max_retries(self, n: u32) -> Self {
        self.change(|policy| policy.max_retries(n))
    }

    /// Sets [`Policy::timeout`], the limit of one attempt.
    pub fn timeout(self, d: Duration) -> Self {
        self.change(|policy| policy.timeout(d))
    }

    /// Sets [`Policy::max_retry_after`], the longest delay that a server may request.
    pub fn max_retry_after(self, d: Duration) -> Self {
        self.change(|policy| policy.max_retry_after(d))
    }

    /// Sets [`Policy::stream_idle`], the longest wait for the next item of an open stream.
    pub fn stream_idle(self, d: Duration) -> Self {
        self.change(|policy| policy.stream_idle(d))
    }

    /// Sets [`Policy::deadline`], the limit of the whole call, with attempts, delays and waits
    /// for a turn.
    pub fn deadline(self, d: Duration) -> Self {
        self.change(|policy| policy.deadline(d))
    }

    /// Sets [`Policy::first_content`], the limit of one attempt to open a stream, up to its
    /// first content.
    pub fn first_content(self, d: Duration) -> Self {
        self.change(|policy| policy.first_content(d))
    }

    /// Sets [`Policy::backoff`], the delays between attempts.
    pub fn backoff(self, b: Backoff) -> Self {
        self.change(|policy| policy.backoff(b))
    }

    /// Sets [`Policy::throttle_backoff`], the delays after an attempt that was throttled.
    pub fn throttle_backoff(self, b: Backoff) -> Self {
        self.change(|policy| policy.throttle_backoff(b))
    }

    /// Sets [`Policy::retry`], the operations that are retried: exactly these.
    pub fn retry(self, operations: Operations) -> Self {
        self.change(|policy| policy.retry(operations))
    }

    /// Adds operations to those that are retried, [`Policy::retry`].
    pub fn also_retry(self, operations: Operations) -> Self {
        self.change(|policy| policy.also_retry(operations))
    }

    /// Sets the whole general policy, which applies to all calls without one from
    /// [`policy_for`](Self::policy_for).
    pub fn policy(self, policy: Policy) -> Self {
        self.change(|_| policy)
    }

    /// Sets the whole policy of calls whose request names this model exactly. It
    /// inherits nothing from the general one. The last one set for a model counts.
    ///
    /// If a raw body comes without a model argument, its JSON is parsed for the model.
    ///
    /// ```
    /// # #[cfg(feature = "futures-timer")]
    /// # fn wrap<P>(provider: P) -> crabllm_retry::Retrying<P> {
    /// use crabllm_retry::{Policy, Retrying};
    ///
    /// Retrying::new(provider).policy_for("draft", Policy::default().max_retries(0))
    /// # }
    /// ```
    pub fn policy_for(mut self, model: impl Into<String>, policy: Policy) -> Self {
        let policies = &mut self.engine.policies;
        Arc::make_mut(&mut policies.by_model).insert(model.into(), policy);
        self
    }

    /// Replaces the timer. Clones made before keep theirs.
    pub fn timer<U: Timer>(self, timer: U) -> Retrying<P, U> {
        Retrying {
            inner: self.inner,
            engine: self.engine.with_timer(timer),
        }
    }

    /// Limits retries by a budget. Wrappers of one server that have clones of it stop
    /// retrying together when that is down. Default: none.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.engine.budget = Some(budget);
        self
    }

    /// Makes attempts wait for their turn while the server throttles, at a rate that all
    /// calls learn together, and retries throttled ones up to ten times for free. Wrappers of
    /// one account should have clones of one limiter. Set a [`deadline`](Self::deadline):
    /// without one a call waits until its turn. Default: none.
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.engine.limiter = Some(limiter);
        self
    }

    /// Decides which errors are transient, in place of [`Failure::is_transient`].
    ///
    /// An operation that is not implemented is never retried. The last callback set
    /// counts.
    ///
    /// ```
    /// # #[cfg(feature = "futures-timer")]
    /// # fn wrap<P>(provider: P) -> crabllm_retry::Retrying<P> {
    /// use crabllm_retry::Retrying;
    ///
    /// // This server answers 425 when another attempt may succeed.
    /// Retrying::new(provider).retry_if(|error| error.is_transient() || error.status() == Some(425))
    /// # }
    /// ```
    pub fn retry_if(mut self, f: impl Fn(&dyn Failure) -> bool + Send + Sync + 'static) -> Self {
        self.engine.hooks.retry_if = Some(Arc::new(f));
        self
    }

    /// Sets how the requested delay of a transient error is read. Default, and if `f`
    /// returns `None`: [`hints::retry_after`](crate::hints::retry_after).
    /// `|_| Some(Duration::ZERO)` disables it.
    ///
    /// The next attempt is never earlier than that, and an error that asks for more
    /// than `max_retry_after` is returned at once. A wait that is longer than the
    /// backoff's is spread by up to a quarter, at most 5 seconds, and at most half of
    /// the time left to the deadline, unless the backoff has no jitter or the turns of a
    /// rate limiter spread the calls. The last callback set counts.
    ///
    /// ```
    /// # #[cfg(feature = "futures-timer")]
    /// # fn wrap<P>(provider: P) -> crabllm_retry::Retrying<P> {
    /// use crabllm_retry::Retrying;
    /// use std::time::Duration;
    ///
    /// // This server says "7 s, please".
    /// Retrying::new(provider).retry_after(|error| {
    ///     let seconds = error.body()?.strip_suffix(" s, please")?;
    ///     Some(Duration::from_secs(seconds.parse().ok()?))
    /// })
    /// # }
    /// ```
    pub fn retry_after(
        mut self,
        f: impl Fn(&dyn Failure) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.engine.hooks.retry_after = Some(Arc::new(f));
        self
    }

    /// Adds an observer: `f` is called with each event of every call, as it happens.
    ///
    /// It runs within the call, so it should be quick. Observers are called in the
    /// order in which they were added. Without one, events cost nothing; with one, the
    /// JSON of a raw body that comes without a model argument is parsed for the model.
    ///
    /// ```
    /// # #[cfg(feature = "futures-timer")]
    /// # fn wrap<P>(provider: P) -> crabllm_retry::Retrying<P> {
    /// use crabllm_retry::{Event, Retrying};
    ///
    /// Retrying::new(provider).observe(|event| match event {
    ///     Event::Retry { operation, attempt, delay, error, .. } => {
    ///         eprintln!("{operation}: attempt {attempt} failed, next in {delay:?}: {error}");
    ///     }
    ///     Event::GaveUp { operation, reason, error, .. } => {
    ///         eprintln!("{operation}: gave up, {reason}: {error}");
    ///     }
    ///     _ => {}
    /// })
    /// # }
    /// ```
    pub fn observe(mut self, f: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.engine.hooks.observer.add(f);
        self
    }

    /// Seeds the jitter, so that equal sequences of calls have equal delays. Clones
    /// made afterwards continue the same sequence. Default: random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.engine.entropy = Entropy::seeded(seed);
        self
    }

    /// The inner provider.
    pub fn get_ref(&self) -> &P {
        &self.inner
    }

    /// Unwraps the inner provider.
    pub fn into_inner(self) -> P {
        self.inner
    }

    fn change(mut self, f: impl FnOnce(Policy) -> Policy) -> Self {
        let general = &mut self.engine.policies.general;
        *general = f(mem::take(general));
        self
    }
}

impl<P: Clone, T> Clone for Retrying<P, T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            engine: self.engine.clone(),
        }
    }
}

impl<P: fmt::Debug, T> fmt::Debug for Retrying<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying")
            .field("inner", &self.inner)
            .field("policies", &self.engine.policies)
            .field("budget", &self.engine.budget)
            .field("rate_limiter", &self.engine.limiter)
            .field("hooks", &self.engine.hooks)
            .finish_non_exhaustive()
    }
}
