//! `durable`: appends that count when they would survive a power cut.
//!
//! One thread and one channel, 1 to 4096 appends in flight, in a closed loop; in turns with the raw loop (the same bytes in one write and one flush)
//! and the plain file (one `write` and one `fdatasync` for as many events). With `--rate` an open loop follows. Every row
//! ends with a reopen that reads a sample back.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use redex::{FsyncPolicy, Redex, RedexFile};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::pace::Pace;
use crate::plain_file::PlainFile;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "durable";
const CHANNEL: &str = "bench/durable";
const IN_FLIGHT: [usize; 4] = [1, 16, 256, 4096];
const PAYLOAD_SIZES: [usize; 2] = [256, 4096];

/// Appends in flight at most in the open loop: those above wait, and are late.
const OPEN_IN_FLIGHT: usize = 4096;

/// Appends in flight at the least in the turn before the first, which is not counted.
const WARM_UP_IN_FLIGHT: usize = 256;

/// How a turn's time is dealt out: half to the engine, 0.2 to the plain file, 0.1 to each way of the raw loop.
const ENGINE_SHARE: f64 = 0.5;
const FILE_SHARE: f64 = 0.2;
const RAW_SHARE: f64 = 0.1;

/// Rows that it measures.
pub(super) fn row_count(quick: bool, open_loop: bool) -> u32 {
    (payload_sizes(quick).len() * (IN_FLIGHT.len() + usize::from(open_loop))) as u32
}

fn payload_sizes(quick: bool) -> &'static [usize] {
    if quick { &PAYLOAD_SIZES[..1] } else { &PAYLOAD_SIZES }
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let sizes = payload_sizes(session.quick);
    let commit_size_max = IN_FLIGHT[IN_FLIGHT.len() - 1] * sizes[sizes.len() - 1];
    let mut raw = RawLoop::new(&session.place("raw")?, commit_size_max)?;
    for &size in sizes {
        let payloads = Payloads::new(session.seed_for(size as u64), size);
        for in_flight in IN_FLIGHT {
            closed(session, &mut raw, &payloads, in_flight)?;
        }
        if let Some(rate) = session.rate {
            open(session, &mut raw, &payloads, rate)?;
        }
    }
    session.place("raw")?;
    Ok(())
}

/// One closed-loop row and the plain file's beside it.
fn closed(session: &mut Session, raw: &mut RawLoop, payloads: &Payloads, in_flight: usize) -> anyhow::Result<()> {
    let size = payloads.size();
    session.doing(format!("durable, {size} B, {in_flight} in flight"));
    let turn_time = session.row_time(Workload::Durable) / (TURN_COUNT + 1);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let files = [store::channel(&redex, CHANNEL, FsyncPolicy::Never)?];
    let mut plain = PlainFile::new(&session.place("file")?)?;
    raw.load(payloads, in_flight);

    let mut engine_loop = ClosedLoop::new(&files, payloads);
    // A new store makes its spare journal segments soon after its first events, once in its life: the raw loop's file is made before, too.
    engine_loop.turn(in_flight.max(WARM_UP_IN_FLIGHT), turn_time)?;
    let mut meter = Meter::new(&dir);
    let (mut engine_turns, mut file_turns, mut raw_turns) = (Turns::default(), Turns::default(), RawTurns::default());
    for _ in 0..TURN_COUNT {
        engine_turns.push(meter.around(&redex, || engine_loop.turn(in_flight, turn_time.mul_f64(ENGINE_SHARE)))?);
        raw_turns.take(raw, in_flight, size, turn_time.mul_f64(RAW_SHARE))?;
        file_turns.push(plain.durable(payloads, in_flight, turn_time.mul_f64(FILE_SHARE))?);
    }
    let acknowledged = engine_loop.acknowledged();
    let facts = redex.stats().io;
    drop(files);
    finish_store(session, redex, &dir, acknowledged, payloads)?;

    let mut row = Row::new(NAME, "redex", size, &engine_turns, &session.machine);
    row.in_flight = in_flight as u64;
    row.ratio_file = Some(engine_turns.rate() / file_turns.rate().max(1e-9));
    let limit = raw_turns.limit();
    session.finish(row.beside(limit.clone()).costing(&meter.usage(), &facts))?;
    let mut row = Row::new(NAME, "file", size, &file_turns, &session.machine);
    row.in_flight = in_flight as u64;
    row.batch = in_flight as u64;
    session.finish(row.beside(limit))?;
    session.place("file").map(drop)
}

/// One open-loop row. The raw loop beside it commits one event at a time: the least that an event which is due can take.
fn open(session: &mut Session, raw: &mut RawLoop, payloads: &Payloads, rate: f64) -> anyhow::Result<()> {
    let size = payloads.size();
    session.doing(format!("durable, {size} B, open loop at {rate}/s"));
    let turn_time = session.row_time(Workload::Durable) / TURN_COUNT;
    raw.load(payloads, 1);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let mut meter = Meter::new(&dir);
    let (mut turns, mut raw_turns) = (Turns::default(), RawTurns::default());
    for _ in 0..TURN_COUNT {
        let (first, time) = (turns.events(), turn_time.mul_f64(1.0 - 3.0 * RAW_SHARE));
        turns.push(meter.around(&redex, || open_turn(&file, payloads, rate, first, time))?);
        raw_turns.take(raw, 1, size, turn_time.mul_f64(RAW_SHARE))?;
    }
    let acknowledged = turns.events();
    let facts = redex.stats().io;
    drop(file);
    finish_store(session, redex, &dir, acknowledged, payloads)?;

    let mut row = Row::new(NAME, "redex", size, &turns, &session.machine);
    row.mode = "open";
    row.in_flight = OPEN_IN_FLIGHT as u64;
    row.rate = Some(rate);
    if row.events_per_s < 0.98 * rate {
        row.note = Some("the engine did not keep up with the rate".to_owned());
    }
    session.finish(row.beside(raw_turns.limit()).costing(&meter.usage(), &facts))
}

/// One thread appends when events are due, another waits for the acknowledgements, in order.
fn open_turn(file: &RedexFile, payloads: &Payloads, rate: f64, first: u64, time: Duration) -> anyhow::Result<Turn> {
    let count = ((rate * time.as_secs_f64()) as u64).max(1);
    let (sender, receipts) = mpsc::sync_channel(OPEN_IN_FLIGHT);
    let mut latencies = Latencies::new();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pace = Pace::new(start, rate);
            for index in 0..count {
                let due = pace.wait(index);
                if sender.send((due, file.append_durable(payloads.get(first + index)))).is_err() {
                    return;
                }
            }
        });
        for (due, receipt) in receipts {
            receipt.wait().context("appending")?;
            latencies.record(due.elapsed());
        }
        Ok(Turn { latencies, events: count, elapsed: start.elapsed() })
    })
}

/// Closes the store, reopens it, compares a sample with what was acknowledged, and removes it.
fn finish_store(
    session: &Session,
    redex: Redex,
    dir: &Path,
    acknowledged: u64,
    payloads: &Payloads,
) -> anyhow::Result<()> {
    store::close(redex)?;
    let seed = session.seed_for(acknowledged);
    readback::sample(dir, session.backend, CHANNEL, acknowledged, seed, |seq| payloads.get(seq))?;
    session.place("store").map(drop)
}
