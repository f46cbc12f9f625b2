//! The workloads, one module each. Their names are fixed: scripts refer to them.

pub(crate) mod contest;
mod durable;
mod nondurable;
mod reopen;
mod tail;
mod threads;

use clap::ValueEnum;

use crate::run::Session;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One committer with 1 to 4096 durable appends outstanding
    Durable,
    /// 16 and 256 blocking threads, each with its own durable appends; tasks where an engine has futures
    Threads,
    /// One writer that does not wait for the disk, singly and in batches of 1000
    Nondurable,
    /// Opening a cold log and reading all of it
    Reopen,
    /// From an append to a subscriber
    Tail,
}

impl Workload {
    /// All, in the order in which they run.
    pub(crate) const ALL: [Self; 5] = [Self::Durable, Self::Threads, Self::Nondurable, Self::Reopen, Self::Tail];

    /// Loads that it measures all engines under.
    pub(crate) fn load_count(self, quick: bool) -> u64 {
        match self {
            Self::Durable => durable::loads(quick).count() as u64,
            Self::Threads => threads::LOAD_COUNT,
            Self::Nondurable => nondurable::loads(quick).count() as u64,
            Self::Reopen => 1,
            Self::Tail => tail::LOAD_COUNT,
        }
    }

    /// Measures it.
    pub(crate) fn run(self, session: &mut Session) -> anyhow::Result<()> {
        match self {
            Self::Durable => durable::run(session),
            Self::Threads => threads::run(session),
            Self::Nondurable => nondurable::run(session),
            Self::Reopen => reopen::run(session),
            Self::Tail => tail::run(session),
        }
    }
}
