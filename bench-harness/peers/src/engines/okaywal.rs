//! okaywal: a write-ahead log that prepares its segments with zeros and groups the flushes of its threads.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use okaywal::{Configuration, Entry, EntryId, LogManager, ReadChunkResult, SegmentReader, WriteAheadLog};

use crate::engine::{By, Engine, Log, Offers, Opening, Reader, Reopened, Shared};

/// The engine.
pub(crate) struct Okaywal;

/// An open log.
struct Open {
    wal: WriteAheadLog,
    for_threads: bool,
}

/// Sees what is replayed. Checkpoints never come: they would throw the log away.
///
/// Every chunk is read, whoever wants it: version 0.3.1 skips the checksum of an unread chunk twice, takes what follows for the end
/// of the log, and writes the next entry over it.
#[derive(Debug)]
struct Replay(Option<Arc<Mutex<Reader>>>);

impl LogManager for Replay {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut reader = self.0.as_ref().map(|reader| reader.lock().expect("no thread panics"));
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            let event = chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(io::Error::other("a chunk's checksum is wrong"));
            }
            if let Some(reader) = &mut reader {
                reader.see(&event);
            }
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

impl Okaywal {
    fn open_with(opening: &Opening, replay: Replay) -> anyhow::Result<WriteAheadLog> {
        let room = u32::try_from(opening.room_bytes).unwrap_or(u32::MAX);
        let configuration =
            Configuration::default_for(&opening.dir).preallocate_bytes(room).checkpoint_after_bytes(u64::MAX);
        configuration.open(replay).context("opening the log")
    }
}

impl Engine for Okaywal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn package(&self) -> Option<&'static str> {
        Some("okaywal")
    }

    fn configuration(&self) -> &'static str {
        "one segment, filled with zeros before the row, page cache; checkpoints off, since they discard the log; 16 KiB buffer \
         (default); one entry a commit, one chunk an event; no mode that does not wait for fdatasync"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: false, tasks: false, tail: false }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        let wal = Self::open_with(opening, Replay(None))?;
        Ok(Box::new(Open { wal, for_threads: opening.by == By::Threads }))
    }

    /// Opening replays: there is no other way to read a log from its beginning.
    fn reopen(&self, opening: &Opening, reader: Reader) -> anyhow::Result<Reopened> {
        let shared = Arc::new(Mutex::new(reader));
        let start = Instant::now();
        let wal = Self::open_with(opening, Replay(Some(shared.clone())))?;
        let opened = start.elapsed();
        wal.shutdown().context("closing")?;
        let Ok(reader) = Arc::try_unwrap(shared) else { bail!("the log is still open after its shutdown") };
        let reader = reader.into_inner().expect("no thread panics");
        Ok(Reopened { opened, scanned: Duration::ZERO, reader })
    }
}

impl Open {
    fn write(&self, events: &[&[u8]]) -> anyhow::Result<()> {
        let mut entry = self.wal.begin_entry()?;
        for event in events {
            entry.write_chunk(event)?;
        }
        entry.commit().context("committing").map(drop)
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events)
    }

    /// Only by waiting: every commit is durable.
    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn scan(&mut self, _: &mut Reader) -> anyhow::Result<()> {
        bail!("an open log cannot be read from its beginning")
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        self.wal.shutdown().context("closing")
    }

    fn shared(&self) -> Option<&dyn Shared> {
        self.for_threads.then_some(self)
    }
}

impl Shared for Open {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        self.write(&[event])
    }
}
