//! `durable`: one committer with N appends outstanding, each of which counts when it would survive a power cut.
//!
//! An engine's own batch call and its own sync, N events a commit; ours has N futures in flight in a closed loop. The bare device
//! writes the same bytes in one write and one flush.

use redex_bench::raw_loop::{RawLoop, RawTurns};

use super::contest::Contest;
use crate::engine::By;
use crate::report::row::Row;
use crate::run::Session;

const NAME: &str = "durable";
const IN_FLIGHT: [usize; 4] = [1, 16, 256, 4096];
const PAYLOAD_SIZES: [usize; 2] = [256, 4096];

/// Time of each way of the raw loop in a round, as a share of an engine's.
const RAW_SHARE: f64 = 0.5;

/// What comes before the first round is not counted: logs make files that they will use again and again, each at another time. So many
/// events are in flight at the least, for this share of a turn.
const WARM_UP_IN_FLIGHT: usize = 256;
const WARM_UP_SHARE: f64 = 0.5;

/// Bytes that engines prepare space for: what a good one writes in a row.
const ROOM_BYTES: [u64; 2] = [384 << 20, 3 << 29];

/// Payload size, events in flight, bytes to prepare for.
pub(super) fn loads(quick: bool) -> impl Iterator<Item = (usize, usize, u64)> {
    let sizes = PAYLOAD_SIZES.into_iter().zip(ROOM_BYTES).take(if quick { 1 } else { 2 });
    sizes.flat_map(|(size, room)| IN_FLIGHT.map(|in_flight| (size, in_flight, room)))
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let commit_size_max = loads(session.quick).map(|(size, in_flight, _)| size * in_flight).max().unwrap_or(0);
    let mut raw = RawLoop::new(&session.place("raw")?, commit_size_max)?;
    for (size, in_flight, room) in loads(session.quick) {
        load(session, &mut raw, size, in_flight, room)?;
    }
    session.place("raw").map(drop)
}

fn load(session: &mut Session, raw: &mut RawLoop, size: usize, in_flight: usize, room: u64) -> anyhow::Result<()> {
    session.doing(format!("{NAME}, {size} B, {in_flight} in flight"));
    let payloads = session.payloads(size);
    raw.load(&payloads, in_flight);
    let mut contest = Contest::open(session, "", &payloads, room, By::OneWriter, |_| true)?;
    let mut raw_turns = RawTurns::default();
    let (warm_up, time) = (in_flight.max(WARM_UP_IN_FLIGHT), session.turn_time.mul_f64(WARM_UP_SHARE));
    contest.uncounted_round(|log, feed| log.durable_turn(feed, warm_up, time));
    for _ in 0..session.turns {
        let time = session.turn_time;
        contest.round(|log, feed| log.durable_turn(feed, in_flight, time));
        raw_turns.take(raw, in_flight, size, time.mul_f64(RAW_SHARE))?;
    }
    session.doing(format!("{NAME}, {size} B, {in_flight} in flight: reading back"));
    contest.read_back(session)?;
    let limit = raw_turns.limit();
    let rows = contest.contestants.iter().map(|contestant| {
        let mut row = Row::of(NAME, contestant, size).beside(limit.as_ref());
        row.in_flight = in_flight as u64;
        row
    });
    session.finish(rows.collect())
}
