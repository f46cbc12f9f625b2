//! `verify`: checking a whole store that is closed, every byte of it, by `redex::verify`.
//!
//! The raw loop beside it reads the same sealed files with `O_DIRECT`, 1 MiB at a time, with as many threads, and looks at none of the bytes; the
//! two take turns. An event is one of the store; latency is that of a turn.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, RedexFileConfig, VerifyOptions};

use super::Workload;
use crate::fill;
use crate::load::Payloads;
use crate::raw::AlignedBytes;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "verify";
const CHANNELS: u64 = 4;
/// Sizes of payloads, and how much of them the store has, bytes.
const LOADS: [(usize, u64); 2] = [(256, 768 << 20), (4096, 1 << 30)];
const QUICK_PART: u64 = 8;
const SEGMENT_BYTES: u64 = 8 << 20;
const READ_SIZE: usize = 1 << 20;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = LOADS.len() as u32;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    LOADS.into_iter().try_for_each(|(size, bytes)| with_payloads(session, size, bytes))
}

fn with_payloads(session: &mut Session, size: usize, bytes: u64) -> anyhow::Result<()> {
    let bytes = if session.quick { bytes / QUICK_PART } else { bytes };
    let count = bytes / size as u64;
    session.doing(format!("verify, filling {count} events of {size} B"));
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let payloads = Payloads::new(session.seed_for(1), size);
    for channel in 0..CHANNELS {
        let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never);
        let file = redex.open_file(format!("bench/verify/{channel}"), config.with_segment_bytes(SEGMENT_BYTES))?;
        fill::append(&file, &payloads, 0, count / CHANNELS)?;
    }
    store::close(redex)?;

    session.doing(format!("verify, {count} events of {size} B"));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let time = session.row_time(Workload::Verify);
    let files = sealed_files(&dir.join("channels"))?;
    let (mut turns, mut raw_rates, mut checked, mut raw_bytes) = (Turns::default(), Vec::new(), 0.0, 0);
    let mut rates: Vec<(f64, f64)> = Vec::new();
    while turns.len() < 5 || turns.elapsed() < time.mul_f64(0.5) {
        let start = Instant::now();
        let report = redex::verify(&dir, &VerifyOptions::new().with_threads(threads)).context("verifying")?;
        let elapsed = start.elapsed();
        ensure!(report.is_clean() && report.events == count, "{count} events were written: {report}");
        let mut latencies = Latencies::new();
        latencies.record(elapsed);
        turns.push(Turn { latencies, events: count, elapsed });
        let (read, raw_elapsed) = read_raw(&files, threads)?;
        // The check reads more than the sealed segments: rates of bytes are compared.
        let (rate, raw_rate) = (report.bytes as f64 / elapsed.as_secs_f64(), read as f64 / raw_elapsed.as_secs_f64());
        raw_rates.push(count as f64 * raw_rate / report.bytes as f64);
        rates.push((rate, raw_rate));
        (checked, raw_bytes) = (report.bytes as f64, read);
        if turns.len() >= 40 {
            break;
        }
    }
    session.place("store")?;
    let mut row = Row::new(NAME, "redex", size, &turns, &session.machine);
    row.channels = CHANNELS;
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rate = middle(rates.iter().map(|(rate, _)| *rate).collect());
    let raw = middle(rates.iter().map(|(_, raw)| *raw).collect());
    let ratio = middle(rates.iter().map(|(rate, raw)| rate / raw).collect());
    row.numbers.insert("verify_bytes_per_s".to_owned(), rate);
    row.numbers.insert("raw_bytes_per_s".to_owned(), raw);
    row.numbers.insert("ratio_bytes_per_s".to_owned(), ratio);
    row.numbers.insert("threads".to_owned(), threads as f64);
    row.note = Some(format!(
        "{:.0} MB/s of {checked:.0} bytes, raw {:.0} MB/s of {raw_bytes} bytes, ratio {ratio:.2} (median of turns)",
        rate / 1e6,
        raw / 1e6
    ));
    session.finish(row.beside_reads(raw_rates))
}

/// The files of sealed segments. An active one has room that was never written, which no device is asked for.
fn sealed_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut own = Vec::new();
    for entry in std::fs::read_dir(dir).context("listing the store")? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sealed_files(&path)?);
        } else if path.extension().is_some() {
            own.push(path);
        }
    }
    own.sort();
    let active = own.last().and_then(|path| path.file_stem()).map(std::ffi::OsStr::to_owned);
    files.extend(own.into_iter().filter(|path| path.file_stem() != active.as_deref()));
    Ok(files)
}

/// Reads all of these files; gives the bytes and the time.
fn read_raw(files: &[PathBuf], threads: usize) -> anyhow::Result<(u64, Duration)> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let read = std::thread::scope(|scope| {
        let work = || -> anyhow::Result<u64> {
            let mut bytes = AlignedBytes::new(READ_SIZE);
            let mut sum = 0;
            while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                sum += read_file(path, &mut bytes)?;
            }
            Ok(sum)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("reading does not panic");
        threads.into_iter().map(join).sum::<anyhow::Result<u64>>()
    })?;
    Ok((read, start.elapsed()))
}

fn read_file(path: &Path, bytes: &mut AlignedBytes) -> anyhow::Result<u64> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let direct = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    let mut file = direct.or_else(|_| std::fs::File::open(path))?;
    let mut sum = 0;
    loop {
        match file.read(bytes)? {
            0 => return Ok(sum),
            read => sum += read as u64,
        }
    }
}
