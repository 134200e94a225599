//! Conformance case `flat-map`. A flat-map with two outputs: one inherits event times, the other brings its own.

use millstream::{EventTime, Out, Row, TimedOut};

/// A word.
#[derive(Row)]
pub struct Word<'a> {
    word: &'a str,
}

/// The end of a line.
#[derive(Row)]
pub struct Mark {
    line: u64,
}

/// Splits lines into words, and marks the end of each line a second later.
#[millstream::flat_map]
pub fn split(line: u64, text: &str, time: EventTime, words: &mut Out<Word<'_>>, #[output(name = "line-ends")] ends: &mut TimedOut<Mark>) {
    for word in text.split_whitespace() {
        words.push(Word { word });
    }
    ends.push(time.plus_ms(1000), Mark { line });
}
