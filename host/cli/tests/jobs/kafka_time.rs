//! Event time and lag of topics, through the real binary: partitions that are silent, subtasks without partitions, and rows that wait to be read.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use millstream_broker::{SharedBroker, create_topic};
use millstream_engine::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::{
    binary::{Place, ended},
    running::Running,
};

/// Longer than anything here takes.
const LONG_MS: i64 = 120_000;

/// Topics of their own on the shared broker.
struct Topics {
    broker: SharedBroker,
    input: String,
    output: String,
}

impl Topics {
    fn new(name: &str, partitions: u32) -> Self {
        let broker = SharedBroker::get();
        let unique = format!("time-{name}-{}", std::process::id());
        let (input, output) = (format!("{unique}-in"), format!("{unique}-out"));
        create_topic(broker.address(), &input, partitions);
        create_topic(broker.address(), &output, 1);
        Self { broker, input, output }
    }

    /// Counts the rows of each second, in event time.
    fn counting(&self, parallelism: u32, idle_timeout: &str) -> Place {
        Place::with(&format!(
            "job: counting
parallelism: {parallelism}
sources:
  rows:
    kafka: {{ servers: \"{0}\", topics: {1}, format: json, fetch-wait: 10ms }}
    schema: {{ at: Int64 }}
    event-time: {{ column: at, idle-timeout: {idle_timeout} }}
operators:
  counts: {{ input: rows, key-by: [], window: {{ tumbling: 1s, aggregates: {{ rows: {{ count: \"*\" }} }} }} }}
sinks:
  out: {{ input: counts, kafka: {{ servers: \"{0}\", topic: {2}, format: json, delivery: at-least-once }} }}
",
            self.broker.address(),
            self.input,
            self.output,
        ))
    }

    fn topics(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.millstream(&["topics"]);
        command.args(arguments).env("MILLSTREAM_KAFKA", self.broker.address());
        command
    }

    /// Writes rows of these times, in ms, to one partition.
    fn write(&self, place: &Place, partition: u32, times: impl IntoIterator<Item = i64>) {
        let lines: String = times.into_iter().map(|at| format!("{{\"at\":{at}}}\n")).collect();
        place.write("rows", lines);
        let mut command = self.topics(place, &["produce", &self.input, "rows", "--partition", &partition.to_string()]);
        ended(&mut command).with_code(0);
    }

    /// Whoever waits for the rows of the output.
    fn following(&self, place: &Place) -> Output {
        let mut child =
            self.topics(place, &["peek", &self.output, "--from", "earliest", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Output { child, lines }
    }
}

/// The rows that come out.
struct Output {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Output {
    /// How many rows the next window has counted.
    fn next(&mut self) -> u64 {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let record: Value = serde_json::from_str(&line).unwrap();
        record["value"]["rows"].as_u64().unwrap()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Asks a running job about itself until it says this.
fn until_it_says(place: &Place, command: &str, is_said: impl Fn(&str) -> bool) -> String {
    let end_ms = SystemClock.monotonic_ms() + LONG_MS;
    loop {
        let said = place.says(&[command, "state", "--json"]).stdout;
        if is_said(&said) {
            return said;
        }
        assert!(SystemClock.monotonic_ms() < end_ms, "{said}");
    }
}

#[test]
fn each_partition_has_its_own_watermark_and_a_silent_one_holds_it_until_it_is_idle() {
    let topics = Topics::new("idle", 3);
    let place = topics.counting(2, "off");
    topics.write(&place, 0, [0, 100, 5_000]);
    topics.write(&place, 1, [200, 300, 3_000]);
    // Partition 2 is silent, and holds everything back.
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("counting: ");
    let silent = format!("no rows of `{}/2`", topics.input);
    // The source may be heard of before the operator behind it.
    until_it_says(&place, "why", |said| said.contains(&silent) && said.contains("`counts` waits for event time"));
    // It speaks: the slowest of the three, partition 1, says how far time has come, and not the fastest.
    topics.write(&place, 2, [400, 4_000]);
    let mut output = topics.following(&place);
    assert_eq!(output.next(), 5, "the first second");
    running.kill();

    let topics = Topics::new("awake", 3);
    let place = topics.counting(2, "300ms");
    topics.write(&place, 0, [0, 100, 5_000]);
    topics.write(&place, 1, [200, 300, 3_000]);
    let running = Running::start(&mut place.run(&[]));
    let mut output = topics.following(&place);
    assert_eq!(output.next(), 4, "without the silent one, when it is idle");
    running.kill();
}

#[test]
fn subtasks_without_a_partition_hold_nothing_back() {
    let topics = Topics::new("wide", 2);
    let place = topics.counting(5, "off");
    topics.write(&place, 0, [0, 100, 2_000]);
    topics.write(&place, 1, [200, 2_000]);
    let running = Running::start(&mut place.run(&[]));
    let mut output = topics.following(&place);
    assert_eq!(output.next(), 3);
    running.kill();
}

#[test]
fn rows_that_wait_to_be_read_are_counted_by_partition_while_the_stream_stands_still() {
    const ROWS: i64 = 60_000;
    let topics = Topics::new("lag", 2);
    // Whoever is to take the rows answers nobody.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::with(&format!(
        "job: stuck
parallelism: 1
sources:
  rows:
    kafka: {{ servers: \"{}\", topics: {}, format: json }}
    schema: {{ at: Int64 }}
sinks:
  out: {{ input: rows, http: {{ url: \"http://{}/\", timeout: 1h }} }}
",
        topics.broker.address(),
        topics.input,
        nobody.local_addr().unwrap(),
    ));
    for partition in 0..2 {
        topics.write(&place, partition, 0..ROWS / 2);
    }
    let mut running = Running::start(&mut place.run(&["--state", "state", "--progress"]));
    running.until("stuck: ");
    let status = |said: &str| serde_json::from_str::<Value>(said).unwrap()["status"]["operators"][0].clone();
    let lags = |source: &Value| -> Vec<i64> {
        source["lags"].as_array().map_or_else(Vec::new, |lags| lags.iter().map(|lag| lag["rows"].as_i64().unwrap()).collect())
    };
    let said = until_it_says(&place, "status", |said| {
        let source = status(said);
        let (behind, out) = (lags(&source), source["rows-out"].as_i64().unwrap_or(0));
        let sum: i64 = behind.iter().sum();
        behind.len() == 2 && sum >= ROWS / 2 && sum + out <= ROWS
    });
    let source = status(&said);
    let splits: Vec<&str> = source["lags"].as_array().unwrap().iter().map(|lag| lag["split"].as_str().unwrap()).collect();
    assert!(splits.iter().all(|split| split.starts_with(&format!("{}/", topics.input))), "{said}");
    until_it_says(&place, "why", |said| said.contains("source `rows` has") && said.contains("rows still to read"));
    running.until("rows behind the end");
    running.kill();
}

#[test]
fn a_job_whose_topics_or_transactions_the_cluster_does_not_allow_is_refused_before_it_runs() {
    let topics = Topics::new("refused", 1);
    let job = |input: &str, interval: &str| {
        Place::with(&format!(
            "job: copy
checkpoints: {{ interval: {interval}, timeout: 2h }}
sources:
  rows: {{ kafka: {{ servers: \"{0}\", topics: {input}, format: raw, end: now }} }}
sinks:
  out: {{ input: rows, kafka: {{ servers: \"{0}\", topic: {1}, format: raw }} }}
",
            topics.broker.address(),
            topics.output,
        ))
    };
    let missing = job("time-missing", "1s");
    ended(&mut missing.millstream(&["validate", "job.yaml"])).with_code(0);
    ended(&mut missing.millstream(&["validate", "job.yaml", "--connect"])).with_code(2).saying(&["`rows`: topic time-missing"]);
    ended(&mut missing.run(&["--state", "state"])).with_code(2).saying(&["`rows`: topic time-missing", "create the topic"]);
    assert!(!missing.join("state").exists(), "nothing was touched");
    let long = job(&topics.input, "1h");
    ended(&mut long.run(&["--state", "state"]))
        .with_code(2)
        .saying(&["`out`: transactions may have to stay open for 10800s", "raise transaction.max.timeout.ms"]);
    ended(&mut long.millstream(&["validate", "job.yaml", "--connect"])).with_code(2).saying(&["`out`: transactions may have to stay open"]);
    ended(&mut long.run(&[])).with_code(0);

    let good = job(&topics.input, "1s");
    ended(&mut good.millstream(&["validate", "job.yaml", "--connect"])).with_code(0);
    // Whoever asks to connect is told when nobody is there; whoever runs the job is not stopped by it.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let silent = Place::with(&std::fs::read_to_string(good.join("job.yaml")).unwrap().replace(topics.broker.address(), &nobody));
    ended(&mut silent.millstream(&["validate", "job.yaml"])).with_code(0);
    ended(&mut silent.millstream(&["validate", "job.yaml", "--connect"])).with_code(1).saying(&["`rows`: ", "`out`: "]);
}
