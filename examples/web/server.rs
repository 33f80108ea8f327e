//! Serves the page, and fails on purpose.

use crate::flaky_server::{
    Fault::{self, *},
    FlakyServer, Setup,
};
use clap::Parser;
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    thread,
    time::Duration,
};

/// The files of the page, from the root of the repository: path, content type and place.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html", "examples/web/index.html"),
    ("/style.css", "text/css", "examples/web/style.css"),
    ("/web.js", "text/javascript", "target/web/web.js"),
    ("/web_bg.wasm", "application/wasm", "target/web/web_bg.wasm"),
];

/// Serves the page, and fails on purpose.
#[derive(Parser)]
struct Args {
    /// The port to listen on; 0 is any free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// How long the server thinks before it answers.
const THINKING: Duration = Duration::from_millis(150);

/// Longer than the page's timeout.
const LATE: Duration = Duration::from_millis(1500);

/// The faults of the messages of a conversation, in turn.
const SCRIPTS: [&[Fault]; 4] = [
    &[Status(503), RateLimit(1)],
    &[DropOpened, StallOpened, AnnouncedErrorEvent],
    // A stream that breaks off halfway is not asked for again, an answer in one piece is.
    &[Late(LATE), DropHalfway, StallHalfway],
    &[],
];

pub fn main() -> io::Result<()> {
    let Args { port } = Args::parse();
    let server = FlakyServer::start_with(Setup {
        thinking: THINKING,
        files: files()?,
        port,
        ..Setup::new(script)
    })
    .map_err(|error| io::Error::other(format!("port {port}: {error}")))?;
    let mut out = io::stdout();
    writeln!(out, "{}", server.page())?;
    out.flush()?;
    loop {
        thread::park();
    }
}

/// The script of a message. The page names each by its number and the conversation, as in
/// `2 of 1763900000000`; other callers have no script.
fn script(caller: &str) -> Vec<Fault> {
    let number = caller.split(' ').next().and_then(|it| it.parse().ok());
    number.map_or_else(Vec::new, |number: usize| {
        SCRIPTS[number.saturating_sub(1) % SCRIPTS.len()].to_vec()
    })
}

fn files() -> io::Result<HashMap<&'static str, (&'static str, Vec<u8>)>> {
    let read = |(path, content_type, file)| {
        let content = fs::read(file).map_err(|error| {
            io::Error::other(format!("{file}: {error}; `examples/web/build` makes it"))
        })?;
        Ok((path, (content_type, content)))
    };
    FILES.into_iter().map(read).collect()
}
