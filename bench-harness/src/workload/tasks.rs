//! `tasks`: 256 tasks on one async runtime, each appending one durable event after the other, beside 256 threads that do the same
//! with a plain file.
//!
//! A one-thread runtime, one with two workers, the raw loop (256 events in one write and one flush) and the threads take turns. All tasks write one channel, all threads one file; each thread
//! calls `fdatasync` for itself, as a program without group commit does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{AppendError, FsyncPolicy, RedexFile};
use tokio::runtime::{Builder, Runtime};

use super::Workload;
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
const TASK_COUNT: usize = 256;

/// Slices of time; fewer than elsewhere, since threads take long to start and to stop.
const TURN_COUNT: u32 = 3;

/// Time of each way of the raw loop in a round, as a share of a contestant's.
const RAW_SHARE: f64 = 0.2;

/// An event that was acknowledged: its sequence, and the number of its payload.
type Acknowledged = (u64, u64);

/// What one task did.
struct Alone {
    latencies: Vec<Duration>,
    last: Option<Acknowledged>,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    session.doing(format!("tasks, {TASK_COUNT} tasks and threads"));
    let time = (session.row_time(Workload::Tasks) + session.row_time(Workload::Tasks)) / (3 * TURN_COUNT);
    let time = time.mul_f64(3.0 / (3.0 + 3.0 * RAW_SHARE));
    let payloads = Arc::new(Payloads::new(session.seed_for(1), PAYLOAD_SIZE));
    let mut raw = RawLoop::new(&session.place("raw")?, TASK_COUNT * PAYLOAD_SIZE)?;
    raw.load(&payloads, TASK_COUNT);
    let mut raw_turns = RawTurns::default();
    let dir = session.place("store")?;
    let plain = session.place("file")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let runtimes = [("current_thread", Builder::new_current_thread().build()?), ("multi_thread", two_workers()?)];
    let mut contestants = runtimes.map(|(mode, runtime)| (mode, runtime, Meter::new(&dir), Turns::default()));
    let (mut file_turns, mut acknowledged, mut round) = (Turns::default(), Vec::new(), 0);
    for _ in 0..TURN_COUNT {
        for (_, runtime, meter, turns) in &mut contestants {
            round += 1;
            turns.push(meter.around(&redex, || turn(runtime, &file, &payloads, round, time, &mut acknowledged))?);
        }
        raw_turns.take(&mut raw, TASK_COUNT, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
        file_turns.push(plain_file::threads_durable(&plain, &payloads, TASK_COUNT, time)?);
    }
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    read_back(&dir, session.backend, &payloads, &acknowledged)?;
    session.place("store")?;
    session.place("file")?;
    session.place("raw")?;
    let limit = raw_turns.limit();

    for (mode, _, meter, turns) in contestants {
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        (row.mode, row.in_flight) = (mode, TASK_COUNT as u64);
        row.ratio_file = Some(turns.rate() / file_turns.rate().max(1e-9));
        session.finish(row.beside(limit.clone()).costing(&meter.usage(), &facts))?;
    }
    let mut row = Row::new(NAME, "file", PAYLOAD_SIZE, &file_turns, &session.machine);
    (row.mode, row.in_flight) = ("threads", TASK_COUNT as u64);
    session.finish(row.beside(limit))
}

fn two_workers() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).build()
}

fn turn(
    runtime: &Runtime,
    file: &RedexFile,
    payloads: &Arc<Payloads>,
    round: u64,
    time: Duration,
    acknowledged: &mut Vec<Acknowledged>,
) -> anyhow::Result<Turn> {
    runtime.block_on(async {
        let start = Instant::now();
        let spawn = |number: usize| {
            let first = (round << 48) | ((number as u64) << 32);
            tokio::spawn(append_alone(file.clone(), payloads.clone(), first, start, time))
        };
        let tasks: Vec<_> = (0..TASK_COUNT).map(spawn).collect();
        let mut latencies = Latencies::new();
        for task in tasks {
            let alone = task.await.context("joining a task")?.context("appending")?;
            alone.latencies.iter().for_each(|latency| latencies.record(*latency));
            acknowledged.extend(alone.last);
        }
        Ok(Turn { events: latencies.histogram().len(), latencies, elapsed: start.elapsed() })
    })
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
