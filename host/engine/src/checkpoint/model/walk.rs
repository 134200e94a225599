//! Walks through every state that can be reached, each once.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
};

use super::{
    Bounds, Without,
    steps::Steps,
    world::{Setting, World},
};

/// What a walk found.
pub(super) struct Walk {
    pub(super) states: usize,
    /// The promise that was broken, and the shortest way there.
    pub(super) broken: Option<(&'static str, Vec<&'static str>)>,
}

/// Multiplies and rotates: a walk spends much of its time on hashing, and nobody chooses its keys.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(23) ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xf135_7aea_2e62_a9c5;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) type Fingerprints = HashMap<u64, (u64, &'static str), BuildHasherDefault<Mixer>>;

pub(super) fn fingerprint(world: &World) -> u64 {
    let mut hasher = Mixer::default();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits every state once, nearest first.
pub(super) fn walk(without: Without, bounds: Bounds) -> Walk {
    let first = World::new(bounds);
    let root = fingerprint(&first);
    let mut seen = Fingerprints::default();
    seen.insert(root, (root, "the beginning"));
    let mut queue = VecDeque::from([(root, first)]);
    while let Some((from, world)) = queue.pop_front() {
        for (name, next) in Steps::of(&world, Setting { without, bounds }) {
            let at = fingerprint(&next);
            if seen.contains_key(&at) {
                continue;
            }
            seen.insert(at, (from, name));
            if let Some(promise) = next.broken {
                return Walk { states: seen.len(), broken: Some((promise, way(&seen, root, at))) };
            }
            queue.push_back((at, next));
        }
    }
    Walk { states: seen.len(), broken: None }
}

pub(super) fn way(seen: &Fingerprints, root: u64, mut at: u64) -> Vec<&'static str> {
    let mut way = Vec::new();
    while at != root {
        let (from, name) = seen[&at];
        way.push(name);
        at = from;
    }
    way.reverse();
    way
}

pub(super) fn assert_unbroken(bounds: Bounds, at_least: usize) {
    let walk = walk(Without::Nothing, bounds);
    if let Some((promise, way)) = &walk.broken {
        panic!("{promise}: {way:#?}");
    }
    println!("{} states within {bounds:?}", walk.states);
    assert!(walk.states > at_least, "the walk is too small to mean anything: {} states", walk.states);
}

/// The promise that breaks without a rule.
pub(super) fn broken_without(rule: Without, bounds: Bounds) -> &'static str {
    let walk = walk(rule, bounds);
    let (promise, way) = walk.broken.unwrap_or_else(|| panic!("{rule:?} can be taken away, {} states", walk.states));
    println!("without {rule:?}: {promise} after {way:?}");
    promise
}
