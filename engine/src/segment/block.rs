//! The index block: 204 records and a trailer in 4096 bytes.
//!
//! A block proves itself and its place: its checksum covers the records, the trailer, the channel and the segment's
//! first sequence, and the trailer holds the sequence of its first record. So a block of another channel, segment or
//! position is as wrong as a damaged one. Whether the records make sense is [`IndexRecord::check`].
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4080 | records | `count` records, then zeros |
//! | 4080..4088 | `base_seq` | sequence of the first record |
//! | 4088..4090 | `count` | 1 to 204; less than 204 only in a sealed segment's last block |
//! | 4090..4092 | `format` | 1 |
//! | 4092..4096 | `crc32c` | over channel id, segment's first sequence (8 bytes each), then bytes 0..4092 |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::record::{IndexRecord, RECORD_SIZE};
use crate::ids::{ChannelId, Seq};

/// Size of an index block, bytes.
pub const INDEX_BLOCK_SIZE: usize = 4096;

/// Records in a full block.
pub const RECORDS_PER_BLOCK: usize = 204;

/// Version of the block's layout.
pub const INDEX_BLOCK_FORMAT: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Trailer {
    base_seq: U64,
    count: U16,
    format: U16,
    crc32c: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IndexBlock {
    records: [IndexRecord; RECORDS_PER_BLOCK],
    trailer: Trailer,
}

const CRC_OFFSET: usize = INDEX_BLOCK_SIZE - 4;

const _: () = {
    assert!(size_of::<Trailer>() == 16);
    assert!(size_of::<IndexBlock>() == INDEX_BLOCK_SIZE);
    assert!(RECORDS_PER_BLOCK * RECORD_SIZE + size_of::<Trailer>() == INDEX_BLOCK_SIZE);
};

/// The segment that a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Whose events.
    pub channel: ChannelId,
    /// First sequence of the segment.
    pub segment_first: Seq,
}

/// Why 4096 bytes are not the index block that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Not 4096 bytes.
    #[error("index block has {size} bytes, not 4096")]
    Size {
        /// Bytes given.
        size: usize,
    },
    /// The block is damaged, was never written, or belongs to another channel or segment.
    #[error(
        "index block {base} of channel {channel}, segment {segment_first}: \
         checksum is {found:#010x}, the block says {expected:#010x}"
    )]
    Checksum {
        /// Channel that was looked for.
        channel: ChannelId,
        /// First sequence of the segment that was looked for.
        segment_first: Seq,
        /// Sequence at which the block should begin.
        base: Seq,
        /// What the block says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// The block is whole, but another software version's.
    #[error("index block {base} of channel {channel} has format {format}, this software knows 1")]
    Format {
        /// Channel that was looked for.
        channel: ChannelId,
        /// Sequence at which the block should begin.
        base: Seq,
        /// Format found.
        format: u16,
    },
    /// The block is whole, but lies at another one's position.
    #[error("index block of channel {channel} begins at sequence {found}, expected {expected}")]
    Position {
        /// Channel that was looked for.
        channel: ChannelId,
        /// Sequence at which the block should begin.
        expected: Seq,
        /// Sequence at which it begins.
        found: Seq,
    },
    /// The block is whole, but its count is 0 or above 204.
    #[error("index block {base} of channel {channel} says that it holds {count} records")]
    Count {
        /// Channel that was looked for.
        channel: ChannelId,
        /// Sequence at which the block should begin.
        base: Seq,
        /// Count found.
        count: u16,
    },
    /// The block is whole, but has bytes behind its records, where zeros belong.
    #[error("index block {base} of channel {channel} has bytes behind its {count} records")]
    Unused {
        /// Channel that was looked for.
        channel: ChannelId,
        /// Sequence at which the block should begin.
        base: Seq,
        /// Its records.
        count: u16,
    },
}

/// Fills `out` with a block of `records`, the first of which has the sequence `base_seq`.
///
/// # Panics
///
/// If `out` has not [`INDEX_BLOCK_SIZE`] bytes, if there are no records or more than [`RECORDS_PER_BLOCK`], or if
/// `base_seq` is not where a block of the segment begins.
pub fn encode_block(out: &mut [u8], records: &[IndexRecord], base_seq: Seq, place: BlockPlace) {
    assert_eq!(out.len(), INDEX_BLOCK_SIZE);
    assert!((1..=RECORDS_PER_BLOCK).contains(&records.len()));
    assert!(base_seq >= place.segment_first);
    assert!((base_seq.0 - place.segment_first.0).is_multiple_of(RECORDS_PER_BLOCK as u64));
    let (head, trailer) = out.split_at_mut(INDEX_BLOCK_SIZE - size_of::<Trailer>());
    let (used, unused) = head.split_at_mut(size_of_val(records));
    used.copy_from_slice(records.as_bytes());
    unused.fill(0);
    let trailer_new = Trailer {
        base_seq: U64::new(base_seq.0),
        count: U16::new(records.len() as u16),
        format: U16::new(INDEX_BLOCK_FORMAT),
        crc32c: U32::ZERO,
    };
    trailer.copy_from_slice(trailer_new.as_bytes());
    let crc = block_crc(&out[..CRC_OFFSET], place);
    out[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
}

/// Checks a block and gives its records, without copying.
///
/// # Errors
///
/// The first thing that is wrong; then nothing of the block may be used.
pub fn decode_block(bytes: &[u8], place: BlockPlace, expected_base: Seq) -> Result<&[IndexRecord], BlockError> {
    let BlockPlace { channel, segment_first } = place;
    let base = expected_base;
    let block = IndexBlock::ref_from_bytes(bytes).map_err(|_| BlockError::Size { size: bytes.len() })?;
    let trailer = &block.trailer;
    let (expected, found) = (trailer.crc32c.get(), block_crc(&bytes[..CRC_OFFSET], place));
    if expected != found {
        return Err(BlockError::Checksum { channel, segment_first, base, expected, found });
    }
    if trailer.format.get() != INDEX_BLOCK_FORMAT {
        return Err(BlockError::Format { channel, base, format: trailer.format.get() });
    }
    if trailer.base_seq.get() != base.0 {
        return Err(BlockError::Position { channel, expected: base, found: Seq(trailer.base_seq.get()) });
    }
    let count = trailer.count.get();
    match block.records.split_at_checked(usize::from(count)) {
        Some((records, unused)) if count > 0 => match unused.as_bytes().iter().all(|&byte| byte == 0) {
            true => Ok(records),
            false => Err(BlockError::Unused { channel, base, count }),
        },
        _ => Err(BlockError::Count { channel, base, count }),
    }
}

/// The records of a block that [`decode_block`] has checked before, `count` of them at the most; none if it is no block.
#[inline]
#[must_use]
pub fn records_of(bytes: &[u8], count: usize) -> &[IndexRecord] {
    IndexBlock::ref_from_bytes(bytes).map_or(&[], |block| &block.records[..count.min(RECORDS_PER_BLOCK)])
}

/// Checksum of a block of an idx file, of whatever kind.
pub(super) fn block_crc(bytes: &[u8], place: BlockPlace) -> u32 {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&place.channel.0.to_le_bytes());
    prefix[8..].copy_from_slice(&place.segment_first.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&prefix), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: BlockPlace = BlockPlace { channel: ChannelId(7), segment_first: Seq(1000) };
    const BASE: Seq = Seq(1000 + 3 * 204);

    fn records(count: u32) -> Vec<IndexRecord> {
        (0..count).map(|i| IndexRecord::in_dat(i * 10, 10, i, u64::from(i))).collect()
    }

    fn block(count: u32) -> Vec<u8> {
        let mut out = vec![0xff; INDEX_BLOCK_SIZE];
        encode_block(&mut out, &records(count), BASE, PLACE);
        out
    }

    #[test]
    fn blocks_of_every_count_come_back() {
        for count in 1..=204 {
            assert_eq!(decode_block(&block(count), PLACE, BASE).unwrap(), records(count));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = block(150);
        for bit in 0..INDEX_BLOCK_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_block(&bytes, PLACE, BASE), Err(BlockError::Checksum { .. })), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let bytes = block(204);
        for size in 0..INDEX_BLOCK_SIZE {
            assert_eq!(decode_block(&bytes[..size], PLACE, BASE), Err(BlockError::Size { size }));
        }
    }

    #[test]
    fn whole_block_in_the_wrong_place_is_wrong() {
        let bytes = block(204);
        let channel = BlockPlace { channel: ChannelId(8), ..PLACE };
        let segment = BlockPlace { segment_first: Seq(1204), ..PLACE };
        assert!(matches!(decode_block(&bytes, channel, BASE), Err(BlockError::Checksum { .. })));
        assert!(matches!(decode_block(&bytes, segment, BASE), Err(BlockError::Checksum { .. })));
        let next = Seq(BASE.0 + 204);
        let error = BlockError::Position { channel: PLACE.channel, expected: next, found: BASE };
        assert_eq!(decode_block(&bytes, PLACE, next), Err(error));
        assert!(decode_block(&[0; INDEX_BLOCK_SIZE], PLACE, BASE).is_err());
    }

    /// A reader refuses what no writer leaves (`docs/format.md`), whatever the checksum says.
    #[test]
    fn bytes_behind_the_records_are_refused() {
        let mut bytes = block(10);
        bytes[10 * RECORD_SIZE] = 1;
        let crc = block_crc(&bytes[..CRC_OFFSET], PLACE);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        let error = BlockError::Unused { channel: PLACE.channel, base: BASE, count: 10 };
        assert_eq!(decode_block(&bytes, PLACE, BASE), Err(error));
    }

    #[test]
    fn counts_and_formats_out_of_range_are_refused() {
        for (at, value, is_count) in [(4088, 0, true), (4088, 205, true), (4090, 2, false)] {
            let mut bytes = block(10);
            bytes[at] = value;
            let crc = block_crc(&bytes[..CRC_OFFSET], PLACE);
            bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
            let error = decode_block(&bytes, PLACE, BASE).unwrap_err();
            assert_eq!(matches!(error, BlockError::Count { .. }), is_count, "{error}");
            assert_eq!(matches!(error, BlockError::Format { .. }), !is_count, "{error}");
        }
    }
}
