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
            limit: span.limit,
        };
        let spans: Vec<_> = spans.iter().map(span).collect();
        let found = self.store.lock().scan(state as usize, &self.keys, &spans, bytes_max as usize, self.now).map_err(in_words)?;
        Ok(millstream_wasm::Found { of_span: found.of_span, map_keys: Some(found.map_keys), values: found.values })
    }
}

fn in_words(error: millstream_state::Error) -> String {
    super::with_causes(&error)
}
