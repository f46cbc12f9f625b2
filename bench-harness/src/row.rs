//! One row of the result: what was measured, in the names that the JSON has.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::counters::Usage;
use crate::machine::Machine;
use crate::raw_loop::RawLimit;
use crate::sample::{Latencies, Turns, median};

/// One row. Serialized as one JSON object; fields that do not apply are left out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// [`Row::id`], once the row is reported.
    #[serde(rename = "id")]
    pub(crate) reported_id: String,
    /// Name of the workload.
    pub(crate) workload: &'static str,
    /// `redex`, or `file` for the plain file.
    pub(crate) engine: &'static str,
    /// What tells rows of one workload apart beside the numbers.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) mode: &'static str,
    /// Size of a payload, bytes.
    pub(crate) payload_bytes: u64,
    /// Events appended by one call.
    pub(crate) batch: u64,
    /// Events appended and not yet acknowledged, at most.
    pub(crate) in_flight: u64,
    /// Channels that the events go to.
    pub(crate) channels: u64,
    /// Events measured.
    pub(crate) events: u64,
    /// Time measured, seconds.
    pub(crate) seconds: f64,
    /// Median over the turns.
    pub(crate) events_per_s: f64,
    /// Median over the turns of the median latency.
    pub(crate) p50_ns: u64,
    /// Events a second of every turn: what a comparison takes as one measurement.
    pub(crate) turn_events_per_s: Vec<f64>,
    /// Median latency of every turn.
    pub(crate) turn_p50_ns: Vec<u64>,
    /// Over all turns.
    pub(crate) p99_ns: u64,
    /// Over all turns.
    pub(crate) p999_ns: u64,
    /// Over all turns.
    pub(crate) max_ns: u64,
    /// Events a second that the open loop intended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// Events a second with the time of the closing sync counted in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) synced_events_per_s: Option<f64>,
    /// The raw loop in the same run.
    #[serde(flatten)]
    pub(crate) raw: Option<Raw>,
    /// Events in the log that is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_events: Option<u64>,
    /// Events a second over those of the plain file in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_file: Option<f64>,
    /// Events a second over those of the same load on one channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_one_channel: Option<f64>,
    /// What it cost.
    #[serde(flatten)]
    pub(crate) cost: Option<Cost>,
    /// Numbers that only this workload has, each with its unit in its name.
    #[serde(flatten)]
    pub(crate) numbers: BTreeMap<String, f64>,
    /// What a reader has to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// File name of the HDR log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hdr_log: Option<String>,
    /// Where it was measured.
    pub(crate) machine: Machine,
    /// All latencies.
    #[serde(skip)]
    pub(crate) latencies: Latencies,
    /// Latencies of the raw loop's best method.
    #[serde(skip)]
    pub(crate) raw_latencies: Option<Latencies>,
}

/// The raw loop beside a row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Raw {
    /// Median latency of the raw loop's commit, for durable rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_p50_ns: Option<u64>,
    /// Median latency over the raw loop's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_p50: Option<f64>,
    /// Events a second of the raw loop.
    pub(crate) raw_events_per_s: f64,
    /// Events a second over the raw loop's.
    pub(crate) ratio_events_per_s: f64,
    raw_method: &'static str,
}

/// What the engine's turns cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Commits.
    pub(crate) commits: u64,
    /// Flushes of the journal.
    pub(crate) flushes: u64,
    /// Flushes for extents.
    pub(crate) extent_flushes: u64,
    /// Flushes for checkpoints.
    pub(crate) checkpoint_flushes: u64,
    /// Empty commits.
    pub(crate) idle_commits: u64,
    /// Kernel worker threads seen.
    pub(crate) iou_wrk_threads: u64,
    /// Growth of the pages of the store's files in the page cache.
    pub(crate) page_cache_delta_bytes: i64,
    /// Growth of the machine's `Cached`.
    machine_cached_delta_bytes: i64,
    /// CPU time of all threads.
    pub(crate) cpu_ns_per_event: f64,
    /// Bytes written to the device.
    pub(crate) device_bytes_written: u64,
    /// The same over the bytes of the payloads.
    write_amplification: f64,
    /// The engine's way to the kernel.
    pub(crate) backend: String,
    /// How the engine makes a write durable.
    pub(crate) durable_write: String,
    /// Commits by their events: entry `i` counts those with 2^i to 2^(i + 1) - 1.
    pub(crate) commit_events_log2: Vec<u64>,
    /// Commits by how many were in flight at their submission: entry `i` counts those with `i` + 1.
    pub(crate) queue_depth: Vec<u64>,
    /// Whether the kernel holds the engine's ring to what the engine uses; false without a ring.
    pub(crate) ring_restricted: bool,
}

impl Row {
    /// A row of `turns`; what does not apply to every row is set afterwards.
    pub(crate) fn new(
        workload: &'static str,
        engine: &'static str,
        payload_bytes: usize,
        turns: &Turns,
        machine: &Machine,
    ) -> Self {
        let latencies = turns.latencies();
        Self {
            reported_id: String::new(),
            workload,
            engine,
            mode: "",
            payload_bytes: payload_bytes as u64,
            batch: 1,
            in_flight: 1,
            channels: 1,
            events: turns.events(),
            seconds: turns.elapsed().as_secs_f64(),
            events_per_s: turns.rate(),
            p50_ns: turns.p50(),
            turn_events_per_s: turns.rates(),
            turn_p50_ns: turns.p50s(),
            p99_ns: latencies.at(0.99),
            p999_ns: latencies.at(0.999),
            max_ns: latencies.max(),
            rate: None,
            synced_events_per_s: None,
            raw: None,
            log_events: None,
            ratio_file: None,
            ratio_one_channel: None,
            cost: None,
            numbers: BTreeMap::new(),
            note: None,
            hdr_log: None,
            machine: machine.clone(),
            latencies,
            raw_latencies: None,
        }
    }

    /// Puts the raw loop beside it.
    pub(crate) fn beside(mut self, limit: Option<RawLimit>) -> Self {
        self.raw = limit.as_ref().map(|limit| Raw {
            raw_p50_ns: Some(limit.p50_ns),
            ratio_p50: Some(self.p50_ns as f64 / limit.p50_ns.max(1) as f64),
            raw_events_per_s: limit.events_per_s,
            ratio_events_per_s: self.events_per_s / limit.events_per_s.max(1e-9),
            raw_method: limit.method.name(),
        });
        self.raw_latencies = limit.map(|limit| limit.latencies);
        self
    }

    /// Puts the rates of the raw reads beside it.
    pub(crate) fn beside_reads(mut self, rates: Vec<f64>) -> Self {
        let raw_events_per_s = median(rates);
        self.raw = Some(Raw {
            raw_p50_ns: None,
            ratio_p50: None,
            raw_events_per_s,
            ratio_events_per_s: self.events_per_s / raw_events_per_s.max(1e-9),
            raw_method: "pread+O_DIRECT",
        });
        self
    }

    /// Says what it cost.
    pub(crate) fn costing(mut self, usage: &Usage, facts: &redex::IoFacts) -> Self {
        let events = self.events.max(1) as f64;
        self.cost = Some(Cost {
            commits: usage.commits,
            flushes: usage.flushes,
            extent_flushes: usage.extent_flushes,
            checkpoint_flushes: usage.checkpoint_flushes,
            idle_commits: usage.idle_commits,
            iou_wrk_threads: usage.iou_wrk_threads,
            page_cache_delta_bytes: usage.store_cached_bytes,
            machine_cached_delta_bytes: usage.machine_cached_bytes,
            cpu_ns_per_event: usage.cpu_ns as f64 / events,
            device_bytes_written: usage.device_bytes,
            write_amplification: usage.device_bytes as f64 / (events * self.payload_bytes.max(1) as f64),
            backend: facts.backend.to_owned(),
            durable_write: facts.durable_write.to_owned(),
            commit_events_log2: usage.commit_events.counts(),
            queue_depth: usage.queue_depth.counts(),
            ring_restricted: facts.ring.restricted,
        });
        self
    }

    /// A short name that no other row of a run has; part of file names.
    pub(crate) fn id(&self) -> String {
        let mut id = format!("{}-{}-{}B", self.workload, self.engine, self.payload_bytes);
        for (name, value) in [("batch", self.batch), ("inflight", self.in_flight), ("channels", self.channels)] {
            if value != 1 {
                id += &format!("-{name}{value}");
            }
        }
        if let Some(events) = self.log_events {
            id += &format!("-log{events}");
        }
        if !self.mode.is_empty() {
            id += &format!("-{}", self.mode);
        }
        id
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::raw_loop::Method;
    use crate::sample::Turn;
    use std::time::Duration;

    /// A row with everything in it.
    pub(crate) fn example() -> Row {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let turn = Turn { latencies: latencies.clone(), events: 1000, elapsed: Duration::from_millis(500) };
        let mut turns = Turns::default();
        turns.push(turn);
        let limit = RawLimit { p50_ns: 250_000, events_per_s: 4000.0, method: Method::Dsync, latencies };
        let mut row = Row::new("durable", "redex", 256, &turns, &Machine::default());
        row.in_flight = 16;
        row.ratio_file = Some(1.5);
        row.reported_id = row.id();
        row.beside(Some(limit))
            .costing(&Usage { flushes: 7, cpu_ns: 3000, ..Usage::default() }, &redex::IoFacts::default())
    }

    /// The names of the fields are a promise to whoever reads the JSON.
    #[test]
    fn the_json_has_the_promised_fields() {
        let json = serde_json::to_value(example()).unwrap();
        for name in [
            "id",
            "turn_events_per_s",
            "turn_p50_ns",
            "workload",
            "engine",
            "payload_bytes",
            "in_flight",
            "channels",
            "events_per_s",
            "p50_ns",
            "p99_ns",
            "p999_ns",
            "max_ns",
            "raw_p50_ns",
            "ratio_p50",
            "raw_events_per_s",
            "commits",
            "flushes",
            "extent_flushes",
            "checkpoint_flushes",
            "idle_commits",
            "iou_wrk_threads",
            "page_cache_delta_bytes",
            "cpu_ns_per_event",
            "device_bytes_written",
            "ring_restricted",
        ] {
            assert!(json.get(name).is_some(), "{name} is missing");
        }
        assert_eq!(json["events_per_s"], 2000.0);
        assert_eq!(json["ratio_p50"].as_f64().unwrap().round(), 2.0);
        assert_eq!(json["flushes"], 7);
    }

    #[test]
    fn what_does_not_apply_is_left_out() {
        let row = Row::new("scan", "redex", 64, &Turns::default(), &Machine::default());
        let json = serde_json::to_value(&row).unwrap();
        for name in ["raw_p50_ns", "flushes", "rate", "note", "mode"] {
            assert!(json.get(name).is_none(), "{name} is there");
        }
        assert_eq!(row.id(), "scan-redex-64B");
        assert_eq!(example().id(), "durable-redex-256B-inflight16");
    }
}
