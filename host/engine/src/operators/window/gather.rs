//! Which keys have a result in a window, and where their accumulators are.

use std::{ops::Range, sync::Arc};

use hashbrown::HashTable;
use millstream_model::key::EncodedKeys;

use super::{
    pane_index::{PaneIndex, PaneKeys},
    state_key::{self, Part},
};

/// Accumulators that are merged at a time, about: a window with more fires in portions.
const PORTION: usize = 1 << 18;

/// The keys of a window, to be gathered in portions.
pub struct Gathering<'a> {
    panes: Vec<&'a PaneKeys>,
    /// The panes whose keys have a result; none: all.
    of: Option<Vec<&'a PaneKeys>>,
    portions: usize,
}

/// One pane of gathered keys.
#[derive(Debug)]
pub struct GatheredPane {
    /// Where the accumulators are.
    pub state_keys: Arc<EncodedKeys>,
    /// The result that each belongs to.
    pub rows: Vec<u32>,
}

/// Keys with a result, numbered, and where their accumulators are.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The panes, in order of time; none is empty.
    pub panes: Vec<GatheredPane>,
    /// A pane and a number in it that has the key of each result.
    key_at: Vec<(u32, u32)>,
}

impl<'a> Gathering<'a> {
    /// Every key that has rows in the window.
    pub fn of_window(index: &'a PaneIndex, window: Range<i64>) -> Self {
        let panes: Vec<&PaneKeys> = index.panes(window).map(|(_, keys)| keys).collect();
        let portions = panes.iter().map(|pane| pane.len()).sum::<usize>().div_ceil(PORTION).max(1);
        Self { panes, of: None, portions }
    }

    /// Only the keys that are in `changed` in that window.
    pub fn of_keys(index: &'a PaneIndex, changed: &'a PaneIndex, window: Range<i64>) -> Self {
        let panes = index.panes(window.clone()).map(|(_, keys)| keys).collect();
        Self { panes, of: Some(changed.panes(window).map(|(_, keys)| keys).collect()), portions: 1 }
    }

    /// In how many portions it comes.
    pub fn portions(&self) -> usize {
        self.portions
    }

    /// One portion: all panes of some of the keys.
    pub fn portion(&self, portion: usize) -> Gathered {
        match (&self.of, self.panes.as_slice()) {
            (None, [pane]) if self.portions == 1 => Gathered::of_one_pane(pane),
            (None, panes) if self.portions == 1 => Gathered::of_all(panes),
            (None, panes) => Gathered::of_some(panes, panes, |hash| hash % self.portions as u64 == portion as u64),
            (Some(of), panes) => Gathered::of_some(panes, of, |_| true),
        }
    }
}

impl Gathered {
    /// Number of results.
    pub fn rows(&self) -> usize {
        self.key_at.len()
    }

    /// The user's key of each result.
    pub fn user_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.key_at.iter().map(|&(pane, number)| state_key::user_key(self.panes[pane as usize].state_keys.key(number as usize)))
    }

    /// Where what was emitted for the window that ends at `end` is remembered.
    pub fn keys_of_emitted(&self, end: i64) -> EncodedKeys {
        let mut keys = EncodedKeys::default();
        let mut bytes = Vec::new();
        for &(pane, number) in &self.key_at {
            let state_keys = &self.panes[pane as usize].state_keys;
            bytes.clear();
            state_key::append(&mut bytes, state_key::user_key(state_keys.key(number as usize)), Part::Emitted(end));
            keys.push_in_group(&bytes, state_keys.group(number as usize));
        }
        keys
    }

    fn of_one_pane(pane: &PaneKeys) -> Self {
        let rows: Vec<u32> = (0..pane.len() as u32).collect();
        let key_at = rows.iter().map(|&number| (0, number)).collect();
        Self { panes: vec![GatheredPane { state_keys: Arc::clone(&pane.state_keys), rows }], key_at }
    }

    fn of_all(panes: &[&PaneKeys]) -> Self {
        let mut numbering = Numbering::default();
        let gathered = panes.iter().enumerate().map(|(pane_number, pane)| {
            let rows = (0..pane.len()).map(|number| numbering.number(panes, pane_number, number)).collect();
            GatheredPane { state_keys: Arc::clone(&pane.state_keys), rows }
        });
        let gathered = gathered.collect();
        Self { panes: gathered, key_at: numbering.key_at }
    }

    /// The keys of `of` whose hash is `wanted`, in all panes.
    fn of_some(panes: &[&PaneKeys], of: &[&PaneKeys], wanted: impl Fn(u64) -> bool) -> Self {
        let mut numbering = Numbering::default();
        for (pane_number, pane) in of.iter().enumerate() {
            for number in (0..pane.len()).filter(|&number| wanted(pane.hash(number))) {
                numbering.number(of, pane_number, number);
            }
        }
        let mut gathered = Self { panes: Vec::new(), key_at: vec![(u32::MAX, 0); numbering.key_at.len()] };
        for pane in panes {
            let (mut state_keys, mut rows) = (EncodedKeys::default(), Vec::new());
            for (row, &(of_pane, of_number)) in numbering.key_at.iter().enumerate() {
                let (key, hash) = (of[of_pane as usize].key(of_number as usize), of[of_pane as usize].hash(of_number as usize));
                let Some(number) = pane.number_of(key, hash) else { continue };
                gathered.key_at[row] = (gathered.panes.len() as u32, rows.len() as u32);
                state_keys.push_in_group(pane.state_keys.key(number), pane.state_keys.group(number));
                rows.push(row as u32);
            }
            if !rows.is_empty() {
                gathered.panes.push(GatheredPane { state_keys: Arc::new(state_keys), rows });
            }
        }
        gathered
    }
}

/// Numbers keys of several panes in the order in which they are first met.
#[derive(Default)]
struct Numbering {
    rows: HashTable<u32>,
    key_at: Vec<(u32, u32)>,
}

impl Numbering {
    fn number(&mut self, panes: &[&PaneKeys], pane: usize, number: usize) -> u32 {
        let (key, hash) = (panes[pane].key(number), panes[pane].hash(number));
        let key_at = &self.key_at;
        let key_of = |row: u32| {
            let (pane, number) = key_at[row as usize];
            (panes[pane as usize].key(number as usize), panes[pane as usize].hash(number as usize))
        };
        if let Some(&row) = self.rows.find(hash, |&row| key_of(row).0 == key) {
            return row;
        }
        let row = self.key_at.len() as u32;
        self.rows.insert_unique(hash, row, |&row| key_of(row).1);
        self.key_at.push((pane as u32, number as u32));
        row
    }
}
