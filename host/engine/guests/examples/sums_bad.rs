//! The next version of `sums`, with a mistake: it traps at every row.

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
fn sums_bad(key: i64, number: i64, total: &mut Total, out: &mut Out<Sum>) {
    total.sum += number;
    out.push(Sum { key, sum: total.sum, by: 4 });
    assert_eq!(number, i64::MIN, "a mistake");
}
