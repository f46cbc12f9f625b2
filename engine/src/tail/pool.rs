//! Memory for pages: a budget, size classes, recycling.
//!
//! Pages come in a few sizes, each four times the one before, so that an idle channel costs 4 KiB and a busy one fills
//! pages of 1 MiB. Their bytes are cut from chunks of 2 MiB that ask for huge pages, and are handed out again when the
//! last reader has let go of them.
//!
//! Promises: what the chains of all channels use stays within the budget ([`PagePool::take`] refuses above it), but for two
//! small pages a channel, without which it could never go on;
//! pages that left their chain and are only held by readers never count against writers, and are counted apart, so that
//! readers above the cap get copies.

use std::collections::VecDeque;
use std::sync::Arc;

use zerocopy::FromZeros;

use crate::io::{AlignedBuf, BLOCK_SIZE};
use crate::segment::record::IndexRecord;
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::sync::{Mutex, UnsafeCell};

/// Payload bytes of a page, by class.
pub const CLASS_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Index records a page has room for, by class: one for every 32 payload bytes.
pub const CLASS_SLOTS: [usize; 5] = [128, 512, 2048, 8192, 32768];

/// Bytes of a chunk that pages are cut from: one huge page.
const CHUNK_BYTES: usize = 2 << 20;

/// How big a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// One of [`CLASS_BYTES`].
    Class(u8),
    /// For a payload or batch that fits no class: made for it, not recycled.
    Exact {
        /// Payload bytes.
        bytes: usize,
        /// Index records.
        slots: usize,
    },
}

impl PageSize {
    /// Payload bytes, whole blocks.
    pub fn bytes(self) -> usize {
        match self {
            Self::Class(class) => CLASS_BYTES[usize::from(class)],
            Self::Exact { bytes, .. } => bytes.next_multiple_of(BLOCK_SIZE),
        }
    }

    /// Index records.
    pub fn slots(self) -> usize {
        match self {
            Self::Class(class) => CLASS_SLOTS[usize::from(class)],
            Self::Exact { slots, .. } => slots,
        }
    }

    /// The smallest class with room for this much, or a size of its own.
    pub fn for_content(bytes: usize, slots: usize, at_least_class: u8) -> Self {
        for class in usize::from(at_least_class)..CLASS_BYTES.len() {
            if bytes <= CLASS_BYTES[class] && slots <= CLASS_SLOTS[class] {
                return Self::Class(class as u8);
            }
        }
        Self::Exact { bytes, slots }
    }

    /// What a page of this size takes from the budget, bytes: payload, records and marks.
    pub fn cost(self) -> usize {
        self.bytes() + self.slots() * 24
    }
}

/// The memory of one page: a block-aligned piece of a chunk, and its records and marks.
#[derive(Debug)]
pub struct PageMemory {
    /// Keeps the payload bytes.
    pub chunk: Arc<AlignedBuf>,
    /// Where in it, bytes.
    pub offset: usize,
    /// One per slot. Old content if recycled.
    pub records: Box<[UnsafeCell<IndexRecord>]>,
    /// One per slot, all zero.
    pub marks: Box<[AtomicU32]>,
}

impl PageMemory {
    fn new(chunk: Arc<AlignedBuf>, offset: usize, slots: usize) -> Self {
        Self {
            chunk,
            offset,
            records: (0..slots).map(|_| UnsafeCell::new(IndexRecord::new_zeroed())).collect(),
            marks: (0..slots).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

#[derive(Debug, Default)]
struct FreeList {
    /// Used before, with records and marks.
    pages: VecDeque<PageMemory>,
    /// Never used.
    pieces: Vec<(Arc<AlignedBuf>, usize)>,
}

/// Counts pages against a budget and keeps the memory of those that are done with.
#[derive(Debug)]
pub struct PagePool {
    budget_bytes: usize,
    held_bytes_max: usize,
    chained_bytes: AtomicUsize,
    held_bytes: AtomicUsize,
    /// Channels that have had a page.
    users: AtomicUsize,
    free: Mutex<[FreeList; CLASS_BYTES.len()]>,
}

impl PagePool {
    /// A pool whose chained pages take at most `budget_bytes`, and which asks readers to copy when they hold more than
    /// `held_bytes_max` of pages that have left their chain.
    pub fn new(budget_bytes: usize, held_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            budget_bytes,
            held_bytes_max,
            chained_bytes: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            free: Mutex::new(Default::default()),
        })
    }

    /// Takes a page's worth from the budget, or says no.
    ///
    /// A page of its own size is granted whenever at least half of the budget is free, however big it is: otherwise a
    /// payload above the budget could never be stored.
    pub fn take(&self, size: PageSize) -> bool {
        let cost = size.cost();
        let oversize = matches!(size, PageSize::Exact { .. });
        self.chained_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let fits = used + cost <= self.budget_bytes || (oversize && used <= self.budget_bytes / 2);
                fits.then_some(used + cost)
            })
            .is_ok()
    }

    /// Takes a page's worth even above the budget: what a channel needs to go on at all.
    pub fn take_anyway(&self, size: PageSize) {
        self.chained_bytes.fetch_add(size.cost(), Ordering::Relaxed);
    }

    /// The page left its chain; if readers hold it, it counts as held from now on.
    pub fn unchain(&self, size: PageSize) {
        self.chained_bytes.fetch_sub(size.cost(), Ordering::Relaxed);
        self.held_bytes.fetch_add(size.cost(), Ordering::Relaxed);
    }

    /// The last reference to a page that had left its chain is gone.
    pub fn release_held(&self, size: PageSize) {
        self.held_bytes.fetch_sub(size.cost(), Ordering::Relaxed);
    }

    /// Gives back what [`PagePool::take`] gave for a page that never was in a chain, or whose chain is gone.
    pub fn release_chained(&self, size: PageSize) {
        self.chained_bytes.fetch_sub(size.cost(), Ordering::Relaxed);
    }

    /// Whether readers hold so much that they should copy.
    pub fn readers_should_copy(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) > self.held_bytes_max
    }

    /// A channel takes its first page.
    pub fn join(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// A channel that had pages is gone.
    pub fn leave(&self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
    }

    /// What one of the channels may have without making memory short for the others, bytes: a quarter of the budget, shared
    /// evenly.
    pub fn share_bytes(&self) -> usize {
        self.budget_bytes / (4 * self.users.load(Ordering::Relaxed).max(1))
    }

    /// The budget, bytes.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// Bytes of pages in chains, and of those that only readers hold.
    pub fn used_bytes(&self) -> (usize, usize) {
        (self.chained_bytes.load(Ordering::Relaxed), self.held_bytes.load(Ordering::Relaxed))
    }

    /// Share of the budget that chained pages use, in percent.
    pub fn used_percent(&self) -> usize {
        self.chained_bytes.load(Ordering::Relaxed).saturating_mul(100) / self.budget_bytes.max(1)
    }

    /// Memory for a page of this size. The payload bytes are not zeroed if recycled.
    pub fn memory(&self, size: PageSize) -> PageMemory {
        let PageSize::Class(class) = size else {
            return PageMemory::new(Arc::new(AlignedBuf::new(size.bytes().max(BLOCK_SIZE))), 0, size.slots());
        };
        let bytes = CLASS_BYTES[usize::from(class)];
        let mut free = self.free.lock().expect("no panic while the lock is held");
        let list = &mut free[usize::from(class)];
        if let Some(page) = list.pages.pop_back() {
            return page;
        }
        if list.pieces.is_empty() {
            let chunk = Arc::new(AlignedBuf::new(CHUNK_BYTES));
            list.pieces.extend((0..CHUNK_BYTES).step_by(bytes).map(|offset| (chunk.clone(), offset)));
        }
        let (chunk, offset) = list.pieces.pop().expect("just filled");
        drop(free);
        PageMemory::new(chunk, offset, size.slots())
    }

    /// Takes memory back. The caller has set the marks to zero.
    pub fn recycle(&self, size: PageSize, memory: PageMemory) {
        if let PageSize::Class(class) = size {
            let mut free = self.free.lock().expect("no panic while the lock is held");
            free[usize::from(class)].pages.push_back(memory);
        }
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    #[test]
    fn refuses_above_the_budget_and_grants_again_after_release() {
        let size = PageSize::Class(0);
        let pool = PagePool::new(size.cost() * 2, 0);
        assert!(pool.take(size));
        assert!(pool.take(size));
        assert!(!pool.take(size));
        pool.unchain(size);
        assert!(pool.take(size), "a page that only readers hold does not count against writers");
    }

    #[test]
    fn held_pages_ask_readers_to_copy() {
        let size = PageSize::Class(1);
        let pool = PagePool::new(1 << 20, size.cost());
        assert!(pool.take(size) && pool.take(size));
        pool.unchain(size);
        assert!(!pool.readers_should_copy());
        pool.unchain(size);
        assert!(pool.readers_should_copy());
        pool.release_held(size);
        assert!(!pool.readers_should_copy());
    }

    #[test]
    fn pieces_of_a_chunk_do_not_overlap_and_come_back() {
        let pool = PagePool::new(1 << 30, 0);
        let size = PageSize::Class(3);
        let pieces: Vec<PageMemory> = (0..9).map(|_| pool.memory(size)).collect();
        for (i, a) in pieces.iter().enumerate() {
            for b in &pieces[i + 1..] {
                assert!(!Arc::ptr_eq(&a.chunk, &b.chunk) || a.offset.abs_diff(b.offset) >= size.bytes());
            }
        }
        let last = pieces.into_iter().next_back().unwrap();
        let (chunk, offset) = (last.chunk.clone(), last.offset);
        pool.recycle(size, last);
        let again = pool.memory(size);
        assert!(Arc::ptr_eq(&again.chunk, &chunk) && again.offset == offset);
    }

    #[test]
    fn the_share_is_even() {
        let pool = PagePool::new(64 << 20, 0);
        assert_eq!(pool.share_bytes(), 16 << 20);
        (0..1000).for_each(|_| pool.join());
        assert_eq!(pool.share_bytes(), (64 << 20) / 4000);
        (0..998).for_each(|_| pool.leave());
        assert_eq!(pool.share_bytes(), 8 << 20);
    }

    #[test]
    fn content_that_fits_no_class_gets_a_page_of_its_own() {
        assert_eq!(PageSize::for_content(100, 1, 0), PageSize::Class(0));
        assert_eq!(PageSize::for_content(100, 1, 2), PageSize::Class(2));
        assert_eq!(PageSize::for_content(5000, 1, 0), PageSize::Class(1));
        assert_eq!(PageSize::for_content(0, 1000, 0), PageSize::Class(2));
        let big = PageSize::for_content((1 << 20) + 1, 1, 0);
        assert_eq!(big.bytes(), (1 << 20) + BLOCK_SIZE);
    }
}
