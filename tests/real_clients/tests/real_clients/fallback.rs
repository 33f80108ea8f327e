//! Two clients of `crabllm-provider` and two servers, behind a fallback.

use crate::{
    Answer, Fault, FlakyServer, MODEL, NOW, REPLY, TIMEOUT, Wrapper,
    methods::{newest, parsed},
    patient,
};
use async_compat::CompatExt;
use crabllm_retry::{Fallback, crabllm_core_0_0_25::Provider};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The base URL of a server that has no quota left, and the count of its requests.
fn exhausted() -> (String, Arc<AtomicUsize>) {
    const BODY: &str = r#"{"error": {"code": "insufficient_quota", "message": "no credit"}}"#;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    thread::spawn(move || {
        // Closing a connection whose request is not read to its end would reset it.
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            stream.by_ref().lines().any(|line| line.unwrap().is_empty());
            count.fetch_add(1, Ordering::Relaxed);
            let head = format!("HTTP/1.1 429 \r\ncontent-length: {}\r\n", BODY.len());
            write!(stream.get_mut(), "{head}connection: close\r\n\r\n{BODY}").unwrap();
            open.push(stream);
        }
    });
    (url, requests)
}

/// Makes a call and opens a stream. The second server knows the model by another name.
fn answers(first: String, second: &FlakyServer) -> [Answer; 2] {
    let client = |url| {
        let policy = patient().max_retries(1).timeout(TIMEOUT / 2);
        let attempts = Arc::default();
        newest("openai", url, Wrapper { policy, attempts })
    };
    let [first, second] = [first, second.base_url()].map(client);
    let fallback = Fallback::new(first, second).model(MODEL, "other");
    let calls = async {
        let answer = fallback.chat_completion(&parsed(false)).await;
        let stream = fallback.chat_completion_stream(&parsed(true)).await;
        [Answer::whole(answer), Answer::items(stream).await]
    };
    smol::block_on(calls.compat())
}

#[test]
fn the_second_server_answers_what_the_first_one_may_not() {
    for (fault, requests) in [
        (Some(Fault::Stall), [4, 2]),
        (Some(Fault::Status(503)), [4, 2]),
        (None, [2, 2]),
        (Some(Fault::Status(400)), [2, 0]),
    ] {
        let (exhausted, refused) = exhausted();
        let server = |fault: Fault| FlakyServer::start(NOW, [(MODEL, [fault; 4])]).unwrap();
        let [first, second] = [fault.unwrap_or(Fault::Drop), Fault::Status(404)].map(server);
        let url = fault.map_or(exhausted, |_| first.base_url());
        for answer in answers(url, &second) {
            match requests[1] {
                0 => assert!(answer.error.is_some_and(|error| error.contains("HTTP 400"))),
                _ => assert_eq!((&*answer.text, answer.error), (REPLY, None)),
            }
        }
        let first = first.requests() + refused.load(Ordering::Relaxed);
        assert_eq!([first, second.requests()], requests, "{fault:?}");
    }
}
