//! raft-engine: TiKV's log store, an append-only log of many groups with an index in memory. One group here.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine as RaftEngine, LogBatch, MessageExt, ReadableSize};

use crate::engine::{Engine, Log, Offers, Opening, Reader, Shared};

/// The only group.
const GROUP: u64 = 1;

/// Where a thread has a log of its own: entries of a group are numbered by their writer, one after the other.
const FIRST_THREAD_GROUP: u64 = 1000;

/// Events fetched at once.
const FETCH_COUNT: u64 = 1000;

/// The engine.
pub(crate) struct RaftLog;

/// An open log.
struct Open {
    engine: RaftEngine,
    next: u64,
    /// Groups that threads took for themselves.
    groups: AtomicU64,
}

/// An entry is a protobuf message with a number and bytes, as a Raft entry is. protobuf brings one; a type of our own would
/// need a compiler for its schema.
#[derive(Clone)]
struct Entry;

impl MessageExt for Entry {
    type Entry = UninterpretedOption;

    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

fn entry(index: u64, event: &[u8]) -> UninterpretedOption {
    let mut entry = UninterpretedOption::new();
    entry.set_positive_int_value(index);
    entry.set_string_value(event.to_vec());
    entry
}

impl Engine for RaftLog {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn package(&self) -> Option<&'static str> {
        Some("raft-engine")
    }

    fn configuration(&self) -> &'static str {
        "defaults (128 MiB files, page cache, fdatasync), compression off; one LogBatch a commit, one entry an event, \
         write(batch, true); a Raft group for each thread; the closing sync of what was not durable is a small write with sync"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: false, tail: false }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        let dir = opening.dir.to_str().context("the directory's name is no text")?.to_owned();
        let config = Config { dir, batch_compression_threshold: ReadableSize(0), ..Config::default() };
        let engine = RaftEngine::open(config).context("opening the engine")?;
        let next = engine.last_index(GROUP).map_or(0, |last| last + 1);
        Ok(Box::new(Open { engine, next, groups: FIRST_THREAD_GROUP.into() }))
    }
}

impl Open {
    fn write(&mut self, events: &[&[u8]], sync: bool) -> anyhow::Result<()> {
        let entries: Vec<_> = (self.next..).zip(events).map(|(index, event)| entry(index, event)).collect();
        let mut batch = LogBatch::default();
        batch.add_entries::<Entry>(GROUP, &entries).context("making a batch")?;
        self.engine.write(&mut batch, sync).context("writing")?;
        self.next += events.len() as u64;
        Ok(())
    }

    fn scan_group(&self, group: u64, reader: &mut Reader) -> anyhow::Result<()> {
        let (Some(first), Some(last)) = (self.engine.first_index(group), self.engine.last_index(group)) else {
            return Ok(());
        };
        let mut entries = Vec::new();
        for begin in (first..=last).step_by(FETCH_COUNT as usize) {
            entries.clear();
            let end = (last + 1).min(begin + FETCH_COUNT);
            self.engine.fetch_entries_to::<Entry>(group, begin, end, None, &mut entries).context("reading")?;
            entries.iter().for_each(|entry| reader.see(entry.get_string_value()));
        }
        Ok(())
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, true)
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, false)
    }

    /// The engine's own `sync` writes an empty batch, and so does nothing.
    fn sync(&mut self) -> anyhow::Result<()> {
        let mut batch = LogBatch::default();
        batch.put(GROUP, b"synced".to_vec(), self.next.to_le_bytes().to_vec())?;
        self.engine.write(&mut batch, true).context("syncing").map(drop)
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        let mut groups = self.engine.raft_groups();
        groups.sort_unstable();
        groups.into_iter().try_for_each(|group| self.scan_group(group, reader))
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        self.sync()
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }
}

thread_local! {
    /// Group of this thread, and the next number in it.
    static PLACE: std::cell::Cell<Option<(u64, u64)>> = const { std::cell::Cell::new(None) };
}

impl Shared for Open {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        let place = PLACE.get().unwrap_or_else(|| (self.groups.fetch_add(1, Ordering::Relaxed), 0));
        let (group, index) = place;
        let mut batch = LogBatch::default();
        batch.add_entries::<Entry>(group, &[entry(index, event)]).context("making a batch")?;
        self.engine.write(&mut batch, true).context("writing")?;
        PLACE.set(Some((group, index + 1)));
        Ok(())
    }
}
