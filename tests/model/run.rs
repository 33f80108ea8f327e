//! A case on the library.

use crate::{
    case::{Call, Case, CaseError, World},
    common::Sleeps,
    methods::Calls,
    model::{Account, Told, Try, What},
};
use crabllm_retry::{
    Event, Failure, Instant, RateLimiter, RetryBudget, Retrying, Timer,
    test_util::{Scripted, VirtualTimer},
};
use futures::{
    FutureExt, StreamExt,
    future::{poll_fn, select},
};
use futures_test::task::new_count_waker;
use std::{
    future::pending,
    io, mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

/// A release of crabllm-core.
pub trait Subject: Calls<Wrapper, Error: Failure> {}

impl<R: Calls<Wrapper, Error: Failure>> Subject for R {}

pub type Wrapper = Retrying<Scripted<Work>, Sleeps>;

/// The timer of the provider, by the same clock.
#[derive(Clone)]
pub struct Work {
    sleeps: Sleeps,
    world: World,
}

impl Timer for Work {
    type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        let Sleeps { clock, .. } = &self.sleeps;
        if !self.world.blocking.is_zero() {
            clock.advance(self.world.blocking);
        }
        let sleep = clock.sleep(duration);
        let mut second_poll = self.world.second_poll;
        Box::pin(async move {
            sleep.await;
            poll_fn(|cx| {
                if !mem::take(&mut second_poll) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        })
    }

    fn now(&self) -> Instant {
        self.sleeps.now()
    }
}

/// How a case is run.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// With one sleep for all calls, or with one for each.
    pub shareable: bool,

    /// Without an observer, and the wrapper is dropped right after its last call, not
    /// when no sleep is left.
    pub brief: bool,
}

/// The events, and their times.
type Log = Arc<Mutex<Vec<(Duration, Told)>>>;

/// A wrapper in its world.
struct Scene {
    sleeps: Sleeps,
    lag: Duration,
    retrying: Wrapper,
    budget: Option<RetryBudget>,
    told: Log,
}

/// Makes the calls of a case.
pub fn run<R: Subject>(case: &Case, manner: Manner) -> Vec<Account> {
    let scene = Scene::new::<R>(case, manner);
    let mut accounts = Vec::new();
    for call in &case.calls {
        accounts.push(scene.call::<R>(call));
        // A shared sleep moves the clock while a call hangs, and the limiter sees that.
        if case.limited && accounts.last().is_some_and(|call| call.ended.is_none()) {
            break;
        }
    }
    let clock = scene.sleeps.clock.clone();
    if !manner.brief {
        // A shared sleep may run out; no other follows.
        let asked = scene.sleeps.asked();
        let never = to_its_end(&clock, Duration::ZERO, pending::<()>());
        assert_eq!((never, clock.sleeping()), (None, 0));
        assert_eq!(scene.sleeps.asked(), asked, "asked for nobody");
    }
    drop(scene);
    assert_eq!(clock.sleeping(), 0, "left by the wrapper");
    accounts
}

impl Scene {
    fn new<R: Subject>(case: &Case, manner: Manner) -> Self {
        let clock = VirtualTimer::new();
        let mut sleeps = Sleeps::by(&clock);
        if manner.shareable {
            sleeps = sleeps.shareable();
        }
        let script = case.script.iter().map(|outcome| outcome.step());
        let work = Work {
            sleeps: sleeps.clone(),
            world: case.world,
        };
        let provider = Scripted::new(work, script);
        let budget = case.budget.map(|budget| budget.tokens());
        let told = Log::default();
        let mut retrying = Retrying::with_timer(provider, sleeps.clone())
            .policy(case.policy.clone())
            .seed(case.seed);
        if let Some(budget) = budget.clone() {
            retrying = retrying.budget(budget);
        }
        if case.limited {
            retrying = retrying.rate_limiter(RateLimiter::adaptive());
        }
        if let Some(own) = &case.own_policy {
            retrying = retrying.policy_for("m", own.clone());
        }
        if let Some(retry_if) = case.retry_if {
            retrying = retrying.retry_if(move |error| retry_if.ask(error.is_transient()));
        }
        if let Some(requested) = case.retry_after {
            retrying = retrying.retry_after(move |_| Some(requested));
        }
        if !manner.brief {
            let (provider, sleeps) = (retrying.get_ref().clone(), sleeps.clone());
            let (clock, told) = (clock.clone(), told.clone());
            retrying = retrying.observe(move |event| {
                if let Event::Retry { .. } | Event::GaveUp { .. } | Event::StreamStalled { .. } =
                    event
                {
                    // All that failed was dropped before.
                    const CALLER: usize = 1;
                    let last = provider.attempts().pop();
                    assert!(last.is_some_and(|last| last.ended.is_some()));
                    assert!(sleeps.is_shareable() || clock.sleeping() <= CALLER);
                }
                let event = (clock.elapsed(), self::told::<R>(event));
                told.lock().unwrap().push(event);
            });
        }
        Self {
            sleeps,
            lag: case.world.lag,
            retrying,
            budget,
            told,
        }
    }

    fn call<R: Subject>(&self, call: &Call) -> Account {
        let earlier = self.retrying.get_ref().attempts().len();
        let earlier_sleeps = self.sleeps.asked().len();
        let clock = &self.sleeps.clock;
        let (begin, began) = (clock.elapsed(), self.sleeps.now());
        let mut account = Account::default();
        let mut acting = Box::pin(self.act::<R>(call, &mut account));
        let dropping = async {
            match call.dropped {
                Some(dropped) => clock.sleep(dropped).await,
                None => pending().await,
            }
        };
        let acting_or_dropped = select(Box::pin(dropping), &mut acting).map(drop);
        let over = to_its_end(clock, self.lag, acting_or_dropped);
        drop(acting);
        if !self.sleeps.is_shareable() {
            assert_eq!(clock.sleeping(), 0, "left by the call");
        }
        let mut attempts: Vec<_> = self.retrying.get_ref().attempts()[earlier..]
            .iter()
            .map(|attempt| Try {
                operation: attempt.operation,
                started: attempt.started - began,
                ended: attempt.ended.map(|ended| ended - began),
                cancelled: attempt.cancelled,
            })
            .collect();
        if let (None, Some(hung)) = (over, attempts.last_mut().filter(|last| last.cancelled)) {
            hung.ended = None;
        }
        let events = mem::take(&mut *self.told.lock().unwrap());
        let events = events.into_iter().map(|(moment, told)| {
            assert_eq!(told.elapsed, moment - begin);
            told
        });
        Account {
            attempts,
            ended: over.map(|()| clock.elapsed() - begin),
            events: events.collect(),
            sleeps: self.sleeps.asked().split_off(earlier_sleeps),
            tokens: self.budget.as_ref().map(RetryBudget::available),
            ..account
        }
    }

    /// The caller's part.
    async fn act<R: Subject>(&self, call: &Call, account: &mut Account) {
        let clock = &self.sleeps.clock;
        let begin = clock.elapsed();
        let opened = R::call(&self.retrying, call.operation).await;
        account.result = Some(match &opened {
            Ok(_) => Ok(()),
            Err(error) => Err(case_error(error)),
        });
        let Ok(Some(mut items)) = opened else { return };
        const MORE_THAN_SCRIPTED: usize = 10;
        for _ in 0..MORE_THAN_SCRIPTED {
            clock.sleep(call.pause).await;
            let Some(item) = items.next().await else {
                break;
            };
            let item = item.map_err(|error| case_error(&error));
            account.items.push((clock.elapsed() - begin, item));
        }
        if !self.sleeps.is_shareable() {
            let callers = usize::from(call.dropped.is_some());
            assert!(clock.sleeping() <= callers, "left by the stream");
        }
        for _ in 0..2 {
            assert!(matches!(items.next().now_or_never(), Some(None)));
        }
    }
}

/// Polls a future as long as anything wakes it, each time with a lag, and drops it.
/// `None` if it hangs.
fn to_its_end<O>(
    timer: &VirtualTimer,
    lag: Duration,
    future: impl Future<Output = O>,
) -> Option<O> {
    let mut task = pin!(timer.task(future));
    loop {
        let (waker, wakes) = new_count_waker();
        match task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return Some(output),
            Poll::Pending if wakes.get() == 0 => return None,
            Poll::Pending if lag.is_zero() => {}
            Poll::Pending => timer.advance(lag),
        }
    }
}

fn told<R: Subject>(event: &Event<'_>) -> Told {
    let what = match *event {
        Event::Attempt { .. } => What::Attempt,
        Event::Retry {
            delay,
            source,
            error,
            ..
        } => What::Retry(delay, source, case_error(error)),
        Event::Waiting { wait, .. } => What::Waiting(wait),
        Event::Success { .. } => What::Success,
        Event::GaveUp { reason, error, .. } => What::GaveUp(reason, case_error(error)),
        Event::StreamStalled { idle, .. } => What::StreamStalled(idle),
        Event::StreamBroken { error, .. } => What::StreamBroken(error.map(|error| {
            let own = match error.downcast_ref::<io::Error>() {
                Some(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
                None => error.downcast_ref::<R::Error>(),
            };
            case_error(own.expect("an error of the release"))
        })),
        _ => panic!("{event:?}"),
    };
    Told {
        call: event.call(),
        operation: event.operation(),
        model: event.model().map(str::to_owned),
        attempt: event.attempt(),
        elapsed: event.elapsed(),
        what,
    }
}

fn case_error(error: &dyn Failure) -> CaseError {
    match error.status() {
        Some(status) => CaseError::Status {
            status,
            body: error.body().unwrap().to_owned(),
            retry_after: error.retry_after(),
        },
        None if error.is_timeout() => CaseError::Timeout,
        None if error.is_transient() => CaseError::Disconnect,
        None => CaseError::Invalid,
    }
}
