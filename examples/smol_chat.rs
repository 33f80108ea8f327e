//! Chats with an OpenAI-compatible server on smol, and draws what became of each call.
//!
//! Without `OPENAI_BASE_URL` the server is a flaky one in this process:
//!
//! ```sh
//! cargo run --example smol_chat
//! cargo run --example smol_chat -- --fallback
//! OPENAI_BASE_URL=http://localhost:11434/v1 cargo run --example smol_chat -- "What is patience?"
//! OPENAI_BASE_URL=https://api.openai.com/v1 cargo run --example smol_chat --features https
//! ```

#![forbid(unsafe_code)]

#[path = "smol_chat/args.rs"]
mod args;
#[path = "support/client.rs"]
mod client;
#[path = "support/console.rs"]
mod console;
#[path = "support/flaky_server.rs"]
mod flaky_server;
#[path = "smol_chat/output.rs"]
mod output;
#[path = "smol_chat/picture.rs"]
mod picture;
#[path = "support/pool.rs"]
mod pool;
#[path = "support/timeline.rs"]
mod timeline;
#[path = "support/wire.rs"]
mod wire;

use args::{Args, variable};
use clap::Parser;
use client::Client;
use console::{eprint, print};
use crabllm_retry::{
    Config, Fallback, Operations, RateLimiter, Retrying, crabllm_core_0_0_19::Error, hints,
};
use flaky_server::{Fault, FlakyServer, Setup};
use futures::{StreamExt, stream};
use output::one_line;
use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    ops::Range,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
use timeline::{CLOSED, Call, Kind, OPENED, Recorder, SECOND, State, Step};

/// How long the flaky server thinks before it answers.
const THINKING: Duration = millis(150);

/// The limit for an attempt to the flaky server, and for the silence in its streams: short, so that
/// the picture is.
const TIMEOUT: Duration = millis(1000);

/// The faults of the calls to the flaky server, in turn, and whether they stream by default.
const SCRIPTS: [(bool, &[Fault]); 8] = [
    (false, &[]),
    (false, &[Fault::Status(503)]),
    (false, &[Fault::RateLimit(1)]),
    (false, &[Fault::Drop, Fault::Stall]),
    (true, &[Fault::Status(503), Fault::AnnouncedErrorEvent]),
    (true, &[Fault::ErrorEvent, Fault::DropOpened]),
    (true, &[Fault::StallOpened, Fault::Empty]),
    (true, &[Fault::Late(millis(1500)), Fault::Slow(millis(200))]),
];

/// The calls to which the flaky server is silent if there is a fallback.
const SILENT: Range<usize> = 4..12;

fn main() -> ExitCode {
    let chat = match Chat::new(Args::parse()) {
        Ok(chat) => chat,
        Err(error) => {
            eprint(&format!("error: {}", one_line(&error.to_string())));
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let records = smol::block_on(chat.run(start));
    let failed = chat.report(records, start.elapsed());
    ExitCode::from(u8::from(failed > 0))
}

/// The calls to make, and to whom.
struct Chat {
    args: Args,
    calls: usize,
    provider: Retrying<Client>,
    server: Option<FlakyServer>,
    fallback: Option<ToSecond>,
    model: String,
}

/// A second server, and the provider that falls back to it.
struct ToSecond {
    server: FlakyServer,
    provider: Fallback<Retrying<Client>, Retrying<Client>>,
}

/// The history of a call, and its result.
type Record = (Call, Result<String, Error>);

impl Chat {
    fn new(args: Args) -> Result<Self, Error> {
        let url = variable("OPENAI_BASE_URL");
        let default_calls = match url {
            Some(_) => 1,
            None if args.fallback => 2 * SILENT.end,
            None => SCRIPTS.len(),
        };
        let calls = args.calls.unwrap_or(default_calls);
        let (url, key, server) = match url {
            Some(_) if args.fallback || args.server_limit.is_some() => {
                let option = match args.fallback {
                    true => "--fallback",
                    false => "--server-limit",
                };
                let why = "is for the flaky server, not for the one at OPENAI_BASE_URL";
                return Err(Error::Config(format!("{option} {why}")));
            }
            Some(url) => (url, variable("OPENAI_API_KEY"), None),
            None => {
                let server = flaky_server(&args).map_err(no_server)?;
                (server.base_url(), None, Some(server))
            }
        };
        if url.starts_with("https:") && !cfg!(feature = "https") {
            let why = "a server that speaks https needs `--features https`";
            return Err(Error::Config(why.into()));
        }
        let client = Client::new(&url, key.as_deref())?;
        let provider = wrapped(client, &args, server.is_some())?;
        let fallback = args.fallback.then(|| ToSecond::new(&provider, &args));
        Ok(Self {
            provider: provider.observe(Recorder::observe),
            model: args.model(),
            args,
            calls,
            server,
            fallback: fallback.transpose()?,
        })
    }

    /// Makes all calls.
    async fn run(&self, epoch: Instant) -> Vec<Record> {
        let mut records: Vec<_> = stream::iter(0..self.calls)
            .map(|index| self.call(index, epoch))
            .buffer_unordered(self.args.concurrency)
            .collect()
            .await;
        records.sort_by_key(|(call, _)| call.start);
        records
    }

    async fn call(&self, index: usize, epoch: Instant) -> Record {
        let streams = self.args.stream || (self.is_scripted() && script(index).0);
        let kind = if streams { "stream" } else { "chat" };
        // The name of the call's script at the flaky server.
        let user = self.server.is_some().then(|| index.to_string());
        let request = wire::question(&self.model, &self.args.prompt, user);
        let recorder = Recorder::new(epoch);
        let reply = match &self.fallback {
            Some(ToSecond { provider, .. }) => {
                (recorder.call(provider, &request, streams, |_| {})).await
            }
            None => (recorder.call(&self.provider, &request, streams, |_| {})).await,
        };
        let state = match reply {
            Ok(_) => State::Succeeded,
            Err(_) => State::Failed,
        };
        let call = recorder.recorded(format!("{} {kind}", index + 1), state);
        (call, reply)
    }

    /// Whether the calls meet the faults of [`SCRIPTS`].
    fn is_scripted(&self) -> bool {
        self.server.is_some() && self.args.server_limit.is_none()
    }

    /// Prints what became of the calls, and returns how many failed.
    fn report(&self, records: Vec<Record>, elapsed: Duration) -> usize {
        let (calls, replies): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        if !self.args.quiet {
            self.print_timeline(&calls);
            let mut good = (1..).zip(&replies).filter(|(_, reply)| reply.is_ok());
            if let Some((number, Ok(reply))) = good.next() {
                print(&format!("reply {number}: {}\n\n", one_line(reply)));
            }
        }
        let mut errors = BTreeMap::<String, usize>::new();
        for error in replies.iter().filter_map(|reply| reply.as_ref().err()) {
            *errors.entry(one_line(&error.to_string())).or_default() += 1;
        }
        for (error, count) in &errors {
            match self.calls {
                1 => eprint(&format!("error: {error}")),
                all => eprint(&format!("error: {count} of {all} calls failed: {error}")),
            }
        }
        let failed: usize = errors.values().sum();
        let retries: usize = calls.iter().map(Call::retries).sum();
        let refused = match self.args.rate_limit || self.args.server_limit.is_some() {
            true => format!(" refused_after_1s={:.3}", refused_share(&calls)),
            false => String::new(),
        };
        let mut attempts = self.provider.get_ref().sent();
        let mut switches = String::new();
        if let Some(ToSecond { provider, .. }) = &self.fallback {
            attempts += provider.second().get_ref().sent();
            let steps: Vec<_> = calls.iter().flat_map(|call| &call.steps).collect();
            let is = |step: &&&Step, mark| step.kind == Kind::Switch(mark);
            let count = |mark| steps.iter().filter(|step| is(step, mark)).count();
            let [second, opened, closed] = [SECOND, OPENED, CLOSED].map(count);
            switches = format!(" second={second} opened={opened} closed={closed}");
        }
        print(&format!(
            "calls={} ok={} failed={failed} attempts={attempts} retries={retries}{switches}{refused} \
             elapsed_ms={}\n",
            self.calls,
            self.calls - failed,
            elapsed.as_millis(),
        ));
        failed
    }

    fn print_timeline(&self, calls: &[Call]) {
        let server = match &self.server {
            Some(server) => format!("a flaky server, which got {} requests", server.requests()),
            None => one_line(self.provider.get_ref().authority()),
        };
        let second = match &self.fallback {
            Some(it) => format!(", and a second one, which got {}", it.server.requests()),
            None => String::new(),
        };
        let plural = if self.calls == 1 { "" } else { "s" };
        let picture = picture::draw(calls, output::columns());
        print(&format!(
            "{} call{plural} to {server}{second}\n\n{picture}\n",
            self.calls
        ));
    }
}

/// The client with retries, as the arguments say.
fn wrapped(client: Client, args: &Args, is_flaky: bool) -> Result<Retrying<Client>, Error> {
    let mut provider = Retrying::new(client).retry_if(hints::is_transient);
    if is_flaky {
        provider = provider.also_retry(Operations::STREAMS);
    }
    if is_flaky && args.server_limit.is_none() {
        provider = provider.timeout(TIMEOUT).stream_idle(TIMEOUT);
    }
    if args.fallback {
        provider = provider.max_retries(0);
    }
    if let Some(file) = &args.config {
        provider = provider.config(read_config(file)?);
    }
    if let Some(retries) = args.max_retries {
        provider = provider.max_retries(retries);
    }
    if let Some(timeout) = args.timeout {
        provider = provider.timeout(timeout);
    }
    if let Some(idle) = args.stream_idle {
        provider = provider.stream_idle(idle);
    }
    if args.rate_limit {
        provider = provider.rate_limiter(RateLimiter::adaptive());
    }
    if args.retry_streams {
        provider = provider.also_retry(Operations::STREAMS);
    }
    Ok(provider)
}

fn no_server(error: io::Error) -> Error {
    Error::Config(format!("cannot start a server: {error}"))
}

impl ToSecond {
    /// Starts a second server.
    fn new(first: &Retrying<Client>, args: &Args) -> Result<Self, Error> {
        let server = FlakyServer::start_with(Setup {
            thinking: THINKING,
            ..Setup::new(|_| Vec::new())
        });
        let server = server.map_err(no_server)?;
        let second = wrapped(Client::new(&server.base_url(), None)?, args, true)?;
        let first = first.clone().observe(Recorder::observe);
        // Less than the defaults, so that the picture is short.
        let provider = Fallback::new(first, second.observe(Recorder::observe_second))
            .breaker(3, millis(250))
            .observe(Recorder::observe);
        Ok(Self { server, provider })
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn read_config(file: &Path) -> Result<Config, Error> {
    let invalid = |error: &dyn Display| Error::Config(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| invalid(&error))?;
    toml::from_str(&text).map_err(|error| invalid(&error))
}

/// Starts a server that knows each call by its index.
fn flaky_server(args: &Args) -> io::Result<FlakyServer> {
    let (limit, fallback) = (args.server_limit, args.fallback);
    let faults = move |call: &str| {
        let index = call.parse().unwrap_or_default();
        match limit {
            Some(_) => Vec::new(),
            None if !fallback => script(index).1.to_vec(),
            None if SILENT.contains(&index) => vec![Fault::Stall; 100],
            None => Vec::new(),
        }
    };
    FlakyServer::start_with(Setup {
        thinking: THINKING,
        limit,
        ..Setup::new(faults)
    })
}

/// The share of 429 in the answers after the first second.
fn refused_share(calls: &[Call]) -> f64 {
    let steps = calls.iter().flat_map(|call| &call.steps);
    let late = steps.filter(|step| step.kind.is_attempt() && step.until > millis(1000));
    let (refused, others): (Vec<_>, Vec<_>) =
        late.partition(|step| step.kind == Kind::Failed("429".into()));
    refused.len() as f64 / (refused.len() + others.len()).max(1) as f64
}

fn script(index: usize) -> (bool, &'static [Fault]) {
    SCRIPTS[index % SCRIPTS.len()]
}
