//! One row of the result: one engine under one load, in the names that the JSON has.

use std::collections::BTreeMap;

use redex_bench::machine::Machine;
use redex_bench::raw_loop::RawLimit;
use redex_bench::sample::Turns;
use serde::Serialize;

use crate::engine::Engine;
use crate::engines::version;
use crate::workload::contest::Contestant;

/// One row. Fields that do not apply are left out of the JSON.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Name of the workload.
    pub(crate) workload: &'static str,
    /// Name of the engine.
    pub(crate) engine: &'static str,
    /// Whether it is a plain file that is written here.
    pub(crate) plain_file: bool,
    /// Version of its crate.
    pub(crate) version: &'static str,
    /// How it is configured.
    pub(crate) configuration: &'static str,
    /// What tells loads of one workload apart beside the numbers.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) mode: &'static str,
    /// Size of a payload, bytes.
    pub(crate) payload_bytes: u64,
    /// Events appended by one call.
    pub(crate) batch: u64,
    /// Events appended and not yet acknowledged, at most; threads or tasks, where each has one.
    pub(crate) in_flight: u64,
    /// Events measured.
    pub(crate) events: u64,
    /// Time measured, seconds.
    pub(crate) seconds: f64,
    /// Median over the turns.
    pub(crate) events_per_s: f64,
    /// Median over the turns of the median latency.
    pub(crate) p50_ns: u64,
    /// Over all turns.
    pub(crate) p99_ns: u64,
    /// Over all turns.
    pub(crate) p999_ns: u64,
    /// CPU time of the process during the engine's turns, over its events.
    pub(crate) cpu_ns_per_event: f64,
    /// Events a second of the bare device in the same run, if it took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_events_per_s: Option<f64>,
    /// Median latency of the bare device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_p50_ns: Option<u64>,
    /// Numbers that only this workload has, each with its unit in its name.
    #[serde(flatten)]
    pub(crate) numbers: BTreeMap<&'static str, f64>,
    /// What a reader has to know; begins with FAILED where the engine did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// A row with the machine that it was measured on.
#[derive(Serialize)]
pub(crate) struct OnMachine<'a> {
    #[serde(flatten)]
    row: &'a Row,
    machine: &'a Machine,
}

impl Row {
    /// What a contestant did.
    pub(crate) fn of(workload: &'static str, contestant: &Contestant, payload_size: usize) -> Self {
        let mut row = Self::new(workload, contestant.engine, payload_size, &contestant.turns);
        row.cpu_ns_per_event = contestant.cpu_ns as f64 / contestant.turns.events().max(1) as f64;
        row.note = contestant.note.clone();
        row
    }

    /// A row of `turns`.
    pub(crate) fn new(workload: &'static str, engine: &dyn Engine, payload_size: usize, turns: &Turns) -> Self {
        let latencies = turns.latencies();
        Self {
            workload,
            engine: engine.name(),
            plain_file: engine.is_plain_file(),
            version: engine.package().map(version).unwrap_or(""),
            configuration: engine.configuration(),
            mode: "",
            payload_bytes: payload_size as u64,
            batch: 1,
            in_flight: 1,
            events: turns.events(),
            seconds: turns.elapsed().as_secs_f64(),
            events_per_s: turns.rate(),
            p50_ns: turns.p50(),
            p99_ns: latencies.at(0.99),
            p999_ns: latencies.at(0.999),
            cpu_ns_per_event: 0.0,
            raw_events_per_s: None,
            raw_p50_ns: None,
            numbers: BTreeMap::new(),
            note: None,
        }
    }

    /// Puts the bare device beside it.
    pub(crate) fn beside(mut self, limit: Option<&RawLimit>) -> Self {
        self.raw_events_per_s = limit.map(|limit| limit.events_per_s);
        self.raw_p50_ns = limit.map(|limit| limit.p50_ns);
        self
    }

    /// Its rate over that of the bare device.
    pub(crate) fn of_limit(&self) -> Option<f64> {
        self.raw_events_per_s.map(|limit| self.events_per_s / limit.max(1e-9))
    }

    /// Whether the engine did what it was asked to.
    pub(crate) fn is_sound(&self) -> bool {
        self.events > 0 && !self.note.as_ref().is_some_and(|note| note.starts_with("FAILED"))
    }

    /// How many times as good as another row of its load: by latency where the rate is given, by rate everywhere else.
    pub(crate) fn times_as_good(&self, other: &Self) -> f64 {
        match self.is_paced() {
            true => other.p50_ns as f64 / self.p50_ns.max(1) as f64,
            false => self.events_per_s / other.events_per_s.max(1e-9),
        }
    }

    /// Whether events came at a fixed rate.
    pub(crate) fn is_paced(&self) -> bool {
        self.mode.starts_with("paced")
    }

    /// What the row is about, without the engine.
    pub(crate) fn load(&self) -> (&'static str, &'static str, u64, u64, u64) {
        (self.workload, self.mode, self.payload_bytes, self.batch, self.in_flight)
    }

    /// With the machine, for the JSON.
    pub(crate) fn with_machine<'a>(&'a self, machine: &'a Machine) -> OnMachine<'a> {
        OnMachine { row: self, machine }
    }
}
