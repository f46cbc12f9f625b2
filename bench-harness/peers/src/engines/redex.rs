//! Ours: one channel of one store, through the public calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig, Tail as Subscription};
use redex_bench::closed_loop::ClosedLoop;
use redex_bench::load::Payloads;
use redex_bench::sample::Turn;

use crate::drive::{self, Alone};
use crate::engine::{Engine, Feed, Log, Offers, Opening, Reader, Shared, Subscriber, Tailed};

const CHANNEL: &str = "peers/log";

/// The engine.
pub(crate) struct RedexLog;

/// An open store with its only channel.
struct Open {
    redex: Redex,
    files: [RedexFile; 1],
}

impl Engine for RedexLog {
    fn name(&self) -> &'static str {
        super::OURS
    }

    fn package(&self) -> Option<&'static str> {
        Some("redex")
    }

    fn configuration(&self) -> &'static str {
        "defaults, FsyncPolicy::Never; io_uring and O_DIRECT; durable: append_durable, N futures in flight (threads: .wait(), \
         tasks: .await); not durable: append and append_batch, then sync; read by scan().for_each_ref"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: true, tail: true }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        let redex = Redex::builder().persistent_dir(&opening.dir).build().context("opening the store")?;
        let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never);
        let files = [redex.open_file(CHANNEL, config).context("opening the channel")?];
        Ok(Box::new(Open { redex, files }))
    }
}

impl Open {
    fn file(&self) -> &RedexFile {
        &self.files[0]
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.append_batch(events)?;
        self.sync()
    }

    fn append(&mut self, event: &[u8]) -> anyhow::Result<()> {
        self.file().append(event).wait().context("appending").map(drop)
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.file().append_batch(events).wait().context("appending").map(drop)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.file().sync().wait().context("syncing")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        let scan = self.file().scan(0..self.file().next_seq());
        scan.for_each_ref(|event| reader.see(event.payload)).wait().context("reading")?;
        Ok(())
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        drop(self.files);
        self.redex.close().wait().context("closing")
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }

    fn tailed(&self) -> Option<&dyn Tailed> {
        Some(self)
    }

    /// Real appends, each acknowledged by itself: not a batch.
    fn durable_turn(&mut self, feed: &mut Feed, in_flight: usize, time: Duration) -> anyhow::Result<Turn> {
        if !feed.has_room() {
            return Ok(drive::merge(&[]));
        }
        let mut closed_loop = ClosedLoop::resume(&self.files, &feed.payloads, feed.next);
        let turn = closed_loop.turn(in_flight, time)?;
        feed.next = closed_loop.acknowledged();
        Ok(turn)
    }

    fn tasks_turn(
        &mut self,
        payloads: &Arc<Payloads>,
        first: u64,
        tasks: usize,
        time: Duration,
    ) -> anyhow::Result<Turn> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let start = Instant::now();
        let each: Vec<Alone> = runtime.block_on(async {
            let spawn = |number: usize| {
                let first = first + ((number as u64) << 32);
                tokio::spawn(task(self.file().clone(), payloads.clone(), first, start, time))
            };
            let mut each = Vec::with_capacity(tasks);
            for handle in (0..tasks).map(spawn).collect::<Vec<_>>() {
                each.push(handle.await.context("joining a task")??);
            }
            anyhow::Ok(each)
        })?;
        Ok(drive::merge(&each))
    }
}

async fn task(
    file: RedexFile,
    payloads: Arc<Payloads>,
    first: u64,
    start: Instant,
    time: Duration,
) -> anyhow::Result<Alone> {
    let mut latencies = Vec::new();
    let mut end = Instant::now();
    while end - start < time {
        file.append_durable(payloads.get(first + latencies.len() as u64)).await.context("appending")?;
        let done = Instant::now();
        latencies.push(done - end);
        end = done;
    }
    Ok(Alone { start, end, latencies })
}

impl Shared for Open {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        self.file().append_durable(event).wait().context("appending").map(drop)
    }
}

impl Tailed for Open {
    fn append_one(&self, event: &[u8]) -> anyhow::Result<()> {
        self.file().append(event).wait().context("appending").map(drop)
    }

    fn subscribe(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let tail = self.file().subscribe_tail().wait().context("subscribing")?;
        Ok(Box::new(Tail(tail)))
    }
}

/// A subscription from the end.
struct Tail(Subscription);

impl Subscriber for Tail {
    fn poll(&mut self, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<bool> {
        let event = self.0.try_next();
        let there = event.is_some();
        event.into_iter().for_each(|event| see(&event.payload));
        ensure!(there || self.0.ended().is_none(), "the subscription ended");
        Ok(there)
    }

    fn wait(&mut self, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let event = self.0.next_wait().context("the subscription ended")?;
        see(&event.payload);
        Ok(())
    }
}
