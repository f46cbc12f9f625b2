//! The ring's table of registered files.
//!
//! A file in the table costs no reference count per operation. The table is a cache: a file takes one of a few places
//! when it is first used, and is used by its descriptor if they are taken. A place holds a weak reference, so that a
//! closed file's address cannot come back while it is in the table, and so that the table can tell that it was closed.
//! The kernel's table keeps a closed file open, so places are cleared soon after ([`FileTable::sweep`]).
//!
//! Place 0 is for the store's lock file (design D13).

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use io_uring::types::Fd;

use super::ring::Ring;
use crate::io::{File, FileHandle};

/// Places for files, a power of two.
const PLACES: usize = 256;
/// How many neighbouring places a file may take.
const PROBES: usize = 4;
/// Index of the first of them in the kernel's table.
const FIRST: u32 = 1;

/// How an entry names its file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Place(u32),
    Fd(i32),
}

#[derive(Debug)]
pub(super) struct FileTable {
    /// Empty where the kernel has no such table.
    places: Vec<Option<Weak<dyn File>>>,
    closed_files: Arc<AtomicU64>,
    swept_at: u64,
}

impl FileTable {
    pub(super) fn new(ring: &Ring, closed_files: Arc<AtomicU64>) -> Self {
        let sparse = ring.submitter().register_files_sparse(FIRST + PLACES as u32).is_ok();
        let places = if sparse { vec![None; PLACES] } else { Vec::new() };
        Self { places, closed_files, swept_at: 0 }
    }

    /// Whether the kernel has such a table.
    pub(super) fn is_there(&self) -> bool {
        !self.places.is_empty()
    }

    /// Puts the lock file into the kernel's table. If that fails, the store is not protected from a killed process's last
    /// writes; so the error counts.
    pub(super) fn hold_lock(&self, ring: &Ring, lock: &fs::File) -> io::Result<()> {
        if self.places.is_empty() {
            return ring.submitter().register_files(&[lock.as_raw_fd()]);
        }
        ring.submitter().register_files_update(0, &[lock.as_raw_fd()]).map(drop)
    }

    /// How to name a file in an entry: by its place, or by a descriptor, which then is open until the caller drops it.
    ///
    /// # Panics
    ///
    /// On a file of another disk.
    pub(super) fn target(&mut self, ring: &Ring, file: &Arc<dyn File>) -> io::Result<(Target, Option<Arc<fs::File>>)> {
        let wanted = address(Arc::as_ptr(file));
        let start = hash(wanted);
        let mut free = None;
        for index in (0..PROBES).map(|i| (start + i) % PLACES) {
            match self.places.get(index) {
                Some(Some(held)) if address(Weak::as_ptr(held)) == wanted => {
                    return Ok((Target::Place(FIRST + index as u32), None));
                }
                Some(Some(held)) if held.strong_count() > 0 => {}
                Some(_) => free = free.or(Some(index)),
                None => {}
            }
        }
        let FileHandle::Open(open) = file.handle()? else { panic!("a file of another disk") };
        if let Some(index) = free
            && ring.submitter().register_files_update(FIRST + index as u32, &[open.as_raw_fd()]).is_ok()
        {
            self.places[index] = Some(Arc::downgrade(file));
            return Ok((Target::Place(FIRST + index as u32), None));
        }
        Ok((Target::Fd(open.as_raw_fd()), Some(open)))
    }

    /// Lets go of files that were closed since the last call.
    pub(super) fn sweep(&mut self, ring: &Ring) {
        let closed = self.closed_files.load(Ordering::Acquire);
        if closed == self.swept_at {
            return;
        }
        self.swept_at = closed;
        for (index, place) in self.places.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|file| file.strong_count() == 0) {
                // A refusal leaves the file open until the place is used again or the ring ends.
                let _ = ring.submitter().register_files_update(FIRST + index as u32, &[-1]);
                *place = None;
            }
        }
    }

    /// Lets go of all, so that nothing is held open by a ring that the kernel ends in its own time.
    pub(super) fn clear(&mut self, ring: &Ring) {
        self.places.clear();
        let _ = ring.submitter().unregister_files();
    }
}

impl Target {
    pub(super) fn fd(self) -> Fd {
        match self {
            Self::Place(index) => Fd(index as i32),
            Self::Fd(fd) => Fd(fd),
        }
    }

    pub(super) fn flags(self) -> io_uring::squeue::Flags {
        match self {
            Self::Place(_) => io_uring::squeue::Flags::FIXED_FILE,
            Self::Fd(_) => io_uring::squeue::Flags::empty(),
        }
    }
}

fn address(file: *const dyn File) -> usize {
    file.cast::<()>().addr()
}

/// Fibonacci hashing; the low bits of an address say little.
fn hash(address: usize) -> usize {
    ((address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % PLACES
}
