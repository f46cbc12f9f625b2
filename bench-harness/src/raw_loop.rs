//! The limit that a durable row is held against: the bare device, one write and one flush at a time, nothing else.
//!
//! A pre-written file, opened with `O_DIRECT`, is overwritten from an aligned buffer that holds the row's payload bytes, rounded up
//! to whole blocks: what the smallest possible log would have to write for the events in flight. Three ways to make that
//! durable take turns; the best counts. It has no index, no checksums, no readers and no recovery.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::load::Payloads;
use crate::raw::{AlignedBytes, BLOCK_SIZE, Ring, write_dsync};
use crate::sample::{Latencies, Turn, Turns};

/// Size of the file, bytes, unless four commits are larger.
const FILE_SIZE_MIN: usize = 64 << 20;

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// One blocking `pwritev2` with `RWF_DSYNC`.
    Dsync,
    /// A blocking `pwrite`, then `fdatasync`.
    Fdatasync,
    /// One write with `RWF_DSYNC` through io_uring.
    Ring,
}

impl Method {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Dsync, Self::Fdatasync, Self::Ring];

    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dsync => "pwritev2+RWF_DSYNC",
            Self::Fdatasync => "pwrite+fdatasync",
            Self::Ring => "io_uring+RWF_DSYNC",
        }
    }
}

/// The pre-written file of the raw loop.
pub struct RawLoop {
    file: File,
    size: usize,
    buffer: AlignedBytes,
    offset: usize,
    ring: Option<Ring>,
    dsync: bool,
}

impl RawLoop {
    /// Makes the file at `path` and writes it once, for commits of up to `commit_size_max` bytes.
    pub fn new(path: &Path, commit_size_max: usize) -> anyhow::Result<Self> {
        let commit_size_max = commit_size_max.next_multiple_of(BLOCK_SIZE);
        let size = FILE_SIZE_MIN.max(4 * commit_size_max);
        let buffer = AlignedBytes::new(commit_size_max.max(1 << 20));
        let file = open_direct(path).with_context(|| format!("making {}", path.display()))?;
        prewrite(&file, &buffer, size).context("writing the raw loop's file")?;
        let dsync = write_dsync(&file, &buffer[..BLOCK_SIZE], 0).is_ok();
        Ok(Self { file, size, buffer, offset: 0, ring: Ring::new().ok(), dsync })
    }

    /// Puts the payloads of a row's first commit into the buffer.
    pub fn load(&mut self, payloads: &Payloads, in_flight: usize) {
        let size = payloads.size();
        for (index, place) in self.buffer.chunks_exact_mut(size).take(in_flight).enumerate() {
            place.copy_from_slice(payloads.get(index as u64));
        }
    }

    /// The ways that work here.
    pub(crate) fn methods(&self) -> Vec<Method> {
        let works = |method: &Method| match method {
            Method::Dsync => self.dsync,
            Method::Ring => self.dsync && self.ring.is_some(),
            Method::Fdatasync => true,
        };
        Method::ALL.into_iter().filter(works).collect()
    }

    /// Commits `in_flight` events of `payload_size` bytes, again and again, for `time`. The latency is that of a whole commit.
    pub(crate) fn turn(
        &mut self,
        method: Method,
        in_flight: usize,
        payload_size: usize,
        time: Duration,
    ) -> anyhow::Result<Turn> {
        let commit_size = (in_flight * payload_size).next_multiple_of(BLOCK_SIZE);
        let mut latencies = Latencies::new();
        let mut events = 0;
        let start = Instant::now();
        let mut now = start;
        while now - start < time {
            self.commit(method, commit_size).with_context(|| format!("raw loop, {}", method.name()))?;
            let done = Instant::now();
            latencies.record_n(done - now, in_flight as u64);
            events += in_flight as u64;
            now = done;
        }
        Ok(Turn { latencies, events, elapsed: now - start })
    }

    fn commit(&mut self, method: Method, size: usize) -> std::io::Result<()> {
        if self.offset + size > self.size {
            self.offset = 0;
        }
        let (bytes, offset) = (&self.buffer[..size], self.offset as u64);
        self.offset += size;
        match (method, &mut self.ring) {
            (Method::Ring, Some(ring)) => ring.write_dsync(&self.file, bytes, offset),
            (Method::Fdatasync, _) => self.file.write_all_at(bytes, offset).and_then(|()| self.file.sync_data()),
            _ => write_dsync(&self.file, bytes, offset),
        }
    }
}

/// Opens a new file with `O_DIRECT`, or without where the file system has none.
pub(crate) fn open_direct(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.clone().custom_flags(libc::O_DIRECT).open(path).or_else(|_| options.open(path))
}

fn prewrite(file: &File, zeros: &[u8], size: usize) -> std::io::Result<()> {
    let mut offset = 0;
    while offset < size {
        let part = zeros.len().min(size - offset);
        file.write_all_at(&zeros[..part], offset as u64)?;
        offset += part;
    }
    file.sync_all()
}

/// The turns of every method in one row.
#[derive(Debug, Default)]
pub struct RawTurns(Vec<(Method, Turns)>);

/// The best of the methods in one row.
#[derive(Clone, Debug)]
pub struct RawLimit {
    /// Lowest median latency of a commit, ns.
    pub p50_ns: u64,
    /// Highest median rate, events per second.
    pub events_per_s: f64,
    /// Which method had the lowest latency.
    pub(crate) method: Method,
    /// Its latencies.
    pub(crate) latencies: Latencies,
}

impl RawTurns {
    /// Lets every method that works take a turn of `time`.
    pub fn take(
        &mut self,
        raw: &mut RawLoop,
        in_flight: usize,
        payload_size: usize,
        time: Duration,
    ) -> anyhow::Result<()> {
        for method in raw.methods() {
            let turn = raw.turn(method, in_flight, payload_size, time)?;
            match self.0.iter_mut().find(|(known, _)| *known == method) {
                Some((_, turns)) => turns.push(turn),
                None => {
                    let mut turns = Turns::default();
                    turns.push(turn);
                    self.0.push((method, turns));
                }
            }
        }
        Ok(())
    }

    /// The best of them; `None` before the first turn.
    pub fn limit(&self) -> Option<RawLimit> {
        let (method, best) = self.0.iter().min_by_key(|(_, turns)| turns.p50())?;
        let events_per_s = self.0.iter().map(|(_, turns)| turns.rate()).fold(0.0, f64::max);
        Some(RawLimit { p50_ns: best.p50(), events_per_s, method: *method, latencies: best.latencies() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method that works here commits, and the best of them is the limit.
    #[test]
    fn the_limit_is_the_best_method() {
        let path = std::env::temp_dir().join(format!("redex-bench-raw-{}", std::process::id()));
        let mut raw = RawLoop::new(&path, 3 * 256).unwrap();
        std::fs::remove_file(path).unwrap();
        raw.load(&Payloads::new(1, 256), 3);
        assert_eq!(&raw.buffer[256..512], Payloads::new(1, 256).get(1));
        let mut turns = RawTurns::default();
        turns.take(&mut raw, 3, 256, Duration::from_millis(3)).unwrap();
        let limit = turns.limit().unwrap();
        for (_, method) in &turns.0 {
            assert!(method.p50() >= limit.p50_ns && method.rate() <= limit.events_per_s);
            assert_eq!(method.events() % 3, 0);
        }
    }
}
