//! The envelope of small files: magic number, version, length and checksum around a body.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | `magic` | which kind of file |
//! | 8..10 | `version` | of the body's layout |
//! | 10..12 | | zero |
//! | 12..16 | `len` | of the body, bytes |
//! | 16..20 | `crc32c` | over bytes 0..16, then the body |
//! | 20.. | body | what follows it is padding to a block, and ignored |

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of the envelope in front of its body, bytes.
pub const ENVELOPE_SIZE: usize = 20;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEnvelope {
    magic: [u8; 8],
    version: U16,
    reserved: U16,
    len: U32,
    crc32c: U32,
}

const CRC_OFFSET: usize = 16;

const _: () = {
    assert!(size_of::<RawEnvelope>() == ENVELOPE_SIZE);
    assert!(std::mem::offset_of!(RawEnvelope, crc32c) == CRC_OFFSET);
};

/// Why bytes are not an envelope of the kind and version looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The file ends too early.
    #[error("file is cut off: {needed} bytes needed, {size} there")]
    Cut {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        size: usize,
    },
    /// The file is of another kind, or was never written.
    #[error("file does not begin with its magic number")]
    Magic,
    /// The file is damaged.
    #[error("checksum is {found:#010x}, the file says {expected:#010x}")]
    Checksum {
        /// What the file says.
        expected: u32,
        /// What its bytes have.
        found: u32,
    },
    /// The file is whole, but of a newer format: use the software that wrote it, or a later one.
    #[error("file has format version {version}, this software knows up to {known}")]
    Newer {
        /// Version found.
        version: u16,
        /// Latest version known.
        known: u16,
    },
    /// The file is whole, but its body is not what its version says.
    #[error("body of the file does not decode")]
    Body,
}

/// Puts `body` into an envelope at the beginning of `out`, and zeros behind it.
///
/// # Errors
///
/// [`EnvelopeError::Cut`] if `out` is too small; then nothing is written.
pub fn seal(out: &mut [u8], magic: [u8; 8], version: u16, body: &[u8]) -> Result<(), EnvelopeError> {
    let (needed, size) = (ENVELOPE_SIZE + body.len(), out.len());
    let Some((used, unused)) = out.split_at_mut_checked(needed) else {
        return Err(EnvelopeError::Cut { needed, size });
    };
    let mut raw = RawEnvelope {
        magic,
        version: U16::new(version),
        reserved: U16::ZERO,
        len: U32::new(u32::try_from(body.len()).expect("an envelope holds a small file")),
        crc32c: U32::ZERO,
    };
    raw.crc32c = U32::new(envelope_crc(raw.as_bytes(), body));
    used[..ENVELOPE_SIZE].copy_from_slice(raw.as_bytes());
    used[ENVELOPE_SIZE..].copy_from_slice(body);
    unused.fill(0);
    Ok(())
}

/// Checks an envelope of the kind `magic` and any version up to `known`; gives version and body.
///
/// # Errors
///
/// The first thing that is wrong. A newer version is reported only if the file is whole.
pub fn unseal(bytes: &[u8], magic: [u8; 8], known: u16) -> Result<(u16, &[u8]), EnvelopeError> {
    let size = bytes.len();
    let cut = |needed| EnvelopeError::Cut { needed, size };
    let (raw, rest) = RawEnvelope::ref_from_prefix(bytes).map_err(|_| cut(ENVELOPE_SIZE))?;
    if raw.magic != magic {
        return Err(EnvelopeError::Magic);
    }
    let len = raw.len.get() as usize;
    let body = rest.get(..len).ok_or(cut(ENVELOPE_SIZE + len))?;
    let (expected, found) = (raw.crc32c.get(), envelope_crc(raw.as_bytes(), body));
    if expected != found {
        return Err(EnvelopeError::Checksum { expected, found });
    }
    let version = raw.version.get();
    if version > known {
        return Err(EnvelopeError::Newer { version, known });
    }
    if version == 0 || raw.reserved.get() != 0 {
        return Err(EnvelopeError::Body);
    }
    Ok((version, body))
}

fn envelope_crc(envelope: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&envelope[..CRC_OFFSET]), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"REDEXTST";

    fn sealed() -> Vec<u8> {
        let mut out = vec![0xff; 100];
        seal(&mut out, MAGIC, 2, b"a small body").unwrap();
        out
    }

    #[test]
    fn body_comes_back_without_its_padding() {
        assert_eq!(unseal(&sealed(), MAGIC, 2), Ok((2, &b"a small body"[..])));
        assert_eq!(unseal(&sealed(), MAGIC, 3), Ok((2, &b"a small body"[..])));
        assert!(sealed()[32..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes = sealed();
        for bit in 0..32 * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&bytes, MAGIC, 2).is_err(), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let bytes = sealed();
        for size in 0..32 {
            let error = unseal(&bytes[..size], MAGIC, 2).unwrap_err();
            assert!(matches!(error, EnvelopeError::Cut { .. }), "{size}");
        }
        assert!(unseal(&bytes[..32], MAGIC, 2).is_ok());
    }

    #[test]
    fn other_kinds_and_newer_versions_are_told_from_damage() {
        assert_eq!(unseal(&sealed(), *b"REDEXOTH", 2), Err(EnvelopeError::Magic));
        let newer = EnvelopeError::Newer { version: 2, known: 1 };
        assert_eq!(unseal(&sealed(), MAGIC, 1), Err(newer));
        let small = EnvelopeError::Cut { needed: 32, size: 31 };
        assert_eq!(seal(&mut [0; 31], MAGIC, 1, b"a small body"), Err(small));
    }
}
