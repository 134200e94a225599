//! Swaps to a version that reads more columns than are carried: from a barrier on the source reads more and every operator on the way passes it on. The
//! version traps unless the column holds what it shall, so that no row can come to it without, and the counts are those of a job without any swap.

use std::{collections::BTreeMap, fs, io::Write as _, num::NonZeroU32, path::Path, sync::Arc};

use async_trait::async_trait;
use millstream_engine::{
    clock::SystemClock,
    connector::Connectors,
    graph::JobPlan,
    operators::Environment,
    plan::{self, AlsoRead, PlanOptions},
    run::{JobOutcome, JobStatus, Replan, SwapError, SwapPhase, SwapRequest, SwitchAt, WaitOn, Widening},
    spec::JobSpec,
};
use millstream_job_tests::components;
use millstream_model::ids::TenantId;
use millstream_wasm::{Runtime, RuntimeSettings};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    gate::{Gate, Sluice},
    swaps::{Process, component},
};

const ROWS: usize = 6_000;
/// More than pass while a swap is under way, and than all edges hold.
const MANY_ROWS: usize = 60_000;
const KEYS: usize = 101;
/// Rows of each split that pass before the gate, and once more when it is opened again. A subtask reads one split after the other.
const BEFORE: u64 = 1_500;

/// A job directory, with its input.
#[derive(Clone)]
struct Place {
    directory: Arc<TempDir>,
    components: Runtime,
    parallelism: NonZeroU32,
    /// What stands between the source and the operator that is swapped.
    between: &'static str,
    order: &'static str,
    rows: usize,
    batching: &'static str,
}

/// Plans it again as it runs.
struct AsItRuns(Place, &'static str);

#[async_trait]
impl Replan for AsItRuns {
    async fn replan(&self, also_read: &AlsoRead) -> Result<JobPlan, String> {
        Ok(self.0.plan(self.1, &millstream_connectors::all(), also_read).await)
    }
}

/// Built-in operators that have to be made anew, one that remembers something, and a component that has to be replaced by itself.
const BETWEEN: &str = "
  kept: { input: rows, filter: \"number >= 0\" }
  timed: { input: kept, assign-watermarks: { expression: \"number\", max-out-of-orderness: 0s } }
  both: { inputs: [timed], union: {} }
  words: { input: both, compute: { word: \"cast(number % 101 as varchar)\" } }";

impl Place {
    fn new(parallelism: u32) -> Self {
        Self::with_rows(parallelism, ROWS)
    }

    fn with_rows(parallelism: u32, rows: usize) -> Self {
        components::build();
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("in")).expect("a directory");
        for file in 0..2 {
            let mut out = fs::File::create(directory.path().join(format!("in/{file}.ndjson"))).expect("a file");
            for number in (file..rows).step_by(2) {
                writeln!(out, "{{\"number\": {number}, \"unread\": true, \"shadow\": \"{}\"}}", number % KEYS).expect("a row");
            }
        }
        let components = Runtime::new(RuntimeSettings { pooled_instances: 64, ..RuntimeSettings::default() }).expect("an engine");
        let parallelism = NonZeroU32::new(parallelism).expect("some");
        Self { directory: Arc::new(directory), components, parallelism, between: BETWEEN, order: "arrival", rows, batching: "{}" }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn job(&self, version: &str) -> String {
        format!(
            "job: counting
parallelism: {}
checkpoints: {{ interval: 1h }}
batching: {}
sources:
  rows:
    files: {{ path: {}/in, format: ndjson }}
    schema: {{ number: Int64, unread: Boolean, shadow: Utf8 }}
operators:{}
  counts: {{ input: words, key-by: [word], order: {}, component: {{ path: {} }} }}
sinks:
  out: {{ input: counts, files: {{ path: {}, format: ndjson }} }}
",
            self.parallelism,
            self.batching,
            self.path().display(),
            self.between,
            self.order,
            component(version),
            self.path().join("out").display()
        )
    }

    async fn plan(&self, version: &str, connectors: &Connectors, also_read: &AlsoRead) -> JobPlan {
        let spec = JobSpec::parse_with("job.yaml", &self.job(version), &[], connectors).expect("a good job file");
        let environment = Environment { base_directory: self.path(), components: &self.components, clock: Arc::new(SystemClock) };
        let options = PlanOptions { tenant: TenantId::local(), parallelism: NonZeroU32::MIN, state_directory: None };
        plan::plan_with(&spec, connectors, &environment, &options, also_read).await.expect("a good job")
    }

    /// Starts it; its rows stop at a gate.
    fn start(&self, version: &str) -> (Process, Gate) {
        let gate = Gate::behind(BEFORE as usize);
        let connectors = gate.in_sources_of(millstream_connectors::all());
        let process = Process::start(self.path(), async { Arc::new(self.plan(version, &connectors, &AlsoRead::new()).await) });
        process.until_rows(self.before());
        (process, gate)
    }

    /// Rows that pass before the gates.
    fn before(&self) -> u64 {
        u64::from(self.parallelism.get()) * BEFORE
    }

    /// To the version that reads `shadow` too.
    fn wider(&self, process: &Process, runs: &'static str) -> SwapRequest {
        let reads = AlsoRead::from([("counts".into(), vec![["word".to_owned(), "shadow".to_owned()].into()])]);
        let widening = Some(Widening { reads, planner: Arc::new(AsItRuns(self.clone(), runs)) });
        SwapRequest { widening, ..SwapRequest::of(process.new_version("tally-checked")) }
    }

    /// Runs the job to its end from where it is: what it has written then is what it writes without swaps and kills.
    fn ends_as_if_nothing_had_happened(&self, process: Process, gate: &Gate) {
        gate.open();
        self.ends_right(process);
    }

    fn ends_right(&self, process: Process) {
        let outcome = process.runtime.block_on(process.handle.wait());
        assert!(matches!(*outcome, JobOutcome::Finished(_)), "{outcome:?}");
        process.kill();
        let mut counts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for part in fs::read_dir(self.path().join("out")).expect("output").map(|part| part.expect("output").path()) {
            if part.extension().is_none_or(|extension| extension != "ndjson") {
                continue;
            }
            for line in fs::read_to_string(part).expect("a part").lines() {
                let row: Value = serde_json::from_str(line).expect("one JSON object per line");
                let word = row["word"].as_str().and_then(|word| word.parse().ok()).expect("a number as a word");
                counts.entry(word).or_default().push(row["count"].as_u64().expect("a count") as usize);
            }
        }
        let golden: BTreeMap<usize, Vec<usize>> = (0..KEYS).map(|key| (key, (1..=(self.rows - key).div_ceil(KEYS)).collect())).collect();
        counts.values_mut().for_each(|of_key| of_key.sort_unstable());
        assert_eq!(counts, golden);
    }
}

impl Process {
    /// Waits until so many rows have come to `counts`, for a minute at most.
    fn until_rows(&self, rows: u64) {
        for _ in 0..60_000 {
            let status = self.status();
            let counts = status.operators.iter().find(|operator| operator.id.as_str() == "counts").expect("it has that operator");
            if counts.rows_in >= rows {
                return;
            }
            self.waits_a_moment();
        }
        panic!("{rows} rows have not come to `counts`");
    }

    /// Of the attempt that it began with: no failure is made good by starting again from a checkpoint.
    fn status(&self) -> JobStatus {
        let status = self.runtime.block_on(self.handle.status()).expect("it answers");
        assert!(status.durable.as_ref().is_none_or(|durable| durable.restarts == 0), "{:?}", status.durable);
        status
    }

    fn waits_a_moment(&self) {
        self.runtime.block_on(millstream_engine::clock::Clock::sleep(&SystemClock, 1));
    }

    /// Waits until all subtasks that read wait for room on the way to `counts`, for a minute at most.
    fn until_edges_are_full(&self, place: &Place) {
        for _ in 0..60_000 {
            let status = self.status();
            let waits = status.operators.iter().flat_map(|operator| &operator.waits);
            let full = waits.filter(|wait| matches!(&wait.on, WaitOn::Room { to } if to.as_str() == "counts"));
            if full.count() == place.parallelism.get() as usize {
                return;
            }
            self.waits_a_moment();
        }
        panic!("the edges to `counts` are not full: {:?}", self.status());
    }

    /// Swaps to it, and lets rows pass that it counts.
    fn widened(&self, place: &Place, request: SwapRequest) -> millstream_engine::run::SwapId {
        let prepared = self.runtime.block_on(self.handle.prepare_swap(request)).expect("it fits");
        let widens: Vec<&str> = prepared.widens.iter().map(|id| id.as_str()).collect();
        assert_eq!(widens, ["rows", "kept", "timed", "both", "words", "counts"]);
        let report = self.runtime.block_on(self.handle.switch(prepared.swap)).expect("it switches");
        assert!(!report.widening_pauses.is_empty());
        self.until_rows(2 * place.before());
        assert_eq!(self.version(), "jobs-tally-checked");
        prepared.swap
    }
}

#[test]
fn a_version_that_reads_more_loses_doubles_and_misreads_no_row() {
    for (parallelism, switch_at) in [(1, SwitchAt::Batch), (2, SwitchAt::Batch), (2, SwitchAt::Barrier)] {
        let place = Place::new(parallelism);
        let (process, gate) = place.start("tally");
        process.widened(&place, SwapRequest { switch_at, ..place.wider(&process, "tally") });
        place.ends_as_if_nothing_had_happened(process, &gate);
    }
}

/// The receivers are so slow that narrow rows wait on every edge all the while, and behind them come the wide ones: the source goes on as fast as it can.
/// Whoever took wider rows before its barrier would find narrow ones before itself, and whoever sent them would find a receiver that does not know them.
#[test]
fn rows_on_the_way_while_streams_become_wider_are_neither_lost_nor_doubled_nor_misread() {
    for switch_at in [SwitchAt::Batch, SwitchAt::Barrier] {
        let place = Place { batching: "{ rows: 64, edge-bytes: 4KiB }", ..Place::with_rows(2, MANY_ROWS) };
        let sluice = Sluice::closed();
        let connectors = sluice.in_sinks_of(millstream_connectors::all());
        let process = Process::start(place.path(), async { Arc::new(place.plan("tally", &connectors, &AlsoRead::new()).await) });
        sluice.let_through(200);
        process.until_edges_are_full(&place);
        let swap = process.prepared(SwapRequest { switch_at, ..place.wider(&process, "tally") });
        let handle = process.handle.clone();
        let switching = process.runtime.spawn(async move { handle.switch(swap).await });
        while !switching.is_finished() {
            sluice.let_through(32);
            process.status();
            process.waits_a_moment();
        }
        let report = process.runtime.block_on(switching).expect("no panic").expect("it switches");
        assert_eq!(
            report.widening_pauses.len(),
            4,
            "both subtasks that read and both that count took wider rows in the middle of the stream"
        );
        assert_eq!(process.version(), "jobs-tally-checked");
        process.until_edges_are_full(&place);
        sluice.let_through(MANY_ROWS);
        place.ends_right(process);
    }
}

/// The old version reads from wide rows what it read from narrow ones, on probation and long after it.
#[test]
fn the_way_back_from_a_version_that_reads_more_loses_and_doubles_no_row() {
    for is_settled in [false, true] {
        let place = Place::new(2);
        let (process, gate) = place.start("tally");
        let swap = process.widened(&place, place.wider(&process, "tally"));
        if is_settled {
            process.runtime.block_on(process.handle.settle_swap(swap)).expect("it is on probation");
            process.until(&SwapPhase::Settled);
        }
        process.runtime.block_on(process.handle.roll_back()).expect("there is a way back");
        assert_eq!(process.version(), "jobs-tally");
        place.ends_as_if_nothing_had_happened(process, &gate);
    }
}

/// Killed behind the barrier, with and without a checkpoint of wide rows, on probation and settled: whichever version goes on, every row counts once.
#[test]
fn a_kill_behind_a_swap_to_a_version_that_reads_more_loses_and_doubles_no_row() {
    for (parallelism, has_checkpoint, is_settled) in [(1, true, false), (2, true, true), (2, false, false), (2, false, true)] {
        let place = Place::new(parallelism);
        let (process, _gate) = place.start("tally");
        process.checkpoint();
        let swap = process.widened(&place, place.wider(&process, "tally"));
        if is_settled {
            process.runtime.block_on(process.handle.settle_swap(swap)).expect("it is on probation");
            process.until(&SwapPhase::Settled);
        }
        if has_checkpoint {
            process.checkpoint();
        }
        process.kill();
        // Who starts it again names what was settled, as the service does.
        let (again, gate) = place.again(if is_settled { "tally-checked" } else { "tally" });
        place.ends_as_if_nothing_had_happened(again, &gate);
    }
}

/// Whatever of the barrier has come by then: what goes on has no row twice.
#[test]
fn a_kill_in_the_middle_of_widening_loses_and_doubles_no_row() {
    for waits in [0, 200, 1_000, 5_000] {
        let place = Place::new(2);
        let (process, _gate) = place.start("tally");
        process.checkpoint();
        let swap = process.prepared(place.wider(&process, "tally"));
        let handle = process.handle.clone();
        let switching = process.runtime.spawn(async move { handle.switch(swap).await });
        for _ in 0..waits {
            std::thread::yield_now();
        }
        process.kill();
        drop(switching);
        let (again, gate) = place.again("tally");
        place.ends_as_if_nothing_had_happened(again, &gate);
    }
}

/// What came before a barrier and is still held lacks the column, and nothing is invented for it.
#[test]
fn rows_that_are_held_without_a_column_refuse_a_version_that_reads_it() {
    let held = Place { order: "event-time", ..Place::new(2) };
    let (process, gate) = held.start("tally");
    let request = held.wider(&process, "tally");
    let refused = process.runtime.block_on(process.handle.prepare_swap(request)).expect_err("rows are held");
    let SwapError::Incompatible { refusals } = refused else { panic!("{refused}") };
    let refusals: Vec<(&str, &str)> = refusals.iter().map(|refusal| (refusal.operator.as_str(), refusal.differences[0].as_str())).collect();
    assert_eq!(refusals, [("counts", "it holds rows in event-time order that came without `shadow`")]);
    held.ends_as_if_nothing_had_happened(process, &gate);
}

impl Place {
    /// Starts it again; rows may pass.
    fn again(&self, version: &str) -> (Process, Gate) {
        let gate = Gate::behind(ROWS);
        let connectors = gate.in_sources_of(millstream_connectors::all());
        (Process::start(self.path(), async { Arc::new(self.plan(version, &connectors, &AlsoRead::new()).await) }), gate)
    }
}
