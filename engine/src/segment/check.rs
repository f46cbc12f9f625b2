//! Checks what a sealed segment says of itself: its footer, the hash over its index blocks, its time blocks.
//!
//! Reads the whole idx file, by plain calls past the page cache, in steps. The events themselves are read and checked as any reader
//! would ([`OnDisk::read_checked`]); damage of an index block shows there, so it is not told twice.

use super::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block};
use super::footer::{FOOTER_SIZE, Footer, idx_hash_append};
use super::read::{OnDisk, SegmentFiles};
use super::record::IndexRecord;
use super::time_block::decode_time_block;
use crate::error::{Damage, ReadError};
use crate::ids::Seq;
use crate::io::{AlignedBuf, BLOCK_SIZE, read_full};

/// Bytes read in one step.
const STEP_BYTES: usize = 1 << 20;

/// What is wrong, and where in the idx file.
type Found = (u64, Damage);

/// A check in progress.
#[derive(Debug)]
pub struct FooterCheck {
    files: SegmentFiles,
    place: BlockPlace,
    footer: Footer,
    footer_at: u64,
    /// The next index block.
    block: u64,
    hash: u32,
    first_times: Vec<u64>,
    last_time_us: u64,
    /// Whether every index block so far is what it should be.
    is_whole: bool,
}

impl FooterCheck {
    /// Begins with the footer of the segment `first..end`; no check if it is damaged. `end` may be below the footer's, if a suffix
    /// was cut off.
    pub fn begin(on_disk: &OnDisk, first: Seq, end: Seq) -> Result<Result<Self, Found>, ReadError> {
        let files = on_disk.segment_files(first)?;
        let place = on_disk.place(first);
        let size = files.idx.size().map_err(|error| on_disk.io(files.idx.path(), 0, error))?;
        let footer_at = size.saturating_sub(FOOTER_SIZE as u64) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let mut buf = AlignedBuf::new(FOOTER_SIZE);
        let read = files.idx.read_at(&mut buf[..FOOTER_SIZE], footer_at);
        let read = read.map_err(|error| on_disk.io(files.idx.path(), footer_at, error))?;
        let footer = match Footer::decode(&buf[..read]) {
            Ok(footer) => footer,
            Err(error) => return Ok(Err((footer_at, Damage::Footer(error)))),
        };
        let wrong = [
            ("channel", footer.channel != place.channel),
            ("first_seq", footer.first != first),
            ("end_seq", footer.end < end),
            ("count", footer.footer_offset() != footer_at || size % BLOCK_SIZE as u64 != 0),
            ("dat_size", on_disk.dat_len(first)? < footer.dat_size),
        ];
        if let Some((field, _)) = wrong.into_iter().find(|(_, wrong)| *wrong) {
            return Ok(Err((footer_at, Damage::FooterField { field })));
        }
        let (hash, first_times, block) = (0, Vec::new(), 0);
        Ok(Ok(Self { files, place, footer, footer_at, block, hash, first_times, last_time_us: 0, is_whole: true }))
    }

    /// Its path, for messages.
    pub fn path(&self) -> &str {
        self.files.idx.path()
    }

    /// Looks at a megabyte. `None` if there is more to look at, else what is wrong.
    pub fn step(&mut self, on_disk: &OnDisk) -> Result<Option<Vec<Found>>, ReadError> {
        let left = self.footer.block_count() - self.block;
        if left == 0 {
            return self.finish(on_disk).map(Some);
        }
        let blocks = left.min((STEP_BYTES / BLOCK_SIZE) as u64) as usize;
        let (mut buf, offset) = (AlignedBuf::new(blocks * BLOCK_SIZE), self.block * BLOCK_SIZE as u64);
        let read = read_full(&*self.files.idx, &mut buf[..blocks * BLOCK_SIZE], offset);
        let read = read.map_err(|error| on_disk.io(self.path(), offset, error))?;
        self.is_whole &= read == blocks * BLOCK_SIZE;
        for bytes in buf[..blocks * BLOCK_SIZE].chunks_exact(BLOCK_SIZE) {
            self.look_at(bytes);
        }
        Ok(None)
    }

    fn look_at(&mut self, bytes: &[u8]) {
        self.hash = idx_hash_append(self.hash, bytes);
        let base = Seq(self.footer.first.0 + self.block * RECORDS_PER_BLOCK as u64);
        let count = (self.footer.end.0 - base.0).min(RECORDS_PER_BLOCK as u64) as usize;
        self.block += 1;
        match decode_block(bytes, self.place, base) {
            Ok(records) => {
                self.is_whole &= records.len() == count;
                self.first_times.push(records.first().map_or(0, IndexRecord::time_us));
                self.last_time_us = records.last().map_or(0, IndexRecord::time_us);
            }
            Err(_) => self.is_whole = false,
        }
    }

    /// Compares what the index blocks hold with what the footer says of them.
    fn finish(&mut self, on_disk: &OnDisk) -> Result<Vec<Found>, ReadError> {
        let mut found = Vec::new();
        // A damaged index block is named by who reads its events.
        if self.is_whole {
            let Footer { idx_hash, first_time_us, last_time_us, .. } = self.footer;
            if idx_hash != self.hash {
                found.push((self.footer_at, Damage::IdxHash { expected: idx_hash, found: self.hash }));
            }
            let times = (self.first_times.first().copied().unwrap_or(0), self.last_time_us);
            if self.block > 0 && times != (first_time_us, last_time_us) {
                found.push((self.footer_at, Damage::FooterField { field: "first_time_us, last_time_us" }));
            }
            let samples = self.footer.time_index.samples();
            if samples.iter().any(|sample| self.first_times.get(sample.block as usize) != Some(&sample.first_time_us)) {
                found.push((self.footer_at, Damage::FooterField { field: "samples" }));
            }
        }
        self.check_time_blocks(on_disk, &mut found)?;
        Ok(found)
    }

    fn check_time_blocks(&self, on_disk: &OnDisk, found: &mut Vec<Found>) -> Result<(), ReadError> {
        let samples = self.footer.time_index.samples();
        for (i, sample) in samples.iter().enumerate() {
            let Some(offset) = self.footer.time_block_offset(i) else { break };
            let mut buf = AlignedBuf::new(BLOCK_SIZE);
            let read = self.files.idx.read_at(&mut buf[..BLOCK_SIZE], offset);
            let read = read.map_err(|error| on_disk.io(self.path(), offset, error))?;
            let times = decode_time_block(&buf[..read], sample.block, self.place);
            let next = samples.get(i + 1).map_or(self.block as usize, |next| next.block as usize);
            let right = self.first_times.get(sample.block as usize..next);
            if times.is_none() || self.is_whole && times.as_deref() != right {
                found.push((offset, Damage::TimeBlock));
            }
        }
        Ok(())
    }

    /// Bytes that were looked at.
    pub fn bytes(&self) -> u64 {
        self.footer_at + FOOTER_SIZE as u64
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests;
