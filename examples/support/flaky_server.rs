//! A chat server on loopback that fails on purpose. It speaks OpenAI's dialect and Anthropic's.
//!
//! Every caller has a script: its first request meets the first [`Fault`] of the script, its second
//! request the second, and after the end of the script all are answered well. Callers without a
//! script always are. A caller is known by the `user` of its requests, or else by their `model`.
//!
//! It can have a limit on the rate of all requests.
//!
//! It can also serve the files of a web page that calls it.

#![allow(dead_code, reason = "each program has its own faults")]

#[path = "flaky_server/dialect.rs"]
mod dialect;
#[path = "flaky_server/fault.rs"]
mod fault;
#[path = "flaky_server/limit.rs"]
mod limit;
#[path = "flaky_server/request.rs"]
mod request;

use dialect::Dialect;
pub use fault::Fault;
use fault::{Answer, Ending};
use limit::Bucket;
pub use limit::Limit;
use request::Request;
use smol::{
    Async, LocalExecutor, Timer, channel, future,
    io::{self, AsyncWriteExt, BufReader},
};
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The reply of the model to every question; a stream sends it word by word.
pub const REPLY: &str = "Patience is a virtue, as long as it has a timeout.";

/// The pause after a failure to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The script of each caller, by its name.
type Scripts = Box<dyn Fn(&str) -> Vec<Fault> + Send>;

/// The settings of a server.
pub struct Setup {
    /// How long it thinks before it answers a request, unless that exceeds the limit.
    pub thinking: Duration,
    pub scripts: Scripts,
    /// The limit on the rate of all requests.
    pub limit: Option<Limit>,
    /// The files of a page by path, each with its content type.
    pub files: HashMap<&'static str, (&'static str, Vec<u8>)>,
    /// Where it listens; zero is any free port.
    pub port: u16,
}

impl Setup {
    /// The settings of a server that answers at once, on a free port.
    pub fn new(scripts: impl Fn(&str) -> Vec<Fault> + Send + 'static) -> Self {
        Self {
            thinking: Duration::ZERO,
            scripts: Box::new(scripts),
            limit: None,
            files: HashMap::new(),
            port: 0,
        }
    }
}

/// A running server; dropping it stops it and closes its connections.
pub struct FlakyServer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stop: channel::Sender<Infallible>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FlakyServer {
    /// Starts a server that answers at once, on a free port, with the scripts of some callers.
    pub fn start<const N: usize>(scripts: [(&'static str, &[Fault]); N]) -> io::Result<Self> {
        let scripts = HashMap::from(scripts.map(|(caller, script)| (caller, script.to_vec())));
        let script = move |caller: &str| scripts.get(caller).cloned().unwrap_or_default();
        Self::start_with(Setup::new(script))
    }

    /// Starts a server on a thread of its own, so that it serves the clients of any runtime.
    pub fn start_with(setup: Setup) -> io::Result<Self> {
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, setup.port))?;
        let address = listener.get_ref().local_addr()?;
        let requests = Arc::<AtomicUsize>::default();
        let counter = requests.clone();
        let (stop, stopped) = channel::bounded(1);
        let thread = thread::Builder::new().name("flaky-server".into());
        let thread = thread.spawn(move || {
            let state = State {
                bucket: (setup.limit).map(|it| RefCell::new(Bucket::new(it, Instant::now()))),
                setup,
                scripts: RefCell::default(),
                requests: counter,
            };
            let executor = LocalExecutor::new();
            let stopped = async { _ = stopped.recv().await };
            let serving = future::or(stopped, serve(&listener, &executor, &state));
            smol::block_on(executor.run(serving));
        })?;
        Ok(Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        })
    }

    /// The base URL for a client, such as `http://127.0.0.1:40123/v1`.
    pub fn base_url(&self) -> String {
        format!("{}v1", self.page())
    }

    /// Where its page is, such as `http://127.0.0.1:40123/`.
    pub fn page(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many requests have arrived in full, not counting those for files.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
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

async fn serve<'s>(listener: &Async<TcpListener>, executor: &LocalExecutor<'s>, state: &'s State) {
    loop {
        match listener.accept().await {
            // An error of a connection is a client that hung up: nobody is left to tell.
            Ok((stream, _)) => executor.spawn(state.converse(stream)).detach(),
            // Probably out of file descriptors: accept again once some are free.
            Err(_) => _ = Timer::after(ACCEPT_PAUSE).await,
        }
    }
}

/// The part of a server that all its connections share.
struct State {
    setup: Setup,
    scripts: RefCell<HashMap<String, Script>>,
    bucket: Option<RefCell<Bucket>>,
    requests: Arc<AtomicUsize>,
}

impl State {
    /// Answers requests until the client or an answer ends the connection.
    async fn converse(&self, stream: Async<TcpStream>) -> io::Result<()> {
        // Without it, the small writes of a stream would reach the client in lumps.
        stream.get_ref().set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream).await? {
            let Answer { parts, ending } = self.answer(&request).await;
            for (pause, part) in parts {
                Timer::after(pause).await;
                stream.get_mut().write_all(&part).await?;
            }
            match ending {
                Ending::Keep => {}
                Ending::Close => break,
                Ending::Stall => _ = io::copy(&mut stream, io::sink()).await?,
            }
        }
        Ok(())
    }

    async fn answer(&self, request: &Request) -> Answer {
        if request.is_get {
            return self.file(request);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(dialect) = Dialect::of(&request.path) else {
            return not_found(request);
        };
        // A gateway in front of the model refuses without thinking.
        if let Some(bucket) = &self.bucket
            && !bucket.borrow_mut().take(Instant::now())
        {
            return Answer::new(request, dialect, Some(Fault::Throttle));
        }
        Timer::after(self.setup.thinking).await;
        let mut scripts = self.scripts.borrow_mut();
        let script = (scripts.entry(request.caller().into())).or_insert_with_key(|caller| Script {
            faults: (self.setup.scripts)(caller).into(),
            limited_until: None,
        });
        Answer::new(request, dialect, script.next_fault(Instant::now()))
    }

    /// A file of the page, or at `/requests` the number of requests so far.
    fn file(&self, request: &Request) -> Answer {
        let requests = self.requests.load(Ordering::Relaxed).to_string();
        let (content_type, content) = match self.setup.files.get(&*request.path) {
            Some((content_type, content)) => (*content_type, &content[..]),
            None if request.path == "/requests" => ("text/plain", requests.as_bytes()),
            None => return not_found(request),
        };
        let header = "cache-control: no-store\r\n";
        Answer::whole(request, 200, content_type, header, content)
    }
}

fn not_found(request: &Request) -> Answer {
    Answer::whole(request, 404, "text/plain", "", b"no such path")
}

/// The faults that are left for the requests of a caller.
struct Script {
    faults: VecDeque<Fault>,

    /// The end of the rate limit that comes first, once it has been met.
    limited_until: Option<Instant>,
}

impl Script {
    fn next_fault(&mut self, now: Instant) -> Option<Fault> {
        let mut fault = *self.faults.front()?;
        if let Fault::RateLimit(seconds) | Fault::RateLimitInBody(seconds) = &mut fault {
            let wait = Duration::from_secs((*seconds).into());
            let end = *self.limited_until.get_or_insert(now + wait);
            if now < end {
                *seconds = (end - now).as_secs_f64().ceil() as u32;
                return Some(fault);
            }
            self.limited_until = None;
            self.faults.pop_front();
            return self.next_fault(now);
        }
        self.faults.pop_front()
    }
}
