//! `nondurable`: one writer that does not wait for the disk, one event a call and 1000 events a call.
//!
//! Each turn ends with a sync, so that no engine writes behind during another's turn. Its time does not count in `events_per_s`, and does in
//! `synced_events_per_s`.

use std::time::Instant;

use redex_bench::sample::median;

use super::contest::Contest;
use crate::engine::{By, Engine};
use crate::report::row::Row;
use crate::run::Session;

const NAME: &str = "nondurable";
const PAYLOAD_SIZES: [usize; 3] = [32, 256, 1024];
const BATCHES: [usize; 2] = [1, 1000];

/// Bytes that engines prepare space for.
const ROOM_BYTES: u64 = 512 << 20;

/// Payload size and events a call.
pub(super) fn loads(quick: bool) -> impl Iterator<Item = (usize, usize)> {
    let sizes = PAYLOAD_SIZES.into_iter().filter(move |size| !quick || *size == 256);
    sizes.flat_map(|size| BATCHES.map(|batch| (size, batch)))
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    loads(session.quick).try_for_each(|(size, batch)| load(session, size, batch))
}

fn load(session: &mut Session, size: usize, batch: usize) -> anyhow::Result<()> {
    session.doing(format!("{NAME}, {size} B, {batch} a call"));
    let payloads = session.payloads(size);
    let offers = |engine: &dyn Engine| engine.offers().nondurable;
    let mut contest = Contest::open(session, "", &payloads, ROOM_BYTES, By::OneWriter, offers)?;
    let bytes_each = session.log_bytes_max() / u64::from(session.turns);
    let mut synced: Vec<(&'static str, f64)> = Vec::new();
    for _ in 0..session.turns {
        let time = session.turn_time;
        contest.round_named(|name, log, feed| {
            feed.allow(bytes_each);
            let turn = log.nondurable_turn(feed, batch, time)?;
            let start = Instant::now();
            log.sync()?;
            synced.push((name, turn.events as f64 / (turn.elapsed + start.elapsed()).as_secs_f64().max(1e-9)));
            Ok(turn)
        });
    }
    session.doing(format!("{NAME}, {size} B, {batch} a call: reading back"));
    contest.read_back(session)?;
    let rows = contest.contestants.iter().map(|contestant| {
        let mut row = Row::of(NAME, contestant, size);
        row.batch = batch as u64;
        let rates = synced.iter().filter(|(name, _)| *name == row.engine).map(|(_, rate)| *rate);
        row.numbers.insert("synced_events_per_s", median(rates.collect()));
        row
    });
    session.finish(rows.collect())
}
