//! Two threads of the process that is killed: one follows a channel live, one reads what it likes. They compare what this
//! process has appended, and that sequences are dense. They end the process if something is wrong.

use anyhow::{Context, bail, ensure};
use redex::{RedexFile, TailEnd};

use super::channels::{BOUNDED, POLICY_COUNT};
use super::payload::{self, Author};
use crate::args::CrashChildArgs;
use crate::load::splitmix64;

/// Events of one read.
const READ_EVENTS: u64 = 200;

/// Starts them; `next` is where each channel was opened. The process ends with code 1 if something is wrong.
pub(crate) fn spawn(files: &[RedexFile], next: &[u64], args: &CrashChildArgs, mut random: u64) {
    let check = Check { seed: args.seed, author: Author::of(args.round), next: next.to_vec() };
    let (files, theirs) = (files[..POLICY_COUNT].to_vec(), check.clone());
    let followed = splitmix64(&mut random) as usize % POLICY_COUNT;
    let file = files[followed].clone();
    let from = file.head_seq().max(next[followed].saturating_sub(splitmix64(&mut random) % 5000));
    std::thread::spawn(move || end_if_wrong(&follow(&theirs, followed, &file, from)));
    std::thread::spawn(move || end_if_wrong(&read(&check, &files, random)));
}

fn end_if_wrong(result: &anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("error: a reader: {error:#}");
        std::process::exit(1);
    }
}

/// What readers compare with.
#[derive(Clone, Debug)]
struct Check {
    seed: u64,
    author: Author,
    next: Vec<u64>,
}

impl Check {
    /// Compares an event with what this process appended; of what was there before only others know.
    fn event(&self, channel: usize, expected: u64, seq: u64, found: &[u8]) -> anyhow::Result<()> {
        ensure!(seq == expected, "channel {channel} gave event {seq} instead of {expected}");
        if seq >= self.next[channel] {
            let mut bytes = Vec::new();
            payload::make(&mut bytes, self.seed, self.author, channel, seq);
            ensure!(found == bytes, "channel {channel}, event {seq} has other bytes than what was appended");
        }
        Ok(())
    }
}

/// Follows a channel for ever.
fn follow(check: &Check, channel: usize, file: &RedexFile, from: u64) -> anyhow::Result<()> {
    let mut expected = from;
    let mut tail = file.tail(from);
    loop {
        match tail.next_wait() {
            Some(Ok(event)) => {
                check.event(channel, expected, event.seq, &event.payload)?;
                expected += 1;
            }
            Some(Err(TailEnd::Lagged { from, to, .. })) if channel == BOUNDED && from == expected => expected = to,
            Some(Err(end)) => bail!("channel {channel}, event {expected}: {end}"),
            None => bail!("the tail of channel {channel} ended at {expected}"),
        }
    }
}

/// Reads somewhere, again and again.
fn read(check: &Check, files: &[RedexFile], mut random: u64) -> anyhow::Result<()> {
    loop {
        let channel = splitmix64(&mut random) as usize % files.len();
        let file = &files[channel];
        let (head, end) = (file.head_seq(), file.published());
        let start = head + splitmix64(&mut random) % (end - head).max(1);
        let read = file.read_range(start, start + READ_EVENTS).wait();
        let events = read.with_context(|| format!("channel {channel}, from {start}"))?;
        // A bounded channel may have dropped the first of them meanwhile.
        let mut expected = if channel == BOUNDED { events.first().map_or(start, |event| event.seq) } else { start };
        for event in &events {
            check.event(channel, expected, event.seq, &event.payload)?;
            expected += 1;
        }
        ensure!(
            channel == BOUNDED || expected >= end.min(start + READ_EVENTS),
            "channel {channel} ended at {expected}"
        );
    }
}
