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
    /// Keys whose list this call cleared.
    cleared: Vec<bool>,
    /// What this call appended: key and value.
    appended: Vec<(u32, V)>,
    undo: Undo<V>,
}

/// What the current row replaced.
struct Undo<V> {
    mark: usize,
    /// The row cleared the list: whether it had been cleared before, and all that had been appended.
    cleared: Option<(bool, Vec<(u32, V)>)>,
    wanted: bool,
}

impl<V: State> ListState<V> {
    /// Appends a value.
    pub fn push(&mut self, value: V) {
        self.appended.push((self.key, value));
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        let was_cleared = self.cleared[self.key as usize];
        if self.undo.wanted && self.undo.cleared.is_none() {
            let before = self.appended[..self.undo.mark].iter().map(|(key, value)| (*key, value.duplicate())).collect();
            self.undo.cleared = Some((was_cleared, before));
        }
        self.cleared[self.key as usize] = true;
        self.appended.retain(|(key, _)| *key != self.key);
    }

    /// All values, oldest first.
    pub fn values(&self) -> Vec<V> {
        let mut values = if self.cleared[self.key as usize] { Vec::new() } else { host::list_read::<V>(self.state, self.key) };
        values.extend(self.appended.iter().filter(|(key, _)| *key == self.key).map(|(_, value)| value.duplicate()));
        values
    }
}

impl<V: State> Part for ListState<V> {
    type Slots = Self;

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        to.state::<V>(name, StateKind::AppendedList, None, options)
    }

    fn begin(call: &Call<'_>, index: usize) -> Result<Self, Malformed> {
        let undo = Undo { mark: 0, cleared: None, wanted: false };
        Ok(Self { state: index as u32, key: 0, cleared: vec![false; call.key_count()], appended: Vec::new(), undo })
    }

    #[inline]
    fn enter(list: &mut Self, at: At, undoable: bool) {
        list.key = at.key as u32;
        list.undo = Undo { mark: list.appended.len(), cleared: None, wanted: undoable };
    }

    #[inline]
    fn handle(list: &mut Self, _: At) -> &mut Self {
        list
    }

    fn undo(list: &mut Self, at: At) {
        match list.undo.cleared.take() {
            Some((was_cleared, before)) => {
                list.cleared[at.key] = was_cleared;
                list.appended = before;
            }
            None => list.appended.truncate(list.undo.mark),
        }
    }

    fn finish(list: Self, index: usize, _: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        let any_cleared = list.cleared.iter().any(|cleared| *cleared);
        if !any_cleared && list.appended.is_empty() {
            return Ok(());
        }
        let mut cleared = BitBuilder::default();
        list.cleared.iter().for_each(|key| cleared.push(*key));
        let mut values = V::Builder::default();
        list.appended.iter().for_each(|(_, value)| value.append(&mut values));
        answer.turn.updates.lists.push(ListUpdate {
            state: index as u32,
            cleared: if any_cleared { cleared.into_bytes() } else { Vec::new() },
            values: value::finish_column(values, list.appended.len()),
            keys: pack_u32(list.appended.iter().map(|(key, _)| *key)),
        });
        Ok(())
    }
}
