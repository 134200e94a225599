//! What a call changes, and what it reads in bulk. Shapes follow `wit/operator.wit`.

use arrow_array::ArrayRef;
use arrow_buffer::BooleanBuffer;

/// Everything that one call changes; applied as a whole by [`crate::KeyedStore::apply`], in this order.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    /// Changes of value states.
    pub values: Vec<ValueUpdate>,
    /// Changes of ordered maps.
    pub maps: Vec<MapUpdate>,
    /// Changes of lists.
    pub lists: Vec<ListUpdate>,
    /// Timers set and deleted.
    pub timers: Vec<TimerUpdate>,
}

impl Updates {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.maps.is_empty() && self.lists.is_empty() && self.timers.is_empty()
    }
}

/// New values of a value state.
#[derive(Clone, Debug)]
pub struct ValueUpdate {
    /// Number of the state, as declared.
    pub state: usize,
    /// Which keys change; one bit per key of the set.
    pub changed: BooleanBuffer,
    /// One per set bit, in order; null deletes.
    pub values: ArrayRef,
}

/// Entries written to and deleted from ordered maps. Later entries win.
#[derive(Clone, Debug)]
pub struct MapUpdate {
    /// Number of the state, as declared.
    pub state: usize,
    /// The key number of each entry.
    pub keys: Vec<u32>,
    /// The map key of each entry; never null.
    pub map_keys: ArrayRef,
    /// The value of each entry; what stands at a deleted one is ignored.
    pub values: ArrayRef,
    /// Which entries are deleted; one bit per entry.
    pub deleted: BooleanBuffer,
}

/// Lists cleared, then elements appended.
#[derive(Clone, Debug)]
pub struct ListUpdate {
    /// Number of the state, as declared.
    pub state: usize,
    /// Whose lists are emptied first; one bit per key of the set, or empty for none.
    pub cleared: BooleanBuffer,
    /// The key number of each new element.
    pub keys: Vec<u32>,
    /// The new elements, in order; never null.
    pub values: ArrayRef,
}

/// Timers set and deleted. Setting one that is set, and deleting one that is not, change nothing.
#[derive(Clone, Debug)]
pub struct TimerUpdate {
    /// Number of the timer, as declared.
    pub timer: usize,
    /// The key number of each.
    pub keys: Vec<u32>,
    /// The time of each, ms since epoch.
    pub at: Vec<i64>,
    /// Which of them are deleted; one bit per timer.
    pub deleted: BooleanBuffer,
}

/// A range of one key's ordered map or list.
#[derive(Clone, Debug)]
pub struct Span {
    /// The key number.
    pub key: u32,
    /// Only entries with a greater map key (list: position, as UInt64); an array of length 1.
    pub after: Option<ArrayRef>,
    /// Only entries with a smaller map key (list: position, as UInt64); an array of length 1.
    pub before: Option<ArrayRef>,
    /// Descending instead of ascending order.
    pub newest_first: bool,
    /// At most so many entries.
    pub limit: u32,
}

/// What a scan found, span after span.
#[derive(Clone, Debug)]
pub struct Found {
    /// The span that each entry answers; ascending.
    pub of_span: Vec<u32>,
    /// Map keys; for lists the positions, as UInt64: greater for later elements, not contiguous.
    pub map_keys: ArrayRef,
    /// The values.
    pub values: ArrayRef,
    /// The byte limit was reached: more entries follow the last one.
    pub truncated: bool,
}
