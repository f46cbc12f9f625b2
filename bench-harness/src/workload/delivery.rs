//! The rows of `tail` beside the latency of what is published.
//!
//! `durable`: one thread appends a durable event as soon as the one before is acknowledged (with `--rate`, when it is due); a subscriber with `durable_only` sleeps until each is there. The raw loop
//! commits as many bytes, one write after the other, in turns with it; `over_durable_p50_ns` is what delivery takes beyond that. `stream`: one thread appends to a store on disk as fast as it can, and one subscriber takes every event; the
//! rate is the subscriber's, to the last event, the latency that of 1000 events. `slices`: the events of a channel in memory, looked at where they lie, in
//! chunks; the latency is that of a chunk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig, Tail};

use super::tail::{self, CHANNEL, NAME};
use super::{TURN_COUNT, Workload, crew};
use crate::counters::Meter;
use crate::fill;
use crate::load::Payloads;
use crate::pace::Pace;
use crate::raw::process_cpu_ns;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const PAYLOAD_SIZE: usize = tail::PAYLOAD_SIZE;
/// Payload bytes that a turn of `stream` appends at the most.
const STREAM_BYTES_MAX: u64 = 1 << 30;
/// Events that one latency of `stream` covers.
const EVENTS_PER_SAMPLE: u64 = 1000;
/// One event of `stream` in this many is compared whole, and of all others the sequence.
const EVENTS_PER_COMPARE: u64 = 16;
const SLICE_PAYLOAD_SIZE: usize = 64;
const SLICE_EVENTS: u64 = 1_000_000;

/// How a row's time is dealt out: 0.7 to the engine, 0.1 to each way of the raw loop.
const ENGINE_SHARE: f64 = 0.7;
const RAW_SHARE: f64 = 0.1;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 3;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    durable(session)?;
    stream(session)?;
    slices(session)
}

fn durable(session: &mut Session) -> anyhow::Result<()> {
    session.doing("tail, durable".to_owned());
    let rate = session.rate;
    let time = session.row_time(Workload::Tail) / TURN_COUNT;
    let payloads = Payloads::new(session.seed_for(2), PAYLOAD_SIZE);
    let mut raw = RawLoop::new(&session.place("raw")?, PAYLOAD_SIZE)?;
    raw.load(&payloads, 1);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let (mut meter, mut raw_turns) = (Meter::new(&dir), RawTurns::default());
    let (mut delivered, mut acknowledged) = (Turns::default(), Turns::default());
    for _ in 0..TURN_COUNT {
        delivered.push(meter.around(&redex, || {
            let (reader, writer) = durable_turn(&file, &payloads, rate, time.mul_f64(ENGINE_SHARE))?;
            acknowledged.push(writer);
            Ok(reader)
        })?);
        raw_turns.take(&mut raw, 1, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
    }
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    session.place("store")?;
    session.place("raw")?;

    let limit = raw_turns.limit();
    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &delivered, &session.machine);
    (row.mode, row.rate) = ("durable", rate);
    let over = limit.as_ref().map_or(0.0, |limit| row.p50_ns as f64 - limit.p50_ns as f64);
    row.numbers.insert("over_durable_p50_ns".to_owned(), over);
    row.numbers.insert("acknowledged_p50_ns".to_owned(), acknowledged.p50() as f64);
    let (over_us, acknowledged_us) = (over / 1e3, acknowledged.p50() as f64 / 1e3);
    row.note =
        Some(format!("{over_us:+.1} us to the raw commit; the writer's acknowledgement p50 {acknowledged_us:.1} us"));
    session.finish(row.beside(limit).costing(&meter.usage(), &facts))
}

/// Where a turn ends, once the writer knows: it says so before its last append, which wakes the subscriber.
type End = AtomicU64;

/// The subscriber's turn, and the writer's.
fn durable_turn(
    file: &RedexFile,
    payloads: &Payloads,
    rate: Option<f64>,
    time: Duration,
) -> anyhow::Result<(Turn, Turn)> {
    let end = End::new(u64::MAX);
    let (first, end) = (file.next_seq(), &end);
    let tail = file.subscribe_tail().wait().context("subscribing")?.durable_only();
    let origin = Instant::now();
    pair(
        move || take_durable(file, tail, payloads, first, end, origin),
        move || crew::or_close(file, append_durable(file, payloads, rate, time, end, origin)),
    )
}

/// Runs a subscriber and a writer side by side.
fn pair(
    reader: impl FnOnce() -> anyhow::Result<Turn> + Send,
    writer: impl FnOnce() -> anyhow::Result<Turn> + Send,
) -> anyhow::Result<(Turn, Turn)> {
    let jobs: [Box<dyn FnOnce() -> anyhow::Result<Turn> + Send + '_>; 2] = [Box::new(reader), Box::new(writer)];
    let (turns, _) = crew::together(jobs)?;
    let [reader, writer] = turns.try_into().ok().context("there are two turns")?;
    Ok((reader, writer))
}

fn take_durable(
    file: &RedexFile,
    mut tail: Tail,
    payloads: &Payloads,
    first: u64,
    end: &End,
    origin: Instant,
) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let (mut next, start) = (first, Instant::now());
    while next < end.load(Ordering::Acquire) {
        let event = tail.next_wait().with_context(|| format!("the tail ended at event {next}"))?;
        let now = origin.elapsed();
        ensure!(event.seq == next, "the tail gave event {} instead of {next}", event.seq);
        ensure!(file.durable() > next, "the tail gave event {next}, which is not durable");
        ensure!(event.payload[8..] == payloads.get(next)[8..], "the tail gave a wrong payload for event {next}");
        latencies.record(now.saturating_sub(tail::stamp(&event.payload)));
        next += 1;
    }
    Ok(Turn { latencies, events: next - first, elapsed: start.elapsed() })
}

fn append_durable(
    file: &RedexFile,
    payloads: &Payloads,
    rate: Option<f64>,
    time: Duration,
    end: &End,
    origin: Instant,
) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let (first, start) = (file.next_seq(), Instant::now());
    let pace = rate.map(|rate| Pace::new(start, rate));
    let mut payload = [0; PAYLOAD_SIZE];
    let mut next = first;
    loop {
        payload.copy_from_slice(payloads.get(next));
        if let Some(pace) = pace {
            pace.wait(next - first);
        }
        let last = start.elapsed() >= time;
        if last {
            end.store(next + 1, Ordering::Release);
        }
        let sent = origin.elapsed();
        payload[..8].copy_from_slice(&(sent.as_nanos() as u64).to_le_bytes());
        file.append_durable(payload).wait().context("appending")?;
        latencies.record(origin.elapsed() - sent);
        next += 1;
        if last {
            return Ok(Turn { latencies, events: next - first, elapsed: start.elapsed() });
        }
    }
}

fn stream(session: &mut Session) -> anyhow::Result<()> {
    session.doing("tail, stream".to_owned());
    let time = session.row_time(Workload::Tail) / TURN_COUNT;
    let payloads = Payloads::new(session.seed_for(3), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let mut meter = Meter::new(&dir);
    let (mut received, mut appended) = (Turns::default(), Turns::default());
    for _ in 0..TURN_COUNT {
        received.push(meter.around(&redex, || {
            let (reader, writer) = stream_turn(&file, &payloads, time)?;
            appended.push(writer);
            Ok(reader)
        })?);
        // What still lies in memory is not to run into the next turn.
        file.sync().wait().context("syncing")?;
    }
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    session.place("store")?;

    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &received, &session.machine);
    row.mode = "stream";
    row.numbers.insert("writer_events_per_s".to_owned(), appended.rate());
    let rate = appended.rate() / 1e6;
    row.note = Some(format!("received; the writer {rate:.2} M/s meanwhile; latency is that of 1000 events or a chunk"));
    session.finish(row.costing(&meter.usage(), &facts))
}

/// The subscriber's turn, and the writer's.
fn stream_turn(file: &RedexFile, payloads: &Payloads, time: Duration) -> anyhow::Result<(Turn, Turn)> {
    let first = file.next_seq();
    let end = End::new(u64::MAX);
    let end = &end;
    let tail = file.subscribe_tail().wait().context("subscribing")?;
    pair(
        move || take_all(tail, payloads, first, end),
        move || crew::or_close(file, append_for(file, payloads, first, time, end)),
    )
}

fn take_all(mut tail: Tail, payloads: &Payloads, first: u64, end: &End) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let (mut next, start) = (first, Instant::now());
    let (mut sampled, mut sampled_at) = (start, 0);
    while next < end.load(Ordering::Acquire) {
        let chunk = tail.next_chunk().wait().with_context(|| format!("the tail ended at event {next}"))?;
        for event in &chunk {
            ensure!(event.seq == next, "the tail gave event {} instead of {next}", event.seq);
            let whole = next.is_multiple_of(EVENTS_PER_COMPARE);
            ensure!(!whole || *event.payload == *payloads.get(next), "the tail gave a wrong payload for event {next}");
            next += 1;
        }
        tail.check(&chunk)?;
        if next - first >= sampled_at + EVENTS_PER_SAMPLE {
            let now = Instant::now();
            latencies.record(now - sampled);
            (sampled, sampled_at) = (now, next - first);
        }
    }
    Ok(Turn { latencies, events: next - first, elapsed: start.elapsed() })
}

fn append_for(file: &RedexFile, payloads: &Payloads, first: u64, time: Duration, end: &End) -> anyhow::Result<Turn> {
    let (mut next, start) = (first, Instant::now());
    let append = |seq: u64| file.append(payloads.get(seq)).wait().map(drop).context("appending");
    while start.elapsed() < time && (next - first) * (PAYLOAD_SIZE as u64) < STREAM_BYTES_MAX {
        (next..next + 64).try_for_each(append)?;
        next += 64;
    }
    end.store(next + 1, Ordering::Release);
    append(next)?;
    Ok(Turn { latencies: Latencies::new(), events: next + 1 - first, elapsed: start.elapsed() })
}

fn slices(session: &mut Session) -> anyhow::Result<()> {
    session.doing("tail, slices".to_owned());
    let time = session.row_time(Workload::Tail).mul_f64(ENGINE_SHARE);
    let payloads = Payloads::new(session.seed_for(4), SLICE_PAYLOAD_SIZE);
    let redex = Redex::in_memory();
    let file = store::channel_with(&redex, CHANNEL, RedexFileConfig::default())?;
    fill::append(&file, &payloads, 0, SLICE_EVENTS)?;
    let (mut turns, mut chunks, mut cpu_ns) = (Turns::default(), 0, 0);
    while turns.is_empty() || turns.elapsed() < time {
        let before = process_cpu_ns();
        let turn = slices_turn(&file, &payloads)?;
        cpu_ns += process_cpu_ns() - before;
        chunks += turn.latencies.histogram().len();
        turns.push(turn);
    }
    let mut row = Row::new(NAME, "redex", SLICE_PAYLOAD_SIZE, &turns, &session.machine);
    row.mode = "slices";
    row.batch = row.events / chunks.max(1);
    row.numbers.insert("cpu_ns_per_event".to_owned(), cpu_ns as f64 / row.events.max(1) as f64);
    row.note = Some("in memory, looked at in chunks; latency is that of a chunk".to_owned());
    session.finish(row)
}

/// Looks at every event where it lies: its sequence, its length, its first bytes.
fn slices_turn(file: &RedexFile, payloads: &Payloads) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let (mut next, mut wrong, mut sum) = (0, 0_u64, 0_u64);
    let mut scan = file.scan(0..SLICE_EVENTS);
    let start = Instant::now();
    let mut before = start;
    while let Some(chunk) = scan.next_chunk_wait() {
        let chunk = chunk.with_context(|| format!("reading event {next}"))?;
        for event in &chunk {
            wrong += u64::from(event.seq != next || event.payload.len() != SLICE_PAYLOAD_SIZE);
            sum ^= head(event.payload);
            next += 1;
        }
        scan.check(&chunk)?;
        let now = Instant::now();
        latencies.record(now - before);
        before = now;
    }
    let elapsed = start.elapsed();
    let expected = (0..next).fold(0, |sum, seq| sum ^ head(payloads.get(seq)));
    ensure!(wrong == 0 && next == SLICE_EVENTS, "the scan gave {next} of {SLICE_EVENTS} events, {wrong} wrong");
    ensure!(sum == expected, "the events read back wrong");
    Ok(Turn { latencies, events: next, elapsed })
}

fn head(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
