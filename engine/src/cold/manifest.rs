//! The manifest of a channel's cold segments: `COLD` in the channel's directory.
//!
//! An envelope (`store/envelope.rs`) of the kind `REDEXCLD`, version 1, with a body of postcard, and zeros to the block:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `uuid` | 16 bytes | of the store |
//! | `channel` | u64 | |
//! | `segments` | list | `first u64, end u64, idx_size u64, dat_size u64, hash u64, size u64, header_crc u32`; ascending |
//!
//! Written whole to `COLD.new`, flushed, renamed, and the directory synced. It is a copy of what the objects say by
//! themselves: lost or damaged it is made again from a listing.

use std::io;

use serde::{Deserialize, Serialize};

use super::object::{Chunk, ObjectError, ObjectHeader, object_key};
use crate::ids::{ChannelId, Seq, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode, read_full};
use crate::segment::path::channel_dir;
use crate::store::envelope::{self, ENVELOPE_SIZE, EnvelopeError};

/// Version of the manifest's layout.
pub const COLD_MANIFEST_VERSION: u16 = 1;

/// Largest manifest that is read or written, bytes: more than a million segments.
pub const COLD_MANIFEST_SIZE_MAX: u64 = 64 << 20;
/// Bytes that a segment takes in it at the most: its numbers, ten bytes each.
const SEGMENT_SIZE_MAX: u64 = 100;

const MAGIC: [u8; 8] = *b"REDEXCLD";

/// A segment in the cold store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdSegment {
    /// First sequence.
    pub first: u64,
    /// End, exclusive.
    pub end: u64,
    /// Bytes of idx.
    pub idx_size: u64,
    /// Bytes of dat.
    pub dat_size: u64,
    /// Hash of the segment.
    pub hash: u64,
    /// Bytes of the object.
    pub size: u64,
    /// Checksum of the object's header.
    pub header_crc: u32,
}

impl ColdSegment {
    /// The segment of an object with this header and table.
    #[must_use]
    pub fn of(header: &ObjectHeader, header_crc: u32, chunks: &[Chunk]) -> Self {
        let stored: u64 = chunks.iter().map(|chunk| u64::from(chunk.stored_len)).sum();
        Self {
            first: header.first.0,
            end: header.end.0,
            idx_size: header.idx_size,
            dat_size: header.dat_size,
            hash: header.hash,
            size: super::object::OBJECT_HEADER_SIZE as u64 + stored + header.table_size(),
            header_crc,
        }
    }
}

/// What the manifest of a channel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdManifest {
    /// Store of the channel.
    pub uuid: StoreUuid,
    /// The channel.
    pub channel: ChannelId,
    /// Its cold segments, ascending.
    pub segments: Vec<ColdSegment>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    uuid: [u8; 16],
    channel: u64,
    segments: Vec<ColdSegment>,
}

impl ColdManifest {
    /// That of a channel without cold segments.
    #[must_use]
    pub fn new(uuid: StoreUuid, channel: ChannelId) -> Self {
        Self { uuid, channel, segments: Vec::new() }
    }

    /// The segment that begins with `first`.
    #[must_use]
    pub fn segment(&self, first: Seq) -> Option<&ColdSegment> {
        let index = self.segments.binary_search_by_key(&first.0, |segment| segment.first).ok()?;
        Some(&self.segments[index])
    }

    /// Puts a segment in its place, in that of one that began there.
    pub fn insert(&mut self, segment: ColdSegment) {
        match self.segments.binary_search_by_key(&segment.first, |segment| segment.first) {
            Ok(index) => self.segments[index] = segment,
            Err(index) => self.segments.insert(index, segment),
        }
    }

    /// The key of a segment's object.
    #[must_use]
    pub fn key(&self, segment: &ColdSegment) -> String {
        object_key(self.uuid, self.channel, Seq(segment.first), segment.hash)
    }

    /// The file's bytes, whole blocks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = Body { uuid: self.uuid.0, channel: self.channel.0, segments: self.segments.clone() };
        let body = postcard::to_stdvec(&body).expect("numbers always encode");
        let mut out = vec![0; (ENVELOPE_SIZE + body.len()).next_multiple_of(BLOCK_SIZE)];
        envelope::seal(&mut out, MAGIC, COLD_MANIFEST_VERSION, &body).expect("it was made as long as it is");
        out
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let (_, body) = envelope::unseal(bytes, MAGIC, COLD_MANIFEST_VERSION)?;
        let (body, rest) = postcard::take_from_bytes::<Body>(body).map_err(|_| EnvelopeError::Body)?;
        let in_order = body.segments.windows(2).all(|pair| pair[0].end <= pair[1].first);
        if !rest.is_empty() || !in_order || body.segments.iter().any(|segment| segment.first >= segment.end) {
            return Err(EnvelopeError::Body);
        }
        Ok(Self { uuid: StoreUuid(body.uuid), channel: ChannelId(body.channel), segments: body.segments })
    }
}

/// The manifest of a channel.
#[must_use]
pub fn manifest_path(channel: ChannelId) -> String {
    format!("{}/COLD", channel_dir(channel))
}

/// The same while it is written.
#[must_use]
pub fn new_manifest_path(channel: ChannelId) -> String {
    format!("{}/COLD.new", channel_dir(channel))
}

/// Whether a channel has a manifest, whole or not.
pub(crate) fn has_manifest(disk: &dyn Disk, channel: ChannelId) -> bool {
    disk.open(&manifest_path(channel), OpenMode::Read).is_ok()
}

/// Reads a channel's manifest; `None` if there is none, or one that is damaged or another channel's, which `tracing` says.
pub(crate) fn read(disk: &dyn Disk, uuid: StoreUuid, channel: ChannelId) -> io::Result<Option<ColdManifest>> {
    let path = manifest_path(channel);
    let file = match disk.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let size = file.size()?;
    if size > COLD_MANIFEST_SIZE_MAX {
        tracing::warn!(
            path,
            size,
            limit = COLD_MANIFEST_SIZE_MAX,
            "a manifest of cold segments is too large, and not read"
        );
        return Ok(None);
    }
    let size = (size as usize).next_multiple_of(BLOCK_SIZE);
    let mut buf = AlignedBuf::new(size.max(BLOCK_SIZE));
    let read = read_full(&*file, &mut buf[..size], 0)?;
    match ColdManifest::decode(&buf[..read]) {
        Ok(manifest) if (manifest.uuid, manifest.channel) == (uuid, channel) => Ok(Some(manifest)),
        Ok(other) => {
            tracing::warn!(path, channel = %other.channel, store = %other.uuid, "another channel's manifest of cold segments");
            Ok(None)
        }
        // Newer software may say more there than this one understands: it is not to be replaced.
        Err(error @ EnvelopeError::Newer { .. }) => Err(io::Error::new(io::ErrorKind::Unsupported, error)),
        Err(error) => {
            tracing::warn!(path, %error, "damaged manifest of cold segments");
            Ok(None)
        }
    }
}

/// Whether the manifest can have one more segment, of any numbers: asked before that is sent away.
pub(crate) fn check_room_for_another(manifest: &ColdManifest) -> io::Result<()> {
    // Far from the limit nothing is encoded.
    let count = manifest.segments.len() + 1;
    if count as u64 * SEGMENT_SIZE_MAX < COLD_MANIFEST_SIZE_MAX / 2 {
        return Ok(());
    }
    check_size(count, manifest.encode().len() as u64 + SEGMENT_SIZE_MAX)
}

fn check_size(segments: usize, bytes: u64) -> io::Result<()> {
    if bytes <= COLD_MANIFEST_SIZE_MAX {
        return Ok(());
    }
    let what = format!(
        "the manifest of {segments} cold segments would have {bytes} bytes, the limit is {COLD_MANIFEST_SIZE_MAX}; trim the \
         channel, or make its segments larger"
    );
    Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
}

/// Makes a channel's manifest durable. After an error the old one or the new one is there, whole, or none if there was none.
pub(crate) fn write(disk: &dyn Disk, manifest: &ColdManifest) -> io::Result<()> {
    let (path, new_path) = (manifest_path(manifest.channel), new_manifest_path(manifest.channel));
    let bytes = manifest.encode();
    check_size(manifest.segments.len(), bytes.len() as u64)?;
    let file = match disk.open(&new_path, OpenMode::Create) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a crash or an error: a file whose flush has failed is not written again.
            disk.unlink(&new_path)?;
            disk.open(&new_path, OpenMode::Create)?
        }
        result => result?,
    };
    let mut buf = AlignedBuf::new(bytes.len());
    buf[..bytes.len()].copy_from_slice(&bytes);
    file.write_at(&buf[..bytes.len()], 0)?;
    file.flush()?;
    drop(file);
    disk.rename(&new_path, &path)?;
    disk.sync_dir(&channel_dir(manifest.channel))
}

/// Checks that an object is the one that its manifest means.
pub(crate) fn check_header(
    segment: &ColdSegment,
    (header, crc): (ObjectHeader, u32),
) -> Result<ObjectHeader, ObjectError> {
    if crc == segment.header_crc {
        return Ok(header);
    }
    Err(ObjectError::Checksum { what: "header, by the manifest,", expected: segment.header_crc, found: crc })
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    fn manifest(count: u64) -> ColdManifest {
        let segment = |i: u64| ColdSegment {
            first: i * 100,
            end: i * 100 + 100,
            idx_size: 8192,
            dat_size: 4096 * i,
            hash: i << 40,
            size: 99_999,
            header_crc: 7 * i as u32,
        };
        ColdManifest {
            segments: (0..count).map(segment).collect(),
            ..ColdManifest::new(StoreUuid([5; 16]), ChannelId(9))
        }
    }

    #[test]
    fn manifests_of_many_sizes_come_back() {
        for count in [0, 1, 2, 100, 1000] {
            let bytes = manifest(count).encode();
            assert_eq!(bytes.len() % BLOCK_SIZE, 0);
            assert_eq!(ColdManifest::decode(&bytes), Ok(manifest(count)));
        }
    }

    #[test]
    fn every_flipped_bit_is_found_or_is_padding() {
        let mut bytes = manifest(3).encode();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = ColdManifest::decode(&bytes);
            assert!(found.is_err() || (bit / 8 > 80 && found == Ok(manifest(3))), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found_or_is_padding() {
        let bytes = manifest(3).encode();
        for size in 0..bytes.len() {
            let found = ColdManifest::decode(&bytes[..size]);
            assert!(found.is_err() || (size > 80 && found == Ok(manifest(3))), "{size}");
        }
    }

    /// A file may have any size: one above the limit is not read, and none such is written.
    #[test]
    fn a_manifest_that_is_too_large_is_neither_read_nor_written() {
        let dir = crate::io::posix::tests::temp_dir();
        let disk = crate::io::posix::PosixDisk::open(dir.path(), None).unwrap();
        let small = manifest(3);
        let path = manifest_path(small.channel);
        std::fs::create_dir_all(dir.path().join(&path).parent().unwrap()).unwrap();
        write(&disk, &small).unwrap();
        let file = std::fs::File::options().write(true).open(dir.path().join(&path)).unwrap();
        file.set_len(COLD_MANIFEST_SIZE_MAX).unwrap();
        assert_eq!(read(&disk, small.uuid, small.channel).unwrap().as_ref(), Some(&small));
        for size in [COLD_MANIFEST_SIZE_MAX + 1, 1 << 42] {
            file.set_len(size).unwrap();
            assert_eq!(read(&disk, small.uuid, small.channel).unwrap(), None, "{size}");
        }
        let too_large = manifest(3 << 20);
        assert!(check_room_for_another(&small).is_ok());
        assert_eq!(check_room_for_another(&too_large).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let error = write(&disk, &too_large).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
    }

    #[test]
    fn segments_that_overlap_are_refused() {
        let mut overlapping = manifest(3);
        overlapping.segments[1].first = 99;
        assert_eq!(ColdManifest::decode(&overlapping.encode()), Err(EnvelopeError::Body));
        let mut empty = manifest(1);
        empty.segments[0].end = 0;
        assert_eq!(ColdManifest::decode(&empty.encode()), Err(EnvelopeError::Body));
    }

    #[test]
    fn segments_have_one_place_each() {
        let mut all = manifest(4);
        let second = all.segments.remove(1);
        assert_eq!(all.segment(Seq(100)), None);
        all.insert(second);
        assert_eq!(all, manifest(4));
        all.insert(ColdSegment { hash: 1, ..second });
        assert_eq!((all.segments.len(), all.segment(Seq(100)).unwrap().hash), (4, 1));
    }
}
