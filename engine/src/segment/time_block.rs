//! The time block: when each of up to 512 index blocks begins, in 4096 bytes.
//!
//! A footer samples the first times of at most 192 index blocks. A segment with more of them has, in front of its footer, one
//! time block for each sample, with the first times of all index blocks from that sample to the next: so a search by time reads one
//! of these, and then the one index block that has the event.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..3584 | times | 512 of 7 bytes, microseconds since the Unix epoch; unused ones zero |
//! | 3584..4084 | | zero |
//! | 4084..4088 | `first_block` | number of the first index block in its segment |
//! | 4088..4090 | `count` | 1 to 512 |
//! | 4090..4092 | `format` | 0x5401 |
//! | 4092..4096 | `crc32c` | over channel id, segment's first sequence (8 bytes each), then bytes 0..4092 |

use super::block::{BlockPlace, INDEX_BLOCK_SIZE, block_crc};
use super::footer::{TIME_SAMPLES_MAX, TimeIndex};

/// Most times of a block: the widest stride of a footer's samples.
pub const TIMES_PER_BLOCK: usize = 512;

const TIME_SIZE: usize = 7;
const TIMES_END: usize = TIMES_PER_BLOCK * TIME_SIZE;
const FIRST_BLOCK_AT: usize = 4084;
const COUNT_AT: usize = 4088;
const FORMAT_AT: usize = 4090;
const CRC_AT: usize = 4092;
/// Never that of an index block, whose format lies at the same place.
const FORMAT: u16 = 0x5401;

const _: () = {
    assert!(TIMES_END <= FIRST_BLOCK_AT && CRC_AT + 4 == INDEX_BLOCK_SIZE);
    // 16 Mi records, the most of a segment, are in 82,242 index blocks.
    assert!(82_242_usize.div_ceil(TIMES_PER_BLOCK) <= TIME_SAMPLES_MAX);
};

/// First times of all index blocks of a segment so far, and the samples of them.
#[derive(Clone, Debug, Default)]
pub struct BlockTimes {
    index: TimeIndex,
    all: Vec<u64>,
}

impl BlockTimes {
    /// Takes the next block.
    ///
    /// # Panics
    ///
    /// If it is not the next one.
    pub fn push(&mut self, block: u32, first_time_us: u64) {
        assert_eq!(self.all.len(), block as usize, "blocks come in order, each once");
        self.index.push(block, first_time_us);
        self.all.push(first_time_us);
    }

    /// The samples.
    #[must_use]
    pub fn index(&self) -> &TimeIndex {
        &self.index
    }

    /// How many time blocks the segment needs: none if every index block is a sample.
    #[must_use]
    pub fn block_count(&self) -> usize {
        if self.index.stride() == 1 { 0 } else { self.index.samples().len() }
    }

    /// How many time blocks a segment of so many index blocks needs.
    #[must_use]
    pub fn block_count_of(index_blocks: usize) -> usize {
        match index_blocks {
            ..=TIME_SAMPLES_MAX => 0,
            more => more.div_ceil(more.div_ceil(TIME_SAMPLES_MAX).next_power_of_two()),
        }
    }

    /// Fills `out` with the time blocks.
    ///
    /// # Panics
    ///
    /// If `out` has not as many bytes as they.
    pub fn encode(&self, out: &mut [u8], place: BlockPlace) {
        assert_eq!(out.len(), self.block_count() * INDEX_BLOCK_SIZE);
        let stride = self.index.stride() as usize;
        let blocks = out.chunks_exact_mut(INDEX_BLOCK_SIZE).zip(self.all.chunks(stride));
        for (i, (out, times)) in blocks.enumerate() {
            encode_time_block(out, (i * stride) as u32, times, place);
        }
    }
}

fn encode_time_block(out: &mut [u8], first_block: u32, times: &[u64], place: BlockPlace) {
    out.fill(0);
    for (out, time) in out.chunks_exact_mut(TIME_SIZE).zip(times) {
        out.copy_from_slice(&time.to_le_bytes()[..TIME_SIZE]);
    }
    out[FIRST_BLOCK_AT..COUNT_AT].copy_from_slice(&first_block.to_le_bytes());
    out[COUNT_AT..FORMAT_AT].copy_from_slice(&(times.len() as u16).to_le_bytes());
    out[FORMAT_AT..CRC_AT].copy_from_slice(&FORMAT.to_le_bytes());
    let crc = block_crc(&out[..CRC_AT], place);
    out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// The first times of the index blocks from `first_block` on. `None` if the bytes are not that block: then the index blocks have to
/// be searched themselves.
#[must_use]
pub fn decode_time_block(bytes: &[u8], first_block: u32, place: BlockPlace) -> Option<Vec<u64>> {
    let bytes: &[u8; INDEX_BLOCK_SIZE] = bytes.try_into().ok()?;
    let count = usize::from(u16::from_le_bytes([bytes[COUNT_AT], bytes[COUNT_AT + 1]]));
    let is_it = bytes[CRC_AT..] == block_crc(&bytes[..CRC_AT], place).to_le_bytes()
        && bytes[FORMAT_AT..CRC_AT] == FORMAT.to_le_bytes()
        && bytes[FIRST_BLOCK_AT..COUNT_AT] == first_block.to_le_bytes()
        && (1..=TIMES_PER_BLOCK).contains(&count)
        && bytes[count * TIME_SIZE..FIRST_BLOCK_AT].iter().all(|byte| *byte == 0);
    let time = |bytes: &[u8]| bytes.iter().rev().fold(0, |time, byte| time << 8 | u64::from(*byte));
    let times: Vec<u64> = bytes[..TIMES_END].chunks_exact(TIME_SIZE).take(count).map(time).collect();
    (is_it && times.is_sorted()).then_some(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChannelId, Seq};

    const PLACE: BlockPlace = BlockPlace { channel: ChannelId(3), segment_first: Seq(500) };

    fn times(blocks: u32) -> BlockTimes {
        let mut times = BlockTimes::default();
        (0..blocks).for_each(|block| times.push(block, (1 << 55) + u64::from(block / 3)));
        times
    }

    #[test]
    fn times_of_segments_of_every_size_come_back() {
        for blocks in [0, 1, 191, 192, 193, 384, 385, 1000, 49_152, 49_153, 82_242] {
            let times = times(blocks);
            assert_eq!(times.block_count(), BlockTimes::block_count_of(blocks as usize), "{blocks}");
            let mut out = vec![0xff; times.block_count() * INDEX_BLOCK_SIZE];
            times.encode(&mut out, PLACE);
            let mut found = Vec::new();
            for (bytes, sample) in out.chunks(INDEX_BLOCK_SIZE).zip(times.index().samples()) {
                assert_eq!(found.len(), sample.block as usize);
                found.extend(decode_time_block(bytes, sample.block, PLACE).unwrap());
            }
            assert!(times.block_count() == 0 || found == times.all, "{blocks}");
        }
    }

    #[test]
    fn bytes_behind_the_times_are_refused() {
        let times = times(200);
        let mut out = vec![0; times.block_count() * INDEX_BLOCK_SIZE];
        times.encode(&mut out, PLACE);
        for at in [2 * TIME_SIZE, TIMES_END, FIRST_BLOCK_AT - 1] {
            let mut bytes = out[..INDEX_BLOCK_SIZE].to_vec();
            assert!(decode_time_block(&bytes, 0, PLACE).is_some());
            bytes[at] = 1;
            let crc = block_crc(&bytes[..CRC_AT], PLACE);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            assert!(decode_time_block(&bytes, 0, PLACE).is_none(), "{at}");
        }
    }

    #[test]
    fn every_flipped_bit_and_truncation_and_any_other_place_is_refused() {
        let times = times(200);
        let mut out = vec![0; times.block_count() * INDEX_BLOCK_SIZE];
        times.encode(&mut out, PLACE);
        let mut bytes = out[INDEX_BLOCK_SIZE..2 * INDEX_BLOCK_SIZE].to_vec();
        assert!(decode_time_block(&bytes, 2, PLACE).is_some());
        assert!(decode_time_block(&bytes, 0, PLACE).is_none());
        assert!(decode_time_block(&bytes, 2, BlockPlace { channel: ChannelId(4), ..PLACE }).is_none());
        assert!(decode_time_block(&bytes, 2, BlockPlace { segment_first: Seq(0), ..PLACE }).is_none());
        for bit in 0..INDEX_BLOCK_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_time_block(&bytes, 2, PLACE).is_none(), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!((0..INDEX_BLOCK_SIZE).all(|size| decode_time_block(&bytes[..size], 2, PLACE).is_none()));
    }
}
