//! A client and an error of its own, without crabllm-core, on smol with smol's timer;
//! and next to it the same retries with `backon`.
//!
//! ```sh
//! cargo run --example any_client
//! ```

use crabllm_retry::{Failure, Operation, Retrying};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{
    error::Error,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

#[derive(Debug)]
enum ClientError {
    Timeout,
    Busy,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timed out",
            Self::Busy => "busy",
        })
    }
}

impl Error for ClientError {}

/// The wrapper needs two methods of the error; others have defaults.
impl Failure for ClientError {
    fn timeout() -> Self {
        Self::Timeout
    }

    fn is_transient(&self) -> bool {
        true
    }
}

/// Is busy twice before each answer.
#[derive(Default)]
struct Client(AtomicU32);

impl Client {
    async fn translate(&self, text: &str) -> Result<String, ClientError> {
        match self.0.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => Ok(text.to_uppercase()),
            _ => Err(ClientError::Busy),
        }
    }

    async fn words(
        &self,
        text: &str,
    ) -> Result<BoxStream<'static, Result<String, ClientError>>, ClientError> {
        let text = self.translate(text).await?;
        let words: Vec<_> = text.split(' ').map(|word| Ok(word.to_owned())).collect();
        Ok(stream::iter(words).boxed())
    }
}

/// Two retries, a timeout of 30 seconds for each attempt.
async fn with_crabllm_retry() -> Result<String, ClientError> {
    let client = Retrying::with_timer(Client::default(), smol::Timer::after);
    let translate = Operation::Other("translate");
    let answer = client.call(translate, None, |client| client.translate("patience"));
    let answer = answer.await?;

    let words = Operation::Other("words");
    let opening = client.open(words, None, |_| true, |client| client.words("is a virtue"));
    let words: Vec<_> = opening
        .await?
        .filter_map(async |word| word.ok())
        .collect()
        .await;
    Ok(format!("{answer} {}", words.join(" ")))
}

/// The same for the call. There is no timeout, and a stream is up to its reader.
async fn with_backon() -> Result<String, ClientError> {
    use backon::{ExponentialBuilder, FuturesTimerSleeper, Retryable};

    let client = Client::default();
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_times(2)
        .with_jitter();
    let translate = || client.translate("patience");
    translate.retry(backoff).sleep(FuturesTimerSleeper).await
}

fn main() -> Result<(), ClientError> {
    println!("crabllm-retry: {}", smol::block_on(with_crabllm_retry())?);
    println!("backon:        {}", smol::block_on(with_backon())?);
    Ok(())
}
