//! A client for servers that speak the OpenAI chat API, as a [`Provider`] without tokio.

#![allow(dead_code, reason = "each program uses its own part")]

use crate::{
    pool::Pool,
    wire::{self, UNREACHABLE, broke_off, root_cause},
};
use crabllm_retry::{
    crabllm_core_0_0_19::{
        BoxStream, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionResponse, Error,
        Provider,
    },
    hints,
};
use futures::{Stream, stream};
use isahc::{
    AsyncBody, HttpClient,
    error::ErrorKind,
    http::{HeaderValue, Request, Uri, header},
};
use smol::io::{AsyncReadExt, Cursor};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How much of the body of an error answer is kept.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// A client of one server; clones share its connections and the count of requests sent.
#[derive(Clone)]
pub struct Client {
    pool: Pool,
    endpoint: Uri,
    authorization: Option<HeaderValue>,
    sent: Arc<AtomicUsize>,
}

impl Client {
    /// Talks to the server whose paths start at `base_url`, such as `https://api.openai.com/v1`.
    pub fn new(base_url: &str, api_key: Option<&str>) -> Result<Self, Error> {
        let endpoint = format!("{}/chat/completions", base_url.trim_end_matches('/'));
        let endpoint = endpoint.parse().ok();
        let endpoint = endpoint
            .filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")))
            .ok_or_else(|| {
                let example = "https://api.openai.com/v1";
                Error::Config(format!("`{base_url}` is not a base URL such as {example}"))
            })?;
        let authorization = api_key
            .map(|key| HeaderValue::try_from(format!("Bearer {key}")))
            .transpose()
            .map_err(|_| Error::Config("the API key does not fit in a header".into()))?;
        Ok(Self {
            pool: Pool::default(),
            endpoint,
            authorization,
            sent: Arc::default(),
        })
    }

    /// The host and port of the server.
    pub fn authority(&self) -> &str {
        let authority = self.endpoint.authority().map_or("", |it| it.as_str());
        // The part before an `@` may be a password.
        authority.rsplit('@').next().unwrap_or_default()
    }

    /// How many requests have been sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends a request and returns its answer, if that is a success.
    async fn send(&self, body: Vec<u8>) -> Result<Answer, Error> {
        // libcurl repeats a request by itself if a pooled connection turns out to be closed, but
        // not one whose body is read from a stream, which cannot be rewound.
        let length = body.len() as u64;
        let body = AsyncBody::from_reader_sized(Cursor::new(body), length);
        let mut request = Request::post(&self.endpoint);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(body)
            .map_err(|error| Error::Config(error.to_string()))?;

        let failed = |error| self.transport_error(&error);
        let http = self.pool.take().map_err(failed)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = http.send_async(request).await.map_err(failed)?;
        let status = answer.status();
        let delays = answer.headers().iter().filter_map(|(name, value)| {
            hints::retry_after_header(name.as_str(), value.to_str().ok()?)
        });
        let delay = delays.max();
        let answer = Answer {
            body: answer.into_body(),
            http,
            pool: self.pool.clone(),
        };
        if status.is_success() {
            Ok(answer)
        } else {
            Err(answer.refusal(status.as_u16(), delay).await)
        }
    }

    fn transport_error(&self, error: &isahc::Error) -> Error {
        let server = self.authority();
        let message = match error.kind() {
            ErrorKind::ConnectionFailed => format!("{UNREACHABLE} {server}"),
            ErrorKind::NameResolution => format!("{UNREACHABLE} {server}: {error}"),
            _ => format!("the connection failed: {}", root_cause(error)),
        };
        Error::Internal(message)
    }
}

impl Provider for Client {
    async fn chat_completion(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<ChatCompletionResponse, Error> {
        let answer = self.send(wire::request(request, false)?).await?;
        wire::response(&answer.read().await?)
    }

    async fn chat_completion_stream(
        &self,
        request: &ChatCompletionRequest,
    ) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
        let answer = self.send(wire::request(request, true)?).await?;
        Ok(Box::pin(wire::chunks(answer.pieces())))
    }
}

/// An answer whose body is still to be read.
struct Answer {
    body: AsyncBody,
    http: HttpClient,
    pool: Pool,
}

impl Answer {
    /// The whole body.
    async fn read(mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let read = self.body.read_to_end(&mut body).await;
        read.map_err(|error| broke_off(&error))?;
        self.pool.put(self.http);
        Ok(body)
    }

    /// The pieces of the body as they arrive. The connection is kept only if they are read to the
    /// end: dropping the stream closes it.
    fn pieces(self) -> impl Stream<Item = io::Result<io::Cursor<Vec<u8>>>> {
        stream::try_unfold(self, async |mut answer| {
            let mut piece = vec![0; 8192];
            let length = answer.body.read(&mut piece).await?;
            if length == 0 {
                answer.pool.put(answer.http);
                return Ok(None);
            }
            piece.truncate(length);
            Ok(Some((io::Cursor::new(piece), answer)))
        })
    }

    /// The error of a server that refuses to answer.
    async fn refusal(self, status: u16, delay: Option<Duration>) -> Error {
        let mut body = Vec::new();
        let mut head = self.body.take(MAX_ERROR_BODY);
        // The status says enough: a body that breaks off is kept as far as it came.
        if head.read_to_end(&mut body).await.is_ok() && head.limit() > 0 {
            self.pool.put(self.http);
        }
        wire::refusal(status, String::from_utf8_lossy(&body).into_owned(), delay)
    }
}
