//! What the window operators share: their store, their aggregates, and how rows get into accumulators.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{ArrayRef, BooleanArray, new_null_array};
use arrow_buffer::BooleanBuffer;
use millstream_model::{
    Batch,
    key::{EncodedKeys, encode_keys},
    state::{Clock, StateDescriptor, TimerDescriptor},
};
use millstream_state::{KeySet, KeyedStore, ValueUpdate};

use super::{
    aggregate::{
        component::RefusedRow,
        set::{AggregatePlan, Aggregates, Function, accumulators},
    },
    results::{ResultShape, key_columns},
};
use crate::{
    operator::{Moment, OperatorContext, OperatorError, Output},
    operators::{
        keep,
        keyed::{open_store, state_error, state_moment},
        upgrade::{Declared, Migrator},
    },
    rejected::Rejection,
};

/// The number of the only timer of window operators.
pub const TIMER: usize = 0;

/// What every window operator holds.
pub struct Core {
    /// Accumulators first, one state per aggregate; then what the operator adds.
    pub store: KeyedStore,
    /// The aggregates, in the order of their states.
    pub aggregates: Aggregates,
    /// The shape of results.
    pub shape: Arc<ResultShape>,
    keys: Vec<usize>,
    columns_named: Vec<usize>,
}

/// What a window operator is made from.
#[derive(Clone)]
pub struct CorePlan {
    /// The key columns of the input, by number.
    pub keys: Vec<usize>,
    /// The aggregates.
    pub aggregates: Arc<[AggregatePlan]>,
    /// The shape of results.
    pub shape: Arc<ResultShape>,
    /// All columns of the input that are read: what a rejected row is shown by.
    pub reads: Vec<usize>,
}

impl CorePlan {
    /// What is kept: one state per aggregate, then `more`; components migrate their own accumulators.
    pub fn declared(&self, more: impl IntoIterator<Item = StateDescriptor>, timer: &str) -> Declared {
        let mut states: Vec<_> = self.aggregates.iter().map(|aggregate| aggregate.state(|accumulator| accumulator)).collect();
        states.extend(more);
        let timers = vec![TimerDescriptor { name: timer.into(), clock: Clock::EventTime }];
        Declared { migrations: self.migrations(), ..Declared::new(states, timers) }
    }

    fn migrations(&self) -> BTreeMap<String, Migrator> {
        let mut migrations = BTreeMap::new();
        for aggregate in self.aggregates.iter() {
            let Function::Component(guest) = &aggregate.function else { continue };
            if guest.component.migrates() {
                let migrator = |of_items| Migrator { component: guest.component.clone(), of_items };
                migrations.insert(accumulators(&aggregate.name), migrator(false));
                migrations.insert(earlier(&accumulators(&aggregate.name)), migrator(true));
            }
        }
        migrations
    }
}

impl Core {
    /// Opens the store ([`CorePlan::declared`]) and starts the aggregates.
    /// # Errors
    /// The store or a component cannot be opened.
    pub async fn open(plan: &CorePlan, declared: Declared, context: &OperatorContext) -> Result<Self, OperatorError> {
        let store = open_store(context, declared).await?;
        let aggregates = Aggregates::open(&plan.aggregates, &context.guest(), Arc::clone(&context.metrics)).await?;
        Ok(Self { store, aggregates, shape: Arc::clone(&plan.shape), keys: plan.keys.clone(), columns_named: plan.reads.clone() })
    }

    /// Whether rows have a key.
    pub fn is_keyed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The key of every row; of a stream without key a single empty one.
    ///
    /// # Errors
    /// A key column is of another type than planned.
    pub fn encode_keys(&self, batch: &Batch) -> Result<EncodedKeys, OperatorError> {
        let rows = if self.is_keyed() { batch.num_rows() } else { 1 };
        let columns = key_columns(batch.columns(), &self.keys);
        encode_keys(&columns, rows).map_err(|error| OperatorError::internal("a key column is of another type than planned").because(error))
    }

    /// The accumulators of these keys, one array per aggregate.
    ///
    /// # Errors
    /// State cannot be read.
    pub fn load_accumulators(&mut self, keys: &KeySet, now: Moment) -> Result<Vec<ArrayRef>, OperatorError> {
        (0..self.aggregates.len()).map(|state| self.store.load(state, keys, state_moment(now)).map_err(state_error)).collect()
    }

    /// Deletes every value of these keys, in every state.
    pub fn deletions(&self, keys: usize) -> Vec<ValueUpdate> {
        let states = self.store.states().iter().enumerate();
        let delete = |(state, descriptor): (usize, &StateDescriptor)| ValueUpdate {
            state,
            changed: BooleanBuffer::new_set(keys),
            values: new_null_array(&descriptor.value_type, keys),
        };
        states.map(delete).collect()
    }

    /// Rejects rows that an aggregate refused; the others are to be tried again. None: no row is left.
    pub fn reject(&self, batch: &Batch, refused: &[RefusedRow], out: &mut Output) -> Option<Batch> {
        let mut good = vec![true; batch.num_rows()];
        for RefusedRow { row, reason } in refused {
            good[*row] = false;
            out.reject(Rejection::of_row(batch, *row, &self.columns_named, reason.clone()));
        }
        keep(batch.clone(), &BooleanArray::from(good))
    }
}

/// The state that holds what `state` holds, of earlier sessions: a list per key.
pub fn earlier(state: &str) -> String {
    format!("earlier.{state}")
}

/// New accumulators of every key.
pub fn accumulator_updates(accumulators: Vec<ArrayRef>, keys: usize) -> Vec<ValueUpdate> {
    let update = |(state, values)| ValueUpdate { state, changed: BooleanBuffer::new_set(keys), values };
    accumulators.into_iter().enumerate().map(update).collect()
}
