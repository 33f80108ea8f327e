//! Connections that are kept for the next request, or closed if theirs is cancelled.

use isahc::{
    HttpClient,
    config::{Configurable, ExpectContinue, VersionNegotiation},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The idle connections to a server.
///
/// An isahc client notices that a request is cancelled only once the server sends something, but
/// closes all its connections when it is dropped. Hence each request under way has a client to
/// itself, which drops with it unless it is put back.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<HttpClient>>>);

impl Pool {
    /// Takes a connection out of the pool, or makes one.
    pub fn take(&self) -> Result<HttpClient, isahc::Error> {
        if let Some(http) = self.idle().pop() {
            return Ok(http);
        }
        HttpClient::builder()
            .version_negotiation(VersionNegotiation::http11())
            .expect_continue(ExpectContinue::disabled())
            // A proxy would look for a local server on its own machine.
            .proxy_blacklist(["localhost", "127.0.0.1", "::1"])
            .build()
    }

    /// Puts a connection back whose answer has been read to its end.
    pub fn put(&self, http: HttpClient) {
        self.idle().push(http);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<HttpClient>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
