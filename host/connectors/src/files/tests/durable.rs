//! The sink `files` in runs with checkpoints.

#![expect(clippy::mem_forget, reason = "a process that dies drops nothing")]

use std::collections::BTreeMap;

use millstream_engine::connector::{ConnectorRequest, Guarantee, Sink, SinkConnector, SinkContext, SinkWriter};
use millstream_model::{
    StreamType,
    ids::{CheckpointId, JobId, SubtaskIndex},
};
use proptest::prelude::*;

use super::*;

const COLUMNS: [(&str, &str); 2] = [("origin", "Utf8?"), ("n", "Int64")];
const C1: CheckpointId = CheckpointId(1);
const C2: CheckpointId = CheckpointId(2);

/// A job that writes to `out`, and keeps what is its own in `state`.
struct Job {
    directory: TempDir,
    settings: Value,
    state: &'static str,
}

/// One run of it: a sink and its writers.
struct Run {
    sink: Arc<dyn Sink>,
    writers: Vec<Box<dyn SinkWriter>>,
}

impl Job {
    fn new(mut settings: Value) -> Self {
        settings["path"] = json!("out");
        Self { directory: directory(&[]), settings, state: "state" }
    }

    fn sink(&self) -> Arc<dyn Sink> {
        let request = ConnectorRequest {
            id: "out",
            settings: &self.settings,
            base_directory: self.directory.path().to_owned(),
            declared_schema: None,
            input: Some(StreamType { schema: schema(&COLUMNS), event_times: false, changes: false }),
            clock: clock(),
            state_directory: Some(self.directory.path().join(self.state)),
        };
        FilesSink.plan(request).expect("the settings are right")
    }

    async fn try_run(&self, restored: &[Value], parallelism: u32) -> Result<Run, OperatorError> {
        let (sink, mut writers) = (self.sink(), Vec::new());
        sink.recover(restored).await?;
        for subtask in 0..parallelism {
            let subtask = SubtaskIndex(subtask);
            let context = SinkContext {
                job: JobId::from("test"),
                subtask,
                parallelism,
                is_durable: true,
                restored: restored.into(),
                transaction: None,
            };
            writers.push(sink.writer(context).await?);
        }
        Ok(Run { sink, writers })
    }

    async fn run(&self, restored: &[Value], parallelism: u32) -> Run {
        self.try_run(restored, parallelism).await.expect("recovers")
    }

    async fn refused(&self, restored: &[Value]) -> String {
        self.try_run(restored, 1).await.err().expect("refused").to_string()
    }

    /// All files, the hidden ones without their tag.
    fn names(&self) -> Vec<String> {
        let shown = |name: String| match name.strip_suffix(".staged") {
            Some(rest) => format!("{}.staged", &rest[..rest.len() - 17]),
            None => name,
        };
        names(self.directory.path()).into_iter().map(shown).collect()
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).expect("reads")
    }

    /// The only hidden file.
    fn hidden(&self) -> std::path::PathBuf {
        let hidden: Vec<String> = names(self.directory.path()).into_iter().filter(|name| name.ends_with(".staged")).collect();
        assert_eq!(hidden.len(), 1);
        self.directory.path().join(&hidden[0])
    }

    /// The value of `n` in all visible NDJSON parts, sorted.
    fn visible(&self) -> Vec<i64> {
        let parts = names(self.directory.path()).into_iter().filter(|name| !name.contains("/.") && name.ends_with(".ndjson"));
        let lines = parts.flat_map(|part| self.content(&part).lines().map(str::to_owned).collect::<Vec<_>>());
        let number = |line: String| serde_json::from_str::<Value>(&line).expect("JSON")["n"].as_i64().expect("a number");
        let mut numbers: Vec<i64> = lines.map(number).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl Run {
    async fn write(&mut self, writer: usize, number: i64) {
        let origin = if number % 2 == 0 { "A" } else { "B" };
        let row = batch(&COLUMNS, &[&format!("{{\"origin\":\"{origin}\",\"n\":{number}}}")]);
        self.writers[writer].write(&row).await.expect("writes");
    }

    async fn barrier(&mut self, checkpoint: CheckpointId) -> Vec<Value> {
        let mut values = Vec::new();
        for writer in &mut self.writers {
            values.push(writer.on_barrier(checkpoint).await.expect("stages"));
        }
        values
    }

    async fn commit(&mut self, checkpoint: CheckpointId) {
        for writer in &mut self.writers {
            writer.on_committed(checkpoint).await.expect("publishes");
        }
    }
}

#[tokio::test]
async fn what_a_checkpoint_stages_appears_when_it_is_committed_and_not_before() {
    for (settings, suffix) in [
        (json!({ "format": "ndjson" }), "ndjson"),
        (json!({ "format": "csv", "compression": "gzip" }), "csv.gz"),
        (json!({ "format": "parquet", "roll-rows": 1 }), "parquet"),
        (json!({ "format": "avro", "codec": "zstandard" }), "avro"),
    ] {
        let job = Job::new(settings);
        assert_eq!(job.sink().guarantee(), Guarantee::ExactlyOnce);
        let mut run = job.run(&[], 1).await;
        run.write(0, 1).await;
        run.writers[0].flush().await.expect("flushes");
        let hidden = format!("out/.part-00000-00000.{suffix}.staged");
        assert_eq!(job.names(), std::slice::from_ref(&hidden), "also a part that is full waits");
        run.barrier(C1).await;
        run.write(0, 2).await;
        assert_eq!(job.names(), [hidden, format!("out/.part-00000-00001.{suffix}.staged")]);
        run.commit(C1).await;
        run.commit(C1).await;
        assert_eq!(job.names(), [format!("out/.part-00000-00001.{suffix}.staged"), format!("out/part-00000-00000.{suffix}")]);
        let read = source(&job.directory, json!({ "path": format!("out/part-00000-00000.{suffix}") }), Some(schema(&COLUMNS)));
        assert_eq!(table(&*read).await, ["B|1"]);
        run.barrier(C2).await;
        run.commit(C2).await;
        run.writers.remove(0).finish().await.expect("everything is committed");
    }
}

#[tokio::test]
async fn the_commit_after_a_checkpoint_that_was_given_up_publishes_both() {
    let job = Job::new(json!({ "format": "ndjson", "by": ["origin"] }));
    let mut run = job.run(&[], 2).await;
    run.write(0, 1).await;
    run.barrier(C1).await;
    run.write(0, 2).await;
    run.write(1, 3).await;
    run.barrier(C2).await;
    assert_eq!(job.visible(), [] as [i64; 0]);
    run.commit(C2).await;
    assert_eq!(
        job.names(),
        ["out/origin=A/part-00000-00001.ndjson", "out/origin=B/part-00000-00000.ndjson", "out/origin=B/part-00001-00000.ndjson"]
    );
}

#[tokio::test]
async fn a_run_publishes_what_its_checkpoint_names_and_removes_what_was_staged_after_it() {
    let job = Job::new(json!({ "format": "ndjson" }));
    let mut run = job.run(&[], 2).await;
    run.write(0, 1).await;
    run.write(1, 2).await;
    let committed = run.barrier(C1).await;
    // One writer publishes, then the process dies.
    run.writers[0].on_committed(C1).await.expect("publishes");
    run.write(0, 3).await;
    run.barrier(C2).await;
    std::mem::forget(run);
    assert_eq!(job.visible(), [1]);
    for _ in 0..2 {
        job.sink().recover(&committed).await.expect("recovers");
        assert_eq!(job.names(), ["out/part-00000-00000.ndjson", "out/part-00001-00000.ndjson"]);
    }
    fs::remove_file(job.directory.path().join("out/part-00001-00000.ndjson")).expect("taken away by a reader");
    job.sink().recover(&committed).await.expect("what was published may be taken away");
}

#[tokio::test]
async fn numbers_go_on_over_restores_at_any_parallelism() {
    let job = Job::new(json!({ "format": "ndjson" }));
    let mut restored = Vec::new();
    for (checkpoint, parallelism) in [(1, 4), (2, 2), (3, 4)] {
        let mut run = job.run(&restored, parallelism).await;
        for writer in 0..parallelism {
            run.write(writer as usize, i64::from(writer)).await;
        }
        restored = run.barrier(CheckpointId(checkpoint)).await;
        run.commit(CheckpointId(checkpoint)).await;
    }
    let last = ["00000-00000", "00000-00001", "00000-00002", "00001-00000", "00001-00001", "00001-00002"];
    let last = last.into_iter().chain(["00002-00000", "00002-00002", "00003-00000", "00003-00002"]);
    assert_eq!(job.names(), last.map(|part| format!("out/part-{part}.ndjson")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_another_run_staged_is_not_taken_away_from_it() {
    let mut job = Job::new(json!({ "format": "ndjson" }));
    let mut first = job.run(&[], 1).await;
    first.write(0, 1).await;
    let committed = first.barrier(C1).await;
    std::mem::forget(first);
    job.state = "other";
    let error = job.refused(&[]).await;
    assert!(error.ends_with(".staged is output of another run: choose another `path`, remove it, or set `overwrite: true`"), "{error}");
    job.put("out/part-00000-00000.ndjson", "{\"n\":9}\n");
    job.state = "state";
    let error = job.refused(&committed).await;
    assert!(error.contains("out/part-00000-00000.ndjson is output of another run"), "{error}");
    assert_eq!(job.visible(), [9], "nothing is overwritten");
    assert_eq!(job.names().len(), 2, "nothing is removed");
}

#[tokio::test]
async fn a_run_that_starts_anew_removes_what_it_had_staged_before() {
    let job = Job::new(json!({ "format": "ndjson" }));
    let mut run = job.run(&[], 1).await;
    run.write(0, 1).await;
    run.barrier(C1).await;
    std::mem::forget(run);
    job.run(&[], 1).await;
    assert_eq!(job.names(), [] as [String; 0]);
}

#[tokio::test]
async fn old_parts_are_replaced_when_the_first_new_one_appears_and_not_before() {
    let job = Job::new(json!({ "format": "ndjson", "overwrite": true }));
    job.put("out/part-00000-00000.ndjson", "{\"n\":100}\n");
    job.put("out/part-00007-00007.ndjson", "{\"n\":101}\n");
    let mut run = job.run(&[], 2).await;
    run.write(0, 1).await;
    run.write(1, 2).await;
    let committed = run.barrier(C1).await;
    assert_eq!(job.visible(), [100, 101]);
    std::mem::forget(run);
    let mut run = job.run(&committed, 2).await;
    assert_eq!(job.visible(), [1, 2], "a crash between commit and publication changes nothing");
    run.write(0, 3).await;
    let next = run.barrier(C2).await;
    run.commit(C2).await;
    std::mem::forget(run);
    job.run(&next, 2).await;
    assert_eq!(job.visible(), [1, 2, 3], "what this run published is not old");
}

#[tokio::test]
async fn parts_written_after_the_savepoint_that_a_run_starts_from_are_not_overwritten_unasked() {
    let mut job = Job::new(json!({ "format": "ndjson" }));
    let mut run = job.run(&[], 1).await;
    run.write(0, 1).await;
    let savepoint = run.barrier(C1).await;
    run.commit(C1).await;
    run.write(0, 2).await;
    run.barrier(C2).await;
    run.commit(C2).await;
    let error = job.refused(&savepoint).await;
    assert!(error.contains("out/part-00000-00001.ndjson was written after the checkpoint that this run goes on from"), "{error}");
    assert_eq!(job.visible(), [1, 2]);
    job.settings["overwrite"] = json!(true);
    let mut run = job.run(&savepoint, 1).await;
    run.write(0, 3).await;
    run.barrier(C2).await;
    assert_eq!(job.visible(), [1, 2]);
    run.commit(C2).await;
    assert_eq!(job.visible(), [1, 3]);
}

/// Of the same size: a run that comes after a crash reads what it publishes.
#[tokio::test]
async fn a_staged_part_with_another_content_is_not_published_after_a_crash() {
    for format in ["ndjson", "csv", "parquet", "avro"] {
        let job = Job::new(json!({ "format": format }));
        let mut run = job.run(&[], 1).await;
        run.write(0, 1).await;
        let committed = run.barrier(C1).await;
        let (part, mut bytes) = (job.hidden(), fs::read(job.hidden()).expect("staged"));
        *bytes.last_mut().expect("it has rows") ^= 1;
        fs::write(&part, &bytes).expect("written");
        let error = job.refused(&committed).await;
        assert!(error.contains("is damaged: its content is not what was staged"), "{format}: {error}");
        *bytes.last_mut().expect("it has rows") ^= 1;
        fs::write(&part, bytes).expect("written");
        job.run(&committed, 1).await;
        assert!(!part.exists(), "{format}: published");
    }
}

#[tokio::test]
async fn a_staged_part_that_is_damaged_or_gone_is_an_error_that_names_it() {
    let job = Job::new(json!({ "format": "ndjson" }));
    let mut run = job.run(&[], 1).await;
    run.write(0, 1).await;
    let committed = run.barrier(C1).await;
    fs::write(job.hidden(), "{").expect("written");
    let error = run.writers[0].on_committed(C1).await.expect_err("damaged").to_string();
    assert!(error.contains("part-00000-00000.ndjson.") && error.contains("is damaged: it has 1 bytes, and had 21 when"), "{error}");
    assert_eq!(job.refused(&committed).await, error);
    fs::remove_file(job.hidden()).expect("removed");
    let error = run.writers[0].on_committed(C1).await.expect_err("gone").to_string();
    assert!(error.ends_with("is gone: somebody removed it before it was published"), "{error}");
    let error = run.writers.remove(0).finish().await.expect_err("rows are not published").to_string();
    assert!(error.contains("not committed"), "{error}");
}

#[tokio::test]
async fn a_checkpoint_of_something_else_is_refused() {
    let job = Job::new(json!({ "format": "ndjson" }));
    let named = |path: &str| json!({ "tag": "0123456789abcdef", "next": 1, "staged": [{ "path": path, "bytes": 1 }] });
    for value in
        [json!({ "rows": 7 }), json!({ "tag": "../x", "next": 1 }), named("../part-00000-00000.csv"), named("/etc/passwd"), named("a=1/x")]
    {
        let error = job.refused(&[value]).await;
        assert!(error.starts_with("the checkpoint does not hold what a files sink remembers"), "{error}");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_at_a_barrier_is_an_error_and_what_was_staged_stays() {
    let job = Job::new(json!({ "format": "ndjson" }));
    let mut run = job.run(&[], 1).await;
    run.write(0, 1).await;
    let committed = run.barrier(C1).await;
    let next = job.hidden().to_string_lossy().replace("part-00000-00000", "part-00000-00001");
    // The hidden file leads to a device that is always full.
    std::os::unix::fs::symlink("/dev/full", next).expect("linked");
    run.write(0, 2).await;
    let error = run.writers[0].on_barrier(C2).await.expect_err("the disk is full").to_string();
    assert!(error.ends_with("out/part-00000-00001.ndjson"), "{error}");
    run.writers.remove(0).abort().await;
    assert_eq!(job.names(), ["out/.part-00000-00000.ndjson.staged"]);
    job.run(&committed, 1).await;
    assert_eq!(job.visible(), [1]);
}

/// What happens to a job, in order.
#[derive(Clone, Debug)]
enum Event {
    Write,
    /// A barrier whose checkpoint is committed, or given up, and how many writers then publish.
    Checkpoint {
        commits: bool,
        publishing: usize,
    },
    /// The process dies; the next run has so many writers.
    Crash {
        parallelism: u32,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Write),
        2 => (any::<bool>(), 0..4_usize).prop_map(|(commits, publishing)| Event::Checkpoint { commits, publishing }),
        1 => (1..4_u32).prop_map(|parallelism| Event::Crash { parallelism }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The rows are numbers that a source counts up; its position is part of the checkpoint.
    #[test]
    fn every_row_appears_once_whatever_crashes(events in prop::collection::vec(event(), 1..40), by in any::<bool>(), overwrite in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut settings = json!({ "format": "ndjson", "roll-rows": 2, "overwrite": overwrite });
            if by {
                settings["by"] = json!(["origin"]);
            }
            let job = Job::new(settings);
            if overwrite {
                job.put("out/part-00000-00000.ndjson", "{\"n\":-1}\n");
            }
            let old: &[i64] = if overwrite { &[-1] } else { &[] };
            let (mut committed, mut restored, mut position, mut checkpoint) = (0, Vec::new(), 0, 0);
            let mut run = job.run(&restored, 2).await;
            for event in events.into_iter().chain([Event::Checkpoint { commits: true, publishing: 9 }]) {
                match event {
                    Event::Write => {
                        let writer = usize::try_from(position).expect("positive") % run.writers.len();
                        run.write(writer, position).await;
                        position += 1;
                    }
                    Event::Checkpoint { commits, publishing } => {
                        checkpoint += 1;
                        let values = run.barrier(CheckpointId(checkpoint)).await;
                        if commits {
                            (committed, restored) = (position, values);
                            for writer in run.writers.iter_mut().take(publishing) {
                                writer.on_committed(CheckpointId(checkpoint)).await.expect("publishes");
                            }
                        }
                    }
                    Event::Crash { parallelism } => {
                        std::mem::forget(run);
                        run = job.run(&restored, parallelism).await;
                        position = committed;
                        let expected: Vec<i64> = if committed == 0 { old.to_vec() } else { (0..committed).collect() };
                        assert_eq!(job.visible(), expected, "after recovery exactly what was committed is visible");
                    }
                }
                let visible = job.visible();
                let distinct: BTreeMap<i64, ()> = visible.iter().map(|&number| (number, ())).collect();
                assert_eq!(visible.len(), distinct.len(), "no row twice: {visible:?}");
                assert!(visible.iter().all(|&number| number < committed.max(1)), "nothing is visible before its commit: {visible:?}");
            }
            let expected: Vec<i64> = if committed == 0 { old.to_vec() } else { (0..committed).collect() };
            assert_eq!(job.visible(), expected);
            drop(run.sink);
        });
    }
}
