//! What is written where. Colours appear only on a terminal (or when asked for), and a reader that has left is not an error.

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::LazyLock,
};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use millstream_server::references::Hidden;
pub use millstream_server::text::{size, time};

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colors {
    /// On a terminal that can show them, and not when NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What went wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What may go wrong.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What to look at first.
pub const STRONG: Style = Style::new().bold();
/// What matters less.
pub const FAINT: Style = Style::new().dimmed();

/// What this process does not say: not in results, nor in notes and log lines, nor to who asks a running job.
pub static HIDDEN: LazyLock<Hidden> = LazyLock::new(Hidden::default);

/// Decides about colours for the whole process.
pub fn set_colors(colors: Colors) {
    let choice = match colors {
        Colors::Auto => anstream::ColorChoice::Auto,
        Colors::Always => anstream::ColorChoice::Always,
        Colors::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Writes a result to standard output.
pub fn print(text: &str) {
    ignore_closed(write_all(&mut anstream::stdout().lock(), text));
}

/// Writes what accompanies results to standard error.
pub fn note(text: &str) {
    ignore_closed(write_all(&mut anstream::stderr().lock(), text));
}

/// `count` with its digits in groups of three: `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rows under a header, columns apart by two spaces; columns of numbers are aligned at the right.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let is_number = |text: &str| text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains('T');
    let right: [bool; N] =
        std::array::from_fn(|column| !rows.is_empty() && rows.iter().all(|row| is_number(&row[column]) || row[column] == "-"));
    let line = |cells: [&str; N]| {
        let padded = (0..N).map(|column| {
            let (cell, space) = (cells[column], " ".repeat(widths[column] - cells[column].chars().count()));
            if right[column] { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = format!("{FAINT}{}{FAINT:#}\n", line(header));
    for row in rows {
        text += &line(std::array::from_fn(|column| row[column].as_str()));
        text.push('\n');
    }
    text
}

/// A text, or a JSON object, without what is hidden.
pub fn sayable(text: &str) -> Cow<'_, str> {
    if HIDDEN.is_empty() {
        return Cow::Borrowed(text);
    }
    // A number must stay one, whatever is hidden, so only the texts of an object are looked at.
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Cow::Owned(HIDDEN.redact_value(value).to_string()),
        _ => Cow::Owned(HIDDEN.redact(text)),
    }
}

fn write_all(to: &mut impl Write, text: &str) -> io::Result<()> {
    let text = sayable(text);
    to.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// `millstream schema | head` closes the pipe before everything is written: that is the reader's decision. There is nobody to tell of
/// other failures of the terminal either.
fn ignore_closed(_written: io::Result<()>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_numbers_at_the_right() {
        let rows = [["a".to_owned(), "7 B".to_owned()], ["long".to_owned(), "1.0 KiB".to_owned()]];
        let text = anstream::adapter::strip_str(&table(["NAME", "SIZE"], &rows)).to_string();
        assert_eq!(text, "NAME     SIZE\na         7 B\nlong  1.0 KiB\n");
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
