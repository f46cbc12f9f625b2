//! [`RaftLog`] as openraft wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::mpsc;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use redex::RedexFile;

use super::Types;
use super::log::{Entry, LogId, RaftLog, Vote};

/// Appends whose callback is due once everything below the sequence is durable.
type Appended = (u64, IOFlushed<Types>);

/// A log, and a thread that calls back when appends are durable, in their order.
pub(crate) struct Storage {
    log: RaftLog,
    appended: mpsc::Sender<Appended>,
}

impl Storage {
    pub(crate) fn new(log: RaftLog) -> Self {
        let (appended, appends) = mpsc::channel();
        let file = log.file().clone();
        std::thread::spawn(move || call_back(&file, appends));
        Self { log, appended }
    }

    pub(crate) fn log(&self) -> &RaftLog {
        &self.log
    }
}

/// The thread, until the storage is gone.
fn call_back(file: &RedexFile, appends: mpsc::Receiver<Appended>) {
    for (end, callback) in appends {
        let durable = file.wait_durable(end.saturating_sub(1)).wait();
        callback.io_completed(durable.map_err(io::Error::other));
    }
}

impl RaftLogReader<Types> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.marks().vote)
    }
}

impl RaftLogStorage<Types> for Storage {
    type LogReader = RaftLog;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState { last_purged_log_id: self.log.marks().purged, last_log_id: self.log.last() })
    }

    async fn get_log_reader(&mut self) -> RaftLog {
        self.log.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.marks().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let end = self.log.append(&entries).await?;
        self.appended.send((end, callback)).map_err(|_| io::Error::other("the thread that calls back is gone"))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last).await
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.log.purge(id).await
    }
}
