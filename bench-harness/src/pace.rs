//! An open loop: events are due at fixed times, whether the engine keeps up or not.
//!
//! Latency counts from the moment an event was due, not from when it was sent: an engine that stalls makes the events behind the
//! stall late, and they all count (no coordinated omission).

use std::time::{Duration, Instant};

/// The last stretch before an event is due is not slept, since a sleep ends late.
const SLEEP_SLACK: Duration = Duration::from_micros(80);

/// When each event is due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    period_ns: f64,
}

impl Pace {
    /// Events at `rate` per second from `start` on.
    pub fn new(start: Instant, rate: f64) -> Self {
        Self { start, period_ns: 1e9 / rate }
    }

    /// When the `index`th event is due.
    pub fn due(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos((index as f64 * self.period_ns) as u64)
    }

    /// Waits until the `index`th event is due and says when that was; does not wait for one that is late.
    pub fn wait(&self, index: u64) -> Instant {
        let due = self.due(index);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return due;
            }
            // Yielding, not spinning: the flush may be issued by a kernel thread of this very processor.
            if left > SLEEP_SLACK { std::thread::sleep(left - SLEEP_SLACK) } else { std::thread::yield_now() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_evenly_and_never_early() {
        let start = Instant::now();
        let pace = Pace::new(start, 2000.0);
        assert_eq!(pace.due(2000) - start, Duration::from_secs(1));
        for index in 0..5 {
            assert!(pace.wait(index) <= Instant::now());
        }
        assert!(start.elapsed() >= Duration::from_millis(2));
    }

    #[test]
    fn a_late_event_is_not_waited_for() {
        let start = Instant::now() - Duration::from_secs(1);
        assert_eq!(Pace::new(start, 10.0).wait(5), start + Duration::from_millis(500));
    }
}
