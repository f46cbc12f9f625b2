//! A run: jobs at work until a limit is reached or a point fails, with progress and a verdict.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{RunArgs, Work};
use crate::case::Tally;
use crate::job::{Line, Report};
use crate::requirements;

/// Points if no limit is given.
const POINTS_DEFAULT: u64 = 1000;
/// Set where a test that cannot run is a failure.
const NO_SKIP: &str = "REDEX_CI_NO_SKIP";

/// Runs the jobs.
///
/// # Errors
///
/// They cannot be started.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let missing = requirements::missing(&args.work);
    if !missing.is_empty() {
        return Ok(skipped(&missing));
    }
    let work = with_out_dir(&args.work)?;
    let begun = Instant::now();
    let end = args.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let points = args.points.or((args.minutes.is_none() && work.point.is_none()).then_some(POINTS_DEFAULT));
    let (lines, told) = mpsc::channel();
    let count = if work.point.is_some() { 1 } else { args.jobs };
    let jobs: anyhow::Result<Vec<Job>> = (0..count).map(|nth| Job::start(&work, nth, count, lines.clone())).collect();
    let mut jobs = jobs?;
    drop(lines);
    let bar = progress(points);
    let (mut tally, mut reports) = (Tally::default(), Vec::new());
    loop {
        match told.recv_timeout(Duration::from_millis(200)) {
            Ok(Line::Counted(more)) => {
                tally.add(&more);
                bar.set_position(tally.points);
            }
            Ok(Line::Failed(report)) => reports.push(report),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let is_over =
            points.is_some_and(|points| tally.points >= points) || end.is_some_and(|end| Instant::now() >= end);
        if is_over || !reports.is_empty() {
            jobs.iter_mut().for_each(Job::stop);
        }
    }
    bar.finish_and_clear();
    let broken = jobs.iter_mut().map(Job::ended_well).filter(|is_well| !is_well).count();
    print(&tally, begun.elapsed());
    Ok(verdict(&tally, &reports, &work, points, broken))
}

fn skipped(missing: &[String]) -> ExitCode {
    let is_failure = std::env::var_os(NO_SKIP).is_some_and(|value| value == "1");
    eprintln!("{}", skip_text(missing, is_failure));
    if is_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn skip_text(missing: &[String], is_failure: bool) -> String {
    let what = if is_failure { "FAILED: it cannot run here" } else { "SKIPPED: not a single power cut was made" };
    format!("redex-powerfail {what}. Missing:\n  {}", missing.join("\n  "))
}

/// Recordings of failed points go to a directory that outlives this.
fn with_out_dir(work: &Work) -> anyhow::Result<Work> {
    let mut work = work.clone();
    if let Some(out) = &work.out {
        std::fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
        work.out = Some(out.canonicalize().with_context(|| format!("{} is not there", out.display()))?);
    } else {
        work.out = Some(std::env::temp_dir());
    }
    Ok(work)
}

/// A job's process. It ends when its input is dropped, also if this process is killed.
struct Job {
    child: Child,
    input: Option<ChildStdin>,
}

impl Job {
    fn start(work: &Work, nth: u64, count: u64, lines: Sender<Line>) -> anyhow::Result<Self> {
        let work = Work { seed: work.seed + nth, ..work.clone() };
        let mut child = Command::new(std::env::current_exe().context("this program's own path is unknown")?)
            .args(["job", "--stride", &count.to_string()])
            .args(work.to_words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a job does not start")?;
        let from = child.stdout.take().expect("it is piped");
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(line) => drop(lines.send(line)),
                    Err(_) => eprintln!("{line}"),
                }
            }
        });
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    fn stop(&mut self) {
        drop(self.input.take());
    }

    fn ended_well(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }
}

fn progress(points: Option<u64>) -> ProgressBar {
    let bar = match points {
        Some(points) => ProgressBar::new(points),
        None => ProgressBar::no_length(),
    };
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} points, {per_sec}");
    bar.set_style(style.expect("the template is right"));
    bar
}

fn print(tally: &Tally, took: Duration) {
    let Tally { points, in_recovery, by_uring, recordings, left, events } = tally;
    let minutes = took.as_secs_f64() / 60.0;
    println!(
        "{points} points in {recordings} recordings, {:.0} s: {:.0} a minute",
        took.as_secs_f64(),
        *points as f64 / minutes
    );
    println!("{in_recovery} of them in or right behind a recovery, {by_uring} opened through io_uring");
    println!("unflushed writes: {} kept, {} torn, {} lost; {events} events compared", left.kept, left.torn, left.lost);
}

fn verdict(tally: &Tally, reports: &[Report], work: &Work, points: Option<u64>, broken: usize) -> ExitCode {
    reports.iter().for_each(|report| print_report(report, work));
    if broken > 0 {
        println!("{broken} jobs ended by themselves; what they said is above");
    }
    let missing = points.map_or(0, |points| points.saturating_sub(tally.points));
    if missing > 0 && reports.is_empty() && broken == 0 {
        println!("the time was over with {missing} points to go");
    }
    let is_well = reports.is_empty() && broken == 0 && missing == 0 && tally.points > 0;
    println!("{} passed, {} failed", tally.points, reports.len() + broken);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_report(report: &Report, work: &Work) {
    let Report { what, seed, kind, point, recording } = report;
    println!("seed {seed} on {} with sectors of {} bytes: {what}", kind.file_system, kind.sector_size);
    let again = Work { seed: *seed, point: *point, out: None, ..work.only_on(*kind) };
    println!("about the same: redex-powerfail run {}", again.to_words().join(" "));
    if let Some(recording) = recording {
        println!("exactly the same: redex-powerfail replay {}", recording.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_says_so_and_what_is_missing() {
        let missing = ["root: run it with sudo".to_owned(), "mkfs.xfs: install the package xfsprogs".to_owned()];
        let text = skip_text(&missing, false);
        assert!(text.starts_with("redex-powerfail SKIPPED: not a single power cut was made"), "{text}");
        assert!(missing.iter().all(|missing| text.contains(missing.as_str())), "{text}");
        assert!(skip_text(&missing, true).contains("FAILED: it cannot run here"));
    }

    #[test]
    fn a_run_that_is_short_of_points_is_no_success() {
        let work = Work {
            seed: 1,
            fs: crate::args::FsArg::Both,
            sector: crate::args::SectorArg::Both,
            point: None,
            out: None,
            broken: None,
        };
        let tally = Tally { points: 99, ..Tally::default() };
        let verdict = |points, broken| format!("{:?}", verdict(&tally, &[], &work, points, broken));
        let (well, ill) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        assert_eq!([verdict(Some(99), 0), verdict(None, 0)], [well.clone(), well]);
        assert_eq!([verdict(Some(100), 0), verdict(None, 1)], [ill.clone(), ill]);
    }
}
