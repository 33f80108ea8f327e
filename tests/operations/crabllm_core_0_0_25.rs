//! The methods of crabllm-core 0.0.25.

use crate::{
    common::SECOND,
    methods::crabllm_core_0_0_25::{METHODS, call, canonical, chat},
};
use crabllm_retry::{
    Failure,
    crabllm_core_0_0_25::{
        BoxStream, ByteStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse,
        Error, Provider, anthropic, gemini,
    },
};
use futures::{StreamExt, stream};
use std::io;

crate::claims!();

/// A provider that answers nothing, but for the given methods.
macro_rules! speechless {
    ($provider:ty, $($method:item)*) => {
        impl Provider for $provider {
            async fn chat_completion(
                &self,
                _: &ChatCompletionRequest,
            ) -> Result<ChatCompletionResponse, Error> {
                Err(Error::Timeout)
            }

            async fn chat_completion_stream(
                &self,
                _: &ChatCompletionRequest,
            ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
                Err(Error::Timeout)
            }

            async fn anthropic_messages(
                &self,
                _: &anthropic::Request,
            ) -> Result<anthropic::Response, Error> {
                Err(Error::Timeout)
            }

            async fn anthropic_messages_stream(
                &self,
                _: &anthropic::Request,
            ) -> Result<BoxStream<'static, Result<anthropic::StreamEvent, Error>>, Error> {
                Err(Error::Timeout)
            }

            async fn gemini_generate_content_stream(
                &self,
                _: &str,
                _: &gemini::Request,
            ) -> Result<BoxStream<'static, Result<gemini::Response, Error>>, Error> {
                Err(Error::Timeout)
            }

            $($method)*
        }
    };
}

#[test]
fn a_retry_is_never_earlier_than_the_error_asks() {
    let asking = |seconds: u32| Step::status(429).retry_after(seconds * SECOND);
    for (script, sleeps) in [
        (asking(7), vec![7 * SECOND]),
        (asking(0), vec![SECOND]),
        (asking(60), vec![60 * SECOND]),
        (asking(61), vec![]),
    ] {
        let scene = Scene::new([script]);
        let answered = block_on(scene.retrying.chat_completion(&chat())).is_ok();
        assert_eq!(scene.sleeps.asked(), sleeps);
        assert_eq!(answered, !sleeps.is_empty());
    }
}

#[test]
fn the_users_word_goes_before_the_errors() {
    let scene = Scene::new([Step::status(429).retry_after(7 * SECOND)])
        .set(|r| r.retry_after(|_| Some(9 * SECOND)));
    block_on(scene.retrying.chat_completion(&chat())).unwrap();
    assert_eq!(scene.sleeps.asked(), [9 * SECOND]);
}

#[test]
fn what_is_unsupported_is_never_retried() {
    let scene = Scene::new([]);
    let retrying = Retrying::with_timer(Speaks(0), scene.sleeps.clone())
        .policy(plain().retry(Operations::ALL))
        .retry_if(|_| true)
        .max_retries(u32::MAX);
    let result = block_on(retrying.complete(&canonical()));
    assert!(matches!(result, Err(Error::Unsupported(_))));
    assert!(scene.sleeps.asked().is_empty());
}

#[test]
fn a_stalled_stream_of_bytes_ends_with_a_timeout_of_io() {
    let scene = Scene::new([Step::stream([Step::ok(), Step::hang()])]);
    let opened = scene.retrying.chat_completion_stream_raw("m", "{}".into());
    let mut items = block_on(opened).unwrap();
    assert!(matches!(block_on(items.next()), Some(Ok(_))));
    let error = block_on(items.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let inner = error.get_ref().unwrap().downcast_ref();
    assert!(matches!(inner, Some(Error::Timeout)));
    assert!(block_on(items.next()).is_none());
    assert_eq!(scene.clock.elapsed(), 90 * SECOND);
}

#[test]
fn the_body_that_is_passed_through_arrives_whole() {
    /// Echoes the body that it is given.
    struct Echo;

    speechless! { Echo,
        async fn chat_completion_stream_passthrough(
            &self,
            _: &str,
            body: ByteStream,
        ) -> Result<ByteStream, Error> {
            Ok(body)
        }
    }

    let retrying = Retrying::with_timer(Echo, VirtualTimer::new());
    let body = stream::iter(["one", "two"])
        .map(|part| Ok(part.into()))
        .boxed();
    let echo = block_on(retrying.chat_completion_stream_passthrough("m", body)).unwrap();
    let parts: Vec<_> = block_on(echo.map(Result::unwrap).collect());
    assert_eq!(parts, ["one", "two"]);
}

/// Says yes to the dialect of this number.
struct Speaks(usize);

fn dialects(provider: &impl Provider) -> [bool; 3] {
    [
        provider.is_openai_compat(),
        provider.is_anthropic_compat(),
        provider.is_gemini_compat(),
    ]
}

speechless! { Speaks,
    fn is_openai_compat(&self) -> bool {
        self.0 == 0
    }

    fn is_anthropic_compat(&self) -> bool {
        self.0 == 1
    }

    fn is_gemini_compat(&self) -> bool {
        self.0 == 2
    }
}

#[test]
fn an_error_says_what_the_server_did() {
    let refused = Error::Provider {
        status: 418,
        body: "teapot".into(),
        retry_after: None,
    };
    let refused: &dyn Failure = &refused;
    assert_eq!(
        (refused.status(), refused.body()),
        (Some(418), Some("teapot"))
    );
    assert!(!refused.timed_out());

    let timeout: &dyn Failure = &Error::Timeout;
    assert_eq!((timeout.status(), timeout.body()), (None, None));
    assert!(timeout.timed_out());
}
