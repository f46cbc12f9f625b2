//! How much of a channel lies on disk: for its statistics.
//!
//! Known from what the shard tells, not asked of the file system: space that was allocated ahead of an active segment's end is
//! not counted.

use super::OnDisk;
use crate::ids::Seq;
use crate::io::BLOCK_SIZE;
use crate::segment::block::RECORDS_PER_BLOCK;

/// One segment's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize {
    /// First sequence.
    pub first: Seq,
    /// Bytes of its dat; for the active one those that were written, whole blocks.
    pub dat_bytes: u32,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Bytes of both files, whole blocks.
    pub disk_bytes: u64,
}

impl OnDisk {
    /// Says how many bytes the dat of a sealed segment has.
    pub fn set_dat_size(&self, first: Seq, dat_size: u32) {
        if let Some(segment) = self.lock().segments.iter_mut().find(|segment| segment.first == first) {
            segment.dat_size = Some(dat_size);
        }
    }

    /// Says up to where the active segment's dat was written.
    pub fn set_dat_done(&self, bytes: u32) {
        self.lock().dat_done = bytes;
    }

    /// The segments, ascending; the last is the active one.
    pub fn sizes(&self) -> Vec<SegmentSize> {
        let inner = self.lock();
        let size = |segment: &super::SegmentRef| {
            let end = segment.end.unwrap_or(inner.idx_done.max(segment.first));
            let dat_bytes = segment.dat_size.unwrap_or(inner.dat_done);
            let records = (end.0 - segment.first.0) as usize;
            // A sealed one has its last, short block, and the footer.
            let blocks = match segment.end {
                Some(_) => records.div_ceil(RECORDS_PER_BLOCK) + 1,
                None => records / RECORDS_PER_BLOCK,
            };
            let disk_bytes = u64::from(dat_bytes).next_multiple_of(BLOCK_SIZE as u64) + (blocks * BLOCK_SIZE) as u64;
            SegmentSize { first: segment.first, dat_bytes, sealed: segment.end.is_some(), disk_bytes }
        };
        inner.segments.iter().map(size).collect()
    }
}
