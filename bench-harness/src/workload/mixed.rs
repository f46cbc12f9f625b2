//! `mixed`: one thread that appends durable events beside one that reads old ones. Only with `--only mixed`.
//!
//! The channel has a million events (200,000 with `--quick`) in sealed segments when it is opened. The writer appends to the same channel, at full speed (256 in
//! flight, closed loop) or at half of what it does alone (open loop, in naps of about 0.1 ms, latency from when an event was due); the reader reads single events at
//! random, or ranges of 1000 from a random one on, whose latency is that of the whole range. Everything that is read is compared. Every pairing and each
//! alone take turns; of a pairing there is a row for either side, and `ratio_alone` is to the same load with nobody beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, RedexFile, RedexFileConfig};

use super::closed_loop::ClosedLoop;
use super::due::{DueLoop, Idle};
use super::{TURN_COUNT, Workload, crew};
use crate::counters::Meter;
use crate::fill;
use crate::load::{Payloads, splitmix64};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns, median};
use crate::store;

const NAME: &str = "mixed";
const CHANNEL: &str = "bench/mixed";
const PAYLOAD_SIZE: usize = 256;
const OLD_EVENTS: u64 = 1_000_000;
const QUICK_OLD_EVENTS: u64 = 200_000;
const SEGMENT_BYTES: u64 = 16 << 20;
/// Durable events in flight at full speed.
const IN_FLIGHT: usize = 256;
/// Events of a range.
const RANGE: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Full,
    Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Points,
    Ranges,
}

/// Who works beside whom, and what the rows of the writer and of the reader are called.
type Pairing = (Option<(Writing, &'static str)>, Option<(Reading, &'static str)>);

/// The writer at full speed alone comes first: half of that is what half means.
const PAIRINGS: [Pairing; 8] = [
    (Some((Writing::Full, "full-alone")), None),
    (Some((Writing::Half, "half-alone")), None),
    (None, Some((Reading::Points, "points-alone"))),
    (None, Some((Reading::Ranges, "ranges-alone"))),
    (Some((Writing::Full, "full-beside-points")), Some((Reading::Points, "points-beside-full"))),
    (Some((Writing::Full, "full-beside-ranges")), Some((Reading::Ranges, "ranges-beside-full"))),
    (Some((Writing::Half, "half-beside-points")), Some((Reading::Points, "points-beside-half"))),
    (Some((Writing::Half, "half-beside-ranges")), Some((Reading::Ranges, "ranges-beside-half"))),
];

/// Rows that it measures; a pairing's second row comes for free.
pub(super) const ROW_COUNT: u32 = PAIRINGS.len() as u32;

/// The channel, of whose events the first `old` were there from the start.
struct Log<'a> {
    files: &'a [RedexFile; 1],
    payloads: &'a Payloads,
    old: u64,
}

/// What was measured of a pairing.
struct Measured {
    meter: Meter,
    writer: Turns,
    reader: Turns,
    /// Events a second that were due, of a writer at half speed.
    rates: Vec<f64>,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let old = if session.quick { QUICK_OLD_EVENTS } else { OLD_EVENTS };
    session.doing(format!("mixed, filling {old} events"));
    let times = PAIRINGS.map(|_| session.row_time(Workload::Mixed) / TURN_COUNT);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never);
    let config = config.with_segment_bytes(SEGMENT_BYTES);
    let redex = store::open(&dir, session.backend)?;
    fill::append(&store::channel_with(&redex, CHANNEL, config.clone())?, &payloads, 0, old)?;
    store::close(redex)?;

    let redex = store::open(&dir, session.backend)?;
    let files = [store::channel_with(&redex, CHANNEL, config.clone())?];
    let log = Log { files: &files, payloads: &payloads, old };
    let new =
        || Measured { meter: Meter::new(&dir), writer: Turns::default(), reader: Turns::default(), rates: Vec::new() };
    let mut measured = PAIRINGS.map(|_| new());
    let mut seed = session.seed_for(2);
    for _ in 0..TURN_COUNT {
        for (index, ((writing, reading), time)) in PAIRINGS.into_iter().zip(times).enumerate() {
            let names = [writing.map(|(_, name)| name), reading.map(|(_, name)| name)];
            session.doing(format!("mixed, {}", names.into_iter().flatten().collect::<Vec<_>>().join(" ")));
            let half = measured[0].writer.rate() / 2.0;
            let Measured { meter, writer, reader, rates } = &mut measured[index];
            rates.push(half);
            let mut both = (None, None);
            meter.around(&redex, || {
                both = log.turn(writing.map(|(kind, _)| kind), reading.map(|(kind, _)| kind), half, time, &mut seed)?;
                both.0.clone().or_else(|| both.1.clone()).context("a pairing has somebody in it")
            })?;
            both.0.into_iter().for_each(|turn| writer.push(turn));
            both.1.into_iter().for_each(|turn| reader.push(turn));
        }
    }
    let (appended, facts) = (files[0].durable(), redex.stats().io);
    drop(files);
    store::close(redex)?;
    let redex = store::open(&dir, session.backend).context("reopening to read back")?;
    let file = store::channel_with(&redex, CHANNEL, config)?;
    readback::holds(&file, appended)?;
    for _ in 0..readback::SAMPLE_COUNT {
        let seq = splitmix64(&mut seed) % appended;
        readback::compare(&file, seq, payloads.get(seq))?;
    }
    drop(file);
    store::close(redex)?;
    session.place("store")?;
    rows(session, &measured, old, &facts)
}

fn rows(session: &mut Session, measured: &[Measured], old: u64, facts: &redex::IoFacts) -> anyhow::Result<()> {
    for ((writing, reading), Measured { meter, writer, reader, rates }) in PAIRINGS.into_iter().zip(measured) {
        if let Some((kind, mode)) = writing {
            let alone = &measured[usize::from(kind == Writing::Half)].writer;
            let mut row = compared(Row::new(NAME, "redex", PAYLOAD_SIZE, writer, &session.machine), alone, mode, old);
            match kind {
                Writing::Full => row.in_flight = IN_FLIGHT as u64,
                Writing::Half => row.rate = Some(median(rates.clone())),
            }
            session.finish(row.costing(&meter.usage(), facts))?;
        }
        if let Some((kind, mode)) = reading {
            let alone = &measured[if kind == Reading::Points { 2 } else { 3 }].reader;
            let mut row = compared(Row::new(NAME, "redex", PAYLOAD_SIZE, reader, &session.machine), alone, mode, old);
            if kind == Reading::Ranges {
                row.batch = RANGE;
            }
            session.finish(row)?;
        }
    }
    Ok(())
}

/// The row beside the same load with nobody else.
fn compared(mut row: Row, alone: &Turns, mode: &'static str, old: u64) -> Row {
    (row.mode, row.log_events) = (mode, Some(old));
    let rate = row.events_per_s / alone.rate().max(1e-9);
    let p50 = row.p50_ns as f64 / alone.p50().max(1) as f64;
    row.numbers.insert("ratio_alone".to_owned(), rate);
    row.numbers.insert("ratio_alone_p50".to_owned(), p50);
    row.note = Some(format!("{rate:.2}x alone, p50 {p50:.2}x"));
    row
}

impl Log<'_> {
    /// The writer's turn and the reader's, side by side. A reader beside a writer reads as long as that takes.
    fn turn(
        &self,
        writing: Option<Writing>,
        reading: Option<Reading>,
        half: f64,
        time: Duration,
        seed: &mut u64,
    ) -> anyhow::Result<(Option<Turn>, Option<Turn>)> {
        let (over, own_seed) = (AtomicBool::new(false), splitmix64(seed));
        let over = &over;
        let mut jobs: Vec<Box<dyn FnOnce() -> anyhow::Result<Turn> + Send + '_>> = Vec::new();
        if let Some(writing) = writing {
            jobs.push(Box::new(move || {
                let turn = self.write(writing, half, time);
                over.store(true, Ordering::Relaxed);
                turn
            }));
        }
        if let Some(reading) = reading {
            let until = writing.is_none().then_some(time);
            jobs.push(Box::new(move || {
                let start = Instant::now();
                let goes_on = || !over.load(Ordering::Relaxed) && until.is_none_or(|time| start.elapsed() < time);
                self.read(reading, own_seed, goes_on)
            }));
        }
        let (turns, _) = crew::together(jobs)?;
        let mut turns = turns.into_iter();
        let writer = if writing.is_some() { turns.next() } else { None };
        Ok((writer, turns.next()))
    }

    fn write(&self, writing: Writing, half: f64, time: Duration) -> anyhow::Result<Turn> {
        match writing {
            Writing::Full => ClosedLoop::resuming(self.files, self.payloads).turn(IN_FLIGHT, time),
            Writing::Half => DueLoop::new(&self.files[0], self.payloads, Idle::Sleeping).turn(half, time),
        }
    }

    fn read(&self, reading: Reading, mut seed: u64, goes_on: impl Fn() -> bool) -> anyhow::Result<Turn> {
        let mut latencies = Latencies::new();
        let (mut events, mut elapsed) = (0, Duration::ZERO);
        while events == 0 || goes_on() {
            let random = splitmix64(&mut seed);
            let start = Instant::now();
            let got = match reading {
                Reading::Points => self.read_one(random % self.old)?,
                Reading::Ranges => self.read_range(random % (self.old - RANGE))?,
            };
            let took = start.elapsed();
            latencies.record_n(took, got);
            events += got;
            elapsed += took;
        }
        Ok(Turn { latencies, events, elapsed })
    }

    fn read_one(&self, seq: u64) -> anyhow::Result<u64> {
        readback::compare(&self.files[0], seq, self.payloads.get(seq)).map(|()| 1)
    }

    /// Looks at the events of a range where they lie, and compares each.
    fn read_range(&self, first: u64) -> anyhow::Result<u64> {
        let mut scan = self.files[0].scan(first..first + RANGE);
        let mut next = first;
        while let Some(chunk) = scan.next_chunk_wait() {
            let chunk = chunk.with_context(|| format!("reading event {next}"))?;
            for event in &chunk {
                ensure!(event.seq == next, "the scan gave event {} instead of {next}", event.seq);
                ensure!(*event.payload == *self.payloads.get(next), "event {next} reads back wrong");
                next += 1;
            }
            scan.check(&chunk)?;
        }
        ensure!(next == first + RANGE, "the scan ended at event {next}");
        Ok(RANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row is compared with is the same load with nobody beside it.
    #[test]
    fn the_first_four_pairings_are_those_alone() {
        assert_eq!(PAIRINGS[0].0.map(|(kind, _)| kind), Some(Writing::Full));
        assert_eq!(PAIRINGS[1].0.map(|(kind, _)| kind), Some(Writing::Half));
        assert_eq!(PAIRINGS[2].1.map(|(kind, _)| kind), Some(Reading::Points));
        assert_eq!(PAIRINGS[3].1.map(|(kind, _)| kind), Some(Reading::Ranges));
        assert!(PAIRINGS[..4].iter().all(|(writer, reader)| writer.is_some() != reader.is_some()));
        assert!(PAIRINGS[4..].iter().all(|(writer, reader)| writer.is_some() && reader.is_some()));
    }
}
