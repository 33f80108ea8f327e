//! Serves the page, and fails on purpose.

use crate::flaky_server::{Fault, File, FlakyServer, Setup};
use clap::Parser;
use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

/// Serves the page, and fails on purpose.
#[derive(Parser)]
struct Args {
    /// The port to listen on; 0 is any free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// Where `examples/web/build` has put the page's program.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/web")]
    program: PathBuf,
}

/// How long the server thinks before it answers.
const THINKING: Duration = Duration::from_millis(150);

/// The faults of the messages of a conversation, in turn.
const SCRIPTS: [&[Fault]; 4] = [
    &[Fault::Status(503), Fault::RateLimit(1)],
    &[Fault::Drop, Fault::Stall],
    // A stream that breaks off halfway is not asked for again, an answer in one piece is.
    &[
        Fault::Late(Duration::from_millis(1500)),
        Fault::DropHalfway,
        Fault::StallHalfway,
    ],
    &[],
];

pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let port = args.port;
    let server = FlakyServer::start_with(Setup {
        thinking: THINKING,
        newcomers: Some(script),
        files: files(args)?,
        port,
        ..Setup::default()
    })
    .map_err(|error| io::Error::other(format!("port {port}: {error}")))?;
    let mut out = io::stdout();
    writeln!(out, "{}", server.page())?;
    out.flush()?;
    loop {
        thread::park();
    }
}

/// The script of a message: the page names each by its number, and something new for each
/// conversation, as in `2 of 1763900000000`. Whoever has no number has no script.
fn script(caller: &str) -> Vec<Fault> {
    let number = caller.split(' ').next().and_then(|it| it.parse().ok());
    number.map_or_else(Vec::new, |number: usize| {
        SCRIPTS[number.saturating_sub(1) % SCRIPTS.len()].to_vec()
    })
}

fn files(args: &Args) -> io::Result<HashMap<String, File>> {
    let program = |name: &str, content_type| {
        let path = args.program.join(name);
        let content = fs::read(&path).map_err(|error| {
            let path = path.display();
            io::Error::other(format!("{path}: {error}; `examples/web/build` makes it"))
        })?;
        let file = File {
            content_type,
            content,
        };
        Ok::<_, io::Error>((format!("/{name}"), file))
    };
    let page = |path: &str, content_type, content: &str| {
        let content = content.into();
        (
            path.into(),
            File {
                content_type,
                content,
            },
        )
    };
    Ok(HashMap::from([
        page("/", "text/html", include_str!("index.html")),
        page("/style.css", "text/css", include_str!("style.css")),
        program("web.js", "text/javascript")?,
        program("web_bg.wasm", "application/wasm")?,
    ]))
}
