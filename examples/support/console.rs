//! What a program says to whom has started it, and is told.

#![allow(dead_code, reason = "each program uses its own part")]

use clap::Parser;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The arguments; or, where there is nothing to do but to say why, the code to exit with.
pub fn arguments<A: Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| {
        let message = error.to_string();
        if error.use_stderr() {
            eprint(message.lines().next().unwrap_or_default());
            ExitCode::from(2)
        } else {
            print(&message);
            ExitCode::SUCCESS
        }
    })
}

/// Prints text; unlike the macro, without a panic if nobody reads it any more.
pub fn print(text: &str) {
    _ = io::stdout().write_all(text.as_bytes());
}

/// Prints a line to standard error.
pub fn eprint(line: &str) {
    _ = writeln!(io::stderr(), "{line}");
}
