//! Text for the user.

use crate::args::variable;
use crabllm_retry::crabllm_core_0_0_19::Error;
use std::io::{self, IsTerminal};

/// How wide a picture may be.
pub fn columns() -> usize {
    let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
    columns
        .or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
        .unwrap_or(80)
        .clamp(80, 120)
}

/// Whether a picture may have colours.
pub fn colored() -> bool {
    io::stdout().is_terminal() && variable("NO_COLOR").is_none()
}

/// An error in one line, for a user.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Config(message) | Error::Internal(message) => one_line(message),
        Error::Provider { status, body } => {
            // The first line may be the wait that the client has put there.
            let json = body.find('{').map_or("", |start| &body[start..]);
            let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
            let message = json
                .pointer("/error/message")
                .and_then(|message| message.as_str());
            match one_line(message.unwrap_or(body)) {
                empty if empty.is_empty() => format!("HTTP {status}"),
                message => format!("HTTP {status}: {message}"),
            }
        }
        Error::Json(error) => format!("the answer is not a chat completion: {error}"),
        Error::Timeout => "timed out".into(),
    }
}

/// Text from outside in one short line, without anything that would command a terminal.
pub fn one_line(text: &str) -> String {
    const MAX: usize = 200;
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_fits_in_a_line() {
        assert_eq!(one_line(" a\r\n\u{1b}[31m b\t"), "a [31m b");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn an_error_is_told_in_the_words_of_the_server() {
        let error = |body: &str| {
            describe(&Error::Provider {
                status: 503,
                body: body.into(),
            })
        };
        assert_eq!(
            error(r#"{"error":{"message":"too busy"}}"#),
            "HTTP 503: too busy"
        );
        assert_eq!(error("<h1>oops</h1>"), "HTTP 503: <h1>oops</h1>");
        assert_eq!(error(""), "HTTP 503");
    }
}
