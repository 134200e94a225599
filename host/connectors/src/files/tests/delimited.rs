//! Messages and bytes behind their lengths.

use super::*;
use crate::testing::shown;

const EVENTS: &[u8] = include_bytes!("../../../golden/events.pb");
const SCHEMA: &str = include_str!("../../../golden/events.proto");

/// A directory with these files, and the schema of the messages beside them.
fn with_schema(files: &[(&str, &[u8])]) -> TempDir {
    let files: Vec<(&str, &[u8])> = files.iter().copied().chain([("events.proto", SCHEMA.as_bytes())]).collect();
    directory(&files)
}

fn events(path: &str) -> Value {
    json!({ "path": path, "value-schema": "events.proto", "message": "Event" })
}

async fn error_of(directory: &TempDir, settings: Value) -> (usize, String) {
    let source = source(directory, settings, None);
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    let mut everything = Everything::default();
    let error = everything.drain(&mut *reader, 3).await.expect_err("damaged");
    (everything.positions().len(), error.to_string())
}

#[tokio::test]
async fn messages_of_protobufs_own_library_are_read_and_written_back_byte_for_byte() {
    let directory = with_schema(&[("a.pb", EVENTS), ("b.pb.gz", &gzip(EVENTS))]);
    for name in ["a.pb", "b.pb.gz"] {
        let source = source(&directory, events(name), None);
        let everything = read_all(&*source, 3).await.expect("reads");
        assert_eq!((everything.rejected.as_slice(), everything.positions()), (&[][..], (0..20).collect()));
        let rows = shown(&everything.rows(&source.schema()));
        assert_eq!((&rows[0]["id"], &rows[0]["name"], &rows[0]["kind"]), (&json!(-7), &json!("žluť"), &json!("BAD")));
        assert_eq!((&rows[1]["id"], &rows[1]["inner"]), (&json!(0), &Value::Null));
        assert!(rows.chunks(2).all(|pair| pair == &rows[..2]));
        check_resuming(&*source, 3).await;
        let some = read_all(&*source.project(&[0]), 100).await.expect("reads");
        assert_eq!(shown(&some.rows(&some.batches[0].schema()))[0], json!({ "id": -7 }));
    }
    // What has no value in a column is not written, so every message is as it was.
    let source = source(&directory, events("a.pb"), None);
    let rows = read_all(&*source, 100).await.expect("reads").rows(&source.schema());
    let settings = json!({ "path": "out", "format": "protobuf", "value-schema": "events.proto", "message": "Event" });
    let sink = plan_sink(&FilesSink, &settings, directory.path(), source.schema(), false).expect("the settings are right");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    writer.write(&Batch::new(rows.clone())).await.expect("writes");
    writer.finish().await.expect("publishes");
    let first = fs::read(directory.path().join("out/part-00000-00000.pb")).expect("reads");
    let length = usize::from(EVENTS[0] & 0x7f) | usize::from(EVENTS[1]) << 7;
    assert_eq!(first[..2 + length], EVENTS[..2 + length]);
    let back = sink.published().expect("it can be read").expect("it is kept");
    assert_eq!(read_all(&*back, 7).await.expect("reads").rows(&back.schema()), rows);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_rejected_and_the_others_flow() {
    let directory = with_schema(&[("a.pb", b"\x02\x08\x01\x02\x08\x80\x02\x08\x03")]);
    let source = source(&directory, events("a.pb"), Some(schema(&[("id", "Int64")])));
    let everything = read_all(&*source, 100).await.expect("reads");
    assert_eq!((table_of(&everything, &*source), everything.positions()), (vec!["1".to_owned(), "3".to_owned()], vec![0, 2]));
    let rejected = &everything.rejected[0];
    assert_eq!((rejected.position, rejected.source.as_deref()), (Some(1), Some("a.pb")));
    check_resuming(&*source, 1).await;
}

fn table_of(everything: &Everything, source: &dyn Source) -> Vec<String> {
    lines(everything, source)
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_damaged_gives_its_whole_values_and_then_an_error() {
    for length in 1..EVENTS.len() {
        let directory = with_schema(&[("a.pb", &EVENTS[..length])]);
        let source = source(&directory, events("a.pb"), Some(schema(&[("id", "Int64")])));
        let whole = read_all(&*source, 100).await;
        let (rows, error) = match whole {
            Ok(everything) => (everything.positions().len(), None),
            Err(_) => {
                let (rows, error) = error_of(&directory, events("a.pb")).await;
                (rows, Some(error))
            }
        };
        // Two messages, of which the second has no bytes but its length.
        let pair = EVENTS.len() / 10;
        let (pairs, rest) = (length / pair, length % pair);
        assert_eq!(rows, 2 * pairs + usize::from(rest == pair - 1), "{length}");
        let expected = format!("a.pb is cut off: a value is not complete at byte {length}, where the content ends");
        assert_eq!(error, (rest != 0 && rest != pair - 1).then_some(expected), "{length}");
    }
    let directory = with_schema(&[
        ("long.pb", b"\x02\x08\x01\xff\xff\xff\xff\x0f"),
        ("none.pb", b"\x02\x08\x01\xff\xff\xff\xff\xff\xff\xff"),
        ("gzip.pb.gz", &gzip(EVENTS)[..40]),
    ]);
    let expected = "long.pb is damaged at byte 3: a value of 4294967295 bytes begins there, more than max-record-bytes (1048576)";
    assert_eq!(error_of(&directory, events("long.pb")).await, (1, expected.to_owned()));
    assert_eq!(
        error_of(&directory, events("none.pb")).await,
        (1, "none.pb is damaged at byte 3: no length of a value stands there".to_owned())
    );
    let expected = "gzip.pb.gz is cut off: its compressed content is not complete at byte 40, where the file ends";
    assert_eq!(error_of(&directory, events("gzip.pb.gz")).await.1, expected);
}

#[tokio::test]
async fn bytes_are_written_behind_their_lengths_and_come_back_as_they_were() {
    let directory = directory(&[]);
    for compression in ["none", "gzip", "zstd"] {
        let values: Vec<Vec<u8>> =
            [0, 1, 127, 128, 300, 100_000, 2].iter().map(|&length| (0..length).map(|byte| byte as u8).collect()).collect();
        let column = arrow_array::BinaryArray::from_iter_values(&values);
        let columns = schema(&[("frame", "Binary?")]);
        let rows = arrow_array::RecordBatch::try_new(columns.clone(), vec![Arc::new(column)]).expect("a column");
        let settings = json!({ "path": compression, "format": "raw", "compression": compression });
        let sink = plan_sink(&FilesSink, &settings, directory.path(), columns.clone(), false).expect("the settings are right");
        let mut writer = writer(&*sink, 0).await.expect("opens");
        writer.write(&Batch::new(rows.clone())).await.expect("writes");
        let null = arrow_array::RecordBatch::new_empty(columns.clone());
        let null = arrow_select::concat::concat_batches(
            &columns,
            [
                &null,
                &arrow_array::RecordBatch::try_new(columns.clone(), vec![arrow_array::new_null_array(&arrow_schema::DataType::Binary, 1)])
                    .expect("a null"),
            ],
        )
        .expect("one schema");
        let refused = writer.write(&Batch::new(null)).await.expect_err("null is no bytes").to_string();
        assert!(refused.ends_with("column frame, row 0: null is no bytes"), "{refused}");
        writer.finish().await.expect("publishes");
        let back = source(&directory, json!({ "path": compression, "format": "raw" }), Some(columns));
        let read = read_all(&*back, 2).await.expect("reads");
        assert_eq!(read.rows(&back.schema()), rows);
        check_resuming(&*back, 2).await;
    }
    let own = source(&directory, json!({ "path": "none", "format": "raw" }), None);
    assert_eq!(types(&*own), ["value Binary"]);
}

#[test]
fn settings_of_values_behind_their_lengths_are_checked() {
    let directory = with_schema(&[("a.pb", EVENTS), ("a.csv", b"n\n1\n")]);
    let of = |settings: Value, declared| problems(&directory, settings, declared);
    let missing = "value-schema: says what the messages are: the text of a `.proto` file, or its path";
    assert_eq!(of(json!({ "path": "a.pb" }), None), [missing]);
    assert!(of(json!({ "path": "a.pb", "value-schema": "none.proto" }), None)[0].starts_with("value-schema: the file "));
    assert!(of(events("a.pb"), Some(schema(&[("id", "Utf8")])))[0].starts_with("value-schema: column id"));
    assert_eq!(
        of(json!({ "path": "a.csv", "value-schema": "x", "message": "y" }), None),
        ["value-schema: is a setting of protobuf only", "message: is a setting of protobuf only"]
    );
    assert_eq!(
        of(json!({ "path": "a.pb", "format": "raw" }), Some(schema(&[("n", "Int64")]))),
        ["format: gives one column of type Binary: declare that under `schema:` of the source, or nothing"]
    );
    let sink = |settings: Value, columns: &[(&str, &str)]| {
        let problems = plan_sink(&FilesSink, &settings, directory.path(), schema(columns), false).err().expect("refused");
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect::<Vec<_>>()
    };
    assert_eq!(sink(json!({ "path": "out", "format": "protobuf" }), &[("id", "Int64")]), [missing]);
    assert_eq!(
        sink(json!({ "path": "out", "format": "raw" }), &[("id", "Int64")]),
        ["format: column id of type Int64 is not of bytes: raw values are one column of bytes"]
    );
}
