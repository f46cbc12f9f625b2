//! The limit that a durable row is held against: the bare device, one write and one flush at a time, nothing else.
//!
//! A file opened with `O_DIRECT` is written from an aligned buffer that holds the row's payload bytes, rounded up
//! to whole blocks: what the smallest possible log would have to write for the events in flight. Three ways to make that
//! durable take turns; the best counts. It has no index, no checksums, no readers and no recovery.
//!
//! The file is in the state of the one that the engine writes such a commit to: pre-written like a journal segment, or, where the bytes
//! of one commit go to a segment by extent, allocated and not written before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::load::Payloads;
use crate::raw::{AlignedBytes, BLOCK_SIZE, Ring, allocate, write_dsync};
use crate::sample::{Latencies, Turn, Turns};

/// Size of the pre-written file, bytes, unless four commits are larger.
const FILE_SIZE_MIN: usize = 64 << 20;
/// Size of the allocated file, bytes, unless four commits are larger.
const ALLOCATED_SIZE_MIN: usize = 512 << 20;
/// Bytes of one channel in one commit from which the engine writes them to the channel's segment.
const EXTENT_BYTES: usize = 256 << 10;

/// Size of a write of the raw stream, bytes, and how many are written between two flushes.
const STREAM_WRITE_BYTES: usize = 1 << 20;
const STREAM_UNFLUSHED_BYTES: usize = 64 << 20;

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

/// What a commit finds where it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Written before.
    Prewritten,
    /// Allocated, and never written.
    Allocated,
}

/// A file, and how far it is written.
struct Place {
    file: File,
    state: State,
    size: usize,
    offset: usize,
}

impl Place {
    fn new(path: &Path, state: State, size: usize, zeros: &[u8]) -> std::io::Result<Self> {
        let file = open_direct(path)?;
        match state {
            State::Prewritten => prewrite(&file, zeros, size)?,
            State::Allocated => allocate(&file, size as u64)?,
        }
        Ok(Self { file, state, size, offset: 0 })
    }

    /// Whether a commit of `size` bytes goes on behind the last one.
    fn has_room(&self, size: usize) -> bool {
        self.offset + size <= self.size
    }

    /// Begins anew, in the same state.
    fn rewind(&mut self) -> std::io::Result<()> {
        self.offset = 0;
        if self.state == State::Allocated {
            self.file.set_len(0)?;
            allocate(&self.file, self.size as u64)?;
            self.file.sync_all()?;
        }
        Ok(())
    }
}

/// The files of the raw loop.
pub struct RawLoop {
    prewritten: Place,
    allocated: Place,
    /// The one that the loaded commits go to.
    state: State,
    buffer: AlignedBytes,
    ring: Option<Ring>,
    dsync: bool,
}

impl RawLoop {
    /// Makes the files at `path` and beside it, for commits of up to `commit_size_max` bytes.
    pub fn new(path: &Path, commit_size_max: usize) -> anyhow::Result<Self> {
        let commit_size_max = commit_size_max.next_multiple_of(BLOCK_SIZE);
        let buffer = AlignedBytes::new(commit_size_max.max(1 << 20));
        let beside = path.with_extension("allocated");
        let make = |path: &Path, state, least: usize| {
            let made = Place::new(path, state, least.max(4 * commit_size_max), &buffer);
            made.with_context(|| format!("making the raw loop's file {}", path.display()))
        };
        let prewritten = make(path, State::Prewritten, FILE_SIZE_MIN)?;
        let allocated = make(&beside, State::Allocated, ALLOCATED_SIZE_MIN)?;
        // Nobody else needs its name: it goes with the loop.
        std::fs::remove_file(&beside).with_context(|| format!("unlinking {}", beside.display()))?;
        let dsync = write_dsync(&prewritten.file, &buffer[..BLOCK_SIZE], 0).is_ok();
        let state = State::Prewritten;
        Ok(Self { prewritten, allocated, state, buffer, ring: Ring::new().ok(), dsync })
    }

    /// Puts the payloads of a row's first commit into the buffer, for commits of one channel.
    pub fn load(&mut self, payloads: &Payloads, in_flight: usize) {
        let size = payloads.size();
        self.state = if in_flight * size >= EXTENT_BYTES { State::Allocated } else { State::Prewritten };
        for (index, place) in self.buffer.chunks_exact_mut(size).take(in_flight).enumerate() {
            place.copy_from_slice(payloads.get(index as u64));
        }
    }

    fn place(&mut self) -> &mut Place {
        match self.state {
            State::Prewritten => &mut self.prewritten,
            State::Allocated => &mut self.allocated,
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
        let mut elapsed = Duration::ZERO;
        while elapsed < time {
            if !self.place().has_room(commit_size) {
                self.place().rewind().context("emptying the raw loop's file")?;
            }
            let start = Instant::now();
            self.commit(method, commit_size).with_context(|| format!("raw loop, {}", method.name()))?;
            let took = start.elapsed();
            latencies.record_n(took, in_flight as u64);
            events += in_flight as u64;
            elapsed += took;
        }
        Ok(Turn { latencies, events, elapsed })
    }

    fn commit(&mut self, method: Method, size: usize) -> std::io::Result<()> {
        let place = match self.state {
            State::Prewritten => &mut self.prewritten,
            State::Allocated => &mut self.allocated,
        };
        let (file, bytes, offset) = (&place.file, &self.buffer[..size], place.offset as u64);
        place.offset += size;
        match (method, &mut self.ring) {
            (Method::Ring, Some(ring)) => ring.write_dsync(file, bytes, offset),
            (Method::Fdatasync, _) => file.write_all_at(bytes, offset).and_then(|()| file.sync_data()),
            _ => write_dsync(file, bytes, offset),
        }
    }
}

/// What a stream of appends that wait for nothing can come to: one write of a megabyte at a time into a file that is allocated and
/// was never written, and a flush every 64 MiB.
pub struct RawStream {
    place: Place,
    buffer: AlignedBytes,
    unflushed: usize,
}

impl RawStream {
    /// Makes its file at `path`.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let mut buffer = AlignedBytes::new(STREAM_WRITE_BYTES);
        buffer.fill(0xa5);
        let place = Place::new(path, State::Allocated, ALLOCATED_SIZE_MIN, &buffer);
        let place = place.with_context(|| format!("making the raw stream's file {}", path.display()))?;
        Ok(Self { place, buffer, unflushed: 0 })
    }

    /// Writes for `time`. Bytes a second.
    pub fn turn(&mut self, time: Duration) -> anyhow::Result<f64> {
        let (mut bytes, mut elapsed) = (0, Duration::ZERO);
        while elapsed < time {
            if !self.place.has_room(STREAM_WRITE_BYTES) {
                self.place.rewind().context("emptying the raw stream's file")?;
            }
            let start = Instant::now();
            self.place.file.write_all_at(&self.buffer, self.place.offset as u64).context("raw stream")?;
            self.place.offset += STREAM_WRITE_BYTES;
            self.unflushed += STREAM_WRITE_BYTES;
            if self.unflushed >= STREAM_UNFLUSHED_BYTES {
                self.place.file.sync_data().context("raw stream")?;
                self.unflushed = 0;
            }
            elapsed += start.elapsed();
            bytes += STREAM_WRITE_BYTES;
        }
        Ok(bytes as f64 / elapsed.as_secs_f64())
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
        assert_eq!(raw.state, State::Prewritten);
        let mut turns = RawTurns::default();
        turns.take(&mut raw, 3, 256, Duration::from_millis(3)).unwrap();
        let limit = turns.limit().unwrap();
        for (_, method) in &turns.0 {
            assert!(method.p50() >= limit.p50_ns && method.rate() <= limit.events_per_s);
            assert_eq!(method.events() % 3, 0);
        }
    }
    /// A file that is allocated and not written is so again when it is full.
    #[test]
    fn large_commits_find_blocks_that_were_not_written() {
        let path = std::env::temp_dir().join(format!("redex-bench-raw-allocated-{}", std::process::id()));
        let payloads = Payloads::new(1, 4096);
        let mut raw = RawLoop::new(&path, 4 * EXTENT_BYTES).unwrap();
        std::fs::remove_file(path).unwrap();
        raw.load(&payloads, 64);
        assert_eq!(raw.state, State::Allocated);
        raw.allocated.size = EXTENT_BYTES;
        for _ in 0..3 {
            raw.turn(Method::Fdatasync, 64, 4096, Duration::from_nanos(1)).unwrap();
            raw.allocated.rewind().unwrap();
            assert_eq!(raw.allocated.file.metadata().unwrap().len(), EXTENT_BYTES as u64);
        }
    }
}
