//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::fuzz_args::{RecoveryArgs, ReplayArgs};
use crate::history::Mode;
use crate::script::Script;

/// Fuzzes RedEX.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the whole engine on a simulated disk, cuts its power, and compares what survives.
    Sim(SimArgs),
    /// Hands damaged files and directories, and every other format, to the engine: all fuzz targets.
    Recovery(RecoveryArgs),
    /// Runs a failure of `recovery`, or any other input, again.
    Replay(ReplayArgs),
    /// Makes the inputs that `recovery` begins with.
    Corpus,
}

/// Settings of `sim`. It ends at the first limit that is reached, at the end of a history.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Seed of the first history; the next ones count up. With neither limit nor another: that history alone.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Of the history of the seed only these lives and actions, as a failure prints them: `0:1-5+9,3:2` is life 0 with actions
    /// 1 to 5 and 9, and life 3 with action 2.
    #[arg(long, requires = "seed", conflicts_with_all = ["lives", "cuts", "minutes"])]
    pub only: Option<Script>,
    /// Print a failure as it is, and do not make it shorter.
    #[arg(long)]
    pub no_shrink: bool,
    /// Lives to live.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub lives: Option<u64>,
    /// Power cuts to make. From 200000 on, each kind of step must have been hit 100 times.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub cuts: Option<u64>,
    /// Minutes to run.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub minutes: Option<u64>,
    /// Threads; one for each core unless set.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: Option<u64>,
    /// Let the disk fail, too: errors are in order, losses are not.
    #[arg(long)]
    pub faults: bool,
    /// Let the disk damage what it holds at the end of each history: what is read is right, or there is an error.
    #[arg(long, conflicts_with = "faults")]
    pub damage: bool,
}

impl SimArgs {
    /// What the disk does.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.faults, self.damage) {
            (true, _) => Mode::Faults,
            (_, true) => Mode::Damage,
            _ => Mode::Honest,
        }
    }
}
