//! `threads`: many blocking threads, each appending one durable event after the other; what an engine's group commit makes of them.
//!
//! An engine without group commit has every thread flush for itself. For engines with futures the same number of tasks on a
//! one-thread runtime follows, beside the threads of the others.

use redex_bench::raw_loop::{RawLoop, RawTurns};

use super::contest::Contest;
use crate::drive;
use crate::engine::By;
use crate::report::row::Row;
use crate::run::Session;

const NAME: &str = "threads";
const PAYLOAD_SIZE: usize = 256;
const COUNTS: [usize; 2] = [16, 256];

/// Time of each way of the raw loop in a round, as a share of an engine's.
const RAW_SHARE: f64 = 0.3;

/// Bytes that engines prepare space for.
const ROOM_BYTES: u64 = 128 << 20;

/// Distance between the payload numbers of two turns: no thread reaches the next one's in a turn.
const TURN_NUMBERS: u64 = 1 << 48;

/// Loads that it measures: threads, and tasks.
pub(super) const LOAD_COUNT: u64 = 2 * COUNTS.len() as u64;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut raw = RawLoop::new(&session.place("raw")?, COUNTS[1] * PAYLOAD_SIZE)?;
    COUNTS.into_iter().try_for_each(|count| load(session, &mut raw, count))?;
    session.place("raw").map(drop)
}

/// One row of threads for each engine, and one of tasks for those with futures.
fn load(session: &mut Session, raw: &mut RawLoop, count: usize) -> anyhow::Result<()> {
    session.doing(format!("{NAME}, {count} threads"));
    let payloads = session.payloads(PAYLOAD_SIZE);
    raw.load(&payloads, count);
    let offers = |engine: &dyn crate::engine::Engine| engine.offers().threads;
    let tasks = |engine: &dyn crate::engine::Engine| engine.offers().tasks;
    let mut by_threads = Contest::open(session, "", &payloads, ROOM_BYTES, By::Threads, offers)?;
    let mut by_tasks = Contest::open(session, "-tasks", &payloads, ROOM_BYTES, By::Threads, tasks)?;
    let (mut raw_turns, time) = (RawTurns::default(), session.turn_time);
    for round in 1..=u64::from(session.turns) {
        let first = round * TURN_NUMBERS;
        by_threads.round(|log, feed| {
            let shared = log.shared().expect("an engine that offers threads is shared");
            drive::threads(shared, &feed.payloads, first, count, time)
        });
        by_tasks.round(|log, feed| log.tasks_turn(&feed.payloads, first, count, time));
        raw_turns.take(raw, count, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
    }
    session.doing(format!("{NAME}, {count} threads: reading back"));
    by_threads.read_back(session)?;
    by_tasks.read_back(session)?;
    let limit = raw_turns.limit();
    for (mode, contest) in [("threads", &by_threads), ("tasks", &by_tasks)] {
        let rows = contest.contestants.iter().map(|contestant| {
            let mut row = Row::of(NAME, contestant, PAYLOAD_SIZE).beside(limit.as_ref());
            (row.mode, row.in_flight) = (mode, count as u64);
            row
        });
        session.finish(rows.collect())?;
    }
    Ok(())
}
