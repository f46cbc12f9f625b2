//! Runs blocking calls beside the thread that wants their result.
//!
//! A future must not block the thread that polls it, and a read of history takes as long as the disk takes; a shard must not
//! stand still while a file is made. So a store has a few threads that do such things for it, started by their first job.
//! Callers on plain threads read for themselves.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::append::wait::block_on;

/// Something to run once, on some thread.
pub type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Jobs that were begun ahead and have not ended.
    ahead: usize,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    /// No more jobs are taken; what waits is still done.
    over: bool,
}

struct Shared {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    ahead_ended: Condvar,
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().expect("no panic while the lock is held")
    }

    /// What a thread does: jobs, until it is over.
    fn work(&self) {
        let mut jobs = self.jobs();
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                drop(jobs);
                // Not the job's own panic, which it hands over: a waker's. The thread goes on with what others wait for.
                let _ = catch_unwind(AssertUnwindSafe(job));
                jobs = self.jobs();
            } else if jobs.over {
                return;
            } else {
                jobs.idle += 1;
                jobs = self.changed.wait(jobs).expect("no panic while the lock is held");
                jobs.idle -= 1;
            }
        }
    }
}

/// The threads for one kind of job; or none, where nothing may run by itself.
pub struct Offload {
    name: &'static str,
    threads_max: usize,
    /// Jobs wait until [`Offload::run_next`].
    by_hand: bool,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Offload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offload").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Offload {
    /// Up to `threads_max` threads of this name, each started when there is a job and none is idle.
    pub fn new(name: &'static str, threads_max: usize) -> Self {
        Self {
            name,
            threads_max,
            by_hand: false,
            shared: Arc::new(Shared { jobs: Mutex::default(), changed: Condvar::new(), ahead_ended: Condvar::new() }),
        }
    }

    /// One that runs jobs on the thread that asks, for the simulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn inline() -> Self {
        Self::new("inline", 0)
    }

    /// One whose jobs wait until they are run by hand, as if by threads that take their time: for the simulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn by_hand() -> Self {
        let mut offload = Self::inline();
        offload.by_hand = true;
        offload
    }

    /// Runs the job that waits for longest. `false` if there is none.
    pub fn run_next(&self) -> bool {
        let job = self.shared.jobs().waiting.pop_front();
        job.map(|job| job()).is_some()
    }

    /// Whether jobs wait.
    #[cfg(any(test, feature = "sim"))]
    pub fn has_waiting(&self) -> bool {
        !self.shared.jobs().waiting.is_empty()
    }

    /// Runs `job` elsewhere; if no thread can be had, here. If it panics, so does who polls its result, and nobody else.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Offloaded<T> {
        let (job, offloaded) = Self::job(job);
        if let Some(job) = self.hand_over(job) {
            job();
        }
        offloaded
    }

    /// Begins `job` elsewhere, for somebody who will want its result later and then runs it himself if nobody has begun it. `None`
    /// where no thread is there for it.
    pub fn run_ahead<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<Ahead<T>> {
        if self.by_hand || self.threads_max == 0 {
            return None;
        }
        let job: Arc<NotBegun<T>> = Arc::new(Mutex::new(Some(Box::new(job))));
        let theirs = job.clone();
        let shared = self.shared.clone();
        let (run, result) = Self::job(move || {
            let running = Running::begin(shared);
            let result = take(&theirs).map(|job| job());
            drop(running);
            result
        });
        self.hand_over(run).is_none().then_some(Ahead { job, result })
    }

    /// Waits until no job runs that was begun ahead. Those whose readers are gone do not begin.
    pub fn finish_ahead(&self) {
        let jobs = self.shared.jobs();
        drop(self.shared.ahead_ended.wait_while(jobs, |jobs| jobs.ahead > 0).expect("no panic while the lock is held"));
    }

    /// A job for any thread, and its result.
    pub fn job<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> (Job, Offloaded<T>) {
        let slot = Arc::new(Mutex::new(SlotState { result: None, waker: None }));
        let theirs = slot.clone();
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job));
            let mut slot = theirs.lock().expect("no panic while the lock is held");
            slot.result = Some(result);
            if let Some(waker) = slot.waker.take() {
                drop(slot);
                waker.wake();
            }
        });
        (job, Offloaded { slot })
    }

    /// Gives the job to a thread, or back.
    fn hand_over(&self, job: Job) -> Option<Job> {
        let mut jobs = self.shared.jobs();
        if jobs.idle <= jobs.waiting.len() && jobs.threads.len() < self.threads_max && !jobs.over {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name(self.name.into()).spawn(move || shared.work());
            jobs.threads.extend(thread);
        }
        if (jobs.threads.is_empty() && !self.by_hand) || jobs.over {
            return Some(job);
        }
        jobs.waiting.push_back(job);
        self.shared.changed.notify_one();
        None
    }

    /// Waits until all jobs are done. Later ones run on the thread that asks.
    pub fn finish(&self) {
        let threads = {
            let mut jobs = self.shared.jobs();
            jobs.over = true;
            self.shared.changed.notify_all();
            std::mem::take(&mut jobs.threads)
        };
        while self.by_hand && self.run_next() {}
        for thread in threads {
            thread.join().expect("no panic leaves a job");
        }
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        let mut jobs = self.shared.jobs();
        jobs.over = true;
        self.shared.changed.notify_all();
    }
}

struct SlotState<T> {
    result: Option<std::thread::Result<T>>,
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
        match slot.result.take() {
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(panic)) => {
                drop(slot);
                resume_unwind(panic)
            }
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A job that was begun ahead, while it runs.
struct Running(Arc<Shared>);

impl Running {
    fn begin(shared: Arc<Shared>) -> Self {
        shared.jobs().ahead += 1;
        Self(shared)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.jobs().ahead -= 1;
        self.0.ahead_ended.notify_all();
    }
}

/// A job until somebody has begun it.
type NotBegun<T> = Mutex<Option<Box<dyn FnOnce() -> T + Send>>>;

/// The result of a job that was begun ahead of its use.
pub struct Ahead<T> {
    job: Arc<NotBegun<T>>,
    result: Offloaded<Option<T>>,
}

fn take<T>(job: &Mutex<Option<T>>) -> Option<T> {
    job.lock().expect("no panic while the lock is held").take()
}

impl<T> Ahead<T> {
    /// Waits for it on this thread; runs it here if nobody has begun it: whoever waits never waits for other jobs.
    pub fn wait(mut self) -> T {
        if let Some(job) = take(&self.job) {
            return job();
        }
        let result = block_on(Duration::MAX, |cx| Pin::new(&mut self.result).poll(cx));
        result.expect("it was begun elsewhere")
    }
}

/// What nobody wants any more does not begin.
impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        drop(take(&self.job));
    }
}

impl<T> std::fmt::Debug for Ahead<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ahead")
    }
}

impl<T> Future for Ahead<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.result).poll(cx).map(|result| result.expect("only `wait` takes the job, and this with it"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_before_the_end_by_few_threads() {
        let offload = Offload::new("offload-test", 3);
        let done = Arc::new(AtomicUsize::new(0));
        let results: Vec<_> = (0..200)
            .map(|i| {
                let done = done.clone();
                offload.run(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                    i
                })
            })
            .collect();
        assert!((1..=3).contains(&offload.shared.jobs().threads.len()));
        offload.finish();
        assert_eq!(done.load(Ordering::Relaxed), 200);
        for (i, mut result) in results.into_iter().enumerate() {
            assert_eq!(Pin::new(&mut result).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(i));
        }
        let mut late = offload.run(|| 7);
        assert_eq!(Pin::new(&mut late).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(7), "done here");
    }

    #[test]
    fn what_was_begun_ahead_is_run_once_by_whoever_comes_first() {
        let offload = Offload::new("offload-test", 1);
        let runs = Arc::new(AtomicUsize::new(0));
        let ahead = |value: usize| {
            let runs = runs.clone();
            let job = move || {
                runs.fetch_add(1, Ordering::Relaxed);
                value
            };
            offload.run_ahead(job).expect("it has a thread")
        };
        let (release, held) = std::sync::mpsc::channel::<()>();
        // The one thread is busy: this is not begun before the wait, which runs it.
        let busy = offload.run(move || held.recv());
        assert_eq!(ahead(1).wait(), 1);
        let mut polled = ahead(2);
        release.send(()).unwrap();
        drop(busy);
        offload.finish();
        assert_eq!(Pin::new(&mut polled).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(2));
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert!(offload.run_ahead(|| 3).is_none(), "its threads are gone");
        offload.finish_ahead();
        assert!(Offload::inline().run_ahead(|| 3).is_none());
    }

    #[test]
    fn what_nobody_wants_does_not_begin_and_what_runs_is_waited_for() {
        let offload = Arc::new(Offload::new("offload-test", 1));
        let runs = Arc::new(AtomicUsize::new(0));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = std::sync::mpsc::channel();
        let ended = runs.clone();
        let running = offload.run_ahead(move || {
            begun.send(()).unwrap();
            held.recv().unwrap();
            ended.fetch_add(1, Ordering::Relaxed);
        });
        begins.recv().unwrap();
        let other = runs.clone();
        drop(offload.run_ahead(move || other.fetch_add(10, Ordering::Relaxed)));
        drop(running);
        let closing = std::thread::spawn({
            let (offload, runs) = (offload.clone(), runs.clone());
            move || {
                offload.finish_ahead();
                runs.load(Ordering::Relaxed)
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        release.send(()).unwrap();
        assert_eq!(closing.join().unwrap(), 1, "it ended before the wait for it did");
        offload.finish();
        assert_eq!(runs.load(Ordering::Relaxed), 1, "the other one never began");
    }

    #[test]
    fn a_panic_reaches_who_wants_the_result_and_nobody_else() {
        let offload = Offload::new("offload-test", 1);
        let mut bad = offload.run(|| panic!("on purpose"));
        let mut good = offload.run(|| 7);
        offload.finish();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut good).poll(&mut cx), Poll::Ready(7));
        let polled: Result<Poll<()>, _> = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut bad).poll(&mut cx)));
        assert_eq!(*polled.unwrap_err().downcast_ref::<&str>().unwrap(), "on purpose");
    }
}
