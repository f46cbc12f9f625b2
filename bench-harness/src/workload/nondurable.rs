//! `nondurable`: appends that are acknowledged when every reader can see them, and written behind.
//!
//! One thread to one channel under `FsyncPolicy::Never`, one event a call and 1000 events a call; beside it `write` on a plain file
//! without any flush. Single appends time every 61st call (so a latency has one reading of the clock in it), batches every call. The
//! time of the closing sync is counted apart, as `synced_events_per_s`.
//!
//! The note says what bound the row: the device, if the appending thread slept for a part of its turns (an append whose
//! memory is still to be written waits), else the processor; and what the engine wrote beside what the device takes in space that was never
//! written, in the same run ([`RawStream`]).

use std::time::{Duration, Instant};

use anyhow::Context;
use redex::{FsyncPolicy, Redex, RedexFile};

use super::{TURN_COUNT, Workload};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::plain_file::PlainFile;
use crate::raw_loop::RawStream;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns, median};
use crate::store;

const NAME: &str = "nondurable";
const CHANNEL: &str = "bench/nondurable";
const PAYLOAD_SIZES: [usize; 4] = [32, 64, 256, 1024];
const BATCHES: [usize; 2] = [1, 1000];

/// One single append in this many is timed. A prime, so that it is not always the one that crosses a block or a page.
const APPENDS_PER_SAMPLE: usize = 61;

/// Payload bytes of one row at most, so that a long run does not fill the disk.
const ROW_BYTES_MAX: u64 = 16 << 30;

/// How a turn's time is dealt out between the engine, the raw stream and the plain file.
const ENGINE_SHARE: f64 = 0.7;
const RAW_SHARE: f64 = 0.15;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = (PAYLOAD_SIZES.len() * BATCHES.len()) as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    for size in PAYLOAD_SIZES {
        let payloads = Payloads::new(session.seed_for(size as u64), size);
        for batch in BATCHES {
            row(session, &payloads, batch)?;
        }
    }
    Ok(())
}

fn row(session: &mut Session, payloads: &Payloads, batch: usize) -> anyhow::Result<()> {
    let size = payloads.size();
    session.doing(format!("nondurable, {size} B, {batch} a call"));
    let turn_time = session.row_time(Workload::Nondurable) / TURN_COUNT;
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let mut plain = PlainFile::new(&session.place("file")?)?;
    let mut appender = Appender { file: &file, payloads, next: 0 };
    let mut meter = Meter::new(&dir);
    let mut pressure = Pressure::default();
    let mut raw = RawStream::new(&session.place("raw")?)?;
    let mut syncing = Duration::ZERO;
    let (mut engine_turns, mut file_turns) = (Turns::default(), Turns::default());
    for _ in 0..TURN_COUNT {
        let before = Before::read(&redex);
        let turn = meter.around(&redex, || appender.turn(batch, turn_time.mul_f64(ENGINE_SHARE)))?;
        pressure.add(&before, &turn, &redex);
        engine_turns.push(turn);
        // What is written behind is no part of the others' turns.
        let sync = Instant::now();
        file.sync().wait().context("syncing")?;
        syncing += sync.elapsed();
        pressure.raw.push(raw.turn(turn_time.mul_f64(RAW_SHARE))?);
        file_turns.push(plain.written(payloads, batch, turn_time.mul_f64(1.0 - ENGINE_SHARE - RAW_SHARE))?);
    }
    let appended = appender.next;
    let synced_in = engine_turns.elapsed() + syncing;
    session.place("raw")?;
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    let seed = session.seed_for(appended);
    readback::sample(&dir, session.backend, CHANNEL, appended, seed, |seq| payloads.get(seq))?;
    session.place("store")?;
    session.place("file")?;

    let mut row = Row::new(NAME, "redex", size, &engine_turns, &session.machine);
    row.batch = batch as u64;
    row.synced_events_per_s = Some(appended as f64 / synced_in.as_secs_f64());
    row.ratio_file = Some(engine_turns.rate() / file_turns.rate().max(1e-9));
    let row = pressure.told(row.costing(&meter.usage(), &facts));
    session.finish(row)?;
    let mut row = Row::new(NAME, "file", size, &file_turns, &session.machine);
    row.batch = batch as u64;
    session.finish(row)
}

/// Share of its turns that the appending thread sleeps, from which on the device binds.
const ASLEEP_SHARE: f64 = 0.1;

/// How long the appending thread slept in its turns, and what the engine wrote meanwhile.
#[derive(Debug, Default)]
struct Pressure {
    asleep: Duration,
    written_bytes: u64,
    /// Bytes a second of the raw stream's turns.
    raw: Vec<f64>,
}

/// The counters before a turn.
struct Before {
    written_bytes: u64,
    awake: Duration,
}

impl Before {
    fn read(redex: &Redex) -> Self {
        Self { written_bytes: redex.stats().written_bytes(), awake: awake() }
    }
}

impl Pressure {
    fn add(&mut self, before: &Before, turn: &Turn, redex: &Redex) {
        self.asleep += turn.elapsed.saturating_sub(awake().saturating_sub(before.awake));
        self.written_bytes += redex.stats().written_bytes() - before.written_bytes;
    }

    /// The row with what bound it.
    fn told(&self, mut row: Row) -> Row {
        let asleep = self.asleep.as_secs_f64() / row.seconds.max(1e-9);
        let mb_per_s = self.written_bytes as f64 / 1e6 / row.seconds.max(1e-9);
        let raw_mb_per_s = median(self.raw.clone()) / 1e6;
        row.numbers.insert("raw_mb_per_s".to_owned(), raw_mb_per_s);
        let cpu_ns = row.cost.as_ref().map_or(0.0, |cost| cost.cpu_ns_per_event);
        row.numbers.insert("written_mb_per_s".to_owned(), mb_per_s);
        row.numbers.insert("waiting_share".to_owned(), asleep);
        let bound = if asleep >= ASLEEP_SHARE { "the device" } else { "the processor" };
        let percent = 100.0 * asleep;
        row.note = Some(format!(
            "{bound} binds: {percent:.0} % waiting, {mb_per_s:.0} MB/s written (raw {raw_mb_per_s:.0}), {cpu_ns:.0} ns of CPU an event"
        ));
        row
    }
}

/// For how long this thread has run, or could have run while others did; zero where the kernel does not tell.
fn awake() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(told.split_whitespace().take(2).filter_map(|ns| ns.parse::<u64>().ok()).sum())
}

/// Appends payloads one after the other.
struct Appender<'a> {
    file: &'a RedexFile,
    payloads: &'a Payloads,
    next: u64,
}

impl<'a> Appender<'a> {
    fn turn(&mut self, batch: usize, time: Duration) -> anyhow::Result<Turn> {
        if batch == 1 { self.singles(time) } else { self.batches(batch, time) }
    }

    /// Appends one event a call, and times one call in [`APPENDS_PER_SAMPLE`].
    fn singles(&mut self, time: Duration) -> anyhow::Result<Turn> {
        let mut latencies = Latencies::new();
        let first = self.next;
        let start = Instant::now();
        let mut now = start;
        while now - start < time && self.has_room() {
            for _ in 1..APPENDS_PER_SAMPLE {
                self.append()?;
            }
            let sent = Instant::now();
            self.append()?;
            now = Instant::now();
            latencies.record(now - sent);
        }
        Ok(Turn { latencies, events: self.next - first, elapsed: now - start })
    }

    fn append(&mut self) -> anyhow::Result<()> {
        self.file.append(self.payloads.get(self.next)).wait().context("appending")?;
        self.next += 1;
        Ok(())
    }

    /// Appends `batch` events a call; the latency is that of the call, for each event.
    fn batches(&mut self, batch: usize, time: Duration) -> anyhow::Result<Turn> {
        let mut latencies = Latencies::new();
        let mut payloads: Vec<&'a [u8]> = Vec::with_capacity(batch);
        let first = self.next;
        let start = Instant::now();
        let mut now = start;
        while now - start < time && self.has_room() {
            payloads.clear();
            let end = self.next + batch as u64;
            payloads.extend((self.next..end).map(|index| self.payloads.get(index)));
            self.file.append_batch(&payloads).wait().context("appending a batch")?;
            self.next = end;
            let done = Instant::now();
            latencies.record_n(done - now, batch as u64);
            now = done;
        }
        Ok(Turn { latencies, events: self.next - first, elapsed: now - start })
    }

    fn has_room(&self) -> bool {
        self.next * (self.payloads.size() as u64) < ROW_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that works is awake, and one that sleeps is not.
    #[test]
    fn sleep_is_told_from_work() {
        let (start, before) = (Instant::now(), awake());
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let worked = awake() - before;
        std::thread::sleep(Duration::from_millis(200));
        let slept = awake() - before - worked;
        assert!(worked >= Duration::from_millis(15), "{worked:?}");
        assert!(slept < Duration::from_millis(100), "{slept:?}");
    }
}
