//! What a shard counts, for tests, the harness and users.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::io::IoFacts;

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

        /// What a store has counted since it was opened, over all shards.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Events per commit.
            pub commit_events: Histogram<u64>,
            /// Journal bytes per commit, whole blocks.
            pub commit_bytes: Histogram<u64>,
            /// From the submission of a durable commit to its end, nanoseconds.
            pub commit_latency_ns: Histogram<u64>,
            /// Commits in flight at each submission, itself included.
            pub queue_depth: Histogram<u64>,
            /// What the I/O runs on.
            pub io: IoFacts,
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
                    io: IoFacts::default(),
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
    /// Commits with events or other entries.
    commits,
    /// Events committed.
    events,
    /// Commits that only tell recovery what was durable (design D6).
    idle_commits,
    /// Flushes of the journal for a commit: one for each durable one.
    flushes,
    /// Flushes of dat files for extents.
    extent_flushes,
    /// Flushes that checkpoints, rolls, seals and spare segments cause.
    checkpoint_flushes,
    /// Bytes written to the journal, whole blocks.
    journal_bytes,
    /// Bytes of idx and dat written behind.
    destaged_bytes,
    /// Extents: bulk written straight to dat by a commit.
    extents,
    /// Bytes of extents.
    extent_bytes,
    /// Payload bytes committed.
    payload_bytes,
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
}

impl Stats {
    /// Bytes written to the device for each payload byte committed; 0 before the first.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        let written = self.journal_bytes + self.destaged_bytes + self.extent_bytes + self.checkpoint_bytes;
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
