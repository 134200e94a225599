//! Swaps in the middle of a durable job, and then its process dies: it goes on with the version that was written down, and every row counts once.
//!
//! The process is a runtime that is shut down in the middle of whatever it does. What runs on threads that may block runs on for a moment, as a process
//! that was thought dead may.

use std::{collections::BTreeMap, fs, num::NonZeroU32, path::Path, sync::Arc};

use millstream_engine::{
    clock::SystemClock,
    graph::JobPlan,
    operators::Environment,
    plan::{self, PlanOptions},
    run::{
        self, Durable, FileWork, JobHandle, JobOutcome, NewComponent, NewVersion, Phase, RunSettings, StartFrom, StateDirectory, SwapPhase,
        SwapRequest, SwitchAt,
    },
    spec::JobSpec,
    testing::Counting,
};
use millstream_job_tests::components::{self, repository};
use millstream_model::ids::TenantId;
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_storage::{LocalCheckpointStorage, LocalCommitLog};
use millstream_wasm::{Component, Runtime, RuntimeSettings};
use serde_json::Value;
use tempfile::TempDir;

const ROWS: u64 = 12_000;
const KEYS: u64 = 101;
/// Rows a second.
const SLOW: u64 = 200;
const FAST: u64 = 1_000_000;

/// A job directory.
pub struct Place {
    directory: TempDir,
    components: Runtime,
}

/// A process that runs the job.
pub struct Process {
    pub runtime: tokio::runtime::Runtime,
    pub handle: JobHandle,
}

pub fn component(name: &str) -> String {
    repository().join(format!("tests/jobs/operators/{name}/jobs-{name}.wasm")).display().to_string()
}

impl Place {
    pub fn new() -> Self {
        components::build();
        let components = Runtime::new(RuntimeSettings { pooled_instances: 64, ..RuntimeSettings::default() }).expect("an engine");
        Self { directory: tempfile::tempdir().expect("a temporary directory"), components }
    }

    fn job(&self, version: &str, rate: u64) -> String {
        format!(
            "job: counting
parallelism: 2
checkpoints: {{ interval: 1h }}
sources:
  numbers: {{ sequence: {{ to: {}, rate: {rate} }} }}
operators:
  words: {{ input: numbers, compute: {{ word: \"cast(value % {KEYS} as varchar)\" }} }}
  counts: {{ input: words, key-by: [word], component: {{ path: {} }} }}
sinks:
  out: {{ input: counts, files: {{ path: {}, format: ndjson }} }}
",
            ROWS - 1,
            component(version),
            self.path().join("out").display()
        )
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn plan(&self, version: &str, rate: u64) -> Arc<JobPlan> {
        let connectors = millstream_connectors::all();
        let spec = JobSpec::parse_with("job.yaml", &self.job(version, rate), &[], &connectors).expect("a good job file");
        let environment = Environment { base_directory: self.path(), components: &self.components, clock: Arc::new(SystemClock) };
        let sources = Some(self.path().join("sources"));
        let options = PlanOptions { tenant: TenantId::local(), parallelism: NonZeroU32::MIN, state_directory: sources };
        Arc::new(plan::plan(&spec, &connectors, &environment, &options).await.expect("a good job"))
    }

    /// Starts the job in a process of its own, its file naming this version; so slowly that it does not end before it is killed.
    pub fn start(&self, version: &str) -> Process {
        self.start_at(version, SLOW)
    }

    fn start_at(&self, version: &str, rate: u64) -> Process {
        Process::start(self.path(), self.plan(version, rate))
    }

    /// Runs the job to its end from where it is, and counts what it wrote; the version that it goes on with.
    pub fn goes_on_with(&self, version: &str) -> String {
        let process = self.start_at(version, FAST);
        let goes_on_with = process.version();
        let outcome = process.runtime.block_on(process.handle.wait());
        assert!(matches!(*outcome, JobOutcome::Finished(_)), "{outcome:?}");
        process.runtime.shutdown_background();
        self.check();
        goes_on_with
    }

    /// Every row counts once.
    fn check(&self) {
        let mut counts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let parts = fs::read_dir(self.path().join("out")).expect("output").map(|part| part.expect("output").path());
        for part in parts.filter(|part| part.extension().is_some_and(|extension| extension == "ndjson")) {
            for line in fs::read_to_string(part).expect("a part").lines() {
                let row: Value = serde_json::from_str(line).expect("one JSON object per line");
                let word = row["word"].as_str().and_then(|word| word.parse().ok()).expect("a number as a word");
                counts.entry(word).or_default().push(row["count"].as_u64().expect("a count"));
            }
        }
        for (key, mut counts) in counts {
            counts.sort_unstable();
            let times = (ROWS + KEYS - 1 - key) / KEYS;
            assert_eq!(counts, (1..=times).collect::<Vec<_>>(), "key {key}");
        }
    }
}

impl Process {
    /// Runs a job durably in `directory`.
    pub fn start(directory: &Path, plan: impl Future<Output = Arc<JobPlan>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let plan = runtime.block_on(plan);
        let at = |name: &str| directory.join(name);
        let durable = Durable {
            storage: Arc::new(LocalCheckpointStorage::open(&at("checkpoints")).expect("a directory")),
            log: Arc::new(LocalCommitLog::open(&at("commit.log")).expect("a log")),
            work: at("work"),
            random: Arc::new(Counting::default()),
            start: StartFrom::Latest,
            file_work: FileWork::OnThreads,
            crash: None,
        };
        let state = StateDirectory { path: at("work"), shared: Arc::new(RocksShared::new(RocksSharedSettings::default())) };
        let entered = runtime.enter();
        let settings = RunSettings { state: Some(state), durable: Some(durable), ..RunSettings::new() };
        drop(entered);
        let handle = run::start(plan, settings);
        Self { runtime, handle }
    }

    /// What counts now, as its author calls it.
    pub fn version(&self) -> String {
        loop {
            let status = self.runtime.block_on(self.handle.status()).expect("it answers");
            let counts = status.operators.iter().find(|operator| operator.id.as_str() == "counts").expect("it has that operator");
            if let Some(last) = counts.versions.last() {
                return last.version.name.clone();
            }
            std::thread::yield_now();
        }
    }

    pub fn checkpoint(&self) {
        self.runtime.block_on(self.handle.checkpoint()).expect("a checkpoint");
    }

    pub fn new_version(&self, name: &str) -> NewVersion {
        let bytes = fs::read(component(name)).expect("it was built");
        let loaded: Result<Component, _> = self.runtime.block_on(async {
            let components = Runtime::new(RuntimeSettings { pooled_instances: 16, ..RuntimeSettings::default() }).expect("an engine");
            components.load(bytes.clone().into(), name).await
        });
        let component = NewComponent { component: loaded.expect("it loads"), bytes: bytes.into() };
        NewVersion { operator: "counts".into(), component: Some(component), settings: None }
    }

    pub fn prepared(&self, request: SwapRequest) -> run::SwapId {
        self.runtime.block_on(self.handle.prepare_swap(request)).expect("it fits").swap
    }

    pub fn switch_to(&self, request: SwapRequest) -> run::SwapId {
        let swap = self.prepared(request);
        self.runtime.block_on(self.handle.switch(swap)).expect("it switches");
        swap
    }

    pub fn until(&self, phase: &SwapPhase) {
        loop {
            let status = self.runtime.block_on(self.handle.status()).expect("it answers");
            if status.swap.as_ref().is_some_and(|swap| swap.phase == *phase) {
                return;
            }
            assert_ne!(status.phase, Phase::Ended, "the job ended in {:?}", status.swap);
            std::thread::yield_now();
        }
    }

    /// Dies in the middle of whatever it does.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// On probation the old version is what a crash goes on with, wherever the last checkpoint lies: it can read the state.
#[test]
fn a_crash_on_probation_goes_on_with_the_old_version() {
    for checkpoint_on_probation in [false, true] {
        let place = Place::new();
        let process = place.start("tally");
        process.checkpoint();
        process.switch_to(SwapRequest::of(process.new_version("tally-next")));
        assert_eq!(process.version(), "jobs-tally-next");
        if checkpoint_on_probation {
            process.checkpoint();
        }
        process.kill();
        assert_eq!(place.goes_on_with("tally"), "jobs-tally");
    }
}

#[test]
fn a_crash_after_a_settled_swap_goes_on_with_the_new_version_though_the_job_file_names_the_old_one() {
    for switch_at in [SwitchAt::Batch, SwitchAt::Barrier] {
        let place = Place::new();
        let process = place.start("tally");
        process.checkpoint();
        let swap = process.switch_to(SwapRequest { switch_at, ..SwapRequest::of(process.new_version("tally-next")) });
        process.runtime.block_on(process.handle.settle_swap(swap)).expect("it is on probation");
        process.until(&SwapPhase::Settled);
        process.checkpoint();
        process.kill();
        let again = place.start("tally");
        assert_eq!(again.version(), "jobs-tally-next");
        again.kill();
        // What the job file says counts again when it says something else.
        assert_eq!(place.goes_on_with("tally-wide"), "jobs-tally-wide");
    }
}

/// The old version cannot read what the checkpoint holds since the swap.
#[test]
fn a_crash_after_a_swap_without_a_way_back_goes_on_with_the_version_that_can_read_the_state() {
    for checkpoint_behind in [false, true] {
        let place = Place::new();
        let process = place.start("tally");
        process.checkpoint();
        process.switch_to(SwapRequest { one_way: true, ..SwapRequest::of(process.new_version("tally-wide")) });
        process.until(&SwapPhase::Settled);
        if checkpoint_behind {
            process.checkpoint();
        }
        process.kill();
        assert_eq!(place.goes_on_with("tally"), "jobs-tally-wide");
    }
}

#[test]
fn a_crash_after_a_swap_was_undone_goes_on_with_the_old_version() {
    let place = Place::new();
    let process = place.start("tally");
    process.checkpoint();
    process.switch_to(SwapRequest::of(process.new_version("tally-next")));
    process.runtime.block_on(process.handle.roll_back()).expect("it is on probation");
    assert_eq!(process.version(), "jobs-tally");
    process.checkpoint();
    process.kill();
    assert_eq!(place.goes_on_with("tally"), "jobs-tally");
}

/// Whatever of the two comes first, the rows are the same; a checkpoint may be given up for the swap.
#[test]
fn a_swap_while_a_checkpoint_is_taken_loses_and_repeats_nothing() {
    for switch_at in [SwitchAt::Batch, SwitchAt::Barrier] {
        let place = Place::new();
        let process = place.start("tally");
        process.checkpoint();
        for next in ["tally-next", "tally", "tally-next"] {
            let swap = process.prepared(SwapRequest { switch_at, ..SwapRequest::of(process.new_version(next)) });
            let (handle, taking) = (process.handle.clone(), process.handle.clone());
            let (switched, _committed_or_given_up) =
                process.runtime.block_on(async move { tokio::join!(handle.switch(swap), taking.checkpoint()) });
            switched.expect("it switches");
            process.runtime.block_on(process.handle.settle_swap(swap)).expect("it is on probation");
            process.until(&SwapPhase::Settled);
        }
        process.checkpoint();
        process.kill();
        assert_eq!(place.goes_on_with("tally"), "jobs-tally-next");
    }
}

/// A swap to the same state lets the snapshot under way go on: else a job that is swapped again and again would never have a checkpoint.
#[test]
fn every_checkpoint_is_taken_of_a_job_that_is_swapped_again_and_again() {
    let place = Place::new();
    let process = place.start("tally");
    for round in 0..40 {
        let swap = process.prepared(SwapRequest::of(process.new_version(["tally-next", "tally"][round % 2])));
        let (handle, taking) = (process.handle.clone(), process.handle.clone());
        // Further into the checkpoint each time.
        let later = async move {
            for _ in 0..round {
                handle.status().await;
            }
            handle.switch(swap).await
        };
        let (taken, switched) = process.runtime.block_on(async move { tokio::join!(taking.checkpoint(), later) });
        assert!(taken.is_ok(), "swap {round}: {taken:?}");
        switched.expect("it switches");
        process.runtime.block_on(process.handle.settle_swap(swap)).expect("it is on probation");
        process.until(&SwapPhase::Settled);
    }
    process.kill();
    assert_eq!(place.goes_on_with("tally"), "jobs-tally");
}

/// A job that stops on probation goes on with the old version, as after a crash: nobody has said yet that the new one is good.
#[test]
fn a_job_that_is_stopped_on_probation_goes_on_with_the_old_version() {
    let place = Place::new();
    let process = place.start("tally");
    process.switch_to(SwapRequest::of(process.new_version("tally-next")));
    process.runtime.block_on(process.handle.stop()).expect("it stops");
    process.kill();
    assert_eq!(place.goes_on_with("tally"), "jobs-tally");
}

/// Between what was prepared and what stops nothing is left over.
#[test]
fn a_job_that_is_stopped_forgets_what_was_only_prepared() {
    let place = Place::new();
    let process = place.start("tally");
    let swap = process.prepared(SwapRequest::of(process.new_version("tally-next")));
    let (handle, stopping) = (process.handle.clone(), process.handle.clone());
    let (switched, stopped) = process.runtime.block_on(async move { tokio::join!(stopping.stop(), handle.switch(swap)) });
    switched.expect("it stops");
    // Whichever came first: it switched and is on probation, or the job had ended.
    drop(stopped);
    process.kill();
    assert_eq!(place.goes_on_with("tally"), "jobs-tally");
}
