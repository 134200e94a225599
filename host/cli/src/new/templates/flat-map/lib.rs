//! Makes one row of every word in the notes.

use millstream::{Out, Row};

/// The columns that the operator reads.
#[derive(Row)]
pub struct Reading {
    pub sensor: String,
    pub note: Option<String>,
}

/// The rows that it makes.
#[derive(Row)]
pub struct Word {
    pub sensor: String,
    pub word: String,
}

#[millstream::flat_map]
pub fn {{function}}(reading: Reading, out: &mut Out<Word>) {
    for word in reading.note.iter().flat_map(|note| note.split_whitespace()) {
        out.emit(Word { sensor: reading.sensor.clone(), word: word.to_owned() });
    }
}
