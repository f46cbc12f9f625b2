//! What a row costs beside time: CPU, page cache, device writes, kernel worker threads, commits and flushes.
//!
//! Read before and after each of the engine's own turns, so that what the raw loop and the plain file do in between does not count.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redex::Redex;

use crate::bins::{DepthBins, Log2Bins};
use crate::machine::meminfo_bytes;
use crate::mounts::Mount;
use crate::raw::{cached_bytes, process_cpu_ns};
use crate::sample::Turn;

/// Sectors of `/sys/block/*/stat`, bytes.
const SECTOR_SIZE: u64 = 512;

/// Sums over the engine's turns of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time of the process, ns.
    pub(crate) cpu_ns: u64,
    /// Bytes written to the device, by whomever; of this process if the device does not tell.
    pub(crate) device_bytes: u64,
    /// Growth of `Cached` of `/proc/meminfo`, bytes.
    pub(crate) machine_cached_bytes: i64,
    /// Growth of the pages of the store's files in the page cache, bytes.
    pub(crate) store_cached_bytes: i64,
    /// Most kernel worker threads seen after a turn, without those of the raw loop.
    pub(crate) iou_wrk_threads: u64,
    /// Commits.
    pub(crate) commits: u64,
    /// Empty commits.
    pub(crate) idle_commits: u64,
    /// Flushes of the journal.
    pub(crate) flushes: u64,
    /// Flushes for extents.
    pub(crate) extent_flushes: u64,
    /// Flushes for checkpoints.
    pub(crate) checkpoint_flushes: u64,
    /// Commits by their events.
    pub(crate) commit_events: Log2Bins,
    /// Commits by how many were in flight at their submission, themselves included.
    pub(crate) queue_depth: DepthBins,
}

/// Adds up what the engine's turns of one row cost.
#[derive(Debug)]
pub(crate) struct Meter {
    dir: PathBuf,
    device: Option<PathBuf>,
    usage: Usage,
}

/// The counters at one moment.
struct Reading {
    cpu_ns: u64,
    device_bytes: u64,
    machine_cached: u64,
    store_cached: u64,
    stats: redex::Stats,
}

impl Meter {
    /// For the store in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        let device = Mount::of(dir).block_device().map(|device| device.join("stat")).filter(|stat| stat.exists());
        Self { dir: dir.to_owned(), device, usage: Usage::default() }
    }

    /// Runs one turn of the engine and adds what it cost.
    pub(crate) fn around(
        &mut self,
        redex: &Redex,
        turn: impl FnOnce() -> anyhow::Result<Turn>,
    ) -> anyhow::Result<Turn> {
        let before = self.read(redex);
        let turn = turn()?;
        let cpu_ns = process_cpu_ns() - before.cpu_ns;
        let after = self.read(redex);
        self.add(cpu_ns, &before, &after);
        Ok(turn)
    }

    /// What was added up so far.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    fn read(&self, redex: &Redex) -> Reading {
        Reading {
            stats: redex.stats(),
            machine_cached: meminfo_bytes("Cached").unwrap_or(0),
            store_cached: cached_below(&self.dir),
            device_bytes: self.device_bytes(),
            cpu_ns: process_cpu_ns(),
        }
    }

    fn add(&mut self, cpu_ns: u64, before: &Reading, after: &Reading) {
        let sum = &mut self.usage;
        sum.cpu_ns += cpu_ns;
        sum.device_bytes += after.device_bytes.saturating_sub(before.device_bytes);
        sum.machine_cached_bytes += after.machine_cached as i64 - before.machine_cached as i64;
        sum.store_cached_bytes += after.store_cached as i64 - before.store_cached as i64;
        sum.iou_wrk_threads = sum.iou_wrk_threads.max(iou_wrk_threads());
        sum.commits += after.stats.commits - before.stats.commits;
        sum.idle_commits += after.stats.idle_commits - before.stats.idle_commits;
        sum.flushes += after.stats.flushes - before.stats.flushes;
        sum.extent_flushes += after.stats.extent_flushes - before.stats.extent_flushes;
        sum.checkpoint_flushes += after.stats.checkpoint_flushes - before.stats.checkpoint_flushes;
        sum.commit_events.add_between(&before.stats.commit_events, &after.stats.commit_events);
        sum.queue_depth.add_between(&before.stats.queue_depth, &after.stats.queue_depth);
    }

    /// Bytes written to the device so far, by whomever; by this process if the device does not tell.
    pub(crate) fn device_bytes(&self) -> u64 {
        let of_device = || sectors_written(&fs::read_to_string(self.device.as_ref()?).ok()?);
        let of_process = || write_bytes(&fs::read_to_string("/proc/self/io").ok()?);
        of_device().map(|sectors| sectors * SECTOR_SIZE).or_else(of_process).unwrap_or(0)
    }
}

/// Seventh field of a block device's `stat`.
fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse().ok()
}

fn write_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// Bytes in the page cache of all files below `dir`. Files that vanish meanwhile count nothing.
fn cached_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => cached_below(&entry.path()),
        Ok(kind) if kind.is_file() => File::open(entry.path()).and_then(|file| cached_bytes(&file)).unwrap_or(0),
        _ => 0,
    };
    entries.flatten().map(of_entry).sum()
}

/// Kernel worker threads (`iou-wrk-<thread that asked>`) of this process that the main thread, and so the raw loop, did not cause.
fn iou_wrk_threads() -> u64 {
    let main = std::process::id().to_string();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim_end().strip_prefix("iou-wrk-").is_some_and(|owner| owner != main)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_in_what_the_kernel_prints() {
        assert_eq!(sectors_written("  10 0 99 5 20 1 4096 7 0 0 0"), Some(4096));
        assert_eq!(sectors_written("1 2"), None);
        assert_eq!(write_bytes("rchar: 1\nwrite_bytes: 8192\ncancelled_write_bytes: 5"), Some(8192));
    }

    #[test]
    fn a_missing_directory_caches_nothing() {
        assert_eq!(cached_below(Path::new("/nonexistent")), 0);
    }
}
