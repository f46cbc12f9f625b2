//! The seam between the engine and the machine: files, durable writes, time and chance.
//!
//! Everything the engine does to the world goes through three traits, so that the whole of it runs on real files
//! and on a simulated disk alike:
//!
//! - [`Disk`] and [`File`]: blocking calls, for opening, recovery, metadata and reads;
//! - [`Driver`]: the queue of asynchronous writes and flushes of one shard, used by that shard's thread alone.
//!
//! Promises: a completed write whose durability is [`Durability::Durable`] survives a power cut, as does everything
//! that had completed on a file before a [`Operation::Flush`] of it was submitted. Nothing else does. Writes in flight
//! complete in any order. Offsets, lengths and memory of every read and write are multiples of [`BLOCK_SIZE`].
//!
//! What it leaves to others: what the bytes mean. The two formats are unknown here.

pub mod aligned;
pub mod doorbell;
pub mod futex;
pub mod located;
pub mod mapping;
pub mod posix;
pub mod probe;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod uring;

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use aligned::{AlignedBuf, StableBytes};
pub use doorbell::Doorbell;
pub use mapping::{FileStamp, Mapping, budget};

/// Unit of direct I/O and of the formats, bytes.
pub const BLOCK_SIZE: usize = 4096;

/// How [`Disk::open`] opens a file. Paths are relative to the store's base directory, parts between `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; an error if there is one.
    Create,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name within the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What the machine offers and the driver chose; shown in the stats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoFacts {
    /// `uring`, `posix` or `sim`.
    pub backend: &'static str,
    /// How a durable write is done: `RWF_DSYNC`, or `write+fdatasync`.
    pub durable_write: &'static str,
    /// Why it is done so.
    pub durable_write_reason: &'static str,
    /// File system type, e.g. `ext4`.
    pub file_system: String,
    /// Block device, e.g. `vda`; empty if unknown.
    pub device: String,
    /// The device's volatile write cache: `Some(true)` for write back, `None` if unknown.
    pub write_cache: Option<bool>,
    /// Whether the device has FUA, `None` if unknown.
    pub fua: Option<bool>,
    /// Alignment of memory for direct I/O by `STATX_DIOALIGN`, bytes.
    pub memory_align: usize,
    /// Alignment of offsets and lengths for direct I/O by `STATX_DIOALIGN`, bytes.
    pub offset_align: usize,
    /// Whether files are opened with `O_DIRECT`.
    pub direct: bool,
    /// Why they are not; empty if they are.
    pub buffered_reason: &'static str,
    /// What the ring was set up with; nothing without a ring.
    pub ring: RingFacts,
}

/// What of io_uring a shard's ring uses: newer kernels have more. What is missing costs time, or a second line of defence;
/// nothing else changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingFacts {
    /// `IORING_SETUP_SINGLE_ISSUER`: one thread submits (Linux 6.0).
    pub single_issuer: bool,
    /// `IORING_SETUP_DEFER_TASKRUN`: completions are made when the shard asks for them (Linux 6.1).
    pub defer_taskrun: bool,
    /// `IORING_SETUP_COOP_TASKRUN`: completions interrupt nobody (Linux 5.19).
    pub coop_taskrun: bool,
    /// Whether the ring itself is registered with its thread (Linux 5.18).
    pub registered_ring: bool,
    /// Whether the ring has a table of registered files (Linux 5.19).
    pub registered_files: bool,
    /// Whether the ring has a table of registered buffers (Linux 5.19).
    pub registered_buffers: bool,
    /// Whether the kernel holds the ring to what the engine uses: writes, flushes and its doorbell, by
    /// `IORING_REGISTER_RESTRICTIONS` (Linux 5.10).
    pub restricted: bool,
}

/// A store's directory tree, by blocking calls.
///
/// Every call may be made from any thread. A create, rename or unlink is durable only after [`Disk::sync_dir`] of
/// the directory (of both, for a rename across two).
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file. `NotFound` if it (or its directory) is missing, `AlreadyExists` for [`OpenMode::Create`].
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Opens a segment's idx or dat, of which there are many. They are never renamed while the store is open; so the system's
    /// descriptor may be closed while nobody uses it, and opened again.
    fn open_segment(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.open(path, mode)
    }
    /// Makes one directory; `AlreadyExists` if there is one. The base directory itself is `""`.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>>;
    /// Renames a file, replacing one that is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &str) -> io::Result<()>;
    /// Removes a directory; an error unless it is empty.
    fn remove_dir(&self, path: &str) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Makes the directory's entries durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Makes the queue of a shard. Called on the thread that will use it (a ring has one submitter).
    fn driver(&self) -> io::Result<Box<dyn Driver>>;
    /// What the machine offers.
    fn facts(&self) -> IoFacts;
    /// How much of its files may be mapped; `None` if they cannot be.
    fn mapping_budget(&self) -> Option<&Arc<budget::Budget>> {
        None
    }
    /// How many of the files that [`Disk::open_segment`] gave have a descriptor now; 0 where that is not bounded.
    fn open_segment_files(&self) -> usize {
        0
    }
}

/// An open file. Closed when the last `Arc` goes.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file. `buf` starts at a block boundary
    /// in memory ([`AlignedBuf`]); `offset` and `buf.len()` are multiples of [`BLOCK_SIZE`].
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf`; not durable. Aligned as in [`File::read_at`].
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all completed writes, and the size, durable (fdatasync).
    fn flush(&self) -> io::Result<()>;
    /// Size, bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts or extends the file.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Makes sure that there is space for the first `size` bytes, and that the file has at least that size.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Where within these bytes one extent of the file system ends and the next begins; empty where that is not known. A
    /// direct write across such a place may take a kernel worker of the ring.
    fn seams(&self, range: Range<u64>) -> Vec<u64> {
        let _ = range;
        Vec::new()
    }
    /// Maps the first `len` bytes for reading, at least one; `None` where files cannot be mapped. Only for files that the engine
    /// never changes again.
    fn map(&self, len: usize, share: budget::Share) -> io::Result<Option<Mapping>> {
        let _ = (len, share);
        Ok(None)
    }
    /// What changes when somebody changes the file.
    fn stamp(&self) -> io::Result<FileStamp> {
        Ok(FileStamp { size: self.size()?, modified_ns: 0, inode: (0, 0) })
    }
    /// How the driver of the same disk knows this file. An error if it had to be opened again and could not be.
    fn handle(&self) -> io::Result<FileHandle>;
    /// The path by which it was opened, for messages.
    fn path(&self) -> &str;
}

/// How a driver names a file. Only the driver of the disk that opened it may use it.
#[derive(Clone, Debug)]
pub enum FileHandle {
    /// A file of the operating system, open as long as the handle is there.
    Open(Arc<fs::File>),
    /// A file of the simulated disk.
    #[cfg_attr(not(any(test, feature = "sim")), allow(dead_code))]
    Sim(u64),
}

/// What a completed write promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The bytes are with the kernel and the device: they survive the process, not a power cut.
    Written,
    /// The bytes of this write survive a power cut. Says nothing about any other write.
    Durable,
}

/// What a driver writes from: memory that does not change and does not go before the completion.
#[derive(Debug)]
pub enum IoBuf {
    /// A buffer that the operation owns; handed back in the completion.
    Owned {
        /// The buffer.
        buf: AlignedBuf,
        /// How much of its beginning is written; a multiple of [`BLOCK_SIZE`].
        len: usize,
    },
    /// Bytes of a page, kept alive by a reference.
    Stable(StableBytes),
}

impl IoBuf {
    /// The bytes to write.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned { buf, len } => &buf[..*len],
            Self::Stable(bytes) => bytes.as_slice(),
        }
    }
}

/// One asynchronous operation.
#[derive(Debug)]
pub enum Operation {
    /// Writes `buf` at `offset`.
    Write {
        /// Where to.
        file: Arc<dyn File>,
        /// Byte offset, a multiple of [`BLOCK_SIZE`].
        offset: u64,
        /// What.
        buf: IoBuf,
        /// What its completion promises.
        durability: Durability,
    },
    /// Makes every write of this file durable that completed before this was submitted.
    Flush {
        /// Which file.
        file: Arc<dyn File>,
    },
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// As given to [`Driver::submit`].
    pub token: u64,
    /// A short write is finished by the driver; so `Ok` means all of it.
    pub result: io::Result<()>,
    /// The buffer, if the operation owned one.
    pub buf: Option<AlignedBuf>,
}

/// A shard's queue of writes and flushes. Used by one thread; not `Send`, since a ring has one submitter.
///
/// Dropping it waits until every operation in flight has ended.
pub trait Driver: fmt::Debug {
    /// Queues an operation. It may begin at once or only in [`Driver::kick`]. Never blocks for long with `uring`; `posix`
    /// does the operation here and now.
    fn submit(&mut self, token: u64, operation: Operation);
    /// Hands what is queued to the kernel.
    fn kick(&mut self) -> io::Result<()>;
    /// Moves finished operations to `out`, without waiting.
    fn reap(&mut self, out: &mut Vec<Completion>) -> io::Result<()>;
    /// Sleeps until an operation has ended, the doorbell rings, or `timeout` has passed (`None`: no limit). Hands over
    /// what is queued first. May wake for no reason.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    /// Whether [`Driver::kick`] may make a durable write by a blocking call when no other durable write and no flush is under way. For
    /// who has little else to do meanwhile.
    fn write_lone_by_blocking(&mut self, yes: bool) {
        let _ = yes;
    }
    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;
    /// What others ring to wake this driver's [`Driver::wait`].
    fn doorbell(&self) -> Arc<Doorbell>;
    /// What its ring was set up with, if it has one.
    fn ring(&self) -> RingFacts {
        RingFacts::default()
    }
}

/// Reads until `buf` is full or the file ends. Returns how much was read.
pub fn read_full(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let found = file.read_at(&mut buf[done..], offset + done as u64)?;
        done += found;
        if found == 0 || !done.is_multiple_of(BLOCK_SIZE) {
            break;
        }
    }
    Ok(done)
}
