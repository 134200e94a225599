//! Counts the rows it is given. Number 13 traps; number 14 makes a state that is larger than a value may be, so the host refuses what was
//! answered.

use millstream::metrics::{Counter, Gauge, Histogram};
use millstream::{Out, Row, State};

static ROWS: Counter = Counter::new("rows_seen", "1");
static LATEST: Gauge = Gauge::new("latest", "1");
static NUMBERS: Histogram = Histogram::new("numbers", "1");

#[derive(State, Default)]
struct Text {
    text: String,
}

#[derive(Row)]
struct Seen {
    number: i64,
}

#[millstream::operator(keyed)]
fn counted(number: i64, kept: &mut Text, out: &mut Out<Seen>) {
    ROWS.add(1.0);
    LATEST.set(number as f64);
    NUMBERS.record(number as f64);
    assert_ne!(number, 13, "unlucky");
    if number == 14 {
        kept.text = "x".repeat(2 << 20);
    }
    out.push(Seen { number });
}
