//! The requests that the flaky server gets.

use serde_json::Value;
use smol::io::{self, AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The largest request that is read.
const MAX_LENGTH: u64 = 1 << 20;

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
    /// Reads a request, or `None` if the client closes the connection first.
    pub async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut stream = stream.take(MAX_LENGTH);
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut received).await? == 0 {
                return Ok(None);
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        head.parse(&received).map_err(io::Error::other)?;
        let header = |name: &str| {
            let mut headers = head.headers.iter();
            let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        };
        let length = header("content-length").map_or(Ok(0), str::parse);
        let length: u64 = length.map_err(io::Error::other)?;
        let mut body = Vec::new();
        stream.take(length).read_to_end(&mut body).await?;
        let is_get = head.method == Some("GET");
        let request = Self {
            path: head.path.unwrap_or_default().to_owned(),
            is_get,
            from_page: is_get || header("origin").is_some(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        Ok((body.len() as u64 == length).then_some(request))
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
