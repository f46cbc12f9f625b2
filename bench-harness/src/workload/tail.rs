//! `tail`: from the moment before an append to the moment a subscriber on another thread has the event.
//!
//! One thread appends at a steady rate ([`RATE`], or `--rate`) and sleeps in between; the subscriber spins on `try_next`, or
//! parks in `next_wait`. Latency counts from the call of `append`, whose moment the first 8 bytes of the payload say: a sleep that
//! ends late is not the engine's.
//!
//! What of `tail` is durable, and how many events a subscriber takes, is in `delivery`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redex::{FsyncPolicy, RedexFile};

use super::{Workload, delivery};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::pace::Pace;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

pub(super) const NAME: &str = "tail";
pub(super) const CHANNEL: &str = "bench/tail";
pub(super) const PAYLOAD_SIZE: usize = 256;

/// Events a second, unless `--rate` says otherwise.
const RATE: f64 = 5000.0;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 2 + delivery::ROW_COUNT;

/// How the subscriber waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Spinning,
    Parked,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    row(session, Waiting::Spinning)?;
    row(session, Waiting::Parked)?;
    delivery::run(session)
}

fn row(session: &mut Session, waiting: Waiting) -> anyhow::Result<()> {
    let mode = match waiting {
        Waiting::Spinning => "spin",
        Waiting::Parked => "parked",
    };
    session.doing(format!("tail, {mode}"));
    let rate = session.rate.unwrap_or(RATE);
    let count = ((session.row_time(Workload::Tail).as_secs_f64() * rate) as u64).max(1);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let mut meter = Meter::new(&dir);
    let mut turns = Turns::default();
    turns.push(meter.around(&redex, || turn(&file, &payloads, waiting, rate, count))?);
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    session.place("store")?;

    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    row.mode = mode;
    row.rate = Some(rate);
    session.finish(row.costing(&meter.usage(), &facts))
}

fn turn(file: &RedexFile, payloads: &Payloads, waiting: Waiting, rate: f64, count: u64) -> anyhow::Result<Turn> {
    let mut tail = file.subscribe_tail().wait().context("subscribing")?;
    let origin = Instant::now();
    std::thread::scope(|scope| {
        let appender = scope.spawn(move || append(file, payloads, rate, count, origin));
        let mut latencies = Latencies::new();
        for index in 0..count {
            let event = match waiting {
                Waiting::Parked => tail.next_wait(),
                Waiting::Spinning => loop {
                    match tail.try_next() {
                        None if appender.is_finished() && file.next_seq() <= index => break None,
                        None => std::hint::spin_loop(),
                        some => break some,
                    }
                },
            };
            let now = origin.elapsed();
            let Some(event) = event else { bail!("the tail ended at event {index} of {count}") };
            ensure!(event.seq == index, "the tail gave event {} instead of {index}", event.seq);
            ensure!(event.payload[8..] == payloads.get(index)[8..], "the tail gave a wrong payload for event {index}");
            latencies.record(now.saturating_sub(stamp(&event.payload)));
        }
        appender.join().expect("the appending thread does not panic")?;
        Ok(Turn { latencies, events: count, elapsed: origin.elapsed() })
    })
}

fn append(file: &RedexFile, payloads: &Payloads, rate: f64, count: u64, origin: Instant) -> anyhow::Result<()> {
    let pace = Pace::new(Instant::now(), rate);
    let mut payload = [0; PAYLOAD_SIZE];
    for index in 0..count {
        payload.copy_from_slice(payloads.get(index));
        pace.wait(index);
        payload[..8].copy_from_slice(&(origin.elapsed().as_nanos() as u64).to_le_bytes());
        file.append(payload).wait().context("appending")?;
    }
    Ok(())
}

/// When the append began, from the same origin.
pub(super) fn stamp(payload: &[u8]) -> Duration {
    let bytes = payload[..8].try_into().expect("eight bytes were sliced");
    Duration::from_nanos(u64::from_le_bytes(bytes))
}
