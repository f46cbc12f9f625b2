//! A channel in memory keeps to the same limits and takes the same changes as one on disk; producers do what a shard does there.
//!
//! Events go by whole segments of pages, so that a channel that becomes persistent later begins at the start of one.

use crate::append::backlog::relieve;
use crate::channel::Channel;
use crate::config::Retention;
use crate::error::ChangeError;
use crate::ids::{Epoch, Seq};
use crate::retention::exact_head;
use crate::shard::errands::ErrandKind;
use crate::sync::scheduled::MutexGuard;

/// Events between two looks of an appending producer at what the limits drop: a look costs more than an append.
const EVENTS_PER_LOOK: u64 = 64;

/// Drops what is too much, now and then, after an append of `count` events that end at `end`.
#[cold]
pub fn retain(channel: &Channel, retention: &Retention, end: Seq, count: u64, now_us: u64) {
    let kept = end.0.saturating_sub(channel.head().0);
    let over = retention.max_events.is_some_and(|limit| kept > limit.saturating_add(Retention::slack(limit)));
    let often = retention.max_events.is_some_and(|limit| limit < 8 * EVENTS_PER_LOOK);
    let looks = end.0 / EVENTS_PER_LOOK != (end.0 - count) / EVENTS_PER_LOOK;
    let by_bytes = retention
        .max_bytes
        .is_some_and(|limit| channel.tail.bytes_since(channel.head()) > limit + Retention::slack(limit));
    let by_age = retention.max_age.is_some();
    if !(over && (looks || often) || looks && (by_bytes || by_age)) {
        return;
    }
    let Some(turn) = channel.try_retaining() else { return };
    if let Ok(head) = head_within(channel, retention, now_us) {
        trim_in_turn(channel, head, &turn);
    }
}

/// The head that the limits ask for and readers allow.
pub fn head_within(channel: &Channel, retention: &Retention, now_us: u64) -> Result<Seq, crate::error::ReadError> {
    let wanted = exact_head(channel, retention, now_us)?;
    match channel.holds.lowest().filter(|lowest| *lowest < wanted) {
        None => Ok(wanted),
        Some(lowest) => Ok(lowest.max(exact_head(channel, &retention.with_hold(), now_us)?)),
    }
}

/// Moves the head, and gives memory back; not if the place was found at another count of resets: then it is one among other
/// events. `false` if the channel has become persistent.
pub fn trim(channel: &Channel, head: Seq, found_at: Option<u32>) -> bool {
    let turn = channel.begin_retaining();
    let is_outdated = found_at.is_some_and(|found_at| found_at != channel.tail.resets());
    trim_in_turn(channel, if is_outdated { Seq(0) } else { head }, &turn)
}

fn trim_in_turn(channel: &Channel, head: Seq, _turn: &MutexGuard<'_, ()>) -> bool {
    if channel.persistence().is_some() {
        return false;
    }
    channel.move_head(head.min(channel.tail.published()));
    let Some(page) = channel.tail.page_of(channel.head()) else { return true };
    let segment = page.start().segment_first;
    while channel.tail.unchain_front(|front| front.start().segment_first < segment) {}
    true
}

/// Drops the events from `end` on. `None` if the channel has become persistent.
pub fn cut_off(channel: &Channel, end: Seq, kind: ErrandKind) -> Option<Result<u64, ChangeError>> {
    let _turn = channel.begin_retaining();
    if channel.persistence().is_some() {
        return None;
    }
    while channel.tail.pause().is_err() {
        crate::sync::scheduled::yield_now();
    }
    // Whoever is copying what it has reserved is done in a moment.
    while !channel.tail.is_settled() {
        crate::sync::scheduled::yield_now();
    }
    // Another change that came before may have left no such position.
    let (head, next) = (channel.head(), channel.tail.published());
    if kind != ErrandKind::Reset && !(head..=next).contains(&end) {
        channel.tail.resume();
        relieve(channel);
        let channel = channel.name.clone();
        return Some(Err(ChangeError::OutOfRange { channel, end: end.0, head: head.0, next: next.0 }));
    }
    let epoch = Epoch(channel.epoch().0 + 1);
    channel.cut_off(end, epoch);
    channel.tail.cut(end);
    channel.wake_after_cut();
    relieve(channel);
    Some(Ok(end.0))
}
