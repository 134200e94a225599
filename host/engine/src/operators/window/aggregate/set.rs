//! The aggregates of one operator, in the order of the job file: planned ([`AggregatePlan`]) and running ([`Aggregates`]).

use std::sync::Arc;

use arrow_array::{ArrayRef, new_null_array};
use arrow_schema::{DataType, Field};
use millstream_model::{
    Batch,
    state::{StateDescriptor, StateKind, StateScope},
};
use millstream_wasm::InstanceContext;

use super::{
    BuiltIn, Grouping, NoResult,
    component::{ComponentAggregate, Guest, RefusedRow},
};
use crate::{metrics::OperatorMetrics, operator::OperatorError};

/// One aggregate of a job: the column it makes, and how.
#[derive(Clone)]
pub struct AggregatePlan {
    /// The column of the result.
    pub name: String,
    /// How it is computed.
    pub function: Function,
}

/// How an aggregate is computed.
#[derive(Clone)]
pub enum Function {
    /// By the host.
    BuiltIn(Arc<dyn BuiltIn>),
    /// By a component.
    Component(Arc<ComponentAggregate>),
}

impl AggregatePlan {
    /// The column of the result.
    pub fn output(&self) -> Field {
        match &self.function {
            Function::BuiltIn(function) => {
                let (data_type, nullable) = function.output();
                Field::new(&self.name, data_type, nullable)
            }
            Function::Component(component) => component.plan.output.as_ref().clone().with_name(&self.name),
        }
    }

    /// The type of an accumulator.
    pub fn accumulator_type(&self) -> DataType {
        match &self.function {
            Function::BuiltIn(function) => function.accumulator_type(),
            Function::Component(component) => component.accumulator_type().clone(),
        }
    }

    /// Whether accumulators can be merged.
    pub fn merges(&self) -> bool {
        match &self.function {
            Function::BuiltIn(_) => true,
            Function::Component(component) => component.plan.merges,
        }
    }

    /// The state that holds accumulators, wrapped by `wrap` (sessions hold a list per key).
    pub fn state(&self, wrap: impl Fn(DataType) -> DataType) -> StateDescriptor {
        let version = match &self.function {
            Function::BuiltIn(_) => 1,
            Function::Component(component) => component.plan.version,
        };
        value_state(accumulators(&self.name), wrap(self.accumulator_type()), version)
    }
}

/// The state that holds the accumulators of aggregate `name`.
pub fn accumulators(name: &str) -> String {
    format!("aggregate.{name}")
}

/// A keyed value state without time to live.
pub fn value_state(name: String, value_type: DataType, version: u32) -> StateDescriptor {
    StateDescriptor { name, kind: StateKind::Value, scope: StateScope::Keyed, map_key_type: None, value_type, version, ttl: None }
}

/// What became of rows.
pub struct Accumulated {
    /// Per aggregate, one accumulator per group.
    pub accumulators: Vec<ArrayRef>,
    /// Rows that an aggregate can never take, in row order; if there are any, `accumulators` must be thrown away.
    pub refused: Vec<RefusedRow>,
}

/// The results of accumulators.
pub struct Finished {
    /// Per aggregate, one result per accumulator.
    pub columns: Vec<ArrayRef>,
    /// Accumulators that have no result, ascending, each once.
    pub without: Vec<NoResult>,
}

/// One running aggregate.
enum Running {
    BuiltIn(Arc<dyn BuiltIn>),
    Guest(Box<Guest>),
}

/// The running aggregates of one operator in one subtask.
pub struct Aggregates {
    running: Vec<Running>,
    accumulator_types: Vec<DataType>,
    metrics: Arc<OperatorMetrics>,
}

impl Aggregates {
    /// Starts the aggregates; components get instances.
    ///
    /// # Errors
    /// A component cannot be instantiated or opened.
    pub async fn open(plans: &[AggregatePlan], context: &InstanceContext, metrics: Arc<OperatorMetrics>) -> Result<Self, OperatorError> {
        let mut running = Vec::with_capacity(plans.len());
        for plan in plans {
            running.push(match &plan.function {
                Function::BuiltIn(function) => Running::BuiltIn(Arc::clone(function)),
                Function::Component(component) => Running::Guest(Box::new(Guest::open(Arc::clone(component), context.clone()).await?)),
            });
        }
        Ok(Self { running, accumulator_types: plans.iter().map(AggregatePlan::accumulator_type).collect(), metrics })
    }

    /// Number of aggregates.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Accumulators of `groups` groups with nothing in them.
    pub fn new_accumulators(&self, groups: usize) -> Vec<ArrayRef> {
        self.accumulator_types.iter().map(|data_type| new_null_array(data_type, groups)).collect()
    }

    /// The accumulators (one array per aggregate, one entry per group) after these rows.
    ///
    /// # Errors
    /// A component cannot be called at all.
    pub async fn accumulate(
        &mut self,
        batch: &Batch,
        grouping: Grouping<'_>,
        accumulators: &[ArrayRef],
    ) -> Result<Accumulated, OperatorError> {
        let mut updated = Vec::with_capacity(accumulators.len());
        let mut refused = Vec::new();
        let mut group_of_row: Option<Vec<u32>> = None;
        for (running, accumulators) in self.running.iter_mut().zip(accumulators) {
            updated.push(match running {
                Running::BuiltIn(function) => function.accumulate(batch, grouping, accumulators),
                Running::Guest(guest) => {
                    let group_of_row = group_of_row.get_or_insert_with(|| groups_by_row(grouping, batch.num_rows()));
                    guest.accumulate(batch, group_of_row, accumulators, &mut refused).await?
                }
            });
        }
        self.count_guests();
        refused.sort_by_key(|row| row.row);
        refused.dedup_by_key(|row| row.row);
        Ok(Accumulated { accumulators: updated, refused })
    }

    /// The accumulators `into` after the i-th of `other` was merged into number `into_of_other[i]`.
    ///
    /// # Errors
    /// A component fails.
    pub async fn merge(&mut self, into: &[ArrayRef], other: &[ArrayRef], into_of_other: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut merged = Vec::with_capacity(into.len());
        for (running, (into, other)) in self.running.iter_mut().zip(into.iter().zip(other)) {
            merged.push(match running {
                Running::BuiltIn(function) => function.merge(into, other, into_of_other),
                Running::Guest(guest) => guest.merge(into, other, into_of_other).await?,
            });
        }
        self.count_guests();
        Ok(merged)
    }

    /// The results of accumulators.
    ///
    /// # Errors
    /// A component cannot be called at all.
    pub async fn finish(&mut self, accumulators: &[ArrayRef]) -> Result<Finished, OperatorError> {
        let mut columns = Vec::with_capacity(accumulators.len());
        let mut without = Vec::new();
        for (running, accumulators) in self.running.iter_mut().zip(accumulators) {
            columns.push(match running {
                Running::BuiltIn(function) => function.finish(accumulators, &mut without),
                Running::Guest(guest) => guest.finish(accumulators, &mut without).await?,
            });
        }
        self.count_guests();
        without.sort_by_key(|missing| missing.group);
        without.dedup_by_key(|missing| missing.group);
        Ok(Finished { columns, without })
    }

    fn count_guests(&mut self) {
        for running in &mut self.running {
            if let Running::Guest(guest) = running {
                let (guest_ns, traps) = guest.take_costs();
                self.metrics.guest_ns.add(guest_ns);
                self.metrics.traps.add(traps);
            }
        }
    }
}

fn groups_by_row(grouping: Grouping<'_>, rows: usize) -> Vec<u32> {
    let mut groups = vec![0; rows];
    grouping.for_each(|row, group| groups[row] = group as u32);
    groups
}
