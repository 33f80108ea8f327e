//! A client for servers that speak the OpenAI chat API, on the page's own `fetch`.
//!
//! The page's own values are not [`Send`], but the futures and streams of a [`Provider`] must be.
//! [`SendWrapper`] makes them so. It panics on another thread, which a page does not have.

use crate::wire;
use crabllm_retry::{
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
    hints,
};
use futures::{Stream, StreamExt, stream};
use gloo_net::http::{Request, Response};
use js_sys::Uint8Array;
use send_wrapper::SendWrapper;
use std::io;
use wasm_bindgen::JsCast;
use wasm_streams::ReadableStream;
use web_sys::AbortController;

/// A client of one server: the page's own, or another one that lets this page in.
#[derive(Clone)]
pub struct Fetch {
    pub endpoint: &'static str,
}

impl Fetch {
    /// Sends a request and returns its answer, if that is a success.
    async fn send(&self, body: Vec<u8>) -> Result<Answer, Error> {
        let abort = AbortController::new();
        let abort = Abort(abort.map_err(|error| Error::Config(format!("{error:?}")))?);
        let request = Request::post(self.endpoint)
            .header("content-type", "application/json")
            .abort_signal(Some(&abort.0.signal()))
            .body(Uint8Array::from(&body[..]))
            .map_err(|error| Error::Config(error.to_string()))?;
        // A page is not told what failed.
        let response = request
            .send()
            .await
            .map_err(|error| Error::Internal(format!("the connection failed: {error}")))?;
        let answer = Answer { response, abort };
        if answer.response.ok() {
            Ok(answer)
        } else {
            Err(answer.refusal().await)
        }
    }
}

impl Provider for Fetch {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let body = wire::request(request, false)?;
        let answer = async { self.send(body).await?.read().await };
        wire::response(&SendWrapper::new(answer).await?)
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let body = wire::request(request, true)?;
        let pieces = async { Ok::<_, Error>(SendWrapper::new(self.send(body).await?.pieces())) };
        let pieces = SendWrapper::new(pieces).await?;
        Ok(wire::chunks(pieces).boxed())
    }
}

/// An answer whose body is still to be read.
struct Answer {
    response: Response,
    abort: Abort,
}

impl Answer {
    /// The whole body.
    async fn read(self) -> Result<Vec<u8>, Error> {
        let body = self.response.binary().await;
        body.map_err(|error| wire::broke_off(&error))
    }

    /// The pieces of the body as they arrive.
    fn pieces(self) -> impl Stream<Item = io::Result<io::Cursor<Vec<u8>>>> {
        let body = match self.response.body() {
            Some(body) => ReadableStream::from_raw(body).into_stream().left_stream(),
            None => stream::empty().right_stream(),
        };
        // The request is aborted when the stream is dropped.
        stream::unfold((body, self.abort), async |(mut body, abort)| {
            let piece = match body.next().await? {
                Ok(piece) => Ok(io::Cursor::new(
                    piece.unchecked_into::<Uint8Array>().to_vec(),
                )),
                Err(error) => Err(io::Error::other(format!("{error:?}"))),
            };
            Some((piece, (body, abort)))
        })
    }

    /// The error of a server that refuses to answer.
    async fn refusal(self) -> Error {
        const HEADER: &str = "retry-after";
        let value = self.response.headers().get(HEADER);
        let wait = value.and_then(|value| hints::retry_after_header(HEADER, &value));
        let body = self.response.text().await.unwrap_or_default();
        wire::refusal(self.response.status(), body, wait)
    }
}

/// Aborts a request when it is dropped; a finished one stays as it is.
struct Abort(AbortController);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
