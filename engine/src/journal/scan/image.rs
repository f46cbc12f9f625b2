//! The bytes of a segment, read from the front as far as they are asked for.

use std::ops::Range;
use std::sync::Arc;

use super::error::JournalError;
use super::io_error;
use crate::io::{AlignedBuf, Disk, File, OpenMode, read_full};
use crate::journal::SEGMENT_SIZE_MAX;

/// Largest read, bytes.
const READ_SIZE: usize = 4 << 20;

/// Largest part of a segment that can hold commits, bytes: no store was ever made with larger ones. A file that is longer
/// takes no more memory.
const IMAGE_SIZE_MAX: u64 = SEGMENT_SIZE_MAX;

/// One segment's bytes. What the file lacks of its last block is zero.
#[derive(Debug)]
pub(super) struct Image {
    path: String,
    file: Arc<dyn File>,
    bytes: AlignedBuf,
    /// Bytes read so far.
    filled: usize,
}

impl Image {
    /// Opens a segment, of which nothing behind `end` counts; reads nothing yet.
    pub(super) fn open(disk: &dyn Disk, path: String, end: Option<u64>) -> Result<Self, JournalError> {
        let opened = disk.open(&path, OpenMode::Read).and_then(|file| file.size().map(|size| (file, size)));
        match opened {
            Ok((file, size)) => {
                let bytes = AlignedBuf::new(size.min(end.unwrap_or(size)).min(IMAGE_SIZE_MAX) as usize);
                Ok(Self { path, file, bytes, filled: 0 })
            }
            Err(error) => Err(io_error(&path, 0, error)),
        }
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Size with the last block filled up, bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of `range`, shorter where the file ends before.
    pub(super) fn bytes(&mut self, range: Range<usize>) -> Result<&[u8], JournalError> {
        let end = range.end.min(self.bytes.len());
        self.fill(end)?;
        Ok(&self.bytes[range.start.min(end)..end])
    }

    /// Gives the bytes to those who read commits.
    pub(super) fn into_bytes(self) -> Arc<AlignedBuf> {
        Arc::new(self.bytes)
    }

    fn fill(&mut self, end: usize) -> Result<(), JournalError> {
        while self.filled < end {
            let stop = (self.filled + READ_SIZE).min(self.bytes.len());
            let part = &mut self.bytes[self.filled..stop];
            let found = read_full(&*self.file, part, self.filled as u64);
            found.map_err(|error| io_error(&self.path, self.filled as u64, error))?;
            self.filled = stop;
        }
        Ok(())
    }
}
