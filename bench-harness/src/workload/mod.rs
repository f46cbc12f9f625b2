//! The workloads, one module each. Their names are fixed: scripts and charts refer to them.

mod channels;
pub mod closed_loop;
mod durable;
mod many;
pub(crate) mod million;
mod nondurable;
mod page_cache;
mod reopen;
mod retention;
mod scan;
pub(crate) mod second_process;
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
    /// From an append to a subscriber, spinning and parked
    Tail,
    /// Reading a whole log
    Scan,
    /// Opening a store, after a clean close and after a kill
    Reopen,
    /// 1000 in flight over one channel and over 1,000
    Channels,
    /// 256 tasks on a runtime beside 256 threads with a plain file
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
        }
    }

    /// Measured time that a row would like to have.
    pub(crate) fn row_wish(self) -> Duration {
        Duration::from_millis(match self {
            Self::Durable | Self::Channels => 1600,
            Self::Nondurable | Self::Scan | Self::Reopen | Self::Many | Self::Million => 800,
            Self::Warm => 400,
            Self::Verify => 4000,
            Self::Tail | Self::Tasks | Self::SecondProcess | Self::PageCache | Self::Retention => 1500,
        })
    }

    /// Measured rows; rows of the plain file come for free.
    pub(crate) fn rows(self, quick: bool, open_loop: bool) -> u32 {
        match self {
            Self::Durable => durable::row_count(quick, open_loop),
            Self::Nondurable => nondurable::ROW_COUNT,
            Self::Tail | Self::Channels | Self::Tasks => 2,
            Self::SecondProcess => second_process::ROW_COUNT,
            Self::Scan | Self::PageCache | Self::Retention => 1,
            Self::Warm => warm::ROW_COUNT,
            Self::Verify => verify::ROW_COUNT,
            Self::Many => many::ROW_COUNT,
            Self::Million => million::ROW_COUNT,
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
