//! Against bytes of another implementation, against bytes of nobody, and there and back.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    formats::{columns::Rows, ndjson},
    testing::{from_hex, schema as arrow, shown},
};

fn golden() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../golden/avro.json")).expect("JSON")
}

fn parse(schema: &Value) -> Schema {
    Schema::parse(&schema.to_string()).expect("a schema")
}

fn record(fields: Value) -> Schema {
    parse(&json!({ "type": "record", "name": "R", "fields": fields }))
}

/// The rows of values, as JSON.
fn read(schema: &Schema, columns: &SchemaRef, values: &[&[u8]]) -> Result<Vec<Value>, String> {
    let plan = Plan::new(schema, columns, None)?;
    let mut rows = Rows::new(columns.clone())?;
    values.iter().try_for_each(|value| plan.push(&mut rows, value))?;
    Ok(shown(&rows.finish()))
}

#[test]
fn values_of_fastavro_are_read_as_it_says_and_written_back_byte_for_byte() {
    for case in golden() {
        let schema = parse(&case["schema"]);
        let columns = columns(&schema).expect("columns");
        let bytes = from_hex(case["hex"].as_str().expect("text"));
        let rows = read(&schema, &columns, &[&bytes, &bytes]).expect("values");
        assert_eq!(rows, [case["value"].clone(), case["value"].clone()], "{case}");
        let plan = Plan::new(&schema, &columns, None).expect("a plan");
        let mut rows = Rows::new(columns.clone()).expect("columns of Avro");
        plan.push(&mut rows, &bytes).expect("a value");
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        Writer::new(&schema, &columns).expect("they fit").rows(&rows.finish(), &|_, _| {}, &mut out, &mut ends).expect("written");
        assert_eq!((out, ends), (bytes.clone(), vec![bytes.len()]), "{case}");
    }
}

#[test]
fn only_the_columns_that_are_asked_for_are_read_whatever_lies_between() {
    for case in golden() {
        let before = case["schema"]["fields"].clone();
        let mut fields = vec![json!({ "name": "first", "type": "long" })];
        fields.extend(before.as_array().expect("fields").iter().cloned());
        fields.push(json!({ "name": "last", "type": "string" }));
        let mut bytes = vec![14];
        bytes.extend(from_hex(case["hex"].as_str().expect("text")));
        bytes.extend(b"\x04ab");
        let wanted = arrow(&[("last", "Utf8"), ("first", "Int16")]);
        let rows = read(&record(json!(fields)), &wanted, &[&bytes]).expect("values");
        assert_eq!(rows, [json!({ "last": "ab", "first": 7 })], "{case}");
        assert_eq!(read(&record(json!(fields)), &arrow(&[]), &[&bytes]).expect("values").len(), 1);
    }
}

/// Of a value that cannot be read nothing may stay, however far it had got.
#[test]
fn every_beginning_of_a_value_is_refused_and_leaves_nothing_behind() {
    for case in golden() {
        let schema = parse(&case["schema"]);
        let columns = columns(&schema).expect("columns");
        let bytes = from_hex(case["hex"].as_str().expect("text"));
        let plan = Plan::new(&schema, &columns, None).expect("a plan");
        let mut rows = Rows::new(columns.clone()).expect("columns of Avro");
        for length in 0..bytes.len() {
            plan.push(&mut rows, &bytes[..length]).expect_err("it ends too early");
        }
        plan.push(&mut rows, &bytes).expect("whole");
        plan.push(&mut rows, &[&bytes[..], b"\0"].concat()).expect_err("a byte too much");
        assert_eq!(shown(&rows.finish()), [case["value"].clone()], "{case}");
    }
}

#[test]
fn absurd_lengths_take_neither_memory_nor_time() {
    let largest = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let smallest = [0xff; 9].into_iter().chain([0x01]).collect::<Vec<u8>>();
    let nulls = record(json!([{ "name": "a", "type": { "type": "array", "items": "null" } }]));
    let longs = record(json!([{ "name": "a", "type": { "type": "array", "items": "long" } }]));
    let text = record(json!([{ "name": "a", "type": "string" }]));
    let list = arrow(&[("a", "List(Int64)")]);
    let nothing = arrow(&[]);
    for (schema, columns) in [(&nulls, &list), (&nulls, &nothing), (&longs, &list), (&longs, &nothing), (&text, &arrow(&[("a", "Utf8")]))] {
        for number in [&largest[..], &smallest] {
            read(schema, columns, &[number]).expect_err("absurd");
            read(schema, columns, &[&[number, &[2, 2, 0][..]].concat()]).expect_err("absurd");
        }
    }
    assert!(read(&text, &arrow(&[("a", "Utf8")]), &[&[0xff; 32]]).expect_err("no number").contains("longer than 64 bits"));
}

#[test]
fn what_nests_within_itself_is_passed_over_but_not_for_ever() {
    let node = json!({ "type": "record", "name": "Node", "fields": [{ "name": "next", "type": ["null", "Node"] }] });
    let schema = record(json!([{ "name": "node", "type": node }, { "name": "id", "type": "long" }]));
    let id = arrow(&[("id", "Int64")]);
    assert_eq!(read(&schema, &id, &[&[2, 2, 0, 14]]).expect("three nodes"), [json!({ "id": 7 })]);
    let deep = [vec![2; 1_000_000], vec![0, 14]].concat();
    assert!(read(&schema, &id, &[&deep]).expect_err("too deep").contains("nests deeper than 64"));
    assert!(columns(&schema).expect_err("no columns").contains("within itself"));
    let own_default = json!({ "type": "record", "name": "N", "fields": [{ "name": "n", "type": "N", "default": {} }] });
    let reader = record(json!([{ "name": "id", "type": "long" }, { "name": "n", "type": own_default, "default": {} }]));
    let wanted = arrow(&[("id", "Int64"), ("n", "Struct(\"n\": Int64)")]);
    Plan::new(&record(json!([{ "name": "id", "type": "long" }])), &wanted, Some(&reader)).expect_err("a default without end");
}

/// The same bytes on every machine, some of them close to real values.
#[test]
fn bytes_of_nobody_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(0x0a7e_0001);
    let cases = golden();
    for round in 0..20_000 {
        let case = &cases[round % cases.len()];
        let schema = parse(&case["schema"]);
        let columns = columns(&schema).expect("columns");
        let mut bytes = from_hex(case["hex"].as_str().expect("text"));
        for _ in 0..1 + random.next_u32() % 4 {
            let at = random.next_u32() as usize % (bytes.len() + 1);
            match random.next_u32() % 3 {
                0 => bytes.insert(at, random.next_u32() as u8),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = random.next_u32() as u8,
                _ => {}
            }
        }
        let plan = Plan::new(&schema, &columns, None).expect("a plan");
        let mut rows = Rows::new(columns.clone()).expect("columns of Avro");
        let read = plan.push(&mut rows, &bytes);
        assert_eq!(rows.finish().num_rows(), usize::from(read.is_ok()));
    }
}

#[test]
fn a_field_that_the_writer_has_not_takes_the_default_of_the_reader_or_is_null() {
    let writer = record(json!([{ "name": "id", "type": "long" }]));
    let reader = record(json!([
        { "name": "id", "type": "long" },
        { "name": "unit", "type": "string", "default": "km" },
        { "name": "tags", "type": { "type": "map", "values": ["null", "long"] }, "default": { "a": 1, "b": null } }
    ]));
    let note = arrow(&[("note", "Utf8?")]).fields().to_vec();
    let wanted = Arc::new(arrow_schema::Schema::new([columns(&reader).expect("columns").fields().to_vec(), note].concat()));
    let plan = Plan::new(&writer, &wanted, Some(&reader)).expect("a plan");
    let mut rows = Rows::new(wanted).expect("columns of Avro");
    plan.push(&mut rows, &[14]).expect("a value");
    assert_eq!(shown(&rows.finish()), [json!({ "id": 7, "unit": "km", "tags": { "a": 1, "b": null }, "note": null })]);
    let error = Plan::new(&writer, &arrow(&[("unit", "Utf8")]), None).expect_err("no default");
    assert_eq!(error, "column unit is declared without `?`, and the schema of the values has no such field");
}

#[test]
fn what_would_lose_something_is_refused_with_both_types() {
    let schema = record(json!([{ "name": "a", "type": { "type": "long", "logicalType": "timestamp-micros" } }]));
    let error = |text: &str| Plan::new(&schema, &arrow(&[("a", text)]), None).expect_err("it does not fit");
    assert_eq!(
        error("Timestamp(ms, \"UTC\")"),
        "column a: it is a timestamp in microseconds in the schema of the values, which is not read as Timestamp(ms, \"UTC\")"
    );
    let finer = read(&schema, &arrow(&[("a", "Timestamp(ns, \"UTC\")")]), &[&[2]]).expect("a finer unit");
    assert_eq!(finer, [json!({ "a": "1970-01-01T00:00:00.000001000Z" })]);
    let largest = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    read(&schema, &arrow(&[("a", "Timestamp(ns, \"UTC\")")]), &[&largest]).expect_err("beyond all nanoseconds");
    let union = record(json!([{ "name": "a", "type": ["long", "string"] }]));
    assert!(columns(&union).expect_err("two types").contains("union of several types"));
    assert_eq!(read(&union, &arrow(&[("a", "Int64")]), &[&[0, 14]]).expect("the first branch"), [json!({ "a": 7 })]);
    assert!(read(&union, &arrow(&[("a", "Int64")]), &[&[2, 2, 97]]).expect_err("the second branch").contains("string"));
}

/// Every type that a sink may meet: columns → schema made of them → bytes → columns.
#[test]
fn columns_come_back_from_the_schema_that_is_made_of_them() {
    let columns = arrow(&[
        ("i8", "Int8"),
        ("u32", "UInt32?"),
        ("i64", "Int64?"),
        ("f", "Float32"),
        ("b", "Boolean?"),
        ("t", "Utf8?"),
        ("d", "Date32?"),
        ("ts_s", "Timestamp(s, \"UTC\")?"),
        ("ts_us", "Timestamp(µs)?"),
        ("l", "List(Int64)?"),
        ("s", "Struct(\"x\": Int32, \"y\": List(Utf8))?"),
        ("dec", "Decimal128(12, 3)?"),
        ("bin", "Binary?"),
        ("tm", "Time32(ms)?"),
    ]);
    let lines = [
        json!({ "i8": -3, "u32": 4294967295_u32, "i64": 5, "f": 0.25, "b": true, "t": "x", "d": "2020-02-29", "ts_s": "2013-01-01T05:15:00Z",
            "ts_us": "2013-01-01T05:15:00.000001", "l": [1, null], "s": { "x": 1, "y": ["a"] }, "dec": -1.5, "bin": "AP8=", "tm": "01:02:03.004" }),
        json!({ "i8": 0, "f": 1.0 }),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut reader =
        ndjson::Reader::new(columns.clone(), &vec![crate::formats::values::TimestampFormat::Standard; 14]).expect("columns of JSON");
    use crate::formats::text::{ScanLimits, TextFormat as _};
    reader.scan(text.as_bytes(), ScanLimits { records: 9, last: true, stop_at: usize::MAX, record_bytes: usize::MAX });
    let decoded = reader.decode(text.as_bytes());
    assert_eq!(decoded.bad, []);
    let schema = derived(&columns, "a.b.Row").expect("a schema");
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    Writer::new(&schema, &columns).expect("it was made of them").rows(&decoded.columns, &|_, _| {}, &mut out, &mut ends).expect("written");
    let plan = Plan::new(&schema, &columns_for(&columns), None).expect("a plan");
    let mut rows = Rows::new(columns_for(&columns)).expect("columns of Avro");
    let mut start = 0;
    for end in ends {
        plan.push(&mut rows, &out[start..end]).expect("a value");
        start = end;
    }
    let back = shown(&rows.finish());
    let mut expected = shown(&decoded.columns);
    for (row, back) in expected.iter_mut().zip(&back) {
        row["ts_s"] = back["ts_s"].clone();
    }
    assert_eq!(back, expected);
    assert_eq!(back[0]["ts_s"], json!("2013-01-01T05:15:00.000Z"), "seconds are written as ms, which Avro knows");
}

/// Seconds are no unit of Avro, so they are read in ms.
fn columns_for(columns: &SchemaRef) -> SchemaRef {
    let field = |field: &Arc<arrow_schema::Field>| match field.data_type() {
        arrow_schema::DataType::Timestamp(arrow_schema::TimeUnit::Second, zone) => {
            let finer = arrow_schema::DataType::Timestamp(arrow_schema::TimeUnit::Millisecond, zone.clone());
            Arc::new(field.as_ref().clone().with_data_type(finer))
        }
        _ => field.clone(),
    };
    Arc::new(arrow_schema::Schema::new(columns.fields().iter().map(field).collect::<Vec<_>>()))
}

#[test]
fn columns_without_a_field_and_fields_without_a_default_are_refused() {
    let schema = record(json!([{ "name": "id", "type": "long" }, { "name": "unit", "type": "string", "default": "km" }]));
    let writer = Writer::new(&schema, &arrow(&[("id", "Int64")])).expect("the default fills the other");
    let batch = arrow_array::RecordBatch::try_new(arrow(&[("id", "Int64")]), vec![Arc::new(arrow_array::Int64Array::from(vec![7]))])
        .expect("a column");
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    writer.rows(&batch, &|_, _| {}, &mut out, &mut ends).expect("written");
    assert_eq!(out, b"\x0e\x04km");
    let refused = |columns: &[(&str, &str)]| Writer::new(&schema, &arrow(columns)).expect_err("it does not fit");
    assert_eq!(refused(&[("id", "Int64"), ("x", "Int64")]), "column x is no field of the schema: leave it out with `select`");
    assert_eq!(refused(&[("unit", "Utf8")]), "field id of the schema has no default, and no column fills it");
    assert_eq!(refused(&[("id", "Int64?")]), "column id: it may be null (`?`), and its field in the schema may not");
    assert_eq!(
        derived(&arrow(&[("a-b", "Int64")]), "R").expect_err("no name"),
        "column a-b has no name that Avro knows (letters, digits and _): rename it with `select` before"
    );
    derived(&arrow(&[("a", "UInt64")]), "R").expect_err("Avro has no such numbers");
}
