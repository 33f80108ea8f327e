//! A chat in a web page, which draws what becomes of each call while it happens.
//!
//! The page is built for `wasm32-unknown-unknown`; the same example, built for this machine, serves
//! it, and is the flaky server that it talks to:
//!
//! ```sh
//! examples/web/build
//! cargo run --example web
//! ```

#![forbid(unsafe_code)]

#[cfg(any(test, all(target_family = "wasm", target_os = "unknown")))]
#[path = "web/picture.rs"]
mod picture;
#[cfg(any(test, all(target_family = "wasm", target_os = "unknown")))]
#[path = "support/timeline.rs"]
mod timeline;
#[cfg(any(test, all(target_family = "wasm", target_os = "unknown")))]
#[path = "support/wire.rs"]
mod wire;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
#[path = "web/fetch.rs"]
mod fetch;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
#[path = "web/page.rs"]
mod page;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
#[path = "support/flaky_server.rs"]
mod flaky_server;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
#[path = "web/server.rs"]
mod server;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn main() {
    page::start();
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn main() -> std::io::Result<()> {
    server::main()
}
