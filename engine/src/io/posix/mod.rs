//! Files and directories by plain system calls, and a driver that makes them at submit.
//!
//! [`PosixDisk`] is the file half of the `uring` backend too; only the driver differs. Where io_uring is forbidden it is
//! all there is: same guarantees, a blocking call for each operation.
//!
//! Promises: names stay beneath the base directory (`tree`); files are for the owner alone; a durable write is
//! durable when it completes, by `RWF_DSYNC` or by a flush after it, as [`DurableWrite`] says.
//!
//! What it leaves to others: who holds the store (the lock file is opened here, locked elsewhere).

mod descriptors;
mod driver;
mod file;
mod refusal;
pub(crate) mod syscall;
#[cfg(all(test, not(redex_loom)))]
pub(crate) mod tests;
mod tree;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::probe::{self, DurableWrite};
use super::{DirEntry, Disk, Driver, File, IoFacts, OpenMode, budget};
use descriptors::Descriptors;
use driver::PosixDriver;
pub(super) use driver::write_durable;
use file::PosixFile;
pub(super) use file::assert_aligned;
use refusal::FileId;
use tree::Tree;

/// Name of the lock file in the base directory.
pub const LOCK_FILE: &str = "LOCK";

/// Why there is no direct I/O on a file system that let the probe have it.
const REFUSED_LATER: &str = "the file system refuses O_DIRECT on a file";

/// Opens files beneath the base directory, with O_DIRECT where that can be had.
#[derive(Debug)]
struct Opener {
    tree: Tree,
    direct: AtomicBool,
}

impl Opener {
    #[cfg(all(test, not(redex_loom)))]
    fn new(base: &Path, direct: bool) -> io::Result<Self> {
        Ok(Self { tree: Tree::open(base)?, direct: AtomicBool::new(direct) })
    }

    fn open(&self, path: &str, flags: i32) -> io::Result<fs::File> {
        if flags & libc::O_CREAT != 0 {
            return Ok(self.tree.open_file(path, flags | self.direct_flag(), None)?.into());
        }
        self.open_again(path, flags, None)
    }

    /// Opens a file that is there; one that is `known` was opened before.
    fn open_again(&self, path: &str, flags: i32, known: Option<FileId>) -> io::Result<fs::File> {
        let direct = self.direct_flag();
        match self.tree.open_file(path, flags | direct, known) {
            // By what was asked for: another thread may have found out meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && direct != 0 => {
                let file = self.tree.open_file(path, flags, known)?;
                if self.direct.swap(false, Ordering::Relaxed) {
                    tracing::warn!(path, reason = REFUSED_LATER, "no direct I/O from now on: the page cache is used");
                }
                Ok(file.into())
            }
            result => Ok(result?.into()),
        }
    }

    /// Some file systems make the file before they refuse O_DIRECT. So a create is never tried without it, but the probe has
    /// tried one.
    fn direct_flag(&self) -> i32 {
        if self.direct.load(Ordering::Relaxed) { libc::O_DIRECT } else { 0 }
    }
}

/// A directory on a real file system, with blocking writes.
#[derive(Debug)]
pub struct PosixDisk {
    opener: Arc<Opener>,
    descriptors: Arc<Descriptors>,
    facts: IoFacts,
    durable_write: DurableWrite,
    closed_files: Arc<AtomicU64>,
    lock: Mutex<Weak<fs::File>>,
    mappings: Arc<budget::Budget>,
}

impl PosixDisk {
    /// Opens the base directory, made if there is none, and asks the machine what it offers. A durable write is done
    /// as `durable_write` says, or as the machine allows.
    ///
    /// # Errors
    ///
    /// What opening, making and probing the directory answer; `Unsupported` when `durable_write` asks for what the
    /// file system refuses.
    pub fn open(base: &Path, durable_write: Option<DurableWrite>) -> io::Result<Self> {
        let tree = Tree::open(base)?;
        let probe = probe::probe(tree.base())?;
        if durable_write == Some(DurableWrite::Dsync) && !probe.dsync_works {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the file system refuses RWF_DSYNC"));
        }
        let found = &probe.facts;
        let (durable_write, reason) = probe::choose(probe.dsync_works, found.write_cache, found.fua, durable_write);
        let facts = IoFacts {
            backend: "posix",
            durable_write: durable_write.name(),
            durable_write_reason: reason,
            ..probe.facts
        };
        if !facts.direct {
            tracing::warn!(store = %base.display(), reason = facts.buffered_reason, "no direct I/O: the page cache is used");
        }
        let opener = Arc::new(Opener { tree, direct: AtomicBool::new(facts.direct) });
        Ok(Self {
            descriptors: Descriptors::new(opener.clone(), descriptor_limit()),
            opener,
            facts,
            durable_write,
            closed_files: Arc::default(),
            lock: Mutex::default(),
            mappings: budget::Budget::new(0),
        })
    }

    /// Opens a base directory that is there, to read files that another process may write. Nothing is made and nothing tried:
    /// what the file system offers shows with the first file.
    ///
    /// # Errors
    ///
    /// What opening the directory answers.
    pub fn open_read_only(base: &Path) -> io::Result<Self> {
        let opener = Arc::new(Opener { tree: Tree::open_existing(base)?, direct: AtomicBool::new(true) });
        Ok(Self {
            descriptors: Descriptors::new(opener.clone(), descriptor_limit()),
            opener,
            facts: IoFacts { backend: "posix", direct: true, ..IoFacts::default() },
            durable_write: DurableWrite::WriteThenFlush,
            closed_files: Arc::default(),
            lock: Mutex::default(),
            mappings: budget::Budget::new(0),
        })
    }

    /// The same, with so many bytes of sealed files mapped at the most; none unless set.
    #[must_use]
    pub fn with_mapped_bytes_max(mut self, bytes: u64) -> Self {
        self.mappings = budget::Budget::new(bytes);
        self
    }

    /// The base directory, for `*at` calls.
    #[must_use]
    pub fn base_dir_fd(&self) -> BorrowedFd<'_> {
        self.opener.tree.base()
    }

    /// How durable writes are done.
    #[must_use]
    pub fn durable_write(&self) -> DurableWrite {
        self.durable_write
    }

    /// Opens the file `LOCK` for reading and writing, buffered; made if there is none. Does not lock it.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn lock_file(&self) -> io::Result<fs::File> {
        Ok(self.opener.tree.open_file(LOCK_FILE, libc::O_RDWR | libc::O_CREAT, None)?.into())
    }

    /// Has every driver that is made from now on hold the locked file (design D13). The lock then lasts until `file` and
    /// the drivers are gone, and what they had in flight has landed. The disk itself, which readers may keep for longer,
    /// does not hold it.
    pub fn set_lock_file(&self, file: &Arc<fs::File>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(file);
    }

    /// The locked file, if one was set and is still held.
    pub(super) fn locked_file(&self) -> Option<Arc<fs::File>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// How many files of this disk were closed so far. Drivers that hold files in a table look at it.
    pub(super) fn closed_files(&self) -> Arc<AtomicU64> {
        self.closed_files.clone()
    }
}

impl Disk for PosixDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let flags = flags_of(mode);
        let file = self.descriptors.open(path, flags)?;
        Ok(Arc::new(PosixFile::kept(file, path, self.closed_files.clone())))
    }

    fn open_segment(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let flags = flags_of(mode);
        let file = self.descriptors.open(path, flags)?;
        let again = flags & !(libc::O_CREAT | libc::O_EXCL);
        let file = self.descriptors.file(path, again, file);
        Ok(Arc::new(PosixFile::reopened(file, path, self.closed_files.clone())))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.descriptors.with_room(|| self.opener.tree.make_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let mut entries = syscall::list(self.descriptors.with_room(|| self.opener.tree.open_dir(path))?)?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.descriptors.with_room(|| self.opener.tree.rename(from, to))
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        self.descriptors.with_room(|| self.opener.tree.unlink(path))
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.descriptors.with_room(|| self.opener.tree.remove_dir(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        fs::File::from(self.descriptors.with_room(|| self.opener.tree.open_dir(path))?).sync_all()
    }

    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        Ok(Box::new(PosixDriver::new(self.durable_write)?))
    }

    fn open_segment_files(&self) -> usize {
        self.descriptors.open_count()
    }

    fn facts(&self) -> IoFacts {
        let mut facts = self.facts.clone();
        if facts.direct && !self.opener.direct.load(Ordering::Relaxed) {
            (facts.direct, facts.buffered_reason) = (false, REFUSED_LATER);
        }
        facts
    }

    fn mapping_budget(&self) -> Option<&Arc<budget::Budget>> {
        Some(&self.mappings)
    }
}

/// How many descriptors the process may have.
fn descriptor_limit() -> u64 {
    // Every Linux answers this; if one does not, the usual limit does no harm.
    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

fn flags_of(mode: OpenMode) -> i32 {
    match mode {
        OpenMode::Read => libc::O_RDONLY,
        OpenMode::Write => libc::O_RDWR,
        OpenMode::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
    }
}

impl AsFd for PosixDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.base_dir_fd()
    }
}
