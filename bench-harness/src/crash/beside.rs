//! A thread of the process that is killed: batches over channels, and a channel that loses its end again and again.
//!
//! Everything it does is durable before it is told, under every policy. It ends the process if something fails.

use anyhow::{Context, ensure};
use redex::{Redex, RedexFile};

use super::channels::{CUT, GROUPED};
use super::child::tell;
use super::payload::{self, Author};
use super::pipe::{self, Beside};
use crate::args::CrashChildArgs;
use crate::load::splitmix64;

/// Batches in flight.
const BATCHES: usize = 4;

/// Events that the cut channel gets at a time.
const CUT_EVENTS: u64 = 16;

/// One turn in so many cuts, once the channel has events to spare.
const CUT_EVERY: u64 = 8;

/// Starts it; ends the process with code 1 if it fails.
pub(crate) fn spawn(redex: &Redex, files: &[RedexFile], args: &CrashChildArgs, random: u64) {
    let mut work = Work {
        redex: redex.clone(),
        grouped: GROUPED.map(|channel| files[channel].clone()),
        cut: files[CUT].clone(),
        seed: args.seed,
        author: Author::of(args.round),
        cut_author: Author::of(args.round),
        random,
    };
    std::thread::spawn(move || {
        loop {
            if let Err(error) = work.turn() {
                eprintln!("error: {error:#}");
                std::process::exit(1);
            }
        }
    });
}

struct Work {
    redex: Redex,
    grouped: [RedexFile; 2],
    cut: RedexFile,
    seed: u64,
    author: Author,
    cut_author: Author,
    random: u64,
}

impl Work {
    fn turn(&mut self) -> anyhow::Result<()> {
        self.batches()?;
        self.grow()?;
        if splitmix64(&mut self.random).is_multiple_of(CUT_EVERY) { self.cut() } else { Ok(()) }
    }

    fn payload(&self, author: Author, channel: usize, seq: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        payload::make(&mut bytes, self.seed, author, channel, seq);
        bytes
    }

    /// Some batches in flight at once; each has an event for the first channel and two for the second.
    fn batches(&mut self) -> anyhow::Result<()> {
        let first = self.grouped[0].next_seq();
        let commits: Vec<_> = (first..).take(BATCHES).map(|number| (number, self.batch(number).commit())).collect();
        for (number, commit) in commits {
            let seqs = commit.wait().context("committing a batch")?;
            ensure!(seqs == [number, 2 * number, 2 * number + 1], "batch {number} got the sequences {seqs:?}");
            tell(&pipe::beside(Beside::Batches(number + 1)))?;
        }
        Ok(())
    }

    fn batch(&self, number: u64) -> redex::Batch {
        let mut batch = self.redex.batch();
        let [ones, twos] = &self.grouped;
        batch.append(ones, self.payload(self.author, GROUPED[0], number));
        for seq in [2 * number, 2 * number + 1] {
            batch.append(twos, self.payload(self.author, GROUPED[1], seq));
        }
        batch
    }

    fn grow(&mut self) -> anyhow::Result<()> {
        let next = self.cut.next_seq();
        let payloads: Vec<_> = (next..next + CUT_EVENTS).map(|seq| self.payload(self.cut_author, CUT, seq)).collect();
        let seqs = self.cut.append_batch_durable(&payloads).wait().context("appending to the channel that is cut")?;
        ensure!(seqs == (next..next + CUT_EVENTS), "a batch of the cut channel got {seqs:?} instead of {next}..");
        tell(&pipe::beside(Beside::CutDurable(seqs.end)))
    }

    /// Takes back some of the newest events, sometimes of earlier rounds, too.
    fn cut(&mut self) -> anyhow::Result<()> {
        let next = self.cut.next_seq();
        let end = next.saturating_sub(splitmix64(&mut self.random) % (4 * CUT_EVENTS));
        tell(&pipe::beside(Beside::CutBegins(end)))?;
        let found = self.cut.truncate_suffix(end).wait().context("cutting off")?;
        ensure!(found == end, "a cut at {end} ended at {found}");
        self.cut_author.cuts += 1;
        tell(&pipe::beside(Beside::CutEnded(end)))
    }
}
