//! An object of the cold store: one sealed segment, idx and dat, in chunks that can be fetched one by one.
//!
//! Header (one block), chunks, table. Chunks are `chunk_size` bytes of idx, then of dat, each file's last one shorter; a chunk is
//! stored as it is, or compressed if that makes it smaller. The table is at the end, since it is known last.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | `magic` | `REDEXCOL` |
//! | 8..10 | `version` | 1 |
//! | 10..12 | `codec` | of chunks that are stored shorter than they are: 0 none, 1 zstd |
//! | 12..16 | `crc32c` | over the whole block without these four bytes |
//! | 16..32 | `store_uuid` | |
//! | 32..40 | `channel` | |
//! | 40..48 | `first_seq` | |
//! | 48..56 | `end_seq` | exclusive |
//! | 56..64 | `idx_size` | bytes of idx, footer included |
//! | 64..72 | `dat_size` | bytes of dat, whole blocks |
//! | 72..80 | `hash` | of the segment: high half the footer's `idx_hash`, low half CRC-32C over the footer |
//! | 80..84 | `chunk_size` | bytes, whole blocks, at most 16 MiB |
//! | 84..88 | `chunk_count` | |
//! | 88..92 | `epoch` | in which it was uploaded |
//! | 92..94 | `name_len` | 1 to 255 |
//! | 94..96 | | zero |
//! | 96..351 | `name` | of the channel, zeros behind it |
//! | 351..4096 | | zero |
//!
//! Table: for each chunk `stored_len u32, crc32c u32`, then `chunk_count u32, crc32c u32`. The checksum of a chunk begins with
//! the header's (u32) and its index (u32), then its bytes as stored; that of the table with the header's, then what
//! is in front of it.

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::config::SEGMENT_RECORDS_MAX;
use crate::ids::{ChannelId, Epoch, Seq, StoreUuid};
use crate::segment::block::RECORDS_PER_BLOCK;
use crate::segment::footer::{FOOTER_SIZE, Footer, TIME_SAMPLES_MAX};

/// Size of a header, bytes.
pub const OBJECT_HEADER_SIZE: usize = 4096;
/// Version of the object's layout.
pub const OBJECT_VERSION: u16 = 1;
/// Largest chunk, bytes.
pub const CHUNK_SIZE_MAX: u32 = 16 << 20;
/// Chunk size unless a test sets another, bytes.
pub const CHUNK_SIZE: u32 = 1 << 20;

const BLOCK: u64 = 4096;
const MAGIC: [u8; 8] = *b"REDEXCOL";
const NAME_SIZE_MAX: usize = 255;
const CRC_OFFSET: usize = 12;
const TABLE_ENTRY_SIZE: usize = 8;
const TABLE_END_SIZE: usize = 8;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    codec: U16,
    crc32c: U32,
    store_uuid: [u8; 16],
    channel: U64,
    first_seq: U64,
    end_seq: U64,
    idx_size: U64,
    dat_size: U64,
    hash: U64,
    chunk_size: U32,
    chunk_count: U32,
    epoch: U32,
    name_len: U16,
    reserved: U16,
    name: [u8; NAME_SIZE_MAX],
    rest: [u8; OBJECT_HEADER_SIZE - 96 - NAME_SIZE_MAX],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawChunk {
    stored_len: U32,
    crc32c: U32,
}

const _: () = {
    assert!(size_of::<RawHeader>() == OBJECT_HEADER_SIZE);
    assert!(std::mem::offset_of!(RawHeader, crc32c) == CRC_OFFSET);
    assert!(std::mem::offset_of!(RawHeader, name) == 96);
    assert!(size_of::<RawChunk>() == TABLE_ENTRY_SIZE);
};

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// By zstd.
    Zstd,
}

/// One of the two files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Index records and footer.
    Idx,
    /// Payloads.
    Dat,
}

/// What the header of an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHeader {
    /// Store of the segment.
    pub uuid: StoreUuid,
    /// Channel of the segment.
    pub channel: ChannelId,
    /// Its name.
    pub name: String,
    /// First sequence.
    pub first: Seq,
    /// End, exclusive.
    pub end: Seq,
    /// Bytes of idx.
    pub idx_size: u64,
    /// Bytes of dat.
    pub dat_size: u64,
    /// See [`segment_hash`].
    pub hash: u64,
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// How chunks are compressed.
    pub codec: Codec,
    /// Epoch of the upload.
    pub epoch: Epoch,
}

/// Where a chunk lies in its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Byte offset in the object.
    pub offset: u64,
    /// Bytes as stored.
    pub stored_len: u32,
    /// Checksum, see [`chunk_crc`].
    pub crc32c: u32,
}

/// Why bytes are not the header or table of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The object ends too early, or goes on too long.
    #[error("object has {size} bytes where {needed} are needed")]
    Size {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        size: u64,
    },
    /// The object is something else.
    #[error("object does not begin with its magic number")]
    Magic,
    /// The object is damaged.
    #[error("checksum of the object's {what} is {found:#010x}, the object says {expected:#010x}")]
    Checksum {
        /// Which part of it.
        what: &'static str,
        /// What the object says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// The object is whole, but of a newer format: use the software that wrote it, or a later one.
    #[error("object has format version {version}, this software knows {OBJECT_VERSION}")]
    Version {
        /// Version found.
        version: u16,
    },
    /// The object is whole, but its fields contradict each other.
    #[error("field `{field}` of the object contradicts the others")]
    Field {
        /// Name of the field.
        field: &'static str,
    },
}

/// The hash of a segment, from the last block of its idx: two segments that differ in a record, a payload or a time have
/// different ones.
#[must_use]
pub fn segment_hash(footer: &Footer, block: &[u8]) -> u64 {
    u64::from(footer.idx_hash) << 32 | u64::from(crc32c::crc32c(block))
}

/// Bytes of idx of a sealed segment with these events, but for blocks of times.
#[must_use]
pub fn idx_size(first: Seq, end: Seq) -> u64 {
    (end.0 - first.0).div_ceil(RECORDS_PER_BLOCK as u64) * BLOCK + FOOTER_SIZE as u64
}

/// Blocks of times that a segment of so many index blocks has in front of its footer: one for each of its samples, if there are
/// more blocks than samples.
fn time_blocks(blocks: u64) -> u64 {
    let most = TIME_SAMPLES_MAX as u64;
    let strides = std::iter::successors(Some(1_u64), |stride| Some(stride * 2));
    let samples = strides.map(|stride| blocks.div_ceil(stride)).find(|samples| *samples <= most);
    samples.filter(|_| blocks > most).unwrap_or(0)
}

impl ObjectHeader {
    /// Chunks of idx.
    #[must_use]
    pub fn idx_chunks(&self) -> u64 {
        self.idx_size.div_ceil(u64::from(self.chunk_size))
    }

    /// Chunks of both files.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.idx_chunks() + self.dat_size.div_ceil(u64::from(self.chunk_size))
    }

    /// Size of a file.
    #[must_use]
    pub fn size_of(&self, part: Part) -> u64 {
        match part {
            Part::Idx => self.idx_size,
            Part::Dat => self.dat_size,
        }
    }

    /// Index of the chunk that holds this byte of a file.
    #[must_use]
    pub fn chunk_at(&self, part: Part, offset: u64) -> u64 {
        let before = if part == Part::Idx { 0 } else { self.idx_chunks() };
        before + offset / u64::from(self.chunk_size)
    }

    /// The file of a chunk, and its bytes there.
    #[must_use]
    pub fn range_of(&self, index: u64) -> (Part, Range<u64>) {
        let (part, nth) = match index.checked_sub(self.idx_chunks()) {
            None => (Part::Idx, index),
            Some(nth) => (Part::Dat, nth),
        };
        let start = nth * u64::from(self.chunk_size);
        (part, start..(start + u64::from(self.chunk_size)).min(self.size_of(part)))
    }

    /// Bytes of a chunk before it was compressed.
    #[must_use]
    pub fn len_of(&self, index: u64) -> usize {
        let (_, range) = self.range_of(index);
        (range.end - range.start) as usize
    }

    /// Bytes of the table.
    #[must_use]
    pub fn table_size(&self) -> u64 {
        self.chunk_count() * TABLE_ENTRY_SIZE as u64 + TABLE_END_SIZE as u64
    }

    /// The header's bytes, and its checksum.
    ///
    /// # Panics
    ///
    /// If the fields contradict each other.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, u32) {
        let mut name = [0; NAME_SIZE_MAX];
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let mut raw = RawHeader {
            magic: MAGIC,
            version: U16::new(OBJECT_VERSION),
            codec: U16::new(self.codec.number()),
            crc32c: U32::ZERO,
            store_uuid: self.uuid.0,
            channel: U64::new(self.channel.0),
            first_seq: U64::new(self.first.0),
            end_seq: U64::new(self.end.0),
            idx_size: U64::new(self.idx_size),
            dat_size: U64::new(self.dat_size),
            hash: U64::new(self.hash),
            chunk_size: U32::new(self.chunk_size),
            chunk_count: U32::new(u32::try_from(self.chunk_count()).expect("a segment has few chunks")),
            epoch: U32::new(self.epoch.0),
            name_len: U16::new(self.name.len() as u16),
            reserved: U16::ZERO,
            name,
            rest: [0; OBJECT_HEADER_SIZE - 96 - NAME_SIZE_MAX],
        };
        assert!(raw.contradiction().is_none(), "{:?}", raw.contradiction());
        let crc = header_crc(raw.as_bytes());
        raw.crc32c = U32::new(crc);
        (raw.as_bytes().to_vec(), crc)
    }

    /// Checks a header; gives its fields and its checksum.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. A newer version is reported only if the header is whole.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), ObjectError> {
        let size = ObjectError::Size { needed: OBJECT_HEADER_SIZE as u64, size: bytes.len() as u64 };
        let raw = RawHeader::ref_from_bytes(bytes).map_err(|_| size)?;
        if raw.magic != MAGIC {
            return Err(ObjectError::Magic);
        }
        let (expected, found) = (raw.crc32c.get(), header_crc(bytes));
        if expected != found {
            return Err(ObjectError::Checksum { what: "header", expected, found });
        }
        if raw.version.get() != OBJECT_VERSION {
            return Err(ObjectError::Version { version: raw.version.get() });
        }
        if let Some(field) = raw.contradiction() {
            return Err(ObjectError::Field { field });
        }
        Ok((raw.fields()?, found))
    }
}

impl RawHeader {
    /// Which field cannot be.
    fn contradiction(&self) -> Option<&'static str> {
        let (first, end) = (self.first_seq.get(), self.end_seq.get());
        let chunk_size = u64::from(self.chunk_size.get());
        let name_len = usize::from(self.name_len.get());
        let in_blocks = |size: u64| size.is_multiple_of(BLOCK);
        if first >= end || end - first > SEGMENT_RECORDS_MAX {
            return Some("end_seq");
        }
        let blocks = idx_size(Seq(first), Seq(end));
        if ![blocks, blocks + time_blocks(blocks / BLOCK - 1) * BLOCK].contains(&self.idx_size.get()) {
            return Some("idx_size");
        }
        if !in_blocks(self.dat_size.get()) || self.dat_size.get() > 1 << 32 {
            return Some("dat_size");
        }
        if chunk_size == 0 || !in_blocks(chunk_size) || chunk_size > u64::from(CHUNK_SIZE_MAX) {
            return Some("chunk_size");
        }
        let chunks = self.idx_size.get().div_ceil(chunk_size) + self.dat_size.get().div_ceil(chunk_size);
        let zeros = self.name.iter().skip(name_len).chain(&self.rest).all(|&byte| byte == 0);
        [
            (chunks != u64::from(self.chunk_count.get()), "chunk_count"),
            (!(1..=NAME_SIZE_MAX).contains(&name_len), "name_len"),
            (!zeros || self.reserved.get() != 0, "reserved"),
        ]
        .into_iter()
        .find_map(|(bad, field)| bad.then_some(field))
    }

    fn fields(&self) -> Result<ObjectHeader, ObjectError> {
        let name = &self.name[..usize::from(self.name_len.get())];
        let name = std::str::from_utf8(name).map_err(|_| ObjectError::Field { field: "name" })?;
        Ok(ObjectHeader {
            uuid: StoreUuid(self.store_uuid),
            channel: ChannelId(self.channel.get()),
            name: name.to_owned(),
            first: Seq(self.first_seq.get()),
            end: Seq(self.end_seq.get()),
            idx_size: self.idx_size.get(),
            dat_size: self.dat_size.get(),
            hash: self.hash.get(),
            chunk_size: self.chunk_size.get(),
            codec: Codec::of(self.codec.get()).ok_or(ObjectError::Field { field: "codec" })?,
            epoch: Epoch(self.epoch.get()),
        })
    }
}

impl Codec {
    fn number(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
        }
    }

    fn of(number: u16) -> Option<Self> {
        [Self::None, Self::Zstd].into_iter().find(|codec| codec.number() == number)
    }
}

/// Checksum of a chunk, from its bytes as stored.
#[must_use]
pub fn chunk_crc(header_crc: u32, index: u64, stored: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header_crc.to_le_bytes()), &(index as u32).to_le_bytes());
    crc32c::crc32c_append(crc, stored)
}

/// The bytes of a table. Offsets are not stored: chunks lie one behind the other.
#[must_use]
pub fn encode_table(header_crc: u32, chunks: &[Chunk]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * TABLE_ENTRY_SIZE + TABLE_END_SIZE);
    for chunk in chunks {
        let raw = RawChunk { stored_len: U32::new(chunk.stored_len), crc32c: U32::new(chunk.crc32c) };
        out.extend_from_slice(raw.as_bytes());
    }
    out.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
    let crc = table_crc(header_crc, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Checks the table at the end of an object of `size` bytes.
///
/// # Errors
///
/// The first thing that is wrong, with the table or with the object's size.
pub fn decode_table(
    bytes: &[u8],
    header: &ObjectHeader,
    header_crc: u32,
    size: u64,
) -> Result<Vec<Chunk>, ObjectError> {
    let needed = header.table_size();
    let wrong_size = ObjectError::Size { needed, size: bytes.len() as u64 };
    if bytes.len() as u64 != needed {
        return Err(wrong_size);
    }
    let (checked, crc) = bytes.split_last_chunk::<4>().ok_or(wrong_size)?;
    let (expected, found) = (u32::from_le_bytes(*crc), table_crc(header_crc, checked));
    if expected != found {
        return Err(ObjectError::Checksum { what: "table", expected, found });
    }
    let (entries, count) = checked.split_last_chunk::<4>().ok_or(wrong_size)?;
    if u64::from(u32::from_le_bytes(*count)) != header.chunk_count() {
        return Err(ObjectError::Field { field: "chunk_count" });
    }
    let entries = <[RawChunk]>::ref_from_bytes(entries).map_err(|_| wrong_size)?;
    let mut offset = OBJECT_HEADER_SIZE as u64;
    let mut chunks = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let (stored_len, len) = (entry.stored_len.get(), header.len_of(index as u64));
        // What is longer or empty, or shorter without a codec, was never written.
        if stored_len == 0 || stored_len as usize > len || (header.codec == Codec::None && stored_len as usize != len) {
            return Err(ObjectError::Field { field: "stored_len" });
        }
        chunks.push(Chunk { offset, stored_len, crc32c: entry.crc32c.get() });
        offset += u64::from(stored_len);
    }
    if offset + needed != size {
        return Err(ObjectError::Size { needed: offset + needed, size });
    }
    Ok(chunks)
}

fn header_crc(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_OFFSET]), &block[CRC_OFFSET + 4..])
}

fn table_crc(header_crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header_crc.to_le_bytes()), bytes)
}

/// What all keys of a store begin with.
#[must_use]
pub fn store_prefix(uuid: StoreUuid) -> String {
    format!("{uuid}/")
}

/// What all keys of a channel begin with.
#[must_use]
pub fn channel_prefix(uuid: StoreUuid, channel: ChannelId) -> String {
    format!("{uuid}/{channel}/")
}

/// The key of a segment's object.
#[must_use]
pub fn object_key(uuid: StoreUuid, channel: ChannelId, first: Seq, hash: u64) -> String {
    format!("{uuid}/{channel}/{:020}-{hash:016x}.seg", first.0)
}

/// The channel, first sequence and hash in a key of this store; `None` if none has such a key.
#[must_use]
pub fn parse_key(uuid: StoreUuid, key: &str) -> Option<(ChannelId, Seq, u64)> {
    let (channel, name) = key.strip_prefix(&store_prefix(uuid))?.split_once('/')?;
    let (first, hash) = name.strip_suffix(".seg")?.split_once('-')?;
    let channel = ChannelId(u64::from_str_radix(channel, 16).ok()?);
    let (first, hash) = (Seq(first.parse().ok()?), u64::from_str_radix(hash, 16).ok()?);
    (object_key(uuid, channel, first, hash) == key).then_some((channel, first, hash))
}

#[cfg(test)]
#[path = "object/tests.rs"]
mod tests;
