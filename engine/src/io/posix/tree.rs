//! Names beneath the base directory.
//!
//! Promises: no path leaves the base, by `..`, by an absolute path or by a symbolic link; and none is looked up again from
//! the root, so that the store stays where it was opened even if a directory above it is renamed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::syscall;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The base directory.
#[derive(Debug)]
pub(super) struct Tree {
    base: OwnedFd,
    /// Whether openat2 is there; old kernels lack it, and old seccomp profiles forbid it.
    has_openat2: AtomicBool,
}

impl Tree {
    /// Opens the base directory, and makes it durably if there is none.
    pub(super) fn open(base: &Path) -> io::Result<Self> {
        make_durably(base)?;
        let base = OwnedFd::from(File::open(base)?);
        if !File::from(base.try_clone()?).metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { base, has_openat2: AtomicBool::new(true) })
    }

    /// Opens the base directory if there is one.
    pub(super) fn open_existing(base: &Path) -> io::Result<Self> {
        let base = OwnedFd::from(File::open(base)?);
        if !File::from(base.try_clone()?).metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { base, has_openat2: AtomicBool::new(true) })
    }

    pub(super) fn base(&self) -> BorrowedFd<'_> {
        self.base.as_fd()
    }

    /// Opens a file; new ones are for the owner alone.
    pub(super) fn open_file(&self, path: &str, flags: i32) -> io::Result<OwnedFd> {
        check_path(path)?;
        let mode = if flags & libc::O_CREAT == 0 { 0 } else { FILE_MODE };
        self.resolve(path, flags | libc::O_NOFOLLOW, mode)
    }

    /// Opens a directory for listing and syncing; `""` is the base.
    pub(super) fn open_dir(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        if path.is_empty() {
            return syscall::open_at(self.base(), c".", flags, 0);
        }
        check_path(path)?;
        self.resolve(path, flags, 0)
    }

    pub(super) fn make_dir(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = self.parent(path)?;
        syscall::make_dir_at(dir.as_fd(), &name, DIR_MODE)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (dir, name) = self.parent(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        syscall::rename_at(dir.as_fd(), &name, new_dir.as_fd(), &new_name)
    }

    pub(super) fn unlink(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        syscall::unlink_at(dir.as_fd(), &name)
    }

    pub(super) fn remove_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        syscall::remove_dir_at(dir.as_fd(), &name)
    }

    /// The directory that holds a path's last part, and that part.
    fn parent(&self, path: &str) -> io::Result<(OwnedFd, CString)> {
        check_path(path)?;
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.open_dir(dir)?, CString::new(name)?))
    }

    fn resolve(&self, path: &str, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        if self.has_openat2.load(Ordering::Relaxed) {
            match syscall::open_beneath(self.base(), &CString::new(path)?, flags, mode) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
                result => return result,
            }
        }
        let file = self.walk(path, flags, mode)?;
        // Only now is it known that openat2 was the trouble, and not the file.
        self.has_openat2.store(false, Ordering::Relaxed);
        Ok(file)
    }

    /// What openat2 does, one part at a time.
    fn walk(&self, path: &str, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = self.base.try_clone()?;
        for part in dirs.split('/').filter(|part| !part.is_empty()) {
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            dir = syscall::open_at(dir.as_fd(), &CString::new(part)?, flags, 0)?;
        }
        syscall::open_at(dir.as_fd(), &CString::new(name)?, flags, mode)
    }
}

/// Refuses a path that is absolute, has an empty part, or has `.` or `..` for a part.
fn check_path(path: &str) -> io::Result<()> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains('\0')) {
        let message = format!("{path:?} is not a path beneath the base directory");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// Makes a directory and those above it, each durable in its parent.
fn make_durably(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.exists() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_durably(parent)?;
    match std::fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => File::open(parent)?.sync_all(),
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    /// Paths that could leave the base are refused before any call; those of the store pass.
    #[test]
    fn paths_stay_beneath_the_base() {
        for path in ["", "/", "/etc", "..", "../x", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b"] {
            assert_eq!(check_path(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
        for path in ["STORE", "journal/000/1.wal", "a/..b", "...", "channels/0f/00.idx"] {
            check_path(path).unwrap();
        }
    }

    /// Both ways to resolve follow no symbolic link, neither at the end nor on the way.
    #[test]
    fn symbolic_links_are_not_followed() {
        let dir = crate::io::posix::tests::temp_dir();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::fs::write(dir.path().join("real/file"), b"x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("real/file", dir.path().join("link_to_file")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for _ in ["openat2", "openat"] {
            tree.open_file("real/file", libc::O_RDONLY).unwrap();
            assert!(tree.open_file("link/file", libc::O_RDONLY).is_err());
            assert!(tree.open_file("link_to_file", libc::O_RDONLY).is_err());
            assert!(tree.open_dir("link").is_err());
            assert_eq!(tree.open_file("real/none", libc::O_RDONLY).unwrap_err().kind(), io::ErrorKind::NotFound);
            tree.has_openat2.store(false, Ordering::Relaxed);
        }
    }

    /// A missing base is made, with the directories above it.
    #[test]
    fn a_missing_base_is_made() {
        let dir = crate::io::posix::tests::temp_dir();
        let base = dir.path().join("a/b/c");
        Tree::open(&base).unwrap();
        assert!(base.is_dir());
        assert!(Tree::open(&base).is_ok());
    }
}
