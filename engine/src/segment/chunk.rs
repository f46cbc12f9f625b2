//! Events that were read together, and a look at each without a copy and without a count of references.
//!
//! Promises: what a chunk shows was checked when it was read. A chunk keeps the memory that its events lie in: a page, a mapped
//! segment, or a buffer.

use std::sync::Arc;

use super::block::{INDEX_BLOCK_SIZE, RECORDS_PER_BLOCK, records_of};
use super::record::{IndexRecord, RecordPlace};
use super::warm::MappedSegment;
use crate::event::{EventRef, EventTime, Payload, RedexEvent};
use crate::ids::Seq;
use crate::tail::page::Page;

/// Consecutive events of a channel, at least one, as [`Scan::next_chunk`](crate::Scan::next_chunk) gives them: up to about a
/// megabyte, or one event that is bigger.
///
/// It keeps the memory that the events lie in; so do not keep many. [`EventRef::to_event`] copies, [`EventChunk::event`] shares.
#[derive(Debug)]
pub struct EventChunk {
    first: Seq,
    count: usize,
    source: Source,
}

/// Payload bytes of some records.
#[derive(Debug)]
pub struct DatBytes {
    /// Where in dat the bytes begin.
    pub base: u32,
    /// The bytes.
    pub bytes: bytes::Bytes,
}

#[derive(Debug)]
enum Source {
    /// Slots of a page, from this one on.
    Page { page: Arc<Page>, slot: usize },
    /// A mapped segment; its first sequence tells where.
    Mapped(Arc<MappedSegment>),
    /// Records from this one on, and their payloads.
    Read { records: Vec<IndexRecord>, from: usize, dat: DatBytes },
}

impl EventChunk {
    /// Published events of a page.
    pub(crate) fn in_page(page: Arc<Page>, first: Seq, count: usize) -> Self {
        let slot = (first.0 - page.start().first_seq.0) as usize;
        Self { first, count, source: Source::Page { page, slot } }
    }

    /// Verified events of a mapped segment.
    pub(crate) fn mapped(segment: Arc<MappedSegment>, first: Seq, count: usize) -> Self {
        Self { first, count, source: Source::Mapped(segment) }
    }

    /// Verified events with these records and payloads.
    pub(crate) fn read(first: Seq, records: Vec<IndexRecord>, dat: DatBytes) -> Self {
        Self { first, count: records.len(), source: Source::Read { records, from: 0, dat } }
    }

    /// Sequence of the first event.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.first.0
    }

    /// Sequence behind the last event.
    #[must_use]
    pub fn end_seq(&self) -> u64 {
        self.first.0 + self.count as u64
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none. A chunk that was handed out has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The events, borrowed, in order.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> EventRefs<'_> {
        let (run, blocks, dat, base): (&[IndexRecord], &[u8], &[u8], u32) = match &self.source {
            Source::Page { page, slot } => {
                let records = page.records(*slot..*slot + self.count);
                (records, &[], page.all_published_bytes(), page.start().dat_start)
            }
            Source::Mapped(segment) => {
                let (run, blocks) = segment.records_from(self.first, self.count);
                (run, blocks, segment.dat_bytes(), 0)
            }
            Source::Read { records, from, dat } => (&records[*from..*from + self.count], &[], &dat.bytes, dat.base),
        };
        EventRefs { left: self.count - run.len(), run: run.iter(), blocks, seq: self.first.0, dat, base }
    }

    /// The `index`-th event, counted from 0; its payload keeps the chunk's memory alive without a copy.
    ///
    /// # Panics
    ///
    /// If there is no such event.
    #[inline]
    #[must_use]
    pub fn event(&self, index: usize) -> RedexEvent {
        assert!(index < self.count, "event {index} of a chunk of {}", self.count);
        let seq = self.first.0 + index as u64;
        match &self.source {
            Source::Page { page, slot } => event_in_page(page, seq, *slot + index),
            Source::Mapped(segment) => segment.event(Seq(seq)),
            Source::Read { records, from, dat } => {
                let record = &records[*from + index];
                let payload = match record.place() {
                    RecordPlace::Inline { bytes, len } => Payload::inline(&bytes[..len]),
                    RecordPlace::Dat { offset, len } => {
                        let at = (offset - dat.base) as usize;
                        Payload::shared(dat.bytes.slice(at..at + len as usize))
                    }
                };
                RedexEvent { seq, payload, time: EventTime(record.time_us()) }
            }
        }
    }

    /// Whether its events were read from a file into memory of its own.
    pub(crate) fn is_from_file(&self) -> bool {
        matches!(self.source, Source::Read { .. })
    }

    /// Leaves out the first `count` events.
    pub(crate) fn skip(&mut self, count: usize) {
        let count = count.min(self.count);
        match &mut self.source {
            Source::Page { slot, .. } => *slot += count,
            Source::Mapped(_) => {}
            Source::Read { from, .. } => *from += count,
        }
        self.first.0 += count as u64;
        self.count -= count;
    }

    /// Leaves out what follows the first `count` events.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.count = self.count.min(count);
    }

    /// The file that was changed by another program after its events had been checked, if that happened: then what the chunk
    /// shows may be wrong.
    pub(crate) fn changed_file(&self) -> Option<String> {
        match &self.source {
            Source::Mapped(segment) => segment.changed_file(),
            Source::Page { .. } | Source::Read { .. } => None,
        }
    }
}

/// An event of a page, with a payload that keeps the page.
#[inline]
pub(crate) fn event_in_page(page: &Arc<Page>, seq: u64, slot: usize) -> RedexEvent {
    let record = page.record(slot);
    let payload = match record.place() {
        RecordPlace::Inline { bytes, len } => Payload::inline(&bytes[..len]),
        RecordPlace::Dat { .. } => {
            let range = page.payload_range(&record).expect("a page has the payloads of its records");
            if page.readers_should_copy() {
                Payload::shared(bytes::Bytes::copy_from_slice(page.published_bytes(range)))
            } else {
                Payload::in_page(page.clone(), range)
            }
        }
    };
    RedexEvent { seq, payload, time: EventTime(record.time_us()) }
}

impl<'c> IntoIterator for &'c EventChunk {
    type Item = EventRef<'c>;
    type IntoIter = EventRefs<'c>;

    fn into_iter(self) -> EventRefs<'c> {
        self.iter()
    }
}

/// The events of an [`EventChunk`], borrowed.
#[derive(Clone, Debug)]
pub struct EventRefs<'c> {
    run: std::slice::Iter<'c, IndexRecord>,
    /// Index blocks behind the run, of which `left` records are wanted.
    blocks: &'c [u8],
    left: usize,
    seq: u64,
    dat: &'c [u8],
    base: u32,
}

impl<'c> EventRefs<'c> {
    fn next_run(&mut self) -> Option<&'c IndexRecord> {
        if self.left == 0 || self.blocks.len() < INDEX_BLOCK_SIZE {
            return None;
        }
        let (block, blocks) = self.blocks.split_at(INDEX_BLOCK_SIZE);
        let run = records_of(block, self.left.min(RECORDS_PER_BLOCK));
        self.left -= run.len();
        self.blocks = blocks;
        self.run = run.iter();
        self.run.next()
    }
}

impl<'c> Iterator for EventRefs<'c> {
    type Item = EventRef<'c>;

    #[inline]
    fn next(&mut self) -> Option<EventRef<'c>> {
        let record = match self.run.next() {
            Some(record) => record,
            None => self.next_run()?,
        };
        let seq = self.seq;
        self.seq += 1;
        let payload = match record.inline_payload() {
            Some(payload) => payload,
            None => dat_payload(record, self.dat, self.base),
        };
        Some(EventRef { seq, payload, time: EventTime(record.time_us()) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.run.len() + self.left;
        (left, Some(left))
    }
}

impl ExactSizeIterator for EventRefs<'_> {}

/// A payload in dat, whose bytes from `base` on are given. It was checked to lie there; if the record is another one by now,
/// since somebody cut the mapped file, it may not: then it is empty, and the reader finds the file changed.
#[inline]
fn dat_payload<'c>(record: &IndexRecord, dat: &'c [u8], base: u32) -> &'c [u8] {
    let RecordPlace::Dat { offset, len } = record.place() else { return &[] };
    let at = offset.wrapping_sub(base) as usize;
    dat.get(at..at + len as usize).unwrap_or_default()
}
