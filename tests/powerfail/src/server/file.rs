//! A FUSE file system with one file: the drive.
//!
//! One thread serves it, so writes and flushes are logged in the order in which they are done. A held write is in the
//! drive's cache at once, and another thread answers it a little later: until then no flush covers it.

use std::ffi::OsStr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::drive::Drive;

/// Name of the file.
pub const FILE_NAME: &str = "drive";
/// The kernel asks once: nothing about the file ever changes.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const FILE: INodeNo = INodeNo(2);
/// How long a held write waits for its answer at the most.
const HOLD_US_MAX: u64 = 400;

/// The drive and how it behaves, shared by the threads of its process.
#[derive(Debug, Default)]
pub struct Shared {
    /// The drive.
    pub drive: Drive,
    /// How many writes of a hundred are answered late.
    pub hold_percent: u8,
}

/// Takes the lock.
///
/// # Panics
///
/// If a thread panicked while it held it: then the drive's process must end, and the kernel sees I/O errors.
pub fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no panic while the lock is held")
}

/// The file system.
#[derive(Debug)]
pub struct OneFile {
    shared: Arc<Mutex<Shared>>,
    size: u64,
    held: Sender<Held>,
    dice: Mutex<Rng>,
}

/// A write that waits for its answer.
#[derive(Debug)]
struct Held {
    place: usize,
    size: u32,
    delay: Duration,
    reply: ReplyWrite,
}

impl OneFile {
    /// A file of `size` bytes over the drive.
    #[must_use]
    pub fn new(shared: Arc<Mutex<Shared>>, size: u64) -> Self {
        let (held, waiting) = mpsc::channel();
        let drive = shared.clone();
        thread::spawn(move || answer_late(&drive, &waiting));
        Self { shared, size, held, dice: Mutex::new(Rng::with_seed(size)) }
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_file = ino == FILE;
        FileAttr {
            ino,
            size: if is_file { self.size } else { 0 },
            blocks: if is_file { self.size / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn answer_late(shared: &Mutex<Shared>, waiting: &Receiver<Held>) {
    while let Ok(held) = waiting.recv() {
        thread::sleep(held.delay);
        lock(shared).drive.answered(held.place);
        held.reply.written(held.size);
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without it the loop device waits for each write before it sends the next.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| std::io::Error::other("this kernel's FUSE has no asynchronous direct I/O"))
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE_NAME {
            reply.entry(&TTL, &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.size.saturating_sub(offset);
        let mut buf = vec![0; u64::from(size).min(left) as usize];
        lock(&self.shared).drive.read(offset, &mut buf);
        reply.data(&buf);
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let size = data.len() as u32;
        if offset + u64::from(size) > self.size {
            return reply.error(Errno::EIO);
        }
        let mut dice = self.dice.lock().expect("no panic while the lock is held");
        let mut shared = lock(&self.shared);
        let is_held = dice.u8(0..100) < shared.hold_percent;
        let place = shared.drive.write(offset, data, is_held);
        drop(shared);
        if !is_held {
            return reply.written(size);
        }
        let delay = Duration::from_micros(dice.u64(0..HOLD_US_MAX));
        self.held.send(Held { place, size, delay, reply }).expect("the thread that answers lives as long as this");
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        lock(&self.shared).drive.flush();
        reply.ok();
    }
}
