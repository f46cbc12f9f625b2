//! Tells a person at a terminal what is being measured; says nothing into a pipe.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line at the bottom of the terminal while rows are printed above it.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows `steps` steps; hidden if standard output or error is not a terminal.
    pub fn new(steps: u64) -> Self {
        if !(std::io::stderr().is_terminal() && std::io::stdout().is_terminal()) {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(steps);
        let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {elapsed}  {msg}");
        bar.set_style(style.expect("the template is valid"));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    /// Says what is going on.
    pub fn doing(&self, what: String) {
        self.0.set_message(what);
    }

    /// One step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }

    /// Prints a line to standard output, above the progress line if there is one.
    pub fn print(&self, line: &str) {
        self.0.suspend(|| println!("{line}"));
    }

    /// Takes the line away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
