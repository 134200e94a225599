//! Counts the rows of each bucket as `example-service-count` does. Its settings say how it is opened: well, with a trap, or never.

use millstream::{Out, Row, State};

/// What it needs to be told.
#[millstream::settings]
pub struct Settings {
    /// How it is opened: `well`, `never` (it traps) or `forever` (it does not come to an end).
    opens: String,
}

/// What is known of a bucket.
#[derive(State, Default)]
pub struct Seen {
    count: u64,
}

/// How many rows a bucket has had.
#[derive(Row)]
pub struct Count<'a> {
    bucket: i64,
    count: u64,
    by: &'a str,
}

/// Counts each bucket.
pub struct Choosy;

#[millstream::operator(keyed)]
impl Choosy {
    fn open(settings: Settings) -> Result<Self, String> {
        match settings.opens.as_str() {
            "well" => Ok(Self),
            "never" => panic!("it was told not to open"),
            "forever" => loop {
                std::hint::black_box(());
            },
            other => Err(format!("`{other}` is no way to open")),
        }
    }

    fn process(&mut self, bucket: i64, seen: &mut Seen, out: &mut Out<Count<'_>>) {
        seen.count += 1;
        out.push(Count { bucket, count: seen.count, by: "choosy" });
    }
}
