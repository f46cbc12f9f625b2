//! What the tests of the whole share.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use redex::sim::SimStore;

/// Steps after which a future is taken for stuck.
const STEPS_MAX: usize = 100_000;

/// Steps the store until the future is ready.
///
/// # Panics
///
/// If it comes to no end.
pub fn drive<F: Future>(store: &mut SimStore, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..STEPS_MAX {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        store.step();
    }
    panic!("the future comes to no end");
}
