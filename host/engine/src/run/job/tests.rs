use arrow_array::Int64Array;
use arrow_schema::{DataType, Field, Schema};
use millstream_model::Batch;

use super::*;
use crate::{
    operator::OutputPort,
    testing::{CollectSink, FedSource, JobBuilder, MemorySource},
};

fn three_rows() -> Batch {
    let schema = Schema::new(vec![Field::new("number", DataType::Int64, false)]);
    Batch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![1, 2, 3]))], 3).expect("the column fits")
}

/// Two source subtasks for one split, an exchange, one writer.
fn more_readers_than_splits() -> (Arc<JobPlan>, CollectSink) {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(vec![vec![three_rows()]]), None, 2);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), source, OutputPort::Port(0), 1);
    (job.build(), sink)
}

#[tokio::test]
async fn a_source_subtask_without_a_split_has_ended_before_any_other_starts() {
    let (plan, sink) = more_readers_than_splits();
    let (settings, board) = (RunSettings::new(), board(&plan));
    let (events, mut reports) = mpsc::channel(EVENTS_WAITING);
    let (stop, publish) = (CancellationToken::new(), CancellationToken::new());
    let fresh = RestoredJob::default();
    let running = Running::default();
    let (directory, transaction) = (None, None);
    let attempt = Attempt { plan: &plan, settings: &settings, board: &board, restored: &fresh, directory, transaction, running: &running };
    let built = build(attempt, events.clone(), &stop, &publish).await;
    let built = built.unwrap_or_else(|(operator, error)| panic!("`{operator}`: {error}"));
    let supervisor = Supervisor::start(attempt, built, None, events, stop, publish);
    // This runtime has one thread: what was spawned runs only when this test waits.
    let mut ended = Vec::new();
    while let Ok((number, event)) = reports.try_recv() {
        ended.push((number, matches!(event, Event::Ended(Ok(())))));
    }
    assert_eq!(ended, [(1, false), (1, true)], "its input has ended, then it is gone");
    let mut supervisor = supervisor;
    supervisor.on_event(1, Event::InputEnded);
    supervisor.on_event(1, Event::Ended(Ok(())));
    let (_handle, commands) = mpsc::channel(1);
    let mut commands = Commands::new(commands);
    assert!(matches!(supervisor.run(reports, &mut commands).await, JobOutcome::Finished(_)));
    assert_eq!(sink.num_rows(), 3);
}

/// Nobody reports any more, and nobody asks any more.
#[tokio::test]
async fn a_job_whose_runtime_shuts_down_ends_as_cancelled() {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", FedSource::new(three_rows().schema()), None, 1);
    job.sink("out", CollectSink::default(), source, OutputPort::Port(0), 1);
    let data = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a thread");
    let settings = RunSettings { runtime: data.handle().clone(), ..RunSettings::new() };
    let (commands, commanded) = mpsc::channel(1);
    let (outcome, ended) = watch::channel(None);
    let supervisor = tokio::spawn(async move { supervise(job.build(), settings, Commands::new(commanded), outcome).await });
    let (answer, status) = oneshot::channel();
    commands.send(Command::Status(answer)).await.unwrap_or_else(|_gone| panic!("the supervisor is gone"));
    assert_eq!(status.await.expect("it answers").phase, Phase::Running);
    data.shutdown_background();
    drop(commands);
    supervisor.await.expect("it does not panic");
    assert!(matches!(ended.borrow().as_deref(), Some(JobOutcome::Cancelled)));
}
