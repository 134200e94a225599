//! What operators with keyed state of their own share: opening the store, its clocks and errors, and late rows.

use std::sync::Arc;

use millstream_model::Batch;
use millstream_state::{Backend, KeyedStore, SnapshotPart, StoreSettings};

use super::upgrade::{self, Declared};
use crate::operator::{Moment, OperatorContext, OperatorError, Output};

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
        // A migration of the user's that fails would fail again.
        K::Invalid | K::Conflict | K::Guest => OperatorError::user(message),
        K::Unavailable | K::Corrupt => OperatorError::outside(message),
        _ => OperatorError::internal(message),
    };
    failure.because(error)
}

/// The store of one operator instance: empty, or as the checkpoint holds it that the run goes on from.
///
/// # Errors
/// It cannot be opened, or it would lose state that nobody allowed to be forgotten.
pub async fn open_store(context: &OperatorContext, declared: Declared) -> Result<KeyedStore, OperatorError> {
    let backend = match (&context.state.directory, &context.state.shared) {
        (Some(directory), Some(shared)) => Backend::RocksDb { directory: directory.clone(), shared: Arc::clone(shared) },
        _ => Backend::Memory,
    };
    let settings = StoreSettings { backend, memory_budget_bytes: context.state.memory_budget_bytes };
    let groups = context.key_groups.clone();
    let opened = match context.restored.as_deref() {
        Some(restored) if !restored.state.is_empty() => {
            for SnapshotPart { description, .. } in &restored.state {
                let checked = declared.check(description, |name| restored.may_forget(&context.operator, name));
                checked.map_err(|reasons| OperatorError::user("it cannot go on from its state").because(reasons.join("; ")))?;
            }
            upgrade::restore(settings, groups, &restored.state, declared, || context.guest()).await
        }
        _ => KeyedStore::open(&settings, groups, declared.states, declared.timers).map_err(state_error),
    };
    let mut store = opened?;
    store.tell_size(context.metrics.state.clone());
    Ok(store)
}
