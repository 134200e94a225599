//! An instance that migrates state: values that an older version of an operator or aggregate wrote become values of the present type.
//!
//! It is made for that alone and is never opened: what a value becomes depends on the value, not on settings or inputs.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef};
use arrow_schema::DataType;
use arrow_select::concat::concat;
use millstream_model::types::{check_crossing_type, type_text, without_metadata};

use crate::{
    bindings::{exports::millstream::operator::migration as raw, millstream::operator::columns::ColumnResult},
    component::Shared,
    error::{Error, Failure},
    guest::InstanceContext,
    instance::Instance,
    lift,
    limits::{Call, Limit, LimitExceeded},
    lower::Lowered,
    meter::metered,
    verify::Refusal,
};

/// One instance of a component that migrates state. Calls never overlap. Spent after a failure, as an operator's.
pub struct MigrationInstance {
    instance: Instance,
    guest: raw::Guest,
}

/// Values of one state as an older version wrote them.
#[derive(Clone, Copy, Debug)]
pub struct OldState<'a> {
    /// The name of the state.
    pub name: &'a str,
    /// The version of its type that the values have.
    pub version: u32,
    /// The values; nulls stay null.
    pub values: &'a ArrayRef,
}

impl MigrationInstance {
    pub(crate) async fn new(shared: Arc<Shared>, indices: &raw::GuestIndices, context: InstanceContext) -> Result<Self, Error> {
        let (mut instance, made) = Instance::new(shared, context).await?;
        let guest = indices.load(&mut instance.store, &made).expect("the exports were looked up in the same component");
        Ok(Self { instance, guest })
    }

    /// The values as values of type `to`, in their order; as many as one call takes go together.
    ///
    /// # Errors
    /// The guest says no, traps, exceeds a limit (one value alone is too large), or answers what it was not asked for.
    pub async fn migrate(&mut self, old: OldState<'_>, to: &DataType) -> Result<ArrayRef, Failure> {
        let mut parts = Vec::new();
        let mut waiting = std::iter::once(0..old.values.len()).collect::<Vec<_>>();
        while let Some(range) = waiting.pop() {
            let values = old.values.slice(range.start, range.len());
            match self.call(OldState { values: &values, ..old }, to).await {
                Ok(migrated) => parts.push(migrated),
                // It was not called, so the instance is good.
                Err(Failure::Limit(LimitExceeded { limit: Limit::BytesIntoCall, .. })) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    waiting.extend([middle..range.end, range.start..middle]);
                }
                Err(failure) => return Err(failure),
            }
        }
        let parts: Vec<&dyn arrow_array::Array> = parts.iter().map(AsRef::as_ref).collect();
        concat(&parts).map_err(|error| self.host_fault(error.to_string()))
    }

    async fn call(&mut self, old: OldState<'_>, to: &DataType) -> Result<ArrayRef, Failure> {
        let from = without_metadata(old.values.data_type());
        for data_type in [&from, to] {
            check_crossing_type(data_type).map_err(|error| self.host_fault(error.to_string()))?;
        }
        let from = type_text(&from);
        let lowered = Lowered::of([old.values]);
        self.instance.lowering(Call::Migrate, lowered.bytes() + (from.len() + old.name.len()) as u64)?;
        let slices = lowered.slices();
        let column = lowered.params(&slices).pop().expect("one was put");
        let running = self.instance.begin(Call::Migrate)?;
        let meter = self.instance.meter();
        let called = self.guest.call_migrate(&mut self.instance.store, old.name, old.version, &from, column);
        let (answer, busy) = metered(&meter, called).await;
        drop(running);
        let answer = self.instance.end(Call::Migrate, answer, busy)?;
        let column = answer.map_err(|message| self.instance.gave_up(Call::Migrate, Failure::Fatal(message)))?;
        let lifted_bytes = lift::column_bytes(&column);
        match check(column, old, to) {
            Ok(migrated) => {
                self.instance.accepted(lifted_bytes);
                self.instance.applied();
                Ok(migrated)
            }
            Err(reason) => Err(self.instance.refused(Call::Migrate, Refusal::Contract(reason))),
        }
    }

    fn host_fault(&self, reason: String) -> Failure {
        Failure::Host { site: self.instance.site(Call::Migrate), reason }
    }
}

/// As many values, of the type, null where they were.
fn check(column: ColumnResult, old: OldState<'_>, to: &DataType) -> Result<ArrayRef, String> {
    let wanted = old.values.len();
    if column.length as usize != wanted {
        return Err(format!("{} values for {wanted} of state `{}`", column.length, old.name));
    }
    let migrated = lift::column_of(column, to, true, old.name)?;
    match (0..wanted).find(|&row| migrated.is_null(row) != old.values.is_null(row)) {
        Some(row) if migrated.is_null(row) => Err(format!("null for value {row} of state `{}`, which is none", old.name)),
        Some(row) => Err(format!("a value for value {row} of state `{}`, which is null", old.name)),
        None => Ok(migrated),
    }
}
