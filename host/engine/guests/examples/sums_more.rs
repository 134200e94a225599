//! The next version of `sums`, which reads a column more.

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

#[millstream::operator(keyed)]
fn sums_more(key: i64, number: i64, weight: i64, total: &mut Total, out: &mut Out<Sum>) {
    total.sum += number * weight;
    out.push(Sum { key, sum: total.sum, by: 5 });
}
