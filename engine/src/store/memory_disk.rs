//! Files in memory, for the tests of what reads files: the blocking half of a disk, and nothing forgotten.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::io::{BLOCK_SIZE, DirEntry, Disk, Driver, File, FileHandle, IoFacts, OpenMode};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A disk in memory. Directories exist by the files in them.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Bytes>>,
}

#[derive(Debug)]
struct MemoryFile(Bytes, String);

impl MemoryDisk {
    /// Puts a file there, or replaces it.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.files().insert(path.to_owned(), Arc::new(Mutex::new(bytes)));
    }

    /// The bytes of a file.
    pub fn get(&self, path: &str) -> Vec<u8> {
        self.files()[path].lock().unwrap().clone()
    }

    /// Changes the bytes of a file.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.files()[path].lock().unwrap());
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.files.lock().unwrap()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut files = self.files();
        match (files.get(path), mode) {
            (Some(_), OpenMode::Create) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(bytes), _) => Ok(Arc::new(MemoryFile(Arc::clone(bytes), path.to_owned()))),
            (None, OpenMode::Create) => {
                let bytes = Bytes::default();
                files.insert(path.to_owned(), Arc::clone(&bytes));
                Ok(Arc::new(MemoryFile(bytes, path.to_owned())))
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let prefix = format!("{path}/");
        let mut entries: Vec<DirEntry> = Vec::new();
        for file in self.files().keys().filter_map(|file| file.strip_prefix(&prefix)) {
            let (name, is_dir) = file.split_once('/').map_or((file, false), |(dir, _)| (dir, true));
            if entries.last().is_none_or(|last| last.name != name) {
                entries.push(DirEntry { name: name.to_owned(), is_dir });
            }
        }
        match entries.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(entries),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let removed = self.files().remove(path);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn facts(&self) -> IoFacts {
        IoFacts::default()
    }
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let aligned = buf.as_ptr().addr() | buf.len() | offset as usize;
        assert!(aligned.is_multiple_of(BLOCK_SIZE), "direct I/O wants whole blocks");
        let bytes = self.0.lock().unwrap();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let size = rest.len().min(buf.len());
        buf[..size].copy_from_slice(&rest[..size]);
        Ok(size)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let (mut bytes, offset) = (self.0.lock().unwrap(), offset as usize);
        let end = bytes.len().max(offset + buf.len());
        bytes.resize(end, 0);
        bytes[offset..offset + buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(size as usize, 0);
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let size = bytes.len().max(size as usize);
        bytes.resize(size, 0);
        Ok(())
    }

    fn handle(&self) -> io::Result<FileHandle> {
        Ok(FileHandle::Sim(0))
    }

    fn path(&self) -> &str {
        &self.1
    }
}
