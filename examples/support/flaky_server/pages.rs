//! The flaky server's answers to web pages.

use super::{
    State,
    fault::{Answer, Ending},
    request::Request,
};
use std::{sync::atomic::Ordering, time::Duration};

/// Lets the pages of all origins read an answer, and its `Retry-After`.
///
/// The connection is closed after it: a browser repeats a request by itself if a connection that it
/// has used before is closed in place of an answer.
pub const FOR_PAGES: &str = "access-control-allow-origin: *\r\n\
                             access-control-expose-headers: retry-after\r\n\
                             connection: close\r\n";

/// A file of a page.
pub struct File {
    pub content_type: &'static str,
    pub content: Vec<u8>,
}

/// The answer to a request that only a page sends: for a file, for the number of requests so far,
/// or for leave to send one.
pub fn answer(state: &State, request: &Request) -> Option<Answer> {
    let bytes = match (request.method.as_str(), request.path.as_str()) {
        ("OPTIONS", _) => preflight(),
        ("GET", "/requests") => {
            let requests = state.requests.load(Ordering::Relaxed).to_string();
            file("text/plain", requests.as_bytes())
        }
        ("GET", path) => {
            let found = state.files.get(path)?;
            file(found.content_type, &found.content)
        }
        _ => return None,
    };
    Some(Answer {
        parts: vec![(Duration::ZERO, bytes)],
        ending: Ending::Close,
    })
}

fn preflight() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 204 \r\n{FOR_PAGES}access-control-allow-headers: authorization, content-type\r\n\
         access-control-allow-methods: POST\r\n\r\n"
    );
    head.into_bytes()
}

fn file(content_type: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = format!(
        "HTTP/1.1 200 \r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\n{FOR_PAGES}\r\n"
    );
    [head.as_bytes(), content].concat()
}
