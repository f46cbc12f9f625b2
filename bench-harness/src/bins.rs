//! Small distributions of a row, taken from the engine's histograms.
//!
//! The engine counts from when a store was opened; a row is what came between two readings. So bins are filled by subtraction,
//! and are few enough to be copied about and to be drawn.

use hdrhistogram::Histogram;

/// Bins of powers of two, up to 2^32 - 1.
const LOG2_COUNT: usize = 32;

/// Depths that are told apart: twice as many as the engine has in flight at the most.
const DEPTH_COUNT: usize = 16;

/// Counts by powers of two: bin `i` is for 2^i to 2^(i + 1) - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log2Bins([u64; LOG2_COUNT]);

impl Log2Bins {
    /// Adds what came between two readings of one histogram.
    pub(crate) fn add_between(&mut self, before: &Histogram<u64>, after: &Histogram<u64>) {
        add_between(&mut self.0, before, after, |value| value.max(1).ilog2() as usize);
    }

    /// The bins up to the last that is not empty.
    pub(crate) fn counts(&self) -> Vec<u64> {
        trimmed(&self.0)
    }
}

/// Counts by value: bin `i` is for `i` + 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DepthBins([u64; DEPTH_COUNT]);

impl DepthBins {
    /// Adds what came between two readings of one histogram.
    pub(crate) fn add_between(&mut self, before: &Histogram<u64>, after: &Histogram<u64>) {
        add_between(&mut self.0, before, after, |value| value.max(1) as usize - 1);
    }

    /// The bins up to the last that is not empty.
    pub(crate) fn counts(&self) -> Vec<u64> {
        trimmed(&self.0)
    }
}

/// What is too large for the bins is in the last one.
fn add_between(bins: &mut [u64], before: &Histogram<u64>, after: &Histogram<u64>, bin: impl Fn(u64) -> usize) {
    for step in after.iter_recorded() {
        // The lowest value that the histogram does not tell from it, so that 2^i never counts with what is below it.
        let value = after.lowest_equivalent(step.value_iterated_to());
        let count = step.count_at_value() - before.count_at(value);
        bins[bin(value).min(bins.len() - 1)] += count;
    }
}

fn trimmed(bins: &[u64]) -> Vec<u64> {
    let end = bins.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    bins[..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 1 << 32, 2).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        histogram
    }

    #[test]
    fn only_what_came_between_counts() {
        let before = histogram(&[1, 4096]);
        let after = histogram(&[1, 4096, 1, 2, 3, 4, 4095, 4096, 4096]);
        let mut bins = Log2Bins::default();
        bins.add_between(&before, &after);
        bins.add_between(&after, &after);
        assert_eq!(bins.counts(), [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn depths_count_one_by_one_and_the_last_bin_takes_the_rest() {
        let mut bins = DepthBins::default();
        bins.add_between(&histogram(&[]), &histogram(&[1, 1, 2, 99]));
        assert_eq!(bins.counts()[..2], [2, 1]);
        assert_eq!(bins.counts()[15], 1);
        assert!(DepthBins::default().counts().is_empty());
    }
}
