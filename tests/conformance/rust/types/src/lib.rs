//! Conformance case `types`. Every type that crosses, null and not, read, kept as state and written.

use std::collections::BTreeMap;

use millstream::{Date, Date64, Decimal, Duration, FixedList, Large, Ms, Ns, Out, Row, Sec, Time, Timestamp, Us, Utc};

/// A struct within others.
#[derive(Row, Clone)]
pub struct Point {
    x: f64,
    name: Option<String>,
}

/// A column of every type.
#[derive(Row, Clone)]
pub struct Everything {
    boolean: Option<bool>,
    int8: Option<i8>,
    int16: Option<i16>,
    int32: Option<i32>,
    int64: Option<i64>,
    uint8: Option<u8>,
    uint16: Option<u16>,
    uint32: Option<u32>,
    uint64: Option<u64>,
    float32: Option<f32>,
    float64: Option<f64>,
    decimal: Option<Decimal<20, 3>>,
    utf8: Option<String>,
    large_utf8: Option<Large<String>>,
    binary: Option<Vec<u8>>,
    large_binary: Option<Large<Vec<u8>>>,
    fixed_binary: Option<[u8; 3]>,
    date32: Option<Date>,
    date64: Option<Date64>,
    time_s: Option<Time<Sec>>,
    time_us: Option<Time<Us>>,
    timestamp: Option<Timestamp<Ms>>,
    instant: Option<Timestamp<Ns, Utc>>,
    duration: Option<Duration<Us>>,
    list: Option<Vec<Option<i64>>>,
    lists: Option<Vec<Vec<String>>>,
    fixed_list: Option<FixedList<i32, 2>>,
    point: Option<Point>,
    points: Option<Vec<Point>>,
    map: Option<BTreeMap<String, Option<i64>>>,
}

/// The row before, and this one.
#[derive(Row)]
pub struct Both {
    key: i64,
    before: Option<Everything>,
    now: Everything,
}

/// A key, and a struct of everything.
#[derive(Row)]
pub struct Input {
    key: i64,
    all: Everything,
}

/// Emits the row before with each row of a key.
#[millstream::operator(keyed)]
pub fn remember(row: Input, last: &mut Option<Everything>, out: &mut Out<Both>) {
    out.push(Both { key: row.key, before: last.replace(row.all.clone()), now: row.all });
}
