//! The same files as [`PosixDisk`], and a driver on io_uring.
//!
//! Promises: one ring per driver, used by one thread; a sleeping driver sleeps in one place, in `io_uring_enter`, for
//! completions, the doorbell (an eventfd that the ring reads) and the timeout together; memory that the kernel reads
//! is freed only after its completion; nothing is allocated per operation once the queues have grown.
//!
//! | file | holds |
//! |---|---|
//! | `ring.rs` | the ring, its two system calls, the fallbacks of its setup |
//! | `driver.rs` | operations in flight, from submit to completion |
//! | `flights.rs` | the slab of them |
//! | `files.rs`, `buffers.rs` | the ring's tables of registered files and buffers |
//! | `bell.rs` | the read of the doorbell |
//!
//! What it leaves to others: whether io_uring is allowed here ([`super::probe::uring_available`]).

mod bell;
mod buffers;
mod driver;
mod files;
mod flights;
mod ring;
#[cfg(all(test, not(redex_loom)))]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::posix::PosixDisk;
use super::probe::DurableWrite;
use super::{DirEntry, Disk, Driver, File, IoFacts, OpenMode, budget};
use driver::UringDriver;

/// A directory on a real file system, with asynchronous writes.
#[derive(Debug)]
pub struct UringDisk {
    files: PosixDisk,
}

impl UringDisk {
    /// Opens the base directory, as [`PosixDisk::open`].
    ///
    /// # Errors
    ///
    /// As there. That io_uring is refused shows in [`Disk::driver`], and before in
    /// [`super::probe::uring_available`].
    pub fn open(base: &Path, durable_write: Option<DurableWrite>) -> io::Result<Self> {
        Ok(Self { files: PosixDisk::open(base, durable_write)? })
    }

    /// As [`PosixDisk::with_mapped_bytes_max`].
    #[must_use]
    pub fn with_mapped_bytes_max(self, bytes: u64) -> Self {
        Self { files: self.files.with_mapped_bytes_max(bytes) }
    }

    /// The file half: base directory and lock file.
    #[must_use]
    pub fn posix(&self) -> &PosixDisk {
        &self.files
    }
}

impl Disk for UringDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.files.open(path, mode)
    }

    fn open_segment(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.files.open_segment(path, mode)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.files.create_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        self.files.list(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        self.files.unlink(path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.files.remove_dir(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.files.sync_dir(path)
    }

    fn mapping_budget(&self) -> Option<&Arc<budget::Budget>> {
        self.files.mapping_budget()
    }

    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        Ok(Box::new(UringDriver::new(&self.files)?))
    }

    fn open_segment_files(&self) -> usize {
        self.files.open_segment_files()
    }

    fn facts(&self) -> IoFacts {
        IoFacts { backend: "uring", ..self.files.facts() }
    }
}
