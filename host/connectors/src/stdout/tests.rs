use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use arrow_array::{Float64Array, Int64Array, StringArray};
use millstream_model::Batch;
use serde_json::{Value, json};

use super::*;
use crate::testing::{plan_sink, schema, writer};

fn rows(numbers: Vec<i64>, texts: Vec<Option<&str>>) -> Batch {
    let floats = Float64Array::from_iter_values(numbers.iter().map(|&number| number as f64 / 2.0));
    let count = numbers.len();
    let columns = vec![Arc::new(Int64Array::from(numbers)) as _, Arc::new(StringArray::from(texts)) as _, Arc::new(floats) as _];
    Batch::try_new(schema(&[("n", "Int64"), ("text", "Utf8?"), ("half", "Float64")]), columns, count).expect("columns fit")
}

async fn printed(settings: Value, terminal: bool, changes: bool, batches: &[Batch]) -> String {
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink =
        plan_sink(&Stdout::writing(output.clone(), terminal), &settings, ".".as_ref(), batches[0].schema(), changes).expect("planned");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    for batch in batches {
        writer.write(batch).await.expect("writes");
    }
    writer.finish().await.expect("ends");
    String::from_utf8(output.lock().expect("no one panics").clone()).expect("text")
}

#[tokio::test]
async fn a_terminal_gets_a_table_that_repeats_its_header_only_when_it_grows() {
    let batches = [rows(vec![1, 20], vec![Some("a"), None]), rows(vec![3], vec![Some("b\u{1b}[1m")]), rows(vec![4], vec![Some("c")])];
    let expected = [
        " n  text  half",
        "──  ────  ────",
        " 1  a      0.5",
        "20  -     10.0",
        "",
        " n  text   half",
        "──  ─────  ────",
        " 3  b\u{FFFD}[1m   1.5",
        " 4  c       2.0",
        "",
    ];
    assert_eq!(printed(Value::Null, true, false, &batches).await, expected.join("\n"));
}

#[tokio::test]
async fn a_pipe_gets_ndjson() {
    let batch = rows(vec![1, 2], vec![Some("a"), None]);
    let expected = "{\"n\":1,\"text\":\"a\",\"half\":0.5}\n{\"n\":2,\"text\":null,\"half\":1.0}\n";
    assert_eq!(printed(json!({}), false, false, std::slice::from_ref(&batch)).await, expected);
    assert_eq!(printed(json!({ "format": "ndjson" }), true, false, std::slice::from_ref(&batch)).await, expected);
    let changes = batch.with_changes(Some(vec![1, 2].into()));
    let expected = "{\"op\":\"-U\",\"n\":1,\"text\":\"a\",\"half\":0.5}\n{\"op\":\"+U\",\"n\":2,\"text\":null,\"half\":1.0}\n";
    assert_eq!(printed(json!({}), false, true, &[changes]).await, expected);
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_went_away_is_no_failure_but_a_full_disk_is() {
    let batch = rows(vec![1], vec![None]);
    for (kind, is_failure) in [(io::ErrorKind::BrokenPipe, false), (io::ErrorKind::StorageFull, true)] {
        let stdout = Stdout::writing(Arc::new(Mutex::new(Failing(kind))), false);
        let sink = plan_sink(&stdout, &Value::Null, ".".as_ref(), batch.schema(), false).expect("planned");
        assert_eq!(sink.parallelism_max(), Some(1));
        let mut writer = writer(&*sink, 0).await.expect("opens");
        assert_eq!(writer.write(&batch).await.is_err(), is_failure, "{kind}");
    }
}
