//! Keyed state lent to a call: bulk reads of maps and lists while the guest runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::ArrayRef;
use millstream_state::{KeySet, KeyedStore, Moment};

/// The state of one operator instance. Only one subtask uses it; the lock is for the time in which it is lent to a call.
#[derive(Clone)]
pub(super) struct SharedStore(Arc<Mutex<KeyedStore>>);

impl SharedStore {
    pub(super) fn new(store: KeyedStore) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, KeyedStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call gets.
    pub(super) fn lend(&self, keys: KeySet, now: Moment) -> Box<dyn millstream_wasm::Collections> {
        Box::new(Loan { store: self.clone(), keys, now })
    }
}

struct Loan {
    store: SharedStore,
    keys: KeySet,
    now: Moment,
}

impl Loan {
    /// Everything that the spans hold, or so much that the guest counts at least `bytes_max` bytes and asks again.
    ///
    /// The store counts the bytes of stored rows and their whole keys, the guest those of columns. So where the store stopped too early for
    /// the guest to notice, it is asked for more. Arrow may count validity that does not cross, hence twice as much.
    fn scan_enough(&self, state: usize, spans: &[millstream_state::Span], bytes_max: usize) -> Result<millstream_state::Found, String> {
        let mut stored_bytes_max = bytes_max.max(1);
        loop {
            let found = self.store.lock().scan(state, &self.keys, spans, stored_bytes_max, self.now).map_err(in_words)?;
            if !found.truncated || column_bytes(&found.map_keys) + column_bytes(&found.values) >= bytes_max.saturating_mul(2) {
                return Ok(found);
            }
            stored_bytes_max = stored_bytes_max.saturating_mul(4);
        }
    }
}

/// Bytes of a column, and what it may have of validity. A column that cannot say counts as none.
fn column_bytes(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or(0)
}

impl millstream_wasm::Collections for Loan {
    fn get(&mut self, state: u32, keys: &[u32], map_keys: &ArrayRef) -> Result<ArrayRef, String> {
        self.store.lock().map_get(state as usize, &self.keys, keys, map_keys, self.now).map_err(in_words)
    }

    fn scan(&mut self, state: u32, spans: &[millstream_wasm::Span], bytes_max: u32) -> Result<millstream_wasm::Found, String> {
        let span = |span: &millstream_wasm::Span| millstream_state::Span {
            key: span.key,
            after: span.after.clone(),
            before: span.before.clone(),
            newest_first: span.newest_first,
            // In the contract 0 is no limit.
            limit: if span.limit == 0 { u32::MAX } else { span.limit },
        };
        let spans: Vec<_> = spans.iter().map(span).collect();
        let found = self.scan_enough(state as usize, &spans, bytes_max as usize)?;
        Ok(millstream_wasm::Found { of_span: found.of_span, map_keys: Some(found.map_keys), values: found.values })
    }
}

fn in_words(error: millstream_state::Error) -> String {
    super::with_causes(&error)
}
