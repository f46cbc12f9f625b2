//! `retention`: what a limit of bytes leaves on disk while twenty times as much is written. Only with `--only retention`.
//!
//! One thread appends batches to a channel that keeps 64 MiB (8 MiB with `--quick`), and looks at the channel's files in between. The bar:
//! never more than 1.25 times the limit and one segment, which is an eighth of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use redex::{RedexFile, RedexFileConfig};

use super::Workload;
use crate::counters::Meter;
use crate::load::Payloads;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "retention";
const PAYLOAD_SIZE: usize = 1024;
/// Bytes that an event counts: payload and index record.
const EVENT_BYTES: u64 = PAYLOAD_SIZE as u64 + 20;
const BATCH: usize = 256;
const LIMIT: u64 = 64 << 20;
const TIMES: u64 = 20;
const PARTS: u64 = 5;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let limit = if session.quick { LIMIT / 8 } else { LIMIT };
    session.doing(format!("retention, {} MiB through {} MiB", (TIMES * limit) >> 20, limit >> 20));
    let _fixed_by_size = session.row_time(Workload::Retention);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let config = RedexFileConfig::default().with_persistent(true).with_retention_max_bytes(limit);
    let file = redex.open_file("bench/retention", config).context("opening the channel")?;
    let (mut meter, mut turns, mut used) = (Meter::new(&dir), Turns::default(), Used { dir: dir.clone(), most: 0 });
    for _ in 0..PARTS {
        turns.push(meter.around(&redex, || turn(&file, &payloads, limit * TIMES / PARTS, &mut used))?);
    }
    let head = file.sweep_retention().wait().context("sweeping")?;
    anyhow::ensure!(file.len() * EVENT_BYTES <= limit, "a sweep left {} events", file.len());
    let first = file.read_one(head).wait()?.context("the head is there")?;
    anyhow::ensure!(*first.payload == *payloads.get(head), "event {head} is another");
    let left = used.look()?;
    let facts = redex.stats().io;
    drop(file);
    store::close(redex)?;
    session.place("store")?;

    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    row.batch = BATCH as u64;
    row.numbers.insert("limit_bytes".to_owned(), limit as f64);
    row.numbers.insert("most_on_disk_bytes".to_owned(), used.most as f64);
    row.numbers.insert("most_over_limit".to_owned(), used.most as f64 / limit as f64);
    let bound = limit * 5 / 4 + limit / 8;
    row.note = Some(format!(
        "{} MiB written through a limit of {} MiB; on disk {:.1} MiB at the most ({:.2} of the limit, bound {:.1} MiB), {:.1} MiB after a sweep",
        (TIMES * limit) >> 20,
        limit >> 20,
        mib(used.most),
        used.most as f64 / limit as f64,
        mib(bound),
        mib(left)
    ));
    session.finish(row.costing(&meter.usage(), &facts))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What the channels' files take.
struct Used {
    dir: std::path::PathBuf,
    most: u64,
}

impl Used {
    fn look(&mut self) -> anyhow::Result<u64> {
        let bytes = bytes_beneath(&self.dir.join("channels"))?;
        self.most = self.most.max(bytes);
        Ok(bytes)
    }
}

fn bytes_beneath(dir: &Path) -> anyhow::Result<u64> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(0) };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        // A file may go while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { bytes_beneath(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Appends one part, and looks at the disk now and then.
fn turn(file: &RedexFile, payloads: &Payloads, bytes: u64, used: &mut Used) -> anyhow::Result<Turn> {
    let first = file.next_seq();
    let end = first + bytes / EVENT_BYTES;
    let mut latencies = Latencies::new();
    let start = Instant::now();
    let mut next = first;
    while next < end {
        let batch: Vec<&[u8]> = (next..next + BATCH as u64).map(|index| payloads.get(index)).collect();
        let sent = Instant::now();
        file.append_batch(&batch).wait().context("appending a batch")?;
        latencies.record_n(sent.elapsed(), BATCH as u64);
        next += BATCH as u64;
        if ((next - first) / BATCH as u64).is_multiple_of(8) {
            used.look()?;
        }
    }
    file.sync().wait().context("syncing")?;
    Ok(Turn { latencies, events: next - first, elapsed: start.elapsed() })
}
