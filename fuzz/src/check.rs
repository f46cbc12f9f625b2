//! What must hold after a reopen (design section 7): what was acknowledged is there, byte for byte; what survived is a
//! prefix of each channel, and over the channels of one shard a prefix of its commits; what was dropped stays so.

use redex::sim::SimStore;
use redex::{RedexEvent, RedexFile};

use crate::failure::chain;
use crate::history::World;
use crate::model::Channel;
use crate::{files, groups, settings, survivors};

/// Whether this is the event of the model at `seq`.
///
/// # Errors
///
/// What differs.
pub fn same(model: &Channel, seq: u64, event: &RedexEvent) -> Result<(), String> {
    let name = &model.name;
    let Some(expected) = model.events.get(seq as usize).filter(|_| event.seq == seq) else {
        return Err(format!("{name}: event {} where {seq} belongs, of {}", event.seq, model.next()));
    };
    if !expected.is(&event.payload) {
        return Err(format!("{name}: event {seq} of {} bytes has other {} bytes", expected.len, event.payload.len()));
    }
    let time_us = event.time.as_micros();
    if time_us != expected.time_us {
        return Err(format!("{name}: event {seq} has time {time_us}, not {}", expected.time_us));
    }
    Ok(())
}

/// Compares a store that was just opened with the model, cuts the model to what survived, and opens all channels.
///
/// # Errors
///
/// What is lost, wrong, or out of order; what came back; or what cannot be read.
pub fn reopened(world: &mut World, store: &SimStore) -> Result<Vec<RedexFile>, String> {
    let survived = survivors::survived(world, store)?;
    survivors::check(world, &survived)?;
    groups::check(world, &survived)?;
    world.groups.clear();
    for (channel, survived) in world.channels.iter_mut().zip(&survived) {
        // One that was made in the same life may be gone because its making was lost; then it leaves what it leaves.
        if channel.base.is_there && !survived.is_there {
            world.deleted.push(channel.base_dir.clone());
        }
        channel.cut(*survived);
    }
    let mut files = Vec::with_capacity(world.channels.len());
    for channel in &mut world.channels {
        if world.dice.one_in(4) {
            channel.config = settings::other(&mut world.dice, &channel.config);
        }
        channel.limits = vec![channel.config.retention()];
        let file = store
            .redex()
            .open_file(&*channel.name, channel.config.clone())
            .map_err(|error| format!("{}: {}", channel.name, chain(&error)))?;
        channel.opened(&file);
        channel.base_dir.clone_from(&channel.dir);
        check_content(channel, &file)?;
        files.push(file);
    }
    files::check(world, &files)?;
    Ok(files)
}

/// Reads a whole channel.
fn check_content(channel: &Channel, file: &RedexFile) -> Result<(), String> {
    let (head, next, durable) = (file.head_seq(), file.next_seq(), file.durable());
    if (head, next, durable) != (channel.head, channel.next(), channel.next()) {
        let (from, to) = (channel.head, channel.next());
        return Err(format!("{}: {head}..{next}, durable {durable}, of {from}..{to}", channel.name));
    }
    let mut seq = head;
    for event in file.read_from(0).blocking() {
        let event = event.map_err(|error| format!("{}: event {seq}: {}", channel.name, chain(&error)))?;
        same(channel, seq, &event)?;
        seq += 1;
    }
    match seq == next {
        true => Ok(()),
        false => Err(format!("{}: {seq} events were read of {next}", channel.name)),
    }
}
