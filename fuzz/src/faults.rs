//! A disk that fails at times: errors may be reported then, but nothing acknowledged may be lost and nothing be wrong.

use redex::sim::{FaultKind, SimOptions};

use crate::history::World;

/// Space beyond what is used, bytes, when the disk is to get full.
const SPACE: std::ops::Range<u64> = 0..2 << 20;
/// Steps that somebody waits for room on a full disk.
const PATIENCE: usize = 300;

/// Makes the disk fail from now on, one way or another, if the history asks for it.
pub fn begin(world: &mut World) {
    if !world.faults {
        return;
    }
    let kind = world.dice.pick(&[
        FaultKind::Write,
        FaultKind::Flush,
        FaultKind::Create,
        FaultKind::Read,
        FaultKind::Resize,
        FaultKind::SyncDir,
    ]);
    let nth = world.dice.within(1..40);
    match world.dice.within(0..5) {
        0 => {
            let space = world.disk.space_used() + world.dice.within(SPACE);
            world.disk.set_space(Some(space));
        }
        1 => {
            let rate = world.dice.pick(&[0.002, 0.02]);
            let options = SimOptions { write_error: rate, flush_error: rate, read_error: rate, ..world.disk.options() };
            world.disk.set_options(options);
        }
        2 => world.disk.set_options(SimOptions { extent_no_space: 0.5, ..world.disk.options() }),
        _ => world.disk.one_shot_fault(kind, nth),
    }
    world.tally.faults += 1;
}

/// The disk is whole again.
pub fn end(world: &mut World) {
    if world.faults {
        let whole = SimOptions {
            write_error: 0.0,
            flush_error: 0.0,
            read_error: 0.0,
            extent_no_space: 0.0,
            space: None,
            ..world.disk.options()
        };
        world.disk.set_options(whole);
        world.disk.forget_faults();
    }
}

/// Makes room on a full disk for what has waited so many steps: from then on it must go on.
pub fn make_room(world: &World, step: usize) {
    if world.faults && step == PATIENCE {
        let room = SimOptions { extent_no_space: 0.0, space: None, ..world.disk.options() };
        world.disk.set_options(room);
    }
}
