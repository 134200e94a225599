//! Changelogs into compacted topics and out of them, and envelopes of Debezium.

use std::{path::Path, sync::Arc};

use arrow_array::{Int64Array, StringArray};
use millstream_engine::connector::Source;
use millstream_model::{Batch, ChangeKind};
use rdkafka::{
    Message as _,
    producer::{BaseRecord, Producer as _},
};
use serde_json::{Value, json};

use super::{Cluster, LONG};
use crate::{
    formats::ndjson::{self, Nulls},
    kafka::{KafkaSink, KafkaSource, Machine},
    testing::{Everything, clock, plan_sink, plan_source, read_all, schema, writer},
};

/// What each row does, where it stood, and what it is.
fn changes(everything: &Everything) -> Vec<(u8, u64, Value)> {
    let of = |batch: &Batch| {
        let mut lines = Vec::new();
        let writer = ndjson::Writer::new(&batch.schema(), Nulls::Write).expect("columns of JSON");
        writer.rows(batch.columns(), &mut lines).expect("written");
        let rows: Vec<Value> = serde_json::Deserializer::from_slice(&lines).into_iter().map(|line| line.expect("a line")).collect();
        let changes = batch.changes().expect("changes").to_vec();
        let positions = (0..batch.num_rows()).map(|row| batch.origin().expect("an origin").positions.of(row)).collect::<Vec<_>>();
        changes.into_iter().zip(positions).zip(rows).map(|((change, position), row)| (change, position, row)).collect::<Vec<_>>()
    };
    everything.batches.iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changelog_is_a_compacted_topic_and_comes_back_as_one() {
    use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
    let cluster = Cluster::get();
    let topic = cluster.create("upserts", 1, &[("cleanup.policy", "compact")]).await;
    let columns = schema(&[("plane", "Utf8"), ("flights", "Int64")]);
    let settings = json!({
        "servers": cluster.address, "topic": topic, "format": "json", "delivery": "at-least-once", "key": "plane", "changes": "upsert"
    });
    let sink = plan_sink(&KafkaSink(Machine::Own), &settings, Path::new("."), columns.clone(), true).expect("settings");
    assert!(sink.accepts_changes());
    let mut writer = writer(&*sink, 0).await.expect("a writer");
    let rows = [(Insert, "a", 1), (Insert, "b", 1), (UpdateBefore, "a", 1), (UpdateAfter, "a", 2), (Delete, "b", 1)];
    let planes = StringArray::from_iter_values(rows.iter().map(|row| row.1));
    let flights = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let batch = Batch::try_new(columns.clone(), vec![Arc::new(planes), Arc::new(flights)], rows.len()).expect("columns");
    let batch = batch.with_changes(Some(rows.iter().map(|row| row.0 as u8).collect()));
    writer.write(&batch).await.expect("written");
    writer.finish().await.expect("delivered");
    let records = cluster.read_topic(&topic, "read_committed");
    let shown: Vec<_> = records.iter().map(|record| (record.key().expect("a key"), record.payload())).collect();
    let value = |text: &'static str| Some(text.as_bytes());
    let expected = [
        (&b"a"[..], value(r#"{"plane":"a","flights":1}"#)),
        (b"b", value(r#"{"plane":"b","flights":1}"#)),
        (b"a", value(r#"{"plane":"a","flights":2}"#)),
        (b"b", None),
    ];
    assert_eq!(shown, expected);
    let source = |columns: &[(&str, &str)]| {
        let settings = json!({
            "servers": cluster.address, "topics": topic, "format": "json", "end": "now", "changes": "upsert", "metadata": { "key": "key" }
        });
        plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), Some(schema(columns)), clock())
    };
    let everything = read_all(&*source(&[("flights", "Int64?")]).expect("settings"), 1_000).await.expect("read");
    let row = |key: &str, flights: Option<i64>| json!({ "key": key, "flights": flights });
    let expected = [(2, 0, row("a", Some(1))), (2, 1, row("b", Some(1))), (2, 2, row("a", Some(2))), (3, 3, row("b", None))];
    assert_eq!(changes(&everything), expected);
    let problems = source(&[("flights", "Int64")]).err().expect("a deletion has no flights");
    assert!(problems[0].message.contains("column flights is null then: declare it with `?`"), "{problems:?}");
}

/// Rows of `plane`, `leg` and `flights`, with what each does.
fn changelog(rows: &[(ChangeKind, &str, i64, i64)]) -> Batch {
    let planes = StringArray::from_iter_values(rows.iter().map(|row| row.1));
    let legs = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let flights = Int64Array::from_iter_values(rows.iter().map(|row| row.3));
    let columns = schema(&[("plane", "Utf8"), ("leg", "Int64"), ("flights", "Int64")]);
    let batch = Batch::try_new(columns, vec![Arc::new(planes), Arc::new(legs), Arc::new(flights)], rows.len()).expect("columns");
    batch.with_changes(Some(rows.iter().map(|row| row.0 as u8).collect()))
}

/// Writes a changelog to a topic as the settings say.
async fn write(cluster: &Cluster, topic: &str, more: Value, batch: &Batch) {
    let settings = cluster.sink_settings(&json!(topic), more);
    let sink = plan_sink(&KafkaSink(Machine::Own), &settings, Path::new("."), batch.schema(), true).expect("settings");
    assert!(sink.accepts_changes());
    let mut writer = writer(&*sink, 0).await.expect("a writer");
    writer.write(batch).await.expect("written");
    writer.finish().await.expect("delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_several_columns_is_a_json_object_of_them() {
    use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
    let cluster = Cluster::get();
    let topic = cluster.create("composite", 1, &[("cleanup.policy", "compact")]).await;
    let rows = [(Insert, "a\n", 1, 1), (Insert, "b", 1, 1), (UpdateBefore, "a\n", 1, 1), (UpdateAfter, "a\n", 1, 2), (Delete, "b", 1, 1)];
    let settings = json!({ "delivery": "at-least-once", "key": ["leg", "plane"], "changes": "upsert" });
    write(&cluster, &topic, settings, &changelog(&rows)).await;
    let records = cluster.read_topic(&topic, "read_committed");
    let shown: Vec<(&str, bool)> = records
        .iter()
        .map(|record| (std::str::from_utf8(record.key().expect("a key")).expect("text"), record.payload().is_some()))
        .collect();
    let (a, b) = (r#"{"leg":1,"plane":"a\n"}"#, r#"{"leg":1,"plane":"b"}"#);
    assert_eq!(shown, [(a, true), (b, true), (a, true), (b, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changelog_written_as_envelopes_of_debezium_comes_back_as_it_was_in_json_and_avro() {
    use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
    let cluster = Cluster::get();
    let rows = [(Insert, "a", 1, 1), (UpdateBefore, "a", 1, 1), (UpdateAfter, "a", 1, 2), (Delete, "a", 1, 2)];
    let batch = changelog(&rows);
    for format in ["json", "avro"] {
        let topic = cluster.create(&format!("envelopes-{format}"), 1, &[]).await;
        let settings = json!({ "delivery": "at-least-once", "format": format, "key": "plane", "changes": "debezium" });
        write(&cluster, &topic, settings, &batch).await;
        let records = cluster.read_topic(&topic, "read_committed");
        assert!(records.iter().all(|record| record.key() == Some(b"a")), "{records:?}");
        if format == "json" {
            let row = |flights: i64| format!(r#"{{"plane":"a","leg":1,"flights":{flights}}}"#);
            let expected = [
                format!(r#"{{"before":null,"after":{},"op":"c"}}"#, row(1)),
                format!(r#"{{"before":{},"after":{},"op":"u"}}"#, row(1), row(2)),
                format!(r#"{{"before":{},"after":null,"op":"d"}}"#, row(2)),
            ];
            let values: Vec<&str> =
                records.iter().map(|record| std::str::from_utf8(record.payload().expect("a value")).expect("text")).collect();
            assert_eq!(values, expected);
        }
        let written = crate::formats::avro::derived(&crate::formats::debezium::written(&batch.schema()), "envelope").expect("a schema");
        let mut settings = json!({ "servers": cluster.address, "topics": topic, "format": format, "end": "now", "changes": "debezium" });
        if format == "avro" {
            settings["value-schema"] = json!(written.text());
        }
        let source = plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), Some(batch.schema()), clock()).expect("settings");
        let everything = read_all(&*source, 1_000).await.expect("read");
        let found: Vec<(u8, Value)> = changes(&everything).into_iter().map(|(change, _, row)| (change, row)).collect();
        let expected = rows.map(|(kind, plane, leg, flights)| (kind as u8, json!({ "plane": plane, "leg": leg, "flights": flights })));
        assert_eq!(found, expected, "{format}");
    }
}

#[test]
fn keys_and_envelopes_that_cannot_be_written_are_refused() {
    let columns = schema(&[("plane", "Utf8"), ("at", "Int64")]);
    let refused = |more: Value| {
        let mut settings = json!({ "servers": "b:9092", "topic": "t", "format": "json" });
        settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let problems = plan_sink(&KafkaSink(Machine::Own), &settings, Path::new("."), columns.clone(), true).err().expect("a mistake");
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect::<Vec<_>>().join("; ")
    };
    for (settings, says) in [
        (json!({ "key": [] }), "key: the list names no column"),
        (json!({ "key": ["plane", "nothing"] }), "key: there is no column nothing"),
        (json!({ "key": ["plane", "at", "plane"] }), "key: column plane stands twice"),
        (json!({ "key": "at" }), "key: column at has the type Int64, not text or bytes"),
        (json!({ "changes": "debezium", "format": "csv" }), "changes: `debezium` writes envelopes in json, avro or protobuf"),
    ] {
        assert!(refused(settings).contains(says), "{says}");
    }
}

#[test]
fn upserts_without_key_are_refused() {
    let columns = schema(&[("plane", "Utf8?")]);
    let settings = json!({ "servers": "b:9092", "topic": "t", "format": "json", "changes": "upsert" });
    let problems = plan_sink(&KafkaSink(Machine::Own), &settings, Path::new("."), columns.clone(), true).err().expect("no key");
    assert!(problems[0].message.contains("`upsert` needs `key`"), "{problems:?}");
    let settings = json!({ "servers": "b:9092", "topics": "t", "format": "json", "changes": "upsert", "tombstones": "skip" });
    let problems = plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), Some(columns), clock()).err().expect("no key");
    let places: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(places, ["changes", "tombstones"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_of_debezium_are_changes_and_the_tombstones_behind_them_are_not() {
    let cluster = Cluster::get();
    let topic = cluster.create("debezium", 1, &[]).await;
    let row = |id: i64, name: &str| json!({ "id": id, "name": name });
    let producer = cluster.producer(None);
    let envelopes = [
        Some(json!({ "payload": { "before": null, "after": row(1, "a"), "op": "c", "ts_ms": 1 } }).to_string()),
        Some(json!({ "before": row(1, "a"), "after": row(1, "b"), "op": "u" }).to_string()),
        Some("nonsense".to_owned()),
        Some(json!({ "before": row(1, "b"), "after": null, "op": "d" }).to_string()),
        None,
    ];
    for envelope in &envelopes {
        let mut record = BaseRecord::<str, str>::to(&topic).partition(0).key("1");
        record.payload = envelope.as_deref();
        producer.send(record).map_err(|(error, _)| error).expect("queued");
    }
    producer.flush(LONG).expect("delivered");
    let settings = json!({ "servers": cluster.address, "topics": topic, "format": "json", "end": "now", "changes": "debezium", "metadata": { "offset": "at" } });
    let declared = Some(schema(&[("id", "Int64"), ("name", "Utf8?")]));
    let source: Arc<dyn Source> = plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), declared, clock()).expect("settings");
    assert!(source.has_changes());
    let expected = |at: i64, id: i64, name: &str| json!({ "id": id, "name": name, "at": at });
    let expected = [(0, 0, expected(0, 1, "a")), (1, 1, expected(1, 1, "a")), (2, 1, expected(1, 1, "b")), (3, 3, expected(3, 1, "b"))];
    for rows_max in [1_000, 2] {
        let everything = read_all(&*source, rows_max).await.expect("read");
        assert_eq!(changes(&everything), expected);
        assert_eq!(everything.rejected.iter().map(|rejected| rejected.position).collect::<Vec<_>>(), [Some(2)]);
    }
}
