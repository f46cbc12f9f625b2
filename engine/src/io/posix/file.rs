//! An open file of a real disk.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::descriptors::Reopened;
use super::syscall;
use crate::io::{BLOCK_SIZE, File, FileHandle, FileStamp, Mapping, budget};

/// A file, closed with the last reference.
#[derive(Debug)]
pub(super) struct PosixFile {
    descriptor: Descriptor,
    path: Box<str>,
    closed_files: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Descriptor {
    /// Open all the time.
    Kept(Arc<fs::File>),
    /// Open when it is used, and some time after.
    Reopened(Arc<Reopened>),
}

impl PosixFile {
    pub(super) fn kept(file: fs::File, path: &str, closed_files: Arc<AtomicU64>) -> Self {
        Self { descriptor: Descriptor::Kept(Arc::new(file)), path: path.into(), closed_files }
    }

    pub(super) fn reopened(file: Arc<Reopened>, path: &str, closed_files: Arc<AtomicU64>) -> Self {
        Self { descriptor: Descriptor::Reopened(file), path: path.into(), closed_files }
    }

    fn file(&self) -> io::Result<Arc<fs::File>> {
        match &self.descriptor {
            Descriptor::Kept(file) => Ok(file.clone()),
            Descriptor::Reopened(file) => file.acquire(),
        }
    }
}

impl Drop for PosixFile {
    fn drop(&mut self) {
        // Tells drivers that hold this file in a table to let it go.
        self.closed_files.fetch_add(1, Ordering::Release);
    }
}

/// The contract of every read and write, direct or not.
pub(in crate::io) fn assert_aligned(buf: &[u8], offset: u64) {
    assert!(
        buf.as_ptr().align_offset(BLOCK_SIZE) == 0
            && buf.len().is_multiple_of(BLOCK_SIZE)
            && offset.is_multiple_of(BLOCK_SIZE as u64),
        "I/O of {} bytes at {offset}, from {:p}: not of whole blocks",
        buf.len(),
        buf.as_ptr(),
    );
}

impl File for PosixFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        assert_aligned(buf, offset);
        let file = self.file()?;
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // Within a block a read stops only at the end of the file; going on from there would not be aligned.
            if !done.is_multiple_of(BLOCK_SIZE) {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        assert_aligned(buf, offset);
        self.file()?.write_all_at(buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file()?.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file()?.set_len(size)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        match syscall::allocate(self.file()?.as_fd(), size) {
            // Nothing can be set aside here, so the size is all there is to do.
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                if self.size()? < size {
                    self.set_size(size)
                } else {
                    Ok(())
                }
            }
            result => result,
        }
    }

    fn seams(&self, range: Range<u64>) -> Vec<u64> {
        // Not every file system tells, and nothing depends on it but speed.
        self.file().and_then(|file| syscall::extent_starts(file.as_fd(), range)).unwrap_or_default()
    }

    fn map(&self, len: usize, share: budget::Share) -> io::Result<Option<Mapping>> {
        Mapping::new(&*self.file()?, len, share).map(Some)
    }

    fn stamp(&self) -> io::Result<FileStamp> {
        FileStamp::of(&*self.file()?)
    }

    fn handle(&self) -> io::Result<FileHandle> {
        self.file().map(FileHandle::Open)
    }

    fn path(&self) -> &str {
        &self.path
    }
}
