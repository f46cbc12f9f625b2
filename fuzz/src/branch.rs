//! Other ends of a life: at some moment the disk is copied, the power of the copy is cut, and what survives there is opened
//! and compared with the model of that moment, while the history goes on as if nothing had happened.
//!
//! So one life is cut at many moments, and at one moment in several ways, for the price of a recovery each. A branch draws by
//! itself: the history is the same with it and without.

use std::sync::Arc;

use redex::sim::{ManualClock, SimCommit, SimStore};

use crate::dice::Dice;
use crate::faults;
use crate::groups::Group;
use crate::history::{End, Tally, World};
use crate::life;
use crate::model::Channel;
use crate::script::Script;

/// How often the power may go off again while such a store is opened.
const CUTS_IN_RECOVERY_MAX: u32 = 3;
/// Steps of a recovery: where the power may go off.
const RECOVERY_STEPS: std::ops::Range<u64> = 0..80;

/// Now and then, once in `times`: cuts the power of a copy, in the midst of a life.
///
/// # Errors
///
/// What is not as it must be there.
pub fn now_and_then(world: &mut World, store: &SimStore, times: u64) -> Result<(), String> {
    if world.branches.as_mut().is_none_or(|dice| !dice.one_in(times)) {
        return Ok(());
    }
    let commits = (0..store.shard_count()).map(|shard| store.commits(shard)).collect();
    branch(world, commits)
}

/// Other things survive the same power cut. What was committed is noted in the world.
///
/// # Errors
///
/// What is not as it must be there.
pub fn at_the_end(world: &mut World) -> Result<(), String> {
    match world.branches {
        Some(_) => branch(world, world.commits.clone()),
        None => Ok(()),
    }
}

fn branch(world: &mut World, commits: Vec<Vec<SimCommit>>) -> Result<(), String> {
    // With nothing to lose it would show nothing.
    if !world.disk.has_unflushed() {
        return Ok(());
    }
    let seed = world.branches.as_mut().expect("looked at before").bits();
    let mut other = world.fork(seed, commits);
    faults::end(&mut other);
    if let Some((kind, _)) = world.disk.last_step() {
        *other.tally.cuts.entry(kind).or_default() += 1;
    }
    other.disk.power_cut();
    for attempt in 0..=CUTS_IN_RECOVERY_MAX {
        if attempt < CUTS_IN_RECOVERY_MAX && other.dice.percent(30) {
            let steps = other.dice.within(RECOVERY_STEPS);
            other.disk.power_off_after(Some(steps));
        }
        let opened = life::open(&mut other).map_err(|what| format!("in branch {seed:#x}: {what}"))?;
        if opened.is_some() {
            break;
        }
    }
    other.tally.branches += 1;
    world.tally.add(&other.tally);
    Ok(())
}

impl World {
    /// The world at this moment, on a copy of its disk.
    fn fork(&self, seed: u64, commits: Vec<Vec<SimCommit>>) -> Self {
        let disk = self.disk.fork(seed);
        let clock = Arc::new(ManualClock::default());
        clock.set_wall_us(self.clock.wall_us());
        Self {
            cold: self.cold.as_ref().map(|cold| cold.fork(&disk)),
            disk,
            clock,
            dice: Dice::new(!seed),
            script: None,
            done: Script::default(),
            settings: self.settings.clone(),
            channels: self.channels.iter().map(Channel::without_waiters).collect(),
            deleted: self.deleted.clone(),
            commits,
            end: End::PowerCut,
            aim: None,
            groups_dice: None,
            branches: None,
            groups: self.groups.iter().map(Group::without_waiter).collect(),
            tally: Tally::default(),
            ..*self
        }
    }
}
