//! What all channels of a store share of the cold tier: the store of objects, the memory of chunks, the thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ColdStore;
use super::cache::ChunkCache;
use super::object::CHUNK_SIZE;
use super::stats::Counters;
use super::worker::Queue;
use crate::clock::Clock;
use crate::ids::{Epoch, StoreUuid};
use crate::io::Disk;

/// Memory for chunks unless set, bytes.
pub const COLD_CACHE_BYTES_DEFAULT: usize = 64 << 20;

/// What a store's cold tier is made of.
#[derive(Clone, Debug)]
pub struct ColdSetup {
    /// Where objects go.
    pub store: Arc<dyn ColdStore>,
    /// Memory for chunks, bytes.
    pub cache_bytes: usize,
    /// Bytes of a chunk; smaller only in tests.
    pub chunk_size: u32,
    /// Whether passes run on the thread that asks for them, as in the simulator.
    pub inline: bool,
}

impl ColdSetup {
    /// With a thread of its own.
    pub fn new(store: Arc<dyn ColdStore>, cache_bytes: usize) -> Self {
        Self { store, cache_bytes, chunk_size: CHUNK_SIZE, inline: false }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct ColdTier {
    /// Where objects go.
    pub store: Arc<dyn ColdStore>,
    /// The store of the segments.
    pub uuid: StoreUuid,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Clock,
    /// Chunks used last.
    pub cache: ChunkCache,
    /// Counters.
    pub counters: Counters,
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// What is to be done.
    pub queue: Queue,
    next_object: AtomicU64,
    over: AtomicBool,
    /// Whether the last pass of some channel failed: it is said once.
    pub failing: AtomicBool,
}

impl ColdTier {
    /// The cold tier of a store that is open.
    pub fn new(setup: &ColdSetup, uuid: StoreUuid, epoch: Epoch, disk: Arc<dyn Disk>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            store: setup.store.clone(),
            uuid,
            epoch,
            disk,
            clock,
            cache: ChunkCache::new(setup.cache_bytes),
            counters: Counters::default(),
            chunk_size: setup.chunk_size,
            queue: Queue::new(setup.inline),
            next_object: AtomicU64::new(0),
            over: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        })
    }

    /// A number for an object that is opened: never given twice.
    pub fn object_no(&self) -> u64 {
        self.next_object.fetch_add(1, Ordering::Relaxed)
    }

    /// Passes end where they are.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether passes are to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// An error once passes are to end.
    pub fn check_over(&self) -> io::Result<()> {
        if self.is_over() { Err(io::Error::other("the store is being closed")) } else { Ok(()) }
    }
}
