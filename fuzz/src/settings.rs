//! How a history's store and disk behave: drawn once from its seed.

use std::time::Duration;

use redex::sim::{CheckpointLimits, SimOptions, SimSettings};
use redex::{FsyncPolicy, RedexFileConfig, Retention};

use crate::dice::Dice;

/// Settings of the store: small, so that everything happens often.
#[must_use]
pub fn store(dice: &mut Dice) -> SimSettings {
    let mut settings = SimSettings {
        shards: if dice.percent(75) { 1 } else { dice.within(2..4) as usize },
        journal_segment_bytes: dice.pick(&[64 << 10, 64 << 10, 128 << 10, 256 << 10]),
        checkpoint_bytes: dice.pick(&[64 << 10, 64 << 10, 128 << 10, 512 << 10]),
        checkpoint_limits: CheckpointLimits {
            files_max: dice.pick(&[2, 3, 5, 16]),
            dead_entries_max: dice.pick(&[0, 2, 8, 1024]),
            moved_per_file: dice.pick(&[1, 3, 512]),
            flushed_beside: 64,
        },
        page_budget_bytes: dice.pick(&[16 << 20, 1 << 20, 32 << 20, 32 << 20]),
        extent_bytes: dice.pick(&[4 << 10, 8 << 10, 16 << 10, 64 << 10]),
        commit_depth: dice.pick(&[1, 1, 2, 4]),
        write_behind: Duration::from_micros(dice.pick(&[100, 1000, 10_000])),
        idle_witness: Duration::from_micros(dice.pick(&[500, 2000])),
        unflushed_bytes_max: dice.pick(&[32 << 10, 256 << 10, 1 << 20]),
    };
    // Either way of flushing comes up, without a throw of its own: the seeds stay what they are.
    if settings.checkpoint_limits.files_max <= 3 {
        settings.checkpoint_limits.flushed_beside = 2;
    }
    settings
}

/// Most channels of a history: a few, so that much happens to each; at times more than a checkpoint touches.
#[must_use]
pub fn channels_max(dice: &mut Dice) -> usize {
    if dice.percent(85) { 6 } else { dice.within(12..41) as usize }
}

/// Behaviour of the disk: honest, but in no hurry and in no order.
#[must_use]
pub fn disk(dice: &mut Dice) -> SimOptions {
    SimOptions {
        sector_size: dice.pick(&[512, 512, 4096]),
        tear_within_sector: dice.one_in(2),
        rename_may_leave_both: dice.one_in(2),
        slow: dice.pick(&[0.0, 0.1, 0.5]),
        reap_nothing: dice.pick(&[0.0, 0.2, 0.6]),
        ..SimOptions::default()
    }
}

/// Configuration of a new channel.
#[must_use]
pub fn channel(dice: &mut Dice) -> RedexFileConfig {
    let segment_bytes = dice.pick(&[16 << 10, 16 << 10, 64 << 10, 64 << 10, 256 << 10, 1 << 20, 1 << 30]);
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(segment_bytes);
    config.with_fsync_policy(policy(dice)).with_retention(retention(dice))
}

/// The same with other settings, as far as an open channel allows.
#[must_use]
pub fn other(dice: &mut Dice, config: &RedexFileConfig) -> RedexFileConfig {
    config.clone().with_fsync_policy(policy(dice)).with_retention(retention(dice))
}

/// When appends resolve.
#[must_use]
pub fn policy(dice: &mut Dice) -> FsyncPolicy {
    let period = Duration::from_micros(dice.pick(&[500, 5000, 50_000]));
    let max_bytes = dice.pick(&[1000, 20_000, 200_000]);
    match dice.within(0..8) {
        0..3 => FsyncPolicy::Never,
        3 => FsyncPolicy::EveryN(1),
        4 => FsyncPolicy::EveryN(dice.within(2..40)),
        5 | 6 => FsyncPolicy::Interval(period),
        _ => FsyncPolicy::IntervalOrBytes { period, max_bytes },
    }
}

/// What is kept: everything in half of the channels.
#[must_use]
pub fn retention(dice: &mut Dice) -> Retention {
    let mut limits = Retention { hold_percent: dice.pick(&[0, 100]), ..Retention::default() };
    let kinds = dice.within(0..12);
    if matches!(kinds, 6 | 7 | 10 | 11) {
        limits.max_events = Some(dice.pick(&[1, 3, 20, 200, 2000]));
    }
    if matches!(kinds, 8 | 10) {
        limits.max_bytes = Some(dice.pick(&[1000, 20_000, 100_000]));
    }
    if matches!(kinds, 9 | 11) {
        limits.max_age = Some(Duration::from_micros(dice.pick(&[1000, 20_000, 500_000])));
    }
    limits
}
