//! Latencies and turns: what one contestant did in one slice of time, and the medians over several.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, ns; longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Latencies in ns, three significant digits, in an HDR histogram.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid"))
    }

    /// Counts one event.
    pub fn record(&mut self, latency: Duration) {
        self.record_n(latency, 1);
    }

    /// Counts `n` events with the same latency.
    pub fn record_n(&mut self, latency: Duration, n: u64) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(ns.clamp(1, LATENCY_NS_MAX), n);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// Latency that `quantile` (0 to 1) of the events do not exceed, ns; 0 if there are none.
    pub fn at(&self, quantile: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) }
    }

    /// Longest, ns.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The histogram itself.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

/// What one contestant did in one slice of time.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Latencies of its events.
    pub latencies: Latencies,
    /// Events that were done.
    pub events: u64,
    /// How long it took, from before the first to after the last.
    pub elapsed: Duration,
}

impl Turn {
    /// Events per second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The turns of one contestant in one row.
#[derive(Clone, Debug, Default)]
pub struct Turns(Vec<Turn>);

impl Turns {
    /// Adds a turn.
    pub fn push(&mut self, turn: Turn) {
        self.0.push(turn);
    }

    /// How many turns were taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no turn was taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Events per second of every turn.
    pub(crate) fn rates(&self) -> Vec<f64> {
        self.0.iter().map(Turn::rate).collect()
    }

    /// Median latency of every turn, ns.
    pub(crate) fn p50s(&self) -> Vec<u64> {
        self.0.iter().map(|turn| turn.latencies.at(0.5)).collect()
    }

    /// Median over the turns of events per second.
    pub fn rate(&self) -> f64 {
        median(self.rates())
    }

    /// Median over the turns of the median latency, ns.
    pub fn p50(&self) -> u64 {
        median(self.p50s().into_iter().map(|ns| ns as f64).collect()) as u64
    }

    /// All latencies of all turns.
    pub fn latencies(&self) -> Latencies {
        let mut all = Latencies::new();
        self.0.iter().for_each(|turn| all.add(&turn.latencies));
        all
    }

    /// Events of all turns.
    pub fn events(&self) -> u64 {
        self.0.iter().map(|turn| turn.events).sum()
    }

    /// Time of all turns.
    pub fn elapsed(&self) -> Duration {
        self.0.iter().map(|turn| turn.elapsed).sum()
    }
}

/// Median of some numbers; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(us: u64, events: u64) -> Turn {
        let mut latencies = Latencies::new();
        latencies.record_n(Duration::from_micros(us), events);
        Turn { latencies, events, elapsed: Duration::from_secs(1) }
    }

    #[test]
    fn medians_ignore_one_bad_turn() {
        let mut turns = Turns::default();
        for (us, events) in [(100, 10), (101, 11), (90_000, 1)] {
            turns.push(turn(us, events));
        }
        assert_eq!(turns.rate(), 10.0);
        assert_eq!(turns.p50() / 1000, 101);
        assert_eq!(turns.events(), 22);
        assert!(turns.latencies().max() >= 90_000_000);
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn a_latency_beyond_the_range_counts_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::MAX);
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.histogram().len(), 2);
    }
}
