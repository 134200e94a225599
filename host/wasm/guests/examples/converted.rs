//! A filter and a map in one: a value in another currency, for most rows.

use millstream::Row;

#[derive(Row)]
struct Converted {
    value: f64,
}

/// Values that end in 3 are left out.
#[millstream::map]
fn converted(value: i64) -> Option<Converted> {
    (value % 10 != 3).then_some(Converted { value: value as f64 * 0.908 })
}
