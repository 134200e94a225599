//! One run of a job directory.

use std::{
    fmt, fs,
    num::NonZeroU32,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millstream_engine::{
    clock::SystemClock,
    graph::{JobPlan, Node, NodeKind},
    operators::{Environment, component::ComponentOperatorPlan},
    plan::{self, PlanOptions},
    run::{
        self, JobHandle, JobOutcome, NewComponent, NewVersion, RunSettings, Share, StateDirectory, SwapRequest, SwitchAt, TrialError,
        TrialMode, TrialPhase, TrialRequest, TrialRule,
    },
    spec::JobSpec,
};
use millstream_job_tests::components::repository;
use millstream_model::ids::{OperatorId, TenantId};
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_wasm::{Runtime, RuntimeSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gate::Gate;

/// A job file in a directory of the repository.
#[derive(Debug)]
pub struct Job {
    directory: &'static str,
    file: &'static str,
    rows_before_swap: usize,
}

/// How a job runs.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Parallelism of everything.
    pub parallelism: u32,
    /// Whether every component is replaced by another version in the middle of the input.
    pub swaps: bool,
    /// Whether the components are tried beside themselves, one in each run.
    pub tries: bool,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.directory, self.file)
    }
}

/// A job that can run.
struct Planned {
    plan: Arc<JobPlan>,
    runtime: Runtime,
    /// The operators that are components, and their files.
    components: Vec<(OperatorId, PathBuf)>,
}

impl Job {
    /// The job in `file` in `directory`, which is relative to the repository; swaps happen behind so many rows of each split.
    pub fn at(directory: &'static str, file: &'static str, rows_before_swap: usize) -> Self {
        Self { directory, file, rows_before_swap }
    }

    /// Runs the job to its end, with component `tried` on trial if components are; the directory that holds what it wrote under `out/`, and how many
    /// components there are.
    pub async fn run_with(&self, run: Run, tried: usize) -> (TempDir, usize) {
        let place = self.placed();
        let gate = Gate::behind(self.rows_before_swap);
        let planned = self.plan(place.path(), run, &gate).await;
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let state = StateDirectory { path: scratch.path().to_owned(), shared: Arc::new(RocksShared::new(RocksSharedSettings::default())) };
        let handle = run::start(planned.plan.clone(), RunSettings { state: Some(state), ..RunSettings::new() });
        if run.swaps {
            planned.swap_all(&handle).await;
        }
        let is_tried = match planned.components.get(tried).filter(|_| run.tries) {
            Some((component, _)) => try_beside_itself(&handle, component).await,
            None => false,
        };
        gate.open();
        match &*handle.wait().await {
            JobOutcome::Finished(_) => {}
            other => panic!("{self:?} did not finish: {other:?}"),
        }
        if is_tried {
            nothing_differs(&handle).await;
        }
        (place, planned.components.len())
    }

    /// A directory that looks like the job's but has its own `out`.
    fn placed(&self) -> TempDir {
        let place = tempfile::tempdir().expect("a temporary directory");
        for entry in fs::read_dir(repository().join(self.directory)).expect("the job's directory") {
            let entry = entry.expect("a readable directory");
            if entry.file_name() != "out" {
                symlink(entry.path(), place.path().join(entry.file_name())).expect("a new link");
            }
        }
        place
    }

    async fn plan(&self, place: &Path, run: Run, gate: &Gate) -> Planned {
        let text = fs::read_to_string(place.join(self.file)).expect("the job file");
        let mut changes = vec![("parallelism".to_owned(), json!(run.parallelism))];
        changes.extend(stdout_as_files(&text));
        let connectors = gate.in_sources_of(millstream_connectors::all());
        let spec = JobSpec::parse_with(self.file, &text, &changes, &connectors).expect("a good job file");
        let runtime = Runtime::new(RuntimeSettings { cache_dir: Some(cache()), ..RuntimeSettings::default() }).expect("an engine");
        let environment = Environment { base_directory: place, components: &runtime, clock: Arc::new(SystemClock) };
        let options = PlanOptions { tenant: TenantId::local(), parallelism: NonZeroU32::MIN, state_directory: None };
        let plan = Arc::new(plan::plan(&spec, &connectors, &environment, &options).await.expect("a good job"));
        let file = |operator: &OperatorId| {
            let entry = spec.operators.iter().find(|entry| entry.id == operator.as_str()).expect("it stands in the job file");
            place.join(entry.settings["path"].as_str().expect("components are files"))
        };
        let components = components_of(&plan).into_iter().map(|operator| (operator.clone(), file(&operator))).collect();
        Planned { plan, runtime, components }
    }
}

/// A sink that prints writes files named like the operator it reads, so that its rows can be compared.
fn stdout_as_files(text: &str) -> Option<(String, Value)> {
    text.contains("stdout: {}").then(|| {
        let files = json!({ "input": "counts", "files": { "path": "out/counts", "format": "ndjson" } });
        ("sinks.results".to_owned(), files)
    })
}

fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    target.join("millstream/components")
}

fn components_of(plan: &JobPlan) -> Vec<OperatorId> {
    let is_component =
        |node: &&Node| matches!(&node.kind, NodeKind::Operator(operator) if operator.plan.as_any().is::<ComponentOperatorPlan>());
    plan.nodes.iter().filter(is_component).map(|node| node.id.clone()).collect()
}

/// A component on trial beside itself while rows wait at the gate: for half of the keys, or as a shadow where there are none. False: its input had ended.
async fn try_beside_itself(handle: &JobHandle, component: &OperatorId) -> bool {
    let version = NewVersion { operator: component.clone(), component: None, settings: None };
    let share = Share::of_percent(50.0).expect("a share");
    // How long things take is not what is tried here, on a machine that does much else.
    let rule = |mode| TrialRule { cpu_ratio_max: 1_000.0, ..TrialRule::of(mode) };
    let request = |mode| TrialRequest { rule: rule(mode), ..TrialRequest::of(version.clone(), mode) };
    let mut tried = handle.try_version(request(TrialMode::Canary { share })).await;
    if let Err(TrialError::Incompatible { .. }) = tried {
        tried = handle.try_version(request(TrialMode::Shadow)).await;
    }
    match tried {
        Ok(_) => true,
        Err(TrialError::Ended) => false,
        Err(error) => panic!("`{component}` can be tried beside itself: {error}"),
    }
}

/// A component beside itself answers the same, and changes the same state and timers.
async fn nothing_differs(handle: &JobHandle) {
    let report = handle.trial_report().await.expect("it was tried");
    let counts = report.status.counts;
    assert!(matches!(report.status.phase, TrialPhase::Ended { .. }), "{report:?}");
    assert_eq!((counts.rows_differing, counts.updates_differing, counts.rejects_extra, counts.failures), (0, 0, 0, 0), "{report:?}");
    match report.status.mode {
        TrialMode::Canary { .. } => assert_eq!(counts.rows_applied, counts.rows, "{report:?}"),
        TrialMode::Shadow => assert_eq!(counts.rows_applied, 0, "{report:?}"),
    }
}

impl Planned {
    /// Replaces every component by its next version, all as one step, while rows wait at the gate.
    async fn swap_all(&self, handle: &JobHandle) {
        if self.components.is_empty() {
            // The job is all built-in operators.
            return;
        }
        let mut operators = Vec::new();
        for (operator, file) in &self.components {
            let bytes = next_version(fs::read(file).expect("it was built"));
            let component = self.runtime.load(bytes.clone().into(), operator.as_str()).await.expect("it loads");
            let component = NewComponent { component, bytes: bytes.into() };
            operators.push(NewVersion { operator: operator.clone(), component: Some(component), settings: None });
        }
        let request = SwapRequest {
            operators,
            switch_at: SwitchAt::Batch,
            probation: Duration::ZERO,
            one_way: false,
            widening: None,
            promotes: None,
        };
        let prepared = handle.prepare_swap(request).await.unwrap_or_else(|error| panic!("they can be swapped: {error}"));
        let report = handle.switch(prepared.swap).await.unwrap_or_else(|error| panic!("they can be switched: {error}"));
        assert!(!report.pauses.is_empty(), "a subtask switched in the middle (those without a split have ended)");
    }
}

/// The same logic in other bytes, as a build that changed nothing but a note: a custom section behind the last one.
fn next_version(mut component: Vec<u8>) -> Vec<u8> {
    const CUSTOM: [u8; 10] = *b"\x00\x08\x07version";
    component.extend(CUSTOM);
    component
}
