//! Makes a failing history shorter: lives and actions are left out as long as it fails in the same way.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::history;
use crate::script::Script;

/// Histories that are tried, and how long.
const TRIES_MAX: u32 = 500;
const TIME_MAX: Duration = Duration::from_secs(60);

struct Shrinking {
    failure: Failure,
    script: Script,
    tries: u32,
    begun: Instant,
}

/// The same failure with as few actions as were found in a minute.
#[must_use]
pub fn shrink(failure: Failure) -> Failure {
    let script = failure.script.clone();
    let mut shrinking = Shrinking { failure, script, tries: 0, begun: Instant::now() };
    shrinking.leave_out_lives();
    // What one life did may matter only for what another one has done.
    while shrinking.leave_out_actions() {}
    shrinking.failure
}

impl Shrinking {
    fn is_over(&self) -> bool {
        self.tries >= TRIES_MAX || self.begun.elapsed() > TIME_MAX
    }

    /// Takes a shorter script if the failure is still the same.
    fn takes(&mut self, script: Script) -> bool {
        if self.is_over() {
            return false;
        }
        self.tries += 1;
        match history::run_script(self.failure.seed, self.failure.mode, Some(&script)) {
            Err(found) if kind(&found.what) == kind(&self.failure.what) => {
                (self.failure, self.script) = (found, script);
                true
            }
            _ => false,
        }
    }

    fn leave_out_lives(&mut self) {
        for life in self.script.lives.keys().copied().collect::<Vec<_>>() {
            let mut script = self.script.clone();
            script.lives.remove(&life);
            if !script.is_empty() {
                self.takes(script);
            }
        }
    }

    /// Halves of each life's actions, quarters, and so on. Says whether something was left out.
    fn leave_out_actions(&mut self) -> bool {
        let before = self.script.len();
        for life in self.script.lives.keys().copied().collect::<Vec<_>>() {
            let mut size = self.script.lives[&life].len();
            while size > 0 && !self.is_over() {
                let mut at = 0;
                while at < self.script.lives[&life].len() {
                    let mut script = self.script.clone();
                    let actions = script.lives.get_mut(&life).expect("only actions are left out");
                    let end = (at + size).min(actions.len());
                    actions.drain(at..end);
                    if !self.takes(script) {
                        at += size;
                    }
                }
                size /= 2;
            }
        }
        self.script.len() < before && !self.is_over()
    }
}

/// What a failure is like: its words, without numbers.
fn kind(what: &str) -> String {
    what.chars().filter(|c| c.is_alphabetic() || *c == ' ').take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_make_no_other_failure() {
        assert_eq!(kind("c/1: 5 events survived of 7"), kind("c/2: 15 events survived of 1"));
        assert_ne!(kind("c/1: 5 events survived of 7"), kind("a sync waits for ever"));
    }
}
