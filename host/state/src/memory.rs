//! Hints about memory to processor and kernel. The only unsafe code of the crate besides that of `background`.

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

/// What the kernel calls a huge page, in bytes.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Asks for huge pages below memory that is read at random: without them most reads of a large table miss the address cache as well.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call; it changes how memory is mapped, not what it holds")]
pub(crate) fn advise_huge_pages<T>(words: &mut [T]) {
    let (start, bytes) = (words.as_mut_ptr(), size_of_val(words));
    // SAFETY: the range is exactly the slice. The kernel refuses what it cannot do (not aligned to a page), and then nothing changes.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
}

/// Elsewhere the kernel finds out by itself.
#[cfg(not(target_os = "linux"))]
pub(crate) fn advise_huge_pages<T>(_words: &mut [T]) {}
