//! The calls to the kernel that the standard library does not have; what the raw loop and the counters are made of.
//!
//! Unsafe code is needed here because `pwritev2`, io_uring, `fallocate`, `cachestat`, `mincore` and the process's CPU clock have no
//! safe form. It is confined to this file; every function in it is safe to call with any arguments.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

/// Alignment of memory, offsets and lengths for direct I/O, bytes.
pub(crate) const BLOCK_SIZE: usize = 4096;

/// `cachestat(2)`, Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// Bytes that begin at a block boundary in memory.
#[derive(Debug)]
pub(crate) struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl AlignedBytes {
    /// Makes `size` zero bytes.
    pub(crate) fn new(size: usize) -> Self {
        let bytes = vec![0; size + BLOCK_SIZE];
        let start = bytes.as_ptr().align_offset(BLOCK_SIZE);
        Self { bytes, start, size }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.size]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.size]
    }
}

/// Writes all of `bytes` at `offset` with `RWF_DSYNC`: durable when it returns.
pub(crate) fn write_dsync(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `part` describes `bytes`, which is only read and outlives the call.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &part, 1, offset as libc::off_t, libc::RWF_DSYNC) };
    whole(written as i64, bytes.len())
}

/// Allocates the first `size` bytes of a file, which becomes as long; nothing is written.
pub(crate) fn allocate(file: &File, size: u64) -> io::Result<()> {
    // SAFETY: takes no memory.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size as libc::off_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A ring used for one durable write at a time.
pub(crate) struct Ring(IoUring);

impl Ring {
    /// Makes a ring for the calling thread.
    pub(crate) fn new() -> io::Result<Self> {
        let best = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(4);
        best.or_else(|_| IoUring::new(4)).map(Self)
    }

    /// Writes all of `bytes` at `offset` with `RWF_DSYNC` and sleeps in the kernel until it is durable.
    pub(crate) fn write_dsync(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), size)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        // SAFETY: `file` and `bytes` are borrowed until this function returns, and it does not return before the
        // completion of the only entry in flight was taken (or the process ends).
        unsafe { self.0.submission().push(&entry) }.expect("the queue is empty between calls");
        loop {
            let waited = self.0.submit_and_wait(1);
            if let Some(completion) = self.0.completion().next() {
                return whole(i64::from(completion.result()), bytes.len());
            }
            match waited {
                Ok(_) => {}
                Err(error) if retried(&error) => {}
                // The kernel may still read `bytes`, so there is no safe way to return.
                Err(error) => panic!("io_uring_enter failed with a write in flight: {error}"),
            }
        }
    }
}

fn retried(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// Turns the result of a write into an error if it is one, or is short. Negative values are `-1` with `errno`, or `-errno`.
fn whole(written: i64, size: usize) -> io::Result<()> {
    match written {
        -1 => Err(io::Error::last_os_error()),
        n if n < 0 => Err(io::Error::from_raw_os_error(-n as i32)),
        n if n as usize == size => Ok(()),
        n => Err(io::Error::other(format!("short write: {n} of {size} bytes"))),
    }
}

/// Bytes of `file` that lie in the page cache: by `cachestat`, where the kernel lacks it by `mincore`.
pub(crate) fn cached_bytes(file: &File) -> io::Result<u64> {
    match cachestat(file) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)) => {
            mincore(file)
        }
        other => other,
    }
}

/// Asks the kernel to take a file's pages out of the page cache.
pub fn uncache(file: &File) -> io::Result<()> {
    // SAFETY: takes no memory.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn cachestat(file: &File) -> io::Result<u64> {
    // A length of 0 means to the end of the file.
    let range = [0_u64; 2];
    // nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted
    let mut counts = [0_u64; 5];
    // SAFETY: `range` and `counts` have the layout of `cachestat_range` and `cachestat`, and outlive the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    if result == 0 { Ok(counts[0] * page_size()) } else { Err(io::Error::last_os_error()) }
}

fn mincore(file: &File) -> io::Result<u64> {
    let size = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if size == 0 {
        return Ok(0);
    }
    let mut resident = vec![0_u8; size.div_ceil(page_size() as usize)];
    // SAFETY: a fresh read-only mapping at an address that the kernel chooses; it is not read through.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `address` is the mapping of `size` bytes made above, and `resident` has one byte for each of its pages.
    let result = unsafe { libc::mincore(address, size, resident.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping made above, of which nothing else knows.
    unsafe { libc::munmap(address, size) };
    if result != 0 {
        return Err(error);
    }
    Ok(resident.iter().filter(|page| **page & 1 == 1).count() as u64 * page_size())
}

/// Size of a page of the page cache, bytes.
fn page_size() -> u64 {
    // SAFETY: `sysconf` takes no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// CPU time of all threads of this process so far, ns.
pub fn process_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the process's CPU clock exists on every Linux");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;

    fn file(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("redex-bench-{name}-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn bytes_are_aligned_and_zero() {
        for size in [BLOCK_SIZE, 10 * BLOCK_SIZE] {
            let bytes = AlignedBytes::new(size);
            assert_eq!(bytes.as_ptr() as usize % BLOCK_SIZE, 0);
            assert_eq!(bytes.len(), size);
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
    }

    /// Both ways to write durably put the bytes where they were asked to; a closed door is an error.
    #[test]
    fn durable_writes_arrive() {
        let file = file("dsync");
        write_dsync(&file, b"hello", 7).unwrap();
        if let Ok(mut ring) = Ring::new() {
            ring.write_dsync(&file, b" world", 12).unwrap();
            ring.write_dsync(&File::open("/dev/null").unwrap(), b"x", 0).unwrap_err();
            let mut read = [0; 11];
            file.read_exact_at(&mut read, 7).unwrap();
            assert_eq!(&read, b"hello world");
        }
        write_dsync(&File::open("/dev/null").unwrap(), b"x", 0).unwrap_err();
    }

    /// Writes through the page cache and counts it both ways.
    #[test]
    fn cached_pages_are_counted_alike_by_both_calls() {
        let file = file("cache");
        file.write_all_at(&vec![1; 64 * 1024], 0).unwrap();
        assert_eq!(cached_bytes(&file).unwrap(), 64 * 1024);
        assert_eq!(mincore(&file).unwrap(), 64 * 1024);
    }

    #[test]
    fn cpu_time_passes() {
        let before = process_cpu_ns();
        let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && process_cpu_ns() > before);
    }
}
