//! Every type of column comes back from a guest as it went in.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, FixedSizeListArray, Float64Array, Int8Array,
    Int64Array, LargeStringArray, ListArray, MapArray, StringArray, StructArray, TimestampMillisecondArray, UInt16Array,
    builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder},
    cast::AsArray as _,
    types::Int32Type,
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use millstream_model::types::type_text;
use millstream_wasm::{CallKeys, From, InputSchema, OperatorInstance, Rows};
use proptest::prelude::*;

use crate::{
    contract::{self, Buffers, Failure, InputPlan, Output, OutputPlan, State, Turn, Updates, ValueUpdate, field},
    nullable, opened, process,
    puppet::{Act, Puppet, copy, planned},
};

/// Where the canonical ABI puts the parts of `process`'s parameters.
mod argument {
    pub const LENGTH: u32 = 28;
    pub const COLUMNS: u32 = 32;
    pub const EVENT_TIMES: u32 = 40;
    pub const CHANGES: u32 = 48;
    pub const KEY_VALUES: u32 = 88;
}

/// A guest that emits the columns, event times and changes that it got, and says that all values changed to themselves.
async fn echo(columns: &[ArrayRef]) -> OperatorInstance {
    let fields: Vec<_> = (0..).zip(columns).map(|(index, column)| field(&format!("c{index}"), &type_text(column.data_type()))).collect();
    let mut plan = planned();
    plan.inputs = vec![InputPlan { reads: fields.clone(), keyed: false, event_times: true, changes: true }];
    plan.outputs = vec![OutputPlan { keeps: None, adds: fields, sets_event_times: true, changes: true }];
    let mut puppet = Puppet::new(plan, Turn::default());
    let output = Output { port: 0, from: vec![], length: 0, event_times: vec![], changes: vec![], columns: vec![] };
    let Act::Answer(answer) = puppet.answer::<Result<Turn, Failure>>(&Ok(Turn { outputs: vec![output], ..Turn::default() })) else {
        unreachable!("answers lie at an address");
    };
    // The outputs of the turn are its first field, behind the tag of the result.
    let output = u32::from_le_bytes(puppet.memory.bytes[answer as usize + 4..answer as usize + 8].try_into().expect("4 bytes"));
    // In `output`: port, from (2 words), length, event times (2), changes (2), columns (2).
    let moves = [
        (argument::LENGTH, output + 12),
        (argument::EVENT_TIMES, output + 16),
        (argument::EVENT_TIMES + 4, output + 20),
        (argument::CHANGES, output + 24),
        (argument::CHANGES + 4, output + 28),
        (argument::COLUMNS, output + 32),
        (argument::COLUMNS + 4, output + 36),
    ];
    let mut instructions: Vec<_> = moves.into_iter().flat_map(|(from, to)| copy(from, to)).collect();
    instructions.push(wasm_encoder::Instruction::I32Const(answer as i32));
    puppet.process = Act::Run(instructions);
    let fields = (0..).zip(columns).map(|(index, column)| nullable(&format!("c{index}"), column.data_type().clone())).collect();
    opened(puppet.component(), InputSchema { fields, keys: vec![], event_times: true, changes: true }).await.0
}

async fn assert_comes_back(columns: Vec<ArrayRef>) {
    let length = columns[0].len();
    let event_times: ScalarBuffer<i64> = (0..length as i64).collect();
    let changes: ScalarBuffer<u8> = (0..length).map(|row| (row % 4) as u8).collect();
    let mut instance = echo(&columns).await;
    let rows = Rows {
        length: length as u32,
        columns: columns.clone(),
        event_times: Some(event_times.clone()),
        changes: Some(changes.clone()),
        keys: None,
    };
    let turn = process(&mut instance, rows).await.expect("the answer is right");
    let output = &turn.outputs[0];
    assert_eq!(output.from, From::Identity);
    if length > 0 {
        assert_eq!(output.event_times, Some(event_times));
        assert_eq!(output.changes, Some(changes));
    }
    for (sent, came) in columns.iter().zip(&output.columns) {
        assert_eq!(sent, came);
        came.to_data().validate_full().expect("what came is sound");
    }
}

/// The arrays, whole and as slices that begin within a byte of their bitmaps.
async fn assert_whole_and_sliced_come_back(columns: Vec<ArrayRef>) {
    let length = columns[0].len();
    for (begin, end) in [(0, length), (1, length), (3, length - 1), (length, length)] {
        assert_comes_back(columns.iter().map(|column| column.slice(begin, end - begin)).collect()).await;
    }
}

#[tokio::test]
async fn fixed_width_columns_come_back() {
    let nulls = Some(NullBuffer::from(vec![true, false, true, true, false, true, true, true, true, false]));
    assert_whole_and_sliced_come_back(vec![
        Arc::new(BooleanArray::new((0..10).map(|i| i % 3 == 0).collect(), nulls.clone())),
        Arc::new(Int8Array::new((0..10).collect(), nulls.clone())),
        Arc::new(UInt16Array::from_iter_values(0..10)),
        Arc::new(Int64Array::new((0..10).collect(), nulls.clone())),
        Arc::new(Float64Array::from_iter_values((0..10).map(f64::from))),
        Arc::new(Decimal128Array::from_iter_values(0..10).with_precision_and_scale(20, 3).expect("fits")),
        Arc::new(TimestampMillisecondArray::from_iter_values(0..10).with_timezone("UTC")),
        Arc::new(FixedSizeBinaryArray::try_from_iter((0..10_u8).map(|i| [i; 3])).expect("fits")),
    ])
    .await;
}

#[tokio::test]
async fn text_and_bytes_come_back() {
    let words = ["", "a", "größe", "🦀🦀", "b", "", "c d", "ß", "x", "yz"];
    assert_whole_and_sliced_come_back(vec![
        Arc::new(StringArray::from_iter_values(words)),
        Arc::new(StringArray::from_iter(words.iter().map(|word| (!word.is_empty()).then_some(*word)))),
        Arc::new(LargeStringArray::from_iter_values(words)),
        Arc::new(BinaryArray::from_iter_values(words.iter().map(|word| [word.as_bytes(), b"\xff\0"].concat()))),
    ])
    .await;
}

#[tokio::test]
async fn nested_columns_come_back() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..10).map(|row| (row % 4 != 0).then(|| (0..row).map(Some).collect::<Vec<_>>())),
    );
    let pairs = FixedSizeListArray::new(
        Arc::new(Field::new_list_field(DataType::Int64, true)),
        2,
        Arc::new(Int64Array::from_iter_values(0..20)),
        None,
    );
    let inner = StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Int64, true)), Arc::new(Int64Array::from_iter_values(0..10)) as ArrayRef),
        (Arc::new(Field::new("l", list.data_type().clone(), true)), Arc::new(list.clone()) as ArrayRef),
    ]);
    let mut strings = ListBuilder::new(StringBuilder::new());
    (0..10).for_each(|row| strings.append_value((0..row % 3).map(|word| Some("word".repeat(word)))));
    assert_whole_and_sliced_come_back(vec![
        Arc::new(list),
        Arc::new(pairs),
        Arc::new(inner),
        Arc::new(strings.finish()),
        Arc::new(map_of_ten()),
    ])
    .await;
}

fn map_of_ten() -> MapArray {
    let names = arrow_array::builder::MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), Int32Builder::new());
    for row in 0..10 {
        for entry in 0..row % 3 {
            map.keys().append_value(format!("k{entry}"));
            map.values().append_option((entry == 0).then_some(row));
        }
        map.append(row % 4 != 3).expect("keys and values are equally long");
    }
    map.finish()
}

#[tokio::test]
async fn values_of_keys_travel_with_the_rows() {
    let mut plan = planned();
    plan.inputs[0].keyed = true;
    plan.states =
        vec![State { name: "seen".into(), kind: 0, scope: 0, map_key_type: None, value_type: "Utf8".into(), version: 1, ttl: None }];
    let mut puppet = Puppet::new(plan, Turn::default());
    let changed = ValueUpdate { state: 0, changed: vec![0b111], values: contract::Column { length: 3, buffers: Buffers::Of(vec![]) } };
    let updates = Updates { values: vec![changed], ..Updates::default() };
    let Act::Answer(answer) = puppet.answer::<Result<Turn, Failure>>(&Ok(Turn { updates, ..Turn::default() })) else {
        unreachable!("answers lie at an address");
    };
    // Behind the tag: outputs (2 words), then the list of value updates; in it: state, changed (2 words), values' length, values' buffers.
    let update = u32::from_le_bytes(puppet.memory.bytes[answer as usize + 12..answer as usize + 16].try_into().expect("4 bytes"));
    let mut instructions = Vec::new();
    for (offset, to) in [(4_u64, update + 16), (8, update + 20)] {
        use wasm_encoder::{Instruction, MemArg};
        let word = |offset: u64| MemArg { offset, align: 2, memory_index: 0 };
        instructions.extend([
            Instruction::I32Const(to as i32),
            Instruction::LocalGet(0),
            Instruction::I32Load(word(argument::KEY_VALUES.into())),
            Instruction::I32Load(word(offset)),
            Instruction::I32Store(word(0)),
        ]);
    }
    instructions.push(wasm_encoder::Instruction::I32Const(answer as i32));
    puppet.process = Act::Run(instructions);

    let mut input = crate::input(&[("n", DataType::Int64)]);
    input.keys = vec![0];
    let (mut instance, _) = opened(puppet.component(), input).await;
    let values: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), None, Some("three")]));
    let keys = CallKeys { length: 3, of_row: Some(vec![2, 0, 1, 2].into()), values: vec![values.clone()] };
    let turn = process(&mut instance, Rows { keys: Some(keys), ..crate::rows(4) }).await.expect("the answer is right");
    assert_eq!(&turn.updates.values[0].values, &values);
    assert_eq!(turn.updates.values[0].changed.count_set_bits(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_text_comes_back_from_any_slice(words in proptest::collection::vec(proptest::option::of(".{0,12}"), 1..60), from in 0_usize..60) {
        let column = StringArray::from(words);
        let from = from.min(column.len());
        let column: ArrayRef = Arc::new(column.slice(from, column.len() - from));
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(assert_comes_back(vec![column.clone()]));
        prop_assert!(column.as_string::<i32>().iter().count() == column.len());
    }
}
