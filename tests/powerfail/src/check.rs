//! Compares a store that was opened after a power cut with what was acknowledged before it.
//!
//! Everything acknowledged is there, byte for byte; what is there is a prefix of what was appended; what was dropped stays away;
//! a batch is there wholly or not at all; and opening a store after a mere crash never fails and never speaks of damage.

use anyhow::{Context, bail, ensure};
use redex::{Redex, RedexFile};

use crate::history::{Channel, Event, Found, Group, History, Position, Version};

/// Opens every channel, reads all of it, and compares.
///
/// # Errors
///
/// The first thing that is not as it must be.
pub fn check(store: &Redex, history: &History, cut: Position) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::with_capacity(history.channels.len());
    for channel in &history.channels {
        let file = open(store, channel)?;
        found.push(check_channel(&file, channel, cut).with_context(|| channel.name.clone())?);
    }
    history.groups.iter().try_for_each(|group| check_group(group, history, &found))?;
    Ok(found)
}

/// Opens a channel as it was made.
///
/// # Errors
///
/// The engine's.
pub fn open(store: &Redex, channel: &Channel) -> anyhow::Result<RedexFile> {
    let opened = store.open_file(channel.name.as_str(), channel.config());
    opened.with_context(|| format!("{} does not open", channel.name))
}

fn check_channel(file: &RedexFile, channel: &Channel, cut: Position) -> anyhow::Result<Found> {
    let (head, next) = (file.head_seq(), file.next_seq());
    ensure!(file.durable() == next, "{next} events, of which {} are durable, right after opening", file.durable());
    let payloads = read(file, head, next)?;
    let newest_acknowledged = newest(channel, |version| version.change.acknowledged.is_some_and(|at| at <= cut));
    let newest_begun = newest(channel, |version| version.change.begun <= cut);
    let mut reasons = Vec::new();
    for number in newest_acknowledged..=newest_begun {
        let version = &channel.versions[number];
        let found = Found { version: number, head, next };
        let is_acknowledged = number == newest_acknowledged;
        match matches(channel, version, is_acknowledged, cut, found, &payloads) {
            Ok(()) => return Ok(found),
            Err(reason) => reasons.push(format!("{reason:#}")),
        }
    }
    bail!(reasons.join("; or, if the change in flight has happened: "))
}

fn newest(channel: &Channel, holds: impl Fn(&Version) -> bool) -> usize {
    channel.versions.iter().rposition(holds).unwrap_or(0)
}

/// Reads all there is: dense, from the head to the end.
fn read(file: &RedexFile, head: u64, next: u64) -> anyhow::Result<Vec<redex::Payload>> {
    let mut payloads = Vec::with_capacity(next.saturating_sub(head) as usize);
    for event in file.read_from(0).blocking() {
        let seq = head + payloads.len() as u64;
        let event = event.with_context(|| format!("event {seq} is not read"))?;
        ensure!(event.seq == seq, "event {} where {seq} belongs", event.seq);
        payloads.push(event.payload);
    }
    ensure!(head + payloads.len() as u64 == next, "{} events are read of {head}..{next}", payloads.len());
    Ok(payloads)
}

/// Whether what was found is what this version may be after the cut.
fn matches(
    channel: &Channel,
    version: &Version,
    is_acknowledged: bool,
    cut: Position,
    found: Found,
    payloads: &[redex::Payload],
) -> anyhow::Result<()> {
    let Found { head, next, .. } = found;
    let (least, most) = match is_acknowledged {
        true => (version.durable_at(cut), version.begun_before(cut)),
        // Nothing is appended before a change is acknowledged.
        false => (version.inherited, version.inherited),
    };
    if !(least..=most).contains(&next) {
        bail!("{next} events survived, {least} were acknowledged as durable, {most} begun");
    }
    let last = next.checked_sub(1).map(|last| version.events[last as usize]);
    if next > version.inherited && last.is_some_and(|last| last.continues) {
        bail!("{next} events survived: the last is in the midst of a batch");
    }
    let (head_least, head_most) = (version.head_at(cut), channel.head_most(found.version, cut));
    if !(head_least..=head_most).contains(&head) || head > next {
        bail!("the head is {head}, not in {head_least}..={head_most} and at most {next}");
    }
    let events = &version.events[head as usize..next as usize];
    events.iter().zip(payloads).zip(head..).try_for_each(|((event, payload), seq)| same(event, payload, seq))
}

fn same(event: &Event, payload: &[u8], seq: u64) -> anyhow::Result<()> {
    let (appended, read) = (event.len, payload.len());
    ensure!(payload == event.payload(), "event {seq} was appended with {appended} bytes, and other {read} are read");
    Ok(())
}

/// All of a batch is there or nothing, as far as no later change hides it.
fn check_group(group: &Group, history: &History, found: &[Found]) -> anyhow::Result<()> {
    let there = group.members.iter().filter_map(|(channel, version, end)| {
        let found = &found[*channel];
        (found.version == *version).then_some((*channel, found.next >= *end))
    });
    let (with, without): (Vec<_>, Vec<_>) = there.partition(|(_, is_there)| *is_there);
    match (with.first(), without.first()) {
        (Some((with, _)), Some((without, _))) => {
            let (with, without) = (&history.channels[*with].name, &history.channels[*without].name);
            bail!("a batch over channels is there in {with} and not in {without}: {group:?}")
        }
        _ => Ok(()),
    }
}
