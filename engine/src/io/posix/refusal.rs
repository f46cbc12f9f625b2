//! Which files are opened at all: plain ones, with one name, of the store's owner.
//!
//! Something else may lie where a file of the store belongs: a link that somebody planted to have another file
//! overwritten, a copy of the store by hard links, a pipe that never answers. Each is refused, before a byte is read or written.
//!
//! Promises: what is refused was not changed; the error says what it is and what to do about it.
//! What it leaves to others: that no symbolic link is followed (`tree`), which is refused here only in words.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Why a file is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A part of the path is a symbolic link.
    SymbolicLink { path: String },
    /// Not a plain file.
    Kind { path: String, kind: &'static str },
    /// The file has other names, so others may be writing to it, or would be written to.
    HardLinks { path: String, names: u64, inode: u64 },
    /// It belongs to another user.
    Owner { path: String, owner: u32, expected: u32 },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SymbolicLink { path } => write!(
                f,
                "{path} is a symbolic link, and none is followed within a store: put what it leads to in its place; only the \
                 store's own directory may be reached by one"
            ),
            Self::Kind { path, kind } => {
                write!(f, "{path} is a {kind} where a plain file belongs: find out who put it there, and remove it")
            }
            Self::HardLinks { path, names, inode } => write!(
                f,
                "{path} has {names} names (hard links), and what is written through one changes the others: find them with \
                 `find -inum {inode}`, and put a copy of its own in the place of this one (cp, not cp -l)"
            ),
            Self::Owner { path, owner, expected } => write!(
                f,
                "{path} belongs to user {owner}, not to user {expected} as the store does: find out who put it there; if it is \
                 the store's, give it back with chown"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refusal)
    }
}

/// Users whose files are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    /// Whom the base directory belongs to.
    pub(super) store: u32,
    /// The user that this process acts as.
    pub(super) process: u32,
}

/// Which file it is, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of a file that is open.
    pub(super) fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// Says no to what no store has. `found` is of the file that was opened, not of its name; `known` is one that was opened before, and
/// has been written to: what somebody has linked it to since then changes nothing.
pub(super) fn check(path: &str, found: &Metadata, owners: Owners, known: Option<FileId>) -> Result<(), Refusal> {
    let path = || path.to_owned();
    if !found.is_file() {
        return Err(Refusal::Kind { path: path(), kind: kind(found) });
    }
    // None at all: its name was taken away after it was opened, by who writes the store.
    if found.nlink() > 1 && known != Some(FileId::of(found)) {
        return Err(Refusal::HardLinks { path: path(), names: found.nlink(), inode: found.ino() });
    }
    if found.uid() != owners.process && found.uid() != owners.store {
        return Err(Refusal::Owner { path: path(), owner: found.uid(), expected: owners.store });
    }
    Ok(())
}

fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "named pipe",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() || kind.is_block_device() => "device",
        () => "special file",
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use std::fs;

    use super::*;
    use crate::io::posix::tests::temp_dir;

    /// A plain file of the process's user or of the store's owner passes; another user's, a second name and a directory do not.
    #[test]
    fn only_plain_files_of_the_owner_pass() {
        let dir = temp_dir();
        let path = dir.path().join("file");
        fs::write(&path, b"x").unwrap();
        let found = fs::metadata(&path).unwrap();
        let (me, other) = (found.uid(), found.uid() + 1);
        assert_eq!(check("file", &found, Owners { store: me, process: me }, None), Ok(()));
        assert_eq!(check("file", &found, Owners { store: me, process: other }, None), Ok(()));
        assert_eq!(check("file", &found, Owners { store: other, process: me }, None), Ok(()));
        let refused = check("file", &found, Owners { store: other, process: other }, None);
        assert_eq!(refused, Err(Refusal::Owner { path: "file".into(), owner: me, expected: other }));
        let owners = Owners { store: me, process: me };
        fs::hard_link(&path, dir.path().join("second")).unwrap();
        let refused = check("file", &fs::metadata(&path).unwrap(), owners, None).unwrap_err();
        assert_eq!(refused, Refusal::HardLinks { path: "file".into(), names: 2, inode: found.ino() });
        assert!(refused.to_string().contains("find -inum"), "{refused}");
        let known = fs::metadata(&path).unwrap();
        assert_eq!(check("file", &known, owners, Some(FileId::of(&known))), Ok(()));
        let refused = check("dir", &fs::metadata(dir.path()).unwrap(), owners, None).unwrap_err();
        assert_eq!(refused, Refusal::Kind { path: "dir".into(), kind: "directory" });
    }

    /// A file that lost its name while it was opened is what a reader beside a writer meets.
    #[test]
    fn a_file_without_a_name_passes() {
        let dir = temp_dir();
        let path = dir.path().join("file");
        let file = fs::File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.nlink(), 0);
        assert_eq!(check("file", &found, Owners { store: found.uid(), process: found.uid() }, None), Ok(()));
    }
}
