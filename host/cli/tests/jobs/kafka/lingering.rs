//! However a process ends, readers of what is committed are not held up by what it left open longer than the timeout of its transactions; not at all,
//! if it could still say that it ends.

use std::time::Duration;

use super::{Topics, now};
use crate::{
    binary::{Place, ended},
    running::Running,
};

const TIMEOUT: Duration = Duration::from_secs(20);
/// Brokers of tests look for transactions that ran out every second; the rest is what a process takes to start on a busy machine.
const SLACK: Duration = Duration::from_secs(20);
/// The number of the row that is written when the process has ended.
const MARK: u64 = 1_000_000_000;

impl Topics {
    /// Puts a row behind everything that the ended process has written, into each partition.
    fn mark(&self) {
        let place = Place::with(&format!(
            "job: mark
parallelism: 1
sources:
  numbers: {{ sequence: {{ from: {MARK}, to: {} }} }}
operators:
  keyed: {{ input: numbers, compute: {{ key: \"cast(value as varchar)\", place: \"cast(value % {} as int)\" }} }}
sinks:
  out: {{ input: keyed, kafka: {{ servers: \"{}\", topic: {}, format: json, key: key, partition: place, delivery: at-least-once }} }}
",
            MARK + u64::from(super::PARTITIONS) - 1,
            super::PARTITIONS,
            self.address,
            self.output,
        ));
        ended(&mut place.run(&["--quiet"])).with_code(0);
    }

    /// How long it takes until a reader of what is committed sees the row in every partition.
    fn held_up(&self) -> Duration {
        let since = now();
        loop {
            let seen = self.seen();
            let marked = seen.values().filter(|values| values.last().is_some_and(|value| *value >= MARK)).count();
            if marked == super::PARTITIONS as usize {
                return since.elapsed();
            }
            assert!(since.elapsed() < super::PATIENCE, "a transaction is open for ever");
        }
    }

    /// Runs the copy until it has committed and has more under way, ends it like this, and says how long readers are held up.
    fn after(&self, end: impl FnOnce(&Place, Running)) -> Duration {
        let copy = self.copy_through(&self.address, TIMEOUT);
        let mut running = Running::start(&mut copy.run(&["--state", "state", "--log", "info"]));
        running.until("copy: exactly once");
        self.until_some();
        end(&copy, running);
        self.mark();
        self.held_up()
    }
}

/// Topics, and a job that fills them for as long as the test needs.
fn filled(name: &str) -> (Topics, Running, Place) {
    let topics = Topics::new(name);
    let fill = topics.fill(10_000_000, 2_000);
    let filling = Running::start(&mut fill.run(&["--quiet"]));
    (topics, filling, fill)
}

#[test]
fn a_job_that_is_stopped_holds_up_no_reader() {
    for (name, arguments) in [("stop", &["stop", "state"][..]), ("stop-savepoint", &["stop", "state", "--savepoint", "kept"])] {
        let (topics, filling, _place) = filled(name);
        let held_up = topics.after(|copy, running| {
            copy.says(arguments).with_code(0);
            running.ended().with_code(0);
        });
        filling.kill();
        println!("readers were held up for {held_up:?} at most after {name}");
        assert!(held_up < TIMEOUT, "{name}: {held_up:?}");
    }
}

#[test]
fn a_job_that_is_interrupted_holds_up_no_reader() {
    let (topics, filling, _place) = filled("interrupted");
    let held_up = topics.after(|_, running| {
        running.signal("TERM");
        drop(running.ended());
    });
    filling.kill();
    println!("readers were held up for {held_up:?} at most after SIGTERM");
    assert!(held_up < TIMEOUT, "{held_up:?}");
}

#[test]
fn a_process_that_is_killed_holds_up_readers_no_longer_than_its_transactions_may_last() {
    let (topics, filling, _place) = filled("killed");
    let held_up = topics.after(|_, running| running.kill());
    filling.kill();
    println!("readers were held up for {held_up:?} at most after kill -9, of {TIMEOUT:?}");
    assert!(held_up < TIMEOUT + SLACK, "{held_up:?}");
}

/// A row that cannot be read fails the job.
#[test]
fn a_job_that_fails_holds_up_no_reader() {
    let (topics, filling, _place) = filled("failed");
    let held_up = topics.after(|copy, running| {
        copy.write("bad.yaml", bad(&topics));
        ended(&mut copy.millstream(&["run", "bad.yaml", "--quiet"])).with_code(0);
        assert_ne!(running.ended().code, Some(0), "a row of the source is no number");
    });
    filling.kill();
    println!("readers were held up for {held_up:?} at most after a failure");
    assert!(held_up < TIMEOUT, "{held_up:?}");
}

/// Writes one value into the input that is no JSON.
fn bad(topics: &Topics) -> String {
    format!(
        "job: bad
parallelism: 1
sources:
  numbers: {{ sequence: {{ to: 0 }} }}
operators:
  two: {{ input: numbers, compute: {{ more: \"'x'\" }} }}
sinks:
  out: {{ input: two, kafka: {{ servers: \"{}\", topic: {}, format: csv, delivery: at-least-once }} }}
",
        topics.address, topics.input,
    )
}
