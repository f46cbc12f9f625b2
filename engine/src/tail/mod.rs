//! The tail of a channel: the newest events, in memory, in a chain of pages.
//!
//! ```text
//!  reserve (one word) --> fill (copy) --> mark --> publish (one at a time, in order)
//!                                                     |--> readers and subscriptions: `published`
//!                                                     |--> the shard: dirty list
//! ```
//!
//! **Reserve.** One 64-bit word holds the page's number, its class, the events and the bytes given out. A producer adds
//! its own by compare-and-swap. While its slot is not published, its page cannot leave the chain; so the word is all that
//! a producer needs, and no count of references is touched.
//!
//! **Publish.** Whoever has marked a slot tries to become the publisher; if there is one, it leaves a note and goes. The
//! publisher moves `published` over all that is ready, in order, and looks again when there was a note.
//!
//! Promises: sequences are dense; a reader below `published` sees each event whole; times never go backwards; a batch
//! becomes visible at once or in order, never with a gap.
//! What it leaves to others: what becomes durable (the shard), and what a refusal means for the caller (`append`).
#![allow(unsafe_code)]

mod follow;
pub mod page;
pub mod pool;
pub mod sizes;
pub mod sleepers;
pub mod waiters;

#[cfg(all(test, redex_loom))]
mod loom_tests;
mod suffix;
#[cfg(all(test, not(redex_loom)))]
mod tests;

use std::collections::VecDeque;
use std::ptr::null_mut;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_utils::CachePadded;

use self::page::{Page, PageEnd, PageStart};
use self::pool::{PagePool, PageSize};
use self::waiters::{Registration, Waiters};
use crate::ids::Seq;
use crate::io::BLOCK_SIZE;
use crate::segment::record::{INLINE_SIZE_MAX, IndexRecord};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, UnsafeCell};

/// Pages of a channel that may wait to be written; more and appends have to wait.
pub const RING_PAGES: u64 = 32;
/// Events that one reservation, and so one page, can hold.
pub const PAGE_EVENTS_MAX: usize = (1 << COUNT_BITS) - 1;
/// Bytes that one reservation, and so one page, can hold.
pub const PAGE_BYTES_MAX: usize = (1 << BYTES_BITS) - BLOCK_SIZE;
/// A page that is full so soon is followed by a bigger one; two ticks of the clock of event times at least.
const PAGE_FILLED_FAST_US: u64 = 8_000;
/// One that lasts longer is followed by a smaller one.
const PAGE_FILLED_SLOWLY_US: u64 = 100_000;

const BYTES_BITS: u32 = 27;
const _: () = assert!(PAGE_BYTES_MAX < crate::segment::record::PAYLOAD_STORED_MAX as usize);
const COUNT_BITS: u32 = 20;
const CLASS_BITS: u32 = 4;
const PAGE_BITS: u32 = 64 - BYTES_BITS - COUNT_BITS - CLASS_BITS;
/// A page made for its first content: full from the start.
const CLASS_EXACT: u64 = 13;
/// Appends have to wait.
const CLASS_PAUSED: u64 = 12;
/// No page yet.
const CLASS_NONE: u64 = 14;
/// No more appends.
const CLASS_CLOSED: u64 = 15;

/// Somebody is publishing.
const LOCK: u32 = 1;
/// The channel is on its shard's list.
const DIRTY: u32 = 2;
/// A reader waits for the next event.
const READERS: u32 = 4;
/// Something became ready while somebody was publishing.
const NOTE: u32 = 8;

/// The reservation word, taken apart.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn new(page_no: u64, class: u64, count: u64, bytes: u64) -> Self {
        let page = page_no & ((1 << PAGE_BITS) - 1);
        Self(bytes | count << BYTES_BITS | class << (BYTES_BITS + COUNT_BITS) | page << (64 - PAGE_BITS))
    }
    fn bytes(self) -> usize {
        (self.0 & ((1 << BYTES_BITS) - 1)) as usize
    }
    fn count(self) -> usize {
        (self.0 >> BYTES_BITS & ((1 << COUNT_BITS) - 1)) as usize
    }
    fn class(self) -> u64 {
        self.0 >> (BYTES_BITS + COUNT_BITS) & ((1 << CLASS_BITS) - 1)
    }
    fn page(self) -> usize {
        ((self.0 >> (64 - PAGE_BITS)) % RING_PAGES) as usize
    }
    fn capacity(self) -> (usize, usize) {
        let class = self.class() as usize;
        if class < pool::CLASS_BYTES.len() { (pool::CLASS_BYTES[class], pool::CLASS_SLOTS[class]) } else { (0, 0) }
    }
    fn fits(self, count: usize, bytes: usize) -> bool {
        let (bytes_max, slots_max) = self.capacity();
        self.bytes() + bytes <= bytes_max && self.count() + count <= slots_max
    }
    fn with(self, count: usize, bytes: usize) -> Self {
        Self(self.0 + bytes as u64 + ((count as u64) << BYTES_BITS))
    }
}

/// Why nothing was reserved. The channel is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many pages wait to be written, or the pool's budget is used up. Try again when some were.
    Full,
    /// The next event would not have the expected sequence, but this one.
    OtherSeq(Seq),
    /// The channel was closed, or its shard has failed.
    Closed,
}

/// Nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Whether the channel was put on its shard's list all the same: by publishing what others had made ready.
    pub newly_dirty: bool,
}

/// What was reserved and filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Sequence of the first event.
    pub first: Seq,
    /// Count of the channel's dat bytes after the last, since the store was opened.
    pub bytes_after: u64,
    /// Whether these events completed another 256 KiB of their page, or 16,384 events: a good moment to tell the shard.
    pub crossed: bool,
    /// Whether the channel was put on its shard's list by this.
    pub newly_dirty: bool,
    /// [`Tail::resets`] at that moment: a suffix that is cut off later may have these events.
    pub resets: u32,
}

/// Where a channel goes on when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailStart {
    /// Sequence of the next event.
    pub next: Seq,
    /// First sequence of the active segment.
    pub segment_first: Seq,
    /// Bytes in the active segment's dat.
    pub dat_size: u32,
    /// The last `dat_size % BLOCK_SIZE` of them.
    pub dat_tail: Bytes,
    /// Time of the last event.
    pub last_time_us: u64,
}

/// Bounds of a segment that the tail keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailLimits {
    /// Bytes of dat after which a new segment begins.
    pub segment_bytes: u32,
    /// Records after which a new segment begins.
    pub segment_records: u64,
    /// Whether pages leave the chain once written (a persistent channel), or stay for good (in memory).
    pub bounded: bool,
}

/// [`TailLimits`], which may change; nothing else is ordered by them.
struct LiveLimits {
    segment_bytes: AtomicU32,
    segment_records: AtomicU64,
    bounded: AtomicBool,
}

impl From<TailLimits> for LiveLimits {
    fn from(limits: TailLimits) -> Self {
        Self {
            segment_bytes: AtomicU32::new(limits.segment_bytes),
            segment_records: AtomicU64::new(limits.segment_records),
            bounded: AtomicBool::new(limits.bounded),
        }
    }
}

impl LiveLimits {
    #[inline]
    fn bounded(&self) -> bool {
        self.bounded.load(Ordering::Relaxed)
    }
}

struct Growth {
    /// Where the first page begins. Its tail goes into that page.
    origin: TailStart,
    /// When the newest page was made.
    grown_at_us: u64,
}

struct Publisher {
    /// The page in which the next event to publish lies or will lie; null before the first.
    page: *const Page,
    slot: usize,
    seq: u64,
    time_us: u64,
}

/// What each publication touches, on one cache line.
struct Publication {
    state: AtomicU32,
    /// Number of the page in which the publisher stands: those below may leave the chain.
    page_no: AtomicU64,
    publisher: UnsafeCell<Publisher>,
}

/// See the module's text.
pub struct Tail {
    word: CachePadded<AtomicU64>,
    publication: CachePadded<Publication>,
    published: CachePadded<Published>,
    ring: CachePadded<[AtomicPtr<Page>; RING_PAGES as usize]>,
    /// On a line of its own, like what is above: the shard takes this lock while producers publish.
    chain: CachePadded<Mutex<VecDeque<Arc<Page>>>>,
    grow: Mutex<Growth>,
    readers: Waiters,
    pool: Arc<PagePool>,
    limits: LiveLimits,
}

/// What readers look at.
struct Published {
    /// Events below can be read.
    seq: AtomicU64,
    /// How often a suffix was cut off; see [`Tail::resets`].
    resets: AtomicU32,
}

// SAFETY: `publisher` is touched only by the one that set LOCK, and the pages that it and `ring` point to are in `chain`
// as long as something in them is not published (`Tail::unchain_front` keeps to that).
unsafe impl Send for Tail {}
// SAFETY: as above.
unsafe impl Sync for Tail {}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("published", &self.published()).finish_non_exhaustive()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // The newest page never leaves the chain.
        if !self.chain.get_mut().expect("no panic while the lock is held").is_empty() {
            self.pool.leave();
        }
    }
}

impl Tail {
    /// A tail that goes on where `start` says.
    pub fn new(start: TailStart, limits: TailLimits, pool: Arc<PagePool>) -> Self {
        assert_eq!(start.dat_tail.len(), start.dat_size as usize % BLOCK_SIZE, "the tail is the unfilled block");
        assert!(start.segment_first <= start.next, "a segment begins before its end");
        Self {
            word: CachePadded::new(AtomicU64::new(Word::new(0, CLASS_NONE, 0, 0).0)),
            publication: CachePadded::new(Publication {
                state: AtomicU32::new(0),
                page_no: AtomicU64::new(0),
                publisher: UnsafeCell::new(Publisher {
                    page: std::ptr::null(),
                    slot: 0,
                    seq: start.next.0,
                    time_us: start.last_time_us,
                }),
            }),
            published: CachePadded::new(Published { seq: AtomicU64::new(start.next.0), resets: AtomicU32::new(0) }),
            ring: CachePadded::new(std::array::from_fn(|_| AtomicPtr::new(null_mut()))),
            chain: CachePadded::new(Mutex::new(VecDeque::new())),
            grow: Mutex::new(Growth { origin: start, grown_at_us: 0 }),
            readers: Waiters::default(),
            pool,
            limits: limits.into(),
        }
    }

    /// Events below this can be read.
    #[inline]
    pub fn published(&self) -> Seq {
        Seq(self.published.seq.load(Ordering::Acquire))
    }

    /// As [`Tail::append_at`], at any sequence.
    #[cfg(test)]
    pub fn append(&self, payload: &[u8], time_us: u64) -> Result<Reserved, Refused> {
        self.append_at(payload, time_us, None)
    }

    /// Appends one event, if it gets the `expected` sequence; a payload of up to [`INLINE_SIZE_MAX`] bytes goes into its
    /// record.
    #[inline]
    pub fn append_at(&self, payload: &[u8], time_us: u64, expected: Option<Seq>) -> Result<Reserved, Refused> {
        if payload.len() <= INLINE_SIZE_MAX {
            let record = IndexRecord::inline(payload, time_us);
            return self.append_with((1, 0), time_us, expected, |page, slot, offset| {
                // SAFETY: `append_with` hands each reservation to one closure.
                unsafe { page.fill(slot, offset, &[], record) };
                page.expect_more(slot, offset, 0);
                page.mark(slot, offset, false);
            });
        }
        let crc = crate::checksum::crc32c(payload);
        self.append_with((1, payload.len()), time_us, expected, |page, slot, offset| {
            let dat_offset = page.start().dat_start + offset as u32;
            let record = IndexRecord::in_dat(dat_offset, payload.len() as u32, crc, time_us);
            // SAFETY: as above.
            unsafe { page.fill(slot, offset, payload, record) };
            page.expect_more(slot, offset + payload.len(), payload.len());
            page.mark(slot, offset + payload.len(), false);
        })
    }

    /// As [`Tail::append_batch_at`], at any sequence.
    #[cfg(test)]
    pub fn append_batch<P: AsRef<[u8]>>(&self, payloads: &[P], time_us: u64) -> Result<Reserved, Refused> {
        self.append_batch_at(payloads, time_us, None)
    }

    /// Appends several events with consecutive sequences, in one page, visible together, if the first gets the `expected`
    /// sequence.
    ///
    /// The caller keeps to [`PAGE_EVENTS_MAX`] and [`PAGE_BYTES_MAX`], and gives at least one.
    pub fn append_batch_at<P: AsRef<[u8]>>(
        &self,
        payloads: &[P],
        time_us: u64,
        expected: Option<Seq>,
    ) -> Result<Reserved, Refused> {
        let dat_len = |payload: &P| match payload.as_ref().len() {
            len if len <= INLINE_SIZE_MAX => 0,
            len => len,
        };
        let bytes: usize = payloads.iter().map(dat_len).sum();
        assert!(
            !payloads.is_empty() && payloads.len() <= PAGE_EVENTS_MAX && bytes <= PAGE_BYTES_MAX,
            "checked by the caller"
        );
        self.append_with((payloads.len(), bytes), time_us, expected, |page, slot, offset| {
            let mut at = offset;
            for (i, payload) in payloads.iter().enumerate() {
                let payload = payload.as_ref();
                if payload.len() <= INLINE_SIZE_MAX {
                    // SAFETY: as in `append`.
                    unsafe { page.fill(slot + i, at, &[], IndexRecord::inline(payload, time_us)) };
                } else {
                    let dat_offset = page.start().dat_start + at as u32;
                    let crc = crate::checksum::crc32c(payload);
                    let record = IndexRecord::in_dat(dat_offset, payload.len() as u32, crc, time_us);
                    // SAFETY: as in `append`.
                    unsafe { page.fill(slot + i, at, payload, record) };
                    at += payload.len();
                }
            }
            // The first one last: the publisher stops at it until all are ready.
            let mut end = at;
            for (i, payload) in payloads.iter().enumerate().rev() {
                page.mark(slot + i, end, i + 1 < payloads.len());
                end -= dat_len(payload);
            }
        })
    }

    /// Reserves `count` slots and `bytes` bytes in one page, if the first gets the `expected` sequence, lets `fill` fill
    /// and mark them, and publishes.
    #[inline]
    fn append_with(
        &self,
        (count, bytes): (usize, usize),
        time_us: u64,
        expected: Option<Seq>,
        fill: impl FnOnce(&Page, usize, usize),
    ) -> Result<Reserved, Refused> {
        let mut word = Word(self.word.load(Ordering::Relaxed));
        let mut newly_dirty = false;
        let at = loop {
            if !word.fits(count, bytes) {
                let grown = self.grow(count, bytes, time_us, expected);
                let grown = grown.map_err(|refusal| Refused { refusal, newly_dirty });
                let (at, dirty) = grown?;
                newly_dirty |= dirty;
                if let Some(at) = at {
                    break at;
                }
                word = Word(self.word.load(Ordering::Relaxed));
                continue;
            }
            if let Some(expected) = expected
                && !self.is_next(expected, &mut word, newly_dirty)?
            {
                continue;
            }
            let next = word.with(count, bytes);
            match self.word.compare_exchange_weak(word.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break word,
                Err(seen) => word = Word(seen),
            }
        };
        let page = self.ring[at.page()].load(Ordering::Acquire);
        // SAFETY: slot `at.count()` of this page is reserved and not published, so the page is in the chain.
        let page = unsafe { &*page };
        // Before the fill, which marks the slot: from then on others may publish it, and the page may go.
        let start = page.start();
        // Before the fill, too: a tail is reset only when all that was reserved is published.
        let resets = self.resets();
        fill(page, at.count(), at.bytes());
        let end = at.bytes() + bytes;
        newly_dirty |= self.publish();
        Ok(Reserved {
            first: Seq(start.first_seq.0 + at.count() as u64),
            bytes_after: start.byte_base + (end - start.prefix as usize) as u64,
            crossed: end >> 18 != at.bytes() >> 18 || (at.count() + count) >> 14 != at.count() >> 14,
            newly_dirty,
            resets,
        })
    }

    /// Adds a page with room for so much. For content that fits no class the page is made full, and the place in it
    /// is returned; with it, what [`Tail::publish`] said.
    #[cold]
    fn grow(
        &self,
        count: usize,
        bytes: usize,
        time_us: u64,
        expected: Option<Seq>,
    ) -> Result<(Option<Word>, bool), Refusal> {
        let mut growth = self.grow.lock().expect("no panic while the lock is held");
        let word = Word(self.word.load(Ordering::Acquire));
        match word.class() {
            CLASS_CLOSED => return Err(Refusal::Closed),
            CLASS_PAUSED => return Err(Refusal::Full),
            _ => {}
        }
        if word.fits(count, bytes) {
            return Ok((None, false));
        }
        let mut chain = self.chain.lock().expect("no panic while the lock is held");
        let current = chain.back().cloned();
        let page_no = current.as_ref().map_or(0, |page| page.start().page_no + 1);
        self.check_room(&chain, page_no)?;
        let dat_tail = if current.is_none() { std::mem::take(&mut growth.origin.dat_tail) } else { Bytes::new() };
        let lasted_us = time_us.saturating_sub(growth.grown_at_us);
        let size = self.next_size(current.as_deref(), lasted_us, count, bytes + dat_tail.len());
        let size = match self.pool.take(size) {
            true => size,
            // A page is closed, and can be destaged, only when the next one is there: so there must be one. An empty one, which
            // ended a segment, does not count: the page before it stays until something behind is written.
            false if chain.len() < 2 || chain.len() == 2 && word.count() == 0 => {
                let size = PageSize::for_content(bytes + dat_tail.len(), count, 0);
                self.pool.take_anyway(size);
                size
            }
            false => return Err(Refusal::Full),
        };
        let mut page = Arc::new(Page::new(&self.pool, size, PageStart::default()));
        self.ring[(page_no % RING_PAGES) as usize].store(Arc::as_ptr(&page).cast_mut(), Ordering::Release);
        let mut old = Word(self.word.load(Ordering::Acquire));
        let at = loop {
            if old.class() == CLASS_CLOSED {
                if current.is_none() {
                    growth.origin.dat_tail = dat_tail;
                }
                return Err(Refusal::Closed);
            }
            let (start, laid) = match &current {
                Some(page) => (self.start_after(page, old, size), &[][..]),
                None => self.first_start(&growth.origin, &dat_tail, size),
            };
            if expected.is_some_and(|expected| expected != start.first_seq) {
                if current.is_none() {
                    growth.origin.dat_tail = dat_tail;
                }
                return Err(Refusal::OtherSeq(start.first_seq));
            }
            Arc::get_mut(&mut page).expect("not shared yet").place(start, laid);
            let at = start.prefix as u64;
            let next = match size {
                PageSize::Class(class) => Word::new(page_no, u64::from(class), 0, at),
                PageSize::Exact { .. } => Word::new(page_no, CLASS_EXACT, count as u64, at + bytes as u64),
            };
            match self.word.compare_exchange(old.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break Word::new(page_no, CLASS_EXACT, 0, at),
                Err(seen) => old = Word(seen),
            }
        };
        growth.grown_at_us = time_us;
        chain.push_back(page);
        drop(chain);
        if current.is_none() {
            self.pool.join();
        }
        if let Some(current) = current {
            current.close(PageEnd { slots: old.count() as u32, bytes: old.bytes() as u32 });
        }
        let newly_dirty = self.publish();
        Ok((matches!(size, PageSize::Exact { .. }).then_some(at), newly_dirty))
    }

    /// Whether another page may be added.
    fn check_room(&self, chain: &VecDeque<Arc<Page>>, page_no: u64) -> Result<(), Refusal> {
        let full = self.limits.bounded() && chain.len() as u64 >= RING_PAGES;
        // The ring's slot may be used again only when the publisher has left the page that stood there.
        let slot_in_use =
            page_no >= RING_PAGES && self.publication.page_no.load(Ordering::Acquire) <= page_no - RING_PAGES;
        if full || slot_in_use { Err(Refusal::Full) } else { Ok(()) }
    }

    /// A channel that fills its pages fast gets bigger ones, one that takes its time smaller ones: with many channels their
    /// open pages alone would use up the budget.
    fn next_size(&self, current: Option<&Page>, lasted_us: u64, count: usize, bytes: usize) -> PageSize {
        let top = pool::CLASS_BYTES.len() as u8 - 1;
        let class = match current.map(Page::size) {
            None => 0,
            Some(PageSize::Class(class)) if lasted_us <= PAGE_FILLED_FAST_US => (class + 1).min(top),
            Some(PageSize::Class(class)) if lasted_us > PAGE_FILLED_SLOWLY_US => class.saturating_sub(1),
            Some(PageSize::Class(class)) => class,
            Some(PageSize::Exact { .. }) => 1,
        };
        let class = match self.pool.used_percent() {
            0..=50 => class,
            51..=75 => {
                let share = self.pool.share_bytes();
                class.min((0..=top).rfind(|class| PageSize::Class(*class).cost() <= share).unwrap_or(0))
            }
            _ => class.min(1),
        };
        // Small segments want small pages, since a page lies in one segment.
        let segment_bytes = self.limits.segment_bytes.load(Ordering::Relaxed) as usize;
        let fitting = pool::CLASS_BYTES.iter().rposition(|size| *size * 4 <= segment_bytes);
        let class = class.min(fitting.unwrap_or(0) as u8);
        PageSize::for_content(bytes, count, class)
    }

    fn first_start<'p>(&self, origin: &TailStart, prefix: &'p [u8], size: PageSize) -> (PageStart, &'p [u8]) {
        let start = PageStart {
            page_no: 0,
            first_seq: origin.next,
            segment_first: origin.segment_first,
            dat_start: origin.dat_size - prefix.len() as u32,
            byte_base: 0,
            prefix: prefix.len() as u32,
        };
        if self.segment_is_full(&start, size) {
            let first_seq = start.first_seq;
            (PageStart { first_seq, segment_first: first_seq, ..PageStart::default() }, &[])
        } else {
            (start, prefix)
        }
    }

    fn start_after(&self, page: &Page, end: Word, size: PageSize) -> PageStart {
        let before = page.start();
        let first_seq = Seq(before.first_seq.0 + end.count() as u64);
        let start = PageStart {
            page_no: before.page_no + 1,
            first_seq,
            segment_first: before.segment_first,
            dat_start: before.dat_start + end.bytes().next_multiple_of(BLOCK_SIZE) as u32,
            byte_base: before.byte_base + (end.bytes() - before.prefix as usize) as u64,
            prefix: 0,
        };
        if self.segment_is_full(&start, size) {
            PageStart { segment_first: first_seq, dat_start: 0, ..start }
        } else {
            start
        }
    }

    fn segment_is_full(&self, start: &PageStart, size: PageSize) -> bool {
        let begun = start.dat_start > 0 || start.first_seq > start.segment_first;
        let bytes = u64::from(start.dat_start) + size.bytes() as u64;
        let records = start.first_seq.0 - start.segment_first.0 + size.slots() as u64;
        let bytes_max = u64::from(self.limits.segment_bytes.load(Ordering::Relaxed));
        begun && (bytes > bytes_max || records > self.limits.segment_records.load(Ordering::Relaxed))
    }

    /// Publishes what is ready, or leaves a note for the one who is at it. Says whether the channel was put on the
    /// shard's list: then the caller has to do that.
    #[inline]
    fn publish(&self) -> bool {
        let mut newly_dirty = false;
        while self.lock_or_note() {
            self.publish_ready();
            let bounded = self.limits.bounded();
            let after = if bounded { DIRTY } else { 0 };
            let before = self.publication.state.swap(after, Ordering::AcqRel);
            newly_dirty |= bounded && before & DIRTY == 0;
            if before & READERS != 0 {
                self.readers.wake_all();
            }
            if before & NOTE == 0 {
                break;
            }
        }
        newly_dirty
    }

    /// Becomes the publisher, or leaves a note that the present one cannot miss.
    #[inline]
    fn lock_or_note(&self) -> bool {
        // Both are read-modify-writes of the word that the publisher swaps when it is done: if the note comes before that
        // swap it sees the note, and with it our marks; if after, we get the lock.
        self.publication.state.fetch_or(LOCK, Ordering::AcqRel) & LOCK == 0
            || self.publication.state.fetch_or(LOCK | NOTE, Ordering::AcqRel) & LOCK == 0
    }

    /// Moves `published` over all that is ready. Only with LOCK.
    #[inline]
    fn publish_ready(&self) {
        self.publication.publisher.with_mut(|publisher| {
            // SAFETY: only the one that set LOCK comes here, and LOCK hands over with AcqRel.
            let publisher = unsafe { &mut *publisher };
            if publisher.page.is_null() {
                publisher.page = self.ring[0].load(Ordering::Acquire);
                if publisher.page.is_null() || Word(self.word.load(Ordering::Acquire)).class() == CLASS_NONE {
                    publisher.page = std::ptr::null();
                    return;
                }
            }
            loop {
                // SAFETY: pages at or above `page_no` stay in the chain.
                let page = unsafe { &*publisher.page };
                let mut end = None;
                while let Some(bytes) = page.ready(publisher.slot) {
                    // SAFETY: ready, not published, and this is the publisher.
                    publisher.time_us = unsafe { page.raise_time(publisher.slot, publisher.time_us) };
                    publisher.slot += 1;
                    publisher.seq += 1;
                    end = Some(bytes);
                }
                if let Some(bytes) = end {
                    // SAFETY: this is the publisher, and the slots were ready.
                    unsafe { page.publish(publisher.slot, bytes) };
                }
                if page.end().is_none_or(|end| end.slots as usize != publisher.slot) {
                    break;
                }
                let next = page.start().page_no + 1;
                publisher.page = self.ring[(next % RING_PAGES) as usize].load(Ordering::Acquire);
                publisher.slot = 0;
                self.publication.page_no.store(next, Ordering::Release);
            }
            self.published.seq.store(publisher.seq, Ordering::Release);
        });
    }

    /// Asks for the cache lines that [`Tail::clear_dirty`] and [`Tail::published`] touch.
    #[inline]
    pub fn expect_look(&self) {
        page::prefetch_for_write((&raw const *self.publication).cast());
        page::prefetch((&raw const *self.published).cast());
    }

    /// Takes the channel off the shard's list. Whatever is published before the next [`Tail::append_at`] that says
    /// `newly_dirty` is seen by the caller afterwards.
    pub fn clear_dirty(&self) {
        self.publication.state.fetch_and(!DIRTY, Ordering::AcqRel);
    }

    /// Puts the channel on the shard's list by hand; `true` if it was not there and the caller has to do it.
    pub fn set_dirty(&self) -> bool {
        self.publication.state.fetch_or(DIRTY, Ordering::AcqRel) & DIRTY == 0
    }

    /// Refuses appends from now on. What was reserved before is still published.
    pub fn close(&self) {
        let _grow = self.grow.lock().expect("no panic while the lock is held");
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let old = Word(word);
            if old.class() == CLASS_CLOSED {
                break;
            }
            let page_no = word >> (64 - PAGE_BITS);
            let closed = Word::new(page_no, CLASS_CLOSED, old.count() as u64, old.bytes() as u64);
            match self.word.compare_exchange(word, closed.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(seen) => word = seen,
            }
        }
        self.readers.wake_all();
    }

    /// Whether appends are refused for good.
    pub fn is_closed(&self) -> bool {
        Word(self.word.load(Ordering::Acquire)).class() == CLASS_CLOSED
    }

    /// Sequence behind everything that has been reserved: what is still being copied is below it, and what was appended by
    /// any call that has returned.
    pub fn reserved_end(&self) -> Seq {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        let reserved = Word(self.word.load(Ordering::Acquire)).count() as u64;
        chain.back().map_or_else(|| self.published(), |page| Seq(page.start().first_seq.0 + reserved))
    }

    /// Whether everything that was reserved is published. Once the tail is closed, and this was true, nothing more comes.
    pub fn is_settled(&self) -> bool {
        self.published() >= self.reserved_end()
    }

    /// Wakes `waker` at the next event. The caller looks at [`Tail::published`] again afterwards.
    pub fn wait_published(&self, registration: &mut Registration, waker: &std::task::Waker) {
        registration.register(&self.readers, 0, waker);
        self.publication.state.fetch_or(READERS, Ordering::AcqRel);
    }

    /// Wakes all that wait for the next event, since something else happened to the channel.
    pub fn wake_readers(&self) {
        self.readers.wake_all();
    }

    /// The page that holds this event, if it is in memory.
    pub fn page_of(&self, seq: Seq) -> Option<Arc<Page>> {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        let after = chain.partition_point(|page| page.start().first_seq <= seq);
        // An empty page shares its first sequence with the next one, which is found first.
        after.checked_sub(1).map(|i| chain[i].clone())
    }

    /// The first event in memory at or after a time, if an earlier one is in memory too; else the first in memory, or the next
    /// event's sequence if there is none.
    pub fn seek_time(&self, time_us: u64) -> Result<Seq, Seq> {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        let first = chain.front().map_or_else(|| self.published(), |page| page.start().first_seq);
        // A page without published events begins where the next one does.
        let begins_before = |at: usize| {
            let page = chain.range(at..).find(|page| page.published_slots() > 0);
            page.is_some_and(|page| page.record(0).time_us() < time_us)
        };
        let (mut from, mut to) = (0, chain.len());
        while from < to {
            let middle = from.midpoint(to);
            if begins_before(middle) { from = middle + 1 } else { to = middle }
        }
        let page = from.checked_sub(1).map(|last| chain[last].clone()).ok_or(first)?;
        drop(chain);
        let records = page.records(0..page.published_slots());
        Ok(Seq(page.start().first_seq.0 + records.partition_point(|record| record.time_us() < time_us) as u64))
    }

    /// Sequence of the first event in memory; the next event's if there is none.
    pub fn first_in_memory(&self) -> Seq {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        chain.front().map_or_else(|| self.published(), |page| page.start().first_seq)
    }

    /// The page with this number, if it is in the chain.
    pub fn page(&self, page_no: u64) -> Option<Arc<Page>> {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        let first = chain.front()?.start().page_no;
        chain.get(usize::try_from(page_no.checked_sub(first)?).ok()?).cloned()
    }

    /// Takes the first page out of the chain, if it is closed, published and the caller says that it is on disk.
    pub fn unchain_front(&self, is_written: impl FnOnce(&Page) -> bool) -> bool {
        let mut chain = self.chain.lock().expect("no panic while the lock is held");
        let Some(front) = chain.front() else { return false };
        let left = front.start().page_no < self.publication.page_no.load(Ordering::Acquire);
        if !left || !is_written(front) {
            return false;
        }
        let page = chain.pop_front().expect("there is a front");
        drop(chain);
        page.unchain();
        true
    }
}
