//! One thread that keeps a fixed number of durable appends in flight.
//!
//! It appends until that many are not acknowledged, waits for the oldest, takes every other that the same commit acknowledged
//! (their channels' durable marks say so), and appends as many again: what a server does that answers requests in order.
//! Only acknowledged events are counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::RedexFile;

use crate::load::Payloads;
use crate::sample::{Latencies, Turn};

/// Appends that share one reading of the clock, taken before the first of them, when many are in flight: reading the
/// clock costs as much as a checksum. It can make a latency longer by the time of a few appends, never shorter.
const APPENDS_PER_STAMP: usize = 16;

/// The channels of a closed loop, written in turn, and how far each is.
pub struct ClosedLoop<'a> {
    files: &'a [RedexFile],
    payloads: &'a Payloads,
    /// Events appended so far: event `i` went to channel `i % files.len()`, where it is number `i / files.len()`.
    appended: u64,
}

impl<'a> ClosedLoop<'a> {
    /// A loop over `files`, all of them empty.
    pub fn new(files: &'a [RedexFile], payloads: &'a Payloads) -> Self {
        Self::resume(files, payloads, 0)
    }

    /// A loop over `files`, to which exactly the first `appended` events of such a loop went.
    pub fn resume(files: &'a [RedexFile], payloads: &'a Payloads, appended: u64) -> Self {
        Self { files, payloads, appended }
    }

    /// A loop that goes on with a channel of which it is the only writer, whose events have the payloads of their sequences.
    pub(crate) fn resuming(file: &'a [RedexFile; 1], payloads: &'a Payloads) -> Self {
        Self { files: file, payloads, appended: file[0].next_seq() }
    }

    /// A loop that goes on where another over the same files, of as many events, has ended.
    pub(crate) fn going_on(files: &'a [RedexFile], payloads: &'a Payloads, appended: u64) -> Self {
        Self { files, payloads, appended }
    }

    /// Events appended and acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.appended
    }

    /// Keeps `in_flight` durable appends in flight for `time`, then waits for all of them.
    pub fn turn(&mut self, in_flight: usize, time: Duration) -> anyhow::Result<Turn> {
        let mut latencies = Latencies::new();
        let first = self.appended;
        let mut acknowledged = first;
        let mut receipts = VecDeque::with_capacity(in_flight);
        let mut stamps = Stamps::new(in_flight);
        let start = Instant::now();
        let mut now = start;
        loop {
            if now - start < time {
                while receipts.len() < in_flight {
                    let (file, _) = self.place(self.appended);
                    stamps.sent(self.appended);
                    receipts.push_back(file.append_durable(self.payloads.get(self.appended)));
                    self.appended += 1;
                }
            }
            let Some(oldest) = receipts.pop_front() else { break };
            let seq = oldest.wait().context("appending")?;
            ensure!(seq == self.place(acknowledged).1, "an append got sequence {seq}, out of order");
            acknowledged += 1;
            while !receipts.is_empty() && self.is_durable(acknowledged) {
                receipts.pop_front();
                acknowledged += 1;
            }
            now = Instant::now();
            stamps.acknowledged(acknowledged, now, &mut latencies);
        }
        Ok(Turn { latencies, events: acknowledged - first, elapsed: start.elapsed() })
    }

    /// Channel and sequence of event `index`.
    fn place(&self, index: u64) -> (&'a RedexFile, u64) {
        if let [file] = self.files {
            return (file, index);
        }
        let count = self.files.len() as u64;
        (&self.files[(index % count) as usize], index / count)
    }

    fn is_durable(&self, index: u64) -> bool {
        let (file, seq) = self.place(index);
        file.durable() > seq
    }
}

/// When the appends in flight were made, one reading of the clock for several.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// When, and the index after the last event that it is for. The first one's events begin at `taken`.
    stamps: VecDeque<(Instant, u64)>,
    per_stamp: usize,
    since_stamp: usize,
    taken: Option<u64>,
}

impl Stamps {
    pub(crate) fn new(in_flight: usize) -> Self {
        let per_stamp = if in_flight < 64 { 1 } else { APPENDS_PER_STAMP };
        Self { stamps: VecDeque::new(), per_stamp, since_stamp: per_stamp, taken: None }
    }

    /// The event `index` is about to be appended.
    fn sent(&mut self, index: u64) {
        self.taken.get_or_insert(index);
        match self.stamps.back_mut() {
            Some((_, end)) if self.since_stamp < self.per_stamp => *end = index + 1,
            _ => {
                self.stamps.push_back((Instant::now(), index + 1));
                self.since_stamp = 0;
            }
        }
        self.since_stamp += 1;
    }

    /// All events below `end` are acknowledged by `now`. The next one that is sent reads the clock again.
    fn acknowledged(&mut self, end: u64, now: Instant, latencies: &mut Latencies) {
        self.since_stamp = self.per_stamp;
        let Some(mut taken) = self.taken else { return };
        while let Some((sent, stamp_end)) = self.stamps.front().copied() {
            let until = stamp_end.min(end);
            latencies.record_n(now - sent, until - taken);
            taken = until;
            if stamp_end > end {
                break;
            }
            self.stamps.pop_front();
        }
        self.taken = Some(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends and acknowledges in uneven steps: every event is recorded once.
    #[test]
    fn every_event_is_recorded_once() {
        let mut stamps = Stamps::new(100);
        let mut latencies = Latencies::new();
        let (mut sent, mut acknowledged) = (500, 500);
        for step in [1, 40, 3, 100, 7] {
            (0..100 - (sent - acknowledged)).for_each(|_| {
                stamps.sent(sent);
                sent += 1;
            });
            acknowledged = (acknowledged + step).min(sent);
            stamps.acknowledged(acknowledged, Instant::now(), &mut latencies);
            assert_eq!(latencies.histogram().len(), acknowledged - 500);
        }
        stamps.acknowledged(sent, Instant::now(), &mut latencies);
        assert_eq!(latencies.histogram().len(), sent - 500);
        assert!(stamps.stamps.is_empty());
    }
}
