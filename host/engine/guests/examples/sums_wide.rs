//! A version of `sums` whose state may be null: it reads what `sums` wrote, but not the other way round.

use millstream::{Out, Row, State};

#[derive(State, Default)]
#[state(version = 2)]
struct Total {
    sum: Option<i64>,
}

#[derive(Row)]
struct Sum {
    key: i64,
    sum: i64,
    by: i64,
}

/// The third version says so in `by`.
#[millstream::operator(keyed)]
fn sums_wide(key: i64, number: i64, total: &mut Total, out: &mut Out<Sum>) {
    let sum = total.sum.unwrap_or_default() + number;
    total.sum = Some(sum);
    out.push(Sum { key, sum, by: 3 });
}
