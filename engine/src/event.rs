//! What readers get: events, and payloads that keep their memory alive.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::segment::record::INLINE_SIZE_MAX;
use crate::segment::warm::MappedFile;
use crate::tail::page::Page;

/// One event of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedexEvent {
    /// Position in the channel: dense, the first event is 0.
    pub seq: u64,
    /// The bytes that were appended.
    pub payload: Payload,
    /// When it was appended.
    pub time: EventTime,
}

/// One event, borrowed from the memory that it lies in; see [`EventChunk`](crate::EventChunk).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'c> {
    /// Position in the channel: dense, the first event is 0.
    pub seq: u64,
    /// The bytes that were appended.
    pub payload: &'c [u8],
    /// When it was appended.
    pub time: EventTime,
}

impl EventRef<'_> {
    /// An event of its own, with a copy of the payload.
    #[must_use]
    pub fn to_event(&self) -> RedexEvent {
        let payload = match self.payload.len() {
            ..=INLINE_SIZE_MAX => Payload::inline(self.payload),
            _ => Payload::shared(bytes::Bytes::copy_from_slice(self.payload)),
        };
        RedexEvent { seq: self.seq, payload, time: self.time }
    }
}

/// Wall clock of an append: microseconds since the Unix epoch, at the resolution of the kernel's tick. Never decreases
/// within a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub(crate) u64);

impl EventTime {
    /// This many microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A time of the standard library, rounded down to microseconds; one before the Unix epoch is the epoch.
    #[must_use]
    pub fn from_system_time(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn as_micros(self) -> u64 {
        self.0
    }

    /// As the standard library's time.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }
}

impl From<SystemTime> for EventTime {
    fn from(time: SystemTime) -> Self {
        Self::from_system_time(time)
    }
}

/// Bytes of an event: derefs to `[u8]`. A cheap clone.
///
/// It keeps the memory that it lies in alive, which may be a page of many events, or a mapped segment; `to_vec` copies.
#[derive(Clone)]
pub struct Payload(Bytes);

#[derive(Clone)]
enum Bytes {
    Inline { bytes: [u8; INLINE_SIZE_MAX], len: u8 },
    Page { page: Arc<Page>, from: u32, len: u32 },
    Mapped { file: Arc<MappedFile>, from: u32, len: u32 },
    Shared(bytes::Bytes),
}

/// A part of a mapped file, as the owner of a [`bytes::Bytes`].
struct MappedBytes {
    file: Arc<MappedFile>,
    from: u32,
    len: u32,
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.file.bytes()[self.from as usize..self.from as usize + self.len as usize]
    }
}

impl Payload {
    pub(crate) fn inline(payload: &[u8]) -> Self {
        let mut bytes = [0; INLINE_SIZE_MAX];
        bytes[..payload.len()].copy_from_slice(payload);
        Self(Bytes::Inline { bytes, len: payload.len() as u8 })
    }

    pub(crate) fn in_page(page: Arc<Page>, range: std::ops::Range<usize>) -> Self {
        Self(Bytes::Page { page, from: range.start as u32, len: range.len() as u32 })
    }

    /// Bytes of a mapped file; none if it has not so many.
    #[inline]
    pub(crate) fn mapped(file: &Arc<MappedFile>, from: u32, len: u32) -> Self {
        if from as usize + len as usize > file.bytes().len() {
            return Self::inline(&[]);
        }
        Self(Bytes::Mapped { file: file.clone(), from, len })
    }

    /// Whether the bytes are still what was appended.
    ///
    /// A payload of an older event may lie in its segment's file, mapped. The engine never changes that file; another program that
    /// cuts it takes the bytes away, which then read as zeros. `false` says so: read the event again, which gives it, or tells
    /// what is missing. `true` in all other cases. A program whose files others may cut asks after it has used the bytes; it costs
    /// a system call for such a payload.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        match &self.0 {
            Bytes::Mapped { file, .. } => file.is_current(),
            Bytes::Inline { .. } | Bytes::Page { .. } | Bytes::Shared(_) => true,
        }
    }

    pub(crate) fn shared(bytes: bytes::Bytes) -> Self {
        Self(Bytes::Shared(bytes))
    }

    /// As a [`bytes::Bytes`]; without a copy unless the payload lies in a page or in the record itself.
    #[must_use]
    pub fn into_bytes(self) -> bytes::Bytes {
        match self.0 {
            Bytes::Shared(bytes) => bytes,
            Bytes::Mapped { file, from, len } => bytes::Bytes::from_owner(MappedBytes { file, from, len }),
            Bytes::Inline { .. } | Bytes::Page { .. } => bytes::Bytes::copy_from_slice(&self),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { bytes, len } => &bytes[..usize::from(*len)],
            Bytes::Page { page, from, len } => page.published_bytes(*from as usize..(from + len) as usize),
            Bytes::Mapped { file, from, len } => &file.bytes()[*from as usize..*from as usize + *len as usize],
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Eq for Payload {}

impl<T: AsRef<[u8]>> PartialEq<T> for Payload {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl fmt::Debug for Payload {
    /// Shows the length and the first bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        let rest = if self.len() > SHOWN { ".." } else { "" };
        write!(f, "Payload({} bytes: {:02x?}{rest})", self.len(), &self[..self.len().min(SHOWN)])
    }
}
