//! How records are compressed: what we write is read by Kafka's own reader, and what its own producer writes by us.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use millstream_model::ids::CheckpointId;
use rdkafka::Message as _;
use serde_json::{Value, json};

use super::{
    Cluster,
    sink::{context, rows},
};
use crate::testing::read_all;

const ROWS: i64 = 2_000;

/// The codecs of the batches that the broker has written down, as they are numbered in a batch (format 2: the attributes at byte 21).
fn codecs_of(log: &[u8]) -> Vec<u8> {
    let (mut codecs, mut at) = (Vec::new(), 0);
    while at + 61 <= log.len() {
        let length = i32::from_be_bytes(log[at + 8..at + 12].try_into().expect("four bytes"));
        assert_eq!(log[at + 16], 2, "the format of the batch");
        codecs.push(log[at + 22] & 7);
        at += 12 + usize::try_from(length).expect("a length");
    }
    codecs.dedup();
    codecs
}

impl Cluster {
    fn codecs(&self, topic: &str) -> Vec<u8> {
        codecs_of(&self.shared.as_ref().expect("the shared broker").log(topic, 0))
    }

    /// The ids that our source reads.
    async fn read_ids(&self, topic: &str) -> Vec<i64> {
        let source = self.source(&json!(topic), json!({ "end": "now" })).expect("settings");
        let everything = read_all(&*source, 1_000).await.expect("read");
        assert_eq!(everything.rejected, []);
        use arrow_array::{cast::AsArray as _, types::Int64Type};
        everything.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }
}

/// The ids that Kafka's own reader prints, of a topic that holds so many records.
fn ids_of_kafka(cluster: &Cluster, topic: &str) -> Vec<i64> {
    let mut reader = millstream_broker::reader(&cluster.address, topic).stdout(Stdio::piped()).spawn().expect("scripts can be run");
    let lines = BufReader::new(reader.stdout.take().expect("it is piped")).lines();
    // Other lines are its complaints about options.
    let id = |line: std::io::Result<String>| {
        let line = line.expect("text");
        let value: Value = serde_json::from_str(&line[line.find('{')?..]).expect("JSON");
        Some(value["id"].as_i64().expect("an id"))
    };
    let ids = lines.filter_map(id).take(ROWS as usize).collect();
    reader.kill().and_then(|()| reader.wait()).expect("it ends");
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_in_any_codec_is_compressed_so_and_read() {
    let cluster = Cluster::get();
    for (codec, number) in [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)] {
        let topic = cluster.create(codec, 1, &[]).await;
        let settings = json!({ "delivery": "at-least-once", "compression": codec });
        let sink = cluster.sink(&json!(topic), settings).expect("settings");
        let mut writer = sink.writer(context(0, None)).await.expect("a writer");
        writer.write(&rows(0..ROWS, &topic)).await.expect("written");
        writer.on_barrier(CheckpointId(1)).await.expect("acknowledged");
        assert_eq!(cluster.codecs(&topic), [number], "{codec}");
        assert_eq!(cluster.read_ids(&topic).await, (0..ROWS).collect::<Vec<_>>(), "{codec}");
    }
    assert_eq!(ids_of_kafka(&cluster, &cluster.topic("zstd")), (0..ROWS).collect::<Vec<_>>());
}

/// The rows of a transaction, its commit record too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_exactly_once_with_zstandard_is_seen_with_its_commit() {
    let cluster = Cluster::get();
    let topic = cluster.create("out", 1, &[]).await;
    let mut job = super::sink::Job::unclaimed(&cluster, &topic, "zstd", json!({ "compression": "zstd" }));
    job.claim().await.expect("claimable");
    let mut writer = job.writer(0).await;
    writer.write(&rows(0..ROWS, &topic)).await.expect("written");
    super::sink::checkpoint(&mut *writer, 1).await.expect("sealed");
    assert_eq!(cluster.ids(&topic), [] as [i64; 0]);
    job.commit(1).await.expect("committed");
    assert_eq!(cluster.ids(&topic), (0..ROWS).collect::<Vec<_>>());
    let mut heir = job.another();
    heir.claim().await.expect("the record is read");
    assert_eq!(heir.held.checkpoint, Some(CheckpointId(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafkas_own_producer_packs_with_zstandard_is_read() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let mut producer =
        millstream_broker::writer(&cluster.address, &topic, "zstd").stdout(Stdio::null()).spawn().expect("scripts can be run");
    let mut input = producer.stdin.take().expect("it is piped");
    let lines: String = (0..ROWS).map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}\n")).collect();
    input.write_all(lines.as_bytes()).expect("it reads");
    drop(input);
    assert!(producer.wait().expect("it ends").success());
    assert_eq!(cluster.codecs(&topic), [4]);
    assert_eq!(cluster.read_ids(&topic).await, (0..ROWS).collect::<Vec<_>>());
    let record = &cluster.read_topic(&topic, "read_committed")[7];
    assert_eq!(record.payload(), Some(&br#"{"id":7,"name":"n7"}"#[..]));
}
