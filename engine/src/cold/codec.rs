//! Compression of chunks: as it is, or by zstd where that is smaller.

use std::io;

use bytes::Bytes;

use super::object::Codec;

/// Bytes that come out of one byte of zstd at the most: a block has at least 4 bytes and gives at most 128 KiB (RFC 8878,
/// 3.1.1.2). What claims more is refused before there is a buffer for it.
const ZSTD_RATIO_MAX: usize = (128 << 10) / 4;

/// How chunks of an upload are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// Its level.
    pub level: i32,
}

impl Compression {
    /// By zstd at this level, if this build has it; else not at all.
    pub fn of(zstd_level: Option<i32>) -> Self {
        match zstd_level {
            Some(level) if cfg!(feature = "cold") => Self { codec: Codec::Zstd, level },
            _ => Self { codec: Codec::None, level: 0 },
        }
    }

    /// A chunk as it is stored.
    pub fn encode(self, raw: Bytes) -> io::Result<Bytes> {
        match self.codec {
            Codec::None => Ok(raw),
            Codec::Zstd => {
                let stored = compress(&raw, self.level)?;
                Ok(if stored.len() < raw.len() { stored.into() } else { raw })
            }
        }
    }
}

/// A chunk of `len` bytes from what is stored.
pub fn decode(codec: Codec, stored: Bytes, len: usize) -> io::Result<Bytes> {
    if stored.len() == len {
        return Ok(stored);
    }
    let raw = match codec {
        Codec::None => stored,
        Codec::Zstd if len > stored.len().saturating_mul(ZSTD_RATIO_MAX) => {
            let what = format!("a chunk of {len} bytes cannot lie in {} compressed ones", stored.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Codec::Zstd => decompress(&stored, len)?.into(),
    };
    if raw.len() == len {
        return Ok(raw);
    }
    let what = format!("a chunk of {len} bytes came out as {}", raw.len());
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(feature = "cold")]
fn compress(raw: &[u8], level: i32) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(raw, level)
}

#[cfg(feature = "cold")]
fn decompress(stored: &[u8], len: usize) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(stored, len)
}

#[cfg(not(feature = "cold"))]
fn compress(_: &[u8], _: i32) -> io::Result<Vec<u8>> {
    Err(no_zstd())
}

#[cfg(not(feature = "cold"))]
fn decompress(_: &[u8], _: usize) -> io::Result<Vec<u8>> {
    Err(no_zstd())
}

#[cfg(not(feature = "cold"))]
fn no_zstd() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "it is compressed by zstd; build with the cargo feature `cold`")
}

#[cfg(all(test, feature = "cold"))]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        let zstd = Compression::of(Some(3));
        let even = Bytes::from(vec![7; 8192]);
        let stored = zstd.encode(even.clone()).unwrap();
        assert!(stored.len() < 100);
        assert_eq!(decode(Codec::Zstd, stored.clone(), 8192).unwrap(), even);
        let noise: Bytes = (0..512_u32).map(|i| crc32c::crc32c(&i.to_le_bytes()) as u8).collect();
        assert_eq!(zstd.encode(noise.clone()).unwrap(), noise);
        assert_eq!(decode(Codec::Zstd, noise.clone(), 512).unwrap(), noise);
        assert!(decode(Codec::Zstd, stored.clone(), 8191).is_err() && decode(Codec::Zstd, stored, 8193).is_err());
        assert!(decode(Codec::None, noise, 513).is_err());
    }

    /// The largest chunk of one byte repeated is under the limit; what claims a byte more than the format can hold is refused, and so
    /// is what comes out longer than it should.
    #[test]
    fn the_ratio_of_a_chunk_is_limited() {
        let raw = Bytes::from(vec![0; crate::cold::object::CHUNK_SIZE_MAX as usize]);
        let stored = Compression::of(Some(19)).encode(raw.clone()).unwrap();
        assert!(stored.len() < raw.len() / 10_000, "{}", stored.len());
        assert_eq!(decode(Codec::Zstd, stored.clone(), raw.len()).unwrap(), raw);
        let most = stored.len() * ZSTD_RATIO_MAX;
        for len in [most, most + 1] {
            let error = decode(Codec::Zstd, stored.clone(), len).unwrap_err();
            assert_eq!(error.to_string().contains("cannot lie in"), len > most, "{error}");
        }
        assert!(decode(Codec::Zstd, stored, 1 << 20).is_err());
    }

    /// What passes for a chunk never panics, whatever is flipped in it.
    #[test]
    fn damaged_chunks_are_errors_or_have_the_length() {
        let raw: Bytes = (0..4096_u32).map(|i| (i / 64) as u8).collect();
        let stored = Compression::of(Some(3)).encode(raw).unwrap();
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(raw) = decode(Codec::Zstd, damaged.into(), 4096) {
                assert_eq!(raw.len(), 4096);
            }
        }
    }
}
