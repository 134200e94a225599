//! What a job that goes on from a checkpoint knows again.

use std::{sync::Arc, time::Duration};

use millstream_engine::{
    checkpoint::files::FileWork,
    graph::{Edge, EventTimeFrom, EventTimePlan, Exchange, JobPlan},
    operator::OutputPort,
    run::{Durable, JobHandle, RunSettings, StartFrom, start},
    testing::{Counting, DiscardSink, FedSource, JobBuilder, edge, unkeyed},
};
use millstream_model::Watermark;
use millstream_storage::{CommitLog, MemoryCheckpointStorage, MemoryCommitLog};
use tempfile::TempDir;

use super::{
    recorder::{Recorder, Told},
    rows, schema,
};

/// Far beyond any machine's slowness.
const DEADLINE: Duration = Duration::from_secs(60);

/// What outlives a run.
struct Place {
    storage: Arc<MemoryCheckpointStorage>,
    log: Arc<dyn CommitLog>,
    work: TempDir,
}

impl Place {
    fn new() -> Self {
        let work = tempfile::tempdir().expect("a directory");
        Self { storage: Arc::new(MemoryCheckpointStorage::new(|| 0)), log: Arc::new(MemoryCommitLog::default()), work }
    }

    fn run(&self, plan: Arc<JobPlan>) -> JobHandle {
        let durable = Durable {
            storage: self.storage.clone(),
            log: self.log.clone(),
            work: self.work.path().join("work"),
            random: Arc::new(Counting::default()),
            start: StartFrom::Latest,
            file_work: FileWork::OnThreads,
            crash: None,
        };
        start(plan, RunSettings { durable: Some(durable), ..RunSettings::new() })
    }
}

/// Two inputs that never end and are never idle, and what sees both.
struct Job {
    left: FedSource,
    right: FedSource,
    recorder: Recorder,
    plan: Arc<JobPlan>,
}

impl Job {
    fn new() -> Self {
        let times = || Some(EventTimePlan { from: EventTimeFrom::Column(2), bound_ms: 0, idle_timeout: None, max_drift: None });
        let columns = schema(&["key", "number", "at"]);
        let (left, right) = (FedSource::new(columns.clone()), FedSource::new(columns));
        let mut job = JobBuilder::new();
        let sources = [job.source("left", left.clone(), times(), 1), job.source("right", right.clone(), times(), 1)];
        let stream = job.output(sources[0], OutputPort::Port(0));
        let recorder = Recorder::new(stream.clone());
        let inputs = [0, 1].map(|port| Edge { port, ..edge(sources[port], Exchange::Rebalance) });
        let node = unkeyed(recorder.clone(), vec![stream.clone(), stream]);
        let operator = job.operator("recorder", node, 1, inputs.into());
        job.sink("out", DiscardSink, operator, OutputPort::Port(0), 1);
        Self { left, right, recorder, plan: job.build() }
    }

    /// Waits until the operator has been told that no row comes at or before `at`.
    async fn until_watermark(&self, at: i64) {
        let told = async {
            while !self.recorder.told_exactly().contains(&Told::Watermark(Watermark(at))) {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, told).await;
        assert!(waited.is_ok(), "no watermark of {at}: {:?}", self.recorder.told());
    }
}

/// The left input has nothing new to say, so it must say again what it had said.
#[tokio::test]
async fn an_input_that_is_silent_after_a_restore_stands_where_it_stood() {
    let (place, job) = (Place::new(), Job::new());
    let handle = place.run(job.plan.clone());
    job.left.feed(rows(&[(1, 1, 1_001)]));
    job.right.feed(rows(&[(1, 2, 501)]));
    job.until_watermark(500).await;
    handle.checkpoint().await.expect("a checkpoint");
    handle.cancel().await;
    handle.wait().await;

    let job = Job::new();
    let handle = place.run(job.plan.clone());
    job.right.feed(rows(&[(1, 3, 901)]));
    job.until_watermark(900).await;
    handle.cancel().await;
    handle.wait().await;
}
