//! `reopen`: from opening the store to having read the last event, of a log with 10 million events and of one with a tenth.
//!
//! After a clean close, up to seven times; after a kill, up to three times, each by a process that appended 500,000 events more, synced, and was killed while it
//! went on appending. `p50` is the median time of an opening, `events_per_s` the events in the log over it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use redex::FsyncPolicy;

use super::Workload;
use crate::fill::{self, CHANNEL, PAYLOAD_SIZE};
use crate::load::Payloads;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "reopen";
const EVENT_COUNTS: [u64; 2] = [1_000_000, 10_000_000];
const QUICK_EVENT_COUNTS: [u64; 2] = [100_000, 1_000_000];

/// Events that the process appends before it is killed.
const KILLED_COUNT: u64 = 500_000;
const QUICK_KILLED_COUNT: u64 = 50_000;

/// Openings of a cleanly closed store.
const CLEAN_TURNS: usize = 7;

/// Openings after a kill; each needs its own.
const KILLED_TURNS: usize = 3;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 2 * EVENT_COUNTS.len() as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let counts = if session.quick { QUICK_EVENT_COUNTS } else { EVENT_COUNTS };
    counts.into_iter().try_for_each(|count| both(session, count))
}

/// The row after a clean close, then that after a kill, on one store.
fn both(session: &mut Session, count: u64) -> anyhow::Result<()> {
    session.doing(format!("reopen, filling {count} events"));
    let seed = session.seed_for(1);
    let payloads = Payloads::new(seed, PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    fill::append(&file, &payloads, 0, count)?;
    drop(file);
    store::close(redex)?;
    clean(session, &dir, &payloads, count)?;
    killed(session, &dir, &payloads, seed, count)?;
    session.place("store").map(drop)
}

fn clean(session: &mut Session, dir: &Path, payloads: &Payloads, count: u64) -> anyhow::Result<()> {
    session.doing(format!("reopen, {count} events, closed"));
    let patience = Patience::new(session.row_time(Workload::Reopen));
    let mut turns = Turns::default();
    for turn in 0..CLEAN_TURNS {
        if patience.lasts(turn) {
            turns.push(open_once(session, dir, payloads, count)?.0);
        }
    }
    let row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    finish(session, row, "clean", count)
}

fn killed(session: &mut Session, dir: &Path, payloads: &Payloads, seed: u64, count: u64) -> anyhow::Result<()> {
    session.doing(format!("reopen, {count} events, killed"));
    let patience = Patience::new(session.row_time(Workload::Reopen));
    let added = if session.quick { QUICK_KILLED_COUNT } else { KILLED_COUNT };
    let (mut turns, mut events) = (Turns::default(), count);
    for turn in 0..KILLED_TURNS {
        if patience.lasts(turn) {
            fill::fill_and_kill(dir, seed, added, session.backend)?;
            let (opening, found) = open_once(session, dir, payloads, events + added)?;
            turns.push(opening);
            events = found;
        }
    }
    let row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    finish(session, row, "killed", count)
}

/// Fewer openings where each takes long; at least one.
struct Patience {
    start: Instant,
    time: Duration,
}

impl Patience {
    fn new(time: Duration) -> Self {
        Self { start: Instant::now(), time }
    }

    fn lasts(&self, turn: usize) -> bool {
        turn == 0 || self.start.elapsed() < self.time
    }
}

/// Opens the store, reads the last event and closes it; checks that at least `count` events are there, and says how many.
fn open_once(session: &Session, dir: &Path, payloads: &Payloads, count: u64) -> anyhow::Result<(Turn, u64)> {
    let start = Instant::now();
    let redex = store::open(dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let found = file.next_seq();
    let last = file.read_one(found.saturating_sub(1)).wait().context("reading the last event")?;
    let elapsed = start.elapsed();
    drop(last);
    readback::holds(&file, count)?;
    for seq in [0, count / 2, count - 1, found - 1] {
        readback::compare(&file, seq, payloads.get(seq))?;
    }
    drop(file);
    store::close(redex)?;
    Ok((one_opening(elapsed, found), found))
}

fn one_opening(elapsed: Duration, events: u64) -> Turn {
    let mut latencies = Latencies::new();
    latencies.record(elapsed);
    Turn { latencies, events, elapsed }
}

fn finish(session: &mut Session, mut row: Row, mode: &'static str, count: u64) -> anyhow::Result<()> {
    row.mode = mode;
    row.log_events = Some(count);
    if session.quick {
        row.note = Some("--quick: a tenth of the events".to_owned());
    }
    session.finish(row)
}
