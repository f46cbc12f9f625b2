//! What the cold tier counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of the cold tier: added to by its thread and by readers.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// What a store has counted of its cold segments since it was opened; all zero without a cold store.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ColdStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// What they are now.
            pub fn read(&self) -> ColdStats {
                ColdStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Segments uploaded and read back.
    uploads,
    /// Bytes of their objects.
    uploaded_bytes,
    /// Bytes of their idx and dat.
    segment_bytes,
    /// Objects that were found whole after a crash and taken as they were, instead of an upload.
    adopted,
    /// Local pairs unlinked.
    unlinked,
    /// Objects deleted.
    deleted,
    /// Manifests made again from a listing.
    rebuilds,
    /// Chunks fetched for readers.
    fetches,
    /// Bytes of those, as stored.
    fetched_bytes,
    /// Chunks that readers found in memory.
    cache_hits,
    /// Passes that failed; each is tried again.
    failed_passes,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
