//! `openloop`: durable appends that come at their own times, at 50, 80 and 95 % of what the engine takes at the most. Only with
//! `--only openloop`.
//!
//! First the saturated rate: one thread, one channel, 4096 in flight in a closed loop. Then events of that many a second less are due evenly,
//! whether the engine keeps up or not, and their latency counts from when they were due (no coordinated omission). The three loads take
//! turns. The raw loop beside them commits one event at a time: the least that an event which is due can take.

use redex::FsyncPolicy;

use super::closed_loop::ClosedLoop;
use super::due::{DueLoop, IN_FLIGHT_MAX, Idle};
use super::{TURN_COUNT, Workload};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::Turns;
use crate::store;

const NAME: &str = "openloop";
const CHANNEL: &str = "bench/openloop";
const PAYLOAD_SIZE: usize = 256;
const SATURATING: usize = 4096;
const LOADS: [(&str, f64); 3] = [("50-percent", 0.50), ("80-percent", 0.80), ("95-percent", 0.95)];
/// A row that falls behind its rate by more says so.
const KEPT_UP_SHARE: f64 = 0.98;

/// How a row's time is dealt out: 0.9 to the engine, the rest to the raw loop.
const ENGINE_SHARE: f64 = 0.9;
const RAW_SHARE: f64 = 0.1 / 3.0;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 1 + LOADS.len() as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    session.doing("openloop, the saturated rate".to_owned());
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let mut raw = RawLoop::new(&session.place("raw")?, PAYLOAD_SIZE)?;
    raw.load(&payloads, 1);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let files = [store::channel(&redex, CHANNEL, FsyncPolicy::Never)?];
    let mut closed = ClosedLoop::new(&files, &payloads);
    let turn_time = session.row_time(Workload::Openloop) / TURN_COUNT;
    let (mut closed_meter, mut saturated) = (Meter::new(&dir), Turns::default());
    for _ in 0..TURN_COUNT {
        saturated.push(closed_meter.around(&redex, || closed.turn(SATURATING, turn_time))?);
    }
    let rate = saturated.rate();

    let times = LOADS.map(|_| session.row_time(Workload::Openloop) / TURN_COUNT);
    let mut due = DueLoop::new(&files[0], &payloads, Idle::Yielding);
    let mut measured = LOADS.map(|_| (Meter::new(&dir), Turns::default()));
    let mut raw_turns = RawTurns::default();
    for _ in 0..TURN_COUNT {
        for (((mode, share), time), (meter, turns)) in LOADS.into_iter().zip(times).zip(&mut measured) {
            session.doing(format!("openloop, {mode} of {rate:.0}/s"));
            turns.push(meter.around(&redex, || due.turn(rate * share, time.mul_f64(ENGINE_SHARE)))?);
            raw_turns.take(&mut raw, 1, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
        }
    }
    let appended = files[0].durable();
    let facts = redex.stats().io;
    drop(files);
    store::close(redex)?;
    let seed = session.seed_for(appended);
    readback::sample(&dir, session.backend, CHANNEL, appended, seed, |seq| payloads.get(seq))?;
    session.place("store")?;
    session.place("raw")?;

    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &saturated, &session.machine);
    (row.mode, row.in_flight) = ("saturated", SATURATING as u64);
    session.finish(row.costing(&closed_meter.usage(), &facts))?;
    for ((mode, share), (meter, turns)) in LOADS.into_iter().zip(measured) {
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        (row.mode, row.in_flight, row.rate) = (mode, IN_FLIGHT_MAX, Some(rate * share));
        row.numbers.insert("saturated_events_per_s".to_owned(), rate);
        let mut note = format!("{:.0} % of {:.2} M/s", 100.0 * share, rate / 1e6);
        // As many events a second are no matter of the raw loop, which commits one at a time: only its latency stands beside.
        if let Some(limit) = raw_turns.limit() {
            let ratio = row.p50_ns as f64 / limit.p50_ns.max(1) as f64;
            row.numbers.insert("raw_p50_ns".to_owned(), limit.p50_ns as f64);
            row.numbers.insert("ratio_p50".to_owned(), ratio);
            note += &format!(", p50 {ratio:.2}x one raw commit");
        }
        if row.events_per_s < KEPT_UP_SHARE * rate * share {
            note += "; the engine did not keep up with the rate";
        }
        row.note = Some(note);
        session.finish(row.costing(&meter.usage(), &facts))?;
    }
    Ok(())
}
