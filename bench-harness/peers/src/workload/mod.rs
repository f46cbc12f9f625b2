//! The workloads, one module each. Their names are fixed: scripts refer to them.

pub(crate) mod contest;
mod durable;

use clap::ValueEnum;

use crate::run::Session;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One committer with 1 to 4096 durable appends outstanding
    Durable,
}

impl Workload {
    /// All, in the order in which they run.
    pub(crate) const ALL: [Self; 1] = [Self::Durable];

    /// Loads that it measures all engines under.
    pub(crate) fn load_count(self, quick: bool) -> u64 {
        match self {
            Self::Durable => durable::loads(quick).count() as u64,
        }
    }

    /// Measures it.
    pub(crate) fn run(self, session: &mut Session) -> anyhow::Result<()> {
        match self {
            Self::Durable => durable::run(session),
        }
    }
}
