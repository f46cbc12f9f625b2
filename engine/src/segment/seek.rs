//! The first event at or after a time, among those on disk.
//!
//! Times never decrease within a channel, so each step is a binary search: over the segments by the first times in their
//! footers, which are kept once read; over a footer's samples; then one time block and one index block (a segment of up to 192 index blocks
//! has no time blocks, since each is a sample: there it is the index block alone). So a sealed segment costs its footer once,
//! and two blocks at the most for each search. A segment that has no footer yet, or a damaged one, or was sealed without time blocks,
//! is searched over its index blocks.
//!
//! Of several events with the same time the first is found: what begins at the time that is looked for may have predecessors of that
//! time in the block before.

use std::ops::Range;
use std::sync::Arc;

use super::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block};
use super::footer::{FOOTER_SIZE, Footer};
use super::read::{OnDisk, SegmentFiles};
use super::record::IndexRecord;
use super::time_block::decode_time_block;
use crate::error::ReadError;
use crate::ids::Seq;
use crate::io::{AlignedBuf, BLOCK_SIZE};

/// One block of an idx file, read.
struct Block(AlignedBuf);

impl OnDisk {
    /// Sequence of the first event at or after `time_us`; `limit` if that is no smaller. All events below `limit` are in index
    /// blocks on disk.
    pub fn seek_time(&self, time_us: u64, limit: Seq) -> Result<Seq, ReadError> {
        let segments: Vec<(Seq, Seq)> = self.segment_ranges(limit);
        // The last segment that begins before the time has the event, or the next one begins with it.
        let (mut from, mut to) = (0, segments.len());
        while from < to {
            let middle = from.midpoint(to);
            let (first, end) = segments[middle];
            if self.first_time(first, end)? < time_us { from = middle + 1 } else { to = middle }
        }
        match from.checked_sub(1) {
            None => Ok(segments.first().map_or(limit, |(first, _)| *first)),
            Some(last) => self.seek_in(segments[last], time_us),
        }
    }

    /// In a segment whose first event is before the time: the first event that is not, or the segment's end.
    fn seek_in(&self, (first, end): (Seq, Seq), time_us: u64) -> Result<Seq, ReadError> {
        let files = self.segment_files(first)?;
        let blocks = (end.0 - first.0).div_ceil(RECORDS_PER_BLOCK as u64) as u32;
        let block = match self.footer(&files) {
            Some(footer) if footer.last_time_us < time_us => return Ok(end),
            Some(footer) => {
                let samples = footer.time_index.samples();
                let sample = samples.partition_point(|sample| sample.first_time_us < time_us).saturating_sub(1);
                let range = samples.get(sample).map_or(0, |sample| sample.block)
                    ..samples.get(sample + 1).map_or(blocks, |sample| sample.block);
                match self.times(&files, &footer, sample, range.start) {
                    Some(times) => range.start + last_before(&times, time_us),
                    None => self.search_blocks(&files, range, end, time_us)?,
                }
            }
            None => self.search_blocks(&files, 0..blocks, end, time_us)?,
        };
        let block_first = first.0 + u64::from(block) * RECORDS_PER_BLOCK as u64;
        let bytes = self.read_block(&files, block)?;
        let records = self.records(&files, &bytes, block, end)?;
        let in_block = records.partition_point(|record| record.time_us() < time_us) as u64;
        Ok(Seq(block_first + in_block).min(end))
    }

    /// The last of these blocks that begins before the time; the first of them begins before it.
    fn search_blocks(
        &self,
        files: &SegmentFiles,
        blocks: Range<u32>,
        end: Seq,
        time_us: u64,
    ) -> Result<u32, ReadError> {
        let (mut from, mut to) = (blocks.start, blocks.end.max(blocks.start + 1));
        while to - from > 1 {
            let middle = from.midpoint(to);
            let bytes = self.read_block(files, middle)?;
            let records = self.records(files, &bytes, middle, end)?;
            let begins_before = records.first().is_some_and(|record| record.time_us() < time_us);
            if begins_before { from = middle } else { to = middle }
        }
        Ok(from)
    }

    /// Time of a segment's first event.
    fn first_time(&self, first: Seq, end: Seq) -> Result<u64, ReadError> {
        let files = self.segment_files(first)?;
        if let Some(footer) = self.footer(&files) {
            return Ok(footer.first_time_us);
        }
        if let Some(time_us) = files.first_time_us {
            return Ok(time_us);
        }
        let bytes = self.read_block(&files, 0)?;
        let time_us = self.records(&files, &bytes, 0, end)?.first().map_or(0, IndexRecord::time_us);
        self.keep_first_time(first, time_us);
        Ok(time_us)
    }

    /// A sealed segment's footer, read once. `None` if it has none, or not its own.
    fn footer(&self, files: &SegmentFiles) -> Option<Arc<Footer>> {
        if !files.is_sealed {
            return None;
        }
        if let Some(footer) = &files.footer {
            return footer.clone();
        }
        let footer = read_footer(files, self.place(files.first)).map(Arc::new);
        self.keep_footer(files.first, footer.clone());
        footer
    }

    /// First times of the index blocks from a sample to the next, by its time block.
    fn times(&self, files: &SegmentFiles, footer: &Footer, sample: usize, first_block: u32) -> Option<Vec<u64>> {
        let offset = footer.time_block_offset(sample)?;
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        let read = files.idx.read_at(&mut buf[..BLOCK_SIZE], offset).ok()?;
        decode_time_block(&buf[..read], first_block, self.place(files.first))
    }

    fn read_block(&self, files: &SegmentFiles, block: u32) -> Result<Block, ReadError> {
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        let offset = u64::from(block) * BLOCK_SIZE as u64;
        let read = files.idx.read_at(&mut buf[..BLOCK_SIZE], offset);
        match read {
            Ok(BLOCK_SIZE) => Ok(Block(buf)),
            Ok(read) => {
                let from = files.first.0 + u64::from(block) * RECORDS_PER_BLOCK as u64;
                let (channel, file) = (self.name().clone(), files.idx.path().to_owned());
                let to = from + RECORDS_PER_BLOCK as u64;
                Err(ReadError::Missing { channel, file, offset: offset + read as u64, from, to })
            }
            Err(error) => Err(self.io(files.idx.path(), offset, error)),
        }
    }

    fn records<'b>(
        &self,
        files: &SegmentFiles,
        bytes: &'b Block,
        block: u32,
        end: Seq,
    ) -> Result<&'b [IndexRecord], ReadError> {
        let base = Seq(files.first.0 + u64::from(block) * RECORDS_PER_BLOCK as u64);
        decode_block(&bytes.0[..BLOCK_SIZE], self.place(files.first), base).map_err(|source| ReadError::Index {
            channel: self.name().clone(),
            from: base.0,
            to: (base.0 + RECORDS_PER_BLOCK as u64).min(end.0),
            file: files.idx.path().to_owned(),
            offset: u64::from(block) * BLOCK_SIZE as u64,
            source,
        })
    }
}

/// The footer of an idx file, if it is this segment's.
pub fn read_footer(files: &SegmentFiles, place: BlockPlace) -> Option<Footer> {
    let offset = files.idx.size().ok()?.checked_sub(FOOTER_SIZE as u64)?;
    if !offset.is_multiple_of(BLOCK_SIZE as u64) {
        return None;
    }
    let mut buf = AlignedBuf::new(FOOTER_SIZE);
    let read = files.idx.read_at(&mut buf[..FOOTER_SIZE], offset).ok()?;
    let footer = Footer::decode(&buf[..read]).ok()?;
    let is_its_own = footer.channel == place.channel && footer.first == place.segment_first;
    (is_its_own && footer.footer_offset() == offset).then_some(footer)
}

/// Index of the last of these times that is before the given one; 0 if none is.
fn last_before(times: &[u64], time_us: u64) -> u32 {
    times.partition_point(|time| *time < time_us).saturating_sub(1) as u32
}

#[cfg(all(test, not(redex_loom)))]
mod tests;
