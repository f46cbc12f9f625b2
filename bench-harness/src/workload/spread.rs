//! `spread`: 4096 durable appends in flight from one thread, round robin over 1, 10, 100, 1,000 and 10,000 channels. Only with
//! `--only spread`.
//!
//! Every count has a store of its own, in which the blocks and checkpoints of no other count are written; all are open, and take turns with the raw loop (as many bytes in one
//! write and one flush). Every channel has an event before the rows begin: the first brings its page, which is the cost of a channel and not of an
//! event. With `--quick` 1,000 channels are the most, since making and removing the files of more takes longer than measuring; 100,000 are in `many`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redex::{FsyncPolicy, Redex, RedexFile};

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

const NAME: &str = "spread";
const PAYLOAD_SIZE: usize = 256;
const IN_FLIGHT: usize = 4096;
const COUNTS: [u64; 5] = [1, 10, 100, 1000, 10_000];
/// Counts of a quick run.
const QUICK_COUNTS: usize = 4;
/// A turn that gives every channel its first event goes on in steps of this.
const STEP: Duration = Duration::from_millis(5);

/// How a row's time is dealt out: 0.85 to the engine, 0.05 to each way of the raw loop.
const ENGINE_SHARE: f64 = 0.85;
const RAW_SHARE: f64 = 0.05;

/// Rows that it measures.
pub(super) fn row_count(quick: bool) -> u32 {
    counts(quick).len() as u32
}

fn counts(quick: bool) -> &'static [u64] {
    if quick { &COUNTS[..QUICK_COUNTS] } else { &COUNTS }
}

/// A store with so many channels, and what was measured in it.
struct Contestant {
    count: u64,
    dir: PathBuf,
    redex: Redex,
    files: Vec<RedexFile>,
    acknowledged: u64,
    meter: Meter,
    turns: Turns,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let counts = counts(session.quick);
    let times: Vec<Duration> = counts.iter().map(|_| session.row_time(Workload::Spread) / TURN_COUNT).collect();
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let mut raw = RawLoop::new(&session.place("raw")?, IN_FLIGHT * PAYLOAD_SIZE)?;
    raw.load(&payloads, IN_FLIGHT);
    let mut contestants = Vec::new();
    for &count in counts {
        session.doing(format!("spread, making {count} channels"));
        contestants.push(Contestant::open(session, count, &payloads)?);
    }
    let mut raw_turns = RawTurns::default();
    for _ in 0..TURN_COUNT {
        for (contestant, time) in contestants.iter_mut().zip(&times) {
            session.doing(format!("spread, {} channels", contestant.count));
            contestant.take_turn(&payloads, time.mul_f64(ENGINE_SHARE))?;
            raw_turns.take(&mut raw, IN_FLIGHT, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
        }
    }
    let one = contestants[0].turns.rate();
    for contestant in contestants {
        session.doing(format!("spread, reading {} channels back", contestant.count));
        let mut row = contestant.finish(session, &payloads)?;
        row.ratio_one_channel = (row.channels > 1).then(|| row.events_per_s / one.max(1e-9));
        session.finish(row.beside(raw_turns.limit()))?;
    }
    session.place("raw").map(drop)
}

impl Contestant {
    fn open(session: &Session, count: u64, payloads: &Payloads) -> anyhow::Result<Self> {
        let dir = session.place(&format!("store-{count}"))?;
        let redex = store::open(&dir, session.backend)?;
        let open = |number| store::channel(&redex, &name(number), FsyncPolicy::Never);
        let files = (0..count).map(open).collect::<anyhow::Result<Vec<RedexFile>>>()?;
        let (meter, turns) = (Meter::new(&dir), Turns::default());
        let mut closed = ClosedLoop::new(&files, payloads);
        while closed.acknowledged() < count {
            closed.turn(IN_FLIGHT, STEP)?;
        }
        let acknowledged = closed.acknowledged();
        Ok(Self { count, dir, redex, files, acknowledged, meter, turns })
    }

    fn take_turn(&mut self, payloads: &Payloads, time: Duration) -> anyhow::Result<()> {
        let Self { redex, files, acknowledged, meter, turns, .. } = self;
        let mut closed = ClosedLoop::going_on(files, payloads, *acknowledged);
        turns.push(meter.around(redex, || closed.turn(IN_FLIGHT, time))?);
        *acknowledged = closed.acknowledged();
        Ok(())
    }

    /// Closes the store, reads one of its channels back, and removes it.
    fn finish(self, session: &Session, payloads: &Payloads) -> anyhow::Result<Row> {
        let Self { count, dir, redex, files, acknowledged, meter, turns } = self;
        let facts = redex.stats().io;
        drop(files);
        store::close(redex)?;
        read_back(session, &dir, count, acknowledged, payloads)?;
        session.place(&format!("store-{count}"))?;
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        (row.in_flight, row.channels) = (IN_FLIGHT as u64, count);
        Ok(row.costing(&meter.usage(), &facts))
    }
}

fn read_back(session: &Session, dir: &Path, count: u64, acknowledged: u64, payloads: &Payloads) -> anyhow::Result<()> {
    let number = session.seed % count;
    let events = (acknowledged + count - 1 - number) / count;
    let expected = |seq| payloads.get(seq * count + number);
    readback::sample(dir, session.backend, &name(number), events, session.seed_for(count), expected)
}

fn name(number: u64) -> String {
    format!("bench/spread/{number}")
}
