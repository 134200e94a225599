//! A running sum per key. Number 13 traps, negative numbers are rejected.

use millstream::{Out, Reject, Row, State};

#[derive(State, Default)]
struct Total {
    sum: i64,
}

#[derive(Row)]
struct Sum {
    key: i64,
    sum: i64,
    by: i64,
}

/// The first version says so in `by`.
#[millstream::operator(keyed)]
fn sums(key: i64, number: i64, total: &mut Total, out: &mut Out<Sum>) -> Result<(), Reject> {
    assert_ne!(number, 13, "unlucky");
    if number < 0 {
        return Err(Reject::new("negative"));
    }
    total.sum += number;
    out.push(Sum { key, sum: total.sum, by: 1 });
    Ok(())
}
