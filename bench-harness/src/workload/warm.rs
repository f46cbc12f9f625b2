//! `warm`: reading sealed segments from their mappings, and single events in each tier.
//!
//! A scan takes one core: events are shown borrowed, in chunks; the visitor looks at each one's sequence, length and first bytes. `cold`
//! has the page cache emptied of the store's files before the store is opened, `first` has them cached, so that every block and
//! payload is checked from memory, and `second` is the scan after that one. `MB/s` of payload are `events_per_s` times the size.
//! Latency is that of a chunk.
//!
//! A `page`, `active` or `warm` row reads single events by sequence, from memory, from the segment that is being written, and
//! from a sealed one. A `seek` row finds the first event at or after the time of a random sealed event.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig};

use super::Workload;
use crate::fill;
use crate::load::{Payloads, mix};
use crate::raw;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "warm";
const CHANNEL: &str = "bench/warm";
const PAYLOAD_SIZES: [usize; 2] = [64, 4096];
/// Payload bytes of a segment.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Segments that are filled; the last is the active one.
const SEGMENTS: u64 = 7;
const QUICK_SEGMENTS: u64 = 3;
/// Single reads between two looks at the clock of a row.
const READS_PER_TURN: u64 = 500;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 7 * PAYLOAD_SIZES.len() as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    PAYLOAD_SIZES.into_iter().try_for_each(|size| with_payloads(session, size))
}

/// A filled log.
struct Log {
    dir: std::path::PathBuf,
    payloads: Payloads,
    /// Events in sealed segments.
    sealed: u64,
    /// All events.
    count: u64,
}

impl Log {
    fn open(&self, session: &Session) -> anyhow::Result<(Redex, RedexFile)> {
        let redex = store::open(&self.dir, session.backend)?;
        let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never);
        let file = redex.open_file(CHANNEL, config.with_segment_bytes(SEGMENT_BYTES)).context("opening the channel")?;
        Ok((redex, file))
    }
}

fn with_payloads(session: &mut Session, size: usize) -> anyhow::Result<()> {
    let segments = if session.quick { QUICK_SEGMENTS } else { SEGMENTS };
    let per_segment = SEGMENT_BYTES / size as u64;
    let log = Log {
        dir: session.place("store")?,
        payloads: Payloads::new(session.seed_for(1), size),
        // Pages that end early leave a segment with fewer events than would fit; so this many are surely sealed.
        sealed: per_segment * (segments - 2),
        count: per_segment * segments - per_segment / 2,
    };
    session.doing(format!("warm, filling {} events of {size} B", log.count));
    let (redex, file) = log.open(session)?;
    fill::append(&file, &log.payloads, 0, log.count)?;
    drop(file);
    store::close(redex)?;

    for mode in ["cold", "first", "second"] {
        scan_row(session, &log, mode)?;
    }
    for mode in ["page", "active", "warm"] {
        point_row(session, &log, mode)?;
    }
    seek_row(session, &log)?;
    session.place("store").map(drop)
}

fn scan_row(session: &mut Session, log: &Log, mode: &'static str) -> anyhow::Result<()> {
    session.doing(format!("warm, {mode} scan of {} events of {} B", log.sealed, log.payloads.size()));
    let time = session.row_time(Workload::Warm).mul_f64(0.7);
    let (mut turns, mut cpu_ns) = (Turns::default(), 0);
    while turns.is_empty() || (turns.elapsed() < time && turns.len() < 20) {
        if mode == "cold" {
            uncache(&log.dir)?;
        }
        let (redex, file) = log.open(session)?;
        if mode == "second" {
            scan(&file, log)?;
        }
        let (turn, took_ns) = scan(&file, log)?;
        turns.push(turn);
        cpu_ns += took_ns;
        drop(file);
        store::close(redex)?;
    }
    let mut row = Row::new(NAME, "redex", log.payloads.size(), &turns, &session.machine);
    row.mode = mode;
    // On a machine that others use, what one core does shows by its own time.
    let per_s = turns.events() as f64 / (cpu_ns.max(1) as f64 / 1e9);
    let gb_per_s = per_s * log.payloads.size() as f64 / 1e9;
    row.note = Some(format!("by processor time {:.1} M events/s, {gb_per_s:.2} GB/s", per_s / 1e6));
    session.finish(row)
}

/// Looks at all sealed events. Also says how much processor time it took, ns.
fn scan(file: &RedexFile, log: &Log) -> anyhow::Result<(Turn, u64)> {
    let size = log.payloads.size();
    let mut latencies = Latencies::new();
    let (mut next, mut wrong, mut sum) = (0, 0_u64, 0_u64);
    let cpu_before = raw::process_cpu_ns();
    let start = Instant::now();
    let mut before = start;
    let mut scan = file.scan(0..log.sealed);
    while let Some(chunk) = scan.next_chunk_wait() {
        let chunk = chunk.with_context(|| format!("reading event {next}"))?;
        for event in &chunk {
            wrong += u64::from(event.seq != next || event.payload.len() != size);
            sum ^= event.payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            next += 1;
        }
        scan.check(&chunk)?;
        let now = Instant::now();
        latencies.record(now - before);
        before = now;
    }
    let (elapsed, cpu_ns) = (start.elapsed(), raw::process_cpu_ns() - cpu_before);
    let mut expected = 0;
    (0..next).for_each(|i| expected ^= log.payloads.get(i).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)));
    ensure!(wrong == 0 && next == log.sealed, "the scan gave {next} of {} events, {wrong} wrong", log.sealed);
    ensure!(sum == expected, "the events read back wrong");
    Ok((Turn { latencies, events: next, elapsed }, cpu_ns))
}

fn point_row(session: &mut Session, log: &Log, mode: &'static str) -> anyhow::Result<()> {
    session.doing(format!("warm, single events of {} B, {mode}", log.payloads.size()));
    let time = session.row_time(Workload::Warm).mul_f64(0.7);
    let (redex, file) = log.open(session)?;
    let first = file.next_seq();
    ensure!(first >= log.count, "the log has {first} events");
    let events = match mode {
        "page" => {
            // Too little for a block of index records: it stays in its page.
            let fresh: Vec<_> = (first..first + 100).map(|i| log.payloads.get(i)).collect();
            file.append_batch(&fresh).wait().context("appending")?;
            first..first + 100
        }
        "active" => log.count - 20_000.min(log.count / 20)..log.count - 300,
        _ => 0..log.sealed,
    };
    let mut turns = Turns::default();
    let (mut seed, until) = (1, Instant::now() + time);
    while turns.is_empty() || Instant::now() < until {
        let mut latencies = Latencies::new();
        let mut elapsed = Duration::ZERO;
        for _ in 0..READS_PER_TURN {
            seed += 1;
            let seq = events.start + mix(seed) % (events.end - events.start);
            let start = Instant::now();
            let event = file.read_one(seq).wait()?.with_context(|| format!("event {seq} is not there"))?;
            let took = start.elapsed();
            latencies.record(took);
            elapsed += took;
            let filled = if seq < log.count {
                &event.payload[..] == log.payloads.get(seq)
            } else {
                event.payload.len() == log.payloads.size()
            };
            ensure!(event.seq == seq && filled, "event {seq} reads back wrong");
        }
        turns.push(Turn { latencies, events: READS_PER_TURN, elapsed });
    }
    drop(file);
    store::close(redex)?;
    let mut row = Row::new(NAME, "redex", log.payloads.size(), &turns, &session.machine);
    row.mode = mode;
    session.finish(row)
}

fn seek_row(session: &mut Session, log: &Log) -> anyhow::Result<()> {
    session.doing(format!("warm, searches by time over events of {} B", log.payloads.size()));
    let time = session.row_time(Workload::Warm).mul_f64(0.7);
    let (redex, file) = log.open(session)?;
    let mut turns = Turns::default();
    let (mut seed, until) = (1, Instant::now() + time);
    while turns.is_empty() || Instant::now() < until {
        let mut latencies = Latencies::new();
        let mut elapsed = Duration::ZERO;
        for _ in 0..READS_PER_TURN {
            seed += 1;
            let seq = mix(seed) % log.sealed;
            let wanted = file.read_one(seq).wait()?.context("reading an event's time")?.time;
            let start = Instant::now();
            let found = file.seek_time(wanted).wait()?;
            let took = start.elapsed();
            latencies.record(took);
            elapsed += took;
            ensure!(found <= seq, "event {seq} has the time that was looked for, but {found} was found");
        }
        turns.push(Turn { latencies, events: READS_PER_TURN, elapsed });
    }
    drop(file);
    store::close(redex)?;
    let mut row = Row::new(NAME, "redex", log.payloads.size(), &turns, &session.machine);
    row.mode = "seek";
    session.finish(row)
}

/// Takes the store's files out of the page cache.
fn uncache(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            uncache(&path)?;
        } else {
            raw::uncache(&std::fs::File::open(&path)?)?;
        }
    }
    Ok(())
}
