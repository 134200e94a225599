//! The memory of the key table's rows: segments of a fixed number of rows, so that growing copies nothing and every row stays in its place.

use crate::memory::{HUGE_PAGE_BYTES, advise_huge_pages, prefetch};

const SEGMENT_SHIFT: u32 = 16;
const SEGMENT_ROWS: usize = 1 << SEGMENT_SHIFT;
const WORDS_PER_LINE: usize = 8;

/// Rows of equal width, by slot.
pub(crate) struct Rows {
    segments: Vec<Segment>,
    stride: usize,
    len: usize,
}

struct Segment {
    /// Zeroed memory; the kernel provides it as it is touched.
    words: Vec<u64>,
    /// Where rows begin: at a huge page, and so at a cache line.
    first: usize,
}

impl Segment {
    fn new(words: usize, huge_pages: bool) -> Self {
        let mut memory = vec![0; words + HUGE_PAGE_BYTES / 8];
        let first = (HUGE_PAGE_BYTES - memory.as_ptr().addr() % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES / 8;
        if huge_pages {
            advise_huge_pages(&mut memory[first..first + words]);
        }
        Self { words: memory, first }
    }
}

impl Rows {
    /// No rows, each of at least `words` words. Rows of up to one cache line do not straddle two.
    pub fn new(words: usize) -> Self {
        let stride = if words <= WORDS_PER_LINE { words.next_power_of_two() } else { words.next_multiple_of(WORDS_PER_LINE / 2) };
        Self { segments: Vec::new(), stride, len: 0 }
    }

    /// No rows, each of `words` words and no more: for rows that are read in their order.
    pub fn dense(words: usize) -> Self {
        Self { segments: Vec::new(), stride: words, len: 0 }
    }

    /// Words of a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends a row of zeros.
    pub fn push(&mut self) -> u32 {
        if self.len == self.segments.len() << SEGMENT_SHIFT {
            // A small table shall stay small, so its only segment takes small pages.
            self.segments.push(Segment::new(SEGMENT_ROWS * self.stride, !self.segments.is_empty()));
        }
        self.len += 1;
        u32::try_from(self.len - 1).expect("memory is smaller than 2^32 rows")
    }

    #[inline(always)]
    fn place(&self, slot: u32) -> (&Segment, usize) {
        let segment = &self.segments[(slot >> SEGMENT_SHIFT) as usize];
        (segment, segment.first + (slot as usize & (SEGMENT_ROWS - 1)) * self.stride)
    }

    /// The row of a slot.
    #[inline(always)]
    pub fn row(&self, slot: u32) -> &[u64] {
        let (segment, base) = self.place(slot);
        &segment.words[base..base + self.stride]
    }

    /// The row of a slot, to change it.
    #[inline(always)]
    pub fn row_mut(&mut self, slot: u32) -> &mut [u64] {
        let (_, base) = self.place(slot);
        &mut self.segments[(slot >> SEGMENT_SHIFT) as usize].words[base..base + self.stride]
    }

    /// Asks for the row of a slot ahead of its use.
    #[inline(always)]
    pub fn prefetch(&self, slot: u32) {
        let (segment, base) = self.place(slot);
        for line in (0..self.stride).step_by(WORDS_PER_LINE) {
            prefetch(&segment.words, base + line);
        }
    }
}
