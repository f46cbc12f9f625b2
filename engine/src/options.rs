//! What a store is opened with.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::cold::ColdStore;
use crate::cold::tier::COLD_CACHE_BYTES_DEFAULT;
use crate::error::OpenError;
use crate::io::BLOCK_SIZE;
use crate::io::probe::DurableWrite;
use crate::journal::SEGMENT_SIZE_MAX;

/// What [`Options::write_behind`] may be. Less leaves a shard no time to sleep between two commits that nobody waits for;
/// under more, a killed process would lose more than anybody expects of "written behind".
pub const WRITE_BEHIND_RANGE: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_secs(1);

/// How I/O is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// By io_uring; by plain calls, with one warning, where it is forbidden.
    #[default]
    Auto,
    /// By io_uring, or an error.
    Uring,
    /// By plain calls.
    Posix,
}

/// When the entries of old checkpoint files move along to new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// Files kept before whole ones are merged.
    pub files_max: usize,
    /// Dead entries beyond as many as live that are not worth the move.
    pub dead_entries_max: usize,
    /// Entries moved along in one checkpoint, for each file there is (for `files_max` at the least).
    pub moved_per_file: usize,
    /// Files from which a checkpoint has them flushed beside the shard; at least one.
    pub flushed_beside: usize,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self { files_max: 16, dead_entries_max: 1024, moved_per_file: 512, flushed_beside: 64 }
    }
}

/// Settings of a store; see [`crate::RedexBuilder`] for each.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shards of a new store.
    pub shards: Option<usize>,
    /// Bind threads to cores.
    pub pin_cores: bool,
    /// Size of a journal segment.
    pub journal_segment_bytes: u64,
    /// Journal bytes between checkpoints.
    pub checkpoint_bytes: u64,
    /// When old checkpoint files are merged; lowered only by tests.
    pub checkpoint_limits: CheckpointLimits,
    /// Memory for pages.
    pub page_budget_bytes: usize,
    /// Bytes of sealed segments mapped at the most.
    pub mapped_bytes_max: u64,
    /// How I/O is done.
    pub backend: Backend,
    /// How a durable write is done, whatever the machine offers.
    pub durable_write: Option<DurableWrite>,
    /// How long an event may stay unwritten.
    pub write_behind: Duration,
    /// How long a shard has nothing to commit before it leaves a witness.
    pub idle_witness: Duration,
    /// Commits in flight.
    pub commit_depth: usize,
    /// Largest payload.
    pub payload_size_max: usize,
    /// Whole blocks that go around the journal.
    pub extent_bytes: usize,
    /// Unflushed bytes above which a shard flushes by itself.
    pub unflushed_bytes_max: u64,
    /// Where old segments go.
    pub cold_store: Option<Arc<dyn ColdStore>>,
    /// Memory for what was read from there.
    pub cold_cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: None,
            pin_cores: false,
            journal_segment_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_limits: CheckpointLimits::default(),
            page_budget_bytes: 256 << 20,
            mapped_bytes_max: 16 << 30,
            backend: Backend::Auto,
            durable_write: None,
            write_behind: Duration::from_millis(10),
            idle_witness: Duration::from_millis(2),
            commit_depth: 1,
            payload_size_max: 16 << 20,
            extent_bytes: 256 << 10,
            unflushed_bytes_max: 64 << 20,
            cold_store: None,
            cold_cache_bytes: COLD_CACHE_BYTES_DEFAULT,
        }
    }
}

impl Options {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), OpenError> {
        let check = |ok: bool, setting, value: u64, allowed| {
            if ok { Ok(()) } else { Err(OpenError::Setting { setting, value, allowed }) }
        };
        let segment = self.journal_segment_bytes;
        let whole = segment.is_multiple_of(BLOCK_SIZE as u64);
        let segment_ok = whole && (64 << 10..=SEGMENT_SIZE_MAX).contains(&segment);
        check(segment_ok, "journal_segment_bytes", segment, "64 KiB to 1 GiB, whole blocks of 4096")?;
        let shards = self.shards.unwrap_or(1);
        check((1..=64).contains(&shards), "shards", shards as u64, "1 to 64")?;
        check((1..=8).contains(&self.commit_depth), "commit_depth", self.commit_depth as u64, "1 to 8")?;
        let budget = self.page_budget_bytes;
        check(budget >= 1 << 20, "page_budget_bytes", budget as u64, "at least 1 MiB")?;
        check(self.checkpoint_bytes >= 64 << 10, "checkpoint_bytes", self.checkpoint_bytes, "at least 64 KiB")?;
        let payload = self.payload_size_max;
        check((1..=64 << 20).contains(&payload), "payload_size_max", payload as u64, "1 byte to 64 MiB")?;
        let delay = u64::try_from(self.write_behind.as_micros()).unwrap_or(u64::MAX);
        check(
            WRITE_BEHIND_RANGE.contains(&self.write_behind),
            "write_behind",
            delay,
            "100 to 1000000 microseconds (1 s)",
        )?;
        check(self.extent_bytes >= BLOCK_SIZE, "extent_bytes", self.extent_bytes as u64, "at least 4096 bytes")
    }

    /// Shards of a store that is made now.
    pub fn shards_of_new_store(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.shards.unwrap_or_else(|| cores.saturating_sub(1).clamp(1, 64))
    }
}
