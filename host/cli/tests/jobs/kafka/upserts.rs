//! A changelog in a topic by key: whatever is done to the process, each change is one record, in the order of its key, and the last one is what holds.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{KEYS, Topics, until};
use crate::{
    binary::{Place, Random, ended, is_soak, killed_after},
    running::Running,
};

/// What the input says: the row of each key is inserted, updated, deleted, and again.
fn fill(topics: &Topics, rows: u64, rate: u64) -> Place {
    let row = |value: &str| format!("'{{\"key\":\"' || key || '\",\"value\":' || cast({value} as varchar) || '}}'");
    let (after, before) = (row("value"), row(&format!("value - {KEYS}")));
    Place::with(&format!(
        "job: fill
parallelism: 1
sources:
  numbers: {{ sequence: {{ to: {}, rate: {rate} }} }}
operators:
  keyed: {{ input: numbers, compute: {{ key: \"cast(value % {KEYS} as varchar)\", turn: \"(value / {KEYS}) % 3\" }} }}
  enveloped:
    input: keyed
    compute:
      envelope: |-
        case when turn = 0 then '{{\"op\":\"c\",\"after\":' || {after}
             when turn = 1 then '{{\"op\":\"u\",\"before\":' || {before} || ',\"after\":' || {after}
             else '{{\"op\":\"d\",\"before\":' || {before} end || '}}'
  envelopes: {{ input: enveloped, project: [key, envelope] }}
sinks:
  out: {{ input: envelopes, kafka: {{ servers: \"{}\", topic: {}, format: string, key: key, delivery: at-least-once }} }}
",
        rows - 1,
        topics.address,
        topics.input,
    ))
}

fn copy(topics: &Topics) -> Place {
    Place::with(&format!(
        "job: upserts
parallelism: 2
checkpoints: {{ interval: 200ms }}
restart: {{ attempts: 1000, first: 10ms, most: 1s }}
sources:
  changes:
    kafka: {{ servers: \"{0}\", topics: {1}, format: json, changes: debezium }}
    schema: {{ key: Utf8, value: Int64 }}
sinks:
  out:
    input: changes
    kafka: {{ servers: \"{0}\", topic: {2}, format: json, key: [key], changes: upsert, commit-topic: {2}-commits, transaction-timeout: 10s }}
",
        topics.address, topics.input, topics.output,
    ))
}

/// The records of each key, in order: the value of its row, or none where it is gone.
type Records = BTreeMap<String, Vec<Option<u64>>>;

fn records(topics: &Topics, place: &Place) -> Records {
    let mut peek = place.millstream(&["topics", "peek", &topics.output, "--from", "earliest", "--json", "--servers", &topics.address]);
    let mut found: BTreeMap<(u64, u64), (String, Option<u64>)> = BTreeMap::new();
    for line in ended(&mut peek).with_code(0).stdout.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let place = (record["partition"].as_u64().unwrap(), record["offset"].as_u64().unwrap());
        let key: Value = serde_json::from_str(record["key"].as_str().unwrap()).unwrap();
        found.insert(place, (key["key"].as_str().unwrap().to_owned(), record["value"]["value"].as_u64()));
    }
    let mut records = Records::new();
    found.into_values().for_each(|(key, value)| records.entry(key).or_default().push(value));
    records
}

fn expected(rows: u64) -> Records {
    let mut records = Records::new();
    for value in 0..rows {
        let present = (value / KEYS % 3 < 2).then_some(value);
        records.entry((value % KEYS).to_string()).or_default().push(present);
    }
    records
}

#[test]
fn every_change_is_in_an_upsert_topic_once_however_often_the_process_is_killed() {
    let (rows, rate, kills) = if is_soak() { (200_000, 1_000, 60) } else { (10_000, 500, 7) };
    let mut random = Random::seeded("upserts", 6);
    let topics = Topics::new("upserts");
    let fill = fill(&topics, rows, rate);
    let filling = Running::start(&mut fill.run(&["--quiet"]));
    let copy = copy(&topics);
    for kill in 0..kills {
        let wait = random.time_up_to(Duration::from_secs(4));
        let ended = killed_after(&mut copy.run(&["--state", "state", "--quiet"]), wait);
        assert!(ended.is_none(), "run {kill} ended by itself: {ended:?}");
    }
    filling.ended().with_code(0);
    let last = Running::start(&mut copy.run(&["--state", "state"]));
    let found = until(rows as usize, || records(&topics, &copy));
    last.kill();
    assert_eq!(found, expected(rows));
}
