//! `backends`: durable appends through io_uring and through plain system calls, in turns. Only with `--only backends`.
//!
//! One thread and one channel in each of two stores, 1 to 4096 appends in flight in a closed loop, as `durable` has them; the raw loop beside them writes as many bytes
//! in one write and one flush. `--backend` has no effect.

use std::path::Path;

use redex::{FsyncPolicy, Redex, RedexFile};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload};
use crate::args::Backend;
use crate::counters::Meter;
use crate::load::Payloads;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::Turns;
use crate::store;

const NAME: &str = "backends";
const CHANNEL: &str = "bench/backends";
const PAYLOAD_SIZE: usize = 256;
const IN_FLIGHT: [usize; 4] = [1, 16, 256, 4096];
const BACKENDS: [(Backend, &str); 2] = [(Backend::Uring, "uring"), (Backend::Posix, "posix")];

/// How a row's time is dealt out: 0.85 to the engine, 0.05 to each way of the raw loop.
const ENGINE_SHARE: f64 = 0.85;
const RAW_SHARE: f64 = 0.05;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = (IN_FLIGHT.len() * BACKENDS.len()) as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let mut raw = RawLoop::new(&session.place("raw")?, IN_FLIGHT[IN_FLIGHT.len() - 1] * PAYLOAD_SIZE)?;
    for in_flight in IN_FLIGHT {
        beside(session, &mut raw, &payloads, in_flight)?;
    }
    session.place("raw").map(drop)
}

/// A store by one way, and what was measured in it.
struct Contestant {
    redex: Redex,
    files: [RedexFile; 1],
    meter: Meter,
    turns: Turns,
}

impl Contestant {
    fn open(dir: &Path, backend: Backend) -> anyhow::Result<Self> {
        let redex = store::open(dir, Some(backend))?;
        let files = [store::channel(&redex, CHANNEL, FsyncPolicy::Never)?];
        Ok(Self { redex, files, meter: Meter::new(dir), turns: Turns::default() })
    }
}

fn beside(session: &mut Session, raw: &mut RawLoop, payloads: &Payloads, in_flight: usize) -> anyhow::Result<()> {
    session.doing(format!("backends, {in_flight} in flight"));
    let times = BACKENDS.map(|_| session.row_time(Workload::Backends) / TURN_COUNT);
    raw.load(payloads, in_flight);
    let dirs = [session.place(BACKENDS[0].1)?, session.place(BACKENDS[1].1)?];
    let mut contestants = [Contestant::open(&dirs[0], BACKENDS[0].0)?, Contestant::open(&dirs[1], BACKENDS[1].0)?];
    let mut raw_turns = RawTurns::default();
    for _ in 0..TURN_COUNT {
        for (contestant, time) in contestants.iter_mut().zip(times) {
            let Contestant { redex, files, meter, turns } = contestant;
            let mut closed = ClosedLoop::resuming(files, payloads);
            turns.push(meter.around(redex, || closed.turn(in_flight, time.mul_f64(ENGINE_SHARE)))?);
            raw_turns.take(raw, in_flight, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
        }
    }
    let posix = (contestants[1].turns.rate(), contestants[1].turns.p50());
    for ((contestant, dir), (backend, mode)) in contestants.into_iter().zip(dirs).zip(BACKENDS) {
        let Contestant { redex, files, meter, turns } = contestant;
        let (acknowledged, facts) = (files[0].durable(), redex.stats().io);
        drop(files);
        store::close(redex)?;
        let seed = session.seed_for(acknowledged);
        readback::sample(&dir, Some(backend), CHANNEL, acknowledged, seed, |seq| payloads.get(seq))?;
        session.place(mode)?;
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        (row.mode, row.in_flight) = (mode, in_flight as u64);
        if backend == Backend::Uring {
            let (rate, p50) = (row.events_per_s / posix.0.max(1e-9), row.p50_ns as f64 / posix.1.max(1) as f64);
            row.numbers.insert("ratio_posix".to_owned(), rate);
            row.numbers.insert("ratio_posix_p50".to_owned(), p50);
            row.note = Some(format!("{rate:.2}x posix, p50 {p50:.2}x"));
        }
        session.finish(row.beside(raw_turns.limit()).costing(&meter.usage(), &facts))?;
    }
    Ok(())
}
