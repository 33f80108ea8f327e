//! The claims about every method of a fallback, for any release. The model in
//! `tests/fallback_model.rs` checks which side a call goes to.

use crate::{
    methods::Calls,
    recorder::{Recorder, Recorders},
};
use crabllm_retry::{Event, Fallback, Operation};
use futures::executor::block_on;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

fn falls(method: Operation) -> bool {
    method != Operation::ChatCompletionStreamPassthrough
}

/// The record of one call without a fallback.
fn alone<R: Calls<Recorder>>(method: Operation) -> String {
    let bare = Recorder::default();
    assert!(block_on(R::call(&bare, method)).is_err());
    bare.asked().concat()
}

pub fn a_call_that_falls_is_the_same<R>()
where
    R: Calls<Recorder> + Calls<Recorders>,
{
    const CHAT: Operation = Operation::ChatCompletion;
    for &method in R::METHODS {
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = events.clone();
        let fallback = Fallback::new(Recorder::default(), Recorder::default())
            .model("m", "n")
            .model("n", "o")
            .breaker(1, Duration::MAX)
            .observe(move |event| {
                let fell = matches!(event, Event::FellBack { .. });
                let model = event.model().map(str::to_owned);
                let about = (event.operation(), model, event.attempt());
                log.lock().unwrap().push((fell, event.call(), about));
            });
        for method in [method, CHAT, method] {
            assert!(block_on(R::call(&fallback, method)).is_err());
        }
        // The first call that falls opens the breaker, and the later ones go straight.
        let (first, second, call, failed) = match falls(method) {
            true => (vec![method], vec![method, CHAT, method], 1, method),
            false => (vec![method, CHAT], vec![CHAT, method], 2, CHAT),
        };
        let expected: Vec<_> = first.into_iter().map(alone::<R>).collect();
        assert_eq!(fallback.first().asked(), expected, "{method}");

        // A copy has another address.
        let shown = |record: String| {
            let words = record.split(' ').filter(|word| !word.starts_with("0x"));
            words.collect::<String>()
        };
        let asked = fallback.second().asked().into_iter().map(shown);
        let renamed = |method| shown(alone::<R>(method).replace("\"m\"", "\"n\""));
        assert!(asked.eq(second.into_iter().map(renamed)), "{method}");

        let model = (failed != Operation::Models).then(|| "m".to_owned());
        let expected = [false, true].map(|fell| (fell, call, (failed, model.clone(), 0)));
        assert_eq!(*events.lock().unwrap(), expected, "{method}");
    }
}

pub fn a_missing_operation_falls<R>()
where
    R: Calls<Recorder> + Calls<Recorders>,
{
    for &method in R::METHODS {
        let lacking = Fallback::new(Recorder::unimplemented(), Recorder::default());
        assert!(block_on(R::call(&lacking, method)).is_err());
        // The arguments themselves, because no name is another one.
        let asked = falls(method).then(|| alone::<R>(method));
        assert!(lacking.second().asked().into_iter().eq(asked), "{method}");

        let stuck = Fallback::new(Recorder::default(), Recorder::unimplemented());
        let error = block_on(R::call(&stuck, method)).err().unwrap();
        assert_eq!(error.to_string(), "request timed out", "{method}");
    }
}
