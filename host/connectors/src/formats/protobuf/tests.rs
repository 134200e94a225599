//! Against bytes of another implementation, against bytes of nobody, and there and back.

use arrow_schema::SchemaRef;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_core::Rng as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    formats::columns::Rows,
    testing::{from_hex, schema as arrow, shown},
};

const EVENTS: &str = include_str!("../../../golden/events.proto");

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../golden/protobuf.json")).expect("JSON")
}

fn case(name: &str) -> Vec<u8> {
    let golden = golden();
    let cases = golden["cases"].as_array().expect("cases").iter();
    let case = cases.clone().find(|case| case["name"] == name).expect("a case");
    from_hex(case["hex"].as_str().expect("text"))
}

fn event() -> Schema {
    Schema::parse(EVENTS, &[], Some("Event")).expect("a schema")
}

fn parse(text: &str) -> Schema {
    Schema::parse(&format!("syntax = \"proto3\"; {text}"), &[], None).expect("a schema")
}

fn read(schema: &Schema, columns: &SchemaRef, messages: &[&[u8]]) -> Result<Vec<Value>, String> {
    let plan = Plan::new(schema, columns)?;
    let mut rows = Rows::new(columns.clone())?;
    messages.iter().try_for_each(|message| plan.push(&mut rows, message))?;
    Ok(shown(&rows.finish()))
}

fn full() -> Value {
    json!({
        "id": -7, "count": 9_223_372_036_854_775_808_u64, "small": -1, "fixed": 4_294_967_295_u32, "signed": -5, "ratio": 0.1, "share": 0.5,
        "flag": true, "name": "žluť", "blob": "AP8=", "kind": "BAD", "numbers": [1, -1, 300], "words": ["a", ""],
        "inner": { "x": 3, "label": "in" }, "inners": [{ "x": 1, "label": "" }, { "x": 0, "label": "" }], "counts": { "k": 5 },
        "maybe": 0, "text": "chosen", "number": null, "at": "2013-01-01T05:15:00.123456789Z", "wrapped": 0, "took": -1_500_000_000,
        "never": null
    })
}

fn empty() -> Value {
    json!({
        "id": 0, "count": 0, "small": 0, "fixed": 0, "signed": 0, "ratio": 0.0, "share": 0.0, "flag": false, "name": "", "blob": "",
        "kind": "UNKNOWN", "numbers": [], "words": [], "inner": null, "inners": [], "counts": {}, "maybe": null, "text": null,
        "number": null, "at": null, "wrapped": null, "took": null, "never": null
    })
}

#[test]
fn messages_of_protoc_are_read_and_written_back_byte_for_byte() {
    let schema = event();
    {
        let columns = columns(&schema).expect("columns");
        let messages = [case("full"), case("empty")];
        let rows = read(&schema, &columns, &[&messages[0], &messages[1]]).expect("messages");
        assert_eq!(rows, [full(), empty()]);
        let plan = Plan::new(&schema, &columns).expect("a plan");
        let mut rows = Rows::new(columns.clone()).expect("columns");
        messages.iter().for_each(|message| plan.push(&mut rows, message).expect("a message"));
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        let writer = Writer::new(&schema, &columns).expect("they fit");
        writer.rows(&rows.finish(), &|_, _| {}, &mut out, &mut ends).expect("written");
        assert_eq!(ends, [messages[0].len(), messages[0].len()]);
        assert_eq!(out, messages[0]);
    }
}

#[test]
fn only_the_columns_that_are_asked_for_are_read_in_any_order_and_type_they_fit() {
    let wanted = arrow(&[
        ("kind", "Int8"),
        ("at", "Timestamp(ms, \"UTC\")?"),
        ("id", "Int16"),
        ("inner", "Struct(\"label\": Utf8)?"),
        ("never", "Int32"),
    ]);
    let rows = read(&event(), &wanted, &[&case("full")]).expect("messages");
    let expected = json!({ "kind": 2, "at": "2013-01-01T05:15:00.123Z", "id": -7, "inner": { "label": "in" }, "never": 0 });
    assert_eq!(rows, [expected], "what is not there is its default in a column declared without `?`");
    let missing = read(&event(), &arrow(&[("inner", "Struct(\"x\": Int32)")]), &[&case("empty")]).expect_err("no message, no `?`");
    assert_eq!(missing, "column inner: it is missing, and the column was declared without `?`");
    assert_eq!(read(&event(), &arrow(&[("nope", "Int64")]), &[]).expect_err("no field"), "message golden.Event has no field nope");
    assert!(read(&event(), &arrow(&[("id", "Utf8")]), &[]).expect_err("another type").contains("it is int64 in the message"));
}

/// What the specification asks of parsers where fields come more than once, or in pieces.
#[test]
fn what_comes_twice_counts_as_the_specification_says() {
    let schema = parse(
        "message M { int32 a = 1; In in = 2; repeated int32 n = 3; map<string, int32> m = 4; } message In { int32 x = 1; int32 y = 2; }",
    );
    let columns = columns(&schema).expect("columns");
    // a: 1, then 2; in: {x: 5}, then {y: 6}; n: 1, packed 2 3, 4; m: k → 1, k → 2, and an entry without key and value.
    let message = [
        &[8, 1][..],
        &[0x12, 2, 8, 5],
        &[0x18, 1],
        &[0x22, 5, 10, 1, b'k', 16, 1],
        &[0x1a, 2, 2, 3],
        &[8, 2],
        &[0x12, 2, 16, 6],
        &[0x18, 4],
        &[0x22, 5, 10, 1, b'k', 16, 2],
        &[0x22, 0],
    ]
    .concat();
    let rows = read(&schema, &columns, &[&message]).expect("a message");
    assert_eq!(rows, [json!({ "a": 2, "in": { "x": 5, "y": 6 }, "n": [1, 2, 3, 4], "m": { "k": 2, "": 0 } })]);
}

#[test]
fn what_is_no_message_is_refused_and_takes_neither_memory_nor_time() {
    let schema = parse("message M { int32 a = 1; string s = 2; }");
    let columns = columns(&schema).expect("columns");
    let refused = |bytes: &[u8]| read(&schema, &columns, &[bytes]).expect_err("no message");
    assert_eq!(refused(&[8]), "the message ends too early");
    assert_eq!(refused(&[&[8][..], &[0xff; 10]].concat()), "a number is longer than 64 bits");
    assert_eq!(refused(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), "a length of 549755813887, and 0 bytes are left");
    assert_eq!(refused(&[0]), "a field with number 0");
    assert_eq!(refused(&[15]), "field 1 has wire type 7, which is none");
    assert_eq!(refused(&[0x12, 1, 0xff]), "column s: text that is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0");
    assert!(refused(&[10, 1, 0]).contains("wire type of another type"));
    assert_eq!(refused(&[0x1b; 1_000_000]), "groups nest deeper than 64");
    assert_eq!(refused(&[0x1b, 0x24]), "group 3 ends as 4");
    assert_eq!(read(&schema, &columns, &[&[0x1b, 0x20, 7, 0x1c, 8, 3]]).expect("a group is passed over"), [json!({ "a": 3, "s": "" })]);
}

/// The same bytes on every machine, all of them close to a real message.
#[test]
fn bytes_of_nobody_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(0x0a7e_0002);
    let schema = event();
    let columns = columns(&schema).expect("columns");
    let plan = Plan::new(&schema, &columns).expect("a plan");
    let mut rows = Rows::new(columns).expect("columns");
    for _ in 0..20_000 {
        let mut bytes = case_full();
        for _ in 0..1 + random.next_u32() % 6 {
            let at = random.next_u32() as usize % (bytes.len() + 1);
            match random.next_u32() % 3 {
                0 => bytes.insert(at, random.next_u32() as u8),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = random.next_u32() as u8,
                _ => {}
            }
        }
        let read = plan.push(&mut rows, &bytes);
        assert_eq!(rows.finish().num_rows(), usize::from(read.is_ok()));
    }
}

fn case_full() -> Vec<u8> {
    static FULL: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| case("full"));
    FULL.clone()
}

#[test]
fn a_text_that_is_no_schema_says_why() {
    let refused = |text: &str| Schema::parse(text, &[], None).expect_err("no schema");
    assert!(refused("nonsense").contains("none of Protocol Buffers"));
    assert!(refused("syntax = \"proto3\"; import \"other.proto\"; message M {}").contains("other.proto"));
    assert_eq!(refused("syntax = \"proto3\";"), "the schema has no message");
    assert!(refused(&"message A { ".repeat(100_000)).contains("messages nest deeper than 64"));
    let missing = Schema::parse(EVENTS, &[], Some("Nope")).expect_err("no such message");
    assert_eq!(missing, "there is no message Nope in the schema, which has golden.Event");
    let imported = [("other.proto".to_owned(), "syntax = \"proto3\"; package o; message O { int32 x = 1; }".to_owned())];
    let text = "syntax = \"proto3\"; import \"other.proto\"; message M { o.O o = 1; }";
    columns(&Schema::parse(text, &imported, None).expect("the import is there")).expect("columns");
    let recursive = parse("message M { M m = 1; }");
    assert!(columns(&recursive).expect_err("no columns").contains("within itself"));
    for (text, expected) in [
        ("message M { int32 a = 0; }", "0 is no number of a field"),
        ("message M { int32 a = 1; string b = 1; }", "field b has the name or the number of field a"),
        ("message M { Nope a = 1; }", "field M.a has type Nope, which is not known"),
        ("message M { map<double, int32> m = 1; }", "the keys of a map"),
        ("message M { optional group G = 1 {} }", "groups are not known"),
        ("message M {} message M {}", "type M is defined twice"),
        ("message M { int32 a = 1", "the file ends too early"),
        ("syntax = \"proto9\";", "syntax proto9"),
        ("/* open", "line 1: a comment does not end"),
        ("message M {\n int32 = 1; }", "line 2: `=` is no name"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn presence_defaults_and_packing_are_those_of_proto2_where_it_is_proto2() {
    let text = "syntax = 'proto2'; /* a comment */ option java_package = \"x\"; message M { reserved 9, 10 to 12; extensions 100 to max;
        required int32 a = 1; optional int32 b = 2 [default = -5, (my.option) = { x: [1] }]; repeated int32 c = 3; repeated int32 d = 4 [packed = true];
        optional string s = 5 [default = 'x']; optional E e = 6; enum E { option allow_alias = true; ONE = 1; UNO = 1; TWO = 0x2; } extend M { }
        oneof o { string t = 7; } } service S { rpc R (M) returns (M) { option x = 1; } }";
    let schema = Schema::parse(text, &[], None).expect("a schema");
    let columns = columns(&schema).expect("columns");
    let nullable: Vec<bool> = columns.fields().iter().map(|field| field.is_nullable()).collect();
    assert_eq!(nullable, [false, true, false, false, true, true, true]);
    let strict = arrow(&[
        ("a", "Int32"),
        ("b", "Int32"),
        ("c", "List(non-null Int32)"),
        ("d", "List(non-null Int32)"),
        ("s", "Utf8"),
        ("e", "Utf8"),
    ]);
    let rows = read(&schema, &strict, &[&[8, 1]]).expect("a message");
    assert_eq!(rows, [json!({ "a": 1, "b": -5, "c": [], "d": [], "s": "x", "e": "ONE" })]);
    let plan = Plan::new(&schema, &strict).expect("a plan");
    let mut rows = Rows::new(strict.clone()).expect("columns");
    plan.push(&mut rows, &[8, 1, 24, 1, 24, 2, 34, 2, 3, 4, 48, 2]).expect("a message");
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    Writer::new(&schema, &strict).expect("they fit").rows(&rows.finish(), &|_, _| {}, &mut out, &mut ends).expect("written");
    let minus_five = [16, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(out, [&[8, 1][..], &minus_five, &[24, 1, 24, 2, 34, 2, 3, 4, 42, 1, b'x', 48, 2]].concat());
}

#[test]
fn a_message_is_named_by_its_place_in_the_file() {
    let schema = parse("message A { message B { message C {} } message D {} } message E {}");
    for (indexes, name) in [(vec![0], "A"), (vec![0, 0, 0], "A.B.C"), (vec![0, 1], "A.D"), (vec![1], "E")] {
        let found = schema.at(&indexes).expect("a message");
        assert_eq!((found.name(), found.indexes()), (name, indexes));
    }
    schema.at(&[2]).expect_err("no third message");
    schema.at(&[]).expect_err("none is named");
}

#[test]
fn what_does_not_fit_the_message_is_not_written() {
    let schema = parse("message M { int32 a = 1; repeated int32 n = 2; enum E { X = 0; Y = 1; } E e = 3; }");
    let refused = |columns: &[(&str, &str)]| Writer::new(&schema, &arrow(columns)).expect_err("it does not fit");
    assert_eq!(refused(&[("b", "Int64")]), "column b is no field of message M: leave it out with `select`");
    assert_eq!(refused(&[("a", "Utf8")]), "column a: Utf8 does not fit field M.a: convert it with `select` before");
    assert_eq!(refused(&[("n", "Int32")]), "column n: Int32 does not fit field M.n: convert it with `select` before");
    let write = |columns: &[(&str, &str)], array: arrow_array::ArrayRef| {
        let columns = arrow(columns);
        let batch = arrow_array::RecordBatch::try_new(columns.clone(), vec![array]).expect("a column");
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        Writer::new(&schema, &columns).expect("it fits").rows(&batch, &|_, _| {}, &mut out, &mut ends).map(|()| out)
    };
    let numbers = std::sync::Arc::new(arrow_array::Int64Array::from(vec![1 << 40]));
    assert_eq!(write(&[("a", "Int64")], numbers), Err("row 0: column a: 1099511627776 does not fit into the field".into()));
    let names = |name: &str| std::sync::Arc::new(arrow_array::StringArray::from(vec![name]));
    assert_eq!(write(&[("e", "Utf8")], names("Z")), Err("row 0: column e: \"Z\" is no name of the enum".into()));
    assert_eq!(write(&[("e", "Utf8")], names("Y")), Ok(vec![0x18, 1]));
    assert_eq!(write(&[("e", "Utf8")], names("7")), Ok(vec![0x18, 7]), "a number without a name");
}
