//! RedEX beside other storage engines: the same payloads, the same durability, on the same disk, in turns.
//!
//! `run` measures, `list` says which engines there are and how each is configured. Every row of a load is measured in one run: the
//! engines take turns, medians over the turns count, and the bare device takes its turns too. After a row each log is reopened and
//! everything in it is counted and compared.
//!
//! Exit codes: 0 fine, 1 failed (an engine's failure is only a note in its row), 2 wrong arguments.

mod args;
mod drive;
mod engine;
mod engines;
mod frame;
mod report;
mod run;
mod workload;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let done = match &cli.command {
        args::Command::Run(args) => run::run(args),
        args::Command::List => {
            report::list().iter().for_each(|line| println!("{line}"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
