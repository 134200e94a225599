//! Ordered-map state: read in bulk from the host, written through the answer, with this call's own writes laid over what is read.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use super::{Part, PartOptions, State, pack_u32};
use crate::{
    bindings::exports::MapUpdate,
    call::{Answer, At, Call},
    host::{self, Request},
    operator::{Declaration, StateKind},
    value::{self, BitBuilder, Malformed, Value},
};

/// A sorted map of the current key, which may be larger than memory: only what is asked for is read.
pub struct MapState<K, V> {
    state: u32,
    key: u32,
    /// Per key of the call: what this call wrote or looked up.
    overlays: Vec<BTreeMap<K, Entry<V>>>,
    undoable: bool,
    /// What the current row's writes replaced, in order.
    log: Vec<(K, Option<Entry<V>>)>,
}

/// An entry as this call sees it.
struct Entry<V> {
    /// None: the map has no such key.
    value: Option<V>,
    /// Whether this call wrote it.
    written: bool,
}

impl<K: State + Ord, V: State> MapState<K, V> {
    /// The value of `map_key`.
    pub fn get(&mut self, map_key: &K) -> Option<&V> {
        if !self.overlay().contains_key(map_key) {
            let value = host::map_get::<K, V>(self.state, self.key, map_key);
            self.overlay().insert(map_key.duplicate(), Entry { value, written: false });
        }
        self.overlay().get(map_key).and_then(|entry| entry.value.as_ref())
    }

    /// Whether there is a value for `map_key`.
    pub fn contains(&mut self, map_key: &K) -> bool {
        self.get(map_key).is_some()
    }

    /// Sets the value of `map_key`.
    pub fn insert(&mut self, map_key: K, value: V) {
        self.write(map_key, Some(value));
    }

    /// Removes `map_key`; no effect if it is not there.
    pub fn remove(&mut self, map_key: &K) {
        self.write(map_key.duplicate(), None);
    }

    /// The entries in `range`, in order.
    pub fn range(&mut self, range: impl RangeBounds<K>) -> Vec<(K, V)> {
        self.read(&range, Order::OldestFirst, usize::MAX)
    }

    /// At most `count` entries in `range`, the lowest first.
    pub fn first_in(&mut self, range: impl RangeBounds<K>, count: usize) -> Vec<(K, V)> {
        self.read(&range, Order::OldestFirst, count)
    }

    /// At most `count` entries in `range`, the highest first.
    pub fn last_in(&mut self, range: impl RangeBounds<K>, count: usize) -> Vec<(K, V)> {
        self.read(&range, Order::NewestFirst, count)
    }

    /// All entries, in order.
    pub fn entries(&mut self) -> Vec<(K, V)> {
        self.range(..)
    }

    fn overlay(&mut self) -> &mut BTreeMap<K, Entry<V>> {
        &mut self.overlays[self.key as usize]
    }

    fn write(&mut self, map_key: K, value: Option<V>) {
        let log_key = self.undoable.then(|| map_key.duplicate());
        let replaced = self.overlay().insert(map_key, Entry { value, written: true });
        if let Some(log_key) = log_key {
            self.log.push((log_key, replaced));
        }
    }

    fn read(&mut self, range: &impl RangeBounds<K>, order: Order, count: usize) -> Vec<(K, V)> {
        let (start, end) = (range.start_bound(), range.end_bound());
        if count == 0 || is_empty(start, end) {
            return Vec::new();
        }
        // The host's spans leave their ends out, so an end that belongs to the range is looked up by itself.
        for bound in [start, end] {
            if let Bound::Included(map_key) = bound {
                self.get(map_key);
            }
        }
        let overlay = &self.overlays[self.key as usize];
        let written = overlay.range::<K, _>((start, end)).count();
        let request = Request {
            state: self.state,
            key: self.key,
            after: exclusive(start),
            before: exclusive(end),
            newest_first: order == Order::NewestFirst,
            // Each entry of the overlay may replace one that is read.
            limit: count.saturating_add(written),
        };
        let mut merged: BTreeMap<K, V> = host::map_scan::<K, V>(&request).into_iter().collect();
        for (map_key, entry) in overlay.range::<K, _>((start, end)) {
            match &entry.value {
                Some(value) => merged.insert(map_key.duplicate(), value.duplicate()),
                None => merged.remove(map_key),
            };
        }
        match order {
            Order::OldestFirst => merged.into_iter().take(count).collect(),
            Order::NewestFirst => merged.into_iter().rev().take(count).collect(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    OldestFirst,
    NewestFirst,
}

fn exclusive<K>(bound: Bound<&K>) -> Option<&K> {
    match bound {
        Bound::Included(map_key) | Bound::Excluded(map_key) => Some(map_key),
        Bound::Unbounded => None,
    }
}

/// Ranges that `BTreeMap` would panic on, and those that hold nothing.
fn is_empty<K: Ord>(start: Bound<&K>, end: Bound<&K>) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}

impl<K: State + Ord, V: State> Part for MapState<K, V> {
    type Slots = Self;
    const MIGRATES: bool = !V::MIGRATIONS.is_empty();

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        to.state::<V>(name, StateKind::OrderedMap, Some(K::data_type()), options)
    }

    fn begin(call: &Call<'_>, index: usize) -> Result<Self, Malformed> {
        let overlays = (0..call.key_count()).map(|_| BTreeMap::new()).collect();
        Ok(Self { state: index as u32, key: 0, overlays, undoable: false, log: Vec::new() })
    }

    #[inline]
    fn enter(map: &mut Self, at: At, undoable: bool) {
        map.key = at.key as u32;
        map.undoable = undoable;
        map.log.clear();
    }

    #[inline]
    fn handle(map: &mut Self, _: At) -> &mut Self {
        map
    }

    fn undo(map: &mut Self, _: At) {
        while let Some((map_key, replaced)) = map.log.pop() {
            match replaced {
                Some(entry) => map.overlay().insert(map_key, entry),
                None => map.overlay().remove(&map_key),
            };
        }
    }

    fn finish(map: Self, index: usize, _: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        let mut keys = Vec::new();
        let mut map_keys = K::Builder::default();
        let mut values = <Option<V> as Value>::Builder::default();
        let mut deleted = BitBuilder::default();
        for (key, overlay) in map.overlays.iter().enumerate() {
            for (map_key, entry) in overlay.iter().filter(|(_, entry)| entry.written) {
                keys.push(key as u32);
                map_key.append(&mut map_keys);
                values.append_option(entry.value.as_ref());
                deleted.push(entry.value.is_none());
            }
        }
        if !keys.is_empty() {
            answer.turn.updates.maps.push(MapUpdate {
                state: index as u32,
                map_keys: value::finish_column(map_keys, keys.len()),
                values: value::finish_column(values, keys.len()),
                keys: pack_u32(keys),
                deleted: deleted.into_bytes(),
            });
        }
        Ok(())
    }
}
