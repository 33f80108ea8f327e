//! User code that was written against crabllm-core's own `Retrying` compiles with this
//! crate's, with nothing changed but the import. `differential.rs` compares how they behave.

#![cfg(all(
    feature = "crabllm-core-0_0_25",
    feature = "futures-timer",
    feature = "test-util"
))]

/// A service as its author wrote it, and a test of it in real time on tokio, where both
/// wrappers work.
macro_rules! service {
    ($name:ident, $($import:tt)*) => {
        mod $name {
            $($import)*
            use crabllm_retry::{
                FuturesTimer,
                crabllm_core_0_0_25::{
                    BoxStream, ChatCompletionChunk, ChatCompletionRequest, Error, Provider, json,
                },
                test_util::{Scripted, Step},
            };
            use futures::StreamExt;
            use std::time::Duration;

            /// Answers questions, with retries.
            #[derive(Debug, Clone)]
            struct Service<P: Provider> {
                provider: Retrying<P>,
            }

            impl<P: Provider> Service<P> {
                fn new(provider: P) -> Self {
                    let provider = Retrying::new(provider)
                        .max_retries(1)
                        .timeout(Duration::from_millis(200))
                        .max_retry_after(Duration::from_secs(1))
                        .stream_idle(Duration::from_millis(200));
                    Self { provider }
                }

                async fn ask(&self, request: &ChatCompletionRequest) -> Result<(), Error> {
                    self.provider.chat_completion(request).await.map(drop)
                }
            }

            /// Takes any provider.
            async fn listen(
                provider: &impl Provider,
                request: &ChatCompletionRequest,
            ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
                provider.chat_completion_stream(request).await
            }

            #[test]
            fn it_retries_and_ends_a_silent_stream() {
                let stream = Step::stream([Step::ok(), Step::hang()]);
                let script = [Step::status(503), Step::hang(), stream];
                let service = Service::new(Scripted::new(FuturesTimer, script)).clone();
                let request = json::from_str(r#"{"model": "m", "messages": []}"#).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                runtime.unwrap().block_on(async {
                    assert!(matches!(service.ask(&request).await, Err(Error::Timeout)));
                    let items = listen(&service.provider, &request).await.unwrap();
                    let items: Vec<_> = items.collect().await;
                    assert!(matches!(items[..], [Ok(_), Err(Error::Timeout)]));
                    assert_eq!(service.provider.get_ref().attempts().len(), 3);
                });
            }
        }
    };
}

service! { with_upstreams, use crabllm_retry::crabllm_core_0_0_25::Retrying; }
service! { with_this_one, use crabllm_retry::Retrying; }
