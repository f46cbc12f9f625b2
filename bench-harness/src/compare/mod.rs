//! `compare`: whether the rows of one run are faster than those of another, or whether it is noise.
//!
//! Rows are matched by their ids. A row is judged by its events per second; one with a fixed rate by its median latency. What is not
//! beyond the 95 % interval is noise. Turns of one run lie seconds apart, so their intervals hold nothing of what changes
//! between runs; where both sides hold several runs (files put behind each other), a run counts as one measurement.
//!
//! Figures of different machines say nothing about the code: they are refused.

mod ratio;
mod recording;

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;

use crate::args::{CompareArgs, UsageError};
use crate::machine::Machine;
use ratio::Ratio;
use recording::{Recording, Unit, samples};

/// Exit code if a row is slower than `--fail-on-slower` allows.
const EXIT_SLOWER: u8 = 3;

/// Memory of one machine that differs by more is not that of the same machine; its kernel keeps a little more or less for itself.
const MEMORY_TOLERANCE: f64 = 0.01;

/// What the comparison of a row comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Faster,
    Slower,
    Noise,
    /// A side was measured once only.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Noise => "within noise",
            Self::Unknown => "measured once: no verdict",
        })
    }
}

/// A row of both.
#[derive(Debug)]
struct Compared<'a> {
    id: &'a str,
    rate: Option<Ratio>,
    p50: Option<Ratio>,
    /// Judged by its latency.
    paced: bool,
    /// Measurements of both sides.
    counts: (usize, usize),
}

impl<'a> Compared<'a> {
    fn of(id: &'a str, before: &Recording, after: &Recording) -> Self {
        let (a, b) = (before.of(id), after.of(id));
        let unit = if a.len() > 1 && b.len() > 1 { Unit::Run } else { Unit::Turn };
        let (a_rates, a_p50s) = samples(&a, unit);
        let (b_rates, b_p50s) = samples(&b, unit);
        Self {
            id,
            rate: Ratio::of(&a_rates, &b_rates),
            p50: Ratio::of(&a_p50s, &b_p50s),
            paced: a.iter().chain(&b).any(|row| row.rate.is_some()),
            counts: (a_rates.len(), b_rates.len()),
        }
    }

    /// How much faster the second is: above 1 if it is.
    fn speed(&self) -> Option<Ratio> {
        if self.paced { self.p50.map(Ratio::inverse) } else { self.rate }
    }

    fn verdict(&self) -> Verdict {
        match self.speed().and_then(|speed| speed.interval) {
            None => Verdict::Unknown,
            Some((low, _)) if low > 1.0 => Verdict::Faster,
            Some((_, high)) if high < 1.0 => Verdict::Slower,
            Some(_) => Verdict::Noise,
        }
    }

    /// Slower beyond the interval, and by more than `percent`.
    fn is_slower_by(&self, percent: f64) -> bool {
        let speed = self.speed().map_or(1.0, |speed| speed.value);
        self.verdict() == Verdict::Slower && speed < 1.0 - percent / 100.0
    }

    fn line(&self, width: usize, judged: bool) -> String {
        let (id, (a, b)) = (self.id, self.counts);
        let verdict = match (judged, self.paced) {
            (false, _) => String::new(),
            (true, false) => self.verdict().to_string(),
            (true, true) => format!("{} (by p50: its rate is fixed)", self.verdict()),
        };
        let line = format!(
            "{id:<width$} {:>22} {:>22} {:>9}  {verdict}",
            cell(self.rate),
            cell(self.p50),
            format!("{a} / {b}")
        );
        line.trim_end().to_owned()
    }
}

fn cell(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "-".to_owned(),
        Some(Ratio { value, interval: None }) => format!("{value:.3}"),
        Some(Ratio { value, interval: Some((low, high)) }) => format!("{value:.3} [{low:.3}, {high:.3}]"),
    }
}

/// Compares what `args` say.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (before, after) = (Recording::read(&args.before)?, Recording::read(&args.after)?);
    let differences = differences(&before, &after);
    let same = differences.is_empty();
    if !same {
        let named = format!("measured on different machines:\n  {}", differences.join("\n  "));
        if !args.force {
            return Err(
                UsageError(format!("{named}\nsuch figures say nothing about the code; --force shows them")).into()
            );
        }
        if args.fail_on_slower.is_some() {
            return Err(UsageError(format!("--fail-on-slower needs results of one machine; {named}")).into());
        }
        println!("warning: {named}\nThe ratios below compare the machines as much as the code: no verdicts.\n");
    }
    let rows = matched(&before, &after);
    print(&rows, &before, &after, same);
    let limit = args.fail_on_slower.unwrap_or(f64::INFINITY);
    let slower: Vec<&str> = rows.iter().filter(|row| row.is_slower_by(limit)).map(|row| row.id).collect();
    if slower.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("slower by more than {limit} %: {}", slower.join(", "));
    Ok(ExitCode::from(EXIT_SLOWER))
}

fn matched<'a>(before: &'a Recording, after: &Recording) -> Vec<Compared<'a>> {
    let there = after.ids();
    let both = before.ids().into_iter().filter(|id| there.contains(id));
    both.map(|id| Compared::of(id, before, after)).collect()
}

fn print(rows: &[Compared<'_>], before: &Recording, after: &Recording, judged: bool) {
    let width = rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max(3);
    println!("{:<width$} {:>22} {:>22} {:>9}", "row", "events/s, B/A", "p50, B/A", "measured");
    rows.iter().for_each(|row| println!("{}", row.line(width, judged)));
    for (side, one, other) in [("A", before, after), ("B", after, before)] {
        let there = other.ids();
        let alone: Vec<&str> = one.ids().into_iter().filter(|id| !there.contains(id)).collect();
        if !alone.is_empty() {
            println!("only in {side}: {}", alone.join(", "));
        }
    }
    println!("\nRatios of geometric means with 95 % confidence intervals (Welch's t, on logarithms).");
    if rows.iter().any(|row| row.counts.0 > 0)
        && (before.rows().len() == before.ids().len() || after.rows().len() == after.ids().len())
    {
        println!(
            "A measurement is a turn of one run: what changes from run to run is not in the intervals. Files of several runs,\n\
             put behind each other, are compared by runs."
        );
    }
}

/// Facts in which rows were measured on different machines; each once.
fn differences(before: &Recording, after: &Recording) -> Vec<String> {
    let first = &before.rows()[0].machine;
    let rows = before.rows().iter().map(|row| ("A", row)).chain(after.rows().iter().map(|row| ("B", row)));
    let found: BTreeSet<String> = rows.flat_map(|(side, row)| machine_differences(first, &row.machine, side)).collect();
    found.into_iter().collect()
}

/// What tells one machine from the first one of A. The commit of the source is what may differ.
fn machine_differences(first: &Machine, other: &Machine, side: &str) -> Vec<String> {
    let memory = first.memory_bytes.abs_diff(other.memory_bytes) as f64 > MEMORY_TOLERANCE * first.memory_bytes as f64;
    let mut memories = [first.memory_bytes, other.memory_bytes];
    if !memory {
        memories[1] = memories[0];
    }
    let [first_memory, other_memory] = memories.map(|bytes| format!("{bytes} bytes"));
    let facts = |machine: &Machine, memory: String| {
        let known = |fact: &str| if fact.is_empty() { "unknown".to_owned() } else { fact.to_owned() };
        [
            ("processor", known(&machine.cpu)),
            ("processors", machine.cpus.to_string()),
            ("memory", memory),
            ("kernel", known(&machine.kernel)),
            ("file system", known(&machine.file_system)),
            ("device", known(&machine.device)),
            ("write cache of the device", known(&machine.device_write_cache)),
            ("FUA of the device", machine.device_fua.map_or("unknown".to_owned(), |has| has.to_string())),
        ]
    };
    let pairs = facts(first, first_memory).into_iter().zip(facts(other, other_memory));
    let differs = pairs.filter(|((_, first), (_, other))| first != other);
    differs.map(|((name, first), (_, other))| format!("{name}: A has {first}, {side} has {other}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: &str, rates: &[f64], p50: u64, rate: Option<f64>) -> String {
        let machine = json!({"cpu": "a", "cpus": 2, "memory_bytes": 1_000_000, "kernel": "6", "file_system": "ext4"});
        let p50s: Vec<u64> = rates.iter().enumerate().map(|(turn, _)| p50 + turn as u64).collect();
        json!({"id": id, "rate": rate, "turn_events_per_s": rates, "turn_p50_ns": p50s, "machine": machine}).to_string()
    }

    fn recording(lines: &[String]) -> Recording {
        Recording::parse(&lines.join("\n")).unwrap()
    }

    fn verdict(before: &[f64], after: &[f64]) -> Verdict {
        let (a, b) = (recording(&[line("x", before, 1000, None)]), recording(&[line("x", after, 1000, None)]));
        Compared::of("x", &a, &b).verdict()
    }

    #[test]
    fn a_row_is_judged_beyond_its_interval_only() {
        assert_eq!(verdict(&[100.0, 101.0, 99.0, 100.0], &[120.0, 121.0, 119.0, 120.0]), Verdict::Faster);
        assert_eq!(verdict(&[100.0, 101.0, 99.0, 100.0], &[80.0, 81.0, 79.0, 80.0]), Verdict::Slower);
        assert_eq!(verdict(&[100.0, 60.0, 140.0], &[120.0, 80.0, 150.0]), Verdict::Noise);
        assert_eq!(verdict(&[100.0], &[1.0, 1.0]), Verdict::Unknown);
    }

    #[test]
    fn a_fixed_rate_is_judged_by_latency() {
        let a = recording(&[line("x", &[50.0, 50.0, 50.0], 1000, Some(50.0))]);
        let b = recording(&[line("x", &[50.0, 50.0, 50.0], 2000, Some(50.0))]);
        let row = Compared::of("x", &a, &b);
        assert_eq!(row.verdict(), Verdict::Slower);
        assert!(row.is_slower_by(40.0) && !row.is_slower_by(60.0));
    }

    /// Two runs that differ by a third, each with turns that agree: between turns nothing is noise, between runs it is.
    #[test]
    fn several_runs_are_compared_by_runs() {
        let run = |rate: f64| line("x", &[rate, rate * 1.001, rate * 0.999], 1000, None);
        let a = recording(&[run(100.0), run(130.0)]);
        let b = recording(&[run(120.0), run(150.0)]);
        let row = Compared::of("x", &a, &b);
        assert_eq!((row.counts, row.verdict()), ((2, 2), Verdict::Noise));
        let single = (recording(&[run(100.0)]), recording(&[run(120.0)]));
        assert_eq!(Compared::of("x", &single.0, &single.1).verdict(), Verdict::Faster);
    }

    #[test]
    fn another_machine_is_named_by_what_differs() {
        let machine = Machine { cpu: "one".to_owned(), memory_bytes: 1000, cpus: 2, ..Machine::default() };
        assert!(machine_differences(&machine, &machine, "B").is_empty());
        let other = Machine { commit: "another".to_owned(), memory_bytes: 1009, ..machine.clone() };
        assert!(machine_differences(&machine, &other, "B").is_empty());
        let other = Machine { cpu: "two".to_owned(), memory_bytes: 2000, device: "sda".to_owned(), ..machine.clone() };
        assert_eq!(
            machine_differences(&machine, &other, "B"),
            [
                "processor: A has one, B has two",
                "memory: A has 1000 bytes, B has 2000 bytes",
                "device: A has unknown, B has sda"
            ]
        );
    }

    #[test]
    fn rows_are_matched_by_id() {
        let a = recording(&[line("x", &[1.0, 1.0], 1, None), line("y", &[1.0, 1.0], 1, None)]);
        let b = recording(&[line("z", &[1.0, 1.0], 1, None), line("x", &[1.0, 1.0], 1, None)]);
        let ids: Vec<&str> = matched(&a, &b).iter().map(|row| row.id).collect();
        assert_eq!(ids, ["x"]);
    }
}
