//! The golden object of the cold store and the golden manifest, byte for byte, and the error of each when a bit is flipped.
//!
//! The object is uncompressed: how zstd encodes is its own affair. What decodes it is the same but for that.

use redex::format::cold_manifest::{ColdManifest, ColdSegment};
use redex::format::cold_object::{
    Chunk, Codec, OBJECT_HEADER_SIZE, ObjectError, ObjectHeader, chunk_crc, decode_table, encode_table, idx_size,
    object_key, parse_key,
};
use redex::format::envelope::EnvelopeError;
use redex::format::{ChannelId, Epoch, Seq, StoreUuid};

use super::{flipped, golden_file, pattern};

const UUID: StoreUuid = StoreUuid(*b"golden store v1!");
const CHANNEL: ChannelId = ChannelId(0x0000_0003_0000_0007);
const KEY: &str = "676f6c64-656e-2073-746f-726520763121/0000000300000007/00000000000000000204-0123456789abcdef.seg";

fn header() -> ObjectHeader {
    let (first, end) = (Seq(204), Seq(504));
    ObjectHeader {
        uuid: UUID,
        channel: CHANNEL,
        name: "golden/größe 1".to_owned(),
        first,
        end,
        idx_size: idx_size(first, end),
        dat_size: 12_288,
        hash: 0x0123_4567_89ab_cdef,
        chunk_size: 8192,
        codec: Codec::None,
        epoch: Epoch(3),
    }
}

/// The object, and where its chunks lie.
fn object() -> (Vec<u8>, Vec<Chunk>) {
    let (mut bytes, crc) = header().encode();
    let mut chunks = Vec::new();
    for index in 0..header().chunk_count() {
        let stored = pattern(index + 1, header().len_of(index));
        let crc32c = chunk_crc(crc, index, &stored);
        chunks.push(Chunk { offset: bytes.len() as u64, stored_len: stored.len() as u32, crc32c });
        bytes.extend(stored);
    }
    bytes.extend(encode_table(crc, &chunks));
    (bytes, chunks)
}

fn manifest() -> ColdManifest {
    let segment = |i: u64| ColdSegment {
        first: i * 300,
        end: i * 300 + 300,
        idx_size: 12_288,
        dat_size: 12_288 + i * 4096,
        hash: 0x0123_4567_89ab_cdef << i,
        size: 28_700 + i * 4096,
        header_crc: 0xdead_beef - i as u32,
    };
    ColdManifest { uuid: UUID, channel: CHANNEL, segments: vec![segment(0), segment(1), segment(5)] }
}

/// Writes the files of this module.
pub fn write(dir: &std::path::Path) {
    std::fs::write(dir.join("cold.seg"), object().0).unwrap();
    std::fs::write(dir.join("COLD"), manifest().encode()).unwrap();
}

#[test]
fn object_reads_and_writes_the_same() {
    let bytes = golden_file("cold.seg");
    let (decoded, crc) = ObjectHeader::decode(&bytes[..OBJECT_HEADER_SIZE]).unwrap();
    assert_eq!(decoded, header());
    let table = bytes.len() - decoded.table_size() as usize;
    let chunks = decode_table(&bytes[table..], &decoded, crc, bytes.len() as u64).unwrap();
    for (index, chunk) in chunks.iter().enumerate() {
        let stored = &bytes[chunk.offset as usize..][..chunk.stored_len as usize];
        assert_eq!(chunk_crc(crc, index as u64, stored), chunk.crc32c);
        assert_eq!(stored, pattern(index as u64 + 1, decoded.len_of(index as u64)));
    }
    let (encoded, written) = object();
    assert_eq!(chunks, written);
    assert!(encoded == bytes, "an object is encoded differently");
    assert_eq!(object_key(UUID, CHANNEL, header().first, header().hash), KEY);
    assert_eq!(parse_key(UUID, KEY), Some((CHANNEL, header().first, header().hash)));
}

#[test]
fn damage_of_an_object_is_named() {
    let bytes = golden_file("cold.seg");
    let decode = |at| ObjectHeader::decode(&flipped(&bytes[..OBJECT_HEADER_SIZE], at)).unwrap_err();
    assert_eq!(decode(7), ObjectError::Magic);
    for at in [8, 12, 16, 40, 92, 100, 4095] {
        assert!(matches!(decode(at), ObjectError::Checksum { what: "header", .. }), "{at}");
    }
    let (header, crc) = ObjectHeader::decode(&bytes[..OBJECT_HEADER_SIZE]).unwrap();
    let table = &bytes[bytes.len() - header.table_size() as usize..];
    for at in 0..table.len() {
        let error = decode_table(&flipped(table, at), &header, crc, bytes.len() as u64).unwrap_err();
        assert!(matches!(error, ObjectError::Checksum { what: "table", .. }), "{at}: {error}");
    }
}

#[test]
fn manifest_reads_and_writes_the_same() {
    let bytes = golden_file("COLD");
    assert_eq!(ColdManifest::decode(&bytes), Ok(manifest()));
    assert!(manifest().encode() == bytes, "COLD is encoded differently");
}

#[test]
fn damage_of_the_manifest_is_named() {
    let bytes = golden_file("COLD");
    let decode = |at| ColdManifest::decode(&flipped(&bytes, at)).unwrap_err();
    assert_eq!(decode(7), EnvelopeError::Magic);
    for at in [9, 10, 17, 20, 36, 80] {
        assert!(matches!(decode(at), EnvelopeError::Checksum { .. }), "{at}");
    }
    assert_eq!(ColdManifest::decode(&bytes[..19]), Err(EnvelopeError::Cut { needed: 20, size: 19 }));
}
