//! What goes into a call and what comes out of it, as the plan of a version puts it together. Whoever has an [`Answer`] has checked all of it, and
//! nothing of it was applied: that is [`super::call`]'s, which also compares two answers where a version is on trial.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use arrow_schema::Schema;
use millstream_model::{
    Batch, EventTime,
    key::{KeyHashes, encode_keys},
    state::{Clock, StateKind},
};
use millstream_state::KeySet;
use millstream_wasm::{CallKeys, From, Rejected, RowNotes, Rows, Turn, TurnOutput, Updates};

use super::{
    call::Timers,
    layout::{ColumnFrom, OutputLayout},
    plan::ComponentOperatorPlan,
};
use crate::{
    operator::{Moment, OperatorError},
    rejected::Rejection,
};

/// What a guest is given in one call, and where its answer goes.
pub(super) enum Asked<'a> {
    /// Rows of an input; the keys are none where nothing is remembered.
    Rows { port: usize, batch: &'a Batch, keys: Option<Arc<KeySet>> },
    /// Timers that are due.
    Timers(&'a Timers),
}

/// What a version answers to a call, put together and not applied.
pub(super) struct Answer {
    pub(super) outputs: Vec<Given>,
    pub(super) updates: Updates,
    pub(super) rejected: Vec<Rejected>,
}

/// Rows for one output.
pub(super) struct Given {
    pub(super) port: usize,
    pub(super) batch: Batch,
    /// The rows or timers that they come from.
    pub(super) from: From,
}

impl Asked<'_> {
    /// Number of rows or timers.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rows { batch, .. } => batch.num_rows(),
            Self::Timers(timers) => timers.due.len(),
        }
    }

    /// The distinct keys; none: nothing is remembered.
    pub(super) fn keys(&self) -> Option<&KeySet> {
        match self {
            Self::Rows { keys, .. } => keys.as_deref(),
            Self::Timers(timers) => Some(&timers.due.keys),
        }
    }

    /// What the log of a guest says of these rows.
    pub(super) fn notes(&self) -> RowNotes {
        match self {
            Self::Rows { batch, keys, .. } => RowNotes {
                keys: keys.clone().map(|keys| keys as Arc<dyn KeyHashes>),
                event_times: batch.event_times().cloned(),
                origin: batch.origin().cloned(),
            },
            Self::Timers(Timers { due, .. }) => {
                RowNotes { keys: Some(Arc::new(due.keys.clone())), event_times: Some(due.at.clone().into()), origin: None }
            }
        }
    }

    /// Where the sizes of such calls are measured.
    pub(super) fn size_number(&self, plan: &ComponentOperatorPlan) -> usize {
        match self {
            Self::Rows { port, .. } => *port,
            Self::Timers(_) => plan.inputs.len(),
        }
    }
}

impl Timers {
    /// What the guest is given; `numbers`: of the timers, as its plan counts them.
    pub(super) fn call(&self, numbers: Vec<u32>, values: Option<CallKeys>) -> millstream_wasm::DueTimers {
        millstream_wasm::DueTimers {
            length: self.due.len() as u32,
            timer: numbers.into(),
            at: self.due.at.iter().copied().collect(),
            keys: values.unwrap_or_else(|| CallKeys { length: self.due.len() as u32, of_row: None, values: Vec::new() }),
            key_columns: self.keys.columns().columns().to_vec(),
        }
    }

    /// The event times of rows that come from the timers.
    fn times(&self, now: Moment) -> ScalarBuffer<i64> {
        match self.clock {
            Clock::EventTime => self.due.at.iter().map(|&at| supported(at)).collect(),
            Clock::ProcessingTime => std::iter::repeat_n(time_without_row(now), self.due.len()).collect(),
        }
    }
}

impl ComponentOperatorPlan {
    /// The rows as the guest gets them.
    pub(super) fn rows(&self, port: usize, batch: &Batch, keys: Option<CallKeys>) -> Result<Rows, OperatorError> {
        Ok(Rows {
            length: batch.num_rows() as u32,
            columns: self.columns_read(port, batch)?,
            event_times: if self.guest.inputs[port].event_times { batch.event_times().cloned() } else { None },
            changes: batch.changes().cloned(),
            keys,
        })
    }

    /// The answer of the guest, with whole rows.
    pub(super) fn answer(&self, asked: &Asked<'_>, turn: Turn, now: Moment) -> Result<Answer, OperatorError> {
        let Turn { outputs, updates, rejected } = turn;
        let outputs = match asked {
            Asked::Rows { port, batch, .. } => {
                outputs.into_iter().map(|output| self.output_of_rows(*port, batch, output, now)).collect::<Result<_, _>>()?
            }
            Asked::Timers(timers) => {
                let times = timers.times(now);
                outputs.into_iter().map(|output| self.output_of_timers(&times, output, now)).collect::<Result<_, _>>()?
            }
        };
        Ok(Answer { outputs, updates, rejected })
    }

    fn columns_read(&self, port: usize, batch: &Batch) -> Result<Vec<ArrayRef>, OperatorError> {
        let input = &self.inputs[port];
        let read = |(&column, cast): (&usize, &Option<arrow_schema::DataType>)| match cast {
            None => Ok(batch.column(column).clone()),
            Some(data_type) => arrow_cast::cast(batch.column(column), data_type)
                .map_err(|error| OperatorError::internal("a column cannot be read as the component reads it").because(error)),
        };
        input.reads.iter().zip(&input.casts).map(read).collect()
    }

    fn output_of_rows(&self, port: usize, batch: &Batch, output: TurnOutput, now: Moment) -> Result<Given, OperatorError> {
        let layout = &self.layouts[output.port as usize];
        let from = simplified(output.from, batch.num_rows());
        let base = match &layout.kept {
            Some(kept) if kept.input == port => {
                let kept_columns = if kept.is_whole_input { batch.clone() } else { batch.project(&kept.columns) };
                match &from {
                    From::Identity => kept_columns,
                    From::Rows(rows) => kept_columns.take(rows),
                    // What keeps columns and comes from no rows has none: `millstream_wasm` refuses anything else.
                    From::None => kept_columns.slice(0..0),
                }
            }
            _ => unkept(batch, &from, output.length),
        };
        let times = output.event_times.or_else(|| base.event_times().cloned());
        let changes = if layout.changes { output.changes.or_else(|| base.changes().cloned()) } else { None };
        let batch = finish(layout, base, output.columns, times, changes, now)?;
        Ok(Given { port: output.port as usize, batch, from })
    }

    fn output_of_timers(&self, times: &ScalarBuffer<i64>, output: TurnOutput, now: Moment) -> Result<Given, OperatorError> {
        let layout = &self.layouts[output.port as usize];
        let inherited = || match &output.from {
            From::Identity => Some(times.clone()),
            From::Rows(timers) => Some(timers.iter().map(|&timer| times[timer as usize]).collect()),
            From::None => None,
        };
        let times = output.event_times.clone().or_else(inherited);
        let changes = output.changes.clone().filter(|_| layout.changes);
        let base = without_columns(output.length);
        let batch = finish(layout, base, output.columns, times, changes, now)?;
        Ok(Given { port: output.port as usize, batch, from: output.from })
    }

    pub(super) fn rejection(&self, port: usize, batch: &Batch, row: usize, keys: Option<&KeySet>, reason: String) -> Rejection {
        let input = &self.inputs[port];
        let key_hash = match (keys, &input.keys) {
            (Some(keys), _) => Some(keys.hash(keys.of_row().map_or(row, |of_row| of_row[row] as usize))),
            (None, Some(columns)) => {
                let columns: Vec<ArrayRef> = columns.iter().map(|&column| batch.column(column).slice(row, 1)).collect();
                encode_keys(&columns, 1).ok().map(|keys| keys.hashes()[0])
            }
            (None, None) => None,
        };
        Rejection { version: self.version(), key_hash, ..Rejection::of_row(batch, row, &input.reads, reason) }
    }

    pub(super) fn timer_rejection(&self, timers: &Timers, number: usize, reason: String) -> Rejection {
        let name = &self.guest.timers[timers.due.timer[number] as usize].name;
        let key: Vec<usize> = (0..timers.keys.columns().num_columns()).collect();
        Rejection {
            version: self.version(),
            key_hash: Some(timers.due.keys.hash(number)),
            event_time: Some(timers.due.at[number]),
            ..Rejection::of_row(&timers.keys, number, &key, format!("timer `{name}`: {reason}"))
        }
    }

    fn version(&self) -> Option<String> {
        Some(self.descriptor.version.clone())
    }

    /// Whether it keeps maps or lists, which are read during a call.
    pub(super) fn has_collections(&self) -> bool {
        self.guest.states.iter().any(|state| state.kind != StateKind::Value)
    }
}

/// Numbers that name every row in order are no selection.
fn simplified(from: From, rows: usize) -> From {
    match from {
        From::Rows(numbers) if numbers.len() == rows && numbers.iter().enumerate().all(|(row, &number)| row == number as usize) => {
            From::Identity
        }
        from => from,
    }
}

/// Event times and changes of the rows that output rows come from, without columns.
fn unkept(batch: &Batch, from: &From, length: usize) -> Batch {
    let bare = || without_columns(batch.num_rows()).with_event_times(batch.event_times().cloned()).with_changes(batch.changes().cloned());
    match from {
        From::Identity => bare(),
        From::Rows(rows) => bare().take(rows),
        From::None => without_columns(length),
    }
}

fn without_columns(rows: usize) -> Batch {
    Batch::try_new(Arc::new(Schema::empty()), Vec::new(), rows).expect("no column contradicts a row count")
}

fn finish(
    layout: &OutputLayout,
    base: Batch,
    added: Vec<ArrayRef>,
    times: Option<ScalarBuffer<i64>>,
    changes: Option<ScalarBuffer<u8>>,
    now: Moment,
) -> Result<Batch, OperatorError> {
    let rows = base.num_rows();
    let times = layout.event_times.then(|| times.unwrap_or_else(|| std::iter::repeat_n(time_without_row(now), rows).collect()));
    let passes_whole = layout.kept.as_ref().is_some_and(|kept| kept.is_whole_input);
    if passes_whole {
        return Ok(base.with_event_times(times).with_changes(changes));
    }
    let column = |from: &ColumnFrom| match *from {
        ColumnFrom::Kept(column) => base.column(column).clone(),
        ColumnFrom::Added(column) => added[column].clone(),
    };
    let columns = layout.columns.iter().map(column).collect();
    let whole = base.with_columns(layout.schema.clone(), columns);
    let whole = whole.map_err(|error| OperatorError::internal("an output does not have the planned columns").because(error))?;
    Ok(whole.with_event_times(times).with_changes(changes))
}

/// The event time of rows that come from no row: the operator's watermark.
fn time_without_row(now: Moment) -> i64 {
    supported(now.watermark.map_or(i64::MIN, |watermark| watermark.0))
}

fn supported(time: i64) -> i64 {
    time.clamp(EventTime::EARLIEST.0, EventTime::LATEST.0)
}
