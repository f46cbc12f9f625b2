//! Counts polls, for readers that find less than they were told of: what they miss was told of since.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// A reader waits no longer; then it says what it has found.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// See the module's text.
#[derive(Debug, Default)]
pub struct Polls {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Polls that have read all journals to their ends.
    done: u64,
    /// Whether somebody polls.
    runs: bool,
}

impl Polls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// A thread begins to poll, or ends.
    pub fn set_runs(&self, runs: bool) {
        self.lock().runs = runs;
        self.moved.notify_all();
    }

    /// A poll has read all journals to their ends.
    pub fn note(&self) {
        self.lock().done += 1;
        self.moved.notify_all();
    }

    /// Waits until a poll is over that began after this. `false` if none is to be had: nobody polls by a thread.
    pub fn wait_for_next(&self) -> bool {
        let state = self.lock();
        // One may be under way.
        let enough = state.done + 2;
        let (state, _) = self
            .moved
            .wait_timeout_while(state, WAIT_MAX, |state| state.runs && state.done < enough)
            .expect("no panic while the lock is held");
        state.done >= enough
    }
}
