//! An agent of the daemon chats through this crate's wrapper, and through the daemon's
//! own, with servers that fail in the same ways.

#[path = "../../../examples/support/flaky_server.rs"]
mod flaky_server;

use crabllm_core::Provider;
use crabllm_provider::{ProviderRegistry, RemoteProvider};
use crabllm_retry::{Operations, Retrying};
use crabtalk_core::{
    model::{HistoryEntry, Model},
    paths::{CONFIG_FILE, DEFAULT_AGENT},
    protocol::{
        api::Server,
        message::{SendMsg, StreamMsg, stream_event::Event},
    },
};
use crabtalk_daemon::{Daemon, DaemonConfig, provider::Retrying as OriginalRetrying};
use crabtalk_runtime::NoHost;
use flaky_server::{
    Fault::{self, *},
    FlakyServer, REPLY,
};
use futures::{
    StreamExt,
    future::{join, join_all},
};
use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const MODEL: &str = "flaky";

/// How the agent is asked.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// For one step, which the model answers in one piece.
    Unary,

    /// By a message whose answer is streamed.
    Streamed,

    /// By a message whose answer comes in one piece, although the model streams it.
    Sent,
}

use Way::*;

/// Calls, the faults of the server on the way, and whether the original survives them.
const CASES: &[(Way, &[Fault], bool)] = &[
    (Unary, &[], true),
    (Unary, &[Status(503)], true),
    (Unary, &[Status(500), Status(502)], true),
    (Unary, &[Drop], true),
    (Unary, &[DropHalfway], true),
    (Unary, &[Late(Duration::from_secs(1))], true),
    (Unary, &[Stall], true),
    (Unary, &[StallHalfway], true),
    (Unary, &[RateLimitInBody(1)], false),
    (Sent, &[], true),
    (Sent, &[Status(503), Drop], false),
    (Streamed, &[], true),
    (Streamed, &[Late(Duration::from_secs(1))], true),
    (Streamed, &[Slow(Duration::from_millis(200))], true),
    (Streamed, &[Status(503)], false),
    (Streamed, &[Drop, Status(500)], false),
    (Streamed, &[Stall], false),
    (Streamed, &[RateLimitInBody(1)], false),
];

/// The end of one call.
#[derive(Debug)]
struct Outcome {
    ok: bool,
    requests: usize,
}

/// Starts a daemon with a server of its own, and asks its agent once.
async fn ask<P: Provider + 'static>(
    way: Way,
    faults: &[Fault],
    sender: String,
    wrap: impl Fn(ProviderRegistry<RemoteProvider>) -> P + Send + Sync + 'static,
) -> Outcome {
    let server = FlakyServer::start([(MODEL, faults)]).unwrap();
    let directory = home().join(&sender);
    configure(&directory, &server.base_url());
    let build = move |config: &DaemonConfig| {
        let providers: HashMap<_, _> = config.provider.clone().into_iter().collect();
        let registry = ProviderRegistry::from_provider_configs(&providers, &HashMap::new(), |p| p)?;
        Ok(Model::new(wrap(registry)))
    };
    let handle = Daemon::start_with(&directory, build, |_| NoHost);
    let handle = handle.await.unwrap();
    give_a_title(&handle.daemon, &sender).await;
    let answer = match way {
        Unary => step(&handle.daemon).await,
        Streamed => stream(&handle.daemon, sender).await,
        Sent => send(&handle.daemon, sender).await,
    };
    let requests = server.requests();
    handle.shutdown().await.unwrap();
    Outcome {
        ok: answer == REPLY,
        requests,
    }
}

fn configure(directory: &Path, base_url: &str) {
    fs::create_dir_all(directory).unwrap();
    let config = format!(
        "[provider.flaky]\n\
         base_url = \"{base_url}\"\n\
         api_key = \"none\"\n\
         models = [\"{MODEL}\"]\n\
         [system.crab]\n\
         model = \"{MODEL}\"\n"
    );
    fs::write(directory.join(CONFIG_FILE), config).unwrap();
}

/// Names the conversation, for which the daemon would ask the model.
async fn give_a_title<P: Provider + 'static>(daemon: &Daemon<P, NoHost>, sender: &str) {
    let runtime = daemon.runtime.read().await.clone();
    let id = runtime.get_or_create_conversation(DEFAULT_AGENT, sender);
    let conversation = runtime.conversation(id.await.unwrap()).await.unwrap();
    conversation.lock().await.title = "a test".into();
}

async fn step<P: Provider + 'static>(daemon: &Daemon<P, NoHost>) -> String {
    let runtime = daemon.runtime.read().await.clone();
    let agent = runtime.get_agent(DEFAULT_AGENT).unwrap();
    let mut history = vec![HistoryEntry::user("Hello")];
    let step = agent.step(&mut history, None).await;
    step.map_or_else(
        |error| error.to_string(),
        |step| step.message.content_str().unwrap_or_default().into(),
    )
}

async fn send<P: Provider + 'static>(daemon: &Daemon<P, NoHost>, sender: String) -> String {
    let message = SendMsg {
        agent: DEFAULT_AGENT.into(),
        content: "Hello".into(),
        sender: Some(sender),
        ..SendMsg::default()
    };
    daemon.send(message).await.unwrap().content
}

async fn stream<P: Provider + 'static>(daemon: &Daemon<P, NoHost>, sender: String) -> String {
    let message = StreamMsg {
        agent: DEFAULT_AGENT.into(),
        content: "Hello".into(),
        sender: Some(sender),
        ..StreamMsg::default()
    };
    let events = daemon.stream(message).map(|event| event.unwrap().event);
    let words = events.filter_map(async |event| match event {
        Some(Event::Chunk(chunk)) => Some(chunk.content),
        _ => None,
    });
    words.collect().await
}

/// A directory in place of the user's, where the daemon keeps its conversations.
fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("home")
}

/// Runs a test in a process with a home directory of its own.
fn at_home(test: &str, run: impl Future<Output = ()>) {
    let home = home();
    if env::home_dir().as_ref() == Some(&home) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(run);
    }
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    let mut itself = Command::new(env::current_exe().unwrap());
    let status = itself
        .args(["--exact", test, "--nocapture"])
        .env("HOME", home);
    assert!(status.status().unwrap().success());
}

#[test]
fn the_daemon_answers_with_either_wrapper() {
    at_home("the_daemon_answers_with_either_wrapper", async {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
        let cases = CASES.iter().enumerate();
        let both = cases.map(async |(n, &(way, faults, original_survives))| {
            let ours = ask(way, faults, format!("ours-{n}"), |registry| {
                Retrying::new(registry).also_retry(Operations::STREAMS)
            });
            let original = ask(way, faults, format!("original-{n}"), OriginalRetrying::new);
            let (ours, original) = join(ours, original).await;
            let about = format!("{way:?} {faults:?}: {ours:?}, {original:?}");
            assert!(ours.ok, "{about}");
            assert_eq!(original.ok, original_survives, "{about}");
            let no_more = ours.requests <= original.requests;
            assert!(!original.ok || no_more, "{about}");
        });
        join_all(both).await;
    });
}
