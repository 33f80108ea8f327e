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
use flaky_server::{Fault, FlakyServer, Limit, Setup};
use futures::{StreamExt, stream};
use output::one_line;
use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
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
    let (calls, replies) = smol::block_on(chat.run(start));
    let failed = chat.report(&calls, &replies, start.elapsed());
    ExitCode::from(u8::from(failed > 0))
}

/// The calls to make, and to whom.
struct Chat {
    args: Args,
    calls: usize,
    provider: Retrying<Client>,
    server: Option<FlakyServer>,
    fallback: Option<WithSecond>,
    model: String,
}

/// A second server, and the provider that falls back to it.
type WithSecond = (FlakyServer, Fallback<Retrying<Client>, Retrying<Client>>);

/// The reply of a call.
type Reply = Result<String, Error>;

impl Chat {
    fn new(args: Args) -> Result<Self, Error> {
        let url = variable("OPENAI_BASE_URL");
        let limit = args.server_limit;
        let options = [
            ("--fallback", args.fallback),
            ("--server-limit", limit.is_some()),
        ];
        if url.is_some()
            && let Some((option, _)) = options.into_iter().find(|(_, is_set)| *is_set)
        {
            let why = "is for the flaky server, not for the one at OPENAI_BASE_URL";
            return Err(Error::Config(format!("{option} {why}")));
        }
        let (calls, url, key, server) = match url {
            Some(url) => (1, url, variable("OPENAI_API_KEY"), None),
            None => {
                let (calls, faults): (_, fn(usize) -> Vec<Fault>) = match limit {
                    None if args.fallback => (2 * SILENT.end, silence),
                    None => (SCRIPTS.len(), |index| script(index).1.to_vec()),
                    Some(_) => (SCRIPTS.len(), |_| Vec::new()),
                };
                let server = serve(limit, faults)?;
                (calls, server.base_url(), None, Some(server))
            }
        };
        if url.starts_with("https:") && !cfg!(feature = "https") {
            let why = "a server that speaks https needs `--features https`";
            return Err(Error::Config(why.into()));
        }
        let client = Client::new(&url, key.as_deref())?;
        let provider = wrapped(client, &args, server.is_some())?.observe(Recorder::observe);
        let fallback = match args.fallback {
            true => Some(with_second(provider.clone(), &args)?),
            false => None,
        };
        Ok(Self {
            provider,
            model: args.model(),
            calls: args.calls.unwrap_or(calls),
            args,
            server,
            fallback,
        })
    }

    /// Makes all calls.
    async fn run(&self, epoch: Instant) -> (Vec<Call>, Vec<Reply>) {
        let mut records: Vec<_> = stream::iter(0..self.calls)
            .map(|index| self.call(index, epoch))
            .buffer_unordered(self.args.concurrency)
            .collect()
            .await;
        records.sort_by_key(|(call, _)| call.start);
        records.into_iter().unzip()
    }

    async fn call(&self, index: usize, epoch: Instant) -> (Call, Reply) {
        let is_scripted = self.server.is_some() && self.args.server_limit.is_none();
        let streams = self.args.stream || (is_scripted && script(index).0);
        let kind = if streams { "stream" } else { "chat" };
        // The name of the call's script at the flaky server.
        let user = self.server.is_some().then(|| index.to_string());
        let request = wire::question(&self.model, &self.args.prompt, user);
        let recorder = Recorder::new(epoch);
        let reply = match &self.fallback {
            Some((_, provider)) => recorder.call(provider, &request, streams, |_| {}).await,
            None => (recorder.call(&self.provider, &request, streams, |_| {})).await,
        };
        let state = match reply {
            Ok(_) => State::Succeeded,
            Err(_) => State::Failed,
        };
        let call = recorder.recorded(format!("{} {kind}", index + 1), state);
        (call, reply)
    }

    /// Prints what became of the calls, and returns how many failed.
    fn report(&self, calls: &[Call], replies: &[Reply], elapsed: Duration) -> usize {
        if !self.args.quiet {
            let picture = picture::draw(calls, output::columns());
            print(&format!("{}\n\n{picture}\n", self.title()));
            let mut good = (1..).zip(replies).filter(|(_, reply)| reply.is_ok());
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
        let ok = self.calls - failed;
        let mut attempts = self.provider.get_ref().sent();
        let steps: Vec<_> = calls.iter().flat_map(|call| &call.steps).collect();
        let count = |kind| steps.iter().filter(|step| step.kind == kind).count();
        let retries = count(Kind::Backoff) + count(Kind::RetryAfter);
        let mut more = String::new();
        if let Some((_, provider)) = &self.fallback {
            attempts += provider.second().get_ref().sent();
            let marks = [SECOND, OPENED, CLOSED];
            let [second, opened, closed] = marks.map(|mark| count(Kind::Switch(mark)));
            more = format!(" second={second} opened={opened} closed={closed}");
        }
        if self.args.rate_limit || self.args.server_limit.is_some() {
            more += &format!(" refused_after_1s={:.3}", refused_share(&steps));
        }
        print(&format!(
            "calls={} ok={ok} failed={failed} attempts={attempts} retries={retries}{more} \
             elapsed_ms={}\n",
            self.calls,
            elapsed.as_millis(),
        ));
        failed
    }

    fn title(&self) -> String {
        let plural = if self.calls == 1 { "" } else { "s" };
        let server = match &self.server {
            Some(server) => format!("a flaky server, which got {} requests", server.requests()),
            None => one_line(self.provider.get_ref().authority()),
        };
        let second = match &self.fallback {
            Some((it, _)) => format!(", and a second one, which got {}", it.requests()),
            None => String::new(),
        };
        format!("{} call{plural} to {server}{second}", self.calls)
    }
}

/// The client with retries, as the arguments say.
fn wrapped(client: Client, args: &Args, is_flaky: bool) -> Result<Retrying<Client>, Error> {
    let mut provider = Retrying::new(client).retry_if(hints::is_transient);
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
    if is_flaky || args.retry_streams {
        provider = provider.also_retry(Operations::STREAMS);
    }
    Ok(provider)
}

/// Starts a second server.
fn with_second(first: Retrying<Client>, args: &Args) -> Result<WithSecond, Error> {
    let server = serve(None, |_| Vec::new())?;
    let second = wrapped(Client::new(&server.base_url(), None)?, args, true)?;
    let second = second.observe(Recorder::observe_second);
    // Less than the defaults, so that the picture is short.
    let provider = Fallback::new(first, second).breaker(3, millis(250));
    Ok((server, provider.observe(Recorder::observe)))
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
fn serve(limit: Option<Limit>, faults: fn(usize) -> Vec<Fault>) -> Result<FlakyServer, Error> {
    let server = FlakyServer::start_with(Setup {
        thinking: THINKING,
        limit,
        ..Setup::new(move |call| faults(call.parse().unwrap_or_default()))
    });
    server.map_err(|error| Error::Config(format!("cannot start a server: {error}")))
}

fn script(index: usize) -> (bool, &'static [Fault]) {
    SCRIPTS[index % SCRIPTS.len()]
}

fn silence(index: usize) -> Vec<Fault> {
    match SILENT.contains(&index) {
        true => vec![Fault::Stall; 100],
        false => Vec::new(),
    }
}

/// The share of 429 in the answers after the first second.
fn refused_share(steps: &[&Step]) -> f64 {
    let is_late = |step: &&&Step| step.kind.is_attempt() && step.until > millis(1000);
    let late = steps.iter().filter(is_late);
    let refused = Kind::Failed("429".into());
    let refused = late.clone().filter(|step| step.kind == refused).count();
    refused as f64 / late.count().max(1) as f64
}
