//! A broken promise, or a damage where there was only a crash.

use std::error::Error;
use std::fmt;

/// What went wrong in a history.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Seed of the history.
    pub seed: u64,
    /// Whether it was one with faults of the disk.
    pub faults: bool,
    /// Which life of it, from 0.
    pub life: u32,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, life, what, .. } = self;
        let faults = if self.faults { " --faults" } else { "" };
        writeln!(f, "life {life} of seed {seed}: {what}")?;
        write!(f, "rerun: cargo run --release -p redex-fuzz -- sim --seed {seed} --lives 1{faults}")
    }
}

impl Error for Failure {}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
