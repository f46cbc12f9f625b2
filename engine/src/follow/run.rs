//! Polls on a thread of its own: quick while there is news, slower when there is none, and never so slow that a durable event
//! is seen later than the bound.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::polls::Polls;
use super::view::View;
use super::{Follower, Polled};

/// Between two polls while news comes.
const QUICK: Duration = Duration::from_micros(500);
/// Between two polls when none does. The writer leaves a witness of its last commit after 2 ms without another; that, this, and
/// the reads of a poll are within the 10 ms in which a durable event is to be seen.
const SLOW: Duration = Duration::from_millis(2);

/// A follower and the thread that polls it. Ends with the last clone.
#[derive(Debug)]
pub struct Following {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    follower: Mutex<Follower>,
    views: Vec<Arc<View>>,
    polls: Arc<Polls>,
    over: Mutex<bool>,
    ends: Condvar,
}

impl Shared {
    fn follower(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().expect("no panic while the lock is held")
    }

    fn run(&self) {
        let mut pause = QUICK;
        self.polls.set_runs(true);
        loop {
            let polled = self.follower().poll();
            self.views.iter().for_each(|view| view.wake());
            pause = if polled == Polled::News { QUICK } else { (pause * 2).min(SLOW) };
            let over = self.over.lock().expect("no panic while the lock is held");
            let (over, _) = self.ends.wait_timeout_while(over, pause, |over| !*over).expect("as above");
            if *over {
                break;
            }
        }
        self.polls.set_runs(false);
        self.views.iter().for_each(|view| view.end());
    }
}

impl Following {
    /// Starts the thread.
    pub fn start(follower: Follower) -> std::io::Result<Self> {
        let (views, polls) = (follower.views(), follower.polls());
        let follower = Mutex::new(follower);
        let shared = Arc::new(Shared { follower, views, polls, over: Mutex::new(false), ends: Condvar::new() });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("redex-follow".into()).spawn(move || theirs.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The follower, between two polls.
    pub fn follower(&self) -> MutexGuard<'_, Follower> {
        self.shared.follower()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        *self.shared.over.lock().expect("no panic while the lock is held") = true;
        self.shared.ends.notify_all();
        // A waker that it calls may have the last clone.
        if let Some(thread) = self.thread.take().filter(|it| it.thread().id() != std::thread::current().id()) {
            // If it panicked it has said so.
            let _ = thread.join();
        }
    }
}
