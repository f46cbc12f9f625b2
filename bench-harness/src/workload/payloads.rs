//! `payloads`: events of 8 B to 4 MiB, durable and not, beside the raw device. Only with `--only payloads`.
//!
//! One thread, one channel each. `durable` keeps about 1 MiB in flight (131,072 events of 8 B, 1 of 4 MiB) in a closed loop; `never` appends one event a call, and
//! waits for nothing but the call. The raw loop writes as many payload bytes in one write and one flush. All take turns; `mb_per_s` and `raw_mb_per_s` are payload bytes. What was
//! not waited for is synced before the next turn, in time of its own, which `synced_events_per_s` counts in.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use redex::{FsyncPolicy, RedexFile};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload};
use crate::counters::Meter;
use crate::load::{Payloads, splitmix64};
use crate::raw_loop::{RawLimit, RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "payloads";
const DURABLE: &str = "bench/payloads/durable";
const NEVER: &str = "bench/payloads/never";
const SIZES: [usize; 6] = [8, 64, 1 << 10, 16 << 10, 256 << 10, 4 << 20];
/// Bytes in flight, if one event is not more.
const BYTES_IN_FLIGHT: usize = 1 << 20;
/// Payload bytes after which the clock is read in a row of appends that are not durable: one call is timed each time.
const BYTES_PER_SAMPLE: usize = 16 << 10;
/// Payload bytes of a turn at most, so that a long run does not fill the disk.
const TURN_BYTES_MAX: u64 = 1 << 30;

/// Payload bytes that are read back at random.
const READ_BACK_BYTES: u64 = 32 << 20;

/// How a row's time is dealt out: 0.7 to the engine, 0.1 to each way of the raw loop, which both rows share.
const ENGINE_SHARE: f64 = 0.7;
const RAW_SHARE: f64 = 0.1;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 2 * SIZES.len() as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let commit_size_max = SIZES.into_iter().map(|size| size * in_flight(size)).max().unwrap_or(0);
    let mut raw = RawLoop::new(&session.place("raw")?, commit_size_max)?;
    SIZES.into_iter().try_for_each(|size| of_size(session, &mut raw, size))?;
    session.place("raw").map(drop)
}

fn in_flight(size: usize) -> usize {
    (BYTES_IN_FLIGHT / size).max(1)
}

fn of_size(session: &mut Session, raw: &mut RawLoop, size: usize) -> anyhow::Result<()> {
    session.doing(format!("payloads, {size} B"));
    let in_flight = in_flight(size);
    let [durable_time, never_time] = [(); 2].map(|()| session.row_time(Workload::Payloads) / TURN_COUNT);
    let payloads = Payloads::new(session.seed_for(size as u64), size);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let durable = [store::channel(&redex, DURABLE, FsyncPolicy::Never)?];
    let never = store::channel(&redex, NEVER, FsyncPolicy::Never)?;
    raw.load(&payloads, in_flight);
    let mut closed = ClosedLoop::new(&durable, &payloads);
    let (mut durable_meter, mut durable_turns) = (Meter::new(&dir), Turns::default());
    let (mut never_meter, mut never_turns, mut syncing) = (Meter::new(&dir), Turns::default(), Duration::ZERO);
    let mut raw_turns = RawTurns::default();
    for _ in 0..TURN_COUNT {
        durable_turns
            .push(durable_meter.around(&redex, || closed.turn(in_flight, durable_time.mul_f64(ENGINE_SHARE)))?);
        raw_turns.take(raw, in_flight, size, durable_time.mul_f64(2.0 * RAW_SHARE))?;
        never_turns
            .push(never_meter.around(&redex, || one_a_call(&never, &payloads, never_time.mul_f64(ENGINE_SHARE)))?);
        let sync = Instant::now();
        never.sync().wait().context("syncing")?;
        syncing += sync.elapsed();
    }
    let facts = redex.stats().io;
    drop((durable, never));
    store::close(redex)?;
    for (name, turns) in [(DURABLE, &durable_turns), (NEVER, &never_turns)] {
        read_back(session, &dir, name, turns.events(), &payloads)?;
    }
    session.place("store")?;

    let limit = raw_turns.limit();
    let mut row = Row::new(NAME, "redex", size, &durable_turns, &session.machine);
    (row.mode, row.in_flight) = ("durable", in_flight as u64);
    session.finish(in_megabytes(row.beside(limit.clone()), limit.as_ref()).costing(&durable_meter.usage(), &facts))?;
    let mut row = Row::new(NAME, "redex", size, &never_turns, &session.machine);
    row.mode = "never";
    let synced_in = never_turns.elapsed() + syncing;
    row.synced_events_per_s = Some(never_turns.events() as f64 / synced_in.as_secs_f64().max(1e-9));
    session.finish(in_megabytes(row, limit.as_ref()).costing(&never_meter.usage(), &facts))
}

/// Reopens the store and compares the first event, the last and some at random: as many as take a while that does not matter.
fn read_back(session: &Session, dir: &Path, name: &str, count: u64, payloads: &Payloads) -> anyhow::Result<()> {
    let samples = (READ_BACK_BYTES / payloads.size() as u64).clamp(4, readback::SAMPLE_COUNT);
    let redex = store::open(dir, session.backend).context("reopening to read back")?;
    let file = store::channel(&redex, name, FsyncPolicy::Never)?;
    readback::holds(&file, count)?;
    let mut state = session.seed_for(count);
    let random = (0..samples).map(|_| splitmix64(&mut state) % count);
    for seq in [0, count - 1].into_iter().chain(random) {
        readback::compare(&file, seq, payloads.get(seq))?;
    }
    drop(file);
    store::close(redex)
}

/// The row with its rate and the raw loop's in bytes.
fn in_megabytes(mut row: Row, limit: Option<&RawLimit>) -> Row {
    let mb_per_s = |events_per_s: f64| events_per_s * row.payload_bytes as f64 / 1e6;
    let (own, raw) = (mb_per_s(row.events_per_s), limit.map(|limit| mb_per_s(limit.events_per_s)));
    let synced = row.synced_events_per_s.map(mb_per_s);
    row.numbers.insert("mb_per_s".to_owned(), own);
    let mut note = format!("{own:.0} MB/s");
    if let Some(synced) = synced {
        row.numbers.insert("synced_mb_per_s".to_owned(), synced);
        note += &format!(" ({synced:.0} with the syncs)");
    }
    if let Some(raw) = raw {
        row.numbers.insert("raw_mb_per_s".to_owned(), raw);
        row.numbers.insert("ratio_raw_mb_per_s".to_owned(), own / raw.max(1e-9));
        note += &format!(", raw {raw:.0} MB/s");
    }
    row.note = Some(note);
    row
}

/// One event a call, for `time`. One call is timed for every [`BYTES_PER_SAMPLE`] that are appended.
fn one_a_call(file: &RedexFile, payloads: &Payloads, time: Duration) -> anyhow::Result<Turn> {
    let calls_per_sample = (BYTES_PER_SAMPLE / payloads.size()).clamp(1, 61);
    let first = file.next_seq();
    let mut latencies = Latencies::new();
    let mut next = first;
    let start = Instant::now();
    let mut now = start;
    while now - start < time && (next - first) * (payloads.size() as u64) < TURN_BYTES_MAX {
        for _ in 1..calls_per_sample {
            file.append(payloads.get(next)).wait().context("appending")?;
            next += 1;
        }
        let sent = Instant::now();
        file.append(payloads.get(next)).wait().context("appending")?;
        now = Instant::now();
        latencies.record(now - sent);
        next += 1;
    }
    Ok(Turn { latencies, events: next - first, elapsed: now - start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_a_mebibyte_is_in_flight_and_one_event_at_least() {
        assert_eq!(SIZES.map(in_flight), [131_072, 16_384, 1024, 64, 4, 1]);
    }
}
