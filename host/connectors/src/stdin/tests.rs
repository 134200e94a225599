use std::{
    io::{self, Cursor, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use arrow_cast::pretty::pretty_format_batches;
use futures::FutureExt;
use millstream_engine::connector::{Read, Source};
use serde_json::{Value, json};

use super::*;
use crate::testing::{clock, plan_source, read_all, schema};

fn source(input: impl io::Read + Send + 'static, settings: Value) -> Arc<dyn Source> {
    let input = Mutex::new(Some(input));
    let stdin = Stdin::reading(move || Box::new(input.lock().expect("no one panics").take().expect("it is opened once")));
    let declared = Some(schema(&[("n", "Int64"), ("s", "Utf8?")]));
    plan_source(&stdin, &settings, Path::new("."), declared, clock()).expect("the settings are right")
}

async fn rows(input: &'static str, settings: Value) -> (String, Vec<u64>, Vec<String>) {
    let source = source(Cursor::new(input), settings);
    let everything = read_all(&*source, 2).await.expect("reads");
    let text = pretty_format_batches(&[everything.rows(&source.schema())]).expect("prints").to_string();
    let lines: Vec<&str> = text.lines().skip(3).filter(|line| !line.starts_with('+')).collect();
    let reasons = everything.rejected.iter().map(|rejection| rejection.reason.clone()).collect();
    (lines.join("\n"), everything.positions(), reasons)
}

#[tokio::test]
async fn ndjson_and_csv_are_read_to_their_end() {
    let expected = "| 1 | a |\n| 2 |   |\n| 3 | c |";
    let ndjson = rows("{\"n\":1,\"s\":\"a\"}\n{\"n\":2}\nbad\n{\"n\":3,\"s\":\"c\"}", json!({ "format": "ndjson" })).await;
    assert_eq!(ndjson, (expected.into(), vec![0, 1, 3], vec!["invalid JSON: expected an object at byte 0 of the record".into()]));
    let unsaid = rows("{\"n\":1,\"s\":\"a\"}\n{\"n\":2}\n{\"n\":3,\"s\":\"c\"}", json!({})).await;
    assert_eq!(unsaid, (expected.into(), vec![0, 1, 2], vec![]), "NDJSON, if nothing else is said");
    let csv = rows("s,other,n\na,x,1\n,x,2\nc,x,3", json!({ "format": "csv" })).await;
    assert_eq!(csv, (expected.into(), vec![0, 1, 2], vec![]));
    let bare = rows("1;a\n2;\n3;c\n", json!({ "format": "csv", "header": false, "delimiter": ";" })).await;
    assert_eq!(bare, (expected.into(), vec![0, 1, 2], vec![]));
    let empty = rows("", json!({ "format": "csv" })).await;
    assert_eq!(empty, (String::new(), vec![], vec![]));
}

/// Nothing else can be read of it: whoever would have to open it again is refused.
#[test]
fn it_is_opened_once() {
    assert!(!source(Cursor::new(""), json!({})).reopens());
}

/// A line is delivered when it ends, not when the input does; and a read that is given up loses nothing.
#[tokio::test]
async fn a_line_is_delivered_when_it_ends() {
    let (input, mut output) = io::pipe().expect("a pipe");
    let source = source(input, json!({ "format": "ndjson" }));
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    output.write_all(b"{\"n\":1}\n{\"n\":").expect("written");
    let Read::Rows { batch, .. } = reader.read(10).await.expect("reads") else { unreachable!("rows") };
    assert_eq!(batch.num_rows(), 1);
    assert!(reader.read(10).now_or_never().is_none());
    output.write_all(b"2}\n").expect("written");
    let Read::Rows { batch, .. } = reader.read(10).await.expect("reads") else { unreachable!("rows") };
    assert_eq!(batch.num_rows(), 1);
    drop(output);
    assert!(matches!(reader.read(10).await.expect("reads"), Read::End));
    assert!(source.open(&split, Some(&reader.position())).await.is_err(), "it cannot be read again");
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let problems = plan_source(&Stdin::default(), &json!({ "format": "ndjson", "header": true }), Path::new("."), None, clock())
        .err()
        .expect("refused");
    assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), ["header", ""]);
}
