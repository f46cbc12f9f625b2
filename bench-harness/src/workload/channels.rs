//! `channels`: 1000 durable appends in flight from one thread, all to one channel, and spread over 1,000.
//!
//! Both in one store, in turns with the raw loop (as many bytes in one write and one flush), so that the ratios are those of the same
//! minute. Latency as in `durable`.

use redex::{FsyncPolicy, RedexFile};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::Turns;
use crate::store;

const NAME: &str = "channels";
const ONE: &str = "bench/one";
const PAYLOAD_SIZE: usize = 256;
const IN_FLIGHT: usize = 1000;
const CHANNEL_COUNT: u64 = 1000;

/// How a row's time is dealt out: 0.7 to the engine, 0.1 to each way of the raw loop.
const ENGINE_SHARE: f64 = 0.7;
const RAW_SHARE: f64 = 0.1;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    session.doing(format!("channels, 1 and {CHANNEL_COUNT}"));
    let one_time = session.row_time(Workload::Channels) / TURN_COUNT;
    let many_time = session.row_time(Workload::Channels) / TURN_COUNT;
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let mut raw = RawLoop::new(&session.place("raw")?, IN_FLIGHT * PAYLOAD_SIZE)?;
    raw.load(&payloads, IN_FLIGHT);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let one = [store::channel(&redex, ONE, FsyncPolicy::Never)?];
    let open = |number| store::channel(&redex, &name(number), FsyncPolicy::Never);
    let many = (0..CHANNEL_COUNT).map(open).collect::<anyhow::Result<Vec<RedexFile>>>()?;

    let (mut one_loop, mut many_loop) = (ClosedLoop::new(&one, &payloads), ClosedLoop::new(&many, &payloads));
    let (mut one_meter, mut many_meter) = (Meter::new(&dir), Meter::new(&dir));
    let (mut one_turns, mut many_turns, mut raw_turns) = (Turns::default(), Turns::default(), RawTurns::default());
    for _ in 0..TURN_COUNT {
        one_turns.push(one_meter.around(&redex, || one_loop.turn(IN_FLIGHT, one_time.mul_f64(ENGINE_SHARE)))?);
        raw_turns.take(&mut raw, IN_FLIGHT, PAYLOAD_SIZE, one_time.mul_f64(2.0 * RAW_SHARE))?;
        many_turns.push(many_meter.around(&redex, || many_loop.turn(IN_FLIGHT, many_time.mul_f64(ENGINE_SHARE)))?);
    }
    let (in_one, in_many) = (one_loop.acknowledged(), many_loop.acknowledged());
    let facts = redex.stats().io;
    drop((one, many));
    store::close(redex)?;
    let (seed, number) = (session.seed_for(2), session.seed % CHANNEL_COUNT);
    readback::sample(&dir, session.backend, ONE, in_one, seed, |seq| payloads.get(seq))?;
    let events = (in_many + CHANNEL_COUNT - 1 - number) / CHANNEL_COUNT;
    let expected = |seq| payloads.get(seq * CHANNEL_COUNT + number);
    readback::sample(&dir, session.backend, &name(number), events, seed, expected)?;
    session.place("store")?;
    session.place("raw")?;
    let limit = raw_turns.limit();

    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &one_turns, &session.machine);
    row.in_flight = IN_FLIGHT as u64;
    session.finish(row.beside(limit.clone()).costing(&one_meter.usage(), &facts))?;
    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &many_turns, &session.machine);
    row.in_flight = IN_FLIGHT as u64;
    row.channels = CHANNEL_COUNT;
    row.ratio_one_channel = Some(many_turns.rate() / one_turns.rate().max(1e-9));
    session.finish(row.beside(limit).costing(&many_meter.usage(), &facts))
}

fn name(number: u64) -> String {
    format!("bench/many/{number}")
}
