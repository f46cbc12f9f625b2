//! `redex-fuzz`: looks for a loss.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use redex_fuzz::args::{Cli, Command, SimArgs};
use redex_fuzz::history;
use redex_fuzz::report::{missed, table};
use redex_fuzz::runner::{self, Limits};
use redex_fuzz::shrink::shrink;
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
    // A life of a store is short and uses little of its buffers: to clear huge pages would take longer than that.
    nix::sys::prctl::set_thp_disable(true)?;
    let (seed, threads) = (args.seed.unwrap_or(1), threads(args)?);
    let begun = Instant::now();
    let outcome = match &args.only {
        Some(script) => history::run_script(seed, args.mode(), Some(script)).map(|outcome| outcome.tally),
        None => runner::run(seed, args.mode(), threads, limits(args)),
    };
    match outcome {
        Ok(tally) => {
            print!("{}", table(&tally, begun.elapsed()));
            let missed = missed(&tally);
            for kind in &missed {
                println!("too few power cuts in steps of the kind `{kind}`");
            }
            Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(failure) => {
            println!("life {} of seed {}: {}", failure.life, failure.seed, failure.what);
            if args.no_shrink {
                println!("{failure}");
                return Ok(ExitCode::FAILURE);
            }
            println!("it is made shorter, for a minute at most; {} actions now", failure.script.len());
            let failure = shrink(failure);
            println!("{} actions are left\n{failure}", failure.script.len());
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
