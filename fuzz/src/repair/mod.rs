//! Makes the checksums of changed bytes right again, so that a fuzzer gets behind them.
//!
//! Written from `docs/format.md` alone, without the engine's code. What is not there whole is left as it is; nothing panics.

pub mod checkpoint;
pub mod cold;
pub mod envelope;
pub mod index;
pub mod journal;

use crc32c::crc32c_append;

/// Size of a block, bytes.
pub(crate) const BLOCK: usize = 4096;

/// How much is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Everything but the checksums of payloads: those that were changed are found out.
    Structure,
    /// The checksums of payloads, too.
    Payloads,
}

/// Repairs a file of a store, by its path.
pub fn file(path: &str, bytes: &mut [u8], repair: Repair) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
    match (stem, ending) {
        ("STORE", _) => bytes.chunks_mut(BLOCK).for_each(envelope::repair),
        ("META" | "COLD", _) => envelope::repair(bytes),
        (_, "wal") => journal::repair(bytes, repair),
        (_, "ckp") => checkpoint::repair(bytes),
        (first, "idx") => {
            let channel = path.rsplit('/').nth(1).and_then(|dir| u64::from_str_radix(dir, 16).ok());
            if let (Some(channel), Ok(first)) = (channel, first.parse()) {
                index::repair(bytes, channel, first, repair);
            }
        }
        _ => {}
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Puts the checksum of a block that leaves out its own four bytes.
pub(crate) fn put_crc_around(block: &mut [u8], at: usize) {
    let crc = crc32c_append(crc32c::crc32c(&block[..at]), &block[at + 4..]);
    put_u32(block, at, crc);
}

/// Makes the checksum of an inline index record right.
pub(crate) fn repair_inline_record(record: &mut [u8]) {
    let place = record[19] & 0x0f;
    if (1..=9).contains(&place) {
        let crc = crc32c::crc32c(&record[..usize::from(place) - 1]);
        put_u32(record, 8, crc);
    }
}
