//! The items of streams: which are content, and which end an answer.

use bytes::Bytes;

/// An item of a stream of some release.
pub trait Item {
    /// Recognises the last item of a complete answer. `None`: the type does not tell.
    const IS_FINISH: Option<fn(&Self) -> bool> = None;

    /// Whether the item belongs to the answer. False only for items that are known to
    /// announce it.
    fn is_content(&self) -> bool;
}

impl Item for Bytes {
    fn is_content(&self) -> bool {
        !self.is_empty()
    }
}

/// Whether a text is there and not empty.
pub fn has_text(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

/// Implements [`Item`] for each version of the trait, including the types of earlier versions.
macro_rules! items {
    (since_0_0_15) => {
        impl Item for ChatCompletionChunk {
            const IS_FINISH: Option<fn(&Self) -> bool> = Some(|chunk| {
                chunk
                    .choices
                    .iter()
                    .any(|choice| choice.finish_reason.is_some())
            });

            fn is_content(&self) -> bool {
                self.choices.iter().any(|choice| {
                    let delta = &choice.delta;
                    let finish_reason = choice.finish_reason.as_ref();
                    has_text(&delta.content)
                        || has_text(&delta.reasoning_content)
                        || delta
                            .tool_calls
                            .as_ref()
                            .is_some_and(|calls| !calls.is_empty())
                        || finish_reason.is_some_and(|reason| reason.as_str() != "error")
                })
            }
        }
    };
    (since_0_0_16) => {
        items! { since_0_0_15 }
    };
    (since_0_0_21) => {
        items! { since_0_0_16 }

        impl Item for anthropic::StreamEvent {
            fn is_content(&self) -> bool {
                match self {
                    Self::MessageStart { .. } => false,
                    Self::ContentBlockStart { content_block, .. } => match content_block {
                        anthropic::ContentBlock::Text { text, .. } => !text.is_empty(),
                        anthropic::ContentBlock::Thinking {
                            thinking,
                            signature,
                        } => !thinking.is_empty() || has_text(signature),
                        _ => true,
                    },
                    _ => true,
                }
            }
        }

        impl Item for gemini::Response {
            fn is_content(&self) -> bool {
                let is_empty = |part: &gemini::Part| {
                    !has_text(&part.text)
                        && part.function_call.is_none()
                        && part.function_response.is_none()
                        && part.thought_signature.is_none()
                };
                // A blocked prompt has no candidates.
                self.candidates.is_empty()
                    || self.candidates.iter().any(|candidate| {
                        let content = candidate.content.as_ref();
                        candidate.finish_reason.is_some()
                            || content.is_some_and(|content| !content.parts.iter().all(is_empty))
                    })
            }
        }

        impl Item for ir::StreamEvent {
            fn is_content(&self) -> bool {
                match self {
                    Self::Usage(_) => false,
                    Self::TextDelta(text) | Self::ReasoningDelta(text) => !text.is_empty(),
                    _ => true,
                }
            }
        }
    };
    (since_0_0_23) => {
        items! { since_0_0_21 }
    };
}

pub(crate) use items;

#[cfg(test)]
mod tests {
    use super::super::{release, releases, types};
    use super::*;

    macro_rules! contents {
        ($methods:ident $errors:ident) => {
            claims! { $methods }
        };
    }

    /// The choices of each chunk of a stream, the index of its first content, and whether its
    /// last chunk ends the answer.
    #[rustfmt::skip]
    const CHUNKS: &[(&str, &[&str], Option<usize>, bool)] = &[
        ("OpenAI",
            &[r#"[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]"#,
              r#"[{"index":0,"delta":{"content":"Hi"}}]"#,
              r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#],
            Some(1), true),
        ("OpenAI, tools",
            &[r#"[{"index":0,"delta":{"role":"assistant","content":null}}]"#,
              r#"[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}}]"#],
            Some(1), false),
        ("OpenAI, an empty answer with its usage",
            &[r#"[{"index":0,"delta":{"role":"assistant","content":""}}]"#,
              r#"[{"index":0,"delta":{},"finish_reason":"length"}]"#,
              "[]"],
            Some(1), false),
        ("OpenAI on Azure, the prompt's filter first",
            &["[]",
              r#"[{"index":0,"delta":{"content":"Hi"}}]"#],
            Some(1), false),
        ("OpenAI, the second choice first",
            &[r#"[{"index":0,"delta":{"role":"assistant"}},{"index":1,"delta":{"content":"Hi"}}]"#],
            Some(0), false),
        ("DeepSeek and vLLM, reasoning first",
            &[r#"[{"index":0,"delta":{"role":"assistant","content":"","reasoning_content":""}}]"#,
              r#"[{"index":0,"delta":{"content":null,"reasoning_content":"Hm"}}]"#],
            Some(1), false),
        ("Ollama",
            &[r#"[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]"#],
            Some(0), false),
        ("llama.cpp, no tools after all",
            &[r#"[{"index":0,"delta":{"tool_calls":[]},"finish_reason":null}]"#,
              r#"[{"index":0,"delta":{"content":"Hi"}}]"#],
            Some(1), false),
        ("OpenRouter, the model behind it failed",
            &[r#"[{"index":0,"delta":{"role":"assistant","content":""}}]"#,
              r#"[{"index":0,"delta":{"content":""},"finish_reason":"error"}]"#],
            None, true),
    ];

    /// Claims about the items of each version of the trait.
    macro_rules! claims {
        (since_0_0_15) => {
            #[test]
            fn chunks_commit_by_their_first_content() {
                for (vendor, choices, first_content, is_finished) in CHUNKS {
                    let chunks: Vec<ChatCompletionChunk> = choices
                        .iter()
                        .map(|choices| {
                            let rest = r#""id":"c","object":"chat.completion.chunk","created":1,"model":"m""#;
                            let chunk = format!(r#"{{{rest},"choices":{choices}}}"#);
                            serde_json::from_str(&chunk).expect(vendor)
                        })
                        .collect();
                    let found = chunks.iter().position(Item::is_content);
                    assert_eq!(found, *first_content, "{vendor}");
                    let is_finish = ChatCompletionChunk::IS_FINISH.expect("chunks tell");
                    let last = chunks.last().expect(vendor);
                    assert_eq!(is_finish(last), *is_finished, "{vendor}");
                }
            }
        };
        (since_0_0_16) => {
            claims! { since_0_0_15 }
        };
        (since_0_0_21) => {
            claims! { since_0_0_16 }

            use anthropic::{BlockDelta, ContentBlock, StreamEvent};

            #[test]
            fn anthropic_events_commit_by_their_first_content() {
                let start = |content_block| StreamEvent::ContentBlockStart { index: 0, content_block };
                let delta = |delta| StreamEvent::ContentBlockDelta { index: 0, delta };
                let message = serde_json::from_str(
                    r#"{"id":"m","type":"message","role":"assistant","model":"m","content":[],
                        "stop_reason":null,"stop_sequence":null,
                        "usage":{"input_tokens":1,"output_tokens":1}}"#,
                );
                let message = message.unwrap();
                let block = |text| serde_json::from_str::<ContentBlock>(text).unwrap();
                let tool = block(r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#);
                let thinking = block(r#"{"type":"thinking","thinking":"","signature":""}"#);
                let redacted = block(r#"{"type":"thinking","thinking":"","signature":"x"}"#);
                for (is_content, event) in [
                    (false, StreamEvent::MessageStart { message }),
                    (false, start(ContentBlock::text(""))),
                    (false, start(thinking)),
                    (true, start(redacted)),
                    (true, start(ContentBlock::text("Hi"))),
                    (true, start(tool)),
                    (true, delta(BlockDelta::Text { text: "Hi".into() })),
                    (true, delta(BlockDelta::Thinking { thinking: "Hm".into() })),
                    (true, delta(BlockDelta::InputJson { partial_json: "{".into() })),
                    (true, StreamEvent::ContentBlockStop { index: 0 }),
                    (true, StreamEvent::MessageStop),
                ] {
                    assert_eq!(event.is_content(), is_content, "{event:?}");
                }
            }

            #[test]
            fn gemini_responses_commit_by_their_first_content() {
                for (is_content, response) in [
                    (true, r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"}}]}"#),
                    (true, r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#),
                    (true, r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"x"}]}}]}"#),
                    (true, r#"{"candidates":[{"content":{"parts":[]},"finishReason":"STOP"}]}"#),
                    (true, r#"{"candidates":[{"finishReason":"SAFETY"}]}"#),
                    (true, r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#),
                    (true, r#"{"candidates":[{"content":{"parts":[{"functionResponse":{"name":"f","response":{}}}]}}]}"#),
                    (false, r#"{"candidates":[{"content":{"parts":[],"role":"model"}}]}"#),
                    (false, r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"}}]}"#),
                    (false, r#"{"candidates":[{"index":0}]}"#),
                ] {
                    let parsed: gemini::Response = serde_json::from_str(response).expect(response);
                    assert_eq!(parsed.is_content(), is_content, "{response}");
                }
            }

            #[test]
            fn events_of_ir_commit_by_their_first_content() {
                use ir::StreamEvent::*;
                for (is_content, event) in [
                    (false, Usage(Default::default())),
                    (false, TextDelta(String::new())),
                    (false, ReasoningDelta(String::new())),
                    (true, TextDelta("Hi".into())),
                    (true, ReasoningDelta("Hm".into())),
                    (true, ToolCallStart { id: "t".into(), name: "f".into() }),
                    (true, ToolCallDelta(String::new())),
                    (true, Stop(ir::StopReason::End)),
                ] {
                    assert_eq!(event.is_content(), is_content, "{event:?}");
                }
            }
        };
        (since_0_0_23) => {
            claims! { since_0_0_21 }
        };
    }

    releases! { release }

    #[test]
    fn bytes_are_content_unless_empty() {
        assert!(!Bytes::new().is_content());
        assert!(Bytes::from_static(b" ").is_content());
    }
}
