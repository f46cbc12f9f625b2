//! `tasks`: 16 and 256 tasks on one async runtime, each appending one durable event after the other, and as many threads that wait
//! for theirs, beside as many threads that do the same with a plain file.
//!
//! A one-thread runtime, one with two workers, threads that call `wait`, the raw loop (as many events in one write and one flush) and the threads with a file take
//! turns. All write one channel, all threads one file; each of these calls `fdatasync` for itself, as a program without group commit does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{AppendError, FsyncPolicy, RedexFile};
use tokio::runtime::{Builder, Runtime};

use super::{Workload, crew};
use crate::args::Backend;
use crate::counters::Meter;
use crate::load::Payloads;
use crate::plain_file;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "tasks";
const CHANNEL: &str = "bench/tasks";
const PAYLOAD_SIZE: usize = 256;
const COUNTS: [usize; 2] = [16, 256];

/// Contestants through the engine: two runtimes, and threads.
const CONTESTANTS: u32 = 3;

/// Slices of time; fewer than elsewhere, since threads take long to start and to stop.
const TURN_COUNT: u32 = 3;

/// Time of each way of the raw loop in a round, as a share of a contestant's.
const RAW_SHARE: f64 = 0.2;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = COUNTS.len() as u32 * CONTESTANTS;

/// An event that was acknowledged: its sequence, and the number of its payload.
type Acknowledged = (u64, u64);

/// What one task or thread did.
struct Alone {
    latencies: Vec<Duration>,
    last: Option<Acknowledged>,
}

/// Who appends.
enum Appenders {
    Tasks(Runtime),
    Threads,
}

/// One channel, and who was acknowledged what in it.
struct Load {
    file: RedexFile,
    payloads: Arc<Payloads>,
    count: usize,
    round: u64,
    acknowledged: Vec<Acknowledged>,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    COUNTS.into_iter().try_for_each(|count| beside(session, count))
}

fn beside(session: &mut Session, count: usize) -> anyhow::Result<()> {
    session.doing(format!("tasks, {count} tasks and threads"));
    // The plain file's threads take as long as a contestant.
    let time = (0..CONTESTANTS).map(|_| session.row_time(Workload::Tasks)).sum::<Duration>() / TURN_COUNT;
    let time = time.div_f64(f64::from(CONTESTANTS) + 1.0 + 3.0 * RAW_SHARE);
    let payloads = Arc::new(Payloads::new(session.seed_for(1), PAYLOAD_SIZE));
    let mut raw = RawLoop::new(&session.place("raw")?, count * PAYLOAD_SIZE)?;
    raw.load(&payloads, count);
    let (dir, plain): (PathBuf, PathBuf) = (session.place("store")?, session.place("file")?);
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let mut load = Load { file, payloads, count, round: 0, acknowledged: Vec::new() };
    let mut contestants = [
        ("current_thread", Appenders::Tasks(Builder::new_current_thread().build()?)),
        ("multi_thread", Appenders::Tasks(two_workers()?)),
        ("threads", Appenders::Threads),
    ]
    .map(|(mode, appenders)| (mode, appenders, Meter::new(&dir), Turns::default()));
    let (mut file_turns, mut raw_turns) = (Turns::default(), RawTurns::default());
    for _ in 0..TURN_COUNT {
        for (_, appenders, meter, turns) in &mut contestants {
            turns.push(meter.around(&redex, || load.turn(appenders, time))?);
        }
        raw_turns.take(&mut raw, count, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
        file_turns.push(plain_file::threads_durable(&plain, &load.payloads, count, time)?);
    }
    let facts = redex.stats().io;
    let Load { file, payloads, acknowledged, .. } = load;
    drop(file);
    store::close(redex)?;
    read_back(&dir, session.backend, &payloads, &acknowledged)?;
    session.place("store")?;
    session.place("file")?;
    session.place("raw")?;
    let limit = raw_turns.limit();

    for (mode, _, meter, turns) in contestants {
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        (row.mode, row.in_flight) = (mode, count as u64);
        row.ratio_file = Some(turns.rate() / file_turns.rate().max(1e-9));
        session.finish(row.beside(limit.clone()).costing(&meter.usage(), &facts))?;
    }
    let mut row = Row::new(NAME, "file", PAYLOAD_SIZE, &file_turns, &session.machine);
    (row.mode, row.in_flight) = ("threads", count as u64);
    session.finish(row.beside(limit))
}

fn two_workers() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).build()
}

impl Load {
    fn turn(&mut self, appenders: &Appenders, time: Duration) -> anyhow::Result<Turn> {
        self.round += 1;
        match appenders {
            Appenders::Tasks(runtime) => self.tasks(runtime, time),
            Appenders::Threads => self.threads(time),
        }
    }

    /// Number of the first payload of a task or thread in this round.
    fn first(&self, number: usize) -> u64 {
        (self.round << 48) | ((number as u64) << 32)
    }

    fn tasks(&mut self, runtime: &Runtime, time: Duration) -> anyhow::Result<Turn> {
        runtime.block_on(async {
            let start = Instant::now();
            let spawn = |number: usize| {
                tokio::spawn(append_alone(self.file.clone(), self.payloads.clone(), self.first(number), start, time))
            };
            let tasks: Vec<_> = (0..self.count).map(spawn).collect();
            let mut latencies = Latencies::new();
            for task in tasks {
                self.add(task.await.context("joining a task")?.context("appending")?, &mut latencies);
            }
            Ok(Turn { events: latencies.histogram().len(), latencies, elapsed: start.elapsed() })
        })
    }

    fn threads(&mut self, time: Duration) -> anyhow::Result<Turn> {
        let (file, payloads) = (&self.file, &*self.payloads);
        let jobs = (0..self.count).map(|number| {
            let first = self.first(number);
            move || append_waiting(file, payloads, first, time).context("appending")
        });
        let (all, elapsed) = crew::together(jobs)?;
        let mut latencies = Latencies::new();
        all.into_iter().for_each(|alone| self.add(alone, &mut latencies));
        Ok(Turn { events: latencies.histogram().len(), latencies, elapsed })
    }

    fn add(&mut self, alone: Alone, latencies: &mut Latencies) {
        alone.latencies.iter().for_each(|latency| latencies.record(*latency));
        self.acknowledged.extend(alone.last);
    }
}

/// One thread: one durable event after the other, for `time`.
fn append_waiting(file: &RedexFile, payloads: &Payloads, first: u64, time: Duration) -> Result<Alone, AppendError> {
    let mut alone = Alone { latencies: Vec::new(), last: None };
    let start = Instant::now();
    let mut now = start;
    while now - start < time {
        let index = first + alone.latencies.len() as u64;
        let seq = file.append_durable(payloads.get(index)).wait()?;
        let done = Instant::now();
        alone.latencies.push(done - now);
        alone.last = Some((seq, index));
        now = done;
    }
    Ok(alone)
}

async fn append_alone(
    file: RedexFile,
    payloads: Arc<Payloads>,
    first: u64,
    start: Instant,
    time: Duration,
) -> Result<Alone, AppendError> {
    let mut alone = Alone { latencies: Vec::new(), last: None };
    let mut now = Instant::now();
    while now - start < time {
        let index = first + alone.latencies.len() as u64;
        let seq = file.append_durable(payloads.get(index)).await?;
        let done = Instant::now();
        alone.latencies.push(done - now);
        alone.last = Some((seq, index));
        now = done;
    }
    Ok(alone)
}

/// Reopens the store and compares the last event of every task.
fn read_back(
    dir: &Path,
    backend: Option<Backend>,
    payloads: &Payloads,
    acknowledged: &[Acknowledged],
) -> anyhow::Result<()> {
    ensure!(!acknowledged.is_empty(), "no task got an acknowledgement");
    let redex = store::open(dir, backend).context("reopening to read back")?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    for &(seq, index) in acknowledged {
        readback::compare(&file, seq, payloads.get(index))?;
    }
    drop(file);
    store::close(redex)
}
