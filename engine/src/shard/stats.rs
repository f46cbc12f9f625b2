//! What a shard counts, for tests, the harness and users.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cold::stats::ColdStats;
use crate::io::IoFacts;
use crate::sync::scheduled::Mutex;
use crate::sync::scheduled::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one shard: written by its thread, read by anybody.
        #[derive(Debug)]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Histograms, once a commit.
            pub histograms: Mutex<Histograms>,
            /// What the shard's driver runs on.
            pub io: Mutex<IoFacts>,
        }

        impl Default for ShardStats {
            fn default() -> Self {
                Self {
                    $($name: AtomicU64::new(0),)*
                    histograms: Mutex::new(Histograms::new()),
                    io: Mutex::new(IoFacts::default()),
                }
            }
        }

        /// What a store has counted since it was opened, over all shards or for one of them; and some facts of this moment.
        ///
        /// Writes count when they are submitted. One that is tried again for lack of space counts anew if it is composed anew
        /// (destage, seals, checkpoints, spare journal segments); an extent of a commit counts once. What opening writes (a
        /// recovery, the first journal segments) comes before the count, and STORE, which only opening and closing write,
        /// is in none of the numbers. Flushes of directories are not counted.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Events of each commit that has some.
            pub commit_events: Histogram<u64>,
            /// Journal bytes of each of the `commits`, whole blocks; extents are not among them.
            pub commit_bytes: Histogram<u64>,
            /// From the submission of a commit that counts in `flushes` to its acknowledgement, nanoseconds. Counted at
            /// the acknowledgement.
            pub commit_latency_ns: Histogram<u64>,
            /// Commits in flight at the submission of each of the `commits`, itself included.
            pub queue_depth: Histogram<u64>,
            /// Channels in the store, open or not. This and what follows is as it is now, not counted.
            pub channels: u64,
            /// Channels that were opened since the store was.
            pub open_channels: u64,
            /// Memory of pages with events that are not on disk yet, or are their channels' newest, bytes.
            pub page_bytes: u64,
            /// Memory of pages that only readers hold, bytes.
            pub held_page_bytes: u64,
            /// What [`Stats::page_bytes`] may come to.
            pub page_budget_bytes: u64,
            /// Files of segments that have a descriptor now.
            pub open_segment_files: u64,
            /// For how long the oldest event that was not handed to the kernel has waited, over all shards; zero if none waits.
            pub unwritten_age: Duration,
            /// Shards that hold producers back at present, since events have waited too long to be written.
            pub shards_behind: u64,
            /// Shards that refuse appends at present, since the disk is full.
            pub shards_without_space: u64,
            /// Shards that have failed.
            pub shards_stopped: u64,
            /// What the I/O runs on.
            pub io: IoFacts,
            /// What was done with cold segments.
            pub cold: ColdStats,
        }

        impl Stats {
            /// Nothing counted yet.
            #[must_use]
            pub fn empty() -> Self {
                let histograms = Histograms::new();
                Self {
                    $($name: 0,)*
                    commit_events: histograms.events,
                    commit_bytes: histograms.bytes,
                    commit_latency_ns: histograms.latency_ns,
                    queue_depth: histograms.depth,
                    channels: 0,
                    open_channels: 0,
                    page_bytes: 0,
                    held_page_bytes: 0,
                    page_budget_bytes: 0,
                    open_segment_files: 0,
                    unwritten_age: Duration::ZERO,
                    shards_behind: 0,
                    shards_without_space: 0,
                    shards_stopped: 0,
                    io: IoFacts::default(),
                    cold: ColdStats::default(),
                }
            }

            /// Adds what one shard has counted.
            pub(crate) fn add(&mut self, shard: &ShardStats) {
                $(self.$name += shard.$name.load(Ordering::Relaxed);)*
                let histograms = shard.histograms.lock().expect("no panic while the lock is held");
                let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| {
                    to.add(from).expect("histograms of the same bounds");
                };
                add(&mut self.commit_events, &histograms.events);
                add(&mut self.commit_bytes, &histograms.bytes);
                add(&mut self.commit_latency_ns, &histograms.latency_ns);
                add(&mut self.queue_depth, &histograms.depth);
                self.io = shard.io.lock().expect("no panic while the lock is held").clone();
            }
        }
    };
}

counters! {
    /// Commits with events or other entries (a new channel, a roll, a checkpoint), or with nothing but a flush of earlier
    /// ones. Those in `idle_commits` are not among them.
    commits,
    /// Events committed.
    events,
    /// Commits that only tell recovery what was durable (design D6).
    idle_commits,
    /// Commits that were submitted to be durable, rolls and checkpoints aside: each costs the journal one flush, or one
    /// write that is durable by itself.
    flushes,
    /// The same for the dat files of extents: one for each extent that is durable by itself, and for each file that a flush
    /// covers.
    extent_flushes,
    /// The same for what checkpoints, rolls, seals and spare segments cause.
    checkpoint_flushes,
    /// Bytes of all commits in the journal, idle ones too, whole blocks. Headers of segments are not among them.
    journal_bytes,
    /// Bytes of idx and dat written behind, whole blocks. Those of extents and seals are not among them.
    destaged_bytes,
    /// Extents: bulk written straight to dat by a commit.
    extents,
    /// Bytes of extents, whole blocks: the first may begin with bytes that were committed before.
    extent_bytes,
    /// Payload bytes of the events committed: the sum of their lengths.
    payload_bytes,
    /// Bytes that sealing wrote: the last, short blocks of idx and dat, and the footer.
    seal_bytes,
    /// Bytes of headers: of each journal segment begun after the first, and META of each channel whose directory was made.
    header_bytes,
    /// Zeros that spare journal segments were written with, once in a file's life. They are not in
    /// [`Stats::write_amplification`]: a store that has as many segments as it needs writes no more of them.
    prepared_bytes,
    /// Bytes of checkpoint files.
    checkpoint_bytes,
    /// Checkpoints completed.
    checkpoints,
    /// Entries of channels that moved along from an older checkpoint file.
    checkpoint_moves,
    /// Journal segments begun after the first.
    rolls,
    /// Segments sealed.
    seals,
    /// Journal segments recycled.
    recycled,
    /// Pairs of segment files, and directories of deleted channels, removed.
    removed,
}

impl Stats {
    /// Bytes written to files: everything that is counted here but [`Stats::prepared_bytes`].
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        let events = self.journal_bytes + self.extent_bytes + self.destaged_bytes;
        events + self.seal_bytes + self.checkpoint_bytes + self.header_bytes
    }

    /// [`Stats::written_bytes`] for each payload byte committed; 0 before the first.
    ///
    /// What is committed but not destaged yet will be written once more: so it rises with a checkpoint or a close.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        let written = self.written_bytes();
        if self.payload_bytes == 0 { 0.0 } else { written as f64 / self.payload_bytes as f64 }
    }
}

/// Distributions of one shard.
#[derive(Debug)]
pub struct Histograms {
    /// Events per commit.
    pub events: Histogram<u64>,
    /// Journal bytes per commit.
    pub bytes: Histogram<u64>,
    /// Durable commits, nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// Commits in flight.
    pub depth: Histogram<u64>,
}

impl Histograms {
    fn new() -> Self {
        let histogram = |high| Histogram::new_with_bounds(1, high, 2).expect("bounds are valid");
        Self {
            events: histogram(1 << 32),
            bytes: histogram(1 << 32),
            latency_ns: histogram(60_000_000_000),
            depth: histogram(1 << 10),
        }
    }
}

/// Adds to a counter that one thread writes.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}
