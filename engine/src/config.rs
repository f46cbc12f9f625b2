//! What a user sets for a channel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tail::TailLimits;

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

/// How much of a channel is kept, and for how long. Nothing is dropped unless a limit is set; with several, whichever cuts
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The newest so many events.
    pub max_events: Option<u64>,
    /// The newest events with so many bytes; each counts its payload and its 20 bytes of index.
    pub max_bytes: Option<u64>,
    /// Events of this age or younger.
    pub max_age: Option<Duration>,
    /// What readers and subscriptions that are behind may hold back beyond each limit, percent of it; 0 makes the limits
    /// hard.
    pub hold_percent: u32,
}

/// What readers may hold back unless set: as much again as the limit.
const HOLD_PERCENT_DEFAULT: u32 = 100;

impl Default for Retention {
    /// Everything is kept.
    fn default() -> Self {
        Self { max_events: None, max_bytes: None, max_age: None, hold_percent: HOLD_PERCENT_DEFAULT }
    }
}

impl Retention {
    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.max_events.is_some() || self.max_bytes.is_some() || self.max_age.is_some()
    }

    /// The limits with what readers may hold back.
    pub(crate) fn with_hold(&self) -> Self {
        let more = |limit: u64| limit.saturating_add((u128::from(limit) * u128::from(self.hold_percent) / 100) as u64);
        let longer = |age: Duration| age.saturating_add(age.saturating_mul(self.hold_percent) / 100);
        Self {
            max_events: self.max_events.map(more),
            max_bytes: self.max_bytes.map(more),
            max_age: self.max_age.map(longer),
            hold_percent: 0,
        }
    }

    /// What may lie above a limit before an append makes room: an eighth, so that a head moves, durably, once for many
    /// appends.
    pub(crate) fn slack(limit: u64) -> u64 {
        limit / PARTS
    }
}

/// How much of a channel's sealed segments stays on the local disk when the store has a cold store; the older ones go there, and
/// only there. Nothing goes unless a limit is set; with both, whichever keeps less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdPolicy {
    /// The newest so many sealed segments stay.
    pub keep_segments: Option<u64>,
    /// The newest sealed segments with so many bytes of idx and dat stay.
    pub keep_bytes: Option<u64>,
    /// Level of zstd for what is uploaded; `None`: as it is. Needs the cargo feature `cold`.
    pub zstd_level: Option<i32>,
}

impl ColdPolicy {
    /// Whether there is a limit.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.keep_segments.is_some() || self.keep_bytes.is_some()
    }

    /// How many of the newest of these segments stay, given the bytes of each, oldest first.
    pub(crate) fn keeps(&self, bytes: impl ExactSizeIterator<Item = u64> + DoubleEndedIterator) -> usize {
        let count = bytes.len();
        let by_count = self.keep_segments.map_or(count, |keep| usize::try_from(keep).unwrap_or(count).min(count));
        let Some(limit) = self.keep_bytes else { return by_count };
        let mut sum = 0_u64;
        let fits = |bytes: &u64| {
            sum = sum.saturating_add(*bytes);
            sum <= limit
        };
        bytes.rev().take(by_count).take_while(fits).count()
    }
}

/// A segment is such a part of a limit, so that space comes back in small pieces.
const PARTS: u64 = 8;
/// Records below which no segment ends for the sake of a limit: a pair of files costs three blocks.
const SEGMENT_RECORDS_MIN: u64 = 1024;

/// How a channel is kept. Build it from the default.
///
/// ```
/// use redex::{FsyncPolicy, RedexFileConfig};
/// let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
/// assert!(config.persistent());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedexFileConfig {
    persistent: bool,
    fsync_policy: FsyncPolicy,
    segment_bytes: u64,
    more: More,
}

/// The settings as they were first stored: what every version reads.
#[derive(Serialize, Deserialize)]
struct First {
    persistent: bool,
    fsync_policy: FsyncPolicy,
    segment_bytes: u64,
}

/// Settings that came later. Stored behind [`First`], with a version, unless all are as they were before there were any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct More {
    retention: Retention,
    affinity: Option<String>,
    cold: ColdPolicy,
}

/// Version of [`More`].
const MORE_VERSION: u8 = 1;

/// Bytes of dat after which a segment ends, unless set.
pub(crate) const SEGMENT_BYTES_DEFAULT: u64 = 1 << 30;
/// Bounds of what can be set: one page's worth at least, and offsets have 32 bits.
pub(crate) const SEGMENT_BYTES_RANGE: std::ops::RangeInclusive<u64> = (16 << 10)..=(4 << 30) - (256 << 20);
/// Records of a segment at the most.
pub(crate) const SEGMENT_RECORDS_MAX: u64 = 16 << 20;

impl Default for RedexFileConfig {
    fn default() -> Self {
        Self {
            persistent: false,
            fsync_policy: FsyncPolicy::Never,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            more: More::default(),
        }
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
    /// `open_file`. A channel with a limit of bytes ends its segments at an eighth of that, if it is less.
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.segment_bytes = segment_bytes;
        self
    }

    /// Keeps the newest so many events, and up to an eighth more until an append or
    /// [`RedexFile::sweep_retention`](crate::RedexFile::sweep_retention) drops them. `None`: no such limit.
    #[must_use]
    pub fn with_retention_max_events(mut self, events: impl Into<Option<u64>>) -> Self {
        self.more.retention.max_events = events.into();
        self
    }

    /// Keeps the newest events with so many bytes, each with its payload and 20 bytes of index. On disk there are never
    /// more than 1.25 times as many and one segment, unless a reader holds them back. What fills up pages counts too, and what a
    /// cut has left behind in a segment: so a little less may be kept. `None`: no such limit.
    #[must_use]
    pub fn with_retention_max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.more.retention.max_bytes = bytes.into();
        self
    }

    /// Keeps events up to this age, by the times in their index records. `None`: no such limit.
    #[must_use]
    pub fn with_retention_max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.more.retention.max_age = age.into();
        self
    }

    /// What readers and subscriptions that are behind may hold back beyond each limit, percent of it: 100 unless set, as
    /// much again. 0 makes the limits hard. A reader further behind gets `Lagged` and goes on at the head.
    #[must_use]
    pub fn with_retention_hold(mut self, percent: u32) -> Self {
        self.more.retention.hold_percent = percent;
        self
    }

    /// All limits at once.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.more.retention = retention;
        self
    }

    /// Places a channel that is made anew on the same shard as all others with this key: then one flush makes all of them
    /// durable, a crash leaves a prefix of their common commits, and [`Redex::batch`](crate::Redex::batch) can append to several of
    /// them at once. Two appends to two channels that nobody waits for between may become durable in either order; a batch, or
    /// waiting for the first, decides it. A channel that is there stays where it is.
    #[must_use]
    pub fn with_affinity(mut self, key: impl Into<String>) -> Self {
        self.more.affinity = Some(key.into());
        self
    }

    /// Keeps the newest so many sealed segments on the local disk; older ones go to the store's cold store
    /// ([`RedexBuilder::cold_store`](crate::RedexBuilder::cold_store)) once a checkpoint covers them. `None`: no such limit.
    #[must_use]
    pub fn with_cold_keep_segments(mut self, segments: impl Into<Option<u64>>) -> Self {
        self.more.cold.keep_segments = segments.into();
        self
    }

    /// Keeps the newest sealed segments with so many bytes of idx and dat on the local disk; older ones go to the cold store.
    /// `None`: no such limit.
    #[must_use]
    pub fn with_cold_keep_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.more.cold.keep_bytes = bytes.into();
        self
    }

    /// Compresses what goes to the cold store by zstd, at this level: 1 to 22, 3 is a good one. `None`: not at all.
    #[cfg(feature = "cold")]
    #[must_use]
    pub fn with_cold_zstd(mut self, level: impl Into<Option<i32>>) -> Self {
        self.more.cold.zstd_level = level.into();
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

    /// The limits; see the calls that set them.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.more.retention
    }

    /// What stays on the local disk; see the calls that set it.
    #[must_use]
    pub fn cold(&self) -> ColdPolicy {
        self.more.cold
    }

    /// See [`RedexFileConfig::with_affinity`].
    #[must_use]
    pub fn affinity(&self) -> Option<&str> {
        self.more.affinity.as_deref()
    }

    /// Where segments end, the limits of what is kept considered.
    pub(crate) fn tail_limits(&self, bounded: bool) -> TailLimits {
        TailLimits {
            segment_bytes: self.segment_bytes_wanted(),
            segment_records: self.segment_records_wanted(),
            bounded,
        }
    }

    /// Bytes of dat after which a segment ends, the limits considered.
    fn segment_bytes_wanted(&self) -> u32 {
        let part = self.more.retention.max_bytes.map_or(u64::MAX, |limit| limit / PARTS);
        self.segment_bytes.min(part.max(*SEGMENT_BYTES_RANGE.start())) as u32
    }

    /// Records after which a segment ends, the limits considered.
    fn segment_records_wanted(&self) -> u64 {
        let retention = self.more.retention;
        // A record counts 20 bytes, so a limit of bytes ends a segment of tiny events too.
        let by_bytes = retention.max_bytes.map(|limit| limit / PARTS / 20);
        let part = [retention.max_events.map(|limit| limit / PARTS), by_bytes].into_iter().flatten().min();
        part.unwrap_or(u64::MAX).clamp(SEGMENT_RECORDS_MIN, SEGMENT_RECORDS_MAX)
    }

    /// Form on disk, inside the checkpoint's and the journal's checksummed entries.
    pub(crate) fn encode(&self) -> Vec<u8> {
        const ENCODES: &str = "a plain struct always encodes";
        let Self { persistent, fsync_policy, segment_bytes, .. } = *self;
        let first = First { persistent, fsync_policy, segment_bytes };
        let mut bytes = postcard::to_allocvec(&first).expect(ENCODES);
        if self.more != More::default() {
            bytes.push(MORE_VERSION);
            bytes = postcard::to_extend(&self.more, bytes).expect(ENCODES);
        }
        bytes
    }

    /// The inverse of [`RedexFileConfig::encode`]; `None` for what newer software wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (First { persistent, fsync_policy, segment_bytes }, rest) = postcard::take_from_bytes(bytes).ok()?;
        let more = match rest {
            [] => More::default(),
            [MORE_VERSION, rest @ ..] => {
                let (more, rest) = postcard::take_from_bytes::<More>(rest).ok()?;
                rest.is_empty().then_some(more)?
            }
            _ => return None,
        };
        Some(Self { persistent, fsync_policy, segment_bytes, more })
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
        assert_eq!(RedexFileConfig::decode(&config.encode()), Some(config.clone()));
        assert_eq!(RedexFileConfig::decode(&[]), None);
        let cold = config.clone().with_cold_keep_segments(3).with_cold_keep_bytes(1 << 30);
        assert_eq!(RedexFileConfig::decode(&cold.encode()), Some(cold));
        let limited =
            config.with_retention_max_events(7).with_retention_max_age(Duration::from_secs(1)).with_affinity("a");
        let encoded = limited.encode();
        assert_eq!(RedexFileConfig::decode(&encoded), Some(limited));
        assert_eq!(RedexFileConfig::decode(&[&encoded[..], &[0]].concat()), None, "newer software wrote more");
        assert_eq!(RedexFileConfig::decode(&encoded[..encoded.len() - 1]), None);
    }

    #[test]
    fn segments_follow_the_limits() {
        let config = RedexFileConfig::default().with_retention_max_bytes(8 << 20);
        assert_eq!(config.segment_bytes_wanted(), 1 << 20);
        assert_eq!(config.segment_records_wanted(), (1 << 20) / 20);
        let config = config.with_retention_max_bytes(Some(1)).with_retention_max_events(80_000);
        assert_eq!((config.segment_bytes_wanted(), config.segment_records_wanted()), (16 << 10, 1024));
        let config = RedexFileConfig::default().with_retention_max_events(80_000);
        assert_eq!((config.segment_bytes_wanted(), config.segment_records_wanted()), (1 << 30, 10_000));
    }

    #[test]
    fn the_newest_segments_stay_local() {
        let keeps = |policy: ColdPolicy| policy.keeps([40, 30, 20, 10].into_iter());
        assert_eq!(keeps(ColdPolicy::default()), 4);
        for (segments, bytes, kept) in [
            (Some(0), None, 0),
            (Some(3), None, 3),
            (Some(9), None, 4),
            (None, Some(9), 0),
            (None, Some(30), 2),
            (None, Some(99), 3),
            (None, Some(100), 4),
            (Some(1), Some(30), 1),
            (Some(3), Some(30), 2),
        ] {
            let policy = ColdPolicy { keep_segments: segments, keep_bytes: bytes, zstd_level: None };
            assert_eq!(keeps(policy), kept, "{policy:?}");
        }
    }

    #[test]
    fn what_readers_hold_is_a_part_of_each_limit() {
        let retention =
            Retention { max_events: Some(10), max_age: Some(Duration::from_secs(4)), ..Retention::default() };
        let held = retention.with_hold();
        assert_eq!((held.max_events, held.max_bytes, held.max_age), (Some(20), None, Some(Duration::from_secs(8))));
        assert_eq!(Retention { hold_percent: 0, ..retention }.with_hold().max_events, Some(10));
    }
}
