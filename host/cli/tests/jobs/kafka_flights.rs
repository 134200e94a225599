//! `examples/kafka-flights/play`, as a user plays it, but on the broker of the tests: it compares what comes out with the reference itself.

use std::process::Command;

use millstream_broker::SharedBroker;
use millstream_job_tests::components::{build, repository};

use crate::binary::{Ended, ended};

fn play(broker: &SharedBroker, directory: &std::path::Path) -> Ended {
    let mut command = Command::new(repository().join("examples/kafka-flights/play"));
    command
        .env("MILLSTREAM", env!("CARGO_BIN_EXE_millstream"))
        .env("MILLSTREAM_KAFKA", broker.address())
        .env("PREFIX", format!("kafka-flights-{}", std::process::id()))
        .env("STATE", directory.join("state"));
    ended(&mut command)
}

#[test]
fn the_example_writes_what_the_reference_says_once_however_often_it_is_played() {
    build();
    let (broker, directory) = (SharedBroker::get(), tempfile::tempdir().unwrap());
    let first = play(&broker, directory.path()).with_code(0);
    for said in ["alerts: 292 rows, all as expected", "hours: 1763 rows, all as expected", "rejected: records: 1, as expected"] {
        assert!(first.stdout.contains(said), "`{said}` is not in\n{}\n{}", first.stdout, first.stderr);
    }
    let again = play(&broker, directory.path()).with_code(0);
    assert!(again.stderr.contains("already finished"), "{}", again.stderr);
    assert!(again.stdout.contains("alerts: 292 rows, all as expected"), "{}", again.stdout);
}
