//! Word count, first half: lines become words. Stateless, so any number of instances may run side by side.

use millstream::{Out, Row};

/// What counts as a word.
#[millstream::settings]
pub struct Settings {
    /// Shorter words are left out. Default: 1 letter.
    #[serde(default = "one")]
    shortest: usize,
}

fn one() -> usize {
    1
}

/// A word, in lower case.
#[derive(Row, Debug, PartialEq)]
pub struct Word<'a> {
    word: &'a str,
}

/// Splits the column `text` into words.
#[millstream::flat_map]
pub fn split(text: &str, settings: &Settings, out: &mut Out<Word<'_>>) {
    let lower = text.to_lowercase();
    let words = lower.split(|character: char| !character.is_alphanumeric() && character != '\'');
    for word in words.filter(|word| word.chars().count() >= settings.shortest) {
        out.push(Word { word });
    }
}

#[cfg(test)]
mod tests {
    use millstream::testing::Harness;

    use super::*;

    #[derive(Row)]
    struct Line<'a> {
        text: &'a str,
    }

    #[test]
    fn short_words_and_punctuation_are_left_out() {
        let mut harness = Harness::<split>::with_settings(r#"{ "shortest": 3 }"#);
        harness.rows([Line { text: "Shall I compare thee to a summer's day?" }]);
        let words: Vec<Word<'_>> = harness.output();
        assert_eq!(words.iter().map(|word| word.word).collect::<Vec<_>>(), ["shall", "compare", "thee", "summer's", "day"]);
    }
}
