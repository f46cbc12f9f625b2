//! How the store of a recording is opened: small everywhere, so that a few hundred events make every kind of file.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use redex::{Backend, FsyncPolicy, OpenError, Redex};
use serde::{Deserialize, Serialize};

use crate::history::{Channel, Keep};

/// Settings of the store, and of the drive under it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Shards of the store.
    pub shards: usize,
    /// Size of a journal segment.
    pub journal_segment_bytes: u64,
    /// Journal between checkpoints.
    pub checkpoint_bytes: u64,
    /// Whole blocks from which on a commit goes around the journal.
    pub extent_bytes: usize,
    /// Commits in flight.
    pub commit_depth: usize,
    /// Whether a durable write is a write and then a flush, whatever the machine has.
    pub write_then_flush: bool,
    /// Whether plain calls do the recording's I/O, not io_uring.
    pub plain_calls: bool,
    /// How many writes of a hundred the drive answers late.
    pub hold_percent: u8,
}

impl Settings {
    /// Draws them.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            shards: pick(rng, &[1, 1, 1, 2]),
            journal_segment_bytes: pick(rng, &[64 << 10, 64 << 10, 128 << 10, 512 << 10]),
            checkpoint_bytes: pick(rng, &[64 << 10, 64 << 10, 128 << 10, 1 << 20]),
            extent_bytes: pick(rng, &[4 << 10, 16 << 10, 16 << 10, 256 << 10]),
            commit_depth: pick(rng, &[1, 1, 2, 4]),
            write_then_flush: rng.u8(0..4) == 0,
            plain_calls: rng.u8(0..8) == 0,
            hold_percent: pick(rng, &[0, 0, 30, 60]),
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// The engine's.
    pub fn open(&self, dir: &Path, backend: Backend) -> Result<Redex, OpenError> {
        let builder = Redex::builder()
            .persistent_dir(dir)
            .backend(backend)
            .shards(self.shards)
            .journal_segment_bytes(self.journal_segment_bytes)
            .checkpoint_bytes(self.checkpoint_bytes)
            .extent_bytes(self.extent_bytes)
            .commit_depth(self.commit_depth)
            .page_budget_bytes(4 << 20)
            .write_behind(Duration::from_millis(2));
        if self.write_then_flush { builder.write_then_flush().build() } else { builder.build() }
    }
}

/// Draws the channels of a store.
#[must_use]
pub fn channels(rng: &mut Rng) -> Vec<Channel> {
    let count = rng.usize(2..=6);
    (0..count)
        .map(|number| Channel::new(format!("channel/{number}"), format!("group/{}", number % 2), keep(rng)))
        .collect()
}

fn keep(rng: &mut Rng) -> Keep {
    let period = Duration::from_millis(rng.u64(1..10));
    let fsync_policy = match rng.u8(0..6) {
        0..=2 => FsyncPolicy::Never,
        3 => FsyncPolicy::EveryN(rng.u64(1..12)),
        4 => FsyncPolicy::Interval(period),
        _ => FsyncPolicy::IntervalOrBytes { period, max_bytes: 4096 },
    };
    Keep {
        fsync_policy,
        segment_bytes: pick(rng, &[16 << 10, 16 << 10, 48 << 10]),
        max_events: (rng.u8(0..4) == 0).then(|| rng.u64(10..80)),
        max_bytes: (rng.u8(0..5) == 0).then(|| rng.u64(16 << 10..128 << 10)),
    }
}

/// One of these.
///
/// # Panics
///
/// If there are none.
pub fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}
