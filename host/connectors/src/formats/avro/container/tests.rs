//! Bytes of nobody, and files that the reader was not told the truth about.

use std::{
    io::{Seek as _, Write as _},
    sync::Arc,
};

use arrow_schema::SchemaRef;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng as _;
use serde_json::{Value, json};

use super::{
    super::{Plan, Schema, columns, write::long},
    *,
};
use crate::{
    formats::columns::Rows as Filled,
    testing::{schema as arrow, shown},
};

const NULL: &[u8] = include_bytes!("../../../../golden/avro/null.avro");
const GOLDEN: [&[u8]; 4] = [
    NULL,
    include_bytes!("../../../../golden/avro/deflate.avro"),
    include_bytes!("../../../../golden/avro/snappy.avro"),
    include_bytes!("../../../../golden/avro/zstandard.avro"),
];
const MARKER: Marker = *b"sixteen bytes...";

fn open(content: &[u8], columns: &SchemaRef, position: Option<Position>) -> Result<Reader, Error> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("written");
    file.rewind().expect("it is a file");
    Reader::open(file, columns, position)
}

/// All rows until the end or an error.
fn read(content: &[u8], columns: &SchemaRef) -> (Vec<Value>, Option<Error>) {
    let mut rows = Vec::new();
    let mut reader = match open(content, columns, None) {
        Ok(reader) => reader,
        Err(error) => return (rows, Some(error)),
    };
    loop {
        match reader.read(1_000) {
            Ok(Some(found)) => rows.extend(shown(&found.columns)),
            Ok(None) => return (rows, None),
            Err(error) => return (rows, Some(error)),
        }
    }
}

fn id() -> SchemaRef {
    arrow(&[("id", "Int64")])
}

/// A file of records with this schema, and these blocks as they stand there.
fn file(schema: &Value, codec: &str, blocks: &[&[u8]]) -> Vec<u8> {
    let mut content = MAGIC.to_vec();
    let text = schema.to_string();
    // Two blocks of metadata, of which the second one says how long it is, and more than is asked for.
    long(1, &mut content);
    [CODEC_KEY, codec].iter().for_each(|part| super::super::write::bytes(part.as_bytes(), &mut content));
    let mut rest = Vec::new();
    ["made.by", "hand", SCHEMA_KEY, &text].iter().for_each(|part| super::super::write::bytes(part.as_bytes(), &mut rest));
    long(-2, &mut content);
    long(rest.len() as i64, &mut content);
    content.extend_from_slice(&rest);
    long(0, &mut content);
    content.extend_from_slice(&MARKER);
    for block in blocks {
        content.extend_from_slice(block);
        content.extend_from_slice(&MARKER);
    }
    content
}

fn block(rows: i64, size: i64, packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    long(rows, &mut out);
    long(size, &mut out);
    out.extend_from_slice(packed);
    out
}

fn whole_block(rows: i64, packed: &[u8]) -> Vec<u8> {
    block(rows, packed.len() as i64, packed)
}

fn record(fields: Value) -> Value {
    json!({ "type": "record", "name": "R", "fields": fields })
}

fn ids() -> Value {
    record(json!([{ "name": "id", "type": "long" }]))
}

#[test]
fn a_block_is_that_of_fastavro_byte_for_byte() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(NULL).expect("written");
    let schema = schema_of(file.path()).expect("a schema");
    let own = columns(&schema).expect("columns");
    let mut reader = open(NULL, &own, None).expect("opens");
    let rows = reader.read(1_000).expect("reads").expect("rows").columns;
    let (mut values, mut ends) = (Vec::new(), Vec::new());
    super::super::Writer::new(&schema, &own).expect("they fit").rows(&rows, &|_, _| {}, &mut values, &mut ends).expect("written");
    let marker: Marker = std::array::from_fn(|number| 0xf0 + number as u8);
    let mut writer = Writer::new(Vec::new(), &schema, Codec::None, marker).expect("memory");
    writer.append(&values, &ends).expect("memory");
    let written = writer.finish().expect("memory");
    let body = |content: &[u8]| content[memchr::memmem::find(content, &marker).expect("the header ends")..].to_vec();
    assert_eq!(body(&written), body(NULL));
    let (again, error) = read(&written, &own);
    assert!(error.is_none() && again == shown(&rows), "and the header is one");
}

#[test]
fn large_rows_have_blocks_of_their_own_and_small_ones_share_them() {
    let schema = Schema::parse(&record(json!([{ "name": "text", "type": "string" }])).to_string()).expect("a schema");
    let text = arrow(&[("text", "Utf8")]);
    for codec in [Codec::None, Codec::Deflate, Codec::Snappy, Codec::Zstandard] {
        let (mut values, mut ends, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for length in [10, 200_000, 20, 30_000, 40_000, 0] {
            let value = "x".repeat(length);
            super::super::write::bytes(value.as_bytes(), &mut values);
            ends.push(values.len());
            expected.push(json!({ "text": value }));
        }
        let mut writer = Writer::new(Vec::new(), &schema, codec, MARKER).expect("memory");
        writer.append(&values, &ends).expect("memory");
        let content = writer.finish().expect("memory");
        assert_eq!(memchr::memmem::find_iter(&content, &MARKER).count(), 1 + 4, "10 | 200,000 | 20, 30,000 | 40,000, 0");
        let (rows, error) = read(&content, &text);
        assert!(error.is_none() && rows == expected, "{codec:?}: {error:?}");
    }
    assert_eq!(check_sizes(&[5, 5 + BLOCK_BYTES_MAX]), Ok(()));
    assert_eq!(check_sizes(&[5, 6 + BLOCK_BYTES_MAX]).expect_err("too large"), "row 1: it is larger than 268435456 bytes");
}

#[test]
fn blocks_without_rows_and_rows_without_bytes_are_read() {
    let content = file(&ids(), "null", &[&block(0, 0, &[]), &whole_block(2, &[2, 4]), &block(0, 0, &[]), &whole_block(1, &[6])]);
    let (rows, error) = read(&content, &id());
    assert_eq!((rows, error.map(|error| error.to_string())), (vec![json!({ "id": 1 }), json!({ "id": 2 }), json!({ "id": 3 })], None));
    let nothing = file(&record(json!([{ "name": "n", "type": "null" }])), "null", &[&block(3, 0, &[])]);
    assert_eq!(read(&nothing, &arrow(&[])).0.len(), 3);
}

#[test]
fn absurd_numbers_take_neither_memory_nor_time() {
    let end = |rows: i64, size: i64| {
        let content = file(&ids(), "null", &[&block(rows, size, &[2, 4])]);
        let (rows, error) = read(&content, &id());
        assert_eq!(rows, [] as [Value; 0]);
        error.expect("absurd").to_string()
    };
    assert!(end(2, i64::MAX).contains("a block of 9223372036854775807 bytes, where 335544320 are the most that is read"));
    assert!(end(2, PACKED_BYTES_MAX as i64).starts_with("is cut off: a block is not complete"));
    assert!(end(2, -2).ends_with("a number in a block is -2"));
    assert!(end(i64::MIN, 2).ends_with("a number in a block is -9223372036854775808"));
    assert!(end(i64::MAX, 2).ends_with("a block of 9223372036854775807 rows in 2 bytes"));
    let (rows, error) = read(&file(&ids(), "null", &[&whole_block(3, &[2, 4])]), &id());
    assert_eq!(rows.len(), 2);
    assert!(error.expect("absurd").to_string().ends_with("row 2, in the block that begins there: the value ends too early"));
    let (rows, error) = read(&file(&ids(), "null", &[&whole_block(1, &[2, 4])]), &id());
    assert_eq!(rows.len(), 1);
    assert!(error.expect("absurd").to_string().ends_with("1 bytes follow the last row of the block"));
    assert!(end(0, 2).ends_with("2 bytes follow the last row of the block"));
    let free = file(&record(json!([])), "null", &[&block(FREE_VALUES_MAX as i64 + 1, 0, &[])]);
    assert!(read(&free, &arrow(&[])).1.expect("absurd").to_string().contains("a block of 1048577 rows in 0 bytes"));
    // Four GiB, as Snappy writes a length, and a frame of Zstandard that is larger than any block.
    let snappy = file(&ids(), "snappy", &[&whole_block(1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0])]);
    assert!(read(&snappy, &id()).1.expect("absurd").to_string().ends_with("its content is larger than 268435456 bytes"));
    let bomb = zstd::bulk::compress(&vec![0; BLOCK_BYTES_MAX + 1], 1).expect("memory");
    let bomb = file(&ids(), "zstandard", &[&whole_block(1, &bomb)]);
    assert!(read(&bomb, &id()).1.expect("absurd").to_string().ends_with("its content is larger than 268435456 bytes"));
}

#[test]
fn a_header_that_cannot_be_understood_says_why() {
    let error = |content: &[u8]| open(content, &id(), None).err().expect("refused").to_string();
    for (codec, name) in [("bzip2", "bzip2"), ("lz4", "lz4")] {
        assert_eq!(
            error(&file(&ids(), codec, &[])),
            format!("cannot be read: it is compressed with {name:?}, and null, deflate, snappy and zstandard are known")
        );
    }
    assert_eq!(error(b""), "cannot be read: it is no Avro file: it does not begin as one");
    assert_eq!(error(b"PAR1....PAR1"), "cannot be read: it is no Avro file: it does not begin as one");
    let without = [&MAGIC[..], &[0], &MARKER].concat();
    assert_eq!(error(&without), "cannot be read: its header has no schema");
    assert_eq!(
        error(&file(&json!("nonsense"), "null", &[])),
        "cannot be read: its schema: type nonsense is not known: it must be defined before it is used"
    );
    assert_eq!(
        error(&file(&record(json!([{ "name": "id", "type": "string" }])), "null", &[])),
        "cannot be read: column id: it is string in the schema of the values, which is not read as Int64"
    );
    let mut endless = MAGIC.to_vec();
    long(i64::MIN, &mut endless);
    long(0, &mut endless);
    endless.resize(METADATA_BYTES_MAX as usize + 100, 0);
    assert_eq!(error(&endless), "is damaged at byte 4: a header of more than 8388608 bytes");
    let mut long_key = MAGIC.to_vec();
    long(1, &mut long_key);
    long(i64::MAX, &mut long_key);
    assert_eq!(error(&long_key), "is damaged at byte 4: a header of more than 8388608 bytes");
}

#[test]
fn a_position_of_another_file_is_refused() {
    let first = file(&ids(), "null", &[&whole_block(2, &[2, 4]), &whole_block(1, &[6])]);
    let mut reader = open(&first, &id(), None).expect("opens");
    let start = reader.position();
    reader.read(1).expect("reads");
    let middle = reader.position();
    assert_eq!((middle.rows_before, middle.rows), (0, 1));
    let refused = |content: &[u8], position: Position| open(content, &id(), Some(position)).err().expect("refused").to_string();
    let shorter = file(&ids(), "null", &[]);
    let beyond = Position { block: first.len() as u64, rows_before: 3, rows: 0 };
    let expected = format!("cannot be read: it has {} bytes, fewer than the {} that were read of it before", shorter.len(), first.len());
    assert_eq!(refused(&shorter, beyond), expected);
    let changed = |block: u64| format!("cannot be read: it is not the file that was read before: no block begins at byte {block}");
    for position in [
        Position { block: middle.block + 1, ..middle },
        Position { block: 4, ..middle },
        Position { rows: 3, ..middle },
        Position { block: first.len() as u64, rows_before: 3, rows: 1 },
    ] {
        assert_eq!(refused(&first, position), changed(position.block), "{position:?}");
    }
    let mut at_end = open(&first, &id(), Some(Position { rows: 0, rows_before: 3, ..beyond })).expect("where the file ends");
    assert!(at_end.read(10).expect("reads").is_none());
    assert_eq!(start.block, middle.block);
}

/// The same bytes on every machine, some of them close to real files.
#[test]
fn bytes_of_nobody_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(0x0a7e_0002);
    let (mut damaged, rounds) = (0, 2_000);
    for round in 0..rounds {
        let mut content = GOLDEN[round % GOLDEN.len()].to_vec();
        for _ in 0..1 + random.next_u32() % 3 {
            let at = random.next_u32() as usize % content.len();
            match random.next_u32() % 3 {
                0 => content.insert(at, random.next_u32() as u8),
                1 => drop(content.remove(at)),
                _ => content[at] = random.next_u32() as u8,
            }
        }
        let (rows, error) = read(&content, &id());
        assert!(rows.len() <= 1 << 20);
        damaged += usize::from(error.is_some());
    }
    assert!(damaged > rounds / 2, "{damaged}");
}

#[test]
fn a_value_that_cannot_even_be_passed_over_is_damage() {
    let schema = record(json!([{ "name": "id", "type": "long" }, { "name": "text", "type": "string" }]));
    let content = file(&schema, "null", &[&whole_block(3, &[2, 2, b'a', 4, 2, 0xff, 6, 99])]);
    let (rows, error) = read(&content, &arrow(&[("id", "Int64"), ("text", "Utf8")]));
    assert_eq!(rows, [json!({ "id": 1, "text": "a" })], "the second is rejected, for it is no text");
    let error = error.expect("the third has no end").to_string();
    assert!(error.contains("row 2, in the block that begins there: a length of -50"), "{error}");
    // It is passed over in the same way as it is read.
    let parsed = Schema::parse(&schema.to_string()).expect("a schema");
    let mut nothing = Filled::new(Arc::new(arrow_schema::Schema::empty())).expect("no columns");
    Plan::new(&parsed, &arrow_schema::Schema::empty(), None).expect("a plan").read(&mut nothing, &[6, 99]).expect_err("no length");
}
