//! `tail`: from an append to a subscriber on another thread, on a log on disk that does not wait for it.
//!
//! Paced: 5000 events a second, the subscriber spins or waits as the engine does; latency counts from the call of the append, whose
//! moment the first 8 bytes of the payload say. As fast as possible: one thread appends singly, until time is over; rate until the
//! subscriber has the last event.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::ensure;
use redex_bench::load::Payloads;
use redex_bench::pace::Pace;
use redex_bench::sample::{Latencies, Turn};

use super::contest::Contest;
use crate::engine::{By, Engine, Subscriber, Tailed};
use crate::report::row::Row;
use crate::run::Session;

const NAME: &str = "tail";
const PAYLOAD_SIZE: usize = 256;

/// Events a second when paced.
const RATE: f64 = 5000.0;

/// Bytes that engines prepare space for.
const ROOM_BYTES: u64 = 512 << 20;

/// Stamp of the last event of a turn.
const LAST: u64 = u64::MAX;

/// How the subscriber waits, and how events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Spinning,
    Waiting,
    Flood,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Spinning, Self::Waiting, Self::Flood];

    fn name(self) -> &'static str {
        match self {
            Self::Spinning => "paced, subscriber spins",
            Self::Waiting => "paced, subscriber waits",
            Self::Flood => "as fast as possible, subscriber waits",
        }
    }
}

/// Loads that it measures.
pub(super) const LOAD_COUNT: u64 = Mode::ALL.len() as u64;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    Mode::ALL.into_iter().try_for_each(|mode| load(session, mode))
}

fn load(session: &mut Session, mode: Mode) -> anyhow::Result<()> {
    session.doing(format!("{NAME}, {}", mode.name()));
    let payloads = session.payloads(PAYLOAD_SIZE);
    let offers = |engine: &dyn Engine| engine.offers().tail;
    let mut contest = Contest::open(session, "", &payloads, ROOM_BYTES, By::Threads, offers)?;
    let events_max = session.log_bytes_max() / PAYLOAD_SIZE as u64 / u64::from(session.turns);
    for _ in 0..session.turns {
        let time = session.turn_time;
        contest.round(|log, feed| {
            let turn = {
                let tailed = log.tailed().expect("an engine that offers a tail has one");
                turn(tailed, &feed.payloads, mode, time, events_max)
            };
            log.sync()?;
            turn
        });
    }
    contest.remove(session)?;
    let rows = contest.contestants.iter().map(|contestant| {
        let mut row = Row::of(NAME, contestant, PAYLOAD_SIZE);
        row.mode = mode.name();
        row
    });
    session.finish(rows.collect())
}

/// One subscription, made anew: it is at the end of the log when the turn begins.
fn turn(log: &dyn Tailed, payloads: &Payloads, mode: Mode, time: Duration, events_max: u64) -> anyhow::Result<Turn> {
    let mut subscriber = log.subscribe()?;
    let origin = Instant::now();
    std::thread::scope(|scope| {
        let appender = scope.spawn(move || append(log, payloads, mode, time, events_max, origin));
        let turn = follow(subscriber.as_mut(), mode, origin);
        appender.join().expect("the appending thread does not panic")?;
        turn
    })
}

/// Appends until the time is over, then the last event.
fn append(
    log: &dyn Tailed,
    payloads: &Payloads,
    mode: Mode,
    time: Duration,
    events_max: u64,
    origin: Instant,
) -> anyhow::Result<()> {
    let pace = Pace::new(origin, RATE);
    let mut payload = [0; PAYLOAD_SIZE];
    let mut number = 0;
    loop {
        payload.copy_from_slice(payloads.get(number));
        if mode != Mode::Flood {
            pace.wait(number);
        }
        let now = origin.elapsed();
        let last = now > time || number == events_max;
        let stamp = if last { LAST } else { now.as_nanos() as u64 };
        payload[..8].copy_from_slice(&stamp.to_le_bytes());
        log.append_one(&payload)?;
        if last {
            return Ok(());
        }
        number += 1;
    }
}

/// Takes events until the last one. A subscription whose log fails ends with an error by itself.
fn follow(subscriber: &mut dyn Subscriber, mode: Mode, origin: Instant) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let (mut count, mut wrong) = (0_u64, 0_u64);
    let last = Cell::new(false);
    let mut see = |event: &[u8]| {
        let now = origin.elapsed();
        match event.first_chunk().filter(|_| event.len() == PAYLOAD_SIZE).map(|stamp| u64::from_le_bytes(*stamp)) {
            None => wrong += 1,
            Some(LAST) => last.set(true),
            Some(stamp) => {
                count += 1;
                latencies.record(now.saturating_sub(Duration::from_nanos(stamp)));
            }
        }
    };
    while !last.get() {
        match mode {
            Mode::Spinning => drop(subscriber.poll(&mut see)?),
            Mode::Waiting | Mode::Flood => subscriber.wait(&mut see)?,
        }
    }
    ensure!(wrong == 0, "{wrong} events came with another size");
    Ok(Turn { latencies, events: count, elapsed: origin.elapsed() })
}
