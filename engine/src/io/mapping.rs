//! Files that never change, mapped for reading.
//!
//! A sealed segment is read where the page cache has it, without a copy. What makes that safe to do:
//!
//! - the engine maps only what it has sealed: it never writes there again, and the store's lock keeps other engines away;
//! - [`Mapping::populate`] brings bytes in before they are touched, and a page that cannot be had is an error of that call;
//! - what another program cuts off all the same, or the device loses later, is caught by [`guard`]: the page reads as zeros, the
//!   mapping is *broken* from then on ([`Mapping::is_broken`]), and the program lives;
//! - [`FileStamp`] tells whether the file is the one that was mapped; what was verified before it changed counts for nothing.
//!
//! `docs/adr/0005-mapped-segments.md` argues it. Unsafe is needed for the map call and for the signal handler.
//!
//! What it leaves to others: what the bytes mean, and when to check them.
#![allow(unsafe_code)]

pub mod budget;
mod guard;

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Advice, Mmap, MmapOptions};

use self::budget::Share;
use self::guard::Guard;

/// What tells a file from itself after somebody has changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Size, bytes.
    pub size: u64,
    /// Time of the last change of its bytes, nanoseconds since the Unix epoch; 0 where it is not known.
    pub modified_ns: i128,
    /// Device and number of its inode; 0 where they are not known.
    pub inode: (u64, u64),
}

impl FileStamp {
    /// The stamp of an open file.
    pub fn of(file: &fs::File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            size: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}

/// The first bytes of a file, mapped for reading. Counts against a budget as long as it is there.
#[derive(Debug)]
pub struct Mapping {
    // In this order: the guard forgets the addresses before they may become somebody else's.
    guard: Guard,
    bytes: Mmap,
    /// Whether the kernel refuses to populate, being older than 5.14.
    no_populate: AtomicBool,
    _share: Share,
}

impl Mapping {
    /// Maps the first `len` bytes, at least one.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file has not so many; else those of mmap(2).
    pub fn new(file: &fs::File, len: usize, share: Share) -> io::Result<Self> {
        if file.metadata()?.len() < len as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its segment"));
        }
        // SAFETY: the engine maps only sealed files, to which it never writes again, beneath a directory that it has locked.
        // Bytes that another program changes are still initialised memory; nothing but their value, which checksums and stamps
        // are there for, is relied upon. Pages that go away are replaced by the guard.
        let bytes = unsafe { MmapOptions::new().len(len).map(file)? };
        let guard = Guard::over(bytes.as_ptr() as usize, len)?;
        Ok(Self { guard, bytes, no_populate: AtomicBool::new(false), _share: share })
    }

    /// The bytes. Zeros where the mapping is broken.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads these bytes into memory and maps them, waiting for the device.
    ///
    /// # Errors
    ///
    /// Where a touch would raise a signal: bytes behind the end of the file, or that the device cannot read.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() || self.no_populate.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.bytes.advise_range(Advice::PopulateRead, range.start, range.len()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.no_populate.store(true, Ordering::Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    /// Begins to read these bytes into memory, without waiting. What it could not do, [`Mapping::populate`] does.
    pub fn prefetch(&self, range: Range<usize>) {
        let range = range.start..range.end.min(self.bytes.len());
        if !range.is_empty() {
            let _ = self.bytes.advise_range(Advice::WillNeed, range.start, range.len());
        }
    }

    /// Whether bytes that were touched could not be had, and read as zeros: then none of it is to be trusted any more.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.guard.is_broken()
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests;
