//! Avro files as a source: against files of other implementations, and at every position.

use arrow_array::RecordBatch;

use super::*;
use crate::testing::shown;

const NULL: &[u8] = include_bytes!("../../../golden/avro/null.avro");
const DEFLATE: &[u8] = include_bytes!("../../../golden/avro/deflate.avro");
const SNAPPY: &[u8] = include_bytes!("../../../golden/avro/snappy.avro");
const ZSTANDARD: &[u8] = include_bytes!("../../../golden/avro/zstandard.avro");
const POLARS: &[u8] = include_bytes!("../../../golden/avro/polars.avro");

fn golden_rows() -> Vec<Value> {
    let text = include_str!("../../../golden/avro/rows.ndjson");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn rows_of(source: &dyn Source) -> Vec<Value> {
    let everything = read_all(source, 7).await.expect("reads");
    assert_eq!(everything.rejected, []);
    assert_eq!(everything.positions(), (0..50).collect::<Vec<_>>());
    let rows: RecordBatch = everything.rows(&source.schema());
    shown(&rows)
}

#[tokio::test]
async fn files_of_fastavro_are_read_in_every_codec_and_from_every_position() {
    for content in [NULL, DEFLATE, SNAPPY, ZSTANDARD] {
        let directory = directory(&[("a.avro", content)]);
        let source = source(&directory, json!({ "path": "a.avro" }), None);
        assert_eq!(types(&*source)[..4], ["id Int64", "tail Utf8", "at Timestamp(ms, \"UTC\")", "delay Float64"]);
        assert_eq!(rows_of(&*source).await, golden_rows());
        for rows_max in [1, 7, 8_192] {
            check_resuming(&*source, rows_max).await;
        }
    }
}

#[tokio::test]
async fn a_file_of_polars_is_read_as_it_says() {
    let directory = directory(&[("a.avro", POLARS)]);
    let source = source(&directory, json!({ "path": "a.avro" }), None);
    assert_eq!(types(&*source), ["id Int64", "tail Utf8", "at Timestamp(ms)", "delay Float64"]);
    let expected: Vec<Value> = golden_rows()
        .into_iter()
        .map(|row| json!({ "id": row["id"], "tail": row["tail"], "at": row["at"].as_str().expect("text").trim_end_matches('Z'), "delay": row["delay"] }))
        .collect();
    assert_eq!(rows_of(&*source).await, expected);
}

#[tokio::test]
async fn only_the_columns_that_are_asked_for_are_read() {
    let directory = directory(&[("a.avro", ZSTANDARD)]);
    let source = source(&directory, json!({ "path": "a.avro" }), None);
    let expected: Vec<Value> = golden_rows().into_iter().map(|row| json!({ "stops": row["stops"], "id": row["id"] })).collect();
    assert_eq!(rows_of(&*source.project(&[5, 0])).await, expected);
    check_resuming(&*source.project(&[5, 0]), 3).await;
    assert_eq!(read_all(&*source.project(&[]), 8).await.expect("reads").positions().len(), 50, "rows are counted without columns");
}

#[tokio::test]
async fn rows_that_do_not_fit_the_declared_columns_are_rejected_and_the_others_flow() {
    let directory = directory(&[("a.avro", DEFLATE)]);
    let declared = schema(&[("tail", "Utf8"), ("id", "Int8"), ("note", "Utf8?")]);
    let source = source(&directory, json!({ "path": "a.avro" }), Some(declared));
    let everything = read_all(&*source, 20).await.expect("reads");
    assert_eq!(everything.positions(), (0..50).filter(|number| number % 7 != 0).collect::<Vec<_>>());
    assert_eq!(shown(&everything.rows(&source.schema()))[0], json!({ "tail": "N00001", "id": 1, "note": null }));
    let positions: Vec<u64> = everything.rejected.iter().filter_map(|rejection| rejection.position).collect();
    assert_eq!(positions, [0, 7, 14, 21, 28, 35, 42, 49]);
    let first = &everything.rejected[0];
    assert_eq!((first.reason.as_str(), first.source.as_deref()), ("column tail: null in a column declared without `?`", Some("a.avro")));
    assert_eq!(serde_json::from_str::<Value>(&first.row).expect("JSON"), golden_rows()[0], "the whole row, not only what was asked for");
    check_resuming(&*source, 4).await;
}

#[tokio::test]
async fn files_of_several_schemas_are_read_each_in_its_own() {
    let newer = br#"{"type":"record","name":"Row","fields":[{"name":"note","type":"string"},{"name":"id","type":"int"}]}"#;
    let other = br#"{"type":"record","name":"Row","fields":[{"name":"id","type":"string"}]}"#;
    let file = |schema: &[u8], block: &[u8]| {
        let marker = [7; 16];
        [&b"Obj\x01\x02\x16avro.schema"[..], &varint(schema.len()), schema, &[0], &marker, &[2], &varint(block.len()), block, &marker]
            .concat()
    };
    let files = [("a.avro", DEFLATE.to_vec()), ("b.avro", file(newer, b"\x04hi\x0e")), ("c.avro", file(other, b"\x04no"))];
    let directory = directory(&files.each_ref().map(|(name, content)| (*name, &content[..])));
    let declared = schema(&[("id", "Int64"), ("note", "Utf8?")]);
    let both = source(&directory, json!({ "path": ["a.avro", "b.avro"] }), Some(declared.clone()));
    let rows = shown(&read_all(&*both, 100).await.expect("reads").rows(&declared));
    assert_eq!(rows.len(), 51);
    assert_eq!(rows[49..], [json!({ "id": 49, "note": null }), json!({ "id": 7, "note": "hi" })]);
    let all = source(&directory, json!({ "path": "*.avro" }), Some(declared.clone()));
    let error = read_all(&*all, 100).await.expect_err("text is no number");
    assert_eq!(error.to_string(), "c.avro cannot be read: column id: it is string in the schema of the values, which is not read as Int64");
    let refused = problems(&directory, json!({ "path": "c.avro" }), Some(declared));
    assert_eq!(refused, ["path: c.avro: column id: it is string in the schema of the values, which is not read as Int64"]);
}

/// A length as Avro writes it.
fn varint(length: usize) -> Vec<u8> {
    let mut left = length * 2;
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// A download that broke off: what is whole is read, then the file and the byte are named.
#[tokio::test]
async fn a_file_that_is_cut_off_gives_its_whole_blocks_and_then_an_error() {
    let rows = golden_rows();
    let mut whole = 0;
    for length in 500..DEFLATE.len() {
        let directory = directory(&[("a.avro", &DEFLATE[..length])]);
        let (settings, declared) = (json!({ "path": "a.avro" }), Some(schema(&[("id", "Int64")])));
        if length < HEADER_BYTES {
            let problem = format!("path: a.avro is cut off: the header is not complete at byte {length}, where the file ends");
            assert_eq!(problems(&directory, settings, declared), [problem]);
            continue;
        }
        let source = source(&directory, settings, declared);
        let split = source.splits(1).await.expect("splits").remove(0);
        let mut reader = source.open(&split, None).await.expect("its header is whole");
        let mut everything = Everything::default();
        match everything.drain(&mut *reader, 3).await {
            // Between two blocks nothing says that there were more.
            Ok(()) => whole += 1,
            Err(error) => {
                assert_eq!(error.to_string(), format!("a.avro is cut off: a block is not complete at byte {length}, where the file ends"));
            }
        }
        let read = everything.positions().len();
        assert_eq!(everything.positions(), (0..read as u64).collect::<Vec<_>>());
        assert!(read < rows.len() && everything.rejected.is_empty());
    }
    assert_eq!(whole, BLOCKS, "a file may end behind its header and behind every block");
}

/// Of the files of fastavro but the one without codec.
const BLOCKS: usize = 5;
const ROWS_PER_BLOCK: usize = 10;
/// Of [`DEFLATE`].
const HEADER_BYTES: usize = 656;

#[tokio::test]
async fn a_damaged_block_is_an_error_that_names_file_and_byte_and_nothing_of_it_is_read() {
    let marker: Vec<u8> = (0xF0..=0xFF).collect();
    let ends: Vec<usize> = memchr::memmem::find_iter(SNAPPY, &marker).collect();
    assert_eq!(ends.len(), 1 + BLOCKS, "behind the header and each block");
    for (number, &end) in ends.iter().enumerate().skip(1) {
        let mut content = SNAPPY.to_vec();
        content[end + 15] ^= 1;
        let begin = ends[number - 1] + 16;
        let expected =
            format!("a.avro is damaged at byte {end}: the marker behind the block that begins at byte {begin} is not that of the file");
        assert_eq!(read_damaged(&content, number).await, expected);
        // Within the block: its checksum does not fit.
        let mut content = SNAPPY.to_vec();
        content[end - 1] ^= 1;
        let expected = format!("a.avro is damaged at byte {begin}: its content cannot be decompressed: its checksum is another");
        assert_eq!(read_damaged(&content, number).await, expected);
    }
}

/// The error, after the rows of the blocks before this one.
async fn read_damaged(content: &[u8], block: usize) -> String {
    let directory = directory(&[("a.avro", content)]);
    let source = source(&directory, json!({ "path": "a.avro" }), Some(schema(&[("id", "Int64")])));
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    let mut everything = Everything::default();
    let error = everything.drain(&mut *reader, 1_000).await.expect_err("damaged");
    assert_eq!(everything.positions().len(), (block - 1) * ROWS_PER_BLOCK);
    // A job that goes on from a checkpoint before the damage meets it again.
    let mut again = source.open(&split, Some(&reader.position())).await.expect("opens");
    assert_eq!(again.read(1_000).await.expect_err("damaged").to_string(), error.to_string());
    error.to_string()
}
