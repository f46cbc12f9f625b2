//! The part of a run that callgrind counts: what happens within [`counted`].

/// What callgrind turns its counting on and off at.
pub const PATTERN: &str = "*redex_counts::region::counted*";

/// Does `work`, counted. Never inlined: callgrind knows it by its name.
#[inline(never)]
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}
