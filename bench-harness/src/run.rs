//! `run`: every selected workload in turn, rows reported as they come.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::args::{Backend, RunArgs};
use crate::budget::Budget;
use crate::load::mix;
use crate::machine::Machine;
use crate::mounts::Mount;
use crate::progress::Progress;
use crate::report::Report;
use crate::row::Row;
use crate::scratch::Scratch;
use crate::workload::Workload;

/// A run without arguments ends within this.
const RUN_TIME: Duration = Duration::from_secs(52);

/// Measured time of a row with `--quick`; filling and reading back come on top.
const QUICK_ROW: Duration = Duration::from_millis(700);

/// What every workload gets.
pub(crate) struct Session {
    /// Whether rows are to stay under 2 s.
    pub(crate) quick: bool,
    /// Events a second of the open loop, if one is wanted.
    pub(crate) rate: Option<f64>,
    /// The engine's way to the kernel.
    pub(crate) backend: Option<Backend>,
    /// What the data comes from.
    pub(crate) seed: u64,
    /// Facts for the rows.
    pub(crate) machine: Machine,
    scratch: Scratch,
    budget: Budget,
    progress: Progress,
    report: Report,
}

impl Session {
    /// Path of a fresh place for a store or a file.
    pub(crate) fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.scratch.place(name)
    }

    /// Measured time of the next row of `workload`.
    pub(crate) fn row_time(&mut self, workload: Workload) -> Duration {
        self.budget.take(workload.row_wish())
    }

    /// Says what is being measured.
    pub(crate) fn doing(&self, what: String) {
        self.progress.doing(what);
    }

    /// A seed of its own for each purpose.
    pub(crate) fn seed_for(&self, purpose: u64) -> u64 {
        mix(self.seed ^ mix(purpose))
    }

    /// Reports a finished row.
    pub(crate) fn finish(&mut self, row: Row) -> anyhow::Result<()> {
        let lines = self.report.add(row)?;
        lines.iter().for_each(|line| self.progress.print(line));
        self.progress.step();
        Ok(())
    }
}

/// Runs what `args` say.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let workloads = selected(args);
    let report = Report::create(&args.out, args.json.as_deref())?;
    let scratch = Scratch::new(args.dir.as_deref())?;
    let machine = Machine::of(scratch.path());
    let warnings = warnings(scratch.path());
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));

    let rows = |workload: &Workload| workload.rows(args.quick, args.rate.is_some());
    let budget = budget(args, workloads.iter().map(|workload| workload.row_wish() * rows(workload)).sum());
    let progress = Progress::new(workloads.iter().map(|workload| u64::from(rows(workload))).sum());
    let (quick, rate, backend, seed) = (args.quick, args.rate, args.backend, args.seed);
    let mut session = Session { quick, rate, backend, seed, machine, scratch, budget, progress, report };
    for line in session.report.begin(&session.machine) {
        session.progress.print(&line);
    }
    for workload in workloads {
        workload.run(&mut session)?;
    }
    session.progress.finish();
    let place = session.report.finish(&session.machine, &warnings)?;
    drop(session);
    println!("report: {}", place.display());
    Ok(ExitCode::SUCCESS)
}

/// The workloads of `--only` in their own order, each once; all if there are none.
fn selected(args: &RunArgs) -> Vec<Workload> {
    let wanted = |workload: &Workload| args.only.is_empty() || args.only.contains(workload);
    Workload::ALL.into_iter().filter(wanted).collect()
}

fn budget(args: &RunArgs, wished: Duration) -> Budget {
    match args.seconds {
        Some(seconds) => Budget::fixed(Duration::from_secs_f64(seconds)),
        None if args.quick => Budget::fixed(QUICK_ROW),
        None => Budget::until(RUN_TIME, wished),
    }
}

fn warnings(dir: &Path) -> Vec<String> {
    let mount = Mount::of(dir);
    if !mount.in_memory() {
        return Vec::new();
    }
    let (dir, kind) = (dir.display(), mount.file_system);
    vec![format!(
        "{dir} lies on {kind}, which keeps files in memory: nothing is durable there, and no figure is that of a disk"
    )]
}
