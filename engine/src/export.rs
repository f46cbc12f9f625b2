//! What the engine counts, handed to the recorder of the `metrics` facade.
//!
//! The engine counts for itself ([`crate::Stats`]); [`crate::Redex::export_metrics`] reads that and sets the recorder's counters and
//! gauges to it, on the caller's thread. So nothing is paid for an event, no recorder runs on a shard's thread, and no call
//! means no cost. `docs/observability.md` lists every name.
//!
//! Promises: at most [`CHANNELS_EXPORTED_MAX`] channels get series of their own, the first that change; how many do not is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use hdrhistogram::Histogram;

use crate::channel::Channel;
use crate::channel_name::ChannelName;
use crate::ids::Seq;
use crate::shard::stats::Stats;

/// Channels with series of their own, over the life of a store.
pub const CHANNELS_EXPORTED_MAX: usize = 1000;

/// A counter: name, unit, what it counts, where it is.
type Counted = (&'static str, Unit, &'static str, fn(&Stats) -> u64);

/// Counters of each shard, with the label `shard`.
const COUNTERS: &[Counted] = &[
    ("redex_events_total", Unit::Count, "Events committed", |stats| stats.events),
    ("redex_payload_bytes_total", Unit::Bytes, "Payload bytes committed", |stats| stats.payload_bytes),
    ("redex_commits_total", Unit::Count, "Commits, without idle ones", |stats| stats.commits),
    ("redex_idle_commits_total", Unit::Count, "Commits that only leave a witness", |stats| stats.idle_commits),
    ("redex_flushes_total", Unit::Count, "Durable commits", |stats| stats.flushes),
    ("redex_extent_flushes_total", Unit::Count, "Flushes for extents", |stats| stats.extent_flushes),
    ("redex_checkpoint_flushes_total", Unit::Count, "Flushes for checkpoints, rolls, seals, spares", |stats| {
        stats.checkpoint_flushes
    }),
    ("redex_journal_bytes_total", Unit::Bytes, "Bytes of commits", |stats| stats.journal_bytes),
    ("redex_extent_bytes_total", Unit::Bytes, "Bytes of extents", |stats| stats.extent_bytes),
    ("redex_destaged_bytes_total", Unit::Bytes, "Bytes of idx and dat written behind", |stats| stats.destaged_bytes),
    ("redex_seal_bytes_total", Unit::Bytes, "Bytes that seals wrote", |stats| stats.seal_bytes),
    ("redex_checkpoint_bytes_total", Unit::Bytes, "Bytes of checkpoint files", |stats| stats.checkpoint_bytes),
    ("redex_header_bytes_total", Unit::Bytes, "Bytes of journal headers and META", |stats| stats.header_bytes),
    ("redex_prepared_bytes_total", Unit::Bytes, "Zeros of spare journal segments", |stats| stats.prepared_bytes),
    ("redex_extents_total", Unit::Count, "Extents", |stats| stats.extents),
    ("redex_checkpoints_total", Unit::Count, "Checkpoints", |stats| stats.checkpoints),
    ("redex_checkpoint_moves_total", Unit::Count, "Checkpoint entries moved along", |stats| stats.checkpoint_moves),
    ("redex_journal_rolls_total", Unit::Count, "Journal segments begun", |stats| stats.rolls),
    ("redex_journal_recycled_total", Unit::Count, "Journal segments recycled", |stats| stats.recycled),
    ("redex_seals_total", Unit::Count, "Segments sealed", |stats| stats.seals),
];

/// A gauge: name, unit, what it is, where it is.
type Gauge = (&'static str, Unit, &'static str, fn(&Stats) -> f64);

/// Gauges of each shard, with the label `shard`.
const SHARD_GAUGES: &[Gauge] = &[
    ("redex_shard_channels", Unit::Count, "Channels", |stats| stats.channels as f64),
    ("redex_shard_open_channels", Unit::Count, "Channels that were opened", |stats| stats.open_channels as f64),
    ("redex_shard_unwritten_age_seconds", Unit::Seconds, "Age of the oldest unwritten event", |stats| {
        stats.unwritten_age.as_secs_f64()
    }),
    ("redex_shard_behind", Unit::Count, "1 while producers are held back", |stats| stats.shards_behind as f64),
    ("redex_shard_no_space", Unit::Count, "1 while the disk is full", |stats| stats.shards_without_space as f64),
    ("redex_shard_stopped", Unit::Count, "1 after a failure", |stats| stats.shards_stopped as f64),
];

/// Gauges of the store.
const GAUGES: &[Gauge] = &[
    ("redex_page_bytes", Unit::Bytes, "Memory of the channels' pages", |stats| stats.page_bytes as f64),
    ("redex_held_page_bytes", Unit::Bytes, "Memory of pages that only readers hold", |stats| {
        stats.held_page_bytes as f64
    }),
    ("redex_page_budget_bytes", Unit::Bytes, "What the pages may take", |stats| stats.page_budget_bytes as f64),
    ("redex_open_segment_files", Unit::Count, "Segment files with a descriptor", |stats| {
        stats.open_segment_files as f64
    }),
];

/// A distribution: name, unit, what of, what one of the engine's units is in it, where it is.
type Distribution = (&'static str, Unit, &'static str, f64, fn(&Stats) -> &Histogram<u64>);

/// With the label `shard`.
const HISTOGRAMS: &[Distribution] = &[
    (
        "redex_commit_latency_seconds",
        Unit::Seconds,
        "Submission to acknowledgement of durable commits",
        1e-9,
        |stats| &stats.commit_latency_ns,
    ),
    ("redex_commit_events", Unit::Count, "Events of a commit", 1.0, |stats| &stats.commit_events),
    ("redex_commit_bytes", Unit::Bytes, "Journal bytes of a commit", 1.0, |stats| &stats.commit_bytes),
    ("redex_commits_in_flight", Unit::Count, "Commits in flight at a submission", 1.0, |stats| &stats.queue_depth),
];

/// Lag, of shards and channels; and the rest of what channels have, with the label `channel`.
const LAGS: &[(&str, Unit, &str)] = &[
    ("redex_shard_lag_events", Unit::Count, "Published events that are not durable"),
    ("redex_shard_lag_channels", Unit::Count, "Channels with such events"),
    ("redex_channel_next_seq", Unit::Count, "Sequence of the next event"),
    ("redex_channel_durable_seq", Unit::Count, "Events below are durable"),
    ("redex_channel_lag_events", Unit::Count, "Published events that are not durable"),
    ("redex_channel_lag_seconds", Unit::Seconds, "Age of the oldest of them"),
    ("redex_channel_bytes", Unit::Bytes, "Payload bytes that are there"),
    ("redex_channel_disk_bytes", Unit::Bytes, "Bytes of its files"),
    ("redex_channel_page_bytes", Unit::Bytes, "Memory of its pages"),
    ("redex_channel_waiting_appends", Unit::Count, "Appends that wait for room"),
    ("redex_channels_left_out", Unit::Count, "Open channels without series of their own"),
];

/// What was exported last.
#[derive(Debug, Default)]
pub struct Exporter {
    described: bool,
    /// By shard: the distributions, to give what came since.
    histograms: Vec<Vec<Histogram<u64>>>,
    /// Channels with series of their own, with the marks that were exported last.
    channels: HashMap<ChannelName, Marks>,
}

/// Next, durable, and appends that wait.
type Marks = (Seq, Seq, u64);

/// Sums over the open channels of a shard.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    events: u64,
    channels: u64,
}

impl Exporter {
    /// Sets everything to how it is now.
    pub fn export(&mut self, store: &Stats, shards: &[Stats], channels: &[Arc<Channel>]) {
        if !std::mem::replace(&mut self.described, true) {
            describe();
        }
        for (name, _, _, value) in GAUGES {
            gauge!(*name).set(value(store));
        }
        self.histograms.resize_with(shards.len(), Vec::new);
        for (number, stats) in shards.iter().enumerate() {
            let shard = number.to_string();
            for (name, _, _, value) in COUNTERS {
                counter!(*name, "shard" => shard.clone()).absolute(value(stats));
            }
            for (name, _, _, value) in SHARD_GAUGES {
                gauge!(*name, "shard" => shard.clone()).set(value(stats));
            }
            self.export_histograms(number, &shard, stats);
        }
        self.export_channels(shards.len(), channels);
    }

    fn export_histograms(&mut self, number: usize, shard: &str, stats: &Stats) {
        let last = &mut self.histograms[number];
        for (i, (name, _, _, scale, of)) in HISTOGRAMS.iter().enumerate() {
            let now = of(stats);
            let to = histogram!(*name, "shard" => shard.to_owned());
            let before = last.get(i);
            for value in now.iter_recorded() {
                let value_in = value.value_iterated_to();
                let count = value.count_at_value() - before.map_or(0, |before| before.count_at(value_in));
                if count > 0 {
                    to.record_many(now.median_equivalent(value_in) as f64 * scale, count as usize);
                }
            }
            match last.get_mut(i) {
                Some(last) => *last = now.clone(),
                None => last.push(now.clone()),
            }
        }
    }

    fn export_channels(&mut self, shards: usize, channels: &[Arc<Channel>]) {
        let mut lags = vec![Lag::default(); shards];
        for channel in channels {
            // In this order: one is at most the other.
            let durable = channel.durable();
            let marks = (channel.tail.published(), durable, channel.backlog.size().0);
            let lag = marks.0.0 - durable.0;
            if let Some(persistence) = channel.persistence().filter(|_| lag > 0) {
                let sum = &mut lags[usize::from(persistence.shard.id.0)];
                sum.events += lag;
                sum.channels += 1;
            }
            if self.is_wanted(channel, marks) {
                export_channel(channel);
                self.channels.insert(channel.name.clone(), marks);
            }
        }
        for (number, lag) in lags.iter().enumerate() {
            gauge!("redex_shard_lag_events", "shard" => number.to_string()).set(lag.events as f64);
            gauge!("redex_shard_lag_channels", "shard" => number.to_string()).set(lag.channels as f64);
        }
        gauge!("redex_channels_left_out").set((channels.len() - self.channels.len().min(channels.len())) as f64);
    }

    /// Whether a channel's series are set: it has some and changed, or something lags behind; or there is room for it, and it has
    /// changed since it was opened.
    fn is_wanted(&self, channel: &Channel, marks: Marks) -> bool {
        match self.channels.get(&channel.name) {
            Some(last) => *last != marks || marks.0 > marks.1,
            None => self.channels.len() < CHANNELS_EXPORTED_MAX && has_grown(channel, marks.0),
        }
    }
}

/// Whether a channel has got events since it was opened.
fn has_grown(channel: &Channel, next: Seq) -> bool {
    let epochs = channel.epochs.lock().expect("no panic while the lock is held");
    epochs.last().is_some_and(|(_, first)| next > *first)
}

fn export_channel(channel: &Channel) {
    let stats = channel.stats();
    let seconds = |duration: Duration| duration.as_secs_f64();
    for (name, value) in [
        ("redex_channel_next_seq", stats.next_seq as f64),
        ("redex_channel_durable_seq", stats.durable_seq as f64),
        ("redex_channel_lag_events", stats.lag_events as f64),
        ("redex_channel_lag_seconds", seconds(stats.lag)),
        ("redex_channel_bytes", stats.bytes as f64),
        ("redex_channel_disk_bytes", stats.disk_bytes as f64),
        ("redex_channel_page_bytes", stats.page_bytes as f64),
        ("redex_channel_waiting_appends", stats.waiting_appends as f64),
    ] {
        gauge!(name, "channel" => channel.name.as_str().to_owned()).set(value);
    }
}

fn describe() {
    for (name, unit, what, _) in COUNTERS {
        describe_counter!(*name, *unit, *what);
    }
    for (name, unit, what, _) in SHARD_GAUGES.iter().chain(GAUGES) {
        describe_gauge!(*name, *unit, *what);
    }
    for (name, unit, what) in LAGS {
        describe_gauge!(*name, *unit, *what);
    }
    for (name, unit, what, _, _) in HISTOGRAMS {
        describe_histogram!(*name, *unit, *what);
    }
}
