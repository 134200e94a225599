//! `assign-watermarks: { column: arrival, max-out-of-orderness: 20h }`: gives rows event times anew and makes watermarks from them, as a
//! source does. Rows behind the new watermark are late from here on.
//!
//! The watermark after the n-th usable row of a subtask, for n a multiple of 1,024, is max − bound − 1 over those n rows. It stands right
//! behind that row, inside a batch too, so how the rows are batched changes nothing. Watermarks of the input are not passed on, but for the end.

use std::any::Any;

use async_trait::async_trait;
use millstream_expr::Expression;
use millstream_model::{Batch, EventTime, StreamType, Watermark};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{OperatorSpec, PlanRequest, Planned, Problem};
use crate::{
    element::Barrier,
    event_time,
    graph::EventTimeFrom,
    operator::{Mark, Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output},
    spec::{DurationMs, suggest::unknown_column},
};

/// After how many rows a watermark is made.
const ROWS_PER_WATERMARK: u64 = 1_024;

/// Event times and watermarks made anew. With neither `column` nor `expression` the rows keep the event times they have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AssignWatermarks {
    /// A timestamp column (any unit), or an Int64 column of ms since epoch.
    column: Option<String>,
    /// An expression that gives such a value.
    expression: Option<String>,
    /// How much older than the newest row seen a row may be without being late.
    max_out_of_orderness: DurationMs,
}

#[async_trait]
impl OperatorSpec for AssignWatermarks {
    const KEY: &'static str = "assign-watermarks";

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let input = &request.inputs[0];
        let from = self.from(input).map_err(|problem| vec![problem])?;
        let output = StreamType { event_times: true, ..input.clone() };
        let bound_ms = self.max_out_of_orderness.as_ms();
        Ok(Planned::new(AssignWatermarksPlan { outputs: [(super::OUTPUT.into(), output)], from, bound_ms }))
    }
}

impl AssignWatermarks {
    fn from(&self, input: &StreamType) -> Result<EventTimeFrom, Problem> {
        match (&self.column, &self.expression) {
            (Some(_), Some(_)) => Err(Problem::at("expression", "event time comes from `column` or from `expression`, not from both")),
            (Some(name), None) => {
                let column = input.schema.index_of(name).map_err(|_| unknown_column("column", name, &input.schema))?;
                let checked = event_time::check_type(input.schema.field(column).data_type());
                checked.map(|()| EventTimeFrom::Column(column)).map_err(|message| Problem::at("column", message))
            }
            (None, Some(text)) => {
                let expression = Expression::parse(text, &input.schema).map_err(|error| Problem::in_expression("expression", error))?;
                let checked = event_time::check_type(expression.data_type());
                checked.map(|()| EventTimeFrom::Expression(expression)).map_err(|message| Problem::at("expression", message))
            }
            (None, None) if input.event_times => Ok(EventTimeFrom::Source),
            (None, None) => Err(Problem::at("", "the input has no event times").help("say where they come from: `column` or `expression`")),
        }
    }
}

struct AssignWatermarksPlan {
    outputs: [(String, StreamType); 1],
    from: EventTimeFrom,
    bound_ms: i64,
}

impl AssignWatermarksPlan {
    fn columns(&self) -> Vec<usize> {
        match &self.from {
            EventTimeFrom::Source => Vec::new(),
            EventTimeFrom::Column(column) => vec![*column],
            EventTimeFrom::Expression(expression) => expression.columns().to_vec(),
        }
    }
}

#[async_trait]
impl OperatorPlan for AssignWatermarksPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        let from = match &self.from {
            EventTimeFrom::Source => "as it was".to_owned(),
            EventTimeFrom::Column(column) => self.outputs[0].1.schema.field(*column).name().clone(),
            EventTimeFrom::Expression(expression) => expression.to_string(),
        };
        vec![format!("event time = {from}, watermark = max − {} − 1 ms", DurationMs::from_ms(self.bound_ms))]
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        Some(self.columns())
    }

    fn keeps(&self, _output: usize) -> Option<usize> {
        Some(0)
    }

    fn makes_time(&self) -> bool {
        true
    }

    fn uses_watermarks(&self) -> bool {
        false
    }

    fn holds_rows(&self) -> bool {
        false
    }

    async fn create(&self, context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        let seen = context.restored.as_ref().map_or(Ok(Seen::default()), |restored| Seen::restore(&restored.values, &context))?;
        Ok(Box::new(AssignWatermarksRun { from: self.from.clone(), bound_ms: self.bound_ms, shown: self.columns(), seen }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct AssignWatermarksRun {
    from: EventTimeFrom,
    bound_ms: i64,
    /// The columns that show a rejected row.
    shown: Vec<usize>,
    seen: Seen,
}

/// What watermarks are made from; a checkpoint remembers it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Seen {
    /// Rows seen.
    rows: u64,
    /// The latest event time of these rows.
    max_seen: Option<EventTime>,
}

impl Seen {
    /// What this subtask, or with another parallelism the one that was least far, had seen: a watermark may come later, never too early.
    fn restore(remembered: &[Value], context: &OperatorContext) -> Result<Self, OperatorError> {
        let all = remembered.iter().map(|value| serde_json::from_value(value.clone())).collect::<Result<Vec<Self>, _>>();
        let all = all.map_err(|error| OperatorError::internal("what a checkpoint remembers of watermarks is damaged").because(error))?;
        if all.len() == context.parallelism as usize {
            return Ok(all[context.subtask.0 as usize]);
        }
        Ok(all.into_iter().min_by_key(|seen| seen.max_seen).unwrap_or_default())
    }

    /// Takes note of the next rows: the watermarks between them.
    fn see(&mut self, times: &[i64], bound_ms: i64) -> Vec<Mark> {
        let (mut marks, mut start) = (Vec::new(), 0);
        while start < times.len() {
            let until_mark = (ROWS_PER_WATERMARK - self.rows % ROWS_PER_WATERMARK) as usize;
            let end = times.len().min(start + until_mark);
            self.max_seen = self.max_seen.max(times[start..end].iter().copied().max().map(EventTime));
            self.rows += (end - start) as u64;
            if self.rows.is_multiple_of(ROWS_PER_WATERMARK)
                && let Some(max_seen) = self.max_seen
            {
                marks.push(Mark { rows: end, watermark: Watermark::after(max_seen, bound_ms) });
            }
            start = end;
        }
        marks
    }
}

#[async_trait]
impl Operator for AssignWatermarksRun {
    async fn on_batch(&mut self, _input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let mut rejections = Vec::new();
        let batch = event_time::assign(batch, &self.from, &self.shown, &mut rejections)?;
        rejections.into_iter().for_each(|rejection| out.reject(rejection));
        let marks = self.seen.see(batch.event_times().map_or(&[][..], |times| times), self.bound_ms);
        out.emit_marked(0, batch, marks);
        Ok(())
    }

    async fn on_barrier(&mut self, _barrier: Barrier) -> Result<Value, OperatorError> {
        serde_json::to_value(self.seen).map_err(|error| OperatorError::internal("numbers that are not JSON").because(error))
    }

    fn output_watermark(&self, merged: Watermark) -> Option<Watermark> {
        (merged == Watermark::MAX).then_some(merged)
    }
}
