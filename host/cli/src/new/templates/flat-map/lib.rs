//! Makes one row of every word in the notes.

use millstream::{Out, Row};

/// The columns that the operator reads.
#[derive(Row)]
pub struct Reading<'a> {
    pub sensor: &'a str,
    pub note: Option<&'a str>,
}

/// The rows that it makes.
#[derive(Row)]
pub struct Word<'a> {
    pub sensor: &'a str,
    pub word: &'a str,
}

/// Makes one row of every word in the notes.
#[millstream::flat_map]
pub fn {{function}}(reading: Reading<'_>, out: &mut Out<Word<'_>>) {
    for word in reading.note.unwrap_or_default().split_whitespace() {
        out.push(Word { sensor: reading.sensor, word });
    }
}
