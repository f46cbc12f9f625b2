//! `redex-fuzz`: looks for a loss.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use redex_fuzz::args::{Cli, Command, SimArgs};
use redex_fuzz::report::{missed, table};
use redex_fuzz::runner::{self, Limits};
use redex_fuzz::{corpus, fuzz_args};

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Sim(args) => sim(&args),
        Command::Recovery(args) => fuzz_args::recovery(&args),
        Command::Replay(args) => fuzz_args::replay(&args),
        Command::Corpus => corpus::make().map(|()| ExitCode::SUCCESS),
    }
}

fn sim(args: &SimArgs) -> anyhow::Result<ExitCode> {
    let (seed, threads) = (args.seed.unwrap_or(1), threads(args)?);
    let begun = Instant::now();
    match runner::run(seed, args.mode(), threads, limits(args)) {
        Ok(tally) => {
            print!("{}", table(&tally, begun.elapsed()));
            let missed = missed(&tally);
            for kind in &missed {
                println!("too few power cuts in steps of the kind `{kind}`");
            }
            Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(failure) => {
            println!("{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn limits(args: &SimArgs) -> Limits {
    let SimArgs { seed, lives, cuts, minutes, .. } = args;
    let time = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let unlimited = lives.is_none() && cuts.is_none() && time.is_none();
    match seed {
        Some(_) if unlimited => Limits { lives: Some(1), ..Limits::default() },
        None if unlimited => Limits { cuts: Some(1000), ..Limits::default() },
        _ => Limits { lives: *lives, cuts: *cuts, time },
    }
}

fn threads(args: &SimArgs) -> anyhow::Result<u64> {
    // One history needs one thread.
    if args.lives == Some(1) || limits(args).lives == Some(1) {
        return Ok(1);
    }
    match args.threads {
        Some(threads) => Ok(threads),
        None => Ok(std::thread::available_parallelism()?.get() as u64),
    }
}
