//! What a shard does to a tail at rest: it ends a segment ahead of time, holds appends up, and cuts a suffix off.
//!
//! ```text
//!  open --hold--> paused (appends line up) --all is written--> reset --> open, at an earlier end
//! ```
//!
//! Promises: nothing that was reserved is lost by a pause; after a reset the sequences from the new end on are given again,
//! and [`Tail::resets`] tells readers to look whether they have seen some of those.
//!
//! Unsafe code: the publisher's cell, under its lock as in [`super`], and a page that is filled before anybody has it.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::page::{Page, PageEnd, PageStart};
use super::pool::PageSize;
use super::{
    CLASS_CLOSED, CLASS_NONE, CLASS_PAUSED, DIRTY, LOCK, NOTE, Refusal, Refused, Tail, TailLimits, TailStart, Word,
};
use crate::ids::Seq;
use crate::sync::atomic::Ordering;

impl Tail {
    /// Whether the next reservation gets the `expected` sequence. `Ok(false)`: the word has changed, look again. The page is
    /// looked up in the chain: its first sequence cannot be read through the ring before something in it is reserved.
    #[cold]
    pub(super) fn is_next(&self, expected: Seq, word: &mut Word, newly_dirty: bool) -> Result<bool, Refused> {
        let next = {
            let chain = self.chain.lock().expect("no panic while the lock is held");
            let seen = self.word.load(Ordering::Acquire);
            if seen != word.0 {
                *word = Word(seen);
                return Ok(false);
            }
            let page = chain.back().expect("what fits has a page");
            Seq(page.start().first_seq.0 + word.count() as u64)
        };
        match next == expected {
            true => Ok(true),
            false => Err(Refused { refusal: Refusal::OtherSeq(next), newly_dirty }),
        }
    }

    /// Where segments end from now on.
    pub fn set_limits(&self, limits: TailLimits) {
        self.limits.segment_bytes.store(limits.segment_bytes, Ordering::Relaxed);
        self.limits.segment_records.store(limits.segment_records, Ordering::Relaxed);
    }

    /// Bytes of dat and records after which a segment ends.
    pub fn segment_sizes(&self) -> (u64, u64) {
        let bytes = self.limits.segment_bytes.load(Ordering::Relaxed);
        (bytes.into(), self.limits.segment_records.load(Ordering::Relaxed))
    }

    /// How often a suffix was cut off. A reader that stands behind such a cut has seen events that are gone.
    #[inline]
    pub fn resets(&self) -> u32 {
        self.published.resets.load(Ordering::Acquire)
    }

    /// Ends the present segment, if there is something in it: what is appended from now on lies in the next one. Says
    /// whether the channel was put on its shard's list, as [`Tail::append_at`] does.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] while too many pages wait to be written, [`Refusal::Closed`].
    pub fn end_segment(&self) -> Result<bool, Refusal> {
        self.begin_page(None)
    }

    /// The same, and holds appends up from then on, until [`Tail::reset`] or [`Tail::resume`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] while too many pages wait to be written. A closed tail is at rest already.
    pub fn pause(&self) -> Result<bool, Refusal> {
        self.begin_page(Some(CLASS_PAUSED))
    }

    /// Begins a segment with a small page.
    fn begin_page(&self, class: Option<u64>) -> Result<bool, Refusal> {
        let mut growth = self.grow.lock().expect("no panic while the lock is held");
        let mut chain = self.chain.lock().expect("no panic while the lock is held");
        let mut old = Word(self.word.load(Ordering::Acquire));
        if old.class() == CLASS_CLOSED && class.is_none() {
            return Err(Refusal::Closed);
        }
        let current = chain.back().cloned();
        let page_no = current.as_ref().map_or(0, |page| page.start().page_no + 1);
        self.check_room(&chain, page_no)?;
        let size = PageSize::Class(0);
        let mut page: Option<Arc<Page>> = None;
        loop {
            let class_after = match old.class() {
                CLASS_CLOSED => CLASS_CLOSED,
                before => class.unwrap_or(if before == CLASS_PAUSED { CLASS_PAUSED } else { 0 }),
            };
            let start = match &current {
                Some(page) => self.start_after(page, old, size),
                None => PageStart { first_seq: growth.origin.next, ..PageStart::default() },
            };
            let segment_first = current.as_ref().map_or(growth.origin.segment_first, |page| page.start().segment_first);
            if start.first_seq == segment_first {
                // Nothing is in it: it stays, and with it what of its page is left.
                let same =
                    Word::new(old.0 >> (64 - super::PAGE_BITS), class_after, old.count() as u64, old.bytes() as u64);
                let next = if class.is_none() { old } else { same };
                match self.word.compare_exchange(old.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Ok(false),
                    Err(seen) => {
                        old = Word(seen);
                        continue;
                    }
                }
            }
            let start = PageStart { segment_first: start.first_seq, dat_start: 0, prefix: 0, page_no, ..start };
            let made = page.get_or_insert_with(|| {
                self.pool.take_anyway(size);
                Arc::new(Page::new(&self.pool, size, PageStart::default()))
            });
            Arc::get_mut(made).expect("not shared yet").place(start, &[]);
            self.ring[(page_no % super::RING_PAGES) as usize].store(Arc::as_ptr(made).cast_mut(), Ordering::Release);
            let next = Word::new(page_no, class_after, 0, 0);
            match self.word.compare_exchange(old.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(seen) => old = Word(seen),
            }
        }
        growth.origin.dat_tail = bytes::Bytes::new();
        chain.push_back(page.expect("made in the loop"));
        drop(chain);
        match current {
            None => self.pool.join(),
            Some(current) => current.close(PageEnd { slots: old.count() as u32, bytes: old.bytes() as u32 }),
        }
        Ok(self.publish())
    }

    /// Lets appends in again after [`Tail::pause`]: they begin with a page of their own.
    pub fn resume(&self) {
        let _grow = self.grow.lock().expect("no panic while the lock is held");
        let old = Word(self.word.load(Ordering::Acquire));
        if old.class() == CLASS_PAUSED {
            let chain = self.chain.lock().expect("no panic while the lock is held");
            let class = match chain.back().map(|page| page.size()) {
                None => CLASS_NONE,
                Some(PageSize::Class(class)) => u64::from(class),
                Some(PageSize::Exact { .. }) => super::CLASS_EXACT,
            };
            let page_no = old.0 >> (64 - super::PAGE_BITS);
            let next = Word::new(page_no, class, old.count() as u64, old.bytes() as u64);
            // Nobody else changes the word of a paused tail but `close`, which waits for the lock.
            self.word.store(next.0, Ordering::Release);
        }
    }

    /// The first page in memory.
    pub fn front(&self) -> Option<PageStart> {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        chain.front().map(|page| page.start())
    }

    /// First sequence and end of each segment that has pages in memory.
    pub fn segments(&self) -> Vec<(Seq, Seq)> {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        let mut segments: Vec<(Seq, Seq)> = Vec::new();
        for start in chain.iter().map(|page| page.start()) {
            if segments.last().is_none_or(|(first, _)| *first != start.segment_first) {
                if let Some(last) = segments.last_mut() {
                    last.1 = start.segment_first;
                }
                segments.push((start.segment_first, Seq(u64::MAX)));
            }
        }
        segments
    }

    /// Goes on where `start` says, which may lie before the present end. Appends are let in again, unless the tail was
    /// closed; times go on where they were.
    ///
    /// # Panics
    ///
    /// Unless the tail is paused or closed, and everything that was reserved is published.
    pub fn reset(&self, start: TailStart) {
        assert!(self.is_settled(), "a tail is reset at rest");
        let mut growth = self.grow.lock().expect("no panic while the lock is held");
        let mut chain = self.chain.lock().expect("no panic while the lock is held");
        let class = Word(self.word.load(Ordering::Acquire)).class();
        assert!(matches!(class, CLASS_PAUSED | CLASS_CLOSED), "a tail is reset at rest");
        self.lock_publisher();
        self.publication.publisher.with_mut(|publisher| {
            // SAFETY: LOCK is held, as by a publisher; nothing that is reserved is left to publish.
            let publisher = unsafe { &mut *publisher };
            publisher.page = std::ptr::null();
            publisher.slot = 0;
            publisher.seq = start.next.0;
        });
        for slot in self.ring.iter() {
            slot.store(std::ptr::null_mut(), Ordering::Release);
        }
        self.publication.page_no.store(0, Ordering::Release);
        let class = if class == CLASS_CLOSED { CLASS_CLOSED } else { CLASS_NONE };
        self.word.store(Word::new(0, class, 0, 0).0, Ordering::Release);
        if !chain.is_empty() {
            self.pool.leave();
        }
        let pages = std::mem::take(&mut *chain);
        // The mark first: who sees the new count of resets finds it.
        self.published.seq.store(start.next.0, Ordering::Release);
        growth.origin = start;
        self.published.resets.fetch_add(1, Ordering::AcqRel);
        drop(chain);
        let before = self.publication.state.fetch_and(!(LOCK | NOTE), Ordering::AcqRel);
        debug_assert!(before & LOCK != 0, "the lock was held");
        pages.iter().for_each(|page| page.unchain());
        self.readers.wake_all();
    }

    /// Bytes of the events from this one on, with their records; from the beginning of its page, if that is in memory.
    pub fn bytes_since(&self, seq: Seq) -> u64 {
        let chain = self.chain.lock().expect("no panic while the lock is held");
        let after = chain.partition_point(|page| page.start().first_seq <= seq);
        let (Some(page), Some(last)) = (after.checked_sub(1).map(|i| &chain[i]).or(chain.front()), chain.back()) else {
            return 0;
        };
        let word = Word(self.word.load(Ordering::Acquire));
        let (from, to) = (page.start(), last.start());
        let bytes = to.byte_base + word.bytes() as u64 - u64::from(to.prefix);
        let events = to.first_seq.0 + word.count() as u64 - from.first_seq.0;
        bytes - from.byte_base + events * size_of::<crate::segment::record::IndexRecord>() as u64
    }

    /// Drops the events from `end` on, of a tail that keeps its pages for good, and lets appends in again.
    ///
    /// # Panics
    ///
    /// As [`Tail::reset`].
    pub fn cut(&self, end: Seq) {
        let page = self.page_of(end).filter(|page| page.start().first_seq <= end);
        let page = match page {
            Some(page) if page.start().first_seq == end => {
                end.0.checked_sub(1).and_then(|last| self.page_of(Seq(last)))
            }
            page => page,
        };
        let Some(page) = page.filter(|page| page.start().first_seq < end) else {
            return self.reset(TailStart { next: end, segment_first: end, ..TailStart::default() });
        };
        assert!(self.is_settled(), "a tail is cut at rest");
        let kept = self.copy_of(&page, (end.0 - page.start().first_seq.0) as usize);
        let _grow = self.grow.lock().expect("no panic while the lock is held");
        let mut chain = self.chain.lock().expect("no panic while the lock is held");
        self.lock_publisher();
        let (start, bytes) = (page.start(), kept.ready((end.0 - page.start().first_seq.0) as usize - 1));
        let slots = (end.0 - start.first_seq.0) as usize;
        self.publication.publisher.with_mut(|publisher| {
            // SAFETY: LOCK is held, as by a publisher; nothing that is reserved is left to publish.
            let publisher = unsafe { &mut *publisher };
            publisher.page = Arc::as_ptr(&kept);
            publisher.slot = slots;
            publisher.seq = end.0;
        });
        self.ring[(start.page_no % super::RING_PAGES) as usize].store(Arc::as_ptr(&kept).cast_mut(), Ordering::Release);
        self.publication.page_no.store(start.page_no, Ordering::Release);
        let class = match (Word(self.word.load(Ordering::Acquire)).class(), kept.size()) {
            (CLASS_CLOSED, _) => CLASS_CLOSED,
            (_, PageSize::Class(class)) => u64::from(class),
            (_, PageSize::Exact { .. }) => super::CLASS_EXACT,
        };
        let bytes = u64::from(bytes.expect("copied slots are ready"));
        while chain.back().is_some_and(|last| last.start().page_no >= start.page_no) {
            chain.pop_back().expect("there is a last").unchain();
        }
        chain.push_back(kept);
        self.published.seq.store(end.0, Ordering::Release);
        self.published.resets.fetch_add(1, Ordering::AcqRel);
        // Appends are let in from here on, and count as behind the cut.
        self.word.store(Word::new(start.page_no, class, slots as u64, bytes).0, Ordering::Release);
        drop(chain);
        // One may have left its publication to the holder of the lock.
        let before = self.publication.state.fetch_and(!LOCK, Ordering::AcqRel);
        if before & NOTE != 0 {
            self.publish();
        }
        self.readers.wake_all();
    }

    /// A page that is not closed, with the first slots of another one.
    fn copy_of(&self, page: &Arc<Page>, slots: usize) -> Arc<Page> {
        let end_of = |slot: usize| page.ready(slot).expect("published slots are ready");
        let (start, bytes) = (page.start(), end_of(slots - 1));
        let size = PageSize::for_content(bytes as usize, slots, 0);
        self.pool.take_anyway(size);
        let mut copy = Page::new(&self.pool, size, PageStart::default());
        copy.place(start, page.published_bytes(0..start.prefix as usize));
        let mut from = start.prefix;
        for slot in 0..slots {
            let end = end_of(slot);
            let payload = page.published_bytes(from as usize..end as usize);
            // SAFETY: nobody else has the page yet.
            unsafe { copy.fill(slot, from as usize, payload, page.record(slot)) };
            copy.mark(slot, end as usize, slot + 1 < slots && page.continues(slot));
            from = end;
        }
        // SAFETY: as above; all slots are ready.
        unsafe { copy.publish(slots, bytes) };
        Arc::new(copy)
    }

    /// From now on what is published is the shard's to write: the channel becomes persistent. Puts it on the shard's list;
    /// the caller has to do the same.
    pub fn bind_to_shard(&self) {
        self.lock_publisher();
        // Under the lock: every publication sees either all of this or none.
        self.limits.bounded.store(true, Ordering::Relaxed);
        let before = self.publication.state.fetch_and(!LOCK, Ordering::AcqRel);
        self.publication.state.fetch_or(DIRTY, Ordering::AcqRel);
        if before & NOTE != 0 {
            self.publish();
        }
    }

    fn lock_publisher(&self) {
        while self.publication.state.fetch_or(LOCK, Ordering::AcqRel) & LOCK != 0 {
            crate::sync::spin();
        }
    }
}
