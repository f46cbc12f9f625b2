//! The loops that every engine goes through: generic, so that each call to an engine is a direct one.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context;
use redex_bench::load::Payloads;
use redex_bench::sample::{Latencies, Turn};

use crate::engine::{Feed, Log, Shared};

/// One single append in this many is timed: reading the clock costs as much as an append. A prime, so that it is not always
/// the one that crosses a block.
const APPENDS_PER_SAMPLE: u64 = 61;

/// Stack of each appending thread, bytes.
const STACK_SIZE: usize = 256 * 1024;

/// For `time`: `batch` events, one durable commit. The latency is that of the whole commit, for each event.
pub(crate) fn commits<L: Log + ?Sized>(
    log: &mut L,
    feed: &mut Feed,
    batch: usize,
    time: Duration,
) -> anyhow::Result<Turn> {
    calls(log, feed, batch, time, L::commit)
}

/// The same without waiting for the disk.
pub(crate) fn batches<L: Log + ?Sized>(
    log: &mut L,
    feed: &mut Feed,
    batch: usize,
    time: Duration,
) -> anyhow::Result<Turn> {
    calls(log, feed, batch, time, L::append_batch)
}

fn calls<L: Log + ?Sized>(
    log: &mut L,
    feed: &mut Feed,
    batch: usize,
    time: Duration,
    call: impl Fn(&mut L, &[&[u8]]) -> anyhow::Result<()>,
) -> anyhow::Result<Turn> {
    let payloads = feed.payloads.clone();
    let mut latencies = Latencies::new();
    let mut events: Vec<&[u8]> = Vec::with_capacity(batch);
    let first = feed.next;
    let start = Instant::now();
    let mut now = start;
    while now - start < time && feed.has_room() {
        events.clear();
        let end = feed.next + batch as u64;
        events.extend((feed.next..end).map(|number| payloads.get(number)));
        call(log, &events)?;
        feed.next = end;
        let done = Instant::now();
        latencies.record_n(done - now, batch as u64);
        now = done;
    }
    Ok(Turn { latencies, events: feed.next - first, elapsed: now - start })
}

/// For `time`: one event a call, without waiting for the disk.
pub(crate) fn singles<L: Log + ?Sized>(log: &mut L, feed: &mut Feed, time: Duration) -> anyhow::Result<Turn> {
    let payloads = feed.payloads.clone();
    let mut latencies = Latencies::new();
    let first = feed.next;
    let start = Instant::now();
    let mut now = start;
    while now - start < time && feed.has_room() {
        for number in feed.next..feed.next + APPENDS_PER_SAMPLE - 1 {
            log.append(payloads.get(number))?;
        }
        feed.next += APPENDS_PER_SAMPLE;
        let sent = Instant::now();
        log.append(payloads.get(feed.next - 1))?;
        now = Instant::now();
        latencies.record(now - sent);
    }
    Ok(Turn { latencies, events: feed.next - first, elapsed: now - start })
}

/// For `time`: `threads` threads, each appending one durable event after the other, for themselves.
pub(crate) fn threads(
    log: &dyn Shared,
    payloads: &Payloads,
    first: u64,
    threads: usize,
    time: Duration,
) -> anyhow::Result<Turn> {
    let together = Barrier::new(threads);
    std::thread::scope(|scope| {
        let spawn = |number: usize| {
            let together = &together;
            let work = move || alone(log, payloads, first + ((number as u64) << 32), time, together);
            std::thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, work)
        };
        let handles = (0..threads).map(spawn).collect::<Result<Vec<_>, _>>().context("starting the threads")?;
        let ended = handles.into_iter().map(|handle| handle.join().expect("an appending thread does not panic"));
        Ok(merge(&ended.collect::<Result<Vec<_>, _>>()?))
    })
}

/// What one thread or task did.
pub(crate) struct Alone {
    /// Before its first append.
    pub(crate) start: Instant,
    /// After its last one.
    pub(crate) end: Instant,
    /// Of each append.
    pub(crate) latencies: Vec<Duration>,
}

fn alone(
    log: &dyn Shared,
    payloads: &Payloads,
    first: u64,
    time: Duration,
    together: &Barrier,
) -> anyhow::Result<Alone> {
    let mut latencies = Vec::new();
    together.wait();
    let start = Instant::now();
    let mut end = start;
    while end - start < time {
        log.commit_one(payloads.get(first + latencies.len() as u64))?;
        let done = Instant::now();
        latencies.push(done - end);
        end = done;
    }
    Ok(Alone { start, end, latencies })
}

/// One turn of all, from the start of the first to the end of the last.
pub(crate) fn merge(each: &[Alone]) -> Turn {
    let start = each.iter().map(|alone| alone.start).min();
    let end = each.iter().map(|alone| alone.end).max();
    let mut latencies = Latencies::new();
    each.iter().flat_map(|alone| &alone.latencies).for_each(|latency| latencies.record(*latency));
    let elapsed = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
    Turn { events: latencies.histogram().len(), latencies, elapsed }
}
