//! The workloads, one module each. Their names are fixed: scripts and charts refer to them.

mod about;
mod backends;
mod channels;
pub mod closed_loop;
mod crew;
mod delivery;
mod due;
mod durable;
mod many;
mod memory;
pub(crate) mod million;
mod mixed;
mod nondurable;
mod openloop;
mod page_cache;
mod pauses;
mod payloads;
mod producers;
mod readers;
mod reopen;
mod retention;
mod scan;
pub(crate) mod second_process;
mod shards;
mod spread;
mod tail;
mod tasks;
mod verify;
mod warm;

use std::time::Duration;

use clap::ValueEnum;

use crate::run::Session;

/// Slices of time that contestants of one row take in turn.
const TURN_COUNT: u32 = 5;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Durable append, 1 to 4096 in flight, beside the raw loop and the plain file
    Durable,
    /// Non-durable append, single and in batches of 1000
    Nondurable,
    /// From an append to a subscriber, spinning, parked and durable; how many events it takes
    Tail,
    /// Reading a whole log
    Scan,
    /// Opening a store, after a clean close and after a kill
    Reopen,
    /// 1000 in flight over one channel and over 1,000
    Channels,
    /// 16 and 256 tasks on a runtime and threads, beside threads with a plain file
    Tasks,
    /// A second process that follows for reading only, beside a writer
    SecondProcess,
    /// Reading sealed segments, single events in each tier, and by time; only when asked for
    Warm,
    /// Checking a whole store, beside reading the same files; only when asked for
    Verify,
    /// Whether the page cache moves while 1 GiB is written; only when asked for
    #[value(name = "pagecache")]
    PageCache,
    /// What a limit of bytes leaves on disk while twenty times as much is written; only when asked for
    Retention,
    /// 100,000 channels beside one, then laps of the journal; only when asked for
    Many,
    /// Opening a store with a million channels; only when asked for
    Million,
    /// 0 to 64 subscribers of one channel beside its writer; only when asked for
    Readers,
    /// 1 to 64 threads that append, to one channel and to one each; only when asked for
    Producers,
    /// Events of 8 B to 4 MiB, durable and not; only when asked for
    Payloads,
    /// A writer beside point reads and scans of old events; only when asked for
    Mixed,
    /// Durable events due at 50, 80 and 95 % of the saturated rate; only when asked for
    Openloop,
    /// Stores with 1 shard up to one a core; only when asked for
    Shards,
    /// io_uring beside plain system calls; only when asked for
    Backends,
    /// Appends while journals roll, checkpoints run, segments seal and go; only when asked for
    Pauses,
    /// What idle channels take, and whether memory stays flat; only when asked for
    Memory,
    /// 4096 in flight over 1 to 10,000 channels; only when asked for
    Spread,
}

impl Workload {
    /// Those that run unless others are asked for, in the order in which they run.
    pub(crate) const DEFAULT: [Self; 8] = [
        Self::Durable,
        Self::Nondurable,
        Self::Tail,
        Self::Scan,
        Self::Reopen,
        Self::Channels,
        Self::Tasks,
        Self::SecondProcess,
    ];

    /// All, in the order in which they run.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::DEFAULT.into_iter().chain([
            Self::Warm,
            Self::Verify,
            Self::PageCache,
            Self::Retention,
            Self::Many,
            Self::Million,
            Self::Readers,
            Self::Producers,
            Self::Payloads,
            Self::Mixed,
            Self::Openloop,
            Self::Shards,
            Self::Backends,
            Self::Pauses,
            Self::Memory,
            Self::Spread,
        ])
    }

    /// The fixed name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Nondurable => "nondurable",
            Self::Tail => "tail",
            Self::Scan => "scan",
            Self::Warm => "warm",
            Self::Verify => "verify",
            Self::Reopen => "reopen",
            Self::Channels => "channels",
            Self::Tasks => "tasks",
            Self::SecondProcess => "second-process",
            Self::PageCache => "pagecache",
            Self::Retention => "retention",
            Self::Many => "many",
            Self::Million => "million",
            Self::Readers => "readers",
            Self::Producers => "producers",
            Self::Payloads => "payloads",
            Self::Mixed => "mixed",
            Self::Openloop => "openloop",
            Self::Shards => "shards",
            Self::Backends => "backends",
            Self::Pauses => "pauses",
            Self::Memory => "memory",
            Self::Spread => "spread",
        }
    }

    /// Measured time that a row would like to have.
    pub(crate) fn row_wish(self) -> Duration {
        Duration::from_millis(match self {
            Self::Durable | Self::Channels => 1600,
            Self::Nondurable | Self::Scan | Self::Reopen | Self::Many | Self::Million | Self::Tasks => 800,
            Self::Warm => 400,
            Self::Verify | Self::Memory => 4000,
            Self::SecondProcess | Self::PageCache | Self::Retention => 1500,
            Self::Readers => 3000,
            Self::Tail | Self::Producers | Self::Payloads | Self::Mixed => 1000,
            Self::Openloop | Self::Shards | Self::Backends | Self::Pauses | Self::Spread => 1500,
        })
    }

    /// Measured rows; rows of the plain file come for free.
    pub(crate) fn rows(self, quick: bool, open_loop: bool) -> u32 {
        match self {
            Self::Durable => durable::row_count(quick, open_loop),
            Self::Nondurable => nondurable::ROW_COUNT,
            Self::Tail => tail::ROW_COUNT,
            Self::Channels => 2,
            Self::Tasks => tasks::ROW_COUNT,
            Self::SecondProcess => second_process::ROW_COUNT,
            Self::Scan | Self::PageCache | Self::Retention => 1,
            Self::Warm => warm::ROW_COUNT,
            Self::Verify => verify::ROW_COUNT,
            Self::Many => many::ROW_COUNT,
            Self::Million => million::ROW_COUNT,
            Self::Readers => readers::ROW_COUNT,
            Self::Producers => producers::ROW_COUNT,
            Self::Payloads => payloads::ROW_COUNT,
            Self::Mixed => mixed::ROW_COUNT,
            Self::Openloop => openloop::ROW_COUNT,
            Self::Shards => shards::row_count(),
            Self::Backends => backends::ROW_COUNT,
            Self::Pauses => pauses::ROW_COUNT,
            Self::Memory => memory::ROW_COUNT,
            Self::Spread => spread::row_count(quick),
            Self::Reopen => reopen::ROW_COUNT,
        }
    }

    /// Measures it.
    pub(crate) fn run(self, session: &mut Session) -> anyhow::Result<()> {
        match self {
            Self::Durable => durable::run(session),
            Self::Nondurable => nondurable::run(session),
            Self::Tail => tail::run(session),
            Self::Scan => scan::run(session),
            Self::Warm => warm::run(session),
            Self::Verify => verify::run(session),
            Self::Reopen => reopen::run(session),
            Self::Channels => channels::run(session),
            Self::Tasks => tasks::run(session),
            Self::SecondProcess => second_process::run(session),
            Self::PageCache => page_cache::run(session),
            Self::Retention => retention::run(session),
            Self::Many => many::run(session),
            Self::Million => million::run(session),
            Self::Readers => readers::run(session),
            Self::Producers => producers::run(session),
            Self::Payloads => payloads::run(session),
            Self::Mixed => mixed::run(session),
            Self::Openloop => openloop::run(session),
            Self::Shards => shards::run(session),
            Self::Backends => backends::run(session),
            Self::Pauses => pauses::run(session),
            Self::Memory => memory::run(session),
            Self::Spread => spread::run(session),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_command_line_are_the_fixed_names() {
        for workload in Workload::all() {
            assert_eq!(workload.to_possible_value().unwrap().get_name(), workload.name());
        }
    }
}
