//! The requests that the flaky server gets.

use httparse::Status;
use serde_json::Value;
use std::io;

pub struct Request {
    pub method: String,
    pub path: String,
    /// Whether a web page has sent it.
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
        let rest = &received[start..];
        let body = match header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => rest.get(..length).map(|body| (body.to_vec(), length)),
            None if header("transfer-encoding") == Some("chunked") => join_chunks(rest)?,
            None => Some((Vec::new(), 0)),
        };
        Ok(body.map(|(body, length)| {
            let request = Self {
                method: head.method.unwrap_or_default().to_owned(),
                from_page: header("origin").is_some(),
                path: head.path.unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            (request, start + length)
        }))
    }

    /// By which name the sender has a script.
    pub fn caller(&self) -> &str {
        self.body["user"].as_str().unwrap_or(self.model())
    }

    pub fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or("flaky")
    }

    /// Whether the answer is to be a stream.
    pub fn streams(&self) -> bool {
        self.body["stream"] == true
    }
}

/// The body that starts `received` in chunks, and how long it is there, or `None` as long as it is
/// incomplete.
fn join_chunks(received: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = received.get(at..).unwrap_or_default();
        let size = httparse::parse_chunk_size(rest)
            .map_err(|_| io::Error::other("not the size of a chunk"))?;
        let Status::Complete((start, length)) = size else {
            return Ok(None);
        };
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        // A line break ends each chunk, the empty one at the end too.
        let next = end.saturating_add(2);
        let (Some(chunk), Some(b"\r\n")) = (rest.get(start..end), rest.get(end..next)) else {
            return Ok(None);
        };
        at += next;
        if chunk.is_empty() {
            return Ok(Some((body, at)));
        }
        body.extend_from_slice(chunk);
    }
}
