//! The next version of `sums`: the same state and output, and no fear of numbers.

use millstream::{Out, Row, State};

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

/// The second version says so in `by`.
#[millstream::operator(keyed)]
fn sums_next(key: i64, number: i64, total: &mut Total, out: &mut Out<Sum>) {
    total.sum += number;
    out.push(Sum { key, sum: total.sum, by: 2 });
}
