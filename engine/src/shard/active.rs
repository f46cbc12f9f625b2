//! A channel as its shard knows it: how far it is committed, written, durable, and destaged.
//!
//! ```text
//!   dat, idx (destaged)  <=  written (journaled)  <=  at (in a commit)  <=  published
//! ```
//!
//! Owned by the shard's thread alone.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::handle::Slot;
use super::retention::RetentionState;
use crate::channel::Channel;
use crate::ids::{Lsn, Seq};
use crate::io::{BLOCK_SIZE, File};
use crate::read::offload::Offloaded;
use crate::segment::block::RECORDS_PER_BLOCK;
use crate::segment::time_block::BlockTimes;
use crate::store::checkpoint::SegmentState;
use crate::tail::page::{Page, PageStart};

/// A position in a channel: an event's sequence, and where the bytes before it end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Sequence of the next event.
    pub seq: Seq,
    /// Page in which it lies or will lie.
    pub page_no: u64,
    /// Its slot there.
    pub slot: usize,
    /// Bytes of the page before it.
    pub byte: usize,
    /// Dat bytes of the channel before it, since the store was opened.
    pub bytes_total: u64,
    /// First sequence of the segment that the event before it belongs to.
    pub segment_first: Seq,
}

/// Space allocated ahead in a file, which grows step by step.
///
/// A direct write that spans two extents of the file system goes, on ext4, to a kernel worker of the ring. So writes end at
/// the seams: where a step begins, or an extent within it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Where it ends, bytes.
    pub end: u64,
    /// Ascending.
    seams: Vec<u64>,
}

impl Space {
    /// Where a write of these bytes should end: at a seam, or at the end of the space, if it would go beyond.
    pub fn cut(&self, from: u64, to: u64) -> u64 {
        let after = self.seams.partition_point(|seam| *seam <= from);
        let seam = self.seams.get(after).copied().unwrap_or(u64::MAX);
        let end = if from < self.end { self.end } else { u64::MAX };
        to.min(seam).min(end)
    }

    /// Another step was allocated, with these seams in it. One within a block, as file systems with smaller blocks have, is passed
    /// over: blocks are written whole.
    pub fn grow(&mut self, end: u64, within: Vec<u64>) {
        let between_blocks = within.into_iter().filter(|seam| seam.is_multiple_of(BLOCK_SIZE as u64));
        self.seams.extend([self.end].into_iter().chain(between_blocks));
        self.end = end;
    }
}

/// The idx and the dat of a segment.
#[derive(Debug)]
pub struct FilePair {
    /// Index blocks.
    pub idx: Arc<dyn File>,
    /// Payloads.
    pub dat: Arc<dyn File>,
    /// Bytes of META that were written with them.
    pub meta_bytes: u64,
}

/// The segment that blocks are destaged to.
#[derive(Debug)]
pub struct ActiveSegment {
    /// First sequence.
    pub first: Seq,
    /// Open files, once a block was written.
    pub idx: Option<Arc<dyn File>>,
    /// See `idx`.
    pub dat: Option<Arc<dyn File>>,
    /// Both, while they are being opened or made.
    pub opening: Option<Offloaded<io::Result<FilePair>>>,
    /// Space allocated ahead.
    pub idx_space: Space,
    /// See `idx_space`.
    pub dat_space: Space,
    /// Whether blocks were written since the last flush.
    pub idx_dirty: bool,
    /// See `idx_dirty`.
    pub dat_dirty: bool,
    /// Running hash over the index blocks that were composed.
    pub idx_hash: u32,
    /// When its index blocks begin, for the end of the file.
    pub times: BlockTimes,
    /// Whether `times` has all blocks since the segment began.
    pub times_complete: bool,
    /// Bytes of dat, once the segment is complete.
    pub dat_size: Option<u32>,
}

impl ActiveSegment {
    /// A segment without files yet.
    pub fn new(first: Seq) -> Self {
        Self {
            first,
            idx: None,
            dat: None,
            opening: None,
            idx_space: Space::default(),
            dat_space: Space::default(),
            idx_dirty: false,
            dat_dirty: false,
            idx_hash: 0,
            times: BlockTimes::default(),
            times_complete: true,
            dat_size: None,
        }
    }
}

/// Which channels are destaged first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestageTurn {
    /// It only makes room, or goes into a checkpoint.
    InOrder,
    /// Somebody waits for it, or soon will.
    First,
}

/// A seal under way.
#[derive(Debug)]
pub enum Sealing {
    /// Not yet.
    No,
    /// The last block and the footer are being written; then this is the idx file's size.
    Writing {
        /// Size of the idx file with its footer, bytes.
        idx_size: u64,
        /// End of the segment's events.
        end: Seq,
    },
    /// Flushes under way.
    Flushing {
        /// How many.
        left: usize,
        /// End of the segment's events.
        end: Seq,
    },
}

/// See the module's text.
#[derive(Debug)]
pub struct Active {
    /// The shared half.
    pub channel: Arc<Channel>,
    /// Its place in the table.
    pub slot: Slot,
    /// Next event to commit.
    pub at: Position,
    /// Its page, once that was looked up.
    pub at_page: Option<Arc<Page>>,
    /// Whether it waits to be collected.
    pub queued: bool,
    /// Whether it waits for its dat file before it can be collected.
    pub deferred: bool,
    /// Whether the journal has yet to be told of the channel.
    pub untold: bool,
    /// Events below are in commits whose writes have ended.
    pub written: Position,
    /// Events below are in commits that were submitted to become durable.
    pub promised: Seq,
    /// One more than its last commit.
    pub lsn: Lsn,
    /// Page of the next block to destage.
    pub dat_page: u64,
    /// Its offset there, whole blocks.
    pub dat_byte: usize,
    /// Dat bytes of the channel that were destaged, since the store was opened; looked at when it is destaged.
    pub destaged_total: u64,
    /// Whether a write to dat is in flight.
    pub dat_busy: bool,
    /// First record of the next index block.
    pub idx_next: Seq,
    /// Whether a write to idx is in flight.
    pub idx_busy: bool,
    /// Records below are in index blocks on disk.
    pub idx_done: Seq,
    /// Records below have been copied to the stub.
    pub stubbed: Seq,
    /// Where it waits to be destaged, if it does.
    pub destage_turn: Option<DestageTurn>,
    /// Whether blocks are to be destaged however few they are.
    pub force_destage: bool,
    /// Whether its META was found or made since it was opened.
    pub has_meta: bool,
    /// The segment that blocks go to.
    pub segment: ActiveSegment,
    /// Its seal.
    pub sealing: Sealing,
    /// Every segment of the channel, the active one last.
    pub segments: Vec<SegmentState>,
    /// Whether there were commits since the last checkpoint looked.
    pub changed: bool,
    /// The unfinished block of dat of a reopened channel, as long as it is not on disk.
    pub recovered_tail: Bytes,
    /// What its limits go by.
    pub retention: RetentionState,
    /// Events of a batch over several channels, which go into one commit: the first and the end.
    pub group: Option<(Seq, Seq)>,
    /// Time of the last event whose record is in an index block on disk; at first, of the last event at all.
    pub last_time_us: u64,
}

impl Active {
    /// A channel that goes on at `next`, in segment `segment_first`.
    pub fn new(channel: Arc<Channel>, slot: Slot, next: Seq, segment: ActiveSegment, lsn: Lsn) -> Self {
        let in_segment = next.0 - segment.first.0;
        let block = in_segment / RECORDS_PER_BLOCK as u64 * RECORDS_PER_BLOCK as u64;
        let idx_next = Seq(segment.first.0 + block);
        let at = Position { seq: next, segment_first: segment.first, ..Position::default() };
        Self {
            channel,
            slot,
            at,
            at_page: None,
            queued: false,
            deferred: false,
            untold: false,
            written: at,
            promised: next,
            lsn,
            dat_page: 0,
            dat_byte: 0,
            destaged_total: 0,
            dat_busy: false,
            idx_next,
            idx_busy: false,
            idx_done: idx_next,
            stubbed: next,
            destage_turn: None,
            force_destage: false,
            has_meta: false,
            segment,
            sealing: Sealing::No,
            segments: Vec::new(),
            changed: false,
            recovered_tail: Bytes::new(),
            retention: RetentionState::default(),
            group: None,
            last_time_us: 0,
        }
    }

    /// A channel that was in memory before: its events lie in pages, from this one on, which begins a segment.
    pub fn begin_at(&mut self, page: PageStart) {
        assert!(page.first_seq == page.segment_first && page.dat_start == 0, "the first page begins a segment");
        self.at.page_no = page.page_no;
        self.at.bytes_total = page.byte_base;
        self.written = self.at;
        self.dat_page = page.page_no;
        self.destaged_total = page.byte_base;
    }

    /// The page of the next event to commit, if there is one.
    pub fn look_up_page(&mut self) -> Option<Arc<Page>> {
        if self.at_page.as_ref().is_none_or(|page| page.page_no() != self.at.page_no) {
            self.at_page = self.channel.tail.page(self.at.page_no);
        }
        self.at_page.clone()
    }

    /// Tells readers up to where dat was written.
    pub fn tell_dat_done(&self) {
        let (Some(page), Some(persistence)) = (self.channel.tail.page(self.dat_page), self.channel.persistence())
        else {
            return;
        };
        persistence.on_disk.set_dat_done(page.start().dat_start + self.dat_byte as u32);
    }

    /// Whether dat is open, and allocated up to the end of this page.
    pub fn dat_is_ready_for(&self, page: &Page) -> bool {
        let end = u64::from(page.start().dat_start) + page.size().bytes() as u64;
        self.segment.first == page.start().segment_first
            && self.segment.dat.is_some()
            && self.segment.dat_space.end >= end
    }

    /// Whether whole blocks, or the rest of a page that is over, could be written to dat now.
    pub fn has_blocks_to_write(&self) -> bool {
        let over = self.written.page_no > self.dat_page;
        let blocks =
            self.written.page_no == self.dat_page && self.written.byte / BLOCK_SIZE > self.dat_byte / BLOCK_SIZE;
        (over || blocks) && !self.dat_busy && self.segment.opening.is_none()
    }

    /// Whole blocks of dat of the page that is destaged now, which are written to the journal: `(from, to)`, and whether
    /// the page is complete with them.
    pub fn dat_ready(&self, page_end: Option<usize>) -> (usize, usize, bool) {
        if self.written.page_no < self.dat_page {
            return (self.dat_byte, self.dat_byte, false);
        }
        let complete = self.written.page_no > self.dat_page
            || page_end.is_some_and(|end| self.written.page_no == self.dat_page && self.written.byte == end);
        let to = match (complete, page_end) {
            (true, Some(end)) => end.next_multiple_of(BLOCK_SIZE),
            _ => self.written.byte / BLOCK_SIZE * BLOCK_SIZE,
        };
        (self.dat_byte, to.max(self.dat_byte), complete)
    }
}

#[cfg(test)]
mod tests {
    use super::Space;

    #[test]
    fn writes_end_at_seams() {
        let mut space = Space::default();
        // Counted in blocks.
        let cut = |space: &Space, from: u64, to: u64| space.cut(from * 4096, to * 4096) / 4096;
        space.grow(10 * 4096, Vec::new());
        let cuts = [(0, 5), (0, 10), (5, 15), (10, 15)].map(|(from, to)| cut(&space, from, to));
        assert_eq!(cuts, [5, 10, 10, 15]);
        space.grow(30 * 4096, vec![20 * 4096]);
        let cuts = [(5, 15), (10, 35), (0, 40), (15, 20), (19, 40), (20, 40)].map(|(from, to)| cut(&space, from, to));
        assert_eq!(cuts, [10, 20, 10, 20, 20, 30]);
        assert_eq!(cut(&space, 30, 40), 40);
    }

    /// ext4 has blocks of 1024 bytes on a small device: its extents meet anywhere.
    #[test]
    fn a_write_never_ends_within_a_block() {
        let mut space = Space::default();
        space.grow(8 * 4096, vec![1024, 3 * 4096 - 1024, 5 * 4096]);
        assert_eq!(space.cut(0, 8 * 4096), 5 * 4096);
        assert_eq!(space.cut(5 * 4096, 8 * 4096), 8 * 4096);
    }
}
