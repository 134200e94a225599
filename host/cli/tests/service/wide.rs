//! A version that reads more columns of a topic, on a real broker: while rows flow, behind a kill, and from savepoints of before and after.

use std::collections::BTreeMap;

use millstream_broker::{SharedBroker, create_topic};
use serde_json::{Value, json};

use crate::{
    harness::{Service, directory},
    swaps::{assert_exactly_once, results},
};

const ROWS: u64 = 12_000;
const BUCKETS: u64 = 7;

/// A topic of the test's own.
struct Topic {
    broker: SharedBroker,
    name: String,
}

impl Topic {
    fn new() -> Self {
        let (broker, name) = (SharedBroker::get(), format!("wide-{}", std::process::id()));
        create_topic(broker.address(), &name, 2);
        Self { broker, name }
    }

    /// Writes all rows, so many a second.
    fn filling(&self) -> String {
        format!(
            "job: fill
parallelism: 1
sources:
  numbers: {{ sequence: {{ to: {}, rate: 2000 }} }}
operators:
  rows: {{ input: numbers, compute: {{ bucket: value % {BUCKETS}, key: \"cast(value % {BUCKETS} as varchar)\" }} }}
sinks:
  out: {{ input: rows, kafka: {{ servers: \"{}\", topic: {}, format: json, key: key, delivery: at-least-once }} }}
",
            ROWS - 1,
            self.broker.address(),
            self.name,
        )
    }

    /// Counts them, whatever version does; the first one reads nothing but the bucket.
    fn counting(&self, name: &str, version: &str) -> String {
        format!(
            "job: {name}
parallelism: 2
checkpoints: {{ interval: 500ms }}
sources:
  numbers: {{ kafka: {{ servers: \"{}\", topics: {}, format: json }}, schema: {{ bucket: Int64, value: Int64, key: Utf8 }} }}
operators:
  counts: {{ input: numbers, key-by: [bucket], component: \"count:{version}\" }}
sinks:
  results: {{ input: counts, files: {{ path: out-{name}, format: ndjson }} }}
",
            self.broker.address(),
            self.name,
        )
    }
}

fn submit(service: &Service, query: &str, text: &str) {
    service.ask("POST", &format!("/v1/jobs{query}"), &service.token, &[], text.as_bytes()).expect(201);
}

/// Waits until every row was counted, and stops the job: what it has written then is all that it writes.
fn counted(service: &Service, job: &str) {
    let sum = |found: &Value| -> u64 {
        found["entries"].as_array().into_iter().flatten().filter_map(|entry| entry["value"]["count"].as_u64()).sum()
    };
    service.wait_for_phase(job, "running");
    let all = service.wait_for("all rows", &format!("/v1/jobs/{job}/state/counts?fresh=true"), |found| sum(found) >= ROWS);
    assert_eq!(sum(&all), ROWS, "rows counted twice: {all}");
    service.post(&format!("/v1/jobs/{job}/stop"), &json!({})).expect(200);
}

/// What a fork has written goes on, in each bucket, from what the savepoint held, without a gap, to the last row.
fn assert_goes_on(service: &Service, job: &str, version: &str) {
    let mut of_bucket: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (bucket, count, by) in results(service, job) {
        assert_eq!(by, version, "{job}");
        of_bucket.entry(u64::try_from(bucket).expect("a bucket")).or_default().push(count);
    }
    assert_eq!(of_bucket.len() as u64, BUCKETS, "{job}");
    for (bucket, counts) in of_bucket {
        let last = (ROWS - bucket).div_ceil(BUCKETS);
        let first = last + 1 - counts.len() as u64;
        assert_eq!(counts, (first..=last).collect::<Vec<_>>(), "{job}: bucket {bucket}");
        assert!(first > 1, "{job}: bucket {bucket} knows nothing of the savepoint");
    }
}

#[test]
fn a_version_that_reads_more_of_a_topic_takes_over_and_savepoints_of_before_and_after_are_read_by_both() {
    let (directory, topic) = (directory(), Topic::new());
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push_of_tests("v2", "count-checked");
    submit(&service, "", &topic.filling());
    submit(&service, "", &topic.counting("counts", "v1"));
    let of_all = |found: &Value| found["entries"].as_array().is_some_and(|entries| entries.len() as u64 == BUCKETS);
    service.wait_for_phase("counts", "running");
    service.wait_for("rows of every bucket", "/v1/jobs/counts/state/counts?fresh=true", of_all);
    let savepoint = |name: &str| service.post("/v1/jobs/counts/savepoints", &json!({ "name": name })).expect(201);
    savepoint("narrow");
    let wanted = json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 0 });
    let swapped = service.post("/v1/jobs/counts/swap", &wanted).expect(200);
    assert_eq!(swapped["swap"]["widens"], json!(["numbers", "counts"]));
    assert_eq!(swapped["widening-pauses-us"].as_array().map(Vec::len), Some(4), "no subtask had ended: {swapped}");
    let rows = service.tail("counts", "counts", 5);
    assert!(rows.len() == 5 && rows.iter().all(|row| row["by"] == "checked"), "rows flow, as the new version has them: {rows:?}");
    savepoint("wide");

    // Whoever writes the topic may write twice what was not in a checkpoint when it died.
    service.wait_for_phase("fill", "finished");
    let service = service.kill_and_start();
    counted(&service, "counts");
    assert_exactly_once(&service, "counts", i64::try_from(ROWS).expect("few"));

    submit(&service, "?from=counts/narrow", &topic.counting("widened", "v2"));
    submit(&service, "?from=counts/wide", &topic.counting("narrowed", "v1"));
    counted(&service, "widened");
    assert_goes_on(&service, "widened", "checked");
    counted(&service, "narrowed");
    assert_goes_on(&service, "narrowed", "v1");
}
