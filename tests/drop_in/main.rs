//! User code that was written against crabllm-core's own `Retrying` compiles
//! and behaves the same with this crate's, with nothing changed but the import.

#![cfg(all(
    feature = "crabllm-core-0_0_25",
    feature = "futures-timer",
    feature = "test-util"
))]

use crabllm_retry::{
    FuturesTimer,
    crabllm_core_0_0_25::{ChatCompletionRequest, json},
    test_util::{Scripted, Step},
};

fn request() -> ChatCompletionRequest {
    json::from_str(r#"{"model": "m", "messages": []}"#).unwrap()
}

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
        use crate::{on_tokio, provider, request};
        use crabllm_retry::{crabllm_core_0_0_25, test_util::Step};
        use futures::StreamExt;

        include!("user_code.rs");

        #[test]
        fn a_failure_is_retried() {
            let service = Service::new(provider([Step::status(503)]));
            on_tokio(service.clone().ask(&request())).unwrap();
            assert_eq!(service.provider().attempts().len(), 2);
        }

        #[test]
        fn retries_run_out() {
            let service = Service::new(provider([Step::status(503), Step::status(500)]));
            let result = on_tokio(service.ask(&request()));
            assert!(matches!(result, Err(Error::Provider { status: 500, .. })));
        }

        #[test]
        fn a_timeout_is_retried() {
            let service = Service::new(provider([Step::hang()]));
            on_tokio(service.ask(&request())).unwrap();
            assert!(service.provider().attempts()[0].cancelled);
        }

        #[test]
        fn a_wait_that_is_too_long_is_refused() {
            let asking = Step::status(429).retry_after(Duration::from_secs(2));
            let service = Service::new(provider([asking]));
            assert!(on_tokio(service.ask(&request())).is_err());
            assert_eq!(service.provider().attempts().len(), 1);
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
