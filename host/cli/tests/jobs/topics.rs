//! `millstream topics` against a real broker: what one command writes, another shows.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use millstream_broker::SharedBroker;
use serde_json::{Value, json};

use crate::binary::{Ended, Place, ended};

/// The shared broker, a directory to run in, and a name that no other test uses.
struct Cluster {
    broker: SharedBroker,
    place: Place,
    unique: String,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let (broker, place) = (SharedBroker::get(), Place::with(""));
        Self { broker, place, unique: format!("topics-{name}-{}", std::process::id()) }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.unique)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.millstream(&["topics"]);
        command.args(arguments).env("MILLSTREAM_KAFKA", self.broker.address());
        command
    }

    fn says(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.command(arguments))
    }

    fn create(&self, name: &str, partitions: u32) -> String {
        let topic = self.topic(name);
        self.says(&["create", &topic, "--partitions", &partitions.to_string()]).with_code(0);
        topic
    }

    /// Writes what standard input says.
    fn produce(&self, input: impl AsRef<[u8]>, arguments: &[&str]) -> Ended {
        self.place.write("input", input);
        let file = std::fs::File::open(self.place.join("input")).unwrap();
        ended(self.command(&["produce"]).args(arguments).stdin(file))
    }

    /// The records that are there, as JSON.
    fn records(&self, topic: &str, arguments: &[&str]) -> Vec<Value> {
        let mut command = self.command(&["peek", topic, "--json"]);
        lines(&ended(command.args(arguments)).with_code(0).stdout)
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_produced_is_listed_and_seen() {
    let cluster = Cluster::new("all");
    let topic = cluster.create("flights", 3);
    let input: String = (0..30).map(|number| format!("{{\"tail\":\"N{}\",\"n\":{number},\"x\":1.50}}\n", number % 4)).collect();
    let written = cluster.produce(&input, &[&topic, "--key-field", "tail"]).with_code(0);
    assert_eq!(written.stderr, format!("30 records written to `{topic}`\n"));

    let listed = cluster.says(&["list", &topic, "--offsets", "--json"]).with_code(0);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let partitions = listed[0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    assert_eq!(partitions.iter().map(|partition| partition["end"].as_u64().unwrap()).sum::<u64>(), 30);
    assert!(cluster.says(&["list"]).with_code(0).stdout.lines().any(|line| line.starts_with(&format!("{topic} "))));

    let all = cluster.records(&topic, &["--from", "earliest"]);
    assert_eq!(all.len(), 30);
    for key in 0..4 {
        let of_key: Vec<&Value> = all.iter().filter(|record| record["key"] == json!(format!("N{key}"))).collect();
        assert!(of_key.iter().all(|record| record["partition"] == of_key[0]["partition"]), "one partition for a key");
        let numbers: Vec<u64> = of_key.iter().map(|record| record["value"]["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..30).filter(|number| number % 4 == key).collect::<Vec<_>>());
    }
    assert_eq!(cluster.records(&topic, &["--from", "earliest", "--key", "N3", "-n", "2"]).len(), 2);
    let shown = cluster.says(&["peek", &topic, "--from", "earliest", "--key", "N3", "-n", "1"]).with_code(0).stdout;
    assert!(shown.trim_end().ends_with("Z  N3  {\"tail\":\"N3\",\"n\":3,\"x\":1.50}"), "{shown}");
}

#[test]
fn records_go_from_topic_to_topic_as_they_are() {
    let cluster = Cluster::new("copy");
    let (from, to) = (cluster.create("from", 1), cluster.create("to", 2));
    let records = [
        json!({ "key": "a", "value": { "n": 1 }, "headers": [{ "name": "h", "value": "v" }, { "name": "h", "value": null }] }),
        json!({ "key": null, "value": "plain \u{1b}[2J text", "timestamp": "2023-11-14T22:13:20.123Z", "partition": 0 }),
        json!({ "key-hex": "00ff", "value": null, "timestamp": 1_700_000_000_000i64 }),
        json!({ "key": "b", "value-hex": "fffe", "headers": [{ "name": "b", "value-hex": "80" }] }),
    ];
    let input: String = records.iter().map(|record| format!("{record}\n\n")).collect();
    cluster.produce(input, &[&from, "--records", "--partition", "0"]).with_code(0);
    let copied = cluster.says(&["peek", &from, "--from", "earliest", "--json"]).with_code(0).stdout;
    cluster.produce(&copied, &[&to, "--records"]).with_code(0);
    let without_place = |records: Vec<Value>| -> Vec<Value> {
        let mut records = records;
        records.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("topic")));
        records
    };
    let seen = without_place(cluster.records(&to, &["--from", "earliest"]));
    assert_eq!(seen, without_place(lines(&copied)));
    assert_eq!(seen[0]["headers"], records[0]["headers"]);
    assert_eq!((&seen[1]["timestamp"], &seen[1]["value"]), (&records[1]["timestamp"], &records[1]["value"]));
    assert_eq!((&seen[2]["key-hex"], &seen[2]["value"]), (&records[2]["key-hex"], &Value::Null));
    assert_eq!((&seen[3]["value-hex"], &seen[3]["headers"]), (&records[3]["value-hex"], &records[3]["headers"]));
    let shown = cluster.says(&["peek", &to, "--from", "1", "-n", "2", "--partition", "0"]).with_code(0).stdout;
    assert!(shown.contains(r"plain \u{1b}[2J text") && shown.contains(r"\x00\xff") || shown.contains(r"\u{0}\xff"), "{shown}");
}

#[test]
fn a_look_begins_where_it_is_told_to() {
    let cluster = Cluster::new("where");
    let topic = cluster.create("in", 1);
    let input: String = (0..20)
        .map(|number| format!("{}\n", json!({ "value": number.to_string(), "timestamp": 1_700_000_000_000i64 + number * 1_000 })))
        .collect();
    cluster.produce(input, &[&topic, "--records"]).with_code(0);
    let values = |arguments: &[&str]| -> Vec<i64> {
        let records = cluster.records(&topic, arguments);
        records.iter().map(|record| record["value"].as_str().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(values(&[]), (10..20).collect::<Vec<_>>());
    assert_eq!(values(&["--from", "-3"]), [17, 18, 19]);
    assert_eq!(values(&["--from", "-300", "-n", "2"]), [0, 1]);
    assert_eq!(values(&["--from", "18"]), [18, 19]);
    assert_eq!(values(&["--from", "2023-11-14T22:13:36Z"]), [16, 17, 18, 19]);
    assert_eq!(values(&["--from", "latest"]), [0i64; 0]);
    let beyond = cluster.says(&["peek", &topic, "--from", "21"]).with_code(2);
    assert!(beyond.stderr.contains("partition 0: there is no offset 21, it holds 0 up to 20"), "{}", beyond.stderr);
}

#[test]
fn who_follows_sees_what_comes() {
    let cluster = Cluster::new("follow");
    let topic = cluster.create("in", 1);
    cluster.produce("first\n", &[&topic]).with_code(0);
    let mut following = Following::start(cluster.command(&["peek", &topic, "--follow", "-n", "3"]));
    assert!(following.line().ends_with("first\n"));
    cluster.produce("key,second\n", &[&topic, "--key-separator", ","]).with_code(0);
    assert!(following.line().ends_with("  key  second\n"));
    cluster.produce("third\nfourth\n", &[&topic]).with_code(0);
    assert!(following.line().ends_with("third\n"));
    assert_eq!(following.line(), "", "it ends after three");
    assert!(following.child.wait().unwrap().success());
}

/// A command whose output is read line by line.
struct Following {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Following {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Usually it has ended.
        let _killed = self.child.kill();
    }
}

#[test]
fn a_file_or_a_job_says_how_the_cluster_is_reached() {
    let cluster = Cluster::new("connection");
    let topic = cluster.create("in", 1);
    let address = cluster.broker.address();
    let says = |file: &str, text: &str, more: &[&str]| {
        cluster.place.write(file, text);
        let mut command = cluster.command(&["list", &topic, "--connection", file]);
        ended(command.env_remove("MILLSTREAM_KAFKA").env("KAFKA_AT", address).env_remove("NOWHERE").args(more))
    };
    says("cluster.yaml", &format!("servers: \"{address}\"\n"), &[]).with_code(0);
    says("cluster.yaml", "servers: [\"${env:KAFKA_AT}\"]\n", &[]).with_code(0);
    let job = |other: &str| {
        format!(
            "job: copy
sources: {{ in: {{ kafka: {{ servers: \"{address}\", topics: a, format: raw }} }} }}
sinks: {{ out: {{ input: in, kafka: {{ servers: \"{other}\", topic: b, format: raw }} }}, printed: {{ input: in, stdout: {{}} }} }}
"
        )
    };
    says("job.yaml", &job(address), &[]).with_code(0);
    says("job.yaml", &job("127.0.0.1:1"), &["--of", "in"]).with_code(0);
    says("job.yaml", &job("127.0.0.1:1"), &[]).with_code(2).saying(&["choose one with `--of`, of in, out"]);
    says("job.yaml", &job(address), &["--of", "printed"]).with_code(2).saying(&["no such Kafka source or sink; there are: in, out"]);
    says("cluster.yaml", "servers: nowhere\nport: 9092\n", &[]).with_code(2).saying(&["cluster.yaml", "port"]);
    says("cluster.yaml", "servers: nowhere\n", &[]).with_code(2).saying(&["in servers", "`nowhere` is no address"]);
    says("cluster.yaml", "[]\n", &[]).with_code(2).saying(&["it says no connection"]);
    says("cluster.yaml", "servers: \"${env:NOWHERE}\"\n", &[]).with_code(2).saying(&["no variable `NOWHERE`"]);
}

#[test]
fn a_password_stands_in_no_file_and_is_never_said() {
    let cluster = Cluster::new("secret");
    let with = |password: &str| {
        let text = format!("servers: \"127.0.0.1:1\"\nsasl: {{ mechanism: PLAIN, username: me, password: \"{password}\" }}\n");
        cluster.place.write("cluster.yaml", text);
        let mut command = cluster.command(&["list", "--connection", "cluster.yaml", "--log", "debug"]);
        ended(command.env_remove("MILLSTREAM_KAFKA").env("PASSWORD", "hunter2-planted"))
    };
    let refused = with("hunter2-planted").with_code(2).saying(&["in sasl.password", "must be a reference", "${env:NAME}"]);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    let unreachable = with("${env:PASSWORD}").with_code(1);
    let unreachable = unreachable.saying(&["the topics cannot be asked for", "Connection refused", "check that the brokers run"]);
    assert!(unreachable.stderr.matches("WARN").count() < 5, "a complaint is not repeated: {}", unreachable.stderr);
    assert!(!unreachable.stderr.contains("hunter2"), "{}", unreachable.stderr);
}

#[test]
fn mistakes_name_what_is_wrong_and_what_to_do() {
    let cluster = Cluster::new("mistakes");
    let topic = cluster.create("in", 2);
    let missing = cluster.topic("missing");
    cluster.says(&["peek", &missing]).with_code(2).saying(&[&missing, "create the topic"]);
    cluster.produce("x\n", &[&missing]).with_code(2).saying(&[&missing, "create the topic"]);
    cluster.says(&["list", &missing]).with_code(2).saying(&["there is no topic", "millstream topics list"]);
    cluster.says(&["peek", &topic, "--partition", "2"]).with_code(2).saying(&["has no partition 2: they are 0 to 1"]);
    cluster.says(&["peek", &topic, "--from", "soon"]).with_code(2).saying(&["none of earliest, latest"]);
    cluster.says(&["create", "a b"]).with_code(2).saying(&["`a b` is no name of a topic"]);
    cluster.says(&["create", &topic, "--partitions", "2"]).with_code(0);
    cluster.says(&["create", &topic, "--partitions", "3"]).with_code(2).saying(&["has 2 partitions, not 3"]);
    cluster.says(&["create", &cluster.topic("odd"), "--config", "cleanup.policy=never"]).with_code(1).saying(&["cannot be made"]);
    let line = cluster.produce("{\"a\":1}\n\n{\"b\":1}\n", &[&topic, "--key-field", "a"]).with_code(2);
    line.saying(&["line 3 of standard input: it has no field `a`", "before it 1 record written"]);
    assert_eq!(cluster.records(&topic, &["--from", "earliest"]).len(), 1);
    cluster
        .produce("no separator\n", &[&topic, "--key-separator", "tab"])
        .with_code(2)
        .saying(&["line 1 of standard input", "behind a key"]);
    let long = "x".repeat(100_000);
    cluster.produce(&long, &[&topic, "--message-bytes-max", "2000"]).with_code(2).saying(&["raise --message-bytes-max"]);
    cluster.produce(&long[..3_000], &[&topic, "--message-bytes-max", "2000"]).with_code(2).saying(&["message-bytes-max"]);
    cluster.produce("x", &[&topic, "--message-bytes-max", "2"]).with_code(2).saying(&["--message-bytes-max is 1024 to"]);
    let mut without = cluster.command(&["list"]);
    ended(without.env_remove("MILLSTREAM_KAFKA")).with_code(2).saying(&["--servers"]);
    let failure = ended(cluster.command(&["peek", &missing, "--json"]).stdin(Stdio::null())).with_code(2);
    let failure: Value = serde_json::from_str(failure.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(failure["exit-code"], json!(2));
}

#[test]
fn a_reader_that_leaves_ends_the_look() {
    let cluster = Cluster::new("leaves");
    let topic = cluster.create("in", 1);
    let input = "a line of some length, so that the pipe is full before all are written\n".repeat(20_000);
    cluster.produce(input, &[&topic]).with_code(0);
    let mut following = Following::start(cluster.command(&["peek", &topic, "--from", "earliest", "--follow"]));
    assert!(following.line().ends_with("are written\n"));
    let Following { child, output } = &mut following;
    // The pipe closes, and the next write of the command fails.
    let closed = std::mem::replace(output, BufReader::new(ended_output()));
    drop(closed);
    assert!(child.wait().unwrap().success());
}

/// The output of a command that has none.
fn ended_output() -> std::process::ChildStdout {
    let mut nothing = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let output = nothing.stdout.take().unwrap();
    nothing.wait().unwrap();
    output
}
