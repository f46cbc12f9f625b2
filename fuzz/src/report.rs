//! What a run came to, in words; and whether it looked everywhere.

use std::fmt::Write;
use std::time::Duration;

use redex::sim::StepKind;

use crate::history::Tally;

/// Power cuts from which on each kind of step must have been hit.
pub const CUTS_FOR_ALL_KINDS: u64 = 20_000;
/// How often.
pub const CUTS_PER_KIND: u64 = 100;

/// The table of a run.
#[must_use]
pub fn table(tally: &Tally, elapsed: Duration) -> String {
    let mut text = String::new();
    let Tally { histories, lives, kills, closes, faults, events, .. } = tally;
    let (cuts, seconds) = (tally.cut_count(), elapsed.as_secs_f64());
    let _ = writeln!(text, "{histories} histories, {lives} lives, {events} events in {seconds:.1} s");
    let _ = writeln!(text, "{cuts} power cuts, {kills} kills, {closes} clean closes, {faults} faulty lives");
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
