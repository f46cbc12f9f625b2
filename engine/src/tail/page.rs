//! A page: the newest events of a channel, in memory, laid out as the dat file will hold them.
//!
//! A page is written once, front to back, by any number of producers at once, each in the range that it has reserved
//! ([`crate::tail::Tail`] hands out the ranges), and read by anybody below the published mark. It starts at a block
//! boundary of its dat file, so whole blocks go to disk from where they lie.
//!
//! Promises: what [`Page::fill`] wrote is visible to whoever loads the slot's mark with Acquire, and never changes
//! afterwards (but for the one correction of a record's time by the publisher, before publication).
//! What it leaves to others: who may write where, and what is published.
//!
//! Unsafe code: producers write disjoint ranges of one buffer through a shared reference, which only raw pointers can say.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use super::pool::{PageMemory, PagePool, PageSize};
use crate::ids::Seq;
use crate::io::{BLOCK_SIZE, StableBytes};
use crate::segment::record::{IndexRecord, RecordPlace};
#[cfg(not(redex_loom))]
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where a page stands: in the channel, in its segment, and in the count of the channel's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStart {
    /// Number within the chain, from 0; dense.
    pub page_no: u64,
    /// Sequence of the first slot.
    pub first_seq: Seq,
    /// First sequence of the segment that the page belongs to.
    pub segment_first: Seq,
    /// Offset in the dat file of the page's first byte; a multiple of [`BLOCK_SIZE`].
    pub dat_start: u32,
    /// Dat bytes of the channel before this page, since the store was opened; for byte bounds.
    pub byte_base: u64,
    /// Bytes at the start that were there before: the unfilled end of a recovered dat file.
    pub prefix: u32,
}

/// Slots and bytes of a page that nothing more will be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEnd {
    /// Events.
    pub slots: u32,
    /// Bytes, prefix included.
    pub bytes: u32,
}

const OPEN: u64 = u64::MAX;
/// In a mark: the next slot belongs to the same batch.
const CONTINUES: u32 = 1 << 31;

/// One page. Always in an [`Arc`]; its memory returns to the pool with the last reference.
///
/// What never changes is apart from what producers write with each event, and both from the count of references: the
/// shard's core and the producers' would take these cache lines from each other.
#[derive(Debug)]
#[repr(align(64))]
pub struct Page {
    start: PageStart,
    size: PageSize,
    /// A slot's mark is 0 while it is not ready, else one more than the page's bytes up to its end.
    memory: ManuallyDrop<PageMemory>,
    bytes: NonNull<u8>,
    pool: Arc<PagePool>,
    state: PageState,
}

#[derive(Debug)]
#[repr(align(64))]
struct PageState {
    end: AtomicU64,
    /// Slots (high half) and bytes (low half) that are published: never written again.
    published: AtomicU64,
    padded: OnceLock<()>,
    /// Whether the page is in no chain any more.
    unchained: AtomicU32,
}

// SAFETY: the raw pointer leads into `memory`, which the page owns; ranges are written by the one producer that reserved
// them and read only after their mark was loaded with Acquire.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// Makes a page. The caller has taken its size from the pool's budget; it goes back when the page is dropped.
    pub fn new(pool: &Arc<PagePool>, size: PageSize, start: PageStart) -> Self {
        let memory = pool.memory(size);
        // SAFETY: the pool hands out pieces that lie inside their chunk.
        let bytes = unsafe { memory.chunk.raw().add(memory.offset) };
        Self {
            start,
            size,
            memory: ManuallyDrop::new(memory),
            bytes,
            pool: pool.clone(),
            state: PageState {
                end: AtomicU64::new(OPEN),
                published: AtomicU64::new(0),
                padded: OnceLock::new(),
                unchained: AtomicU32::new(0),
            },
        }
    }

    /// Says where the page stands; possible only while nobody else has it.
    pub fn place(&mut self, start: PageStart, prefix: &[u8]) {
        assert_eq!(start.prefix as usize, prefix.len(), "the prefix is what the start says");
        assert!(prefix.len() < BLOCK_SIZE, "a prefix fills no block");
        assert_eq!(start.dat_start as usize % BLOCK_SIZE, 0, "pages start at a block");
        self.start = start;
        // SAFETY: `&mut self`: nobody else sees the memory, which holds at least one block.
        unsafe { std::ptr::copy_nonoverlapping(prefix.as_ptr(), self.bytes.as_ptr(), prefix.len()) };
        self.state.published.store(prefix.len() as u64, Ordering::Relaxed);
    }

    /// Where the page stands.
    pub fn start(&self) -> PageStart {
        self.start
    }

    /// Its number within the chain.
    #[inline]
    pub fn page_no(&self) -> u64 {
        self.start.page_no
    }

    /// Its size.
    pub fn size(&self) -> PageSize {
        self.size
    }

    /// Copies a payload to its reserved place and writes its record; the slot is not ready yet.
    ///
    /// # Safety
    ///
    /// The caller has reserved slot `slot` and the bytes from `offset` on, alone, and has not marked the slot.
    #[inline]
    pub unsafe fn fill(&self, slot: usize, offset: usize, payload: &[u8], record: IndexRecord) {
        debug_assert!(offset + payload.len() <= self.size.bytes());
        if !payload.is_empty() {
            // SAFETY: the range lies in the page (asserted by the reservation) and is the caller's alone.
            unsafe {
                let to = self.bytes.as_ptr().add(offset);
                std::ptr::copy_nonoverlapping(payload.as_ptr(), to, payload.len());
            }
        }
        self.memory.records[slot].with_mut(|cell| {
            // SAFETY: the slot is the caller's alone until it is marked.
            unsafe { *cell = record }
        });
    }

    /// Asks for the cache lines that the events to come will be written to. A page that comes back has been read by the
    /// shard's core, and the publication of each event waits until its stores are done.
    ///
    /// For single events of `len` bytes; within a batch the stores overlap by themselves.
    #[inline]
    pub fn expect_more(&self, slot: usize, end: usize, len: usize) {
        const BYTES_AHEAD: usize = 1024;
        const SLOTS_AHEAD: usize = 64;
        const LINE: usize = 64;
        for ahead in (0..len.min(BYTES_AHEAD)).step_by(LINE) {
            prefetch_for_write(self.bytes.as_ptr().wrapping_add(end + BYTES_AHEAD + ahead));
        }
        prefetch_for_write(self.memory.records.as_ptr().wrapping_add(slot + SLOTS_AHEAD).cast());
        prefetch_for_write(self.memory.marks.as_ptr().wrapping_add(slot + SLOTS_AHEAD).cast());
    }

    /// Asks for the cache lines that tell how far the page is published.
    #[inline]
    pub fn expect_look(&self) {
        prefetch((&raw const *self).cast());
        prefetch((&raw const self.memory).cast());
        prefetch((&raw const self.state).cast());
    }

    /// Asks for the cache lines of an event that is about to be read.
    #[inline]
    pub fn expect_read(&self, slot: usize, byte: usize) {
        prefetch(self.memory.marks.as_ptr().wrapping_add(slot).cast());
        prefetch(self.memory.records.as_ptr().wrapping_add(slot).cast());
        for line in 0..4 {
            prefetch(self.bytes.as_ptr().wrapping_add(byte + line * 64));
        }
    }

    /// Marks a filled slot as ready; `end` is the page's bytes up to its end, and `continues` says whether the next slot
    /// belongs to the same batch.
    #[inline]
    pub fn mark(&self, slot: usize, end: usize, continues: bool) {
        let flag = if continues { CONTINUES } else { 0 };
        self.memory.marks[slot].store((end as u32 + 1) | flag, Ordering::Release);
    }

    /// Whether the slot behind this ready one belongs to the same batch.
    #[inline]
    pub fn continues(&self, slot: usize) -> bool {
        self.memory.marks[slot].load(Ordering::Acquire) & CONTINUES != 0
    }

    /// Bytes up to the end of this slot, if it is ready.
    #[inline]
    pub fn ready(&self, slot: usize) -> Option<u32> {
        let mark = self.memory.marks.get(slot)?.load(Ordering::Acquire);
        (mark != 0).then(|| (mark & !CONTINUES) - 1)
    }

    /// Raises a record's time to `floor_us` if it lies below, and returns the time it has then.
    ///
    /// # Safety
    ///
    /// The slot is ready, not published, and the caller is the one publisher of the channel.
    #[inline]
    pub unsafe fn raise_time(&self, slot: usize, floor_us: u64) -> u64 {
        self.memory.records[slot].with_mut(|cell| {
            // SAFETY: before publication nobody but the publisher looks at a ready slot.
            let record = unsafe { &mut *cell };
            let time_us = record.time_us();
            if time_us < floor_us {
                record.set_time_us(floor_us);
                floor_us
            } else {
                time_us
            }
        })
    }

    /// Says that nothing more comes.
    pub fn close(&self, end: PageEnd) {
        self.state.end.store((u64::from(end.slots) << 32) | u64::from(end.bytes), Ordering::Release);
    }

    /// How much there is, once nothing more comes.
    #[inline]
    pub fn end(&self) -> Option<PageEnd> {
        let end = self.state.end.load(Ordering::Acquire);
        (end != OPEN).then_some(PageEnd { slots: (end >> 32) as u32, bytes: end as u32 })
    }

    /// Says what is published: readers may look at it from now on.
    ///
    /// # Safety
    ///
    /// The caller is the one publisher of the channel, and the first `slots` slots are ready and end at `bytes`.
    #[inline]
    pub unsafe fn publish(&self, slots: usize, bytes: u32) {
        self.state.published.store(((slots as u64) << 32) | u64::from(bytes), Ordering::Release);
    }

    /// The record of a slot, if it is published.
    pub fn published_record(&self, slot: usize) -> Option<IndexRecord> {
        let published = self.state.published.load(Ordering::Acquire) >> 32;
        ((slot as u64) < published).then(|| self.record(slot))
    }

    /// The record of a published slot. Panics if it is not published.
    #[inline]
    pub fn record(&self, slot: usize) -> IndexRecord {
        assert!((slot as u64) < self.state.published.load(Ordering::Acquire) >> 32, "the slot is published");
        self.memory.records[slot].with(|cell| {
            // SAFETY: the slot is published: nobody writes it any more, and the load above saw what was written.
            unsafe { *cell }
        })
    }

    /// The records of published slots, in order. Panics if some are not published.
    #[cfg(not(redex_loom))]
    pub fn records(&self, slots: std::ops::Range<usize>) -> &[IndexRecord] {
        let published = (self.state.published.load(Ordering::Acquire) >> 32) as usize;
        assert!(slots.start <= slots.end && slots.end <= published, "the slots are published");
        let first: *const UnsafeCell<IndexRecord> = self.memory.records[slots.clone()].as_ptr();
        // SAFETY: the cell is transparent over the record; published records are never written again, and the load
        // above saw what was written.
        unsafe { std::slice::from_raw_parts(first.cast::<IndexRecord>(), slots.len()) }
    }

    /// As above, a record at a time, so that loom sees each access. A model is short: what it copies stays.
    #[cfg(redex_loom)]
    pub fn records(&self, slots: std::ops::Range<usize>) -> &[IndexRecord] {
        Box::leak(slots.map(|slot| self.record(slot)).collect())
    }

    /// Shows the records of published slots. Panics if some are not published.
    pub fn with_records<R>(&self, slots: std::ops::Range<usize>, look: impl FnOnce(&[IndexRecord]) -> R) -> R {
        look(self.records(slots))
    }

    /// Slots that are published.
    #[inline]
    pub fn published_slots(&self) -> usize {
        (self.state.published.load(Ordering::Acquire) >> 32) as usize
    }

    /// All bytes below the published mark.
    #[inline]
    pub fn all_published_bytes(&self) -> &[u8] {
        let published = self.state.published.load(Ordering::Acquire) as u32 as usize;
        self.published_bytes(0..published)
    }

    /// Bytes of the page below the published mark. Panics if some are not.
    #[inline]
    pub fn published_bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        let published = self.state.published.load(Ordering::Acquire) as u32 as usize;
        assert!(range.start <= range.end && range.end <= published, "the bytes are published");
        // SAFETY: inside the page, and published bytes are never written again.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().add(range.start), range.len()) }
    }

    /// Bytes that are published, from the page's beginning.
    pub fn published_len(&self) -> usize {
        self.state.published.load(Ordering::Acquire) as u32 as usize
    }

    /// Where the payload of a record lies if this page has all of it.
    #[inline]
    pub fn payload_range(&self, record: &IndexRecord) -> Option<std::ops::Range<usize>> {
        let RecordPlace::Dat { offset, len } = record.place() else { return None };
        let from = offset.checked_sub(self.start.dat_start)? as usize;
        Some(from..from + len as usize)
    }

    /// Whole blocks of the page, for the device, without a copy. Panics if some are neither published nor padding.
    pub fn blocks(self: &Arc<Self>, range: std::ops::Range<usize>) -> StableBytes {
        assert!(range.start.is_multiple_of(BLOCK_SIZE) && range.end.is_multiple_of(BLOCK_SIZE), "whole blocks");
        let published = self.state.published.load(Ordering::Acquire) as u32 as usize;
        let stable = if self.state.padded.get().is_some() { published.next_multiple_of(BLOCK_SIZE) } else { published };
        assert!(range.start < range.end && range.end <= stable, "blocks {range:?} are published up to {stable}");
        // SAFETY: the page owns the memory, and what is published or padded never changes.
        unsafe { StableBytes::new(self.clone(), self.bytes.add(range.start), range.len()) }
    }

    /// Fills the rest of the last block of a page with zeros. Panics unless the page is closed and all of it published.
    pub fn pad(&self) {
        let end = self.end().expect("only closed pages are padded");
        let published = self.state.published.load(Ordering::Acquire);
        assert_eq!(published, (u64::from(end.slots) << 32) | u64::from(end.bytes), "all of it is published");
        self.state.padded.get_or_init(|| {
            let from = end.bytes as usize;
            let to = from.next_multiple_of(BLOCK_SIZE).min(self.size.bytes());
            // SAFETY: nobody reserves bytes of a closed page and nobody reads above its end before this has run; the
            // `OnceLock` lets one thread do it.
            unsafe { std::ptr::write_bytes(self.bytes.as_ptr().add(from), 0, to - from) };
        });
    }

    /// The page has left its chain: from now on only readers hold it.
    pub fn unchain(&self) {
        if self.state.unchained.swap(1, Ordering::Relaxed) == 0 {
            self.pool.unchain(self.size);
        }
    }

    /// Whether readers hold so many old pages that the next one should copy instead.
    pub fn readers_should_copy(&self) -> bool {
        self.pool.readers_should_copy()
    }
}

/// Asks for a cache line that will be read.
#[inline]
pub fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing, and an address that is nobody's does no harm.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for a cache line that will be written.
#[inline]
pub fn prefetch_for_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads and writes nothing, and an address that is nobody's does no harm.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

impl Drop for Page {
    fn drop(&mut self) {
        if self.state.unchained.load(Ordering::Relaxed) == 0 {
            self.pool.release_chained(self.size);
        } else {
            self.pool.release_held(self.size);
        }
        let used = self.end().map_or(self.size.slots(), |end| end.slots as usize);
        for mark in &self.memory.marks[..used] {
            mark.store(0, Ordering::Relaxed);
        }
        // SAFETY: taken once, here; the page is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        self.pool.recycle(self.size, memory);
    }
}
