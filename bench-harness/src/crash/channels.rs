//! The channels of the crash test, and what each is there for.
//!
//! The first ones are appended to as the policy says: some end their segments early, so that seals come all the time, and one
//! drops its old events. The others have one job each, and everything of theirs is durable before it is told: two take batches
//! that a crash keeps whole or not at all, one loses its end again and again.

use std::path::Path;

use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig};

use crate::args::{Backend, Policy};
use crate::store;

/// Channels that are appended to under the policy: `0..POLICY_COUNT`.
pub(crate) const POLICY_COUNT: usize = 9;

/// The one of them that keeps its newest events only.
pub(crate) const BOUNDED: usize = 8;

/// Channels of the batches: an event of the first and two of the second each.
pub(crate) const GROUPED: [usize; 2] = [9, 10];

/// The channel whose end is cut off.
pub(crate) const CUT: usize = 11;

/// All channels.
pub(crate) const COUNT: usize = 12;

/// Events that the bounded channel keeps.
const BOUNDED_EVENTS: u64 = 2000;

/// Payload bytes of a segment where segments are to end early.
const SEGMENT_BYTES: u64 = 1 << 20;

/// One store in this many has the sizes that a program gets without asking; the others have sizes so small that the journal
/// rolls and checkpoints are taken all the time.
const DEFAULT_SIZES: u32 = 2;

const SMALL_JOURNAL_BYTES: u64 = 4 << 20;

/// Opens the store in `dir`, the `number`th of this run.
pub(crate) fn open_store(dir: &Path, number: u32, backend: Option<Backend>) -> anyhow::Result<Redex> {
    let builder = Redex::builder();
    let builder = if number % DEFAULT_SIZES == DEFAULT_SIZES - 1 {
        builder
    } else {
        builder.journal_segment_bytes(SMALL_JOURNAL_BYTES).checkpoint_bytes(2 * SMALL_JOURNAL_BYTES)
    };
    store::open_with(builder, dir, backend)
}

/// Opens all channels as `policy` wants them.
pub(crate) fn open(redex: &Redex, policy: Policy) -> anyhow::Result<Vec<RedexFile>> {
    (0..COUNT).map(|channel| store::channel_with(redex, &format!("crash/{channel}"), config(channel, policy))).collect()
}

fn config(channel: usize, policy: Policy) -> RedexFileConfig {
    let fsync = match policy {
        Policy::Never | Policy::Durable => FsyncPolicy::Never,
        Policy::Every(n) => FsyncPolicy::EveryN(n),
        Policy::Interval(period) => FsyncPolicy::Interval(period),
        Policy::IntervalOrBytes { period, max_bytes } => FsyncPolicy::IntervalOrBytes { period, max_bytes },
    };
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(fsync);
    match channel {
        BOUNDED => config.with_segment_bytes(SEGMENT_BYTES / 4).with_retention_max_events(BOUNDED_EVENTS),
        _ if GROUPED.contains(&channel) => config.with_segment_bytes(SEGMENT_BYTES).with_affinity("crash/grouped"),
        _ if channel % 2 == 1 => config.with_segment_bytes(SEGMENT_BYTES),
        _ => config,
    }
}
