//! The content of an answer of any dialect.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Display;

/// The text that came, and the error that ended it.
#[derive(Default)]
pub struct Answer {
    pub text: String,
    pub error: Option<String>,
}

impl Answer {
    /// Adds an answer, or an item of a stream.
    fn add<E: Display>(&mut self, result: Result<String, E>) {
        match result {
            Ok(text) => self.text += &text,
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// An answer in one piece.
    pub fn whole<E: Display>(result: Result<impl Serialize, E>) -> Self {
        let mut answer = Self::default();
        answer.add(result.map(text));
        answer
    }

    /// A stream of items.
    pub async fn items<T: Serialize, S: Display, E: Display>(
        opened: Result<impl Stream<Item = Result<T, S>> + Unpin, E>,
    ) -> Self {
        Self::collect(opened, text).await
    }

    /// A stream of bytes, whose pieces need not end where events do.
    pub async fn bytes<S: Display, E: Display>(
        opened: Result<impl Stream<Item = Result<Bytes, S>> + Unpin, E>,
    ) -> Self {
        let raw = |bytes: Bytes| String::from_utf8(bytes.into()).unwrap();
        let mut answer = Self::collect(opened, raw).await;
        let data = answer
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        answer.text = events.map(text).collect();
        answer
    }

    async fn collect<T, S: Display, E: Display>(
        opened: Result<impl Stream<Item = Result<T, S>> + Unpin, E>,
        text: impl Fn(T) -> String,
    ) -> Self {
        let mut answer = Self::default();
        match opened {
            Ok(mut items) => {
                while answer.error.is_none()
                    && let Some(item) = items.next().await
                {
                    answer.add(item.map(&text));
                }
            }
            Err(error) => answer.error = Some(error.to_string()),
        }
        answer
    }
}

/// The text in an answer, or in an item of a stream.
fn text(answer: impl Serialize) -> String {
    const PLACES: [&str; 5] = [
        "/choices/0/message/content",
        "/choices/0/message/content/0/text",
        "/choices/0/delta/content",
        "/content/0/text",
        "/delta/text",
    ];
    let answer = serde_json::to_value(answer).unwrap();
    let mut texts = PLACES
        .iter()
        .filter_map(|place| answer.pointer(place)?.as_str());
    texts.next().unwrap_or_default().to_owned()
}
