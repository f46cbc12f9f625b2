//! Where the new store comes to lie: outside of the old one, and under its name only when it is whole.
//!
//! It is made beside its place, in `<name>.partial`, and renamed at the end. So a rescue that is killed, or that fails, leaves
//! nothing under the name that somebody may open.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::SalvageError;

/// The new store's directory.
#[derive(Debug)]
pub struct Target {
    /// Its name at the end, without links and without `..`.
    to: PathBuf,
    /// Where it is made.
    partial: PathBuf,
}

impl Target {
    /// Looks whether a store may be made there; makes nothing.
    pub fn find(from: &Path, to: &Path) -> Result<Self, SalvageError> {
        let io = |source| SalvageError::Io { path: to.to_owned(), source };
        let current = std::env::current_dir().map_err(io)?;
        let from = resolve(&current.join(from)).map_err(io)?;
        let resolved = resolve(&current.join(to)).map_err(io)?;
        if resolved.starts_with(&from) {
            return Err(SalvageError::Inside { path: to.to_owned() });
        }
        check_empty(&resolved, to)?;
        let partial = beside(&resolved, &from).ok_or_else(|| SalvageError::MountPoint { path: to.to_owned() })?;
        match fs::symlink_metadata(&partial) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { to: resolved, partial }),
            Err(error) => Err(io(error)),
            Ok(_) => Err(SalvageError::CutOff { path: partial }),
        }
    }

    /// Where it is made.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// It is whole: it gets its name.
    pub fn publish(self) -> io::Result<()> {
        fs::rename(&self.partial, &self.to)?;
        File::open(self.to.parent().unwrap_or(&self.to))?.sync_all()
    }
}

/// Where a path leads, be it there or not. What is not there yet has no links, so its `..` can be taken literally; what that
/// leads to may be there again.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let mut resolved = existing.canonicalize()?;
    let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
    let mut goes_back = false;
    for part in rest.components() {
        match part {
            Component::ParentDir => {
                goes_back = true;
                resolved.pop();
            }
            part => resolved.push(part),
        }
    }
    if goes_back { resolve(&resolved) } else { Ok(resolved) }
}

fn check_empty(resolved: &Path, to: &Path) -> Result<(), SalvageError> {
    let path = to.to_owned();
    match fs::read_dir(resolved).map(|mut entries| entries.next().is_none()) {
        // A link that leads nowhere is there, and no directory gets its name.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(resolved).is_err() => Ok(()),
        Err(source) => Err(SalvageError::Io { path, source }),
        Ok(true) => Ok(()),
        Ok(false) => Err(SalvageError::NotEmpty { path }),
    }
}

/// The name beside, on the same file system; never that of the old store. None of what cannot be renamed to: a mount point, or
/// the root.
fn beside(to: &Path, from: &Path) -> Option<PathBuf> {
    let (parent, mut name) = (to.parent()?, OsString::from(to.file_name()?));
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev());
    if let (Ok(of_parent), Ok(own)) = (device(parent), device(to))
        && of_parent != own
    {
        return None;
    }
    loop {
        name.push(".partial");
        let partial = parent.join(&name);
        if !from.starts_with(&partial) {
            return Some(partial);
        }
    }
}
