//! Whether a call went by the contract: values in, faults out.

use crate::{
    caller::{End, Ended},
    consumer::Finish,
    log::{Attempt, How, Record, Refusal, Told},
    rules::{Budget, Rules},
    script::{FlowEnd, Script},
};
use crabllm_retry::GiveUpReason;
/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// It never ended, or with other attempts, another result, other events or at another time than
    /// its script and the contract demand.
    Lost,
    /// There is an attempt after an answer or one too many, or a poll after the end.
    Double,
    /// A timeout or a retry came before its time.
    Early,
    /// Anything else.
    Broken,
}

/// A call that is over, and all that is known of it.
pub struct Case<'a> {
    pub rules: &'a Rules,
    pub script: &'a Script,
    pub record: &'a Record,
    pub outcome: &'a Ended,
}

/// A fault, and what was expected in its place.
pub type Found = (Violation, &'static str);

impl Case<'_> {
    /// Checks the rules that always hold.
    pub fn check(&self) -> Result<(), Found> {
        if self.record.attempts.len() > self.rules.limit(self.script.streams) {
            return Err((Violation::Double, "no more attempts than the policy allows"));
        }
        for (number, pair) in self.record.attempts.windows(2).enumerate() {
            self.check_retry(number, &pair[0], &pair[1])?;
        }
        self.check_timeouts()?;
        self.check_end()?;
        self.check_told()
    }

    fn check_retry(&self, retry: usize, failed: &Attempt, next: &Attempt) -> Result<(), Found> {
        let Some((ended, how)) = failed.ended else {
            return Err((Violation::Double, "one attempt at a time"));
        };
        let refusal = match how {
            How::Failed(refusal) => refusal,
            How::Abandoned => Refusal::TIMEOUT,
            How::Answered => return Err((Violation::Double, "no attempt after an answer")),
            How::Panicked => return Err((Violation::Double, "no attempt after a panic")),
        };
        if !refusal.transient || refusal.wait > self.rules.max_retry_after {
            return Err((Violation::Broken, "no attempt after an error for good"));
        }
        if next.began.saturating_sub(ended) < self.rules.shortest_delay(retry, refusal.wait) {
            return Err((Violation::Early, "no retry before its delay has passed"));
        }
        Ok(())
    }

    fn check_timeouts(&self) -> Result<(), Found> {
        let Ended { began, end, .. } = self.outcome;
        let cancelled = match end {
            End::Cancelled => self.record.untold(),
            _ => None,
        };
        for (number, attempt) in self.record.attempts.iter().enumerate() {
            let Some((ended, how)) = attempt.ended else {
                return Err((Violation::Broken, "no attempt outlives its call"));
            };
            if how != How::Abandoned || cancelled == Some(number) {
                continue;
            }
            // The first attempt begins with its call.
            let since = if number == 0 { *began } else { attempt.began };
            let deadline = self.rules.deadline;
            let struck = !deadline.is_zero() && ended.saturating_sub(*began) >= deadline;
            if ended.saturating_sub(since) < self.rules.timeout && !struck {
                return Err((Violation::Early, "no timeout before its time"));
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), Found> {
        let attempts = &self.record.attempts;
        let last = attempts.last().and_then(|last| last.ended);
        let how = last.map(|(_, how)| how);
        let right = match &self.outcome.end {
            End::Answered(attempt) => {
                how == Some(How::Answered)
                    && attempt.is_none_or(|attempt| attempt + 1 == attempts.len())
            }
            End::Streamed(consumed) => {
                let early =
                    consumed.finish == Finish::Stalled && consumed.waited < self.rules.stream_idle;
                if early {
                    return Err((Violation::Early, "no stall before its time"));
                }
                how == Some(How::Answered)
            }
            End::Failed(refusal) if *refusal == Refusal::TIMEOUT => {
                matches!(how, Some(How::Abandoned)) || how == Some(How::Failed(*refusal))
            }
            End::Failed(refusal) => how == Some(How::Failed(*refusal)),
            End::Cancelled => self.script.cancel.is_some(),
            End::Panicked => {
                let told = self.record.told.len().checked_sub(1);
                let by_stream = self.record.open && self.script.flow.end == FlowEnd::Panic;
                let by_observer = told.is_some() && told == self.script.observer_panics_at;
                how == Some(How::Panicked) || by_observer || by_stream
            }
            End::Wrong(_) => false,
        };
        match right {
            true => Ok(()),
            false => Err((Violation::Lost, "the end that the last attempt demands")),
        }
    }

    /// An observer is told of each retry, and once of the end.
    fn check_told(&self) -> Result<(), Found> {
        let told = &self.record.told;
        let announced = told
            .iter()
            .filter(|told| matches!(told, Told::Retry { .. }));
        let (announced, made) = (announced.count(), self.record.attempts.len());
        let made = made.saturating_sub(1);
        // A retry that was announced never starts if the caller or the observer drops
        // the call, or if its delay ended too late for the deadline.
        let late = told.last() == Some(&Told::GaveUp(GiveUpReason::Deadline));
        let cut = late || matches!(self.outcome.end, End::Cancelled | End::Panicked);
        if announced != made && !(cut && announced == made + 1) {
            return Err((Violation::Broken, "an event for each retry"));
        }
        let last = told.last().copied();
        let right = match &self.outcome.end {
            End::Answered(_) => last == Some(Told::Success),
            End::Streamed(consumed) => match consumed.finish {
                Finish::Stalled => last == Some(Told::Stalled),
                _ => last == Some(Told::Success),
            },
            End::Failed(refusal) => match last {
                Some(Told::GaveUp(why)) => self.may_give_up(refusal, why),
                _ => false,
            },
            End::Cancelled | End::Panicked | End::Wrong(_) => true,
        };
        match right {
            true => Ok(()),
            false => Err((
                Violation::Lost,
                "an event for the end, with a reason that holds",
            )),
        }
    }

    fn may_give_up(&self, refusal: &Refusal, why: GiveUpReason) -> bool {
        let Self { rules, script, .. } = self;
        let attempts = self.record.attempts.len();
        let elapsed = self.outcome.ended - self.outcome.began;
        match why {
            GiveUpReason::NotTransient => !refusal.transient,
            GiveUpReason::NotRetried => !rules.retries(script.streams),
            GiveUpReason::Exhausted => {
                rules.retries(script.streams) && attempts == rules.limit(script.streams)
            }
            GiveUpReason::RetryAfterTooLong => refusal.wait > rules.max_retry_after,
            GiveUpReason::Deadline => {
                let delay = rules.longest_delay(attempts - 1, refusal.wait);
                let struck = !rules.deadline.is_zero() && elapsed >= rules.deadline;
                struck || rules.too_late(elapsed, delay)
            }
            GiveUpReason::Budget => rules.budget == Budget::Scarce,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crabllm_retry::Jitter;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    /// A call with retries: failed at once, after a second, and answered.
    struct Sample {
        rules: Rules,
        script: Script,
        record: Record,
        outcome: Ended,
    }

    impl Sample {
        fn new() -> Self {
            let refusal = Refusal {
                status: Some(503),
                transient: true,
                timed_out: false,
                wait: Duration::ZERO,
            };
            let attempt = |began, ended, how| Attempt {
                began: began * MS,
                ended: Some((ended * MS, how)),
            };
            let attempts = vec![
                attempt(0, 0, How::Failed(refusal)),
                attempt(100, 1100, How::Abandoned),
                attempt(1300, 1400, How::Answered),
            ];
            let retry = Told::Retry { throttled: false };
            Self {
                rules: Rules {
                    max_retries: 2,
                    timeout: 1000 * MS,
                    deadline: Duration::ZERO,
                    initial: 100 * MS,
                    max: 2000 * MS,
                    jitter: Jitter::None,
                    max_retry_after: 4000 * MS,
                    stream_idle: 1000 * MS,
                    retries_streams: true,
                    budget: Budget::None,
                },
                script: Script {
                    cancel: None,
                    ..Script::of(1, 1)
                },
                record: Record {
                    attempts,
                    told: vec![retry, retry, Told::Success],
                    ..Record::default()
                },
                outcome: Ended {
                    began: Duration::ZERO,
                    ended: 1400 * MS,
                    end: End::Answered(Some(2)),
                },
            }
        }

        fn check(&self) -> Option<Violation> {
            let case = Case {
                rules: &self.rules,
                script: &self.script,
                record: &self.record,
                outcome: &self.outcome,
            };
            case.check().err().map(|(fault, _)| fault)
        }

        /// The fault that is found when something is changed.
        fn with(change: impl FnOnce(&mut Self)) -> Option<Violation> {
            let mut sample = Self::new();
            change(&mut sample);
            sample.check()
        }
    }

    #[test]
    fn a_call_by_the_contract_is_found_right() {
        assert_eq!(Sample::new().check(), None);
    }

    #[test]
    fn a_retry_or_a_timeout_before_its_time_is_early() {
        let early = Some(Violation::Early);
        let retry = |it: &mut Sample| it.record.attempts[1].began -= MS;
        assert_eq!(Sample::with(retry), early);
        let timeout = |it: &mut Sample| it.rules.timeout += MS;
        assert_eq!(Sample::with(timeout), early);
    }

    #[test]
    fn an_attempt_too_many_is_double() {
        let double = Some(Violation::Double);
        assert_eq!(Sample::with(|it| it.rules.max_retries = 1), double);
        let answered = |it: &mut Sample| it.record.attempts[0].ended = Some((MS, How::Answered));
        assert_eq!(Sample::with(answered), double);
    }

    #[test]
    fn another_end_than_that_of_the_last_attempt_is_lost() {
        let lost = Some(Violation::Lost);
        for end in [
            End::Answered(Some(1)),
            End::Failed(Refusal::TIMEOUT),
            End::Cancelled,
            End::Panicked,
            End::Wrong(String::new()),
        ] {
            assert_eq!(Sample::with(|it| it.outcome.end = end), lost);
        }
        assert_eq!(Sample::with(|it| it.record.told.truncate(2)), lost);
    }

    #[test]
    fn giving_up_with_retries_left_is_lost() {
        let give_up = |why| {
            Sample::with(|it| {
                it.record.attempts.truncate(2);
                it.record.told.truncate(1);
                it.record.told.push(Told::GaveUp(why));
                it.outcome.end = End::Failed(Refusal::TIMEOUT);
            })
        };
        for why in [
            GiveUpReason::Exhausted,
            GiveUpReason::NotTransient,
            GiveUpReason::Budget,
            GiveUpReason::NotRetried,
            GiveUpReason::RetryAfterTooLong,
            GiveUpReason::Deadline,
        ] {
            assert_eq!(give_up(why), Some(Violation::Lost), "{why}");
        }
    }

    #[test]
    fn a_stream_that_is_not_retried_gives_up_for_that_alone() {
        let give_up = |why| {
            Sample::with(|it| {
                it.rules.retries_streams = false;
                it.script.streams = true;
                it.record.attempts.remove(0);
                it.record.attempts.truncate(1);
                it.record.told = vec![Told::GaveUp(why)];
                it.outcome.end = End::Failed(Refusal::TIMEOUT);
            })
        };
        assert_eq!(give_up(GiveUpReason::NotRetried), None);
        assert_eq!(give_up(GiveUpReason::Exhausted), Some(Violation::Lost));
    }
}
