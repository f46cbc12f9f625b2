//! Names beneath the base directory.
//!
//! Promises: no path leaves the base, by `..`, by an absolute path or by a symbolic link; and none is looked up again from
//! the root, so that the store stays where it was opened even if a directory above it is renamed. A file that is opened is a
//! plain one with one name (`refusal`); opening waits for nobody. What is made is for the owner alone, whatever the umask.
//!
//! Paths are resolved by openat2 (Linux 5.6). Where that is missing or forbidden they are walked part by part, with
//! `O_NOFOLLOW` at each: the same promises, with more calls.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::refusal::{self, FileId, Owners, Refusal};
use super::syscall;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o777;
/// Those that say what others than the owner may do.
const PERMISSIONS_OF_OTHERS: u32 = 0o077;

/// The base directory.
#[derive(Debug)]
pub(super) struct Tree {
    base: OwnedFd,
    owners: Owners,
    /// Whether openat2 is there; old kernels lack it, and old seccomp profiles forbid it.
    has_openat2: AtomicBool,
}

impl Tree {
    /// Opens the base directory, and makes it durably if there is none.
    pub(super) fn open(base: &Path) -> io::Result<Self> {
        make_durably(base)?;
        Self::open_existing(base)
    }

    /// Opens the base directory if there is one.
    pub(super) fn open_existing(base: &Path) -> io::Result<Self> {
        let dir = open_base(base)?;
        let found = dir.metadata()?;
        let owners = Owners { store: found.uid(), process: nix::unistd::geteuid().as_raw() };
        warn_of_others(base, found.mode() & PERMISSIONS, owners);
        Ok(Self { base: dir.into(), owners, has_openat2: AtomicBool::new(true) })
    }

    pub(super) fn base(&self) -> BorrowedFd<'_> {
        self.base.as_fd()
    }

    /// Opens a file; new ones are for the owner alone. One that is `known` was opened before, and may have more names since.
    pub(super) fn open_file(&self, path: &str, flags: i32, known: Option<FileId>) -> io::Result<OwnedFd> {
        check_path(path)?;
        let mode = if flags & libc::O_CREAT == 0 { 0 } else { FILE_MODE };
        // A pipe would have the open wait for its other end, a terminal would become this process's.
        let asked = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = match self.resolve(path, asked, mode) {
            Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => self.open_leased(path, asked, mode, known),
            result => result,
        };
        let file = File::from(opened.map_err(|error| self.explain(path, error))?);
        let found = file.metadata()?;
        refusal::check(path, &found, self.owners, known)?;
        if flags & libc::O_CREAT != 0 && found.mode() & PERMISSIONS != FILE_MODE {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        }
        // On some file systems a ring gives up at once, with EAGAIN, on a file that is not to block.
        syscall::set_status_flags(file.as_fd(), flags)?;
        Ok(file.into())
    }

    /// Another program has a lease on the file, as servers of NFS and SMB do, and is asked to give it up (fcntl(2), F_SETLEASE).
    /// A plain file may be waited for.
    fn open_leased(&self, path: &str, flags: i32, mode: u32, known: Option<FileId>) -> io::Result<OwnedFd> {
        let here = File::from(self.resolve(path, libc::O_PATH | libc::O_NOFOLLOW, 0)?);
        refusal::check(path, &here.metadata()?, self.owners, known)?;
        self.resolve(path, flags & !libc::O_NONBLOCK, mode)
    }

    /// Opens a directory for listing and syncing; `""` is the base.
    pub(super) fn open_dir(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        if path.is_empty() {
            return syscall::open_at(self.base(), c".", flags, 0);
        }
        check_path(path)?;
        self.resolve(path, flags, 0).map_err(|error| self.explain(path, error))
    }

    pub(super) fn make_dir(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = self.parent(path)?;
        make_private_dir(dir.as_fd(), &name)
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

    /// Says in words which part of a path was the trouble, where the kernel's answer is a riddle: the first symbolic link; or
    /// what cannot be opened as a file.
    fn explain(&self, path: &str, error: io::Error) -> io::Error {
        if !matches!(
            error.raw_os_error(),
            Some(libc::ELOOP | libc::ENOTDIR | libc::EISDIR | libc::ENXIO | libc::ENODEV)
        ) {
            return error;
        }
        self.trouble(path).ok().flatten().map_or(error, io::Error::from)
    }

    fn trouble(&self, path: &str) -> io::Result<Option<Refusal>> {
        let mut dir = self.base.try_clone()?;
        let mut end = 0;
        for part in path.split('/') {
            end += part.len();
            let here =
                File::from(syscall::open_at(dir.as_fd(), &CString::new(part)?, libc::O_PATH | libc::O_NOFOLLOW, 0)?);
            let found = here.metadata()?;
            if found.is_symlink() {
                return Ok(Some(Refusal::SymbolicLink { path: path[..end].to_owned() }));
            }
            if end == path.len() {
                return Ok(refusal::check(path, &found, self.owners, None).err());
            }
            end += 1;
            dir = here.into();
        }
        Ok(None)
    }
}

/// Opens the base directory, through whatever links the user's path has.
fn open_base(base: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(base)
}

/// Tells whoever listens that others can get at the store, or own it: that is the user's to decide.
fn warn_of_others(base: &Path, mode: u32, owners: Owners) {
    let store = base.display();
    if mode & PERMISSIONS_OF_OTHERS != 0 {
        let mode = format_args!("{mode:03o}");
        tracing::warn!(%store, %mode, "other users have access to the store's directory: chmod 700 keeps them out");
    }
    if owners.store != owners.process {
        let (owner, user) = (owners.store, owners.process);
        tracing::warn!(%store, owner, user, "the store's directory belongs to another user, who can change all of it");
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
    let parent = open_base(parent)?;
    // A path that ends in `..` has no name, and its directory is there once those above it are.
    let Some(name) = path.file_name() else { return Ok(()) };
    match make_private_dir(parent.as_fd(), &CString::new(name.as_encoded_bytes())?) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => parent.sync_all(),
    }
}

/// Makes a directory for the owner alone: the umask takes nothing from that.
fn make_private_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    syscall::make_dir_at(dir, name, DIR_MODE)?;
    if syscall::mode_at(dir, name)? & PERMISSIONS != DIR_MODE {
        syscall::set_mode_at(dir, name, DIR_MODE)?;
    }
    Ok(())
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
        let refused = |error: io::Error, path: &str| {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().starts_with(&format!("{path} is a symbolic link")), "{error}");
        };
        for _ in ["openat2", "openat"] {
            tree.open_file("real/file", libc::O_RDONLY, None).unwrap();
            refused(tree.open_file("link/file", libc::O_RDONLY, None).unwrap_err(), "link");
            refused(tree.open_file("link/none", libc::O_RDWR | libc::O_CREAT, None).unwrap_err(), "link");
            refused(tree.open_file("link_to_file", libc::O_RDONLY, None).unwrap_err(), "link_to_file");
            refused(tree.open_dir("link").unwrap_err(), "link");
            refused(tree.make_dir("link/dir").unwrap_err(), "link");
            refused(tree.rename("real/file", "link/file").unwrap_err(), "link");
            refused(tree.unlink("link/file").unwrap_err(), "link");
            refused(tree.remove_dir("link/dir").unwrap_err(), "link");
            assert_eq!(tree.open_file("real/none", libc::O_RDONLY, None).unwrap_err().kind(), io::ErrorKind::NotFound);
            tree.has_openat2.store(false, Ordering::Relaxed);
        }
    }

    /// A file that another program has a lease on is waited for, as long as that takes to give it up.
    #[test]
    fn a_leased_file_is_waited_for() {
        let dir = crate::io::posix::tests::temp_dir();
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        let holder = File::open(dir.path().join("file")).unwrap();
        if syscall::set_lease(holder.as_fd(), libc::F_RDLCK).is_err() {
            println!("SKIPPED: the file system has no leases");
            return;
        }
        let tree = Tree::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| tree.open_file("file", libc::O_RDWR, None).map(drop));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!opening.is_finished(), "it waits for the lease");
            syscall::set_lease(holder.as_fd(), libc::F_UNLCK).unwrap();
            opening.join().unwrap().unwrap();
        });
    }

    /// Both ways to resolve open plain files with one name, and wait for nobody; what is open then blocks as it was asked to.
    #[test]
    fn only_plain_files_are_opened() {
        use std::os::fd::AsRawFd;
        let dir = crate::io::posix::tests::temp_dir();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), b"x").unwrap();
        std::fs::write(path("linked"), b"x").unwrap();
        std::fs::hard_link(path("linked"), path("second")).unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for _ in ["openat2", "openat"] {
            for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR | libc::O_CREAT] {
                let file = tree.open_file("file", flags, None).unwrap();
                let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
                let found = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
                assert_eq!(i32::from_str_radix(found, 8).unwrap() & libc::O_NONBLOCK, 0, "{info}");
                for (name, what) in [
                    ("linked", "hard links"),
                    ("dir", "is a directory"),
                    ("pipe", "is a named pipe"),
                    ("socket", "is a socket"),
                ] {
                    let error = tree.open_file(name, flags, None).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name} {flags:#o}: {error}");
                    assert!(error.to_string().contains(what), "{name} {flags:#o}: {error}");
                }
            }
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
