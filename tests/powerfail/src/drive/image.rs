//! The bytes of a drive: sparse, and cheap to copy, since copies share the blocks that neither has changed.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Bytes that copies share as one. A property of this program, not of the drive.
const BLOCK: usize = 4096;

/// What a drive holds. A block that is not there is zeros.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Image {
    blocks: HashMap<u64, Arc<[u8]>>,
}

impl Image {
    /// Fills `buf` from `offset` on.
    pub fn read(&self, mut offset: u64, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let (block, at) = place(offset);
            let len = buf.len().min(BLOCK - at);
            let (part, rest) = buf.split_at_mut(len);
            match self.blocks.get(&block) {
                Some(bytes) => part.copy_from_slice(&bytes[at..at + len]),
                None => part.fill(0),
            }
            (buf, offset) = (rest, offset + len as u64);
        }
    }

    /// Puts `data` at `offset`.
    pub fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let (block, at) = place(offset);
            let (part, rest) = data.split_at(data.len().min(BLOCK - at));
            self.write_block(block, at, part);
            (data, offset) = (rest, offset + part.len() as u64);
        }
    }

    fn write_block(&mut self, block: u64, at: usize, part: &[u8]) {
        let is_zero = part.iter().all(|byte| *byte == 0);
        if part.len() == BLOCK {
            match is_zero {
                true => self.blocks.remove(&block),
                false => self.blocks.insert(block, Arc::from(part)),
            };
            return;
        }
        if is_zero && !self.blocks.contains_key(&block) {
            return;
        }
        let bytes = self.blocks.entry(block).or_insert_with(|| Arc::from([0; BLOCK]));
        Arc::make_mut(bytes)[at..at + part.len()].copy_from_slice(part);
    }

    /// Blocks of 4 KiB that are not zeros.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }
}

fn place(offset: u64) -> (u64, usize) {
    (offset / BLOCK as u64, (offset % BLOCK as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_across_blocks() {
        let mut image = Image::default();
        let data: Vec<u8> = (0..10_000_u32).map(|i| i as u8 | 1).collect();
        image.write(512 * 5, &data);
        let mut read = vec![9; data.len() + 1024];
        image.read(512 * 4, &mut read);
        assert_eq!(read[..512], [0; 512]);
        assert_eq!(read[512..512 + data.len()], data[..]);
        assert!(read[512 + data.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_copy_keeps_what_the_other_overwrites() {
        let mut image = Image::default();
        image.write(0, &[7; 8192]);
        let copy = image.clone();
        image.write(4096, &[1; 512]);
        image.write(0, &[0; 4096]);
        let mut read = [0; 8192];
        copy.read(0, &mut read);
        assert_eq!(read, [7; 8192]);
        image.read(0, &mut read);
        assert_eq!((read[0], read[4096], read[4608]), (0, 1, 7));
        assert_eq!(image.block_count(), 1);
    }
}
