//! The ring's table of registered buffers.
//!
//! A registered buffer's pages are pinned once, not for each write. A buffer is registered when it is written from
//! a second time: then it belongs to a pool, and the pinning pays. It gives its place back when it is dropped.

#![allow(unsafe_code)] // To register memory with the kernel.

use std::sync::Arc;

use super::ring::Ring;
use crate::io::AlignedBuf;
use crate::io::aligned::{Registration, ReturnedPlaces};

/// Places in the table.
const PLACES: u16 = 64;
/// The largest buffer that the kernel registers, bytes.
const SIZE_MAX: usize = 1 << 30;

#[derive(Debug)]
pub(super) struct BufferTable {
    returned: Arc<ReturnedPlaces>,
    /// Empty places.
    free: Vec<u16>,
}

impl BufferTable {
    pub(super) fn new(ring: &Ring) -> Self {
        let sparse = ring.submitter().register_buffers_sparse(u32::from(PLACES)).is_ok();
        let free = if sparse { (0..PLACES).collect() } else { Vec::new() };
        Self { returned: Arc::default(), free }
    }

    /// Whether the table has an empty place: at the beginning, whether the kernel has such a table.
    pub(super) fn is_there(&self) -> bool {
        !self.free.is_empty()
    }

    /// A buffer's place in this ring's table, given now if it is worth it.
    pub(super) fn place(&mut self, ring: &Ring, buf: &mut AlignedBuf) -> Option<u16> {
        if let Some(registration) = buf.registration().filter(|r| r.is_in(&self.returned)) {
            return Some(registration.index());
        }
        if !buf.mark_seen() || buf.len() > SIZE_MAX {
            return None;
        }
        let index = self.free.pop()?;
        if update(ring, index, buf.as_mut_ptr(), buf.len()).is_err() {
            // The limit on locked memory, most likely. No more of this: plain writes do as well.
            self.free.clear();
            return None;
        }
        buf.set_registration(Registration::new(index, self.returned.clone()));
        Some(index)
    }

    /// Unpins buffers that were dropped since the last call.
    pub(super) fn sweep(&mut self, ring: &Ring) {
        while let Some(index) = self.returned.take() {
            if update(ring, index, std::ptr::null_mut(), 0).is_ok() {
                self.free.push(index);
            }
        }
    }
}

/// Puts a buffer into the kernel's table, or clears the place if `ptr` is null.
fn update(ring: &Ring, index: u16, ptr: *mut u8, len: usize) -> std::io::Result<()> {
    let part = libc::iovec { iov_base: ptr.cast(), iov_len: len };
    // SAFETY: the range is one buffer's, all of it. The kernel pins its pages, so freeing the buffer later leaves only
    // the place stale, which no entry names: an entry takes its place from a live buffer.
    unsafe { ring.submitter().register_buffers_update(u32::from(index), &[part], None) }
}
