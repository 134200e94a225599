//! Reading topics.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use arrow_array::{cast::AsArray as _, types::Int64Type};
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    connector::{Read, Source, SplitReader},
    metrics::Gauge,
    operator::{Fault, OperatorError},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    producer::{BaseRecord, Producer as _},
};
use serde_json::{Value, json};

use super::{Cluster, LONG, header, send};
use crate::testing::{Everything, check_resuming, read_all};

fn ids(everything: &Everything) -> Vec<i64> {
    everything.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn value(id: usize) -> String {
    format!("{{\"id\":{id},\"name\":\"n{id}\"}}")
}

async fn bounded(cluster: &Cluster, topics: &Value, more: Value) -> Everything {
    let source = cluster.source(topics, more).expect("settings");
    read_all(&*source, 1_000).await.expect("read")
}

async fn refused(cluster: &Cluster, topics: &Value, more: Value) -> OperatorError {
    let source = cluster.source(topics, more).expect("settings");
    read_all(&*source, 1_000).await.expect_err("cannot be read")
}

/// Reads `count` rows of an unbounded split.
async fn some(reader: &mut dyn SplitReader, count: usize) -> Everything {
    let mut everything = Everything::default();
    while everything.positions().len() < count {
        let Read::Rows { batch, rejected } = reader.read(count).await.expect("reads") else { panic!("it has no end") };
        everything.add(batch, rejected);
    }
    everything
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_from_its_first_record_to_what_is_there_now() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 3, &[]).await;
    for partition in 0..3 {
        let values: Vec<String> = (0..500).map(|number| value(partition * 1_000 + number)).collect();
        cluster.produce(&topic, partition as i32, &values.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let everything = bounded(&cluster, &json!(topic), json!({ "end": "now" })).await;
    let mut expected: Vec<i64> = (0..3).flat_map(|partition| partition * 1_000..partition * 1_000 + 500).collect();
    let mut found = ids(&everything);
    assert!(found.chunk_by(|a, b| *b == a + 1).count() <= 3, "each partition is in order");
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(everything.batches.len() < 100, "records come many at a time: {} batches", everything.batches.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_at_any_position_it_stood_at() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 2, &[]).await;
    for partition in 0..2 {
        let values: Vec<String> = (0..20).map(|number| if number == 7 { "nonsense".to_owned() } else { value(number) }).collect();
        cluster.produce(&topic, partition, &values.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let source = cluster.source(&json!(topic), json!({ "end": "now" })).expect("settings");
    check_resuming(&*source, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_and_end_are_offsets_timestamps_or_what_the_group_committed() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let producer = cluster.producer(None);
    for number in 0..10 {
        let value = value(number);
        let record = BaseRecord::<(), str>::to(&topic).partition(0).payload(&value).timestamp(1_700_000_000_000 + number as i64 * 1_000);
        producer.send(record).map_err(|(error, _)| error).expect("queued");
    }
    producer.flush(LONG).expect("delivered");
    let read = async |more: Value| ids(&bounded(&cluster, &json!(topic), more).await);
    let offsets = |offset: u64| json!({ "offsets": { topic.clone(): { "0": offset } } });
    assert_eq!(read(json!({ "start": offsets(3), "end": offsets(6) })).await, [3, 4, 5]);
    // 2023-11-14T22:13:20Z is 1,700,000,000 s.
    let at = |second: u32| json!({ "timestamp": format!("2023-11-14T22:13:{second}Z") });
    assert_eq!(read(json!({ "start": at(22), "end": at(24) })).await, [2, 3]);
    assert_eq!(read(json!({ "start": "latest", "end": "now" })).await, [0i64; 0]);
    let group = cluster.topic("group");
    let source = cluster.source(&json!(topic), json!({ "group": group })).expect("settings");
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    some(&mut *reader, 4).await;
    // The group is told in the background, and told anew by every checkpoint: at first its coordinator may not be there yet.
    let told = async {
        loop {
            reader.on_committed(&json!({ "offset": 4 })).await.expect("told");
            let last = read(json!({ "group": group, "start": "committed", "end": "now" })).await;
            if last.len() == 6 {
                break last;
            }
        }
    };
    let last = tokio::time::timeout(LONG, told).await.expect("the group is told in the end");
    assert_eq!(last, [4, 5, 6, 7, 8, 9]);
}

/// The group is told where the job is; where the job is does not come from there, before or after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_the_group_that_somebody_else_resets_change_nothing() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let values: Vec<String> = (0..10).map(value).collect();
    cluster.produce(&topic, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
    let group = cluster.topic("group");
    let mut config = cluster.config();
    config.set("group.id", &group);
    let somebody: BaseConsumer = config.create().expect("a consumer");
    let reset = |offset: i64| {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&topic, 0, Offset::Offset(offset)).expect("a partition");
        // At first the coordinator of the group may not be there yet.
        while somebody.commit(&offsets, CommitMode::Sync).is_err() {}
    };
    let told = || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&topic, 0);
        let told = somebody.committed_offsets(asked, LONG).expect("an answer");
        told.find_partition(&topic, 0).expect("it was asked for").offset()
    };
    let source = cluster.source(&json!(topic), json!({ "group": group })).expect("settings");
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    for id in 0..4 {
        assert_eq!(ids(&some(&mut *reader, 1).await), [id]);
        reset(9);
    }
    let position = reader.position();
    drop(reader);
    reset(0);
    let mut reader = source.open(&split, Some(&position)).await.expect("opens");
    assert_eq!(ids(&some(&mut *reader, 6).await), [4, 5, 6, 7, 8, 9]);
    // The next checkpoint puts it right.
    let end = SystemClock.monotonic_ms() + 60_000;
    while told() != Offset::Offset(10) {
        assert!(SystemClock.monotonic_ms() < end, "the group is told: {:?}", told());
        reader.on_committed(&reader.position()).await.expect("told");
    }
}

/// A subtask stops waiting for a reader when something else happens first, and opens it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_nobody_waited_for_takes_nothing_from_the_next_one() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    cluster.produce(&topic, 0, &[&value(0)]);
    let source = cluster.source(&json!(topic), json!({})).expect("settings");
    let split = source.splits(1).await.expect("splits").remove(0);
    for _ in 0..10 {
        assert!(futures::poll!(source.open(&split, None)).is_pending(), "it asks the broker first");
        let mut reader = source.open(&split, None).await.expect("opens");
        let read = tokio::time::timeout(LONG, some(&mut *reader, 1)).await;
        assert_eq!(ids(&read.expect("what was assigned to this reader is read by it")), [0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_says_of_a_record_stands_beside_its_value() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 2, &[]).await;
    let producer = cluster.producer(None);
    let record = BaseRecord::to(&topic).partition(1).key("k").payload("text").timestamp(1_700_000_000_123).headers(header("h", "v"));
    producer.send(record).map_err(|(error, _)| error).expect("queued");
    producer.flush(LONG).expect("delivered");
    let metadata = json!({ "key": "k", "headers": "h", "timestamp": "ts", "topic": "t", "partition": "p", "offset": "o" });
    let source = cluster.source(&json!(topic), json!({ "format": "string", "end": "now", "metadata": metadata })).expect("settings");
    let everything = read_all(&*source, 10).await.expect("read");
    let rows = everything.rows(&source.schema());
    let mut lines = Vec::new();
    let writer = crate::formats::ndjson::Writer::new(&rows.schema(), crate::formats::ndjson::Nulls::Write).expect("columns of JSON");
    writer.rows(&rows, &mut lines).expect("text");
    let row: Value = serde_json::from_slice(&lines).expect("one line");
    assert_eq!(
        (&row["value"], &row["k"], &row["t"], &row["p"], &row["o"]),
        (&json!("text"), &json!("k"), &json!(topic), &json!(1), &json!(0))
    );
    assert_eq!(row["ts"], json!("2023-11-14T22:13:20.123Z"));
    assert_eq!(row["h"][0]["name"], json!("h"));
    let projected = source.project(&[5]);
    assert_eq!(read_all(&*projected, 10).await.expect("read").rows(&projected.schema()).num_columns(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_rejected_with_its_offset_and_nothing_else_is() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    cluster.produce(&topic, 0, &[&value(0), "nonsense", &value(2), "", &value(4)]);
    let producer = cluster.producer(None);
    producer.send(BaseRecord::<str, str>::to(&topic).partition(0).key("gone")).map_err(|(error, _)| error).expect("queued");
    producer.flush(LONG).expect("delivered");
    let everything = bounded(&cluster, &json!(topic), json!({ "end": "now" })).await;
    assert_eq!(everything.positions(), [0, 2, 4]);
    let rejected: Vec<_> = everything.rejected.iter().map(|rejection| (rejection.position, rejection.source.as_deref())).collect();
    let split = format!("{topic}/0");
    assert_eq!(rejected, [1, 3, 5].map(|offset| (Some(offset), Some(split.as_str()))));
    let everything = bounded(&cluster, &json!(topic), json!({ "end": "now", "tombstones": "skip" })).await;
    assert_eq!(everything.rejected.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_transactions_that_were_aborted_are_not_read_and_the_end_is_found_behind_them() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let producer = cluster.producer(Some(&cluster.topic("transaction")));
    producer.init_transactions(LONG).expect("a coordinator");
    for (id, commits) in [(1, true), (2, false), (3, true), (4, false)] {
        producer.begin_transaction().expect("begun");
        send(&producer, &topic, 0, &value(id));
        producer.flush(LONG).expect("delivered");
        if commits { producer.commit_transaction(LONG) } else { producer.abort_transaction(LONG) }.expect("ended");
    }
    let everything = bounded(&cluster, &json!(topic), json!({ "end": "now" })).await;
    assert_eq!(ids(&everything), [1, 3]);
    let everything = bounded(&cluster, &json!(topic), json!({ "end": "now", "isolation": "read-uncommitted" })).await;
    assert_eq!(ids(&everything), [1, 2, 3, 4]);
}

/// The end of `now` lies behind what transactions have written that are still open: one whose commit was acknowledged may be among them, and a job that
/// begins after another has ended reads all that this one wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_when_the_end_is_decided_is_waited_for() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    cluster.produce(&topic, 0, &[&value(1)]);
    for (end, commits) in [(json!("now"), true), (json!({ "timestamp": "2100-01-01T00:00:00Z" }), false)] {
        let producer = cluster.producer(Some(&cluster.topic("transaction")));
        producer.init_transactions(LONG).expect("a coordinator");
        producer.begin_transaction().expect("begun");
        send(&producer, &topic, 0, &value(2));
        producer.flush(LONG).expect("delivered");
        let source = cluster.source(&json!(topic), json!({ "end": end })).expect("settings");
        let split = source.splits(1).await.expect("splits").remove(0);
        let mut reader = source.open(&split, None).await.expect("opens");
        let mut everything = some(&mut *reader, if commits { 1 } else { 2 }).await;
        // It has asked for more once, and waits.
        let mut rest = pin!(read_rest(&mut *reader));
        assert!(poll_fn(|context| Poll::Ready(rest.as_mut().poll(context).is_pending())).await);
        if commits { producer.commit_transaction(LONG) } else { producer.abort_transaction(LONG) }.expect("ended");
        let rest = rest.await;
        everything.batches.extend(rest.batches);
        assert_eq!(ids(&everything), [1, 2], "end: {end}");
    }
}

/// A look that found no more may be older than the end of a transaction: what it says is no end then.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_ends_after_the_partition_had_no_more_is_read() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 2, &[]).await;
    cluster.produce(&topic, 0, &[&value(1)]);
    let producer = cluster.producer(Some(&cluster.topic("transaction")));
    producer.init_transactions(LONG).expect("a coordinator");
    producer.begin_transaction().expect("begun");
    send(&producer, &topic, 0, &value(2));
    producer.flush(LONG).expect("delivered");
    let end = json!({ "offsets": { &topic: { "0": 3, "1": 100 } } });
    let source = cluster.source(&json!(topic), json!({ "end": end })).expect("settings");
    let splits = source.splits(1).await.expect("splits");
    let mut reader = source.open(&splits[0], None).await.expect("opens");
    let beside = source.open(&splits[1], None).await.expect("opens");
    // Both partitions are asked for together: what comes of the second one shows that the first had no more, and has said so.
    let lag = beside.lag().expect("it counts");
    for rows in 1..=3 {
        cluster.produce(&topic, 1, &[&value(100)]);
        until(&lag, rows).await;
    }
    producer.commit_transaction(LONG).expect("committed");
    while cluster.read_topic(&topic, "read_committed").len() < 2 + 3 {}
    assert_eq!(ids(&read_rest(&mut *reader).await), [1, 2]);
}

async fn read_rest(reader: &mut dyn SplitReader) -> Everything {
    let mut everything = Everything::default();
    while let Read::Rows { batch, rejected } = reader.read(1_000).await.expect("reads") {
        everything.add(batch, rejected);
    }
    everything
}

/// Markers of transactions have offsets too, but whoever has read all rows is not behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_knows_how_many_rows_it_is_behind_and_that_it_is_not_when_it_has_read_all() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let producer = cluster.producer(Some(&cluster.topic("transaction")));
    producer.init_transactions(LONG).expect("a coordinator");
    let commit = |ids: std::ops::Range<usize>| {
        producer.begin_transaction().expect("begun");
        ids.for_each(|id| send(&producer, &topic, 0, &value(id)));
        producer.commit_transaction(LONG).expect("committed");
    };
    commit(0..10);
    let source = cluster.source(&json!(topic), json!({})).expect("settings");
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    let lag = reader.lag().expect("it counts");
    assert!(lag.get() < 0, "nothing is known before anything was fetched");
    // Nobody reads, and the number grows all the same.
    until(&lag, 10).await;
    commit(10..30);
    until(&lag, 30).await;
    let Read::Rows { batch, .. } = reader.read(10).await.expect("reads") else { panic!("it has no end") };
    until(&lag, 30 - batch.num_rows() as i64).await;
    some(&mut *reader, 30 - batch.num_rows()).await;
    // Now it waits for more, as in a job.
    let waiting = tokio::spawn(async move { reader.read(1).await.map(drop) });
    until(&lag, 0).await;
    waiting.abort();
}

/// Until it is so far behind, or a little more: a marker of a transaction that was fetched counts until the reader has passed it.
async fn until(lag: &Gauge, rows: i64) {
    let markers = if rows == 0 { 0 } else { 5 };
    let clock = SystemClock;
    let end_ms = clock.monotonic_ms() + 60_000;
    while !(rows..=rows + markers).contains(&lag.get()) {
        assert!(clock.monotonic_ms() < end_ms, "{} rows behind, and not {rows}", lag.get());
        clock.sleep(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_made_later_is_read_from_its_first_record_though_the_job_starts_at_the_latest() {
    let cluster = Cluster::get();
    let old = cluster.create("in-1", 1, &[]).await;
    cluster.produce(&old, 0, &[&value(1)]);
    let source = cluster.source(&json!(cluster.topic("in-*")), json!({ "start": "latest" })).expect("settings");
    assert_eq!(source.splits(1).await.expect("splits").len(), 1);
    let new = cluster.create("in-2", 1, &[]).await;
    cluster.produce(&new, 0, &[&value(2)]);
    let splits = source.more_splits(1).await.expect("splits");
    let split = splits.iter().find(|split| *split.id == *format!("{new}/0")).expect("it is found");
    let mut reader = source.open(split, None).await.expect("opens");
    assert_eq!(ids(&some(&mut *reader, 1).await), [2]);
    assert_eq!(splits.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_the_partition_does_not_hold_is_an_error_that_names_what_is_lost() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let values: Vec<String> = (0..10).map(value).collect();
    cluster.produce(&topic, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
    let source = cluster.source(&json!(topic), json!({})).expect("settings");
    let split = source.splits(1).await.expect("splits").remove(0);
    cluster.admin().delete_before(&topic, 0, 6).await.expect("deleted");
    let lost = source.open(&split, Some(&json!({ "offset": 2 }))).await.err().expect("records are gone");
    assert_eq!(lost.fault, Fault::User);
    assert!(lost.to_string().contains(&format!("topic {topic}, partition 0: records 2 to 5 are lost")), "{lost}");
    let beyond = source.open(&split, Some(&json!({ "offset": 50 }))).await.err().expect("it was made anew");
    assert!(beyond.to_string().contains("ends at offset 10"), "{beyond}");
}

/// The records go while the reader is open: librdkafka would jump to others, if it were let.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_go_while_they_are_read_are_an_error_too() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let long = "x".repeat(60_000);
    let values: Vec<String> = (0..200).map(|id| format!("{{\"id\":{id},\"name\":\"{long}\"}}")).collect();
    cluster.produce(&topic, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
    let source = cluster.source(&json!(topic), json!({ "prefetch-bytes": 65_536, "fetch-bytes": 1_024 })).expect("settings");
    let split = source.splits(1).await.expect("splits").remove(0);
    let mut reader = source.open(&split, None).await.expect("opens");
    some(&mut *reader, 1).await;
    cluster.admin().delete_before(&topic, 0, 190).await.expect("deleted");
    let mut last = 0;
    let lost = loop {
        match reader.read(10).await {
            Ok(Read::Rows { batch, .. }) => last = batch.origin().expect("an origin").positions.of(batch.num_rows() - 1),
            Ok(Read::End) => panic!("it has no end"),
            Err(lost) => break lost,
        }
        assert!(last < 189, "row {last} was read, and those before were jumped over");
    };
    assert!(lost.to_string().contains(&format!("records {} to 189 are lost", last + 1)), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stands_still_stops_the_fetching() {
    let cluster = Cluster::get();
    let topic = cluster.create("in", 1, &[]).await;
    let long = "x".repeat(50_000);
    let values: Vec<String> = (0..200).map(|id| format!("{{\"id\":{id},\"name\":\"{long}\"}}")).collect();
    cluster.produce(&topic, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
    let source = cluster.source(&json!(topic), json!({ "prefetch-bytes": 65_536, "fetch-bytes": 1_024, "end": "now" })).expect("settings");
    let everything = read_all(&*source, 3).await.expect("read");
    assert_eq!(ids(&everything), (0..200).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_or_does_not_answer_is_named_with_what_to_do() {
    let cluster = Cluster::get();
    let missing = refused(&cluster, &json!(cluster.topic("missing")), json!({ "end": "now" })).await;
    assert_eq!(missing.fault, Fault::Outside, "a topic that was there when the job was checked");
    let source = cluster.source(&json!(cluster.topic("missing")), json!({})).expect("settings");
    assert_eq!(source.check_outside().await.expect_err("it is not there").fault, Fault::User);
    assert!(missing.to_string().contains(&cluster.topic("missing")) && missing.to_string().contains("create the topic"), "{missing}");
    let nothing = refused(&cluster, &json!(cluster.topic("none-*")), json!({ "end": "now" })).await;
    assert!(nothing.to_string().contains("no topic matches"), "{nothing}");
    let source: Arc<dyn Source> = cluster.source(&json!("in"), json!({ "servers": "127.0.0.1:1" })).expect("settings");
    let unreachable = source.splits(1).await.expect_err("nobody listens there");
    assert_eq!(unreachable.fault, Fault::Outside);
    assert!(unreachable.to_string().contains("check that the brokers run"), "{unreachable}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_mean_nothing_are_refused_all_at_once() {
    let cluster = Cluster::get();
    let mistakes = json!({ "start": "committed", "fetch-bytes": 1, "delimiter": ";", "metadata": { "key": "id" } });
    let problems = cluster.source(&json!(["a b"]), mistakes).err().expect("mistakes");
    let places: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    for place in ["topics", "start", "fetch-bytes", "delimiter", "metadata.key"] {
        assert!(places.contains(&place), "{place} in {problems:?}");
    }
    cluster.source(&json!("a"), json!({ "plugin.library.paths": "evil.so" })).err().expect("no property is passed through");
}
