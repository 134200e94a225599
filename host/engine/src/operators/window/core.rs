//! What the window operators share: their store, their aggregates, and how rows get into accumulators.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, new_null_array};
use arrow_buffer::BooleanBuffer;
use millstream_model::{
    Batch,
    key::{EncodedKeys, encode_keys},
    state::{Clock, StateDescriptor, TimerDescriptor},
};
use millstream_state::{Backend, KeySet, KeyedStore, StoreSettings, ValueUpdate};
use millstream_wasm::{InstanceContext, Silent, TracedLog};

use super::{
    aggregate::{
        component::RefusedRow,
        set::{AggregatePlan, Aggregates},
    },
    results::{ResultShape, key_columns},
};
use crate::{
    operator::{Moment, OperatorContext, OperatorError, Output},
    operators::keep,
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

impl Core {
    /// Opens the store with one state per aggregate and `more` states, and starts the aggregates.
    ///
    /// # Errors
    /// The store or a component cannot be opened.
    pub async fn open(plan: &CorePlan, states: Vec<StateDescriptor>, timer: &str, context: &OperatorContext) -> Result<Self, OperatorError> {
        let timers = vec![TimerDescriptor { name: timer.into(), clock: Clock::EventTime }];
        let store = open_store(context, states, timers)?;
        let instances = InstanceContext {
            tenant: context.tenant.clone(),
            job: context.job.clone(),
            operator: context.operator.clone(),
            subtask: context.subtask,
            log: Arc::new(TracedLog::new(context.tenant.clone(), context.job.clone(), context.operator.clone(), context.subtask)),
            metrics: Arc::new(Silent),
        };
        let aggregates = Aggregates::open(&plan.aggregates, &instances, Arc::clone(&context.metrics)).await?;
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

/// New accumulators of every key.
pub fn accumulator_updates(accumulators: Vec<ArrayRef>, keys: usize) -> Vec<ValueUpdate> {
    let update = |(state, values)| ValueUpdate { state, changed: BooleanBuffer::new_set(keys), values };
    accumulators.into_iter().enumerate().map(update).collect()
}

/// Splits off the rows at or before `cutoff`, which go to the `late` output. None: no row is left.
pub fn without_late(batch: Batch, cutoff: Option<i64>, out: &mut Output) -> Option<Batch> {
    let (Some(cutoff), Some(times)) = (cutoff, batch.event_times()) else { return Some(batch) };
    let late = times.iter().filter(|&&time| time <= cutoff).count();
    if late == 0 {
        return Some(batch);
    }
    let (late, kept): (Vec<u32>, Vec<u32>) = (0..batch.num_rows() as u32).partition(|&row| times[row as usize] <= cutoff);
    out.emit_late(batch.take(&late));
    (!kept.is_empty()).then(|| batch.take(&kept))
}

/// The clocks as state wants them.
pub fn state_moment(now: Moment) -> millstream_state::Moment {
    millstream_state::Moment { watermark: now.watermark, processing_time: now.processing_time }
}

/// A failure of state as one of the operator.
pub fn state_error(error: millstream_state::Error) -> OperatorError {
    use millstream_model::ErrorKind as K;
    let message = "keyed state failed";
    let failure = match error.kind() {
        K::Invalid => OperatorError::user(message),
        K::Unavailable => OperatorError::outside(message),
        _ => OperatorError::internal(message),
    };
    failure.because(error)
}

/// The store of one operator instance.
///
/// # Errors
/// It cannot be opened.
pub fn open_store(context: &OperatorContext, states: Vec<StateDescriptor>, timers: Vec<TimerDescriptor>) -> Result<KeyedStore, OperatorError> {
    let backend = match (&context.state.directory, &context.state.shared) {
        (Some(directory), Some(shared)) => Backend::RocksDb { directory: directory.clone(), shared: Arc::clone(shared) },
        _ => Backend::Memory,
    };
    let settings = StoreSettings { backend, memory_budget_bytes: context.state.memory_budget_bytes };
    KeyedStore::open(&settings, context.key_groups.clone(), states, timers).map_err(state_error)
}
