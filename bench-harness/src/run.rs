//! `run`: every selected workload in turn, rows reported as they come.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

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

/// A row with `--quick` that takes longer says so, filling and reading back counted in.
const QUICK_ROW_MAX: Duration = Duration::from_secs(2);

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
    /// End of the last row, and rows begun since.
    since: (Instant, u32),
}

impl Session {
    /// Path of a fresh place for a store or a file.
    pub(crate) fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.scratch.place(name)
    }

    /// Measured time of the next row of `workload`.
    pub(crate) fn row_time(&mut self, workload: Workload) -> Duration {
        self.since.1 += 1;
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
    pub(crate) fn finish(&mut self, mut row: Row) -> anyhow::Result<()> {
        let (begun, rows) = self.since;
        self.since = (Instant::now(), 0);
        if self.quick && rows > 0 && begun.elapsed() > QUICK_ROW_MAX * rows {
            let overrun = format!("took {:.1} s", (begun.elapsed() / rows).as_secs_f64());
            row.note = Some(row.note.map_or(overrun.clone(), |note| format!("{note}; {overrun}")));
        }
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
    let scratch = Scratch::new(args.place.dir.as_deref())?;
    let machine = Machine::of(scratch.path());
    let warnings = warnings(scratch.path());
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));

    let rows = |workload: &Workload| workload.rows(args.quick, args.rate.is_some());
    let budget = budget(args, workloads.iter().map(|workload| workload.row_wish() * rows(workload)).sum());
    let progress = Progress::new(workloads.iter().map(|workload| u64::from(rows(workload))).sum());
    let (quick, rate, backend, seed) = (args.quick, args.rate, args.place.backend, args.seed);
    let since = (Instant::now(), 0);
    let mut session = Session { quick, rate, backend, seed, machine, scratch, budget, progress, report, since };
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

/// The workloads of `--only` in their own order, each once; the default ones if there are none.
fn selected(args: &RunArgs) -> Vec<Workload> {
    match args.only.is_empty() {
        true => Workload::DEFAULT.to_vec(),
        false => Workload::all().filter(|workload| args.only.contains(workload)).collect(),
    }
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
