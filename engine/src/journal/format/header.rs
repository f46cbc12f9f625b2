//! The first block of a journal segment.
//!
//! It says which store, shard and number the segment is of, which run of the store wrote it, what precedes it, and
//! under which salt its commits stand: what a recycled file holds of an earlier life has another salt.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | `magic` | `REDEXWAL` |
//! | 8..10 | `version` | 1 |
//! | 10..12 | `shard` | |
//! | 12..16 | `epoch` | opening of the store that wrote it |
//! | 16..32 | `store_uuid` | |
//! | 32..40 | `number` | |
//! | 40..48 | `salt` | random |
//! | 48..52 | `key_id` | 0: not encrypted |
//! | 52..56 | `crc32c` | over the whole block without these four bytes |
//! | 56..64 | `predecessor` | number of the segment before, 0 for none |
//! | 64..72 | `first_lsn` | LSN of the first commit; what older segments hold from there on is void |
//! | 72..4096 | | zero |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::BLOCK_SIZE;
use super::commit::SegmentContext;
use crate::ids::{Epoch, Lsn, SegmentNo, ShardId, StoreUuid};

/// Version of the journal's format.
pub const JOURNAL_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"REDEXWAL";
const CRC_OFFSET: usize = 52;
const FIELDS_SIZE: usize = 72;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    shard: U16,
    epoch: U32,
    store_uuid: [u8; 16],
    number: U64,
    salt: U64,
    key_id: U32,
    crc32c: U32,
    predecessor: U64,
    first_lsn: U64,
    reserved: [u8; BLOCK_SIZE - FIELDS_SIZE],
}

const _: () = {
    assert!(size_of::<RawHeader>() == BLOCK_SIZE);
    assert!(std::mem::offset_of!(RawHeader, crc32c) == CRC_OFFSET);
    assert!(std::mem::offset_of!(RawHeader, reserved) == FIELDS_SIZE);
};

/// What the first block of a journal segment says. From disk it comes only through [`SegmentHeader::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it belongs to.
    pub uuid: StoreUuid,
    /// The shard it belongs to.
    pub shard: ShardId,
    /// Its number, from 1.
    pub number: SegmentNo,
    /// Epoch of the store when it was made.
    pub epoch: Epoch,
    /// Random number that all its commits repeat.
    pub salt: u64,
    /// Key its payloads are encrypted under; 0 for none, the only value in version 1.
    pub key_id: u32,
    /// The segment before it, `None` for the first.
    pub predecessor: Option<SegmentNo>,
    /// LSN of its first commit.
    pub first_lsn: Lsn,
}

/// Why a block is not the header of a journal segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer bytes than a block.
    #[error("header has {size} bytes, not 4096")]
    Size {
        /// Bytes given.
        size: usize,
    },
    /// The block is something else, or was never written.
    #[error("header does not begin with its magic number")]
    Magic,
    /// The block is damaged.
    #[error("checksum of the header is {found:#010x}, the header says {expected:#010x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// The header is whole, but of a newer format.
    #[error("header has format version {version}, this software knows 1")]
    Version {
        /// Version found.
        version: u16,
    },
    /// The header is whole, but a field has a value that version 1 does not know.
    #[error("field `{field}` of the header has a value that format version 1 does not know")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
}

impl SegmentHeader {
    /// Fills a block with the header.
    ///
    /// # Panics
    ///
    /// If `out` is not one block, or the number or first LSN is 0.
    pub fn encode(&self, out: &mut [u8]) {
        assert!(self.number.0 > 0 && self.first_lsn.0 > 0 && self.predecessor != Some(SegmentNo(0)));
        let raw = RawHeader {
            magic: MAGIC,
            version: U16::new(JOURNAL_VERSION),
            shard: U16::new(self.shard.0),
            epoch: U32::new(self.epoch.0),
            store_uuid: self.uuid.0,
            number: U64::new(self.number.0),
            salt: U64::new(self.salt),
            key_id: U32::new(self.key_id),
            crc32c: U32::ZERO,
            predecessor: U64::new(self.predecessor.map_or(0, |number| number.0)),
            first_lsn: U64::new(self.first_lsn.0),
            reserved: [0; BLOCK_SIZE - FIELDS_SIZE],
        };
        out.copy_from_slice(raw.as_bytes());
        let crc = header_crc(out);
        out[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Checks a header block. Whether store, shard and number are the expected ones is the caller's to compare.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn verify(bytes: &[u8]) -> Result<Self, HeaderError> {
        let size = bytes.len();
        let raw = RawHeader::ref_from_bytes(bytes).map_err(|_| HeaderError::Size { size })?;
        if raw.magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (expected, found) = (raw.crc32c.get(), header_crc(bytes));
        if expected != found {
            return Err(HeaderError::Checksum { expected, found });
        }
        if raw.version.get() != JOURNAL_VERSION {
            return Err(HeaderError::Version { version: raw.version.get() });
        }
        raw.fields()
    }

    /// What the commits of this segment are checked against.
    #[must_use]
    pub fn context(&self) -> SegmentContext {
        SegmentContext::new(self.uuid, self.shard, self.number, self.salt)
    }
}

impl RawHeader {
    fn fields(&self) -> Result<SegmentHeader, HeaderError> {
        for (bad, field) in [
            (self.number.get() == 0, "number"),
            (self.first_lsn.get() == 0, "first_lsn"),
            (self.key_id.get() != 0, "key_id"),
            (self.reserved.iter().any(|&byte| byte != 0), "reserved"),
        ] {
            if bad {
                return Err(HeaderError::Field { field });
            }
        }
        let predecessor = self.predecessor.get();
        Ok(SegmentHeader {
            uuid: StoreUuid(self.store_uuid),
            shard: ShardId(self.shard.get()),
            number: SegmentNo(self.number.get()),
            epoch: Epoch(self.epoch.get()),
            salt: self.salt.get(),
            key_id: self.key_id.get(),
            predecessor: (predecessor != 0).then_some(SegmentNo(predecessor)),
            first_lsn: Lsn(self.first_lsn.get()),
        })
    }
}

fn header_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_OFFSET]), &bytes[CRC_OFFSET + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        uuid: StoreUuid([3; 16]),
        shard: ShardId(2),
        number: SegmentNo(40),
        epoch: Epoch(6),
        salt: 0x1234_5678_9abc_def0,
        key_id: 0,
        predecessor: Some(SegmentNo(39)),
        first_lsn: Lsn(1001),
    };

    fn encoded() -> Vec<u8> {
        let mut out = vec![0xff; BLOCK_SIZE];
        HEADER.encode(&mut out);
        out
    }

    #[test]
    fn headers_come_back() {
        assert_eq!(SegmentHeader::verify(&encoded()), Ok(HEADER));
        let first = SegmentHeader { predecessor: None, ..HEADER };
        let mut out = encoded();
        first.encode(&mut out);
        assert_eq!(SegmentHeader::verify(&out), Ok(first));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = encoded();
        for bit in 0..BLOCK_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::verify(&bytes).is_err(), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let bytes = encoded();
        for size in 0..BLOCK_SIZE {
            assert_eq!(SegmentHeader::verify(&bytes[..size]), Err(HeaderError::Size { size }));
        }
        assert_eq!(SegmentHeader::verify(&[0; BLOCK_SIZE]), Err(HeaderError::Magic));
    }

    #[test]
    fn newer_versions_and_unknown_values_are_refused() {
        for (at, field) in [(8, None), (48, Some("key_id")), (4095, Some("reserved"))] {
            let mut bytes = encoded();
            bytes[at] = 2;
            let crc = header_crc(&bytes);
            bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
            let expected = field.map_or(HeaderError::Version { version: 2 }, |field| HeaderError::Field { field });
            assert_eq!(SegmentHeader::verify(&bytes), Err(expected));
        }
    }
}
