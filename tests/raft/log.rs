//! What a Raft group keeps: its votes and marks in one channel, its entries in another, both of one shard.
//!
//! ```text
//!  <group>/marks    vote, committed, purged: the newest event counts
//!  <group>/entries  one event an entry; an entry's index less its sequence is the same for all that are there
//! ```
//!
//! Every operation is one durable step, or two of which the first alone counts: a purge is in the marks before the head
//! moves, and opening moves the head that a crash left behind. So nothing here needs two channels at once.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use redex::{Redex, RedexFile, RedexFileConfig, TypedRedexFile};
use serde::{Deserialize, Serialize};

use super::Types;

pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;

/// Marks that a program would keep: only the newest counts, but each time that the head moves costs a flush.
pub(crate) const MARKS_KEPT: u64 = 1024;

/// What is not an entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Marks {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
}

/// What readers share with the writer.
#[derive(Debug)]
struct State {
    marks: Marks,
    /// The index of an entry less its sequence, wrapping. Means nothing while no entry is there: the next one decides it.
    offset: u64,
    /// The last entry, if one is there.
    last: Option<LogId>,
}

/// A group's log. Clones read; one writes.
#[derive(Clone, Debug)]
pub(crate) struct RaftLog {
    marks: TypedRedexFile<Marks>,
    entries: TypedRedexFile<Entry>,
    state: Arc<Mutex<State>>,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl RaftLog {
    /// Opens the group's channels, or makes them, and ends a purge that a crash has interrupted.
    pub(crate) async fn open(redex: &Redex, group: &str, marks_kept: u64) -> io::Result<Self> {
        let config = RedexFileConfig::default().with_persistent(true).with_affinity(group);
        let limited = config.clone().with_retention_max_events(marks_kept).with_retention_hold(0);
        let marks = TypedRedexFile::new(redex.open_file(&*format!("{group}/marks"), limited).map_err(failed)?);
        let entries = TypedRedexFile::new(redex.open_file(&*format!("{group}/entries"), config).map_err(failed)?);
        let newest = match marks.file().next_seq() {
            0 => Marks::default(),
            end => marks.read_one(end - 1).await.map_err(failed)?.expect("the newest event is kept").value,
        };
        let state = Arc::new(Mutex::new(State { marks: newest, offset: 0, last: None }));
        let log = Self { marks, entries, state };
        log.find_ends().await?;
        let purged = log.marks().purged;
        if let Some(purged) = purged {
            log.drop_through(purged).await?;
        }
        log.take_back_committed();
        Ok(log)
    }

    /// The mark of what is committed is not flushed, and bulk goes another way than what is small: so a crash may leave
    /// the mark without entries that were appended before it.
    fn take_back_committed(&self) {
        let last = self.last();
        let committed = &mut self.state().marks.committed;
        if *committed > last {
            *committed = last;
        }
    }

    /// The channel of the entries.
    pub(crate) fn file(&self) -> &RedexFile {
        self.entries.file()
    }

    pub(crate) fn marks(&self) -> Marks {
        self.state().marks.clone()
    }

    /// The last entry, or the last one that was purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        let state = self.state();
        state.last.or(state.marks.purged)
    }

    /// The entries of a range of indexes that are there.
    pub(crate) async fn read(&self, indexes: Range<u64>) -> io::Result<Vec<Entry>> {
        let seqs = self.seqs(indexes);
        let events = self.entries.read_range(seqs.start, seqs.end).await.map_err(failed)?;
        Ok(events.into_iter().map(|event| event.value).collect())
    }

    /// Appends entries, and returns when they can be read: with the sequence behind them, below which they have to be durable.
    pub(crate) async fn append(&self, entries: &[Entry]) -> io::Result<u64> {
        let file = self.entries.file();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(file.next_seq()) };
        {
            let mut state = self.state();
            let offset = first.log_id.index.wrapping_sub(file.next_seq());
            if !file.is_empty() && offset != state.offset {
                return Err(io::Error::other("entries must follow each other without a hole"));
            }
            state.offset = offset;
        }
        let seqs = self.entries.append_batch(entries).await.map_err(failed)?;
        self.state().last = Some(last.log_id);
        Ok(seqs.end)
    }

    /// Returns when everything is durable.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.file().sync().await.map_err(failed)?;
        self.marks.file().sync().await.map_err(failed)
    }

    /// Keeps a vote. Returns when it is durable.
    pub(crate) async fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        self.save(|marks| marks.vote = Some(*vote), true).await
    }

    /// Keeps what is committed. It becomes durable with whatever is flushed next.
    pub(crate) async fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        self.save(|marks| marks.committed = committed, false).await
    }

    /// Drops the entries behind `last`, or all.
    pub(crate) async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let behind = last.map_or(0, |last| last.index + 1);
        let end = self.seqs(behind..u64::MAX).start;
        self.file().truncate_suffix(end).await.map_err(failed)?;
        self.find_ends().await
    }

    /// Drops the entries through `id`, which may lie behind the last one: then there is none any more, and the next one
    /// follows `id`.
    pub(crate) async fn purge(&self, id: LogId) -> io::Result<()> {
        self.save(|marks| marks.purged = Some(id), true).await?;
        self.drop_through(id).await
    }

    async fn drop_through(&self, id: LogId) -> io::Result<()> {
        let head = self.seqs(id.index + 1..u64::MAX).start;
        if head > self.file().head_seq() {
            self.file().trim_head(head).await.map_err(failed)?;
        }
        self.find_ends().await
    }

    /// Raft wants its writes in their order, votes and entries: so what was appended before is durable first. That costs no
    /// flush: it was asked for with the append.
    async fn save(&self, change: impl FnOnce(&mut Marks), durable: bool) -> io::Result<()> {
        let mut marks = self.marks();
        change(&mut marks);
        match durable {
            true => {
                self.file().sync().await.map_err(failed)?;
                self.marks.append_durable(&marks).await.map_err(failed)?
            }
            false => self.marks.append(&marks).await.map_err(failed)?,
        };
        self.state().marks = marks;
        Ok(())
    }

    /// Looks what the first and the last entry are.
    async fn find_ends(&self) -> io::Result<()> {
        let (head, end) = (self.file().head_seq(), self.file().next_seq());
        let (mut offset, mut last) = (0, None);
        if head < end {
            let entry = self.entries.read_one(end - 1).await.map_err(failed)?.expect("it is there");
            offset = entry.value.log_id.index.wrapping_sub(entry.seq);
            last = Some(entry.value.log_id);
        }
        let mut state = self.state();
        (state.offset, state.last) = (offset, last);
        Ok(())
    }

    /// The sequences of these indexes, as far as they are there.
    fn seqs(&self, indexes: Range<u64>) -> Range<u64> {
        let (head, end, offset) = (self.file().head_seq(), self.file().next_seq(), self.state().offset);
        if head == end {
            return end..end;
        }
        let there = head.wrapping_add(offset)..end.wrapping_add(offset);
        let seq = |index: u64| index.clamp(there.start, there.end).wrapping_sub(offset);
        seq(indexes.start)..seq(indexes.end)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}
