//! What a user sets for a channel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When `append` resolves and what a power cut can take at worst.
///
/// `sync` and `close` always flush, whatever the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FsyncPolicy {
    /// Resolves when published. Lost at worst: what came since the last `sync` or `close`; a killed process loses at most
    /// 10 ms of writes.
    #[default]
    Never,
    /// Resolves when published; the append that would leave `n` events unflushed resolves after the flush. Lost at
    /// worst: `n - 1` events. For `n <= 1` every append resolves when durable.
    EveryN(u64),
    /// Resolves when published; an append that finds an event older than this unflushed resolves after the flush.
    /// Lost at worst: this much time of writes.
    Interval(Duration),
    /// Both bounds at once. Lost at worst: whichever is less.
    IntervalOrBytes {
        /// As in [`FsyncPolicy::Interval`].
        period: Duration,
        /// Unflushed bytes above which an append resolves only after the flush; each event counts its payload and
        /// 8 bytes.
        max_bytes: u64,
    },
}

impl FsyncPolicy {
    /// The longest that an event may stay unflushed, if the policy says so.
    pub(crate) fn period(self) -> Option<Duration> {
        match self {
            Self::Interval(period) | Self::IntervalOrBytes { period, .. } => Some(period),
            Self::Never | Self::EveryN(_) => None,
        }
    }
}

/// How a channel is kept. Build it from the default.
///
/// ```
/// use redex::{FsyncPolicy, RedexFileConfig};
/// let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
/// assert!(config.persistent());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedexFileConfig {
    persistent: bool,
    fsync_policy: FsyncPolicy,
    segment_bytes: u64,
}

/// Bytes of dat after which a segment ends, unless set.
pub(crate) const SEGMENT_BYTES_DEFAULT: u64 = 1 << 30;
/// Bounds of what can be set: one page's worth at least, and offsets have 32 bits.
pub(crate) const SEGMENT_BYTES_RANGE: std::ops::RangeInclusive<u64> = (16 << 10)..=(4 << 30) - (256 << 20);

impl Default for RedexFileConfig {
    fn default() -> Self {
        Self { persistent: false, fsync_policy: FsyncPolicy::Never, segment_bytes: SEGMENT_BYTES_DEFAULT }
    }
}

impl RedexFileConfig {
    /// Whether the events are kept on disk; otherwise they live as long as the `Redex`.
    #[must_use]
    pub fn with_persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// When `append` resolves.
    #[must_use]
    pub fn with_fsync_policy(mut self, policy: FsyncPolicy) -> Self {
        self.fsync_policy = policy;
        self
    }

    /// Payload bytes after which a segment ends: 16 KiB to 3.75 GiB, 1 GiB unless set. A value outside is refused by
    /// `open_file`.
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self
    }

    /// See [`RedexFileConfig::with_persistent`].
    #[must_use]
    pub fn persistent(&self) -> bool {
        self.persistent
    }

    /// See [`RedexFileConfig::with_fsync_policy`].
    #[must_use]
    pub fn fsync_policy(&self) -> FsyncPolicy {
        self.fsync_policy
    }

    /// See [`RedexFileConfig::with_segment_bytes`].
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Form on disk, inside the checkpoint's and the journal's checksummed entries.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a plain struct always encodes")
    }

    /// The inverse of [`RedexFileConfig::encode`]; `None` for what newer software wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (config, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_own_encoding() {
        let config = RedexFileConfig::default()
            .with_persistent(true)
            .with_segment_bytes(1 << 20)
            .with_fsync_policy(FsyncPolicy::IntervalOrBytes { period: Duration::from_millis(7), max_bytes: 99 });
        assert_eq!(RedexFileConfig::decode(&config.encode()), Some(config));
        assert_eq!(RedexFileConfig::decode(&[]), None);
    }
}
