//! Which events a channel's limits drop, found by reads: what `sweep_retention` does on the caller's thread, and a shard
//! beside itself.

use std::time::Duration;

use crate::channel::Channel;
use crate::config::Retention;
use crate::error::ReadError;
use crate::ids::Seq;
use crate::segment::record::{RECORD_SIZE, RecordPlace};

/// A segment whose first event is so old a part of the limit ends, so that it can be dropped.
const AGE_PARTS: u32 = 8;
/// Events looked at in search of a payload that lies in dat.
const EVENTS_LOOKED_AT: usize = 1000;

/// What a look at ages has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    /// Below this all events are too old.
    pub wanted: Seq,
    /// Below this they are so old that no reader holds them back.
    pub hard: Seq,
    /// Whether the active segment should end.
    pub active_is_old: bool,
}

fn before(now_us: u64, age: Duration) -> u64 {
    now_us.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

/// Which sealed segments, given by their ends, are too old, and whether the active one should end. What cannot be read is not
/// old: it stays, and a reader is told.
pub fn look_at_ages(channel: &Channel, retention: &Retention, ends: &[Seq], active_first: Seq, now_us: u64) -> Aged {
    let (Some(age), Some(held)) = (retention.max_age, retention.with_hold().max_age) else { return Aged::default() };
    let mut aged = Aged::default();
    for end in ends {
        let last = Seq(end.0 - 1).max(channel.head());
        let Ok(Some(time_us)) = channel.time_of(last) else { break };
        if time_us >= before(now_us, age) {
            break;
        }
        aged.wanted = *end;
        if time_us < before(now_us, held) {
            aged.hard = *end;
        }
    }
    let first = active_first.max(channel.head());
    if first < channel.tail.published() {
        let old = before(now_us, age / AGE_PARTS);
        aged.active_is_old = matches!(channel.time_of(first), Ok(Some(time_us)) if time_us < old);
    }
    aged
}

/// The head that leaves just what the limits allow.
///
/// # Errors
///
/// [`ReadError`]: what decides cannot be read.
pub fn exact_head(channel: &Channel, retention: &Retention, now_us: u64) -> Result<Seq, ReadError> {
    let (head, end) = (channel.head(), channel.tail.published());
    let mut to = head;
    if let Some(limit) = retention.max_events {
        to = to.max(Seq(end.0.saturating_sub(limit)));
    }
    if let Some(age) = retention.max_age {
        let oldest_us = before(now_us, age);
        to = first_that(to, end, |seq| Ok(channel.time_of(seq)?.is_none_or(|time_us| time_us >= oldest_us)))?;
    }
    if let Some(limit) = retention.max_bytes {
        to = first_that(to, end, |seq| Ok(bytes_between(channel, seq, end)? <= limit))?;
    }
    Ok(to.min(end))
}

/// The first sequence of `from..to` for which something holds that holds for all behind it; `to` if for none.
fn first_that(from: Seq, to: Seq, holds: impl Fn(Seq) -> Result<bool, ReadError>) -> Result<Seq, ReadError> {
    let (mut low, mut high) = (from.0, to.0.max(from.0));
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(Seq(middle))? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Seq(low))
}

/// Bytes of the events of `from..end`, with their records.
fn bytes_between(channel: &Channel, from: Seq, end: Seq) -> Result<u64, ReadError> {
    let records = (end.0 - from.0) * RECORD_SIZE as u64;
    let mut bytes = 0;
    let mut at = from;
    for (first, segment_end) in channel.segment_bounds() {
        let segment_end = segment_end.min(end);
        if segment_end <= at || first >= end {
            continue;
        }
        // Offsets grow within a segment: what lies between two events is the difference.
        let begins = if at <= first { Some(0) } else { dat_end_before(channel, at, first)? };
        let ends = dat_end_before(channel, segment_end, first)?;
        // What is not known is taken for little: rather too much is kept.
        bytes += begins.zip(ends).map_or(0, |(begins, ends)| ends.saturating_sub(begins));
        at = segment_end;
    }
    Ok(records + bytes)
}

/// Where in the dat of the segment that began with `first` the payloads before `seq` end; `None` if none of many events before
/// it has one there.
fn dat_end_before(channel: &Channel, seq: Seq, first: Seq) -> Result<Option<u64>, ReadError> {
    for before in (first.0..seq.0).rev().take(EVENTS_LOOKED_AT) {
        let Some(record) = channel.record_of(Seq(before))? else { return Ok(None) };
        if let RecordPlace::Dat { offset, len } = record.place() {
            return Ok(Some(u64::from(offset) + u64::from(len)));
        }
    }
    Ok((seq.0 - first.0 <= EVENTS_LOOKED_AT as u64).then_some(0))
}
