//! The footer: the last block of a sealed idx file.
//!
//! It says what the pair of files holds, so that a sealed segment can be checked, searched by time and moved without
//! reading it: sequences, dat size, times, a sparse time index, and a running hash over the idx blocks, which hold
//! the checksum of every payload.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | `magic` | `REDEXSEG` |
//! | 8..10 | `version` | 1; 2 if time blocks lie in front of it, one for each sample |
//! | 10..12 | `sample_count` | 0 to 192 |
//! | 12..16 | `count` | records, `end_seq - first_seq` |
//! | 16..24 | `channel` | |
//! | 24..32 | `first_seq` | |
//! | 32..40 | `end_seq` | exclusive |
//! | 40..48 | `dat_size` | bytes |
//! | 48..56 | `first_time_us` | |
//! | 56..64 | `last_time_us` | |
//! | 64..68 | `idx_hash` | CRC-32C over all idx blocks |
//! | 68..72 | `crc32c` | over the whole block, these four bytes taken as zero |
//! | 72..2376 | samples | 192 of `block u32, first_time_us u64`; unused ones zero |
//! | 2376..4096 | | zero |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::block::{INDEX_BLOCK_SIZE, RECORDS_PER_BLOCK};
use crate::ids::{ChannelId, Seq};

/// Size of a footer, bytes.
pub const FOOTER_SIZE: usize = INDEX_BLOCK_SIZE;

/// Most samples of a sparse time index.
pub const TIME_SAMPLES_MAX: usize = 192;

/// Version of the footer's layout.
pub const FOOTER_VERSION: u16 = 1;

/// Version of the same layout in a file with [time blocks](super::time_block).
pub const FOOTER_VERSION_TIME_BLOCKS: u16 = 2;

const MAGIC: [u8; 8] = *b"REDEXSEG";

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSample {
    block: U32,
    first_time_us: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFooter {
    magic: [u8; 8],
    version: U16,
    sample_count: U16,
    count: U32,
    channel: U64,
    first_seq: U64,
    end_seq: U64,
    dat_size: U64,
    first_time_us: U64,
    last_time_us: U64,
    idx_hash: U32,
    crc32c: U32,
    samples: [RawSample; TIME_SAMPLES_MAX],
    reserved: [u8; FOOTER_SIZE - 72 - 12 * TIME_SAMPLES_MAX],
}

const CRC_OFFSET: usize = 68;

const _: () = {
    assert!(size_of::<RawFooter>() == FOOTER_SIZE);
    assert!(std::mem::offset_of!(RawFooter, crc32c) == CRC_OFFSET);
    assert!(std::mem::offset_of!(RawFooter, samples) == 72);
};

/// One point of a sparse time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSample {
    /// Number of an idx block in its segment, from 0.
    pub block: u32,
    /// Time of the block's first record, microseconds since the Unix epoch.
    pub first_time_us: u64,
}

/// Sparse time index of a segment: the first times of every 2^k-th block, at most [`TIME_SAMPLES_MAX`] of them.
///
/// Built block by block; when it is full, every second sample goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    samples: Vec<TimeSample>,
    stride_log2: u32,
}

impl TimeIndex {
    /// An index of no blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next block. Blocks must come in order and each once.
    ///
    /// # Panics
    ///
    /// If a block comes that is not behind the last sample.
    pub fn push(&mut self, block: u32, first_time_us: u64) {
        assert!(self.samples.last().is_none_or(|last| last.block < block), "blocks come in order");
        if block & self.mask() != 0 {
            return;
        }
        if self.samples.len() == TIME_SAMPLES_MAX {
            self.stride_log2 += 1;
            let mask = self.mask();
            self.samples.retain(|sample| sample.block & mask == 0);
        }
        if block & self.mask() == 0 {
            self.samples.push(TimeSample { block, first_time_us });
        }
    }

    /// The samples, in order.
    #[must_use]
    pub fn samples(&self) -> &[TimeSample] {
        &self.samples
    }

    /// The last sampled block all of whose predecessors begin before `time_us`: a search for the first event at or
    /// after `time_us` starts there. 0 if there is none.
    #[must_use]
    pub fn block_before(&self, time_us: u64) -> u32 {
        let later = self.samples.partition_point(|sample| sample.first_time_us < time_us);
        later.checked_sub(1).map_or(0, |i| self.samples[i].block)
    }

    /// Every how many blocks there is a sample.
    #[must_use]
    pub fn stride(&self) -> u32 {
        1 << self.stride_log2
    }

    fn mask(&self) -> u32 {
        (1 << self.stride_log2) - 1
    }
}

/// What the last block of a sealed idx file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Whose events.
    pub channel: ChannelId,
    /// First sequence.
    pub first: Seq,
    /// End, exclusive.
    pub end: Seq,
    /// Size of the dat file, bytes.
    pub dat_size: u64,
    /// Time of the first event, microseconds since the Unix epoch.
    pub first_time_us: u64,
    /// Time of the last event, microseconds since the Unix epoch.
    pub last_time_us: u64,
    /// CRC-32C over all idx blocks in order, see [`idx_hash_append`].
    pub idx_hash: u32,
    /// Where to begin a search by time.
    pub time_index: TimeIndex,
    /// Whether the file has a [time block](super::time_block) for each sample. Files of more than 192 index blocks have, unless
    /// they were sealed by an earlier version of this software.
    pub has_time_blocks: bool,
}

/// Why a block is not a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FooterError {
    /// Not 4096 bytes.
    #[error("segment footer has {size} bytes, not 4096")]
    Size {
        /// Bytes given.
        size: usize,
    },
    /// The block is something else, or was never written.
    #[error("segment footer does not begin with its magic number")]
    Magic,
    /// The block is damaged.
    #[error("checksum of a segment footer is {found:#010x}, the footer says {expected:#010x}")]
    Checksum {
        /// What the footer says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// The footer is whole, but another software version's.
    #[error("segment footer has version {version}, this software knows 1 and 2")]
    Version {
        /// Version found.
        version: u16,
    },
    /// The footer is whole, but its fields contradict each other.
    #[error("field `{field}` of a segment footer contradicts the others")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
}

/// Takes the next idx block into the running hash over a segment's blocks; the hash of none is 0.
#[must_use]
pub fn idx_hash_append(hash: u32, block: &[u8]) -> u32 {
    crc32c::crc32c_append(hash, block)
}

impl Footer {
    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.end.0 - self.first.0
    }

    /// Number of idx blocks before the footer.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.count().div_ceil(RECORDS_PER_BLOCK as u64)
    }

    /// Where in its idx file the footer lies, bytes.
    #[must_use]
    pub fn footer_offset(&self) -> u64 {
        let time_blocks = if self.has_time_blocks { self.time_index.samples().len() } else { 0 };
        (self.block_count() + time_blocks as u64) * INDEX_BLOCK_SIZE as u64
    }

    /// Where in its idx file the time block of a sample lies, bytes; `None` if there is none.
    #[must_use]
    pub fn time_block_offset(&self, sample: usize) -> Option<u64> {
        let is_there = self.has_time_blocks && sample < self.time_index.samples().len();
        is_there.then(|| (self.block_count() + sample as u64) * INDEX_BLOCK_SIZE as u64)
    }

    /// Fills `out` with the footer.
    ///
    /// # Panics
    ///
    /// If `out` has not [`FOOTER_SIZE`] bytes, or the footer's own fields contradict each other.
    pub fn encode(&self, out: &mut [u8]) {
        assert_eq!(out.len(), FOOTER_SIZE);
        assert!(self.first <= self.end && self.first_time_us <= self.last_time_us);
        let mut samples = [RawSample { block: U32::ZERO, first_time_us: U64::ZERO }; TIME_SAMPLES_MAX];
        for (raw, sample) in samples.iter_mut().zip(self.time_index.samples()) {
            *raw = RawSample { block: U32::new(sample.block), first_time_us: U64::new(sample.first_time_us) };
        }
        let raw = RawFooter {
            magic: MAGIC,
            version: U16::new(if self.has_time_blocks { FOOTER_VERSION_TIME_BLOCKS } else { FOOTER_VERSION }),
            sample_count: U16::new(self.time_index.samples().len() as u16),
            count: U32::new(u32::try_from(self.count()).expect("a segment has at most 16 Mi records")),
            channel: U64::new(self.channel.0),
            first_seq: U64::new(self.first.0),
            end_seq: U64::new(self.end.0),
            dat_size: U64::new(self.dat_size),
            first_time_us: U64::new(self.first_time_us),
            last_time_us: U64::new(self.last_time_us),
            idx_hash: U32::new(self.idx_hash),
            crc32c: U32::ZERO,
            samples,
            reserved: [0; FOOTER_SIZE - 72 - 12 * TIME_SAMPLES_MAX],
        };
        out.copy_from_slice(raw.as_bytes());
        let crc = crc32c::crc32c(out);
        out[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Checks a footer and gives its fields. Whether it is the one of a certain segment is the caller's to compare.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, FooterError> {
        let raw = RawFooter::ref_from_bytes(bytes).map_err(|_| FooterError::Size { size: bytes.len() })?;
        if raw.magic != MAGIC {
            return Err(FooterError::Magic);
        }
        let (expected, found) = (raw.crc32c.get(), footer_crc(bytes));
        if expected != found {
            return Err(FooterError::Checksum { expected, found });
        }
        if !matches!(raw.version.get(), FOOTER_VERSION | FOOTER_VERSION_TIME_BLOCKS) {
            return Err(FooterError::Version { version: raw.version.get() });
        }
        raw.fields()
    }
}

impl RawFooter {
    fn fields(&self) -> Result<Footer, FooterError> {
        let (first, end) = (self.first_seq.get(), self.end_seq.get());
        if end.checked_sub(first) != Some(u64::from(self.count.get())) {
            return Err(FooterError::Field { field: "count" });
        }
        if self.first_time_us.get() > self.last_time_us.get() {
            return Err(FooterError::Field { field: "last_time_us" });
        }
        if self.reserved.iter().any(|&byte| byte != 0) {
            return Err(FooterError::Field { field: "reserved" });
        }
        let unused = self.samples.get(usize::from(self.sample_count.get())..).unwrap_or_default();
        if unused.as_bytes().iter().any(|&byte| byte != 0) {
            return Err(FooterError::Field { field: "samples" });
        }
        let (time_index, has_time_blocks) = (self.time_index()?, self.version.get() == FOOTER_VERSION_TIME_BLOCKS);
        if has_time_blocks && time_index.stride() == 1 {
            return Err(FooterError::Field { field: "version" });
        }
        Ok(Footer {
            channel: ChannelId(self.channel.get()),
            first: Seq(first),
            end: Seq(end),
            dat_size: self.dat_size.get(),
            first_time_us: self.first_time_us.get(),
            last_time_us: self.last_time_us.get(),
            idx_hash: self.idx_hash.get(),
            time_index,
            has_time_blocks,
        })
    }

    fn time_index(&self) -> Result<TimeIndex, FooterError> {
        let bad = FooterError::Field { field: "samples" };
        let blocks = self.count.get().div_ceil(RECORDS_PER_BLOCK as u32);
        let raw = self.samples.get(..usize::from(self.sample_count.get())).ok_or(bad)?;
        let sample = |raw: &RawSample| TimeSample { block: raw.block.get(), first_time_us: raw.first_time_us.get() };
        let samples: Vec<_> = raw.iter().map(sample).collect();
        let stride = samples.get(1).map_or(1, |second| second.block);
        let regular = |(i, sample): (usize, &TimeSample)| u64::from(sample.block) == i as u64 * u64::from(stride);
        let ordered = samples.windows(2).all(|pair| pair[0].first_time_us <= pair[1].first_time_us);
        let inside = samples.last().is_none_or(|last| last.block < blocks);
        if !stride.is_power_of_two() || !samples.iter().enumerate().all(regular) || !ordered || !inside {
            return Err(bad);
        }
        Ok(TimeIndex { samples, stride_log2: stride.ilog2() })
    }
}

fn footer_crc(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[..CRC_OFFSET]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[CRC_OFFSET + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(blocks: u32) -> Footer {
        let mut time_index = TimeIndex::new();
        (0..blocks).for_each(|block| time_index.push(block, 100 + u64::from(block)));
        Footer {
            channel: ChannelId(9),
            first: Seq(5),
            end: Seq(5 + u64::from(blocks) * 204),
            dat_size: 1 << 30,
            first_time_us: 100,
            last_time_us: 100 + u64::from(blocks),
            idx_hash: idx_hash_append(idx_hash_append(0, b"one"), b"two"),
            has_time_blocks: blocks.is_multiple_of(2) && time_index.stride() > 1,
            time_index,
        }
    }

    fn encoded(blocks: u32) -> Vec<u8> {
        let mut out = vec![0xff; FOOTER_SIZE];
        footer(blocks).encode(&mut out);
        out
    }

    #[test]
    fn footers_of_many_sizes_come_back() {
        for blocks in [0, 1, 2, 191, 192, 193, 384, 385, 1000, 82_241] {
            assert_eq!(Footer::decode(&encoded(blocks)).unwrap(), footer(blocks), "{blocks}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = encoded(300);
        for bit in 0..FOOTER_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bytes).is_err(), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let bytes = encoded(3);
        for size in 0..FOOTER_SIZE {
            assert_eq!(Footer::decode(&bytes[..size]), Err(FooterError::Size { size }));
        }
    }

    #[test]
    fn contradicting_fields_are_refused() {
        for (at, value) in
            [(8, 2), (8, 3), (10, 193), (12, 1), (60, 0xff), (72, 3), (84, 5), (123, 1), (2375, 1), (4000, 1)]
        {
            let mut bytes = encoded(4);
            bytes[at] = value;
            if at == 60 {
                bytes[52] = 0xff;
                bytes[60] = 0;
            }
            let crc = footer_crc(&bytes);
            bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
            assert!(Footer::decode(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn time_index_is_evenly_thinned() {
        for blocks in 1..2000 {
            let footer = footer(blocks);
            let samples = footer.time_index.samples();
            let stride = 1 << footer.time_index.stride_log2;
            assert_eq!(samples.len() as u32, blocks.div_ceil(stride));
            assert!(samples.len() > TIME_SAMPLES_MAX / 2 || stride == 1);
        }
    }

    #[test]
    fn search_by_time_never_skips_an_event() {
        let index = footer(1000).time_index;
        for time in 0..1200 {
            let block = index.block_before(time);
            assert!(block == 0 || 100 + u64::from(block) < time, "block {block} for {time}");
        }
        assert_eq!(TimeIndex::new().block_before(5), 0);
    }
}
