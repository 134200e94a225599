//! Against a real registry, and a real broker.

use std::{path::Path, sync::Arc, time::Duration};

use arrow_schema::SchemaRef;
use millstream_broker::SharedRegistry;
use millstream_engine::{
    clock::SystemClock,
    connector::{SettingsProblem, Source},
    operator::Fault,
};
use millstream_model::Batch;
use rdkafka::{
    Message as _,
    producer::{BaseRecord, Producer as _},
};
use serde_json::{Value, json};

use super::{super::tests::Cluster, *};
use crate::{
    formats::ndjson::{self, Nulls},
    kafka::{KafkaSink, KafkaSource},
    testing::{Everything, clock, plan_sink, plan_source, read_all, schema, writer},
};

const LONG: Duration = Duration::from_secs(60);

fn flight(fields: &Value) -> String {
    json!({ "type": "record", "name": "Flight", "fields": fields }).to_string()
}

fn id_and_name() -> String {
    flight(&json!([{ "name": "id", "type": "long" }, { "name": "name", "type": ["null", "string"], "default": null }]))
}

struct Place {
    cluster: Cluster,
    registry: SharedRegistry,
}

impl Place {
    fn get() -> Self {
        Self { cluster: Cluster::get(), registry: SharedRegistry::get() }
    }

    fn client(&self) -> Client {
        let settings: Registry = serde_json::from_value(json!({ "url": self.registry.url() })).expect("settings");
        Client::new(&settings, Path::new("."), Arc::new(SystemClock)).expect("a client")
    }

    async fn register(&self, subject: &str, text: &str) -> u32 {
        self.client().id_of(subject, Kind::Avro, text, true).await.expect("registered")
    }

    fn produce(&self, topic: &str, values: &[Vec<u8>]) {
        let producer = self.cluster.producer(None);
        for value in values {
            let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(value);
            producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        producer.flush(LONG).expect("delivered");
    }

    fn source(&self, topic: &str, columns: Option<SchemaRef>, more: Value) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let registry = json!({ "url": self.registry.url() });
        let mut settings =
            json!({ "servers": self.cluster.address, "topics": topic, "format": "avro", "end": "now", "schema-registry": registry });
        merge(&mut settings, more);
        plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), columns, clock())
    }

    async fn read(&self, topic: &str, columns: Option<SchemaRef>) -> Everything {
        let source = self.source(topic, columns, json!({})).expect("settings");
        read_all(&*source, 1_000).await.expect("read")
    }
}

fn merge(settings: &mut Value, more: Value) {
    let Value::Object(more) = more else { unreachable!("settings are an object") };
    settings.as_object_mut().expect("an object").extend(more);
}

fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(id, &mut out);
    out.extend_from_slice(value);
    out
}

fn rows(everything: &Everything) -> Vec<Value> {
    let mut lines = Vec::new();
    for batch in &everything.batches {
        let writer = ndjson::Writer::new(&batch.schema(), Nulls::Write).expect("columns of JSON");
        writer.rows(batch.columns(), &mut lines).expect("written");
    }
    serde_json::Deserializer::from_slice(&lines).into_iter().map(|line| line.expect("a line of JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_several_schemas_of_a_subject_are_read_each_in_its_own() {
    let place = Place::get();
    let topic = place.cluster.create("in", 1, &[]).await;
    let subject = format!("{topic}-value");
    let old = place.register(&subject, &flight(&json!([{ "name": "id", "type": "long" }]))).await;
    let new = place.register(&subject, &id_and_name()).await;
    place.produce(&topic, &[framed(old, &[2]), framed(new, &[4, 2, 2, b'x']), framed(old, &[6])]);
    let everything = place.read(&topic, None).await;
    let expected = [json!({ "id": 1, "name": null }), json!({ "id": 2, "name": "x" }), json!({ "id": 3, "name": null })];
    assert_eq!(rows(&everything), expected, "the columns are those of the latest schema");
    let declared = place.read(&topic, Some(schema(&[("name", "Utf8?")]))).await;
    assert_eq!(rows(&declared), [json!({ "name": null }), json!({ "name": "x" }), json!({ "name": null })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_rejected_with_its_offset_and_the_id_of_its_schema() {
    let place = Place::get();
    let topic = place.cluster.create("in", 1, &[]).await;
    let id = place.register(&format!("{topic}-value"), &id_and_name()).await;
    let text = place.register(&format!("{topic}-other"), &flight(&json!([{ "name": "id", "type": "string" }]))).await;
    let unknown = 2_000_000_000;
    let values =
        [framed(id, &[2, 0]), framed(unknown, &[2, 0]), framed(text, &[2, b'x']), framed(id, &[4]), b"{\"id\":1}".to_vec(), vec![0, 0]];
    place.produce(&topic, &values);
    let everything = place.read(&topic, Some(schema(&[("id", "Int64"), ("name", "Utf8?")]))).await;
    assert_eq!(rows(&everything), [json!({ "id": 1, "name": null })]);
    let found: Vec<(u64, &str)> =
        everything.rejected.iter().map(|rejected| (rejected.position.expect("an offset"), rejected.reason.as_str())).collect();
    let expected = [
        (1, format!("schema {unknown}, which the registry")),
        (2, format!("it was written in schema {text}: column id: it is string in the schema of the values, which is not read as Int64")),
        (3, format!("the value ends too early (schema {id})")),
        (4, "it was written without registry".into()),
        (5, "the value has 2 bytes".into()),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((offset, reason), (expected_offset, expected)) in found.iter().zip(&expected) {
        assert_eq!(offset, expected_offset);
        assert!(reason.contains(expected.as_str()), "{reason}");
    }
    assert!(everything.rejected.iter().all(|rejected| rejected.source.as_deref() == Some(format!("{topic}/0").as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_answer_is_an_error_with_the_offset_and_nothing_is_lost() {
    let place = Place::get();
    let topic = place.cluster.create("in", 1, &[]).await;
    place.produce(&topic, &[framed(1, &[2, 0])]);
    // A port that nobody listens on, and one where nobody answers.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let columns = || Some(schema(&[("id", "Int64")]));
    for address in [closed, silent.local_addr().expect("an address")] {
        let url = format!("http://{address}");
        let registry = json!({ "schema-registry": { "url": url, "timeout": "100ms" } });
        let settings = json!({ "servers": place.cluster.address, "topics": topic, "format": "avro", "end": "now" });
        let mut settings = settings;
        merge(&mut settings, registry);
        let source =
            plan_source(&KafkaSource(Machine::Own), &settings, Path::new("."), columns(), Arc::new(SystemClock)).expect("settings");
        let split = source.splits(1).await.expect("splits").remove(0);
        let mut reader = source.open(&split, None).await.expect("opens");
        let failed = reader.read(10).await.expect_err("nobody answers");
        assert_eq!(failed.fault, Fault::Outside);
        let text = failed.to_string();
        for part in [&format!("topic {topic}, partition 0, offset 0"), "schema 1", &url, "check `schema-registry.url`"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(reader.position(), json!({ "offset": 0 }), "what was not returned is read again");
    }
}

async fn written(place: &Place, topic: &str, columns: &SchemaRef, batch: Batch, registry: Value) -> Result<(), String> {
    let mut settings = json!({ "servers": place.cluster.address, "topic": topic, "format": "avro", "delivery": "at-least-once" });
    merge(&mut settings, registry);
    let sink = plan_sink(&KafkaSink(Machine::Own), &settings, Path::new("."), columns.clone(), false)
        .map_err(|problems| format!("{problems:?}"))?;
    let mut writer = writer(&*sink, 0).await.map_err(|error| error.to_string())?;
    writer.write(&batch).await.map_err(|error| error.to_string())?;
    writer.finish().await.map_err(|error| error.to_string())
}

fn ids(columns: &SchemaRef) -> Batch {
    let column = arrow_array::Int64Array::from(vec![7, 10]);
    Batch::try_new(columns.clone(), vec![Arc::new(column)], 2).expect("a column")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_registers_its_schema_and_a_source_reads_it_back() {
    let place = Place::get();
    let topic = place.cluster.create("out", 1, &[]).await;
    let columns = schema(&[("id", "Int64")]);
    let registry = json!({ "schema-registry": { "url": place.registry.url() } });
    let look_up = json!({ "schema-registry": { "url": place.registry.url(), "register": false } });
    let missing = written(&place, &topic, &columns, ids(&columns), look_up.clone()).await.expect_err("nobody registered it");
    assert!(missing.contains(&format!("subject {topic}-value does not have the schema")), "{missing}");
    written(&place, &topic, &columns, ids(&columns), registry).await.expect("written");
    written(&place, &topic, &columns, ids(&columns), look_up).await.expect("it is there now");
    // 10 is a line end: values are no lines.
    let records = place.cluster.read_topic(&topic, "read_committed");
    let last = records[1].payload().expect("a value");
    assert_eq!((records.len(), last.len(), last[5]), (4, 6, 20));
    let values: Vec<Value> = rows(&place.read(&topic, None).await);
    assert_eq!(values, [7, 10, 7, 10].map(|id| json!({ "id": id })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_compatible_is_refused_in_the_words_of_the_registry() {
    let place = Place::get();
    let topic = place.cluster.create("out", 1, &[]).await;
    let subject = format!("{topic}-value");
    let name = format!("millstream.{}", topic.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let earlier = json!({ "type": "record", "name": name, "fields": [{ "name": "id", "type": "string" }] }).to_string();
    place.register(&subject, &earlier).await;
    let level = reqwest::Client::new().put(format!("{}/config/{subject}", place.registry.url())).header("Content-Type", "application/json");
    let answer = level.body(json!({ "compatibility": "BACKWARD" }).to_string()).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    let columns = schema(&[("id", "Int64")]);
    let registry = json!({ "schema-registry": { "url": place.registry.url() } });
    let refused = written(&place, &topic, &columns, ids(&columns), registry).await.expect_err("not compatible");
    assert!(refused.contains(&format!("subject {subject}")) && refused.to_lowercase().contains("incompatible"), "{refused}");
    assert_eq!(place.cluster.read_topic(&topic, "read_committed").len(), 0);
}

const PROTO: &str = "syntax = \"proto3\"; package shop; message Other { string x = 1; } message Order { int64 id = 1; message Line { int32 n = 1; } repeated Line lines = 2; }";

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_protocol_buffers_go_there_and_back_and_each_says_which_it_is() {
    let place = Place::get();
    let topic = place.cluster.create("proto", 1, &[]).await;
    let columns = schema(&[("id", "Int64")]);
    let registry = json!({ "url": place.registry.url() });
    let settings = json!({ "format": "protobuf", "value-schema": PROTO, "message": "Order", "schema-registry": registry });
    written(&place, &topic, &columns, ids(&columns), settings.clone()).await.expect("written");
    let records = place.cluster.read_topic(&topic, "read_committed");
    // Behind the id: one number follows, which is 1, the second message of the file.
    assert_eq!(records[0].payload().expect("a value")[5..], [2, 2, 8, 7]);
    let id = u32::from_be_bytes(records[0].payload().expect("a value")[1..5].try_into().expect("four bytes"));
    place.produce(
        &topic,
        &[framed(id, &[0, 10, 1, b'x']), framed(id, &[4, 2, 0, 8, 9]), framed(id, &[2, 18, 8, 1]), framed(id, &[2, 2, 8])],
    );
    let source = place.source(&topic, None, json!({ "format": "protobuf", "message": "Order" })).expect("settings");
    let everything = read_all(&*source, 1_000).await.expect("read");
    assert_eq!(rows(&everything), [json!({ "id": 7, "lines": [] }), json!({ "id": 10, "lines": [] })]);
    let reasons: Vec<&str> = everything.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    assert!(reasons[0].contains("it is a message shop.Other and not Order"), "{reasons:?}");
    assert!(reasons[1].contains("it is a message shop.Order.Line and not Order"), "{reasons:?}");
    assert!(reasons[2].contains("there is no message [9] in the file of its schema"), "{reasons:?}");
    assert!(reasons[3].contains("the message ends too early"), "{reasons:?}");
    let line = place.source(&topic, Some(schema(&[("n", "Int32")])), json!({ "format": "protobuf", "message": "Line" })).expect("settings");
    assert_eq!(rows(&read_all(&*line, 1_000).await.expect("read")), [json!({ "n": 9 })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn avro_and_protobuf_need_no_registry_where_both_sides_know_the_schema() {
    let place = Place::get();
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("order.proto"), PROTO).expect("writable");
    let columns = schema(&[("id", "Int64")]);
    for (format, more) in [
        ("avro", json!({ "value-schema": flight(&json!([{ "name": "id", "type": "long" }])) })),
        ("protobuf", json!({ "value-schema": directory.path().join("order.proto"), "message": "shop.Order" })),
    ] {
        let topic = place.cluster.create(format, 1, &[]).await;
        let mut settings = json!({ "format": format });
        merge(&mut settings, more);
        written(&place, &topic, &columns, ids(&columns), settings.clone()).await.expect("written");
        merge(&mut settings, json!({ "servers": place.cluster.address, "topics": topic, "end": "now" }));
        let plan = |machine| plan_source(&KafkaSource(machine), &settings, Path::new("."), Some(columns.clone()), clock());
        let everything = read_all(&*plan(Machine::Own).expect("settings"), 1_000).await.expect("read");
        assert_eq!(rows(&everything), [json!({ "id": 7 }), json!({ "id": 10 })]);
        assert_eq!(plan(Machine::Shared).is_err(), format == "protobuf", "a job of the service reads no files");
    }
}

#[test]
fn which_message_it_is_stands_in_front_of_it() {
    for (indexes, bytes) in [(vec![0], vec![0]), (vec![1], vec![2, 2]), (vec![0, 100, 2], vec![6, 0, 200, 1, 4])] {
        let mut out = Vec::new();
        index(&indexes, &mut out);
        assert_eq!(out, bytes);
        out.push(42);
        assert_eq!(unindexed(&out), Ok((indexes, &[42][..])));
    }
    for bytes in [&[][..], &[4, 2], &[0x80; 9], &[200]] {
        unindexed(bytes).expect_err("it ends too early, or is absurd");
    }
}

#[test]
fn what_a_registry_must_not_be_told_is_refused() {
    let problems = |settings: Value, machine| {
        let registry: Registry = serde_json::from_value(settings).expect("settings");
        let mut problems = Vec::new();
        registry.check(machine, &mut problems);
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({ "url": "http://r:8081/apis/ccompat/v7" }), Machine::Own), [""; 0]);
    assert_eq!(problems(json!({ "url": "http://me:secret@r:8081" }), Machine::Own), ["schema-registry.url"]);
    assert_eq!(problems(json!({ "url": "file:///etc/passwd" }), Machine::Own), ["schema-registry.url"]);
    assert_eq!(problems(json!({ "url": "http://r", "username": "me" }), Machine::Own), ["schema-registry"]);
    let named = json!({ "url": "http://r", "username": "me", "password": "${env:HOME}", "ca": "/etc/ca.pem" });
    assert_eq!(problems(named.clone(), Machine::Own), [""; 0]);
    assert_eq!(problems(named, Machine::Shared), ["schema-registry.ca", "schema-registry.password"]);
}
