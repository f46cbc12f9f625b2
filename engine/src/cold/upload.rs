//! One sealed segment becomes an object, and is read back.
//!
//! The segment is checked on its way: every block of its idx, and the hash over them that its footer has. What is damaged is
//! not uploaded, and so its local pair stays.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::channel::{OpenObject, fetch_chunk, fetch_header, fetch_table};
use super::codec::Compression;
use super::failure::damaged;
use super::manifest::ColdSegment;
use super::object::{Chunk, OBJECT_HEADER_SIZE, ObjectHeader, Part, chunk_crc, encode_table, object_key, segment_hash};
use super::stats::add;
use super::tier::ColdTier;
use crate::ids::{ChannelId, Seq};
use crate::io::located::located;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode, read_full};
use crate::segment::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block};
use crate::segment::footer::{FOOTER_SIZE, Footer, idx_hash_append};
use crate::segment::path::{dat_path, idx_path};

/// A sealed segment on the local disk.
#[derive(Debug)]
pub struct LocalSegment {
    idx: Arc<dyn File>,
    dat: Option<Arc<dyn File>>,
    /// Its footer.
    footer: Footer,
    /// See [`segment_hash`].
    pub hash: u64,
}

impl LocalSegment {
    /// Opens a segment; `None` if one of its files is not there. Its footer is checked, nothing else.
    pub fn open(disk: &dyn Disk, channel: ChannelId, first: Seq, end: Seq) -> io::Result<Option<Self>> {
        let open = |path: &str| match disk.open_segment(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).map_err(located(path)),
        };
        let path = idx_path(channel, first);
        let Some(idx) = open(&path)? else { return Ok(None) };
        let mut block = AlignedBuf::new(FOOTER_SIZE);
        // A sealed idx is cut to its size, and ends with the footer.
        let size = idx.size().map_err(located(&path))?.max(FOOTER_SIZE as u64);
        let offset = size - FOOTER_SIZE as u64;
        let read = read_full(&*idx, &mut block[..FOOTER_SIZE], offset).map_err(located(&path))?;
        let footer = Footer::decode(&block[..read]).map_err(|error| located(&path)(damaged(error)))?;
        // One that was cut off ends earlier than its footer says.
        let fits = footer.footer_offset() == offset && footer.end >= end;
        if (footer.channel, footer.first) != (channel, first) || !fits {
            return Err(located(&path)(damaged("its footer is another segment's")));
        }
        let dat = open(&dat_path(channel, first))?;
        if dat.is_none() && footer.dat_size > 0 {
            return Ok(None);
        }
        let hash = segment_hash(&footer, &block[..FOOTER_SIZE]);
        Ok(Some(Self { idx, dat, footer, hash }))
    }

    fn header(&self, tier: &ColdTier, name: &str, compression: Compression) -> ObjectHeader {
        ObjectHeader {
            uuid: tier.uuid,
            channel: self.footer.channel,
            name: name.to_owned(),
            first: self.footer.first,
            end: self.footer.end,
            idx_size: self.footer.footer_offset() + FOOTER_SIZE as u64,
            dat_size: self.footer.dat_size.next_multiple_of(BLOCK_SIZE as u64),
            hash: self.hash,
            chunk_size: tier.chunk_size,
            codec: compression.codec,
            epoch: tier.epoch,
        }
    }

    fn read(&self, part: Part, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = match part {
            Part::Idx => &self.idx,
            Part::Dat => self.dat.as_ref().expect("a segment with payloads has a dat"),
        };
        let mut buf = AlignedBuf::new(len);
        let read = read_full(&**file, &mut buf[..len], offset).map_err(located(file.path()))?;
        if read < len {
            return Err(located(file.path())(damaged("the file is cut off")));
        }
        Ok(Bytes::from_owner(buf).slice(..len))
    }
}

/// The parts of an object, one after the other: header, chunks, table.
struct Parts<'a> {
    tier: &'a ColdTier,
    segment: &'a LocalSegment,
    header: &'a ObjectHeader,
    header_crc: u32,
    compression: Compression,
    /// Header's bytes, until they are given.
    begin: Option<Bytes>,
    chunks: Vec<Chunk>,
    /// Checksums of the chunks before they were compressed.
    raw_crcs: Vec<u32>,
    offset: u64,
    idx_hash: u32,
    ended: bool,
}

impl Parts<'_> {
    fn next_part(&mut self) -> io::Result<Option<Bytes>> {
        self.tier.check_over()?;
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        let index = self.chunks.len() as u64;
        if index < self.header.chunk_count() {
            return self.next_chunk(index).map(Some);
        }
        if std::mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        Ok(Some(encode_table(self.header_crc, &self.chunks).into()))
    }

    fn next_chunk(&mut self, index: u64) -> io::Result<Bytes> {
        let (part, range) = self.header.range_of(index);
        let raw = self.segment.read(part, range.start, self.header.len_of(index))?;
        if part == Part::Idx {
            self.check_idx(&raw, range.start).map_err(located(self.segment.idx.path()))?;
        }
        self.raw_crcs.push(crc32c::crc32c(&raw));
        let stored = self.compression.encode(raw)?;
        let crc32c = chunk_crc(self.header_crc, index, &stored);
        self.chunks.push(Chunk { offset: self.offset, stored_len: stored.len() as u32, crc32c });
        self.offset += stored.len() as u64;
        Ok(stored)
    }

    /// Checks blocks of idx; with the footer, the hash over them all.
    fn check_idx(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let footer = &self.segment.footer;
        let place = BlockPlace { channel: footer.channel, segment_first: footer.first };
        for (i, block) in bytes.chunks_exact(BLOCK_SIZE).enumerate() {
            let nth = offset / BLOCK_SIZE as u64 + i as u64;
            if nth > footer.block_count() {
                // Times, and the footer.
                break;
            }
            if nth == footer.block_count() {
                if self.idx_hash != footer.idx_hash {
                    return Err(damaged("its blocks have another hash than its footer says"));
                }
                break;
            }
            decode_block(block, place, Seq(footer.first.0 + nth * RECORDS_PER_BLOCK as u64)).map_err(damaged)?;
            self.idx_hash = idx_hash_append(self.idx_hash, block);
        }
        Ok(())
    }
}

impl Iterator for Parts<'_> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_part().transpose()
    }
}

/// Uploads a segment and reads all of it back. The object is whole, there, when this returns; after an error it may be there
/// in part.
pub fn upload(
    tier: &ColdTier,
    name: &str,
    segment: &LocalSegment,
    compression: Compression,
) -> io::Result<ColdSegment> {
    let header = segment.header(tier, name, compression);
    let (bytes, header_crc) = header.encode();
    let key = object_key(tier.uuid, header.channel, header.first, header.hash);
    let mut parts = Parts {
        tier,
        segment,
        header: &header,
        header_crc,
        compression,
        begin: Some(bytes.into()),
        chunks: Vec::new(),
        raw_crcs: Vec::new(),
        offset: OBJECT_HEADER_SIZE as u64,
        idx_hash: 0,
        ended: false,
    };
    tier.store.put(&key, &mut parts)?;
    if !parts.ended {
        return Err(damaged("the cold store has not taken all parts of an object"));
    }
    let Parts { chunks, raw_crcs, .. } = parts;
    let cold = ColdSegment::of(&header, header_crc, &chunks);
    let object = OpenObject { no: tier.object_no(), key, header, header_crc, chunks };
    verify(tier, &object, cold.size, &raw_crcs)?;
    add(&tier.counters.uploads, 1);
    add(&tier.counters.uploaded_bytes, cold.size);
    add(&tier.counters.segment_bytes, cold.idx_size + cold.dat_size);
    Ok(cold)
}

/// Reads an object back: it has this size, and every chunk comes out as it went in.
fn verify(tier: &ColdTier, object: &OpenObject, size: u64, raw_crcs: &[u32]) -> io::Result<()> {
    let store = &*tier.store;
    let (header, crc) = fetch_header(store, &object.key)?;
    if (&header, crc) != (&object.header, object.header_crc) {
        return Err(damaged("the object's header came back as another"));
    }
    let chunks = fetch_table(store, &object.key, &object.header, object.header_crc, size)?;
    if chunks != object.chunks {
        return Err(damaged("the object's table came back as another"));
    }
    if !store.get_range(&object.key, size - 1..size + 1).is_ok_and(|end| end.len() == 1) {
        return Err(damaged("the object does not end where it should"));
    }
    for (index, raw_crc) in raw_crcs.iter().enumerate() {
        tier.check_over()?;
        let raw = fetch_chunk(store, object, index as u64)?;
        if crc32c::crc32c(&raw) != *raw_crc {
            return Err(damaged(format!("chunk {index} of the object came back as another")));
        }
    }
    Ok(())
}

/// Whether an object that a crash has left is whole, and this segment: then it needs no upload.
pub fn is_whole_copy(tier: &ColdTier, object: &OpenObject, size: u64, segment: &LocalSegment) -> io::Result<bool> {
    let header = &object.header;
    let footer = &segment.footer;
    if (header.first, header.end, header.hash) != (footer.first, footer.end, segment.hash) {
        return Ok(false);
    }
    let mut raw_crcs = Vec::with_capacity(object.chunks.len());
    for index in 0..header.chunk_count() {
        tier.check_over()?;
        let (part, range) = header.range_of(index);
        raw_crcs.push(crc32c::crc32c(&segment.read(part, range.start, header.len_of(index))?));
    }
    match verify(tier, object, size, &raw_crcs) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        result => result.map(|()| true),
    }
}
