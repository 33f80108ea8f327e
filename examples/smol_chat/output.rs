//! Text for the user.

use crate::args::variable;

/// How wide a picture may be.
pub fn columns() -> usize {
    let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
    columns
        .or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
        .unwrap_or(80)
        .clamp(80, 120)
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
}
