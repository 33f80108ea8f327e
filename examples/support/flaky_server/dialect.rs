//! The dialects of the flaky server.

use super::{anthropic, openai};
use serde_json::Value;

/// The dialect of a request.
#[derive(Debug, Clone, Copy)]
pub enum Dialect {
    OpenAi,
    Anthropic,
}

impl Dialect {
    pub fn of(path: &str) -> Option<Self> {
        if path.ends_with("/chat/completions") {
            Some(Self::OpenAi)
        } else if path.ends_with("/messages") {
            Some(Self::Anthropic)
        } else {
            None
        }
    }

    pub fn error(self, message: &str) -> Value {
        match self {
            Self::OpenAi => openai::error(message),
            Self::Anthropic => anthropic::error(message),
        }
    }

    pub fn reply(self, model: &str) -> Value {
        match self {
            Self::OpenAi => openai::reply(model),
            Self::Anthropic => anthropic::reply(model),
        }
    }

    pub fn events(self, model: &str) -> Vec<String> {
        match self {
            Self::OpenAi => openai::events(model),
            Self::Anthropic => anthropic::events(model),
        }
    }
}
