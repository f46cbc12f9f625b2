//! Time, as it comes in from outside.
//!
//! Two clocks: the wall clock stamps events (microseconds since the Unix epoch, at the resolution of the kernel's tick,
//! since an exact reading costs more than the rest of an append); the steady clock runs timers. The simulator sets both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Where the engine's time comes from. A cheap clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        start: Instant,
    },
    /// The machine's steady clock, and a wall clock that somebody sets.
    SetWall {
        start: Instant,
        wall_us: Arc<AtomicU64>,
    },
    #[cfg_attr(not(any(test, feature = "sim")), allow(dead_code))]
    Manual(Arc<ManualClock>),
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_us: AtomicU64,
    steady_us: AtomicU64,
}

#[cfg_attr(not(any(test, feature = "sim")), allow(dead_code))]
impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.wall_us.fetch_add(by_us, Ordering::Relaxed);
        self.steady_us.fetch_add(by_us, Ordering::Relaxed);
    }

    /// The wall clock, microseconds since the Unix epoch.
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        self.wall_us.load(Ordering::Relaxed)
    }

    /// The steady clock, microseconds.
    #[must_use]
    pub fn steady_us(&self) -> u64 {
        self.steady_us.load(Ordering::Relaxed)
    }

    /// Sets the wall clock, which may jump either way.
    pub fn set_wall_us(&self, wall_us: u64) {
        self.wall_us.store(wall_us, Ordering::Relaxed);
    }
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { start: Instant::now() })
    }

    /// The machine's steady clock, and as the wall clock what is stored in `wall_us`: for events that have their times.
    #[must_use]
    pub fn with_wall(wall_us: Arc<AtomicU64>) -> Self {
        Self(Source::SetWall { start: Instant::now(), wall_us })
    }

    /// Clocks moved by hand.
    #[must_use]
    #[cfg_attr(not(any(test, feature = "sim")), allow(dead_code))]
    pub fn manual(clock: Arc<ManualClock>) -> Self {
        Self(Source::Manual(clock))
    }

    /// Wall clock, microseconds since the Unix epoch, at the resolution of the kernel's tick.
    #[inline]
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => coarse_wall_us(),
            Source::SetWall { wall_us, .. } => wall_us.load(Ordering::Relaxed),
            Source::Manual(clock) => clock.wall_us.load(Ordering::Relaxed),
        }
    }

    /// Steady clock, microseconds since an arbitrary moment.
    #[must_use]
    pub fn steady_us(&self) -> u64 {
        match &self.0 {
            Source::System { start } | Source::SetWall { start, .. } => {
                u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
            }
            Source::Manual(clock) => clock.steady_us.load(Ordering::Relaxed),
        }
    }

    /// The steady clock in nanoseconds, for measuring.
    #[must_use]
    pub fn steady_ns(&self) -> u64 {
        match &self.0 {
            Source::System { start } | Source::SetWall { start, .. } => {
                u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Manual(clock) => clock.steady_us.load(Ordering::Relaxed) * 1000,
        }
    }
}

#[inline]
fn coarse_wall_us() -> u64 {
    match clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000,
        // A kernel without the coarse clock: the exact one does as well, only slower.
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_near_the_exact_one() {
        let exact = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        assert!(Clock::system().wall_us().abs_diff(exact) < 1_000_000);
    }

    #[test]
    fn a_manual_clock_stands_until_moved() {
        let hand = Arc::new(ManualClock::default());
        let clock = Clock::manual(hand.clone());
        assert_eq!((clock.wall_us(), clock.steady_us()), (0, 0));
        hand.advance(Duration::from_millis(3));
        assert_eq!((clock.wall_us(), clock.steady_us()), (3000, 3000));
        hand.set_wall_us(5);
        assert_eq!((clock.wall_us(), clock.steady_us()), (5, 3000));
    }
}
