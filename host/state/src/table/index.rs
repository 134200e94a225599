//! From the hash of a key to its slot: open addressing in buckets of one cache line, eight tags beside eight slots.
//!
//! The tag is the upper half of the hash (never 0: that is a free place); its upper bits also say which bucket is the key's home, so growing needs
//! no key. A bucket is filled from the front; when it is full, keys overflow into the next. Comparing the eight tags takes no branch, so finding a
//! key does not guess (a branch per probed place cost 6 ns per row).

use crate::memory::{advise_huge_pages, prefetch};

const PLACES: usize = 8;
const BUCKETS_MIN: usize = 32;
/// Up to here the index is in the processor's caches anyway.
const BUCKETS_CACHED: usize = 1024;
/// Slot of a tag that is not there.
pub(super) const NO_SLOT: u32 = u32::MAX;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; PLACES],
    slots: [u32; PLACES],
}

const EMPTY: Bucket = Bucket { tags: [0; PLACES], slots: [0; PLACES] };

impl Bucket {
    /// The first place with this tag. Written so that the compiler takes vector instructions.
    #[inline(always)]
    fn place_of(&self, tag: u32) -> Option<usize> {
        let same = u64::from_le_bytes(self.tags.map(|other| u8::from(other == tag)));
        (same != 0).then_some(same.trailing_zeros() as usize / 8)
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.tags[PLACES - 1] != 0
    }

    fn len(&self) -> usize {
        self.tags.iter().take_while(|&&tag| tag != 0).count()
    }
}

/// The upper half of a key's hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    #[inline(always)]
    pub fn of(hash: u64) -> Self {
        Self(((hash >> 32) as u32).max(1))
    }
}

pub(super) struct Index {
    buckets: Vec<Bucket>,
    /// Bits of a tag that do not take part in the home.
    home_shift: u32,
    len: usize,
}

impl Index {
    pub fn new() -> Self {
        Self { buckets: vec![EMPTY; BUCKETS_MIN], home_shift: 32 - BUCKETS_MIN.trailing_zeros(), len: 0 }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.buckets[..])
    }

    /// Whether asking for memory ahead of its use pays.
    #[inline(always)]
    pub fn is_large(&self) -> bool {
        self.buckets.len() > BUCKETS_CACHED
    }

    #[inline(always)]
    fn home(&self, tag: u32) -> usize {
        (tag >> self.home_shift) as usize
    }

    #[inline(always)]
    fn after(&self, bucket: usize) -> usize {
        (bucket + 1) & (self.buckets.len() - 1)
    }

    #[inline(always)]
    pub fn prefetch(&self, tag: Tag) {
        prefetch(&self.buckets, self.home(tag.0));
    }

    /// The first slot with this tag; nearly always that of the key, if there is one.
    #[inline(always)]
    pub fn first(&self, tag: Tag) -> u32 {
        let mut at = self.home(tag.0);
        loop {
            let bucket = &self.buckets[at];
            if let Some(place) = bucket.place_of(tag.0) {
                return bucket.slots[place & (PLACES - 1)];
            }
            if !bucket.is_full() {
                return NO_SLOT;
            }
            at = self.after(at);
        }
    }

    /// The slot with this tag that `is_key` agrees to.
    pub fn find(&self, tag: Tag, mut is_key: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(tag.0);
        loop {
            let bucket = &self.buckets[at];
            let same = (0..PLACES).filter(|&place| bucket.tags[place] == tag.0).map(|place| bucket.slots[place]).find(|&slot| is_key(slot));
            if same.is_some() || !bucket.is_full() {
                return same;
            }
            at = self.after(at);
        }
    }

    /// Makes sure that `more` keys can be inserted with the index at most three quarters full.
    pub fn reserve(&mut self, more: usize) {
        while (self.len + more) * 4 > self.buckets.len() * PLACES * 3 {
            self.grow();
        }
    }

    /// Takes in a slot that is not there; see [`Self::reserve`].
    pub fn insert(&mut self, tag: Tag, slot: u32) {
        let mut at = self.home(tag.0);
        while self.buckets[at].is_full() {
            at = self.after(at);
        }
        let bucket = &mut self.buckets[at];
        let place = bucket.len();
        (bucket.tags[place], bucket.slots[place]) = (tag.0, slot);
        self.len += 1;
    }

    fn grow(&mut self) {
        let buckets = self.buckets.len() * 2;
        let mut memory: Vec<Bucket> = Vec::with_capacity(buckets);
        if buckets > BUCKETS_CACHED {
            advise_huge_pages(memory.spare_capacity_mut());
        }
        memory.resize(buckets, EMPTY);
        let old = std::mem::replace(&mut self.buckets, memory);
        self.home_shift -= 1;
        self.len = 0;
        for bucket in &old {
            (0..bucket.len()).for_each(|place| self.insert(Tag(bucket.tags[place]), bucket.slots[place]));
        }
    }

    /// Takes out a slot that is there. Into the hole in a full bucket moves a key that had overflowed over it (as Knuth's algorithm 6.4 R).
    pub fn remove(&mut self, tag: Tag, slot: u32) {
        let mut at = self.home(tag.0);
        let mut place = loop {
            let bucket = &self.buckets[at];
            if let Some(place) = (0..PLACES).find(|&place| bucket.tags[place] == tag.0 && bucket.slots[place] == slot) {
                break place;
            }
            assert!(bucket.is_full(), "a used slot is in the index");
            at = self.after(at);
        };
        self.len -= 1;
        while self.buckets[at].is_full()
            && let Some((from, from_place)) = self.overflowed_over(at)
        {
            let moved = (self.buckets[from].tags[from_place], self.buckets[from].slots[from_place]);
            (self.buckets[at].tags[place], self.buckets[at].slots[place]) = moved;
            (at, place) = (from, from_place);
        }
        let bucket = &mut self.buckets[at];
        let last = bucket.len() - 1;
        (bucket.tags[place], bucket.slots[place]) = (bucket.tags[last], bucket.slots[last]);
        (bucket.tags[last], bucket.slots[last]) = (0, 0);
    }

    /// A key behind bucket `at` whose way from home leads over it.
    fn overflowed_over(&self, at: usize) -> Option<(usize, usize)> {
        let mask = self.buckets.len() - 1;
        let mut from = at;
        loop {
            from = self.after(from);
            let bucket = &self.buckets[from];
            let passed = |&place: &usize| {
                let tag = bucket.tags[place];
                let distance = from.wrapping_sub(self.home(tag)) & mask;
                tag != 0 && distance >= from.wrapping_sub(at) & mask
            };
            if let Some(place) = (0..PLACES).find(passed) {
                return Some((from, place));
            }
            if !bucket.is_full() {
                return None;
            }
        }
    }
}
