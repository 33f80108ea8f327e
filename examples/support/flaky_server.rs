//! An OpenAI-compatible chat server on loopback that fails on purpose.
//!
//! Every user, that is every value of a request's `user` field, has a script: the first request
//! meets the first [`Fault`] of the script, the second request the second, and once the script is
//! over all requests are answered well. Users without a script always are.

use serde_json::{Value, json};
use smol::{
    Async, LocalExecutor, Timer, channel, future,
    io::{AsyncReadExt, AsyncWriteExt},
};
use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// The reply of the model to whatever it is asked; a stream sends it word by word.
pub const REPLY: &str = "Patience is a virtue, as long as it has a timeout.";

/// How long the server thinks before it answers, or refuses to.
const THINKING: Duration = Duration::from_millis(150);
/// The pause before each word of a stream.
const PACE: Duration = Duration::from_millis(20);
/// The largest request the server reads.
const MAX_REQUEST: usize = 1 << 20;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The answer is an error with this status.
    Status(u16),
    /// The answer is a 429 which names the seconds to wait, in its header and in its body.
    RateLimit(u32),
    /// The connection is closed in place of an answer.
    Drop,
    /// No answer ever comes.
    Stall,
    /// The answer is good, but this much later than others.
    Late(Duration),
    /// The answer is good, but a stream pauses this long before each word.
    Slow(Duration),
}

/// A running server; dropping it stops it and closes its connections.
pub struct FlakyServer {
    address: SocketAddr,
    state: Arc<State>,
    stop: channel::Sender<Infallible>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    scripts: Mutex<HashMap<String, VecDeque<Fault>>>,
    requests: AtomicUsize,
}

impl FlakyServer {
    /// Starts a server on a free port, on a thread of its own, so that it serves the clients of
    /// any runtime.
    pub fn start<U, S>(scripts: impl IntoIterator<Item = (U, S)>) -> io::Result<Self>
    where
        U: Into<String>,
        S: IntoIterator<Item = Fault>,
    {
        let scripts = scripts
            .into_iter()
            .map(|(user, script)| (user.into(), script.into_iter().collect()))
            .collect();
        let state = Arc::new(State {
            scripts: Mutex::new(scripts),
            requests: AtomicUsize::new(0),
        });
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.get_ref().local_addr()?;
        let (stop, stopped) = channel::bounded(1);
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("flaky-server".into())
            .spawn(move || {
                let executor = LocalExecutor::new();
                let stopped = async {
                    _ = stopped.recv().await;
                };
                let serving = future::or(stopped, serve(&listener, &executor, &shared));
                smol::block_on(executor.run(serving));
            })?;
        Ok(Self {
            address,
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// The base URL to give to a client, such as `http://127.0.0.1:40123/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests have arrived in full.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }
}

impl Drop for FlakyServer {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

async fn serve(listener: &Async<TcpListener>, executor: &LocalExecutor<'_>, state: &Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(state);
                let connection = async move {
                    // An error here is a client that hung up: nobody is left to tell.
                    _ = Connection::new(stream).run(&state).await;
                };
                executor.spawn(connection).detach();
            }
            // Out of file descriptors, most likely: accept again once some are free.
            Err(_) => _ = Timer::after(THINKING).await,
        }
    }
}

struct Request {
    path: String,
    body: Value,
}

struct Connection {
    stream: Async<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    fn new(stream: Async<TcpStream>) -> Self {
        // Without it, the small writes of a stream would reach the client in lumps.
        _ = stream.get_ref().set_nodelay(true);
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Answers requests until the client closes the connection or a fault does.
    async fn run(mut self, state: &State) -> io::Result<()> {
        while let Some(request) = self.request().await? {
            state.requests.fetch_add(1, Ordering::Relaxed);
            Timer::after(THINKING).await;
            if !request.path.ends_with("/chat/completions") {
                self.error(404, "no such path", None).await?;
                continue;
            }
            match state.next_fault(&request) {
                Some(Fault::Status(status)) => {
                    self.error(status, "the server is having a bad day", None)
                        .await?
                }
                Some(Fault::RateLimit(seconds)) => {
                    self.error(429, "too many requests", Some(seconds)).await?
                }
                Some(Fault::Drop) => return Ok(()),
                Some(Fault::Stall) => return self.stall().await,
                Some(Fault::Late(pause)) => {
                    Timer::after(pause).await;
                    self.reply(&request.body, PACE).await?
                }
                Some(Fault::Slow(pace)) => self.reply(&request.body, pace).await?,
                None => self.reply(&request.body, PACE).await?,
            }
        }
        Ok(())
    }

    /// Reads the next request, or `None` if the client closes the connection first.
    async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = parse(&self.received)? {
                self.received.drain(..length);
                return Ok(Some(request));
            }
            if self.received.len() > MAX_REQUEST || !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// Reads some more bytes; false at the end of the connection.
    async fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        let read = self.stream.read(&mut buffer).await?;
        self.received.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    /// Keeps the client waiting for as long as it is willing to.
    async fn stall(&mut self) -> io::Result<()> {
        while self.received.len() <= MAX_REQUEST && self.receive().await? {}
        Ok(())
    }

    async fn error(&mut self, status: u16, message: &str, wait: Option<u32>) -> io::Result<()> {
        let mut body = json!({"error": {"message": message, "type": "server_error"}});
        let mut header = String::new();
        if let Some(seconds) = wait {
            body["error"]["retry_after"] = seconds.into();
            header = format!("retry-after: {seconds}\r\n");
        }
        self.json(status, &header, &body).await
    }

    async fn json(&mut self, status: u16, header: &str, body: &Value) -> io::Result<()> {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {}\r\n{header}\r\n",
            body.len()
        );
        self.stream.write_all((head + &body).as_bytes()).await
    }

    async fn reply(&mut self, request: &Value, pace: Duration) -> io::Result<()> {
        if request["stream"] == true {
            self.reply_stream(request, pace).await
        } else {
            let message = json!({"role": "assistant", "content": REPLY});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            let body = object("chat.completion", request, choice);
            self.json(200, "", &body).await
        }
    }

    async fn reply_stream(&mut self, request: &Value, pace: Duration) -> io::Result<()> {
        let head = "HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        let words = REPLY
            .split_inclusive(' ')
            .map(|word| (json!({"content": word}), None));
        for (delta, finish_reason) in words.chain([(json!({}), Some("stop"))]) {
            Timer::after(pace).await;
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
            self.event(&object("chat.completion.chunk", request, choice).to_string())
                .await?;
        }
        self.event("[DONE]").await?;
        self.stream.write_all(b"0\r\n\r\n").await
    }

    /// Sends a server-sent event as one chunk of the body.
    async fn event(&mut self, data: &str) -> io::Result<()> {
        let event = format!("data: {data}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        self.stream.write_all(chunk.as_bytes()).await
    }
}

impl State {
    fn next_fault(&self, request: &Request) -> Option<Fault> {
        let user = request.body["user"].as_str()?;
        let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.get_mut(user)?.pop_front()
    }
}

fn object(kind: &str, request: &Value, choice: Value) -> Value {
    json!({
        "id": "chatcmpl-flaky",
        "object": kind,
        "created": 0,
        "model": request["model"].as_str().unwrap_or("flaky"),
        "choices": [choice],
    })
}

/// The request at the start of `received` and its length, or `None` as long as it is incomplete.
fn parse(received: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(received).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .unwrap_or(0usize);
    let end = start.saturating_add(length);
    let Some(body) = received.get(start..end) else {
        return Ok(None);
    };
    let request = Request {
        path: head.path.unwrap_or_default().to_owned(),
        body: serde_json::from_slice(body).unwrap_or_default(),
    };
    Ok(Some((request, end)))
}
