//! Descriptors for many files: a bounded number is open, the others are opened again when they are used.
//!
//! A channel has two files for its active segment, and readers open those of the older ones; a process has often no more
//! than 1,024 descriptors. So a segment's file is a name and, for a while, a descriptor: of those that are open beyond the
//! bound, one that was not used lately is closed. PostgreSQL does the same with its virtual file descriptors
//! (`src/backend/storage/file/fd.c`).
//!
//! Promises: whoever holds a descriptor ([`Reopened::acquire`]) keeps it open; a flush through a new descriptor covers what
//! was written through an old one, since it is the file that is flushed (fsync(2)), and a direct write reports its own error.
//! Without direct I/O that is not so: the kernel writes later, and an error of that is told to descriptors that were open
//! then, but may be forgotten with the file before a new one asks. There, files that are open for writing stay open, however
//! many they are; only those for reading are bounded.
//! What it leaves to others: these files are never renamed while a store is open.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Opener;
use super::refusal::FileId;

/// Descriptors that are kept open in any case.
const OPEN_MIN: usize = 16;
/// More are never kept open.
const OPEN_MAX: usize = 1024;

/// A file that may be closed while nobody uses it.
#[derive(Debug)]
pub(super) struct Reopened {
    path: String,
    flags: i32,
    /// Which file it is; `None` if that could not be asked.
    id: Option<FileId>,
    file: Mutex<Option<Arc<fs::File>>>,
    used: AtomicBool,
    descriptors: Arc<Descriptors>,
}

/// The files that are open, in the order in which they were opened.
#[derive(Debug)]
pub(super) struct Descriptors {
    opener: Arc<Opener>,
    open_max: usize,
    open: Mutex<VecDeque<Weak<Reopened>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Descriptors {
    /// A quarter of what the process may have, `limit`, for these files.
    pub(super) fn new(opener: Arc<Opener>, limit: u64) -> Arc<Self> {
        let open_max = usize::try_from(limit / 4).unwrap_or(OPEN_MAX).clamp(OPEN_MIN, OPEN_MAX);
        Arc::new(Self { opener, open_max, open: Mutex::default() })
    }

    /// A file that was just opened, with the flags for opening it again.
    pub(super) fn file(self: &Arc<Self>, path: &str, flags: i32, file: fs::File) -> Arc<Reopened> {
        let reopened = Arc::new(Reopened {
            path: path.to_owned(),
            flags,
            id: file.metadata().ok().as_ref().map(FileId::of),
            file: Mutex::new(Some(Arc::new(file))),
            used: AtomicBool::new(true),
            descriptors: self.clone(),
        });
        self.note_open(&reopened);
        reopened
    }

    /// How many are open, of those that may be closed.
    pub(super) fn open_count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Opens a file.
    pub(super) fn open(&self, path: &str, flags: i32) -> io::Result<fs::File> {
        self.with_room(|| self.opener.open(path, flags))
    }

    /// Does something that takes a descriptor; if there are none left, again after closing all that nobody uses.
    pub(super) fn with_room<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.close_down_to(0);
                act()
            }
            result => result,
        }
    }

    fn note_open(&self, file: &Arc<Reopened>) {
        if file.has_to_stay_open() {
            return;
        }
        lock(&self.open).push_back(Arc::downgrade(file));
        self.close_down_to(self.open_max);
    }

    /// Closes files that were not used since the last time, until so many are left or all have been looked at twice.
    fn close_down_to(&self, left: usize) {
        let mut open = lock(&self.open);
        let mut looks = 2 * open.len();
        while open.len() > left && looks > 0 {
            looks -= 1;
            let Some(first) = open.pop_front() else { return };
            let Some(file) = first.upgrade() else { continue };
            if file.used.swap(false, Ordering::Relaxed) || !file.close() {
                open.push_back(first);
            }
        }
    }
}

impl Reopened {
    /// The file, opened if it was closed. It stays open as long as the caller has it.
    pub(super) fn acquire(self: &Arc<Self>) -> io::Result<Arc<fs::File>> {
        let opened = {
            let mut place = lock(&self.file);
            self.used.store(true, Ordering::Relaxed);
            if let Some(file) = &*place {
                return Ok(file.clone());
            }
            let again = || self.descriptors.opener.open_again(&self.path, self.flags, self.id);
            let file = Arc::new(self.descriptors.with_room(again)?);
            place.insert(file).clone()
        };
        self.descriptors.note_open(self);
        Ok(opened)
    }

    /// Whether closing it could lose the error of a write that the kernel makes later; see the module's text.
    fn has_to_stay_open(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY && !self.descriptors.opener.direct.load(Ordering::Relaxed)
    }

    /// Closes it, unless somebody is using it or it has to stay open. Says whether it did.
    fn close(&self) -> bool {
        if self.has_to_stay_open() {
            return false;
        }
        // Not waited for: who has the place may be waiting for the list.
        let Ok(mut place) = self.file.try_lock() else { return false };
        if place.as_ref().is_some_and(|file| Arc::strong_count(file) > 1) {
            return false;
        }
        *place = None;
        true
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::io::posix::tests::temp_dir;

    fn descriptors(limit: u64) -> (tempfile::TempDir, Arc<Descriptors>) {
        let dir = temp_dir();
        let opener = Arc::new(Opener::new(dir.path(), false).unwrap());
        (dir, Descriptors::new(opener, limit))
    }

    fn make(descriptors: &Arc<Descriptors>, name: &str) -> Arc<Reopened> {
        make_with(descriptors, name, libc::O_RDONLY)
    }

    fn make_with(descriptors: &Arc<Descriptors>, name: &str, flags: i32) -> Arc<Reopened> {
        let file = descriptors.open(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).unwrap();
        file.write_all_at(name.as_bytes(), 0).unwrap();
        descriptors.file(name, flags, file)
    }

    fn is_open(file: &Reopened) -> bool {
        lock(&file.file).is_some()
    }

    #[test]
    fn few_are_open_and_all_can_be_used() {
        let (_dir, descriptors) = descriptors(0);
        let files: Vec<_> = (0..100).map(|i| make(&descriptors, &format!("f{i:03}"))).collect();
        assert_eq!(files.iter().filter(|file| is_open(file)).count(), OPEN_MIN);
        for _ in 0..3 {
            for (i, file) in files.iter().enumerate() {
                let mut name = [0; 4];
                file.acquire().unwrap().read_exact_at(&mut name, 0).unwrap();
                assert_eq!(name, *format!("f{i:03}").as_bytes());
            }
            assert!(files.iter().filter(|file| is_open(file)).count() <= OPEN_MIN + 1);
        }
        assert!(lock(&descriptors.open).len() <= OPEN_MIN + 1);
    }

    /// The error of a buffered write comes later: it has to find the descriptor. With direct I/O it comes with the write.
    #[test]
    fn without_direct_io_what_is_written_stays_open() {
        for direct in [false, true] {
            let (_dir, descriptors) = descriptors(0);
            let make = |i| make_with(&descriptors, &format!("f{i:03}"), libc::O_RDWR);
            let files: Vec<_> = (0..50).map(make).collect();
            assert!(files.iter().all(|file| is_open(file)));
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
            let more = descriptors.open("more", flags).unwrap();
            descriptors.opener.direct.store(direct, Ordering::Relaxed);
            let more = descriptors.file("more", libc::O_RDWR, more);
            descriptors.close_down_to(0);
            assert!(files.iter().all(|file| is_open(file)), "what was written buffered");
            assert_eq!(is_open(&more), !direct);
        }
    }

    #[test]
    fn what_is_used_stays_open() {
        let (_dir, descriptors) = descriptors(0);
        let used: Vec<_> = (0..OPEN_MIN + 4).map(|i| make(&descriptors, &format!("used{i}"))).collect();
        let held: Vec<_> = used.iter().map(|file| file.acquire().unwrap()).collect();
        let others: Vec<_> = (0..50).map(|i| make(&descriptors, &format!("other{i}"))).collect();
        assert!(used.iter().all(|file| is_open(file)), "somebody has them");
        drop(held);
        others.iter().for_each(|file| drop(file.acquire().unwrap()));
        assert!(others.iter().chain(&used).filter(|file| is_open(file)).count() <= OPEN_MIN + 1);
    }

    #[test]
    fn files_that_are_gone_take_no_place() {
        let (_dir, descriptors) = descriptors(0);
        (0..100).for_each(|i| drop(make(&descriptors, &format!("{i}"))));
        let file = make(&descriptors, "last");
        assert!(is_open(&file) && lock(&descriptors.open).len() <= OPEN_MIN);
    }

    /// A copy of a running store by hard links: the files that it has in use stay so, others are refused.
    #[test]
    fn a_file_in_use_may_get_more_names() {
        let (dir, descriptors) = descriptors(0);
        let file = make(&descriptors, "file");
        fs::hard_link(dir.path().join("file"), dir.path().join("copy")).unwrap();
        descriptors.close_down_to(0);
        assert!(!is_open(&file));
        file.acquire().unwrap();
        assert!(descriptors.open("file", libc::O_RDONLY).unwrap_err().to_string().contains("hard links"));
        fs::rename(dir.path().join("copy"), dir.path().join("file")).unwrap();
        fs::write(dir.path().join("other"), b"x").unwrap();
        fs::hard_link(dir.path().join("other"), dir.path().join("second")).unwrap();
        fs::rename(dir.path().join("other"), dir.path().join("file")).unwrap();
        descriptors.close_down_to(0);
        assert!(file.acquire().unwrap_err().to_string().contains("hard links"), "it is another file now");
    }
}
