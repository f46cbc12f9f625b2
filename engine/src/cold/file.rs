//! A file of a sealed segment, wherever it lies: for readers it is a file like any other.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::channel::ColdChannel;
use super::object::Part;
use crate::ids::Seq;
use crate::io::{DirEntry, Disk, Driver, File, FileHandle, IoFacts, OpenMode};
use crate::segment::path::{dat_path, idx_path};

/// Reads the local file as long as there is one, then the cold copy.
pub struct TieredFile {
    local: Option<Arc<dyn File>>,
    cold: Arc<ColdChannel>,
    first: Seq,
    part: Part,
    path: String,
}

impl TieredFile {
    /// `local` is the file at `path`, if it is there.
    pub fn new(local: Option<Arc<dyn File>>, cold: Arc<ColdChannel>, first: Seq, part: Part, path: &str) -> Self {
        Self { local, cold, first, part, path: path.to_owned() }
    }

    /// What `read` gives of the local file; `None` if it is not there any more. Its descriptor may have been closed and its
    /// name be gone.
    fn try_local<T>(&self, read: impl FnOnce(&dyn File) -> io::Result<T>) -> Option<io::Result<T>> {
        match read(&**self.local.as_ref()?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            result => Some(result),
        }
    }

    fn read_cold(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let object = self.cold.object(self.first)?;
        let size = object.header.size_of(self.part);
        let mut done = 0;
        while done < buf.len() && offset + (done as u64) < size {
            let at = offset + done as u64;
            let index = object.header.chunk_at(self.part, at);
            let chunk = self.cold.chunk(&object, index)?;
            let (_, range) = object.header.range_of(index);
            let from = &chunk[(at - range.start) as usize..];
            let n = from.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&from[..n]);
            done += n;
        }
        Ok(done)
    }
}

/// What a sealed segment refuses: it never changes.
fn sealed<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "a sealed segment never changes"))
}

impl fmt::Debug for TieredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredFile").field("path", &self.path).field("local", &self.local.is_some()).finish()
    }
}

impl File for TieredFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.try_local(|local| local.read_at(buf, offset)) {
            Some(result) => result,
            None => self.read_cold(buf, offset),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        sealed()
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        match self.try_local(|local| local.size()) {
            Some(result) => result,
            None => Ok(self.cold.object(self.first)?.header.size_of(self.part)),
        }
    }

    fn set_size(&self, _: u64) -> io::Result<()> {
        sealed()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        sealed()
    }

    fn handle(&self) -> io::Result<FileHandle> {
        match &self.local {
            Some(local) => local.handle(),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn path(&self) -> &str {
        &self.path
    }
}

/// The cold segments of a channel as a disk, and nothing else: for reads that must not come from anywhere else.
#[derive(Debug)]
pub struct ColdDisk(pub Arc<ColdChannel>);

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Disk for ColdDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode != OpenMode::Read {
            return unsupported();
        }
        let cold = &self.0;
        let manifest = cold.manifest().ok_or(io::ErrorKind::NotFound)?;
        let opened = manifest.segments.iter().find_map(|segment| {
            let first = Seq(segment.first);
            let part = [(idx_path(cold.id, first), Part::Idx), (dat_path(cold.id, first), Part::Dat)];
            let (_, part) = part.into_iter().find(|(name, _)| name == path)?;
            Some(TieredFile::new(None, cold.clone(), first, part, path))
        });
        Ok(Arc::new(opened.ok_or(io::ErrorKind::NotFound)?))
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        unsupported()
    }

    fn list(&self, _: &str) -> io::Result<Vec<DirEntry>> {
        unsupported()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        unsupported()
    }

    fn unlink(&self, _: &str) -> io::Result<()> {
        unsupported()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        unsupported()
    }

    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        unsupported()
    }

    fn facts(&self) -> IoFacts {
        IoFacts::default()
    }
}
