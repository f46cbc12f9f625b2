//! The command line of the fuzz targets.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::finding::target_of;
use crate::hunt::{Plan, default_out, hunt, table};
use crate::targets::{TARGETS, Target, by_name};
use crate::{cargo_fuzz, targets};

/// Settings of `recovery`.
#[derive(Args, Clone, Debug)]
pub struct RecoveryArgs {
    /// Minutes to run.
    #[arg(long, default_value_t = 1.0)]
    pub minutes: f64,
    /// One target, or `all`.
    #[arg(long, default_value = "all")]
    pub target: String,
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads; one for each core unless set.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: Option<u64>,
    /// Where failures are written.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Do it in this process also where `cargo fuzz` is installed.
    #[arg(long)]
    pub no_cargo_fuzz: bool,
}

/// Settings of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The files: failures, or inputs of a corpus.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The target, if neither the file's name nor that of its directory says it.
    #[arg(long)]
    pub target: Option<String>,
}

/// Runs the targets.
///
/// # Errors
///
/// There is no such target, or no corpus.
pub fn recovery(args: &RecoveryArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.minutes.is_finite() && args.minutes > 0.0, "--minutes takes a number above 0");
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get() as u64,
    };
    let plan = Plan {
        targets: chosen(&args.target)?,
        time: Duration::from_secs_f64(60.0 * args.minutes),
        seed: args.seed,
        threads,
        out: args.out.clone().unwrap_or_else(default_out),
    };
    if !args.no_cargo_fuzz && cargo_fuzz::is_installed() {
        println!("cargo fuzz is installed: it runs the targets, guided by coverage (--no-cargo-fuzz: not)");
        let failed = cargo_fuzz::hunt(&plan)?;
        failed.iter().for_each(|name| println!("{name} failed; its inputs lie in {}", plan.out.display()));
        return Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    keep_memory();
    println!(
        "in this process, on {threads} threads, seed {}: changed inputs of the corpus, not guided by coverage",
        args.seed
    );
    run_here(&plan)
}

/// Begins this program again with an allocator that keeps what it has had. Each opening of a store takes megabytes and gives them
/// back; giving them to the system as well, which hands out zeroed pages one by one, takes five times as long as all the rest.
fn keep_memory() {
    const SETTINGS: [(&str, &str); 3] = [
        ("MALLOC_MMAP_THRESHOLD_", "33554432"),
        ("MALLOC_TRIM_THRESHOLD_", "536870912"),
        ("MALLOC_TOP_PAD_", "67108864"),
    ];
    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let error = Command::new(program).args(std::env::args_os().skip(1)).envs(SETTINGS).exec();
        println!("it goes on with the allocator as it is: {error}");
    }
}

fn run_here(plan: &Plan) -> anyhow::Result<ExitCode> {
    targets::keep_panics_quiet();
    let tally = hunt(plan)?;
    print!("{}", table(plan, &tally));
    println!("{} failures", tally.findings.len());
    let _others_are_in_it = std::fs::remove_dir(&plan.out);
    Ok(if tally.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(name: &str) -> anyhow::Result<Vec<Target>> {
    if name == "all" {
        return Ok(TARGETS.to_vec());
    }
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let target =
        by_name(name).with_context(|| format!("no target is called {name}; there are: {}", names.join(", ")))?;
    Ok(vec![target])
}

/// Runs files again.
///
/// # Errors
///
/// A file that cannot be read, or whose target is not known.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for path in &args.files {
        let target = target_of(path, args.target.as_deref());
        let target = target.with_context(|| format!("{}: name its target with --target", path.display()))?;
        let input = std::fs::read(path).with_context(|| path.display().to_string())?;
        // A hang ends with the patience of whoever runs it.
        println!("{}: {}, {} bytes", path.display(), target.about, input.len());
        match target.check(&input) {
            Ok(_) => println!("{}: holds", target.name),
            Err(what) => {
                println!("{}: {what}", target.name);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
