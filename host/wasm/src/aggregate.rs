//! An instance of a user aggregate: accumulators are values that travel with the batch; null is a new one.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, FieldRef, Fields};

use crate::{
    agree::{self, TextField},
    bindings::{exports::millstream::operator::aggregate as raw, millstream::operator::columns::ColumnResult},
    component::Shared,
    error::{Error, Failure},
    guest::InstanceContext,
    instance::Instance,
    lift,
    limits::Call,
    log::printable,
    lower::{self, Lowered},
    meter::metered,
    operator::settings_text,
    plan::{AggregateDescriptor, AggregatePlan},
    turn::CallStats,
    verify::Refusal,
};

/// One instance of an aggregate component. Owned by one subtask; calls never overlap. Spent after a failure, as an operator's.
pub struct AggregateInstance {
    instance: Instance,
    guest: raw::Guest,
    plan: Option<Arc<AggregatePlan>>,
}

/// Rows to accumulate.
#[derive(Clone, Debug)]
pub struct GroupedRows {
    /// Number of rows.
    pub length: u32,
    /// The columns that the plan reads, in its order.
    pub columns: Vec<ArrayRef>,
    /// The group of each row.
    pub group_of_row: ScalarBuffer<u32>,
    /// Number of groups.
    pub groups: u32,
}

impl AggregateInstance {
    pub(crate) async fn new(shared: Arc<Shared>, indices: &raw::GuestIndices, context: InstanceContext) -> Result<Self, Error> {
        let (mut instance, made) = Instance::new(shared, context).await?;
        let guest = indices.load(&mut instance.store, &made).expect("the exports were looked up in the same component");
        Ok(Self { instance, guest, plan: None })
    }

    /// What the component says of itself.
    ///
    /// # Errors
    /// The guest fails, or the answer is no description.
    pub async fn describe(&mut self) -> Result<AggregateDescriptor, Error> {
        let running = self.instance.begin(Call::Describe)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_describe(&mut self.instance.store)).await;
        drop(running);
        let answer = self.instance.end(Call::Describe, answer, busy)?;
        agree::aggregate_descriptor(answer).map_err(|reason| self.bad_plan(Call::Describe, reason))
    }

    /// What it will read and return, given these settings and columns.
    ///
    /// # Errors
    /// `Declined`: settings or columns do not suit it. `BadPlan`: its plan does not fit. Otherwise the call failed.
    pub async fn plan(&mut self, settings: &serde_json::Value, fields: &Fields) -> Result<AggregatePlan, Error> {
        let texts = agree::text_fields(fields, 0)?;
        let params: Vec<_> = texts.iter().map(TextField::param).collect();
        let settings = settings_text(settings);
        let running = self.instance.begin(Call::Plan)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_plan(&mut self.instance.store, &settings, &params)).await;
        drop(running);
        let answer = self.instance.end(Call::Plan, answer, busy)?;
        let signature = answer.map_err(|message| self.declined(Call::Plan, &message))?;
        agree::aggregate_plan(signature, fields).map_err(|reason| self.bad_plan(Call::Plan, reason))
    }

    /// Makes the instance ready for rows.
    ///
    /// # Errors
    /// `Declined`: the guest says no. Otherwise the call failed.
    pub async fn open(&mut self, settings: &serde_json::Value, plan: Arc<AggregatePlan>) -> Result<(), Error> {
        let texts = agree::text_fields(&plan.reads, 0)?;
        let params: Vec<_> = texts.iter().map(TextField::param).collect();
        let settings = settings_text(settings);
        let running = self.instance.begin(Call::Open)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_open(&mut self.instance.store, &settings, &params)).await;
        drop(running);
        let answer = self.instance.end(Call::Open, answer, busy)?;
        answer.map_err(|message| self.declined(Call::Open, &message))?;
        self.plan = Some(plan);
        Ok(())
    }

    /// The accumulators (one per group, null = new) after these rows.
    ///
    /// # Errors
    /// The call failed, or its answer has the wrong type or length.
    ///
    /// # Panics
    /// The instance is not open, or the columns are not those that the plan reads.
    pub async fn accumulate(&mut self, rows: GroupedRows, accumulators: ArrayRef) -> Result<ArrayRef, Failure> {
        let plan = self.opened();
        assert_eq!(rows.columns.len(), plan.reads.len(), "the columns that the plan reads");
        let lowered = Lowered::of(rows.columns.iter().chain([&accumulators]));
        let groups = lower::bytes(Some(&rows.group_of_row));
        self.instance.lowering(Call::Accumulate, lowered.bytes() + groups.len() as u64)?;
        let slices = lowered.slices();
        let mut columns = lowered.params(&slices);
        let accumulators = columns.pop().expect("the accumulators were put last");
        let batch = raw::Batch { length: rows.length, columns: &columns, group_of_row: groups, groups: rows.groups };
        let running = self.instance.begin(Call::Accumulate)?;
        let (answer, busy) =
            metered(&self.instance.meter(), self.guest.call_accumulate(&mut self.instance.store, batch, accumulators)).await;
        drop(running);
        let answer = self.instance.end(Call::Accumulate, answer, busy)?;
        self.answer(Call::Accumulate, answer, &Answer::accumulators(&plan, rows.groups as usize))
    }

    /// The accumulators `into` after `other[i]` was merged into `into[into_of_other[i]]`.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    ///
    /// # Panics
    /// The instance is not open.
    pub async fn merge(&mut self, into: ArrayRef, other: ArrayRef, into_of_other: ScalarBuffer<u32>) -> Result<ArrayRef, Failure> {
        let plan = self.opened();
        let lowered = Lowered::of([&into, &other]);
        let places = lower::bytes(Some(&into_of_other));
        self.instance.lowering(Call::Merge, lowered.bytes() + places.len() as u64)?;
        let slices = lowered.slices();
        let mut columns = lowered.params(&slices);
        let (other, first) = (columns.pop().expect("two were put"), columns.pop().expect("two were put"));
        let running = self.instance.begin(Call::Merge)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_merge(&mut self.instance.store, first, other, places)).await;
        drop(running);
        let answer = self.instance.end(Call::Merge, answer, busy)?;
        self.answer(Call::Merge, answer, &Answer::accumulators(&plan, into.len()))
    }

    /// The result of each accumulator.
    ///
    /// # Errors
    /// As [`Self::accumulate`].
    ///
    /// # Panics
    /// The instance is not open.
    pub async fn finish(&mut self, accumulators: ArrayRef) -> Result<ArrayRef, Failure> {
        let plan = self.opened();
        let lowered = Lowered::of([&accumulators]);
        self.instance.lowering(Call::Finish, lowered.bytes())?;
        let slices = lowered.slices();
        let column = lowered.params(&slices).pop().expect("one was put");
        let running = self.instance.begin(Call::Finish)?;
        let (answer, busy) = metered(&self.instance.meter(), self.guest.call_finish(&mut self.instance.store, column)).await;
        drop(running);
        let answer = self.instance.end(Call::Finish, answer, busy)?;
        self.answer(Call::Finish, answer, &Answer::result(&plan.output, accumulators.len()))
    }

    /// What the last call cost.
    pub fn last_call(&self) -> CallStats {
        self.instance.stats()
    }

    fn opened(&self) -> Arc<AggregatePlan> {
        self.plan.clone().expect("an instance is opened before it is given rows")
    }

    fn answer(&mut self, call: Call, answer: Result<ColumnResult, String>, wanted: &Answer<'_>) -> Result<ArrayRef, Failure> {
        let column = answer.map_err(|message| self.instance.gave_up(call, Failure::Fatal(message)))?;
        let lifted_bytes = lift::column_bytes(&column);
        match wanted.check(column) {
            Ok(column) => {
                self.instance.accepted(lifted_bytes);
                // Whoever called holds the accumulators from here on.
                self.instance.applied();
                Ok(column)
            }
            Err(reason) => Err(self.instance.refused(call, Refusal::Contract(reason))),
        }
    }

    fn declined(&self, call: Call, message: &str) -> Error {
        Error::Declined { site: self.instance.site(call), message: printable(message) }
    }

    fn bad_plan(&self, call: Call, reason: String) -> Error {
        Error::BadPlan { site: self.instance.site(call), reason: printable(&reason) }
    }
}

/// What a call must answer.
struct Answer<'a> {
    name: &'a str,
    data_type: &'a DataType,
    nullable: bool,
    length: usize,
}

impl<'a> Answer<'a> {
    fn accumulators(plan: &'a AggregatePlan, length: usize) -> Self {
        Self { name: "accumulators", data_type: &plan.accumulator_type, nullable: true, length }
    }

    fn result(output: &'a FieldRef, length: usize) -> Self {
        Self { name: output.name(), data_type: output.data_type(), nullable: output.is_nullable(), length }
    }

    fn check(&self, column: ColumnResult) -> Result<ArrayRef, String> {
        if column.length as usize != self.length {
            return Err(format!("{} {} instead of {}", column.length, self.name, self.length));
        }
        lift::column_of(column, self.data_type, self.nullable, self.name)
    }
}
