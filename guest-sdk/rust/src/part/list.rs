//! Appended-list state: read in bulk from the host, appended to through the answer.

use super::{Part, PartOptions, State, pack_u32};
use crate::{
    bindings::exports::ListUpdate,
    call::{Answer, At, Call},
    host,
    operator::{Declaration, StateKind},
    value::{self, BitBuilder, Malformed},
};

/// A list of the current key, in the order in which it was appended to.
pub struct ListState<V: State> {
    state: u32,
    key: u32,
    /// Per key of the call.
    keys: Vec<List<V>>,
    /// The list of the current key before the row, as far as the row changed it.
    before: Before<V>,
    undoable: bool,
}

/// What this call did to one list.
struct List<V> {
    cleared: bool,
    /// Appended since, or to what there was.
    appended: Vec<V>,
}

/// How to undo the current row.
enum Before<V> {
    /// The list had so many appended values.
    Length(usize),
    /// The row cleared this list.
    Whole(List<V>),
}

impl<V: State> ListState<V> {
    /// Appends a value.
    pub fn push(&mut self, value: V) {
        self.list().appended.push(value);
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        let cleared = List { cleared: true, appended: Vec::new() };
        let mut was = std::mem::replace(self.list(), cleared);
        if let (true, Before::Length(length)) = (self.undoable, &self.before) {
            was.appended.truncate(*length);
            self.before = Before::Whole(was);
        }
    }

    /// All values, oldest first.
    pub fn values(&self) -> Vec<V> {
        let list = &self.keys[self.key as usize];
        let mut values = if list.cleared { Vec::new() } else { host::list_read::<V>(self.state, self.key) };
        values.extend(list.appended.iter().map(V::duplicate));
        values
    }

    fn list(&mut self) -> &mut List<V> {
        &mut self.keys[self.key as usize]
    }
}

impl<V: State> Part for ListState<V> {
    type Slots = Self;
    const MIGRATES: bool = !V::MIGRATIONS.is_empty();

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        to.state::<V>(name, StateKind::AppendedList, None, options)
    }

    fn begin(call: &Call<'_>, index: usize) -> Result<Self, Malformed> {
        let keys = (0..call.key_count()).map(|_| List { cleared: false, appended: Vec::new() }).collect();
        Ok(Self { state: index as u32, key: 0, keys, before: Before::Length(0), undoable: false })
    }

    #[inline]
    fn enter(list: &mut Self, at: At, undoable: bool) {
        list.key = at.key as u32;
        list.undoable = undoable;
        list.before = Before::Length(list.list().appended.len());
    }

    #[inline]
    fn handle(list: &mut Self, _: At) -> &mut Self {
        list
    }

    fn undo(list: &mut Self, _: At) {
        match std::mem::replace(&mut list.before, Before::Length(0)) {
            Before::Length(length) => list.list().appended.truncate(length),
            Before::Whole(whole) => *list.list() = whole,
        }
    }

    fn finish(list: Self, index: usize, _: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        let any_cleared = list.keys.iter().any(|key| key.cleared);
        let mut cleared = BitBuilder::default();
        list.keys.iter().for_each(|key| cleared.push(key.cleared));
        let mut values = V::Builder::default();
        let mut keys = Vec::new();
        for (number, key) in list.keys.iter().enumerate() {
            key.appended.iter().for_each(|value| value.append(&mut values));
            keys.extend(key.appended.iter().map(|_| number as u32));
        }
        if any_cleared || !keys.is_empty() {
            answer.turn.updates.lists.push(ListUpdate {
                state: index as u32,
                cleared: if any_cleared { cleared.into_bytes() } else { Vec::new() },
                values: value::finish_column(values, keys.len()),
                keys: pack_u32(keys),
            });
        }
        Ok(())
    }
}
