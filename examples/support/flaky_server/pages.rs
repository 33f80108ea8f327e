//! The flaky server's answers to web pages.

use super::{State, request::Request};
use std::sync::atomic::Ordering;

/// Lets the pages of all origins read an answer, and its `Retry-After`.
///
/// It is the last one of its connection: a browser sends a request again by itself when a connection
/// that it has used before is closed in place of an answer.
pub const FOR_PAGES: &str = "access-control-allow-origin: *\r\n\
                             access-control-expose-headers: retry-after\r\n\
                             connection: close\r\n";

/// A file of a page.
pub struct File {
    pub content_type: &'static str,
    pub content: Vec<u8>,
}

/// The answer to what only a page asks for: one of its files, how many requests there have been,
/// and whether it may make one.
pub fn answer(state: &State, request: &Request) -> Option<Vec<u8>> {
    match (request.method.as_str(), request.path.as_str()) {
        ("OPTIONS", _) => Some(preflight()),
        ("GET", "/requests") => {
            let requests = state.requests.load(Ordering::Relaxed).to_string();
            Some(file("text/plain", requests.as_bytes()))
        }
        ("GET", path) => {
            let File {
                content_type,
                content,
            } = state.files.get(path)?;
            Some(file(content_type, content))
        }
        _ => None,
    }
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
