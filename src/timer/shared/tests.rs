//! Shared waits on a clock moved by hand, and a stress test in real time.

use super::*;
use crate::{
    test_util::{VirtualSleep, VirtualTimer},
    timer::FuturesTimer,
};
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, unbounded},
    executor::block_on,
    stream::FuturesUnordered,
};
use futures_test::task::{AwokenCount, new_count_waker, noop_waker};
use std::{sync::atomic::AtomicBool, thread, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// A virtual clock whose sleeps are shared and counted.
#[derive(Clone)]
struct Counted {
    clock: VirtualTimer,
    made: Arc<AtomicUsize>,

    /// Whether the next sleep panics instead of being made.
    panics: Arc<AtomicBool>,
}

impl Counted {
    fn new() -> Self {
        Self {
            clock: VirtualTimer::manual(),
            made: Arc::default(),
            panics: Arc::default(),
        }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

impl Timer for Counted {
    type Sleep = VirtualSleep;

    fn sleep(&self, duration: Duration) -> VirtualSleep {
        assert!(!duration.is_zero());
        assert!(!self.panics.swap(false, Ordering::Relaxed), "as it should");
        self.made.fetch_add(1, Ordering::Relaxed);
        self.clock.sleep(duration)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn is_shareable(&self) -> bool {
        true
    }
}

fn shared() -> (Counted, Arc<SharedTimer<Counted>>) {
    let timer = Counted::new();
    (timer.clone(), SharedTimer::new(timer))
}

fn start<T: Timer>(
    shared: &Arc<SharedTimer<T>>,
    duration: Duration,
    waker: &Waker,
) -> SharedWait<T> {
    SharedWait::start(shared.clone(), shared.timer.now() + duration, waker).unwrap()
}

/// A wait, and the count of its wakes.
fn armed<T: Timer>(
    shared: &Arc<SharedTimer<T>>,
    duration: Duration,
) -> (SharedWait<T>, AwokenCount) {
    let (waker, woken) = new_count_waker();
    (start(shared, duration, &waker), woken)
}

fn poll<T: Timer>(wait: &mut SharedWait<T>, waker: &Waker) -> Poll<()> {
    Pin::new(wait).poll(&mut Context::from_waker(waker))
}

/// A waker that runs a closure.
fn waker(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Running<F>(F);

    impl<F: Fn() + Send + Sync> Wake for Running<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }

    Waker::from(Arc::new(Running(f)))
}

#[test]
fn a_wait_is_over_at_its_deadline_and_not_before() {
    let (timer, shared) = shared();
    let (mut wait, woken) = armed(&shared, SECOND);
    timer.clock.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(woken.get(), 0);
    assert!(poll(&mut wait, &noop_waker()).is_pending());
    timer.clock.advance(Duration::from_nanos(1));
    assert!(poll(&mut wait, &noop_waker()).is_ready());
}

#[test]
fn one_sleep_serves_all_waits_of_one_length() {
    let (timer, shared) = shared();
    let waits: Vec<_> = (0..1000).map(|_| armed(&shared, SECOND)).collect();
    assert_eq!(timer.made(), 1);
    timer.clock.advance(SECOND);
    assert!(waits.iter().all(|(_, woken)| woken.get() == 1));
    assert_eq!(timer.made(), 1);
}

#[test]
fn a_timeout_makes_one_sleep_however_many_calls_are_made() {
    let (timer, shared) = shared();
    for _ in 0..1000 {
        drop(armed(&shared, SECOND));
        timer.clock.advance(SECOND / 100);
    }
    // Ten timeouts have passed: one sleep for each, and one in progress.
    assert!(timer.made() <= 11, "{}", timer.made());
}

#[test]
fn nothing_is_armed_after_a_sleep_that_nothing_waited_for() {
    let (timer, shared) = shared();
    drop(armed(&shared, SECOND));
    timer.clock.advance(SECOND);
    assert_eq!((timer.clock.sleeping(), timer.made()), (0, 1));
    assert!(shared.lock().armed.is_none());
}

#[test]
fn the_sleep_is_dropped_with_the_last_owner() {
    let (timer, shared) = shared();
    let (wait, _) = armed(&shared, SECOND);
    drop(shared);
    assert_eq!(timer.clock.sleeping(), 1);
    drop(wait);
    assert_eq!(timer.clock.sleeping(), 0);
}

#[test]
fn the_next_wait_is_on_time_after_a_cancelled_head() {
    let (timer, shared) = shared();
    let (head, head_woken) = armed(&shared, SECOND);
    timer.clock.advance(SECOND / 2);
    let (_next, next_woken) = armed(&shared, SECOND);
    drop(head);
    timer.clock.advance(SECOND / 2);
    assert_eq!((head_woken.get(), next_woken.get()), (0, 0));
    timer.clock.advance(SECOND / 2);
    assert_eq!((head_woken.get(), next_woken.get()), (0, 1));
}

#[test]
fn deadlines_of_other_lengths_expire_in_between() {
    let (timer, shared) = shared();
    let waits = [3, 1, 4, 1, 5, 2].map(|n| (n, armed(&shared, n * SECOND).0));
    for elapsed in 1..=5 {
        timer.clock.advance(SECOND);
        let over = |wait: &SharedWait<_>| {
            shared.lock().list.state(&wait.key, Waker::noop()) == State::Expired
        };
        for (n, wait) in &waits {
            assert_eq!(over(wait), *n <= elapsed, "{n} after {elapsed}");
        }
    }
}

#[test]
fn the_clock_may_jump_over_many_deadlines() {
    let (timer, shared) = shared();
    let waits = [1, 2, 3, 400].map(|n| armed(&shared, n * SECOND));
    timer.clock.advance(300 * SECOND);
    assert_eq!(waits.each_ref().map(|(_, woken)| woken.get()), [1, 1, 1, 0]);
    timer.clock.advance(100 * SECOND);
    assert_eq!(waits[3].1.get(), 1);
}

#[test]
fn a_waker_may_drop_and_make_waits() {
    let (timer, shared) = shared();
    let (victim, victim_woken) = armed(&shared, SECOND);
    let victim = std::sync::Mutex::new(Some(victim));
    let made = Arc::new(std::sync::Mutex::new(None));
    let (keep, maker) = (made.clone(), shared.clone());
    let meddling = waker(move || {
        drop(victim.lock().unwrap().take());
        *keep.lock().unwrap() = Some(armed(&maker, SECOND / 4));
    });
    let _meddler = start(&shared, SECOND / 2, &meddling);
    timer.clock.advance(SECOND / 2);
    timer.clock.advance(SECOND / 4);
    let made = made.lock().unwrap().take().unwrap();
    assert_eq!((victim_woken.get(), made.1.get()), (0, 1));
}

#[test]
fn a_waker_that_panics_delays_no_other_wait() {
    let (timer, shared) = shared();
    let _panicking = start(&shared, SECOND, &waker(|| panic!("as it should")));
    let (_same, same_woken) = armed(&shared, SECOND);
    let (_later, later_woken) = armed(&shared, 2 * SECOND);
    timer.clock.advance(SECOND);
    timer.clock.advance(SECOND);
    assert_eq!((same_woken.get(), later_woken.get()), (1, 1));
}

#[test]
fn nothing_unwinds_into_the_timer() {
    /// A payload that panics when it is dropped.
    struct Payload;

    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("as it should");
        }
    }

    let (timer, shared) = shared();
    let _panicking = start(&shared, SECOND, &waker(|| std::panic::panic_any(Payload)));
    let (mut later, _) = armed(&shared, 2 * SECOND);
    timer.panics.store(true, Ordering::Relaxed);
    // First the waker panics, then the timer when it makes the next sleep.
    timer.clock.advance(SECOND);
    assert!(!timer.panics.load(Ordering::Relaxed));
    let (_next, next_woken) = armed(&shared, SECOND);
    timer.clock.advance(SECOND);
    assert_eq!(next_woken.get(), 1);
    assert!(poll(&mut later, &noop_waker()).is_ready());
}

#[test]
fn a_timer_that_panicked_is_used_again() {
    let (timer, shared) = shared();
    timer.panics.store(true, Ordering::Relaxed);
    let unlucky = catch_unwind(AssertUnwindSafe(|| armed(&shared, SECOND)));
    assert!(unlucky.is_err());
    assert!(shared.lock().list.earliest().is_none());
    let (_lucky, woken) = armed(&shared, SECOND);
    timer.clock.advance(SECOND);
    assert_eq!(woken.get(), 1);
}

#[test]
fn a_sleep_that_panics_is_replaced() {
    #[derive(Clone)]
    struct Panicking(Counted);

    struct PanickingSleep(VirtualSleep, bool);

    impl Timer for Panicking {
        type Sleep = PanickingSleep;

        fn sleep(&self, duration: Duration) -> PanickingSleep {
            let first = self.0.made() == 0;
            PanickingSleep(self.0.sleep(duration), first)
        }

        fn now(&self) -> Instant {
            self.0.now()
        }

        fn is_shareable(&self) -> bool {
            true
        }
    }

    impl Future for PanickingSleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            assert!(!self.1, "as it should");
            Pin::new(&mut self.0).poll(cx)
        }
    }

    let timer = Counted::new();
    let shared = SharedTimer::new(Panicking(timer.clone()));
    let unlucky = catch_unwind(AssertUnwindSafe(|| armed(&shared, SECOND)));
    assert!(unlucky.is_err());
    let (_lucky, woken) = armed(&shared, SECOND);
    timer.clock.advance(SECOND);
    assert_eq!(woken.get(), 1);
}

#[test]
fn two_wrappers_may_share_a_timer() {
    let timer = Counted::new();
    let waits = [1, 2].map(|n| armed(&SharedTimer::new(timer.clone()), n * SECOND));
    timer.clock.advance(SECOND);
    assert_eq!(waits.each_ref().map(|(_, woken)| woken.get()), [1, 0]);
    timer.clock.advance(SECOND);
    assert_eq!(waits.each_ref().map(|(_, woken)| woken.get()), [1, 1]);
}

/// How the waits ended on one side of the stress test.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    over: usize,
    cancelled: usize,
    early: usize,
}

/// Awaits or cancels the waits that the other side sends.
async fn receive(
    mut waits: UnboundedReceiver<(SharedWait<FuturesTimer>, Instant)>,
    mut random: fastrand::Rng,
) -> Seen {
    let mut seen = Seen::default();
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        futures::select_biased! {
            received = waits.next() => match received {
                Some(_) if random.bool() => seen.cancelled += 1,
                Some((wait, deadline)) => waiting.push(async move {
                    wait.await;
                    Instant::now() < deadline
                }),
                None => open = false,
            },
            early = waiting.select_next_some() => {
                seen.over += 1;
                seen.early += usize::from(early);
            }
        }
    }
    seen
}

#[test]
fn waits_that_move_between_threads_are_neither_lost_nor_early() {
    const WAITS: usize = 100_000;
    let shared = SharedTimer::new(FuturesTimer);
    let (sender, receiver) = unbounded();
    let receiving = thread::spawn(|| block_on(receive(receiver, fastrand::Rng::with_seed(1))));
    let mut random = fastrand::Rng::with_seed(2);
    let mut cancelled = 0;
    for sent in 0..WAITS {
        let duration = Duration::from_micros(random.u64(1..50_000));
        let deadline = Instant::now() + duration;
        let (wait, _) = armed(&shared, duration);
        if random.u8(..) < 64 {
            cancelled += 1;
        } else {
            sender.unbounded_send((wait, deadline)).unwrap();
        }
        if sent % 1000 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    drop(sender);
    // A lost wake would block both threads forever.
    let seen = receiving.join().unwrap();
    assert_eq!(seen.early, 0);
    assert_eq!(cancelled + seen.cancelled + seen.over, WAITS);
    assert!(shared.lock().list.earliest().is_none());
}
