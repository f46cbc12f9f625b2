//! The commit: what a shard writes and makes durable at once.
//!
//! A commit is a header, its entries ("meta") and the payload bytes of its events, padded with zeros to a block
//! boundary. The header's checksum covers every byte of the header and the store; shard, segment and offset are
//! fields of it: a whole commit in the wrong place is wrong. The body's checksum covers the meta; each payload is
//! covered by its own record.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | `magic` | `RXC1` |
//! | 4..8 | `header_crc` | over the store's uuid, then bytes 0..4 and 8..80 |
//! | 8..12 | `body_crc` | over the meta |
//! | 12..14 | `shard` | |
//! | 14..16 | | zero |
//! | 16..24 | `salt` | of the segment |
//! | 24..32 | `lsn` | dense |
//! | 32..40 | `durable_lsn` | all commits below were known durable when this one was written; at most `lsn` |
//! | 40..48 | `segment` | |
//! | 48..52 | `offset` | of this header in the segment |
//! | 52..56 | `meta_len` | bytes, a multiple of 4 |
//! | 56..60 | `payload_len` | bytes |
//! | 60..64 | `entry_count` | |
//! | 64..68 | `epoch` | of the store when it was written |
//! | 68..80 | | zero |
//!
//! The meta begins at byte 80, the payload bytes right behind it.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::BLOCK_SIZE;
use crate::ids::{Epoch, Lsn, SegmentNo, ShardId, StoreUuid};

/// Size of a commit's header, bytes.
pub const COMMIT_HEADER_SIZE: usize = 80;

/// Largest commit, bytes with padding.
pub const COMMIT_SIZE_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"RXC1";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCommitHeader {
    magic: [u8; 4],
    header_crc: U32,
    body_crc: U32,
    shard: U16,
    reserved_a: U16,
    salt: U64,
    lsn: U64,
    durable_lsn: U64,
    segment: U64,
    offset: U32,
    meta_len: U32,
    payload_len: U32,
    entry_count: U32,
    epoch: U32,
    reserved_b: [u8; 12],
}

const _: () = {
    assert!(size_of::<RawCommitHeader>() == COMMIT_HEADER_SIZE);
    assert!(std::mem::offset_of!(RawCommitHeader, salt) == 16);
    assert!(std::mem::offset_of!(RawCommitHeader, offset) == 48);
    assert!(COMMIT_SIZE_MAX.is_multiple_of(BLOCK_SIZE));
};

/// What all commits of one segment share, and are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentContext {
    uuid_crc: u32,
    shard: ShardId,
    segment: SegmentNo,
    salt: u64,
}

/// What differs from commit to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitFields {
    /// Position in the shard's journal.
    pub lsn: Lsn,
    /// All commits below are known to be durable; at most `lsn`.
    pub durable_lsn: Lsn,
    /// Epoch of the store now.
    pub epoch: Epoch,
    /// Where in the segment the commit will lie, bytes; a multiple of [`BLOCK_SIZE`].
    pub offset: u32,
    /// Length of the entries, bytes.
    pub meta_len: u32,
    /// Length of the payload bytes.
    pub payload_len: u32,
    /// Number of entries.
    pub entry_count: u32,
}

/// A commit header that was found whole and in its place. The meta is not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeader {
    fields: CommitFields,
    body_crc: u32,
}

/// Why bytes are not the commit that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Not enough bytes for a header.
    #[error("commit header is cut off")]
    Cut,
    /// There is no commit here: zeros, or something else.
    #[error("no commit header")]
    Magic,
    /// What is here was written in an earlier life of a recycled segment.
    #[error("commit of another life of this file")]
    Salt,
    /// The header is damaged, or belongs to another store.
    #[error("checksum of the commit header is {found:#010x}, the header says {expected:#010x}")]
    HeaderChecksum {
        /// What the header says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// The header is whole, but belongs to another shard, segment or offset.
    #[error("commit belongs elsewhere: shard {shard}, segment {segment}, offset {offset}")]
    Place {
        /// Shard it names.
        shard: ShardId,
        /// Segment it names.
        segment: SegmentNo,
        /// Offset it names.
        offset: u32,
    },
    /// The header is whole, but a field has a value that no writer gives it.
    #[error("field `{field}` of a commit header has an impossible value")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
    /// The header is whole, but the commit would end behind the file.
    #[error("commit of {size} bytes is cut off")]
    BodyCut {
        /// Size by the header, bytes.
        size: usize,
    },
    /// The entries are damaged.
    #[error("checksum of the commit's entries is {found:#010x}, the header says {expected:#010x}")]
    BodyChecksum {
        /// What the header says.
        expected: u32,
        /// What the bytes have.
        found: u32,
    },
}

impl SegmentContext {
    /// What commits of this segment repeat.
    #[must_use]
    pub fn new(uuid: StoreUuid, shard: ShardId, segment: SegmentNo, salt: u64) -> Self {
        Self { uuid_crc: crc32c::crc32c(&uuid.0), shard, segment, salt }
    }
}

/// Size of a commit on disk, bytes with padding: a multiple of [`BLOCK_SIZE`].
#[must_use]
pub fn commit_size(meta_len: usize, payload_len: usize) -> usize {
    (COMMIT_HEADER_SIZE + meta_len + payload_len).next_multiple_of(BLOCK_SIZE)
}

/// Completes a commit in `buf`, where meta and payload bytes already lie behind [`COMMIT_HEADER_SIZE`]: fills header
/// and checksums, and pads with zeros. Gives the size to write.
///
/// # Panics
///
/// If `buf` is shorter than the commit, the commit larger than [`COMMIT_SIZE_MAX`], or a field has an impossible value.
pub fn finish_commit(buf: &mut [u8], context: &SegmentContext, fields: &CommitFields) -> usize {
    let body_end = COMMIT_HEADER_SIZE + fields.meta_len as usize + fields.payload_len as usize;
    let size = body_end.next_multiple_of(BLOCK_SIZE);
    assert!(size <= COMMIT_SIZE_MAX, "commit of {size} bytes");
    assert_eq!(fields.impossible(), None, "impossible value in a commit header");
    let meta = &buf[COMMIT_HEADER_SIZE..COMMIT_HEADER_SIZE + fields.meta_len as usize];
    let mut raw = RawCommitHeader {
        magic: MAGIC,
        header_crc: U32::ZERO,
        body_crc: U32::new(crc32c::crc32c(meta)),
        shard: U16::new(context.shard.0),
        reserved_a: U16::ZERO,
        salt: U64::new(context.salt),
        lsn: U64::new(fields.lsn.0),
        durable_lsn: U64::new(fields.durable_lsn.0),
        segment: U64::new(context.segment.0),
        offset: U32::new(fields.offset),
        meta_len: U32::new(fields.meta_len),
        payload_len: U32::new(fields.payload_len),
        entry_count: U32::new(fields.entry_count),
        epoch: U32::new(fields.epoch.0),
        reserved_b: [0; 12],
    };
    raw.header_crc = U32::new(raw.crc(context));
    buf[..COMMIT_HEADER_SIZE].copy_from_slice(raw.as_bytes());
    buf[body_end..size].fill(0);
    size
}

impl CommitHeader {
    /// Checks the header at the beginning of `bytes`, which lie at `offset` in the segment of `context`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn verify(bytes: &[u8], context: &SegmentContext, offset: u64) -> Result<Self, CommitError> {
        let (raw, _) = RawCommitHeader::ref_from_prefix(bytes).map_err(|_| CommitError::Cut)?;
        if raw.magic != MAGIC {
            return Err(CommitError::Magic);
        }
        if raw.salt.get() != context.salt {
            return Err(CommitError::Salt);
        }
        let (expected, found) = (raw.header_crc.get(), raw.crc(context));
        if expected != found {
            return Err(CommitError::HeaderChecksum { expected, found });
        }
        let (shard, segment) = (ShardId(raw.shard.get()), SegmentNo(raw.segment.get()));
        if (shard, segment) != (context.shard, context.segment) || u64::from(raw.offset.get()) != offset {
            return Err(CommitError::Place { shard, segment, offset: raw.offset.get() });
        }
        raw.header()
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> &CommitFields {
        &self.fields
    }

    /// Size on disk, bytes with padding; at most [`COMMIT_SIZE_MAX`].
    #[must_use]
    pub fn commit_size(&self) -> usize {
        commit_size(self.fields.meta_len as usize, self.fields.payload_len as usize)
    }

    /// Splits a commit, whose first byte is that of `bytes`, into meta and payload bytes, and checks the meta.
    ///
    /// # Errors
    ///
    /// [`CommitError::BodyCut`] if `bytes` end too early, [`CommitError::BodyChecksum`] if the meta is damaged.
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), CommitError> {
        let size = self.commit_size();
        let body = bytes.get(COMMIT_HEADER_SIZE..size).ok_or(CommitError::BodyCut { size })?;
        let (meta, rest) = body.split_at(self.fields.meta_len as usize);
        let (expected, found) = (self.body_crc, crc32c::crc32c(meta));
        if expected != found {
            return Err(CommitError::BodyChecksum { expected, found });
        }
        Ok((meta, &rest[..self.fields.payload_len as usize]))
    }
}

impl CommitFields {
    /// The name of a field with a value that no writer gives it.
    fn impossible(&self) -> Option<&'static str> {
        let size = u64::from(self.meta_len) + u64::from(self.payload_len);
        [
            (self.lsn.0 == 0, "lsn"),
            (self.durable_lsn > self.lsn, "durable_lsn"),
            (!(self.offset as usize).is_multiple_of(BLOCK_SIZE) || self.offset == 0, "offset"),
            (!self.meta_len.is_multiple_of(4), "meta_len"),
            (size > (COMMIT_SIZE_MAX - COMMIT_HEADER_SIZE) as u64, "payload_len"),
        ]
        .into_iter()
        .find_map(|(bad, field)| bad.then_some(field))
    }
}

impl RawCommitHeader {
    fn crc(&self, context: &SegmentContext) -> u32 {
        let bytes = self.as_bytes();
        let crc = crc32c::crc32c_append(context.uuid_crc, &bytes[..4]);
        crc32c::crc32c_append(crc, &bytes[8..])
    }

    fn header(&self) -> Result<CommitHeader, CommitError> {
        let fields = CommitFields {
            lsn: Lsn(self.lsn.get()),
            durable_lsn: Lsn(self.durable_lsn.get()),
            epoch: Epoch(self.epoch.get()),
            offset: self.offset.get(),
            meta_len: self.meta_len.get(),
            payload_len: self.payload_len.get(),
            entry_count: self.entry_count.get(),
        };
        if self.reserved_a.get() != 0 || self.reserved_b != [0; 12] {
            return Err(CommitError::Field { field: "reserved" });
        }
        match fields.impossible() {
            Some(field) => Err(CommitError::Field { field }),
            None => Ok(CommitHeader { fields, body_crc: self.body_crc.get() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: StoreUuid = StoreUuid([9; 16]);
    const FIELDS: CommitFields = CommitFields {
        lsn: Lsn(100),
        durable_lsn: Lsn(98),
        epoch: Epoch(3),
        offset: 8192,
        meta_len: 40,
        payload_len: 5000,
        entry_count: 1,
    };

    fn context() -> SegmentContext {
        SegmentContext::new(UUID, ShardId(1), SegmentNo(7), 0xabcd)
    }

    fn encoded() -> Vec<u8> {
        let mut buf = vec![0x5a; 3 * BLOCK_SIZE];
        let size = finish_commit(&mut buf, &context(), &FIELDS);
        buf.truncate(size);
        buf
    }

    fn check(bytes: &[u8]) -> Result<CommitHeader, CommitError> {
        let header = CommitHeader::verify(bytes, &context(), 8192)?;
        header.body(bytes).map(|_| header)
    }

    #[test]
    fn commits_come_back_padded_with_zeros() {
        let bytes = encoded();
        assert_eq!(bytes.len(), 2 * BLOCK_SIZE);
        let header = check(&bytes).unwrap();
        assert_eq!((header.fields(), header.commit_size()), (&FIELDS, bytes.len()));
        let (meta, payload) = header.body(&bytes).unwrap();
        assert!(meta == [0x5a; 40] && payload == [0x5a; 5000]);
        assert!(bytes[80 + 40 + 5000..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn every_flipped_bit_of_header_and_meta_is_found() {
        let mut bytes = encoded();
        for bit in 0..(COMMIT_HEADER_SIZE + 40) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes).is_err(), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let bytes = encoded();
        for size in 0..bytes.len() {
            assert!(check(&bytes[..size]).is_err(), "{size}");
        }
    }

    #[test]
    fn whole_commit_in_the_wrong_place_is_wrong() {
        let bytes = encoded();
        let verify = |context: SegmentContext, offset| CommitHeader::verify(&bytes, &context, offset).unwrap_err();
        let place = CommitError::Place { shard: ShardId(1), segment: SegmentNo(7), offset: 8192 };
        assert_eq!(verify(context(), 4096), place);
        assert_eq!(verify(SegmentContext { shard: ShardId(2), ..context() }, 8192), place);
        assert_eq!(verify(SegmentContext { segment: SegmentNo(8), ..context() }, 8192), place);
        assert_eq!(verify(SegmentContext { salt: 1, ..context() }, 8192), CommitError::Salt);
        let store = SegmentContext::new(StoreUuid([8; 16]), ShardId(1), SegmentNo(7), 0xabcd);
        assert!(matches!(verify(store, 8192), CommitError::HeaderChecksum { .. }));
        assert_eq!(CommitHeader::verify(&[0; 4096], &context(), 0), Err(CommitError::Magic));
    }

    #[test]
    fn impossible_values_are_refused() {
        let impossible = |fields: CommitFields| fields.impossible();
        assert_eq!(impossible(FIELDS), None);
        assert_eq!(impossible(CommitFields { lsn: Lsn(0), durable_lsn: Lsn(0), ..FIELDS }), Some("lsn"));
        assert_eq!(impossible(CommitFields { durable_lsn: Lsn(101), ..FIELDS }), Some("durable_lsn"));
        assert_eq!(impossible(CommitFields { offset: 8193, ..FIELDS }), Some("offset"));
        assert_eq!(impossible(CommitFields { meta_len: 41, ..FIELDS }), Some("meta_len"));
        assert_eq!(impossible(CommitFields { payload_len: u32::MAX, ..FIELDS }), Some("payload_len"));
    }
}
