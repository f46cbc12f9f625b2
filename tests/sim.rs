//! The whole engine on a simulated disk: a short look around, and the seeds under which something was found.
//!
//! A seed tells a history only as long as the workload is the same; when that changes, its name still says what to look
//! for.

use redex::sim::StepKind;
use redex_fuzz::damage::Verdict;
use redex_fuzz::history::{self, Mode};
use redex_fuzz::runner::{Limits, run};

fn holds(seed: u64, mode: Mode) {
    history::run(seed, mode).unwrap_or_else(|failure| panic!("{failure}"));
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
fn a_checkpoint_knows_where_its_tails_lie() {
    holds(1, Mode::Honest);
    holds(2, Mode::Honest);
}

#[test]
fn a_close_ends_at_its_last_checkpoint_not_at_a_roll() {
    holds(5, Mode::Honest);
}

#[test]
fn a_recycled_segment_never_has_two_names() {
    holds(39, Mode::Honest);
}

#[test]
fn a_store_whose_making_was_cut_off_is_made_again() {
    holds(62, Mode::Honest);
}

#[test]
fn a_checkpoint_right_behind_a_seal_begins_the_next_segment() {
    holds(120, Mode::Honest);
    holds(212, Mode::Honest);
}

#[test]
fn replayed_extents_are_flushed_after_a_kill() {
    holds(175, Mode::Honest);
    holds(357, Mode::Honest);
}

#[test]
fn a_flush_covers_the_extents_of_both_segments() {
    holds(289, Mode::Honest);
    holds(522, Mode::Honest);
}

#[test]
fn recovery_leaves_the_mixed_block_of_an_extent_alone() {
    holds(204, Mode::Honest);
    holds(564, Mode::Honest);
}

#[test]
fn a_deferred_channel_is_destaged_whatever_checkpoints_do() {
    holds(455, Mode::Honest);
    holds(667, Mode::Honest);
    holds(2797, Mode::Honest);
}

#[test]
fn reads_from_disk_end_where_memory_begins() {
    holds(863, Mode::Honest);
}

#[test]
fn the_unfinished_block_of_one_segment_is_not_laid_over_the_next() {
    holds(2077, Mode::Honest);
}

#[test]
fn a_footer_has_the_time_of_the_last_event() {
    holds(905, Mode::Honest);
    holds(936, Mode::Honest);
}

#[test]
fn the_name_of_a_store_survives_a_kill_and_a_power_cut() {
    holds(987, Mode::Honest);
}

#[test]
fn a_shard_goes_on_when_room_is_made() {
    holds(133, Mode::Faults);
    holds(213, Mode::Faults);
    holds(644, Mode::Faults);
}

#[test]
fn a_cut_ends_a_segment_that_nobody_destages() {
    holds(1011, Mode::Honest);
    holds(4000, Mode::Honest);
}

#[test]
fn replay_leaves_no_gap_where_a_cut_segment_is_gone() {
    holds(1000, Mode::Honest);
    holds(9000, Mode::Honest);
}

#[test]
fn an_empty_page_holds_no_extent_up() {
    holds(1016, Mode::Honest);
    holds(7093, Mode::Honest);
}

#[test]
fn a_page_behind_an_empty_one_can_be_had() {
    holds(1389, Mode::Honest);
}

#[test]
fn a_checkpoint_has_the_heads_of_the_commits_below_it() {
    holds(1094, Mode::Honest);
    holds(5258, Mode::Honest);
    holds(11164, Mode::Honest);
}

#[test]
fn a_segment_at_the_head_stays_until_something_follows_it() {
    holds(32283, Mode::Damage);
}

#[test]
fn space_below_the_head_comes_back_at_a_reopen() {
    holds(2888, Mode::Honest);
    holds(3021, Mode::Honest);
}

#[test]
fn trims_cuts_and_deletions_are_crash_points() {
    let limits = Limits { lives: Some(600), ..Limits::default() };
    let tally = run(5000, Mode::Honest, 2, limits).unwrap_or_else(|failure| panic!("{failure}"));
    for kind in [StepKind::Trim, StepKind::CutOff, StepKind::Delete, StepKind::Remove] {
        assert!(tally.cuts.get(&kind).is_some_and(|count| *count > 0), "{kind}: {tally:?}");
    }
}
