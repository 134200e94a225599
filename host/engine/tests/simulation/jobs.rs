//! The jobs that are simulated, and what each must write, by arithmetic.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use millstream_engine::{
    connector::Connectors,
    graph::{
        Batching, Checkpoints, Durability, Edge, EventTimeFrom, EventTimePlan, Exchange, JobPlan, NullKeys, OperatorNode, Restart, RowOrder,
    },
    operator::OutputPort,
    operators::{ComponentLoader, Environment},
    plan::{PlanOptions, plan},
    spec::JobSpec,
    testing::JobBuilder,
};
use millstream_model::ids::TenantId;
use millstream_storage::faults::Random;

use crate::{
    operators::{Planned, Work, alarm_after},
    sink::{SimulatedSink, SimulatedSinks},
    source::{SimulatedSource, SimulatedSources, Table},
    world::{Row, World},
};

/// How much older than the newest row of its split a row is at most.
const BOUND_MS: i64 = 100;
const WINDOW_MS: i64 = 300;
const SESSION_MS: i64 = 120;
/// Time of the first row.
const FIRST_MS: i64 = 1_700_000_000_000;

/// How often each row must be there, by sink.
pub type Expected = BTreeMap<String, BTreeMap<Row, usize>>;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyed count as rows come: every id once, and for each key the counts 1, 2, 3, …
    Counting,
    /// Windows over event time: tumbling and session, from a job file.
    Windows,
    /// Two inputs joined in event time, from a job file.
    Joining,
    /// A keyed count in event-time order: which row gets which count is arithmetic.
    Ordered,
    /// Timers in event time between ordered rows.
    Timers,
    /// Timers in processing time: what they count adds up.
    Reminders,
}

/// A job with its input.
pub struct Job {
    pub kind: Kind,
    tables: Vec<Arc<Table>>,
}

/// How one run differs from the next: results must not.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub parallelism: u32,
    pub batch_rows: usize,
    pub edge_bytes: usize,
    pub checkpoint_timeout_ms: u64,
}

/// After which a checkpoint is given up.
const TIMEOUT_MS: u64 = 400;
/// A barrier stands behind all that an operator gives at once, which may be the whole input, row by row, a millisecond each.
const TIMEOUT_PATIENT_MS: u64 = 8_000;

impl Shape {
    /// Another one for every process. `is_patient`: its checkpoints have the time they need.
    pub fn random(world: &World, is_patient: bool) -> Self {
        Self {
            parallelism: 1 + world.below(3) as u32,
            batch_rows: 1 + world.below(40) as usize,
            edge_bytes: 512 << world.below(5),
            checkpoint_timeout_ms: if is_patient { TIMEOUT_PATIENT_MS } else { TIMEOUT_MS },
        }
    }
}

impl Job {
    /// The input that follows from `random`.
    pub fn new(kind: Kind, random: &mut Random) -> Self {
        let is_bounded = random.below(8) == 0;
        let keys = 1 + random.below(9) as i64;
        let mut split = |number: u64| -> Vec<Row> {
            let rows = if is_bounded { 1_000 + random.below(400) } else { 20 + random.below(130) } as i64;
            let row = |index: i64| {
                let id = number as i64 * 1_000_000 + index;
                // No two rows have the same time: which of them came first would depend on the schedule.
                let at = FIRST_MS + 3 * (10 * (index + random.below(4) as i64) + index % 10) + number as i64;
                vec![random.below(keys as u64) as i64, id, at]
            };
            (0..rows).map(row).collect()
        };
        let splits = 1 + split(0).len() as u64 % 3;
        let rows = Table { columns: vec!["key", "id", "at"], splits: (0..splits).map(&mut split).collect(), is_bounded };
        let last = rows.rows().map(|row| row[2]).max().unwrap_or(FIRST_MS);
        let version = |index: i64| vec![index % keys, 7 * index, FIRST_MS + 75 * index];
        let versions = (0..).map(version).take_while(|row| row[2] <= last).collect();
        let versions = Table { columns: vec!["key", "price", "at"], splits: vec![versions], is_bounded };
        Self { kind, tables: vec![Arc::new(rows), Arc::new(versions)] }
    }

    /// The plan of one run.
    pub async fn plan(&self, world: &Arc<World>, shape: Shape) -> Arc<JobPlan> {
        match self.kind {
            Kind::Counting => self.built(world, shape, Work::Count, RowOrder::Arrival),
            Kind::Ordered => self.built(world, shape, Work::Count, RowOrder::EventTime),
            Kind::Timers => self.built(world, shape, Work::Alarm, RowOrder::EventTime),
            Kind::Reminders => self.built(world, shape, Work::Remind, RowOrder::Arrival),
            Kind::Windows | Kind::Joining => self.planned(world, shape).await,
        }
    }

    /// A job whose operator is no built-in.
    fn built(&self, world: &Arc<World>, shape: Shape, work: Work, order: RowOrder) -> Arc<JobPlan> {
        let mut job = JobBuilder::new();
        job.durability(durability(shape)).batching(Batching {
            rows: shape.batch_rows,
            wait: Duration::from_millis(2),
            edge_bytes: shape.edge_bytes,
            ..Batching::default()
        });
        let times = EventTimePlan { from: EventTimeFrom::Column(2), bound_ms: BOUND_MS, idle_timeout: None, max_drift: None };
        let source = SimulatedSource::new(world.clone(), self.tables[0].clone());
        let rows = job.source("rows", source, Some(times), shape.parallelism);
        let inputs = vec![job.output(rows, OutputPort::Port(0))];
        let node = OperatorNode { plan: Arc::new(Planned::new(work)), inputs, keys: Some(vec![vec![0]]), order };
        let by_key = Exchange::Hash { keys: vec![0], null_keys: NullKeys::Keep };
        let edge = Edge { from: rows, output: OutputPort::Port(0), port: 0, exchange: by_key, columns: None };
        let working = job.operator("working", node, shape.parallelism, vec![edge]);
        let sink = |name: &str| SimulatedSink { world: world.clone(), name: name.into() };
        job.sink("out", sink("out"), working, OutputPort::Port(0), 1 + shape.parallelism % 2);
        job.sink("kept", sink("kept"), rows, OutputPort::Port(0), shape.parallelism);
        job.build()
    }

    /// A job from its job file.
    async fn planned(&self, world: &Arc<World>, shape: Shape) -> Arc<JobPlan> {
        let connectors = Connectors::default()
            .with_source(SimulatedSources { world: world.clone(), tables: self.tables.clone() })
            .with_sink(SimulatedSinks { world: world.clone() });
        let text = self.job_file(shape);
        let spec = JobSpec::parse("job.yaml", &text, &connectors).unwrap_or_else(|problems| panic!("{problems}"));
        let environment = Environment { base_directory: Path::new("."), components: &NoComponents, clock: world.clock.clone() };
        let parallelism = NonZeroU32::new(shape.parallelism).expect("at least one");
        let options = PlanOptions { tenant: TenantId::local(), parallelism, state_directory: Some("unused".into()) };
        let planned = plan(&spec, &connectors, &environment, &options).await.unwrap_or_else(|problems| panic!("{problems}"));
        Arc::new(JobPlan { durability: durability(shape), ..planned })
    }

    fn job_file(&self, shape: Shape) -> String {
        let Shape { batch_rows, edge_bytes, .. } = shape;
        let times = |bound_ms: i64| format!("event-time: {{ column: at, max-out-of-orderness: {bound_ms}ms, idle-timeout: off }}");
        let head = format!(
            "job: test\nbatching: {{ rows: {batch_rows}, wait: 2ms, edge-bytes: {edge_bytes}B }}\nsources:\n  rows: {{ simulated: {{ table: 0 }}, {} }}\n",
            times(BOUND_MS)
        );
        if self.kind == Kind::Joining {
            let times = times(0);
            return head
                + &format!(
                    "  versions: {{ simulated: {{ table: 1 }}, {times} }}
operators:
  joined: {{ inputs: {{ left: rows, right: versions }}, key-by: {{ left: [key], right: [key] }}, temporal-join: {{ add: [price] }} }}
sinks:
  out: {{ input: joined, shelf: {{}} }}
"
                );
        }
        head + &format!(
            "operators:
  tumbling: {{ input: rows, key-by: [key], window: {{ tumbling: {WINDOW_MS}ms, aggregates: {{ n: {{ count: \"*\" }}, ids: {{ sum: id }} }} }} }}
  sessions: {{ input: rows, key-by: [key], window: {{ session: {SESSION_MS}ms, aggregates: {{ n: {{ count: \"*\" }}, ids: {{ sum: id }} }} }} }}
sinks:
  out: {{ input: tumbling, shelf: {{}} }}
  sessions-out: {{ input: sessions, shelf: {{}} }}
"
        )
    }

    /// Whether the rows of a sink are what must be there at the end.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, sink: &str, rows: &[Row]) -> Result<(), String> {
        let mut found: BTreeMap<Row, usize> = BTreeMap::new();
        for row in rows {
            let (row, count) = self.comparable(sink, row);
            *found.entry(row).or_default() += count;
        }
        let expected = self.expected();
        let expected = expected.get(sink).ok_or_else(|| format!("nothing belongs into {sink}"))?;
        differences(expected, &found).map_or(Ok(()), |difference| Err(format!("{sink}: {difference}")))?;
        if sink == "out" && self.kind == Kind::Counting { self.every_id_once(rows) } else { Ok(()) }
    }

    /// The sinks.
    pub fn sinks(&self) -> Vec<String> {
        self.expected().into_keys().collect()
    }

    /// How a row counts. Which row of a key gets which count depends on how splits interleave: ids and counts are compared one by one. And when
    /// a reminder fires depends on the schedule: the rows of a key are added up.
    fn comparable(&self, sink: &str, row: &Row) -> (Row, usize) {
        match (sink, self.kind) {
            ("out", Kind::Counting) => (vec![row[0], row[2]], 1),
            ("out", Kind::Reminders) => (vec![row[0]], usize::try_from(row[2]).expect("a count")),
            _ => (row.clone(), 1),
        }
    }

    fn every_id_once(&self, rows: &[Row]) -> Result<(), String> {
        let count = |ids: Vec<i64>| {
            ids.into_iter().fold(BTreeMap::new(), |mut counts, id| {
                *counts.entry(vec![id]).or_insert(0) += 1;
                counts
            })
        };
        let expected = count(self.tables[0].rows().map(|row| row[1]).collect());
        let found = count(rows.iter().map(|row| row[1]).collect());
        differences(&expected, &found).map_or(Ok(()), |difference| Err(format!("ids: {difference}")))
    }

    /// What must be there.
    pub fn expected(&self) -> Expected {
        let mut sinks: Expected = BTreeMap::new();
        let rows = &self.tables[0];
        let mut put = |sink: &str, row: Row| {
            let (row, count) = self.comparable(sink, &row);
            *sinks.entry(sink.into()).or_default().entry(row).or_default() += count;
        };
        match self.kind {
            Kind::Windows => {
                sums_of_windows(rows.rows()).into_iter().for_each(|row| put("out", row));
                sums_of_sessions(rows.rows()).into_iter().for_each(|row| put("sessions-out", row));
            }
            Kind::Joining => rows.rows().for_each(|row| put("out", self.joined(row))),
            Kind::Counting | Kind::Ordered | Kind::Timers | Kind::Reminders => {
                rows.rows().for_each(|row| put("kept", row.clone()));
                for (key, rows) in by_key_and_time(rows.rows()) {
                    let out = match self.kind {
                        Kind::Timers => alarms(key, &rows),
                        Kind::Reminders => vec![vec![key, 0, rows.len() as i64]],
                        _ => counts(key, &rows),
                    };
                    out.into_iter().for_each(|row| put("out", row));
                }
            }
        }
        sinks
    }

    /// A row with the latest version of its key at its time.
    fn joined(&self, row: &Row) -> Row {
        let versions = self.tables[1].rows().filter(|version| version[0] == row[0] && version[2] <= row[2]);
        let price = versions.max_by_key(|version| version[2]).map_or(i64::MIN, |version| version[1]);
        let mut joined = row.clone();
        joined.push(price);
        joined
    }
}

fn durability(shape: Shape) -> Durability {
    Durability {
        checkpoints: Checkpoints {
            interval: Duration::from_millis(25),
            timeout: Duration::from_millis(shape.checkpoint_timeout_ms),
            retained: NonZeroU32::new(2).expect("two is not zero"),
            tolerated_failures: 2,
            ..Checkpoints::default()
        },
        restart: Restart {
            attempts: 4,
            first: Duration::from_millis(4),
            most: Duration::from_millis(20),
            healthy_after: Duration::from_millis(300),
        },
        ..Durability::default()
    }
}

/// The first row that is there too often or not often enough.
fn differences(expected: &BTreeMap<Row, usize>, found: &BTreeMap<Row, usize>) -> Option<String> {
    let rows: std::collections::BTreeSet<&Row> = expected.keys().chain(found.keys()).collect();
    let times = |counts: &BTreeMap<Row, usize>, row: &Row| counts.get(row).copied().unwrap_or(0);
    let wrong: Vec<_> = rows.into_iter().filter(|row| times(expected, row) != times(found, row)).collect();
    let first = wrong.first()?;
    Some(format!("{} rows differ; {first:?} is there {} times instead of {}", wrong.len(), times(found, first), times(expected, first)))
}

fn by_key_and_time<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeMap<i64, Vec<Row>> {
    let mut keys: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    rows.for_each(|row| keys.entry(row[0]).or_default().push(row.clone()));
    keys.values_mut().for_each(|rows| rows.sort_by_key(|row| (row[2], row[1])));
    keys
}

fn counts(key: i64, rows: &[Row]) -> Vec<Row> {
    rows.iter().zip(1..).map(|(row, count)| vec![key, row[1], count]).collect()
}

/// Timers of a key, each with the sum of the ids up to it: a timer at t fires behind the rows at t.
fn alarms(key: i64, rows: &[Row]) -> Vec<Row> {
    let times: std::collections::BTreeSet<i64> = rows.iter().map(|row| alarm_after(row[2])).collect();
    let sum = |up_to: i64| rows.iter().filter(|row| row[2] <= up_to).map(|row| row[1]).sum();
    times.into_iter().map(|at| vec![key, at, sum(at)]).collect()
}

fn sums_of_windows<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Row> {
    let mut windows: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    for row in rows {
        let start = row[2].div_euclid(WINDOW_MS) * WINDOW_MS;
        let (count, sum) = windows.entry((row[0], start)).or_default();
        (*count, *sum) = (*count + 1, *sum + row[1]);
    }
    windows.into_iter().map(|((key, start), (count, sum))| vec![key, start, start + WINDOW_MS, count, sum]).collect()
}

fn sums_of_sessions<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Row> {
    let mut sessions: Vec<Row> = Vec::new();
    for (key, rows) in by_key_and_time(rows) {
        for row in rows {
            match sessions.last_mut().filter(|session| session[0] == key && row[2] < session[2]) {
                Some(session) => {
                    session[2] = row[2] + SESSION_MS;
                    session[3] += 1;
                    session[4] += row[1];
                }
                None => sessions.push(vec![key, row[2], row[2] + SESSION_MS, 1, row[1]]),
            }
        }
    }
    sessions
}

struct NoComponents;

#[async_trait]
impl ComponentLoader for NoComponents {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        panic!("{} is not needed", path.display());
    }
}
