//! What a run came to, in words; and whether it looked everywhere.

use std::fmt::Write;
use std::time::Duration;

use redex::sim::StepKind;

use crate::damage::Verdict;
use crate::history::Tally;

/// Power cuts from which on each kind of step must have been hit.
pub const CUTS_FOR_ALL_KINDS: u64 = 200_000;
/// How often.
pub const CUTS_PER_KIND: u64 = 100;

/// The table of a run.
#[must_use]
pub fn table(tally: &Tally, elapsed: Duration) -> String {
    let mut text = String::new();
    let Tally { histories, lives, kills, closes, faults, events, checkpoint_moves, blows, .. } = tally;
    let (cuts, seconds) = (tally.cut_count(), elapsed.as_secs_f64());
    let _ = writeln!(text, "{histories} histories, {lives} lives, {events} events in {seconds:.1} s");
    let _ = writeln!(text, "{cuts} power cuts, {kills} kills, {closes} clean closes, {faults} faulty lives");
    let _ = writeln!(text, "{} of the power cuts on copies of a disk, in the midst of a life", tally.branches);
    let _ = writeln!(text, "{checkpoint_moves} entries moved along between checkpoint files");
    let _ = writeln!(text, "batches over channels: {} survived, {} did not", tally.groups_kept, tally.groups_lost);
    if !blows.is_empty() {
        let count = |verdict| blows.get(&verdict).copied().unwrap_or(0);
        let [unharmed, refused, unreadable] = [Verdict::Unharmed, Verdict::Refused, Verdict::Unreadable].map(count);
        let _ = writeln!(text, "{} lives in a storm of damages", tally.storms);
        let _ = writeln!(text, "damages: {unharmed} without harm, {refused} refused, {unreadable} named by reads");
    }
    for kind in StepKind::ALL {
        let count = tally.cuts.get(&kind).copied().unwrap_or(0);
        let _ = writeln!(text, "  {:<18}{count:>8}", kind.name());
    }
    text
}

/// Kinds of steps that too few power cuts have hit, if there were enough to tell.
#[must_use]
pub fn missed(tally: &Tally) -> Vec<StepKind> {
    let few = |kind: &StepKind| tally.cuts.get(kind).copied().unwrap_or(0) < CUTS_PER_KIND;
    if tally.cut_count() < CUTS_FOR_ALL_KINDS { Vec::new() } else { StepKind::ALL.into_iter().filter(few).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(seldom: u64, often: u64) -> Tally {
        let mut cuts: std::collections::BTreeMap<_, _> = StepKind::ALL.into_iter().map(|kind| (kind, often)).collect();
        cuts.insert(StepKind::Rename, seldom);
        Tally { cuts, ..Tally::default() }
    }

    #[test]
    fn a_kind_of_step_that_few_cuts_have_hit_is_missed() {
        assert_eq!(missed(&tally(CUTS_PER_KIND - 1, 20_000)), [StepKind::Rename]);
        assert_eq!(missed(&tally(CUTS_PER_KIND, 20_000)), []);
        let mut none = tally(0, 20_000);
        none.cuts.remove(&StepKind::Rename);
        assert_eq!(missed(&none), [StepKind::Rename]);
    }

    #[test]
    fn a_short_run_misses_nothing() {
        let short = tally(0, 900);
        assert!(short.cut_count() < CUTS_FOR_ALL_KINDS);
        assert_eq!(missed(&short), []);
    }
}
