//! Counts words as `tally-moved` does, but its `migrate` panics at some words that were seen before.

use millstream::{Out, Row, State};

/// As `tally` keeps it.
#[derive(State)]
pub struct SeenByTally {
    count: u32,
}

/// What is known of a word.
#[derive(State, Default)]
#[state(version = 3, migrates(SeenByTally))]
pub struct Seen {
    count: String,
}

impl From<SeenByTally> for Seen {
    fn from(old: SeenByTally) -> Self {
        assert_eq!(old.count, 0, "nobody has counted so far before");
        Self { count: String::new() }
    }
}

/// How often a word was seen.
#[derive(Row)]
pub struct Count<'a> {
    word: &'a str,
    count: u64,
}

/// Counts each word.
#[millstream::operator(keyed, migrates)]
pub fn tally(word: &str, seen: &mut Seen, out: &mut Out<Count<'_>>) {
    let count = seen.count.parse().unwrap_or(0_u64) + 1;
    seen.count = count.to_string();
    out.push(Count { word, count });
}
