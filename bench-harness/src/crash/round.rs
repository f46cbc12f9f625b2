//! One round: starts the child, listens, kills it at a random moment.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::pipe::{self, Acknowledged, Beside, Message};
use super::{NEVER_WINDOW, Place};
use crate::args::{ChildPlace, CrashArgs, Policy};
use crate::load::splitmix64;

/// One round in this many is killed while it opens the store, if opening takes long enough.
const KILL_IN_OPENING: u64 = 4;

/// Longest life before a kill in opening, us; longest time of writing before a kill, us.
const OPENING_US: u64 = 80_000;
const WRITING_US: u64 = 250_000;

/// An opening takes no longer than this.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// What the child said before it was killed.
#[derive(Debug)]
pub(crate) struct Told {
    /// Next sequences when the store was open; `None` if it did not come to that.
    pub(crate) opened: Option<Vec<u64>>,
    /// Every report on the channels of the policy, in order.
    reports: Vec<Acknowledged>,
    /// Everything beside, in order.
    pub(crate) beside: Vec<Beside>,
    /// From the start of the process to the kill.
    pub(crate) lived: Duration,
}

impl Told {
    /// A moment, since the Unix epoch, after which the last acknowledged event was accepted: the writer begins what it tells in
    /// one report after the report before. A bound in time is kept by accepting nothing more, so it is about the time before
    /// this, however long the process stood still, or waited, before it was killed.
    fn last_accepted(&self) -> Duration {
        self.reports.iter().rev().nth(1).map_or(Duration::ZERO, |report| report.at)
    }

    /// Events acknowledged in this round under the policy.
    pub(crate) fn acknowledged(&self) -> u64 {
        let (Some(first), Some(last)) = (&self.opened, self.reports.last()) else { return 0 };
        last.ends.iter().zip(first).map(|(end, first)| end - first).sum()
    }

    /// Exclusive upper bounds of what must be there after the kill in the channels of the policy. `size` tells the payload bytes of an event of this round.
    pub(crate) fn required(&self, policy: Policy, size: impl Fn(usize, u64) -> u64) -> Vec<u64> {
        let before = |window: Duration| {
            let until = self.last_accepted();
            let kept = self.reports.iter().rev().find(|report| report.at + window < until);
            kept.map(|report| report.ends.clone()).unwrap_or_default()
        };
        match policy {
            Policy::Never => before(NEVER_WINDOW),
            Policy::Interval(period) => before(period),
            Policy::IntervalOrBytes { period, max_bytes } => {
                let (in_time, by_bytes) = (before(period), self.within_bytes(max_bytes, size));
                let in_time = in_time.into_iter().chain(std::iter::repeat(0));
                by_bytes.into_iter().zip(in_time).map(|(end, other)| end.max(other)).collect()
            }
            Policy::Durable => self.reports.last().map(|report| report.ends.clone()).unwrap_or_default(),
            Policy::Every(n) => {
                let ends = self.reports.last().map(|report| report.ends.as_slice()).unwrap_or_default();
                ends.iter().map(|end| end.saturating_sub(n - 1)).collect()
            }
        }
    }

    /// What must be there if no more than so many bytes of each channel may be gone.
    fn within_bytes(&self, max_bytes: u64, size: impl Fn(usize, u64) -> u64) -> Vec<u64> {
        let (Some(first), Some(last)) = (&self.opened, self.reports.last()) else { return Vec::new() };
        let bound = |(channel, (&first, &end)): (usize, (&u64, &u64))| {
            let mut left = max_bytes;
            let fits = |seq: &u64| match left.checked_sub(size(channel, *seq)) {
                Some(less) => {
                    left = less;
                    true
                }
                None => false,
            };
            end - (first..end).rev().take_while(fits).count() as u64
        };
        first.iter().zip(&last.ends).enumerate().map(bound).collect()
    }

    /// Acknowledged events that are not below `next`, and how long before the last one was accepted the oldest of them had been
    /// reported.
    pub(crate) fn lost(&self, next: &[u64]) -> (u64, Duration) {
        let over = |report: &Acknowledged| {
            report.ends.iter().zip(next).map(|(end, next)| end.saturating_sub(*next)).sum::<u64>()
        };
        let lost = self.reports.last().map_or(0, over);
        let oldest = self.reports.iter().find(|report| over(report) > 0);
        (lost, oldest.map_or(Duration::ZERO, |report| self.last_accepted().saturating_sub(report.at)))
    }
}

/// Starts a child on the store in `place` and kills it.
pub(crate) fn kill_once(args: &CrashArgs, place: &Place, round: u32, random: &mut u64) -> anyhow::Result<Told> {
    let start = Instant::now();
    let mut child = command(args, place, round)?.spawn().context("starting the writing process")?;
    let out = child.stdout.take().expect("standard output is piped");
    let (opened_sender, opened_receiver) = mpsc::channel();
    let listener = std::thread::spawn(move || listen(out, &opened_sender));

    let in_opening = splitmix64(random).is_multiple_of(KILL_IN_OPENING);
    let delay = Duration::from_micros(splitmix64(random) % if in_opening { OPENING_US } else { WRITING_US });
    if !in_opening && opened_receiver.recv_timeout(OPENING_MAX).is_err() {
        let _ = child.kill();
        bail!("the writing process did not open the store ({})", child.wait()?);
    }
    std::thread::sleep(delay);
    let lived = start.elapsed();
    child.kill().context("killing the writing process")?;
    ended_by_kill(child.wait()?)?;
    let mut told = listener.join().expect("the listener does not panic");
    told.lived = lived;
    Ok(told)
}

fn command(args: &CrashArgs, place: &Place, round: u32) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([
        "crash-child",
        "--store",
        &place.number.to_string(),
        "--policy",
        &args.policy.to_string(),
        "--seed",
        &args.seed.to_string(),
        "--round",
        &round.to_string(),
    ]);
    ChildPlace::new(&place.dir, args.place.backend).add_to(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// A child that ended by itself has failed; it has said why on standard error.
fn ended_by_kill(status: ExitStatus) -> anyhow::Result<()> {
    match status.code() {
        None => Ok(()),
        Some(_) => bail!("the writing process ended by itself ({status})"),
    }
}

/// Reads what the child says until its end of the pipe closes.
fn listen(out: impl Read, opened_sender: &mpsc::Sender<()>) -> Told {
    let mut told = Told { opened: None, reports: Vec::new(), beside: Vec::new(), lived: Duration::ZERO };
    let mut out = BufReader::new(out);
    let mut line = String::new();
    while matches!(out.read_line(&mut line), Ok(1..)) {
        match pipe::parse(&line) {
            Some(Message::Opened(next)) => {
                told.opened = Some(next);
                let _ = opened_sender.send(());
            }
            Some(Message::Acknowledged(report)) => told.reports.push(report),
            Some(Message::Beside(what)) => told.beside.push(what),
            None => {}
        }
        line.clear();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::channels;

    fn told() -> Told {
        let report = |ms, end| Acknowledged { at: Duration::from_millis(ms), ends: vec![end, 100] };
        let reports = vec![report(100, 10), report(140, 20), report(145, 25), report(150, 30), report(190, 35)];
        Told { opened: Some(vec![5, 100]), reports, beside: Vec::new(), lived: Duration::ZERO }
    }

    #[test]
    fn each_policy_requires_what_it_promises() {
        let required = |policy| told().required(policy, |_, _| 100)[0];
        assert_eq!(required(Policy::Durable), 35);
        assert_eq!(required(Policy::Every(1)), 35);
        assert_eq!(required(Policy::Every(8)), 28);
        assert_eq!(
            required(Policy::Never),
            10,
            "a report of exactly 10 ms before the last was accepted is within the window"
        );
        assert_eq!(required(Policy::Interval(Duration::from_millis(7))), 20);
        assert!(told().required(Policy::Interval(Duration::from_secs(1)), |_, _| 100).is_empty());
        let either = |ms, max_bytes| Policy::IntervalOrBytes { period: Duration::from_millis(ms), max_bytes };
        assert_eq!(required(either(7, 450)), 31, "four events of 100 bytes may be gone");
        assert_eq!(required(either(7, 10_000)), 20, "what is older than the period may not");
        assert_eq!(required(either(1000, 99)), 35);
        assert_eq!(required(either(1000, 1 << 20)), 5, "events of earlier rounds are there already");
        assert_eq!(told().acknowledged(), 30);
    }

    #[test]
    fn the_age_of_the_oldest_loss_is_that_of_the_first_report_beyond_the_end() {
        assert_eq!(told().lost(&[15, 100]), (20, Duration::from_millis(10)));
        assert_eq!(told().lost(&[35, 100]), (0, Duration::ZERO));
        assert_eq!(told().lost(&[30, 100]), (5, Duration::ZERO), "the last report is later than what it tells");
    }

    /// A line that was cut off by the kill is not believed.
    #[test]
    fn the_listener_ignores_a_cut_line() {
        let zeros = [0; channels::COUNT];
        let report = pipe::acknowledged(&zeros[..channels::POLICY_COUNT]);
        let text = pipe::opened(&zeros) + &report + &pipe::beside(Beside::Batches(1)) + "B 2";
        let (sender, receiver) = mpsc::channel();
        let told = listen(text.as_bytes(), &sender);
        assert_eq!((told.opened, told.reports.len()), (Some(zeros.to_vec()), 1));
        assert_eq!(told.beside, [Beside::Batches(1)]);
        assert!(receiver.try_recv().is_ok());
    }
}
