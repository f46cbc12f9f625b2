//! nodedb-wal: the write-ahead log of NodeDB, in the modes that recover.
//!
//! With its default `use_direct_io: true` version 0.4.0 pads each flush with zeros to whole blocks, and its reader takes the first
//! zeros for the end: everything after the first flush is gone when the log is opened again. So direct I/O is off here.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, ensure};
use nodedb_wal::group_commit::PendingWrite;
use nodedb_wal::reader::WalReader;
use nodedb_wal::uring_writer::{UringWriter, UringWriterConfig};
use nodedb_wal::writer::{WalWriter, WalWriterConfig};
use nodedb_wal::{DwbMode, GroupCommitter, RecordType};

use crate::engine::{By, Engine, Log, Offers, Opening, Reader, Shared};

/// Kind of record: a value is put.
const PUT: u32 = RecordType::Put as u32;

/// The engine.
pub(crate) struct NodedbWal;

/// A log with one writer.
struct Open {
    path: PathBuf,
    writer: UringWriter,
}

/// A log for many threads: only the plain writer has group commit.
struct OpenShared {
    path: PathBuf,
    writer: Mutex<WalWriter>,
    committer: GroupCommitter,
}

impl Engine for NodedbWal {
    fn name(&self) -> &'static str {
        "nodedb-wal"
    }

    fn package(&self) -> Option<&'static str> {
        Some("nodedb-wal")
    }

    fn configuration(&self) -> &'static str {
        "direct I/O off, since what its default mode writes is not recovered; one writer: UringWriter (page cache, write and fsync \
         by io_uring); threads: GroupCommitter over WalWriter, double-write buffer off as in UringWriter; not durable: append to \
         its 2 MiB buffer in memory"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: false, tail: false }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        std::fs::create_dir_all(&opening.dir).context("making the directory")?;
        let path = opening.dir.join("log.wal");
        if opening.by == By::Threads {
            let config =
                WalWriterConfig { use_direct_io: false, dwb_mode: Some(DwbMode::Off), ..WalWriterConfig::default() };
            let writer = Mutex::new(WalWriter::open(&path, config).context("opening the log")?);
            return Ok(Box::new(OpenShared { path, writer, committer: GroupCommitter::new() }));
        }
        let config = UringWriterConfig { use_direct_io: false, ..UringWriterConfig::default() };
        let writer = UringWriter::open(&path, config).context("opening the log")?;
        Ok(Box::new(Open { path, writer }))
    }
}

fn scan(path: &Path, reader: &mut Reader) -> anyhow::Result<()> {
    for record in WalReader::open(path).context("opening for reading")?.records() {
        reader.see(&record.context("reading")?.payload);
    }
    Ok(())
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.append_batch(events)?;
        self.sync()
    }

    fn append(&mut self, event: &[u8]) -> anyhow::Result<()> {
        self.writer.append(PUT, 0, 0, 0, event).context("appending").map(drop)
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        events.iter().try_for_each(|event| self.append(event))
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.writer.submit_and_sync().context("syncing")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        scan(&self.path, reader)
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        self.sync()
    }
}

impl OpenShared {
    fn submit(&self, event: &[u8]) -> anyhow::Result<()> {
        let payload = event.to_vec();
        let write = PendingWrite { record_type: PUT, tenant_id: 0, vshard_id: 0, database_id: 0, payload };
        let result = self.committer.submit(&self.writer, write).context("committing")?;
        ensure!(result.durable, "the commit of record {} was not durable", result.lsn);
        Ok(())
    }
}

impl Log for OpenShared {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        events.iter().try_for_each(|event| self.submit(event))
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.commit(events)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.writer.get_mut().expect("no thread panics").sync().context("syncing")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        scan(&self.path, reader)
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        self.sync()
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }
}

impl Shared for OpenShared {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        self.submit(event)
    }
}
