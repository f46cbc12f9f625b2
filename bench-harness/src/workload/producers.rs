//! `producers`: 1 to 64 threads that append, all to one channel, and to one channel each. Only with `--only producers`.
//!
//! `never` rows append one event a call, one call after the other, and wait for nothing but the call; one call in 61 is timed. `durable` rows keep
//! 16 events in flight in each thread; a latency is that of an event. All threads begin together and append for the same time; one channel and many take turns in one store, whose last
//! event of every thread in every turn is read back when it was reopened.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use redex::{FsyncPolicy, Redex, RedexFile};

use super::{TURN_COUNT, Workload, crew};
use crate::args::Backend;
use crate::counters::Meter;
use crate::load::Payloads;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "producers";
const PAYLOAD_SIZE: usize = 256;
const THREADS: [usize; 5] = [1, 2, 4, 16, 64];
/// Durable events that each thread keeps in flight.
const IN_FLIGHT: usize = 16;
/// One call that is not durable in this many is timed. A prime, so that it is not always the one that crosses a block or a page.
const APPENDS_PER_SAMPLE: u64 = 61;
/// Payload bytes of a turn at most, so that a long run does not fill the disk.
const TURN_BYTES_MAX: u64 = 1 << 30;

/// How the threads append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    mode: &'static str,
    durable: bool,
    /// A channel for each thread, else one for all.
    own_channels: bool,
}

/// Two kinds that take turns.
type Pair = [Kind; 2];

/// What waits for the disk and what does not have stores of their own: the one leaves writes behind that the other would feel.
const PAIRS: [Pair; 2] = [
    [
        Kind { mode: "never-one-channel", durable: false, own_channels: false },
        Kind { mode: "never-own-channels", durable: false, own_channels: true },
    ],
    [
        Kind { mode: "durable-one-channel", durable: true, own_channels: false },
        Kind { mode: "durable-own-channels", durable: true, own_channels: true },
    ],
];

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = (THREADS.len() * PAIRS.len() * 2) as u32;

/// The last event of a thread in a turn: its channel, its sequence, and the number of its payload.
type Last = (String, u64, u64);

/// What one thread did.
struct Stint {
    turn: Turn,
    /// Sequence and number of the payload.
    last: Option<(u64, u64)>,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    for pair in PAIRS {
        let mut alone = [0.0; 2];
        for threads in THREADS {
            with_threads(session, &payloads, pair, threads, &mut alone)?;
        }
    }
    Ok(())
}

/// The rows of so many threads. `alone` has the rates of one thread, once they are known.
fn with_threads(
    session: &mut Session,
    payloads: &Payloads,
    pair: Pair,
    threads: usize,
    alone: &mut [f64; 2],
) -> anyhow::Result<()> {
    session.doing(format!("producers, {threads} threads"));
    let times = pair.map(|_| session.row_time(Workload::Producers) / TURN_COUNT);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let mut measured = pair.map(|_| (Meter::new(&dir), Turns::default()));
    let mut lasts: Vec<Last> = Vec::new();
    for round in 0..TURN_COUNT {
        for ((kind, time), (meter, turns)) in pair.into_iter().zip(times).zip(&mut measured) {
            let files = open_files(&redex, kind, threads)?;
            let stints = |number: usize| {
                let file = &files[number % files.len()];
                let first = (u64::from(round) << 48) | ((number as u64) << 32);
                move || {
                    if kind.durable { durable(file, payloads, first, time) } else { never(file, payloads, first, time) }
                }
            };
            let mut stopped = Vec::new();
            turns.push(meter.around(&redex, || {
                let (all, elapsed) = crew::together((0..threads).map(stints))?;
                let turn = crew::merged(all.iter().map(|stint| &stint.turn), elapsed);
                stopped.extend(all.into_iter().map(|stint| stint.last));
                Ok(turn)
            })?);
            // What was not waited for is not to run into another's turn.
            files.iter().try_for_each(|file| file.sync().wait()).context("syncing")?;
            let named = stopped.into_iter().enumerate().filter_map(|(number, last)| last.map(|last| (number, last)));
            lasts.extend(named.map(|(number, (seq, index))| (channel(kind, number), seq, index)));
        }
    }
    let facts = redex.stats().io;
    store::close(redex)?;
    read_back(&dir, session.backend, payloads, &lasts)?;
    session.place("store")?;

    for ((kind, (meter, turns)), alone) in pair.into_iter().zip(measured).zip(alone) {
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        (row.mode, row.in_flight) = (kind.mode, (threads * if kind.durable { IN_FLIGHT } else { 1 }) as u64);
        row.channels = if kind.own_channels { threads as u64 } else { 1 };
        if threads == 1 {
            *alone = row.events_per_s;
        }
        let ratio = row.events_per_s / alone.max(1e-9);
        row.numbers.insert("threads".to_owned(), threads as f64);
        row.numbers.insert("ratio_one_thread".to_owned(), ratio);
        row.note = Some(format!("{threads} threads, {ratio:.2}x one"));
        session.finish(row.costing(&meter.usage(), &facts))?;
    }
    Ok(())
}

fn channel(kind: Kind, number: usize) -> String {
    if kind.own_channels { format!("bench/{}/{number}", kind.mode) } else { format!("bench/{}", kind.mode) }
}

fn open_files(redex: &Redex, kind: Kind, threads: usize) -> anyhow::Result<Vec<RedexFile>> {
    let count = if kind.own_channels { threads } else { 1 };
    (0..count).map(|number| store::channel(redex, &channel(kind, number), FsyncPolicy::Never)).collect()
}

/// One event a call, for `time`.
fn never(file: &RedexFile, payloads: &Payloads, first: u64, time: Duration) -> anyhow::Result<Stint> {
    let mut latencies = Latencies::new();
    let (mut events, mut last) = (0, None);
    let start = Instant::now();
    let mut now = start;
    while now - start < time && events * (PAYLOAD_SIZE as u64) < TURN_BYTES_MAX {
        for _ in 1..APPENDS_PER_SAMPLE {
            file.append(payloads.get(first + events)).wait().context("appending")?;
            events += 1;
        }
        let sent = Instant::now();
        let seq = file.append(payloads.get(first + events)).wait().context("appending")?;
        now = Instant::now();
        latencies.record(now - sent);
        last = Some((seq, first + events));
        events += 1;
    }
    Ok(Stint { turn: Turn { latencies, events, elapsed: now - start }, last })
}

/// Keeps events in flight for `time`, and waits for all of them: for the oldest, then a new one takes its place.
fn durable(file: &RedexFile, payloads: &Payloads, first: u64, time: Duration) -> anyhow::Result<Stint> {
    let mut latencies = Latencies::new();
    let (mut events, mut sent, mut last) = (0, first, None);
    let mut receipts = VecDeque::with_capacity(IN_FLIGHT);
    let start = Instant::now();
    let mut now = start;
    loop {
        while receipts.len() < IN_FLIGHT && now - start < time {
            receipts.push_back((now, sent, file.append_durable(payloads.get(sent))));
            sent += 1;
        }
        let Some((since, index, oldest)) = receipts.pop_front() else { break };
        let seq = oldest.wait().context("appending")?;
        now = Instant::now();
        latencies.record(now - since);
        last = Some((seq, index));
        events += 1;
    }
    Ok(Stint { turn: Turn { latencies, events, elapsed: now - start }, last })
}

/// Reopens the store and compares the last event of every thread in every turn.
fn read_back(dir: &Path, backend: Option<Backend>, payloads: &Payloads, lasts: &[Last]) -> anyhow::Result<()> {
    let redex = store::open(dir, backend).context("reopening to read back")?;
    for (name, seq, index) in lasts {
        let file = store::channel(&redex, name, FsyncPolicy::Never)?;
        readback::compare(&file, *seq, payloads.get(*index)).with_context(|| format!("channel {name}"))?;
    }
    store::close(redex)
}
