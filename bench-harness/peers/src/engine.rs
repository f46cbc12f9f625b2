//! What an engine has to do to be measured: the same few calls for all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use redex_bench::load::Payloads;
use redex_bench::sample::Turn;

use crate::drive;

/// An engine, as it is configured here.
pub(crate) trait Engine: Sync {
    /// Short name, in tables and on the command line.
    fn name(&self) -> &'static str;

    /// The crate that it is, whose version `Cargo.lock` says; `None` for the baselines that are written here.
    fn package(&self) -> Option<&'static str>;

    /// How it is configured, and what of its interface is used, in one line.
    fn configuration(&self) -> &'static str;

    /// What it can be asked for.
    fn offers(&self) -> Offers;

    /// Whether it is a plain file that is written here, and nobody's engine.
    fn is_plain_file(&self) -> bool {
        false
    }

    /// Opens the log in a directory, makes it if there is none.
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>>;

    /// Opens a log that is there, and hands all its events to `reader`.
    fn reopen(&self, opening: &Opening, mut reader: Reader) -> anyhow::Result<Reopened> {
        let start = Instant::now();
        let mut log = self.open(opening)?;
        let opened = start.elapsed();
        log.scan(&mut reader)?;
        let scanned = start.elapsed() - opened;
        log.close()?;
        Ok(Reopened { opened, scanned, reader })
    }
}

/// What an engine can be asked for, beside durable commits and reading everything back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offers {
    /// Durable appends from many threads, each on its own.
    pub(crate) threads: bool,
    /// Appends that do not wait for the disk.
    pub(crate) nondurable: bool,
    /// Durable appends from many tasks of one runtime.
    pub(crate) tasks: bool,
    /// A subscriber that follows appends.
    pub(crate) tail: bool,
}

/// Where a log is, and what it has to have room for.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// Its directory; made by the engine.
    pub(crate) dir: PathBuf,
    /// Bytes of payload that engines which prepare space should prepare it for.
    pub(crate) room_bytes: u64,
    /// How appends will come: an engine with several interfaces takes the one for it.
    pub(crate) by: By,
}

/// How appends come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// From one thread, in batches.
    OneWriter,
    /// From many threads, one by one.
    Threads,
}

impl Opening {
    /// For one writer.
    pub(crate) fn new(dir: &Path, room_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), room_bytes, by: By::OneWriter }
    }
}

/// What opening and reading took.
pub(crate) struct Reopened {
    /// Until appends would have been possible.
    pub(crate) opened: Duration,
    /// From then until the last event was seen. Zero for engines whose opening is the reading.
    pub(crate) scanned: Duration,
    /// What was read.
    pub(crate) reader: Reader,
}

/// An open log.
pub(crate) trait Log {
    /// Appends `events`; all of them would survive a power cut when it returns.
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()>;

    /// Appends one event without waiting for the disk.
    fn append(&mut self, event: &[u8]) -> anyhow::Result<()> {
        self.append_batch(&[event])
    }

    /// Appends `events` without waiting for the disk.
    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()>;

    /// Everything appended so far would survive a power cut when it returns.
    fn sync(&mut self) -> anyhow::Result<()>;

    /// Hands every event to `reader`, in order.
    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()>;

    /// Closes it; everything appended is durable.
    fn close(self: Box<Self>) -> anyhow::Result<()>;

    /// The same log for many threads, if that was asked for.
    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    /// The same log with somebody who follows it.
    fn tailed(&self) -> Option<&dyn Tailed> {
        None
    }

    /// Keeps `in_flight` durable appends outstanding for `time`. An engine without a way to do that commits as many at once.
    fn durable_turn(&mut self, feed: &mut Feed, in_flight: usize, time: Duration) -> anyhow::Result<Turn> {
        drive::commits(self, feed, in_flight, time)
    }

    /// Appends without waiting for the disk for `time`, `batch` events a call.
    fn nondurable_turn(&mut self, feed: &mut Feed, batch: usize, time: Duration) -> anyhow::Result<Turn> {
        if batch == 1 { drive::singles(self, feed, time) } else { drive::batches(self, feed, batch, time) }
    }

    /// `tasks` tasks on one thread's runtime append for `time`, each one durable event after the other; payloads are numbered from `first`.
    fn tasks_turn(
        &mut self,
        _payloads: &Arc<Payloads>,
        _first: u64,
        _tasks: usize,
        _time: Duration,
    ) -> anyhow::Result<Turn> {
        anyhow::bail!("the engine has no futures")
    }
}

/// A log that many threads append to.
pub(crate) trait Shared: Sync {
    /// Appends one event; it would survive a power cut when this returns.
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()>;
}

/// A log that is appended to and followed at the same time.
pub(crate) trait Tailed: Sync {
    /// Appends one event without waiting for the disk.
    fn append_one(&self, event: &[u8]) -> anyhow::Result<()>;

    /// Follows what is appended from now on.
    fn subscribe(&self) -> anyhow::Result<Box<dyn Subscriber>>;
}

/// Somebody who follows a log.
pub(crate) trait Subscriber {
    /// Hands the next event to `see`, if there is one already; says whether there was.
    fn poll(&mut self, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<bool>;

    /// Waits for the next event as the engine does, and hands it to `see`.
    fn wait(&mut self, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<()>;
}

/// The events that a log gets, one after the other.
pub(crate) struct Feed {
    /// Payload of each event, by its number.
    pub(crate) payloads: Arc<Payloads>,
    /// Number of the next event; as many are in the log.
    pub(crate) next: u64,
    /// No turn goes on beyond this many.
    end: u64,
    /// The log never gets more than this many.
    end_max: u64,
}

impl Feed {
    /// All of `payloads`, up to `bytes_max` bytes.
    pub(crate) fn new(payloads: Arc<Payloads>, bytes_max: u64) -> Self {
        let end = bytes_max / payloads.size() as u64;
        Self { payloads, next: 0, end, end_max: end }
    }

    /// Ends the next turn after `bytes` bytes at the latest.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.end = self.end_max.min(self.next + bytes / self.payloads.size() as u64);
    }

    /// Whether there is still room.
    pub(crate) fn has_room(&self) -> bool {
        self.next < self.end
    }
}

/// Sees every event that is read, counts it, and compares it with what was appended.
#[derive(Debug)]
pub(crate) struct Reader {
    payloads: Arc<Payloads>,
    in_order: bool,
    count: u64,
    first_wrong: Option<u64>,
}

impl Reader {
    /// For a log that one thread wrote: event `i` has payload `i`.
    pub(crate) fn in_order(payloads: Arc<Payloads>) -> Self {
        Self { payloads, in_order: true, count: 0, first_wrong: None }
    }

    /// For a log that many threads wrote: only the sizes are known.
    pub(crate) fn in_any_order(payloads: Arc<Payloads>) -> Self {
        Self { in_order: false, ..Self::in_order(payloads) }
    }

    /// The next event of the log.
    #[inline]
    pub(crate) fn see(&mut self, event: &[u8]) {
        let right =
            if self.in_order { event == self.payloads.get(self.count) } else { event.len() == self.payloads.size() };
        if !right && self.first_wrong.is_none() {
            self.first_wrong = Some(self.count);
        }
        self.count += 1;
    }

    /// Fails unless exactly `count` events were seen and all were right.
    pub(crate) fn check(&self, count: u64) -> anyhow::Result<()> {
        ensure!(self.count == count, "{count} events were acknowledged, {} are read back", self.count);
        match self.first_wrong {
            Some(number) => anyhow::bail!("event {number} reads back wrong"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_notices_lost_and_wrong_events() {
        let payloads = Arc::new(Payloads::new(1, 16));
        let mut reader = Reader::in_order(payloads.clone());
        reader.see(payloads.get(0));
        reader.check(1).unwrap();
        reader.check(2).unwrap_err();
        reader.see(payloads.get(7));
        reader.check(2).unwrap_err();
        let mut any = Reader::in_any_order(payloads.clone());
        any.see(payloads.get(7));
        any.check(1).unwrap();
        any.see(b"short");
        any.check(2).unwrap_err();
    }
}
