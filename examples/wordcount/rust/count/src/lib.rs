//! Word count, second half: a number per word. The host keeps the number; the function only changes it.

use millstream::{Out, Row};

/// How often a word was seen so far.
#[derive(Row, Debug, PartialEq)]
pub struct Count<'a> {
    word: &'a str,
    count: u64,
}

/// Counts each word.
#[millstream::operator(keyed)]
pub fn count(word: &str, seen: &mut u64, out: &mut Out<Count<'_>>) {
    *seen += 1;
    out.push(Count { word, count: *seen });
}

#[cfg(test)]
mod tests {
    use millstream::testing::Harness;

    use super::*;

    #[derive(Row)]
    struct Word<'a> {
        word: &'a str,
    }

    #[test]
    fn every_word_has_its_own_count() {
        let mut harness = Harness::<count>::new().key_by(["word"]);
        harness.rows(["to", "be", "or", "not", "to", "be"].map(|word| Word { word }));
        let counts: Vec<Count<'_>> = harness.output();
        assert_eq!(counts[5], Count { word: "be", count: 2 });
        assert_eq!(counts[3], Count { word: "not", count: 1 });
    }
}
