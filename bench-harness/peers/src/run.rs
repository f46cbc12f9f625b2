//! `run`: the chosen workloads one after the other, and what they share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redex_bench::load::{Payloads, mix};
use redex_bench::machine::Machine;
use redex_bench::progress::Progress;
use redex_bench::scratch::Scratch;

use crate::args::RunArgs;
use crate::engine::Engine;
use crate::report::Report;
use crate::report::row::Row;
use crate::workload::Workload;

/// Measured time of an engine in one load, unless said otherwise.
const ROW_TIME: Duration = Duration::from_millis(600);
const QUICK_ROW_TIME: Duration = Duration::from_millis(300);

/// Turns that the engines take in one load.
const TURN_COUNT: u32 = 5;
const QUICK_TURN_COUNT: u32 = 3;

/// Payload bytes that an engine writes in one load, at most: all engines' logs are on the disk at once.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// What every workload gets.
pub(crate) struct Session {
    /// The engines, ours first.
    pub(crate) engines: Vec<&'static dyn Engine>,
    /// Whether fewer loads are wanted.
    pub(crate) quick: bool,
    /// Turns of a row.
    pub(crate) turns: u32,
    /// Time of one turn.
    pub(crate) turn_time: Duration,
    /// Events of the log that is reopened, if that was said.
    pub(crate) reopen_events: Option<u64>,
    seed: u64,
    scratch: Scratch,
    progress: Progress,
    report: Report,
    begun: Instant,
}

impl Session {
    /// Path of a fresh place for a log or a file.
    pub(crate) fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.scratch.place(name)
    }

    /// Removes what is at a place.
    pub(crate) fn clear(&self, place: &Path) -> anyhow::Result<()> {
        let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.scratch.place(name).map(drop)
    }

    /// Payload bytes of a log at most.
    pub(crate) fn log_bytes_max(&self) -> u64 {
        LOG_BYTES_MAX
    }

    /// The payloads of one size.
    pub(crate) fn payloads(&self, size: usize) -> Arc<Payloads> {
        Arc::new(Payloads::new(mix(self.seed ^ mix(size as u64)), size))
    }

    /// Says what is being measured; on standard error, where nobody watches a terminal.
    pub(crate) fn doing(&self, what: String) {
        eprintln!("{:>5.0} s  {what}", self.begun.elapsed().as_secs_f64());
        self.progress.doing(what);
    }

    /// Reports the rows of one load.
    pub(crate) fn finish(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        for line in self.report.add(rows)? {
            self.progress.print(&line);
        }
        self.progress.step();
        Ok(())
    }
}

/// Runs what `args` say.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let scratch = Scratch::new(args.dir.as_deref())?;
    let machine = Machine::of(scratch.path());
    let engines = args.engines();
    let report = Report::create(&args.out, machine, &engines)?;
    let workloads = selected(args);
    let progress = Progress::new(workloads.iter().map(|workload| workload.load_count(args.quick)).sum());
    let turns = if args.quick { QUICK_TURN_COUNT } else { TURN_COUNT };
    let row_time = match args.seconds {
        Some(seconds) => Duration::from_secs_f64(seconds),
        None if args.quick => QUICK_ROW_TIME,
        None => ROW_TIME,
    };
    let (quick, seed, reopen_events, turn_time) = (args.quick, args.seed, args.events, row_time / turns);
    let mut session =
        Session { engines, quick, turns, turn_time, reopen_events, seed, scratch, progress, report, begun };
    for line in session.report.begin() {
        session.progress.print(&line);
    }
    for workload in workloads {
        workload.run(&mut session)?;
    }
    session.progress.finish();
    println!("\n{:.0} s in all; rows: {}", begun.elapsed().as_secs_f64(), session.report.place().display());
    if let Some(file) = &args.markdown {
        session.report.markdown(file, &command(), begun.elapsed())?;
        println!("tables: {}", file.display());
    }
    Ok(())
}

/// The command as somebody would type it, without the path of the program.
fn command() -> String {
    let arguments = std::env::args().skip(1).map(|argument| shown(&argument));
    ["redex-peers".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// A path of this machine tells nobody anything.
fn shown(argument: &str) -> String {
    let path = Path::new(argument);
    match path.file_name() {
        Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
        _ => argument.to_owned(),
    }
}

/// The workloads of `--only` in their own order, each once; all if there are none.
fn selected(args: &RunArgs) -> Vec<Workload> {
    let wanted = |workload: &Workload| args.only.is_empty() || args.only.contains(workload);
    Workload::ALL.into_iter().filter(wanted).collect()
}
