//! Instructions that the hot paths take, counted by callgrind and held against a baseline.
//!
//! Times on a shared machine move by tens of percent; the number of instructions of one thread on one path moves by nothing, so a change
//! of a few percent is seen in every build. It is no time: a cache miss, a lock that others hold and a system call count as one
//! instruction or none.
//!
//! Each path is run twice, short and long, in a process of its own; instructions per event are the difference over the difference in
//! length, so what a start costs cancels out. valgrind has no io_uring: paths that need a disk run on the simulated one, driven by
//! hand on one thread, and what the simulated disk itself takes is left out.
//!
//! Exit codes: 0 as the baseline, 1 beyond the tolerance or failed, 2 wrong arguments.

mod baseline;
mod callgrind;
mod memory_paths;
mod path;
mod region;
mod store_paths;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use baseline::Baseline;
use path::{Path, all};

/// Arguments of the program.
#[derive(Debug, Parser)]
#[command(name = "redex-counts", version, about = "Counts the instructions of the hot paths, beside a baseline")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The file with the baseline
    #[arg(long, value_name = "FILE", default_value = "bench-harness/counts/baseline.json")]
    baseline: PathBuf,
    /// Makes what is measured the baseline
    #[arg(long)]
    write: bool,
    /// What a path may differ from the baseline [default: the baseline's own]
    #[arg(long, value_name = "PERCENT")]
    tolerance: Option<f64>,
    /// Paths to count, separated by commas; all if not given
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "write")]
    only: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Goes a path once, for callgrind to count.
    #[command(hide = true)]
    Go {
        /// Which.
        name: String,
        /// Events, or what the path has instead.
        length: u64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::Go { name, length }) => go(name, *length),
        None => count(&cli),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn go(name: &str, length: u64) -> anyhow::Result<ExitCode> {
    let path = all().into_iter().find(|path| path.name == name).with_context(|| format!("there is no path {name}"))?;
    (path.go)(length);
    Ok(ExitCode::SUCCESS)
}

fn count(cli: &Cli) -> anyhow::Result<ExitCode> {
    let paths: Vec<Path> =
        all().into_iter().filter(|path| cli.only.is_empty() || cli.only.iter().any(|name| name == path.name)).collect();
    if paths.is_empty() {
        bail!("there is no path {}", cli.only.join(", "));
    }
    let old = if cli.write { None } else { Some(Baseline::read(&cli.baseline)?) };
    let tolerance = cli.tolerance.unwrap_or_else(|| old.as_ref().map_or(0.0, |old| old.tolerance_percent));
    let mut new = Baseline::of_this_machine()?;
    let mut beyond = Vec::new();
    println!("{:<18} {:>9} {:>12} {:>12} {:>9}", "path", "per", "instructions", "baseline", "");
    for path in paths {
        let counted = callgrind::instructions(&path)?;
        let before = old.as_ref().and_then(|old| old.instructions.get(path.name)).copied();
        let difference = before.map(|before| 100.0 * (counted / before - 1.0));
        let [before, percent] =
            [before.map(|before| format!("{before:.1}")), difference.map(|percent| format!("{percent:+.2} %"))];
        let [before, percent] = [before, percent].map(Option::unwrap_or_default);
        println!("{:<18} {:>9} {counted:>12.1} {before:>12} {percent:>9}", path.name, path.unit);
        if !cli.write && difference.is_none_or(|percent| percent.abs() > tolerance) {
            beyond.push(path.name);
        }
        new.instructions.insert(path.name.to_owned(), (counted * 10.0).round() / 10.0);
    }
    if cli.write {
        new.write(&cli.baseline)?;
        println!("written: {}", cli.baseline.display());
    }
    if beyond.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("more than {tolerance} % from the baseline, or not in it: {}", beyond.join(", "));
    if let Some(difference) = old.as_ref().and_then(|old| old.tools_differ(&new)) {
        println!("the baseline was made with other tools: {difference}");
    }
    println!("if that is meant to be: bench-harness/counts/run --write, and say why in the commit");
    Ok(ExitCode::FAILURE)
}
