//! `scan`: reading a whole log that was written, closed and reopened, every event compared.
//!
//! The raw loop beside it reads as many payload bytes from a file with `O_DIRECT`, 1 MiB at a time, and looks at none of them.
//! Latency is that of a chunk, in which the events are looked at where they lie.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, RedexFile};

use super::Workload;
use crate::counters::Meter;
use crate::fill;
use crate::load::Payloads;
use crate::raw::AlignedBytes;
use crate::raw_loop::open_direct;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "scan";
const CHANNEL: &str = "bench/scan";
const PAYLOAD_SIZE: usize = 256;
const EVENT_COUNT: u64 = 1_000_000;
const QUICK_EVENT_COUNT: u64 = 200_000;

/// Bytes that the raw loop reads at once.
const READ_SIZE: usize = 1 << 20;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let count = if session.quick { QUICK_EVENT_COUNT } else { EVENT_COUNT };
    session.doing(format!("scan, filling {count} events"));
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    fill::append(&file, &payloads, 0, count)?;
    drop(file);
    store::close(redex)?;
    let raw = write_raw(&session.place("raw")?, count as usize * PAYLOAD_SIZE)?;

    session.doing(format!("scan, {count} events"));
    let time = session.row_time(Workload::Scan);
    let mut meter = Meter::new(&dir);
    let (mut turns, mut raw_rates) = (Turns::default(), Vec::new());
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    while turns.is_empty() || turns.elapsed() < time.mul_f64(0.7) {
        turns.push(meter.around(&redex, || turn(&file, &payloads, count))?);
        raw_rates.push(count as f64 / read_raw(&raw)?.as_secs_f64());
    }
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    session.place("store")?;
    session.place("raw")?;

    let row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    session.finish(row.beside_reads(raw_rates).costing(&meter.usage(), &facts))
}

fn turn(file: &RedexFile, payloads: &Payloads, count: u64) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let mut events = 0;
    let start = Instant::now();
    let mut sampled = start;
    let mut scan = file.scan(0..count);
    while let Some(chunk) = scan.next_chunk_wait() {
        let chunk = chunk.with_context(|| format!("reading event {events}"))?;
        for event in &chunk {
            ensure!(event.seq == events, "the scan gave event {} instead of {events}", event.seq);
            ensure!(*event.payload == *payloads.get(events), "event {events} reads back wrong");
            events += 1;
        }
        scan.check(&chunk)?;
        let now = Instant::now();
        latencies.record(now - sampled);
        sampled = now;
    }
    ensure!(events == count, "the scan ended after {events} of {count} events");
    Ok(Turn { latencies, events, elapsed: start.elapsed() })
}

fn write_raw(path: &Path, size: usize) -> anyhow::Result<std::path::PathBuf> {
    use std::io::Write;
    let mut file = open_direct(path).context("making the raw loop's file")?;
    let bytes = AlignedBytes::new(READ_SIZE);
    for _ in 0..size.div_ceil(READ_SIZE) {
        file.write_all(&bytes)?;
    }
    file.sync_all()?;
    Ok(path.to_owned())
}

fn read_raw(path: &Path) -> anyhow::Result<Duration> {
    use std::os::unix::fs::OpenOptionsExt;
    let direct = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    let mut file = direct.or_else(|_| std::fs::File::open(path))?;
    let mut bytes = AlignedBytes::new(READ_SIZE);
    let start = Instant::now();
    while file.read(&mut bytes)? > 0 {}
    Ok(start.elapsed())
}
