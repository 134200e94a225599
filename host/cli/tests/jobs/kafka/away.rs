//! A broker that is gone under a running job, and comes back.

use millstream_broker::Broker;

use super::{PATIENCE, Topics, now};
use crate::{
    binary::{Place, ended},
    running::Running,
};

/// Writes numbers into the input.
fn produce(place: &Place, topics: &Topics, numbers: std::ops::Range<u64>) {
    let lines: String = numbers.map(|number| format!("{{\"value\":{number},\"key\":\"{}\"}}\n", number % 7)).collect();
    place.write("rows", lines);
    ended(&mut place.millstream(&["topics", "produce", &topics.input, "rows", "--servers", &topics.address])).with_code(0);
}

/// Looks until the output has all of these numbers.
#[track_caller]
fn until_there(topics: &Topics, numbers: std::ops::Range<u64>) {
    let since = now();
    loop {
        let seen: Vec<u64> = topics.seen().into_values().flatten().collect();
        if numbers.clone().all(|number| seen.contains(&number)) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "they do not come through: {} are there", seen.len());
    }
}

/// At least once: what is shown here is that the job says what is wrong, does not end, and goes on by itself.
#[test]
fn a_broker_that_is_gone_for_a_while_is_named_and_the_job_goes_on_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path(), &[]);
    let topics = Topics::at(broker.address(), "away");
    let place = Place::with(&format!(
        "job: copy
parallelism: 1
checkpoints: {{ interval: 200ms }}
restart: {{ attempts: 1000, first: 10ms, most: 1s }}
sources:
  rows:
    kafka: {{ servers: \"{0}\", topics: {1}, format: json }}
    schema: {{ value: Int64, key: Utf8 }}
sinks:
  out: {{ input: rows, kafka: {{ servers: \"{0}\", topic: {2}, format: json, key: key, delivery: at-least-once }} }}
",
        topics.address, topics.input, topics.output,
    ));
    produce(&place, &topics, 0..100);
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    until_there(&topics, 0..100);
    broker.stop();
    let named = running.until("Connection refused");
    assert!(named.contains(broker.address()), "it says which one: {named}");
    broker.start_again();
    produce(&place, &topics, 100..200);
    until_there(&topics, 0..200);
    running.kill();
}
