//! Throughput, latency and crash harness of RedEX.
//!
//! `run` (the default) measures the engine beside the bare device and a plain file, in turns, on the same file system;
//! `crash` kills a writing process again and again, and checks that nothing acknowledged is lost; `full-disk` and
//! `read-only-remount` do harm to a real file system under a store; `soak` looks for what grows with time; `sweep` looks for how
//! much in flight is enough; `compare` tells what is faster in one run than in another. Everything goes through the engine's public API. What a row measures is told by its module in `workload`.
//!
//! The library is what the programs of the harness share: `redex-bench`, and `redex-peers` in a workspace of its own.
//!
//! Exit codes: 0 fine, 1 failed (or an event was lost or wrong), 2 wrong arguments, 3 slower than `compare` allows.

mod args;
mod bins;
mod budget;
mod compare;
mod counters;
mod crash;
mod disk;
mod fill;
pub mod load;
pub mod machine;
mod mounts;
pub mod pace;
mod plain_file;
pub mod progress;
mod raw;
pub mod raw_loop;
mod readback;
mod report;
mod row;
mod run;
pub mod sample;
pub mod scratch;
mod soak;
mod store;
mod sweep;
mod workload;

use std::process::ExitCode;

pub use raw::{process_cpu_ns, uncache};
pub use report::units;
pub use workload::closed_loop;

use args::{Cli, Command, DiskFault, UsageError};
use clap::Parser;

/// The whole program `redex-bench`: reads the command line, does what it says, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Sweep(args)) => sweep::run(&args),
        Some(Command::Crash(args)) => crash::run(&args),
        Some(Command::Soak(args)) => soak::run(&args),
        Some(Command::FullDisk(args)) => disk::run(&args, DiskFault::Full),
        Some(Command::ReadOnlyRemount(args)) => disk::run(&args, DiskFault::ReadOnly),
        Some(Command::DiskChild(args)) => disk::child(&args),
        Some(Command::DiskWriter(args)) => disk::full::writer(&args),
        Some(Command::CrashChild(args)) => crash::child::run(&args),
        Some(Command::FillChild(args)) => fill::child(&args),
        Some(Command::FollowChild(args)) => workload::second_process::child(&args),
        Some(Command::MillionChild(args)) => workload::million::child(&args),
    }
}
