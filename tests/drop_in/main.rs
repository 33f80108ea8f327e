//! User code that was written against crabllm-core's own `Retrying` compiles
//! and behaves the same with this crate's, with nothing changed but the import.

#![cfg(all(
    feature = "crabllm-core-0_0_25",
    feature = "futures-timer",
    feature = "test-util"
))]

use crabllm_retry::{
    FuturesTimer,
    test_util::{Scripted, Step},
};

/// In real time on tokio, where both work.
fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn provider(script: impl IntoIterator<Item = Step>) -> Scripted<FuturesTimer> {
    Scripted::new(FuturesTimer, script)
}

macro_rules! behaves {
    () => {
        use crate::{on_tokio, provider};
        use crabllm_retry::{
            Failure,
            crabllm_core_0_0_25::{self, json},
            test_util::Step,
        };
        use futures::StreamExt;

        include!("user_code.rs");

        fn request() -> ChatCompletionRequest {
            json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
        }

        #[test]
        fn calls_are_retried_within_the_limits() {
            let too_long = Step::status(429).retry_after(Duration::from_secs(2));
            for (script, failure, attempts) in [
                (vec![Step::status(503)], None, 2),
                (vec![Step::hang()], None, 2),
                (vec![Step::status(503), Step::status(500)], Some(500), 2),
                (vec![too_long], Some(429), 1),
            ] {
                let service = Service::new(provider(script));
                let result = on_tokio(service.clone().ask(&request()));
                assert_eq!(result.err().and_then(|error| error.status()), failure);
                assert_eq!(service.provider().attempts().len(), attempts);
            }
        }

        #[test]
        fn a_silent_stream_ends_with_a_timeout() {
            let service = Service::new(provider([Step::stream([Step::ok(), Step::hang()])]));
            let items = on_tokio(async {
                let items = service.listen(&request()).await.unwrap();
                items.collect::<Vec<_>>().await
            });
            assert!(matches!(&items[..], [Ok(_), Err(Error::Timeout)]));
        }
    };
}

mod with_upstreams {
    use crabllm_retry::crabllm_core_0_0_25::Retrying;

    behaves!();
}

mod with_this_one {
    use crabllm_retry::Retrying;

    behaves!();
}
