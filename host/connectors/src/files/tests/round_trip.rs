//! What is written is read back the same, in every format and compression, at every batch size.

use arrow_array::{ArrayRef, RecordBatch, cast::AsArray, types::*};
use arrow_schema::{DataType, TimeUnit};
use millstream_model::types::parse_type;
use proptest::prelude::*;

use super::*;

/// One column of each type that a format can hold.
const SCALARS: [&str; 24] = [
    "Boolean",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt64",
    "Float32",
    "Float64",
    "Utf8",
    "LargeUtf8",
    "Binary",
    "LargeBinary",
    "FixedSizeBinary(3)",
    "Date32",
    "Date64",
    "Time32(s)",
    "Time32(ms)",
    "Time64(µs)",
    "Timestamp(s)",
    "Timestamp(ms, \"UTC\")",
    "Timestamp(ns)",
    "Duration(ms)",
    "Decimal128(20, 3)",
];
const NESTED: [&str; 4] = [
    "List(Utf8)",
    "Struct(\"a\": Int64, \"b\": List(Float64))",
    "FixedSizeList(2 x Int32)",
    "Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Int64), unsorted)",
];

/// Avro has no others, or stores them as one of these.
const AVRO: [&str; 23] = [
    "Boolean",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt32",
    "Float32",
    "Float64",
    "Utf8",
    "LargeUtf8",
    "Binary",
    "LargeBinary",
    "FixedSizeBinary(3)",
    "Date32",
    "Time32(ms)",
    "Timestamp(ms, \"UTC\")",
    "Timestamp(ns)",
    "Duration(ms)",
    "Decimal128(20, 3)",
    NESTED[0],
    NESTED[1],
    NESTED[3],
];

/// JSON that means a value of the type; made from one random number and one text.
fn value(data_type: &DataType, number: i64, text: &str) -> Value {
    use DataType as D;
    let positive = number.unsigned_abs();
    match data_type {
        D::Boolean => json!(number % 2 == 0),
        D::Int8 => json!(number as i8),
        D::Int16 => json!(number as i16),
        D::Int32 => json!(number as i32),
        D::UInt8 => json!(number as u8),
        D::UInt32 => json!(number as u32),
        D::Int64 | D::Duration(_) => json!(number),
        D::UInt64 => json!(positive),
        D::Float32 => json!(number as f32 / 3.0),
        D::Float64 => json!(number as f64 / 7.0),
        D::Utf8 | D::LargeUtf8 => json!(text),
        D::Binary | D::LargeBinary => json!(arrow_cast::base64::Engine::encode(&arrow_cast::base64::BASE64_STANDARD, text)),
        D::FixedSizeBinary(_) => {
            json!(arrow_cast::base64::Engine::encode(&arrow_cast::base64::BASE64_STANDARD, &positive.to_le_bytes()[..3]))
        }
        D::Date32 | D::Date64 => json!(format!("{:04}-{:02}-{:02}", 1 + positive % 9_998, 1 + positive % 12, 1 + positive % 28)),
        D::Time32(_) | D::Time64(_) => json!(format!("{:02}:{:02}:{:02}", positive % 24, positive % 60, positive % 59)),
        D::Timestamp(TimeUnit::Nanosecond, _) => json!(number),
        D::Timestamp(TimeUnit::Second, _) => json!(number % 60_000_000_000),
        D::Timestamp(..) => json!(number % 60_000_000_000_000),
        D::Decimal128(..) => json!(format!("{}.{:03}", number % 10_000_000_000, positive % 1_000)),
        D::List(item) => json!([value(item.data_type(), number, text), null, value(item.data_type(), number / 2, "")]),
        D::FixedSizeList(item, _) => json!([value(item.data_type(), number, text), value(item.data_type(), number / 3, "")]),
        D::Struct(fields) => fields
            .iter()
            .map(|field| (field.name().clone(), value(field.data_type(), number, text)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        D::Map(..) => json!({ text: number, "another": 7 }),
        other => unreachable!("no value of {other}"),
    }
}

fn random_batch(types: &[&str], rows: &[(i64, String, Vec<bool>)]) -> Batch {
    let columns: Vec<(String, String)> =
        types.iter().enumerate().map(|(number, text)| (format!("c{number}"), format!("{text}?"))).collect();
    let columns: Vec<(&str, &str)> = columns.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let parsed: Vec<DataType> = types.iter().map(|text| parse_type(text).expect("a type")).collect();
    let line = |(number, text, present): &(i64, String, Vec<bool>)| {
        let members = parsed.iter().enumerate().filter(|(column, _)| present[*column]);
        let members = members.map(|(column, data_type)| (format!("c{column}"), value(data_type, *number, text)));
        Value::Object(members.collect()).to_string()
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    batch(&columns, &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

fn rows_strategy(columns: usize) -> impl Strategy<Value = Vec<(i64, String, Vec<bool>)>> {
    let text = prop_oneof!["[a-z]{0,5}", "[\\PC\"',;\n\r\t\\\\]{0,12}", Just(String::new()), Just("NA".to_owned())];
    prop::collection::vec((any::<i64>(), text, prop::collection::vec(prop::bool::weighted(0.8), columns)), 1..60)
}

async fn write(directory: &TempDir, settings: &Value, batch: &Batch) {
    let sink = plan_sink(&FilesSink, settings, directory.path(), batch.schema(), false).expect("the settings are right");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    let middle = batch.num_rows() / 2;
    writer.write(&batch.slice(0..middle)).await.expect("writes");
    writer.write(&batch.slice(middle..batch.num_rows())).await.expect("writes");
    writer.finish().await.expect("publishes");
}

fn check(types: &[&str], rows: &[(i64, String, Vec<bool>)], write_settings: Value, rows_max: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    runtime.block_on(async {
        let written = random_batch(types, rows);
        let directory = directory(&[]);
        write(&directory, &write_settings, &written).await;
        let source = source(&directory, json!({ "path": "out", "format": write_settings["format"] }), Some(written.schema()));
        let everything = read_all(&*source, rows_max).await.expect("reads");
        assert_eq!(everything.rejected, []);
        let read = everything.rows(&written.schema());
        for (index, field) in written.schema().fields().iter().enumerate() {
            assert_eq!(read.column(index), written.column(index), "{field}");
        }
        assert_eq!(everything.positions(), (0..written.num_rows() as u64).collect::<Vec<_>>());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn csv(rows in rows_strategy(SCALARS.len()), compression in prop::sample::select(vec!["none", "gzip", "zstd"]), rows_max in 1_usize..70) {
        check(&SCALARS, &rows, json!({ "path": "out", "format": "csv", "compression": compression }), rows_max);
    }

    #[test]
    fn ndjson(
        rows in rows_strategy(SCALARS.len() + NESTED.len()), compression in prop::sample::select(vec!["none", "gzip", "zstd"]),
        nulls in prop::sample::select(vec!["write", "omit"]), rows_max in 1_usize..70,
    ) {
        let types = [&SCALARS[..], &NESTED[..]].concat();
        check(&types, &rows, json!({ "path": "out", "format": "ndjson", "compression": compression, "nulls": nulls }), rows_max);
    }

    #[test]
    fn parquet(rows in rows_strategy(SCALARS.len() + NESTED.len()), rows_max in 1_usize..70) {
        let types = [&SCALARS[..], &NESTED[..]].concat();
        check(&types, &rows, json!({ "path": "out", "format": "parquet" }), rows_max);
    }

    #[test]
    fn avro(
        rows in rows_strategy(AVRO.len()), codec in prop::sample::select(vec!["none", "deflate", "snappy", "zstandard"]), rows_max in 1_usize..70,
    ) {
        check(&AVRO, &rows, json!({ "path": "out", "format": "avro", "codec": codec }), rows_max);
    }

    /// A column alone: an empty line is a null there.
    #[test]
    fn csv_of_one_column(rows in rows_strategy(1), data_type in prop::sample::select(SCALARS.to_vec())) {
        check(&[data_type], &rows, json!({ "path": "out", "format": "csv" }), 7);
    }
}

#[tokio::test]
async fn parquet_is_resumed_at_any_row_and_converts_to_declared_types() {
    let directory = directory(&[]);
    let lines: Vec<String> =
        (0..100).map(|number| format!(r#"{{"n":{},"s":"{number}"}}"#, if number % 9 == 0 { 300 } else { number })).collect();
    let rows = batch(&[("n", "Int64"), ("s", "Utf8?")], &lines.iter().map(String::as_str).collect::<Vec<_>>());
    write(&directory, &json!({ "path": "out", "format": "parquet" }), &rows).await;
    let own = source(&directory, json!({ "path": "out/*.parquet" }), None);
    assert_eq!(types(&*own), ["n Int64", "s Utf8"]);
    check_resuming(&*own, 7).await;
    let declared = source(&directory, json!({ "path": "out/*.parquet" }), Some(schema(&[("s", "Int32"), ("n", "Int8")])));
    check_resuming(&*declared, 7).await;
    let everything = read_all(&*declared, 100).await.expect("reads");
    assert_eq!(everything.positions().len(), 100 - 12);
    assert_eq!(everything.rejected.len(), 12);
    assert_eq!(everything.rejected[1].position, Some(9));
    assert_eq!(everything.rejected[1].row, r#"{"n":300,"s":"9"}"#);
    assert!(everything.rejected[1].reason.starts_with("column n: "), "{}", everything.rejected[1].reason);
    let rows: RecordBatch = everything.rows(&declared.schema());
    let column: &ArrayRef = rows.column(0);
    assert_eq!(column.as_primitive::<Int32Type>().value(0), 1);
}
