//! Where a shard's journal is being written: segment, offset, what comes next.
//!
//! Owned by the shard. Positions only; the writes go through the shard's driver.

use std::collections::VecDeque;
use std::sync::Arc;

use super::format::{SegmentContext, SegmentHeader};
use crate::ids::{Lsn, SegmentNo};
use crate::io::{BLOCK_SIZE, File};

/// A roll under way.
#[derive(Debug)]
pub enum Rolling {
    /// None.
    No,
    /// Decided; waits until nothing is in flight, and for a ready segment.
    Wanted,
    /// The next segment's header is being written.
    Header(Next),
    /// The roll entry, which names the next segment, is being committed.
    Entry(Next),
}

/// The segment that comes next.
#[derive(Debug)]
pub struct Next {
    /// Its header, as written.
    pub header: SegmentHeader,
    /// Its file.
    pub file: Arc<dyn File>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Journal {
    header: SegmentHeader,
    context: SegmentContext,
    file: Arc<dyn File>,
    offset: u64,
    segment_bytes: u64,
    /// Segments of this run that may still be needed, the present one last.
    live: VecDeque<(SegmentNo, Lsn)>,
    /// Bytes committed since the store was opened.
    total: u64,
    /// The roll, if one is under way.
    pub rolling: Rolling,
    has_rolled: bool,
}

impl Journal {
    /// A journal that goes on in this segment, behind what has been written there.
    pub fn new(header: SegmentHeader, file: Arc<dyn File>, offset: u64, segment_bytes: u64) -> Self {
        assert!(offset.is_multiple_of(BLOCK_SIZE as u64) && offset >= BLOCK_SIZE as u64, "commits begin at a block");
        Self {
            context: header.context(),
            live: VecDeque::from([(header.number, header.first_lsn)]),
            header,
            file,
            offset,
            segment_bytes,
            total: 0,
            rolling: Rolling::No,
            has_rolled: false,
        }
    }

    /// Number of the present segment.
    pub fn number(&self) -> SegmentNo {
        self.header.number
    }

    /// Header of the present segment.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// What its commits are checked against.
    pub fn context(&self) -> &SegmentContext {
        &self.context
    }

    /// File of the present segment.
    pub fn file(&self) -> Arc<dyn File> {
        self.file.clone()
    }

    /// Where the next commit will lie, bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Size of a segment, bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes left in the present segment.
    pub fn bytes_left(&self) -> u64 {
        self.segment_bytes - self.offset
    }

    /// Bytes committed since the store was opened.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Less than this is not worth a commit: the segment is rolled.
    pub fn room_wanted(&self) -> usize {
        (self.segment_bytes / 16).clamp(2 * BLOCK_SIZE as u64, 64 << 10) as usize
    }

    /// Whether a roll is decided of which nothing is written yet.
    pub fn waits_to_roll(&self) -> bool {
        matches!(self.rolling, Rolling::Wanted)
    }

    /// Whether commits have to wait for a roll.
    pub fn is_rolling(&self) -> bool {
        !matches!(self.rolling, Rolling::No)
    }

    /// Takes `len` bytes for a commit. Returns where they lie.
    pub fn advance(&mut self, len: u64) -> (Arc<dyn File>, u64) {
        let offset = self.offset;
        assert!(offset + len <= self.segment_bytes, "a commit fits its segment");
        self.offset += len;
        self.total += len;
        (self.file.clone(), offset)
    }

    /// Goes on in the next segment.
    pub fn switch(&mut self, next: Next) {
        assert!(next.header.number > self.header.number, "numbers grow");
        self.context = next.header.context();
        self.live.push_back((next.header.number, next.header.first_lsn));
        self.header = next.header;
        self.file = next.file;
        self.offset = BLOCK_SIZE as u64;
        self.rolling = Rolling::No;
        self.has_rolled = true;
    }

    /// Whether this is not the segment that the store was opened with.
    pub fn has_rolled(&self) -> bool {
        self.has_rolled
    }

    /// The segment in which this commit lies.
    pub fn segment_of(&self, lsn: Lsn) -> SegmentNo {
        let after = self.live.partition_point(|(_, first)| *first <= lsn);
        self.live[after.max(1) - 1].0
    }

    /// Whether there are segments before the present one.
    pub fn has_older(&self) -> bool {
        self.live.len() > 1
    }

    /// Whether the oldest segment is not the present one, and ends before `lsn`.
    pub fn ends_below(&self, lsn: Lsn) -> bool {
        self.live.get(1).is_some_and(|(_, next_first)| *next_first <= lsn)
    }

    /// Takes a segment from the list that ends before `lsn`, if there is one.
    pub fn pop_below(&mut self, lsn: Lsn) -> Option<SegmentNo> {
        self.ends_below(lsn).then(|| self.live.pop_front().expect("there are two").0)
    }
}
