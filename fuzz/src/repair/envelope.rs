//! The envelope of STORE, META and COLD.

use super::{put_u32, u32_at};

/// Repairs the envelope at the beginning of these bytes.
pub fn repair(bytes: &mut [u8]) {
    let Some(len) = u32_at(bytes, 12) else { return };
    let Some(body) = bytes.get(20..).and_then(|rest| rest.get(..len as usize)) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), body);
    put_u32(bytes, 16, crc);
}
