//! STORE while the store is open: who writes it, and the epoch in it.

use std::io;
use std::sync::Arc;

use super::superblock::{STORE_PATH, SUPERBLOCK_SIZE, Superblock};
use crate::ids::Epoch;
use crate::io::{AlignedBuf, Disk, File, OpenMode, read_full};
use crate::sync::scheduled::{Mutex, MutexGuard};

/// STORE, shared by the store and its shards.
#[derive(Debug)]
pub struct Roots {
    disk: Arc<dyn Disk>,
    superblock: Mutex<Superblock>,
}

impl Roots {
    /// What STORE says now.
    pub fn new(disk: Arc<dyn Disk>, superblock: Superblock) -> Self {
        Self { disk, superblock: Mutex::new(superblock) }
    }

    /// What it says.
    pub fn superblock(&self) -> MutexGuard<'_, Superblock> {
        self.superblock.lock().expect("no panic while the lock is held")
    }

    /// Raises the epoch, durably, and gives it: for sequences that are given a second time (design D11).
    pub fn raise_epoch(&self) -> io::Result<Epoch> {
        self.raise_epoch_above(Epoch(0))
    }

    /// The same, above another one.
    pub fn raise_epoch_above(&self, other: Epoch) -> io::Result<Epoch> {
        let mut superblock = self.superblock();
        let mut raised = superblock.clone();
        let next = raised
            .epoch
            .0
            .max(other.0)
            .checked_add(1)
            .ok_or_else(|| io::Error::other("no epoch is left above the present one"))?;
        raised.epoch = Epoch(next);
        raised.generation += 1;
        write_superblock(&*self.disk, &raised)?;
        *superblock = raised;
        Ok(Epoch(next))
    }
}

/// Writes STORE, which is there.
pub fn write_superblock(disk: &dyn Disk, superblock: &Superblock) -> io::Result<()> {
    write_copies(&*disk.open(STORE_PATH, OpenMode::Write)?, superblock)
}

/// Reads both copies; gives how many bytes there are. One that the device does not give is read as zeros, which are no copy: the
/// other one does, as it does for one that is damaged.
pub fn read_copies(file: &dyn File, buf: &mut [u8]) -> io::Result<usize> {
    let error = match read_full(file, buf, 0) {
        Err(error) => error,
        read => return read,
    };
    let mut readable = false;
    for (copy, bytes) in buf.chunks_exact_mut(SUPERBLOCK_SIZE).enumerate() {
        match read_full(file, bytes, (copy * SUPERBLOCK_SIZE) as u64) {
            Ok(_) => readable = true,
            Err(_) => bytes.fill(0),
        }
    }
    if readable { Ok(buf.len()) } else { Err(error) }
}

/// Writes both copies, one after the other: at any moment one is whole.
pub fn write_copies(file: &dyn File, superblock: &Superblock) -> io::Result<()> {
    let mut buf = AlignedBuf::new(SUPERBLOCK_SIZE);
    superblock.encode(&mut buf[..SUPERBLOCK_SIZE]).map_err(io::Error::other)?;
    for copy in 0..2 {
        file.write_at(&buf[..SUPERBLOCK_SIZE], copy * SUPERBLOCK_SIZE as u64)?;
        file.flush()?;
    }
    Ok(())
}
