//! Two clients of `crabllm-provider` and two servers, behind a fallback.

use crate::{
    Answer, Fault, FlakyServer, MODEL, REPLY, TIMEOUT, Wrapper,
    methods::{newest, parsed},
    patient,
};
use async_compat::CompatExt;
use crabllm_retry::{Fallback, crabllm_core_0_0_25::Provider};
use std::sync::Arc;

/// Makes a call and opens a stream. The second server knows the model by another name.
async fn answers(servers: [&FlakyServer; 2]) -> [Answer; 2] {
    let [first, second] = servers.map(|server| {
        let policy = patient().max_retries(1).timeout(TIMEOUT / 2);
        let attempts = Arc::default();
        newest("openai", server.base_url(), Wrapper { policy, attempts })
    });
    let fallback = Fallback::new(first, second).model(MODEL, "other");
    let answer = fallback.chat_completion(&parsed(false)).await;
    let stream = fallback.chat_completion_stream(&parsed(true)).await;
    [Answer::whole(answer), Answer::items(stream).await]
}

#[test]
fn the_second_server_answers_what_the_first_one_may_not() {
    for (fault, requests) in [
        (Fault::Stall, [4, 2]),
        (Fault::Status(503), [4, 2]),
        (Fault::QuotaUsedUp, [2, 2]),
        (Fault::Status(400), [2, 0]),
    ] {
        let server = |fault: Fault| FlakyServer::start([(MODEL, &[fault; 4])]).unwrap();
        let [first, second] = [fault, Fault::Status(404)].map(server);
        for answer in smol::block_on(answers([&first, &second]).compat()) {
            match fault {
                Fault::Status(400) => assert!(answer.error.unwrap().contains("HTTP 400")),
                _ => assert_eq!((&*answer.text, answer.error), (REPLY, None)),
            }
        }
        let asked = [first.requests(), second.requests()];
        assert_eq!(asked, requests, "{fault:?}");
    }
}
