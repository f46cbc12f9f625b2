//! Batches over several channels, and channels that begin in memory.
//!
//! After a crash all of a batch is there, or nothing. A batch that is refused leaves nothing in any channel.

use std::task::Poll;

use redex::{AppendError, ChangeError, CommitBatch, RedexFile};

use crate::failure::chain;
use crate::faults;
use crate::history::World;
use crate::model::{Channel, Event, Pending, Wanted};
use crate::survivors::Extent;
use crate::workload::{Run, STEPS_MAX, poll};

/// What a batch has for one channel.
#[derive(Clone, Debug)]
struct Member {
    channel: usize,
    wanted: Wanted,
    /// How often the channel had been cut off before.
    cuts: u64,
}

/// A batch that was begun in the present life.
#[derive(Debug)]
pub struct Group {
    /// Who waits for it, until it is known what came of it.
    commit: Option<CommitBatch>,
    members: Vec<Member>,
}

impl Group {
    /// The same, with nobody who waits for it.
    #[must_use]
    pub fn without_waiter(&self) -> Self {
        Self { commit: None, members: self.members.clone() }
    }
}

impl Member {
    /// Where its events lie, if they were published and not cut off.
    fn place(&self, model: &Channel) -> Option<u64> {
        let first = self.wanted.first().expect("a batch has events for each of its channels").0;
        model.events.iter().position(|event| event.seed == first).map(|place| place as u64)
    }
}

impl Run<'_> {
    /// Appends a batch to some channels.
    pub(crate) fn append_group(&mut self) -> Result<(), String> {
        let members = self.draw_members();
        let mut batch = self.store.redex().batch();
        for member in &members {
            for (seed, len) in &member.wanted {
                batch.append(&self.files[member.channel], Event::payload(*seed, *len));
            }
        }
        let mut commit = batch.commit();
        match poll(&mut commit) {
            Poll::Pending => {}
            Poll::Ready(Ok(_)) if members.is_empty() => return Ok(()),
            Poll::Ready(Ok(seqs)) => return Err(format!("a batch is durable at once: {seqs:?}")),
            // A place that it gave up again lets through what was appended before.
            Poll::Ready(Err(ChangeError::Apart { .. } | ChangeError::BatchTooLarge { .. })) => return self.observe(),
            Poll::Ready(Err(ChangeError::Append(AppendError::Full { .. }))) => return self.observe(),
            Poll::Ready(Err(ChangeError::Append(AppendError::NoSpace { .. }))) if self.world.faults => {
                return self.observe();
            }
            Poll::Ready(Err(error)) => return self.excuse("a batch", &error),
        }
        for member in &members {
            self.world.channels[member.channel].waiting.push_back(member.wanted.clone());
        }
        self.world.groups.push(Group { commit: Some(commit), members });
        self.observe()?;
        if self.dice().one_in(2) { self.wait_for_groups() } else { Ok(()) }
    }

    fn draw_members(&mut self) -> Vec<Member> {
        let count = self.files.len() as u64;
        let first = self.dice().within(0..count) as usize;
        let count = self.dice().within(1..5) as usize;
        let mut members = Vec::new();
        for channel in (0..self.files.len()).cycle().skip(first).take(count.min(self.files.len())) {
            let model = &self.world.channels[channel];
            if !model.is_there || matches!(model.pending, Some(Pending::Delete(_))) {
                continue;
            }
            let cuts = model.cuts;
            let dice = self.dice();
            let (events, len) = dice.pick(&[(1..3, 0..40), (1..20, 0..300), (1..4, 2000..9000)]);
            let wanted = (0..dice.within(events)).map(|_| (dice.bits(), dice.within(len.clone()) as usize)).collect();
            members.push(Member { channel, wanted, cuts });
        }
        members
    }

    fn wait_for_groups(&mut self) -> Result<(), String> {
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            if self.world.disk.is_off() || self.world.groups.iter().all(|group| group.commit.is_none()) {
                return Ok(());
            }
            self.step("a batch")?;
        }
        Err("a batch waits for ever".to_owned())
    }

    /// Opens a new channel in memory, appends some, and makes it durable in place.
    pub(crate) fn open_in_memory(&mut self, model: &mut Channel) -> Result<Option<RedexFile>, String> {
        let redex = self.store.redex();
        let config = model.config.clone().with_persistent(false);
        let file = redex.open_file(&*model.name, config).map_err(|error| chain(&error))?;
        for _ in 0..self.dice().within(0..60) {
            let (seed, len) = (self.dice().bits(), self.dice().within(0..3000) as usize);
            model.waiting.push_back(vec![(seed, len)]);
            file.append(Event::payload(seed, len)).wait().map_err(|error| chain(&error))?;
        }
        // What was appended before is unflushed, whatever the policy.
        model.bound_from = model.waiting.len() as u64;
        match self.store.redex().open_file(&*model.name, model.config.clone()) {
            Ok(again) => {
                model.began_in_memory = Some(again.durable());
                Ok(Some(again))
            }
            Err(error) => self.excuse("open_file", &error).map(|()| None),
        }
    }
}

/// Looks what came of batches. To be called before what was published is taken into the model; gives those that are
/// durable, for [`check_durable`] afterwards.
///
/// # Errors
///
/// One that was refused, and left something.
pub fn settle(world: &mut World) -> Result<Vec<(usize, Vec<u64>)>, String> {
    let mut groups = std::mem::take(&mut world.groups);
    let mut durable = Vec::new();
    for (index, group) in groups.iter_mut().enumerate() {
        let Some(Poll::Ready(outcome)) = group.commit.as_mut().map(poll) else { continue };
        group.commit = None;
        match outcome {
            Ok(seqs) => durable.push((index, seqs)),
            Err(
                ChangeError::Append(AppendError::Closed { .. } | AppendError::NoSpace { .. })
                | ChangeError::Closed { .. },
            ) => {
                refused(world, group)?;
            }
            // The shard has failed: it is there after the next opening, or not.
            Err(_) if world.disk.is_off() || world.faults || world.is_struck => {}
            Err(error) => return Err(format!("a batch: {}", chain(&error))),
        }
    }
    world.groups = groups;
    Ok(durable)
}

fn refused(world: &mut World, group: &Group) -> Result<(), String> {
    for member in &group.members {
        let model = &mut world.channels[member.channel];
        if member.place(model).is_some() {
            return Err(format!("{}: a batch was refused, and some of it is there", model.name));
        }
        model.waiting.retain(|waiting| *waiting != member.wanted);
    }
    Ok(())
}

/// Batches that resolved lie where they say, durably.
///
/// # Errors
///
/// What does not.
pub fn check_durable(world: &World, durable: &[(usize, Vec<u64>)]) -> Result<(), String> {
    for (index, seqs) in durable {
        let mut seqs = seqs.as_slice();
        for member in &world.groups[*index].members {
            let (own, rest) = seqs.split_at(member.wanted.len());
            seqs = rest;
            let model = &world.channels[member.channel];
            let end = own[0] + own.len() as u64;
            if model.cuts == member.cuts && !(model.has(own[0], &member.wanted) && model.floor >= end) {
                return Err(format!("{}: a batch at {} of {end} is not there", model.name, own[0]));
            }
        }
    }
    Ok(())
}

/// All of each batch of the last life survived, or nothing.
///
/// # Errors
///
/// Which one did not.
pub fn check(world: &mut World, survived: &[Extent]) -> Result<(), String> {
    let (mut kept, mut lost) = (0, 0);
    for group in &world.groups {
        let mut seen: Option<(bool, &str)> = None;
        let mut judged = 0;
        for member in &group.members {
            let (model, extent) = (&world.channels[member.channel], survived[member.channel]);
            let place = member.place(model);
            if model.pending.is_some() || place.is_none() && !model.waiting.contains(&member.wanted) {
                // Cut off, or about to be; or refused.
                continue;
            }
            let is_there = place.is_some_and(|place| place < extent.end);
            let (present, other) = *seen.get_or_insert((is_there, &model.name));
            judged += 1;
            if present != is_there {
                return Err(format!("of a batch over {other} and {} one survived", model.name));
            }
        }
        match seen.filter(|_| judged > 1) {
            Some((true, _)) => kept += 1,
            Some((false, _)) => lost += 1,
            None => {}
        }
    }
    world.tally.groups_kept += kept;
    world.tally.groups_lost += lost;
    Ok(())
}
