//! What a run of a target takes of memory.
//!
//! Counted by the thread: the allocator's bytes at their highest, and the largest buffer for direct I/O, which the allocator
//! does not see when it is mapped. A target works on its caller's thread alone.

/// What a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The most that was allocated at one time by this thread, bytes.
    pub peak_bytes: u64,
    /// The largest buffer for direct I/O, bytes.
    pub buffer_bytes: u64,
}

impl Memory {
    /// The larger of both.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.peak_bytes.max(self.buffer_bytes)
    }
}

/// Calls `work` and measures it.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Memory) {
    let _before = redex::fuzzing::take_largest_buffer();
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some(work()));
    let buffer_bytes = redex::fuzzing::take_largest_buffer() as u64;
    (result.expect("it was called"), Memory { peak_bytes: counted.bytes_max, buffer_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_counts_at_its_highest() {
        let (sum, memory) = measure(|| (0..10).map(|_| vec![1_u8; 100_000].len()).sum::<usize>());
        assert_eq!(sum, 1_000_000);
        assert!((100_000..200_000).contains(&memory.peak_bytes), "{memory:?}");
    }
}
