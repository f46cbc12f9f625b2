//! Threads that begin together, and what they did as one turn.

use std::sync::RwLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use redex::RedexFile;

use crate::sample::{Latencies, Turn};

/// Stack of each thread, bytes; they only append and read.
const STACK_SIZE: usize = 256 * 1024;

/// Runs every job on a thread of its own, all from one moment on. Gives what they gave, in order, and the time from the
/// beginning of the first to the end of the last.
pub(super) fn together<T, J>(jobs: impl IntoIterator<Item = J>) -> anyhow::Result<(Vec<T>, Duration)>
where
    T: Send,
    J: FnOnce() -> anyhow::Result<T> + Send,
{
    // Held for writing until all threads are there; false if they are to go away again.
    let gate = RwLock::new(false);
    let ended = std::thread::scope(|scope| {
        let mut closed = gate.write().expect("nobody panics while the gate is held");
        let spawn = |job: J| {
            let gate = &gate;
            let work = move || gate.read().is_ok_and(|open| *open).then(|| timed(job));
            std::thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, work)
        };
        let spawned: std::io::Result<Vec<_>> = jobs.into_iter().map(spawn).collect();
        *closed = spawned.is_ok();
        drop(closed);
        let handles = spawned.context("starting the threads")?;
        let join = |handle: std::thread::ScopedJoinHandle<'_, Option<(Instant, Instant, anyhow::Result<T>)>>| {
            handle.join().expect("a thread of the crew does not panic").context("the gate opened")
        };
        handles.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let begun = ended.iter().map(|(begun, _, _)| *begun).min();
    let done = ended.iter().map(|(_, done, _)| *done).max();
    let elapsed = begun.zip(done).map_or(Duration::ZERO, |(begun, done)| done - begun);
    let results = ended.into_iter().map(|(_, _, result)| result).collect::<anyhow::Result<Vec<T>>>()?;
    Ok((results, elapsed))
}

fn timed<T>(job: impl FnOnce() -> T) -> (Instant, Instant, T) {
    let begun = Instant::now();
    let result = job();
    (begun, Instant::now(), result)
}

/// The turns of threads that ran side by side, as one turn that took `elapsed`.
pub(super) fn merged<'t>(turns: impl IntoIterator<Item = &'t Turn>, elapsed: Duration) -> Turn {
    let mut all = Turn { latencies: Latencies::new(), events: 0, elapsed };
    for turn in turns {
        all.latencies.add(&turn.latencies);
        all.events += turn.events;
    }
    all
}

/// What a writer gave whom others follow. If it failed, its channel is closed: they would wait for ever.
pub(super) fn or_close<T>(file: &RedexFile, result: anyhow::Result<T>) -> anyhow::Result<T> {
    if result.is_err() {
        // It asks for no flush: that would wait for what has just failed.
        drop(file.close());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// Every job runs on a thread of its own at the same time, and results have the order of the jobs.
    #[test]
    fn jobs_run_side_by_side_and_keep_their_order() {
        let all_there = Barrier::new(5);
        let jobs = (0..5).map(|number| {
            let all_there = &all_there;
            move || {
                all_there.wait();
                std::thread::sleep(Duration::from_millis(2));
                Ok(number)
            }
        });
        let (numbers, elapsed) = together(jobs).unwrap();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert!(elapsed >= Duration::from_millis(2));
    }

    #[test]
    fn a_failed_job_fails_the_crew() {
        let jobs = (0..3).map(|number| move || if number == 1 { anyhow::bail!("job {number}") } else { Ok(()) });
        assert_eq!(together(jobs).unwrap_err().to_string(), "job 1");
    }

    /// Whoever follows a writer that failed is told so.
    #[test]
    fn a_writer_that_failed_ends_those_who_follow() {
        let file = redex::Redex::in_memory().open_file("crew", redex::RedexFileConfig::default()).unwrap();
        let mut tail = file.subscribe_tail().wait().unwrap();
        assert_eq!(or_close(&file, Ok(7)).unwrap(), 7);
        assert!(tail.ended().is_none());
        or_close::<()>(&file, Err(anyhow::anyhow!("no room"))).unwrap_err();
        assert!(tail.next_wait().is_none());
    }

    #[test]
    fn merged_turns_have_all_events_in_the_common_time() {
        let turn = |us| {
            let mut latencies = Latencies::new();
            latencies.record(Duration::from_micros(us));
            Turn { latencies, events: 1, elapsed: Duration::from_secs(1) }
        };
        let merged = merged(&[turn(10), turn(20)], Duration::from_secs(2));
        assert_eq!((merged.events, merged.latencies.histogram().len()), (2, 2));
        assert_eq!(merged.rate(), 1.0);
    }
}
