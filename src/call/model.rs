//! The model that a call asks.

use std::borrow::Cow;

/// The model of a call, which a raw body names only in its text.
#[derive(Clone, Copy)]
pub enum CallModel<'m> {
    Named(&'m str),
    Unnamed(Option<&'m RawBody<'m>>),
}

/// A raw body that has not been parsed.
pub struct RawBody<'m> {
    pub bytes: &'m [u8],

    /// Reads the model from it.
    pub parse: fn(&[u8]) -> Option<String>,
}

impl<'m> CallModel<'m> {
    /// The model, if it is known without parsing a raw body.
    #[inline]
    pub fn name(self) -> Option<&'m str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Unnamed(_) => None,
        }
    }

    /// The name by which a rate limiter knows the model; empty if there is none.
    pub fn parsed(self) -> Cow<'m, str> {
        match self {
            Self::Named(name) => name.into(),
            Self::Unnamed(body) => body
                .and_then(|body| (body.parse)(body.bytes))
                .unwrap_or_default()
                .into(),
        }
    }
}

impl<'m> From<Option<&'m str>> for CallModel<'m> {
    #[inline]
    fn from(name: Option<&'m str>) -> Self {
        name.map_or(Self::Unnamed(None), Self::Named)
    }
}
