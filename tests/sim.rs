//! The whole engine on a simulated disk: a short look around, and the seeds under which something was found.
//!
//! A seed tells a history only as long as the workload is the same: these tell others since. What holds a rule that was broken is
//! a test of its own, or a bug that is planted again (`tests/planted`).

use redex::sim::StepKind;
use redex_fuzz::damage::Verdict;
use redex_fuzz::history::{self, Mode};
use redex_fuzz::runner::{Limits, run};

/// What was found under which seeds.
const FOUND: &[(&str, Mode, &[u64])] = &[
    ("a checkpoint knows where its tails lie", Mode::Honest, &[1, 2]),
    ("a close ends at its last checkpoint not at a roll", Mode::Honest, &[5]),
    ("a recycled segment never has two names", Mode::Honest, &[39]),
    ("a store whose making was cut off is made again", Mode::Honest, &[62]),
    ("a checkpoint right behind a seal begins the next segment", Mode::Honest, &[120, 212]),
    ("replayed extents are flushed after a kill", Mode::Honest, &[175, 357]),
    ("a flush covers the extents of both segments", Mode::Honest, &[289, 522]),
    ("recovery leaves the mixed block of an extent alone", Mode::Honest, &[204, 564]),
    ("a deferred channel is destaged whatever checkpoints do", Mode::Honest, &[455, 667, 2797]),
    ("reads from disk end where memory begins", Mode::Honest, &[863]),
    ("the unfinished block of one segment is not laid over the next", Mode::Honest, &[2077]),
    ("a footer has the time of the last event", Mode::Honest, &[905, 936]),
    ("the name of a store survives a kill and a power cut", Mode::Honest, &[987]),
    ("a shard goes on when room is made", Mode::Faults, &[133, 213, 644]),
    ("a cut ends a segment that nobody destages", Mode::Honest, &[1011, 4000]),
    ("replay leaves no gap where a cut segment is gone", Mode::Honest, &[1000, 9000]),
    ("an empty page holds no extent up", Mode::Honest, &[1016, 7093]),
    ("a page behind an empty one can be had", Mode::Honest, &[1389]),
    ("a checkpoint has the heads of the commits below it", Mode::Honest, &[1094, 5258, 11164]),
    ("a segment at the head stays until something follows it", Mode::Damage, &[32283]),
    ("space below the head comes back at a reopen", Mode::Honest, &[2888, 3021]),
    ("a shard that closes beside a failed one comes to its end", Mode::Faults, &[519]),
];

#[test]
fn seeds_under_which_something_was_found_hold() {
    for (rule, mode, seeds) in FOUND {
        for seed in *seeds {
            history::run(*seed, *mode).unwrap_or_else(|failure| panic!("{rule}: {failure}"));
        }
    }
}

#[test]
fn same_seed_same_trace() {
    for seed in [1, 2, 3] {
        let first = history::run(seed, Mode::Honest).unwrap_or_else(|failure| panic!("{failure}"));
        let again = history::run(seed, Mode::Honest).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, again, "seed {seed}");
    }
}

#[test]
fn power_cuts_keep_every_durable_event() {
    let limits = Limits { lives: Some(300), ..Limits::default() };
    let tally = run(1000, Mode::Honest, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(tally.cut_count() > 50, "{tally:?}");
}

#[test]
fn a_failing_disk_loses_nothing_that_was_acknowledged() {
    let limits = Limits { lives: Some(300), ..Limits::default() };
    run(2000, Mode::Faults, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_damaged_disk_is_named_and_never_shows_other_bytes() {
    let limits = Limits { lives: Some(300), ..Limits::default() };
    let tally = run(3000, Mode::Damage, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
    for verdict in [Verdict::Unharmed, Verdict::Refused, Verdict::Unreadable] {
        assert!(tally.blows.get(&verdict).is_some_and(|count| *count > 10), "{tally:?}");
    }
}

#[test]
fn entries_move_along_between_checkpoint_files() {
    let limits = Limits { lives: Some(900), ..Limits::default() };
    let tally = run(4000, Mode::Honest, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(tally.checkpoint_moves > 5, "{tally:?}");
}

#[test]
fn trims_cuts_and_deletions_are_crash_points() {
    let limits = Limits { lives: Some(600), ..Limits::default() };
    let tally = run(5000, Mode::Honest, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
    for kind in [StepKind::Trim, StepKind::CutOff, StepKind::Delete, StepKind::Remove] {
        assert!(tally.cuts.get(&kind).is_some_and(|count| *count > 0), "{kind}: {tally:?}");
    }
}
