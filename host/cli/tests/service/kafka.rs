//! Jobs that read and write topics, over HTTP: how far they are behind, and what is refused before it runs.

use std::{fs, process::Command};

use millstream_broker::{SharedBroker, create_topic};
use serde_json::json;

use crate::harness::{DEADLINE, Endpoint, Service, directory, now};

/// A topic of its own on the shared broker.
fn topic(broker: &SharedBroker, name: &str, partitions: u32) -> String {
    let topic = format!("service-{name}-{}", std::process::id());
    create_topic(broker.address(), &topic, partitions);
    topic
}

fn submit(service: &Service, text: &str) -> crate::harness::Answer {
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes())
}

/// The values of a metric of a job by their other labels.
fn lags(service: &Service, job: &str) -> Vec<(String, f64)> {
    let text = service.get("/metrics").body;
    let prefix = format!("millstream_source_lag_rows{{job=\"{job}\",");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("} "));
    lines.map(|(labels, value)| (labels.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn the_lag_of_every_partition_is_a_metric() {
    const ROWS: u32 = 60_000;
    let broker = SharedBroker::get();
    let (directory, topic) = (directory(), topic(&broker, "lag", 2));
    let rows = directory.path().join("rows.ndjson");
    fs::write(&rows, (0..ROWS / 2).map(|at| format!("{{\"at\":{at}}}\n")).collect::<String>()).expect("writable");
    for partition in ["0", "1"] {
        let mut produce = Command::new(env!("CARGO_BIN_EXE_millstream"));
        produce.args(["topics", "produce", &topic]).arg(&rows).args(["--partition", partition, "--servers", broker.address()]);
        assert!(produce.status().expect("it starts").success());
    }
    let service = Service::start(&directory.path().join("service"));
    // Whoever is to take the rows answers nobody.
    let endpoint = Endpoint::start();
    let text = format!(
        "job: stuck
parallelism: 1
sources:
  rows:
    kafka: {{ servers: \"{}\", topics: {topic}, format: json }}
    schema: {{ at: Int64 }}
sinks:
  out: {{ input: rows, http: {{ url: \"{}\", timeout: 10m }} }}
",
        broker.address(),
        endpoint.url(),
    );
    submit(&service, &text).expect(201);
    let began = now();
    let lags = loop {
        let lags = lags(&service, "stuck");
        if lags.len() == 2 && lags.iter().map(|(_, rows)| rows).sum::<f64>() >= f64::from(ROWS / 2) {
            break lags;
        }
        assert!(began.elapsed() < DEADLINE, "{lags:?}");
    };
    let labels: Vec<&str> = lags.iter().map(|(labels, _)| labels.as_str()).collect();
    let of = |partition: u32| format!("operator=\"rows\",split=\"{topic}/{partition}\"");
    assert_eq!(labels, [of(0), of(1)]);
    assert!(lags.iter().all(|(_, rows)| *rows <= f64::from(ROWS / 2)), "{lags:?}");
}

#[test]
fn what_the_cluster_does_not_allow_is_refused_when_a_job_is_submitted() {
    let broker = SharedBroker::get();
    let (directory, input) = (directory(), topic(&broker, "input", 1));
    let output = format!("service-later-{}", std::process::id());
    let service = Service::start(directory.path());
    let job = |interval: &str| {
        format!(
            "job: copy
checkpoints: {{ interval: {interval}, timeout: 2h }}
sources:
  rows: {{ kafka: {{ servers: \"{0}\", topics: {input}, format: raw }} }}
sinks:
  out: {{ input: rows, kafka: {{ servers: \"{0}\", topic: {output}, format: raw }} }}
",
            broker.address(),
        )
    };
    let missing = format!("`out`: topic {output}");
    submit(&service, &job("1s")).problem(400, &missing);
    service.ask("POST", "/v1/validate", &service.token, &[], job("1s").as_bytes()).problem(400, &missing);
    service.get("/v1/jobs/copy").problem(404, "copy");
    create_topic(broker.address(), &output, 1);
    submit(&service, &job("1h")).problem(400, "raise transaction.max.timeout.ms");
    service.get("/v1/jobs/copy").problem(404, "copy");
    submit(&service, &job("1s")).expect(201);
    service.wait_for_phase("copy", "running");
    // The same holds for a change of a job that runs, which goes on as it was.
    let path = "/v1/jobs/copy";
    let changed = service.ask("PUT", path, &service.token, &[], job("1h").as_bytes());
    changed.problem(400, "raise transaction.max.timeout.ms");
    let view = service.get(path).expect(200);
    assert_eq!((&view["version"], &view["observed"]["phase"]), (&json!(1), &json!("running")));
}
