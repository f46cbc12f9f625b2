//! `many`: 1000 durable appends in flight from one thread, to one channel and round robin over 100,000; then laps of the journal.
//! Only with `--only many`.
//!
//! The first two rows are taken in turns in one store, while the journal (1 GiB) holds the load. The third goes on over the many until the
//! journal was written six times over, and closes the store: every lap has all the blocks that leave the journal, and the checkpoints. In the
//! first three the channels' files are made; its rate is that of the other three.
//! Bytes to the device are those of the block device, by whomever, and beside them those that the engine counts.

use std::time::{Duration, Instant};

use anyhow::Context;
use redex::{FsyncPolicy, Redex, RedexFile};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Turn, Turns};
use crate::store;

const NAME: &str = "many";
const ONE: &str = "bench/one";
const PAYLOAD_SIZE: usize = 256;
const IN_FLIGHT: usize = 1000;
const CHANNEL_COUNT: u64 = 100_000;
const QUICK_CHANNEL_COUNT: u64 = 5000;
const JOURNAL_BYTES: u64 = 1 << 30;
const QUICK_JOURNAL_BYTES: u64 = 64 << 20;
const LAPS: usize = 6;
/// Laps before it is steady.
const LAPS_BEFORE: usize = 3;
/// A turn of a lap.
const STRETCH: Duration = Duration::from_millis(500);
/// The laps end when they have taken so long, done or not.
const LAPS_TIME_MAX: Duration = Duration::from_secs(400);

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 3;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let (channels, journal_bytes) = match session.quick {
        true => (QUICK_CHANNEL_COUNT, QUICK_JOURNAL_BYTES),
        false => (CHANNEL_COUNT, JOURNAL_BYTES),
    };
    session.doing(format!("many, making {channels} channels"));
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    // With so many channels a checkpoint waits until the journal is four times as long as with few.
    let builder =
        Redex::builder().checkpoint_bytes(journal_bytes / 4).page_budget_bytes(journal_bytes as usize / 2 * 3);
    let redex = store::open_with(builder, &dir, session.backend)?;
    let one = [store::channel(&redex, ONE, FsyncPolicy::Never)?];
    let open = |number| store::channel(&redex, &name(number), FsyncPolicy::Never);
    let many = (0..channels).map(open).collect::<anyhow::Result<Vec<RedexFile>>>()?;
    let (mut one_loop, mut many_loop) = (ClosedLoop::new(&one, &payloads), ClosedLoop::new(&many, &payloads));
    // The first event of a channel brings its page: that is the cost of a channel, not of an event.
    while many_loop.acknowledged() < channels {
        many_loop.turn(IN_FLIGHT, STRETCH / 10)?;
    }
    let (one_row, many_row) = held_by_the_journal(session, &redex, channels, &mut one_loop, &mut many_loop)?;
    let in_many = many_loop.acknowledged();
    session.finish(one_row)?;
    session.finish(many_row)?;

    session.doing(format!("many, {LAPS} laps of the journal"));
    let _fixed_by_size = session.row_time(Workload::Many);
    let meter = Meter::new(&dir);
    let mut bytes = Bytes::default();
    let mut laps = Laps { redex: &redex, meter: &meter, journal_bytes, until: Instant::now() + LAPS_TIME_MAX };
    let before = laps.read();
    let mut turns = Turns::default();
    let mut each = Vec::new();
    for _ in 0..LAPS {
        let Some((lap, written)) = laps.lap(&mut many_loop)? else { break };
        each.push((lap.rate(), written));
        if each.len() > LAPS_BEFORE {
            turns.push(lap);
        }
    }
    bytes.payload = (many_loop.acknowledged() - in_many) * PAYLOAD_SIZE as u64;
    let acknowledged = many_loop.acknowledged();
    let facts = redex.stats().io;
    drop((one, many));
    redex.close().wait().context("closing the store")?;
    let after = laps.read();
    bytes.device = after.device - before.device;
    bytes.engine = after.engine - before.engine;
    drop(redex);

    let number = session.seed % channels;
    let events = (acknowledged + channels - 1 - number) / channels;
    let expected = |seq| payloads.get(seq * channels + number);
    readback::sample(&dir, session.backend, &name(number), events, session.seed_for(2), expected)?;
    session.doing("many, clearing up".to_owned());
    session.place("store")?;
    session.finish(laps_row(session, channels, &turns, &each, &bytes, &facts))
}

fn name(number: u64) -> String {
    format!("bench/many/{number}")
}

/// The rows of one channel and of many, in turns, with nothing destaged but what somebody else asks for.
fn held_by_the_journal(
    session: &mut Session,
    redex: &Redex,
    channels: u64,
    one: &mut ClosedLoop<'_>,
    many: &mut ClosedLoop<'_>,
) -> anyhow::Result<(Row, Row)> {
    session.doing(format!("many, 1 and {channels} channels"));
    let one_time = session.row_time(Workload::Many) / TURN_COUNT;
    let many_time = session.row_time(Workload::Many) / TURN_COUNT;
    let before = redex.stats();
    let (mut one_turns, mut many_turns) = (Turns::default(), Turns::default());
    for _ in 0..TURN_COUNT {
        one_turns.push(one.turn(IN_FLIGHT, one_time)?);
        many_turns.push(many.turn(IN_FLIGHT, many_time)?);
    }
    let after = redex.stats();
    let mut one_row = Row::new(NAME, "redex", PAYLOAD_SIZE, &one_turns, &session.machine);
    one_row.in_flight = IN_FLIGHT as u64;
    let mut many_row = Row::new(NAME, "redex", PAYLOAD_SIZE, &many_turns, &session.machine);
    many_row.in_flight = IN_FLIGHT as u64;
    many_row.channels = channels;
    many_row.ratio_one_channel = Some(many_turns.rate() / one_turns.rate().max(1e-9));
    let checkpoints = after.checkpoints - before.checkpoints;
    if checkpoints > 0 {
        many_row.note = Some(format!("{checkpoints} checkpoints meanwhile: the journal did not hold the load"));
    }
    Ok((one_row, many_row))
}

/// Bytes of the laps and of the close after them.
#[derive(Clone, Copy, Default)]
struct Bytes {
    payload: u64,
    device: u64,
    engine: u64,
}

struct Laps<'a> {
    redex: &'a Redex,
    meter: &'a Meter,
    journal_bytes: u64,
    until: Instant,
}

/// Counters at one moment.
struct Reading {
    journal: u64,
    device: u64,
    engine: u64,
}

impl Laps<'_> {
    fn read(&self) -> Reading {
        let stats = self.redex.stats();
        Reading { journal: stats.journal_bytes, device: self.meter.device_bytes(), engine: stats.written_bytes() }
    }

    /// Appends until the journal was written once more. `None` if the time is over before.
    fn lap(&mut self, many: &mut ClosedLoop<'_>) -> anyhow::Result<Option<(Turn, Bytes)>> {
        let before = self.read();
        let mut lap: Option<Turn> = None;
        loop {
            let turn = many.turn(IN_FLIGHT, STRETCH)?;
            let lap = match &mut lap {
                None => lap.insert(turn),
                Some(lap) => {
                    lap.latencies.add(&turn.latencies);
                    lap.events += turn.events;
                    lap.elapsed += turn.elapsed;
                    lap
                }
            };
            let now = self.read();
            if now.journal - before.journal >= self.journal_bytes {
                let payload = lap.events * PAYLOAD_SIZE as u64;
                let (device, engine) = (now.device - before.device, now.engine - before.engine);
                return Ok(Some((lap.clone(), Bytes { payload, device, engine })));
            }
            if Instant::now() > self.until {
                return Ok(None);
            }
        }
    }
}

fn laps_row(
    session: &Session,
    channels: u64,
    turns: &Turns,
    each: &[(f64, Bytes)],
    all: &Bytes,
    facts: &redex::IoFacts,
) -> Row {
    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, turns, &session.machine);
    row.mode = "laps";
    row.in_flight = IN_FLIGHT as u64;
    row.channels = channels;
    let per_byte = |bytes: u64, of: &Bytes| bytes as f64 / of.payload.max(1) as f64;
    let rates: Vec<String> = each.iter().map(|(rate, _)| format!("{:.0} k/s", rate / 1e3)).collect();
    let written: Vec<String> = each
        .iter()
        .map(|(_, bytes)| format!("{:.2} ({:.2})", per_byte(bytes.device, bytes), per_byte(bytes.engine, bytes)))
        .collect();
    let steady = each.iter().skip(LAPS_BEFORE).fold(Bytes::default(), |sum, (_, bytes)| Bytes {
        payload: sum.payload + bytes.payload,
        device: sum.device + bytes.device,
        engine: sum.engine + bytes.engine,
    });
    row.numbers.insert("laps".to_owned(), each.len() as f64);
    row.numbers.insert("steady_device_bytes_per_payload_byte".to_owned(), per_byte(steady.device, &steady));
    row.numbers.insert("steady_engine_bytes_per_payload_byte".to_owned(), per_byte(steady.engine, &steady));
    row.numbers.insert("device_bytes_per_payload_byte".to_owned(), per_byte(all.device, all));
    row.numbers.insert("engine_bytes_per_payload_byte".to_owned(), per_byte(all.engine, all));
    for (number, (rate, bytes)) in each.iter().enumerate() {
        row.numbers.insert(format!("lap{}_events_per_s", number + 1), *rate);
        row.numbers.insert(format!("lap{}_device_bytes_per_payload_byte", number + 1), per_byte(bytes.device, bytes));
    }
    row.note = Some(format!(
        "{} of {LAPS} laps, each at {}; bytes to the device (by the engine's count) a payload byte: {}, from the fourth on {:.2} ({:.2}), of all with \
         the close {:.2} ({:.2}); {}",
        each.len(),
        rates.join(", "),
        written.join(", "),
        per_byte(steady.device, &steady),
        per_byte(steady.engine, &steady),
        per_byte(all.device, all),
        per_byte(all.engine, all),
        facts.durable_write,
    ));
    row
}
