//! The turns of a call at a rate limiter.

use super::progress::Progress;
use crate::{
    failure::Failure,
    limits::{Look, Place, RateLimiter, Ticket, Waiter},
    timer::{Instant, SharedTimer, Timer, Wait},
};
use futures::ready;
use pin_project_lite::pin_project;
use std::{
    borrow::Cow,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The state of a call that a rate limiter has to do with.
pub struct Limited<'m> {
    /// Empty for a call without a model.
    pub model: Cow<'m, str>,

    /// The ticket of the latest attempt.
    pub ticket: Ticket,

    /// The free retries so far.
    pub free: u8,
}

impl<'e, 'm, T: Timer> Progress<'e, 'm, T> {
    /// Whether attempts may need a turn.
    #[inline]
    pub fn is_limited(&self) -> bool {
        let limiter = self.engine.limiter.as_ref();
        limiter.is_some_and(RateLimiter::is_awake)
    }

    /// Asks for the turn of the next attempt. `None` if it needs none.
    pub fn ask_for_turn(&mut self, waker: &Waker) -> Option<Turn<'e, T>> {
        let engine = self.engine;
        let limiter = engine.limiter.as_ref().filter(|it| it.is_awake())?;
        // A late call makes no attempt, and must not use up a turn.
        if self.is_late() {
            return None;
        }
        let (is_retry, deadline) = (self.attempts > 0, self.deadline());
        let waiter = Waiter {
            waker: Some(waker.clone()),
            timer: engine.timer.clone(),
            is_shareable: engine.timer.timer().is_shareable(),
            sleeps_until: None,
            deadline,
        };
        let model = &self.limited().model;
        let place = limiter.turns().ask(model, is_retry, waiter)?;
        Some(Turn {
            timer: &engine.timer,
            place: Some(place),
            waits_since: None,
            deadline,
            until: None,
            wait: Wait::Never,
        })
    }

    pub fn limited(&mut self) -> &mut Limited<'m> {
        self.limited.get_or_insert_with(|| {
            Box::new(Limited {
                model: self.model.parsed(),
                ticket: Ticket::default(),
                free: 0,
            })
        })
    }

    /// Tells the rate limiter of a throttled failure. Returns whether the model is awake.
    pub fn was_throttled(&mut self, error: &dyn Failure, requested: Option<Duration>) -> bool {
        let engine = self.engine;
        let Some(limiter) = &engine.limiter else {
            return false;
        };
        let hold = requested.filter(|&requested| requested <= self.policy.max_retry_after);
        let now = self.now();
        let limited = self.limited();
        let ticket = mem::take(&mut limited.ticket);
        let turns = limiter.turns();
        turns.refused(&limited.model, error, ticket, hold, now)
    }
}

pin_project! {
    /// A wait for a turn, until the deadline of the call.
    pub struct Turn<'e, T: Timer> {
        timer: &'e SharedTimer<T>,

        // `None` after the end.
        place: Option<Box<dyn Place>>,

        // The first look that did not find the turn granted.
        pub waits_since: Option<Instant>,
        deadline: Option<Instant>,

        // The time that `wait` is for.
        until: Option<Instant>,
        #[pin]
        wait: Wait<T, &'e SharedTimer<T>>,
    }
}

impl<T: Timer> Future for Turn<'_, T> {
    /// `None` if the deadline has passed, or no turn comes before it.
    type Output = Option<Box<dyn Place>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let timer = this.timer.timer();
        // The end of the last wait.
        let mut over = None;
        loop {
            let Some(place) = this.place else {
                return Poll::Pending;
            };
            let (now, due) = match place.look(cx.waker(), over) {
                Look::Waiting { now, due } => (now, due),
                Look::Granted => return Poll::Ready(this.place.take()),
                Look::Expired => {
                    *this.place = None;
                    return Poll::Ready(None);
                }
            };
            this.waits_since.get_or_insert(now);
            let own = (!timer.is_shareable()).then_some(due);
            let until = own.into_iter().chain(*this.deadline).min();
            if until != *this.until {
                let left = until.map(|until| until.saturating_duration_since(now));
                let wait = Wait::new(*this.timer, left, cx.waker());
                this.wait.set(wait);
                *this.until = until;
            }
            ready!(this.wait.as_mut().poll(cx));
            over = this.until.take();
        }
    }
}
