//! Serves the page, and fails on purpose.

use crate::flaky_server::{Fault, File, FlakyServer, Setup};
use clap::Parser;
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::Path,
    thread,
    time::Duration,
};

/// The place where `examples/web/build` puts the page's program.
const PROGRAM: &str = "target/web";

/// Serves the page, and fails on purpose.
#[derive(Parser)]
struct Args {
    /// The port to listen on; 0 is any free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// How long the server thinks before it answers.
const THINKING: Duration = Duration::from_millis(150);

/// The faults of the messages of a conversation, in turn.
const SCRIPTS: [&[Fault]; 4] = [
    &[Fault::Status(503), Fault::RateLimit(1)],
    &[
        Fault::DropOpened,
        Fault::StallOpened,
        Fault::AnnouncedErrorEvent,
    ],
    // A stream that breaks off halfway is not asked for again, an answer in one piece is.
    &[
        Fault::Late(Duration::from_millis(1500)),
        Fault::DropHalfway,
        Fault::StallHalfway,
    ],
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

fn files() -> io::Result<HashMap<String, File>> {
    let program = |name| {
        let path = Path::new(PROGRAM).join(name);
        fs::read(&path).map_err(|error| {
            let path = path.display();
            io::Error::other(format!("{path}: {error}; `examples/web/build` makes it"))
        })
    };
    let files = [
        ("/", "text/html", include_bytes!("index.html").to_vec()),
        (
            "/style.css",
            "text/css",
            include_bytes!("style.css").to_vec(),
        ),
        ("/web.js", "text/javascript", program("web.js")?),
        ("/web_bg.wasm", "application/wasm", program("web_bg.wasm")?),
    ];
    let files = files.map(|(path, content_type, content)| {
        let file = File {
            content_type,
            content,
        };
        (path.to_owned(), file)
    });
    Ok(HashMap::from(files))
}
