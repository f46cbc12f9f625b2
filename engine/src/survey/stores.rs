//! STORE, and what stands for it where it is lost.

use std::io;

use super::finding::{FindingKind, Severity, StoreFinding};
use crate::ids::{ShardId, StoreUuid};
use crate::io::{AlignedBuf, Disk, OpenMode, read_full};
use crate::journal::{journal_dir, read_header, segment_number};
use crate::segment::path::CHANNELS_DIR;
use crate::shard::checkpoint::{CHECKPOINT_DIR, checkpoint_dir, checkpoint_number};
use crate::store::checkpoint::survey::uuid_of;
use crate::store::meta::Meta;
use crate::store::open::count_orphans;
use crate::store::roots::read_copies;
use crate::store::superblock::{STORE_FILE_SIZE, STORE_PATH, SUPERBLOCK_SIZE, Superblock};

/// Reads both copies of STORE; what is wrong with one is a finding.
pub fn read(disk: &dyn Disk, findings: &mut Vec<StoreFinding>) -> Option<Superblock> {
    let mut buf = AlignedBuf::new(STORE_FILE_SIZE);
    let read = disk.open(STORE_PATH, OpenMode::Read);
    let read = read.and_then(|file| read_copies(&*file, &mut buf[..STORE_FILE_SIZE]));
    let size = match read {
        Ok(size) => size,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.push(StoreFinding::loss(FindingKind::Store, STORE_PATH, 0, "it is missing"));
            return None;
        }
        Err(error) => {
            findings.push(StoreFinding::loss(FindingKind::Store, STORE_PATH, 0, format!("it cannot be read: {error}")));
            return None;
        }
    };
    let decoded = Superblock::decode(&buf[..size]);
    match decoded {
        Err(error) => {
            findings.push(StoreFinding::loss(FindingKind::Store, STORE_PATH, 0, error));
            None
        }
        Ok(store) => {
            for offset in [0, SUPERBLOCK_SIZE] {
                let copy = buf.get(offset..size.min(offset + SUPERBLOCK_SIZE)).unwrap_or(&[]);
                if let Err(error) = Superblock::decode_copy(copy) {
                    let (kind, severity) = (FindingKind::StoreCopy, Severity::Redundant);
                    findings.push(StoreFinding::new(kind, severity, STORE_PATH, offset as u64, error));
                }
            }
            Some(store)
        }
    }
}

fn list(disk: &dyn Disk, dir: &str) -> io::Result<Vec<crate::io::DirEntry>> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries,
    }
}

/// How many shards have directories.
pub fn shard_count(disk: &dyn Disk) -> io::Result<usize> {
    let mut count = 0;
    for dir in ["journal", CHECKPOINT_DIR] {
        for entry in list(disk, dir)? {
            let index =
                entry.name.parse::<usize>().ok().filter(|index| entry.is_dir && entry.name.len() == 3 && *index < 999);
            count = count.max(index.map_or(0, |index| index + 1));
        }
    }
    Ok(count)
}

/// Whether a store was made here. Where its making was cut off, an open makes it anew.
pub fn is_made(disk: &dyn Disk) -> io::Result<bool> {
    let is_empty = match disk.open(STORE_PATH, OpenMode::Read).and_then(|file| file.size()) {
        Ok(size) => size == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    Ok(!is_empty || count_orphans(disk).map_err(|(_, error)| error)? > 0)
}

/// Which store it is, by the first header of a journal segment or a checkpoint file, or META of a channel, that is whole.
pub fn find_identity(disk: &dyn Disk, shards: usize) -> io::Result<Option<StoreUuid>> {
    for shard in (0..shards).map(|index| ShardId(index as u16)) {
        let dir = journal_dir(shard);
        for entry in list(disk, &dir)?.iter().filter(|entry| segment_number(&entry.name).is_some()) {
            if let Ok(Ok(header)) = read_header(disk, &format!("{dir}/{}", entry.name)) {
                return Ok(Some(header.uuid));
            }
        }
        let dir = checkpoint_dir(shard);
        for entry in list(disk, &dir)?.iter().filter(|entry| checkpoint_number(&entry.name).is_some()) {
            if let Some(uuid) = uuid_of(disk, &format!("{dir}/{}", entry.name)) {
                return Ok(Some(uuid));
            }
        }
    }
    for fan in list(disk, CHANNELS_DIR)?.iter().filter(|entry| entry.is_dir) {
        for channel in list(disk, &format!("{CHANNELS_DIR}/{}", fan.name))?.iter().filter(|entry| entry.is_dir) {
            if let Some(meta) = read_meta(disk, &format!("{CHANNELS_DIR}/{}/{}/META", fan.name, channel.name))? {
                return Ok(Some(meta.uuid));
            }
        }
    }
    Ok(None)
}

fn read_meta(disk: &dyn Disk, path: &str) -> io::Result<Option<Meta>> {
    let Ok(file) = disk.open(path, OpenMode::Read) else { return Ok(None) };
    let mut buf = AlignedBuf::new(crate::store::meta::META_SIZE);
    let size = read_full(&*file, &mut buf, 0).unwrap_or(0);
    Ok(Meta::decode(&buf[..size]).ok())
}
