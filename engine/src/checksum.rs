//! CRC-32C of payloads.
//!
//! Most payloads are short, and for these the call costs more than the bytes: the `crc32c` crate cuts every input into the pieces
//! of its three interleaved streams first (about 130 instructions for 32 bytes, 25 here). What is longer is its business.
//!
//! Unsafe code: the processor's instruction may be used only where the processor has it, which is asked first.
#![allow(unsafe_code)]

/// Up to here one stream is as quick as three and what it takes to put them together, bytes.
#[cfg(target_arch = "x86_64")]
const SHORT_MAX: usize = 128;

/// The checksum of these bytes.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT_MAX && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2.
        return unsafe { short(bytes) };
    }
    crc32c::crc32c(bytes)
}

/// One stream, eight bytes at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short(bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = u64::from(u32::MAX);
    for word in words {
        crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
    }
    let crc = rest.iter().fold(crc as u32, |crc, byte| _mm_crc32_u8(crc, *byte));
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C (RFC 3720, B.4), and the crate's sums of every length around the limit, at every alignment.
    #[test]
    fn agrees_with_the_crate() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        let bytes: Vec<u8> = (0..300_u32).map(|i| (i * 31 % 251) as u8).collect();
        for from in 0..8 {
            for to in from..bytes.len() {
                assert_eq!(crc32c(&bytes[from..to]), crc32c::crc32c(&bytes[from..to]), "{from}..{to}");
            }
        }
    }
}
