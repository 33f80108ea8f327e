//! The requests that the flaky server gets.

use httparse::Status;
use serde_json::Value;
use std::io;

pub struct Request {
    pub path: String,
    /// Whether it asks for a file.
    pub is_get: bool,
    /// Whether a browser has sent it. Its connection is closed after the answer: a browser repeats
    /// a request by itself if a connection that it has used before is closed in place of an answer.
    pub from_page: bool,
    body: Value,
}

impl Request {
    /// The request at the start of `received` and its length, or `None` as long as it is
    /// incomplete.
    pub fn parse(received: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        let Status::Complete(start) = head.parse(received).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let header = |name: &str| {
            let mut headers = head.headers.iter();
            let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        };
        let length = header("content-length").map_or(Ok(0), str::parse);
        let length: usize = length.map_err(io::Error::other)?;
        let Some(body) = received[start..].get(..length) else {
            return Ok(None);
        };
        let is_get = head.method == Some("GET");
        let request = Self {
            path: head.path.unwrap_or_default().to_owned(),
            is_get,
            from_page: is_get || header("origin").is_some(),
            body: serde_json::from_slice(body).unwrap_or_default(),
        };
        Ok(Some((request, start + length)))
    }

    /// The name of the sender's script.
    pub fn caller(&self) -> &str {
        self.body["user"].as_str().unwrap_or(self.model())
    }

    pub fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or("flaky")
    }

    /// Whether it asks for a stream.
    pub fn streams(&self) -> bool {
        self.body["stream"] == true
    }
}
