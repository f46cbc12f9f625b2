//! The index record: 20 bytes that describe one event, in the journal and in idx files alike.
//!
//! A record says where the payload lies, how long it is, its checksum and its time. It does not hold its sequence:
//! that is its position. A payload of up to [`INLINE_SIZE_MAX`] bytes lies in the record itself and needs no dat
//! file. Any 20 bytes can be viewed as a record; [`IndexRecord::check`] says whether they make sense.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | `offset` | byte offset in dat; or inline payload bytes 0..4 |
//! | 4..8 | `len` | payload length as stored; or inline payload bytes 4..8 |
//! | 8..12 | `crc32c` | over the payload as stored |
//! | 12..20 | `time_flags` | low 56 bits: microseconds since the Unix epoch; top byte: see below |
//!
//! Top byte: bits 0..4 are 0 for a payload in dat and 1 to 9 for an inline one of length 0 to 8, bit 4 says
//! encrypted, bit 5 tombstone, bits 6 and 7 are zero.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of a record, bytes.
pub const RECORD_SIZE: usize = 20;

/// Longest payload that lies in its record, bytes.
pub const INLINE_SIZE_MAX: usize = 8;

/// Longest payload that a record may name, as stored, bytes. More than a writer has ever given to one, whose pages are below;
/// a reader makes a buffer for no more.
pub const PAYLOAD_STORED_MAX: u32 = 128 << 20;

/// Latest time a record can hold, microseconds since the Unix epoch (in the year 4253).
pub const TIME_US_MAX: u64 = (1 << TIME_BITS) - 1;

const TIME_BITS: u32 = 56;
const PLACE_MASK: u8 = 0x0f;
const FLAG_ENCRYPTED: u8 = 1 << 4;
const FLAG_TOMBSTONE: u8 = 1 << 5;
const FLAGS_RESERVED: u8 = 0xc0;
const PLACE_INLINE_MAX: u8 = 1 + INLINE_SIZE_MAX as u8;

/// What an idx block and a journal entry hold of one event.
///
/// 20 bytes, little-endian, alignment 1, no padding.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IndexRecord {
    offset: U32,
    len: U32,
    crc32c: U32,
    time_flags: U64,
}

const _: () = {
    assert!(size_of::<IndexRecord>() == RECORD_SIZE);
    assert!(align_of::<IndexRecord>() == 1);
    assert!(std::mem::offset_of!(IndexRecord, len) == 4);
    assert!(std::mem::offset_of!(IndexRecord, crc32c) == 8);
    assert!(std::mem::offset_of!(IndexRecord, time_flags) == 12);
};

/// Where a record's payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordPlace {
    /// In the record itself.
    Inline {
        /// The payload, followed by zeros.
        bytes: [u8; INLINE_SIZE_MAX],
        /// Payload length, `0..=INLINE_SIZE_MAX`.
        len: usize,
    },
    /// In the dat file of the record's segment.
    Dat {
        /// Byte offset in dat.
        offset: u32,
        /// Payload length as stored, bytes.
        len: u32,
    },
}

/// What is wrong with 20 bytes that should be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A bit is set that this version of the format keeps at zero.
    #[error("reserved bits are set in the flags {flags:#04x} of an index record")]
    ReservedBits {
        /// The top byte of `time_flags`.
        flags: u8,
    },
    /// The four bits of the place are above 9.
    #[error("an index record gives its place as {place}, the largest is 9")]
    Place {
        /// The value found.
        place: u8,
    },
    /// Encrypted payloads are never inline.
    #[error("an index record is inline and says that it is encrypted")]
    InlineEncrypted,
    /// Bytes behind an inline payload are not zero.
    #[error("an inline index record has bytes behind its payload of {len} bytes")]
    InlinePadding {
        /// Payload length, bytes.
        len: usize,
    },
    /// The checksum of an inline payload is wrong.
    #[error("checksum of an inline payload of {len} bytes is {found:#010x}, its record says {expected:#010x}")]
    InlineChecksum {
        /// Payload length, bytes.
        len: usize,
        /// What the record says.
        expected: u32,
        /// What the payload has.
        found: u32,
    },
    /// The payload is longer than any that was ever accepted.
    #[error("an index record names a payload of {len} bytes, the longest has {PAYLOAD_STORED_MAX}")]
    TooLong {
        /// Payload length, bytes.
        len: u32,
    },
    /// The payload would end behind the largest dat file.
    #[error("an index record puts {len} bytes at dat offset {offset}, behind 4 GiB")]
    Range {
        /// Byte offset in dat.
        offset: u32,
        /// Payload length, bytes.
        len: u32,
    },
}

impl IndexRecord {
    /// Makes the record of a short payload, which then lies in the record.
    ///
    /// A time above [`TIME_US_MAX`] is lowered to it.
    ///
    /// # Panics
    ///
    /// If the payload is longer than [`INLINE_SIZE_MAX`].
    #[inline]
    #[must_use]
    pub fn inline(payload: &[u8], time_us: u64) -> Self {
        let len = payload.len();
        assert!(len <= INLINE_SIZE_MAX, "an inline payload has at most 8 bytes");
        let mut bytes = [0; INLINE_SIZE_MAX];
        bytes[..len].copy_from_slice(payload);
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            offset: U32::from_bytes([a, b, c, d]),
            len: U32::from_bytes([e, f, g, h]),
            crc32c: U32::new(crate::checksum::crc32c(payload)),
            time_flags: time_flags(time_us, 1 + len as u8),
        }
    }

    /// Makes the record of a payload in dat. A time above [`TIME_US_MAX`] is lowered to it.
    #[inline]
    #[must_use]
    pub fn in_dat(offset: u32, len: u32, crc32c: u32, time_us: u64) -> Self {
        Self {
            offset: U32::new(offset),
            len: U32::new(len),
            crc32c: U32::new(crc32c),
            time_flags: time_flags(time_us, 0),
        }
    }

    /// The same record, marked as encrypted: its payload is epoch, key id, ciphertext and tag.
    #[inline]
    #[must_use]
    pub fn with_encrypted(self) -> Self {
        self.with_flag(FLAG_ENCRYPTED)
    }

    /// The same record, marked as a tombstone.
    #[inline]
    #[must_use]
    pub fn with_tombstone(self) -> Self {
        self.with_flag(FLAG_TOMBSTONE)
    }

    /// The record's bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; RECORD_SIZE] {
        zerocopy::transmute_ref!(self)
    }

    /// Where the payload lies. A place that no version defines reads as dat; [`IndexRecord::check`] finds it.
    #[inline]
    #[must_use]
    pub fn place(&self) -> RecordPlace {
        match self.inline_len() {
            Some(len) => RecordPlace::Inline { bytes: self.inline_bytes(), len },
            None => RecordPlace::Dat { offset: self.offset.get(), len: self.len.get() },
        }
    }

    /// The payload, if it lies in the record.
    #[inline]
    #[must_use]
    pub fn inline_payload(&self) -> Option<&[u8]> {
        self.inline_len().map(|len| &self.as_bytes()[..len])
    }

    /// Payload length as stored, bytes.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.inline_len().unwrap_or(self.len.get() as usize)
    }

    /// CRC-32C of the payload as stored.
    #[inline]
    #[must_use]
    pub fn payload_crc(&self) -> u32 {
        self.crc32c.get()
    }

    /// Time of the event, microseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn time_us(&self) -> u64 {
        self.time_flags.get() & TIME_US_MAX
    }

    /// Changes the time and nothing else. A time above [`TIME_US_MAX`] is lowered to it.
    #[inline]
    pub fn set_time_us(&mut self, time_us: u64) {
        self.time_flags = time_flags(time_us, self.flags());
    }

    /// Whether the payload is stored encrypted.
    #[inline]
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.flags() & FLAG_ENCRYPTED != 0
    }

    /// Whether the event is a tombstone.
    #[inline]
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.flags() & FLAG_TOMBSTONE != 0
    }

    /// Whether `payload` is the one this record describes, by length and checksum.
    #[inline]
    #[must_use]
    pub fn verify_payload(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_len() && crate::checksum::crc32c(payload) == self.crc32c.get()
    }

    /// Checks what a record says about itself: reserved bits, place, range, and an inline payload with its checksum.
    /// A payload in dat is not looked at.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), RecordError> {
        let flags = self.flags();
        let place = flags & PLACE_MASK;
        if flags & FLAGS_RESERVED != 0 {
            return Err(RecordError::ReservedBits { flags });
        }
        if place > PLACE_INLINE_MAX {
            return Err(RecordError::Place { place });
        }
        match self.place() {
            RecordPlace::Inline { bytes, len } => self.check_inline(&bytes, len),
            RecordPlace::Dat { offset, len } => match offset.checked_add(len) {
                None => Err(RecordError::Range { offset, len }),
                Some(_) if len > PAYLOAD_STORED_MAX => Err(RecordError::TooLong { len }),
                Some(_) => Ok(()),
            },
        }
    }

    fn check_inline(&self, bytes: &[u8; INLINE_SIZE_MAX], len: usize) -> Result<(), RecordError> {
        let (payload, padding) = bytes.split_at(len);
        let (expected, found) = (self.crc32c.get(), crate::checksum::crc32c(payload));
        if self.is_encrypted() {
            return Err(RecordError::InlineEncrypted);
        }
        if padding.iter().any(|&byte| byte != 0) {
            return Err(RecordError::InlinePadding { len });
        }
        if expected != found {
            return Err(RecordError::InlineChecksum { len, expected, found });
        }
        Ok(())
    }

    #[inline]
    fn with_flag(mut self, flag: u8) -> Self {
        self.time_flags = time_flags(self.time_us(), self.flags() | flag);
        self
    }

    #[inline]
    fn flags(&self) -> u8 {
        (self.time_flags.get() >> TIME_BITS) as u8
    }

    /// Payload length, bytes, if the payload lies in the record.
    #[inline]
    #[must_use]
    pub fn inline_len(&self) -> Option<usize> {
        let place = self.flags() & PLACE_MASK;
        (1..=PLACE_INLINE_MAX).contains(&place).then(|| usize::from(place) - 1)
    }

    #[inline]
    fn inline_bytes(&self) -> [u8; INLINE_SIZE_MAX] {
        let ([a, b, c, d], [e, f, g, h]) = (self.offset.to_bytes(), self.len.to_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

#[inline]
fn time_flags(time_us: u64, flags: u8) -> U64 {
    U64::new(time_us.min(TIME_US_MAX) | (u64::from(flags) << TIME_BITS))
}

impl std::fmt::Debug for IndexRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexRecord")
            .field("place", &self.place())
            .field("crc32c", &self.crc32c.get())
            .field("time_us", &self.time_us())
            .field("flags", &self.flags())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_payloads_of_every_length_come_back() {
        for len in 0..=INLINE_SIZE_MAX {
            let payload = &b"abcdefgh"[..len];
            let record = IndexRecord::inline(payload, 77);
            record.check().unwrap();
            let RecordPlace::Inline { bytes, len: found } = record.place() else { panic!("not inline") };
            assert_eq!(&bytes[..found], payload);
            assert_eq!((record.payload_len(), record.time_us()), (len, 77));
            assert!(record.verify_payload(payload));
        }
    }

    #[test]
    fn dat_record_has_the_bytes_of_the_table() {
        let record = IndexRecord::in_dat(0x0403_0201, 0x0007_0605, 0x0c0b_0a09, 0x0013_1211_100f_0e0d)
            .with_encrypted()
            .with_tombstone();
        let bytes: Vec<u8> = (1..=7).chain([0]).chain(9..=19).chain([0x30]).collect();
        assert_eq!(record.as_bytes()[..], bytes[..]);
        assert!(record.is_encrypted() && record.is_tombstone());
        assert_eq!(record.place(), RecordPlace::Dat { offset: 0x0403_0201, len: 0x0007_0605 });
        record.check().unwrap();
    }

    #[test]
    fn time_changes_alone_and_is_bounded() {
        let mut record = IndexRecord::inline(b"x", 5).with_tombstone();
        record.set_time_us(u64::MAX);
        assert_eq!(record.time_us(), TIME_US_MAX);
        assert!(record.is_tombstone() && record.verify_payload(b"x"));
        record.check().unwrap();
    }

    /// No single flipped bit of an inline record passes, but for those of the time and the tombstone flag, which only
    /// the block's checksum covers.
    #[test]
    fn flipped_bit_of_an_inline_record_is_found() {
        for len in 0..=INLINE_SIZE_MAX {
            let good = *IndexRecord::inline(&b"qwertyui"[..len], 1 << 40).as_bytes();
            for bit in 0..RECORD_SIZE * 8 {
                let mut bytes = good;
                bytes[bit / 8] ^= 1 << (bit % 8);
                let record = IndexRecord::read_from_bytes(&bytes).unwrap();
                let unchecked = (96..96 + 56).contains(&bit) || bit == 157;
                let became_dat = matches!(record.place(), RecordPlace::Dat { .. });
                assert_eq!(record.check().is_ok(), unchecked || (became_dat && record.check().is_ok()), "{bit}");
            }
        }
    }

    #[test]
    fn reserved_bits_places_and_ranges_are_refused() {
        for (flags, error) in [
            (0x40, RecordError::ReservedBits { flags: 0x40 }),
            (0x80, RecordError::ReservedBits { flags: 0x80 }),
            (0x0a, RecordError::Place { place: 10 }),
            (0x0f, RecordError::Place { place: 15 }),
            (0x11, RecordError::InlineEncrypted),
        ] {
            let mut bytes = [0; RECORD_SIZE];
            bytes[19] = flags;
            assert_eq!(IndexRecord::read_from_bytes(&bytes).unwrap().check(), Err(error));
        }
        let record = IndexRecord::in_dat(u32::MAX, 1, 0, 0);
        assert_eq!(record.check(), Err(RecordError::Range { offset: u32::MAX, len: 1 }));
    }

    /// A reader makes a buffer for the longest payload, and for none that is longer.
    #[test]
    fn the_longest_payload_passes_and_one_byte_more_does_not() {
        let check = |len| IndexRecord::in_dat(0, len, 0, 0).check();
        assert_eq!(check(PAYLOAD_STORED_MAX), Ok(()));
        assert_eq!(check(PAYLOAD_STORED_MAX + 1), Err(RecordError::TooLong { len: PAYLOAD_STORED_MAX + 1 }));
    }

    #[test]
    fn wrong_payloads_are_refused() {
        let record = IndexRecord::in_dat(0, 10, crc32c::crc32c(b"0123456789"), 1);
        assert!(record.verify_payload(b"0123456789"));
        assert!(!record.verify_payload(b"0123456788"));
        assert!(!record.verify_payload(b"012345678"));
    }
}
