//! Drives a hand-driven store until something resolves.

use std::task::Poll;

use redex::sim::{SimStep, SimStore};

use crate::workload::poll;

/// Steps after which what waits is taken for stuck.
pub const STEPS_MAX: usize = 20_000;

/// Times that a store at rest moves the clock on, one after the other.
const WAITS_AT_REST: usize = 20;

/// Steps the store until this future resolves. `None` if it does not, or there is nothing left to be done.
pub fn drive<F: Future + Unpin>(store: &mut SimStore, mut future: F) -> Option<F::Output> {
    for _ in 0..STEPS_MAX {
        if let Poll::Ready(output) = poll(&mut future) {
            return Some(output);
        }
        if store.step() == SimStep::Idle {
            return match poll(&mut future) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            };
        }
    }
    None
}

/// Steps the store until nothing is to be done, or nothing but looking at the clock now and then: witnesses are written then.
pub fn rest(store: &mut SimStore) {
    let is_over = |step| matches!(step, SimStep::Idle | SimStep::Failed | SimStep::Ended);
    let mut waited = 0;
    while waited < WAITS_AT_REST {
        let step = store.step();
        waited = if step == SimStep::Waited { waited + 1 } else { 0 };
        if is_over(step) {
            return;
        }
    }
}
