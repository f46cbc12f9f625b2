//! The whole engine on a simulated disk: named seeds, and a short look around.

use redex_fuzz::history;
use redex_fuzz::runner::{Limits, run};

#[test]
fn same_seed_same_trace() {
    for seed in [1, 2, 3] {
        let first = history::run(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        let again = history::run(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, again, "seed {seed}");
    }
}

#[test]
fn power_cuts_keep_every_durable_event() {
    let limits = Limits { lives: Some(300), ..Limits::default() };
    let tally = run(1000, false, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(tally.cut_count() > 100, "{tally:?}");
}
