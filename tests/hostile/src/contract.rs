//! The records of `wit/operator.wit` that a guest answers with, with their layout in its memory.

use crate::abi::{Memory, RawList, Value};

record!(Field { name: String, data_type: String, nullable: bool });
record!(Descriptor {
    name: String,
    version: String,
    summary: String,
    settings_schema: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    hints: Vec<Hint>,
});
record!(Hint { name: String, value: String });
record!(InputPlan { reads: Vec<Field>, keyed: bool, event_times: bool, changes: bool });
record!(OutputPlan { keeps: Option<u32>, adds: Vec<Field>, sets_event_times: bool, changes: bool });
record!(Ttl { ms: u64, clock: u8, refresh: u8 });
record!(State { name: String, kind: u8, scope: u8, map_key_type: Option<String>, value_type: String, version: u32, ttl: Option<Ttl> });
record!(Timer { name: String, clock: u8 });
record!(Planned { inputs: Vec<InputPlan>, outputs: Vec<OutputPlan>, states: Vec<State>, timers: Vec<Timer>, hints: Vec<Hint> });
record!(Column { length: u32, buffers: Buffers });
record!(Output { port: u32, from: Vec<u8>, length: u32, event_times: Vec<u8>, changes: Vec<u8>, columns: Vec<Column> });
record!(ValueUpdate { state: u32, changed: Vec<u8>, values: Column });
record!(MapUpdate { state: u32, keys: Vec<u8>, map_keys: Column, values: Column, deleted: Vec<u8> });
record!(ListUpdate { state: u32, cleared: Vec<u8>, keys: Vec<u8>, values: Column });
record!(TimerUpdate { timer: u32, keys: Vec<u8>, at: Vec<u8>, deleted: Vec<u8> });
record!(#[derive(Default)] Updates { values: Vec<ValueUpdate>, maps: Vec<MapUpdate>, lists: Vec<ListUpdate>, timers: Vec<TimerUpdate> });
record!(Rejected { row: u32, reason: String });
record!(#[derive(Default)] Turn { outputs: Vec<Output>, updates: Updates, rejected: Vec<Rejected> });

record!(Signature {
    reads: Vec<Field>,
    accumulator_type: String,
    version: u32,
    output: Field,
    merges: bool,
    hints: Vec<Hint>,
});

/// The buffers of a column, or what pretends to be.
#[derive(Clone)]
pub enum Buffers {
    Of(Vec<Vec<u8>>),
    /// This many buffers, all of them the same region of memory.
    Repeated(u32, Vec<u8>),
    /// One buffer at an address and of a length, whatever is there.
    At(u32, u32),
}

impl Value for Buffers {
    const SIZE: u32 = 8;
    const ALIGN: u32 = 4;
    fn store(&self, memory: &mut Memory, at: u32) {
        match self {
            Self::Of(buffers) => buffers.store(memory, at),
            Self::Repeated(count, region) => {
                let start = memory.put(region);
                let list: [u8; 8] = memory.bytes[start as usize..start as usize + 8].try_into().expect("8 bytes");
                let items = memory.allocate(8 * count, 4);
                (0..*count).for_each(|index| memory.set(items + 8 * index, &list));
                RawList(items, *count).store(memory, at);
            }
            Self::At(address, length) => vec![RawList(*address, *length)].store(memory, at),
        }
    }
}

/// `failure` of the contract.
#[derive(Clone)]
pub enum Failure {
    Retry(String),
    Fatal(String),
}

impl Value for Failure {
    const SIZE: u32 = 12;
    const ALIGN: u32 = 4;
    fn store(&self, memory: &mut Memory, at: u32) {
        let (case, message) = match self {
            Self::Retry(message) => (0_u8, message),
            Self::Fatal(message) => (1, message),
        };
        case.store(memory, at);
        message.store(memory, at + 4);
    }
}

pub fn field(name: &str, data_type: &str) -> Field {
    Field { name: name.into(), data_type: data_type.into(), nullable: true }
}

/// Numbers as the contract's bytes.
pub fn u32s(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub fn i64s(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A column of `Int64` without nulls.
pub fn int64(values: &[i64]) -> Column {
    Column { length: values.len() as u32, buffers: Buffers::Of(vec![vec![], i64s(values)]) }
}

/// A column of `Utf8` with these parts, whatever they are.
pub fn utf8(length: u32, offsets: &[u32], data: &[u8]) -> Column {
    Column { length, buffers: Buffers::Of(vec![vec![], u32s(offsets), data.to_vec()]) }
}
