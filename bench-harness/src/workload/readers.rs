//! `readers`: 0, 1, 4, 16 and 64 subscribers of one channel, each a thread, beside one that appends as fast as it can. Only with
//! `--only readers`.
//!
//! The appends are not durable, one event a call. All begin together, and end when the writer's time is over: a `writer` row has what was appended until then (one call in 61 is timed), a
//! `slowest` row what the subscriber had that was last, with the time of 1000 events as latency. Nothing may be lost: every
//! subscriber checks that one sequence follows the other and compares one payload in 16, and the slowest goes on to the end, in time that
//! does not count. The counts take turns.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, RedexFile, Tail};

use super::{Workload, crew};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "readers";
const CHANNEL: &str = "bench/readers";
const PAYLOAD_SIZE: usize = 256;
/// Subscribers, and what the rows of writer and reader are called.
const COUNTS: [(usize, &str, &str); 5] = [
    (0, "0-readers-writer", ""),
    (1, "1-reader-writer", "1-reader-slowest"),
    (4, "4-readers-writer", "4-readers-slowest"),
    (16, "16-readers-writer", "16-readers-slowest"),
    (64, "64-readers-writer", "64-readers-slowest"),
];
/// Slices of time; fewer than elsewhere, since many threads on few cores need long ones.
const TURN_COUNT: u32 = 3;
/// Payload bytes of a turn at most, so that a long run does not fill the disk.
const TURN_BYTES_MAX: u64 = 1 << 30;
/// Appends between two looks at the clock.
const APPENDS_PER_LOOK: u64 = 64;
/// One event in this many is compared whole, and of all others the sequence.
const EVENTS_PER_COMPARE: u64 = 16;
/// One append in this many is timed. A prime, so that it is not always the one that crosses a block or a page.
const APPENDS_PER_SAMPLE: u64 = 61;
/// Events that one latency of a subscriber covers.
const EVENTS_PER_SAMPLE: u64 = 1000;

/// Rows that it measures; those of the subscribers come for free.
pub(super) const ROW_COUNT: u32 = COUNTS.len() as u32;

/// What was measured with so many subscribers.
struct Measured {
    meter: Meter,
    writer: Turns,
    slowest: Turns,
    /// Events that the slowest had yet to get when the time was over, at the most.
    behind_max: u64,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let times = COUNTS.map(|_| session.row_time(Workload::Readers) / TURN_COUNT);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir: PathBuf = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let new =
        || Measured { meter: Meter::new(&dir), writer: Turns::default(), slowest: Turns::default(), behind_max: 0 };
    let mut measured = COUNTS.map(|_| new());
    for _ in 0..TURN_COUNT {
        for (((readers, _, _), time), measured) in COUNTS.into_iter().zip(times).zip(&mut measured) {
            session.doing(format!("readers, {readers}"));
            let mut slowest = None;
            measured.writer.push(measured.meter.around(&redex, || {
                let (writer, last) = turn(&file, &payloads, readers, time)?;
                slowest = last;
                Ok(writer)
            })?);
            if let Some((turn, tail)) = slowest {
                measured.behind_max = measured.behind_max.max(to_the_end(tail, &file, &payloads)?);
                measured.slowest.push(turn);
            }
            // What still lies in memory is not to run into another's turn.
            file.sync().wait().context("syncing")?;
        }
    }
    let (appended, facts) = (file.durable(), redex.stats().io);
    drop(file);
    store::close(redex)?;
    let seed = session.seed_for(appended);
    readback::sample(&dir, session.backend, CHANNEL, appended, seed, |seq| payloads.get(seq))?;
    session.place("store")?;

    let alone = measured[0].writer.rate();
    for ((readers, writer_mode, reader_mode), Measured { meter, writer, slowest, behind_max }) in
        COUNTS.into_iter().zip(measured)
    {
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &writer, &session.machine);
        row.mode = writer_mode;
        let ratio = row.events_per_s / alone.max(1e-9);
        row.numbers.insert("readers".to_owned(), readers as f64);
        row.numbers.insert("ratio_alone".to_owned(), ratio);
        row.note = Some(format!("{ratio:.2}x alone"));
        session.finish(row.costing(&meter.usage(), &facts))?;
        if readers > 0 {
            let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &slowest, &session.machine);
            row.mode = reader_mode;
            let all = row.events_per_s * readers as f64;
            row.numbers.insert("readers".to_owned(), readers as f64);
            row.numbers.insert("lost_events".to_owned(), 0.0);
            row.numbers.insert("delivered_events_per_s".to_owned(), all);
            row.numbers.insert("behind_events_max".to_owned(), behind_max as f64);
            let (all, behind) = (all / 1e6, behind_max as f64 / 1e3);
            row.note = Some(format!(
                "{all:.2} M/s to all if each were the slowest, up to {behind:.0} k events behind, nothing lost; latency is that of 1000"
            ));
            session.finish(row)?;
        }
    }
    Ok(())
}

/// What a thread has done; a subscriber gives its tail back.
type Done = (Turn, Option<Tail>);

/// The writer's turn, and that of the subscriber that got the least, with its tail.
fn turn(
    file: &RedexFile,
    payloads: &Payloads,
    readers: usize,
    time: Duration,
) -> anyhow::Result<(Turn, Option<(Turn, Tail)>)> {
    let over = AtomicBool::new(false);
    let over = &over;
    let mut jobs: Vec<Box<dyn FnOnce() -> anyhow::Result<Done> + Send + '_>> = Vec::new();
    for _ in 0..readers {
        let tail = file.subscribe_tail().wait().context("subscribing")?;
        jobs.push(Box::new(move || read(tail, payloads, over).map(|(turn, tail)| (turn, Some(tail)))));
    }
    jobs.push(Box::new(move || crew::or_close(file, append(file, payloads, time, over)).map(|turn| (turn, None))));
    let (mut done, _) = crew::together(jobs)?;
    let (writer, _) = done.pop().context("the writer has a turn")?;
    let tails = done.into_iter().filter_map(|(turn, tail)| tail.map(|tail| (turn, tail)));
    Ok((writer, tails.min_by(|(one, _), (other, _)| one.rate().total_cmp(&other.rate()))))
}

/// Appends for `time`, says that the time is over, and appends once more: that wakes whoever waits.
fn append(file: &RedexFile, payloads: &Payloads, time: Duration, over: &AtomicBool) -> anyhow::Result<Turn> {
    let mut latencies = Latencies::new();
    let first = file.next_seq();
    let (mut next, start) = (first, Instant::now());
    while start.elapsed() < time && (next - first) * (payloads.size() as u64) < TURN_BYTES_MAX {
        (next..next + APPENDS_PER_LOOK).try_for_each(|seq| one(file, payloads, seq, &mut latencies))?;
        next += APPENDS_PER_LOOK;
    }
    let elapsed = start.elapsed();
    over.store(true, Ordering::Release);
    one(file, payloads, next, &mut latencies)?;
    Ok(Turn { latencies, events: next - first, elapsed })
}

fn one(file: &RedexFile, payloads: &Payloads, seq: u64, latencies: &mut Latencies) -> anyhow::Result<()> {
    let sent = seq.is_multiple_of(APPENDS_PER_SAMPLE).then(Instant::now);
    file.append(payloads.get(seq)).wait().context("appending")?;
    if let Some(sent) = sent {
        latencies.record(sent.elapsed());
    }
    Ok(())
}

/// Takes events until the time is over.
fn read(mut tail: Tail, payloads: &Payloads, over: &AtomicBool) -> anyhow::Result<(Turn, Tail)> {
    let mut latencies = Latencies::new();
    let (mut events, start) = (0, Instant::now());
    let mut sampled = start;
    while !over.load(Ordering::Acquire) {
        take(&mut tail, payloads)?;
        events += 1;
        if events % EVENTS_PER_SAMPLE == 0 {
            let now = Instant::now();
            latencies.record(now - sampled);
            sampled = now;
        }
    }
    Ok((Turn { latencies, events, elapsed: start.elapsed() }, tail))
}

/// Takes the next event, and checks that it is the next.
fn take(tail: &mut Tail, payloads: &Payloads) -> anyhow::Result<()> {
    let seq = tail.cursor().seq;
    let event = tail.next_wait();
    let event = event.with_context(|| format!("a tail ended at event {seq}: {:?}", tail.ended()))?;
    ensure!(event.seq == seq, "a tail gave event {} instead of {seq}", event.seq);
    let whole = seq.is_multiple_of(EVENTS_PER_COMPARE);
    ensure!(!whole || *event.payload == *payloads.get(seq), "a tail gave a wrong payload for event {seq}");
    Ok(())
}

/// Takes what is left, and says how many that were.
fn to_the_end(mut tail: Tail, file: &RedexFile, payloads: &Payloads) -> anyhow::Result<u64> {
    let left = file.next_seq() - tail.cursor().seq;
    (0..left).try_for_each(|_| take(&mut tail, payloads))?;
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redex::{Redex, RedexFileConfig};

    /// Subscribers stop when the time is over, wherever they are, and the slowest still gets all that is left.
    #[test]
    fn a_turn_ends_in_time_and_loses_nothing() {
        let redex = Redex::in_memory();
        let file = redex.open_file("readers", RedexFileConfig::default()).unwrap();
        let payloads = Payloads::new(1, 64);
        let mut appended = 0;
        for _ in 0..2 {
            let (writer, slowest) = turn(&file, &payloads, 3, Duration::from_millis(3)).unwrap();
            let (reader, tail) = slowest.unwrap();
            appended += writer.events + 1;
            assert_eq!(file.next_seq(), appended);
            let left = to_the_end(tail, &file, &payloads).unwrap();
            assert_eq!(reader.events + left, writer.events + 1);
        }
        assert!(turn(&file, &payloads, 0, Duration::from_millis(1)).unwrap().1.is_none());
    }
}
