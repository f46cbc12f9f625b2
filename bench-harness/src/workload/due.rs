//! One thread that appends durable events when they are due, whatever the engine does.
//!
//! It appends all that are due by now, asks for the flush by polling the last of them once, and looks at the channel's durable
//! mark, which is one load: so millions of events a second cost it no channel, no second thread and no waker for each. Latency counts from the moment an
//! event was due: those behind a stall are late, and all of them count.

use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redex::RedexFile;

use crate::load::Payloads;
use crate::pace::Pace;
use crate::sample::{Latencies, Turn};

/// Events appended and not acknowledged at the most; those that are due meanwhile are late. 16 MiB of 256 bytes.
pub(super) const IN_FLIGHT_MAX: u64 = 65_536;

/// Events that are due within this have one latency, that of the first: so it may be recorded too long by this, never too short.
const GROUP: Duration = Duration::from_micros(1);

/// A turn that takes so much longer than it was to has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the thread does while nothing is due and nothing new is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Yields and looks again: exact, where a core is left for it.
    Yielding,
    /// Sleeps for [`NAP`], which ends up to that late: beside threads that are always busy, one that yields would get the processor only when these have had
    /// their slices, and the row would measure the scheduler.
    Sleeping,
}

/// A sleep between two looks. The kernel's slack makes it about twice as long.
const NAP: Duration = Duration::from_micros(50);

/// Appends to a channel of which it is the only writer.
pub(super) struct DueLoop<'a> {
    file: &'a RedexFile,
    payloads: &'a Payloads,
    idle: Idle,
    /// Sequence of the next event, and number of its payload.
    next: u64,
}

impl<'a> DueLoop<'a> {
    /// A loop over a channel whose events so far have the payloads of their sequences.
    pub(super) fn new(file: &'a RedexFile, payloads: &'a Payloads, idle: Idle) -> Self {
        Self { file, payloads, idle, next: file.next_seq() }
    }

    /// Events of `rate` a second for `time`, until all are acknowledged. A latency is from the moment when an event was due to
    /// its acknowledgement.
    pub(super) fn turn(&mut self, rate: f64, time: Duration) -> anyhow::Result<Turn> {
        let count = ((rate * time.as_secs_f64()) as u64).max(1);
        let group = ((rate * GROUP.as_secs_f64()) as u64).max(1);
        let mut latencies = Latencies::new();
        let (first, mut sent, mut acknowledged) = (self.next, 0, 0);
        let start = Instant::now();
        let pace = Pace::new(start, rate);
        while acknowledged < count {
            let now = Instant::now();
            let due = due_by(&pace, sent, now, rate).min(count).min(acknowledged + IN_FLIGHT_MAX);
            self.append(due.saturating_sub(sent))?;
            sent = sent.max(due);
            let durable = self.file.durable().saturating_sub(first).min(sent);
            if durable > acknowledged {
                record(&pace, acknowledged..durable, group, &mut latencies);
                acknowledged = durable;
            } else if due <= sent {
                match self.idle {
                    // Not spinning: the flush may be issued by a kernel thread of this very processor.
                    Idle::Yielding => std::thread::yield_now(),
                    Idle::Sleeping => std::thread::sleep(NAP),
                }
                ensure!(now - start < time + PATIENCE, "{acknowledged} of {sent} events were acknowledged in time");
            }
        }
        ensure!(self.file.next_seq() == self.next, "somebody else appends to the channel");
        Ok(Turn { latencies, events: count, elapsed: start.elapsed() })
    }

    /// Appends `count` events, and has the shard make them durable.
    fn append(&mut self, count: u64) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.file.append_durable(self.payloads.get(self.next)));
            self.next += 1;
        }
        let Some(last) = last else { return Ok(()) };
        match pin!(last).poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(Ok(seq)) if seq + 1 != self.next => bail!("an append got sequence {seq}, out of order"),
            Poll::Ready(result) => result.map(drop).context("appending"),
            Poll::Pending => Ok(()),
        }
    }
}

/// How many events were due by `now`, of which `sent` surely were.
fn due_by(pace: &Pace, sent: u64, now: Instant, rate: f64) -> u64 {
    let late = now.saturating_duration_since(pace.due(sent));
    if pace.due(sent) > now { sent } else { sent + 1 + (late.as_secs_f64() * rate) as u64 }
}

fn record(pace: &Pace, mut events: std::ops::Range<u64>, group: u64, latencies: &mut Latencies) {
    let now = Instant::now();
    while !events.is_empty() {
        let end = events.end.min(events.start + group);
        latencies.record_n(now.saturating_duration_since(pace.due(events.start)), end - events.start);
        events.start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redex::{Redex, RedexFileConfig};

    /// Nothing is due before its time, and everything is at its time.
    #[test]
    fn what_is_due_is_counted_to_the_event() {
        let start = Instant::now();
        let pace = Pace::new(start, 1000.0);
        assert_eq!(due_by(&pace, 0, start, 1000.0), 1);
        assert_eq!(due_by(&pace, 1, start + Duration::from_micros(900), 1000.0), 1);
        assert_eq!(due_by(&pace, 1, start + Duration::from_micros(5500), 1000.0), 6);
    }

    /// A late start counts for every event that waited for it.
    #[test]
    fn events_behind_a_stall_are_all_late() {
        let mut latencies = Latencies::new();
        let start = Instant::now() - Duration::from_millis(100);
        record(&Pace::new(start, 1000.0), 0..50, 7, &mut latencies);
        assert_eq!(latencies.histogram().len(), 50);
        assert!(latencies.at(0.0) >= 49_000_000, "the last was due 50 ms ago");
    }

    /// All that were due are appended, once and in order; the turn takes as long as the last is due.
    #[test]
    fn a_turn_appends_what_was_due() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let redex = Redex::open(dir.path()).unwrap();
        let file = redex.open_file("due", RedexFileConfig::default().with_persistent(true)).unwrap();
        let payloads = Payloads::new(1, 64);
        for (round, idle) in [(1, Idle::Yielding), (2, Idle::Sleeping)] {
            let mut due = DueLoop::new(&file, &payloads, idle);
            let turn = due.turn(10_000.0, Duration::from_millis(20)).unwrap();
            assert_eq!((turn.events, turn.latencies.histogram().len()), (200, 200));
            assert!(turn.elapsed >= Duration::from_micros(19_900));
            assert_eq!((file.next_seq(), file.durable()), (200 * round, 200 * round));
        }
        assert_eq!(file.read_one(123).wait().unwrap().unwrap().payload[..], *payloads.get(123));
        redex.close().wait().unwrap();
    }
}
