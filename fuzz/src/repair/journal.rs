//! Journal segments: the header, and every commit, wherever it begins a block.

use super::{BLOCK, Repair, put_crc_around, put_u32, repair_inline_record, u32_at};

const HEADER_CRC_AT: usize = 52;
const COMMIT_HEADER: usize = 80;
const ENTRY_HEAD: usize = 8;
const EVENTS_HEAD: usize = 48;
const RECORD_SIZE: usize = 20;

/// Repairs a segment.
pub fn repair(bytes: &mut [u8], repair: Repair) {
    if bytes.len() < BLOCK {
        return;
    }
    put_crc_around(&mut bytes[..BLOCK], HEADER_CRC_AT);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[16..32]);
    for at in (BLOCK..bytes.len()).step_by(BLOCK) {
        if bytes[at..].starts_with(b"RXC1") {
            repair_commit(&mut bytes[at..], &uuid, repair);
        }
    }
}

fn repair_commit(bytes: &mut [u8], uuid: &[u8], repair: Repair) {
    let (Some(meta_len), Some(payload_len)) = (u32_at(bytes, 52), u32_at(bytes, 56)) else { return };
    if bytes.len() < COMMIT_HEADER {
        return;
    }
    let (header, body) = bytes.split_at_mut(COMMIT_HEADER);
    if let Some((meta, rest)) = body.split_at_mut_checked(meta_len as usize) {
        if repair == Repair::Payloads {
            repair_payloads(meta, &rest[..rest.len().min(payload_len as usize)]);
        }
        put_u32(header, 8, crc32c::crc32c(meta));
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(uuid), &header[..4]);
    let crc = crc32c::crc32c_append(crc, &header[8..]);
    put_u32(header, 4, crc);
}

fn repair_payloads(mut meta: &mut [u8], mut payload: &[u8]) {
    while let Some(len) = u32_at(meta, 4).map(|len| len as usize).filter(|len| *len >= ENTRY_HEAD) {
        let Some((entry, rest)) = meta.split_at_mut_checked(len) else { return };
        if entry[0] == 1 && entry.len() >= ENTRY_HEAD + EVENTS_HEAD {
            let (head, records) = entry.split_at_mut(ENTRY_HEAD + EVENTS_HEAD);
            let field = |at| u32_at(head, ENTRY_HEAD + at).unwrap_or(0) as usize;
            let (dat_offset, inline) = (field(28), payload.get(..field(32)).unwrap_or(payload));
            records.chunks_exact_mut(RECORD_SIZE).for_each(|record| repair_record(record, dat_offset, inline));
            payload = &payload[inline.len()..];
        }
        meta = rest;
    }
}

fn repair_record(record: &mut [u8], dat_offset: usize, inline: &[u8]) {
    repair_inline_record(record);
    let (Some(offset), Some(len)) = (u32_at(record, 0), u32_at(record, 4)) else { return };
    let start = (offset as usize).wrapping_sub(dat_offset);
    if record[19] & 0x0f == 0
        && let Some(payload) = inline.get(start..).and_then(|rest| rest.get(..len as usize))
    {
        put_u32(record, 8, crc32c::crc32c(payload));
    }
}
