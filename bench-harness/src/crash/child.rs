//! The process that is killed: appends at full speed and tells through standard output what was acknowledged.

use std::collections::VecDeque;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use redex::RedexFile;

use super::channels::{BOUNDED, POLICY_COUNT};
use super::payload::{self, Author};
use super::pipe::Beside;
use super::{beside, channels, pipe, watch};
use crate::args::{CrashChildArgs, Policy};
use crate::load::{mix, splitmix64};

/// Acknowledged appends between two reports.
const APPENDS_PER_REPORT: usize = 64;

/// Durable appends in flight.
const IN_FLIGHT: usize = 256;

/// Writes until it is killed.
pub(crate) fn run(args: &CrashChildArgs) -> anyhow::Result<ExitCode> {
    let redex = channels::open_store(&args.place.dir, args.store, args.place.backend)?;
    let files = channels::open(&redex, args.policy)?;
    let next: Vec<u64> = files.iter().map(RedexFile::next_seq).collect();
    tell(&pipe::opened(&next))?;
    let random = mix(args.seed ^ u64::from(args.round) << 32);
    beside::spawn(&redex, &files, args, mix(random ^ 1));
    watch::spawn(&files, &next, args, mix(random ^ 2));
    let mut writer = Writer {
        args,
        files: &files[..POLICY_COUNT],
        next: next[..POLICY_COUNT].to_vec(),
        acknowledged: next[..POLICY_COUNT].to_vec(),
        random,
        payload: Vec::new(),
    };
    loop {
        match args.policy {
            Policy::Durable => writer.durable()?,
            _ => writer.published()?,
        }
    }
}

struct Writer<'a> {
    args: &'a CrashChildArgs,
    files: &'a [RedexFile],
    next: Vec<u64>,
    acknowledged: Vec<u64>,
    random: u64,
    payload: Vec<u8>,
}

impl Writer<'_> {
    /// Appends that are acknowledged as the policy says, one after the other; then one report.
    fn published(&mut self) -> anyhow::Result<()> {
        for _ in 0..APPENDS_PER_REPORT {
            let channel = self.choose();
            let seq = self.files[channel].append(&self.payload).wait().context("appending")?;
            self.acknowledge(channel, seq)?;
        }
        self.report()
    }

    /// Keeps durable appends in flight over all channels, for ever; a report now and then.
    fn durable(&mut self) -> anyhow::Result<()> {
        let mut receipts = VecDeque::with_capacity(IN_FLIGHT);
        loop {
            while receipts.len() < IN_FLIGHT {
                let channel = self.choose();
                receipts.push_back((channel, self.files[channel].append_durable(&self.payload)));
            }
            for _ in 0..APPENDS_PER_REPORT {
                let Some((channel, receipt)) = receipts.pop_front() else { break };
                let seq = receipt.wait().context("appending")?;
                self.acknowledge(channel, seq)?;
            }
            self.report()?;
        }
    }

    fn report(&self) -> anyhow::Result<()> {
        tell(&pipe::acknowledged(&self.acknowledged))?;
        tell(&pipe::beside(Beside::Head(self.files[BOUNDED].head_seq())))
    }

    /// Picks the channel of the next event and makes its payload.
    fn choose(&mut self) -> usize {
        let channel = splitmix64(&mut self.random) as usize % POLICY_COUNT;
        payload::make(&mut self.payload, self.args.seed, Author::of(self.args.round), channel, self.next[channel]);
        self.next[channel] += 1;
        channel
    }

    fn acknowledge(&mut self, channel: usize, seq: u64) -> anyhow::Result<()> {
        let expected = self.acknowledged[channel];
        anyhow::ensure!(seq == expected, "channel {channel} gave sequence {seq} instead of {expected}");
        self.acknowledged[channel] = seq + 1;
        Ok(())
    }
}

/// Writes one line at once, so that the kill leaves whole lines or nothing.
pub(crate) fn tell(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("reporting to the parent")
}
