//! One life of a store: opened and compared, used, and ended one way or another.

use redex::RedexFile;
use redex::sim::{SimCommit, SimStep, SimStore, StepKind};

use crate::branch;
use crate::check;
use crate::failure::chain;
use crate::faults;
use crate::history::{End, Part, World};
use crate::workload::{Run, observe};

/// Steps after which a close is taken for stuck.
const STEPS_MAX: usize = 100_000;

/// Steps that few power cuts would hit by themselves.
const RARE: [StepKind; 13] = [
    StepKind::Rename,
    StepKind::Rename,
    StepKind::Rename,
    StepKind::Rename,
    StepKind::Rename,
    StepKind::Roll,
    StepKind::Recycle,
    StepKind::CheckpointEntry,
    StepKind::CheckpointFile,
    StepKind::Seal,
    StepKind::CutOff,
    StepKind::Delete,
    StepKind::Remove,
];

/// The same of segments that go.
const RARE_COLD: [StepKind; 3] = [StepKind::ColdUpload, StepKind::ColdManifest, StepKind::ColdDelete];

/// Lives one life.
///
/// # Errors
///
/// What is not as it must be.
pub fn live(world: &mut World) -> Result<(), String> {
    world.tally.lives += 1;
    world.turn_to(Part::Begin);
    if world.dice.percent(25) {
        // In the midst of the recovery.
        let steps = world.dice.within(0..80);
        world.disk.power_off_after(Some(steps));
    }
    let Some((store, files)) = open(world)? else { return Ok(()) };
    let begun_at = world.disk.steps();
    let cut = world.dice.percent(85);
    if cut {
        let limit = world.steps + world.steps / 3 + 20;
        let steps = world.dice.within(0..limit);
        world.disk.power_off_after(Some(steps));
    } else {
        world.disk.power_off_after(None);
    }
    let mut aims_at_cold = false;
    if let Some(aim) = &mut world.aim
        && !aim.one_in(4)
    {
        world.disk.power_off_after(None);
        aims_at_cold = world.cold.is_some() && aim.one_in(2);
        let kind = if aims_at_cold { aim.pick(&RARE_COLD) } else { aim.pick(&RARE) };
        let nth = if aims_at_cold { 1 } else { aim.within(1..4) };
        world.disk.power_off_at(kind, nth);
    }
    faults::begin(world);
    // A segment goes to the cold store once it is full, and a checkpoint has it.
    let actions = world.dice.within(if aims_at_cold { 50..200 } else { 5..70 });
    let (store, files) = Run::new(world, store, files).run(actions)?;
    world.turn_to(Part::End);
    let result = end(world, store, &files);
    drop(files);
    faults::end(world);
    let steps = world.disk.steps() - begun_at;
    if !cut {
        // Not the mean: long lives have what short ones lack.
        world.steps = steps.max(50);
    }
    result
}

/// The last opening of a history, without a power cut: everything is compared once more.
///
/// # Errors
///
/// What is not as it must be.
pub fn finish(world: &mut World) -> Result<(), String> {
    world.disk.power_off_after(None);
    match open(world)? {
        Some((store, files)) => {
            drop(files);
            store.close().map_err(|error| chain(&error))
        }
        None => Err("the power went off by itself".to_owned()),
    }
}

/// Opens the store and compares it; `None` if the power went off meanwhile.
///
/// # Errors
///
/// What is not as it must be.
pub fn open(world: &mut World) -> Result<Option<(SimStore, Vec<RedexFile>)>, String> {
    let seed = world.dice.bits();
    let opened = match &world.cold {
        None => SimStore::open(&world.disk, &world.settings, &world.clock, seed),
        Some(cold) => cold.open(&world.disk, &world.settings, &world.clock, seed),
    };
    match opened {
        Ok(store) => {
            // A power cut that was meant for the recovery and came too late.
            world.disk.power_off_after(None);
            if let Some(cold) = &world.cold {
                cold.check(&world.disk, world.faults)?;
            }
            let files = check::reopened(world, &store)?;
            world.commits.clear();
            Ok(Some((store, files)))
        }
        Err(_) if world.disk.is_off() => {
            cut(world);
            Ok(None)
        }
        Err(error) => Err(format!("the store does not open after {:?}: {}", world.end, chain(&error))),
    }
}

/// Ends a life: by what has happened, or by a choice.
fn end(world: &mut World, mut store: SimStore, files: &[RedexFile]) -> Result<(), String> {
    let close = world.dice.percent(50);
    if close && !world.disk.is_off() {
        store.begin_close();
        for step in 0..STEPS_MAX {
            faults::make_room(world, step);
            branch::now_and_then(world, &store, 40)?;
            let wall_us = world.clock.wall_us();
            let step = store.step();
            // Appends that wait for room are made before the end.
            observe(world, files, wall_us)?;
            match step {
                SimStep::Worked | SimStep::Waited => {}
                SimStep::Ended | SimStep::Failed => {
                    note_commits(world, &store);
                    return closed(world, store);
                }
                SimStep::Idle => return Err("a store that is closing finds nothing to do, and no end".to_owned()),
            }
        }
        return Err("a store that is closing finds no end".to_owned());
    }
    note_commits(world, &store);
    drop(store);
    if world.disk.is_off() || world.dice.percent(70) {
        branch::at_the_end(world)?;
        cut(world);
    } else {
        world.disk.power_off_after(None);
        world.tally.kills += 1;
        // What a failed shard had begun is unknown.
        world.end = if world.faults { End::PowerCut } else { End::Killed };
    }
    Ok(())
}

fn closed(world: &mut World, store: SimStore) -> Result<(), String> {
    match store.finish_close() {
        Ok(()) => {
            world.disk.power_off_after(None);
            world.tally.closes += 1;
            world.end = End::Closed;
            for channel in &mut world.channels {
                if !world.faults && !channel.waiting.is_empty() {
                    return Err(format!("{}: closed, and appends still wait", channel.name));
                }
                channel.acknowledged(channel.next());
            }
            // What was closed survives a power cut as well.
            if world.dice.one_in(2) {
                world.disk.power_cut();
            }
            Ok(())
        }
        Err(_) if world.disk.is_off() || world.faults => {
            cut(world);
            Ok(())
        }
        Err(error) => Err(format!("close: {}", chain(&error))),
    }
}

fn note_commits(world: &mut World, store: &SimStore) {
    let commits: Vec<Vec<SimCommit>> = (0..store.shard_count()).map(|shard| store.commits(shard)).collect();
    world.commits = commits;
    world.tally.checkpoint_moves += store.redex().stats().checkpoint_moves;
}

/// Cuts the power, and counts where.
fn cut(world: &mut World) {
    if world.disk.is_off() && world.dice.one_in(8) {
        // The same moment, but only the process dies.
        world.disk.kill();
        world.tally.kills += 1;
        world.end = End::PowerCut;
        return;
    }
    if world.disk.is_off()
        && let Some((kind, _)) = world.disk.last_step()
    {
        *world.tally.cuts.entry(kind).or_default() += 1;
    }
    world.disk.power_cut();
    world.end = End::PowerCut;
}
