//! The content of an answer of any dialect.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Display;

/// The text that came, and the error that ended it.
pub struct Answer {
    pub text: String,
    pub error: Option<String>,
}

impl Answer {
    /// An answer in one piece.
    pub fn whole<E: Display>(result: Result<impl Serialize, E>) -> Self {
        let (text, error) = match result {
            Ok(answer) => (text(answer), None),
            Err(error) => (String::new(), Some(error.to_string())),
        };
        Self { text, error }
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
        let lines = answer.text.lines();
        let data = lines.filter_map(|line| line.strip_prefix("data: "));
        let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        answer.text = events.map(text).collect();
        answer
    }

    async fn collect<T, S: Display, E: Display>(
        opened: Result<impl Stream<Item = Result<T, S>> + Unpin, E>,
        text_of: impl Fn(T) -> String,
    ) -> Self {
        let mut text = String::new();
        let read = async {
            let mut items = opened.map_err(|error| error.to_string())?;
            while let Some(item) = items.next().await {
                text += &text_of(item.map_err(|error| error.to_string())?);
            }
            Ok(())
        };
        let error = read.await.err();
        Self { text, error }
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
