//! `temporal-join: { kind: left, at: window_start }`: joins each row of `left` with the version of its key in `right` that was valid at its
//! time: the latest one at or before it.
//!
//! The flow: a row of `right` is a version, kept in an ordered map by its event time (of several at one time the last to arrive). A row of
//! `left` waits until the watermark passes the time it asks for, since only then all versions are known, and is joined then; if the
//! watermark has passed it already, at once. Joined rows keep the event times of `left`.
//!
//! Late: a row of either side at or before the watermark; and a row of `left` that asks for a time further behind the watermark than
//! versions are kept. Late rows of `left` go to the `late` output; those of `right`, which have other columns, are counted and dropped.
//!
//! State per key: `versions` (time → columns), `waiting` (time asked for → rows), a timer `join` per time that rows wait for and a timer
//! `prune` per version, at which older ones can no longer be asked for.

use std::{any::Any, sync::Arc};

use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, StructArray, UInt32Array, cast::AsArray, new_null_array, types::Int64Type};
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_expr::Expression;
use millstream_model::{
    Batch, EventTime, StreamType,
    key::encode_keys,
    state::{Clock, StateDescriptor, StateKind, StateScope, TimerDescriptor},
};
use millstream_state::{DueTimers, KeySet, KeyedStore, MapUpdate, Span, TimerUpdate, Updates};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    LatePolicy, OUTPUT, OperatorSpec, PlanRequest, Planned, Ports, Problem,
    arrays::{items_of, take_or_null},
    keep,
    keyed::{open_store, state_error, state_moment, without_late},
    lookup_join::{Added, JoinKind},
    upgrade::Declared,
    window::Collect,
};
use crate::{
    event_time,
    graph::RowOrder,
    metrics::OperatorMetrics,
    operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output},
    rejected::Rejection,
    spec::DurationMs,
};

const LEFT: usize = 0;
const RIGHT: usize = 1;
const VERSIONS: usize = 0;
const WAITING: usize = 1;
const JOIN: usize = 0;
const PRUNE: usize = 1;

/// Most timers handled in one call.
const PORTION: usize = 4_096;
/// Most bytes of versions looked at in one scan when old ones are pruned.
const SCAN_BYTES: usize = 1 << 20;

/// Joins each row of `left` with the latest version of its key in `right` at or before its time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TemporalJoin {
    /// What becomes of a row of `left` for which there is no version. Default: left, it is kept with nulls.
    #[serde(default)]
    kind: JoinKind,
    /// The time a row of `left` asks for: a column or expression of it, a timestamp or an Int64 of ms since epoch. Default: its event time.
    at: Option<String>,
    /// How long versions are kept behind the watermark, for rows that ask for a time before their own. Default: 0s, with `at` 1day.
    keep_versions: Option<DurationMs>,
    /// The columns of `right` to add: a list, or a map from the new name to the column. Default: all but its key.
    add: Option<Added>,
    /// What becomes of rows of `left` that come too late. Default: drop.
    #[serde(default)]
    late: LatePolicy,
}

/// How long versions are kept for rows that ask for another time than their own.
const KEEP_VERSIONS_MS: i64 = 24 * 3_600_000;

#[async_trait]
impl OperatorSpec for TemporalJoin {
    const KEY: &'static str = "temporal-join";

    async fn ports(&self, _environment: &super::Environment<'_>) -> Result<Ports, Vec<Problem>> {
        Ok(Ports::named(&["left", "right"]))
    }

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let [left, right] = request.inputs else { unreachable!("the planner gives one stream per port") };
        let mut problems = Vec::new();
        for (name, stream) in [("left", left), ("right", right)] {
            if !stream.event_times {
                problems.push(Problem::at("", format!("a temporal join goes by event time, but `{name}` has none")));
            }
        }
        if request.order == RowOrder::EventTime {
            problems.push(
                Problem::in_entry("order", "a temporal join itself waits until rows can be joined in time").help("leave `order` out"),
            );
        }
        let keys = self.keys(&request).unwrap_or_else(|problem| {
            problems.push(problem);
            [Vec::new(), Vec::new()]
        });
        let at = self.at(left).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let is_key = |name: &str| keys[RIGHT].iter().any(|&key| right.schema.field(key).name() == name);
        let added = Added::columns(self.add.as_ref(), &right.schema, |name| !is_key(name)).unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
        let schema = Added::joined(&left.schema, &added, self.kind).unwrap_or_else(|found| {
            problems.extend(found);
            Arc::clone(&left.schema)
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let keep_ms = self.keep_versions.map_or(if at.is_some() { KEEP_VERSIONS_MS } else { 0 }, DurationMs::as_ms);
        let shape = Shape {
            keys,
            at,
            kind: self.kind,
            keep_ms,
            left: left.schema.fields().clone(),
            added: added.iter().map(|(column, _)| *column).collect(),
            version: plain_fields(added.iter().map(|(_, field)| field)),
            schema: Arc::clone(&schema),
        };
        let output = StreamType { schema, event_times: true, changes: false };
        Ok(Planned {
            plan: Arc::new(TemporalJoinPlan { outputs: [(OUTPUT.into(), output)], shape: Arc::new(shape) }),
            late: Some(self.late.clone()),
        })
    }
}

impl TemporalJoin {
    fn keys(&self, request: &PlanRequest<'_>) -> Result<[Vec<usize>; 2], Problem> {
        let Some([left, right]) = request.keys else {
            let problem = Problem::in_entry("key-by", "a temporal join finds versions by key");
            return Err(problem.help("add for example key-by: { left: [origin], right: [origin] }"));
        };
        let types = |input: usize, keys: &[usize]| -> Vec<DataType> {
            keys.iter().map(|&key| request.inputs[input].schema.field(key).data_type().clone()).collect()
        };
        if types(LEFT, left) != types(RIGHT, right) {
            return Err(Problem::in_entry("key-by", "the keys of `left` and `right` are of different types")
                .help("cast one of them with `compute`"));
        }
        Ok([left.clone(), right.clone()])
    }

    fn at(&self, left: &StreamType) -> Result<Option<Expression>, Problem> {
        let Some(text) = &self.at else { return Ok(None) };
        let expression = Expression::parse(text, &left.schema).map_err(|error| Problem::at("at", error.to_string()))?;
        event_time::check_type(expression.data_type()).map_err(|message| Problem::at("at", message))?;
        Ok(Some(expression))
    }
}

/// Fields as they lie in state: by number, so that renaming a column changes nothing.
fn plain_fields<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> Fields {
    fields.enumerate().map(|(number, field)| field.as_ref().clone().with_name(format!("c{number}"))).collect()
}

/// Everything that planning decided.
struct Shape {
    keys: [Vec<usize>; 2],
    /// The time that a row of `left` asks for; none: its event time.
    at: Option<Expression>,
    kind: JoinKind,
    keep_ms: i64,
    /// The columns of `left`.
    left: Fields,
    /// The columns of `right` that are added.
    added: Vec<usize>,
    /// Their fields in state.
    version: Fields,
    schema: SchemaRef,
}

impl Shape {
    /// A row that waits: its event time, then its columns.
    fn waiting_fields(&self) -> Fields {
        let time = Arc::new(Field::new("time", DataType::Int64, false));
        std::iter::once(time).chain(plain_fields(self.left.iter()).iter().cloned()).collect()
    }

    fn states(&self) -> Vec<StateDescriptor> {
        let map = |name: &str, value_type: DataType| StateDescriptor {
            name: name.into(),
            kind: StateKind::OrderedMap,
            scope: StateScope::Keyed,
            map_key_type: Some(DataType::Int64),
            value_type,
            version: 1,
            ttl: None,
        };
        let rows = Field::new("item", DataType::Struct(self.waiting_fields()), false);
        // A version may have no column at all, so it has a marker.
        vec![map("versions", DataType::Struct(self.version_fields())), map("waiting", DataType::List(Arc::new(rows)))]
    }

    fn declared(&self) -> Declared {
        let timer = |name: &str| TimerDescriptor { name: name.into(), clock: Clock::EventTime };
        Declared::new(self.states(), vec![timer("join"), timer("prune")])
    }

    fn version_fields(&self) -> Fields {
        std::iter::once(Arc::new(Field::new("is", DataType::Boolean, false))).chain(self.version.iter().cloned()).collect()
    }

    /// When the version at `time` makes older ones useless: rows still to come ask for later times than W − keep.
    fn prune_at(&self, time: i64) -> i64 {
        time.saturating_add(self.keep_ms)
    }
}

struct TemporalJoinPlan {
    outputs: [(String, StreamType); 1],
    shape: Arc<Shape>,
}

#[async_trait]
impl OperatorPlan for TemporalJoinPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        let at = self.shape.at.as_ref().map_or_else(|| "its event time".to_owned(), ToString::to_string);
        let keep = DurationMs::from_ms(self.shape.keep_ms);
        vec![
            format!("joins each row of left with the latest version of right at {at}"),
            format!("keeps versions {keep} behind the watermark"),
        ]
    }

    fn reads(&self, input: usize) -> Option<Vec<usize>> {
        let more: &[usize] = if input == LEFT { self.shape.at.as_ref().map_or(&[], Expression::columns) } else { &self.shape.added };
        let mut columns: Vec<usize> = self.shape.keys[input].iter().chain(more).copied().collect();
        columns.sort_unstable();
        columns.dedup();
        Some(columns)
    }

    fn keeps(&self, _output: usize) -> Option<usize> {
        Some(LEFT)
    }

    async fn create(&self, context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        let store = open_store(&context, self.shape.declared()).await?;
        Ok(Box::new(TemporalJoinRun { shape: Arc::clone(&self.shape), store, metrics: Arc::clone(&context.metrics), has_more: false }))
    }

    fn declared(&self) -> Option<Declared> {
        Some(self.shape.declared())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct TemporalJoinRun {
    shape: Arc<Shape>,
    store: KeyedStore,
    metrics: Arc<OperatorMetrics>,
    has_more: bool,
}

/// Rows of `left` that can be joined, and where their key is.
struct Ready {
    rows: Batch,
    /// The number of each row's key.
    keys: Vec<u32>,
    /// The time each asks for.
    at: Vec<i64>,
}

impl TemporalJoinRun {
    fn resolve(&mut self, input: usize, batch: &Batch) -> Result<KeySet, OperatorError> {
        let columns: Vec<ArrayRef> = self.shape.keys[input].iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let keys = encode_keys(&columns, batch.num_rows());
        let keys = keys.map_err(|error| OperatorError::internal("a key column is of another type than planned").because(error))?;
        self.store.resolve(keys).map_err(state_error)
    }

    /// Remembers versions.
    fn on_right(&mut self, batch: &Batch, now: Moment) -> Result<(), OperatorError> {
        let late = now.watermark.map_or(0, |watermark| times_of(batch).iter().filter(|&&time| time <= watermark.0).count());
        if late > 0 {
            self.metrics.rows_late.add(late as u64);
        }
        // A scratch output takes the late rows, which have no stream of their type.
        let Some(batch) = without_late(batch.clone(), now.watermark.map(|watermark| watermark.0), &mut Output::default()) else {
            return Ok(());
        };
        let set = self.resolve(RIGHT, &batch)?;
        let times = times_of(&batch);
        let keys = keys_of_rows(&set, batch.num_rows());
        let marker: ArrayRef = Arc::new(BooleanArray::from(vec![true; batch.num_rows()]));
        let columns = std::iter::once(marker).chain(self.shape.added.iter().map(|&column| Arc::clone(batch.column(column)))).collect();
        let versions: ArrayRef = Arc::new(StructArray::new(self.shape.version_fields(), columns, None));
        let prune_at = times.iter().map(|&time| self.shape.prune_at(time)).collect();
        let updates = Updates {
            maps: vec![MapUpdate {
                state: VERSIONS,
                keys: keys.clone(),
                map_keys: Arc::new(Int64Array::new(times.clone(), None)),
                values: versions,
                deleted: BooleanBuffer::new_unset(batch.num_rows()),
            }],
            timers: vec![TimerUpdate { timer: PRUNE, keys, at: prune_at, deleted: BooleanBuffer::new_unset(batch.num_rows()) }],
            ..Updates::default()
        };
        self.store.apply(&set, &updates, None, state_moment(now)).map_err(state_error)
    }

    /// Joins the rows for which all versions are known; the others wait.
    fn on_left(&mut self, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let watermark = now.watermark.map(|watermark| watermark.0);
        let Some(batch) = without_late(batch, watermark, out) else { return Ok(()) };
        let Some((batch, at)) = self.times_asked(batch, watermark, out)? else { return Ok(()) };
        let set = self.resolve(LEFT, &batch)?;
        let keys = keys_of_rows(&set, batch.num_rows());
        let is_known = |&row: &u32| watermark.is_some_and(|watermark| at[row as usize] <= watermark);
        let (known, waits): (Vec<u32>, Vec<u32>) = (0..batch.num_rows() as u32).partition(is_known);
        let choose = |rows: &[u32]| Ready {
            rows: batch.take(rows),
            keys: rows.iter().map(|&row| keys[row as usize]).collect(),
            at: rows.iter().map(|&row| at[row as usize]).collect(),
        };
        if !waits.is_empty() {
            self.wait(&set, choose(&waits), now)?;
        }
        if known.is_empty() { Ok(()) } else { self.join(&set, choose(&known), now, out) }
    }

    /// The time each row asks for; rows without one are rejected, those that ask for a time before the versions that are kept are late.
    fn times_asked(
        &self,
        batch: Batch,
        watermark: Option<i64>,
        out: &mut Output,
    ) -> Result<Option<(Batch, ScalarBuffer<i64>)>, OperatorError> {
        let Some(expression) = &self.shape.at else {
            let times = times_of(&batch).clone();
            return Ok(Some((batch, times)));
        };
        let evaluated = expression.evaluate_rows(batch.columns());
        let at = event_time::to_ms(&evaluated.values)?;
        let too_old = watermark.map_or(i64::MIN, |watermark| watermark.saturating_sub(self.shape.keep_ms));
        let (mut kept, mut late) = (Vec::new(), Vec::new());
        for (row, &time) in at.iter().enumerate() {
            if evaluated.values.is_null(row) || !EventTime(time).is_supported() {
                let failed = evaluated.failed.iter().find(|failed| failed.row == row);
                let reason = failed.map_or_else(|| format!("`{expression}` gives no time"), |failed| failed.reason.clone());
                out.reject(Rejection::of_row(&batch, row, expression.columns(), reason));
            } else if time <= too_old && time <= watermark.unwrap_or(i64::MIN) {
                late.push(row as u32);
            } else {
                kept.push(row as u32);
            }
        }
        if kept.len() == batch.num_rows() {
            return Ok(Some((batch, at)));
        }
        out.emit_late(batch.take(&late));
        let at = kept.iter().map(|&row| at[row as usize]).collect();
        Ok((!kept.is_empty()).then(|| (batch.take(&kept), at)))
    }

    /// Adds rows to those that wait for the same time.
    fn wait(&mut self, set: &KeySet, ready: Ready, now: Moment) -> Result<(), OperatorError> {
        let mut places: Vec<(u32, i64)> = ready.keys.iter().copied().zip(ready.at.iter().copied()).collect();
        places.sort_unstable();
        places.dedup();
        let place_of =
            |row: usize| places.binary_search(&(ready.keys[row], ready.at[row])).expect("every row's place is in the list") as u32;
        let place_of_row: Vec<u32> = (0..ready.keys.len()).map(place_of).collect();
        let (keys, at): (Vec<u32>, Vec<i64>) = places.iter().copied().unzip();
        let map_keys: ArrayRef = Arc::new(Int64Array::from(at.clone()));
        let before = self.store.map_get(WAITING, set, &keys, &map_keys, state_moment(now)).map_err(state_error)?;
        let times: ArrayRef = Arc::new(Int64Array::new(times_of(&ready.rows).clone(), None));
        let columns = std::iter::once(times).chain(ready.rows.columns().columns().iter().cloned()).collect();
        let rows: ArrayRef = Arc::new(StructArray::new(self.shape.waiting_fields(), columns, None));
        let waiting = Collect::append(&before, &rows, &place_of_row);
        let deleted = BooleanBuffer::new_unset(keys.len());
        let updates = Updates {
            maps: vec![MapUpdate { state: WAITING, keys: keys.clone(), map_keys, values: waiting, deleted: deleted.clone() }],
            timers: vec![TimerUpdate { timer: JOIN, keys, at, deleted }],
            ..Updates::default()
        };
        self.store.apply(set, &updates, None, state_moment(now)).map_err(state_error)
    }

    /// Emits rows with the version valid at the time they ask for.
    fn join(&mut self, set: &KeySet, ready: Ready, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let (versions, found) = self.versions_at(set, &ready.keys, &ready.at, now)?;
        let (mut rows, mut found) = (ready.rows, found);
        if self.shape.kind == JoinKind::Inner && found.null_count() > 0 {
            let matched: BooleanArray = (0..found.len()).map(|row| Some(found.is_valid(row))).collect();
            found = found.iter().flatten().collect();
            match keep(rows, &matched) {
                Some(kept) => rows = kept,
                None => return Ok(()),
            }
        }
        let mut columns = rows.columns().columns().to_vec();
        columns.extend(versions.columns()[1..].iter().map(|column| take_or_null(column, &found)));
        let joined = rows.with_columns(Arc::clone(&self.shape.schema), columns);
        out.emit(0, joined.map_err(|error| OperatorError::internal("joined rows are not of the planned schema").because(error))?);
        Ok(())
    }

    /// Versions, and for each (key, time) which of them is the latest at or before it.
    fn versions_at(&mut self, set: &KeySet, keys: &[u32], at: &[i64], now: Moment) -> Result<(StructArray, UInt32Array), OperatorError> {
        let span =
            |(&key, &at): (&u32, &i64)| Span { key, after: None, before: Some(one(at.saturating_add(1))), newest_first: true, limit: 1 };
        let mut spans: Vec<Span> = keys.iter().zip(at).map(span).collect();
        let mut found: Vec<Option<u32>> = vec![None; spans.len()];
        let mut parts: Vec<ArrayRef> = Vec::new();
        let (mut first_span, mut count) = (0, 0);
        loop {
            let part = self.store.scan(VERSIONS, set, &spans, SCAN_BYTES, state_moment(now)).map_err(state_error)?;
            for &span in &part.of_span {
                found[first_span + span as usize] = Some(count);
                count += 1;
            }
            let last = part.of_span.last().copied();
            parts.push(part.values);
            match last.filter(|_| part.truncated) {
                Some(last) => {
                    first_span += last as usize + 1;
                    spans.drain(..=last as usize);
                }
                None => break,
            }
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let versions = arrow_select::concat::concat(&parts).expect("versions are of one type");
        Ok((versions.as_struct().clone(), found.into_iter().collect()))
    }

    /// Handles due timers: a portion.
    fn fire(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = false;
        let Some(watermark) = now.watermark else { return Ok(()) };
        let Some(due) = self.store.due(Clock::EventTime, watermark.0, PORTION).map_err(state_error)? else { return Ok(()) };
        // There may be more timers of these keys.
        self.has_more = true;
        let of =
            |timer: usize| -> Vec<u32> { (0..due.len() as u32).filter(|&number| due.timer[number as usize] as usize == timer).collect() };
        let (joins, prunes) = (of(JOIN), of(PRUNE));
        let mut maps = Vec::new();
        if !joins.is_empty() {
            maps.push(self.join_waiting(&due, joins, now, out)?);
        }
        if !prunes.is_empty() {
            maps.push(self.prune(&due, &prunes, now)?);
        }
        let updates = Updates { maps, ..Updates::default() };
        self.store.apply(&due.keys, &updates, Some(&due), state_moment(now)).map_err(state_error)
    }

    /// Joins the rows that wait for these timers; what is to be forgotten then.
    fn join_waiting(&mut self, due: &DueTimers, timers: Vec<u32>, now: Moment, out: &mut Output) -> Result<MapUpdate, OperatorError> {
        let at: Vec<i64> = timers.iter().map(|&timer| due.at[timer as usize]).collect();
        let map_keys: ArrayRef = Arc::new(Int64Array::from(at.clone()));
        let lists = self.store.map_get(WAITING, &due.keys, &timers, &map_keys, state_moment(now)).map_err(state_error)?;
        let (items, list_of_item) = items_of(lists.as_list());
        let items = items.as_struct();
        let times = items.column(0).as_primitive::<Int64Type>().values().clone();
        let schema = Arc::new(Schema::new(self.shape.left.clone()));
        let rows = Batch::try_new(schema, items.columns()[1..].to_vec(), items.len());
        let rows = rows.map_err(|error| OperatorError::internal("rows that waited are not of the planned schema").because(error))?;
        let ready = Ready {
            rows: rows.with_event_times(Some(times)),
            keys: list_of_item.iter().map(|&list| timers[list as usize]).collect(),
            at: list_of_item.iter().map(|&list| at[list as usize]).collect(),
        };
        if ready.rows.num_rows() > 0 {
            self.join(&due.keys, ready, now, out)?;
        }
        Ok(self.deletions(WAITING, timers, map_keys))
    }

    /// Finds the versions before those of these timers.
    fn prune(&mut self, due: &DueTimers, timers: &[u32], now: Moment) -> Result<MapUpdate, OperatorError> {
        let (mut keys, mut times) = (Vec::new(), Vec::new());
        for &timer in timers {
            let newer = due.at[timer as usize].saturating_sub(self.shape.keep_ms);
            let mut after: Option<ArrayRef> = None;
            loop {
                let span = Span { key: timer, after: after.clone(), before: Some(one(newer)), newest_first: false, limit: u32::MAX };
                let found = self.store.scan(VERSIONS, &due.keys, &[span], SCAN_BYTES, state_moment(now)).map_err(state_error)?;
                let found_times = found.map_keys.as_primitive::<Int64Type>();
                keys.resize(keys.len() + found_times.len(), timer);
                times.extend_from_slice(found_times.values());
                if !found.truncated {
                    break;
                }
                after = times.last().copied().map(one);
            }
        }
        Ok(self.deletions(VERSIONS, keys, Arc::new(Int64Array::from(times))))
    }

    fn deletions(&self, state: usize, keys: Vec<u32>, map_keys: ArrayRef) -> MapUpdate {
        let values = new_null_array(&self.store.states()[state].value_type, keys.len());
        MapUpdate { state, deleted: BooleanBuffer::new_set(keys.len()), keys, map_keys, values }
    }
}

fn times_of(batch: &Batch) -> &ScalarBuffer<i64> {
    batch.event_times().expect("temporal joins are planned only on streams with event time")
}

fn keys_of_rows(set: &KeySet, rows: usize) -> Vec<u32> {
    set.of_row().map_or_else(|| (0..rows as u32).collect(), |of_row| of_row.to_vec())
}

fn one(time: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![time]))
}

#[async_trait]
impl Operator for TemporalJoinRun {
    async fn on_batch(&mut self, input: usize, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        if input == RIGHT { self.on_right(&batch, now) } else { self.on_left(batch, now, out) }
    }

    async fn on_watermark(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.fire(now, out)
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        work(&mut self.store);
    }

    async fn on_end(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.fire(now, out)
    }
}

#[cfg(test)]
mod tests;
