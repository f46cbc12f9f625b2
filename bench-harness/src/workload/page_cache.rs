//! `pagecache`: whether the page cache moves while the engine writes. Only with `--only pagecache`.
//!
//! One thread appends 1 GiB (an eighth with `--quick`) to one channel and syncs. The pages of the store's files that the kernel
//! holds are counted (`cachestat`) before and after each part, and the machine's `Cached` beside them, which anything else on the machine
//! moves too. The bar is that the store's pages stay where they were.

use std::time::Instant;

use anyhow::Context;
use redex::{FsyncPolicy, RedexFile};

use super::Workload;
use crate::counters::Meter;
use crate::load::Payloads;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "pagecache";
const CHANNEL: &str = "bench/pagecache";
const PAYLOAD_SIZE: usize = 4096;
const BATCH: usize = 64;
const BYTES: usize = 1 << 30;
const PARTS: usize = 8;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let parts = if session.quick { 1 } else { PARTS };
    let bytes = BYTES / PARTS * parts;
    session.doing(format!("pagecache, {} MiB", bytes >> 20));
    let _fixed_by_size = session.row_time(Workload::PageCache);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let (mut meter, mut turns, mut next) = (Meter::new(&dir), Turns::default(), 0);
    for _ in 0..parts {
        turns.push(meter.around(&redex, || turn(&file, &payloads, &mut next))?);
    }
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    readback::sample(&dir, session.backend, CHANNEL, next, session.seed_for(2), |seq| payloads.get(seq))?;
    session.place("store")?;

    let usage = meter.usage();
    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    row.batch = BATCH as u64;
    row.note = Some(format!(
        "{} MiB written; in the page cache of the store's files {:+} KiB, in the machine's `Cached` {:+} KiB",
        bytes >> 20,
        usage.store_cached_bytes >> 10,
        usage.machine_cached_bytes >> 10
    ));
    session.finish(row.costing(&usage, &facts))
}

/// Appends one part, and syncs.
fn turn(file: &RedexFile, payloads: &Payloads, next: &mut u64) -> anyhow::Result<Turn> {
    let (first, end) = (*next, *next + (BYTES / PARTS / PAYLOAD_SIZE) as u64);
    let mut latencies = Latencies::new();
    let start = Instant::now();
    while *next < end {
        let batch: Vec<&[u8]> = (*next..*next + BATCH as u64).map(|index| payloads.get(index)).collect();
        let sent = Instant::now();
        file.append_batch(&batch).wait().context("appending a batch")?;
        latencies.record_n(sent.elapsed(), BATCH as u64);
        *next += BATCH as u64;
    }
    file.sync().wait().context("syncing")?;
    Ok(Turn { latencies, events: end - first, elapsed: start.elapsed() })
}
