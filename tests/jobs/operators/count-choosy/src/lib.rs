//! Counts the rows of each bucket as `example-service-count` does. Its settings say how it is opened: well, with a trap, or never; and they may hold a
//! key, which it says aloud where it should not, and by whose sum its rows can be told, and make it slow. It says when a bucket is new.

use millstream::{Out, Row, State};

/// What it needs to be told.
#[millstream::settings]
pub struct Settings {
    /// How it is opened: `well`, `never` (it traps) or `forever` (it does not come to an end).
    opens: String,
    /// Something that nobody else may know.
    key: Option<String>,
    /// How much it does for nothing with each row.
    #[serde(default)]
    spins: u32,
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
pub struct Choosy {
    by: String,
    spins: u32,
}

/// FNV-1a.
fn sum(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[millstream::operator(keyed)]
impl Choosy {
    fn open(settings: Settings) -> Result<Self, String> {
        if let Some(key) = &settings.key {
            millstream::warn!("opened with {key}");
        }
        match settings.opens.as_str() {
            "well" => {
                let by = settings.key.map_or_else(|| "choosy".to_owned(), |key| format!("{:016x}", sum(&key)));
                Ok(Self { by, spins: settings.spins })
            }
            "never" => panic!("it was told not to open"),
            "forever" => loop {
                std::hint::black_box(());
            },
            other => Err(format!("`{other}` is no way to open")),
        }
    }

    fn process(&mut self, bucket: i64, seen: &mut Seen, out: &mut Out<Count<'_>>) {
        for spin in 0..self.spins {
            std::hint::black_box(spin);
        }
        seen.count += 1;
        if seen.count == 1 {
            millstream::info!("bucket {bucket} is new");
        }
        out.push(Count { bucket, count: seen.count, by: &self.by });
    }
}
