//! Objects of the cold store: header, chunks, table.

use super::{BLOCK, put_crc_around, put_u32, u32_at};

/// Repairs an object.
pub fn repair(bytes: &mut [u8]) {
    if bytes.len() < BLOCK + 8 {
        return;
    }
    put_crc_around(&mut bytes[..BLOCK], 12);
    let header_crc = u32_at(bytes, 12).unwrap_or(0);
    let chunk_count = u32_at(bytes, 84).unwrap_or(0) as usize;
    let table_size = chunk_count.saturating_mul(8).saturating_add(8);
    let Some(table_at) = bytes.len().checked_sub(table_size).filter(|at| *at >= BLOCK) else { return };
    let (before, table) = bytes.split_at_mut(table_at);
    let mut rest = &before[BLOCK..];
    for index in 0..chunk_count {
        let Some(stored) = rest.split_at_checked(u32_at(table, 8 * index).unwrap_or(0) as usize) else { break };
        rest = stored.1;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header_crc.to_le_bytes()), &(index as u32).to_le_bytes());
        put_u32(table, 8 * index + 4, crc32c::crc32c_append(crc, stored.0));
    }
    put_u32(table, table_size - 8, chunk_count as u32);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header_crc.to_le_bytes()), &table[..table_size - 4]);
    put_u32(table, table_size - 4, crc);
}
