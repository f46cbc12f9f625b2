//! A broken promise, or a damage where there was only a crash.

use std::error::Error;
use std::fmt;

use crate::history::Mode;
use crate::script::Script;

/// What went wrong in a history.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Seed of the history.
    pub seed: u64,
    /// What its disk does.
    pub mode: Mode,
    /// Which life of it, from 0.
    pub life: u32,
    /// What was found.
    pub what: String,
    /// What was done before, of the whole history.
    pub script: Script,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, mode, life, what, script } = self;
        let flag = match mode {
            Mode::Honest => "",
            Mode::Faults => " --faults",
            Mode::Damage => " --damage",
        };
        writeln!(f, "life {life} of seed {seed}: {what}")?;
        write!(f, "rerun: cargo run --release -p redex-fuzz -- sim --seed {seed} --only {script}{flag}")
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    /// The line that is printed runs the same history: it is parsed as a command line is.
    #[test]
    fn a_failure_says_how_to_see_it_again() {
        for mode in [Mode::Honest, Mode::Faults, Mode::Damage] {
            let script = Script { lives: [(0, vec![1, 2]), (3, vec![7])].into() };
            let failure =
                Failure { seed: 4711, mode, life: 3, what: "an event is gone".to_owned(), script: script.clone() };
            let text = failure.to_string();
            assert!(text.starts_with("life 3 of seed 4711: an event is gone\n"), "{text}");
            let line = text.lines().last().expect("two lines");
            let args = line.strip_prefix("rerun: cargo run --release -p redex-fuzz -- ").expect("a command");
            let words = std::iter::once("redex-fuzz").chain(args.split(' '));
            let command = Cli::try_parse_from(words).expect("a valid command line").command;
            let Command::Sim(args) = command else { panic!("{line}") };
            assert_eq!((args.seed, args.only.as_ref(), args.mode()), (Some(4711), Some(&script), mode), "{line}");
        }
    }
}
