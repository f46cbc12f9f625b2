//! idx files: index blocks, time blocks, the footer.

use super::{BLOCK, Repair, put_u32, repair_inline_record, u16_at, u32_at, u64_at};

const FOOTER_MAGIC: &[u8] = b"REDEXSEG";
const FOOTER_CRC_AT: usize = 68;
const FOOTER_HASH_AT: usize = 64;
const CRC_AT: usize = 4092;
const RECORD_SIZE: usize = 20;
const RECORDS_PER_BLOCK: usize = 204;

/// Repairs the blocks of an idx file; zeros are left alone.
pub fn repair(bytes: &mut [u8], channel: u64, segment_first: u64, repair: Repair) {
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| is_index(block)) {
        if repair == Repair::Payloads {
            let count = usize::from(u16_at(block, 4088).unwrap_or(0)).min(RECORDS_PER_BLOCK);
            block.chunks_exact_mut(RECORD_SIZE).take(count).for_each(repair_inline_record);
        }
        let crc = crc32c::crc32c_append(place_crc(channel, segment_first), &block[..CRC_AT]);
        put_u32(block, CRC_AT, crc);
    }
    let blocks = bytes.len() / BLOCK;
    let Some(footer) = (0..blocks).rev().find(|block| bytes[block * BLOCK..].starts_with(FOOTER_MAGIC)) else { return };
    let (before, footer) = bytes.split_at_mut(footer * BLOCK);
    let index_blocks = footer_records(footer).div_ceil(RECORDS_PER_BLOCK);
    if let Some(hashed) = before.get(..index_blocks * BLOCK) {
        put_u32(footer, FOOTER_HASH_AT, crc32c::crc32c(hashed));
    }
    put_u32(footer, FOOTER_CRC_AT, 0);
    let crc = crc32c::crc32c(&footer[..BLOCK]);
    put_u32(footer, FOOTER_CRC_AT, crc);
}

fn is_index(block: &[u8]) -> bool {
    !block.starts_with(FOOTER_MAGIC) && block.iter().any(|byte| *byte != 0)
}

fn footer_records(footer: &[u8]) -> usize {
    match (u64_at(footer, 24), u64_at(footer, 32)) {
        (Some(first), Some(end)) => end.saturating_sub(first).min(u64::from(u32::MAX)) as usize,
        _ => u32_at(footer, 12).unwrap_or(0) as usize,
    }
}

fn place_crc(channel: u64, segment_first: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&channel.to_le_bytes()), &segment_first.to_le_bytes())
}
