//! The baseline: the log that a program writes for itself, with the standard library and nothing else.
//!
//! A growing file, through the page cache; one `write` and one `fdatasync` for a batch. No index, no checksums, no readers.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::load::Payloads;
use crate::sample::{Latencies, Turn};

/// Stack of each thread, bytes; they only write.
const STACK_SIZE: usize = 128 * 1024;

/// A plain file that grows.
#[derive(Debug)]
pub(crate) struct PlainFile {
    file: File,
    batch: Vec<u8>,
    next: u64,
}

impl PlainFile {
    /// Makes an empty file at `path`.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        Ok(Self { file, batch: Vec::new(), next: 0 })
    }

    /// For `time`: collect `batch` events, one `write`, one `fdatasync`. The latency is that of the whole batch, for each event.
    pub(crate) fn durable(&mut self, payloads: &Payloads, batch: usize, time: Duration) -> anyhow::Result<Turn> {
        self.turn(payloads, batch, time, |file| file.sync_data())
    }

    /// The same without the `fdatasync`.
    pub(crate) fn written(&mut self, payloads: &Payloads, batch: usize, time: Duration) -> anyhow::Result<Turn> {
        self.turn(payloads, batch, time, |_| Ok(()))
    }

    fn turn(
        &mut self,
        payloads: &Payloads,
        batch: usize,
        time: Duration,
        flush: impl Fn(&File) -> std::io::Result<()>,
    ) -> anyhow::Result<Turn> {
        let mut latencies = Latencies::new();
        let mut events = 0;
        let start = Instant::now();
        let mut now = start;
        while now - start < time {
            self.batch.clear();
            for index in self.next..self.next + batch as u64 {
                self.batch.extend_from_slice(payloads.get(index));
            }
            self.file.write_all(&self.batch).and_then(|()| flush(&self.file)).context("writing the plain file")?;
            self.next += batch as u64;
            events += batch as u64;
            let done = Instant::now();
            latencies.record_n(done - now, batch as u64);
            now = done;
        }
        Ok(Turn { latencies, events, elapsed: now - start })
    }
}

/// For `time`, `threads` threads append to one file and `fdatasync` it after each event, all on their own.
pub(crate) fn threads_durable(
    path: &Path,
    payloads: &Payloads,
    threads: usize,
    time: Duration,
) -> anyhow::Result<Turn> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let together = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let spawn = |number: usize| {
            let (file, together) = (&file, &together);
            let work = move || append_alone(file, payloads, (number as u64) << 32, time, together);
            std::thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, work)
        };
        let handles = (0..threads).map(spawn).collect::<Result<Vec<_>, _>>().context("starting the threads")?;
        together.wait();
        let ended = handles.into_iter().map(|handle| handle.join().expect("an appending thread does not panic"));
        let alone = ended.collect::<Result<Vec<_>, _>>().context("writing the plain file")?;
        Ok(merge(&alone))
    })
}

/// What one thread did.
struct Alone {
    start: Instant,
    end: Instant,
    latencies: Vec<Duration>,
}

/// One turn of all threads, from the start of the first to the end of the last.
fn merge(threads: &[Alone]) -> Turn {
    let start = threads.iter().map(|alone| alone.start).min();
    let end = threads.iter().map(|alone| alone.end).max();
    let mut latencies = Latencies::new();
    threads.iter().flat_map(|alone| &alone.latencies).for_each(|latency| latencies.record(*latency));
    let elapsed = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
    Turn { events: latencies.histogram().len(), latencies, elapsed }
}

fn append_alone(
    mut file: &File,
    payloads: &Payloads,
    first: u64,
    time: Duration,
    together: &Barrier,
) -> std::io::Result<Alone> {
    let mut latencies = Vec::new();
    together.wait();
    let start = Instant::now();
    let mut end = start;
    while end - start < time {
        file.write_all(payloads.get(first + latencies.len() as u64))?;
        file.sync_data()?;
        let done = Instant::now();
        latencies.push(done - end);
        end = done;
    }
    Ok(Alone { start, end, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms write exactly the events that they count.
    #[test]
    fn counted_events_are_in_the_file() {
        let path = std::env::temp_dir().join(format!("redex-bench-plain-{}", std::process::id()));
        let payloads = Payloads::new(1, 64);
        let turn = PlainFile::new(&path).unwrap().durable(&payloads, 10, Duration::from_millis(2)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), turn.events * 64);
        assert_eq!(turn.events % 10, 0);
        let more = threads_durable(&path, &payloads, 4, Duration::from_millis(2)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (turn.events + more.events) * 64);
        std::fs::remove_file(path).unwrap();
    }
}
