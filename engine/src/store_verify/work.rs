//! The segments and extents of a store, looked at by several threads.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::findings::Findings;
use super::progress::{VerifyOptions, VerifyProgress};
use super::report::StoreReport;
use crate::ids::Seq;
use crate::segment::path::idx_path;
use crate::segment::record::IndexRecord;
use crate::survey::finding::{FindingKind, Severity, StoreFinding};
use crate::survey::plan::Plan;
use crate::survey::readahead::Reader;
use crate::survey::segment::{Pass, Passed, Sink};
use crate::survey::{Ground, Survey};

/// Findings of one segment that are listed: each is kept until all are done.
const OF_UNIT_MAX: usize = 1000;

/// One thing to look at.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// A segment: channel and segment, by their indices.
    Segment(usize, usize),
    /// What the journal has of a channel above its checkpoint.
    Pieces(usize),
}

/// What one unit came to.
#[derive(Debug)]
struct Outcome {
    passed: Passed,
    events: u64,
    findings: Findings,
}

/// Counts what is whole.
#[derive(Debug)]
struct Counting {
    events: u64,
    findings: Findings,
}

impl Counting {
    fn new() -> Self {
        Self { events: 0, findings: Findings::new(OF_UNIT_MAX) }
    }

    fn outcome(self, passed: Passed) -> Outcome {
        Outcome { passed, events: self.events, findings: self.findings }
    }
}

impl Sink for Counting {
    const PAYLOADS: bool = false;

    fn event(&mut self, _seq: u64, _record: &IndexRecord, _payload: &[u8]) {
        self.events += 1;
    }

    fn finding(&mut self, finding: StoreFinding) {
        self.findings.add(finding);
    }
}

/// Looks at all of them, and puts what is found into the report, in the order of the channels and segments.
pub fn check_segments(
    ground: &Ground,
    survey: &Survey,
    options: &VerifyOptions,
    report: &mut StoreReport,
    findings: &mut Findings,
) -> io::Result<()> {
    let units = units(survey);
    let next = AtomicUsize::new(0);
    let outcomes: Vec<Mutex<Option<Outcome>>> = units.iter().map(|_| Mutex::default()).collect();
    let progress = Mutex::new(VerifyProgress {
        segments_total: units.iter().filter(|unit| matches!(unit, Unit::Segment(..))).count() as u64,
        bytes: survey.bytes,
        damages: findings.damages(),
        ..VerifyProgress::default()
    });
    let threads = options.thread_count().min(units.len().max(1));
    let work = || -> io::Result<()> {
        let mut reader = Reader::start(ground.disk.clone())?;
        while let Some((unit, slot)) = next_unit(&next, &units, &outcomes) {
            let before = reader.bytes();
            let outcome = look_at(unit, survey, ground, &mut reader);
            tell(options, &progress, unit, reader.bytes() - before, &outcome);
            *slot.lock().expect("nobody panics with it") = Some(outcome);
        }
        Ok(())
    };
    let results: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().name("redex-verify".to_owned()).spawn_scoped(scope, work);
        let threads: Vec<_> = (0..threads).map(start).collect();
        let join = |thread: io::Result<std::thread::ScopedJoinHandle<'_, _>>| {
            thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    results.into_iter().collect::<io::Result<()>>()?;
    let progress = progress.into_inner().expect("nobody panics with it");
    (report.bytes, report.segments) = (progress.bytes, progress.segments);
    let outcomes = outcomes.into_iter().map(|outcome| outcome.into_inner().expect("nobody panics with it"));
    let done = units.into_iter().zip(outcomes).filter_map(|(unit, outcome)| Some((unit, outcome?)));
    collect(survey, done, report, findings);
    Ok(())
}

fn next_unit<'a>(
    next: &AtomicUsize,
    units: &[Unit],
    outcomes: &'a [Mutex<Option<Outcome>>],
) -> Option<(Unit, &'a Mutex<Option<Outcome>>)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((*units.get(index)?, &outcomes[index]))
}

fn units(survey: &Survey) -> Vec<Unit> {
    let mut units = Vec::new();
    for (index, (_, plan)) in survey.channels.iter().enumerate().filter(|(_, (_, plan))| !plan.deleted) {
        let segments = plan.segments.iter().enumerate().filter(|(_, segment)| segment.is_on_disk());
        units.extend(segments.map(|(segment, _)| Unit::Segment(index, segment)));
        if !plan.pieces.is_empty() {
            units.push(Unit::Pieces(index));
        }
    }
    units
}

fn look_at(unit: Unit, survey: &Survey, ground: &Ground, reader: &mut Reader) -> Outcome {
    match unit {
        Unit::Segment(channel, segment) => {
            let plan = &survey.channels[channel].1;
            let (found, mut sink) = (Survey::found(plan), Counting::new());
            let passed = pass(plan, segment, &found).run(reader, &mut sink);
            sink.outcome(passed)
        }
        Unit::Pieces(channel) => look_at_pieces(&survey.channels[channel].1, ground),
    }
}

/// How one segment of a plan is looked at.
pub fn pass<'a>(plan: &'a Plan, index: usize, found: &'a crate::survey::finding::FoundChannel) -> Pass<'a> {
    let segment = &plan.segments[index];
    Pass {
        channel: found,
        id: plan.id,
        segment,
        tail_place: (plan.state_path.as_deref().unwrap_or_default(), plan.tail_offset),
        bound: plan.segments.get(index + 1).map_or(u64::MAX, |next| next.first),
        head: plan.head,
        is_cold: plan.is_cold(segment.first),
    }
}

/// The events that only the journal tells of. Inline payloads were checked with their commits.
fn look_at_pieces(plan: &Plan, ground: &Ground) -> Outcome {
    let mut sink = Counting::new();
    let found = Survey::found(plan);
    for piece in plan.pieces.values() {
        for seq in piece.first()..piece.end() {
            if seq < plan.head || plan.is_stored(seq) {
                continue;
            }
            match piece.payload(&*ground.disk, plan.id, seq) {
                Ok(_) => sink.events += 1,
                Err(bad) if bad.in_extent => {
                    let finding = StoreFinding::loss(FindingKind::JournalExtent, &bad.path, bad.offset, bad.cause);
                    sink.finding(finding.of(&found).losing(seq..seq + 1));
                }
                // Told with its commit.
                Err(_) => {}
            }
        }
    }
    sink.outcome(Passed::default())
}

fn tell(options: &VerifyOptions, progress: &Mutex<VerifyProgress>, unit: Unit, bytes: u64, outcome: &Outcome) {
    let now = {
        let mut progress = progress.lock().expect("nobody panics with it");
        progress.segments += u64::from(matches!(unit, Unit::Segment(..)));
        progress.bytes += bytes;
        progress.damages += outcome.findings.damages();
        *progress
    };
    if let Some(on_progress) = &options.on_progress {
        on_progress(now);
    }
}

fn collect(
    survey: &Survey,
    outcomes: impl Iterator<Item = (Unit, Outcome)>,
    report: &mut StoreReport,
    findings: &mut Findings,
) {
    // The channel whose segments come now, and the time of its last event.
    let mut last: Option<(usize, u64)> = None;
    for (unit, outcome) in outcomes {
        report.events += outcome.events;
        findings.take(outcome.findings);
        let (Unit::Segment(channel, segment), Some((first_us, last_us))) = (unit, outcome.passed.times) else {
            continue;
        };
        if let Some((_, before_us)) = last.filter(|(before, time_us)| *before == channel && *time_us > first_us) {
            let plan = &survey.channels[channel].1;
            let path = idx_path(plan.id, Seq(plan.segments[segment].first));
            let cause = format!("the segment begins at {first_us} us, the one before ends at {before_us} us");
            let finding = StoreFinding::new(FindingKind::TimeBackwards, Severity::Redundant, &path, 0, cause);
            findings.add(finding.of(&Survey::found(plan)));
        }
        last = Some((channel, last_us));
    }
}
