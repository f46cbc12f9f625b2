//! `pauses`: what appends feel of journals that roll, checkpoints, seals and retention. Only with `--only pauses`.
//!
//! Two stores take the same load in turns. In one everything is small (a journal segment 1 MiB, a checkpoint every 2 MiB, 4 MiB kept of each channel, in segments of an eighth
//! of that), so that each happens many times in a turn; in the other nothing of it happens. A row's note has the engine's own counts of both, and says so if
//! something happened that was not to, or did not that was to. `durable` keeps 16 events in flight in a closed loop. `never` appends 100,000 events a second, one a call, without
//! waiting; its latency is that of the call, and `due_p99_ns` that from when the event was due. `ratio_p99` is small to large.

use std::ops::{AddAssign, Sub};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig, Stats};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload};
use crate::args::Backend;
use crate::counters::Meter;
use crate::load::Payloads;
use crate::pace::Pace;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "pauses";
const DURABLE: &str = "bench/pauses/durable";
const NEVER: &str = "bench/pauses/never";
const PAYLOAD_SIZE: usize = 256;
const IN_FLIGHT: usize = 16;
/// Events a second that are not durable.
const NEVER_RATE: f64 = 100_000.0;
/// Before the turns, so that files are there and the large journal is written with zeros.
const SETTLING: Duration = Duration::from_millis(100);
/// Longest that a store may take to settle.
const SETTLING_MAX: Duration = Duration::from_secs(20);

/// Bytes a second that both loads write to the journal at the most; measured, with room.
const JOURNAL_BYTES_PER_S: f64 = 128e6;
/// Segments of the large journal, smallest and largest.
const JOURNAL_SEGMENT_RANGE: (u64, u64) = (128 << 20, 1 << 30);

/// A store that did nothing for so long is at rest.
const REST: Duration = Duration::from_millis(20);
/// Longest that is waited for it.
const REST_MAX: Duration = Duration::from_millis(500);

/// Sizes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    journal_segment: u64,
    checkpoint: u64,
    kept: Option<u64>,
}

const SMALL: Sizes = Sizes { journal_segment: 1 << 20, checkpoint: 2 << 20, kept: Some(4 << 20) };

/// Sizes at which nothing happens in a row of so long.
fn large(time: Duration) -> Sizes {
    let expected = (time.as_secs_f64() * JOURNAL_BYTES_PER_S) as u64;
    let journal_segment = expected.next_power_of_two().clamp(JOURNAL_SEGMENT_RANGE.0, JOURNAL_SEGMENT_RANGE.1);
    Sizes { journal_segment, checkpoint: 4 * JOURNAL_SEGMENT_RANGE.1, kept: None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Durable,
    Never,
}

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 4;

/// What the engine did beside committing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chores {
    rolls: u64,
    checkpoints: u64,
    seals: u64,
    removed: u64,
}

impl From<&Stats> for Chores {
    fn from(stats: &Stats) -> Self {
        Self { rolls: stats.rolls, checkpoints: stats.checkpoints, seals: stats.seals, removed: stats.removed }
    }
}

impl Sub for Chores {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            rolls: self.rolls - other.rolls,
            checkpoints: self.checkpoints - other.checkpoints,
            seals: self.seals - other.seals,
            removed: self.removed - other.removed,
        }
    }
}

impl AddAssign for Chores {
    fn add_assign(&mut self, other: Self) {
        self.rolls += other.rolls;
        self.checkpoints += other.checkpoints;
        self.seals += other.seals;
        self.removed += other.removed;
    }
}

impl Chores {
    fn each(self) -> [(&'static str, u64); 4] {
        [("rolls", self.rolls), ("checkpoints", self.checkpoints), ("seals", self.seals), ("removed", self.removed)]
    }

    fn told(self) -> String {
        let Self { rolls, checkpoints, seals, removed } = self;
        format!("{rolls} rolls, {checkpoints} checkpoints, {seals} seals, {removed} segments dropped")
    }
}

/// What was measured of one load in one store.
struct Measured {
    meter: Meter,
    turns: Turns,
    chores: Chores,
    /// From when events were due, of the load that is paced.
    due: Latencies,
}

/// A store, and both loads in it.
struct Contestant {
    dir: PathBuf,
    redex: Redex,
    durable: [RedexFile; 1],
    never: RedexFile,
    measured: [Measured; 2],
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    session.doing("pauses, opening the stores".to_owned());
    let times = [(); 4].map(|()| session.row_time(Workload::Pauses) / TURN_COUNT);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dirs = [session.place("small")?, session.place("large")?];
    let sizes = [SMALL, large(TURN_COUNT * times.into_iter().sum::<Duration>() / 2)];
    let mut contestants = [
        Contestant::open(&dirs[0], session.backend, sizes[0])?,
        Contestant::open(&dirs[1], session.backend, sizes[1])?,
    ];
    contestants.iter_mut().try_for_each(|contestant| contestant.settle(&payloads))?;
    for _ in 0..TURN_COUNT {
        for (load, times) in [(Load::Durable, &times[..2]), (Load::Never, &times[2..])] {
            for (contestant, time) in contestants.iter_mut().zip(times) {
                session.doing(format!("pauses, {load:?}").to_lowercase());
                contestant.take_turn(load, &payloads, *time)?;
            }
        }
    }
    let mut sides = Vec::new();
    for contestant in contestants {
        sides.push(contestant.finish(session, &payloads)?);
    }
    for place in ["small", "large"] {
        session.place(place)?;
    }
    let [(small, small_facts), (large, large_facts)] =
        <[_; 2]>::try_from(sides).ok().context("there are two stores")?;
    let modes = [(Load::Durable, "durable-small", "durable-large"), (Load::Never, "never-small", "never-large")];
    for ((small, large), (load, small_mode, large_mode)) in small.iter().zip(&large).zip(modes) {
        let [small_row, large_row] = [(small, small_mode, &small_facts), (large, large_mode, &large_facts)]
            .map(|(measured, mode, facts)| row(session, load, measured, mode).costing(&measured.meter.usage(), facts));
        let small_row = compared(small_row, &large_row, small.chores);
        session.finish(small_row)?;
        session.finish(calm(large_row, large.chores))?;
    }
    Ok(())
}

impl Contestant {
    fn open(dir: &Path, backend: Option<Backend>, sizes: Sizes) -> anyhow::Result<Self> {
        let builder = Redex::builder().journal_segment_bytes(sizes.journal_segment).checkpoint_bytes(sizes.checkpoint);
        let redex = store::open_with(builder, dir, backend)?;
        let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never);
        let config = config.with_retention_max_bytes(sizes.kept);
        let durable = [store::channel_with(&redex, DURABLE, config.clone())?];
        let never = store::channel_with(&redex, NEVER, config)?;
        let new = || Measured {
            meter: Meter::new(dir),
            turns: Turns::default(),
            chores: Chores::default(),
            due: Latencies::new(),
        };
        Ok(Self { dir: dir.to_owned(), redex, durable, never, measured: [new(), new()] })
    }

    /// A little of both loads, then no more until no journal segment is being written with zeros.
    fn settle(&mut self, payloads: &Payloads) -> anyhow::Result<()> {
        ClosedLoop::resuming(&self.durable, payloads).turn(IN_FLIGHT, SETTLING)?;
        paced(&self.never, payloads, SETTLING)?;
        self.never.sync().wait().context("syncing")?;
        let (until, mut prepared) = (Instant::now() + SETTLING_MAX, None);
        while Instant::now() < until && prepared != Some(self.redex.stats().prepared_bytes) {
            prepared = Some(self.redex.stats().prepared_bytes);
            std::thread::sleep(3 * SETTLING);
        }
        Ok(())
    }

    fn take_turn(&mut self, load: Load, payloads: &Payloads, time: Duration) -> anyhow::Result<()> {
        let Self { redex, durable, never, measured, .. } = self;
        let Measured { meter, turns, chores, due } = &mut measured[load as usize];
        let before = Chores::from(&redex.stats());
        turns.push(meter.around(redex, || match load {
            Load::Durable => ClosedLoop::resuming(durable, payloads).turn(IN_FLIGHT, time),
            Load::Never => {
                let (turn, late) = paced(never, payloads, time)?;
                due.add(&late);
                Ok(turn)
            }
        })?);
        *chores += Chores::from(&redex.stats()) - before;
        never.sync().wait().context("syncing")?;
        self.rest();
        Ok(())
    }

    /// Waits until the store has done what the turn left it to do: the other store is not to feel that.
    fn rest(&self) {
        let until = Instant::now() + REST_MAX;
        let done = || (Chores::from(&self.redex.stats()), self.redex.stats().written_bytes());
        let mut before = done();
        while Instant::now() < until {
            std::thread::sleep(REST);
            let after = done();
            if after == before {
                return;
            }
            before = after;
        }
    }

    /// Closes the store and reads back what it still has.
    fn finish(self, session: &Session, payloads: &Payloads) -> anyhow::Result<([Measured; 2], redex::IoFacts)> {
        let Self { dir, redex, durable, never, measured } = self;
        let facts = redex.stats().io;
        let appended = [(DURABLE, durable[0].durable()), (NEVER, never.durable())];
        drop((durable, never));
        store::close(redex)?;
        let redex = store::open(&dir, session.backend).context("reopening to read back")?;
        for (name, appended) in appended {
            let file = store::channel(&redex, name, FsyncPolicy::Never)?;
            readback::holds(&file, appended)?;
            for seq in [file.head_seq(), u64::midpoint(file.head_seq(), appended), appended - 1] {
                readback::compare(&file, seq, payloads.get(seq))?;
            }
        }
        store::close(redex)?;
        Ok((measured, facts))
    }
}

/// Appends one event a call, at the times when they are due. The turn has the times of the calls; beside it those from when the events were due.
fn paced(file: &RedexFile, payloads: &Payloads, time: Duration) -> anyhow::Result<(Turn, Latencies)> {
    let count = (NEVER_RATE * time.as_secs_f64()) as u64;
    let (mut latencies, mut late) = (Latencies::new(), Latencies::new());
    let first = file.next_seq();
    let start = Instant::now();
    let pace = Pace::new(start, NEVER_RATE);
    for index in 0..count {
        let due = pace.wait(index);
        let payload = payloads.get(first + index);
        let sent = Instant::now();
        file.append(payload).wait().context("appending")?;
        let done = Instant::now();
        latencies.record(done - sent);
        late.record(done - due);
    }
    Ok((Turn { latencies, events: count, elapsed: start.elapsed() }, late))
}

fn row(session: &Session, load: Load, measured: &Measured, mode: &'static str) -> Row {
    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &measured.turns, &session.machine);
    row.mode = mode;
    match load {
        Load::Durable => row.in_flight = IN_FLIGHT as u64,
        Load::Never => {
            row.rate = Some(NEVER_RATE);
            row.numbers.insert("due_p99_ns".to_owned(), measured.due.at(0.99) as f64);
            row.numbers.insert("due_p999_ns".to_owned(), measured.due.at(0.999) as f64);
        }
    }
    row.numbers.extend(measured.chores.each().map(|(name, count)| (name.to_owned(), count as f64)));
    row
}

/// The row of the small store beside that of the large one.
fn compared(mut row: Row, large: &Row, chores: Chores) -> Row {
    let ratio = |own: u64, other: u64| own as f64 / other.max(1) as f64;
    let (p99, p999) = (ratio(row.p99_ns, large.p99_ns), ratio(row.p999_ns, large.p999_ns));
    row.numbers.insert("ratio_p99".to_owned(), p99);
    row.numbers.insert("ratio_p999".to_owned(), p999);
    for (name, ratio_name) in [("due_p99_ns", "ratio_due_p99"), ("due_p999_ns", "ratio_due_p999")] {
        if let (Some(own), Some(other)) = (row.numbers.get(name), large.numbers.get(name)) {
            let ratio = own / other.max(1.0);
            row.numbers.insert(ratio_name.to_owned(), ratio);
        }
    }
    let mut note = format!("{}; p99 {p99:.2}x, p99.9 {p999:.2}x of that without", chores.told());
    let missing: Vec<&str> = chores.each().iter().filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        note += &format!("; too short: no {}", missing.join(", no "));
    }
    row.note = Some(note);
    row
}

/// The row of the large store.
fn calm(mut row: Row, chores: Chores) -> Row {
    row.note = Some(match chores == Chores::default() {
        true => "nothing of it happened".to_owned(),
        false => format!("not as calm as it was to be: {}", chores.told()),
    });
    row
}
