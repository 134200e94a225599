//! Counts words in another form: as text. What `tally` and `tally-more` kept is migrated to it.

use millstream::{Out, Row, State};

/// As `tally` keeps it.
#[derive(State)]
pub struct SeenByTally {
    count: u32,
}

/// As `tally-more` keeps it.
#[derive(State)]
#[state(version = 2)]
pub struct SeenByTallyMore {
    count: u64,
    first: Option<i64>,
}

/// What is known of a word.
#[derive(State, Default)]
#[state(version = 3, migrates(SeenByTally, SeenByTallyMore))]
pub struct Seen {
    count: String,
    first: Option<i64>,
}

impl From<SeenByTally> for Seen {
    fn from(old: SeenByTally) -> Self {
        Self { count: old.count.to_string(), first: None }
    }
}

impl From<SeenByTallyMore> for Seen {
    fn from(old: SeenByTallyMore) -> Self {
        Self { count: old.count.to_string(), first: old.first }
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
