//! The whole engine on a simulated disk: a short look around, and the seeds under which something was found.
//!
//! A seed tells a history only as long as the workload is the same; when that changes, its name still says what to look
//! for.

use redex_fuzz::history;
use redex_fuzz::runner::{Limits, run};

fn holds(seed: u64, faults: bool) {
    history::run(seed, faults).unwrap_or_else(|failure| panic!("{failure}"));
}

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
    assert!(tally.cut_count() > 50, "{tally:?}");
}

#[test]
fn a_failing_disk_loses_nothing_that_was_acknowledged() {
    let limits = Limits { lives: Some(300), ..Limits::default() };
    run(2000, true, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_checkpoint_knows_where_its_tails_lie() {
    holds(1, false);
    holds(2, false);
}

#[test]
fn a_close_ends_at_its_last_checkpoint_not_at_a_roll() {
    holds(5, false);
}

#[test]
fn a_recycled_segment_never_has_two_names() {
    holds(39, false);
}

#[test]
fn a_store_whose_making_was_cut_off_is_made_again() {
    holds(62, false);
}

#[test]
fn a_checkpoint_right_behind_a_seal_begins_the_next_segment() {
    holds(120, false);
    holds(212, false);
}

#[test]
fn replayed_extents_are_flushed_after_a_kill() {
    holds(175, false);
    holds(357, false);
}

#[test]
fn a_flush_covers_the_extents_of_both_segments() {
    holds(289, false);
    holds(522, false);
}

#[test]
fn recovery_leaves_the_mixed_block_of_an_extent_alone() {
    holds(204, false);
    holds(564, false);
}

#[test]
fn a_deferred_channel_is_destaged_whatever_checkpoints_do() {
    holds(455, false);
    holds(667, false);
    holds(2797, false);
}

#[test]
fn reads_from_disk_end_where_memory_begins() {
    holds(863, false);
}

#[test]
fn the_unfinished_block_of_one_segment_is_not_laid_over_the_next() {
    holds(2077, false);
}

#[test]
fn a_footer_has_the_time_of_the_last_event() {
    holds(905, false);
    holds(936, false);
}

#[test]
fn the_name_of_a_store_survives_a_kill_and_a_power_cut() {
    holds(987, false);
}

#[test]
fn a_shard_goes_on_when_room_is_made() {
    holds(133, true);
    holds(213, true);
    holds(644, true);
}
