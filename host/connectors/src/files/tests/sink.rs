//! The sink `files`.

use super::*;

const COLUMNS: [(&str, &str); 2] = [("origin", "Utf8?"), ("n", "Int64")];

fn sink(directory: &TempDir, settings: Value, changes: bool) -> Arc<dyn millstream_engine::connector::Sink> {
    plan_sink(&FilesSink, &settings, directory.path(), schema(&COLUMNS), changes).expect("the settings are right")
}

fn rows() -> Batch {
    batch(&COLUMNS, &[r#"{"origin":"JFK","n":1}"#, r#"{"origin":"a/../b","n":2}"#, r#"{"n":3}"#, r#"{"origin":"JFK","n":4}"#])
}

fn content(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).expect("reads")
}

#[tokio::test]
async fn parts_appear_when_they_are_complete_and_not_before() {
    let directory = directory(&[]);
    let sink = sink(&directory, json!({ "path": "out", "format": "ndjson" }), false);
    let (mut first, mut second) = (writer(&*sink, 0).await.expect("opens"), writer(&*sink, 1).await.expect("opens"));
    first.write(&rows()).await.expect("writes");
    second.write(&rows().slice(0..1)).await.expect("writes");
    assert_eq!(names(directory.path()), ["out/.part-00000-00000.ndjson.tmp", "out/.part-00001-00000.ndjson.tmp"]);
    first.finish().await.expect("publishes");
    second.abort().await;
    assert_eq!(names(directory.path()), ["out/part-00000-00000.ndjson"]);
    let expected =
        "{\"origin\":\"JFK\",\"n\":1}\n{\"origin\":\"a/../b\",\"n\":2}\n{\"origin\":null,\"n\":3}\n{\"origin\":\"JFK\",\"n\":4}\n";
    assert_eq!(content(&directory, "out/part-00000-00000.ndjson"), expected);
}

#[tokio::test]
async fn directories_are_named_by_columns_and_no_value_leaves_them() {
    let directory = directory(&[]);
    let sink = sink(&directory, json!({ "path": "out", "format": "csv", "by": ["origin"] }), false);
    let mut writer = writer(&*sink, 0).await.expect("opens");
    writer.write(&rows()).await.expect("writes");
    writer.finish().await.expect("publishes");
    let expected = [
        "out/origin=JFK/part-00000-00001.csv",
        "out/origin=__HIVE_DEFAULT_PARTITION__/part-00000-00002.csv",
        "out/origin=a%2F..%2Fb/part-00000-00003.csv",
    ];
    let found = names(directory.path());
    let directories = |names: &[String]| names.iter().map(|name| name.rsplit_once('/').expect("nested").0.to_owned()).collect::<Vec<_>>();
    assert_eq!(directories(&found), directories(&expected.map(str::to_owned)));
    assert_eq!(content(&directory, &found[0]), "n\n1\n4\n");
}

#[tokio::test]
async fn a_part_that_is_full_is_followed_by_the_next() {
    let directory = directory(&[]);
    let sink = sink(&directory, json!({ "path": "out", "format": "csv", "roll-rows": 4, "header": false }), false);
    let mut writer = writer(&*sink, 3).await.expect("opens");
    for _ in 0..3 {
        writer.write(&rows().slice(0..2)).await.expect("writes");
    }
    assert_eq!(names(directory.path()), ["out/.part-00003-00001.csv.tmp", "out/part-00003-00000.csv"]);
    writer.finish().await.expect("publishes");
    assert_eq!(content(&directory, "out/part-00003-00001.csv"), "JFK,1\na/../b,2\n");
}

#[tokio::test]
async fn a_part_is_complete_after_a_time_also_if_no_row_comes() {
    let (directory, clock) = (directory(&[]), clock());
    let settings = json!({ "path": "out", "format": "csv", "roll-after": "10s" });
    let input = Some(millstream_model::StreamType { schema: schema(&COLUMNS), event_times: false, changes: false });
    let base_directory = directory.path().to_owned();
    let request = millstream_engine::connector::ConnectorRequest {
        id: "out",
        settings: &settings,
        base_directory,
        declared_schema: None,
        input,
        clock: clock.clone(),
        state_directory: None,
    };
    let sink = millstream_engine::connector::SinkConnector::plan(&FilesSink, request).expect("the settings are right");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    writer.write(&rows()).await.expect("writes");
    clock.advance(Duration::from_secs(9));
    writer.flush().await.expect("flushes");
    assert_eq!(names(directory.path()), ["out/.part-00000-00000.csv.tmp"]);
    clock.advance(Duration::from_secs(1));
    writer.flush().await.expect("flushes");
    assert_eq!(names(directory.path()), ["out/part-00000-00000.csv"]);
}

#[tokio::test]
async fn changes_are_written_as_a_column_in_front() {
    let directory = directory(&[]);
    for format in ["csv", "ndjson", "parquet", "avro"] {
        let sink = sink(&directory, json!({ "path": format, "format": format }), true);
        let mut writer = writer(&*sink, 0).await.expect("opens");
        writer.write(&rows().with_changes(Some(vec![0, 1, 2, 3].into()))).await.expect("writes");
        writer.write(&rows().slice(0..1)).await.expect("a batch of inserts needs no changes");
        writer.finish().await.expect("publishes");
    }
    assert_eq!(content(&directory, "csv/part-00000-00000.csv"), "op,origin,n\n+I,JFK,1\n-U,a/../b,2\n+U,,3\n-D,JFK,4\n+I,JFK,1\n");
    assert!(content(&directory, "ndjson/part-00000-00000.ndjson").starts_with("{\"op\":\"+I\",\"origin\":\"JFK\",\"n\":1}\n"));
    for format in ["parquet", "avro"] {
        let binary = source(&directory, json!({ "path": format!("{format}/part-00000-00000.{format}") }), None);
        assert_eq!(table(&*binary).await, ["+I|JFK|1", "-U|a/../b|2", "+U||3", "-D|JFK|4", "+I|JFK|1"]);
    }
}

#[tokio::test]
async fn texts_are_written_as_lines_and_what_a_line_cannot_say_is_refused() {
    let directory = directory(&[]);
    let columns = [("text", "Utf8?")];
    let settings = json!({ "path": "out", "format": "string", "compression": "gzip" });
    let sink = plan_sink(&FilesSink, &settings, directory.path(), schema(&columns), false).expect("the settings are right");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    let lines = [r#"{"text":"a"}"#, r#"{"text":""}"#, r#"{"text":" \t\rž\" "}"#];
    writer.write(&batch(&columns, &lines)).await.expect("writes");
    for (line, what) in
        [(r#"{}"#, "null"), (r#"{"text":"a\nb"}"#, "a text with a line end"), (r#"{"text":"a\r"}"#, "a text with a line end")]
    {
        let refused = writer.write(&batch(&columns, &[line])).await.expect_err("no line says it").to_string();
        assert!(refused.ends_with(&format!("part-00000-00000.txt.gz: column text, row 0: {what} cannot be said in a line")), "{refused}");
    }
    writer.finish().await.expect("publishes");
    let back = sink.published().expect("it can be read").expect("it is kept");
    let rows = read_all(&*back, 10).await.expect("reads").rows(&back.schema());
    let values: Vec<Option<&str>> = arrow_array::cast::AsArray::as_string::<i32>(rows.column(0)).iter().collect();
    assert_eq!(values, [Some("a"), Some(""), Some(" \t\rž\" ")]);
    let refused = |columns: &[(&str, &str)], changes: bool| {
        let problems = plan_sink(&FilesSink, &settings, directory.path(), schema(columns), changes).err().expect("no text alone");
        problems[0].message.clone()
    };
    assert_eq!(refused(&[("n", "Int64")], false), "column n of type Int64 is no text: a line holds one column of text");
    assert_eq!(refused(&[("text", "Utf8")], true), "a line holds one column of text, and there are 2 columns", "`op` is one");
}

#[tokio::test]
async fn output_of_another_run_is_replaced_only_if_told_to() {
    let old: [(&str, &[u8]); 5] = [
        ("out/part-00000-00007.csv.gz", b"old"),
        ("out/origin=X/part-00001-00000.ndjson", b"old"),
        ("out/.part-00002-00000.csv.tmp", b"half-written"),
        ("out/README.md", b"mine"),
        ("out/sub/part-00000-00000.csv", b"mine"),
    ];
    let directory = directory(&old);
    let error = writer(&*sink(&directory, json!({ "path": "out", "format": "csv" }), false), 0).await.err().expect("refused");
    assert!(error.to_string().ends_with("is output of another run: choose another `path`, remove it, or set `overwrite: true`"), "{error}");
    let sink = sink(&directory, json!({ "path": "out", "format": "csv", "overwrite": true }), false);
    writer(&*sink, 0).await.expect("opens").finish().await.expect("publishes");
    writer(&*sink, 1).await.expect("the second subtask does not remove the parts of the first").finish().await.expect("publishes");
    assert_eq!(names(directory.path()), ["out/README.md", "out/part-00000-00000.csv", "out/sub/part-00000-00000.csv"]);
    assert_eq!(content(&directory, "out/part-00000-00000.csv"), "origin,n\n", "an output without rows has its columns");
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_file() {
    for format in ["csv", "ndjson", "parquet", "avro"] {
        let directory = directory(&[]);
        let sink = sink(&directory, json!({ "path": "out", "format": format }), false);
        let mut writer = writer(&*sink, 0).await.expect("opens");
        // The hidden file leads to a device that is always full.
        std::os::unix::fs::symlink("/dev/full", directory.path().join(format!("out/.part-00000-00000.{format}.tmp"))).expect("linked");
        let error = match writer.write(&rows()).await {
            Ok(()) => writer.finish().await.expect_err("the disk is full"),
            Err(error) => error,
        };
        let file = format!("out/part-00000-00000.{format}");
        assert!(error.to_string().starts_with("cannot write ") && error.to_string().ends_with(&file), "{error}");
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert_eq!(cause, "No space left on device (os error 28)", "said once, in the chain of causes");
        assert_eq!(names(directory.path()), [] as [String; 0], "nothing is left behind");
    }
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let directory = directory(&[]);
    let columns = schema(&[("n", "Int64"), ("list", "List(Int64)?")]);
    let problem = |settings: Value| {
        let problems = plan_sink(&FilesSink, &settings, directory.path(), columns.clone(), false).err().expect("refused");
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect::<Vec<_>>()
    };
    assert_eq!(
        problem(json!({ "path": "out", "format": "csv" })),
        ["format: column list of type List(Int64) does not fit into CSV: use ndjson or parquet"]
    );
    assert_eq!(
        problem(json!({ "path": "out", "format": "avro", "compression": "zstd" })),
        ["compression: Avro files are compressed inside: leave this out (a sink has `codec`)"]
    );
    assert_eq!(problem(json!({ "path": "out", "format": "parquet", "codec": "snappy" })), ["codec: is a setting of avro only"]);
    let unsigned = plan_sink(&FilesSink, &json!({ "path": "out", "format": "avro" }), directory.path(), schema(&[("n", "UInt64")]), false);
    assert_eq!(unsigned.err().expect("refused")[0].message, "column n: Avro has no type for UInt64: convert it with `select` before");
    assert_eq!(
        problem(json!({ "path": "", "format": "ndjson", "by": ["m", "list", "n", "n"], "delimiter": ";", "roll-rows": 0 })),
        [
            "path: the path is empty",
            "by.0: there is no column m",
            "by.1: column list is nested and cannot name a directory",
            "by.3: column n stands twice",
            "delimiter: is a setting of csv only",
            "roll-rows: is more than 0",
        ]
    );
}
