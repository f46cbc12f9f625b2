//! Runs blocking reads beside the caller's executor.
//!
//! A future must not block the thread that polls it, and a read of history takes as long as the disk takes. So a store
//! has one thread that reads for futures; callers on plain threads read for themselves.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

type Job = Box<dyn FnOnce() + Send>;

/// The reading thread of a store, started by its first job; or none, where nothing may run by itself.
#[derive(Debug, Default)]
pub struct Offload {
    inline: bool,
    sender: OnceLock<Option<Mutex<Sender<Job>>>>,
}

impl Offload {
    /// One that runs jobs on the thread that asks, for the simulator.
    #[cfg(feature = "sim")]
    pub fn inline() -> Self {
        Self { inline: true, sender: OnceLock::new() }
    }

    /// Runs `job` elsewhere; if no thread can be had, here.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Offloaded<T> {
        let slot = Arc::new(Mutex::new(SlotState { value: None, waker: None }));
        let theirs = slot.clone();
        let job: Job = Box::new(move || {
            let value = job();
            let mut slot = theirs.lock().expect("no panic while the lock is held");
            slot.value = Some(value);
            if let Some(waker) = slot.waker.take() {
                drop(slot);
                waker.wake();
            }
        });
        match self.sender() {
            None => job(),
            Some(sender) => {
                let sent = sender.lock().expect("no panic while the lock is held").send(job);
                if let Err(unsent) = sent {
                    (unsent.0)();
                }
            }
        }
        Offloaded { slot }
    }

    fn sender(&self) -> Option<&Mutex<Sender<Job>>> {
        if self.inline {
            return None;
        }
        let start = || {
            let (sender, jobs) = channel::<Job>();
            let run = move || jobs.into_iter().for_each(|job| job());
            let thread = std::thread::Builder::new().name("redex-read".into()).spawn(run);
            thread.is_ok().then(|| Mutex::new(sender))
        };
        self.sender.get_or_init(start).as_ref()
    }
}

struct SlotState<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// The result of a job, when it is there.
pub struct Offloaded<T> {
    slot: Arc<Mutex<SlotState<T>>>,
}

impl<T> std::fmt::Debug for Offloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offloaded")
    }
}

impl<T> Future for Offloaded<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.lock().expect("no panic while the lock is held");
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
