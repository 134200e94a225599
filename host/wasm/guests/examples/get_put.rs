//! The keyed count by the protocol that the contract did not take, for comparison: no values travel with the batch. The guest finds the
//! distinct keys of its rows, gets all their values with one call of the host, and puts them back with its answer.
//!
//! It is written on the bindings, and its state is one ordered map with the keys as map keys, since the contract has no other bulk read.
//!
//! On the machine's own target it is empty: the names that the bindings export are no names for a linker there.

#![cfg(target_arch = "wasm32")]

use millstream::bindings::{
    Column, Field, Input, Moment,
    exports::{Descriptor, DueTimers, Failure, Guest, InputPlan, MapUpdate, Planned, Rows, State, StateKind, StateScope, Turn, Updates},
    operator::millstream::operator::collections,
};

struct GetPut;

millstream::bindings::operator::__export_operator!(GetPut with_types_in millstream::bindings::operator);

impl Guest for GetPut {
    fn describe() -> Descriptor {
        Descriptor {
            name: "get-put".into(),
            version: "1.0.0".into(),
            summary: "Counts and sums per key, by bulk reads and writes.".into(),
            settings_schema: String::new(),
            inputs: vec!["rows".into()],
            outputs: Vec::new(),
            hints: Vec::new(),
        }
    }

    fn plan(_settings: String, _inputs: Vec<Input>) -> Result<Planned, String> {
        let field = |name: &str| Field { name: name.into(), data_type: "Int64".into(), nullable: false };
        let total = State {
            name: "total".into(),
            kind: StateKind::OrderedMap,
            scope: StateScope::Keyed,
            map_key_type: Some("Int64".into()),
            value_type: r#"Struct("count": non-null UInt64, "sum": non-null Int64)"#.into(),
            version: 1,
            ttl: None,
        };
        let input = InputPlan { reads: vec![field("key"), field("number")], keyed: true, event_times: false, changes: false };
        Ok(Planned { inputs: vec![input], outputs: Vec::new(), states: vec![total], timers: Vec::new(), hints: Vec::new() })
    }

    fn open(_settings: String, _inputs: Vec<Input>) -> Result<(), String> {
        Ok(())
    }

    fn process(_now: Moment, _port: u32, rows: Rows) -> Result<Turn, Failure> {
        let [keys, numbers] = rows.columns.as_slice() else { return Err(Failure::Fatal("not the columns that are read".into())) };
        let distinct = Distinct::of(words(keys, 1));
        let owner = vec![0; 4 * distinct.keys.len()];
        let map_keys = column(distinct.keys.len(), vec![bytes(distinct.keys.iter().map(|key| key.to_le_bytes()))]);
        let found = collections::get(0, &owner, &map_keys).map_err(Failure::Fatal)?;
        let (mut counts, mut sums) = (values(&found, 2), values(&found, 4));
        for (&key, number) in distinct.of_row.iter().zip(words(numbers, 1)) {
            counts[key as usize] += 1;
            sums[key as usize] = sums[key as usize].wrapping_add(number);
        }
        let [counts, sums] = [counts, sums].map(|values| bytes(values.into_iter().map(i64::to_le_bytes)));
        let values = Column { length: map_keys.length, buffers: vec![Vec::new(), Vec::new(), counts, Vec::new(), sums] };
        let put = MapUpdate { state: 0, keys: owner, map_keys, values, deleted: Vec::new() };
        let updates = Updates { values: Vec::new(), maps: vec![put], lists: Vec::new(), timers: Vec::new() };
        Ok(Turn { outputs: Vec::new(), updates, rejected: Vec::new() })
    }

    fn on_timers(_now: Moment, _due: DueTimers) -> Result<Turn, Failure> {
        Err(Failure::Fatal("it sets no timers".into()))
    }
}

/// The 8-byte words of a buffer.
fn words(column: &Column, buffer: usize) -> impl Iterator<Item = i64> {
    column.buffers[buffer].as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word))
}

/// One number per value found; 0 where there is none.
fn values(found: &Column, buffer: usize) -> Vec<i64> {
    let validity = &found.buffers[0];
    let is_there = |index: usize| validity.is_empty() || validity[index / 8] >> (index % 8) & 1 == 1;
    words(found, buffer).enumerate().map(|(index, word)| if is_there(index) { word } else { 0 }).collect()
}

fn bytes(words: impl Iterator<Item = [u8; 8]>) -> Vec<u8> {
    words.flatten().collect()
}

/// A column without nulls.
fn column(length: usize, mut buffers: Vec<Vec<u8>>) -> Column {
    buffers.insert(0, Vec::new());
    Column { length: length as u32, buffers }
}

/// The distinct keys of a batch, in the order of their first rows, and the number of the key of each row.
struct Distinct {
    keys: Vec<i64>,
    of_row: Vec<u32>,
}

impl Distinct {
    /// By open addressing, with a hash of one multiplication.
    fn of(keys: impl Iterator<Item = i64>) -> Self {
        const FREE: u32 = u32::MAX;
        let keys: Vec<i64> = keys.collect();
        let places = (2 * keys.len()).next_power_of_two().max(2);
        let mut table = vec![FREE; places];
        let mut distinct = Self { keys: Vec::with_capacity(keys.len()), of_row: Vec::with_capacity(keys.len()) };
        for key in keys {
            let hash = key.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut place = (hash >> 32) as usize & (places - 1);
            while table[place] != FREE && distinct.keys[table[place] as usize] != key {
                place = (place + 1) & (places - 1);
            }
            if table[place] == FREE {
                table[place] = distinct.keys.len() as u32;
                distinct.keys.push(key);
            }
            distinct.of_row.push(table[place]);
        }
        distinct
    }
}
