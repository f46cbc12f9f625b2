//! What a file system itself takes for granted of its drive: writes that a power cut does not tear.
//!
//! Torn all the same these make the file system refuse to mount, whoever wrote to it; so they would hide what is looked for.
//! Nothing that a program writes is among them, and they may be lost as a whole like any other.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of a block of either file system.
const BLOCK: u64 = 4096;

/// First bytes of XFS's metadata blocks with a checksum, but for those that fill one sector.
const XFS_MAGICS: [&[u8; 4]; 11] =
    [b"XDB3", b"XDD3", b"XDF3", b"AB3B", b"AB3C", b"BMA3", b"IAB3", b"FIB3", b"RMB3", b"R3FC", b"XARM"];
/// Bytes 8 and 9 of the others: nodes and leaves of directories and attributes.
const XFS_NODE_MAGICS: [[u8; 2]; 4] = [[0x3e, 0xbe], [0x3b, 0xee], [0x3d, 0xf1], [0x3d, 0xff]];

/// What is never torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whole {
    /// Nothing: a bare drive.
    Nothing,
    /// The first block. ext4's superblock has 1024 bytes, is written in place beside the journal, and has its checksum at its end.
    FirstBlock,
    /// Metadata blocks of XFS. Recovery of its log passes over a block whose first sector says that it is newer than the log, and then
    /// finds its checksum wrong.
    XfsMetadata,
}

impl Whole {
    /// The parts of a write that are there wholly or not at all.
    #[must_use]
    pub fn parts(self, offset: u64, data: &[u8], sector_size: usize) -> Vec<Range<usize>> {
        let mut parts = Vec::with_capacity(data.len().div_ceil(sector_size));
        let mut at = 0;
        while at < data.len() {
            let place = offset + at as u64;
            let left = data.len() - at;
            let in_block = (BLOCK - place % BLOCK) as usize;
            let len = if self.spares(place, &data[at..]) { in_block } else { sector_size };
            parts.push(at..at + len.min(left));
            at += len.min(left);
        }
        parts
    }

    /// Whether what lies at `place` to the end of its block is not torn.
    fn spares(self, place: u64, data: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::FirstBlock => place < BLOCK,
            Self::XfsMetadata => place.is_multiple_of(BLOCK) && is_xfs_metadata(data),
        }
    }
}

fn is_xfs_metadata(data: &[u8]) -> bool {
    let starts = XFS_MAGICS.iter().any(|magic| data.starts_with(*magic));
    starts || data.get(8..10).is_some_and(|bytes| XFS_NODE_MAGICS.iter().any(|magic| bytes == magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_is_one_part() {
        let parts = Whole::FirstBlock.parts(1024, &[0; 4096], 512);
        assert_eq!(parts, [0..3072, 3072..3584, 3584..4096]);
        assert_eq!(Whole::FirstBlock.parts(4096, &[0; 1024], 512), [0..512, 512..1024]);
    }

    #[test]
    fn a_metadata_block_of_xfs_is_one_part_and_others_are_not() {
        let mut data = [7; 8192 + 512];
        data[4096..4100].copy_from_slice(b"XDB3");
        let parts = Whole::XfsMetadata.parts(1 << 20, &data, 512);
        assert_eq!(parts.len(), 8 + 1 + 1);
        assert_eq!(parts[8], 4096..8192);
        assert_eq!(Whole::Nothing.parts(1 << 20, &data, 512).len(), 17);
        assert_eq!(Whole::XfsMetadata.parts(1 << 20, &data, 4096).len(), 3);
    }
}
