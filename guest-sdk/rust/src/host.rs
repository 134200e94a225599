//! What a guest may ask of its host: `log`, `metrics`, `collections`, and `http` where it is granted. In a component these are imports; natively, the test
//! harness answers.

use crate::{
    bindings::Column,
    http, panics,
    value::{Buffers, ReadValue, Value, column_of_one, read_column},
};

#[cfg(target_family = "wasm")]
mod imports {
    pub use crate::bindings::{
        http::millstream::operator::http::send,
        operator::millstream::operator::{
            collections::{Found, Span, get, scan},
            log::{Level, emit, emit_of},
            metrics::{Kind, add, define},
        },
    };
}

#[cfg(not(target_family = "wasm"))]
mod imports {
    pub use crate::{
        bindings::operator::millstream::operator::{
            collections::{Found, Span},
            log::Level,
            metrics::Kind,
        },
        testing::imports::{add, define, emit, emit_of, get, scan, send},
    };
}

pub use imports::{Kind, Level};

/// Emits one line of log, of the row that is being handled.
pub fn log(level: Level, message: &str) {
    match panics::row() {
        Some(row) => imports::emit_of(level, message, row),
        None => imports::emit(level, message),
    }
}

/// Defines a metric and gives its number.
pub fn define_metric(name: &str, kind: Kind, unit: &str) -> u32 {
    imports::define(name, kind, unit)
}

/// Adds to a counter, sets a gauge, or records in a histogram.
pub fn add_metric(metric: u32, value: f64) {
    imports::add(metric, value);
}

/// Sends requests over HTTP and waits for the answers.
pub fn send(requests: &[http::Request]) -> Vec<Result<http::Response, http::Failure>> {
    imports::send(requests)
}

/// How many bytes one answer to a scan may hold.
const SCAN_BYTES_MAX: u32 = 1 << 20;

/// A range of an ordered map to read, its ends left out.
pub(crate) struct Request<'k, K> {
    pub state: u32,
    pub key: u32,
    pub after: Option<&'k K>,
    pub before: Option<&'k K>,
    pub newest_first: bool,
    pub limit: usize,
}

/// A call whose reads fail cannot go on; it traps with what the host said, and the host decides what becomes of it.
#[expect(clippy::panic, reason = "handlers have no way to fail a call")]
fn granted<T>(answer: Result<T, String>) -> T {
    answer.unwrap_or_else(|error| panic!("the host refused a read of state: {error}"))
}

#[expect(clippy::panic, reason = "as above")]
fn well_formed<T>(read: Result<T, crate::value::Malformed>) -> T {
    read.unwrap_or_else(|malformed| panic!("the host sent malformed state: {}", malformed.0))
}

fn values_of<T: for<'a> ReadValue<'a>>(column: &Column) -> Vec<T> {
    let length = column.length as usize;
    let reader = well_formed(read_column::<T>(column, length));
    (0..length).map(|row| T::get(&reader, row)).collect()
}

/// The value of one key of a map, as the call began.
pub(crate) fn map_get<K: Value, V: for<'a> ReadValue<'a>>(state: u32, key: u32, map_key: &K) -> Option<V> {
    let column = granted(imports::get(state, &key.to_le_bytes(), &column_of_one(map_key)));
    let mut buffers = Buffers::of(&column);
    let reader = well_formed(<Option<V> as ReadValue<'_>>::reader(&mut buffers, 1));
    <Option<V> as ReadValue<'_>>::get(&reader, 0)
}

/// The entries of a range of a map, as the call began.
pub(crate) fn map_scan<K: for<'a> ReadValue<'a>, V: for<'a> ReadValue<'a>>(request: &Request<'_, K>) -> Vec<(K, V)> {
    let mut entries: Vec<(K, V)> = Vec::new();
    let (mut after, mut before) = (request.after.map(column_of_one), request.before.map(column_of_one));
    loop {
        let limit = u32::try_from(request.limit.saturating_sub(entries.len())).unwrap_or(0);
        let span =
            imports::Span { key: request.key, after: after.clone(), before: before.clone(), newest_first: request.newest_first, limit };
        let found = granted(imports::scan(request.state, &[span], SCAN_BYTES_MAX));
        let complete = is_complete(&found);
        let keys = found.map_keys.as_ref().map(values_of::<K>).unwrap_or_default();
        entries.extend(keys.into_iter().zip(values_of::<V>(&found.values)));
        let Some((last, _)) = entries.last().filter(|_| !complete && entries.len() < request.limit) else {
            return entries;
        };
        *(if request.newest_first { &mut before } else { &mut after }) = Some(column_of_one(last));
    }
}

/// All elements of a list, as the call began.
pub(crate) fn list_read<V: for<'a> ReadValue<'a>>(state: u32, key: u32) -> Vec<V> {
    let mut values = Vec::new();
    let mut after: Option<Column> = None;
    loop {
        let span = imports::Span { key, after: after.clone(), before: None, newest_first: false, limit: 0 };
        let found = granted(imports::scan(state, &[span], SCAN_BYTES_MAX));
        values.extend(values_of::<V>(&found.values));
        let positions = found.map_keys.as_ref().map(values_of::<u64>).unwrap_or_default();
        match positions.last() {
            Some(last) if !is_complete(&found) => after = Some(column_of_one(last)),
            _ => return values,
        }
    }
}

/// An answer with fewer bytes than were allowed is complete (`wit/README.md`).
fn is_complete(found: &imports::Found) -> bool {
    let bytes = |column: &Column| column.buffers.iter().map(Vec::len).sum::<usize>();
    found.map_keys.as_ref().map_or(0, bytes) + bytes(&found.values) < SCAN_BYTES_MAX as usize
}
