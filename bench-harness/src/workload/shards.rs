//! `shards`: stores with 1, 2 and more shards, up to one a core, with one channel and one thread for each shard. Only with
//! `--only shards`.
//!
//! Each thread keeps 256 durable events in flight in its own channel. The stores are open side by side and take turns, with the raw loop (256
//! events in one write and one flush). `one-shard` rows have as many channels and threads on a single shard: what more shards bring is the difference to these.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile};

use super::closed_loop::ClosedLoop;
use super::{TURN_COUNT, Workload, crew};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::raw_loop::{RawLoop, RawTurns};
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Turn, Turns};
use crate::store;

const NAME: &str = "shards";
const PAYLOAD_SIZE: usize = 256;
const IN_FLIGHT: usize = 256;
/// Names that are tried for a channel on each shard.
const NAMES_MAX: usize = 10_000;
/// Most shards of a store.
const SHARDS_MAX: usize = 64;

/// How a row's time is dealt out: 0.85 to the engine, 0.05 to each way of the raw loop.
const ENGINE_SHARE: f64 = 0.85;
const RAW_SHARE: f64 = 0.05;

/// Shards of a store and threads that write it, and how the row is called.
type Layout = (usize, usize, &'static str);

fn layouts() -> Vec<Layout> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, SHARDS_MAX);
    let mut more: Vec<usize> = (1..).map(|power| 1 << power).take_while(|shards| *shards < cores).collect();
    more.push(cores);
    let both = more.into_iter().flat_map(|count| [(1, count, "one-shard"), (count, count, "shard-each")]);
    std::iter::once((1, 1, "shard-each")).chain(both).collect()
}

/// Rows that it measures.
pub(super) fn row_count() -> u32 {
    layouts().len() as u32
}

/// A store with its channels, and what was measured in it.
struct Contestant {
    layout: Layout,
    dir: PathBuf,
    redex: Redex,
    files: Vec<[RedexFile; 1]>,
    meter: Meter,
    turns: Turns,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    session.doing("shards, opening the stores".to_owned());
    let layouts = layouts();
    let times: Vec<Duration> = layouts.iter().map(|_| session.row_time(Workload::Shards) / TURN_COUNT).collect();
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let mut raw = RawLoop::new(&session.place("raw")?, IN_FLIGHT * PAYLOAD_SIZE)?;
    raw.load(&payloads, IN_FLIGHT);
    let open = |layout: Layout| {
        let dir = session.place(&format!("store-{}-{}", layout.0, layout.1))?;
        Contestant::open(layout, dir, session)
    };
    let mut contestants = layouts.into_iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let mut raw_turns = RawTurns::default();
    for _ in 0..TURN_COUNT {
        for (contestant, time) in contestants.iter_mut().zip(&times) {
            session.doing(format!("shards, {} with {} threads", contestant.layout.0, contestant.layout.1));
            contestant.take_turn(&payloads, time.mul_f64(ENGINE_SHARE))?;
            raw_turns.take(&mut raw, IN_FLIGHT, PAYLOAD_SIZE, time.mul_f64(RAW_SHARE))?;
        }
    }
    let one = contestants[0].turns.rate();
    let same_threads = |threads: usize, contestants: &[(Layout, f64)]| {
        contestants.iter().find(|((shards, count, _), _)| (*shards, *count) == (1, threads)).map(|(_, rate)| *rate)
    };
    let rates: Vec<(Layout, f64)> =
        contestants.iter().map(|contestant| (contestant.layout, contestant.turns.rate())).collect();
    for contestant in contestants {
        let (shards, threads, mode) = contestant.layout;
        let mut row = contestant.finish(session, &payloads)?;
        (row.mode, row.in_flight, row.channels) = (mode, (threads * IN_FLIGHT) as u64, threads as u64);
        let of_one = row.events_per_s / one.max(1e-9);
        let of_same = row.events_per_s / same_threads(threads, &rates).unwrap_or(one).max(1e-9);
        row.numbers.insert("shards".to_owned(), shards as f64);
        row.numbers.insert("ratio_one_shard".to_owned(), of_one);
        row.numbers.insert("ratio_one_shard_same_threads".to_owned(), of_same);
        row.note = Some(format!("{shards} shards, {threads} threads: {of_one:.2}x one of each"));
        if shards > 1 {
            row.note = row.note.map(|note| format!("{note}, {of_same:.2}x one shard with as many threads"));
        }
        session.finish(row.beside(raw_turns.limit()))?;
    }
    session.place("raw").map(drop)
}

impl Contestant {
    fn open(layout: Layout, dir: PathBuf, session: &Session) -> anyhow::Result<Self> {
        let (shards, threads, _) = layout;
        let redex = store::open_with(Redex::builder().shards(shards), &dir, session.backend)?;
        let files = channels(&redex, shards, threads)?;
        let meter = Meter::new(&dir);
        Ok(Self { layout, dir, redex, files, meter, turns: Turns::default() })
    }

    /// All threads side by side.
    fn take_turn(&mut self, payloads: &Payloads, time: Duration) -> anyhow::Result<()> {
        let Self { redex, files, meter, turns, .. } = self;
        turns.push(meter.around(redex, || all_threads(files, payloads, time))?);
        Ok(())
    }

    /// Closes the store, reads every channel back, and removes it.
    fn finish(self, session: &Session, payloads: &Payloads) -> anyhow::Result<Row> {
        let Self { dir, redex, files, meter, turns, .. } = self;
        let facts = redex.stats().io;
        let acknowledged: Vec<(String, u64)> =
            files.iter().map(|[file]| (file.name().to_string(), file.durable())).collect();
        drop(files);
        store::close(redex)?;
        for (name, count) in acknowledged {
            read_back(session, &dir, &name, count, payloads)?;
        }
        std::fs::remove_dir_all(&dir).context("removing a store")?;
        let row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
        Ok(row.costing(&meter.usage(), &facts))
    }
}

fn read_back(session: &Session, dir: &Path, name: &str, count: u64, payloads: &Payloads) -> anyhow::Result<()> {
    ensure!(count > 0, "nothing was acknowledged in {name}");
    readback::sample(dir, session.backend, name, count, session.seed_for(count), |seq| payloads.get(seq))
}

fn all_threads(files: &[[RedexFile; 1]], payloads: &Payloads, time: Duration) -> anyhow::Result<Turn> {
    let jobs = files.iter().map(|file| move || ClosedLoop::resuming(file, payloads).turn(IN_FLIGHT, time));
    let (turns, elapsed) = crew::together(jobs)?;
    Ok(crew::merged(&turns, elapsed))
}

/// A channel for each thread, on the shards in turn. A name's shard shows by the counters, once it has a channel.
fn channels(redex: &Redex, shards: usize, threads: usize) -> anyhow::Result<Vec<[RedexFile; 1]>> {
    let counts = || redex.shard_stats().iter().map(|shard| shard.channels).collect::<Vec<u64>>();
    ensure!(counts().len() == shards, "the store has {} shards instead of {shards}", counts().len());
    let mut wanted: Vec<usize> = (0..shards).map(|shard| (threads + shards - 1 - shard) / shards).collect();
    let mut files = Vec::new();
    for number in 0..NAMES_MAX {
        if files.len() == threads {
            return Ok(files);
        }
        let before = counts();
        let file = store::channel(redex, &format!("bench/shards/{number}"), FsyncPolicy::Never)?;
        let after = counts();
        let shard =
            (0..shards).find(|shard| after[*shard] > before[*shard]).context("a channel counts in its shard")?;
        if wanted[shard] > 0 {
            wanted[shard] -= 1;
            files.push([file]);
        }
    }
    anyhow::bail!("no names were found for {threads} channels on {shards} shards")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One shard and one thread come first; every other count stands beside as many threads on one shard.
    #[test]
    fn every_layout_has_its_counterpart() {
        let layouts = layouts();
        assert_eq!(layouts[0], (1, 1, "shard-each"));
        assert!(layouts.iter().any(|(shards, _, _)| *shards >= 2), "two shards at least");
        for (shards, threads, _) in layouts.iter().filter(|(shards, _, _)| *shards > 1) {
            assert_eq!(shards, threads);
            assert!(layouts.contains(&(1, *threads, "one-shard")));
        }
    }

    /// Channels lie where they are wanted: their events are committed by different shards.
    #[test]
    fn every_shard_gets_a_channel() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let redex = Redex::builder().shards(3).persistent_dir(dir.path()).build().unwrap();
        let files = channels(&redex, 3, 3).unwrap();
        for [file] in &files {
            file.append_durable(b"an event").wait().unwrap();
        }
        assert!(redex.shard_stats().iter().all(|shard| shard.events == 1));
        redex.close().wait().unwrap();
    }
}
