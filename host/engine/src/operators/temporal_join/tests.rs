use std::{collections::BTreeMap, path::Path};

use arrow_schema::TimeUnit;
use millstream_model::Watermark;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::ManualClock,
    operator::OutputPort,
    operators::{
        Environment,
        window::tests_support::{NoComponents, block_on, context},
    },
};

const KEYS: [&[usize]; 2] = [&[0], &[0]];

fn schemas() -> [SchemaRef; 2] {
    let start = Field::new("start", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true);
    [
        Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("left", DataType::Int64, false), start])),
        Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("right", DataType::Int64, false)])),
    ]
}

fn plan(settings: Value) -> Result<Planned, Vec<Problem>> {
    let join: TemporalJoin = serde_json::from_value(settings).expect("settings are well-formed");
    let inputs = schemas().map(|schema| StreamType { schema, event_times: true, changes: false });
    let environment = Environment { base_directory: Path::new(""), components: &NoComponents, clock: Arc::new(ManualClock::at(0)) };
    let (id, keys) = ("j".into(), KEYS.map(<[usize]>::to_vec));
    let request = PlanRequest {
        id: &id,
        inputs: &inputs,
        keys: Some(&keys),
        order: RowOrder::Arrival,
        environment: &environment,
        tables: None,
        grant: None,
    };
    block_on(join.plan(request))
}

/// A row: key, event time, value, and for `left` the time it asks for.
type Row = (i64, i64, i64, Option<i64>);

fn batch(input: usize, rows: &[Row]) -> Batch {
    let column = |of: fn(&Row) -> i64| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Int64Array>()) };
    let starts: arrow_array::TimestampMillisecondArray = rows.iter().map(|row| row.3).collect();
    let mut columns = vec![column(|row| row.0), column(|row| row.2)];
    if input == LEFT {
        columns.push(Arc::new(starts.with_timezone("UTC")));
    }
    let times: Vec<i64> = rows.iter().map(|row| row.1).collect();
    Batch::try_new(schemas()[input].clone(), columns, rows.len()).expect("it fits").with_event_times(Some(times.into()))
}

struct Run {
    operator: Box<dyn Operator>,
    now: Moment,
    /// (left value, right value, event time)
    joined: Vec<(i64, Option<i64>, i64)>,
    late: Vec<i64>,
    rejected: usize,
    metrics: Arc<OperatorMetrics>,
}

fn run(settings: Value) -> Run {
    let planned = plan(settings).expect("it is planned");
    let context = context();
    let metrics = Arc::clone(&context.metrics);
    let operator = block_on(planned.plan.create(context)).expect("it opens");
    let now = Moment { watermark: None, processing_time: 0 };
    Run { operator, now, joined: Vec::new(), late: Vec::new(), rejected: 0, metrics }
}

impl Run {
    fn rows(&mut self, input: usize, rows: &[Row]) {
        let mut out = Output::default();
        block_on(self.operator.on_batch(input, batch(input, rows), self.now, &mut out)).expect("rows are taken");
        self.take(&mut out);
    }

    fn watermark(&mut self, watermark: i64) {
        self.now.watermark = self.now.watermark.max(Some(Watermark(watermark)));
        loop {
            let mut out = Output::default();
            block_on(self.operator.on_watermark(self.now, &mut out)).expect("timers fire");
            self.take(&mut out);
            if !self.operator.has_more() {
                return;
            }
        }
    }

    fn take(&mut self, out: &mut Output) {
        self.rejected += out.take_rejections().len();
        for (port, batch) in out.take_emitted() {
            let times = batch.event_times().expect("rows keep their times").clone();
            let left = batch.column(1).as_primitive::<Int64Type>().values().clone();
            match port {
                OutputPort::Late => self.late.extend_from_slice(&left),
                _ => {
                    let right = batch.column(3).as_primitive::<Int64Type>().clone();
                    self.joined
                        .extend((0..batch.num_rows()).map(|row| (left[row], right.is_valid(row).then(|| right.value(row)), times[row])));
                }
            }
        }
    }

    fn take_joined(&mut self) -> Vec<(i64, Option<i64>, i64)> {
        let mut joined = std::mem::take(&mut self.joined);
        joined.sort_unstable();
        joined
    }
}

#[test]
fn a_row_waits_until_the_watermark_reaches_its_time() {
    let mut run = run(json!({}));
    run.rows(RIGHT, &[(1, 5, 50, None)]);
    run.rows(LEFT, &[(1, 10, 1, None)]);
    run.watermark(9);
    assert_eq!(run.take_joined(), []);
    run.rows(RIGHT, &[(1, 10, 100, None)]);
    run.watermark(10);
    assert_eq!(run.take_joined(), [(1, Some(100), 10)], "a version at the time of the row is at or before it");
}

#[test]
fn a_version_after_the_row_is_not_its_version() {
    let mut run = run(json!({}));
    run.rows(LEFT, &[(1, 10, 1, None)]);
    run.rows(RIGHT, &[(1, 11, 100, None), (2, 1, 7, None)]);
    run.watermark(20);
    assert_eq!(run.take_joined(), [(1, None, 10)]);
}

#[test]
fn an_inner_join_drops_rows_without_a_version() {
    let mut run = run(json!({ "kind": "inner" }));
    run.rows(LEFT, &[(1, 10, 1, None), (2, 10, 2, None)]);
    run.rows(RIGHT, &[(2, 1, 7, None)]);
    run.watermark(20);
    assert_eq!(run.take_joined(), [(2, Some(7), 10)]);
}

#[test]
fn of_versions_at_one_time_the_last_to_arrive_counts() {
    let mut run = run(json!({}));
    run.rows(RIGHT, &[(1, 5, 50, None), (1, 5, 51, None)]);
    run.rows(LEFT, &[(1, 6, 1, None)]);
    run.watermark(20);
    assert_eq!(run.take_joined(), [(1, Some(51), 6)]);
}

#[test]
fn rows_at_the_watermark_are_late_on_both_sides() {
    let mut run = run(json!({}));
    run.watermark(10);
    run.rows(RIGHT, &[(1, 10, 100, None), (1, 11, 110, None)]);
    run.rows(LEFT, &[(1, 10, 1, None), (1, 11, 2, None)]);
    run.watermark(20);
    assert_eq!((run.take_joined(), &run.late[..]), (vec![(2, Some(110), 11)], &[1][..]));
    assert_eq!(run.metrics.rows_late.get(), 1, "late rows of `right` have no output and are counted");
}

/// As hourly windows joined with the weather at their start.
#[test]
fn a_row_that_asks_for_an_earlier_time_is_joined_at_once() {
    let mut run = run(json!({ "at": "start" }));
    run.rows(RIGHT, &[(1, 5, 50, None), (1, 20, 200, None)]);
    run.watermark(30);
    run.rows(LEFT, &[(1, 40, 1, Some(10))]);
    assert_eq!(run.take_joined(), [(1, Some(50), 40)]);
}

#[test]
fn a_row_that_asks_for_a_time_before_the_versions_that_are_kept_is_late() {
    let mut run = run(json!({ "at": "start", "keep-versions": "5ms" }));
    run.rows(RIGHT, &[(1, 1, 10, None), (1, 24, 240, None)]);
    run.watermark(30);
    run.rows(LEFT, &[(1, 40, 1, Some(25)), (1, 40, 2, Some(26))]);
    assert_eq!((run.take_joined(), &run.late[..]), (vec![(2, Some(240), 40)], &[1][..]), "25 ≤ 30 − 5 < 26");
}

#[test]
fn a_row_that_asks_for_no_time_is_rejected() {
    let mut run = run(json!({ "at": "start" }));
    run.rows(LEFT, &[(1, 40, 1, None)]);
    assert_eq!(run.rejected, 1);
}

#[test]
fn a_join_without_key_is_refused() {
    let join: TemporalJoin = serde_json::from_value(json!({})).expect("settings are well-formed");
    let inputs = schemas().map(|schema| StreamType { schema, event_times: false, changes: false });
    let environment = Environment { base_directory: Path::new(""), components: &NoComponents, clock: Arc::new(ManualClock::at(0)) };
    let id = "j".into();
    let request = PlanRequest {
        id: &id,
        inputs: &inputs,
        keys: None,
        order: RowOrder::Arrival,
        environment: &environment,
        tables: None,
        grant: None,
    };
    let messages: Vec<String> =
        block_on(join.plan(request)).err().expect("it is refused").into_iter().map(|problem| problem.message).collect();
    assert!(messages.contains(&"a temporal join finds versions by key".to_owned()), "{messages:?}");
    assert!(messages.contains(&"a temporal join goes by event time, but `left` has none".to_owned()), "{messages:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Left(Vec<Row>),
    Right(Vec<Row>),
    Watermark(i64),
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = || prop::collection::vec((0_i64..3, 0_i64..60, 0_i64..1_000_000, (0_i64..60).prop_map(Some)), 1..8);
    let step = prop_oneof![3 => rows().prop_map(Step::Left), 3 => rows().prop_map(Step::Right), 2 => (0_i64..60).prop_map(Step::Watermark)];
    prop::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// All versions that were not late are known before any row is joined: so the join equals one over everything at the end.
    #[test]
    fn the_join_is_that_of_all_rows_that_were_not_late(steps in any_steps(), at_start in any::<bool>(), keep in 0_i64..40) {
        let settings = if at_start { json!({ "at": "start", "keep-versions": format!("{keep}ms") }) } else { json!({}) };
        let keep = if at_start { keep } else { 0 };
        let mut run = run(settings);
        let (mut watermark, mut left, mut versions): (i64, Vec<Row>, BTreeMap<(i64, i64), i64>) = (i64::MIN, Vec::new(), BTreeMap::new());
        let asked = |row: &Row| if at_start { row.3.unwrap_or_default() } else { row.1 };
        for step in &steps {
            match step {
                Step::Left(rows) => {
                    run.rows(LEFT, rows);
                    left.extend(rows.iter().filter(|row| row.1 > watermark && asked(row) > watermark.saturating_sub(keep)));
                }
                Step::Right(rows) => {
                    run.rows(RIGHT, rows);
                    versions.extend(rows.iter().filter(|row| row.1 > watermark).map(|row| ((row.0, row.1), row.2)));
                }
                Step::Watermark(to) => {
                    run.watermark(*to);
                    watermark = watermark.max(*to);
                }
            }
        }
        run.watermark(i64::MAX);
        let version = |row: &Row| versions.range((row.0, i64::MIN)..=(row.0, asked(row))).next_back().map(|(_, value)| *value);
        let mut expected: Vec<_> = left.iter().map(|row| (row.2, version(row), row.1)).collect();
        expected.sort_unstable();
        prop_assert_eq!(run.take_joined(), expected);
    }
}
