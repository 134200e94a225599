//! Random numbers that are a function of (seed, column, event): no state, so any can be computed at any time.

/// The random numbers of one column.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    key: u64,
}

impl Random {
    /// The numbers of column number `column`; 64 columns have nothing to do with each other.
    pub fn new(seed: u64, column: u64) -> Self {
        Self { key: mix(seed ^ mix(column.wrapping_add(1).wrapping_mul(GOLDEN))) }
    }

    /// A number for an event, uniform over 64 bits.
    #[inline]
    pub fn at(self, event: u64) -> u64 {
        mix(self.key.wrapping_add(event.wrapping_mul(GOLDEN)))
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A number below `bound` from a uniform one, by its upper bits.
#[inline]
pub fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Independent numbers from one: the lower bits, mixed again.
#[inline]
pub fn next(random: u64) -> u64 {
    mix(random.wrapping_add(GOLDEN))
}
