//! The operations of a provider, and sets of them.

use std::{
    error::Error,
    fmt,
    ops::{BitOr, BitOrAssign},
};

/// Declares [`Operation`] from the one list of methods.
macro_rules! operations {
    ($($variant:ident = $method:literal,)*) => {
        /// One method of the `Provider` trait, or an operation of another client.
        ///
        /// The list covers all supported `crabllm-core` releases; older releases lack
        /// some of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Operation {
            $(#[doc = concat!("The method `", $method, "`.")] $variant,)*

            /// A named operation of a client that is not a `Provider`. It has the policy's
            /// timeout and is retried whatever the set of [`Operations`];
            /// `max_retries(0)` disables its retries.
            Other(&'static str),
        }

        /// The position of each method in a set.
        enum Position {
            $($variant,)*
        }

        impl Operation {
            pub(crate) const EVERY: &[Self] = &[$(Self::$variant,)*];

            /// The name of the method, or of the other operation.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $method,)*
                    Self::Other(name) => name,
                }
            }

            /// Its bit in a set; zero for [`Self::Other`], which is in no set.
            #[inline]
            const fn bit(self) -> u32 {
                match self {
                    $(Self::$variant => 1 << Position::$variant as u32,)*
                    Self::Other(_) => 0,
                }
            }
        }
    };
}

operations! {
    ChatCompletion = "chat_completion",
    ChatCompletionRaw = "chat_completion_raw",
    AnthropicMessages = "anthropic_messages",
    AnthropicMessagesRaw = "anthropic_messages_raw",
    GeminiGenerateContent = "gemini_generate_content",
    GeminiGenerateContentRaw = "gemini_generate_content_raw",
    Complete = "complete",
    ChatCompletionStream = "chat_completion_stream",
    ChatCompletionStreamRaw = "chat_completion_stream_raw",
    AnthropicMessagesStream = "anthropic_messages_stream",
    AnthropicMessagesStreamRaw = "anthropic_messages_stream_raw",
    GeminiGenerateContentStream = "gemini_generate_content_stream",
    GeminiGenerateContentStreamRaw = "gemini_generate_content_stream_raw",
    CompleteStream = "complete_stream",
    ChatCompletionStreamPassthrough = "chat_completion_stream_passthrough",
    Embedding = "embedding",
    ImageGeneration = "image_generation",
    AudioSpeech = "audio_speech",
    AudioTranscription = "audio_transcription",
    Models = "models",
}

impl Operation {
    /// Whether attempts have a timeout even if the operation is not retried: true for all
    /// but embeddings, images, audio and listings.
    #[inline]
    pub(crate) fn is_always_timed(self) -> bool {
        const IF_RETRIED: Operations = Operations::EMBEDDING
            .union(Operations::IMAGE_GENERATION)
            .union(Operations::AUDIO_SPEECH)
            .union(Operations::AUDIO_TRANSCRIPTION)
            .union(Operations::MODELS);
        !IF_RETRIED.contains(self)
    }

    /// The operation whose method has this name.
    #[cfg(feature = "serde")]
    pub(crate) fn named(method: &str) -> Option<Self> {
        let mut every = Self::EVERY.iter().copied();
        every.find(|operation| operation.as_str() == method)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of operations that can be retried.
///
/// Join sets with `|`, or in constants with [`union`](Self::union). Two
/// [`Operation`]s cannot be members, and converting them is an error:
/// [`ChatCompletionStreamPassthrough`](Operation::ChatCompletionStreamPassthrough)
/// consumes its body, so there is nothing left to send again; and
/// [`Other`](Operation::Other) is always retried.
///
/// ```
/// use crabllm_retry::{Operation, Operations};
///
/// let retried = Operations::CHAT | Operations::EMBEDDING;
/// assert!(retried.contains(Operation::ChatCompletion));
/// assert!(!retried.contains(Operation::ChatCompletionStream));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operations(u32);

impl Operations {
    /// No operation.
    pub const NONE: Self = Self(0);

    /// Chats that are answered in one piece: `chat_completion`,
    /// `anthropic_messages`, `gemini_generate_content`, their `_raw` variants, and
    /// `complete`. The default of [`Policy`](super::Policy).
    pub const CHAT: Self = Self::of(&[
        Operation::ChatCompletion,
        Operation::ChatCompletionRaw,
        Operation::AnthropicMessages,
        Operation::AnthropicMessagesRaw,
        Operation::GeminiGenerateContent,
        Operation::GeminiGenerateContentRaw,
        Operation::Complete,
    ]);

    /// Streams, until their first content: every `_stream` and `_stream_raw` method.
    pub const STREAMS: Self = Self::of(&[
        Operation::ChatCompletionStream,
        Operation::ChatCompletionStreamRaw,
        Operation::AnthropicMessagesStream,
        Operation::AnthropicMessagesStreamRaw,
        Operation::GeminiGenerateContentStream,
        Operation::GeminiGenerateContentStreamRaw,
        Operation::CompleteStream,
    ]);

    /// `embedding`.
    pub const EMBEDDING: Self = Self::of(&[Operation::Embedding]);

    /// `image_generation`.
    pub const IMAGE_GENERATION: Self = Self::of(&[Operation::ImageGeneration]);

    /// `audio_speech`.
    pub const AUDIO_SPEECH: Self = Self::of(&[Operation::AudioSpeech]);

    /// `audio_transcription`.
    pub const AUDIO_TRANSCRIPTION: Self = Self::of(&[Operation::AudioTranscription]);

    /// `models`.
    pub const MODELS: Self = Self::of(&[Operation::Models]);

    /// Every operation that can be retried.
    pub const ALL: Self =
        Self::of(Operation::EVERY).without(Self::of(&[Operation::ChatCompletionStreamPassthrough]));

    /// Whether the operation is in the set.
    #[inline]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & operation.bit() != 0
    }

    /// The operations in either set.
    #[must_use = "the set is not changed in place"]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The operations in this set but not in the other.
    #[must_use = "the set is not changed in place"]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The operations in the set, in the order of [`Operation`]'s variants.
    pub fn iter(self) -> impl Iterator<Item = Operation> + use<> {
        let every = Operation::EVERY.iter().copied();
        every.filter(move |&operation| self.contains(operation))
    }

    const fn of(operations: &[Operation]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < operations.len() {
            bits |= operations[i].bit();
            i += 1;
        }
        Self(bits)
    }
}

impl BitOr for Operations {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Operations {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl TryFrom<Operation> for Operations {
    type Error = NotRetryable;

    fn try_from(operation: Operation) -> Result<Self, NotRetryable> {
        if Self::ALL.contains(operation) {
            Ok(Self::of(&[operation]))
        } else {
            Err(NotRetryable(operation))
        }
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The error of converting an operation that is never or always retried to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRetryable(Operation);

impl NotRetryable {
    /// The operation that was converted.
    pub fn operation(self) -> Operation {
        self.0
    }
}

impl fmt::Display for NotRetryable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.0 {
            Operation::Other(_) => "is not a method of `Provider`: such calls are always retried",
            _ => "cannot be retried: its body is consumed by the first attempt",
        };
        write!(f, "{} {why}", self.0)
    }
}

impl Error for NotRetryable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_no_set_can_contain_are_refused() {
        for operation in Operations::ALL.iter() {
            let set = Operations::try_from(operation).unwrap();
            assert_eq!(format!("{set:?}"), format!("{{{operation:?}}}"));
        }
        for (operation, message) in [
            (
                Operation::ChatCompletionStreamPassthrough,
                "chat_completion_stream_passthrough cannot be retried: its body is consumed by \
                 the first attempt",
            ),
            (
                Operation::Other("lookup"),
                "lookup is not a method of `Provider`: such calls are always retried",
            ),
        ] {
            let refused = Operations::try_from(operation).unwrap_err();
            assert_eq!(refused.operation(), operation);
            assert_eq!(refused.to_string(), message);
        }
    }
}
