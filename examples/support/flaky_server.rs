//! A chat server on loopback that fails on purpose. It speaks OpenAI's dialect and Anthropic's.
//!
//! Every caller has a script: the first request meets the first [`Fault`] of the script, the second
//! request the second, and once the script is over all requests are answered well. Callers without
//! a script always are. A caller is known by the `user` of its requests, or by their `model` where
//! they name no user.
//!
//! Web pages may call it too, wherever they come from, and it can serve one.

#![allow(dead_code, reason = "each program has its own faults")]

#[path = "flaky_server/anthropic.rs"]
mod anthropic;
#[path = "flaky_server/dialect.rs"]
mod dialect;
#[path = "flaky_server/openai.rs"]
mod openai;
#[path = "flaky_server/pages.rs"]
mod pages;
#[path = "flaky_server/request.rs"]
mod request;

use dialect::Dialect;
use pages::FOR_PAGES;
pub use pages::File;
use request::Request;
use serde_json::Value;
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
    time::{Duration, Instant},
};

/// The reply of the model to whatever it is asked; a stream sends it word by word.
pub const REPLY: &str = "Patience is a virtue, as long as it has a timeout.";

/// The pause before each event of a stream.
const PACE: Duration = Duration::from_millis(20);
/// The pause after the server has failed to accept a connection.
const BREATH: Duration = Duration::from_millis(100);
/// The largest request the server reads.
const MAX_REQUEST: usize = 1 << 20;

/// The fault of one request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The answer is an error with this status.
    Status(u16),
    /// The answer is a 429 that names the seconds to wait in a header, as Anthropic's. A caller that
    /// comes back sooner gets it again.
    RateLimit(u32),
    /// The same, but the seconds are in the body, as Google's.
    RateLimitInBody(u32),
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
}

/// The settings of a server.
#[derive(Default)]
pub struct Setup {
    /// How long it thinks before it answers a request, or refuses to.
    pub thinking: Duration,
    /// The scripts of the callers that it knows.
    pub scripts: HashMap<String, VecDeque<Fault>>,
    /// The scripts of all others, by their names.
    pub newcomers: Option<fn(&str) -> Vec<Fault>>,
    /// The files that it serves, by path.
    pub files: HashMap<String, File>,
    /// Where it listens; zero is any free port.
    pub port: u16,
}

/// A running server; dropping it stops it and closes its connections.
pub struct FlakyServer {
    address: SocketAddr,
    state: Arc<State>,
    stop: channel::Sender<Infallible>,
    thread: Option<thread::JoinHandle<()>>,
}

struct State {
    thinking: Duration,
    scripts: Mutex<HashMap<String, Script>>,
    newcomers: fn(&str) -> Vec<Fault>,
    files: HashMap<String, File>,
    requests: AtomicUsize,
}

/// The faults that are left for the requests of a caller.
struct Script {
    faults: VecDeque<Fault>,

    /// The limit of a rate, and its end.
    limit: Option<(Fault, Instant)>,
}

impl Script {
    fn new(faults: VecDeque<Fault>) -> Self {
        Self {
            faults,
            limit: None,
        }
    }

    fn next_fault(&mut self) -> Option<Fault> {
        let now = Instant::now();
        if let Some((fault, end)) = self.limit
            && now < end
        {
            let left = (end - now).as_secs_f64().ceil() as u32;
            return Some(match fault {
                Fault::RateLimitInBody(_) => Fault::RateLimitInBody(left),
                _ => Fault::RateLimit(left),
            });
        }
        let fault = self.faults.pop_front();
        if let Some(fault @ (Fault::RateLimit(seconds) | Fault::RateLimitInBody(seconds))) = fault {
            self.limit = Some((fault, now + Duration::from_secs(seconds.into())));
        }
        fault
    }
}

impl FlakyServer {
    /// Starts a server on a free port, which thinks for a while before it answers a request, or
    /// refuses to.
    pub fn start<C, S>(
        thinking: Duration,
        scripts: impl IntoIterator<Item = (C, S)>,
    ) -> io::Result<Self>
    where
        C: Into<String>,
        S: IntoIterator<Item = Fault>,
    {
        let scripts = scripts
            .into_iter()
            .map(|(caller, script)| (caller.into(), script.into_iter().collect()))
            .collect();
        Self::start_with(Setup {
            thinking,
            scripts,
            ..Setup::default()
        })
    }

    /// Starts a server on a thread of its own, so that it serves the clients of any runtime.
    pub fn start_with(setup: Setup) -> io::Result<Self> {
        let scripts = setup.scripts.into_iter();
        let scripts = scripts.map(|(caller, faults)| (caller, Script::new(faults)));
        let state = Arc::new(State {
            thinking: setup.thinking,
            scripts: Mutex::new(scripts.collect()),
            newcomers: setup.newcomers.unwrap_or(|_| Vec::new()),
            files: setup.files,
            requests: AtomicUsize::new(0),
        });
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, setup.port))?;
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
        format!("{}v1", self.page())
    }

    /// Where its pages are, such as `http://127.0.0.1:40123/`.
    pub fn page(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many requests have arrived in full, but for those of its pages.
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
            Err(_) => _ = Timer::after(BREATH).await,
        }
    }
}

struct Connection {
    stream: Async<TcpStream>,
    received: Vec<u8>,
    /// Whether a web page has sent the current request, whose answer is then the last one.
    for_page: bool,
}

impl Connection {
    fn new(stream: Async<TcpStream>) -> Self {
        // Without it, the small writes of a stream would reach the client in lumps.
        _ = stream.get_ref().set_nodelay(true);
        Self {
            stream,
            received: Vec::new(),
            for_page: false,
        }
    }

    /// Answers requests until the client closes the connection, or a fault does, or the client is a
    /// web page.
    async fn run(mut self, state: &State) -> io::Result<()> {
        while !self.for_page
            && let Some(request) = self.request().await?
        {
            if let Some(answer) = pages::answer(state, &request) {
                return self.stream.write_all(&answer).await;
            }
            self.for_page = request.from_page;
            state.requests.fetch_add(1, Ordering::Relaxed);
            Timer::after(state.thinking).await;
            let Some(dialect) = Dialect::of(&request.path) else {
                let body = openai::error("no such path");
                self.json(404, "", &body).await?;
                continue;
            };
            let bad_day = dialect.error("the server is having a bad day");
            match state.next_fault(&request) {
                Some(Fault::Status(status)) => self.json(status, "", &bad_day).await?,
                Some(Fault::RateLimit(seconds)) => {
                    let body = dialect.error("too many requests");
                    let header = format!("retry-after: {seconds}\r\n");
                    self.json(429, &header, &body).await?
                }
                Some(Fault::RateLimitInBody(seconds)) => {
                    let body = dialect.error(&format!("please retry in {seconds}s"));
                    self.json(429, "", &body).await?
                }
                Some(Fault::Drop) => return Ok(()),
                Some(Fault::Stall) => return self.stall().await,
                Some(Fault::Late(pause)) => {
                    Timer::after(pause).await;
                    self.reply(dialect, &request, PACE).await?
                }
                Some(Fault::Slow(pace)) => self.reply(dialect, &request, pace).await?,
                Some(Fault::DropHalfway) => return self.half_reply(dialect, &request).await,
                Some(Fault::StallHalfway) => {
                    self.half_reply(dialect, &request).await?;
                    return self.stall().await;
                }
                None => self.reply(dialect, &request, PACE).await?,
            }
        }
        Ok(())
    }

    /// Reads the next request, or `None` if the client closes the connection first.
    async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = Request::parse(&self.received)? {
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

    async fn json(&mut self, status: u16, header: &str, body: &Value) -> io::Result<()> {
        let answer = self.answer(status, header, body);
        self.stream.write_all(answer.as_bytes()).await
    }

    fn answer(&self, status: u16, header: &str, body: &Value) -> String {
        let body = body.to_string();
        let (length, for_page) = (body.len(), self.headers_for_page());
        format!(
            "HTTP/1.1 {status} \r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{for_page}{header}\r\n{body}"
        )
    }

    fn headers_for_page(&self) -> &'static str {
        if self.for_page { FOR_PAGES } else { "" }
    }

    async fn reply(
        &mut self,
        dialect: Dialect,
        request: &Request,
        pace: Duration,
    ) -> io::Result<()> {
        if request.streams() {
            self.events(&dialect.events(request.model()), pace).await?;
            self.stream.write_all(b"0\r\n\r\n").await
        } else {
            self.json(200, "", &dialect.reply(request.model())).await
        }
    }

    async fn half_reply(&mut self, dialect: Dialect, request: &Request) -> io::Result<()> {
        if request.streams() {
            let events = dialect.events(request.model());
            self.events(&events[..events.len() / 2], PACE).await
        } else {
            let answer = self.answer(200, "", &dialect.reply(request.model()));
            let half = &answer.as_bytes()[..answer.len() / 2];
            self.stream.write_all(half).await
        }
    }

    /// Opens a stream and sends server-sent events, each as one chunk of the body.
    async fn events(&mut self, events: &[String], pace: Duration) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\n{}\
             transfer-encoding: chunked\r\n\r\n",
            self.headers_for_page()
        );
        self.stream.write_all(head.as_bytes()).await?;
        for event in events {
            Timer::after(pace).await;
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            self.stream.write_all(chunk.as_bytes()).await?;
        }
        Ok(())
    }
}

impl State {
    fn next_fault(&self, request: &Request) -> Option<Fault> {
        let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = request.caller();
        let script = scripts.entry(caller.into());
        let script = script.or_insert_with(|| Script::new((self.newcomers)(caller).into()));
        script.next_fault()
    }
}

fn words() -> impl Iterator<Item = &'static str> {
    REPLY.split_inclusive(' ')
}
