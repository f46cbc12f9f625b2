//! `redex-powerfail`: cuts the power and looks for a loss.

use std::process::ExitCode;

use clap::Parser;
use redex_powerfail::args::{Cli, Command};
use redex_powerfail::{job, replay, run, server};

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Job(args) => job::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Serve { mount_point, size } => server::serve(&mount_point, size).map(|()| ExitCode::SUCCESS),
    }
}
