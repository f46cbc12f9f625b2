//! A channel's settings while it is open: some of them can be changed then.
//!
//! Every policy is three bounds (events, time, bytes), each of which may be missing. So the hot path reads them one by one,
//! without a lock: what it sees while they are being changed is some of the old and some of the new, which is a policy too.

use std::time::Duration;

use crate::config::{FsyncPolicy, RedexFileConfig, Retention};
use crate::sync::scheduled::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::scheduled::{Mutex, MutexGuard};

/// A bound that is missing.
const NONE: u64 = u64::MAX;

/// See the module's text.
#[derive(Debug)]
pub struct LiveConfig {
    config: Mutex<RedexFileConfig>,
    events: AtomicU64,
    period_us: AtomicU64,
    bytes: AtomicU64,
    is_limited: AtomicBool,
}

/// What a policy allows to be unflushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// So many events, less one.
    pub events: Option<u64>,
    /// Events as old as this, microseconds.
    pub period_us: Option<u64>,
    /// So many bytes.
    pub bytes: Option<u64>,
}

impl From<FsyncPolicy> for Bounds {
    fn from(policy: FsyncPolicy) -> Self {
        let none = Self { events: None, period_us: None, bytes: None };
        let micros = |period: Duration| Some(u64::try_from(period.as_micros()).unwrap_or(NONE).min(NONE - 1));
        match policy {
            FsyncPolicy::Never => none,
            FsyncPolicy::EveryN(n) => Self { events: Some(n.clamp(1, NONE - 1)), ..none },
            FsyncPolicy::Interval(period) => Self { period_us: micros(period), ..none },
            FsyncPolicy::IntervalOrBytes { period, max_bytes } => {
                Self { period_us: micros(period), bytes: Some(max_bytes.min(NONE - 1)), ..none }
            }
        }
    }
}

impl LiveConfig {
    /// Settings as they were when the channel was opened.
    pub fn new(config: RedexFileConfig) -> Self {
        let live = Self {
            config: Mutex::new(config.clone()),
            events: AtomicU64::new(NONE),
            period_us: AtomicU64::new(NONE),
            bytes: AtomicU64::new(NONE),
            is_limited: AtomicBool::new(false),
        };
        live.change(|present| *present = config);
        live
    }

    fn lock(&self) -> MutexGuard<'_, RedexFileConfig> {
        self.config.lock().expect("no panic while the lock is held")
    }

    /// The settings.
    pub fn get(&self) -> RedexFileConfig {
        self.lock().clone()
    }

    /// Changes some of them.
    pub fn change(&self, change: impl FnOnce(&mut RedexFileConfig)) {
        let mut config = self.lock();
        change(&mut config);
        let bounds = Bounds::from(config.fsync_policy());
        self.events.store(bounds.events.unwrap_or(NONE), Ordering::Relaxed);
        self.period_us.store(bounds.period_us.unwrap_or(NONE), Ordering::Relaxed);
        self.bytes.store(bounds.bytes.unwrap_or(NONE), Ordering::Relaxed);
        self.is_limited.store(config.retention().is_limited(), Ordering::Relaxed);
    }

    /// What the policy allows to be unflushed.
    #[inline]
    pub fn bounds(&self) -> Bounds {
        let bound = |bound: &AtomicU64| Some(bound.load(Ordering::Relaxed)).filter(|bound| *bound != NONE);
        Bounds { events: bound(&self.events), period_us: bound(&self.period_us), bytes: bound(&self.bytes) }
    }

    /// The policy's period, microseconds.
    #[inline]
    pub fn period_us(&self) -> Option<u64> {
        self.bounds().period_us
    }

    /// Whether the policy counts events.
    #[inline]
    pub fn counts_events(&self) -> bool {
        self.events.load(Ordering::Relaxed) != NONE
    }

    /// Whether there are limits of what is kept.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// The limits of what is kept, if there are some.
    #[inline]
    pub fn retention(&self) -> Option<Retention> {
        self.is_limited().then(|| self.lock().retention())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_its_bounds() {
        let period = Duration::from_millis(3);
        for (policy, bounds) in [
            (FsyncPolicy::Never, (None, None, None)),
            (FsyncPolicy::EveryN(0), (Some(1), None, None)),
            (FsyncPolicy::EveryN(7), (Some(7), None, None)),
            (FsyncPolicy::Interval(period), (None, Some(3000), None)),
            (FsyncPolicy::IntervalOrBytes { period, max_bytes: 0 }, (None, Some(3000), Some(0))),
            (FsyncPolicy::Interval(Duration::MAX), (None, Some(NONE - 1), None)),
        ] {
            let live = LiveConfig::new(RedexFileConfig::default().with_fsync_policy(policy));
            let found = live.bounds();
            assert_eq!((found.events, found.period_us, found.bytes), bounds, "{policy:?}");
            live.change(|config| *config = RedexFileConfig::default().with_retention_max_events(1));
            assert_eq!(live.bounds(), Bounds::from(FsyncPolicy::Never));
            assert!(live.retention().is_some());
        }
    }
}
