//! Makes one row of every word in the notes.

use millstream::{Out, Row};

/// The columns that the operator reads.
#[derive(Row)]
pub struct Reading {
    pub sensor: String,
    pub note: Option<String>,
}

/// The rows that it makes.
#[derive(Row, Debug, PartialEq)]
pub struct Word {
    pub sensor: String,
    pub word: String,
}

/// Makes one row of every word in the notes.
#[millstream::flat_map]
pub fn {{function}}(reading: Reading, out: &mut Out<Word>) {
    for word in reading.note.unwrap_or_default().split_whitespace() {
        out.push(Word { sensor: reading.sensor.clone(), word: word.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use millstream::testing::Harness;

    use super::*;

    #[test]
    fn every_word_is_a_row() {
        let mut operator = Harness::<{{function}}>::new();
        operator.rows([Reading { sensor: "attic".into(), note: Some("window open".into()) }, Reading { sensor: "roof".into(), note: None }]);
        let words: Vec<Word> = operator.output();
        assert_eq!(words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>(), ["window", "open"]);
    }
}
