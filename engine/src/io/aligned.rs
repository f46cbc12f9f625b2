//! Memory that direct I/O takes: block-aligned buffers, and bytes of pages that somebody else keeps alive.
//!
//! Promises: an [`AlignedBuf`] does not move when it is moved, and is zeroed when it is made; the bytes of a
//! [`StableBytes`] stay valid and unchanged for as long as it lives.
//!
//! Unsafe is needed here: alignment above that of a type comes from the allocator or from `mmap`, and a page's bytes
//! are lent without a borrow, since the kernel is the borrower.
//!
//! What it leaves to others: who registers a buffer with a ring (`uring`), and which bytes are stable (`tail`).

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use super::BLOCK_SIZE;

/// Size and alignment of a huge page, bytes. Buffers of at least this size are aligned to it.
pub const HUGE_PAGE_SIZE: usize = 2 << 20;
/// Buffers of at least this size are mapped: the allocator would zero all of one whose alignment is above that of a type,
/// and of a large buffer often little is used.
const MAPPED_SIZE: usize = 512 << 10;

/// An owned buffer for direct I/O: zeroed when made, aligned to [`BLOCK_SIZE`], a whole number of blocks.
///
/// From [`HUGE_PAGE_SIZE`] on it is aligned to that and asks for huge pages. Its bytes keep their address for life.
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    len: usize,
    /// Whether a driver has written from this buffer before: only a buffer that comes back is worth registering.
    seen: bool,
    registration: Option<Registration>,
}

// SAFETY: the buffer owns its memory, and nothing in it is tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: through `&AlignedBuf` the memory is only read.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// Makes a zeroed buffer of `len` bytes, rounded up to whole blocks, at least one.
    ///
    /// # Panics
    ///
    /// When `len` is above `isize::MAX`. Out of memory aborts, as for any allocation.
    #[must_use]
    pub fn new(len: usize) -> Self {
        assert!(len <= isize::MAX as usize - HUGE_PAGE_SIZE, "buffer of {len} bytes");
        let len = len.max(1).next_multiple_of(BLOCK_SIZE);
        #[cfg(any(test, feature = "sim"))]
        crate::fuzzing::note_buffer(len);
        let ptr = match len {
            HUGE_PAGE_SIZE.. => map_huge(len),
            MAPPED_SIZE.. => map(len),
            _ => allocate(len),
        };
        Self { ptr, len, seen: false, registration: None }
    }

    /// The first byte, for a page pool that hands out disjoint pieces of a shared buffer. Who writes through it answers
    /// for nobody else looking at those bytes.
    pub(crate) fn raw(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Notes that a driver writes from this buffer; says whether one has before.
    pub(crate) fn mark_seen(&mut self) -> bool {
        std::mem::replace(&mut self.seen, true)
    }

    /// The place in a ring's buffer table, if a driver has registered this buffer there.
    pub(crate) fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// Set by the driver that registered this buffer, and by nobody else. An earlier place is given back.
    pub(crate) fn set_registration(&mut self, registration: Registration) {
        self.registration = Some(registration);
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` is this buffer's own allocation of `len` initialized bytes.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len >= MAPPED_SIZE {
            unmap(self.ptr.as_ptr(), self.len);
        } else {
            // SAFETY: `ptr` came from `allocate` with this very layout, and nobody uses it after this.
            unsafe { dealloc(self.ptr.as_ptr(), layout(self.len)) };
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("len", &self.len)
            .field("registered", &self.registration.as_ref().map(Registration::index))
            .finish()
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, BLOCK_SIZE).expect("AlignedBuf::new bounds the size")
}

fn allocate(len: usize) -> NonNull<u8> {
    let layout = layout(len);
    // SAFETY: the layout is not empty, since a buffer has at least one block.
    let ptr = unsafe { alloc_zeroed(layout) };
    NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Maps `len` bytes, zeroed.
fn map(len: usize) -> NonNull<u8> {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        handle_alloc_error(layout(len));
    }
    NonNull::new(base.cast()).expect("mmap never answers with address zero")
}

/// Maps `len` bytes at a huge page boundary: maps one huge page more, then gives back both ends.
fn map_huge(len: usize) -> NonNull<u8> {
    let mapped = len + HUGE_PAGE_SIZE;
    let base = map(mapped).as_ptr();
    let before = base.align_offset(HUGE_PAGE_SIZE);
    let start = base.wrapping_add(before);
    unmap(base, before);
    unmap(start.wrapping_add(len), mapped - before - len);
    // SAFETY: the range is this mapping's. A refusal is no error: the buffer then has small pages.
    unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
    NonNull::new(start).expect("a place within a mapping is not address zero")
}

/// Unmaps a block-aligned range of a mapping made by [`map`].
fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: the callers own the range: an unused end of a fresh mapping, or a buffer that is being dropped.
        let result = unsafe { libc::munmap(start.cast(), len) };
        debug_assert_eq!(result, 0, "munmap of an own range");
    }
}

/// A buffer's place in the buffer table of one ring. Dropping it gives the place back.
pub(crate) struct Registration {
    index: u16,
    places: Arc<ReturnedPlaces>,
}

impl Registration {
    pub(crate) fn new(index: u16, places: Arc<ReturnedPlaces>) -> Self {
        Self { index, places }
    }

    /// Index in the buffer table.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Whether the place is in the table that `places` belongs to.
    pub(crate) fn is_in(&self, places: &Arc<ReturnedPlaces>) -> bool {
        Arc::ptr_eq(&self.places, places)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.places.give_back(self.index);
    }
}

/// Places of a ring's buffer table whose buffers are gone, until the ring's thread takes notice.
#[derive(Debug, Default)]
pub(crate) struct ReturnedPlaces(Mutex<Vec<u16>>);

impl ReturnedPlaces {
    fn give_back(&self, index: u16) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(index);
    }

    /// Takes one place, if any.
    pub(crate) fn take(&self) -> Option<u16> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// Bytes that another owner keeps alive and unchanged, such as the published part of a page.
pub struct StableBytes {
    ptr: NonNull<u8>,
    len: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the bytes are only read, they do not change (contract of `new`), and the owner is `Send + Sync`.
unsafe impl Send for StableBytes {}
// SAFETY: as above.
unsafe impl Sync for StableBytes {}

impl StableBytes {
    /// Lends `len` bytes at `ptr`.
    ///
    /// # Safety
    ///
    /// The bytes are initialized, and stay valid and unchanged for as long as `owner` lives.
    #[must_use]
    pub(crate) unsafe fn new(owner: Arc<dyn Any + Send + Sync>, ptr: NonNull<u8>, len: usize) -> Self {
        Self { ptr, len, _owner: owner }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: contract of `new`; `self._owner` lives as long as the slice.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl fmt::Debug for StableBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StableBytes").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers of every class of size are whole blocks, zeroed, aligned and writable to both ends.
    #[test]
    fn buffers_are_aligned_and_zeroed() {
        for size in [0, 1, BLOCK_SIZE, BLOCK_SIZE + 1, HUGE_PAGE_SIZE - 1, HUGE_PAGE_SIZE, HUGE_PAGE_SIZE + 5] {
            let mut buf = AlignedBuf::new(size);
            let align = if buf.len() >= HUGE_PAGE_SIZE { HUGE_PAGE_SIZE } else { BLOCK_SIZE };
            assert_eq!(buf.as_ptr().align_offset(align), 0);
            assert_eq!(buf.len(), size.max(1).next_multiple_of(BLOCK_SIZE));
            assert!(buf.iter().all(|&b| b == 0));
            buf[0] = 1;
            *buf.last_mut().unwrap() = 2;
            let address = buf.as_ptr();
            let moved = Box::new(buf);
            assert_eq!(moved.as_ptr(), address);
            assert_eq!((moved[0], *moved.last().unwrap()), (1, 2));
        }
    }

    /// Stable bytes keep their owner alive, and let it go with them.
    #[test]
    fn stable_bytes_hold_their_owner() {
        let mut page = AlignedBuf::new(BLOCK_SIZE);
        page[..3].copy_from_slice(b"abc");
        let page = Arc::new(page);
        let ptr = NonNull::from(&page[0]);
        // SAFETY: the page is never written again, and `page` owns its bytes.
        let bytes = unsafe { StableBytes::new(page.clone(), ptr, 3) };
        assert_eq!(bytes.as_slice(), b"abc");
        assert_eq!(Arc::strong_count(&page), 2);
        drop(bytes);
        assert_eq!(Arc::strong_count(&page), 1);
    }

    /// A dropped buffer gives its place in the table back; a replaced registration too.
    #[test]
    fn places_come_back() {
        let places = Arc::new(ReturnedPlaces::default());
        let mut buf = AlignedBuf::new(1);
        assert!(!buf.mark_seen());
        assert!(buf.mark_seen());
        buf.set_registration(Registration::new(7, places.clone()));
        assert!(buf.registration().unwrap().is_in(&places));
        buf.set_registration(Registration::new(8, places.clone()));
        assert_eq!(places.take(), Some(7));
        drop(buf);
        assert_eq!(places.take(), Some(8));
        assert_eq!(places.take(), None);
    }
}
