//! The content of an answer, whatever its dialect.

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
    pub fn whole<T, E: Display>(result: Result<T, E>, text: impl FnOnce(&T) -> String) -> Self {
        match result {
            Ok(answer) => Self {
                text: text(&answer),
                error: None,
            },
            Err(error) => Self {
                text: String::new(),
                error: Some(error.to_string()),
            },
        }
    }

    /// A stream of items.
    pub async fn items<T, S, E>(
        opened: Result<impl Stream<Item = Result<T, S>> + Unpin, E>,
        text: impl Fn(&T) -> String,
    ) -> Self
    where
        S: Display,
        E: Display,
    {
        let mut answer = Self::whole(opened.as_ref().map(|_| ()), |()| String::new());
        let Ok(mut items) = opened else {
            return answer;
        };
        while let Some(item) = items.next().await {
            let next = Self::whole(item, &text);
            answer.text.push_str(&next.text);
            answer.error = next.error;
            if answer.error.is_some() {
                break;
            }
        }
        answer
    }

    /// A stream of bytes, whose borders need not be those of the events in it.
    pub async fn bytes<S: Display, E: Display>(
        opened: Result<impl Stream<Item = Result<Bytes, S>> + Unpin, E>,
    ) -> Self {
        let raw = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let mut answer = Self::items(opened, raw).await;
        answer.text = answer
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .map(|data| text(&data))
            .collect();
        answer
    }
}

/// The text in an answer, or in an item of a stream, of any dialect.
pub fn text(answer: &impl Serialize) -> String {
    const PLACES: [&str; 6] = [
        "/choices/0/message/content",
        "/choices/0/delta/content",
        "/content/0/text",
        "/delta/text",
        "/candidates/0/content/parts/0/text",
        "/choices/0/message/content/0/text",
    ];
    let answer = serde_json::to_value(answer).unwrap();
    PLACES
        .iter()
        .find_map(|place| answer.pointer(place)?.as_str())
        .unwrap_or_default()
        .to_owned()
}

/// The text in an answer that nobody has parsed.
pub fn raw_text(answer: &Bytes) -> String {
    text(&serde_json::from_slice::<Value>(answer).unwrap())
}
