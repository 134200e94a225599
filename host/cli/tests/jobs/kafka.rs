//! Topic to topic through the real binary: whatever is done to the process, a reader of what is committed sees every row once, each key in order.
//!
//! Topics are filled and read by jobs as well, so the tests need no client of their own; where it matters, Kafka's own reader looks too.

mod away;
mod brokers;
mod lingering;
mod points;
mod upserts;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use millstream_broker::{SharedBroker, create_topic};
use serde_json::Value;

use crate::{
    binary::{Place, Random, ended, is_soak, killed_after},
    running::Running,
};

const PARTITIONS: u32 = 3;
/// Keys whose order is looked at.
const KEYS: u64 = 7;
/// An output that has not grown for so long will not.
const PATIENCE: Duration = Duration::from_secs(300);

/// What readers of a topic see: the numbers of each partition, in order.
type Seen = BTreeMap<i64, Vec<u64>>;

/// Two topics of their own.
struct Topics {
    address: String,
    input: String,
    output: String,
    /// Held as long as it is used; none: a broker of the test's own.
    _shared: Option<SharedBroker>,
}

impl Topics {
    /// On the shared broker.
    fn new(name: &str) -> Self {
        let shared = SharedBroker::get();
        let topics = Self::at(shared.address(), name);
        Self { _shared: Some(shared), ..topics }
    }

    /// On this broker.
    fn at(address: &str, name: &str) -> Self {
        let unique = format!("{name}-{}", std::process::id());
        let (input, output) = (format!("{unique}-in"), format!("{unique}-out"));
        for topic in [&input, &output] {
            create_topic(address, topic, PARTITIONS);
        }
        Self { address: address.to_owned(), input, output, _shared: None }
    }

    /// Writes the numbers below `rows` into the input, so many per second, each in the partition of its key.
    fn fill(&self, rows: u64, rate: u64) -> Place {
        self.filling(rows, rate, "at-least-once")
    }

    /// The same, as a job that brokers may be taken away from: it needs `--state`.
    fn fill_exactly(&self, rows: u64, rate: u64) -> Place {
        self.filling(rows, rate, "exactly-once")
    }

    fn filling(&self, rows: u64, rate: u64, delivery: &str) -> Place {
        Place::with(&format!(
            "job: fill
parallelism: 1
checkpoints: {{ interval: 200ms }}
restart: {{ attempts: 1000, first: 10ms, most: 1s }}
sources:
  numbers: {{ sequence: {{ to: {0}, rate: {rate} }} }}
operators:
  keyed: {{ input: numbers, compute: {{ key: \"cast(value % {KEYS} as varchar)\" }} }}
sinks:
  out: {{ input: keyed, kafka: {{ servers: \"{1}\", topic: {2}, format: json, key: key, delivery: {delivery} }} }}
",
            rows - 1,
            self.address,
            self.input,
        ))
    }

    /// Copies the input to the output, but for the numbers that end in 3; never ends.
    fn copy(&self) -> Place {
        self.copy_through(&self.address, Duration::from_secs(10))
    }

    /// The same, with another way to the broker and another timeout of its transactions.
    fn copy_through(&self, servers: &str, transaction_timeout: Duration) -> Place {
        Place::with(&format!(
            "job: copy
parallelism: 2
checkpoints: {{ interval: 200ms }}
restart: {{ attempts: 1000, first: 10ms, most: 1s }}
sources:
  numbers:
    kafka: {{ servers: \"{servers}\", topics: {0}, format: json }}
    schema: {{ value: Int64, key: Utf8 }}
operators:
  kept: {{ input: numbers, filter: \"value % 10 <> 3\" }}
sinks:
  out:
    input: kept
    kafka: {{ servers: \"{servers}\", topic: {1}, format: json, key: key, commit-topic: {1}-commits, transaction-timeout: {2}ms }}
",
            self.input,
            self.output,
            transaction_timeout.as_millis(),
        ))
    }

    /// What a reader of what is committed sees of the output now: its numbers, by partition and in order.
    fn seen(&self) -> Seen {
        self.seen_in(&self.output)
    }

    /// The same, of any topic.
    fn seen_in(&self, topic: &str) -> Seen {
        let place = Place::with(&format!(
            "job: look
parallelism: 1
sources:
  rows:
    kafka: {{ servers: \"{}\", topics: {}, format: json, end: now, metadata: {{ partition: partition, offset: offset }} }}
    schema: {{ value: Int64, key: Utf8 }}
sinks:
  out: {{ input: rows, files: {{ path: out, format: ndjson }} }}
",
            self.address, topic,
        ));
        ended(&mut place.run(&["--quiet"])).with_code(0);
        let mut rows: Vec<(i64, i64, u64)> = Vec::new();
        for part in fs::read_dir(place.join("out")).unwrap() {
            let text = fs::read_to_string(part.unwrap().path()).unwrap();
            rows.extend(text.lines().map(|line| {
                let row: Value = serde_json::from_str(line).unwrap();
                (row["partition"].as_i64().unwrap(), row["offset"].as_i64().unwrap(), row["value"].as_u64().unwrap())
            }));
        }
        rows.sort_unstable();
        let mut seen = Seen::new();
        rows.into_iter().for_each(|(partition, _, value)| seen.entry(partition).or_default().push(value));
        seen
    }

    /// Looks until some numbers have come through.
    #[track_caller]
    fn until_some(&self) {
        let since = now();
        while self.seen().is_empty() {
            assert!(since.elapsed() < PATIENCE, "nothing comes through");
        }
    }

    /// Looks until `rows` numbers have come through, and compares them with what must be there.
    #[track_caller]
    fn check(&self, rows: u64) {
        compare(&until_all(rows, || self.seen()), rows, "a reader from the start");
    }
}

/// What must come through.
fn expected(rows: u64) -> impl Iterator<Item = u64> {
    (0..rows).filter(|value| value % 10 != 3)
}

/// Looks until there are as many as there should be, as long as there come more.
fn until_all(rows: u64, look: impl Fn() -> Seen) -> Seen {
    until(expected(rows).count(), look)
}

/// Looks until there are `wanted` records, as long as there come more.
fn until<K, V>(wanted: usize, look: impl Fn() -> BTreeMap<K, Vec<V>>) -> BTreeMap<K, Vec<V>> {
    let (mut most, mut since) = (0, now());
    loop {
        let seen = look();
        let found = seen.values().map(Vec::len).sum::<usize>();
        if found > most {
            (most, since) = (found, now());
        }
        if found >= wanted || since.elapsed() > PATIENCE {
            return seen;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the patience of a test with processes that run beside it")]
fn now() -> Instant {
    Instant::now()
}

/// Numbers that are there more than once.
fn doubled(seen: &Seen) -> Vec<u64> {
    let mut all: Vec<u64> = seen.values().flatten().copied().collect();
    all.sort_unstable();
    all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// Every number once, and those of each key in order.
#[track_caller]
fn compare(seen: &Seen, rows: u64, who: &str) {
    let twice = doubled(seen);
    let mut all: Vec<u64> = seen.values().flatten().copied().collect();
    all.sort_unstable();
    let lost: Vec<u64> = expected(rows).filter(|value| all.binary_search(value).is_err()).collect();
    assert!(lost.is_empty() && twice.is_empty() && all.len() == expected(rows).count(), "{who}: lost: {lost:?}, twice: {twice:?}");
    for key in 0..KEYS {
        for (partition, values) in seen {
            let of_key: Vec<u64> = values.iter().copied().filter(|value| value % KEYS == key).collect();
            assert!(of_key.is_sorted(), "{who}: key {key} in partition {partition} is out of order: {of_key:?}");
        }
    }
}

#[test]
fn every_row_of_a_topic_is_in_the_other_once_however_often_the_process_is_killed() {
    let (rows, rate, kills) = if is_soak() { (2_000_000, 4_000, 200) } else { (30_000, 1_000, 20) };
    let mut random = Random::seeded("kafka", 6);
    let topics = Topics::new("kills");
    let fill = topics.fill(rows, rate);
    let filling = Running::start(&mut fill.run(&["--quiet"]));
    let copy = topics.copy();
    for kill in 0..kills {
        let wait = random.time_up_to(Duration::from_secs(5));
        let ended = killed_after(&mut copy.run(&["--state", "state", "--quiet"]), wait);
        assert!(ended.is_none(), "run {kill} ended by itself: {ended:?}");
    }
    filling.ended().with_code(0);
    let last = Running::start(&mut copy.run(&["--state", "state"]));
    topics.check(rows);
    last.kill();
}

/// A process that was thought dead comes back after another one has taken over, and can write nothing more.
#[test]
fn a_process_that_was_stopped_and_replaced_writes_nothing_when_it_goes_on() {
    let rows = 10_000;
    let topics = Topics::new("zombie");
    let fill = topics.fill(rows, 1_000);
    let filling = Running::start(&mut fill.run(&["--quiet"]));
    let copy = topics.copy();
    let mut zombie = Running::start(&mut copy.run(&["--state", "state", "--log", "info"]));
    zombie.until("copy: exactly once");
    topics.until_some();
    zombie.signal("STOP");
    // Its directory is locked; another machine would have a copy of it.
    copied(&copy.join("state"), &copy.join("heir"));
    let heir = Running::start(&mut copy.run(&["--state", "heir"]));
    filling.ended().with_code(0);
    topics.check(rows);
    zombie.signal("CONT");
    let ended = zombie.ended();
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("has taken over"), "{}", ended.stderr);
    topics.check(rows);
    heir.kill();
}

/// Copies a directory, but for its locks and sockets.
fn copied(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copied(&entry.path(), &target);
        } else if kind.is_file() && entry.file_name() != "lock" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A record that cannot be read is counted where its neighbours are: its rejection is in the transaction of their rows.
#[test]
fn rejected_records_are_in_their_topic_once_however_often_the_process_is_killed() {
    let (rows, rate, kills) = (10_000, 1_000, 6);
    let mut random = Random::seeded("rejected", 6);
    let topics = Topics::new("rejected");
    let bad = format!("{}-bad", topics.output);
    create_topic(&topics.address, &bad, 1);
    let fill = Place::with(&format!(
        "job: fill
parallelism: 1
sources:
  numbers: {{ sequence: {{ to: {}, rate: {rate} }} }}
operators:
  keyed: {{ input: numbers, compute: {{ key: \"case when value % 10 = 3 then null else cast(value % {KEYS} as varchar) end\" }} }}
sinks:
  out: {{ input: keyed, kafka: {{ servers: \"{}\", topic: {}, format: json, key: key, delivery: at-least-once }} }}
",
        rows - 1,
        topics.address,
        topics.input,
    ));
    let copy = Place::with(&format!(
        "job: copy
parallelism: 2
checkpoints: {{ interval: 200ms }}
restart: {{ first: 10ms }}
sources:
  numbers:
    kafka: {{ servers: \"{0}\", topics: {1}, format: json }}
    schema: {{ value: Int64, key: Utf8 }}
    rejected: bad
sinks:
  out: {{ input: numbers, kafka: {{ servers: \"{0}\", topic: {2}, format: json, key: key, commit-topic: {2}-commits, transaction-timeout: 10s }} }}
  bad: {{ kafka: {{ servers: \"{0}\", topic: {bad}, format: json, commit-topic: {2}-commits, transaction-timeout: 10s }} }}
",
        topics.address,
        topics.input,
        topics.output,
    ));
    let filling = Running::start(&mut fill.run(&["--quiet"]));
    for kill in 0..kills {
        let wait = random.time_up_to(Duration::from_secs(3));
        let ended = killed_after(&mut copy.run(&["--state", "state", "--quiet"]), wait);
        assert!(ended.is_none(), "run {kill} ended by itself: {ended:?}");
    }
    filling.ended().with_code(0);
    let last = Running::start(&mut copy.run(&["--state", "state"]));
    topics.check(rows);
    let since = now();
    let mut rejected = rejections(&topics, &bad);
    while (rejected.len() as u64) < rows / 10 && since.elapsed() < PATIENCE {
        rejected = rejections(&topics, &bad);
    }
    last.kill();
    let mut places: Vec<(&str, u64)> =
        rejected.iter().map(|row| (row["source"].as_str().unwrap(), row["position"].as_u64().unwrap())).collect();
    places.sort_unstable();
    let count = places.len();
    places.dedup();
    assert_eq!((places.len(), count), (rows as usize / 10, rows as usize / 10), "each once");
    assert!(rejected.iter().all(|row| row["reason"].as_str().unwrap().contains("column key: null")), "{:?}", rejected.first());
    assert!(places.iter().all(|(source, _)| source.starts_with(&format!("{}/", topics.input))), "{:?}", places.first());
}

/// The rejections in a topic, as far as they are committed.
fn rejections(topics: &Topics, topic: &str) -> Vec<Value> {
    let place = Place::with(&format!(
        "job: look
parallelism: 1
sources:
  rows:
    kafka: {{ servers: \"{}\", topics: {topic}, format: json, end: now }}
    schema: {{ reason: Utf8, source: Utf8, position: UInt64 }}
sinks:
  out: {{ input: rows, files: {{ path: out, format: ndjson }} }}
",
        topics.address,
    ));
    ended(&mut place.run(&["--quiet"])).with_code(0);
    let mut rows = Vec::new();
    for part in fs::read_dir(place.join("out")).unwrap() {
        rows.extend(fs::read_to_string(part.unwrap().path()).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    rows
}
