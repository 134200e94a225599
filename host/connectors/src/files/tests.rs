use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    sync::Arc,
    time::Duration,
};

use arrow_cast::pretty::pretty_format_batches;
use arrow_schema::SchemaRef;
use futures::FutureExt;
use millstream_engine::{
    connector::{Read, Source, SplitReader},
    operator::OperatorError,
};
use millstream_model::Batch;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::testing::{Everything, check_resuming, clock, plan_sink, plan_source, read_all, schema, writer};

mod avro;
mod delimited;
mod durable;
mod round_trip;
mod sink;

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, content).expect("written");
    }
    directory
}

fn source(directory: &TempDir, settings: Value, declared: Option<SchemaRef>) -> Arc<dyn Source> {
    plan_source(&FilesSource, &settings, directory.path(), declared, clock()).expect("the settings are right")
}

fn problems(directory: &TempDir, settings: Value, declared: Option<SchemaRef>) -> Vec<String> {
    let problems = plan_source(&FilesSource, &settings, directory.path(), declared, clock()).err().expect("refused");
    problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

async fn table(source: &dyn Source) -> Vec<String> {
    let everything = read_all(source, 100).await.expect("reads");
    assert_eq!(everything.rejected, [], "nothing is rejected");
    lines(&everything, source)
}

fn lines(everything: &Everything, source: &dyn Source) -> Vec<String> {
    let text = pretty_format_batches(&[everything.rows(&source.schema())]).expect("prints").to_string();
    let inner = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|");
    text.lines().skip(3).filter(|line| !line.starts_with('+')).map(inner).collect()
}

fn rejections(everything: &Everything) -> Vec<(u64, &str, &str)> {
    everything.rejected.iter().map(|rejection| (rejection.position.expect("known"), &*rejection.reason, &*rejection.row)).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

fn types(source: &dyn Source) -> Vec<String> {
    source.schema().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
}

#[tokio::test]
async fn csv_without_schema_is_typed_by_its_first_records() {
    let csv = b"id,code,when,day,ratio,ok,name,empty\n1,007,2013-01-01T05:15:00Z,2013-01-01,1,true,\"a, \"\"b\"\"\",\n2,008,NA,2013-01-02,0.5,FALSE,NA,\n";
    let directory = directory(&[("a.csv", csv)]);
    let source = source(&directory, json!({ "path": "a.csv", "null-values": ["NA"] }), None);
    let expected =
        ["id Int64", "code Utf8", "when Timestamp(ms, \"UTC\")", "day Date32", "ratio Float64", "ok Boolean", "name Utf8", "empty Utf8"];
    assert_eq!(types(&*source), expected);
    assert_eq!(table(&*source).await, ["1|007|2013-01-01T05:15:00Z|2013-01-01|1.0|true|a, \"b\"|", "2|008||2013-01-02|0.5|false||"]);
}

#[tokio::test]
async fn ndjson_without_schema_is_typed_by_its_first_records() {
    let json = br#"{"id":1,"tags":["a"],"at":{"x":1.5,"n":1},"mixed":1,"when":"2013-01-01T05:15:00Z"}
{"id":2,"at":{"x":2},"mixed":"text","extra":true}
"#;
    let directory = directory(&[("a.jsonl", json)]);
    let source = source(&directory, json!({ "path": "a.jsonl" }), None);
    let id = types(&*source);
    assert_eq!(id[0], "id Int64");
    assert_eq!(id[3..], ["mixed Utf8", "when Timestamp(ms, \"UTC\")", "extra Boolean"]);
    assert_eq!(table(&*source).await, ["1|[a]|{x: 1.5, n: 1}|1|2013-01-01T05:15:00Z|", "2||{x: 2.0, n: }|text||true"]);
}

#[tokio::test]
async fn columns_are_found_by_name_in_every_file() {
    let directory = directory(&[("a.csv", b"x,y\n1,2\n"), ("b.csv", b"\xEF\xBB\xBFy,z,x\r\n20,z,10\r\n")]);
    let source = source(&directory, json!({ "path": "*.csv" }), Some(schema(&[("y", "Int64"), ("x", "Int32")])));
    assert_eq!(table(&*source).await, ["2|1", "20|10"]);
    assert_eq!(table(&*source.project(&[1])).await, ["1", "10"]);
    assert_eq!(read_all(&*source.project(&[]), 10).await.expect("reads").positions(), [0, 0], "rows are counted without columns");
}

#[tokio::test]
async fn files_are_read_in_order_of_their_names_and_lists_in_their_order() {
    let files: [(&str, &[u8]); 5] =
        [("d/2.csv", b"x\n2\n"), ("d/1.csv", b"x\n1\n"), ("d/.hidden.csv", b"x\n0\n"), ("d/_tmp.csv", b"x\n0\n"), ("e/f/3.csv", b"x\n3\n")];
    let directory = directory(&files);
    for (path, expected) in [
        (json!("d"), vec!["1", "2"]),
        (json!("d/*.csv"), vec!["1", "2"]),
        (json!("./d/[12].csv"), vec!["1", "2"]),
        (json!("**/*.csv"), vec!["1", "2", "3"]),
        (json!(["e/f/3.csv", "d", "d/2.csv"]), vec!["3", "1", "2"]),
    ] {
        let source = source(&directory, json!({ "path": path, "format": "csv" }), None);
        assert_eq!(table(&*source).await, expected, "{path}");
    }
    let splits = source(&directory, json!({ "path": "d/*.csv" }), None).splits(1).await.expect("splits");
    assert_eq!(splits.iter().map(|split| &*split.id).collect::<Vec<_>>(), ["d/1.csv", "d/2.csv"]);
}

#[tokio::test]
async fn bad_csv_records_are_rejected_and_the_others_flow() {
    let csv = b"n,name?\n1,a\n2\nx,b\n\n3,c,d\n4,\"q\"r\n5,\xFF\n,e\n6,f\n7,\"open\n8,g";
    let directory = directory(&[("a.csv", csv)]);
    let source = source(&directory, json!({ "path": "a.csv" }), Some(schema(&[("n", "Int64"), ("name?", "Utf8?")])));
    let everything = read_all(&*source, 100).await.expect("reads");
    assert_eq!(lines(&everything, &*source), ["1|a", "6|f", "8|g"]);
    assert_eq!(everything.positions(), [0, 8, 10], "blank lines are records");
    let expected = [
        (1, "expected 2 fields, found 1", "2"),
        (2, "column n: \"x\" is not of type Int64", "x,b"),
        (4, "expected 2 fields, found 3", "3,c,d"),
        (5, "text follows the closing quote of field 2", "4,\"q\"r"),
        (6, "invalid UTF-8 at byte 2 of the record", "5,\u{FFFD}"),
        (7, "column n: null in a column declared without `?`", ",e"),
        (9, "a quoted field is not closed", "7,\"open"),
    ];
    assert_eq!(rejections(&everything), expected);
    assert!(everything.rejected.iter().all(|rejection| rejection.source.as_deref() == Some("a.csv")));
}

#[tokio::test]
async fn bad_ndjson_records_are_rejected_and_the_others_flow() {
    let json = br#"{"n":1}
{"n":1.5}
nonsense

{"n":2} {"n":3}
{"n":
4}
{"n":5,"n":6}
{"other":1}
{"n":"7","list":[1,2]}
{"n":8,"list":[1,"x"]}
{"n":9,"list":[1,null]}
{"n":10,"when":"99999-01-01T00:00:00Z"}
{"n":11,"when":"2013-01-01T00:00:00Z","skipped":{"deep":[1,{"x":"\u00e9\n"}]}}
{"n":12,"skipped":[1,}"#;
    let directory = directory(&[("a.ndjson", json)]);
    let declared = schema(&[("n", "Int64"), ("list", "List(non-null Int64)?"), ("when", "Timestamp(ms, \"UTC\")?")]);
    let source = source(&directory, json!({ "path": "a.ndjson" }), Some(declared));
    let everything = read_all(&*source, 100).await.expect("reads");
    assert_eq!(lines(&everything, &*source), ["1||", "7|[1, 2]|", "11||2013-01-01T00:00:00Z"]);
    assert_eq!(everything.positions(), [0, 9, 13]);
    let expected = [
        (1, "column n: \"1.5\" is not of type Int64"),
        (2, "invalid JSON: expected an object at byte 0 of the record"),
        (4, "invalid JSON: text behind the value at byte 8 of the record"),
        (5, "invalid JSON: the record ends within a value at byte 5 of the record"),
        (6, "invalid JSON: expected an object at byte 0 of the record"),
        (7, "member \"n\" stands twice"),
        (8, "column n is missing and was declared without `?`"),
        (10, "column item: \"x\" is not of type Int64"),
        (11, "column item: null in a column declared without `?`"),
        (12, "column when: \"99999-01-01T00:00:00Z\" is not of type Timestamp(ms, \"UTC\")"),
        (14, "invalid JSON: expected a value at byte 21 of the record"),
    ];
    assert_eq!(rejections(&everything).into_iter().map(|(position, reason, _)| (position, reason)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_value_behind_the_sample_that_does_not_fit_says_that_the_type_was_guessed() {
    let directory = directory(&[("a.csv", b"n\n1\nx\n"), ("b.ndjson", b"{\"n\":[1]}\n{\"n\":[\"x\"]}\n")]);
    for (name, column) in [("a.csv", "n"), ("b.ndjson", "item")] {
        let source = source(&directory, json!({ "path": name, "infer-records": 1 }), None);
        let everything = read_all(&*source, 10).await.expect("reads");
        let reason = format!(
            "column {column}: \"x\" is not of type Int64, which was guessed from the first records: declare the columns under `schema:` of the source"
        );
        assert_eq!(everything.rejected[0].reason, reason);
    }
}

#[tokio::test]
async fn a_record_that_is_too_long_is_rejected_without_being_kept() {
    let mut json = b"{\"n\":1}\n{\"n\":\"".to_vec();
    json.resize(100 << 20, b'x');
    json.extend_from_slice(b"\"}\n{\"n\":2}\n");
    let directory = directory(&[("a.ndjson", &json), ("b.ndjson.gz", &gzip(&json[..20 << 20]))]);
    let source = source(&directory, json!({ "path": ["a.ndjson", "b.ndjson.gz"] }), Some(schema(&[("n", "Int64")])));
    let everything = read_all(&*source, 100).await.expect("reads");
    assert_eq!(lines(&everything, &*source), ["1", "2", "1"]);
    assert_eq!(everything.positions(), [0, 2, 0]);
    let reasons: Vec<_> =
        everything.rejected.iter().map(|rejection| (rejection.position, &*rejection.reason, rejection.row.len() < 1_100)).collect();
    let expected = "the record is longer than max-record-bytes (1048576): it has ";
    assert_eq!(reasons, [(Some(1), &*format!("{expected}104857595"), true), (Some(1), &*format!("{expected}20971512"), true)]);
}

#[tokio::test]
async fn a_quote_that_is_never_closed_costs_one_line() {
    let mut csv = b"n,name\n1,a\n2,\"open\n".to_vec();
    (3..200_000).for_each(|number| csv.extend_from_slice(format!("{number},b\n").as_bytes()));
    let directory = directory(&[("a.csv", &csv)]);
    let source = source(&directory, json!({ "path": "a.csv", "max-record-bytes": 100_000 }), None);
    let everything = read_all(&*source, 8_192).await.expect("reads");
    assert_eq!(everything.positions().len(), 199_998);
    let reason = "the record is longer than max-record-bytes (100000); is a quote not closed?";
    assert_eq!(rejections(&everything), [(1, reason, "2,\"open")]);
}

#[tokio::test]
async fn a_gzip_file_that_is_cut_off_gives_its_whole_records_and_then_an_error() {
    let csv: String = std::iter::once("n\n".to_owned()).chain((0..100_000).map(|number| format!("{number}\n"))).collect();
    let whole = gzip(csv.as_bytes());
    let directory =
        directory(&[("cut.csv.gz", &whole[..whole.len() / 2]), ("bad.csv.gz", &[&whole[..whole.len() - 8], &[0xAA; 8]].concat())]);
    for (name, expected) in [
        (
            "cut.csv.gz",
            format!("cut.csv.gz is cut off: its compressed content is not complete at byte {}, where the file ends", whole.len() / 2),
        ),
        ("bad.csv.gz", "bad.csv.gz is damaged: its content cannot be decompressed near byte".to_owned()),
    ] {
        let source = source(&directory, json!({ "path": name }), None);
        let split = source.splits(1).await.expect("splits").remove(0);
        let mut reader = source.open(&split, None).await.expect("opens");
        let mut everything = Everything::default();
        let error = everything.drain(&mut *reader, 1_000).await.expect_err("cut off");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(everything.positions().len() > 20_000, "{} rows of {name}", everything.positions().len());
        assert_eq!(everything.rejected, []);
    }
}

#[tokio::test]
async fn a_reader_goes_on_at_any_position_of_any_format() {
    let csv: String =
        (0..500).map(|number| if number % 7 == 0 { format!("x{number},\"a\nb\"\n") } else { format!("{number},\"c\"\n") }).collect();
    let csv = format!("n,s\n{csv}");
    let json: String = (0..500).map(|number| if number % 5 == 0 { "\n".to_owned() } else { format!("{{\"n\":{number}}}\n") }).collect();
    let zstd = zstd::encode_all(json.as_bytes(), 1).expect("memory");
    let files: [(&str, &[u8]); 5] = [
        ("a.csv", csv.as_bytes()),
        ("b.csv.gz", &gzip(csv.as_bytes())),
        ("c.ndjson", json.as_bytes()),
        ("d.ndjson.zst", &zstd),
        ("e.ndjson", json.trim_end().as_bytes()),
    ];
    let directory = directory(&files);
    for (name, _) in files {
        check_resuming(&*source(&directory, json!({ "path": name }), Some(schema(&[("n", "Int64")]))), 37).await;
    }
}

#[tokio::test]
async fn every_line_of_text_is_a_value_and_bad_ones_are_rejected() {
    let text = b"first\n\n  spaces \t\r\n\xFF\n\xC5\xBElut\xC3\xBD\nlonger than twelve\nlast";
    let directory = directory(&[("a.log", text), ("b.txt.gz", &gzip(text))]);
    for name in ["a.log", "b.txt.gz"] {
        let source = source(&directory, json!({ "path": name, "max-record-bytes": 12 }), None);
        assert_eq!(types(&*source), ["value Utf8"]);
        let everything = read_all(&*source, 3).await.expect("reads");
        let rows = everything.rows(&source.schema());
        let values: Vec<Option<&str>> = arrow_array::cast::AsArray::as_string::<i32>(rows.column(0)).iter().collect();
        assert_eq!(values, [Some("first"), Some(""), Some("  spaces \t"), Some("žlutý"), Some("last")]);
        assert_eq!(everything.positions(), [0, 1, 2, 4, 6]);
        let expected = [
            (3, "invalid UTF-8 at byte 0 of the record", "\u{FFFD}"),
            (5, "the record is longer than max-record-bytes (12)", "longer than twelve"),
        ];
        assert_eq!(rejections(&everything), expected);
        check_resuming(&*source, 2).await;
        assert_eq!(read_all(&*source.project(&[]), 9).await.expect("reads").positions(), [0, 1, 2, 4, 6], "without its column too");
    }
    let named = source(&directory, json!({ "path": "a.log", "max-record-bytes": 100 }), Some(schema(&[("line", "LargeUtf8?")])));
    assert_eq!(read_all(&*named, 100).await.expect("reads").positions().len(), 6);
    let refused = problems(&directory, json!({ "path": "a.log" }), Some(schema(&[("n", "Int64")])));
    assert_eq!(refused, ["format: column n of type Int64 is no text: a line holds one column of text"]);
}

#[tokio::test]
async fn ranges_of_text_hold_every_line_once() {
    let text: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    let directory = directory(&[("a.txt", text.as_bytes())]);
    let cut = source(&directory, json!({ "path": "a.txt", "split-bytes": 65_536 }), None);
    assert_eq!(cut.splits(4).await.expect("splits").len(), text.len().div_ceil(65_536));
    assert_eq!(table(&*cut).await, text.lines().collect::<Vec<_>>());
}

#[tokio::test]
async fn ranges_of_ndjson_hold_every_line_once() {
    let json: String = (0..50_000).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    let directory = directory(&[("a.ndjson", json.as_bytes())]);
    let whole = table(&*source(&directory, json!({ "path": "a.ndjson" }), None)).await;
    let cut = source(&directory, json!({ "path": "a.ndjson", "split-bytes": 65_536 }), None);
    let splits = cut.splits(4).await.expect("splits");
    assert_eq!(splits.len(), json.len().div_ceil(65_536));
    assert_eq!(&*splits[1].id, "a.ndjson@65536");
    assert_eq!(table(&*cut).await, whole);
    check_resuming(&*cut, 5_000).await;
}

#[tokio::test]
async fn progress_reaches_the_size_of_the_files() {
    let csv = b"n\n1\n2\n".as_slice();
    let directory = directory(&[("a.csv", csv), ("b.csv.gz", &gzip(csv))]);
    let source = source(&directory, json!({ "path": "*", "format": "csv" }), None);
    let mut read = 0;
    for split in source.splits(1).await.expect("splits") {
        let mut reader = source.open(&split, None).await.expect("opens");
        Everything::default().drain(&mut *reader, 10).await.expect("reads");
        read += reader.progress();
    }
    assert_eq!(source.size_hint(), Some(read));
}

struct Followed {
    directory: TempDir,
    clock: Arc<millstream_engine::clock::ManualClock>,
    source: Arc<dyn Source>,
}

impl Followed {
    fn new(files: &[(&str, &[u8])], path: &str) -> Self {
        let (directory, clock) = (directory(files), clock());
        let settings = json!({ "path": path, "format": "csv", "follow": true, "poll-interval": "1s" });
        let declared = Some(schema(&[("n", "Int64")]));
        let source = plan_source(&FilesSource, &settings, directory.path(), declared, clock.clone()).expect("the settings are right");
        Self { directory, clock, source }
    }

    async fn open(&self, split: usize) -> Box<dyn SplitReader> {
        let split = self.source.splits(1).await.expect("splits").remove(split);
        self.source.open(&split, None).await.expect("opens")
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.directory.path().join(name)).expect("opens");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// What a read gives after the poll interval has passed; none: it waits.
    fn poll(&self, reader: &mut dyn SplitReader) -> Option<Result<Option<Vec<u64>>, OperatorError>> {
        let mut reading = Box::pin(reader.read(10));
        let found = (&mut reading).now_or_never().or_else(|| {
            self.clock.advance(Duration::from_secs(1));
            reading.now_or_never()
        })?;
        Some(found.map(|found| match found {
            Read::Rows { batch, .. } => Some((0..batch.num_rows()).map(|row| batch.origin().expect("known").positions.of(row)).collect()),
            Read::End => None,
        }))
    }
}

#[tokio::test]
async fn lines_appended_to_a_followed_file_are_read_once_they_end() {
    let followed = Followed::new(&[("a.csv", b"n\n1\n2")], "a.csv");
    assert!(!followed.source.is_bounded());
    let mut reader = followed.open(0).await;
    let mut rows = |followed: &Followed| followed.poll(&mut *reader).map(|found| found.expect("reads").expect("rows"));
    assert_eq!(rows(&followed), Some(vec![0]));
    assert_eq!(rows(&followed), None, "the line has no end yet");
    followed.append("a.csv", "0\n3\n");
    assert_eq!(rows(&followed), Some(vec![1, 2]));
    assert_eq!(rows(&followed), None);
    fs::write(followed.directory.path().join("a.csv"), "n\n").expect("written");
    let error = followed.poll(&mut *reader).expect("an answer").expect_err("truncated");
    assert!(error.to_string().contains("a.csv is shorter than the 9 bytes that were read of it before"), "{error}");
}

#[tokio::test]
async fn a_followed_file_may_be_empty_at_first() {
    let followed = Followed::new(&[("a.csv", b"")], "a.csv");
    let mut reader = followed.open(0).await;
    assert!(followed.poll(&mut *reader).is_none());
    followed.append("a.csv", "n");
    assert!(followed.poll(&mut *reader).is_none());
    followed.append("a.csv", "\n7\n");
    assert_eq!(followed.poll(&mut *reader).expect("an answer").expect("reads"), Some(vec![0]));
}

#[tokio::test]
async fn in_a_followed_directory_new_files_are_found_and_older_ones_end() {
    let followed = Followed::new(&[("d/1.csv", b"n\n1\n")], "d");
    assert!(followed.source.discovery_interval().is_some());
    let mut first = followed.open(0).await;
    assert_eq!(followed.poll(&mut *first).expect("an answer").expect("reads"), Some(vec![0]));
    assert!(followed.poll(&mut *first).is_none(), "it is the last file by name, so it may grow");
    followed.append("d/1.csv", "2\n3");
    followed.append("d/2.csv", "n\n4\n");
    assert_eq!(followed.poll(&mut *first).expect("an answer").expect("reads"), Some(vec![1]));
    assert_eq!(followed.poll(&mut *first).expect("an answer").expect("reads"), Some(vec![2]), "its last line needs no end");
    assert_eq!(followed.poll(&mut *first).expect("an answer").expect("reads"), None);
    let mut second = followed.open(1).await;
    assert_eq!(followed.poll(&mut *second).expect("an answer").expect("reads"), Some(vec![0]));
    assert!(followed.poll(&mut *second).is_none());
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let directory = directory(&[
        ("a.csv", b"n,m\n1,2\n"),
        ("empty.csv", b""),
        ("a.dat", b"x"),
        ("a.parquet", b"PAR1 no"),
        ("a.avro", b"Obj\x02"),
        ("e.ndjson", b""),
    ]);
    let check = |settings: Value, declared: Option<SchemaRef>, expected: &[&str]| {
        let found = problems(&directory, settings.clone(), declared);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{settings}: {found}");
        }
    };
    check(json!({ "path": "none.csv" }), None, &["path: cannot read `none.csv`: No such file"]);
    check(json!({ "path": ["x*.csv", "y*.csv"] }), None, &["path: no file matches `x*.csv`", "path: no file matches `y*.csv`"]);
    check(json!({ "path": "a.dat" }), None, &["format: the name of the first file does not say its format"]);
    check(json!({ "path": "a.csv", "fromat": "csv" }), None, &["fromat: unknown field `fromat`, expected one of"]);
    check(json!({ "path": "a.csv", "delimiter": "ab" }), None, &["delimiter: `ab` is not one ASCII character"]);
    check(
        json!({ "path": "e.ndjson", "null-values": ["NA"], "header": true }),
        None,
        &["header: is a setting of CSV", "null-values: is a setting"],
    );
    check(json!({ "path": "empty.csv" }), None, &["path: cannot guess the columns of empty.csv: it has no record"]);
    check(json!({ "path": "a.parquet" }), None, &["path: a.parquet: "]);
    check(json!({ "path": "a.avro" }), None, &["path: a.avro cannot be read: it is no Avro file: it does not begin as one"]);
    check(
        json!({ "path": "a.avro", "compression": "gzip", "timestamp-formats": { "n": "unix-s" } }),
        None,
        &["compression: Avro files are compressed inside", "timestamp-formats: is a setting of text formats only"],
    );
    check(
        json!({ "path": "a.csv" }),
        Some(schema(&[("N", "Int64"), ("z", "Int64")])),
        &["path: a.csv has no column N: did you mean n?", "path: a.csv has no column z: it has n, m"],
    );
    check(json!({ "path": "a.csv" }), Some(schema(&[("n", "List(Int64)")])), &[": column n of type List(Int64) cannot be read from CSV"]);
    check(
        json!({ "path": "a.csv", "timestamp-formats": { "n": "unix-s", "o": "unix-s" } }),
        None,
        &["timestamp-formats.n: the column has the type Int64", "timestamp-formats.o: there is no such column"],
    );
    check(
        json!({ "path": "a.csv", "split-bytes": 100, "max-record-bytes": 0 }),
        None,
        &["split-bytes: only files of NDJSON", "split-bytes: is at least", "max-record-bytes: is 1 to"],
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let directory = directory(&[("a.csv", b"n\n1\n"), ("b.csv", b"m\n1\n")]);
    let source = source(&directory, json!({ "path": "*.csv" }), None);
    let error = read_all(&*source, 10).await.expect_err("b.csv has other columns");
    assert_eq!(error.to_string(), "cannot read b.csv: its header has no column n");
    fs::remove_file(directory.path().join("a.csv")).expect("removed");
    fs::create_dir(directory.path().join("a.csv")).expect("made");
    let error = read_all(&*source, 10).await.expect_err("a.csv is a directory");
    assert!(error.to_string().contains("b.csv"), "directories are not files: {error}");
}

fn batch(columns: &[(&str, &str)], rows: &[&str]) -> Batch {
    let schema = schema(columns);
    let mut format = crate::formats::ndjson::Reader::new(schema, &vec![crate::formats::values::TimestampFormat::Standard; columns.len()])
        .expect("types fit");
    let text = rows.join("\n");
    let limits = crate::formats::text::ScanLimits { records: usize::MAX, last: true, stop_at: usize::MAX, record_bytes: usize::MAX };
    crate::formats::text::TextFormat::scan(&mut format, text.as_bytes(), limits);
    let decoded = crate::formats::text::TextFormat::decode(&mut format, text.as_bytes());
    assert_eq!(decoded.bad, []);
    Batch::new(decoded.columns)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(current) = open.pop() {
        for entry in fs::read_dir(&current).expect("lists") {
            let path = entry.expect("lists").path();
            if path.is_dir() {
                open.push(path);
            } else {
                names.push(path.strip_prefix(directory).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    names
}
