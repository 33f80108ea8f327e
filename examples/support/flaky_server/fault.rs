//! The faults, and the answer that each of them leads to.

use super::{dialect::Dialect, request::Request};
use serde_json::json;
use std::time::Duration;

/// The pause before each event of a stream.
const PACE: Duration = Duration::from_millis(20);
/// The content type of answers in one piece.
const JSON: &str = "application/json";

/// The fault of one request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The answer is an error with this status.
    Status(u16),
    /// The answer is a 429 with this many seconds to wait in a header, as Anthropic's. A caller
    /// that comes back sooner gets it again.
    RateLimit(u32),
    /// The same with the seconds in the body, as Google's.
    RateLimitInBody(u32),
    /// The answer is a 429 that says nothing about a wait.
    Throttle,
    /// The answer is a 429 because the account has no credit left, as OpenAI's.
    QuotaUsedUp,
    /// The connection is closed in place of an answer.
    Drop,
    /// No answer ever comes.
    Stall,
    /// The answer is good, but this much later than others.
    Late(Duration),
    /// The answer is good, but a stream pauses this long before each event.
    Slow(Duration),
    /// The connection is closed after one half of the answer.
    DropHalfway,
    /// The second half of the answer never comes.
    StallHalfway,

    // The faults of streams after their status, which is 200. An answer in one piece is a 503
    // instead, or breaks off halfway.
    /// An error event in place of the answer.
    ErrorEvent,
    /// The first event only announces the answer, and the second is an error.
    AnnouncedErrorEvent,
    /// A chunk with an error and without choices, as OpenRouter's. Anthropic's dialect has no
    /// chunks, and the error event instead.
    ErrorChunk,
    /// A chunk with an error and without text, whose finish reason is `error`.
    ErrorFinish,
    /// The connection is closed before the first event.
    DropOpened,
    /// The first event never comes.
    StallOpened,
    /// The stream ends without any event.
    Empty,
    /// The stream is good, but each of its bytes comes by itself.
    Bytewise,
}

/// The bytes of an answer, and the fate of its connection.
pub struct Answer {
    /// The parts of the answer, each sent after a pause.
    pub parts: Vec<(Duration, Vec<u8>)>,
    pub ending: Ending,
}

/// The end of an answer, after its last part.
pub enum Ending {
    /// The connection is ready for the next request.
    Keep,
    Close,
    /// The server is silent until the client closes the connection.
    Stall,
}

impl Answer {
    /// The answer to a request that meets this fault, or none.
    pub fn new(request: &Request, dialect: Dialect, fault: Option<Fault>) -> Self {
        let model = request.model();
        let refusal = |status, header: &str, message: &str| {
            let error = dialect.error(status, message).to_string();
            Self::whole(request, status, JSON, header, error.as_bytes())
        };
        let events = || dialect.events(model);
        let error = |choices| dialect.error_event(model, choices);
        let streamed = |events, pace| match request.streams() {
            true => Self::stream(request, events, pace),
            false => refusal(503, "", "the server is having a bad day"),
        };
        let good = |pace| match request.streams() {
            true => Self::stream(request, events(), pace),
            false => {
                let reply = dialect.reply(model).to_string();
                Self::whole(request, 200, JSON, "", reply.as_bytes())
            }
        };
        let Some(fault) = fault else {
            return good(PACE);
        };
        match fault {
            Fault::Status(status) => refusal(status, "", "the server is having a bad day"),
            Fault::RateLimit(seconds) => {
                let header = format!("retry-after: {seconds}\r\n");
                refusal(429, &header, "too many requests")
            }
            Fault::RateLimitInBody(seconds) => {
                refusal(429, "", &format!("please retry in {seconds}s"))
            }
            Fault::Throttle => refusal(429, "", "rate limit reached"),
            Fault::QuotaUsedUp => {
                let error = json!({"error": {"code": "insufficient_quota"}}).to_string();
                Self::whole(request, 429, JSON, "", error.as_bytes())
            }
            Fault::Drop => good(PACE).first(0, Ending::Close),
            Fault::Stall => good(PACE).first(0, Ending::Stall),
            Fault::Late(delay) => {
                let mut answer = good(PACE);
                answer.parts.insert(0, (delay, Vec::new()));
                answer
            }
            Fault::Slow(pace) => good(pace),
            Fault::DropHalfway => good(PACE).half(Ending::Close),
            Fault::StallHalfway => good(PACE).half(Ending::Stall),
            Fault::ErrorEvent => streamed(vec![error(None)], PACE),
            Fault::AnnouncedErrorEvent => {
                streamed(vec![events().swap_remove(0), error(None)], PACE)
            }
            Fault::ErrorChunk => streamed(vec![error(Some(json!([])))], PACE),
            Fault::ErrorFinish => {
                let choice = json!({"index": 0, "delta": {}, "finish_reason": "error"});
                streamed(vec![error(Some(json!([choice])))], PACE)
            }
            Fault::DropOpened => good(PACE).first(1, Ending::Close),
            Fault::StallOpened => good(PACE).first(1, Ending::Stall),
            Fault::Empty => streamed(Vec::new(), PACE),
            Fault::Bytewise => {
                let bytes = events().concat();
                streamed(bytes.chars().map(String::from).collect(), Duration::ZERO)
            }
        }
    }

    /// An answer in one piece, which is sent as two halves.
    pub fn whole(
        request: &Request,
        status: u16,
        content_type: &str,
        header: &str,
        body: &[u8],
    ) -> Self {
        let length = format!("content-length: {}\r\n{header}", body.len());
        let mut answer = Self::head(request, status, content_type, &length);
        let bytes = [&answer.parts[0].1, body].concat();
        let halves = bytes.chunks(bytes.len().div_ceil(2));
        answer.parts = halves.map(|half| (Duration::ZERO, half.into())).collect();
        answer
    }

    /// A stream of events, each of which is one chunk of the body.
    fn stream(request: &Request, events: Vec<String>, pace: Duration) -> Self {
        let chunked = "transfer-encoding: chunked\r\n";
        let mut answer = Self::head(request, 200, "text/event-stream", chunked);
        let chunk = |event: String| format!("{:x}\r\n{event}\r\n", event.len()).into();
        let chunks = events.into_iter().map(|event| (pace, chunk(event)));
        let end = (Duration::ZERO, "0\r\n\r\n".into());
        answer.parts.extend(chunks.chain([end]));
        answer
    }

    /// The head of an answer, with more header lines.
    fn head(request: &Request, status: u16, content_type: &str, more: &str) -> Self {
        let (close, ending) = match request.from_page {
            true => ("connection: close\r\n", Ending::Close),
            false => ("", Ending::Keep),
        };
        let head =
            format!("HTTP/1.1 {status} \r\ncontent-type: {content_type}\r\n{close}{more}\r\n");
        let parts = vec![(Duration::ZERO, head.into())];
        Self { parts, ending }
    }

    /// The first half of an answer.
    fn half(self, ending: Ending) -> Self {
        let half = self.parts.len() / 2;
        self.first(half, ending)
    }

    /// The first parts of an answer.
    fn first(mut self, parts: usize, ending: Ending) -> Self {
        self.parts.truncate(parts);
        Self { ending, ..self }
    }
}
