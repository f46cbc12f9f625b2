//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::engine::Engine;
use crate::engines::ALL;
use crate::workload::Workload;

/// Arguments of the program.
#[derive(Debug, Parser)]
#[command(name = "redex-peers", version, about = "Measures RedEX beside other storage engines, in turns, on one disk")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure; at most 10 minutes
    Run(RunArgs),
    /// Say which engines there are, their versions and how they are configured
    List,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Workloads to run, separated by commas; all if not given
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Workload>,
    /// Engines to run, separated by commas; all if not given
    #[arg(long, value_name = "ENGINE", value_delimiter = ',', value_parser = engine_name)]
    pub(crate) engines: Vec<&'static str>,
    /// Measured seconds of each engine in each load [default: 0.6, with --quick 0.3]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Fewer loads and shorter turns: under 90 s
    #[arg(long)]
    pub(crate) quick: bool,
    /// Events of the log that `reopen` opens [default: 1,000,000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub(crate) events: Option<u64>,
    /// Where the logs are made; a fresh directory within it is used, and removed [default: the current directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where results.jsonl goes
    #[arg(long, value_name = "DIR", default_value = "bench-out/peers")]
    pub(crate) out: PathBuf,
    /// Writes the tables as Markdown to this file: between its two marks, if it has them
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Every load's data comes from this number
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl RunArgs {
    /// The chosen engines, in their own order.
    pub(crate) fn engines(&self) -> Vec<&'static dyn Engine> {
        let chosen = |engine: &&&dyn Engine| self.engines.is_empty() || self.engines.contains(&engine.name());
        ALL.iter().filter(chosen).copied().collect()
    }
}

fn engine_name(text: &str) -> Result<&'static str, String> {
    let names: Vec<&'static str> = ALL.iter().map(|engine| engine.name()).collect();
    let found = names.iter().find(|name| **name == text).copied();
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=60.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0.01 to 60".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["redex-peers", "run", "--engines", "nobody"]).is_err());
        let cli = Cli::try_parse_from(["redex-peers", "run", "--engines", "std,redex", "--only", "durable"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("run was asked for") };
        let names: Vec<_> = args.engines().iter().map(|engine| engine.name()).collect();
        assert_eq!(names, ["redex", "std"]);
    }
}
