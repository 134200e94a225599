//! Asking the processor for memory ahead of its use. The only unsafe code of the crate.

/// Asks for the cache line of `words[at]`; out of range is harmless.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the intrinsic is unsafe as it takes a raw pointer, but a prefetch never faults and reads nothing into the program"
)]
pub(crate) fn prefetch<T>(words: &[T], at: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: `wrapping_add` makes an address without claiming that it is inside the slice; the processor ignores addresses it cannot read.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(at).cast()) }
}

/// Elsewhere the processor finds out by itself.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch<T>(_words: &[T], _at: usize) {}
