//! Chats with an OpenAI-compatible server on smol, and draws what became of each call.
//!
//! Without `OPENAI_BASE_URL` the server is a flaky one in this process:
//!
//! ```sh
//! cargo run --example smol_chat
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
use crabllm_retry::{Config, Operations, RateLimiter, Retrying, crabllm_core_0_0_19::Error, hints};
use flaky_server::{Fault, FlakyServer, Limit, Setup};
use futures::{StreamExt, stream};
use output::one_line;
use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
use timeline::{Call, Kind, Recorder, State};

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
    model: String,
}

/// The history of a call, and its result.
type Record = (Call, Result<String, Error>);

impl Chat {
    fn new(args: Args) -> Result<Self, Error> {
        let url = variable("OPENAI_BASE_URL");
        let default_calls = if url.is_some() { 1 } else { SCRIPTS.len() };
        let calls = args.calls.unwrap_or(default_calls);
        let (url, key, server) = match url {
            Some(_) if args.server_limit.is_some() => {
                let why =
                    "--server-limit is for the flaky server, not for the one at OPENAI_BASE_URL";
                return Err(Error::Config(why.into()));
            }
            Some(url) => (url, variable("OPENAI_API_KEY"), None),
            None => {
                let server = flaky_server(args.server_limit)
                    .map_err(|error| Error::Config(format!("cannot start a server: {error}")))?;
                (server.base_url(), None, Some(server))
            }
        };
        if url.starts_with("https:") && !cfg!(feature = "https") {
            let why = "a server that speaks https needs `--features https`";
            return Err(Error::Config(why.into()));
        }
        let client = Client::new(&url, key.as_deref())?;
        let mut provider = Retrying::new(client).retry_if(hints::is_transient);
        if server.is_some() {
            provider = provider.also_retry(Operations::STREAMS);
        }
        if server.is_some() && args.server_limit.is_none() {
            provider = provider.timeout(TIMEOUT).stream_idle(TIMEOUT);
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
        Ok(Self {
            provider,
            model: args.model(),
            args,
            calls,
            server,
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
        let reply = recorder.call(&self.provider, &request, streams, |_| {});
        let reply = reply.await;
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
        print(&format!(
            "calls={} ok={} failed={failed} attempts={} retries={retries}{refused} elapsed_ms={}\n",
            self.calls,
            self.calls - failed,
            self.provider.get_ref().sent(),
            elapsed.as_millis(),
        ));
        failed
    }

    fn print_timeline(&self, calls: &[Call]) {
        let server = match &self.server {
            Some(server) => format!("a flaky server, which got {} requests", server.requests()),
            None => one_line(self.provider.get_ref().authority()),
        };
        let plural = if self.calls == 1 { "" } else { "s" };
        let picture = picture::draw(calls, output::columns());
        print(&format!(
            "{} call{plural} to {server}\n\n{picture}\n",
            self.calls
        ));
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
fn flaky_server(limit: Option<Limit>) -> io::Result<FlakyServer> {
    let faults = move |call: &str| match limit {
        Some(_) => Vec::new(),
        None => script(call.parse().unwrap_or_default()).1.to_vec(),
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
