//! What must hold after a reopen (design section 7): what was acknowledged is there, byte for byte; what survived is a
//! prefix of each channel, and over the channels of one shard a prefix of its commits.

use std::collections::BTreeMap;

use redex::sim::{SimCommit, SimStore};
use redex::{RedexEvent, RedexFile};

use crate::failure::chain;
use crate::history::{End, World};
use crate::model::Channel;

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
/// What is lost, wrong, or out of order; or cannot be read.
pub fn reopened(world: &mut World, store: &SimStore) -> Result<Vec<RedexFile>, String> {
    let infos = store.redex().channels();
    let known: BTreeMap<String, u64> =
        infos.iter().map(|info| (info.name.as_str().to_owned(), info.next_seq)).collect();
    let survived: Vec<u64> =
        world.channels.iter().map(|channel| known.get(&channel.name).copied().unwrap_or(0)).collect();
    if let Some(stranger) = known.keys().find(|name| world.channels.iter().all(|channel| channel.name != **name)) {
        return Err(format!("a channel {stranger:?} that was never made"));
    }
    for (channel, survived) in world.channels.iter().zip(&survived) {
        let (name, floor, next) = (&channel.name, channel.floor, channel.next());
        let all = world.end == End::Closed;
        if *survived < floor || *survived > next || (all && *survived < next) {
            return Err(format!("{name}: {survived} events survived of {next}, {floor} were acknowledged as durable"));
        }
        if !channel.may_end_at(*survived) {
            return Err(format!("{name}: {survived} events survived of {next}: the last is in the midst of a batch"));
        }
    }
    check_commits(world, &survived)?;
    for (channel, survived) in world.channels.iter_mut().zip(&survived) {
        channel.cut(*survived);
    }
    let mut files = Vec::with_capacity(world.channels.len());
    for channel in &world.channels {
        let file = store
            .redex()
            .open_file(&*channel.name, channel.config.clone())
            .map_err(|error| format!("{}: {}", channel.name, chain(&error)))?;
        check_content(channel, &file)?;
        files.push(file);
    }
    Ok(files)
}

/// Reads a whole channel.
fn check_content(channel: &Channel, file: &RedexFile) -> Result<(), String> {
    let (head, next, durable) = (file.head_seq(), file.next_seq(), file.durable());
    if (head, next, durable) != (0, channel.next(), channel.next()) {
        return Err(format!("{}: {head}..{next}, durable {durable}, of {}", channel.name, channel.next()));
    }
    let mut seq = 0;
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

/// Over the channels of one shard a prefix of its commits survived; all of them, if only the process died.
fn check_commits(world: &World, survived: &[u64]) -> Result<(), String> {
    let survived: BTreeMap<&str, u64> =
        world.channels.iter().map(|channel| channel.name.as_str()).zip(survived.iter().copied()).collect();
    let base: BTreeMap<&str, u64> =
        world.channels.iter().map(|channel| (channel.name.as_str(), channel.base)).collect();
    let mut untouched = survived.clone();
    for (shard, commits) in world.commits.iter().enumerate() {
        let mut at: BTreeMap<&str, u64> = commits
            .iter()
            .flat_map(|commit| &commit.ends)
            .map(|(name, _)| (name.as_str(), base[name.as_str()]))
            .collect();
        at.keys().for_each(|name| _ = untouched.remove(name));
        if !is_prefix(commits, &mut at, &survived, world.end) {
            return Err(format!(
                "shard {shard}: no prefix of its commits survived: {survived:?} of {commits:?}, {base:?}"
            ));
        }
    }
    match untouched.iter().find(|(name, survived)| base[*name] != **survived) {
        Some((name, survived)) => {
            Err(format!("{name}: {survived} events, {} before, nothing was committed", base[name]))
        }
        None => Ok(()),
    }
}

fn is_prefix<'c>(
    commits: &'c [SimCommit],
    at: &mut BTreeMap<&'c str, u64>,
    survived: &BTreeMap<&str, u64>,
    end: End,
) -> bool {
    let matches = |at: &BTreeMap<&str, u64>| at.iter().all(|(name, end)| survived[name] == *end);
    let mut found = end != End::Killed && matches(at);
    for commit in commits {
        for (name, end) in &commit.ends {
            at.insert(name.as_str(), *end);
        }
        found |= end != End::Killed && matches(at);
    }
    found || matches(at)
}
