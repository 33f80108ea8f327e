//! Output to the terminal.

use std::io::{self, Write};

/// Prints text; unlike the macro, without a panic if nobody reads it any more.
pub fn print(text: &str) {
    _ = io::stdout().write_all(text.as_bytes());
}

/// Prints a line to standard error.
pub fn eprint(line: &str) {
    _ = writeln!(io::stderr(), "{line}");
}
